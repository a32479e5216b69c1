/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recognises LUKS headers, and what the two versions have in common. What each holds luks1.c and luks2.c judge. */
#include "keys/luks.h"

#include <stdio.h>
#include <string.h>

/* LUKS1 spec 1.2.3, figure 1, and LUKS2 spec 1.1.4, 2.1: both begin with the magic and a 16-bit version. */
static const uint8_t magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

bool vd_luks_has_magic(struct vd_bytes head)
{
	return head.len >= 8 && !memcmp(head.p, magic, sizeof(magic));
}

/* By the signature at its beginning. */
static int recognise(struct vd_bytes head, uint64_t *header_len)
{
	switch (vd_get_be16(head.p + 6)) {
	case 1:
		*header_len = vd_luks1_extent(head);
		return VD_LUKS1;
	case 2:
		*header_len = vd_luks2_extent(head);
		return VD_LUKS2;
	default:
		return 0;
	}
}

uint64_t vd_luks_clear_len(struct vd_bytes header)
{
	return vd_luks_has_magic(header) && vd_get_be16(header.p + 6) == 1 ? LUKS1_PHDR_LEN : 2 * vd_luks2_copy_len(header);
}

int vd_luks_search(struct vd_bytes head, uint64_t *header_len)
{
	uint64_t second;

	if (vd_luks_has_magic(head))
		return recognise(head, header_len);
	if (!vd_luks2_second(head, &second))
		return 0;
	*header_len = vd_luks2_extent(head);
	return VD_LUKS2;
}

int vd_luks_probe(struct vd_bytes head, uint64_t *header_len)
{
	uint64_t second;

	if (!vd_luks_has_magic(head) && vd_luks2_second(head, &second) && !vd_luks2_first_is_vacant(head, second))
		return 0;
	return vd_luks_search(head, header_len);
}

uint64_t vd_luks_payload_off(enum vd_luks_type type)
{
	/* 2 MiB, not qemu's 4040 sectors: a multiple of every format's block, and all tools read any. 16 MiB: cryptsetup's. */
	return type == VD_LUKS2 ? 16 << 20 : 2 << 20;
}

int vd_luks_judge_cipher(const char *cipher, const char *mode, uint64_t key_bytes, struct vd_luks_info *info,
			 struct vd_error *e)
{
	if (!strcmp(cipher, "cipher_null"))
		return vd_fail(e, VD_EUNSUPPORTED, "the LUKS header asks for the null cipher: nothing would be encrypted");
	if (strcmp(cipher, "aes") || (strcmp(mode, "xts-plain64") && strcmp(mode, "xts-plain"))) {
		vd_fail(e, VD_EUNSUPPORTED, "cipher %s-%s is not supported", cipher, mode);
		return vd_hint(e, VD_EUNSUPPORTED, "aes-xts-plain64 is what this library reads; cryptsetup reencrypt can "
						   "change a container to it");
	}
	if (key_bytes != 32 && key_bytes != 64)
		return vd_fail(e, VD_EUNSUPPORTED, "a volume key of %llu bits is not supported: AES-XTS has 256 or 512",
			       (unsigned long long)key_bytes * 8);
	snprintf(info->cipher, sizeof(info->cipher), "%s", cipher);
	snprintf(info->mode, sizeof(info->mode), "%s", mode);
	info->key_bits = (uint32_t)key_bytes * 8;
	return 0;
}
