/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judging LUKS headers, between the files of this room. All of it takes bytes of strangers and answers VD_EAUTH
 * (no writer makes this: damaged or tampered with) or VD_EUNSUPPORTED (sound perhaps, but nothing that this library opens).
 */
#ifndef VD_KEYS_LUKS_H
#define VD_KEYS_LUKS_H

#include "keys/json.h"
#include "libvdisk/core/keysrc.h"

#define VD_LUKS_SECTOR 512              /* unit of all sector counts in LUKS headers */
#define VD_LUKS_STRIPES 4000            /* anti-forensic stripes: all LUKS tools write this (LUKS1 spec 1.2.3, LUKS_STRIPES) */

/* ---- kdf.c: what a key derivation may cost ---- */

/*
 * A header is read before any key is known, so its costs are a stranger's wish: unlocking a hostile image could else
 * take months or all memory. Limits in SECURITY.md.
 */
#define VD_PBKDF2_MAX_ITERATIONS 100000000u     /* 110 s of SHA-512 a keyslot (0.9 M/s); cryptsetup's default is 2 s */
#define VD_ARGON2_MAX_KIB (4u << 20)            /* 4 GiB: the most that cryptsetup writes; its default is 1 GiB */
#define VD_ARGON2_MAX_WORK ((uint64_t)64 << 20) /* passes x KiB: 64 passes over 1 GiB, about 100 s of one core */
#define VD_ARGON2_MAX_LANES 16u                 /* threads; cryptsetup writes at most 4 */
/* Lowest costs that may be asked for in a new header: libcryptsetup's and qemu's floor. */
#define VD_PBKDF2_MIN_ITERATIONS 1000u
#define VD_ARGON2_MIN_PASSES 4u
#define VD_ARGON2_MIN_KIB 32u

int vd_kdf_judge(const struct vd_slot_info *slot, struct vd_error *e) VD_MUST_CHECK;
/* PBKDF2 over the volume key, which checks it after unlocking. */
int vd_kdf_judge_digest(uint64_t iterations, struct vd_error *e) VD_MUST_CHECK;
/* The name of a hash that LUKS headers may use, as a string that lives forever; NULL for any other. */
const char *vd_kdf_hash(const char *name, size_t len);

/* True when a guesser has it easy: fewer than 100 000 PBKDF2 iterations, or less Argon2 than 4 passes over 32 MiB. */
bool vd_kdf_is_weak(const struct vd_slot_info *slot);

/* ---- luks2_copies.c ---- */

#define VD_LUKS2_BINARY_LEN 4096                /* of each copy; the JSON text comes behind it (LUKS2 spec 1.1.4, 2.1) */
#define VD_LUKS2_MAX_HDR ((uint64_t)4 << 20)    /* one copy, with its JSON text */
#define VD_LUKS2_MAX_KEYSLOTS ((uint64_t)128 << 20)     /* libcryptsetup's limit of the keyslots area */

/* Finds the second copy by its own signature, where its checksum holds: at *at. */
bool vd_luks2_second(struct vd_bytes head, uint64_t *at);
/* Bytes of one copy, by the word of the sound one; 0: there is none. */
uint64_t vd_luks2_copy_len(struct vd_bytes header);
/* Nothing else has begun to use the place of the first copy: it is empty, or still names the container of the second. */
bool vd_luks2_first_is_vacant(struct vd_bytes head, uint64_t second);

/* ---- luks1.c, luks2.c ---- */

#define LUKS1_PHDR_LEN 592              /* LUKS1 spec 1.2.3, figure 1 */

/* Where the last key material ends, by the word of the header's first bytes: unchecked, and a guess where they do not tell. */
uint64_t vd_luks1_extent(struct vd_bytes head);
/* By the copy whose checksum holds. */
uint64_t vd_luks2_extent(struct vd_bytes head);

/* Fills info but header_off. The payload's place is not judged. */
int vd_luks1_judge(struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e) VD_MUST_CHECK;
/* `metadata`: the JSON text. uuid is the caller's to fill too: it is not in the text. */
int vd_luks2_judge(struct vd_bytes metadata, size_t header_len, struct vd_luks_info *info,
		   struct vd_error *e) VD_MUST_CHECK;

/* The token of ours for the slot in metadata that were judged; an empty value when there is none. */
struct vd_json vd_luks2_token_of(struct vd_bytes metadata, uint32_t slot);

/* Of a header that was judged: see vd_luks_dead_areas(). */
size_t vd_luks1_dead_areas(struct vd_bytes header, struct vd_luks_area *areas);
size_t vd_luks2_dead_areas(struct vd_bytes metadata, size_t header_len, struct vd_luks_area *areas);

/* Where the things of keyslot `slot` lie in a LUKS1 header that was judged. */
struct vd_luks1_slot {
	uint64_t active, params, params_end;    /* the flag of 4 bytes; iterations and salt */
	uint64_t material, material_end;
};
struct vd_luks1_slot vd_luks1_slot(struct vd_bytes header, uint32_t slot);

/* Type of the LUKS2 token that says of a keyslot: label, kind, created. */
#define VD_LUKS_TOKEN "vdisk-keyslot"

/* ---- luks_probe.c ---- */

/* Whether the header begins with its first copy, or all of it: not so where vd_luks_search() found only a second one. */
bool vd_luks_has_magic(struct vd_bytes head);

/* ---- luks_notes.c ---- */

/* What a token or note says for people; nothing depends on it. */
void vd_luks_take_notes(struct vd_json object, struct vd_slot_info *slot);
/* The note on the slot, where it is of this header; else an empty value. */
struct vd_json vd_luks_note_of(const struct vd_luks_view *view, uint32_t slot);

/* ---- luks_tokens.c ---- */

/* Where the tokens of keyslots are: in the metadata of LUKS2, else in the notes. */
struct vd_luks_tokens {
	const struct vd_luks_view *view;
	const struct vd_luks_info *info;
	struct vd_bytes metadata;
};
/* Tries a secret on one keyslot, or on all (-1): the number of the one that it opens, or VD_EKEY. */
typedef int (*vd_luks_try_fn)(void *ctx, int slot, const struct vd_key *secret, struct vd_error *e);
/* Has the key's command open one token after the other until a secret fits; the number of its keyslot. */
int vd_luks_open_by_token(const struct vd_luks_tokens *tokens, const struct vd_key *key, vd_luks_try_fn try, void *ctx,
			  struct vd_error *e) VD_MUST_CHECK;

/* ---- luks_plan.c ---- */

enum vd_luks_act { VD_LUKS_ADD, VD_LUKS_REMOVE };
/*
 * Fills edit's steps for what `now` has other than `header` on disk; edit->slot and edit->len are set. `sound`: the header
 * with a damaged LUKS2 copy mended. All three have edit->len bytes. VD_EFAILED when more has changed than that keyslot.
 */
int vd_luks_plan(struct vd_bytes header, const uint8_t *sound, const uint8_t *now, enum vd_luks_act act,
		 struct vd_luks_edit *edit, struct vd_error *e) VD_MUST_CHECK;

/* Takes "aes-xts-plain64" apart if it is what this library can read; prints what it is otherwise. */
int vd_luks_judge_cipher(const char *cipher, const char *mode, uint64_t key_bytes, struct vd_luks_info *info,
			 struct vd_error *e) VD_MUST_CHECK;

#endif
