/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS headers: made, judged and opened, each rule broken once, and the peers (cryptsetup, qemu) in both directions.
 * Key derivations are as cheap as the format allows.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keys/luks.h"
#include "libvdisk/crypto/diskcipher.h"
#include "libvdisk/crypto/random.h"
#include "tests/support/leftover.h"
#include "tests/support/tempdir.h"

#define MIB ((uint64_t)1 << 20)

/* ---- headers that all claims start from; made once ---- */

struct made {
	enum vd_luks_type type;
	uint32_t sector_size;
	size_t key_bytes;
	struct vd_secret vk;
	uint8_t *header;
	size_t len;
};

static struct made headers[] = {
	{ .type = VD_LUKS1, .sector_size = 512, .key_bytes = 64 },
	{ .type = VD_LUKS1, .sector_size = 512, .key_bytes = 32 },
	{ .type = VD_LUKS2, .sector_size = 512, .key_bytes = 64 },
	{ .type = VD_LUKS2, .sector_size = 4096, .key_bytes = 32 },
};
#define N_HEADERS (sizeof(headers) / sizeof(headers[0]))
static struct made *const luks1 = &headers[0], *const luks2 = &headers[2];

static struct vd_key *key_of(const char *text)
{
	struct vd_key *key;

	assert_int_equal(vd_key_from_bytes(text, strlen(text), &key, NULL), 0);
	return key;
}

static struct vd_luks_format_opts cheap(enum vd_luks_type type, uint32_t sector_size)
{
	return (struct vd_luks_format_opts){
		.type = type, .sector_size = sector_size, .payload_off = vd_luks_payload_off(type),
		.kdf = { .iterations = type == VD_LUKS1 ? 1000 : 4, .memory_kib = type == VD_LUKS1 ? 0 : 32 << 10 },
	};
}

static int make_headers(void **state)
{
	struct vd_key *key = key_of("secret");

	for (size_t i = 0; i < N_HEADERS; i++) {
		struct made *m = &headers[i];
		struct vd_luks_format_opts o = cheap(m->type, m->sector_size);

		assert_int_equal(vd_secret_alloc(&m->vk, m->key_bytes, NULL), 0);
		assert_int_equal(vd_random(m->vk.p, m->key_bytes, NULL), 0);
		assert_int_equal(vd_luks_format(&o, &m->vk, key, &m->header, &m->len, NULL), 0);
	}
	vd_key_free(key);
	return vd_tempdir_enter(state);
}

static int free_headers(void **state)
{
	for (size_t i = 0; i < N_HEADERS; i++) {
		vd_secret_free(&headers[i].vk);
		free(headers[i].header);
	}
	return vd_tempdir_leave(state);
}

static struct vd_bytes bytes_of(const struct made *m)
{
	return (struct vd_bytes){ m->header, m->len };
}

static uint8_t *copy_of(const struct made *m)
{
	uint8_t *copy = malloc(m->len);

	assert_non_null(copy);
	return memcpy(copy, m->header, m->len);
}

static int inspect(const uint8_t *header, size_t len, uint64_t container_len, struct vd_error *e)
{
	struct vd_luks_info info;

	return vd_luks_inspect((struct vd_bytes){ header, len }, container_len, &info, e);
}

static int unlock(struct vd_bytes header, const char *text, struct vd_secret *vk, struct vd_error *e)
{
	struct vd_key *key = key_of(text);
	int r = vd_luks_unlock(&(struct vd_luks_view){ .header = header }, key, vk, e);

	vd_key_free(key);
	return r;
}

/* ---- files and commands ---- */

static void store(const char *path, const void *bytes, size_t len, uint64_t size)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(truncate(path, (off_t)size), 0);
}

static uint8_t *load(const char *path, uint64_t at, size_t len)
{
	uint8_t *p = calloc(1, len);
	int fd = open(path, O_RDONLY);

	assert_true(p && fd >= 0);
	assert_true(pread(fd, p, len, (off_t)at) > 0);
	close(fd);
	return p;
}

