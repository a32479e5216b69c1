/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypts and decrypts runs of sectors through libgcrypt. Which number a run's tweak counts from (host or guest
 * offset) is the core's business; where keys come from is the keys room's.
 */
#include "libvdisk/crypto/diskcipher.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/bytes.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/freelist.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/crypto/random.h"

#include <gcrypt.h>

#define UNIT 512        /* bytes that the tweak counts, whatever the sector size (dm-crypt without iv_large_sectors) */
#define MAX_SECTOR 4096
#define IV_LEN 16

typedef gcry_error_t crypt_fn(gcry_cipher_hd_t h, void *out, size_t out_len, const void *in, size_t in_len);

struct vd_diskcipher {
	enum vd_diskcipher_kind kind;
	int algo, mode;                 /* libgcrypt's numbers */
	struct vd_secret key;
	struct vd_freelist handles;     /* gcry_cipher_hd_t with the key set: one serves one thread at a time */
};

static void close_handle(void *handle)
{
	gcry_cipher_close(handle);      /* wipes the key schedule */
}
VD_DEFINE_CLEANUP(struct gcry_cipher_handle, cleanup_handle, close_handle)
VD_DEFINE_CLEANUP(struct vd_diskcipher, cleanup_diskcipher, vd_diskcipher_free)

bool vd_xts_halves_differ(const void *key, size_t len)
{
	return !vd_secret_equal(key, (const uint8_t *)key + len / 2, len / 2);
}

static int judge_key(enum vd_diskcipher_kind kind, const void *key, size_t len, struct vd_error *e)
{
	if (kind == VD_DISKCIPHER_AES_CBC_PLAIN64) {
		if (len != 16)
			return vd_fail(e, VD_EKEY, "the key is %zu bytes long, legacy AES wants 16", len);
		return 0;
	}
	if (len != 32 && len != 64)
		return vd_fail(e, VD_EKEY, "the volume key is %zu bytes long, AES-XTS wants 32 or 64", len);
	if (!vd_xts_halves_differ(key, len))
		return vd_fail(e, VD_EKEY, "the two halves of the volume key are equal, which makes AES-XTS weak");
	return 0;
}

static int failed(gcry_error_t err, const char *doing, struct vd_error *e)
{
	if (gcry_err_code(err) == GPG_ERR_ENOMEM)
		return vd_fail(e, VD_ENOMEM, "not enough memory for %s", doing);
	return vd_fail(e, VD_EFAILED, "%s: libgcrypt: %s", doing, gcry_strerror(err));
}

/* Takes locked memory for the key schedule, and common memory when libgcrypt's locked pool is full. */
static int open_handle(struct vd_diskcipher *c, gcry_cipher_hd_t *out, struct vd_error *e)
{
	__attribute__((cleanup(cleanup_handle))) gcry_cipher_hd_t h = NULL;
	gcry_error_t err = gcry_cipher_open(&h, c->algo, c->mode, GCRY_CIPHER_SECURE);

	if (gcry_err_code(err) == GPG_ERR_ENOMEM)
		err = gcry_cipher_open(&h, c->algo, c->mode, 0);
	if (!err)
		err = gcry_cipher_setkey(h, c->key.p, c->key.len);
	if (err)
		return failed(err, "setting up AES", e);
	*out = vd_steal(&h);
	return 0;
}

static int take_handle(struct vd_diskcipher *c, gcry_cipher_hd_t *out, struct vd_error *e)
{
	*out = vd_freelist_get(&c->handles);
	return *out ? 0 : open_handle(c, out, e);
}

int vd_diskcipher_new(enum vd_diskcipher_kind kind, const void *key, size_t key_len, struct vd_diskcipher **out,
		      struct vd_error *e)
{
	__attribute__((cleanup(cleanup_diskcipher))) struct vd_diskcipher *c = NULL;
	gcry_cipher_hd_t first;
	int r = vd_crypto_init(e);

