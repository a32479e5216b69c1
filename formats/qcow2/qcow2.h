/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 driver's inside: the format as it lies on disk, and what its files share. Section names are those of
 * qemu's docs/interop/qcow2. All integers are big-endian.
 *
 *   file       = clusters of 1 << cluster_bits bytes; the last one may be cut short by the end of the file
 *   cluster 0  = header extension* [backing file name]                                    "Header"
 *   header     = magic:u32 version:u32 backing_off:u64 backing_len:u32 cluster_bits:u32 size:u64 crypt_method:u32
 *                l1_size:u32 l1_off:u64 reft_off:u64 reft_clusters:u32 n_snapshots:u32 snap_off:u64       72 bytes
 *                version 3 goes on:
 *                incompat:u64 compat:u64 autoclear:u64 refcount_order:u32 header_length:u32
 *                [compression_type:u8 padding:u8[7]]                             header_length bytes in all
 *   extension  = type:u32 len:u32 data:u8[len] padding to 8; type 0 ends the list         "Header extensions"
 *
 *   L1 table   = l1_size entries:   is_copied:1 reserved:7 l2_off:47(bits 9..55) reserved:9       "Cluster mapping"
 *   L2 table   = one cluster of entries:
 *     standard   = is_copied:1 is_compressed:1=0 reserved:6 host_off:47(bits 9..55) reserved:8 reads_zero:1
 *     compressed = 0:1 is_compressed:1=1 more_sectors:(cluster_bits-8) host_off:(62-(cluster_bits-8)), byte-granular
 *     with extended L2 a second u64 follows each: reads_zero:u32 is_allocated:u32, one bit a subcluster, bit 0 the
 *     first; reads_zero in the first word is reserved then                              "Extended L2 Entries"
 *
 *   refcount table = reft_clusters clusters of block_off:u64, bits 0..8 reserved           "Refcounts"
 *   refcount block = one cluster of counts, 1 << refcount_order bits each; counts narrower than a byte fill it from
 *                    its least significant bit
 *
 * Invariants of the code that follows:
 *
 *  Q1  Who owns a cluster is known by its refcount, which rises before (in rank order) anything points at the
 *      cluster and falls only in freed(), after nothing points at it any more on disk. So refcounts are exact at
 *      every commit, and the dirty bit of lazy refcounts is never needed.
 *  Q2  A cluster whose L1 or L2 entry has is_copied clear has another owner and is never written.
 *  Q3  What map() reads is constant after open, atomic (host_end, reft), or in tables, which go through core/meta.
 *  Q4  A table entry is judged on each use; nothing is allocated or read by its word before that.
 */
#ifndef VD_FORMATS_QCOW2_H
#define VD_FORMATS_QCOW2_H

#include <inttypes.h>
#include <stdatomic.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/error.h"
#include "libvdisk/core/format.h"

#define QCOW2_MAGIC             0x514649fbu
#define QCOW2_V2_LENGTH         72
#define QCOW2_V3_LENGTH         104     /* least header_length of version 3 */
#define QCOW2_OWN_LENGTH        112     /* what is written here, and by qemu since 5.1: with compression_type */
#define QCOW2_AT_REFT_OFF       48      /* reft_off:u64 reft_clusters:u32 */
#define QCOW2_AT_SNAP_OFF       64
#define QCOW2_AT_INCOMPAT       72
#define QCOW2_AT_AUTOCLEAR      88

#define QCOW2_INCOMPAT_DIRTY    (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT  (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN    UINT64_C(0x1f)
#define QCOW2_COMPAT_LAZY       (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)

#define QCOW2_EXT_END           0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857u
#define QCOW2_EXT_BITMAPS       0x23852875u
#define QCOW2_EXT_LUKS          0x0537be77u
#define QCOW2_EXT_DATA_FILE     0x44415441u
#define QCOW2_EXT_KEY_NOTES     0x76646b6eu /* "vdkn": notes on keyslots, a text; qemu keeps extensions that it does not know */
#define QCOW2_FEATURE_LENGTH    48      /* type:u8 bit:u8 name:u8[46] */

