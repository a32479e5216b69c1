/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VMDK driver's inside: the format as it lies on disk, and what its files share. Field names are those of VMware's
 * "Virtual Disk Format 5.0"; COWD and seSparse have no public text and are as VMware's products and qemu have them.
 * All integers are little-endian; a sector has 512 bytes, and where a field counts sectors its name says so here.
 *
 *   disk        = a descriptor and the extents that it lists, one after the other
 *   descriptor  = text: a file of its own, or inside a hosted sparse extent, padded with NULs
 *   line        = '#' comment | key '=' value | extent; blanks around all; ends in LF or CR LF; keys in any case
 *   value       = '"' text '"' | text, in the encoding that `encoding=` names
 *   extent      = access sectors type [ '"' file '"' [ first_sector [ partition_uuid [ device_id ]]]]
 *   access      = "RW" | "RDONLY" | "NOACCESS"
 *   type        = "FLAT" | "VMFS" | "ZERO" | "SPARSE" | "VMFSSPARSE" | "SESPARSE" (others name devices of a VMware host)
 *
 *   hosted sparse extent (SPARSE):
 *   header      = magic:u32 "KDMV" version:u32 flags:u32 capacity:u64 grain:u64 desc_off:u64 desc_len:u64
 *                 gtes_per_gt:u32 rgd_off:u64 gd_off:u64 overhead:u64 unclean:u8 "\n \r\n" compression:u16
 *                 packed without gaps (u64s at odd places), 512 bytes in all; u64s count sectors
 *   flags       = 0: has_newline_test 1: has_redundant 2: has_zeroed_grains 16: is_compressed 17: has_markers;
 *                 an unknown one of the high half is refused
 *   GD, RGD     = one u32 for each grain table: its sector; 0: no table
 *   GT          = gtes_per_gt u32: a grain's sector; 0: nothing here; 1: zeros, with has_zeroed_grains
 *   compressed  = gd_off -1: the header that counts, the footer, is in the last sector but one of the file;
 *                 each grain is [lba:u64] size:u32 zlib stream, the lba with has_markers only
 *   marker      = sectors:u64 0:u32 type:u32, alone in its sector, before a table; see enum vd_vmdk_marker
 *
 *   COWD extent (VMFSSPARSE): header = "COWD" 1:u32 flags:u32 capacity:u32 grain:u32 gd_off:u32 gd_entries:u32
 *                 next_free:u32 geometry:u32[3] ... unclean:u32 (at 1648) ..., 2048 bytes in all; tables of 4096 u32 as above,
 *                 made when they are needed, without redundant ones and zeroed grains
 *   seSparse extent: header = 0xcafebabe:u64 0x200000001:u64 capacity:u64 grain:u64 gt_sectors:u64 flags:u64 0:u64[4]
 *                 then pairs off:u64 sectors:u64: volatile header, journal header, journal, GD, GTs, free bitmap,
 *                 back map, grains. GD entry = 0 | 0x10000000 << 32 | number of the table.
 *                 GT entry = kind:4 number:60, the number rotated: its low 12 bits stand above the other 48
 *
 * Invariants of the code that follows:
 *
 *  V1  A grain that a table names stays named: what becomes zeros keeps its place, as a hole in the host file. Only acts on
 *      the shape release space; at the end of the file it goes, elsewhere it stays unused.
 *  V2  A grain table entry is written to the redundant table first, in rank order; both are the same at every commit.
 *  V3  What map() reads is constant after open, or in tables, which go through core/meta.
 *  V4  An entry is judged on each use: nothing is read, written or allocated by its word before that.
 *  V5  The extents of a disk leave no gap: an extent that may not be read is an error where it is, never left out.
 */
#ifndef VD_FORMATS_VMDK_H
#define VD_FORMATS_VMDK_H

#include <inttypes.h>
#include <stdatomic.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/error.h"
#include "libvdisk/core/format.h"

