/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Acts on images whose tables somebody has damaged: each ends with success or with an error that leaves the header as it
 * was. The sanitizers watch over the rest. VD_RANDOM_OPS: how many images; VD_RANDOM_SEED: others.
 */
#include "libvdisk/base/checked.h"
#include "tests/support/model.h"

#define IMAGES 1500
#define CLUSTER 512
#define SIZE (96 * 1024)
#define HEADER 512

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* Two snapshots, some clusters shared; in clusters this small most of the file is tables. */
static void make(struct model *m)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	opts.cluster_size = CLUSTER;
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_commit(img);
	disk_close(img);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_WRITE);
	model_fill(m, img, 1000, 9000, 1);
	expect_ok(vd_snapshot_create(img, "a", &e), &e);
	model_fill(m, img, 5000, 8000, 2);
	expect_ok(vd_snapshot_create(img, "b", &e), &e);
	model_fill(m, img, 60000, 3000, 3);
	disk_close(img);
}

static uint8_t *load(uint64_t *size)
{
	struct vd_io *io;
	uint8_t *bytes;

	assert_int_equal(disks.mem->open(disks.mem, "d", 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, size, NULL), 0);
	bytes = malloc(*size);
	assert_int_equal(vd_io_pread(io, bytes, *size, 0, NULL), 0);
	vd_io_abort(io);
	return bytes;
}

/* A word, or a byte of one, becomes something that could mean something. */
static void damage(uint8_t *bytes, uint64_t size, uint64_t *chance)
{
	uint64_t at = vd_round_down(chance_below(chance, chance_below(chance, 4) ? size : 128), 8);
	const uint64_t values[] = {
		0, UINT64_MAX, chance_next(chance), chance_below(chance, size), vd_round_down(chance_below(chance, size), CLUSTER),
		UINT64_C(1) << 63 | vd_round_down(chance_below(chance, size), CLUSTER), UINT64_C(1) << chance_below(chance, 64),
	};

	if (chance_below(chance, 3) == 0)
		bytes[at + chance_below(chance, 8)] ^= 1 << chance_below(chance, 8);
	else
		vd_put_be64(bytes + at, values[chance_below(chance, sizeof(values) / sizeof(values[0]))]);
}

static int act(struct vd_image *img, uint64_t which, struct vd_error *e)
{
	switch (which) {
	case 0: return vd_snapshot_create(img, "c", e);
	case 1: return vd_snapshot_apply(img, "a", e);
	case 2: return vd_snapshot_delete(img, "a", e);
	case 3: return vd_image_resize(img, SIZE / 2 + 512, VD_RESIZE_SHRINK, e);
	default: return vd_image_resize(img, SIZE * 3, 0, e);
	}
}

static void look_into_snapshot(void)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, 0);
	struct vd_image *img = NULL;
	struct vd_error e;
	uint8_t buf[4096];

	opts.snapshot = "b";
	if (vd_image_open_on(disks.mem, &vd_format_qcow2, "d", &opts, &img, &e) < 0)
		return;
	if (vd_image_size(img) > sizeof(buf) && vd_image_pread(img, buf, sizeof(buf), 2000, &e) < 0)
		assert_true(e.message[0]);
	vd_image_abort(img);
}

static void try_one(const uint8_t *damaged, uint64_t which)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_WRITE);
	struct vd_image *img = NULL;
	struct vd_error e;
	uint64_t size;
	uint8_t *now;
	int r;

	if (vd_image_open_on(disks.mem, &vd_format_qcow2, "d", &opts, &img, &e) < 0)
		return;
	r = act(img, which, &e);
	vd_image_abort(img);
	now = load(&size);
	if (r < 0 && memcmp(now, damaged, HEADER))
		/* A disk that grows has its tables moved before something may go wrong with its zeros. */
		assert_true(which == 4 && !memcmp(now + 24, damaged + 24, 8));
	free(now);
}

static void damaged_tables_end_in_an_error_or_are_taken(void **state)
{
	uint64_t chance = setting("VD_RANDOM_SEED", 1), size, n = setting("VD_RANDOM_OPS", IMAGES);
	struct model m;
	uint8_t *good;

	(void)state;
	print_message("# VD_RANDOM_SEED=%llu\n", (unsigned long long)chance);
	model_init(&m, SIZE, chance);
	make(&m);
	good = load(&size);
	for (uint64_t i = 0; i < n; i++) {
		uint8_t *bytes = malloc(size);

		memcpy(bytes, good, size);
		for (uint64_t k = 1 + chance_below(&chance, 3); k; k--)
			damage(bytes, size, &chance);
		assert_int_equal(vd_mem_put(disks.mem, "d", bytes, size, NULL), 0);
		look_into_snapshot();
		try_one(bytes, chance_below(&chance, 5));
		free(bytes);
	}
	free(good);
	model_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(damaged_tables_end_in_an_error_or_are_taken, disks_start, disks_stop),
	};

	return cmocka_run_group_tests_name("shape hostile", tests, NULL, NULL);
}