static int shell(const char *fmt, ...) VD_PRINTF(1, 2);
static int shell(const char *fmt, ...)
{
	char cmd[700];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

static void need(const char *program)
{
	if (shell("command -v %s >/dev/null", program))
		skip();
}

/* ---- probing ---- */

static void a_header_is_recognised_and_measured(void **state)
{
	uint64_t len = 0;

	(void)state;
	assert_int_equal(vd_luks_probe(bytes_of(luks1), &len), VD_LUKS1);
	assert_int_equal(len, 4096 + 7 * 258048 + 256000);
	assert_int_equal(vd_luks_probe(bytes_of(luks2), &len), VD_LUKS2);
	assert_int_equal(len, 16 * MIB);
	/* The head that the core reads tells the same. */
	assert_int_equal(vd_luks_probe((struct vd_bytes){ luks2->header, VD_LUKS_PROBE_LEN }, &len), VD_LUKS2);
	assert_int_equal(len, 16 * MIB);
}

static void other_bytes_are_no_header(void **state)
{
	uint8_t head[4096] = { 0 };
	uint64_t len;

	(void)state;
	assert_int_equal(vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &len), 0);
	memcpy(head, "LUKS\xba\xbe\0\3", 8);
	assert_int_equal(vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &len), 0);
	head[7] = 1;
	assert_int_equal(vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &len), VD_LUKS1);
	for (size_t n = 0; n < 8; n++)
		assert_int_equal(vd_luks_probe((struct vd_bytes){ head, n }, &len), 0);
	memset(head, 0, 4);
	assert_int_equal(inspect(head, sizeof(head), 0, NULL), VD_ECORRUPT);
}

/* ---- the way there and back ---- */

static void what_is_made_opens_with_its_key(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_HEADERS; i++) {
		struct vd_secret vk = { 0 };

		assert_int_equal(unlock(bytes_of(&headers[i]), "secret", &vk, NULL), 0);
		assert_int_equal(vk.len, headers[i].key_bytes);
		assert_memory_equal(vk.p, headers[i].vk.p, vk.len);
		vd_secret_free(&vk);
	}
}

static void info_says_what_was_made(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_HEADERS; i++) {
		const struct made *m = &headers[i];
		struct vd_luks_info info;

		assert_int_equal(vd_luks_inspect(bytes_of(m), vd_luks_payload_off(m->type) + 4096, &info, NULL), 0);
		assert_int_equal(info.version, m->type);
		assert_string_equal(info.cipher, "aes");
		assert_string_equal(info.mode, "xts-plain64");
		assert_string_equal(info.hash, "sha512");
		assert_int_equal(strlen(info.uuid), 36);
		assert_int_equal(info.key_bits, m->key_bytes * 8);
		assert_int_equal(info.sector_size, m->sector_size);
		assert_int_equal(info.payload_off, vd_luks_payload_off(m->type));
		assert_int_equal(info.n_slots, 1);
		assert_int_equal(info.slots[0].index, 0);
		assert_string_equal(info.slots[0].kdf, m->type == VD_LUKS1 ? "pbkdf2" : "argon2id");
		assert_int_equal(info.slots[0].iterations, m->type == VD_LUKS1 ? 1000 : 4);
		assert_int_equal(info.slots[0].memory_kib, m->type == VD_LUKS1 ? 0 : 32 << 10);
	}
}

static void two_headers_have_nothing_in_common(void **state)
{
	struct vd_luks_format_opts o = cheap(VD_LUKS1, 512);
	struct vd_key *key = key_of("secret");
	uint8_t *again;
	size_t len;

	(void)state;
	assert_int_equal(vd_luks_format(&o, &luks1->vk, key, &again, &len, NULL), 0);
	assert_int_equal(len, luks1->len);
	assert_memory_not_equal(again + 112, luks1->header + 112, 52);   /* digest and its salt */
	assert_memory_not_equal(again + 168, luks1->header + 168, 36);   /* uuid */
	assert_memory_not_equal(again + 4096, luks1->header + 4096, 64); /* key material */
	free(again);
	vd_key_free(key);
}

/* Neither the volume key nor the passphrase is anywhere in what is stored. */
static void no_key_is_in_the_header(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_HEADERS; i++) {
		assert_null(memmem(headers[i].header, headers[i].len, headers[i].vk.p, 16));
		assert_null(memmem(headers[i].header, headers[i].len, headers[i].vk.p + headers[i].key_bytes / 2, 16));
		assert_null(memmem(headers[i].header, headers[i].len, "secret", 6));
	}
}

static void a_wrong_key_is_told_as_such(void **state)
{
	static const char *const wrong[] = { "Secret", "secre", "secret ", "s" };
	struct vd_error e = { 0 };
	struct vd_secret vk = { 0 };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(unlock(bytes_of(luks1), wrong[i], &vk, &e), VD_EKEY);
		assert_null(vk.p);
		assert_null(strstr(e.message, wrong[0]));
		assert_non_null(strstr(e.hint, "check the passphrase"));
	}
	assert_int_equal(unlock(bytes_of(luks2), "Secret", &vk, &e), VD_EKEY);
	assert_int_equal(unlock(bytes_of(luks2), "secret\n", &vk, &e), VD_EKEY);
	assert_non_null(strstr(e.hint, "newline"));
	assert_non_null(strstr(e.hint, "--passphrase-file"));
}