#define VMDK_SECTOR             512
#define VMDK_MAGIC              0x564d444bu     /* "KDMV" */
#define VMDK_COWD_MAGIC         0x44574f43u     /* "COWD" */
#define VMDK_SE_MAGIC           UINT64_C(0xcafebabe)
#define VMDK_SE_VOLATILE_MAGIC  UINT64_C(0xcafecafe)
#define VMDK_SE_VERSION         UINT64_C(0x200000001)
#define VMDK_CTK_MAGIC          0xf61972a2u     /* a file of changed block tracking: a2 72 19 f6 */
#define VMDK_HEADER_LEN         512
#define VMDK_COWD_HEADER_LEN    2048
#define VMDK_COWD_AT_FREE       28
#define VMDK_COWD_AT_UNCLEAN    1648
#define VMDK_COWD_GTES          4096
#define VMDK_AT_RGD             48
#define VMDK_AT_GD              56
#define VMDK_AT_OVERHEAD        64
#define VMDK_AT_UNCLEAN         72

#define VMDK_FLAG_NEWLINE       (UINT32_C(1) << 0)
#define VMDK_FLAG_REDUNDANT     (UINT32_C(1) << 1)
#define VMDK_FLAG_ZEROED        (UINT32_C(1) << 2)
#define VMDK_FLAG_COMPRESSED    (UINT32_C(1) << 16)
#define VMDK_FLAG_MARKERS       (UINT32_C(1) << 17)
#define VMDK_FLAGS_INCOMPATIBLE UINT32_C(0xffff0000)
#define VMDK_GD_AT_END          UINT64_MAX

enum vd_vmdk_marker { VMDK_MARKER_EOS, VMDK_MARKER_GT, VMDK_MARKER_GD, VMDK_MARKER_FOOTER, VMDK_MARKER_PROGRESS };
#define VMDK_MARKER_LEN         12              /* lba and size, before a grain */

#define VMDK_CID_NONE           UINT32_C(0xffffffff)
#define VMDK_CID_LONG           UINT32_C(0xfffffffe) /* the descriptor has a longContentID instead */

/* Limits: they bound what a header can make us allocate or read. */
#define VMDK_DESCRIPTOR_MAX     (1u << 20)      /* 4096 extents with names of 200 bytes */
#define VMDK_EXTENTS_MAX        4095            /* VD_SET_MAX less the descriptor's file */
#define VMDK_SECTORS_MAX        (UINT64_C(1) << 53)
#define VMDK_GRAIN_MAX          (UINT64_C(1) << 30)
#define VMDK_PACKED_GRAIN_MAX   (UINT64_C(16) << 20)
#define VMDK_GTES_MAX           4096
#define VMDK_GD_ENTRIES_MAX     (UINT64_C(1) << 26) /* 64 TiB of seSparse has 4 million */
#define VMDK_SPARSE_MAX         ((UINT64_C(2) << 40) - (UINT64_C(8) << 30)) /* written: tables and descriptor take less than a 512th */
/* VMware's own extents of disks in parts: 2 GiB less 1 MiB, for file systems that end there. */
#define VMDK_PART_BYTES         (UINT64_C(4192256) * VMDK_SECTOR)
#define VMDK_BATCH              256             /* table entries looked at together: on the stack */

enum vd_vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };
enum vd_vmdk_kind { VMDK_FLAT, VMDK_ZERO, VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE };

/* A piece of the descriptor's text. */
struct vd_vmdk_span {
	size_t at, len;
};

/* An extent as a line of the descriptor has it. */
struct vd_vmdk_line {
	enum vd_vmdk_access access;
	enum vd_vmdk_kind kind;
	uint64_t sectors, first_sector;
	char *file;                     /* NULL: none is named */
	struct vd_vmdk_span line, digits, type, rest;   /* all of it, with its end; its size; its type's word; what follows the name */
};

/* The *_in say where in the text a value is, without quotes; of what is not said they are empty. */
struct vd_vmdk_descriptor {
	uint32_t version, cid, parent_cid;
	bool has_cid;
	struct vd_vmdk_span cid_in, parent_cid_in, create_type_in, hint_in;
	char *create_type;              /* NULL: not said */
	char *outside;                  /* a value that names a file, of a key that means nothing here; NULL: there is none */
	size_t unknown_line;            /* the number of a line that is no comment, pair or extent; 0: there is none */
	char *encoding, *parent_hint, *change_track, *adapter_type, *hardware;
	struct vd_vmdk_line *lines;
	size_t n_lines;
};

