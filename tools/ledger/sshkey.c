/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and writes key files of OpenSSH, unencrypted ones. Whose key it is, and what is signed with it, is others' business. */
#include "ledger/sshkey.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "fail.h"
#include "keyhelpers/base64.h"
#include "ledger/armour.h"
#include "ledger/files.h"
#include "locked.h"
#include "ui.h"

#define MAGIC "openssh-key-v1"          /* and its NUL */
#define FILE_MAX 16384
#define BLOCK 8                         /* what the private part is padded to, without a cipher */
#define PRIVATE_SIZE (2 * ED25519_SIZE) /* the seed, and the public half once more */

void sshkey_free(struct sshkey *k)
{
	locked_free((char *)k->seed, ED25519_SIZE);
	k->seed = NULL;
}

void sshkey_blob(const uint8_t public_key[ED25519_SIZE], uint8_t blob[SSHKEY_BLOB_SIZE])
{
	struct bytes b = bytes_over(blob, SSHKEY_BLOB_SIZE);

	bytes_string_text(&b, SSHKEY_TYPE);
	bytes_string(&b, public_key, ED25519_SIZE);
}

bool sshkey_of_blob(struct cursor blob, uint8_t public_key[ED25519_SIZE])
{
	struct cursor type = cursor_string(&blob), q = cursor_string(&blob);

	if (!cursor_is_text(&type, SSHKEY_TYPE) || !cursor_is_done(&blob) || q.left != ED25519_SIZE)
		return false;
	memcpy(public_key, q.at, ED25519_SIZE);
	return true;
}

