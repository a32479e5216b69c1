/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VHD driver's inside: the format as it lies on disk, and what its files share. Names are those of Microsoft's
 * "Virtual Hard Disk Image Format Specification" 1.0. All integers are big-endian but where said.
 *
 *   fixed        = disk footer
 *   dynamic      = footer header table [block | unused]* footer      in this order as a rule; offsets say where
 *   differencing = dynamic, with locators of its parent somewhere between
 *
 *   footer  = "conectix" features:u32 version:u32 data_offset:u64 time:u32 creator:u8[4] creator_version:u32
 *             host_os:u32 original_size:u64 current_size:u64 cylinders:u16 heads:u8 sectors:u8 type:u32 checksum:u32
 *             id:u8[16] saved:u8 reserved to 512 (before Virtual PC 2004: 511)              "Hard Disk Footer Format"
 *   header  = "cxsparse" reserved:u64 table_offset:u64 version:u32 max_entries:u32 block_size:u32 checksum:u32
 *             parent_id:u8[16] parent_time:u32 reserved:u32 parent_name:u16[256] locator[8] reserved to 1024
 *   locator = code:u32 space:u32 length:u32 reserved:u32 offset:u64           "Parent Locator Entry"; space is not used
 *             code: W2ru relative, W2ku absolute (both UTF-16 little-endian), MacX (a file URL in UTF-8)
 *   table   = max_entries of sector:u32, where the block begins; ffffffff: none               "Block Allocation Table"
 *   block   = bitmap data:u8[block_size]
 *   bitmap  = a bit a sector, the first in the most significant, padded to whole sectors; set: the sector is here,
 *             clear: in the parent, or zeros without one. Xen's tools version 0.1 begin with the least significant.
 *   batmap   = Xen's tools, in the sector behind the table: "tdbatmap" offset:u64 sectors:u32 version:u32 checksum:u32
 *              marker:u8 key_cookie:u8 nonce:u8[32] hash:u8[32]. key_cookie not 0: sectors are AES-XTS, 512 bytes a unit, by
 *              a key of which hash is SHA-256(nonce key); the unit's number is the disk's sector (blktap, include/vhd.h)
 *   checksum = one's complement of the sum of all bytes but its own
 *
 * Invariants of the code that follows:
 *
 *  V1  The footer at the end is the truth; the copy at the front only counts when there is none at the end: a guest
 *      can write a footer into the first sector of a fixed disk.
 *  V2  A block is used as its table entry says only after that entry was judged: it lies in the file, clear of the
 *      header, the table and both footers.
 *  V3  Payload, then the bitmap's bits (rank INDEX), then the entry (rank LEAF). A block that nothing points at yet
 *      lies where the file held zeros, so that readers that ignore bitmaps (qemu) see zeros, too.
 *  V4  The footer moves out of the way before a block is written there, and by more than that block: one commit more
 *      for many blocks. When writing ends it comes back to directly behind the last.
 *  V5  Blocks are never used again: zeros in them are holes of the host file.
 *  V6  The disk changes its shape by the footer at the end, one sector: new tables lie in new space, and it names the header
 *      that names them. The copy at the front follows.
 */
#ifndef VD_FORMATS_VHD_H
#define VD_FORMATS_VHD_H

#include <inttypes.h>
#include <stdatomic.h>

#include "formats/corrupt.h"
#include "formats/parentname.h"
#include "formats/pending.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/error.h"
#include "libvdisk/base/guid.h"
#include "libvdisk/core/format.h"

#define VHD_SECTOR              512u
#define VHD_FOOTER_BYTES        512u
#define VHD_OLD_FOOTER_BYTES    511u
#define VHD_HEADER_BYTES        1024u
#define VHD_VERSION             0x00010000u
#define VHD_CREATOR             "win "          /* of new images: read by current_size everywhere; the geometry would round the size down */
#define VHD_FEATURE_RESERVED    2u              /* always set */
#define VHD_NO_OFFSET           UINT64_MAX      /* data_offset of a fixed disk, table_offset's twin in the header */
#define VHD_ABSENT              UINT32_MAX      /* table entry */
#define VHD_EPOCH               946684800       /* 2000-01-01 UTC, in seconds since 1970 */