/* Limits of qemu (block/qcow2.h) so that what one opens the other does; they also bound every count in the header. */
#define QCOW2_CLUSTER_BITS_MIN  9
#define QCOW2_CLUSTER_BITS_MAX  21
#define QCOW2_EXT_L2_BITS_MIN   14      /* subclusters of 512 bytes at least */
#define QCOW2_REFCOUNT_ORDER_MAX 6
#define QCOW2_L1_BYTES_MAX      (32u << 20)
#define QCOW2_REFT_BYTES_MAX    (8u << 20)
#define QCOW2_SNAPSHOTS_MAX     65536u
#define QCOW2_SNAPSHOT_BYTES_MIN 40     /* of one entry of the snapshot table */
#define QCOW2_BACKING_LEN_MAX   1023u

#define QCOW2_COPIED            (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED        (UINT64_C(1) << 62)
#define QCOW2_ZERO              UINT64_C(1)
#define QCOW2_OFFSET_MASK       UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED       UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED       UINT64_C(0x3f000000000001fe)
#define QCOW2_REFT_RESERVED     UINT64_C(0x1ff)
#define QCOW2_SECTOR            512     /* unit of more_sectors */

#define QCOW2_SUBCLUSTERS       32
#define QCOW2_ENTRY_MAX         16      /* bytes of an L2 entry: 8, extended 16 */
#define QCOW2_BATCH_BYTES       4096    /* tables are read and written through a buffer of this size on the stack */

struct vd_qcow2_header {
	uint32_t version, backing_len, cluster_bits, crypt_method, l1_size, reft_clusters, n_snapshots;
	uint32_t refcount_order, header_length;
	uint64_t backing_off, size, l1_off, reft_off, snap_off, incompat, compat, autoclear;
	uint8_t compression_type;
};

/* A piece of the file that holds neither payload nor L2 tables nor refcount blocks. */
struct vd_qcow2_area {
	const char *what;
	uint64_t off, end;
};
#define QCOW2_AREAS_MAX 4               /* header, L1, snapshot table, LUKS key area */

struct vd_qcow2 {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	const char *name;               /* of the image file, for messages after open */

	struct vd_qcow2_header h;
	char *backing_file, *backing_format, *data_file_name;
	uint8_t *key_notes;             /* the library's own extension: see format.h */
	size_t key_notes_len;
	uint8_t *feature_names;         /* feature-name table */
	size_t feature_names_len;
	uint64_t header_end;            /* behind the last extension and the backing file name */
	uint64_t key_area_off, key_area_len, key_area_at;       /* _at: where the header says it */
	uint64_t bitmaps_at;
	uint32_t n_bitmaps;
	uint64_t bitmaps_off, bitmaps_len;      /* of the bitmap directory, as the header has it: not judged */
	struct vd_qcow2_bitmaps *bitmaps;       /* the directory, once it was asked for */
	struct vd_qcow2_bitmap_store *store;    /* a new one, written and not in force yet */

	uint64_t cluster_size;
	uint32_t entry_size;            /* of an L2 entry */
	uint32_t n_sub;                 /* subclusters a cluster: 1 without extended L2 */
	uint32_t sub_mask;              /* all of them */
	uint64_t sub_size;
	uint64_t l2_entries;            /* a table */
	uint64_t l2_span;               /* guest bytes that one L2 table maps */
	uint64_t block_entries;         /* clusters that one refcount block counts */
	uint32_t payload_file;          /* 0, or the index of the external data file */
	bool is_raw_external;           /* data_file_raw */
	uint64_t data_floor;            /* as floor, in the data file, in bytes */
	uint8_t codec;

	struct vd_qcow2_area areas[QCOW2_AREAS_MAX];
	size_t n_areas;

	/* Changed under the allocation lock, read by map() too. */
	atomic_uint_fast64_t host_end;  /* clusters begin below this: the end of the file, or of what was allocated since */
	atomic_uint_fast64_t reft_off, reft_end;        /* see vd_qcow2_overlaps() */

