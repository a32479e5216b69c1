/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VHDX driver's inside: the format as it lies on disk, and what its files share. Names are those of [MS-VHDX]. All
 * integers are little-endian, GUIDs have their first three fields so. A MiB is the unit of space.
 *
 *   file     = MiB 0, then log, metadata, bat and blocks, each of whole MiB, in any order
 *   MiB 0    = at 0 "vhdxfile" creator:u16[256]; at 64K and 128K header; at 192K and 256K regions
 *   header   = "head" checksum:u32 sequence:u64 file_write:guid data_write:guid log:guid log_version:u16 version:u16
 *              log_length:u32 log_offset:u64 reserved to 4096. The one with the higher sequence is in force
 *   regions  = "regi" checksum:u32 count:u32 reserved:u32 {guid offset:u64 length:u32 required:u32}* to 65536
 *   metadata = "metadata" reserved:u16 count:u16 reserved:u8[20] {guid offset:u32 length:u32 flags:u32 reserved:u32}*
 *              to 65536; the items lie behind, by their offset in the region
 *   locator  = type:guid reserved:u16 count:u16 {key:u32 value:u32 key_length:u16 value_length:u16}*, an item; the texts
 *              lie behind, UTF-16, by their offset in the item. Keys: parent_linkage(2), relative_path, volume_path,
 *              absolute_win32_path
 *   bat      = entry:u64 for each block, and after each chunk_ratio of them one for the chunk's sector bitmap
 *   entry    = state:3 reserved:17 MiB:44; payload: 0 not present, 1 undefined, 2 zero, 3 unmapped (5 in version 0.95),
 *              6 fully present, 7 partially present; bitmap: 0 not present, 6 present
 *   chunk    = 2^23 sectors; chunk_ratio blocks. Its bitmap is one MiB: a bit a sector, the first in the least
 *              significant; set: the sector is here, clear: in the parent
 *
 *   log      = entries of whole 4 KiB, going round. An entry:
 *              "loge" checksum:u32 length:u32 tail:u32 sequence:u64 n:u32 reserved:u32 log:guid flushed:u64 last:u64
 *              n descriptors of 32 bytes, to 4096; a data sector of 4096 for each "desc"
 *              "desc" trailing:u32 leading:u64 offset:u64 sequence:u64   the data's last 4 and first 8 bytes
 *              "zero" reserved:u32 length:u64 offset:u64 sequence:u64
 *              "data" sequence_high:u32 data:u8[4084] sequence_low:u32
 *   checksum = CRC-32C of header, region table or entry with the field zeroed
 *
 * Invariants of the code that follows:
 *
 *  X1  A log that is not empty is replayed into the cache of tables on open, as dirty pages, which nothing drops and
 *      only a commit writes: so all else reads the replayed tables, and a handle for reading never writes.
 *  X2  The first write puts a replayed log in place, ends it, opens a log of its own and says so in the headers. From
 *      then on each commit of tables is in the log before it is in place.
 *  X3  An entry is whole by itself (its tail is itself), takes at most half of the log, and is in place and durable
 *      before the next is begun: so the newest entry that is whole, the last or the one before, is all that matters.
 *  X4  A table entry is judged on each use.
 *  X5  A block that nothing points at yet lies where the file holds zeros: behind its end, or in space made a hole.
 *  X6  The disk changes its shape by the region tables: a bat and a metadata region in new space, named first by the table that
 *      is not in force, then by the other. A table that is torn does not count, so the second write is the change.
 */
#ifndef VD_FORMATS_VHDX_H
#define VD_FORMATS_VHDX_H

#include <inttypes.h>
#include <stdatomic.h>

#include "formats/corrupt.h"
#include "formats/parentname.h"
#include "formats/pending.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/crc32c.h"
#include "libvdisk/base/error.h"
#include "libvdisk/base/guid.h"
#include "libvdisk/core/format.h"

#define VHDX_MIB                (UINT64_C(1) << 20)
#define VHDX_HEADER_OFF         65536u          /* and twice that */
#define VHDX_HEADER_BYTES       4096u
#define VHDX_REGIONS_OFF        196608u         /* and 64 KiB behind */
#define VHDX_REGIONS_BYTES      65536u
#define VHDX_TABLE_ENTRIES_MAX  2047u           /* of region and metadata table */
#define VHDX_SIZE_MAX           (UINT64_C(64) << 40)
#define VHDX_BLOCK_DEFAULT      (32u << 20)
#define VHDX_BLOCK_MAX          (256u << 20)
#define VHDX_CHUNK_SECTORS      (UINT64_C(1) << 23)
#define VHDX_ITEM_MAX           65536u          /* of a parent locator: some names */

