/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host walk over every kind of image: each byte has one owner, the map says the same, and scrubbing harms nobody. */
#include "tests/support/hostwalk.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/core/host.h"

static struct model model;

/* An image as life leaves it: written here and there, zeroed, overwritten, perhaps with snapshots. False: no peer. */
static bool make_used(const struct variant *v, struct vd_image **img)
{
	struct vd_error e;

	model_init(&model, v->size, 7);
	if (!variant_make(v, &model))
		return false;
	*img = variant_open(v, VD_OPEN_WRITE);
	for (int i = 0; i < 24; i++) {
		uint64_t off = chance_below(&model.chance, v->size), len = chance_below(&model.chance, 3 * v->unit) + 1;

		len = vd_min_u64(len, v->size - off);
		if (i % 3 == 2)
			model_zero(&model, *img, off, len);
		else
			model_write(&model, *img, off, len);
		if (i % 8 == 5 && v->format == &vd_format_qcow2 && !v->opts.data_file && v->opts.refcount_bits != 1)
			expect_ok(vd_snapshot_create(*img, i < 8 ? "one" : i < 16 ? "two" : "three", &e), &e);
	}
	return true;
}

static void done(struct vd_image *img)
{
	disk_close(img);
	model_free(&model);
	walk_free();
}

/* What the map says is where, the walk says is whose. */
static void expect_map_agrees(struct vd_image *img)
{
	struct vd_error e;
	uint64_t at = 0;

	while (at < img->size) {
		struct vd_extent x;
		size_t n;

		expect_ok(vd_image_extents(img, at, img->size - at, &x, 1, &n, &e), &e);
		at = x.off + x.len;
		if (x.depth || !(x.flags & (VD_EXTENT_HOST | VD_EXTENT_PACKED)))
			continue;
		for (uint64_t i = 0; i < x.len; i += 512) {
			const struct vd_host_run *r = walked_at(strcmp(x.file, "x") ? 0 : 1, x.host_off + (x.flags & VD_EXTENT_HOST ? i : 0));

			assert_int_equal(r->owner, x.flags & VD_EXTENT_HOST ? VD_OWNER_DATA : VD_OWNER_PACKED);
			assert_int_equal(r->view, 0);
			if (x.flags & VD_EXTENT_HOST)
				assert_int_equal(r->guest_off + (x.host_off + i - r->off), x.off + i);
		}
	}
}

static void every_byte_has_one_owner(void **state)
{
	for (size_t i = 0; i < n_variants; i++) {
		struct vd_image *img;

		if (!variants[i].format->walk)
			continue;
		if (!make_used(&variants[i], &img)) {
			model_free(&model);
			continue;
		}
		walk_host(img, 64);
		assert_int_equal(walked.n_findings, 0);
		assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 0);
		assert_int_equal(walked_bytes(VD_OWNER_LEAKED, VD_N_WHYS), 0);
		expect_map_agrees(img);
		done(img);
		disks_stop(state);
		disks_start(state);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(every_byte_has_one_owner),
	};

	return cmocka_run_group_tests_name("host", tests, vd_tempdir_enter, vd_tempdir_leave);
}