/* A piece of an extent's file that holds no grains. */
struct vd_vmdk_area {
	uint64_t off, end;
};
#define VMDK_SE_PARTS 5
#define VMDK_AREAS_MAX 4                /* header, descriptor, GD, RGD */

/* A sparse extent's tables. Offsets and lengths in bytes. */
struct vd_vmdk_sparse {
	uint64_t capacity, grain, span; /* span: guest bytes that one table maps */
	atomic_uint_fast64_t host_end;  /* grains begin below this: the end of the file, or of what was allocated since */
	uint64_t gd_off, rgd_off;       /* rgd_off 0: none */
	uint64_t n_tables;
	uint64_t tables_off, grains_off;/* seSparse */
	struct vd_vmdk_area se_parts[VMDK_SE_PARTS];    /* volatile header, journal's header, journal, free bitmap, back map */
	uint32_t entries, entry_size;   /* of a table */
	uint32_t version, flags;        /* hosted */
	uint64_t overhead;              /* hosted: grains begin here, as the header says */
	uint64_t free_at;               /* COWD: nothing lies from here on, as the header says */
	uint64_t desc_off, desc_len;    /* hosted: embedded descriptor; 0: none */
	bool unclean;
	struct vd_vmdk_area areas[VMDK_AREAS_MAX];
	size_t n_areas;
	struct vd_vmdk_area tables[2];  /* writing: where the tables of either directory lie; end 0: not known */
	bool lost_first;                /* the first directory is unusable: gd_off is the redundant one */
	bool lost_second;               /* the redundant one cannot be where the header says, so there is none */
};

struct vd_vmdk_extent {
	enum vd_vmdk_access access;
	enum vd_vmdk_kind kind;
	uint64_t start, end;            /* guest bytes */
	uint32_t file;
	uint64_t host_off;              /* FLAT */
	struct vd_vmdk_sparse sp;       /* kinds with tables */
};

struct vd_vmdk {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	const char *name;               /* of the image file, for messages after open */
	uint32_t next_cid;              /* which the child expects when this is written; 0: any */
	const struct vd_vmdk *parent;   /* which is being written by a commit; else NULL */
	uint32_t parent_now;            /* another CID that the parent has, by a commit that was cut off; 0: it has not */
	struct vd_vmdk_descriptor d;
	uint64_t desc_off, text_len;    /* of the text in file 0; without the NULs behind it */
	uint64_t size;
	uint32_t unit;                  /* the largest grain; 1: flat extents only */
	bool has_parent, is_embedded, is_lone_extent, is_packed, is_misaligned, is_utf16;
	bool is_incomplete;             /* writing: a grain table is missing or damaged */
	bool is_fresh, appends, scrubs;
	struct vd_vmdk_stream *stream;  /* not NULL: this is a new stream-optimized disk */
	bool is_streaming;              /* of which the end is not there */
	char cid[12], parent_cid[12];   /* for reports; empty: there is none */
	char *parent_names[4];          /* where else the parent may be; NULL ends them */
	struct vd_vmdk_extent *extents;
	size_t n_extents;
};

/* A hosted sparse header, as it is on disk: offsets and lengths in sectors. */
struct vd_vmdk_header {
	uint32_t version, flags, entries;
	uint64_t capacity, grain, desc_off, desc_len, rgd_off, gd_off, overhead;
	uint8_t unclean, newlines[4];
	uint16_t compression;
};

/* What a table says of one grain. */
struct vd_vmdk_grain {
	enum vd_where where;            /* HOLE, ZERO, DATA, or PACKED */
	uint64_t host_off;
};

/* vmdk_text.c: descriptors. */
bool vd_vmdk_is_descriptor(struct vd_bytes head);
/* Takes the text apart; judges each line, and opens nothing. Frees nothing of a half-filled d: see below. */
int vd_vmdk_descriptor_parse(struct vd_bytes text, struct vd_vmdk_descriptor *d, struct vd_error *e) VD_MUST_CHECK;
void vd_vmdk_descriptor_fini(struct vd_vmdk_descriptor *d);
/* vmdk_encoding.c: *out is malloc'ed UTF-8. encoding NULL: the bytes as they are. */
int vd_vmdk_to_utf8(const char *encoding, struct vd_bytes text, char **out, struct vd_error *e) VD_MUST_CHECK;
/* Which UTF-16 a descriptor is in, by its mark; NULL: it is in none. */
const char *vd_vmdk_utf16(struct vd_bytes text);
/* A malloc'ed descriptor in UTF-16 becomes one in UTF-8 that keeps its mark, up to the first NUL. */
int vd_vmdk_from_utf16(struct vd_bytes *text, struct vd_error *e) VD_MUST_CHECK;

