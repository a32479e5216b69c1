/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk.h - the whole public interface of libvdisk.
 *
 * Rules that hold for every call below, and are not repeated there:
 *
 *  - Units. Sizes, lengths and offsets are bytes; any alignment is accepted; a call moves all it was asked
 *    to move or fails: there is no short read or write.
 *  - Results. A call that can fail returns 0 or one of the negative codes of enum vd_code, and then fills
 *    the caller's struct vd_error if one was given (NULL is allowed).
 *  - Threads. Any call may be made from any thread on one handle. Reads run in parallel; writes run in
 *    parallel but for a short metadata lock; open, commit, close and abort are exclusive: the caller makes
 *    sure that no other call on the handle is under way or follows.
 *  - Structs that begin with struct_size: set all to zero, then struct_size to sizeof; zero means default.
 *  - Strings handed in are copied; strings handed out belong to the handle and live as long as it does.
 *  - The library starts no process but a passphrase command, reads no environment, touches no signal
 *    disposition, writes nothing to stdout or stderr, and never aborts on what an image contains.
 */
#ifndef VDISK_H
#define VDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VDISK_VERSION_MAJOR 1
#define VDISK_VERSION_MINOR 0
#define VDISK_VERSION_MICRO 0

#if defined(__GNUC__)
#define VD_MUST_CHECK __attribute__((warn_unused_result))
#define VD_PRINTF(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
#else
#define VD_MUST_CHECK
#define VD_PRINTF(fmt_arg, first_arg)
#endif
#if defined(__GNUC__) && defined(VDISK_BUILDING)
#define VD_PUBLIC __attribute__((visibility("default")))
#else
#define VD_PUBLIC
#endif

/* ---- errors ------------------------------------------------------------------------------------------- */

/*
 * The one table of failures: symbol, value, exit status of the command, stable name (never translated), text.
 * Values and names never change meaning; new ones are added at the end.
 */
#define VD_CODE_TABLE(X)                                                                                  \
	X(VD_EFAILED,      -1,  1, "failed",           "the operation failed")                            \
	X(VD_ENOMEM,       -2,  1, "no-memory",        "not enough memory")                               \
	X(VD_EIO,          -3,  1, "io-error",         "reading or writing a file failed")                \
	X(VD_ENOENT,       -4,  1, "not-found",        "the file does not exist")                         \
	X(VD_EEXIST,       -5,  1, "exists",           "the output exists already")                       \
	X(VD_EACCESS,      -6,  1, "access-denied",    "the system does not allow this access")           \
	X(VD_ECORRUPT,     -7,  1, "corrupt",          "the image breaks a rule of its format")           \
	X(VD_EUNSUPPORTED, -8, 63, "unsupported",      "not supported for this format or feature")        \
	X(VD_EKEY,         -9, 12, "wrong-key",        "no key that was given opens the image")           \
	X(VD_ENOKEY,      -10, 12, "key-needed",       "the image is encrypted and no key was given")     \
	X(VD_EARG,        -11, 64, "usage",            "an argument is not valid")                        \
	X(VD_ERANGE,      -12,  1, "out-of-range",     "the range lies outside the disk")                 \
	X(VD_EBUSY,       -13, 11, "in-use",           "another process uses the image")                  \
	X(VD_ECANCELLED,  -14,  1, "cancelled",        "the operation was cancelled")                     \
	X(VD_ENOSPC,      -15, 14, "no-space",         "not enough space")                                \
	X(VD_EREFERENCE,  -16,  1, "reference-denied", "the image names another file that may not be opened") \
	X(VD_EREADONLY,   -17,  1, "read-only",        "the handle or the image is read-only")            \
	X(VD_EPOISONED,   -18,  1, "poisoned",         "an earlier write failed; the handle refuses to go on") \
	X(VD_EAGAIN,      -19,  1, "would-block",      "the answer is not in memory")                     \
	X(VD_EAUTH,       -20, 13, "authentication",   "a signature, a checksum or the encryption header does not hold") \
	X(VD_EMISMATCH,   -21, 10, "mismatch",         "what was compared is not the same")              \
	X(VD_EBITMAP,     -22, 17, "bitmap-unusable",  "a bitmap does not tell what changed")            \
	X(VD_EHALFWAY,    -23, 16, "half-way",         "a conversion in place has begun and not ended")

enum vd_code {
	VD_OK = 0,
#define VD_CODE_ENUM(sym, value, exit_status, name, text) sym = value,
	VD_CODE_TABLE(VD_CODE_ENUM)
#undef VD_CODE_ENUM
};

/* What went wrong, in words for the person who has to act. Owned by the caller; never points anywhere. */
struct vd_error {
	int code;               /* enum vd_code */
	int sys_errno;          /* errno behind it, or 0 */
	bool has_offset;
	uint64_t offset;        /* where in the named file, when has_offset */
	char message[640];      /* one line: what, where; never a secret, control characters escaped */
	char hint[320];         /* one line: what to do; may be empty */
};

/* Stable name ("wrong-key"), text and exit status of a code; for a value outside the table those of VD_EFAILED. */
VD_PUBLIC const char *vd_code_name(int code);
VD_PUBLIC const char *vd_code_text(int code);
VD_PUBLIC int vd_code_exit_status(int code);

/* "MAJOR.MINOR.MICRO" of the library that is running. */
VD_PUBLIC const char *vd_version(void);
/*
 * For programs that use libgcrypt themselves beside this library: sets it up as this library does when it first needs it, with a locked pool that
 * is left out of core files; what was set up already is left as it is. Without it whoever comes first decides where keys lie. Any thread, any time.
 */
VD_PUBLIC int vd_libgcrypt_setup(struct vd_error *e) VD_MUST_CHECK;

/* ---- keys --------------------------------------------------------------------------------------------- */

/* A passphrase or key file's bytes, in memory that is locked, left out of core dumps, and wiped when freed. */
struct vd_key;

/* Longest secret that a key can hold; longer input is VD_EARG. qemu opens no passphrase over 512 bytes. */
#define VD_KEY_MAX 8192

