/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the core asks of the keys room: to judge, open and make LUKS headers, which are handed over as bytes. The
 * keys room never sees an image; the core never sees libcryptsetup.
 */
#ifndef VD_CORE_KEYSRC_H
#define VD_CORE_KEYSRC_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/secret.h"

/* The secret inside a key object; borrowed. Empty: the key is a command. */
struct vd_bytes vd_key_bytes(const struct vd_key *key);
/* VD_EARG when the key is a command, which is of no use for what has no tokens: `what`. */
int vd_key_judge_secret(const struct vd_key *key, const char *what, struct vd_error *e) VD_MUST_CHECK;
/* Where the user keeps the token of a key that is a command; NULL: in the image. */
const char *vd_key_token_file(const struct vd_key *key);

/* What the keyslots of an image are in: its LUKS header, and beside it the notes on them that some formats keep. */
struct vd_luks_view {
	struct vd_bytes header, notes;
	const char *image;              /* its path, for the eyes of who runs a key command */
};

/*
 * Looks at the first bytes of a container or key area: VD_LUKS1, VD_LUKS2, or 0 when it is no LUKS header. Fills how
 * many bytes of it vd_luks_inspect() needs: the whole header with its key material. A LUKS2 header whose beginning is lost
 * is one as long as its second copy holds and nothing else has begun to use the place.
 */
int vd_luks_probe(struct vd_bytes head, uint64_t *header_len);
/* Holds both copies of a usual LUKS2 header, whose JSON text says how long all of it is. */
#define VD_LUKS_PROBE_LEN 65536
/* The same for what is known to be a container: whatever lies where the first copy was. */
int vd_luks_search(struct vd_bytes head, uint64_t *header_len);
/* Holds both copies of any LUKS2 header. */
#define VD_LUKS_SEARCH_LEN (8u << 20)

/*
 * Judges a header (private copy of the caller: bytes that cannot change under us) and fills `info`. Accepts only what
 * this library also writes or can read soundly: one segment, aes, xts-plain64 (xts-plain below 2 TiB), 256- or 512-bit
 * volume key, no pending re-encryption or unknown requirement, no integrity, areas inside the header, KDF costs below
 * the caps in keys/luks.c. `container_len`: size of what holds header and payload, which must start inside it; 0 for
 * a header that lies elsewhere, in a qcow2 key area or a file of its own. VD_EAUTH: no writer makes such a header; it was damaged or tampered
 * with. VD_EUNSUPPORTED.
 */
int vd_luks_inspect(struct vd_bytes header, uint64_t container_len, struct vd_luks_info *info, struct vd_error *e) VD_MUST_CHECK;

/* Makes both copies of a LUKS2 header that was judged as the sound one says. */
int vd_luks_mend(uint8_t *header, size_t len, struct vd_error *e) VD_MUST_CHECK;

struct vd_luks_area {
	uint64_t off, end;              /* in the header */
};
#define VD_LUKS_AREAS_MAX (VD_MAX_SLOTS + 1)
/* Room for key material that no keyslot uses, in ascending order: what removed keyslots leave. *n is at most VD_LUKS_AREAS_MAX. */
int vd_luks_dead_areas(struct vd_bytes header, struct vd_luks_area *areas, size_t *n, struct vd_error *e) VD_MUST_CHECK;

/* How many bytes of a sound header say what it is, in clear; all behind them is key material, or nothing. */
uint64_t vd_luks_clear_len(struct vd_bytes header);

/* Opens a keyslot: the volume key in `vk` (caller frees), or VD_EKEY when no slot takes the key. Takes seconds by design. */
int vd_luks_unlock(const struct vd_luks_view *view, const struct vd_key *key, struct vd_secret *vk, struct vd_error *e) VD_MUST_CHECK;