static void damaged_key_material_looks_like_a_wrong_key(void **state)
{
	uint8_t *h = copy_of(luks1);
	struct vd_error e = { 0 };
	struct vd_secret vk = { 0 };

	(void)state;
	h[4096 + 1000] ^= 1;
	assert_int_equal(unlock((struct vd_bytes){ h, luks1->len }, "secret", &vk, &e), VD_EKEY);
	assert_non_null(strstr(e.hint, "damaged key material"));
	free(h);
}

static void a_header_without_keyslots_is_told(void **state)
{
	uint8_t *h = copy_of(luks1);
	struct vd_error e = { 0 };
	struct vd_secret vk = { 0 };

	(void)state;
	vd_put_be32(h + 208, 0xdead);
	assert_int_equal(inspect(h, luks1->len, 0, NULL), 0);
	assert_int_equal(unlock((struct vd_bytes){ h, luks1->len }, "secret", &vk, &e), VD_EKEY);
	assert_non_null(strstr(e.message, "no keyslot is in use"));
	free(h);
}

/* ---- making ---- */

static void impossible_wishes_are_refused(void **state)
{
	static const struct {
		struct vd_luks_format_opts o;
		const char *message;
	} rows[] = {
		{ { 3, 512, 2 * MIB, { 1000, 0 } }, "types 1 and 2" },
		{ { VD_LUKS1, 4096, 2 * MIB, { 1000, 0 } }, "4096 bytes" },
		{ { VD_LUKS2, 1024, 16 * MIB, { 4, 32768 } }, "1024 bytes" },
		{ { VD_LUKS1, 512, 2 * MIB + 512, { 1000, 0 } }, "cannot begin at" },
		{ { VD_LUKS1, 512, MIB, { 1000, 0 } }, "cannot begin at" },
		{ { VD_LUKS2, 512, MIB / 2, { 4, 32768 } }, "cannot begin at" },
		{ { VD_LUKS1, 512, 2 * MIB, { 999, 0 } }, "at least 1000" },
		{ { VD_LUKS1, 512, 2 * MIB, { 100000001, 0 } }, "refused on opening" },
		{ { VD_LUKS1, 512, 2 * MIB, { 1000, 32768 } }, "no memory cost" },
		{ { VD_LUKS2, 512, 16 * MIB, { 3, 32768 } }, "at least 4 passes" },
		{ { VD_LUKS2, 512, 16 * MIB, { 4, 31 } }, "32 KiB" },
		{ { VD_LUKS2, 512, 16 * MIB, { 4, (4 << 20) + 1 } }, "refused on opening" },
		{ { VD_LUKS2, 512, 16 * MIB, { 17, 4 << 20 } }, "refused on opening" },
	};
	struct vd_key *key = key_of("secret");

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vd_error e = { 0 };
		uint8_t *out = NULL;
		size_t len;

		assert_int_equal(vd_luks_format(&rows[i].o, &luks1->vk, key, &out, &len, &e), VD_EARG);
		assert_non_null(strstr(e.message, rows[i].message));
		assert_null(out);
	}
	vd_key_free(key);
}

static void weak_volume_keys_are_refused(void **state)
{
	struct vd_luks_format_opts o = cheap(VD_LUKS1, 512);
	struct vd_key *key = key_of("secret");
	struct vd_secret vk;
	struct vd_error e = { 0 };
	uint8_t *out = NULL;
	size_t len;

	(void)state;
	assert_int_equal(vd_secret_alloc(&vk, 64, NULL), 0);
	memset(vk.p, 0x77, 64);
	assert_int_equal(vd_luks_format(&o, &vk, key, &out, &len, &e), VD_EKEY);
	assert_non_null(strstr(e.message, "halves"));
	vk.p[0] = 0;
	vk.len = 48;
	assert_int_equal(vd_luks_format(&o, &vk, key, &out, &len, &e), VD_EARG);
	assert_null(out);
	vd_secret_free(&vk);
	vd_key_free(key);
}

/* The payload may lie further out: the header stays as long as it is. */
static void the_payload_may_begin_further_out(void **state)
{
	static const uint64_t offsets[] = { 4 * MIB, 256 * MIB };
	struct vd_key *key = key_of("secret");

	(void)state;
	for (int i = 0; i < 4; i++) {
		enum vd_luks_type type = i & 1 ? VD_LUKS2 : VD_LUKS1;
		struct vd_luks_format_opts o = cheap(type, 512);
		struct vd_luks_info info;
		uint8_t *out;
		size_t len;

		o.payload_off = offsets[i / 2];
		assert_int_equal(vd_luks_format(&o, &luks1->vk, key, &out, &len, NULL), 0);
		assert_true(len <= 16 * MIB && len <= o.payload_off);
		assert_int_equal(vd_luks_inspect((struct vd_bytes){ out, len }, o.payload_off, &info, NULL), 0);
		assert_int_equal(info.payload_off, o.payload_off);
		free(out);
	}
	vd_key_free(key);
}

/* ---- damaged LUKS1: every field that has a rule ---- */

