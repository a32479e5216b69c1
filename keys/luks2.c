/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judges LUKS2 metadata (LUKS2 On-Disk Format Specification 1.1.4): a JSON object with keyslots, segments, digests and
 * config. Where the text is, and whether its checksum holds, is luks2_copies.c's and libcryptsetup's business.
 */
#include "keys/json.h"
#include "keys/luks.h"

#include "libvdisk/base/checked.h"

#include <stdio.h>
#include <string.h>

static int corrupt(const char *what, struct vd_error *e)
{
	return vd_fail(e, VD_EAUTH, "the LUKS2 metadata have no sound %s", what);
}

/* A pending re-encryption is the first thing to tell: its segments and keyslots are odd too. */
static int judge_config(struct vd_json root, struct vd_error *e)
{
	struct vd_json requirements = vd_json_get(vd_json_get(root, "config"), "requirements"), key, value;
	char name[64];
	size_t at = 0;

	if (vd_json_next(vd_json_get(requirements, "mandatory"), &at, &key, &value)) {
		vd_json_copy(value, name, sizeof(name));
		if (!strstr(name, "reencrypt"))
			return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 container requires \"%s\", which is not supported", name);
		vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 container is in the middle of a re-encryption");
		return vd_hint(e, VD_EUNSUPPORTED, "finish it first: cryptsetup reencrypt --resume-only");
	}
	/* What is looked at above is a list of that name; anything else would be missed. */
	for (at = 0; vd_json_next(requirements, &at, &key, &value);)
		if (!vd_json_is(key, "mandatory") || *value.p != '[')
			return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 container has requirements of an unknown kind");
	return 0;
}

/* "aes-xts-plain64" is cipher and mode in one. */
static int judge_encryption(struct vd_json encryption, uint64_t key_bytes, struct vd_luks_info *info,
			    struct vd_error *e)
{
	char text[64], *mode;

	vd_json_copy(encryption, text, sizeof(text));
	mode = strchr(text, '-');
	if (!mode)
		return vd_fail(e, VD_EUNSUPPORTED, "cipher \"%s\" is not supported", text);
	*mode++ = '\0';
	return vd_luks_judge_cipher(text, mode, key_bytes, info, e);
}

static int judge_segment(struct vd_json segment, struct vd_luks_info *info, struct vd_error *e)
{
	uint64_t tweak, sector;

	if (!vd_json_is(vd_json_get(segment, "type"), "crypt") || vd_json_count(vd_json_get(segment, "flags")))
		return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 segment is of a kind that is not supported");
	if (vd_json_get(segment, "integrity").len)
		return vd_fail(e, VD_EUNSUPPORTED, "LUKS2 with integrity protection (dm-integrity) is not supported");
	if (!vd_json_is(vd_json_get(segment, "size"), "dynamic"))
		return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 segment does not reach to the end of the disk");
	if (!vd_json_u64(vd_json_get(segment, "iv_tweak"), &tweak) || tweak)
		return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 segment does not count its sectors from 0");
	if (!vd_json_u64(vd_json_get(segment, "sector_size"), &sector) || sector > 4096)
		return corrupt("sector size", e);
	if (!vd_is_pow2(sector) || sector < 512)
		return corrupt("sector size", e);
	if (!vd_json_u64(vd_json_get(segment, "offset"), &info->payload_off) || info->payload_off % VD_LUKS_SECTOR)
		return corrupt("segment offset", e);
	info->sector_size = (uint32_t)sector;
	return 0;
}

static bool names(struct vd_json list, struct vd_json name)
{
	struct vd_json key, value;
	size_t at = 0;

	while (vd_json_next(list, &at, &key, &value))
		if (value.len == name.len && !memcmp(value.p, name.p, name.len))
			return true;
	return false;
}

