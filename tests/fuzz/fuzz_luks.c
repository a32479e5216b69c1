/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS headers from strangers: probed and judged, never unlocked (that costs seconds by design). An input is the start
 * of a header, zeros follow; copies of LUKS2 get right checksums, which no mutation would hit. Any other input is taken for the
 * JSON text of LUKS2. What is accepted keeps the promises of core/keysrc.h.
 *
 * The corpus: what cryptsetup and qemu-img write, cut behind the last byte that is not zero, and metadata as text.
 */
#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>

#include "keys/luks.h"

#define CONTAINER_LEN ((uint64_t)64 << 20)
#define MAX_HEADER ((uint64_t)3 << 20)  /* LUKS1 has 2 MiB; a LUKS2 header of 16 MiB would only cost time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_promises(const struct vd_luks_info *info, uint64_t header_len)
{
	must(info->version == 1 || info->version == 2);
	must(!strcmp(info->cipher, "aes") && (!strcmp(info->mode, "xts-plain64") || !strcmp(info->mode, "xts-plain")));
	must(info->key_bits == 256 || info->key_bits == 512);
	must(info->sector_size == 512 || info->sector_size == 1024 || info->sector_size == 2048 || info->sector_size == 4096);
	must(info->payload_off <= CONTAINER_LEN && info->payload_off >= (header_len ? 512 : 0));
	must(info->n_slots <= VD_MAX_SLOTS);
	for (uint32_t i = 0; i < info->n_slots; i++) {
		const struct vd_slot_info *s = &info->slots[i];

		must(s->index < VD_MAX_SLOTS && s->kdf && s->iterations && s->iterations <= VD_PBKDF2_MAX_ITERATIONS);
		must(s->memory_kib <= VD_ARGON2_MAX_KIB && s->iterations * s->memory_kib <= VD_ARGON2_MAX_WORK);
	}
}

/* The copy at `at`, if there is room for one. */
static void seal_luks2(uint8_t *header, uint64_t at, uint64_t len)
{
	uint64_t size = at + 4096 > len ? 0 : vd_get_be64(header + at + 8);

	if (size < 4096 || size > len - at)
		return;
	memset(header + at + 448, 0, 64);
	gcry_md_hash_buffer(GCRY_MD_SHA256, header + at + 448, header + at, size);
}

/* At the beginning and at the places of second copies; an input whose byte 447 is odd keeps its own checksums. */
static void seal_copies(uint8_t *header, uint64_t len)
{
	if (len < 4096 || (header[447] & 1))
		return;
	if (header[7] == 2)
		seal_luks2(header, 0, len);
	for (uint64_t at = 16384; at < len; at *= 2)
		if (!memcmp(header + at, "SKUL", 4))
			seal_luks2(header, at, len);
}

static void check_mending(uint8_t *header, uint64_t header_len)
{
	struct vd_luks_info info;

	must(vd_luks_mend(header, header_len, NULL) == 0);
	must(vd_luks_inspect((struct vd_bytes){ header, header_len }, CONTAINER_LEN, &info, NULL) == 0 && !info.damaged_copy);
}

static void try_text(const uint8_t *data, size_t len)
{
	struct vd_luks_info info;

	if (vd_luks2_judge((struct vd_bytes){ data, len }, MAX_HEADER, &info, NULL) == 0 && info.payload_off <= CONTAINER_LEN)
		check_promises(&info, 0);
}

/* What the core does: probes the first bytes, then reads as many as that says. */
static void try_header(const uint8_t *data, size_t len, uint64_t header_len)
{
	struct vd_luks_info info;
	uint8_t *header = calloc(1, header_len);

	must(header);
	memcpy(header, data, len < header_len ? len : header_len);
	seal_copies(header, header_len);
	if (vd_luks_inspect((struct vd_bytes){ header, header_len }, CONTAINER_LEN, &info, NULL) == 0) {
		check_promises(&info, header_len);
		if (info.damaged_copy)
			check_mending(header, header_len);
	}
	free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t head[VD_LUKS_PROBE_LEN];
	uint64_t header_len = 0;

	memset(head, 0, sizeof(head));
	memcpy(head, data, len < sizeof(head) ? len : sizeof(head));
	seal_copies(head, sizeof(head));
	if (!vd_luks_search((struct vd_bytes){ head, sizeof(head) }, &header_len))
		try_text(data, len);
	else
		try_header(data, len, header_len < MAX_HEADER ? header_len : MAX_HEADER);
	return 0;
}
