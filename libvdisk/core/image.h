/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The open image as the core's files share it.
 *
 * Files: image.c opens, creates, commits and closes; chain.c finds parents; layer.c has the encryption between guest
 * and map; read.c and write.c move payload, zero.c makes zeros; flush.c makes it durable, freeing.c ends quarantines;
 * extents.c and info.c report; host.c and scrub.c look at the host's files (window.c, cover.c);
 * inplace_unpack.c is a pass of conversion in place;
 * shape.c, snapshot.c, resize.c, bitmap.c, keyslots.c and keyheader.c change the image as a whole, rebase.c and
 * mergedown.c its chain; check.c checks and mends it; copy.c and compare.c are the long jobs; queue.c does what read.c,
 * write.c and flush.c do beside its caller; archive.c finds the disk in a package, package.c writes one around a new
 * disk; inspect.c judges images that nobody has opened yet.
 *
 * Lock order: control > range > alloc > page latch (in meta) > io. No payload I/O, flush, cipher, codec or callback
 * under alloc or a page latch.
 */
#ifndef VD_CORE_IMAGE_H
#define VD_CORE_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "libvdisk/core/format.h"
#include "libvdisk/core/rangelock.h"
#include "libvdisk/crypto/diskcipher.h"
#include "libvdisk/io/atomic.h"

/*
 * The encryption layer. Without a cipher it does nothing. A container (LUKS as the disk's content) shifts: guest byte
 * g is the driver's byte g + payload_off, and a hole is ciphertext of zeros on the host, so it decrypts to noise. With its
 * header in a file of its own (img->header) payload_off is 0.
 */
struct vd_layer {
	struct vd_diskcipher *cipher;   /* NULL: plain, or opened without key */
	enum vd_encryption encryption;
	bool is_container;
	uint64_t payload_off;           /* 0 unless container */
	uint32_t sector_size;           /* of the cipher; writes below it are read-modify-write */
	enum vd_tweak tweak;
	struct vd_luks_info luks;
};

struct vd_image {
	char *path;
	const struct vd_format *format;
	void *state;
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	struct vd_codec *codec;
	struct vd_io *header;           /* of a container: the file of its own that its LUKS header is in; NULL: the disk has it */
	struct vd_format_info info;     /* changes with the shape alone, under the control lock held exclusively; so does size */
	struct vd_layer layer;
	uint64_t size;                  /* guest-visible: info.size - layer.payload_off */

	struct vd_image *child;         /* the overlay above; NULL at the top */
	struct vd_image *parent;        /* owned; NULL: none, or opened for metadata only */
	bool content_is_unknown;        /* nobody could look whether it is a container */
	bool parent_missing;            /* has a parent that was not opened */
	bool gets_parent;               /* zeros that are made now have to mask a parent that is still to come */
	unsigned depth;                 /* 0 at the top */
	bool is_view;                   /* shows a snapshot instead of the disk */

	bool writable, fresh;           /* fresh: created by this handle and not committed */
	bool is_control;                /* writable, but for its shape alone: no key, no parent */
	bool is_repair;                 /* and that for vd_image_check() alone */
	bool scrubs;                    /* what becomes free is overwritten first */
	bool appends;                   /* space is given out only past the ends that the files had at open */
	bool is_bare;                   /* the disk's content as it is, whatever it holds: no layer */
	struct vd_package *package;     /* of a created image that is the disk in one; else NULL */
	struct vd_io *sink;             /* of a created image that goes to a stream: file 0 of its set; else NULL */
	struct vd_output output;        /* the pending name of a created image */
	struct vd_output *parts;        /* and of the other files that it consists of */
	size_t n_parts;

	pthread_rwlock_t control;       /* shared: any I/O; exclusive: what changes the shape, by vd_control_alone() */
	pthread_mutex_t lent_lock;
	pthread_cond_t lent_back;
	unsigned n_lent;                /* I/Os under way whose call has returned; under lent_lock */
	struct vd_rangelock *ranges;    /* guest bytes under write */
	pthread_mutex_t alloc;          /* driver's reserve, publish, cancel, punch, freed; meta snapshot */
	pthread_mutex_t commit;         /* of all that follows up to begin (flush.c) */
	pthread_cond_t commit_asked, commit_ended;
	bool is_committing;             /* one at a time; others wait for it, or for the next */
	uint64_t commits_asked, commits_done;   /* every request up to the latter is durable */
	uint64_t n_flushers, commit_ns; /* of the last one: whom it served and who came meanwhile; how long it took */
	pthread_mutex_t begin;          /* begin_write once; the driver's list of bitmaps */
	atomic_bool begun;
	_Atomic(struct vd_dirty *) dirty;       /* what was written since, for bitmaps; NULL: none records */
	atomic_bool poisoned;           /* a table write or flush failed */
	struct vd_scrubber *scrubber;   /* scrub.c: what it has looked up, under the control lock held exclusively; or NULL */
};