#define VHDX_NOT_PRESENT        0u
#define VHDX_UNDEFINED          1u
#define VHDX_ZERO               2u
#define VHDX_UNMAPPED           3u
#define VHDX_UNMAPPED_095       5u
#define VHDX_FULL               6u              /* and of a sector bitmap: present */
#define VHDX_PARTIAL            7u
#define VHDX_STATE_MASK         UINT64_C(7)
#define VHDX_RESERVED_MASK      UINT64_C(0xffff8)

#define VHDX_LOG_SECTOR         4096u
#define VHDX_LOG_HEADER_BYTES   64u
#define VHDX_DESCRIPTOR_BYTES   32u
#define VHDX_LOG_DATA_BYTES     4084u           /* of the middle of a data sector */
#define VHDX_LOG_LENGTH_MAX     (32u << 20)     /* read into memory; Windows makes 1 MiB */

struct vd_vhdx_header {
	uint64_t sequence, log_offset;
	uint32_t log_length;
	uint16_t log_version, version;
	uint8_t file_write[VD_GUID_LEN], data_write[VD_GUID_LEN], log[VD_GUID_LEN];
};

struct vd_vhdx_area {
	const char *what;
	uint64_t off, len;
};

struct vd_vhdx {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	const char *name;               /* of the image file, for messages after open */
	bool is_fresh, is_device, writes;

	struct vd_vhdx_header h;
	unsigned current;               /* which of the two headers is in force */
	unsigned current_regions;       /* and which of the region tables */
	bool has_both_headers;          /* both are sound */
	struct vd_vhdx_area log, bat, metadata;
	struct vd_vhdx_area *unknown;   /* regions that need not be understood */
	size_t n_unknown;
	uint32_t metadata_used;         /* bytes of the region up to the end of its last item */

	uint64_t size, size_off;        /* of the disk; where the metadata item lies that says it */
	uint32_t block_size, sector_size, physical_sector_size;
	bool leaves_allocated, has_parent;
	uint64_t chunk_ratio;
	uint8_t linkage[2][VD_GUID_LEN];
	unsigned n_linkages;
	uint8_t next_data_write[VD_GUID_LEN];   /* not 0: the identifier that a child was told of, for the next writes */
	struct vd_parent_names parent;
	char id[VD_GUID_TEXT_LEN], parent_id[VD_GUID_TEXT_LEN];

	/* What the log held: pieces of the file that are newer in memory. */
	struct vd_vhdx_area *replayed;
	atomic_size_t n_replayed;
	uint64_t replayed_end;          /* how long the file is after the replay */

	atomic_uint_fast64_t host_end;  /* blocks begin before it */
	/* Under the allocation lock. */
	uint64_t data_end;              /* where the next block goes, unless it has to go further out */
	uint64_t append_from;           /* 0: anywhere behind the data, and where a block was given back */
	uint64_t file_end;
	uint64_t walked_end;            /* what lies below may have been scrubbed, by whom the walk told that it is free */
	struct vd_pending pending;      /* by index in the bat */
	uint64_t *spare;                /* blocks that were given back, all zeros */
	size_t n_spare, max_spare;

	/* The commit's. */
	bool log_is_open, is_writing;
	bool has_new_identifier;        /* since the log was opened: what is written now is known to be another disk */
	uint64_t log_sequence;
	uint32_t log_head;              /* where the next entry goes */
	uint64_t flushed_end;           /* the file's length at the last flush of the log, or before it */
	uint8_t *log_buf;
};

