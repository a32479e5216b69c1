/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a repository still holds what was put into it, level by level: each reads more and finds more. Faults are told one by one and all of them;
 * that there are some is no failure of a call. Repairing is repair.h's; bringing a disk back, reading its file systems and booting it is the drill's.
 */
#ifndef TOOLS_BACKUP_VERIFY_H
#define TOOLS_BACKUP_VERIFY_H

#include <pthread.h>

#include "backup/repo.h"
#include "ledger/book.h"

enum verify_level {
	VERIFY_HEAD,            /* the list of snapshots against the receipts */
	VERIFY_PRESENCE,        /* all that is named is there, with its length */
	VERIFY_PACKS,           /* all bytes are those that the names say: no key */
	VERIFY_DATA,            /* all blobs are opened */
};

/* Symbol, stable name; false: the repository does not hold what it should. */
#define VERIFY_FAULT_TABLE(X)                                                                              \
	X(VERIFY_BOOK,       "damaged-book",       false)                                                   \
	X(VERIFY_FORGED,     "forged-receipt",     false)  /* the signature does not hold, or is nobody's who may */ \
	X(VERIFY_LOST,       "missing-snapshot",   false)  /* there is a receipt of it, and none of its removal */ \
	X(VERIFY_ROLLBACK,   "rolled-back",        false)  /* all after a moment are missing */             \
	X(VERIFY_OTHER_TREE, "changed-snapshot",   false)  /* it is not what its receipt says */            \
	X(VERIFY_OBJECT,     "damaged-object",     false)  /* a small one: snapshot, index, key */          \
	X(VERIFY_CHECK,      "unsound",            false)  /* what check finds */                           \
	X(VERIFY_MISSING,    "missing-pack",       false)                                                   \
	X(VERIFY_SHORT,      "truncated-pack",     false)                                                   \
	X(VERIFY_DAMAGED,    "damaged-pack",       false)                                                   \
	X(VERIFY_EXCHANGED,  "exchanged-pack",     false)  /* a sound one, and not the one that the index knows */ \
	X(VERIFY_UNREADABLE, "unreadable-pack",    false)                                                   \
	X(VERIFY_HIT,        "damaged-snapshot",   false)  /* something of it is in what was found above */ \
	X(VERIFY_STRANGER,   "no-receipt",         true)                                                    \
	X(VERIFY_UNNAMED,    "unnamed-pack",       true)                                                    \
	X(VERIFY_FLAKY,      "read-twice",         true)   /* wrong the first time and right the second: memory, cable, server */
enum verify_kind {
#define VERIFY_ENUM(sym, name, harmless) sym,
	VERIFY_FAULT_TABLE(VERIFY_ENUM)
#undef VERIFY_ENUM
};
const char *verify_fault_name(enum verify_kind kind);

struct verify_fault {
	enum verify_kind kind;
	bool is_harmless;
	char object[STORE_NAME_SIZE];   /* the pack's or snapshot's, or "" */
	char text[320];
};

struct bad_pack {
	uint8_t id[ID_SIZE];
	bool is_whole;                  /* nothing in it may be relied on; else the blobs are in `bad` */
};

struct verify_state;
struct verify {
	struct store *store;
	struct repo *repo;              /* NULL: there is no key */
	unsigned threads;
	struct vd_job job;
	double budget;                  /* seconds for reading packs; 0: as long as it takes */
	struct verify_state *state;     /* when each was verified last; NULL: nobody knows */
	void (*found)(void *ctx, const struct verify_fault *f);
	void *ctx;

	pthread_mutex_t mutex;          /* of all below */
	uint64_t faults, harmless;
	uint64_t packs, packs_read, bytes_read, snapshots;
	struct index *bad;              /* blobs that are lost */
	struct index *bad_whole;        /* ids of packs of which nothing may be relied on, as if they were blobs */
	struct bad_pack *bad_packs;
	size_t n_bad_packs;
};
void verify_begin(struct verify *v);
void verify_end(struct verify *v);
/* Nobody need find it twice. */
void verify_note_bad(struct verify *v, const uint8_t pack[ID_SIZE], bool is_whole);
void verify_tell(struct verify *v, enum verify_kind kind, const char *object, const char *fmt, ...) VD_PRINTF(4, 5);

struct verify_trust {
	struct book *book;
	const char *allowed;            /* allowed_signers; NULL: unsigned receipts are believed, too */
	const char *where;              /* the repository's address: whose receipts are meant when there is no key to know its id by */
};
/* L0. VD_ENOENT: the ledger has no receipt of this repository. */
int verify_head(struct verify *v, const struct verify_trust *t, struct vd_error *e);
/* L1: with the key, check.h's and the headers of all packs; without, their ends alone. */
int verify_presence(struct verify *v, struct vd_error *e);
/* L2 and L3: reads packs, those first that were verified longest ago. L2 reads the small objects, too. */
int verify_packs(struct verify *v, enum verify_level level, struct vd_error *e);
/* Tells of each snapshot that has something in what was found bad. Needs the key. */
int verify_hits(struct verify *v, struct vd_error *e);

#endif
