/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The key object: a secret in locked memory, or a command that gives one for a token of the image (key_command.c), and what can
 * be said of it. Where it comes from is in a file a source.
 */
#include "keys/key.h"
#include "keys/keycommand.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"

#define QEMU_MAX 512 /* vdisk.h: qemu opens no passphrase over 512 bytes */

struct vd_key {
	struct vd_secret secret;                /* empty: there is a command */
	struct vd_key_command *command;
};

int vd_key_adopt(struct vd_secret *s, const char *what, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret taken = *s;
	struct vd_key *key;
	int r;

	*s = (struct vd_secret){ 0 };
	if (!taken.len) {
		vd_fail(e, VD_EARG, "the secret from %s is empty", what);
		return vd_hint(e, VD_EARG, "an empty secret protects nothing: put at least one byte into it");
	}
	r = vd_alloc(1, sizeof(*key), &key, e);
	if (r < 0)
		return r;
	key->secret = taken;
	taken = (struct vd_secret){ 0 };
	*out = key;
	return 0;
}

VD_PUBLIC int vd_key_from_bytes(const void *bytes, size_t len, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret s = { 0 };
	int r;

	if (len > VD_KEY_MAX)
		return vd_fail(e, VD_EARG, "the secret is %zu bytes long, the limit is %d", len, VD_KEY_MAX);
	r = vd_secret_copy(&s, bytes, len, e);
	return r < 0 ? r : vd_key_adopt(&s, "memory", out, e);
}

VD_PUBLIC int vd_key_view(const struct vd_key *key, const void **bytes, size_t *len, struct vd_error *e)
{
	if (key->command)
		return vd_fail(e, VD_EARG, "a key command seals keys of images, and has no secret of its own");
	*bytes = key->secret.p;
	*len = key->secret.len;
	return 0;
}

VD_PUBLIC void vd_key_free(struct vd_key *key)
{
	if (!key)
		return;
	vd_secret_free(&key->secret);
	vd_key_command_free(key->command);
	free(key);
}

int vd_key_of_command(struct vd_key_command *c, struct vd_key **out, struct vd_error *e)
{
	struct vd_key *key;
	int r = vd_alloc(1, sizeof(*key), &key, e);

	if (r < 0) {
		vd_key_command_free(c);
		return r;
	}
	key->command = c;
	*out = key;
	return 0;
}

struct vd_key_command *vd_key_command_of(const struct vd_key *key)
{
	return key->command;
}

const char *vd_key_token_file(const struct vd_key *key)
{
	return key->command ? vd_key_command_file(key->command) : NULL;
}

int vd_key_judge_secret(const struct vd_key *key, const char *what, struct vd_error *e)
{
	if (!key->command)
		return 0;
	vd_fail(e, VD_EARG, "a key command gives secrets for the tokens of keyslots, which %s has none of", what);
	return vd_hint(e, VD_EARG, "use a key file or passphrase here; vdisk key add --new-key-command makes a keyslot with a token");
}

struct vd_bytes vd_key_bytes(const struct vd_key *key)
{
	return (struct vd_bytes){ key->secret.p, key->secret.len };
}

VD_PUBLIC bool vd_key_is_command(const struct vd_key *key)
{
	return key->command != NULL;
}

VD_PUBLIC bool vd_key_ends_with_newline(const struct vd_key *key)
{
	return key->secret.len && key->secret.p[key->secret.len - 1] == '\n';
}

/* Length of the UTF-8 sequence at p, or 0: over-long forms and surrogates are none (RFC 3629, section 4). */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t point;

	if (n <= 1 || n > left)
		return n == 1 ? 1 : 0;
	point = p[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		point = point << 6 | (p[i] & 0x3f);
	}
	if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	return n;
}

VD_PUBLIC bool vd_key_is_usable_by_qemu(const struct vd_key *key)
{
	const uint8_t *p = key->secret.p;
	size_t left = key->secret.len;

	if (left > QEMU_MAX || (left && memchr(p, 0, left)))
		return false;
	while (left) {
		size_t n = utf8_sequence(p, left);

		if (!n)
			return false;
		p += n;
		left -= n;
	}
	return true;
}