/* vhdx_header.c: what lies in MiB 0. */
extern const uint8_t vd_vhdx_no_guid[VD_GUID_LEN];
int vd_vhdx_headers_read(struct vd_vhdx *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
int vd_vhdx_regions_read(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
/* One header at its place. */
void vd_vhdx_header_build(const struct vd_vhdx_header *h, uint8_t raw[VHDX_HEADER_BYTES]);
/* Both, one after the other, with the next sequences; durable on return. */
int vd_vhdx_headers_write(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
void vd_vhdx_regions_build(const struct vd_vhdx *s, uint8_t raw[VHDX_REGIONS_BYTES]);
/* Whether the other table says the same. */
int vd_vhdx_regions_compare(struct vd_vhdx *s, bool *are_same, struct vd_error *e) VD_MUST_CHECK;
/* Bat and metadata as they are in memory come into force (X6). Failed, they may be or not. */
int vd_vhdx_regions_write(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
/* What of the image's own the range touches, or NULL. */
const char *vd_vhdx_overlaps(const struct vd_vhdx *s, uint64_t off, uint64_t len);

/* vhdx_metadata.c */
extern const uint8_t vd_vhdx_bat_guid[VD_GUID_LEN], vd_vhdx_metadata_guid[VD_GUID_LEN];
int vd_vhdx_metadata_read(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
/* Fills `raw`, the first 256 KiB of the region. locator may be of length 0. */
#define VHDX_METADATA_BYTES 262144u
int vd_vhdx_metadata_build(const struct vd_vhdx *s, struct vd_bytes locator, uint8_t *raw, struct vd_error *e) VD_MUST_CHECK;
/* The region as it is in the file, and what it is to be: of another size. */
struct vd_vhdx_metadata_next {
	uint64_t size;
};
/* Written to new space, durably; *off: where. */
int vd_vhdx_metadata_remake(struct vd_vhdx *s, const struct vd_vhdx_metadata_next *next, struct vd_vhdx_area *to,
			    struct vd_error *e) VD_MUST_CHECK;
/* The locator's bytes, in memory of `cap`. */
int vd_vhdx_metadata_locator(struct vd_vhdx *s, uint8_t *raw, size_t cap, size_t *len, struct vd_error *e) VD_MUST_CHECK;
/* Another locator, or (len 0) no parent, in the cache of tables; few enough pages for one entry of the log. */
int vd_vhdx_metadata_set_locator(struct vd_vhdx *s, struct vd_bytes locator, struct vd_error *e) VD_MUST_CHECK;
/* How many entries the bat has for a disk of this size, and where those of a block and of a chunk's bitmap are. */
uint64_t vd_vhdx_n_entries(const struct vd_vhdx *s, uint64_t size);
static inline uint64_t vd_vhdx_n_blocks(const struct vd_vhdx *s, uint64_t size)
{
	return size / s->block_size + (size % s->block_size != 0);
}
static inline uint64_t vd_vhdx_block_entry(const struct vd_vhdx *s, uint64_t block)
{
	return block + block / s->chunk_ratio;
}
static inline uint64_t vd_vhdx_bitmap_entry(const struct vd_vhdx *s, uint64_t chunk)
{
	return (chunk + 1) * s->chunk_ratio + chunk;
}
static inline bool vd_vhdx_is_bitmap_entry(const struct vd_vhdx *s, uint64_t entry)
{
	return entry % (s->chunk_ratio + 1) == s->chunk_ratio;
}
static inline uint64_t vd_vhdx_entry_off(const struct vd_vhdx *s, uint64_t entry)
{
	return s->bat.off + entry * 8;
}

/* vhdx_parent.c */
int vd_vhdx_locator_read(struct vd_vhdx *s, struct vd_bytes item, uint64_t at, struct vd_error *e) VD_MUST_CHECK;
/* What a locator is to say: the parent's identifiers; its name, or, NULL, the names that an existing locator has. */
struct vd_vhdx_locator_next {
	const uint8_t (*linkage)[VD_GUID_LEN];
	unsigned n_linkages;
	const char *name;
	struct vd_bytes old;
};
int vd_vhdx_locator_build(const struct vd_vhdx_locator_next *next, uint8_t *raw, size_t cap, size_t *len,
			  struct vd_error *e) VD_MUST_CHECK;
int vd_vhdx_check_parent(void *st, const void *parent, struct vd_error *e);

/* vhdx_replay.c: keeps X1. */
int vd_vhdx_log_replay(struct vd_vhdx *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
/* Puts in place what was replayed. */
int vd_vhdx_log_settle(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
/* Whether a piece of payload is newer in the log, where nobody looks for it. */
bool vd_vhdx_is_replayed(const struct vd_vhdx *s, uint64_t off, uint64_t len);

/* vhdx_log.c: keeps X2 and X3. */
enum vd_vhdx_change { VHDX_CHANGES_TABLES, VHDX_CHANGES_DISK };       /* what the guest sees stays; does not */
int vd_vhdx_log_open(struct vd_vhdx *s, enum vd_vhdx_change change, struct vd_error *e) VD_MUST_CHECK;
int vd_vhdx_log_close(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;

/* vhdx_map.c */
int vd_vhdx_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e);
/* An entry of the bat: *state and *host_off, judged; 0: none. */
int vd_vhdx_entry(const struct vd_vhdx *s, uint64_t entry, unsigned meta_flags, uint32_t *state, uint64_t *host_off,
		  struct vd_error *e) VD_MUST_CHECK;
int vd_vhdx_judge_entry(const struct vd_vhdx *s, uint64_t entry, uint64_t raw, uint32_t *state, uint64_t *host_off,
			struct vd_error *e) VD_MUST_CHECK;
/* How many sectors of a partially present block from guest_off on, before `end`, are alike, in bytes, and what they are. */
int vd_vhdx_sectors_alike(const struct vd_vhdx *s, uint64_t guest_off, uint64_t end, unsigned meta_flags, bool *are_set,
			  uint64_t *len, struct vd_error *e) VD_MUST_CHECK;

/* vhdx_write.c */
int vd_vhdx_begin_write(void *st, struct vd_error *e);
int vd_vhdx_end_write(void *st, struct vd_error *e);
int vd_vhdx_reserve(void *st, struct vd_resv *v, struct vd_error *e);
int vd_vhdx_publish(void *st, struct vd_resv *v, struct vd_error *e);
void vd_vhdx_cancel(void *st, struct vd_resv *v);
int vd_vhdx_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e);
int vd_vhdx_freed(void *st, const struct vd_range *range, struct vd_error *e);
void vd_vhdx_release(struct vd_vhdx *s, uint64_t host_off);
int vd_vhdx_entry_write(struct vd_vhdx *s, uint64_t entry, uint32_t state, uint64_t host_off, enum vd_meta_rank rank,
			struct vd_error *e) VD_MUST_CHECK;
/* The file reaches to `end` at least, and further when it had to be made longer. */
int vd_vhdx_extend(struct vd_vhdx *s, uint64_t end, struct vd_error *e) VD_MUST_CHECK;
/* Nothing that is needed lies behind: the file ends there, or behind the tables, when the log ends. */
void vd_vhdx_trim(struct vd_vhdx *s, uint64_t blocks_end);
int vd_vhdx_zero_space(struct vd_vhdx *s, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* Whole MiB of zeros behind all that is in use. */
int vd_vhdx_new_area(struct vd_vhdx *s, uint64_t len, uint64_t *off, struct vd_error *e) VD_MUST_CHECK;

/* vhdx_bat.c: another bat beside that in force. */
struct vd_vhdx_bat_next {
	uint64_t size;                  /* of the disk */
	int64_t shift;                  /* its blocks have so much higher numbers */
};
/* Written to new space with the bitmaps that it takes, durably. */
int vd_vhdx_bat_remake(struct vd_vhdx *s, const struct vd_vhdx_bat_next *next, struct vd_vhdx_area *to,
		       struct vd_error *e) VD_MUST_CHECK;

/* vhdx_resize.c */
int vd_vhdx_judge_size(const struct vd_vhdx *s, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
/* What was written to the cache so far, through the log and in place. */
int vd_vhdx_commit(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;
/* A bat that reaches so far, and further in a disk with a parent. */
int vd_vhdx_move_bat(struct vd_vhdx *s, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
/* The entry names nothing any more, and its block has no owner. Entries that make no sense stay: *is_sound. */
int vd_vhdx_cut_entry(struct vd_vhdx *s, uint64_t entry, bool *is_sound, struct vd_error *e) VD_MUST_CHECK;
/* After an act: nobody else ends the log that it began on a handle that writes nothing more. */
int vd_vhdx_shape_changed(struct vd_vhdx *s, struct vd_error *e) VD_MUST_CHECK;

/* vhdx_check.c */
extern const struct vd_repair_ops vd_vhdx_repair_ops;
/* vhdx_backing.c */
int vd_vhdx_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e);
int vd_vhdx_expect_parent(void *st, void *parent, struct vd_error *e);
int vd_vhdx_empty(void *st, struct vd_error *e);
/* vhdx_create.c, vhdx_resize.c, vhdx_shift.c, vhdx_walk.c */
int vd_vhdx_create(const struct vd_create *c, struct vd_error *e);
int vd_vhdx_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e);
int vd_vhdx_reach(void *st, uint64_t size, struct vd_error *e);
int vd_vhdx_resize(void *st, uint64_t size, struct vd_error *e);
int vd_vhdx_shift(void *st, int64_t by, bool only_judge, struct vd_error *e);
int vd_vhdx_walk(void *st, struct vd_window *w, struct vd_error *e);

#endif
