/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the wipe needs of cryptography, behind one file: a keyed stream that can be entered anywhere, hashes, random bytes. */
#ifndef TOOLS_WIPE_CIPHER_H
#define TOOLS_WIPE_CIPHER_H

#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

#define WIPE_KEY_SIZE 32

int wipe_random(void *buf, size_t len, struct vd_error *e);

/*
 * AES-256-CTR. The counter block is the member's number and the pass's, 32 bits each, and the number of the 16-byte block in the
 * file, 64 bits, all big-endian, so what was written at offset 0 is openssl enc -aes-256-ctr -K KEY -iv <those> of zeros.
 */
struct wipe_stream;
struct wipe_stream *wipe_stream_new(const uint8_t key[WIPE_KEY_SIZE]);
/* off is a multiple of 16. */
void wipe_stream_fill(struct wipe_stream *s, uint32_t member, uint32_t pass, uint64_t off, uint8_t *buf, size_t len);
void wipe_stream_free(struct wipe_stream *s);

/* SHA-256. wipe_hash_end() frees. */
struct wipe_hash;
struct wipe_hash *wipe_hash_new(void);
void wipe_hash_add(struct wipe_hash *h, const void *bytes, size_t len);
void wipe_hash_end(struct wipe_hash *h, uint8_t digest[32]);
void wipe_hash_end_text(struct wipe_hash *h, char text[65]);
void wipe_put_be(uint8_t *to, uint64_t value, size_t len);
void wipe_hex(const uint8_t *bytes, size_t n, char *text);

#endif