void sshkey_print(const uint8_t public_key[ED25519_SIZE], char text[SSHKEY_PRINT_SIZE])
{
	uint8_t blob[SSHKEY_BLOB_SIZE], digest[SHA256_SIZE];
	char letters[BASE64_LEN(SHA256_SIZE) + 1];

	sshkey_blob(public_key, blob);
	crypto_sha256(blob, sizeof(blob), digest);
	base64_encode(digest, sizeof(digest), letters);
	snprintf(text, SSHKEY_PRINT_SIZE, "SHA256:%.43s", letters);
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static void put_public_line(const struct sshkey *k, struct bytes *out)
{
	char letters[BASE64_LEN(SSHKEY_BLOB_SIZE) + 1];
	uint8_t blob[SSHKEY_BLOB_SIZE];

	sshkey_blob(k->public_key, blob);
	base64_encode(blob, sizeof(blob), letters);
	bytes_format(out, "%s %s%s%s\n", SSHKEY_TYPE, letters, k->comment[0] ? " " : "", k->comment);
}

/* What a cipher would hide: twice the same number to see that it fits, the key, and 1, 2, 3 up to the end of a block. */
static void put_private_part(const struct sshkey *k, uint32_t number, struct bytes *out)
{
	size_t start = out->n;

	bytes_u32(out, number);
	bytes_u32(out, number);
	bytes_string_text(out, SSHKEY_TYPE);
	bytes_string(out, k->public_key, ED25519_SIZE);
	bytes_u32(out, PRIVATE_SIZE);
	bytes_add(out, k->seed, ED25519_SIZE);
	bytes_add(out, k->public_key, ED25519_SIZE);
	bytes_string_text(out, k->comment);
	for (uint8_t i = 1; (out->n - start) % BLOCK; i++)
		bytes_add(out, &i, 1);
}

static void put_private_file(const struct sshkey *k, uint32_t number, char *scratch, struct bytes *out)
{
	struct bytes b = bytes_over(scratch, FILE_MAX / 4), part = bytes_over(scratch + FILE_MAX / 4, FILE_MAX / 4);
	uint8_t blob[SSHKEY_BLOB_SIZE];

	sshkey_blob(k->public_key, blob);
	bytes_add(&b, MAGIC, sizeof(MAGIC));
	bytes_string_text(&b, "none");
	bytes_string_text(&b, "none");
	bytes_string_text(&b, "");
	bytes_u32(&b, 1);
	bytes_string(&b, blob, sizeof(blob));
	put_private_part(k, number, &part);
	bytes_string(&b, part.at, part.n);
	armour_put(ARMOUR_KEY, b.at, b.n, scratch + FILE_MAX / 2, out);
}

int sshkey_make(const char *path, const char *comment, struct sshkey *k, struct vd_error *e)
{
	char public_path[PATH_MAX], *memory = locked_new(2 * FILE_MAX);
	struct bytes content = bytes_over(memory + FILE_MAX, FILE_MAX), line = { 0 };
	uint32_t number;
	int r;

	*k = (struct sshkey){ .seed = (uint8_t *)locked_new(ED25519_SIZE) };
	snprintf(k->comment, sizeof(k->comment), "%s", comment);
	r = (size_t)snprintf(public_path, sizeof(public_path), "%s.pub", path) < sizeof(public_path) ? file_judge_new(path, e) :
	    fail(e, VD_EARG, "%s: the name is too long", path);
	if (r == 0)
		r = file_judge_new(public_path, e);
	if (r == 0 && getrandom(&number, sizeof(number), 0) != sizeof(number))
		r = fail(e, VD_EFAILED, "the system gives no random bytes");
	if (r == 0)
		r = crypto_new_key(k->seed, k->public_key, e);
	if (r == 0) {
		put_private_file(k, number, memory, &content);
		put_public_line(k, &line);
		r = file_write(path, &content, 0600, false, e);
	}
	if (r == 0)
		r = file_write(public_path, &line, 0644, false, e);
	bytes_free(&line);
	locked_free(memory, 2 * FILE_MAX);
	return r;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static bool take_private_part(struct cursor part, struct sshkey *k)
{
	uint32_t first = cursor_u32(&part), second = cursor_u32(&part);
	struct cursor type = cursor_string(&part), q = cursor_string(&part), pair = cursor_string(&part), comment = cursor_string(&part);

	if (comment.is_bad || first != second || !cursor_is_text(&type, SSHKEY_TYPE) || q.left != ED25519_SIZE || pair.left != PRIVATE_SIZE)
		return false;
	if (part.left >= BLOCK || memcmp(q.at, k->public_key, ED25519_SIZE) || memcmp(pair.at + ED25519_SIZE, q.at, ED25519_SIZE))
		return false;
	for (uint8_t i = 0; i < part.left; i++)
		if (part.at[i] != i + 1)
			return false;
	k->seed = (uint8_t *)locked_new(ED25519_SIZE);
	memcpy(k->seed, pair.at, ED25519_SIZE);
	snprintf(k->comment, sizeof(k->comment), "%.*s", (int)(comment.left < sizeof(k->comment) ? comment.left : sizeof(k->comment) - 1),
		 (const char *)comment.at);
	return true;
}

static int take_private(const char *path, const struct bytes *b, struct sshkey *k, struct vd_error *e)
{
	struct cursor c = cursor_of(b->at, b->n), cipher, kdf, kdf_options, blob, part;
	const uint8_t *magic = cursor_take(&c, sizeof(MAGIC));

	if (!magic || memcmp(magic, MAGIC, sizeof(MAGIC)))
		return fail(e, VD_ECORRUPT, "%s: is no private key of OpenSSH", path);
	cipher = cursor_string(&c);
	kdf = cursor_string(&c);
	kdf_options = cursor_string(&c);
	if (!kdf_options.is_bad && !cursor_is_text(&cipher, "none")) {
		fail(e, VD_ENOKEY, "%s: is encrypted with a passphrase", path);
		return fail_hint(e, VD_ENOKEY, "ssh-add %s gives it to ssh-agent; then name %s.pub here", path, path);
	}
	if (!cursor_is_text(&kdf, "none") || cursor_u32(&c) != 1)
		return fail(e, VD_ECORRUPT, "%s: is no file of one private key", path);
	blob = cursor_string(&c);
	part = cursor_string(&c);
	if (!sshkey_of_blob(blob, k->public_key))
		return fail(e, VD_EUNSUPPORTED, "%s: is no Ed25519 key", path);
	if (!cursor_is_done(&c) || !take_private_part(part, k))
		return fail(e, VD_ECORRUPT, "%s: the private key is damaged", path);
	return 0;
}

bool sshkey_of_line(const char *line, struct sshkey *k, char kind[64])
{
	size_t kind_n = strcspn(line, " \t\r\n"), n, got;
	const char *letters = line + kind_n + strspn(line + kind_n, " \t"), *comment;
	uint8_t blob[1024];

	snprintf(kind, 64, "%.*s", kind_n < 64 ? (int)kind_n : 63, line);
	n = strcspn(letters, " \t\r\n");
	comment = letters + n + strspn(letters + n, " \t");
	snprintf(k->comment, sizeof(k->comment), "%.*s", (int)(strcspn(comment, "\r\n") < sizeof(k->comment) ? strcspn(comment, "\r\n") :
		 sizeof(k->comment) - 1), comment);
	return !strcmp(kind, SSHKEY_TYPE) && base64_decode(letters, n, blob, sizeof(blob), &got) &&
	       sshkey_of_blob(cursor_of(blob, got), k->public_key);
}

static int take_public(const char *path, const char *text, struct sshkey *k, struct vd_error *e)
{
	char kind[64];

	if (sshkey_of_line(text, k, kind))
		return 0;
	if (!strncmp(kind, "ssh-", 4) || !strncmp(kind, "ecdsa-", 6) || !strncmp(kind, "sk-", 3))
		return fail_hint(e, fail(e, VD_EUNSUPPORTED, "%s: is a key of the kind %s", path, kind), "vdisk signs with " SSHKEY_TYPE " keys");
	return fail_hint(e, fail(e, VD_ECORRUPT, "%s: is no key of OpenSSH", path), "vdisk cert keygen FILE makes one, as ssh-keygen -t ed25519 does");
}

int sshkey_read(const char *path, struct sshkey *k, struct vd_error *e)
{
	static const char head[] = "-----BEGIN ";
	char *memory = locked_new(3 * FILE_MAX + 3);
	struct bytes text = bytes_over(memory, FILE_MAX), plain = bytes_over(memory + FILE_MAX + 1, FILE_MAX);
	int r = file_read(path, FILE_MAX, &text, e);

	*k = (struct sshkey){ 0 };
	if (r == 0 && (text.n < sizeof(head) || memcmp(text.at, head, sizeof(head) - 1)))
		r = take_public(path, memory, k, e);
	else if (r == 0 && armour_take(ARMOUR_KEY, memory, text.n, memory + 2 * FILE_MAX + 2, &plain))
		r = take_private(path, &plain, k, e);
	else if (r == 0)
		r = fail_hint(e, fail(e, VD_EUNSUPPORTED, "%s: is no private key as OpenSSH writes it", path),
			      "vdisk cert keygen FILE makes one, as ssh-keygen -t ed25519 does");
	if (r < 0)
		sshkey_free(k);
	locked_free(memory, 3 * FILE_MAX + 3);
	return r;
}
