/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Splits a secret into n shares of which any k give it back, and fewer say nothing of it (Shamir, "How to share a secret",
 * 1979): each byte is the value at 0 of a random polynomial of degree k - 1 over GF(256), and a share its value at one x.
 *
 *   share = "vdshare1-" k "-" x "-" id "-" data "-" check
 *     k, x    decimal, 1 to 255         id     8 letters, the same for all shares of one split
 *     data    the values, two letters a byte, of: the secret, then the first 4 bytes of its SHA-256
 *     check   the first 4 bytes of the SHA-256 of all before it: a slip of the pen is told from a wrong share
 *
 * Letters are modhex, as in recovery keys. Nothing here takes time by what the secret is.
 */
#include "keys/key.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/hash.h"
#include "libvdisk/crypto/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTRO "vdshare1-"
#define ID 4                            /* bytes */
#define CHECK 4
#define SECRET_MAX 128
#define VALUES_MAX (SECRET_MAX + CHECK)

static const char letters[] = "cbdefghijklnrtuv";

/* The letters of a share: 9 + 2 * 4 + 9 + 2 * values + 1 + 8 and a NUL. */
_Static_assert(VD_SHARE_SIZE >= sizeof(INTRO) + 8 + 2 * ID + 1 + 2 * VALUES_MAX + 1 + 2 * CHECK + 1, "a share fits");

/* ---- GF(256) of AES (x^8 + x^4 + x^3 + x + 1) --------------------------------------------------------------- */

static uint8_t mul(uint8_t a, uint8_t b)
{
	uint8_t product = 0;

	for (int i = 0; i < 8; i++) {
		product ^= (uint8_t)(-(b & 1) & a);
		a = (uint8_t)(a << 1 ^ (-(a >> 7) & 0x1b));
		b >>= 1;
	}
	return product;
}

/* a^254; of 0: 0. */
static uint8_t inverse(uint8_t a)
{
	uint8_t power = a, result = 1;

	for (int i = 0; i < 7; i++) {
		power = mul(power, power);
		result = mul(result, power);
	}
	return result;
}

/* The value at 0 of the polynomial through k points. */
static uint8_t at_zero(const uint8_t *x, const uint8_t *y, unsigned k)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < k; i++) {
		uint8_t term = y[i];

		for (unsigned j = 0; j < k; j++)
			if (j != i)
				term = mul(term, mul(x[j], inverse(x[i] ^ x[j])));
		sum ^= term;
	}
	return sum;
}

/* ---- text --------------------------------------------------------------------------------------------------- */

static char *put_bytes(char *out, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		*out++ = letters[p[i] >> 4];
		*out++ = letters[p[i] & 15];
	}
	*out = '\0';
	return out;
}

static bool take_bytes(const char *text, size_t n, uint8_t *out)
{
	for (size_t i = 0; i < n; i++) {
		const char *at = text[i] ? strchr(letters, text[i]) : NULL;

		if (!at)
			return false;
		out[i / 2] = (uint8_t)(out[i / 2] << 4 | (at - letters));
	}
	return n % 2 == 0;
}

static int check_of(const void *bytes, size_t len, uint8_t out[CHECK], struct vd_error *e)
{
	uint8_t sum[VD_SHA256_LEN];
	struct vd_hash *h = NULL;
	int r = vd_hash_new(VD_SHA256, &h, e);

	if (r < 0)
		return r;
	vd_hash_add(h, bytes, len);
	vd_hash_end(h, sum);
	vd_hash_free(h);
	memcpy(out, sum, CHECK);
	return 0;
}

struct share {
	unsigned k;
	uint8_t x, id[ID], values[VALUES_MAX];
	size_t n_values;
};

static int put_share(const struct share *s, char *out, struct vd_error *e)
{
	char *at = out + sprintf(out, INTRO "%u-%u-", s->k, s->x);
	uint8_t check[CHECK];
	int r;

	at = put_bytes(at, s->id, ID);
	*at++ = '-';
	at = put_bytes(at, s->values, s->n_values);
	*at++ = '-';
	r = check_of(out, (size_t)(at - out), check, e);
	if (r == 0)
		put_bytes(at, check, CHECK);
	return r;
}

static bool take_number(const char **text, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(*text, &end, 10);

	if (**text < '1' || **text > '9' || *end != '-' || n > 255)
		return false;
	*out = (unsigned)n;
	*text = end + 1;
	return true;
}

static int parse_share(const char *text, struct share *s, struct vd_error *e)
{
	const char *at = text + sizeof(INTRO) - 1, *data, *dash;
	uint8_t check[CHECK], sum[CHECK];
	unsigned x = 0;
	int r;

	memset(s, 0, sizeof(*s));
	if (strncmp(text, INTRO, sizeof(INTRO) - 1) || !take_number(&at, &s->k) || !take_number(&at, &x))
		return vd_fail(e, VD_EARG, "this is no share of a key: one begins with " INTRO);
	data = strchr(at, '-');
	dash = data ? strchr(data + 1, '-') : NULL;
	s->x = (uint8_t)x;
	s->n_values = dash ? (size_t)(dash - data - 1) / 2 : 0;
	if (!dash || data - at != 2 * ID || s->n_values <= CHECK || s->n_values > VALUES_MAX || !take_bytes(at, 2 * ID, s->id) ||
	    !take_bytes(data + 1, (size_t)(dash - data - 1), s->values) || strlen(dash + 1) != 2 * CHECK ||
	    !take_bytes(dash + 1, 2 * CHECK, check))
		return vd_fail(e, VD_EARG, "share %u is not written as it was made", x);
	r = check_of(text, (size_t)(dash + 1 - text), sum, e);
	if (r == 0 && memcmp(sum, check, CHECK))
		return vd_fail(e, VD_EARG, "share %u has a slip of the pen in it: its last letters do not fit the rest", x);
	return r;
}