/* The digest that is bound to the segment tells which keyslots hold the volume key; two would be ambiguous. */
static int find_digest(struct vd_json root, struct vd_json segment_name, struct vd_json *digest, struct vd_error *e)
{
	struct vd_json digests = vd_json_get(root, "digests"), key, value;
	size_t at = 0;

	*digest = (struct vd_json){ 0 };
	while (vd_json_next(digests, &at, &key, &value)) {
		if (!names(vd_json_get(value, "segments"), segment_name))
			continue;
		if (digest->len)
			return corrupt("digest: the segment has two", e);
		*digest = value;
	}
	return digest->len ? 0 : corrupt("digest", e);
}

static const char *hash_of(struct vd_json value)
{
	struct vd_json text = vd_json_text(value);

	return text.len ? vd_kdf_hash(text.p, text.len) : NULL;
}

#define SALT_BYTES 32           /* what libcryptsetup makes and takes */
#define MIN_DIGEST_BYTES 20     /* that of LUKS1, and so of a header that was converted */

/* How many bytes a string in base64 (RFC 4648, 4) stands for; 0 when it is none. */
static size_t base64_bytes(struct vd_json value)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct vd_json text = vd_json_text(value);
	size_t pads = 0;

	while (pads < 2 && pads < text.len && text.p[text.len - 1 - pads] == '=')
		pads++;
	for (size_t i = 0; i + pads < text.len; i++)
		if (!text.p[i] || !strchr(letters, text.p[i]))
			return 0;
	return text.len % 4 ? 0 : text.len / 4 * 3 - pads;
}

/* libcryptsetup takes any key for right where the digest is short: one that says nothing is forged. */
static int judge_digest(struct vd_json digest, struct vd_luks_info *info, struct vd_error *e)
{
	const char *hash = hash_of(vd_json_get(digest, "hash"));
	uint64_t iterations;

	if (!vd_json_is(vd_json_get(digest, "type"), "pbkdf2") || !hash)
		return vd_fail(e, VD_EUNSUPPORTED, "the digest of the LUKS2 volume key is of a kind that is not supported");
	if (!vd_json_u64(vd_json_get(digest, "iterations"), &iterations))
		return corrupt("digest", e);
	if (base64_bytes(vd_json_get(digest, "digest")) < MIN_DIGEST_BYTES ||
	    base64_bytes(vd_json_get(digest, "salt")) != SALT_BYTES)
		return corrupt("digest of the volume key", e);
	snprintf(info->hash, sizeof(info->hash), "%s", hash);
	return vd_kdf_judge_digest(iterations, e);
}

static bool get_u32(struct vd_json object, const char *name, uint32_t *out)
{
	uint64_t n;

	if (!vd_json_u64(vd_json_get(object, name), &n) || n > UINT32_MAX)
		return false;
	*out = (uint32_t)n;
	return true;
}

static int judge_kdf(struct vd_json kdf, struct vd_slot_info *slot, struct vd_error *e)
{
	struct vd_json type = vd_json_get(kdf, "type");

	slot->kdf = vd_json_is(type, "pbkdf2") ? "pbkdf2" :
		    vd_json_is(type, "argon2id") ? "argon2id" :
		    vd_json_is(type, "argon2i") ? "argon2i" : NULL;
	if (!slot->kdf)
		return vd_fail(e, VD_EUNSUPPORTED, "keyslot %u derives its key in an unknown way", slot->index);
	if (base64_bytes(vd_json_get(kdf, "salt")) != SALT_BYTES)
		return corrupt("salt of a keyslot", e);
	if (!strcmp(slot->kdf, "pbkdf2")) {
		slot->hash = hash_of(vd_json_get(kdf, "hash"));
		if (!vd_json_u64(vd_json_get(kdf, "iterations"), &slot->iterations))
			return corrupt("PBKDF2 parameters", e);
	} else if (!vd_json_u64(vd_json_get(kdf, "time"), &slot->iterations) ||
		   !get_u32(kdf, "memory", &slot->memory_kib) || !get_u32(kdf, "cpus", &slot->parallel)) {
		return corrupt("Argon2 parameters", e);
	}
	return vd_kdf_judge(slot, e);
}

