/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver contract. A format is a map: a driver answers where guest bytes are and gives out space for new
 * ones. It touches tables only; it never moves, encrypts, compresses, hashes or erases payload. The core does.
 *
 * A driver's callbacks, and what holds while each runs:
 *
 *   probe, describe                        pure
 *   open, create, begin_write, end_write   alone on the handle
 *   map                                    many threads at once, beside one of the next group
 *   reserve, publish, cancel, punch,       under the image's allocation lock: one at a time, memory and
 *   freed, disown                          table pages only, no payload I/O
 *
 * Tables are read and written through core/meta with a rank; space that is not needed any more goes to core/space.
 * A write is: reserve, (core fills, encrypts, writes payload), publish or cancel. A crash in between leaks the space
 * and exposes nothing.
 */
#ifndef VD_CORE_FORMAT_H
#define VD_CORE_FORMAT_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/codec/codec.h"
#include "libvdisk/core/dirty.h"
#include "libvdisk/core/meta.h"
#include "libvdisk/core/space.h"
#include "libvdisk/core/window.h"
#include "libvdisk/io/feed.h"
#include "libvdisk/io/set.h"

enum vd_where {
	VD_HOLE,                /* nothing here: ask the parent, else zeros */
	VD_ZERO,                /* zeros, whatever the parent holds */
	VD_DATA,                /* at host_off, byte for byte */
	VD_PACKED,              /* compressed at host_off, at most host_len bytes; expands to exactly unit bytes (below) */
};
enum vd_run_flag {
	VD_RUN_SHARED = 1,      /* host bytes have another owner too (a snapshot): never written in place */
	VD_RUN_HOSTED = 2,      /* ZERO that keeps host space, at host_off */
};
/* One piece of a guest range; never crosses a file. */
struct vd_run {
	uint64_t guest_off, len;        /* len never 0 */
	uint64_t host_off, host_len;    /* DATA: host_len == len; PACKED: upper bound */
	uint64_t unit_off;              /* PACKED: guest offset of the first byte the stream expands to (<= guest_off) */
	uint32_t unit_len;              /* PACKED: how many bytes it expands to */
	uint32_t unit_least;            /* PACKED: not 0: it may be fewer, down to this many, with zeros after them */
	uint32_t file;                  /* index in the set */
	uint8_t where;                  /* enum vd_where */
	uint8_t codec;                  /* enum vd_codec_kind: PACKED only */
	uint8_t frame;                  /* PACKED: bytes before the stream, which frame() understands; 0: none */
	uint8_t flags;                  /* enum vd_run_flag */
};

/* A reservation: ends with exactly one publish or cancel. Lives on the core's stack. */
struct vd_resv {
	/* Set by the core before reserve(). */
	uint64_t off, len;              /* the guest range to be written; inside the disk */
	uint64_t packed_len;            /* not 0: wants room for this many packed bytes; off and len are one whole unit */
	bool as_zeros;                  /* wants whole units to have their space and to read as zeros: no payload follows */
	/* Set by the driver. `covered` guest bytes from `off` are served, at least 1: the core calls again for the rest. */
	uint64_t covered;
	uint64_t fill_off, fill_len;    /* guest range that must be valid at host_off before publish; contains [off, off+covered) */
	uint64_t host_off;              /* where guest byte fill_off goes (or the packed stream) */
	uint32_t file;
	bool in_place;                  /* already mapped: there is nothing to publish or cancel */
	bool fresh;                     /* host bytes are known to read as zeros and were never used: zeros need not be written */
	bool barrier_first;             /* all tables so far must be durable before payload is written here */
	uint8_t prefix[16];             /* packed: goes right before the stream, at host_off - prefix_len */
	uint32_t prefix_len;
	uint64_t cookie[2];             /* the driver's own */
};

/* Which number the cipher counts from. */
enum vd_tweak {
	VD_TWEAK_HOST,                  /* host offset / 512: qcow2 LUKS */
	VD_TWEAK_GUEST,                 /* guest offset / 512: qcow2 legacy AES */
};