#define VHD_FIXED               2u
#define VHD_DYNAMIC             3u
#define VHD_DIFFERENCING        4u

#define VHD_SIZE_MAX            (UINT64_C(2040) << 30)
#define VHD_BLOCK_DEFAULT       (2u << 20)
#define VHD_BLOCK_MIN           (512u << 3)     /* a bitmap of a byte; Windows makes 512 KiB and 2 MiB */
#define VHD_BLOCK_MAX           (256u << 20)
#define VHD_LOCATORS            8
#define VHD_KEY_HASH            32u
#define VHD_LOCATOR_BYTES_MAX   4096u
#define VHD_NAME_BYTES          512u            /* parent_name */
#define VHD_W2RU                0x57327275u
#define VHD_W2KU                0x57326b75u
#define VHD_MACX                0x4d616358u

/* Where fields lie that are written by themselves. */
#define VHD_AT_DATA_OFFSET      16
#define VHD_AT_TIME             24
#define VHD_AT_CREATOR          28
#define VHD_AT_SIZE             48              /* current_size:u64, then the geometry */
#define VHD_AT_GEOMETRY         56
#define VHD_AT_TYPE             60
#define VHD_AT_CHECKSUM         64              /* footer */
#define VHD_AT_TABLE_OFFSET     16              /* header */
#define VHD_AT_MAX_ENTRIES      28
#define VHD_AT_HEADER_CHECKSUM  36
#define VHD_AT_PARENT_ID        40              /* then all that is said of the parent */
#define VHD_AT_PARENT_TIME      56
#define VHD_AT_PARENT_END       768

struct vd_vhd_footer {
	uint32_t version, time, type;
	uint64_t data_offset, current_size;
	uint8_t creator[4];
	uint32_t creator_version;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint8_t id[VD_GUID_LEN];
};

struct vd_vhd_locator {
	uint32_t code, length;
	uint64_t offset;
};

struct vd_vhd_header {
	uint64_t table_offset;
	uint32_t version, max_entries, block_size;
	uint8_t parent_id[VD_GUID_LEN];
	uint32_t parent_time;
	uint8_t parent_name[VHD_NAME_BYTES];
	struct vd_vhd_locator locators[VHD_LOCATORS];
};

struct vd_vhd {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	const char *name;               /* of the image file, for messages after open */
	bool is_fresh, is_device;

	uint8_t footer[VHD_FOOTER_BYTES];       /* as in force */
	struct vd_vhd_footer f;
	bool has_tail;                  /* the footer at the end is sound */
	bool is_short_footer;           /* of 511 bytes */
	struct vd_vhd_header h;         /* dynamic and differencing, as all below */
	struct vd_parent_names parent;
	char id[VD_GUID_TEXT_LEN], parent_id[VD_GUID_TEXT_LEN];

	uint64_t size;
	uint32_t bitmap_size;           /* of a block; its data follows */
	bool bits_from_low;             /* Xen's tools version 0.1 */
	bool is_encrypted;              /* by Xen's tools */
	uint8_t key_nonce[VHD_KEY_HASH], key_hash[VHD_KEY_HASH];

	atomic_uint_fast64_t host_end;  /* bitmaps end before it */
	/* Under the allocation lock. */
	uint64_t data_end;              /* where the next block goes, unless it has to go further out */
	uint64_t append_from;           /* 0: anywhere behind the data */
	uint64_t footer_off;            /* of the footer at the end; UINT64_MAX: none for now */
	uint64_t footer_born;           /* vd_meta_n_snapshots() when it moved there */
	bool footer_has_moved;
	uint32_t next_time;             /* 0: the next stamp is of the clock; else the one that a child was told of */
	uint64_t walked_end;            /* what lies below may have been scrubbed, by whom the walk told that it is free */
	struct vd_pending pending;
	uint64_t named_end;             /* by the last check: what lies behind, nothing names. 0: not known */
};

