/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets from the kernel's keyrings (keyrings(7)), by the system calls themselves. Nothing is put there, and nothing is
 * asked of request-key(8): a key that is not there is not fetched.
 */
#include "keys/key.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Types whose payload is the secret and can be read; "logon" is for the kernel alone, "encrypted" gives ciphertext. */
static const char *const readable[] = { "user", "big_key" };
static const char *const unreadable[] = { "logon", "encrypted", "trusted", "asymmetric", "keyring" };

/* True, and *name behind it, when the name begins with the type and a colon. */
static bool has_type(const char *type, const char **name)
{
	size_t len = strlen(type);

	if (strncmp(*name, type, len) || (*name)[len] != ':')
		return false;
	*name += len + 1;
	return true;
}

static int judge_type(const char **name, const char **type, struct vd_error *e)
{
	for (size_t i = 0; i < sizeof(unreadable) / sizeof(unreadable[0]); i++) {
		if (!has_type(unreadable[i], name))
			continue;
		vd_fail(e, VD_EARG, "the payload of a key of type %s cannot be read as a secret", unreadable[i]);
		return vd_hint(e, VD_EARG, "put the secret into a key of type user: keyctl padd user %s @u", *name);
	}
	*type = readable[0];
	for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++)
		if (has_type(readable[i], name)) {
			*type = readable[i];
			break;
		}
	return **name ? 0 : vd_fail(e, VD_EARG, "a key of a kernel keyring has a description, this one is empty");
}

/*
 * The process's own keyrings come first, as for every program. A session that sudo or a service manager has made may not
 * be linked to the keyring of the user, so that is looked into, too.
 */
static long find(const char *type, const char *name)
{
	long id = syscall(SYS_request_key, type, name, NULL, 0);

	if (id < 0 && errno == ENOKEY)
		id = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, type, name, 0);
	return id;
}

static int cannot(const char *name, int err, struct vd_error *e)
{
	switch (err) {
	case ENOKEY:
		vd_fail(e, VD_ENOENT, "no kernel keyring that can be reached has a key \"%s\"", name);
		return vd_hint(e, VD_ENOENT, "keyctl show @s and keyctl show @u list those that there are");
	case EKEYEXPIRED:
		return vd_fail(e, VD_ENOENT, "the key \"%s\" of the kernel keyring has expired", name);
	case EKEYREVOKED:
		return vd_fail(e, VD_ENOENT, "the key \"%s\" of the kernel keyring was revoked", name);
	case ENOSYS:
	case EPERM:
		return vd_fail(e, VD_EUNSUPPORTED, "this system does not let programs use kernel keyrings");
	default:
		return vd_fail_errno(e, err, "reading the key \"%s\" of the kernel keyring", name);
	}
}

VD_PUBLIC int vd_key_from_keyring(const char *name, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret s = { 0 };
	const char *type = NULL;
	long id, len;
	int r = judge_type(&name, &type, e);

	if (r < 0 || (r = vd_secret_alloc(&s, VD_KEY_MAX, e)) < 0)
		return r;
	id = find(type, name);
	if (id < 0)
		return cannot(name, errno, e);
	len = syscall(SYS_keyctl, KEYCTL_READ, id, s.p, s.len);
	if (len < 0)
		return cannot(name, errno, e);
	/* The kernel says how long it is, and has copied only what fits. */
	if ((size_t)len > s.len)
		return vd_fail(e, VD_EARG, "the key \"%s\" of the kernel keyring is longer than %d bytes", name, VD_KEY_MAX);
	s.len = (size_t)len;
	return vd_key_adopt(&s, "the kernel keyring", out, e);
}