/* What a driver says of an open image. Strings belong to the driver's state. */
struct vd_format_info {
	uint64_t size;                  /* bytes that map() covers */
	uint32_t unit;                  /* allocation unit; 1: none */
	uint32_t zero_unit;             /* what the tables can say zeros of, if that is less; else 0 */
	uint32_t fill_unit;             /* smallest range that reserve() wants filled; writes lock in these. 1: none */
	bool packs;                     /* reserve() takes packed_len */
	bool packs_only;                /* and nothing else, in ascending order: written once by a copy */
	bool links_zeros;               /* and as_zeros */
	bool is_flat;                   /* guest byte i, where the host has it, is byte i of flat_file: holes there give space back */
	uint32_t flat_file;
	bool keeps_place;               /* what is DATA stays so: holes in the host's file give its space back */
	uint8_t codec;                  /* enum vd_codec_kind of packed units */
	enum vd_encryption encryption;  /* the format's own */
	enum vd_tweak tweak;
	uint64_t key_area_off, key_area_len;    /* file 0; LUKS only */
	struct vd_bytes key_notes;      /* what keep_notes() was given */
	const uint8_t *key_nonce, *key_hash;    /* Xen's VHD: 32 bytes each; the hash is SHA-256 of nonce and key */
	const char *backing_file, *backing_format;
	const char *const *backing_others;      /* more names of it, tried in turn where there is no file of the name before; NULL ends them */
	uint32_t tail_mark;             /* others know the format by so many last bytes of the file, at most 512; 0: by its first */
	const char *read_only_why;      /* not NULL: may not be opened for writing, and why */
};

/* How to create: the public options, judged by the core, and what it adds. */
struct vd_create {
	const struct vd_create_opts *opts;
	uint64_t size;
	struct vd_bytes key_area;       /* LUKS header to embed; len 0: none */
	const void *parent;             /* state of the backing file, if that is of this format; else NULL */
	struct vd_set *set;             /* file 0 is empty and writable; file 1, if opts->data_file, too */
	const char *name;               /* of the image, without its folder */
	/* Makes another file of the image beside it, the next of the set, empty and writable. */
	int (*add_part)(void *ctx, const char *name, struct vd_error *e);
	void *ctx;
};

/* How large an image would be, all its files together. */
struct vd_forecast {
	const struct vd_bitmap *bitmaps;/* in: those that the copy would get */
	size_t n_bitmaps;
	uint32_t unit;                  /* payload is allocated in these */
	uint64_t overhead;              /* all that is not payload, of a disk that is full */
	uint64_t bitmap_bytes;          /* what the bitmaps take, all their bits stored */
	bool is_full;                   /* payload has its place whether it is written or not */
};

struct vd_open {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	bool write;
	bool repair;                    /* with write: for check() alone, so marks like "dirty" do not matter */
	bool scrubs;                    /* no space may become free but by release(): not in cancel(), nor by a change of shape */
	bool appends;                   /* space is given out only past the end that each file has now */
	bool fresh;                     /* just created, and without a name until the commit: nobody finds what a crash leaves of it */
	const char *snapshot;           /* not NULL: the disk is this snapshot's; never with write, and only if the format has snapshots */
};

enum vd_map_flag {
	VD_MAP_NOWAIT = 1,              /* VD_EAGAIN instead of reading a table from the host */
	VD_MAP_TO_READ = 2,             /* where to read: a hole of the host file may be called DATA, which spares asking for it */
};

/* How punch() makes zeros. */
enum vd_punch_mode {
	VD_PUNCH_ZERO,                  /* must read as zeros, parent or not */
	VD_PUNCH_MASK,                  /* the same, and whatever parent the image gets */
	VD_PUNCH_DISCARD,               /* the same, and no host space is kept that zeros had already */
};

/*
 * Snapshots inside the image; named by id or name. Each but list runs alone on the handle with every table committed,
 * makes its change durable before it returns, and has changed nothing when it fails, but for VD_EPOISONED, after
 * which that is not known. Afterwards the core asks describe() again.
 */
struct vd_snap_ops {
	/* *out: n of them in one malloc'ed block, strings included. */
	int (*list)(void *st, struct vd_snapshot **out, size_t *n, struct vd_error *e);
	/* name and date are set; the driver finds an id. */
	int (*create)(void *st, const struct vd_snapshot *new, struct vd_error *e);
	int (*apply)(void *st, const char *name, struct vd_error *e);
	int (*remove)(void *st, const char *name, struct vd_error *e);
};

