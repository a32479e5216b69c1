/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host around another host that shows every operation to a pair of hooks. The recorder, the fault injector and
 * the delays are hooks of it.
 */
#ifndef VD_TESTS_WRAP_H
#define VD_TESTS_WRAP_H

#include "libvdisk/io/io.h"

enum vd_op_kind {
	VD_OP_OPEN = 1,
	VD_OP_READ = 2,
	VD_OP_WRITE = 4,
	VD_OP_FLUSH = 8,
	VD_OP_TRUNCATE = 16,
	VD_OP_PUNCH = 32,
	VD_OP_SIZE = 64,
	VD_OP_EXTENT = 128,     /* also: how much is allocated */
	VD_OP_CLOSE = 256,
	VD_OP_RENAME = 512,
	VD_OP_UNLINK = 1024,
	VD_OP_ANY = 2047,
};

struct vd_op {
	unsigned kind;          /* enum vd_op_kind */
	const char *name;       /* of the file, or the path that is opened, renamed, removed */
	const char *to;         /* RENAME */
	bool replace;           /* RENAME */
	unsigned flags;         /* OPEN */
	uint64_t off, len;      /* TRUNCATE: the new size is in off */
	const void *data;       /* WRITE */
	struct vd_io *inner;    /* the file behind; OPEN: NULL before, set after success */
	uint64_t *mark;         /* a number of the hooks' own for each open file; NULL for RENAME and UNLINK */
	uint64_t begin;         /* a number that before() may leave for after() */
};

struct vd_wrap {
	struct vd_host host;    /* first: a pointer to it is one to the wrapper */
	struct vd_host *inner;
	/* Negative: the operation is not done and has this result (a file that fails to close is closed all the same). */
	int (*before)(struct vd_wrap *w, struct vd_op *op, struct vd_error *e);
	/* Called once an operation, whether it succeeded or not, also when before() refused it. */
	void (*after)(struct vd_wrap *w, struct vd_op *op, int result);
	/* Not 0: what the files give as their descriptor; a pipe, say, by which reads in the kernel take as long as they are to. */
	int descriptor;
};

/* Both hooks may be NULL. The caller has them set in *w; the wrapper lives as long as its owner says. */
void vd_wrap_init(struct vd_wrap *w, struct vd_host *inner);

/* "write", "flush" ...: the name of a single kind. */
const char *vd_op_name(unsigned kind);

#endif