struct patch {
	uint32_t at;
	const char *text;       /* or NULL: the number below, big-endian */
	uint32_t number;
	int code;
	const char *message;
};

/* Keyslot i: 208 + 48 i: active, iterations, salt (32), material, stripes. */
static const struct patch luks1_patches[] = {
	{ 8, "cipher_null", 0, VD_EUNSUPPORTED, "null cipher" },
	{ 8, "serpent", 0, VD_EUNSUPPORTED, "cipher serpent-xts-plain64" },
	{ 8, "AES", 0, VD_EUNSUPPORTED, "cipher AES" },
	{ 8, "aesaesaesaesaesaesaesaesaesaesae", 0, VD_EUNSUPPORTED, "not supported" },
	{ 40, "cbc-plain64", 0, VD_EUNSUPPORTED, "aes-cbc-plain64" },
	{ 40, "xts-essiv:sha256", 0, VD_EUNSUPPORTED, "not supported" },
	{ 40, "xts-plain64be", 0, VD_EUNSUPPORTED, "plain64be" },
	{ 40, "ecb", 0, VD_EUNSUPPORTED, "aes-ecb" },
	{ 40, "", 0, VD_EUNSUPPORTED, "not supported" },
	{ 72, "md5", 0, VD_EUNSUPPORTED, "hash md5" },
	{ 72, "", 0, VD_EUNSUPPORTED, "hash" },
	{ 108, NULL, 0, VD_EUNSUPPORTED, "0 bits" },
	{ 108, NULL, 16, VD_EUNSUPPORTED, "128 bits" },
	{ 108, NULL, 48, VD_EUNSUPPORTED, "384 bits" },
	{ 108, NULL, 0xffffffff, VD_EAUTH, "cut short" },
	{ 164, NULL, 0, VD_EAUTH, "digest has no iterations" },
	{ 164, NULL, 100000001, VD_EUNSUPPORTED, "digest asks for 100000001" },
	{ 208, NULL, 1, VD_EAUTH, "keyslot 0 is neither in use nor free" },
	{ 208 + 48, NULL, 0xffffffff, VD_EAUTH, "keyslot 1 is neither" },
	{ 208 + 4, NULL, 0, VD_EAUTH, "keyslot 0 has no iterations" },
	{ 208 + 4, NULL, 0xffffffff, VD_EUNSUPPORTED, "asks for 4294967295 PBKDF2 iterations" },
	{ 208 + 40, NULL, 0, VD_EAUTH, "keyslot 0 is outside the header" },
	{ 208 + 40, NULL, 1, VD_EAUTH, "keyslot 0 is outside the header" },
	{ 208 + 40, NULL, 500, VD_EAUTH, "keyslots 0 and 1 overlaps" },
	{ 208 + 7 * 48 + 40, NULL, 8, VD_EAUTH, "keyslots 0 and 7 overlaps" },
	{ 208 + 7 * 48 + 40, NULL, 0xffffffff, VD_EAUTH, "cut short" },
	{ 208 + 7 * 48 + 40, NULL, 4041 - 500, VD_EAUTH, "cut short" },
	{ 208 + 44, NULL, 1, VD_EAUTH, "keyslot 0 has 1 stripes" },
	{ 208 + 3 * 48 + 44, NULL, 4001, VD_EAUTH, "keyslot 3 has 4001 stripes" },
	{ 208 + 44, NULL, 0, VD_EAUTH, "0 stripes" },
};

static void apply(uint8_t *h, const struct patch *p)
{
	if (p->text) {
		memset(h + p->at, 0, 32);
		memcpy(h + p->at, p->text, strlen(p->text));
	} else {
		vd_put_be32(h + p->at, p->number);
	}
}

static void each_broken_rule_of_luks1_is_refused(void **state)
{
	/* As long as the last key material, so that one sector more is outside. */
	const size_t len = 4096 + 7 * 258048 + 256000;

	(void)state;
	for (size_t i = 0; i < sizeof(luks1_patches) / sizeof(luks1_patches[0]); i++) {
		uint8_t *h = copy_of(luks1);
		struct vd_secret vk = { 0 };
		struct vd_error e = { 0 };

		apply(h, &luks1_patches[i]);
		if (inspect(h, len, 0, &e) != luks1_patches[i].code || !strstr(e.message, luks1_patches[i].message))
			fail_msg("patch %zu: %d %s", i, e.code, e.message);
		/* Unlocking judges for itself. */
		assert_int_equal(unlock((struct vd_bytes){ h, len }, "secret", &vk, NULL), luks1_patches[i].code);
		free(h);
	}
}