static inline bool vd_vhd_is_fixed(const struct vd_vhd *s)
{
	return s->f.type == VHD_FIXED;
}

/* vhd_footer.c: footer and header, in memory and at their places. */
/* False: no footer, or its checksum is wrong. len: 512 or 511. */
bool vd_vhd_footer_parse(const uint8_t *raw, size_t len, struct vd_vhd_footer *f);
/* Finds the footer in force (V1), fills footer, f, has_tail, footer_off, data_end. */
int vd_vhd_footer_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
int vd_vhd_header_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
/* After the header: whether Xen's tools encrypted the disk. */
int vd_vhd_batmap_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
uint32_t vd_vhd_checksum(const uint8_t *raw, size_t len, size_t at_checksum);
/* The nearest geometry that is not larger (appendix of the specification), three fields in 4 bytes. */
void vd_vhd_geometry(uint64_t size, uint8_t out[4]);
uint64_t vd_vhd_disk_size(const struct vd_vhd_footer *f);
/* Seconds since 2000. */
uint32_t vd_vhd_now(void);
/* Changes the footer in memory. */
void vd_vhd_footer_set_time(struct vd_vhd *s, uint32_t seconds);
void vd_vhd_footer_set_size(struct vd_vhd *s, uint64_t size);
void vd_vhd_footer_set_header(struct vd_vhd *s, uint64_t off, uint32_t type);
/* Writes it at the front (not fixed) and, when that is durable, at footer_off; both durable on return. */
int vd_vhd_footer_store(struct vd_vhd *s, struct vd_error *e) VD_MUST_CHECK;
/* The same directly behind the data, where the file ends then. No table is dirty. */
int vd_vhd_footer_settle(struct vd_vhd *s, struct vd_error *e) VD_MUST_CHECK;
/* What the footer in memory says comes into force (V6), then it settles. Failed, it may be in force or not. */
int vd_vhd_footer_enact(struct vd_vhd *s, struct vd_error *e) VD_MUST_CHECK;
/* Another footer further out, which says the same; the one before goes on being valid until something else is. */
int vd_vhd_footer_put_at(struct vd_vhd *s, uint64_t off, struct vd_error *e) VD_MUST_CHECK;

/* vhd_parent.c: how the parent is named. */
struct vd_vhd_locator_text {
	uint32_t code;
	uint8_t raw[VHD_LOCATOR_BYTES_MAX];
	size_t len;
};
/* The one locator that is written. */
int vd_vhd_locator_build(const char *name, struct vd_vhd_locator_text *out, struct vd_error *e) VD_MUST_CHECK;
/* What the header says of the parent, from parent_id on, and its checksum; `name` NULL: of none. */
void vd_vhd_header_set_parent(uint8_t raw[VHD_HEADER_BYTES], const uint8_t id[VD_GUID_LEN], uint32_t time, const char *name,
			      const struct vd_vhd_locator_text *l, uint64_t locator_off);
void vd_vhd_header_seal(uint8_t raw[VHD_HEADER_BYTES]);
int vd_vhd_parent_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
int vd_vhd_check_parent(void *st, const void *parent, struct vd_error *e);

/* vhd_map.c */
int vd_vhd_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e);
/* Where the block begins, judged; 0: there is none. */
int vd_vhd_block(const struct vd_vhd *s, uint64_t block, unsigned meta_flags, uint64_t *host_off,
		 struct vd_error *e) VD_MUST_CHECK;
/* The same of an entry that was read already. */
int vd_vhd_judge_entry(const struct vd_vhd *s, uint64_t block, uint32_t entry, uint64_t *host_off,
		       struct vd_error *e) VD_MUST_CHECK;
