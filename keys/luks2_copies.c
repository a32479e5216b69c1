/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two copies of a LUKS2 header on disk (LUKS2 On-Disk Format Specification 1.1.4, 2.1): where they are, which of them
 * its checksum bears out, and how long the header is by its word. What the metadata say is luks2.c's business; mending one
 * copy by the other libcryptsetup's.
 *
 * The checksum has no key: it tells damage, and tampering only by those who did not care to make it right.
 */
#include "keys/json.h"
#include "keys/luks.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/crypto/hash.h"

#include <string.h>

#define MIN_HDR_SIZE ((uint64_t)16 << 10)       /* one copy, with its JSON text: powers of two from here to 4 MiB */
#define USUAL_EXTENT ((uint64_t)16 << 20)       /* where all tools end the header unless told otherwise */
/* Fields of the binary header. */
#define HDR_SIZE 8
#define CSUM_ALG 72
#define UUID 168
#define UUID_LEN 40
#define HDR_OFFSET 256
#define CSUM 448
#define CSUM_LEN 64

static uint64_t size_of(struct vd_bytes head, uint64_t at)
{
	uint64_t size = at + VD_LUKS2_BINARY_LEN > head.len ? 0 : vd_get_be64(head.p + at + HDR_SIZE);

	return vd_is_pow2(size) && size >= MIN_HDR_SIZE && size <= VD_LUKS2_MAX_HDR && at + size <= head.len ? size : 0;
}

/* The checksum is over the copy with its own field zeroed. */
static bool holds(const uint8_t *copy, uint64_t size)
{
	static const uint8_t zeros[CSUM_LEN];
	uint8_t sum[VD_SHA256_LEN];
	struct vd_hash *h;

	if (vd_hash_new(VD_SHA256, &h, NULL) < 0)
		return false;
	vd_hash_add(h, copy, CSUM);
	vd_hash_add(h, zeros, CSUM_LEN);
	vd_hash_add(h, copy + CSUM + CSUM_LEN, size - CSUM - CSUM_LEN);
	vd_hash_end(h, sum);
	vd_hash_free(h);
	return !memcmp(sum, copy + CSUM, sizeof(sum));
}

static bool is_sound(struct vd_bytes head, uint64_t at)
{
	const uint8_t *p = head.p + at;
	uint64_t size = size_of(head, at);

	return size && vd_get_be16(p + 6) == 2 && vd_get_be64(p + HDR_OFFSET) == at && !memcmp(p + CSUM_ALG, "sha256", 7) &&
	       holds(p, size);
}

bool vd_luks2_second(struct vd_bytes head, uint64_t *at)
{
	static const uint8_t magic[6] = { 'S', 'K', 'U', 'L', 0xba, 0xbe };

	for (uint64_t off = MIN_HDR_SIZE; off <= VD_LUKS2_MAX_HDR; off *= 2) {
		if (size_of(head, off) != off || memcmp(head.p + off, magic, sizeof(magic)) || !is_sound(head, off))
			continue;
		*at = off;
		return true;
	}
	return false;
}

bool vd_luks2_first_is_vacant(struct vd_bytes head, uint64_t second)
{
	const uint8_t *uuid = head.p + second + UUID;

	return vd_is_zero(head.p, VD_LUKS2_BINARY_LEN) || (*uuid && !memcmp(head.p + UUID, uuid, UUID_LEN));
}

/* The text of one copy: up to the NUL that pads it. */
static struct vd_json text_of(struct vd_bytes head, uint64_t at)
{
	const uint8_t *text = head.p + at + VD_LUKS2_BINARY_LEN, *nul;
	size_t len = size_of(head, at) - VD_LUKS2_BINARY_LEN;

	nul = memchr(text, 0, len);
	return vd_json_of((struct vd_bytes){ text, nul ? (size_t)(nul - text) : len });
}

/* Where the copy is whose word counts; the first one if neither is sound. */
static uint64_t best_copy(struct vd_bytes head)
{
	uint64_t second;

	return !is_sound(head, 0) && vd_luks2_second(head, &second) ? second : 0;
}

uint64_t vd_luks2_copy_len(struct vd_bytes header)
{
	return size_of(header, best_copy(header));
}

uint64_t vd_luks2_extent(struct vd_bytes head)
{
	uint64_t at = best_copy(head), keyslots;
	struct vd_json config;

	if (!size_of(head, at))
		return USUAL_EXTENT;
	config = vd_json_get(text_of(head, at), "config");
	if (!vd_json_u64(vd_json_get(config, "keyslots_size"), &keyslots) || keyslots > VD_LUKS2_MAX_KEYSLOTS)
		return USUAL_EXTENT;
	return 2 * size_of(head, at) + keyslots;
}