/* How the slot keeps its key: encrypted by a real cipher, too (CVE-2025-59054 is a null cipher here). */
static int judge_area(struct vd_json slot, size_t header_len, struct vd_error *e)
{
	struct vd_json area = vd_json_get(slot, "area"), af = vd_json_get(slot, "af");
	uint64_t off, len, stripes, key_bytes = 0;
	struct vd_luks_info ignored = { 0 };

	if (!vd_json_is(vd_json_get(area, "type"), "raw") || !vd_json_is(vd_json_get(af, "type"), "luks1") ||
	    !hash_of(vd_json_get(af, "hash")))
		return vd_fail(e, VD_EUNSUPPORTED, "a LUKS2 keyslot keeps its key in an unknown way");
	if (!vd_json_u64(vd_json_get(af, "stripes"), &stripes) || stripes != VD_LUKS_STRIPES)
		return corrupt("number of stripes", e);
	if (!vd_json_u64(vd_json_get(area, "offset"), &off) || !vd_json_u64(vd_json_get(area, "size"), &len) ||
	    !vd_range_inside(off, len, header_len))
		return corrupt("keyslot area: it is outside the header", e);
	if (!vd_json_u64(vd_json_get(area, "key_size"), &key_bytes))
		return corrupt("keyslot cipher", e);
	return judge_encryption(vd_json_get(area, "encryption"), key_bytes, &ignored, e);
}

static int judge_slot(struct vd_json key, struct vd_json slot, size_t header_len, struct vd_slot_info *s,
		      uint64_t *key_bytes, struct vd_error *e)
{
	uint64_t index;
	int r;

	*s = (struct vd_slot_info){ 0 };
	if (!vd_json_u64(key, &index) || index >= VD_MAX_SLOTS)
		return corrupt("keyslot number", e);
	s->index = (uint32_t)index;
	if (!vd_json_is(vd_json_get(slot, "type"), "luks2"))
		return vd_fail(e, VD_EUNSUPPORTED, "keyslot %u is of an unknown type", s->index);
	if (!vd_json_u64(vd_json_get(slot, "key_size"), key_bytes))
		return corrupt("key size", e);
	r = judge_area(slot, header_len, e);
	if (r == 0)
		r = judge_kdf(vd_json_get(slot, "kdf"), s, e);
	if (r == 0)
		s->is_weak = vd_kdf_is_weak(s);
	return r;
}

/* All keyslots are judged; those of other keys ("unbound") are left out of the list. */
static int judge_slots(struct vd_json root, struct vd_json digest, size_t header_len, uint64_t *key_bytes,
		       struct vd_luks_info *info, struct vd_error *e)
{
	struct vd_json bound = vd_json_get(digest, "keyslots"), slots = vd_json_get(root, "keyslots"), key, value;
	size_t at = 0;

	while (vd_json_next(slots, &at, &key, &value)) {
		struct vd_slot_info slot;
		uint64_t bytes;
		int r = judge_slot(key, value, header_len, &slot, &bytes, e);

		if (r < 0)
			return r;
		if (!names(bound, key))
			continue;
		if (info->n_slots == VD_MAX_SLOTS || (info->n_slots && bytes != *key_bytes))
			return corrupt("keyslots: they differ in key size", e);
		*key_bytes = bytes;
		info->slots[info->n_slots++] = slot;
	}
	return 0;
}

/* The first area that ends past `at`. */
static bool next_area(struct vd_json slots, uint64_t at, struct vd_luks_area *next)
{
	struct vd_json key, slot;
	bool found = false;
	size_t pos = 0;

	while (vd_json_next(slots, &pos, &key, &slot)) {
		struct vd_json area = vd_json_get(slot, "area");
		uint64_t off = 0, len = 0;

		if (!vd_json_u64(vd_json_get(area, "offset"), &off) || !vd_json_u64(vd_json_get(area, "size"), &len))
			continue;
		if (off + len > at && (!found || off < next->off)) {
			*next = (struct vd_luks_area){ off, off + len };
			found = true;
		}
	}
	return found;
}

