/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The patterns of a wipe, by libgcrypt. What the bytes are for is its callers' business. */
#include "wipe/cipher.h"

#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "fail.h"
#include "ledger/crypto.h"
#include "ui.h"

#define SLICE 65536     /* zeroed and encrypted while it is in the cache */

struct wipe_stream {
	gcry_cipher_hd_t handle;
};

struct wipe_hash {
	gcry_md_hd_t handle;
};

int wipe_random(void *buf, size_t len, struct vd_error *e)
{
	uint8_t *to = buf;

	while (len) {
		ssize_t n = getrandom(to, len, 0);

		if (n < 0 && errno != EINTR)
			return fail_errno(e, errno, "the system gives no random bytes");
		if (n > 0) {
			to += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

struct wipe_stream *wipe_stream_new(const uint8_t key[WIPE_KEY_SIZE])
{
	struct wipe_stream *s = calloc(1, sizeof(*s));

	crypto_setup();
	if (!s || gcry_cipher_open(&s->handle, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CTR, 0) ||
	    gcry_cipher_setkey(s->handle, key, WIPE_KEY_SIZE))
		ui_out_of_memory();
	return s;
}

void wipe_put_be(uint8_t *to, uint64_t value, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)(value >> (8 * (len - 1 - i)));
}

void wipe_stream_fill(struct wipe_stream *s, uint32_t member, uint32_t pass, uint64_t off, uint8_t *buf, size_t len)
{
	uint8_t counter[16];

	wipe_put_be(counter, member, 4);
	wipe_put_be(counter + 4, pass, 4);
	wipe_put_be(counter + 8, off / 16, 8);
	gcry_cipher_setctr(s->handle, counter, sizeof(counter));
	for (size_t at = 0; at < len; at += SLICE) {
		size_t n = len - at < SLICE ? len - at : SLICE;

		memset(buf + at, 0, n);
		gcry_cipher_encrypt(s->handle, buf + at, n, NULL, 0);
	}
}

void wipe_stream_free(struct wipe_stream *s)
{
	if (!s)
		return;
	gcry_cipher_close(s->handle);
	free(s);
}

struct wipe_hash *wipe_hash_new(void)
{
	struct wipe_hash *h = calloc(1, sizeof(*h));

	crypto_setup();
	if (!h || gcry_md_open(&h->handle, GCRY_MD_SHA256, 0))
		ui_out_of_memory();
	return h;
}

void wipe_hash_add(struct wipe_hash *h, const void *bytes, size_t len)
{
	gcry_md_write(h->handle, bytes, len);
}

void wipe_hash_end(struct wipe_hash *h, uint8_t digest[32])
{
	memcpy(digest, gcry_md_read(h->handle, GCRY_MD_SHA256), 32);
	gcry_md_close(h->handle);
	free(h);
}

void wipe_hash_end_text(struct wipe_hash *h, char text[65])
{
	uint8_t digest[32];

	wipe_hash_end(h, digest);
	wipe_hex(digest, sizeof(digest), text);
}

void wipe_hex(const uint8_t *bytes, size_t n, char *text)
{
	for (size_t i = 0; i < n; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
}