/*
 * Checking and mending. Both run alone on the handle with every table committed. A driver tells what it finds and fails
 * only for what keeps it from looking: want of memory, an unusable host, a callback that stops it.
 */
struct vd_check {
	/* Fills kind, severity, can_mend, offsets, view, text; the core adds the rest and counts. */
	int (*found)(struct vd_check *c, struct vd_finding *f, struct vd_error *e);
	/* Now and then: so much of the whole is done. */
	int (*progress)(struct vd_check *c, uint64_t done, uint64_t total, struct vd_error *e);
	struct vd_check_report *report; /* what is not a count of findings is the driver's to fill */
};
struct vd_repair_ops {
	int (*check)(void *st, struct vd_check *c, struct vd_error *e);
	/*
	 * After a check. Mends what can be mended, durably; calls progress() only. With VD_REPAIR_LEAKS it is only called
	 * when there was nothing but leaks. NULL: nothing to mend.
	 */
	int (*mend)(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e);
};

/*
 * Bitmaps inside the image, each of which says in pieces of a power of two what of the disk was written since it was made
 * or cleared. The core records what is written (core/bitmap.c); a driver keeps the bits. They lie in parts of
 * vd_format_info.unit bytes, least significant bit first; what is past the disk's end is of no meaning.
 *
 * A bitmap that records is held while its handle writes: known on disk not to hold, so that a crash leaves none that
 * misses a write. A new state comes into force in two steps, between which the core commits all tables.
 */
struct vd_bitmap_entry {
	const char *name;               /* the driver's, until the next enact() */
	const char *unusable;           /* why it says nothing of the disk; NULL: it does */
	unsigned granularity_bits;
	bool is_enabled;                /* it records */
	bool is_held;                   /* by this handle */
};
enum vd_bits { VD_BITS_ZEROS, VD_BITS_ONES, VD_BITS_MIXED };

#define VD_BITMAP_NEW SIZE_MAX
/* A bitmap as it is to be. */
struct vd_bitmap_next {
	size_t from;                    /* which one it was, or VD_BITMAP_NEW */
	const char *name;               /* of a new one, and its granularity */
	unsigned granularity_bits;
	bool is_enabled;
	bool is_cleared;                /* forgets what it had */
	const struct vd_dirty *add;     /* is dirty too; NULL: nothing */
};
struct vd_bitmap_ops {
	/* One at a time. *out: n of them in one malloc'ed block. VD_EBITMAP when none can be told. */
	int (*list)(void *st, struct vd_bitmap_entry **out, size_t *n, struct vd_error *e);
	/*
	 * Of the i-th as list() had it: what the part holds; MIXED fills raw. For zeros and ones *n says of how many parts
	 * from this one on it is so, at most as many as it said before; for MIXED 1. Beside others of its kind.
	 */
	int (*load)(void *st, size_t i, uint64_t part, uint64_t *n, uint8_t *raw, enum vd_bits *what, struct vd_error *e);
	/*
	 * Durably: those that record, or all of them, do not hold until the next enact(). Alone with list(). When the image
	 * cannot say so of each, then of all for ever, which is no failure. A failure is VD_EPOISONED: what is on disk is not known.
	 */
	int (*hold)(void *st, bool all, struct vd_error *e);
	/* Those that are held do not hold for this handle either, and stay so. */
	void (*abandon)(void *st);
	/* Alone on the handle with every table committed: writes the new state beside the old. Failed, nothing has changed. */
	int (*write)(void *st, const struct vd_bitmap_next *next, size_t n, struct vd_error *e);
	/* After write() and a commit: from here on the new state is in force, durably, and none is held. Fails as vd_snap_ops does. */
	int (*enact)(void *st, struct vd_error *e);
};

/*
 * For conversion in place: packed units become plain ones, in every view at once. All run under the conditions of
 * reserve(), alone on the handle.
 */
struct vd_unpack_ops {
	/* Space in file 0 that nothing leads to: at most *n units side by side from *host_off on; *n becomes how many, at least 1. */
	int (*take)(void *st, uint64_t *n, uint64_t *host_off, struct vd_error *e);
	/*
	 * Links one unit of it, of which the core has written all bytes, memory only: the n entries that lead to one packed unit,
	 * all there are, as walk() claims them (without `each`), lead to host_off from here on. What they led to is released.
	 * A failure poisons the handle.
	 */
	int (*relink)(void *st, const struct vd_claim *entries, size_t n, uint64_t host_off, struct vd_error *e);
	/* Takes n units back that were not linked; may leak them. */
	void (*give_back)(void *st, uint64_t host_off, uint64_t n);
};

