/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lays VMDK structures out in memory. Knows nothing of the driver but the numbers of its format. */
#include "tests/support/vmdk_bytes.h"

#include <inttypes.h>
#include <stdio.h>

#include "libvdisk/base/checked.h"

#define SECTOR 512
#define GTES 512
#define GRAIN_SECTORS (VMDK_GRAIN / SECTOR)

static void extend(struct vmdk_bytes *b, size_t len)
{
	assert_non_null(b->p = realloc(b->p, len));
	memset(b->p + b->len, 0, len - b->len);
	b->len = len;
}

static uint64_t add_payload(struct vmdk_bytes *b, uint8_t value)
{
	size_t at = b->len;

	extend(b, at + VMDK_GRAIN);
	memset(b->p + at, value, VMDK_GRAIN);
	return at;
}

const char *vmdk_sparse_text(uint64_t capacity, const char *more)
{
	static char text[2048];

	snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
		 "createType=\"monolithicSparse\"\nRW %" PRIu64 " SPARSE \"old name.vmdk\"\n%s", capacity, more);
	return text;
}

struct vmdk_bytes vmdk_hosted(uint64_t capacity, const char *descriptor)
{
	struct vmdk_bytes b = { 0 };
	uint64_t n_tables = vd_round_up(capacity, GTES * GRAIN_SECTORS) / (GTES * GRAIN_SECTORS);

	assert_in_range(n_tables, 0, 6);
	extend(&b, VMDK_GRAINS_AT * SECTOR);
	memcpy(b.p, "KDMV", 4);
	vd_put_le32(b.p + 4, 1);
	vd_put_le32(b.p + 8, 3);
	vd_put_le64(b.p + 12, capacity);
	vd_put_le64(b.p + 20, GRAIN_SECTORS);
	vd_put_le64(b.p + 28, descriptor ? 1 : 0);
	vd_put_le64(b.p + 36, descriptor ? 4 : 0);
	vd_put_le32(b.p + 44, GTES);
	vd_put_le64(b.p + 48, VMDK_RGD_AT);
	vd_put_le64(b.p + 56, VMDK_GD_AT);
	vd_put_le64(b.p + 64, VMDK_GRAINS_AT);
	memcpy(b.p + 73, "\n \r\n", 4);
	if (descriptor)
		memcpy(b.p + SECTOR, descriptor, strlen(descriptor));
	for (uint64_t i = 0; i < n_tables; i++) {
		vd_put_le32(b.p + VMDK_RGD_AT * SECTOR + 4 * i, VMDK_RGD_AT + 1 + 4 * i);
		vd_put_le32(b.p + VMDK_GD_AT * SECTOR + 4 * i, VMDK_GD_AT + 1 + 4 * i);
	}
	return b;
}

uint8_t *vmdk_entry(struct vmdk_bytes *b, uint64_t grain, bool redundant)
{
	return b->p + ((redundant ? VMDK_RGD_AT : VMDK_GD_AT) + 1) * SECTOR + 4 * grain;
}

void vmdk_add_grain(struct vmdk_bytes *b, uint64_t grain, uint8_t value)
{
	uint64_t sector = add_payload(b, value) / SECTOR;

	vd_put_le32(vmdk_entry(b, grain, false), sector);
	vd_put_le32(vmdk_entry(b, grain, true), sector);
}

/* Header, one directory sector, one table of 4096 entries. */
struct vmdk_bytes vmdk_cowd(uint64_t capacity)
{
	struct vmdk_bytes b = { 0 };

	extend(&b, (4 + 1 + 32) * SECTOR);
	memcpy(b.p, "COWD", 4);
	vd_put_le32(b.p + 4, 1);
	vd_put_le32(b.p + 8, 3);
	vd_put_le32(b.p + 12, capacity);
	vd_put_le32(b.p + 16, GRAIN_SECTORS);
	vd_put_le32(b.p + 20, 4);
	vd_put_le32(b.p + 24, 1);
	vd_put_le32(b.p + 4 * SECTOR, 5);
	return b;
}

void vmdk_cowd_add_grain(struct vmdk_bytes *b, uint64_t grain, uint8_t value)
{
	vd_put_le32(b->p + 5 * SECTOR + 4 * grain, add_payload(b, value) / SECTOR);
}

#define SE_VOLATILE 1
#define SE_GD 2
#define SE_GTS 3
#define SE_GRAINS (SE_GTS + 64)

/* One grain table of 4096 entries. */
struct vmdk_bytes vmdk_sesparse(uint64_t capacity)
{
	struct vmdk_bytes b = { 0 };

	extend(&b, SE_GRAINS * SECTOR);
	vd_put_le64(b.p, UINT64_C(0xcafebabe));
	vd_put_le64(b.p + 8, UINT64_C(0x200000001));
	vd_put_le64(b.p + 16, capacity);
	vd_put_le64(b.p + 24, GRAIN_SECTORS);
	vd_put_le64(b.p + 32, 64);
	vd_put_le64(b.p + 80, SE_VOLATILE);
	vd_put_le64(b.p + 88, 1);
	vd_put_le64(b.p + 128, SE_GD);
	vd_put_le64(b.p + 136, 1);
	vd_put_le64(b.p + 144, SE_GTS);
	vd_put_le64(b.p + 152, 64);
	vd_put_le64(b.p + 192, SE_GRAINS);
	vd_put_le64(b.p + SE_VOLATILE * SECTOR, UINT64_C(0xcafecafe));
	vd_put_le64(b.p + SE_GD * SECTOR, UINT64_C(0x1000000000000000));
	return b;
}

void vmdk_sesparse_set(struct vmdk_bytes *b, uint64_t grain, unsigned kind, uint8_t value)
{
	uint64_t number = 0;

	if (kind == 3)
		number = (add_payload(b, value) - SE_GRAINS * SECTOR) / VMDK_GRAIN;
	vd_put_le64(b->p + SE_GTS * SECTOR + 8 * grain,
		    (uint64_t)kind << 60 | (number & 0xfff) << 48 | number >> 12);
}

void vmdk_put(const char *name, const struct vmdk_bytes *b)
{
	struct vd_error e;

	expect_ok(vd_mem_put(disks.mem, name, b->p, b->len, &e), &e);
}

void vmdk_put_text(const char *name, const char *text)
{
	struct vd_error e;

	expect_ok(vd_mem_put(disks.mem, name, text, strlen(text), &e), &e);
}

void vmdk_free(struct vmdk_bytes *b)
{
	free(b->p);
	*b = (struct vmdk_bytes){ 0 };
}
