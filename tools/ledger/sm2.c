/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads keys in the two forms that openssl writes, each of one length, and puts r and s into DER. The arithmetic is crypto.c's. */
#include "ledger/sm2.h"

#include <string.h>

#include "fail.h"
#include "ledger/armour.h"
#include "ledger/crypto.h"
#include "ledger/files.h"
#include "locked.h"

#define FILE_MAX 4096u
#define NUMBER 32u              /* bytes of r, s, and each coordinate */

/* PKCS 8 around SEC 1: version, id-ecPublicKey with the curve SM2, the number, and [1] the point. */
static const uint8_t private_head[] = { 0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x81, 0x1c,
					0xcf, 0x55, 1, 0x82, 0x2d, 4, 0x6d, 0x30, 0x6b, 2, 1, 1, 4, 0x20 };
static const uint8_t private_middle[] = { 0xa1, 0x44, 3, 0x42, 0, 4 };
/* SubjectPublicKeyInfo. */
static const uint8_t public_head[] = { 0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1,
				       0x82, 0x2d, 3, 0x42, 0, 4 };

static bool take_exactly(struct cursor *c, const uint8_t *wanted, size_t n)
{
	const uint8_t *at = cursor_take(c, n);

	return at && !memcmp(at, wanted, n);
}

/* `memory` has room for 3 * FILE_MAX + 3. */
static int read_key(const char *path, const char *label, char *memory, struct cursor *der, struct vd_error *e)
{
	struct bytes text = bytes_over(memory, FILE_MAX), plain = bytes_over(memory + FILE_MAX + 1, FILE_MAX);
	int r = file_read(path, FILE_MAX, &text, e);

	if (r < 0)
		return r;
	if (!armour_take(label, memory, text.n, memory + 2 * FILE_MAX + 2, &plain))
		plain.n = 0;
	*der = cursor_of(plain.at, plain.n);
	return 0;
}

/* ---- DER -------------------------------------------------------------------------------------------------- */

static void put_number(struct bytes *out, const uint8_t number[NUMBER])
{
	uint8_t head[3] = { 2, 0, 0 };
	size_t skip = 0;
	bool pads;

	while (skip < NUMBER - 1 && !number[skip])
		skip++;
	pads = number[skip] & 0x80;
	head[1] = (uint8_t)(NUMBER - skip + pads);
	bytes_add(out, head, 2u + pads);
	bytes_add(out, number + skip, NUMBER - skip);
}

/* In the one way in which it may be written. */
static bool take_number(struct cursor *c, uint8_t number[NUMBER])
{
	const uint8_t *head = cursor_take(c, 2), *at;
	size_t n = head && head[0] == 2 ? head[1] : 0;

	at = n && n <= NUMBER + 1 ? cursor_take(c, n) : NULL;
	if (!at || at[0] & 0x80 || (n > 1 && !at[0] && !(at[1] & 0x80)) || (n == NUMBER + 1 && at[0]))
		return false;
	memset(number, 0, NUMBER);
	if (n > NUMBER)
		memcpy(number, at + 1, NUMBER);
	else
		memcpy(number + NUMBER - n, at, n);
	return true;
}

/* ---- signing ---------------------------------------------------------------------------------------------- */

int sm2_sign(const char *path, const struct bytes *message, struct bytes *out, struct vd_error *e)
{
	char *memory = locked_new(3 * FILE_MAX + 3);
	const uint8_t *number = NULL, *point = NULL;
	struct bytes both = { 0 };
	struct cursor der;
	uint8_t sig[2 * NUMBER], head[2] = { 0x30, 0 };
	int r = read_key(path, "PRIVATE KEY", memory, &der, e);

	if (r == 0 && !(take_exactly(&der, private_head, sizeof(private_head)) && (number = cursor_take(&der, NUMBER)) &&
			take_exactly(&der, private_middle, sizeof(private_middle)) && (point = cursor_take(&der, 2 * NUMBER)) &&
			cursor_is_done(&der)))
		r = fail_hint(e, fail(e, VD_EUNSUPPORTED, "%s: is no private key for SM2, or has a passphrase", path),
			      "openssl genpkey -algorithm SM2 -out KEY makes one");
	if (r == 0)
		r = crypto_sm2_sign(number, point, message->at, message->n, sig, e);
	locked_free(memory, 3 * FILE_MAX + 3);
	if (r < 0)
		return r;
	put_number(&both, sig);
	put_number(&both, sig + NUMBER);
	head[1] = (uint8_t)both.n;
	bytes_add(out, head, sizeof(head));
	bytes_add(out, both.at, both.n);
	bytes_free(&both);
	return 0;
}

int sm2_judge(const char *path, const char *sig_path, const struct bytes *sig, const struct bytes *message, struct vd_error *e)
{
	char memory[3 * FILE_MAX + 3];
	const uint8_t *point = NULL, *head;
	struct cursor der, c = cursor_of(sig->at, sig->n);
	uint8_t raw[2 * NUMBER];
	int r = read_key(path, "PUBLIC KEY", memory, &der, e);

	if (r < 0)
		return r;
	if (!take_exactly(&der, public_head, sizeof(public_head)) || !(point = cursor_take(&der, 2 * NUMBER)) || !cursor_is_done(&der))
		return fail(e, VD_EUNSUPPORTED, "%s: is no public key for SM2", path);
	head = cursor_take(&c, 2);
	if (!head || head[0] != 0x30 || head[1] != c.left || !take_number(&c, raw) || !take_number(&c, raw + NUMBER) || !cursor_is_done(&c))
		return fail(e, VD_EAUTH, "%s: is no signature of SM2", sig_path);
	if (!crypto_sm2_holds(point, message->at, message->n, raw))
		return fail(e, VD_EAUTH, "%s: the signature does not hold for this key and this document", sig_path);
	return 0;
}