/* What is between the areas of all keyslots, those of other keys too. */
size_t vd_luks2_dead_areas(struct vd_bytes metadata, size_t header_len, struct vd_luks_area *areas)
{
	struct vd_json root = vd_json_of(metadata), slots = vd_json_get(root, "keyslots"), config = vd_json_get(root, "config");
	uint64_t json_size = 0, keyslots_size = 0, at, end;
	struct vd_luks_area live;
	size_t n = 0;

	if (!vd_json_u64(vd_json_get(config, "json_size"), &json_size) || json_size > VD_LUKS2_MAX_HDR ||
	    !vd_json_u64(vd_json_get(config, "keyslots_size"), &keyslots_size) || keyslots_size > VD_LUKS2_MAX_KEYSLOTS)
		return 0;
	at = 2 * (VD_LUKS2_BINARY_LEN + json_size);
	end = vd_min_u64(at + keyslots_size, header_len);
	for (; n < VD_LUKS_AREAS_MAX && at < end && next_area(slots, at, &live); at = vd_max_u64(at, live.end))
		if (live.off > at)
			areas[n++] = (struct vd_luks_area){ at, vd_min_u64(live.off, end) };
	if (n < VD_LUKS_AREAS_MAX && at < end)
		areas[n++] = (struct vd_luks_area){ at, end };
	return n;
}

/* The next token of ours, and the slot that it is for. */
static bool next_token(struct vd_json tokens, size_t *at, struct vd_json *token, uint64_t *slot)
{
	struct vd_json key, index, number;

	while (vd_json_next(tokens, at, &key, token)) {
		size_t in = 0;

		if (vd_json_is(vd_json_get(*token, "type"), VD_LUKS_TOKEN) &&
		    vd_json_next(vd_json_get(*token, "keyslots"), &in, &index, &number) && vd_json_u64(number, slot))
			return true;
	}
	return false;
}

/* What our tokens say of the slots; it is for people, and nothing depends on it. */
static void read_tokens(struct vd_json root, struct vd_luks_info *info)
{
	struct vd_json tokens = vd_json_get(root, "tokens"), token;
	uint64_t slot;
	size_t at = 0;

	while (next_token(tokens, &at, &token, &slot))
		for (uint32_t i = 0; i < info->n_slots; i++)
			if (info->slots[i].index == slot)
				vd_luks_take_notes(token, &info->slots[i]);
}

struct vd_json vd_luks2_token_of(struct vd_bytes metadata, uint32_t slot)
{
	struct vd_json tokens = vd_json_get(vd_json_of(metadata), "tokens"), token;
	uint64_t of;
	size_t at = 0;

	while (next_token(tokens, &at, &token, &of))
		if (of == slot)
			return token;
	return (struct vd_json){ 0 };
}

/* With no keyslot left the size of the key is not known any more, nor needed. */
#define UNKNOWN_KEY_BYTES 64

int vd_luks2_judge(struct vd_bytes metadata, size_t header_len, struct vd_luks_info *info, struct vd_error *e)
{
	struct vd_json root = vd_json_of(metadata), name, segment, digest;
	uint64_t key_bytes = UNKNOWN_KEY_BYTES;
	size_t at = 0;
	int r;

	*info = (struct vd_luks_info){ .version = 2 };
	if (!root.len)
		return corrupt("JSON text", e);
	r = judge_config(root, e);
	if (r < 0)
		return r;
	if (vd_json_count(vd_json_get(root, "segments")) != 1 ||
	    !vd_json_next(vd_json_get(root, "segments"), &at, &name, &segment))
		return vd_fail(e, VD_EUNSUPPORTED, "the LUKS2 container does not consist of exactly one segment");
	r = judge_segment(segment, info, e);
	if (r < 0 || (r = find_digest(root, name, &digest, e)) < 0 || (r = judge_digest(digest, info, e)) < 0 ||
	    (r = judge_slots(root, digest, header_len, &key_bytes, info, e)) < 0)
		return r;
	read_tokens(root, info);
	return judge_encryption(vd_json_get(segment, "encryption"), key_bytes, info, e);
}