/* ---- splitting ---------------------------------------------------------------------------------------------- */

static int judge_split(struct vd_bytes secret, unsigned k, unsigned n, struct vd_error *e)
{
	if (k < 2 || n < k || n > 255)
		return vd_fail(e, VD_EARG, "a key is split among 2 to 255, and 2 or more of them are needed, not %u of %u", k, n);
	if (secret.len > SECRET_MAX)
		return vd_fail(e, VD_EARG, "a secret of %zu bytes is too long to be split: %d is the most", secret.len, SECRET_MAX);
	return 0;
}

/* coefficients: (k - 1) random ones for each byte of the text; byte i at x. */
static uint8_t value_at(uint8_t secret, const uint8_t *coefficients, unsigned k, uint8_t x)
{
	uint8_t y = 0;

	for (unsigned c = k - 1; c-- > 0;)
		y = mul(y ^ coefficients[c], x);
	return y ^ secret;
}

VD_PUBLIC int vd_key_split(const struct vd_key *key, unsigned k, unsigned n, char (*shares)[VD_SHARE_SIZE], struct vd_error *e)
{
	struct vd_bytes secret = vd_key_bytes(key);
	vd_auto_secret struct vd_secret text = { 0 }, random = { 0 };
	struct share s = { .k = k };
	int r = vd_key_judge_secret(key, "a split secret", e);

	if (r < 0 || (r = judge_split(secret, k, n, e)) < 0 || (r = vd_secret_alloc(&text, secret.len + CHECK, e)) < 0 ||
	    (r = vd_secret_alloc(&random, text.len * (k - 1), e)) < 0)
		return r;
	memcpy(text.p, secret.p, secret.len);
	r = check_of(secret.p, secret.len, text.p + secret.len, e);
	if (r == 0)
		r = vd_random(random.p, random.len, e);
	if (r == 0)
		r = vd_random(s.id, sizeof(s.id), e);
	s.n_values = text.len;
	for (unsigned x = 1; x <= n && r == 0; x++) {
		s.x = (uint8_t)x;
		for (size_t i = 0; i < text.len; i++)
			s.values[i] = value_at(text.p[i], random.p + i * (k - 1), k, s.x);
		r = put_share(&s, shares[x - 1], e);
	}
	vd_wipe(&s, sizeof(s));
	return r;
}

/* ---- joining ------------------------------------------------------------------------------------------------ */

static int judge_set(const struct share *s, size_t n, struct vd_error *e)
{
	if (n < s[0].k)
		return vd_fail(e, VD_EARG, "%u shares are needed, and %zu are here", s[0].k, n);
	for (size_t i = 0; i < n; i++) {
		if (memcmp(s[i].id, s[0].id, ID) || s[i].k != s[0].k || s[i].n_values != s[0].n_values)
			return vd_fail(e, VD_EARG, "shares %u and %u are of different keys", s[0].x, s[i].x);
		for (size_t j = 0; j < i; j++)
			if (s[i].x == s[j].x)
				return vd_fail(e, VD_EARG, "share %u is there twice", s[i].x);
	}
	return 0;
}

static int join(const struct share *s, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret text = { 0 };
	uint8_t x[255], y[255], check[CHECK];
	unsigned k = s[0].k;
	int r = vd_secret_alloc(&text, s[0].n_values, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < text.len; i++) {
		for (unsigned c = 0; c < k; c++) {
			x[c] = s[c].x;
			y[c] = s[c].values[i];
		}
		text.p[i] = at_zero(x, y, k);
	}
	vd_wipe(y, sizeof(y));
	text.len -= CHECK;
	r = check_of(text.p, text.len, check, e);
	if (r == 0 && memcmp(check, text.p + text.len, CHECK))
		r = vd_fail(e, VD_EKEY, "the shares do not give the key that was split");
	return r < 0 ? r : vd_key_adopt(&text, "shares", out, e);
}

/* As a string, for the parser. */
static int parse_key(const struct vd_key *key, struct share *s, struct vd_error *e)
{
	struct vd_bytes b = vd_key_bytes(key);
	char text[VD_SHARE_SIZE];
	int r;

	if (b.len >= sizeof(text))
		return vd_fail(e, VD_EARG, "this is no share of a key: one has at most %zu letters", sizeof(text) - 1);
	memcpy(text, b.p, b.len);
	text[b.len] = '\0';
	r = parse_share(text, s, e);
	vd_wipe(text, sizeof(text));
	return r;
}

VD_PUBLIC int vd_key_from_shares(struct vd_key *const *shares, size_t n, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret room = { 0 };
	struct share *s;
	int r;

	if (!n || n > 255)
		return vd_fail(e, VD_EARG, "%zu shares of a key are none", n);
	r = vd_secret_alloc(&room, n * sizeof(*s), e);
	s = (struct share *)room.p;
	for (size_t i = 0; i < n && r == 0; i++)
		r = parse_key(shares[i], &s[i], e);
	if (r == 0)
		r = judge_set(s, n, e);
	return r < 0 ? r : join(s, out, e);
}
