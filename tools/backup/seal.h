/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What guards every object of a repository: AES-256-CTR and, over the ciphertext, Poly1305-AES (restic's design document, "Keys, Encryption
 * and MAC"); scrypt, which makes such keys of a secret; SHA-256, which names things. Knows no object from another.
 */
#ifndef TOOLS_BACKUP_SEAL_H
#define TOOLS_BACKUP_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

#define SEAL_OVERHEAD 32        /* 16 bytes in front, the initial counter, and 16 behind, the tag */
#define ID_SIZE 32
#define ID_HEX_SIZE (2 * ID_SIZE + 1)

/* The secret itself: only in memory that locked_new() gave. */
struct seal_key {
	uint8_t encrypt[32], mac_k[16], mac_r[16];
};
/* Of one thread. */
struct sealer;
int sealer_new(const struct seal_key *key, struct sealer **out, struct vd_error *e);
/* NULL is allowed. */
void sealer_free(struct sealer *s);

/* out: n + SEAL_OVERHEAD bytes. plain may be out + 16. */
int seal(struct sealer *s, const void *plain, size_t n, uint8_t *out, struct vd_error *e);
/* out: n - SEAL_OVERHEAD bytes; may be sealed + 16. VD_EAUTH, and out is undefined: nobody with the key made this. */
int unseal(struct sealer *s, const uint8_t *sealed, size_t n, uint8_t *out, struct vd_error *e);

struct scrypt_cost {
	uint64_t n, r, p;
};
/* VD_ECORRUPT: a cost out of all reason, which a key file of somebody else may ask for. */
int seal_derive(const struct vd_key *secret, const uint8_t *salt, size_t salt_len, const struct scrypt_cost *cost,
		struct seal_key *out, struct vd_error *e);
/* A new one, r masked as Poly1305 wants it. */
void seal_new_key(struct seal_key *out);
/* Random, and fit to be published: ids, salts. */
void seal_random(void *out, size_t n);

void id_of(const void *bytes, size_t n, uint8_t id[ID_SIZE]);
/* Over several pieces, in their order. */
struct iovec;
void id_of_pieces(const struct iovec *pieces, int n, uint8_t id[ID_SIZE]);
void id_show(const uint8_t id[ID_SIZE], char hex[ID_HEX_SIZE]);
/* Of 64 lowercase digits and a NUL; false: it is none. */
bool id_read(const char *hex, uint8_t id[ID_SIZE]);

#endif
