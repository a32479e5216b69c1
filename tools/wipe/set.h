/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files and devices that one wipe is about, each once however many names lead to it, and what is known of each. Finding them is
 * discover.c's business, overwriting them run.c's.
 */
#ifndef TOOLS_WIPE_SET_H
#define TOOLS_WIPE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <vdisk.h>

#define WIPE_MEMBERS_MAX 4096
#define WIPE_NOTES_MAX 256
#define WIPE_KEEPS_MAX 8
#define WIPE_ID_SIZE 17         /* 16 hexadecimal digits and a NUL */

/* Symbol, stable name, rank: of two on one device the lower is wiped first, so that keys go before what they open. */
#define WIPE_ROLE_TABLE(X)                                                                                \
	X(WIPE_HEADER,       "detached-header",    0)                                                      \
	X(WIPE_TPM,          "tpm-state",          0)                                                      \
	X(WIPE_FIRMWARE,     "firmware-state",     0)                                                      \
	X(WIPE_CONFIG,       "configuration",      0)                                                      \
	X(WIPE_MEMORY,       "memory",             1)                                                      \
	X(WIPE_JOURNAL,      "conversion-journal", 1)                                                      \
	X(WIPE_IMAGE,        "image",              2)                                                      \
	X(WIPE_EXTENT,       "extent",             2)                                                      \
	X(WIPE_DATA_FILE,    "data-file",          2)                                                      \
	X(WIPE_BACKING,      "backing-file",       2)                                                      \
	X(WIPE_CHANGE_TRACK, "change-tracking",    3)                                                      \
	X(WIPE_LOG,          "log",                3)                                                      \
	X(WIPE_FILE,         "file",               3)
enum wipe_role {
#define WIPE_ROLE_ENUM(sym, name, rank) sym,
	WIPE_ROLE_TABLE(WIPE_ROLE_ENUM)
#undef WIPE_ROLE_ENUM
	WIPE_N_ROLES
};
const char *wipe_role_name(enum wipe_role role);
int wipe_role_rank(enum wipe_role role);
/* WIPE_N_ROLES: none is called so. */
enum wipe_role wipe_role_of(const char *name);

struct wipe_span {
	uint64_t off, len;
};

/* Bytes that a pass could not write, or a verification found otherwise; the first of them, and how many in all. */
#define WIPE_BAD_MAX 64
struct wipe_bad {
	struct wipe_span at[WIPE_BAD_MAX];
	size_t n;
	uint64_t bytes;
};

struct wipe_member {
	char *path;                     /* without symbolic links */
	enum wipe_role role;
	char format[16];                /* of an image that could be opened; else "" */
	char disk_id[64];               /* by which the format knows it, or "" */
	size_t parent;                  /* the member that leads here; its own index: the user named it */
	bool is_device, is_image, is_encrypted;
	uint64_t dev, ino, nlink, size, allocated;
	int64_t born, changed;          /* nanoseconds since 1970; born 0: the file system does not say */
	uint32_t n_snapshots;
	uint64_t vm_state;              /* bytes of machines' memory kept in it */
	struct wipe_span *key_areas;    /* whole LUKS headers */
	size_t n_key_areas;

	/* What the wipe finds and does. */
	struct vd_keeps keeps[WIPE_KEEPS_MAX];
	size_t n_keeps;
	bool has_map;                   /* the file system tells where the bytes lie */
	bool canary_moved;              /* one block, written back as it was, came to lie elsewhere */
	bool through_cache;             /* some of it was written or read by way of the page cache */
	uint64_t before_extents, before_bytes, after_extents, after_bytes;
	char head_sha256[65];           /* of its first 64 KiB, before: what tells it from others where the format has no identity */
	char before_sha256[65], after_sha256[65];       /* of the list of its extents: offset, place and length, 64 bits big-endian each */
	uint64_t moved, shared, encoded, unwritten, past_end;
	bool erased;                    /* its key areas were overwritten and proven */
	uint64_t erased_bytes;
	uint32_t pass;                  /* under way: 0 to n - 1; n: all are done */
	uint64_t offset;                /* in it: all before is durable */
	uint64_t written, verified;     /* bytes */
	struct wipe_bad unwritable, mismatch, unreadable;
	bool is_done, is_unlinked;
	bool has_failed;                /* in parts, or as a whole: a resume begins it anew */
	char failure[256];              /* why it could not be gone on with; "" if nothing failed */
};

struct wipe_set {
	struct wipe_member *at;
	size_t n;
	char *notes[WIPE_NOTES_MAX];    /* what was left out, or could not be looked at: each is a limit of the wipe */
	size_t n_notes;
	char machine_name[128], machine_id[64]; /* as its configuration has them, or "" */
	char failure[256];              /* of the run, and of no member; "" */
	bool is_stopped;                /* after the canaries: nothing was taken away */
};

void wipe_set_free(struct wipe_set *set);
/*
 * Adds the file, or device; *index is where it is, as that of an earlier call if it is there already. `parent`: SIZE_MAX if the
 * user named it. VD_EARG for what is neither file nor block device.
 */
int wipe_set_add(struct wipe_set *set, const char *path, enum wipe_role role, size_t parent, size_t *index, struct vd_error *e);
/* Whether a file is a member: by device and number. */
bool wipe_set_has(const struct wipe_set *set, uint64_t dev, uint64_t ino);
void wipe_set_note(struct wipe_set *set, const char *fmt, ...) VD_PRINTF(2, 3);
/* Size, times and numbers of what is there now. */
int wipe_member_look(struct wipe_member *m, struct vd_error *e);
/* Changes when a member does, or when there are more or fewer of them. */
void wipe_set_id(const struct wipe_set *set, char id[WIPE_ID_SIZE]);

#endif