struct vd_luks_format_opts {
	enum vd_luks_type type;         /* VD_LUKS1 or VD_LUKS2 */
	uint32_t sector_size;           /* LUKS2: 512 or 4096 */
	uint64_t payload_off;           /* bytes; multiple of 4096. 0: the header is not where the payload is */
	struct vd_kdf_opts kdf;
};
/* Default payload offset of a new container of this type: 2 MiB (LUKS1), 16 MiB (LUKS2). */
uint64_t vd_luks_payload_off(enum vd_luks_type type);
/* How long the header is that vd_luks_format() makes for a volume key of so many bytes, key material included: of LUKS1. */
uint64_t vd_luks1_header_len(size_t key_len);
/*
 * Makes a header for the volume key with one keyslot for `key`; reads its KDF parameters back. *out is malloc'ed,
 * *out_len bytes: all that must be stored at offset 0 of the container or key area (key material included).
 */
int vd_luks_format(const struct vd_luks_format_opts *opts, const struct vd_secret *vk, const struct vd_key *key,
		   uint8_t **out, size_t *out_len, struct vd_error *e) VD_MUST_CHECK;

/* The secret encrypted to recipients of age (age1...), as a file of age; *out is malloc'ed. VD_EARG names a wrong one. */
int vd_age_seal(const struct vd_key *key, const char *const *recipients, size_t n, uint8_t **out, size_t *out_len,
		struct vd_error *e) VD_MUST_CHECK;

/* The secret encrypted to all OpenPGP public keys in the files, as one message; *out is malloc'ed. VD_EARG names a wrong one. */
int vd_openpgp_seal(const struct vd_key *key, const char *const *files, size_t n, uint8_t **out, size_t *out_len,
		    struct vd_error *e) VD_MUST_CHECK;

/* ---- changing keyslots ---- */

#define VD_LUKS_STEPS_MAX 4
/*
 * A change of a header: its new bytes, as many as before, and the order in which they go to the disk. With a flush after
 * each step a keyslot of before or of after opens at every instant, whatever a torn step leaves.
 */
struct vd_luks_edit {
	uint8_t *now;                   /* malloc'ed */
	size_t len;
	uint32_t slot;                  /* that came or went */
	char *token;                    /* of a key command, for the slot that came: where it is to be kept, the caller knows; NULL: none */
	struct vd_luks_step {
		uint64_t off, len;
	} steps[VD_LUKS_STEPS_MAX];
	size_t n_steps;
};
void vd_luks_edit_free(struct vd_luks_edit *edit);

struct vd_luks_slot_opts {
	const char *label, *kind;       /* judged by the caller: short, without what JSON would escape */
	uint64_t created;               /* seconds since 1970 */
	struct vd_kdf_opts kdf;
};
/*
 * Adds a keyslot for `new`, whose costs are read back and which is opened once, to a header that `any` opens. VD_EKEY,
 * VD_ENOSPC when all slots are in use, or the header has no room for a token. A `new` that is a key command seals a new secret;
 * LUKS2 has the token then, unless the user keeps it.
 */
int vd_luks_add_slot(const struct vd_luks_view *view, const struct vd_key *any, const struct vd_key *new,
		     const struct vd_luks_slot_opts *opts, struct vd_luks_edit *edit, struct vd_error *e) VD_MUST_CHECK;
/* Removes a keyslot that is in use, the last one too: whether that may be is the caller's to ask. */
int vd_luks_remove_slot(struct vd_bytes header, uint32_t slot, struct vd_luks_edit *edit, struct vd_error *e) VD_MUST_CHECK;
/* Notes on keyslots that an image keeps beside a LUKS1 header: what they say, where it is of this header, into info. */
void vd_luks_notes_read(struct vd_bytes header, struct vd_bytes notes, struct vd_luks_info *info);
/*
 * The text that says what info says, with the tokens that the notes of before have of these slots, and `token` (NULL: none) of
 * `slot`; malloc'ed.
 */
int vd_luks_notes_write(const struct vd_luks_view *view, const struct vd_luks_info *info, uint32_t slot, const char *token,
			char **out, struct vd_error *e) VD_MUST_CHECK;
/* What a token says of its slot for people: which program it is of, and whether it goes with the machine. */
void vd_luks_take_token(const char *token, struct vd_slot_info *slot);
/* Which keyslot the key opens, or VD_EKEY. Takes seconds by design. */
int vd_luks_find_slot(const struct vd_luks_view *view, const struct vd_key *key, uint32_t *slot, struct vd_error *e) VD_MUST_CHECK;

#endif