/* How many sectors of a block from `sector` on, at most n, are alike, and what they are. */
int vd_vhd_sectors_alike(const struct vd_vhd *s, uint64_t host_off, uint32_t sector, uint32_t n, unsigned meta_flags,
			 bool *are_set, uint32_t *n_alike, struct vd_error *e) VD_MUST_CHECK;

/* vhd_write.c */
uint32_t vd_vhd_next_time(const struct vd_vhd *s);
int vd_vhd_begin_write(void *st, struct vd_error *e);
int vd_vhd_end_write(void *st, struct vd_error *e);
int vd_vhd_reserve(void *st, struct vd_resv *v, struct vd_error *e);
int vd_vhd_publish(void *st, struct vd_resv *v, struct vd_error *e);
void vd_vhd_cancel(void *st, struct vd_resv *v);
int vd_vhd_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e);
int vd_vhd_freed(void *st, const struct vd_range *range, struct vd_error *e);

/* vhd_layout.c: what lies beside that which is in force, until it is. */
static inline uint64_t vd_vhd_n_blocks(const struct vd_vhd *s, uint64_t size)
{
	return size / s->h.block_size + (size % s->h.block_size != 0);
}
int vd_vhd_judge_size(const struct vd_vhd *s, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
/* Room behind the data, with the footer behind it. */
int vd_vhd_make_room(struct vd_vhd *s, uint64_t len, uint64_t *off, struct vd_error *e) VD_MUST_CHECK;
/* A table: entry i is that of block i - shift, absent where there is no such block. Durable on return. */
int vd_vhd_table_write(struct vd_vhd *s, uint64_t to, uint32_t n_entries, int64_t shift, struct vd_error *e) VD_MUST_CHECK;
/* The header as it lies there, with another table. */
int vd_vhd_header_remake(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, uint8_t raw[VHD_HEADER_BYTES],
			 struct vd_error *e) VD_MUST_CHECK;
/* Nothing that was read of tables holds any more: these are in force, and data ends there. */
void vd_vhd_tables_changed(struct vd_vhd *s, uint64_t table_off, uint32_t n_entries, uint64_t data_end);
int vd_vhd_make_zeros(struct vd_vhd *s, uint64_t off, uint64_t end, struct vd_error *e) VD_MUST_CHECK;
void vd_vhd_release(struct vd_vhd *s, uint64_t host_off);
/* Where header, table and locators end. */
uint64_t vd_vhd_tables_end(const struct vd_vhd *s);
bool vd_vhd_can_trim(const struct vd_vhd *s);
/* Data ends there, and so does the file, but for its footer. Nothing that is needed lies behind. */
int vd_vhd_trim(struct vd_vhd *s, uint64_t data_end, struct vd_error *e) VD_MUST_CHECK;
/* The same behind the last of the first n blocks, if all entries are sound. */
int vd_vhd_trim_blocks(struct vd_vhd *s, uint64_t n, struct vd_error *e) VD_MUST_CHECK;
/* Blocks first .. first + n of a table that is not in force any more have no owner. */
int vd_vhd_release_blocks(struct vd_vhd *s, uint64_t table_off, uint64_t first, uint64_t n, struct vd_error *e) VD_MUST_CHECK;

/* vhd_check.c */
extern const struct vd_repair_ops vd_vhd_repair_ops;
/* vhd_backing.c */
int vd_vhd_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e);
int vd_vhd_expect_parent(void *st, void *parent, struct vd_error *e);
int vd_vhd_empty(void *st, struct vd_error *e);
/* vhd_create.c, vhd_resize.c, vhd_shift.c, vhd_walk.c */
int vd_vhd_create(const struct vd_create *c, struct vd_error *e);
int vd_vhd_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e);
int vd_vhd_reach(void *st, uint64_t size, struct vd_error *e);
int vd_vhd_resize(void *st, uint64_t size, struct vd_error *e);
int vd_vhd_shift(void *st, int64_t by, bool only_judge, struct vd_error *e);
int vd_vhd_walk(void *st, struct vd_window *w, struct vd_error *e);

#endif
