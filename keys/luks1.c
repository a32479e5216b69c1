/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judges LUKS1 headers (LUKS1 On-Disk Format Specification 1.2.3): 592 bytes, all big-endian, without a checksum.
 * Stricter than libcryptsetup, which opens the keyslots afterwards.
 */
#include "keys/luks.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cursor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_SLOTS 8
#define SLOTS_AT 208            /* the slots of the header: active:u32 iterations:u32 salt:u8[32] material:u32 stripes:u32 */
#define SLOT_LEN 48
#define ALIGN 4096
#define SLOT_ACTIVE 0x00ac71f3u
#define SLOT_DEAD 0x0000deadu

struct slot {
	uint32_t active, iterations, material, stripes; /* material: sector where the key material begins */
};

struct phdr {
	char cipher[33], mode[33], hash[33], uuid[41];  /* one byte more than on disk, which makes them strings */
	uint32_t payload, key_bytes, digest_iterations; /* payload: sector */
	struct slot slots[N_SLOTS];
};

static void read_text(struct vd_reader *r, char *out, size_t len)
{
	const uint8_t *p = vd_reader_take(r, len);

	if (p)
		memcpy(out, p, len);
	out[len] = '\0';
}

static bool parse(struct vd_bytes header, struct phdr *h)
{
	struct vd_reader r = vd_reader_of(header.p, header.len);

	memset(h, 0, sizeof(*h));
	vd_reader_take(&r, 8); /* magic, version: vd_luks_probe() */
	read_text(&r, h->cipher, 32);
	read_text(&r, h->mode, 32);
	read_text(&r, h->hash, 32);
	h->payload = vd_read_be32(&r);
	h->key_bytes = vd_read_be32(&r);
	vd_reader_take(&r, 20 + 32); /* digest of the volume key, its salt */
	h->digest_iterations = vd_read_be32(&r);
	read_text(&r, h->uuid, 40);
	for (int i = 0; i < N_SLOTS; i++) {
		h->slots[i].active = vd_read_be32(&r);
		h->slots[i].iterations = vd_read_be32(&r);
		vd_reader_take(&r, 32); /* salt */
		h->slots[i].material = vd_read_be32(&r);
		h->slots[i].stripes = vd_read_be32(&r);
	}
	return !r.failed;
}

static uint64_t material_start(const struct slot *s)
{
	return (uint64_t)s->material * VD_LUKS_SECTOR;
}

/* Cannot overflow: 2^32 sectors and 2^32 keys of 4000 stripes are below 2^45. */
static uint64_t material_end(const struct phdr *h, const struct slot *s)
{
	return material_start(s) + vd_round_up((uint64_t)h->key_bytes * VD_LUKS_STRIPES, VD_LUKS_SECTOR);
}

struct vd_luks1_slot vd_luks1_slot(struct vd_bytes header, uint32_t slot)
{
	uint64_t at = SLOTS_AT + slot * SLOT_LEN;
	struct phdr h;

	if (slot >= N_SLOTS || !parse(header, &h))
		return (struct vd_luks1_slot){ 0 };
	return (struct vd_luks1_slot){
		.active = at, .params = at + 4, .params_end = at + 40,
		.material = material_start(&h.slots[slot]), .material_end = material_end(&h, &h.slots[slot]),
	};
}

static int by_offset(const void *a, const void *b)
{
	uint64_t x = ((const struct vd_luks_area *)a)->off, y = ((const struct vd_luks_area *)b)->off;

	return x < y ? -1 : x > y;
}

size_t vd_luks1_dead_areas(struct vd_bytes header, struct vd_luks_area *areas)
{
	struct phdr h;
	size_t n = 0;

	if (!parse(header, &h))
		return 0;
	for (int i = 0; i < N_SLOTS; i++)
		if (h.slots[i].active == SLOT_DEAD)
			areas[n++] = (struct vd_luks_area){ material_start(&h.slots[i]), material_end(&h, &h.slots[i]) };
	qsort(areas, n, sizeof(*areas), by_offset);
	return n;
}