static void a_payload_outside_the_container_is_refused(void **state)
{
	static const struct {
		uint32_t payload;       /* sectors */
		uint64_t container_len;
		int code;
	} rows[] = {
		{ 4096, 2 * MIB, 0 }, { 4040, 2 * MIB, 0 }, { 4096, 2 * MIB - 512, VD_EAUTH }, { 0, 8 * MIB, VD_EAUTH },
		{ 8, 8 * MIB, VD_EAUTH }, { 4000, 8 * MIB, VD_EAUTH }, { 0xffffffff, 8 * MIB, VD_EAUTH },
		{ 0xffffffff, 0, 0 }, { 0, 0, 0 }, /* a key area has no payload */
	};
	uint8_t *h = copy_of(luks1);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vd_error e = { 0 };

		vd_put_be32(h + 104, rows[i].payload);
		if (inspect(h, luks1->len, rows[i].container_len, &e) != rows[i].code)
			fail_msg("row %zu: %d %s", i, e.code, e.message);
	}
	free(h);
}

static void plain_counts_to_2_tib(void **state)
{
	uint8_t *h = copy_of(luks1);
	struct vd_error e = { 0 };

	(void)state;
	memset(h + 40, 0, 32);
	strcpy((char *)h + 40, "xts-plain");
	assert_int_equal(inspect(h, luks1->len, 2 * MIB + (2 * MIB << 20), NULL), 0);
	assert_int_equal(inspect(h, luks1->len, 2 * MIB + (2 * MIB << 20) + 512, &e), VD_EUNSUPPORTED);
	assert_non_null(strstr(e.message, "2 TiB"));
	free(h);
}

static void headers_cut_anywhere_do_not_hold(void **state)
{
	static const size_t cuts[] = { 0, 1, 6, 8, 207, 591, 592, 4096, 16384, 32768, 65536, 1000000 };

	(void)state;
	for (size_t i = 0; i < N_HEADERS * (sizeof(cuts) / sizeof(cuts[0])); i++) {
		const struct made *m = &headers[i % N_HEADERS];
		size_t len = cuts[i / N_HEADERS];
		uint8_t *h = malloc(len ? len : 1); /* the exact size, for the sanitizers */

		memcpy(h, m->header, len);
		assert_int_equal(inspect(h, len, 0, NULL), len < 8 ? VD_ECORRUPT : VD_EAUTH);
		assert_int_equal(inspect(h, len, 64 * MIB, NULL), len < 8 ? VD_ECORRUPT : VD_EAUTH);
		free(h);
	}
}

static void the_judged_bytes_are_left_alone(void **state)
{
	uint8_t *h = copy_of(luks2), *before;
	struct vd_secret vk = { 0 };

	(void)state;
	h[4096 + 100] ^= 1; /* libcryptsetup repairs this in its own copy */
	before = malloc(luks2->len);
	memcpy(before, h, luks2->len);
	assert_int_equal(unlock((struct vd_bytes){ h, luks2->len }, "secret", &vk, NULL), 0);
	assert_memory_equal(h, before, luks2->len);
	vd_secret_free(&vk);
	free(before);
	free(h);
}

/* ---- threads, output ---- */

static void *open_all(void *arg)
{
	bool *held = arg;

	*held = true;
	for (size_t i = 0; i < N_HEADERS && *held; i++) {
		struct vd_secret vk = { 0 };

		*held = !unlock(bytes_of(&headers[i]), "secret", &vk, NULL) && !memcmp(vk.p, headers[i].vk.p, vk.len) &&
			!inspect(headers[i].header, headers[i].len, 0, NULL);
		vd_secret_free(&vk);
	}
	return NULL;
}

