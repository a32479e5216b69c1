/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which key derivations and hashes a LUKS header may ask for, at what cost. Running them is libcryptsetup's work. */
#include "keys/luks.h"

#include <string.h>

static int too_much(struct vd_error *e)
{
	return vd_hint(e, VD_EUNSUPPORTED, "a header that asks for so much work is more likely hostile than careful: "
					   "cryptsetup can still open it, and luksConvertKey there lowers the cost");
}

static int judge_pbkdf2(const struct vd_slot_info *s, struct vd_error *e)
{
	if (!s->hash)
		return vd_fail(e, VD_EUNSUPPORTED, "keyslot %u uses an unknown hash", s->index);
	if (!s->iterations)
		return vd_fail(e, VD_EAUTH, "keyslot %u has no iterations", s->index);
	if (s->iterations <= VD_PBKDF2_MAX_ITERATIONS)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "keyslot %u asks for %llu PBKDF2 iterations, the limit is %u", s->index,
		(unsigned long long)s->iterations, VD_PBKDF2_MAX_ITERATIONS);
	return too_much(e);
}

static int judge_argon2(const struct vd_slot_info *s, struct vd_error *e)
{
	if (!s->iterations || !s->memory_kib || !s->parallel)
		return vd_fail(e, VD_EAUTH, "keyslot %u has an Argon2 cost of zero", s->index);
	if (s->memory_kib <= VD_ARGON2_MAX_KIB && s->parallel <= VD_ARGON2_MAX_LANES &&
	    s->iterations <= VD_ARGON2_MAX_WORK / s->memory_kib)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED,
		"keyslot %u asks for %llu Argon2 passes over %u KiB by %u threads, the limits are %u KiB, %u threads and "
		"%llu passes x KiB", s->index, (unsigned long long)s->iterations, s->memory_kib, s->parallel,
		VD_ARGON2_MAX_KIB, VD_ARGON2_MAX_LANES, (unsigned long long)VD_ARGON2_MAX_WORK);
	return too_much(e);
}

int vd_kdf_judge(const struct vd_slot_info *slot, struct vd_error *e)
{
	return strcmp(slot->kdf, "pbkdf2") ? judge_argon2(slot, e) : judge_pbkdf2(slot, e);
}

int vd_kdf_judge_digest(uint64_t iterations, struct vd_error *e)
{
	if (!iterations)
		return vd_fail(e, VD_EAUTH, "the volume key's digest has no iterations");
	if (iterations <= VD_PBKDF2_MAX_ITERATIONS)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "the volume key's digest asks for %llu PBKDF2 iterations, the limit is %u",
		(unsigned long long)iterations, VD_PBKDF2_MAX_ITERATIONS);
	return too_much(e);
}

const char *vd_kdf_hash(const char *name, size_t len)
{
	static const char *const hashes[] = {
		"sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-512", "ripemd160", "whirlpool",
	};

	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		if (strlen(hashes[i]) == len && !memcmp(hashes[i], name, len))
			return hashes[i];
	return NULL;
}

/* OWASP and NIST SP 800-132 ask for more; this is the line below which a listing warns. */
bool vd_kdf_is_weak(const struct vd_slot_info *slot)
{
	if (!strcmp(slot->kdf, "pbkdf2"))
		return slot->iterations < 100000;
	return slot->iterations * slot->memory_kib < 4 * (32u << 10);
}