	/* Under the allocation lock. */
	uint64_t host_limit;            /* a device ends here; UINT64_MAX for files */
	uint64_t floor;                 /* cluster number: none below is given out (vd_open.appends) */
	uint64_t next_free;             /* cluster number: none from the floor up to here is free */
	bool scrubs;                    /* all space that becomes free is released to the core first */
	uint64_t packed_next;           /* where the next compressed cluster may begin; 0: in a new cluster */
	uint64_t reft_born;             /* vd_meta_n_snapshots() when the refcount table moved */
	bool reft_has_moved;
};

/* What one L2 entry says. A standard entry is one with a single subcluster. */
struct vd_qcow2_cluster {
	bool is_packed, has_host, is_copied;
	uint64_t host_off;
	uint64_t host_len;              /* packed: upper bound */
	uint32_t allocated, zero;       /* a bit for each subcluster; neither: a hole */
};

/* qcow2_header.c: the header cluster. Fills h, the strings and the key area; judges what needs no other table. */
int vd_qcow2_header_read(struct vd_qcow2 *s, struct vd_io *io, uint64_t file_size,
			 struct vd_error *e) VD_MUST_CHECK;

/* qcow2_judge.c: the rules that offsets keep. */
/* Of the tables that the header names. */
int vd_qcow2_judge_tables(struct vd_qcow2 *s, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;
/* Of a cluster that the entry at entry_off names. */
int vd_qcow2_judge_cluster(const struct vd_qcow2 *s, uint64_t host_off, const char *what, uint64_t entry_off,
			struct vd_error *e) VD_MUST_CHECK;
/* The area that [off, off+len) touches, or NULL. */
const char *vd_qcow2_overlaps(const struct vd_qcow2 *s, uint64_t off, uint64_t len);
/* VD_ECORRUPT with the file's name before the message and what to do about it. */
int vd_qcow2_corrupt(const struct vd_qcow2 *s, struct vd_error *e, uint64_t at, const char *fmt,
		     ...) VD_PRINTF(4, 5);

/* qcow2_l2.c: the two levels of tables. */
/* The L2 table of one L1 entry: *l2_off is 0 when there is none; *is_owned false: a snapshot has it too. */
int vd_qcow2_l1_lookup(const struct vd_qcow2 *s, uint64_t l1_index, unsigned meta_flags, uint64_t *l2_off,
		       bool *is_owned,
		    struct vd_error *e) VD_MUST_CHECK;
/* How many L1 entries from l1_index on, at most n, name no table. */
int vd_qcow2_l1_absent(const struct vd_qcow2 *s, uint64_t l1_index, uint64_t n, unsigned meta_flags,
		       uint64_t *absent,
		    struct vd_error *e) VD_MUST_CHECK;
/* A table that may be written: made when there is none, copied when a snapshot has it too. Under the allocation lock. */
int vd_qcow2_l2_for_write(struct vd_qcow2 *s, uint64_t guest_off, uint64_t *l2_off,
			  struct vd_error *e) VD_MUST_CHECK;
uint64_t vd_qcow2_entry_off(const struct vd_qcow2 *s, uint64_t l2_off, uint64_t guest_off);
/* Takes an entry apart, whatever it says. */
void vd_qcow2_parse(const struct vd_qcow2 *s, const uint8_t *entry, struct vd_qcow2_cluster *c);
/* The same, judged. guest_off: of the cluster; entry_off: where the entry was read. */
int vd_qcow2_decode(const struct vd_qcow2 *s, const uint8_t *entry, uint64_t guest_off, uint64_t entry_off,
		 struct vd_qcow2_cluster *c, struct vd_error *e) VD_MUST_CHECK;
/* The other way round. */
void vd_qcow2_encode(const struct vd_qcow2 *s, const struct vd_qcow2_cluster *c, uint8_t *entry);
/* The subclusters of one cluster that guest bytes [from, to) touch; at least one. */
uint32_t vd_qcow2_sub_bits(const struct vd_qcow2 *s, uint64_t cluster_off, uint64_t from, uint64_t to);
/*
 * Rewrites n entries of one table that is owned, from guest_off's on: `change` turns what each says into what it is to
 * say. Host space that an entry gives up is released. Under the allocation lock.
 */
int vd_qcow2_l2_rewrite(struct vd_qcow2 *s, uint64_t l2_off, uint64_t guest_off, uint64_t n,
		     void (*change)(const struct vd_qcow2 *s, const void *ctx, uint64_t cluster_off,
				    struct vd_qcow2_cluster *c),
		     const void *ctx, struct vd_error *e) VD_MUST_CHECK;

/* qcow2_map.c */
int vd_qcow2_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		 struct vd_error *e);