static void threads_open_headers_side_by_side(void **state)
{
	pthread_t threads[4];
	bool held[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, open_all, &held[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_true(held[i]);
	}
}

/* libcryptsetup prints what goes wrong unless it is told not to; a library has no business on these descriptors. */
static void nothing_is_printed(void **state)
{
	struct vd_luks_format_opts o = cheap(VD_LUKS1, 512);
	struct vd_key *key = key_of("secret");
	uint8_t *h = copy_of(luks2), *made = NULL;
	size_t len;
	int out = dup(1), err = dup(2), sink = open("printed", O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct vd_secret vk = { 0 };
	int r[3];

	(void)state;
	fflush(NULL);
	dup2(sink, 1);
	dup2(sink, 2);
	r[0] = unlock(bytes_of(luks1), "wrong", &vk, NULL);
	memset(h + 4096, 0, 4096);
	memset(h + 16384, 0, 8192);
	r[1] = inspect(h, luks2->len, 0, NULL);
	r[2] = vd_luks_format(&o, &luks1->vk, key, &made, &len, NULL);
	fflush(NULL);
	dup2(out, 1);
	dup2(err, 2);
	assert_true(r[0] == VD_EKEY && r[1] == VD_EAUTH && r[2] == 0);
	assert_int_equal(lseek(sink, 0, SEEK_END), 0);
	close(sink);
	close(out);
	close(err);
	vd_key_free(key);
	free(made);
	free(h);
}

static void no_descriptor_is_leaked(void **state)
{
	int before = dup(0), after;
	uint8_t *h = copy_of(luks2);
	struct vd_secret vk = { 0 };

	(void)state;
	close(before);
	memset(h + 4096, 0, 32768);
	assert_int_equal(inspect(h, luks2->len, 0, NULL), VD_EAUTH);
	assert_int_equal(unlock(bytes_of(luks1), "wrong", &vk, NULL), VD_EKEY);
	assert_int_equal(unlock(bytes_of(luks1), "secret", &vk, NULL), 0);
	vd_secret_free(&vk);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
	free(h);
}

/* Another process makes the header, so that this one meets the volume key through unlocking alone. */
static void make_header_elsewhere(enum vd_luks_type type, uint8_t *shifted, size_t len)
{
	struct vd_luks_format_opts o = cheap(type, 512);
	int ends[2], status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		struct vd_secret vk;
		uint8_t *made;
		size_t n;

		if (vd_secret_alloc(&vk, 64, NULL) || vd_random(vk.p, 64, NULL) ||
		    vd_luks_format(&o, &vk, key_of("secret"), &made, &n, NULL))
			_exit(1);
		store("elsewhere", made, n, n);
		for (size_t i = 0; i < len; i++)
			shifted[i] = (uint8_t)(vk.p[i] + VD_LEFTOVER_SHIFT);
		_exit(write(ends[1], shifted, len) == (ssize_t)len ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], shifted, len), len);
	close(ends[0]);
	close(ends[1]);
}

/* Neither libcryptsetup and OpenSSL nor libgcrypt keep one: after unlocking there is ours, after closing none. */
static void no_copy_of_the_volume_key_stays_behind(void **state)
{
	static uint8_t shifted[16];

	(void)state;
	for (int type = VD_LUKS1; type <= VD_LUKS2 && !VD_SANITIZED; type++) {
		size_t len = type == VD_LUKS1 ? luks1->len : luks2->len;
		struct vd_diskcipher *cipher;
		struct vd_secret vk = { 0 };
		uint8_t *h;

		make_header_elsewhere(type, shifted, sizeof(shifted));
		h = load("elsewhere", 0, len);
		assert_int_equal(unlock((struct vd_bytes){ h, len }, "secret", &vk, NULL), 0);
		assert_int_equal(vd_leftovers(shifted, sizeof(shifted)), 1);
		assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, vk.p, vk.len, &cipher, NULL), 0);
		vd_secret_free(&vk);
		assert_int_not_equal(vd_leftovers(shifted, sizeof(shifted)), 0);
		vd_diskcipher_free(cipher);
		assert_int_equal(vd_leftovers(shifted, sizeof(shifted)), 0);
		free(h);
	}
}

/* ---- peers ---- */

/* The container's size, and the volume key by cryptsetup's own word. */
static void opens_here(const char *path, const char *passphrase, size_t key_bytes)
{
	uint8_t *h = load(path, 0, 17 * MIB), *dumped;
	struct vd_luks_info info;
	struct vd_secret vk = { 0 };
	struct vd_error e = { 0 };
	uint64_t len;

	assert_int_not_equal(vd_luks_probe((struct vd_bytes){ h, VD_LUKS_PROBE_LEN }, &len), 0);
	if (vd_luks_inspect((struct vd_bytes){ h, len }, 32 * MIB, &info, &e) < 0 ||
	    unlock((struct vd_bytes){ h, len }, passphrase, &vk, &e) < 0)
		fail_msg("%s: %s", path, e.message);
	assert_int_equal(info.key_bits, key_bytes * 8);
	assert_int_equal(shell("printf '%%s' '%s' | cryptsetup -q luksDump --dump-volume-key --volume-key-file vk --key-file - %s >/dev/null", passphrase, path), 0);
	dumped = load("vk", 0, key_bytes);
	assert_memory_equal(dumped, vk.p, key_bytes);
	unlink("vk");
	vd_secret_free(&vk);
	free(dumped);
	free(h);
}