/*
 * Reading a disk as it comes, from the first byte of its file to the last, where map() cannot be asked: what says where
 * things are may be at the end. One thread at a time. Parts come in the order of the file.
 */
struct vd_incoming_info {
	uint64_t size;                  /* of the disk */
	uint32_t unit_max;              /* the longest run's guest bytes, */
	uint64_t host_max;              /* and its bytes in the stream */
};
struct vd_incoming_ops {
	size_t state_size;
	/*
	 * Takes what is before the first run, and judges it. st is zeroed; on failure the core calls close(). size: of the
	 * disk, by who knows it, or UINT64_MAX.
	 */
	int (*open)(void *st, struct vd_feed *in, uint64_t size, struct vd_error *e);
	void (*close)(void *st);
	void (*describe)(const void *st, struct vd_incoming_info *i);
	/*
	 * The run that comes next, DATA or PACKED without a frame, host_len bytes that are not taken yet. len 0: there is none;
	 * the stream has its end, and all that it says of itself is so.
	 */
	int (*next)(void *st, struct vd_run *r, struct vd_error *e);
	/* Its bytes, once, before the next one. Sets r->codec. */
	int (*take)(void *st, struct vd_run *r, uint8_t *buf, struct vd_error *e);
};

/* For images from outside: what is risky of one that open() takes. found() returns another value than 0 to stop. */
struct vd_vetting {
	void *ctx;
	int (*found)(void *ctx, enum vd_risk risk, const char *what);
};

struct vd_format {
	const char *name;
	const char *alias;              /* what peers call it, if they call it otherwise */
	size_t state_size;
	bool writable;
	bool cuts_zeros_only;           /* a disk is made smaller only where its end reads as zeros */
	bool encrypts;                  /* has a place of its own for keys; others hold a LUKS container as the disk's content */
	const char *stream_kind;        /* the subformat that is written from beginning to end; "": every one; NULL: none */

	/* Pure. `head`: the first bytes of the file, at most 64 KiB; `tail`: the last, at most 4 KiB; `size` of the file. */
	bool (*probe)(struct vd_bytes head, struct vd_bytes tail, uint64_t size);
	/* Parses; every size checked against the file's; no write. st is zeroed. On failure the core calls close(). */
	int (*open)(void *st, const struct vd_open *o, struct vd_error *e);
	/* Writes an empty image into the set's files, directly; the core opens it afterwards. NULL: cannot. */
	int (*create)(const struct vd_create *c, struct vd_error *e);
	/* Whether the backing file that was found, of this format too, is the one that the image was made on. NULL: not known. */
	int (*check_parent)(void *st, const void *parent, struct vd_error *e);
	/* Accepts a half-opened state. */
	void (*close)(void *st);
	void (*describe)(const void *st, struct vd_format_info *i);
	/* The i-th of the parts that info() counts. NULL: there are none. */
	void (*part)(const void *st, uint32_t i, struct vd_part *part);
	/* Beside a backing file and other files of the set, which the core tells: what names a file, or misleads some reader. May be NULL. */
	int (*vet)(const void *st, const struct vd_vetting *v);
	/* Fills the format's own fields of the public info; the core has done the rest. May be NULL. */
	void (*info)(const void *st, struct vd_info *i);

	/* Before the first payload byte, and again after an end_write(): what must be durable by then (autoclear bits, dirty bits) is written and flushed here. May be NULL. */
	int (*begin_write)(void *st, struct vd_error *e);
	/* Clean close after begin_write, all tables committed. May be NULL. */
	int (*end_write)(void *st, struct vd_error *e);

	/* Describes [off, off+len), len not 0, inside the size: fills at most *n runs in order, no gap, coalesced; *n becomes how many (at least 1). */
	int (*map)(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e);

	/*
	 * Of a PACKED run with a frame, by its host bytes, of which `head` has all that lie in the file: sees that they are
	 * this unit's, sets r->host_len to the true length and r->codec to what it is.
	 */
	int (*frame)(void *st, struct vd_run *r, struct vd_bytes head, struct vd_error *e);