/* From memory; the caller's copy stays the caller's to wipe. */
VD_PUBLIC int vd_key_from_bytes(const void *bytes, size_t len, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* The file's bytes verbatim, newline and all, as cryptsetup --key-file takes them. */
VD_PUBLIC int vd_key_from_file(const char *path, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* The first line of the file, its newline removed. */
VD_PUBLIC int vd_key_from_passphrase_file(const char *path, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* The first line read from the descriptor, which stays open; verbatim: all bytes up to end of file. */
VD_PUBLIC int vd_key_from_fd(int fd, bool verbatim, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* Runs /bin/sh -c COMMAND and takes the first line of its stdout; exit status other than 0 is VD_EFAILED. */
VD_PUBLIC int vd_key_from_command(const char *command, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* The systemd credential NAME below DIRECTORY (what $CREDENTIALS_DIRECTORY says), bytes verbatim. */
VD_PUBLIC int vd_key_from_credential(const char *directory, const char *name, struct vd_key **out,
				     struct vd_error *e) VD_MUST_CHECK;

/*
 * A key that a program of the user's gives, for the token that an image keeps with a keyslot: from a smart card, a TPM, a key
 * server. Runs /bin/sh -c COMMAND each time that a token is to be opened, in a process group of its own, which has the
 * terminal meanwhile if the application's group has it; the protocol is in keys/keycommand.md. As new key of
 * vd_keyslot_add() and vd_keyslot_change() it seals a secret that is made for it. Elsewhere, where a secret itself is wanted
 * (creating images, splitting, escrow, legacy AES), it is VD_EARG. The command is run by the calls that use the key: they fail
 * with VD_EKEY when no token fits or the secret is denied, VD_EFAILED when the program fails or takes too long.
 */
#define VD_KEY_TOKEN_MAX 4096           /* bytes of a token, without blanks */
struct vd_key_command_opts {
	size_t struct_size;
	unsigned timeout_s;             /* for one run; 0: 60 */
	const char *token_file;         /* a new secret: the token goes into this new file and not into the image. Opening: it is
					   tried before those of the image. NULL: none; needed for LUKS1 containers */
};
VD_PUBLIC int vd_key_from_key_command(const char *command, const struct vd_key_command_opts *opts, struct vd_key **out,
				      struct vd_error *e) VD_MUST_CHECK;
/* True for keys of vd_key_from_key_command(). */
VD_PUBLIC bool vd_key_is_command(const struct vd_key *key);

/*
 * The payload, verbatim, of the key of that description in the kernel keyrings of the thread, process, session or user;
 * "user:" (as without) or "big_key:" before it says its type. VD_ENOENT: there is none, or it has expired; VD_EARG: a type
 * that cannot be read; VD_EUNSUPPORTED: the system does not allow keyrings, as in some containers.
 */
VD_PUBLIC int vd_key_from_keyring(const char *name, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/*
 * Splits a secret of up to 128 bytes into n shares, text of one line each, of which any k give it back and fewer say nothing.
 * `shares` has room for n; the caller wipes them.
 */
#define VD_SHARE_SIZE 320
VD_PUBLIC int vd_key_split(const struct vd_key *key, unsigned k, unsigned n, char (*shares)[VD_SHARE_SIZE],
			   struct vd_error *e) VD_MUST_CHECK;
/* From shares, each as a key of its own (from a file, a terminal ...); VD_EARG says which is wrong, or how many are missing. */
VD_PUBLIC int vd_key_from_shares(struct vd_key *const *shares, size_t n, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;
/* True when the secret's last byte is a newline: the usual reason for a wrong key. */
VD_PUBLIC bool vd_key_ends_with_newline(const struct vd_key *key);
/* True when qemu can be given this secret: valid UTF-8 without NUL, at most 512 bytes. */
VD_PUBLIC bool vd_key_is_usable_by_qemu(const struct vd_key *key);
/*
 * Writes the secret's bytes, and nothing else, for another process that is to open the image: into a pipe, which has room for
 * any key, its reader taking it with vd_key_from_fd(verbatim). Secrets do not get through fork(). VD_EARG: a key command.
 */
VD_PUBLIC int vd_key_to_fd(const struct vd_key *key, int fd, struct vd_error *e) VD_MUST_CHECK;
/*
 * The secret's bytes, for what else of an application's it opens; they are the key's, in its locked memory, for as long as it
 * lives. VD_EARG: a key command has none.
 */
VD_PUBLIC int vd_key_view(const struct vd_key *key, const void **bytes, size_t *len, struct vd_error *e) VD_MUST_CHECK;
/* Wipes and frees; NULL is allowed. */
VD_PUBLIC void vd_key_free(struct vd_key *key);

/* ---- opening ------------------------------------------------------------------------------------------ */

/* One disk: an image file, the files it consists of, and the chain of parents below it. */
struct vd_image;

enum vd_reference_kind {
	VD_REF_BACKING = 1,     /* the parent of an overlay */
	VD_REF_DATA_FILE = 2,   /* qcow2's external data file */
	VD_REF_EXTENT = 3,      /* a part of a multi-extent image */
};

/*
 * The gate decides whether a file that an image names may be opened. `image` is the path of the image that
 * names it, `name` the name as the image holds it (hostile until judged), `format` the format it is said to
 * have or NULL. Return 0 and fill `path` (NUL-terminated, at most path_len bytes) with what to open, or
 * negative to refuse. Called from the thread that opens.
 */
typedef int (*vd_gate_fn)(void *ctx, enum vd_reference_kind kind, const char *image, const char *name,
			  const char *format, char *path, size_t path_len, struct vd_error *e);

/*
 * A gate of directories: a name is allowed if it resolves, symbolic links followed, to a regular file or block device
 * at or below one of the n directories, or of the image's own folder. Pass &struct as gate_ctx.
 */
struct vd_gate_dirs {
	const char *const *dirs;
	size_t n;
};
VD_PUBLIC int vd_gate_below_dirs(void *ctx, enum vd_reference_kind kind, const char *image, const char *name,
				 const char *format, char *path, size_t path_len, struct vd_error *e) VD_MUST_CHECK;

enum vd_open_flag {
	VD_OPEN_WRITE = 1,        /* allow writing; the default never writes a byte to any file */
	VD_OPEN_FORCE_SHARE = 2,  /* read although another process writes: the content may be inconsistent */
	VD_OPEN_METADATA = 4,     /* tables only: no key is used, no parent opened; payload reads fail with VD_ENOKEY
				     (encrypted) or VD_EREFERENCE (below the top layer). For info, map and check. */
	VD_OPEN_CONTROL = 8,      /* METADATA, and the image's shape may be changed: snapshots, bitmaps, size. Payload is not written */
	VD_OPEN_REPAIR = 16,      /* CONTROL for vd_image_check() alone, and even of an image that is marked dirty or corrupt */
	VD_OPEN_SCRUB_FREED = 32, /* with WRITE or CONTROL: host space that becomes free is overwritten with zeros, and flushed,
				     before it is used again and before the flush, or the change of shape, that freed it returns */
	VD_OPEN_FILES = 64,       /* with METADATA or CONTROL: the files that the image consists of are opened, through the gate */
};

struct vd_open_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_open_flag */
	const char *format;             /* NULL: decided from the bytes; name it for files from outside. "raw" takes the
					   bytes as they are, "luks" a LUKS container in raw */
	const char *backing_format;     /* format of the first parent when the image does not say */
	struct vd_key *const *keys;     /* tried in turn on every encrypted layer of the chain; borrowed for the call */
	size_t n_keys;
	vd_gate_fn gate;                /* NULL: relative names inside the image's own folder, nothing else */
	void *gate_ctx;
	uint64_t cache_bytes;           /* table cache of each layer; 0: 32 MiB */
	const char *snapshot;           /* id or name of an internal snapshot: the handle is its disk, for reading only */
	const char *disk;               /* which one of a package of several (OVA); its name there. Disks in packages are only read */
	const char *header;             /* a LUKS header in a file of its own ("detached"); nothing in the image tells that it is
					   its: with another the disk reads as noise. Never for qcow2. Locked like the image; written
					   to by changes of keys, with CONTROL. NULL: what the image itself has */
};

/*
 * True for the address of a disk that a server exports, which every call with a path of an image takes as one: by NBD
 * "nbd+unix:///EXPORT?socket=PATH", "nbd://HOST:PORT/EXPORT", "nbds://..." for TLS, as libnbd has them. Such a disk is like a block
 * device, of fixed size, but nobody locks it; it is raw unless the format is named. Or of an image on a web server,
 * "https://HOST/PATH", which is only read and whose format its bytes say. An image that names such an address is refused.
 */
VD_PUBLIC bool vd_name_is_address(const char *name);
/*
 * Opens the image at `path`. Takes qemu-compatible locks: VD_EBUSY says who holds it. On failure nothing has
 * changed and *out is untouched. Free with vd_image_close() or vd_image_abort().
 */
VD_PUBLIC int vd_image_open(const char *path, const struct vd_open_opts *opts, struct vd_image **out,
			    struct vd_error *e) VD_MUST_CHECK;

enum vd_luks_type { VD_LUKS_DEFAULT = 0, VD_LUKS1 = 1, VD_LUKS2 = 2 };
enum vd_cipher { VD_CIPHER_DEFAULT = 0, VD_AES_256_XTS = 1, VD_AES_128_XTS = 2 };
enum vd_compression { VD_COMPRESSION_NONE = 0, VD_COMPRESSION_DEFLATE = 1, VD_COMPRESSION_ZSTD = 2 };

/* How the secret guards the volume key. Zero: PBKDF2-SHA-512, 1 000 000 (LUKS1); Argon2id, 4 passes, 256 MiB (LUKS2). */
struct vd_kdf_opts {
	uint32_t iterations;            /* PBKDF2 iterations, or Argon2id passes */
	uint32_t memory_kib;            /* Argon2id only */
};

enum vd_create_flag {
	VD_CREATE_REPLACE = 1,          /* an existing file of that name is replaced at commit */
	VD_CREATE_EXTENDED_L2 = 2,      /* qcow2: 32 subclusters a cluster */
	VD_CREATE_LAZY_REFCOUNTS = 4,   /* qcow2 v3 */
	VD_CREATE_COMPAT_V2 = 8,        /* qcow2 version 2 (compat=0.10) */
	VD_CREATE_DATA_FILE_RAW = 16,   /* qcow2: the external data file is a raw image of the disk */
	VD_CREATE_ZEROED_GRAINS = 64,   /* vmdk, sparse: version 2, in which tables can say zeros over a parent */
	VD_CREATE_AZURE = 32,           /* vhd: as Azure takes them: fixed, the size in whole MiB */
};

struct vd_create_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_create_flag */
	const char *format;             /* a name of vd_format_name(), or "luks" (a LUKS container in raw: as "raw" with a key), or
					   "ova" (a stream-optimized VMDK in a package, with SHA-256 manifest); required */
	const char *subformat;          /* one of the format's kinds: vhd and vhdx "dynamic" (default), "fixed"; vmdk
					   "monolithicSparse" (default), "monolithicFlat", "twoGbMaxExtentSparse",
					   "twoGbMaxExtentFlat", "vmfs", "vmfsThin", "vmfsSparse", "streamOptimized" (a copy fills it). NULL: the default */
	uint64_t size;                  /* guest-visible bytes; 0 with a backing file: the backing file's size */
	uint32_t cluster_size;          /* allocation unit. qcow2, vmdk; 0: 64 KiB (extended L2: 128 KiB). vhd; 0: 2 MiB. vhdx; 0: 32 MiB */
	const char *adapter_type;       /* vmdk: "ide", "lsilogic", "buslogic", "legacyESX", "pvscsi"; NULL: the subformat's */
	uint32_t hw_version;            /* vmdk: of the virtual machine; 0: 4 */
	uint32_t refcount_bits;         /* qcow2; 0: 16 */
	enum vd_compression compression;/* qcow2: type that compressed clusters have */
	const char *backing_file;       /* name written into the image as it is; opened through the gate for its size */
	const char *backing_format;     /* required with backing_file */
	const char *data_file;          /* qcow2 external data file: created beside the image under this name */
	struct vd_key *key;             /* not NULL: encrypt. qcow2: native LUKS1; others: a LUKS container */
	const char *header;             /* of a container: its LUKS header becomes this new file (mode 0600), and the disk begins
					   at byte 0; it is never one that exists. It gets its name before the image does */
	enum vd_luks_type luks_type;    /* default LUKS1: opens in qemu, nbdkit and cryptsetup */
	enum vd_cipher cipher;          /* default aes-256-xts */
	uint32_t luks_sector_size;      /* LUKS2: 512 (default) or 4096 */
	struct vd_kdf_opts kdf;
	vd_gate_fn gate;                /* for backing_file */
	void *gate_ctx;
	struct vd_key *const *backing_keys; /* to open an encrypted backing file */
	size_t n_backing_keys;
	uint32_t logical_sector_size;   /* vhdx: 512 or 4096; 0: the parent's, else 512 */
};

/*
 * Makes a new image and opens it for writing. The bytes go to "PATH.vdisk-partial"; vd_image_commit() gives it
 * its name. vd_image_abort() and vd_image_close() without commit remove it. A block device, an existing
 * special file or a server's disk as raw output is written where it is.
 */
VD_PUBLIC int vd_image_create(const char *path, const struct vd_create_opts *opts, struct vd_image **out,
			      struct vd_error *e) VD_MUST_CHECK;
/*
 * The same into a descriptor that takes bytes once and in their order: a pipe, a socket, a file. `name` stands for it in
 * messages; the flag VD_CREATE_REPLACE says nothing. Possible are raw, "luks", and "vmdk" with subformat "streamOptimized": others
 * are VD_EUNSUPPORTED. The image is filled by one vd_image_copy() and is whole when vd_image_commit() has returned 0: until
 * then the reader has bytes without their end, which of a stream-optimized disk every reader notices, and of raw bytes
 * nobody but who asks this program how it ended. Zeros are written as such. A reader that goes away is VD_EIO, after SIGPIPE, which is for
 * the caller to ignore or handle. The descriptor is borrowed until the handle is gone. While a reader keeps the copy
 * waiting it can be cancelled, if it reads from a pipe.
 */
VD_PUBLIC int vd_image_create_fd(int fd, const char *name, const struct vd_create_opts *opts, struct vd_image **out,
				 struct vd_error *e) VD_MUST_CHECK;
/* Writes all out, flushes, renames, flushes the folder. After success the image has its final name and the handle only reads. */
VD_PUBLIC int vd_image_commit(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* Flushes, ends writing, frees. The handle is gone whatever is returned; the result is that of the last flush and close. */
VD_PUBLIC int vd_image_close(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;
/* Frees without a flush: for error paths. What was flushed before stays; NULL is allowed. */
VD_PUBLIC void vd_image_abort(struct vd_image *img);

/* ---- reading and writing ------------------------------------------------------------------------------ */

VD_PUBLIC uint64_t vd_image_size(const struct vd_image *img);
/* After a failure the buffer's content is undefined. */
VD_PUBLIC int vd_image_pread(struct vd_image *img, void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
/* On return the bytes are readable on this handle; durable only after vd_image_flush(). After a failure any part of the range may be written. */
VD_PUBLIC int vd_image_pwrite(struct vd_image *img, const void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;

enum vd_zero_flag {
	VD_ZERO_ALLOCATED = 1,          /* the range keeps its space in the image, or gets it: what is written there later needs none */
};
/*
 * Makes the range read as zeros in the cheapest sound way; never uncovers a parent. As with a write, after a failure any
 * part of the range may be zeros.
 */
VD_PUBLIC int vd_image_write_zeroes(struct vd_image *img, uint64_t off, uint64_t len, unsigned flags,
				    struct vd_error *e) VD_MUST_CHECK;
/*
 * A hint that the range's content is not needed: its whole units (clusters, subclusters; bytes in a raw file) are given
 * back, to the host's file system too once the next flush has made it durable, and read as zeros from here on; never does a
 * parent or a snapshot show through. What cannot be given back keeps its content: units of which only a part is in the
 * range, a LUKS container in raw, qcow2 version 2 over a backing file, a raw file whose host cannot make holes. After a
 * crash a unit has its old content or zeros. Who needs zeros calls vd_image_write_zeroes().
 */
VD_PUBLIC int vd_image_discard(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* Makes every write completed before the call durable. Concurrent calls share one flush. */
VD_PUBLIC int vd_image_flush(struct vd_image *img, struct vd_error *e) VD_MUST_CHECK;

enum vd_extent_flag {
	VD_EXTENT_DATA = 1,             /* host bytes hold the content */
	VD_EXTENT_ZERO = 2,             /* reads as zeros without looking at host bytes */
	VD_EXTENT_HOLE = 4,             /* this chain holds nothing here (reads as zeros, or noise inside a container) */
	VD_EXTENT_PACKED = 8,           /* compressed */
	VD_EXTENT_ENCRYPTED = 16,       /* host bytes are ciphertext */
	VD_EXTENT_HOST = 32,            /* host_off and file are valid: guest byte i is at host_off + i */
	VD_EXTENT_DIRTY = 64,           /* vd_image_extents_since() only: may have been written since */
};
struct vd_extent {
	uint64_t off, len;
	uint64_t host_off;
	const char *file;               /* host file's path; belongs to the handle */
	uint32_t flags;                 /* enum vd_extent_flag */
	uint32_t depth;                 /* 0: this image, 1: its parent, ... */
};
/*
 * Describes [off, off+len): fills at most n extents in order without gap, *got of them; call again from the end of
 * the last. With VD_OPEN_METADATA only the top layer is described, what it lacks as HOLE.
 */
VD_PUBLIC int vd_image_extents(struct vd_image *img, uint64_t off, uint64_t len, struct vd_extent *buf, size_t n,
			       size_t *got, struct vd_error *e) VD_MUST_CHECK;

/* ---- queues ------------------------------------------------------------------------------------------- */

/*
 * Many requests at once on one image, without a thread for each. Submit them, go about other things, reap what has
 * ended. Where it can, the library has the kernel read meanwhile (io_uring); everything else is done by threads of
 * the queue's own, which start as they are needed.
 *
 *  - Order: none. Requests under way together are done in any order, side by side. Writes under way that overlap harm
 *    nothing but each other's bytes: which of them a byte is from is not said. A read beside a write sees either.
 *  - VD_REQUEST_FLUSH makes durable what had ended, reaped or not, before it was submitted; of what was still under way
 *    it says nothing.
 *  - Buffers belong to the library from submit until the request is reaped, or vd_queue_free() returns.
 *  - Threads: several may submit and reap on one queue, and several queues and plain calls work on one image. What
 *    changes the image's shape waits until the requests that have begun have ended, and the others wait for it; nobody
 *    needs to reap meanwhile, so the thread that has submitted may call it.
 *  - vd_queue_free() every queue before the image is committed, closed or aborted.
 */
struct vd_queue;

enum vd_queue_flag {
	VD_QUEUE_NO_URING = 1,          /* threads alone, also where io_uring is to be had; for who forbids it to himself later */
};
struct vd_queue_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_queue_flag */
	unsigned n_threads;             /* at most; they wait for the disk more than they compute. 0: 16, or depth if less */
};

enum vd_request_kind {
	VD_REQUEST_READ = 1,
	VD_REQUEST_WRITE = 2,
	VD_REQUEST_ZEROES = 3,          /* buf unused */
	VD_REQUEST_DISCARD = 4,         /* buf unused */
	VD_REQUEST_FLUSH = 5,           /* buf, len, off unused */
};
struct vd_request {
	enum vd_request_kind kind;
	void *buf;                      /* caller's; only read from by WRITE */
	size_t len;
	uint64_t off;
	void *user;                     /* comes back with the completion */
	unsigned flags;                 /* of ZEROES: enum vd_zero_flag */
};
struct vd_completion {
	void *user;
	int result;                     /* as of the plain call: 0 or an enum vd_code */
	struct vd_error error;          /* filled when result is negative */
};

#define VD_QUEUE_DEPTH_MAX 16384
/* depth: how many requests may be submitted and not reaped yet. */
VD_PUBLIC int vd_queue_new(struct vd_image *img, unsigned depth, const struct vd_queue_opts *opts, struct vd_queue **out,
			   struct vd_error *e) VD_MUST_CHECK;
/*
 * Hands in n requests, which are copied; does not wait for any. All or none: VD_EAGAIN when fewer than n of the depth
 * are free (reap first), VD_EARG when one is of no kind. What else is wrong with one of them is its own result.
 */
VD_PUBLIC int vd_queue_submit(struct vd_queue *q, const struct vd_request *reqs, size_t n, struct vd_error *e) VD_MUST_CHECK;
/* For poll(2), epoll(7): readable as long as something can be reaped. Belongs to the queue; only to be waited for. */
VD_PUBLIC int vd_queue_poll_fd(struct vd_queue *q);
/*
 * Takes at most max completions in the order in which they ended; returns how many. Waits until there are min of them
 * (or all that is under way, if that is less), but not longer than timeout_ms; negative: as long as it takes. 0 for
 * min or timeout_ms: does not wait.
 */
VD_PUBLIC size_t vd_queue_reap(struct vd_queue *q, struct vd_completion *done, size_t max, size_t min, int timeout_ms);
/* Waits until all that was submitted has ended; results that were not reaped are lost. NULL is allowed. */
VD_PUBLIC void vd_queue_free(struct vd_queue *q);

/* ---- knowing ------------------------------------------------------------------------------------------ */

#define VD_MAX_SLOTS 32
#define VD_LABEL_MAX 64                 /* bytes of a keyslot's label, NUL and all */
struct vd_slot_info {
	uint32_t index;
	const char *kdf;                /* "pbkdf2", "argon2i", "argon2id" */
	const char *hash;               /* for pbkdf2 */
	uint64_t iterations;
	uint32_t memory_kib, parallel;
	bool is_weak;                   /* guesses at a human's passphrase are cheap */
	char label[VD_LABEL_MAX], kind[16];     /* "" where nothing says */
	char helper[16];                /* program that the slot's token is of, such as "tpm2"; "": none, or it does not say */
	bool is_machine_bound;          /* the secret goes with one machine */
	uint64_t created;               /* seconds since 1970; 0: not known */
};
struct vd_luks_info {
	uint32_t version;               /* 1 or 2; 0: not LUKS */
	char cipher[32], mode[32], hash[32], uuid[40];
	uint32_t key_bits;              /* of the volume key: 512 for aes-256-xts */
	uint32_t sector_size;
	uint64_t header_off;            /* in the image file, or that of the header */
	uint64_t payload_off;           /* in the container */
	uint32_t n_slots;               /* in use */
	struct vd_slot_info slots[VD_MAX_SLOTS];
	uint32_t damaged_copy;          /* LUKS2: 1 or 2: that copy of the header does not hold, the other is read; 0: none */
};
enum vd_encryption { VD_PLAIN = 0, VD_ENCRYPTED_LUKS = 1, VD_ENCRYPTED_LEGACY_AES = 2, VD_ENCRYPTED_XEN = 3 };

struct vd_info {
	size_t struct_size;
	const char *path, *format;
	uint64_t virtual_size;          /* guest-visible; of an encrypted container: the payload */
	uint64_t actual_size;           /* bytes allocated on the host, all files of the top layer */
	uint64_t file_size;             /* length of the image file */
	uint32_t cluster_size;          /* allocation unit; 0: none */
	enum vd_encryption encryption;
	bool is_encryption_unknown;     /* a container would begin where nothing can be read; without VD_OPEN_FILES in files that were not opened */
	bool is_container;              /* a LUKS container as content, not a format's own encryption */
	const char *header;             /* the file of its own that the container's LUKS header is in; NULL: it is in the disk */
	struct vd_luks_info luks;
	const char *backing_file, *backing_format, *data_file;   /* as the image names them, or NULL */
	bool data_file_raw;
	bool is_dirty, is_corrupt;
	bool is_read_only_format;       /* this library opens it for reading only */
	const char *subformat;          /* which of the format's kinds, or NULL */
	const char *disk_id, *parent_id;/* by which the format knows the disk and the parent that it was made on, or NULL */
	uint32_t n_extents;             /* parts that the disk consists of; 0: the format has none */
	const char *change_track;       /* file that records changed blocks, as the image names it, or NULL */
	/* qcow2 */
	uint32_t qcow2_version, refcount_bits, n_snapshots, n_bitmaps;
	bool lazy_refcounts, extended_l2;
	const char *compression_type;   /* "deflate", "zstd" or NULL */
};
VD_PUBLIC int vd_image_info(struct vd_image *img, struct vd_info *info, struct vd_error *e) VD_MUST_CHECK;

/* One of vd_info.n_extents parts, as the image describes it. Strings belong to img. */
struct vd_part {
	size_t struct_size;
	const char *name;               /* of its file, as the image names it; NULL: it has none and is zeros */
	const char *kind, *access;      /* in the format's words: "FLAT", "SPARSE" ...; "RW", "RDONLY", "NOACCESS" */
	uint64_t off, size;             /* its bytes of the disk, a container's header among them */
	uint64_t file_off;              /* where they begin in the file, of a kind without tables */
	uint64_t cluster_size;          /* its allocation unit; 0: none, or its file is not open */
};
/* The i-th, from 0, in the order of the disk: fills *part. Any thread. VD_EARG: there is none. */
VD_PUBLIC int vd_image_part(struct vd_image *img, uint32_t i, struct vd_part *part, struct vd_error *e) VD_MUST_CHECK;

/* The parent opened below this image, or NULL; belongs to img. */
VD_PUBLIC struct vd_image *vd_image_parent(struct vd_image *img);

/* ---- the host's files --------------------------------------------------------------------------------- */

/*
 * The map turned round: every byte of every host file of an image (its own layer, no parent) has exactly one owner.
 * Symbol, stable name, what it is.
 */
#define VD_OWNER_LIST(X)                                                                                  \
	X(VD_OWNER_HEADER,     "header",     "header of the format, and what it names in place")           \
	X(VD_OWNER_TABLE,      "table",      "table: where things are, who owns space")                    \
	X(VD_OWNER_JOURNAL,    "journal",    "journal of the format")                                      \
	X(VD_OWNER_COPY,       "copy",       "second copy of a header or table")                           \
	X(VD_OWNER_BITMAP,     "bitmap",     "dirty bitmap: its directory, tables and bits")               \
	X(VD_OWNER_KEYAREA,    "key-area",   "LUKS header and key material")                               \
	X(VD_OWNER_DESCRIPTOR, "descriptor", "text that describes the image")                              \
	X(VD_OWNER_DATA,       "data",       "bytes of the disk, or of a snapshot's")                       \
	X(VD_OWNER_PACKED,     "compressed", "compressed bytes of the disk, or of a snapshot's")           \
	X(VD_OWNER_VMSTATE,    "vm-state",   "memory of a machine, kept with a snapshot")                  \
	X(VD_OWNER_ZEROED,     "zeroed",     "reads as zeros whatever lies there, but keeps its space")    \
	X(VD_OWNER_FREE,       "free",       "nobody's: may be given out next")                            \
	X(VD_OWNER_LEAKED,     "leaked",     "counted as in use, but nothing leads there")                 \
	X(VD_OWNER_SLACK,      "slack",      "belongs to an owner that does not use it")                   \
	X(VD_OWNER_TAIL,       "tail",       "behind the last unit in use")                                \
	X(VD_OWNER_HOSTHOLE,   "host-hole",  "nobody's, and the host stores nothing there")                \
	X(VD_OWNER_CORRUPT,    "corrupt",    "claimed by two that cannot share, or by nobody can tell whom")
enum vd_owner {
#define VD_OWNER_ENUM(sym, name, text) sym,
	VD_OWNER_LIST(VD_OWNER_ENUM)
#undef VD_OWNER_ENUM
	VD_N_OWNERS
};

/* Why there is SLACK, and which kind of table or bitmap a piece is. Symbol, stable name. */
#define VD_WHY_LIST(X)                                                                                    \
	X(VD_WHY_NONE,          "")                                                                        \
	X(VD_SLACK_HEADER,      "header-padding")       /* behind the header and what follows it */        \
	X(VD_SLACK_TABLE,       "table-padding")        /* behind a table that does not fill its unit */   \
	X(VD_SLACK_PACKED,      "packed-end")           /* around compressed pieces of a unit */           \
	X(VD_SLACK_SECTOR,      "sector-padding")       /* behind what does not fill a sector */           \
	X(VD_SLACK_ABSENT,      "absent-sector")        /* of a block, told by its map */                  \
	X(VD_SLACK_SUBCLUSTER,  "unset-subcluster")     /* of a cluster: neither data nor zeros */         \
	X(VD_SLACK_PAST_END,    "past-the-end")         /* the disk ends inside the unit */                \
	X(VD_SLACK_DEAD_SLOT,   "dead-key-slot")        /* room for key material that no slot uses */      \
	X(VD_TABLE_ROOT,        "root")                 /* names leaves: L1, grain directory */            \
	X(VD_TABLE_LEAF,        "leaf")                 /* names payload: L2, grain table, BAT */          \
	X(VD_TABLE_COUNT_ROOT,  "count-root")           /* names count leaves: refcount table */           \
	X(VD_TABLE_COUNT_LEAF,  "count-leaf")           /* says who owns space: refcount block */          \
	X(VD_TABLE_SNAPSHOTS,   "snapshots")                                                               \
	X(VD_TABLE_SECTORS,     "sectors")              /* which sectors of a block are there */           \
	X(VD_BITMAP_DIRECTORY,  "directory")                                                               \
	X(VD_BITMAP_TABLE,      "table")                                                                   \
	X(VD_BITMAP_BITS,       "bits")
enum vd_why {
#define VD_WHY_ENUM(sym, name) sym,
	VD_WHY_LIST(VD_WHY_ENUM)
#undef VD_WHY_ENUM
	VD_N_WHYS
};

enum vd_host_flag {
	VD_HOST_SHARED = 1,             /* more than one entry leads here, rightly: vd_host_owners() lists them */
	VD_HOST_SPARSE = 2,             /* the host stores nothing here: reads as zeros */
	VD_HOST_ENCRYPTED = 4,          /* ciphertext, as far as the format says */
};
#define VD_HOST_NOWHERE UINT64_MAX      /* an offset that there is none of */

/* A piece of a host file with one owner. */
struct vd_host_run {
	uint64_t off, len;              /* in the host file; len never 0 */
	uint64_t guest_off;             /* of the first byte, on the disk of `view`; compressed: of the unit; a root or
					   leaf table: of what it describes; else VD_HOST_NOWHERE */
	uint64_t parent_off;            /* where, in file 0, the entry lies that leads to the first byte; else VD_HOST_NOWHERE */
	uint64_t refs;                  /* entries that lead here; LEAKED: what the format counts */
	uint32_t file;                  /* index of the host file */
	uint32_t view;                  /* 0: the disk; n: the nth of vd_snapshot_list(); the lowest to which it is what `owner` says */
	uint8_t owner;                  /* enum vd_owner */
	uint8_t why;                    /* enum vd_why */
	uint16_t flags;                 /* enum vd_host_flag */
};

/* Host files of the image, and their paths (if one was not opened: as the image names it). */
VD_PUBLIC uint32_t vd_host_file_count(const struct vd_image *img);
VD_PUBLIC const char *vd_host_file_name(const struct vd_image *img, uint32_t file);
/* VD_EREFERENCE: it was not opened. */
VD_PUBLIC int vd_host_file_size(struct vd_image *img, uint32_t file, uint64_t *size, struct vd_error *e) VD_MUST_CHECK;

/*
 * Goes through all host files of an image, one after the other, in fixed memory. A run says how things were when its
 * part of the file was looked at: who writes meanwhile does not see the walk change its mind. One thread at a time.
 */
struct vd_host_walk;
/* From byte `off` of a file on: 0, 0 for all, or where an earlier walk stopped. */
VD_PUBLIC int vd_host_walk_start(struct vd_image *img, uint32_t file, uint64_t off, struct vd_host_walk **out,
				 struct vd_error *e) VD_MUST_CHECK;
/*
 * Fills at most n runs, *got of them, in order, each beginning where the last ended; none at the end of the last file.
 * A file that was not opened has none (VD_OPEN_METADATA without VD_OPEN_FILES). A call may read all tables of the image,
 * and waits until no other call is in the handle, as others wait for it. VD_EUNSUPPORTED: the format cannot be walked.
 */
VD_PUBLIC int vd_host_walk_next(struct vd_host_walk *w, struct vd_host_run *runs, size_t n, size_t *got,
				struct vd_error *e) VD_MUST_CHECK;
/*
 * How many entries the walk has met, so far, that break a rule, each as often as it was looked at; what the first was
 * goes to `first`, if any. What only such an entry leads to passes for free or leaked.
 */
VD_PUBLIC uint64_t vd_host_walk_findings(const struct vd_host_walk *w, struct vd_error *first);
/* NULL is allowed. */
VD_PUBLIC void vd_host_walk_end(struct vd_host_walk *w);

/* One entry that leads to a byte of a host file. */
struct vd_host_owner {
	uint64_t guest_off, parent_off; /* as in struct vd_host_run; of the byte that was asked for */
	uint32_t view;
	uint8_t owner, why;
};
/* All that lead to the byte at `off`: *got of them, at most n are filled in. Reads all tables. */
VD_PUBLIC int vd_host_owners(struct vd_image *img, uint32_t file, uint64_t off, struct vd_host_owner *buf, size_t n,
			     size_t *got, struct vd_error *e) VD_MUST_CHECK;

/* The bytes as they lie there; VD_ERANGE past the end of the file. */
VD_PUBLIC int vd_host_read(struct vd_image *img, uint32_t file, void *buf, size_t len, uint64_t off,
			   struct vd_error *e) VD_MUST_CHECK;
/*
 * Overwrites what is nobody's: the range must be FREE, LEAKED, SLACK, TAIL, HOSTHOLE or ZEROED, which is looked up anew
 * while nobody else is in the handle; if a byte of it is not, VD_EARG, and nothing is written. Nor is anything in an
 * image with entries that break a rule (VD_ECORRUPT): what they should lead to looks free. The pattern is repeated from
 * the start of the range on; NULL: zeros. Holes of the host stay holes. Needs VD_OPEN_WRITE or VD_OPEN_CONTROL; durable
 * after vd_image_flush(). After another failure any part may be written. Ranges in ascending order cost least.
 */
VD_PUBLIC int vd_host_scrub(struct vd_image *img, uint32_t file, uint64_t off, uint64_t len, const void *pattern,
			    size_t pattern_len, struct vd_error *e) VD_MUST_CHECK;

VD_PUBLIC const char *vd_owner_name(int owner);         /* "key-area" and the like: stable; NULL outside the table */
VD_PUBLIC const char *vd_owner_text(int owner);
VD_PUBLIC const char *vd_why_name(int why);             /* "" for VD_WHY_NONE */

/* ---- where files lie ----------------------------------------------------------------------------------- */

/*
 * Why a block that was overwritten may still be there, in the file system that a file lies on or in the devices below it. Symbol,
 * stable name, text.
 */
#define VD_KEEPS_TABLE(X)                                                                                 \
	X(VD_KEEPS_COPY_ON_WRITE,  1, "copy-on-write",  "writes in other places than before: what was overwritten stays until its space is used again") \
	X(VD_KEEPS_LOG,            2, "log-structured", "never writes in place: what was overwritten stays until it is cleaned away") \
	X(VD_KEEPS_OVERLAY,        3, "overlay",        "a file that came from a lower layer is still there as it was") \
	X(VD_KEEPS_REMOTE,         4, "remote",         "what the server keeps of old blocks cannot be seen from here") \
	X(VD_KEEPS_FUSE,           5, "fuse",           "what the program behind it keeps of old blocks cannot be seen from here") \
	X(VD_KEEPS_DATA_JOURNAL,   6, "data-journal",   "what is written goes through the journal first, and stays there for a while") \
	X(VD_KEEPS_SHARED,         7, "shared-extents", "blocks of the file are shared with a clone, or with a snapshot of the file system, which keeps them") \
	X(VD_KEEPS_UNKNOWN,        8, "unknown-fs",     "whether the file system writes in place is not known") \
	X(VD_KEEPS_VOLUME,         9, "volume-manager", "snapshots of the volume, if there are any, keep old blocks") \
	X(VD_KEEPS_FLASH,         10, "flash",          "flash writes in other places than before, and keeps old blocks until they are erased") \
	X(VD_KEEPS_THIN,          11, "thin",           "gives space out when it is written, perhaps in other places than before") \
	X(VD_KEEPS_UNKNOWN_MEDIUM, 12, "unknown-medium", "what is behind a virtual disk is not known, and may be flash or thin")
enum vd_keeps_kind {
#define VD_KEEPS_ENUM(sym, value, name, text) sym = value,
	VD_KEEPS_TABLE(VD_KEEPS_ENUM)
#undef VD_KEEPS_ENUM
};
struct vd_keeps {
	enum vd_keeps_kind kind;
	bool is_certain;                /* else: it may be so, and cannot be told from here */
	char text[320];                 /* one line for people: what, and why */
};
VD_PUBLIC const char *vd_keeps_name(enum vd_keeps_kind kind);
/*
 * What of this holds for the file, or block device, at `path`: *got facts, of which at most n are filled in; none: nothing is
 * known to keep old blocks. Opens the file for reading, reads nothing of it, and waits for no lock. What cannot be
 * seen from inside (snapshots of an array, of ZFS, of a cloud) is not told.
 */
VD_PUBLIC int vd_host_keeps(const char *path, struct vd_keeps *buf, size_t n, size_t *got, struct vd_error *e) VD_MUST_CHECK;

/* ---- packages ----------------------------------------------------------------------------------------- */

/*
 * An OVA is opened as the disk in it: vd_image_open(), and vd_open_opts.disk where there are several. Whether its members are
 * what its manifest says (SHA-1, SHA-256, SHA-512) takes reading all of them: VD_EMISMATCH names the first that is not.
 * *has_manifest false: there is nothing to hold them to. VD_EUNSUPPORTED: the file is no OVA.
 */
VD_PUBLIC int vd_package_verify(const char *path, bool *has_manifest, struct vd_error *e) VD_MUST_CHECK;

/* ---- images from outside ------------------------------------------------------------------------------ */

/*
 * Judges an image of a stranger by its bytes alone, before anything opens it: no other file is opened whatever it names, no
 * key is used, nothing is written. What is told is a finding, not a failure; no finding means that any tool may open the
 * image by the format that is told. Open it with that format named all the same: a guest can write what it likes into
 * a raw disk later.
 */
enum vd_risk {
	VD_RISK_UNKNOWN = 1,            /* no known format, and no partition table: raw bytes, or something that only claims to be none */
	VD_RISK_AMBIGUOUS = 2,          /* one program takes it for this format, another for that */
	VD_RISK_OBSOLETE = 4,           /* a format that no tool should open from outside: qcow 1, qed */
	VD_RISK_BROKEN = 8,             /* it breaks rules of its format, or needs what is not known */
	VD_RISK_REFERENCE = 16,         /* it names another file: a backing file, a data file, an extent */
	VD_RISK_SIZE = 32,              /* the disk is larger than allowed */
	VD_RISK_UNSEEN = 64,            /* of a stream: what is to be looked at was not kept */
};
struct vd_inspect_opts {
	size_t struct_size;
	uint64_t max_size;              /* of the disk, in bytes; 0: any */
	/* Each finding in words; may be NULL. Nonzero return ends it (VD_ECANCELLED). */
	int (*found)(void *ctx, enum vd_risk risk, const char *text);
	void *ctx;
};
struct vd_inspection {
	size_t struct_size;
	unsigned risks;                 /* enum vd_risk of all findings; 0: none */
	const char *format;             /* for vd_open_opts; NULL: not one that this library opens. Lives for ever */
	uint64_t virtual_size, file_size;
	enum vd_encryption encryption;
	bool is_encryption_unknown;     /* what would tell of a container was not seen, or cannot be read */
	uint32_t luks_version;
};
VD_PUBLIC int vd_inspect(const char *path, const struct vd_inspect_opts *opts, struct vd_inspection *result,
			 struct vd_error *e) VD_MUST_CHECK;
/*
 * The same for a stream: all its bytes in order, in pieces of any size, then the end. Keeps the first 20 MiB and the last MiB.
 * One thread at a time.
 */
struct vd_inspector;
VD_PUBLIC int vd_inspector_new(struct vd_inspector **out, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_inspector_feed(struct vd_inspector *in, const void *bytes, size_t len, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_inspector_end(struct vd_inspector *in, const struct vd_inspect_opts *opts, struct vd_inspection *result,
			       struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC void vd_inspector_free(struct vd_inspector *in);

/* ---- shape -------------------------------------------------------------------------------------------- */

/*
 * What changes the image as a whole: it waits until no other call is in the handle, and others wait for it. Before it
 * begins, all that was written is made durable; when it returns 0, it is durable itself; and a crash leaves the image
 * either as it was or as it is to be. Needs VD_OPEN_WRITE or VD_OPEN_CONTROL.
 */

/* A snapshot inside the image. */
struct vd_snapshot {
	const char *id, *name;
	uint64_t date_sec;              /* since 1970, UTC */
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;         /* how long the machine had run */
	uint64_t vm_state_size;         /* bytes of the machine's memory that are kept with it; 0: disk only */
	uint64_t disk_size;
};
/* *list: malloc'ed, *n of them; freed with vd_snapshot_list_free(). On any handle. */
VD_PUBLIC int vd_snapshot_list(struct vd_image *img, struct vd_snapshot **list, size_t *n, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC void vd_snapshot_list_free(struct vd_snapshot *list);
/* Of the disk as it is. VD_EEXIST: a snapshot has this name or id. */
VD_PUBLIC int vd_snapshot_create(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
/* The disk, size and all, becomes what it was then; what it is now is lost. `name`: id or name, as below. */
VD_PUBLIC int vd_snapshot_apply(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_snapshot_delete(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;

enum vd_resize_flag { VD_RESIZE_SHRINK = 1 };   /* allow a smaller size: what lies past it is lost */
/* Grown, the disk reads as zeros where it is new (a LUKS container: as noise). */
VD_PUBLIC int vd_image_resize(struct vd_image *img, uint64_t size, unsigned flags, struct vd_error *e) VD_MUST_CHECK;

enum vd_switch { VD_KEEP = 0, VD_ON = 1, VD_OFF = 2 };
/* What an image was created with, to be changed in place; zero leaves a thing as it is. All but the size are qcow2's. */
struct vd_amend_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_resize_flag, for the size */
	uint64_t size;                  /* as vd_image_resize() */
	uint32_t compat;                /* qcow2 version: 2 or 3 */
	uint32_t refcount_bits;         /* 1 to 64; the counts are rebuilt, VD_EUNSUPPORTED when one would not fit */
	enum vd_switch lazy_refcounts;
	enum vd_switch data_file_raw;   /* can be given up, but not made true: VD_EUNSUPPORTED */
	const char *backing_format;     /* said to be that of the backing file, which is not looked at */
};
/*
 * Version 2 has no features, no other refcounts than of 16 bits, no bitmaps, and no zero clusters: those of a disk without
 * backing file become holes, those of a snapshot or over a backing file are VD_EUNSUPPORTED. All but the size is judged
 * before the first change. They come into force one after another, each whole or not at all: a size before a change to
 * version 2, else last.
 */
VD_PUBLIC int vd_image_amend(struct vd_image *img, const struct vd_amend_opts *opts, struct vd_error *e) VD_MUST_CHECK;

/* ---- keyslots ----------------------------------------------------------------------------------------- */

/*
 * Keyslots of the LUKS header that the image keeps; each holds the same volume key under another secret. Who has once had
 * the volume key has it for ever: a new passphrase locks out those who never unlocked the disk, and a copy of the old
 * header takes the old one. All calls are acts on the image's shape, as above, but for a crash: at every instant at least
 * one keyslot of before or of after opens. VD_EUNSUPPORTED: the image has no LUKS header.
 */
struct vd_keyslot_opts {
	size_t struct_size;
	const char *label;              /* kept by LUKS2 and qcow2: UTF-8 without control characters, quotes, backslashes. NULL: none */
	const char *kind;               /* the same, up to 15 bytes; NULL: "passphrase", "token" for a key command */
	struct vd_kdf_opts kdf;         /* zero for a key command: 100 000 iterations, or 4 passes over 32 MiB */
};
/* A keyslot for `new_key`; `any` is a secret that opens the image now. The new slot has been opened before it counts. VD_ENOSPC: all are in use. */
VD_PUBLIC int vd_keyslot_add(struct vd_image *img, const struct vd_key *any, const struct vd_key *new_key,
			     const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e) VD_MUST_CHECK;
/*
 * A keyslot for `new_key`, then that of `old_key` goes: in this order, so a failure leaves both or the old one. VD_EARG when
 * only keyslots that are bound to one machine would be left.
 */
VD_PUBLIC int vd_keyslot_change(struct vd_image *img, const struct vd_key *old_key, const struct vd_key *new_key,
				const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e) VD_MUST_CHECK;
enum vd_keyslot_flag { VD_KEYSLOT_LAST = 1 };   /* allow to remove the last one, or the last that is not bound to one machine:
						   without a header backup the data is lost then, or is with that machine */
VD_PUBLIC int vd_keyslot_remove(struct vd_image *img, uint32_t slot, unsigned flags, struct vd_error *e) VD_MUST_CHECK;
/* Which keyslot the secret opens; VD_EKEY: none. On any handle. */
VD_PUBLIC int vd_keyslot_find(struct vd_image *img, const struct vd_key *key, uint32_t *slot, struct vd_error *e) VD_MUST_CHECK;

/*
 * Puts a secret into a new file, mode 0600, encrypted to n public keys of age (X25519, "age1..."): whoever has the private key
 * of one of them gets it back with age -d. VD_EARG names a recipient that is none, VD_EEXIST: the file is there.
 */
VD_PUBLIC int vd_key_escrow(const struct vd_key *key, const char *const *recipients, size_t n, const char *path,
			    struct vd_error *e) VD_MUST_CHECK;
/*
 * The same as one OpenPGP message to all public keys in n files, as gpg --export writes them: gpg -d opens it. Runs gpg with a
 * folder of its own in /tmp, which knows these keys and no others; SIGPIPE is blocked in the calling thread meanwhile. VD_EARG
 * names a file without a public key, or a key that has expired, was revoked or cannot encrypt; VD_EUNSUPPORTED: there is
 * no gpg, or the library was built without gpgme.
 */
VD_PUBLIC int vd_key_escrow_openpgp(const struct vd_key *key, const char *const *key_files, size_t n, const char *path,
				    struct vd_error *e) VD_MUST_CHECK;

/*
 * The header with all its keyslots as a file, mode 0600, whose bytes cryptsetup knows as a header backup. VD_EEXIST: the file
 * is there. It opens the disk with every secret of now, for ever: guard it like the disk. On any handle.
 */
VD_PUBLIC int vd_header_backup(struct vd_image *img, const char *path, struct vd_error *e) VD_MUST_CHECK;
/*
 * The header of the file in place of the image's. Refused untouched (VD_EMISMATCH) when it is for another disk: `key` has to
 * open it, and cipher, place of the payload and, where the image's own header can still be read, UUID have to be the same.
 * After a crash in the middle the call is to be made again: the file is the sound copy meanwhile.
 */
VD_PUBLIC int vd_header_restore(struct vd_image *img, const char *path, const struct vd_key *key, struct vd_error *e) VD_MUST_CHECK;

/* ---- bitmaps ------------------------------------------------------------------------------------------ */

/*
 * A bitmap inside the image (qcow2 version 3): says in pieces of `granularity` bytes what was written to the disk since it
 * was made or cleared, for as long as it is enabled. While a handle writes, the image says of the bitmaps that record that
 * they do not hold, and a clean close stores them: after a crash they are unusable, and never miss a write. A write by a
 * program that does not know bitmaps makes all of them unusable, too. Snapshots leave them alone; applying one makes
 * the whole disk dirty in those that are enabled, and so is what a disk that grows has more. They are not encrypted, and need no key.
 */
#define VD_BITMAP_NOT_COUNTED UINT64_MAX
struct vd_bitmap {
	const char *name;
	uint64_t granularity;           /* 0: none that is possible */
	uint64_t dirty_bytes;           /* 0 of one that is unusable; VD_BITMAP_NOT_COUNTED: there is too much to look through */
	const char *unusable;           /* why it does not tell what changed; NULL: it does */
	bool enabled;
};
/* *list: malloc'ed, *n of them; freed with vd_bitmap_list_free(). On any handle but a snapshot's. VD_EBITMAP: none can be told. */
VD_PUBLIC int vd_bitmap_list(struct vd_image *img, struct vd_bitmap **list, size_t *n, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC void vd_bitmap_list_free(struct vd_bitmap *list);

enum vd_bitmap_flag { VD_BITMAP_DISABLED = 1 }; /* does not record until it is enabled */
/*
 * Those that follow are acts as said above. All but remove want a bitmap that is usable: else VD_EBITMAP. A granularity is a
 * power of two from 512 to 2 GiB; 0: the cluster size, but from 4 KiB to 64 KiB. VD_EEXIST: the name is taken.
 */
VD_PUBLIC int vd_bitmap_create(struct vd_image *img, const char *name, uint64_t granularity, unsigned flags,
			       struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_bitmap_remove(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
/* From now on nothing is dirty in it. */
VD_PUBLIC int vd_bitmap_clear(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_bitmap_enable(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC int vd_bitmap_disable(struct vd_image *img, const char *name, struct vd_error *e) VD_MUST_CHECK;
/* What is dirty in one of the n sources is dirty in `name`, too. `from`: whose they are, a disk of the same size; NULL: img. */
VD_PUBLIC int vd_bitmap_merge(struct vd_image *img, const char *name, struct vd_image *from, const char *const *sources,
			      size_t n, struct vd_error *e) VD_MUST_CHECK;

/*
 * vd_image_extents() with VD_EXTENT_DIRTY for what may have been written since the bitmap was made or cleared, cut where that
 * changes. VD_EBITMAP when it cannot be told: then all may have been. Includes what this handle wrote.
 */
VD_PUBLIC int vd_image_extents_since(struct vd_image *img, const char *bitmap, uint64_t off, uint64_t len,
				     struct vd_extent *buf, size_t n, size_t *got, struct vd_error *e) VD_MUST_CHECK;

/* ---- long jobs ---------------------------------------------------------------------------------------- */

struct vd_progress {
	const char *phase;              /* "convert", "compare", "check", "repair", "plaintext", "rebase", "flatten", "commit",
					   "encrypt", "decrypt", "rekey", "revert": stable, not translated */
	uint64_t done, total;           /* bytes */
};
struct vd_job {
	size_t struct_size;
	unsigned n_threads;             /* 0: one a core */
	/* Called about ten times a second from one thread at a time; nonzero return cancels (VD_ECANCELLED). */
	int (*progress)(void *ctx, const struct vd_progress *p);
	void *ctx;
};
struct vd_outcome {
	size_t struct_size;
	uint64_t done;                  /* guest bytes dealt with */
	uint64_t written;               /* payload bytes written to the host */
	uint64_t packed_in_clear;       /* bytes read from compressed clusters of an encrypted source: stored in clear there */
	bool changed;                   /* anything outside a temporary file has changed */
};

/*
 * Copies the content of src into dst (fresh from vd_image_create(), not yet committed): reads only what is allocated,
 * leaves zeros unallocated where dst can, on all cores, in fixed memory. dst may be larger than src: the rest
 * reads as zeros. The caller commits or aborts dst.
 */
VD_PUBLIC int vd_image_copy(struct vd_image *src, struct vd_image *dst, bool compress, const struct vd_job *job,
			    struct vd_outcome *outcome, struct vd_error *e) VD_MUST_CHECK;

/*
 * A disk that comes by a descriptor, once and in the order of its file, and is copied as it comes: raw bytes, or a
 * stream-optimized VMDK. Nothing can be read of it twice, so it is no struct vd_image. It is not to be trusted more than a
 * file is: all that it says is held against what came, and a disk that is cut off is VD_ECORRUPT, with a message that says
 * up to where it is sound.
 */
struct vd_incoming;

struct vd_incoming_opts {
	size_t struct_size;
	const char *format;             /* NULL: decided from the first bytes, which raw is never; name it for what is from outside */
	uint64_t size;                  /* raw: of the disk, for one that comes by a pipe; what comes has to be as long. Others know theirs */
};
/*
 * Waits for the first bytes and judges them; opts may be NULL. The descriptor is borrowed until vd_incoming_free(), and read from where it
 * is. VD_EUNSUPPORTED: of this format things are not read as they come; encrypted disks neither. VD_ECANCELLED: a signal
 * came while it waited.
 */
VD_PUBLIC int vd_incoming_open(int fd, const char *name, const struct vd_incoming_opts *opts, struct vd_incoming **out,
			       struct vd_error *e) VD_MUST_CHECK;
VD_PUBLIC uint64_t vd_incoming_size(const struct vd_incoming *in);
VD_PUBLIC const char *vd_incoming_format(const struct vd_incoming *in);
/*
 * vd_image_copy() of it, once. What comes in no order is taken by outputs that are written in any; a stream, a container, what is compressed,
 * and a device take it in order only (else VD_EUNSUPPORTED). Cancelled also while nothing comes.
 */
VD_PUBLIC int vd_incoming_copy(struct vd_incoming *in, struct vd_image *dst, bool compress, const struct vd_job *job,
			       struct vd_outcome *outcome, struct vd_error *e) VD_MUST_CHECK;
/* NULL is allowed. */
VD_PUBLIC void vd_incoming_free(struct vd_incoming *in);

struct vd_measure_report {
	size_t struct_size;
	uint64_t required;              /* bytes of its files, with all tables of a full disk and the source's data; less where data is zeros */
	uint64_t fully_allocated;       /* the same when every unit of the disk is in use */
	uint64_t bitmaps;               /* bytes more if the copy got the usable bitmaps of the source, which a copy does not by itself */
};
/*
 * How large the image would be that vd_image_copy() makes of src (NULL: of an empty disk of opts->size) with these options.
 * `encrypted`: as if they had a key. Looks at the tables of src alone.
 */
VD_PUBLIC int vd_image_measure_output(struct vd_image *src, const struct vd_create_opts *opts, bool encrypted,
				      struct vd_measure_report *report, struct vd_error *e) VD_MUST_CHECK;

struct vd_compare_report {
	size_t struct_size;
	bool same;                      /* content and, unless told otherwise, size */
	bool size_differs;
	bool has_offset;
	uint64_t offset;                /* first byte that differs */
	bool b_failed;                  /* when the call failed with a read error: which side */
};
enum vd_compare_flag { VD_COMPARE_IGNORE_TRAILING_ZEROS = 1 };
/* Compares content. The result is in the report; a difference is not an error. */
VD_PUBLIC int vd_image_compare(struct vd_image *a, struct vd_image *b, unsigned flags, const struct vd_job *job,
			       struct vd_compare_report *report, struct vd_error *e) VD_MUST_CHECK;

/* ---- check -------------------------------------------------------------------------------------------- */

/*
 * What can be wrong with an image's tables: symbol, stable name (never translated), text. "Named" is said of a cluster
 * of the file that an entry of a table points at.
 */
#define VD_FINDING_TABLE(X)                                                                               \
	X(VD_FOUND_LEAK,          1, "leak",             "counted more often than it is named")           \
	X(VD_FOUND_COUNT_LOW,     2, "count-low",        "named more often than it is counted")           \
	X(VD_FOUND_COUNT_WIDTH,   3, "count-width",      "named more often than refcounts can say")       \
	X(VD_FOUND_COPIED,        4, "copied-flag",      "the copied flag says something else than the refcount") \
	X(VD_FOUND_RESERVED,      5, "reserved-bits",    "reserved bits are set")                         \
	X(VD_FOUND_UNALIGNED,     6, "unaligned",        "names a place that is not a cluster's beginning") \
	X(VD_FOUND_OUTSIDE,       7, "outside",          "names a place outside the file")                \
	X(VD_FOUND_OVERLAP,       8, "overlap",          "names a place that holds something else")       \
	X(VD_FOUND_CONTRADICTION, 9, "contradiction",    "contradicts itself")                            \
	X(VD_FOUND_TABLE,        10, "broken-table",     "cannot be followed")                            \
	X(VD_FOUND_DIRTY,        11, "dirty",            "was not closed cleanly")                        \
	X(VD_FOUND_CORRUPT,      12, "marked-corrupt",   "is marked corrupt")                             \
	X(VD_FOUND_UNREADABLE,   13, "unreadable",       "cannot be read")

enum vd_finding_kind {
#define VD_FINDING_ENUM(sym, value, name, text) sym = value,
	VD_FINDING_TABLE(VD_FINDING_ENUM)
#undef VD_FINDING_ENUM
};

enum vd_severity {
	VD_SEVERITY_LEAK = 1,           /* costs space, and nothing else */
	VD_SEVERITY_CORRUPTION = 2,     /* data is lost, or may be by writing to the image */
	VD_SEVERITY_UNKNOWN = 3,        /* could not be looked at */
};

struct vd_finding {
	enum vd_finding_kind kind;
	enum vd_severity severity;
	bool can_mend;                  /* by VD_REPAIR_ALL; leaks by VD_REPAIR_LEAKS, too */
	bool remains;                   /* found after the repair */
	const char *file;               /* whose offsets these are; strings are valid during the callback */
	bool has_entry, has_host, has_guest;
	uint64_t n;                     /* how many it stands for: clusters side by side with the same fault are one finding */
	uint64_t entry_off;             /* of the entry or field that is wrong */
	uint64_t host_off;              /* of what it is about: a cluster, a table */
	uint64_t guest_off;             /* of the disk's bytes that it concerns, in the view */
	const char *view;               /* name of the snapshot; NULL: the disk as it is */
	char text[320];                 /* one line for people: what, where */
};
VD_PUBLIC const char *vd_finding_name(enum vd_finding_kind kind);

enum vd_repair {
	VD_REPAIR_NONE = 0,
	VD_REPAIR_LEAKS = 1,            /* give back clusters that nothing names; changes nothing when there are other faults */
	VD_REPAIR_ALL = 2,              /* make refcounts and flags what the tables say; drop bits that mean nothing */
};

/* Counts of findings are what is left when the call returns. */
struct vd_check_report {
	size_t struct_size;
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t not_mendable;          /* of the corruptions: those that no repair mends */
	bool has_clusters;              /* the format has any, and what follows is known */
	uint64_t image_end_offset;      /* end of the last cluster that is in use */
	uint64_t total_clusters;        /* of the disk */
	uint64_t allocated_clusters;    /* of these: with bytes in a file */
	uint64_t compressed_clusters, fragmented_clusters;
	bool changed;                   /* a file was written to */
};

/*
 * Compares all tables of the image with each other, without key or parent, and repairs what was asked for, which needs
 * VD_OPEN_REPAIR. Findings are told one by one, nonzero from on_finding (NULL is allowed) cancels; that there are any is
 * no failure of the call. A repair never changes which bytes the guest reads. It comes into force at once: after a crash or
 * a failure the image is as it was or as it is to be, but for bits that mean nothing, and after VD_EPOISONED it is not
 * known which.
 */
VD_PUBLIC int vd_image_check(struct vd_image *img, enum vd_repair repair, int (*on_finding)(void *ctx, const struct vd_finding *f),
			     void *ctx, const struct vd_job *job, struct vd_check_report *report, struct vd_error *e) VD_MUST_CHECK;

/* ---- what is readable without the key ------------------------------------------------------------------ */

/*
 * What an image that claims to be encrypted shows to those who have no key. Symbol, stable name, text. Zeros betray no
 * content: payload that was never written, and decrypts to noise.
 */
#define VD_PLAINTEXT_TABLE(X)                                                                             \
	X(VD_PLAINTEXT_READABLE,   1, "readable",   "is no ciphertext")                                   \
	X(VD_PLAINTEXT_COMPRESSED, 2, "compressed", "is compressed, and not encrypted")                   \
	X(VD_PLAINTEXT_UNEVEN,     3, "uneven",     "looks random, but is too uneven for ciphertext, as compressed data is") \
	X(VD_PLAINTEXT_ZEROS,      4, "zeros",      "is payload of zeros, never encrypted or never written")
enum vd_plaintext_kind {
#define VD_PLAINTEXT_ENUM(sym, value, name, text) sym = value,
	VD_PLAINTEXT_TABLE(VD_PLAINTEXT_ENUM)
#undef VD_PLAINTEXT_ENUM
};

struct vd_plaintext {
	enum vd_plaintext_kind kind;
	bool can_scrub;                 /* it is nobody's: VD_PLAINTEXT_SCRUB overwrites it */
	bool scrubbed;                  /* and has done so */
	/*
	 * Bytes side by side that have the same owner. Of a count over all that an owner has (UNEVEN) the length is 0, and only
	 * the owner means something.
	 */
	struct vd_host_run where;
	const char *file;               /* NULL: a count; strings are valid during the callback */
	const char *view;               /* name of the snapshot; NULL: the disk as it is, or nobody's */
	char text[320];                 /* one line for people: how much, where, whose */
};
VD_PUBLIC const char *vd_plaintext_name(enum vd_plaintext_kind kind);

enum vd_plaintext_flag {
	/*
	 * All that is nobody's (as vd_host_scrub() has it) and is not zeros is overwritten with zeros, since what looks random
	 * there may be a compressed rest. Needs VD_OPEN_CONTROL or VD_OPEN_WRITE; durable when the call returns.
	 */
	VD_PLAINTEXT_SCRUB = 1,
};
struct vd_plaintext_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_plaintext_flag */
	/* Each finding, in the order of the files; from one thread at a time. Nonzero return cancels. May be NULL. */
	int (*found)(void *ctx, const struct vd_plaintext *p);
	void *ctx;
};
struct vd_plaintext_report {
	size_t struct_size;
	uint64_t looked_at;             /* bytes held against what ciphertext looks like */
	uint64_t known;                 /* bytes of headers and tables, which are never encrypted */
	uint64_t holes;                 /* bytes that the host does not store */
	uint64_t findings;              /* but for those of zeros */
	uint64_t readable;              /* bytes of these */
	uint64_t zeros;                 /* bytes of payload */
	uint64_t scrubbed;              /* bytes overwritten, whether readable or not */
	uint64_t left;                  /* findings that were not overwritten */
	uint64_t damage;                /* entries that break a rule: what they lead to passes for free */
	bool changed;                   /* a file was written to */
};
/*
 * Looks at every byte of every file of an image that claims to be encrypted, of its own layer, for what cannot be
 * ciphertext: payload of the disk, of snapshots and of machines, what is freed, leaked, padding or room for keys. On any handle; no
 * key is used. Random bytes are taken for readable with a probability below 2^-42 in 64 TiB; what is too short or too
 * even to tell apart, core/noise.h says. VD_EMISMATCH: the image is not encrypted. VD_EREFERENCE: a file of it is not
 * open. Findings are no failure of the call.
 */
VD_PUBLIC int vd_plaintext_scan(struct vd_image *img, const struct vd_plaintext_opts *opts, const struct vd_job *job,
				struct vd_plaintext_report *report, struct vd_error *e) VD_MUST_CHECK;

/* ---- chains ------------------------------------------------------------------------------------------- */

/*
 * Both acts are changes of shape (see there) that take their time: other calls on the handle wait, and the progress
 * callback must make none. Layers that vd_image_parent() told before are gone afterwards, even after a failure. Cancelled
 * or failed, the disk reads as before, and what was done of it is kept: outcome->changed says whether anything was.
 */

enum vd_rebase_flag {
	VD_REBASE_UNSAFE = 1,           /* change the name only and look at neither file: the disk reads whatever the new one holds */
	VD_REBASE_ADOPT = 4,            /* UNSAFE: but where the format keeps more of a parent than its name, that becomes the new one's */
	VD_REBASE_IN_CLEAR = 2,         /* an image that is not encrypted may take over what encrypted parents hold */
};
struct vd_rebase_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_rebase_flag */
	const char *backing_file;       /* name written into the image as it is; NULL: none, the image holds all itself then */
	const char *backing_format;     /* required with backing_file */
	vd_gate_fn gate;                /* for backing_file and what lies below it */
	void *gate_ctx;
	struct vd_key *const *keys;     /* of the new chain; borrowed for the call */
	size_t n_keys;
};
/*
 * Gives the overlay another parent. The disk reads the same: what the new chain has not, or otherwise, is copied into the
 * overlay. Needs VD_OPEN_WRITE; VD_OPEN_CONTROL is enough for VD_REBASE_UNSAFE, after which the parent is not open.
 * VD_EUNSUPPORTED: snapshots inside the image would lose what they have in the old parent.
 */
VD_PUBLIC int vd_backing_rebase(struct vd_image *img, const struct vd_rebase_opts *opts, const struct vd_job *job,
				struct vd_outcome *outcome, struct vd_error *e) VD_MUST_CHECK;

enum vd_commit_flag {
	VD_COMMIT_KEEP = 1,             /* the overlay keeps what it holds, and its parent */
	VD_COMMIT_IN_CLEAR = 2,         /* what encrypted layers hold may go into a base that is not encrypted */
};
struct vd_commit_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_commit_flag */
	unsigned depth;                 /* of the base: 1 (or 0): the parent, 2: its parent, ... */
	vd_gate_fn gate;                /* for what lies below the base */
	void *gate_ctx;
	struct vd_key *const *keys;     /* of the base and what lies below it; borrowed for the call */
	size_t n_keys;
};
/*
 * Writes what the overlay, and the layers between, hold into the base, which grows if it is smaller; then the overlay is
 * emptied and stands on the base. Every other overlay of the base, and of the layers between, is void afterwards. The
 * base is opened for writing (VD_EBUSY: somebody uses it) and stays locked until img is closed. Needs VD_OPEN_WRITE.
 */
VD_PUBLIC int vd_backing_commit(struct vd_image *img, const struct vd_commit_opts *opts, const struct vd_job *job,
				struct vd_outcome *outcome, struct vd_error *e) VD_MUST_CHECK;

/* ---- conversion in place ------------------------------------------------------------------------------ */

/*
 * Encrypts, decrypts or re-encrypts an image where it lies, without a second copy. All that the image has is converted: the
 * disk, its internal snapshots, their vm state; what is nobody's is overwritten. qcow2 gets, or loses, its own LUKS header;
 * in the other formats the disk becomes the payload of a LUKS container, or comes out of it.
 *
 * A journal beside the image has what a crash must not lose, never in clear. From the first byte that is changed to the
 * last, vd_image_open() and other programs refuse the image: VD_EHALFWAY. Stopped by a cancel, a failure or a crash, it
 * goes on by vd_inplace_resume(), or back to what it was by vd_inplace_revert(), with a key of the disk. Nothing else may
 * touch image or journal meanwhile, and a copy of the one without the other is worth nothing.
 */
enum vd_inplace_act {
	VD_INPLACE_ENCRYPT = 1,
	VD_INPLACE_DECRYPT = 2,
	VD_INPLACE_REKEY = 3,           /* another volume key: keys that opened the image before open nothing any more */
};
enum vd_resilience {
	VD_RESILIENCE_JOURNAL = 0,      /* survives a crash at any point; everything is written twice */
	VD_RESILIENCE_CHECKSUM = 1,     /* the same, if the disk writes 512 bytes whole or not at all, in half the time */
	VD_RESILIENCE_NONE = 2,         /* can be stopped and goes on, but a crash loses what was on its way (not so where data move) */
};
/* What will be needed, before anything is changed. */
struct vd_inplace_plan {
	uint64_t total;                 /* bytes to go through */
	uint64_t journal;               /* that the journal will take at most */
	uint64_t growth;                /* that the image's files will grow by, about */
	const char *journal_path;
	bool moves;                     /* data change their place in the file */
	uint32_t n_lost_slots;          /* REKEY: keyslots that will be gone, their keys not being given */
};
enum vd_inplace_flag {
	VD_INPLACE_LEAVE_PARENT = 1,    /* qcow2: an overlay alone; what its backing files hold stays as it is */
	VD_INPLACE_DROP_SLOTS = 2,      /* REKEY: even if keyslots are lost */
};
struct vd_inplace_opts {
	size_t struct_size;
	unsigned flags;                 /* enum vd_inplace_flag */
	const char *format;             /* as in struct vd_open_opts: a raw image has to be named */
	struct vd_key *const *keys;     /* that open the image as it is; REKEY: each keeps its keyslot. Borrowed, as all of this */
	size_t n_keys;
	struct vd_key *new_key;         /* ENCRYPT: of the new header. REKEY: one more, may be NULL */
	enum vd_luks_type luks_type;    /* ENCRYPT: default LUKS1 */
	enum vd_cipher cipher;
	struct vd_kdf_opts kdf;
	const char *journal;            /* NULL: the image's path and ".vdisk-journal"; a device needs one that is named */
	/*
	 * Of a container: the file that its LUKS header is in, or will be (struct vd_open_opts), so that no data move. ENCRYPT: a
	 * new one, which is there once all data are converted. REKEY: replaced at that moment. DECRYPT: left as it is, and of
	 * no use. To be named again when it goes on, but for what ends in clear.
	 */
	const char *header;
	/*
	 * ENCRYPT of an overlay whose format has no encryption of its own: the path of its parent, which is a container already.
	 * The overlay gets that one's header and volume key, of which new_key opens a keyslot, so that its holes lead to the
	 * parent's bytes as before. All of a chain's layers have their payload at one place: `align`, when the lowest is
	 * encrypted, is the largest unit (struct vd_info, cluster_size) of those above. Until vd_backing_rebase() with
	 * VD_REBASE_ADOPT the overlay does not know the parent that was changed, and so the chain does not open.
	 */
	const char *parent;
	uint64_t align;                 /* a power of 2; 0: none */
	enum vd_resilience resilience;
	uint64_t bytes_per_second;      /* 0: as fast as it goes */
	vd_gate_fn gate;                /* for extents and data files */
	void *gate_ctx;
	/* Asked once before the first change; nonzero: VD_ECANCELLED, and nothing has changed. NULL: go ahead. */
	int (*approve)(void *ctx, const struct vd_inplace_plan *plan);
	void *ctx;
};
struct vd_inplace_report {
	size_t struct_size;
	uint64_t converted;             /* bytes taken through the ciphers by this call */
	uint64_t scrubbed;              /* bytes of nobody, overwritten */
	uint64_t filled;                /* guest bytes that had no place, and have one now */
	bool changed;                   /* the image is not what it was: after a failure it has to be resumed or reverted */
	bool is_encrypted;              /* on success: what it is now */
};
/*
 * A cancel from job->progress stops at a safe point: VD_EHALFWAY, as every failure after the first change leaves it. On
 * success the image has been looked at again: it opens with its header, and the journal is gone.
 */
VD_PUBLIC int vd_inplace_start(const char *path, enum vd_inplace_act act, const struct vd_inplace_opts *opts, const struct vd_job *job,
			       struct vd_inplace_report *report, struct vd_error *e) VD_MUST_CHECK;
/*
 * Of the options keys (those of before and of after that there are), journal, header, speed and gate count. VD_EAUTH: somebody changed
 * the journal. Resuming what was being reverted goes on with that.
 */
VD_PUBLIC int vd_inplace_resume(const char *path, const struct vd_inplace_opts *opts, const struct vd_job *job,
				struct vd_inplace_report *report, struct vd_error *e) VD_MUST_CHECK;
/* VD_EARG, and nothing has changed: too late for that, since all data are converted; resume it, then convert the other way. */
VD_PUBLIC int vd_inplace_revert(const char *path, const struct vd_inplace_opts *opts, const struct vd_job *job,
				struct vd_inplace_report *report, struct vd_error *e) VD_MUST_CHECK;

struct vd_inplace_status {
	size_t struct_size;
	bool in_progress;               /* false: nothing below is said */
	bool is_back;                   /* being reverted */
	bool journal_is_missing;        /* the image is half-way, and there is nothing of that name; nothing below is said */
	enum vd_inplace_act act;
	enum vd_resilience resilience;
	bool has_header_file;           /* the LUKS header is in a file of its own, which is to be named */
	const char *phase;              /* "begin", "unpack", "fill", "data", "switch", "header", "unveil": stable, not translated */
	char format[16];
	uint64_t done, total;           /* bytes, of phase "data" */
};
/* Needs no key, and takes the journal's word for it. journal NULL: as above. */
VD_PUBLIC int vd_inplace_status(const char *path, const char *journal, struct vd_inplace_status *status,
				struct vd_error *e) VD_MUST_CHECK;

/* Names of the formats that this library reads; NULL past the last. Writable ones: vd_format_is_writable(). */
VD_PUBLIC const char *vd_format_name(size_t i);
VD_PUBLIC bool vd_format_is_writable(const char *name);

#ifdef __cplusplus
}
#endif
#endif