/*
 * image.c: an overlay whose holes ask the parent for the same bytes of the format's disk, encrypted or not: so it is in formats that
 * do not encrypt by themselves, and whose parents are of the same format. A container is then the content of the chain as a whole.
 */
bool vd_image_is_bare_overlay(const struct vd_image *img);
/* image.c: VD_EUNSUPPORTED for a container that lies in several layers. */
int vd_image_refuse_container_chain(const struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* image.c: what a clean close does before the files are closed. */
int vd_image_finish_writing(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* image.c, for create.c: an empty handle; the driver's open on img->set; the guest-visible size. */
int vd_image_alloc(const char *path, struct vd_image **out, struct vd_error *e) VD_MUST_CHECK;
int vd_image_run_driver(struct vd_image *img, uint64_t cache_bytes, const char *snapshot, struct vd_error *e) VD_MUST_CHECK;
int vd_image_learn_size(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;

/*
 * control.c: an rwlock ends in the thread where it began. I/O that outlives its call is lent a share: begun under the
 * control lock, given back by any thread, which must need no lock of the image to get there.
 */
void vd_control_lend(struct vd_image *img);
void vd_control_give_back(struct vd_image *img);
/* Waits until nobody is in the image and nothing of it is lent. */
void vd_control_alone(struct vd_image *img);
void vd_control_release(struct vd_image *img);  /* the end of alone */

/* flush.c: commits tables and payload; joins a commit that began after the call. Sets poisoned on failure. */
int vd_image_commit_tables(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
int vd_image_poisoned(const struct vd_image *img, struct vd_error *e);

/*
 * freeing.c: the one place through which host space becomes free. The quarantine of the batch is over but for readers; its
 * memory goes. One at a time: under img->commit.
 */
int vd_image_free_space(struct vd_image *img, struct vd_space_batch *b, struct vd_error *e) VD_MUST_CHECK;

/* VD_ERANGE unless [off, off+len) is inside the disk. */
int vd_image_check_range(const struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;

/* extents.c: vd_image_extents() with the control lock held. */
int vd_extents(struct vd_image *img, uint64_t off, uint64_t len, struct vd_extent *buf, size_t n, size_t *got,
	       struct vd_error *e) VD_MUST_CHECK;

/* read.c: with the control lock held, or on a handle that nobody else has. Bytes past the end of the disk read as zeros. */
int vd_read(struct vd_image *img, void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;

/* What a PACKED run's stream expands to, all of it: unit_len bytes. */
int vd_read_unit(struct vd_image *img, const struct vd_run *mapped, uint8_t *unit, struct vd_error *e) VD_MUST_CHECK;

/*
 * write.c: the two halves of a write, for copy.c, whose workers reserve in guest order and write in any. The caller
 * holds the control lock and has the range for itself. v->off is a guest offset plus the layer's payload offset.
 */
int vd_write_reserve(struct vd_image *img, struct vd_resv *v, struct vd_error *e) VD_MUST_CHECK;
/* Fills, encrypts and writes v->covered bytes of buf (or v->packed_len packed ones) and publishes; cancels on failure. */
int vd_write_complete(struct vd_image *img, struct vd_resv *v, const void *buf, struct vd_error *e) VD_MUST_CHECK;
/* The same with a buffer that may be overwritten: it is encrypted where it is, which saves the copy. */
int vd_write_complete_scratch(struct vd_image *img, struct vd_resv *v, void *buf, struct vd_error *e) VD_MUST_CHECK;
/*
 * One unit (info.unit bytes, of which the disk has len, from guest_off on) as it is stored packed, in at most
 * vd_write_pack_room() bytes: of a container its ciphertext, to which buf is turned. *packed_len 0: it becomes no smaller.
 */
size_t vd_write_pack_room(const struct vd_image *img);
int vd_write_pack(struct vd_image *img, uint8_t *buf, size_t len, uint64_t guest_off, uint8_t *packed, size_t *packed_len,
		  struct vd_error *e) VD_MUST_CHECK;
int vd_write_publish(struct vd_image *img, struct vd_resv *v, struct vd_error *e) VD_MUST_CHECK;
void vd_write_cancel(struct vd_image *img, struct vd_resv *v);
/* The range that a write of [off, off+len) may touch, for its writer alone. */
void vd_write_hold(struct vd_image *img, struct vd_rangehold *h, uint64_t off, uint64_t len);
/* Both halves, with the range held. */
int vd_write_held(struct vd_image *img, const uint8_t *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
/*
 * Every change of the disk's bytes (vd_write(), vd_zero(), a discard; not the copy into a new image) passes here before its
 * first byte, with the control lock held: the range is judged, and begin_write is done once a handle.
 */
int vd_write_enter(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* Between two writes: dirty tables have a bound, and the writer that finds it passed commits. */
int vd_write_relieve(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* vd_image_pwrite() and vd_image_write_zeroes() (zero.c) with the control lock held: range locks are theirs. */
int vd_write(struct vd_image *img, const void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
int vd_zero(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* begin_write once a handle; VD_EREADONLY, VD_EPOISONED. Takes no lock of the above. */
int vd_write_start(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;

/* zero.c: makes zeros, by tables, by holes of the host file, or written; the conditions are those of vd_write_reserve(). */
int vd_write_zeroes(struct vd_image *img, uint64_t off, uint64_t len, unsigned flags, struct vd_error *e) VD_MUST_CHECK;

/* layer.c: buf holds whole sectors; guest_off and host_off are those of its first byte. Nothing happens without a cipher. */
int vd_layer_encrypt(const struct vd_layer *l, void *buf, size_t len, uint64_t guest_off, uint64_t host_off,
		     struct vd_error *e) VD_MUST_CHECK;
int vd_layer_decrypt(const struct vd_layer *l, void *buf, size_t len, uint64_t guest_off, uint64_t host_off,
		     struct vd_error *e) VD_MUST_CHECK;
/* Opens the file that opts name for the header, if they do. */
int vd_layer_open_header(struct vd_host *host, struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e) VD_MUST_CHECK;
/* Finds the encryption of an image just opened and, with use_keys, unlocks it. look_for_container: a LUKS header as content counts. */
int vd_layer_open(struct vd_image *img, const struct vd_open_opts *opts, bool look_for_container, struct vd_error *e) VD_MUST_CHECK;
/* Makes a volume key and a header for opts->key; *header is malloc'ed. The layer is ready for use. */
int vd_layer_create(struct vd_layer *l, const struct vd_create_opts *opts, bool is_container, uint8_t **header,
		    size_t *header_len, struct vd_error *e) VD_MUST_CHECK;
/* Whether the disk begins as a container does. Of an overlay whose parent is not open, its own bytes count. */
int vd_layer_probe_header(struct vd_image *img, bool *yes, struct vd_error *e) VD_MUST_CHECK;
/* A private copy of the LUKS header, key material and all; malloc'ed. With the control lock held, or alone. */
int vd_layer_read_header(struct vd_image *img, bool is_container, uint8_t **header, size_t *header_len,
			 struct vd_error *e) VD_MUST_CHECK;
/* What the keys room is to see of the image's keyslots, with this header; borrowed. */
struct vd_luks_view vd_layer_luks_view(const struct vd_image *img, struct vd_bytes header);
/* Bytes of the header over those at `at`, and a flush. */
int vd_layer_write_header(struct vd_image *img, const uint8_t *buf, size_t len, uint64_t at, struct vd_error *e) VD_MUST_CHECK;
void vd_layer_fini(struct vd_layer *l);

/* chain.c: opens the parent that img->info names, through the gate, and its parents. */
int vd_chain_open(struct vd_host *host, struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e) VD_MUST_CHECK;
/* The same for a parent that has passed the gate; opts are the parent's, its format named. A pinned driver serves parents of its name. */
int vd_chain_open_parent(struct vd_host *host, struct vd_image *img, const char *path, const struct vd_open_opts *opts,
			 struct vd_error *e) VD_MUST_CHECK;
/* The same, for a layer that may become the parent: img does not get it. */
int vd_chain_open_layer(struct vd_host *host, struct vd_image *img, const char *path, const struct vd_open_opts *opts,
			struct vd_image **out, struct vd_error *e) VD_MUST_CHECK;

/* create.c, for measure.c: judges the options, finds the driver; the disk's size, in whole sectors. */
int vd_create_judge(const struct vd_create_opts *o, bool encrypted, const struct vd_format **format,
		    struct vd_error *e) VD_MUST_CHECK;
int vd_create_size(uint64_t want, const struct vd_create_opts *o, bool is_plain_raw, uint64_t *size,
		   struct vd_error *e) VD_MUST_CHECK;

/* A copy leaves out zeros in units of this, or of the format's where they are larger: a page, as in qemu-img's -S. */
#define VD_COPY_GRANULE 4096

/* Beside enum vd_open_flag, for the core alone: vd_open.appends. */
#define VD_OPEN_APPENDS (1u << 31)
#define VD_OPEN_BARE (1u << 30)         /* whatever the disk holds is its content: no layer is looked for */

/* Internal open: pins a driver and a host (tests: a toy driver, a recorder). Either may be NULL for the default. */
int vd_image_open_on(struct vd_host *host, const struct vd_format *format, const char *path,
		     const struct vd_open_opts *opts, struct vd_image **out, struct vd_error *e) VD_MUST_CHECK;
int vd_image_create_on(struct vd_host *host, const struct vd_format *format, const char *path,
		       const struct vd_create_opts *opts, struct vd_image **out, struct vd_error *e) VD_MUST_CHECK;
/* The whole of open, for chain.c: `child` is the overlay above, or NULL. */
int vd_image_open_below(struct vd_host *host, const struct vd_format *format, const char *path,
			const struct vd_open_opts *opts, struct vd_image *child, struct vd_image **out,
			struct vd_error *e) VD_MUST_CHECK;

#endif