static void headers_of_cryptsetup_open_here(void **state)
{
	static const struct {
		const char *options;
		size_t key_bytes;
	} rows[] = {
		{ "--type luks1 --hash sha1 --key-size 256", 32 }, { "--type luks1 --hash sha256 --key-size 512", 64 },
		{ "--type luks1 --hash ripemd160 --key-size 512", 64 }, { "--type luks1 --hash whirlpool --key-size 256", 32 },
		{ "--type luks1 --hash sha3-256 --key-size 512", 64 },
		{ "--type luks2 --pbkdf pbkdf2 --hash sha384 --key-size 512 --sector-size 4096", 64 },
		{ "--type luks2 --pbkdf pbkdf2 --key-size 256 --sector-size 512 --luks2-metadata-size 128k", 32 },
		{ "--type luks2 --pbkdf pbkdf2 --key-size 512 --offset 2048 --luks2-keyslots-size 512k", 64 },
	};

	(void)state;
	need("cryptsetup");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(shell("rm -f peer && truncate -s 32M peer && printf pass | cryptsetup -q luksFormat "
				       "--pbkdf-force-iterations 1000 %s peer -", rows[i].options), 0);
		opens_here("peer", "pass", rows[i].key_bytes);
	}
	assert_int_equal(shell("rm -f peer && truncate -s 32M peer && printf pass | cryptsetup -q luksFormat --type luks2 "
			       "--key-size 512 --pbkdf argon2i --pbkdf-force-iterations 4 --pbkdf-memory 32768 --pbkdf-parallel 1 peer -"), 0);
	opens_here("peer", "pass", 64);
}

static void a_weak_volume_key_from_outside_is_refused(void **state)
{
	struct vd_error e = { 0 };
	struct vd_secret vk = { 0 };
	uint8_t *h;
	uint64_t len;

	(void)state;
	need("cryptsetup");
	assert_int_equal(shell("rm -f peer && truncate -s 32M peer && yes x | head -c 64 > same && printf pass | cryptsetup -q luksFormat "
			       "--type luks1 --pbkdf-force-iterations 1000 --key-size 512 --volume-key-file same peer -"), 0);
	h = load("peer", 0, 4 * MIB);
	assert_int_equal(vd_luks_probe((struct vd_bytes){ h, 4 * MIB }, &len), VD_LUKS1);
	assert_int_equal(unlock((struct vd_bytes){ h, len }, "pass", &vk, &e), VD_EAUTH);
	assert_non_null(strstr(e.message, "halves"));
	assert_null(vk.p);
	free(h);
}

static void a_pending_reencryption_is_refused(void **state)
{
	struct vd_error e = { 0 };
	struct vd_secret vk = { 0 };
	uint8_t *h;

	(void)state;
	need("cryptsetup");
	assert_int_equal(shell("rm -f peer && truncate -s 64M peer && printf pass | cryptsetup -q reencrypt --encrypt --init-only --type luks2 "
			       "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --reduce-device-size 32M --force-offline-reencrypt "
			       "--key-file - peer"), 0);
	h = load("peer", 0, 16 * MIB);
	assert_int_equal(inspect(h, 16 * MIB, 64 * MIB, &e), VD_EUNSUPPORTED);
	assert_non_null(strstr(e.message, "in the middle of a re-encryption"));
	assert_non_null(strstr(e.hint, "--resume-only"));
	assert_int_equal(unlock((struct vd_bytes){ h, 16 * MIB }, "pass", &vk, NULL), VD_EUNSUPPORTED);
	free(h);
}

static void our_headers_open_in_cryptsetup(void **state)
{
	(void)state;
	need("cryptsetup");
	for (size_t i = 0; i < N_HEADERS; i++) {
		store("ours", headers[i].header, headers[i].len, 20 * MIB);
		assert_int_equal(shell("printf secret | cryptsetup open --test-passphrase --key-file - ours"), 0);
		assert_int_not_equal(shell("printf Secret | cryptsetup open --test-passphrase --key-file - ours 2>/dev/null"), 0);
		opens_here("ours", "secret", headers[i].key_bytes);
	}
}

static void slots_that_cryptsetup_edits_follow(void **state)
{
	static const struct made *const start[] = { &headers[0], &headers[2] };
	struct vd_secret vk = { 0 };
	uint8_t *h;

	(void)state;
	need("cryptsetup");
	for (int i = 0; i < 2; i++) {
		store("ours", start[i]->header, start[i]->len, 20 * MIB);
		assert_int_equal(shell("printf secret > old; printf other > new; cryptsetup -q luksAddKey --pbkdf pbkdf2 "
				       "--pbkdf-force-iterations 1000 --key-file old ours new"), 0);
		opens_here("ours", "secret", 64);
		opens_here("ours", "other", 64);
		assert_int_equal(shell("cryptsetup -q luksKillSlot --key-file new ours 0"), 0);
		opens_here("ours", "other", 64);
		h = load("ours", 0, start[i]->len);
		assert_int_equal(unlock((struct vd_bytes){ h, start[i]->len }, "secret", &vk, NULL), VD_EKEY);
		free(h);
	}
}

/* qemu-img now and then gives up measuring its own speed on a busy machine ("Unable to get accurate CPU usage"). */
static void qemu_img_create(const char *options)
{
	assert_int_equal(shell("for i in 1 2 3 4 5 6 7 8; do qemu-img create -q --object secret,id=s,file=pw %s 4M 2>qemu.err && exit 0; "
			       "done; cat qemu.err >&2; exit 1", options), 0);
}

