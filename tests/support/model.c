/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the byte array beside the image. */
#include "tests/support/model.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

uint64_t chance_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t chance_below(uint64_t *state, uint64_t n)
{
	return chance_next(state) % n;
}

void model_init(struct model *m, uint64_t size, uint64_t seed)
{
	*m = (struct model){ .size = size, .bytes = calloc(1, size + 1), .chance = seed };
	assert_non_null(m->bytes);
}

void model_free(struct model *m)
{
	free(m->bytes);
	m->bytes = NULL;
}

static void write_out(struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	expect_ok(vd_image_pwrite(img, m->bytes + off, len, off, &e), &e);
}

void model_write(struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	for (uint64_t i = off, word = 0; i < off + len; i++, word >>= 8) {
		if ((i - off) % 8 == 0)
			word = chance_next(&m->chance);
		m->bytes[i] = word;
	}
	write_out(m, img, off, len);
}

void model_fill(struct model *m, struct vd_image *img, uint64_t off, uint64_t len, uint8_t value)
{
	memset(m->bytes + off, value, len);
	write_out(m, img, off, len);
}

void model_zero(struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	memset(m->bytes + off, 0, len);
	expect_ok(vd_image_write_zeroes(img, off, len, 0, &e), &e);
}

void model_zero_allocated(struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	memset(m->bytes + off, 0, len);
	expect_ok(vd_image_write_zeroes(img, off, len, VD_ZERO_ALLOCATED, &e), &e);
}

void model_discard(struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	vd_auto_free uint8_t *got = malloc(len + 1);
	struct vd_error e;

	expect_ok(vd_image_discard(img, off, len, &e), &e);
	expect_ok(vd_image_pread(img, got, len, off, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		if (got[i] && got[i] != m->bytes[off + i])
			fail_msg("discard of %llu at %llu: byte %llu is 0x%02x, was 0x%02x", (unsigned long long)len,
				 (unsigned long long)off, (unsigned long long)(off + i), got[i], m->bytes[off + i]);
	memcpy(m->bytes + off, got, len);
}

void model_check(const struct model *m, struct vd_image *img, uint64_t off, uint64_t len)
{
	vd_auto_free uint8_t *got = malloc(len + 1);
	struct vd_error e;

	expect_ok(vd_image_pread(img, got, len, off, &e), &e);
	if (!memcmp(got, m->bytes + off, len))
		return;
	for (uint64_t i = 0; i < len; i++)
		if (got[i] != m->bytes[off + i])
			fail_msg("read of %llu at %llu: byte %llu is 0x%02x, want 0x%02x", (unsigned long long)len,
				 (unsigned long long)off, (unsigned long long)(off + i), got[i], m->bytes[off + i]);
}

void model_check_all(const struct model *m, struct vd_image *img)
{
	for (uint64_t off = 0, len; off < m->size; off += len) {
		len = vd_min_u64(m->size - off, 77777);
		model_check(m, img, off, len);
	}
}
