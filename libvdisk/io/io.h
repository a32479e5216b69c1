/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host files as the rest of the library sees them: positioned reads and writes that are whole or fail, a flush
 * that is never ignored, and a host (the operating system, memory, or a test's recorder) that opens them.
 *
 * Threads: one struct vd_io may be used from any thread at once; close is exclusive. Wrappers (recorder, fault
 * injector, latency) are struct vd_io's around another one, made by a struct vd_host around another one.
 */
#ifndef VD_IO_IO_H
#define VD_IO_IO_H

#include <stdatomic.h>

#include "libvdisk/base/error.h"

enum vd_io_flag {
	VD_IO_WRITE = 1,        /* open for reading and writing; else reading */
	VD_IO_CREATE = 2,       /* make a new file (mode 0600); VD_EEXIST if the name is taken. Implies VD_IO_WRITE */
	VD_IO_FORCE_SHARE = 4,  /* reader only: do not mind a writer in another process */
	VD_IO_NO_SYMLINK = 8,   /* refuse a symbolic link as the last component */
};

struct vd_io;

struct vd_io_ops {
	/* Bytes past the end of the file read as zeros. */
	int (*pread)(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e);
	/* Extends the file when it ends past it. VD_EREADONLY without VD_IO_WRITE. */
	int (*pwrite)(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e);
	/* A descriptor from which pread(2) gives the same bytes as pread above, short at the end of the file. NULL: there is none. */
	int (*descriptor)(const struct vd_io *io);
	/* A hint that the range is written and will not be touched for now: may go to storage and out of memory. NULL: not taken. */
	void (*finished)(struct vd_io *io, uint64_t off, uint64_t len);
	/* Every write completed before the call is on stable storage when it returns 0 (fdatasync). */
	int (*flush)(struct vd_io *io, struct vd_error *e);
	int (*size)(struct vd_io *io, uint64_t *size, struct vd_error *e);
	int (*truncate)(struct vd_io *io, uint64_t size, struct vd_error *e);
	/* Makes an existing range read as zeros without growing the file, deallocated when the host can; VD_EUNSUPPORTED when it cannot. */
	int (*punch)(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e);
	/* Whether the host holds data at `off` (inside the file), and for how many bytes that stays so, at least 1 and at most to the end. */
	int (*extent)(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e);
	/* Bytes that the host has allocated. */
	int (*allocated)(struct vd_io *io, uint64_t *bytes, struct vd_error *e);
	/* Releases locks and io itself, whatever is returned. */
	int (*close)(struct vd_io *io, struct vd_error *e);
};

/* Embedded as the first member of each implementation's struct. */
struct vd_io {
	const struct vd_io_ops *ops;
	char *name;             /* path, for messages and reports */
	unsigned flags;         /* enum vd_io_flag that it was opened with */
	bool is_device;         /* block device: fixed size, no rename */
	uint64_t dev, ino;      /* identity, to notice the same file twice */
	atomic_uint_fast64_t n_changes; /* writes, truncates and punches that have ended; kept by the shorthands below */
};

/* Where files come from. */
struct vd_host {
	/* Locks as qemu does: a writer excludes all, readers share; VD_EBUSY names the holder where /proc tells. */
	int (*open)(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e);
	/* Gives the file its new name, durably: the folder is flushed. Without `replace` an existing name is VD_EEXIST. */
	int (*rename)(struct vd_host *h, const char *from, const char *to, bool replace, struct vd_error *e);
	int (*unlink)(struct vd_host *h, const char *path, struct vd_error *e);
	bool (*exists)(struct vd_host *h, const char *path);
};

/* The operating system's files. */
struct vd_host *vd_host_os(void);

/* For implementations: fills a zeroed io. The name is copied; ops->close frees it. */
int vd_io_init(struct vd_io *io, const struct vd_io_ops *ops, const char *name, unsigned flags,
	       struct vd_error *e) VD_MUST_CHECK;

/* Shorthands; the zero-length call does nothing. All callers go through these, never through ops. */
int vd_io_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
/* As pread, but VD_ECORRUPT when [off, off+len) is not wholly inside the file: for tables and headers. */
int vd_io_pread_exact(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
int vd_io_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
/* -1: all reads go through vd_io_pread(). */
int vd_io_descriptor(const struct vd_io *io);
void vd_io_finished(struct vd_io *io, uint64_t off, uint64_t len);
int vd_io_flush(struct vd_io *io, struct vd_error *e) VD_MUST_CHECK;
int vd_io_size(struct vd_io *io, uint64_t *size, struct vd_error *e) VD_MUST_CHECK;
int vd_io_truncate(struct vd_io *io, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
int vd_io_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
int vd_io_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e) VD_MUST_CHECK;
int vd_io_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e) VD_MUST_CHECK;
int vd_io_close(struct vd_io *io, struct vd_error *e) VD_MUST_CHECK;
/* For error paths: closes and drops the result. NULL is allowed. */
void vd_io_abort(struct vd_io *io);

#endif