static void headers_of_qemu_open_here(void **state)
{
	(void)state;
	need("qemu-img");
	need("cryptsetup");
	assert_int_equal(shell("printf pass > pw"), 0);
	qemu_img_create("-f luks -o key-secret=s,iter-time=10 peer.luks");
	assert_int_equal(truncate("peer.luks", 32 * MIB), 0);
	opens_here("peer.luks", "pass", 64);
	unlink("peer.luks");
	qemu_img_create("-f luks -o key-secret=s,iter-time=10,cipher-alg=aes-128,hash-alg=sha1,ivgen-alg=plain peer.luks");
	assert_int_equal(truncate("peer.luks", 32 * MIB), 0);
	opens_here("peer.luks", "pass", 32);
}

static void our_luks1_opens_in_qemu_as_a_container(void **state)
{
	(void)state;
	need("qemu-io");
	for (size_t i = 0; i < 2; i++) {
		store("ours", headers[i].header, headers[i].len, 4 * MIB);
		assert_int_equal(shell("printf secret > pw; qemu-io --object secret,id=s,file=pw --image-opts "
				       "driver=luks,key-secret=s,file.filename=ours -c 'read 0 2M' | grep -q '^read 2097152/2097152'"), 0);
		assert_int_not_equal(shell("printf Secret > pw; qemu-io --object secret,id=s,file=pw --image-opts "
					   "driver=luks,key-secret=s,file.filename=ours -c 'read 0 2M' 2>&1 | grep -q '^read'"), 0);
	}
}

/* Our header put over the one in a qcow2 of qemu's: there is room for exactly that many bytes. */
static void our_luks1_opens_in_qemu_as_a_key_area(void **state)
{
	uint8_t *head, *at;

	(void)state;
	need("qemu-io");
	assert_int_equal(shell("printf secret > pw"), 0);
	qemu_img_create("-f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 ours.qcow2");
	head = load("ours.qcow2", 0, 65536);
	at = memmem(head, 4096, "\x05\x37\xbe\x77\0\0\0\x10", 8);
	assert_non_null(at);
	assert_int_equal(vd_get_be64(at + 16), luks1->len);
	store("ours", luks1->header, luks1->len, luks1->len);
	assert_int_equal(shell("dd if=ours of=ours.qcow2 conv=notrunc bs=64k seek=%llu oflag=seek_bytes status=none && qemu-io --object "
			       "secret,id=s,file=pw --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=ours.qcow2 "
			       "-c 'write -P 7 1M 64k' -c 'read -P 7 1M 64k' | grep -q '^read 65536/65536'",
			       (unsigned long long)vd_get_be64(at + 8)), 0);
	free(head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_is_recognised_and_measured),
		cmocka_unit_test(other_bytes_are_no_header),
		cmocka_unit_test(what_is_made_opens_with_its_key),
		cmocka_unit_test(info_says_what_was_made),
		cmocka_unit_test(two_headers_have_nothing_in_common),
		cmocka_unit_test(no_key_is_in_the_header),
		cmocka_unit_test(a_wrong_key_is_told_as_such),
		cmocka_unit_test(damaged_key_material_looks_like_a_wrong_key),
		cmocka_unit_test(a_header_without_keyslots_is_told),
		cmocka_unit_test(impossible_wishes_are_refused),
		cmocka_unit_test(weak_volume_keys_are_refused),
		cmocka_unit_test(the_payload_may_begin_further_out),
		cmocka_unit_test(each_broken_rule_of_luks1_is_refused),
		cmocka_unit_test(a_payload_outside_the_container_is_refused),
		cmocka_unit_test(plain_counts_to_2_tib),
		cmocka_unit_test(headers_cut_anywhere_do_not_hold),
		cmocka_unit_test(the_judged_bytes_are_left_alone),
		cmocka_unit_test(threads_open_headers_side_by_side),
		cmocka_unit_test(nothing_is_printed),
		cmocka_unit_test(no_descriptor_is_leaked),
		cmocka_unit_test(no_copy_of_the_volume_key_stays_behind),
		cmocka_unit_test(headers_of_cryptsetup_open_here),
		cmocka_unit_test(a_weak_volume_key_from_outside_is_refused),
		cmocka_unit_test(a_pending_reencryption_is_refused),
		cmocka_unit_test(our_headers_open_in_cryptsetup),
		cmocka_unit_test(slots_that_cryptsetup_edits_follow),
		cmocka_unit_test(headers_of_qemu_open_here),
		cmocka_unit_test(our_luks1_opens_in_qemu_as_a_container),
		cmocka_unit_test(our_luks1_opens_in_qemu_as_a_key_area),
	};

	return cmocka_run_group_tests(tests, make_headers, free_headers);
}