uint64_t vd_luks1_extent(struct vd_bytes head)
{
	uint64_t end = LUKS1_PHDR_LEN;
	struct phdr h;

	if (!parse(head, &h))
		return LUKS1_PHDR_LEN;
	for (int i = 0; i < N_SLOTS; i++)
		end = vd_max_u64(end, material_end(&h, &h.slots[i]));
	return end;
}

/* Dead slots are held to the same rules as live ones: writers lay out all eight, and a new key goes where they say. */
static int judge_area(const struct phdr *h, int i, size_t header_len, struct vd_error *e)
{
	const struct slot *s = &h->slots[i];

	if (s->active != SLOT_ACTIVE && s->active != SLOT_DEAD)
		return vd_fail(e, VD_EAUTH, "keyslot %d is neither in use nor free (0x%08x)", i, s->active);
	if (s->stripes != VD_LUKS_STRIPES)
		return vd_fail(e, VD_EAUTH, "keyslot %d has %u stripes instead of %d", i, s->stripes, VD_LUKS_STRIPES);
	if (material_start(s) < LUKS1_PHDR_LEN || material_end(h, s) > header_len)
		return vd_fail(e, VD_EAUTH, "the key material of keyslot %d is outside the header", i);
	for (int k = 0; k < i; k++)
		if (material_start(s) < material_end(h, &h->slots[k]) && material_start(&h->slots[k]) < material_end(h, s))
			return vd_fail(e, VD_EAUTH, "the key material of keyslots %d and %d overlaps", k, i);
	return 0;
}

static int judge_slots(const struct phdr *h, const char *hash, size_t header_len, struct vd_luks_info *info,
		       struct vd_error *e)
{
	for (int i = 0; i < N_SLOTS; i++) {
		struct vd_slot_info *slot = &info->slots[info->n_slots];
		int r = judge_area(h, i, header_len, e);

		if (r < 0)
			return r;
		if (h->slots[i].active != SLOT_ACTIVE)
			continue;
		*slot = (struct vd_slot_info){
			.index = (uint32_t)i, .kdf = "pbkdf2", .hash = hash, .iterations = h->slots[i].iterations,
		};
		r = vd_kdf_judge(slot, e);
		if (r < 0)
			return r;
		slot->is_weak = vd_kdf_is_weak(slot);
		info->n_slots++;
	}
	return 0;
}

int vd_luks1_judge(struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e)
{
	const char *hash;
	struct phdr h;
	int r;

	*info = (struct vd_luks_info){ .version = 1, .sector_size = VD_LUKS_SECTOR };
	if (!parse(header, &h))
		return vd_fail(e, VD_EAUTH, "the LUKS header is cut short: %zu of %d bytes", header.len, LUKS1_PHDR_LEN);
	r = vd_luks_judge_cipher(h.cipher, h.mode, h.key_bytes, info, e);
	if (r < 0)
		return r;
	hash = vd_kdf_hash(h.hash, strlen(h.hash));
	if (!hash)
		return vd_fail(e, VD_EUNSUPPORTED, "hash %s of the LUKS header is not supported", h.hash);
	r = vd_kdf_judge_digest(h.digest_iterations, e);
	if (r < 0)
		return r;
	snprintf(info->hash, sizeof(info->hash), "%s", hash);
	snprintf(info->uuid, sizeof(info->uuid), "%.39s", h.uuid);
	info->payload_off = (uint64_t)h.payload * VD_LUKS_SECTOR;
	return judge_slots(&h, hash, header.len, info, e);
}

/* Spec 2.3, as libcryptsetup lays it out: the header and the material of each slot begin at multiples of 4096 bytes. */
uint64_t vd_luks1_header_len(size_t key_len)
{
	return ALIGN + N_SLOTS * vd_round_up((uint64_t)key_len * VD_LUKS_STRIPES, ALIGN);
}