	if (r < 0 || (r = judge_key(kind, key, key_len, e)) < 0 || (r = vd_alloc(1, sizeof(*c), &c, e)) < 0)
		return r;
	c->kind = kind;
	c->algo = key_len == 64 ? GCRY_CIPHER_AES256 : GCRY_CIPHER_AES128;
	c->mode = kind == VD_DISKCIPHER_AES_XTS ? GCRY_CIPHER_MODE_XTS : GCRY_CIPHER_MODE_CBC;
	vd_freelist_init(&c->handles, close_handle);
	r = vd_secret_copy(&c->key, key, key_len, e);
	if (r < 0 || (r = open_handle(c, &first, e)) < 0)
		return r;
	vd_freelist_put(&c->handles, first);
	*out = vd_steal(&c);
	return 0;
}

void vd_diskcipher_free(struct vd_diskcipher *c)
{
	if (!c)
		return;
	vd_freelist_fini(&c->handles);
	vd_secret_free(&c->key);
	free(c);
}

static gcry_error_t set_unit(gcry_cipher_hd_t h, uint64_t unit)
{
	uint8_t iv[IV_LEN] = { 0 };

	vd_put_le64(iv, unit);
	return gcry_cipher_setiv(h, iv, sizeof(iv));
}

/* After each XTS call libgcrypt has set the tweak to the next data unit: one setiv serves a run of 512-byte sectors. */
static gcry_error_t run_xts_512(gcry_cipher_hd_t h, crypt_fn *crypt, uint8_t *buf, size_t len, uint64_t unit)
{
	gcry_error_t err = set_unit(h, unit);

	for (size_t at = 0; !err && at < len; at += UNIT)
		err = crypt(h, buf + at, UNIT, NULL, 0);
	return err;
}

static gcry_error_t run_each(gcry_cipher_hd_t h, crypt_fn *crypt, uint8_t *buf, size_t len, uint64_t unit,
			     size_t sector)
{
	gcry_error_t err = 0;

	for (size_t at = 0; !err && at < len; at += sector) {
		err = set_unit(h, unit + at / UNIT);
		if (!err)
			err = crypt(h, buf + at, sector, NULL, 0);
	}
	return err;
}

static int judge_run(const struct vd_diskcipher *c, size_t len, uint64_t unit, size_t sector, struct vd_error *e)
{
	size_t largest = c->kind == VD_DISKCIPHER_AES_XTS ? MAX_SECTOR : UNIT;
	uint64_t end;

	if (!vd_is_pow2(sector) || sector < UNIT || sector > largest)
		return vd_fail(e, VD_EARG, "sectors of %zu bytes cannot be encrypted", sector);
	if (len % sector || unit % (sector / UNIT) || !vd_add_u64(unit, len / UNIT, &end))
		return vd_fail(e, VD_EARG, "%zu bytes from unit %llu are no whole sectors of %zu bytes", len,
			       (unsigned long long)unit, sector);
	return 0;
}

static int run(struct vd_diskcipher *c, crypt_fn *crypt, void *buf, size_t len, uint64_t unit, size_t sector,
	       struct vd_error *e)
{
	gcry_cipher_hd_t h;
	gcry_error_t err;
	int r = judge_run(c, len, unit, sector, e);

	if (r < 0 || (r = take_handle(c, &h, e)) < 0)
		return r;
	if (c->kind == VD_DISKCIPHER_AES_XTS && sector == UNIT)
		err = run_xts_512(h, crypt, buf, len, unit);
	else
		err = run_each(h, crypt, buf, len, unit, sector);
	vd_freelist_put(&c->handles, h);
	return err ? failed(err, "encrypting sectors", e) : 0;
}

int vd_diskcipher_encrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector_size,
			  struct vd_error *e)
{
	return run(c, gcry_cipher_encrypt, buf, len, unit, sector_size, e);
}

int vd_diskcipher_decrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector_size,
			  struct vd_error *e)
{
	return run(c, gcry_cipher_decrypt, buf, len, unit, sector_size, e);
}