/* vmdk_sparse.c: headers of extents with tables. Finds out the kind by the magic; judges all sizes by the file's. */
int vd_vmdk_sparse_read(struct vd_io *io, enum vd_vmdk_kind *kind, struct vd_vmdk_sparse *sp,
			struct vd_error *e) VD_MUST_CHECK;
/* The header of a hosted sparse extent: decoded; judged by itself; its sizes into sp. */
void vd_vmdk_header_get(const uint8_t *raw, struct vd_vmdk_header *h);
int vd_vmdk_header_judge(const struct vd_vmdk_header *h, struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_header_apply(const struct vd_vmdk_header *h, struct vd_vmdk_sparse *sp, struct vd_error *e) VD_MUST_CHECK;
/* Judges where the descriptor is, and keeps tables from there. */
int vd_vmdk_header_place(const struct vd_vmdk_header *h, uint64_t file_size, struct vd_vmdk_sparse *sp,
			 struct vd_error *e) VD_MUST_CHECK;
bool vd_vmdk_header_is_footers(const struct vd_vmdk_header *h, const struct vd_vmdk_header *footer);
/* Of `size` bytes of disk the first `sound` are there, up to sound_to of the file, which ends at file_end. VD_ECORRUPT. */
int vd_vmdk_cut_off(struct vd_error *e, uint64_t file_end, uint64_t sound_to, uint64_t sound, uint64_t size);
/* [off, off+len) touches what is no table and no grain. */
bool vd_vmdk_overlaps(const struct vd_vmdk_sparse *sp, uint64_t off, uint64_t len);

/* What of an embedded descriptor counts is that it is one extent's. */
int vd_vmdk_judge_embedded(const struct vd_vmdk_descriptor *d, struct vd_error *e) VD_MUST_CHECK;
/* vmdk_open.c: the extents that the descriptor lists, or the file itself. */
/* What the descriptor says of the parent, for reports and for finding it. */
int vd_vmdk_learn_parent(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_open(void *st, const struct vd_open *o, struct vd_error *e);

/* vmdk_table.c: the two levels of tables. `at` is a guest offset in the extent, from its start. */
/* The table that maps `at`: *off is 0 when there is none. `redundant`: of the second set. */
int vd_vmdk_table(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, bool redundant, unsigned meta_flags,
		  uint64_t *off, struct vd_error *e) VD_MUST_CHECK;
/* How many directory entries from `index` on, at most n, name no table. */
int vd_vmdk_tables_absent(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, uint64_t n,
			  unsigned meta_flags, uint64_t *absent, struct vd_error *e) VD_MUST_CHECK;
/* Up to VMDK_BATCH grains of one table from `at` on, which is a multiple of the grain. */
int vd_vmdk_grains(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t at, uint64_t n, unsigned meta_flags,
		   struct vd_vmdk_grain *grains, struct vd_error *e) VD_MUST_CHECK;
/* What one entry says; false when it cannot be meant. */
bool vd_vmdk_decode(const struct vd_vmdk_extent *x, uint64_t entry, struct vd_vmdk_grain *g);
const struct vd_vmdk_extent *vd_vmdk_extent_at(const struct vd_vmdk *s, uint64_t off);
/* VD_ECORRUPT at that offset of the extent's file, with its name. */
int vd_vmdk_corrupt(const struct vd_vmdk *s, uint32_t file, struct vd_error *e, uint64_t at, const char *fmt,
		    ...) VD_PRINTF(5, 6);

/* vmdk_map.c */
int vd_vmdk_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		struct vd_error *e);
int vd_vmdk_frame(void *st, struct vd_run *r, struct vd_bytes head, struct vd_error *e);

/* vmdk_write.c */
/* Looks at every directory entry, before anything is written by their word. */
int vd_vmdk_prepare_write(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
/* Another one, written but not flushed. Children made on the old content notice by it. */
int vd_vmdk_change_cid(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
/* Written, but not flushed. */
int vd_vmdk_mark_unclean(struct vd_vmdk *s, const struct vd_vmdk_extent *x, bool unclean, struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_begin_write(void *st, struct vd_error *e);
int vd_vmdk_end_write(void *st, struct vd_error *e);
int vd_vmdk_reserve(void *st, struct vd_resv *v, struct vd_error *e);
int vd_vmdk_publish(void *st, struct vd_resv *v, struct vd_error *e);
void vd_vmdk_cancel(void *st, struct vd_resv *v);
int vd_vmdk_freed(void *st, const struct vd_range *range, struct vd_error *e);
int vd_vmdk_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e);

/* vmdk_vet.c */
int vd_vmdk_vet(const void *st, const struct vd_vetting *v);

/* vmdk_chain.c: children and parents, which know each other by their CIDs. */
int vd_vmdk_check_parent(void *st, const void *parent, struct vd_error *e);
int vd_vmdk_expect_parent(void *st, void *parent, struct vd_error *e);
/* Before the child's own CID changes: it knows its parent by the CID that this has now. */
int vd_vmdk_follow_parent(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e);
int vd_vmdk_empty(void *st, struct vd_error *e);

/* vmdk_shift.c */
int vd_vmdk_shift(void *st, int64_t by, bool only_judge, struct vd_error *e);

/* vmdk_resize.c */
int vd_vmdk_reach(void *st, uint64_t size, struct vd_error *e);
int vd_vmdk_resize(void *st, uint64_t size, struct vd_error *e);

/* vmdk_create.c */
int vd_vmdk_create(const struct vd_create *c, struct vd_error *e);
int vd_vmdk_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e);
void vd_vmdk_header_put(uint8_t *raw, const struct vd_vmdk_header *h);
/* An empty sparse extent, whose descriptor is elsewhere, with grains as another one has. */
int vd_vmdk_extent_make(struct vd_io *io, uint64_t size, const struct vd_vmdk_sparse *like, struct vd_error *e) VD_MUST_CHECK;

/*
 * A compressed grain may come out larger than it went in. What a writer of deflate can lose at worst is an eighth (all
 * literals of nine bits); its frame says the true length.
 */
static inline uint64_t vd_vmdk_packed_max(const struct vd_vmdk_sparse *sp)
{
	return sp->grain + sp->grain / 8 + 4096;
}
/* By the first two bytes: grains of vmdktool and others are raw deflate, as the specification has it; VMware's are framed. */
static inline enum vd_codec_kind vd_vmdk_codec_of(const uint8_t *p)
{
	return (p[0] & 0x0f) == 8 && (p[0] << 8 | p[1]) % 31 == 0 ? VD_CODEC_ZLIB : VD_CODEC_DEFLATE12;
}

/* vmdk_incoming.c: stream-optimized disks, read as they come. */
extern const struct vd_incoming_ops vd_vmdk_incoming_ops;

/* vmdk_stream.c: stream-optimized disks, made by one copy. */
/* An empty one, whole. */
int vd_vmdk_stream_create(struct vd_io *io, uint64_t size, uint64_t grain, struct vd_bytes text,
			  struct vd_error *e) VD_MUST_CHECK;
/* All but the grains' bytes of one that is full. */
uint64_t vd_vmdk_stream_overhead(uint64_t size, uint64_t grain);
/* What filling it takes: s->stream. */
int vd_vmdk_stream_new(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
void vd_vmdk_stream_free(struct vd_vmdk_stream *w);
int vd_vmdk_stream_begin(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_stream_reserve(struct vd_vmdk *s, struct vd_resv *v, struct vd_error *e) VD_MUST_CHECK;
void vd_vmdk_stream_cancel(struct vd_vmdk *s);
/* Tables, directory, footer, end. */
int vd_vmdk_stream_end(struct vd_vmdk *s, struct vd_error *e) VD_MUST_CHECK;

#endif
