/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether all that a repository names is there: snapshots, trees, blobs, packs. What lies in the packs is not read but for trees. */
#ifndef TOOLS_BACKUP_CHECK_H
#define TOOLS_BACKUP_CHECK_H

#include "backup/repo.h"

/* Symbol, stable name. */
#define CHECK_FAULT_TABLE(X)                                                                              \
	X(CHECK_SNAPSHOT, "unreadable-snapshot")                                                           \
	X(CHECK_TREE,     "unreadable-tree")                                                               \
	X(CHECK_BLOB,     "missing-blob")       /* a file names it, and no index does */                   \
	X(CHECK_PACK,     "missing-pack")                                                                  \
	X(CHECK_SHORT,    "truncated-pack")                                                                \
	X(CHECK_UNNAMED,  "unnamed-pack")       /* of a backup that was cut off, harmless: prune takes it away */
enum check_kind {
#define CHECK_ENUM(sym, name) sym,
	CHECK_FAULT_TABLE(CHECK_ENUM)
#undef CHECK_ENUM
};
const char *check_fault_name(enum check_kind kind);

struct check_fault {
	enum check_kind kind;
	bool is_harmless;
	char text[256];
};
struct check_report {
	uint64_t snapshots, packs, blobs, stored;
	uint64_t faults;                /* but for harmless ones */
};
/* Reads all indexes. Faults are no failure of the call; a result of `found` that is not 0 ends it. */
int check_run(struct repo *r, int (*found)(void *ctx, const struct check_fault *f), void *ctx, const struct vd_job *job, struct check_report *report,
	      struct vd_error *e);

#endif