	/* Gives out space, reachable by nobody; or says that the range is written in place. */
	int (*reserve)(void *st, struct vd_resv *v, struct vd_error *e);
	/* Links it, memory only; releases what was there before. A failure poisons the handle. */
	int (*publish)(void *st, struct vd_resv *v, struct vd_error *e);
	/* Takes the space back; may leak it. */
	void (*cancel)(void *st, struct vd_resv *v);
	/* Makes zeros by tables: *done whole units from off (0: this range, or this format, needs written zeros). */
	int (*punch)(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e);
	/* The quarantine of a released range is over, and nobody needs its bytes: it may be given out again. */
	int (*freed)(void *st, const struct vd_range *range, struct vd_error *e);
	/*
	 * Where host space has counted owners, and what is freed is to be scrubbed or given to the host first: the same
	 * quarantine is over. What of the range has other owners loses one; what has none is added to *last, stays the
	 * driver's own and out of its cache of tables, and comes to freed() next. NULL: released ranges have no other owner.
	 */
	int (*disown)(void *st, const struct vd_range *range, struct vd_space_batch *last, struct vd_error *e);

	/*
	 * Claims all that the tables say lies inside the window (window.h), for every view. Alone on the handle with every
	 * table committed, so tables may be read past the cache, in large pieces. NULL: the format cannot.
	 */
	int (*walk)(void *st, struct vd_window *w, struct vd_error *e);

	/* NULL: the format has none. */
	const struct vd_snap_ops *snap;
	const struct vd_bitmap_ops *bitmap;
	/*
	 * Both under the conditions of vd_snap_ops. A disk grows in steps: reach() makes the tables reach further, where
	 * nothing is then; the core makes zeros there if something would show through; resize() says the new size.
	 */
	int (*reach)(void *st, uint64_t size, struct vd_error *e);      /* may be NULL: nothing to do */
	int (*resize)(void *st, uint64_t size, struct vd_error *e);     /* NULL: cannot */
	/* All of the request but the size, under the same conditions; judges all before it does any. NULL: there is nothing to amend. */
	int (*amend)(void *st, const struct vd_amend_opts *o, bool only_judge, struct vd_error *e);
	/*
	 * So are these; NULL: an image of the format has no parent. Another parent, or none (both NULL). `parent`: its state, where
	 * it is open and of this format; NULL: it is not known, and where more than a name is kept, that is the parent's of before.
	 */
	int (*set_backing)(void *st, const char *name, const char *format, const void *parent, struct vd_error *e);
	/*
	 * The parent, of this format and open for writing, is about to be written. From here on the image takes it for its own as it
	 * is and as it will be, durably; what that is, its own state is told. NULL: a parent is known by its name alone.
	 */
	int (*expect_parent)(void *st, void *parent, struct vd_error *e);
	/* The image holds nothing of its disk any more: all of it is the parent's. What snapshots inside it hold stays. */
	int (*empty)(void *st, struct vd_error *e);
	/*
	 * For conversion in place, under the conditions of vd_snap_ops. The disk moves inside the image by so many bytes, whole
	 * units: with by > 0 it grows at its front, where nothing is then; with by < 0 what is there goes. Tables change, data
	 * stay. It judges all before it does any, as far as that can be known. NULL: cannot.
	 */
	int (*shift)(void *st, int64_t by, bool only_judge, struct vd_error *e);
	/*
	 * The same conditions: the image's own LUKS header becomes this one, in space of its own, and the payload is from here on
	 * taken for encrypted; without one (len 0), for plain. What was the header before is released. NULL: the format has no place for it.
	 */
	int (*set_key_area)(void *st, struct vd_bytes header, struct vd_error *e);
	const struct vd_unpack_ops *unpack;     /* NULL: what is packed stays so */
	/* Keeps a text about the key area's slots, in place of the one before. NULL: no place. */
	int (*keep_notes)(void *st, const char *text, struct vd_error *e);
	/* What create() would make, before it is made: from the options and the size alone. NULL: not known. */
	int (*forecast)(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e);
	const struct vd_repair_ops *repair;     /* NULL: cannot be checked */
	const struct vd_incoming_ops *incoming; /* NULL: is not read as it comes */
};

#endif
