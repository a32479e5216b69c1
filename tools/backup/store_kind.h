/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each kind of store brings, and what they have alike. For the stores alone: all others use store.h. */
#ifndef TOOLS_BACKUP_STORE_KIND_H
#define TOOLS_BACKUP_STORE_KIND_H

#include "backup/store.h"

/* As the calls of store.h; names and places have been judged. */
struct store_acts {
	int (*put)(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e);
	int (*get)(struct store *s, enum store_kind kind, const char *name, uint64_t off, void *buf, size_t n, struct vd_error *e);
	int (*size)(struct store *s, enum store_kind kind, const char *name, uint64_t *size, struct vd_error *e);
	int (*list)(struct store *s, enum store_kind kind, int (*each)(void *ctx, const char *name, uint64_t size), void *ctx,
		    struct vd_error *e);
	int (*remove)(struct store *s, enum store_kind kind, const char *name, struct vd_error *e);
	void (*close)(struct store *s);
};

/* The first member of what a store keeps. */
struct store {
	const struct store_acts *acts;
	char *where;
};

/* `creates`: as store_create(). */
int store_folder_open(const char *where, bool creates, struct store **out, struct vd_error *e);
int store_rest_open(const char *where, const struct store_access *access, bool creates, struct store **out, struct vd_error *e);

/* The kind's folder, which is its name in restic's protocol too: "data"; of the config, which lies beside them: "config". */
const char *store_place(enum store_kind kind);
/* 64 lowercase hexadecimal digits. */
bool store_is_name(const char *name);
/* Bytes of all the pieces. */
uint64_t store_sum(const struct iovec *pieces, int n);
/* The n bytes at `bytes` are those of the pieces from `off` on. */
bool store_is_same(const struct iovec *pieces, int n_pieces, uint64_t off, const uint8_t *bytes, size_t n);
int store_refuse_full(const struct store *s, const char *what, struct vd_error *e);
int store_refuse_other(const struct store *s, enum store_kind kind, const char *name, struct vd_error *e);
int store_refuse_short(const struct store *s, enum store_kind kind, const char *name, struct vd_error *e);

#endif