/* qcow2_refcount.c: who owns clusters. All under the allocation lock. */
/* Up to n_want clusters side by side, refcount 1; *is_fresh: they read as zeros and were never used. */
int vd_qcow2_alloc(struct vd_qcow2 *s, uint64_t n_want, uint64_t *host_off, uint64_t *n_got, bool *is_fresh,
		struct vd_error *e) VD_MUST_CHECK;
/* n of them side by side, however many. */
int vd_qcow2_alloc_stretch(struct vd_qcow2 *s, uint64_t n, uint64_t *host_off, struct vd_error *e) VD_MUST_CHECK;
/* Room for a compressed cluster of len bytes, at any byte: neighbours share clusters. */
int vd_qcow2_alloc_packed(struct vd_qcow2 *s, uint64_t len, uint64_t *host_off,
			  struct vd_error *e) VD_MUST_CHECK;
/* So many owners more for a cluster that has one. */
int vd_qcow2_share(struct vd_qcow2 *s, uint64_t host_off, uint64_t n_more, struct vd_error *e) VD_MUST_CHECK;
/* One owner less for each cluster of a range that nothing points to; with scrubbing by way of the quarantine. */
int vd_qcow2_drop(struct vd_qcow2 *s, uint64_t host_off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* Tables that nothing points to any more, by way of the quarantine; of an encrypted image they are overwritten. */
void vd_qcow2_release_table(struct vd_qcow2 *s, uint64_t host_off, uint64_t len);
int vd_qcow2_freed(void *st, const struct vd_range *range, struct vd_error *e);
int vd_qcow2_disown(void *st, const struct vd_range *range, struct vd_space_batch *last, struct vd_error *e);
/* How many owners the cluster has. */
int vd_qcow2_owners(const struct vd_qcow2 *s, uint64_t host_off, uint64_t *n, struct vd_error *e) VD_MUST_CHECK;
/* Where the last cluster that has an owner ends. */
int vd_qcow2_last_used(const struct vd_qcow2 *s, uint64_t *end, struct vd_error *e) VD_MUST_CHECK;

/* qcow2_count.c: counts in a refcount block's bytes. */
uint64_t vd_qcow2_count_get(const uint8_t *block, uint64_t index, uint32_t order);
void vd_qcow2_count_put(uint8_t *block, uint64_t index, uint32_t order, uint64_t count);
uint64_t vd_qcow2_count_max(uint32_t order);

/* qcow2_write.c */
int vd_qcow2_reserve(void *st, struct vd_resv *v, struct vd_error *e);
int vd_qcow2_publish(void *st, struct vd_resv *v, struct vd_error *e);
void vd_qcow2_cancel(void *st, struct vd_resv *v);
/* qcow2_punch.c */
int vd_qcow2_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done,
		   struct vd_error *e);

/* qcow2.c: what of the autoclear bits is true of the image still, though it is written to. */
uint64_t vd_qcow2_autoclear_kept(const struct vd_qcow2 *s);

/* qcow2_create.c */
int vd_qcow2_create(const struct vd_create *c, struct vd_error *e);
int vd_qcow2_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e);

/* qcow2_head.c */
int vd_qcow2_keep_notes(void *st, const char *text, struct vd_error *e);

/* qcow2_keyarea.c */
int vd_qcow2_set_key_area(void *st, struct vd_bytes header, struct vd_error *e);

/* qcow2_unpack.c */
extern const struct vd_unpack_ops vd_qcow2_unpack_ops;

/* qcow2_overlay.c */
int vd_qcow2_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e);
int vd_qcow2_empty(void *st, struct vd_error *e);

#endif
