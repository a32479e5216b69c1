/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New qcow2 images: what is in the file, what is refused. That qemu takes them, tests/interop/to_qemu.sh shows. */
#include "tests/support/qcow2_bytes.h"

#include "formats/qcow2/qcow2.h"

#define qcow2 (&vd_format_qcow2)
#define MIB (UINT64_C(1) << 20)
#define TIB (MIB * MIB)

static void create(struct vd_create_opts o)
{
	struct vd_image *img;

	disks.mem->unlink(disks.mem, "x", NULL);
	disks.mem->unlink(disks.mem, "data", NULL);
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
	expect_sound("x");
}

static void the_default_is_version_3_as_qemu_makes_it(void **state)
{
	/* qemu-img 7.2 create -f qcow2 of 5 MiB, up to the feature names. */
	static const uint8_t head[] = {
		0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0x50, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 4, 0, 0, 0, 112, 0, 0, 0, 0, 0, 0, 0, 0, 0x68, 0x03, 0xf8, 0x57, 0, 0, 1, 0x80,
		0, 0, 'd', 'i', 'r', 't', 'y', ' ', 'b', 'i', 't', 0,
	};
	uint8_t got[sizeof(head)];

	(void)state;
	create(disk_create_opts(qcow2, 5 * MIB));
	bytes_read("x", 0, got, sizeof(got));
	assert_memory_equal(got, head, sizeof(head));
}

static void each_option_is_where_the_format_has_it(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, MIB);

	(void)state;
	o.flags = VD_CREATE_COMPAT_V2;
	create(o);
	assert_true(bytes_get("x", 4, 4) == 2 && bytes_get("x", 72, 8) == 0);
	o.flags = VD_CREATE_EXTENDED_L2 | VD_CREATE_LAZY_REFCOUNTS;
	o.compression = VD_COMPRESSION_ZSTD;
	o.refcount_bits = 64;
	create(o);
	assert_true(bytes_get("x", 20, 4) == 17);
	assert_true(bytes_get("x", 72, 8) == (QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTENDED_L2));
	assert_true(bytes_get("x", 80, 8) == QCOW2_COMPAT_LAZY && bytes_get("x", 96, 4) == 6 && bytes_get("x", 104, 1) == 1);
	o = disk_create_opts(qcow2, MIB);
	o.data_file = "data";
	o.flags = VD_CREATE_DATA_FILE_RAW;
	create(o);
	assert_true(bytes_get("x", 72, 8) == QCOW2_INCOMPAT_DATA_FILE && bytes_get("x", 88, 8) == 2);
	assert_true(bytes_get("x", 112, 8) == UINT64_C(0x4441544100000004) && bytes_get("x", 120, 4) == 0x64617461);
	assert_true(bytes_size("data") == MIB);
}

static void the_backing_file_is_named_with_its_format(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, 0);
	char name[8] = { 0 };

	(void)state;
	disk_put_raw("base", MIB + 512, 1);
	o.backing_file = "base";
	o.backing_format = "raw";
	create(o);
	assert_true(bytes_get("x", 24, 8) == MIB + 512 && bytes_get("x", 16, 4) == 4);
	bytes_read("x", bytes_get("x", 8, 8), name, 4);
	assert_string_equal(name, "base");
	assert_true(bytes_get("x", 112, 8) == UINT64_C(0xe2792aca00000003) && bytes_get("x", 120, 3) == 0x726177);
}

/* The driver's create() alone: what the header holds is the key room's. */
static void the_key_area_lies_first_and_is_named_first(void **state)
{
	static const uint8_t key[3 * 65536 - 100] = { [0] = 'L', [3 * 65536 - 101] = 'E' };
	struct vd_create_opts o = disk_create_opts(qcow2, MIB);
	struct vd_set_opts so = { .host = disks.host, .io_flags = VD_IO_WRITE };
	struct vd_create c = { .opts = &o, .size = MIB, .key_area = { key, sizeof(key) } };
	struct vd_error e;
	struct vd_io *io;

	(void)state;
	expect_ok(disks.host->open(disks.host, "x", VD_IO_CREATE, &io, &e), &e);
	expect_ok(vd_set_new(&so, io, &c.set, &e), &e);
	expect_ok(qcow2->create(&c, &e), &e);
	expect_ok(vd_set_close(c.set, &e), &e);
	assert_true(bytes_get("x", 32, 4) == 2);
	assert_true(bytes_get("x", 0x70, 8) == UINT64_C(0x0537be7700000010));
	assert_true(bytes_get("x", 0x78, 8) == 65536 && bytes_get("x", 0x80, 8) == sizeof(key));
	assert_true(bytes_get("x", 65536, 1) == 'L' && bytes_get("x", 65536 + sizeof(key) - 1, 1) == 'E');
	expect_sound("x");
}

/* `size` bytes that are not zero, as a device holds them. */
static int create_on_device(uint64_t size, struct vd_error *e)
{
	struct vd_create_opts o = disk_create_opts(qcow2, MIB);
	struct vd_set_opts so = { .host = disks.host, .io_flags = VD_IO_WRITE };
	struct vd_create c = { .opts = &o, .size = MIB };
	struct vd_io *io;
	int r;

	disk_put_raw("x", size, 0xff);
	expect_ok(disks.host->open(disks.host, "x", VD_IO_WRITE, &io, e), e);
	io->is_device = true;
	expect_ok(vd_set_new(&so, io, &c.set, e), e);
	r = qcow2->create(&c, e);
	vd_set_abort(c.set);
	return r;
}

static void old_bytes_of_a_device_are_no_tables(void **state)
{
	struct vd_error e;

	(void)state;
	expect_ok(create_on_device(4 * MIB, &e), &e);
	expect_sound("x");
	assert_true(bytes_get("x", bytes_get("x", 40, 8), 8) == 0 && bytes_size("x") == 4 * MIB);
	expect_failure(create_on_device(3 * 65536, &e), VD_ENOSPC, &e, "device has 196608 bytes, the tables of an empty image need");
}

static void every_cluster_size_and_width_is_sound(void **state)
{
	(void)state;
	for (uint32_t cluster = 512; cluster <= 2u << 20; cluster *= 2)
		for (uint32_t bits = 1; bits <= 64; bits *= 2) {
			struct vd_create_opts o = disk_create_opts(qcow2, 64 * MIB);

			o.cluster_size = cluster;
			o.refcount_bits = bits;
			create(o);
			assert_true(bytes_get("x", bytes_get("x", 40, 8), 8) == 0);
		}
}

static void sizes_go_to_the_limits(void **state)
{
	static const struct { uint64_t size; uint32_t cluster; unsigned flags; bool fits; } cases[] = {
		{ 0, 0, 0, true },
		{ 512, 0, 0, true },
		{ 64 * TIB, 0, 0, true },
		{ 2048 * TIB, 0, 0, true },                     /* 32 MiB of L1 at clusters of 64 KiB */
		{ 2048 * TIB + 512, 0, 0, false },
		{ 128 * 1024 * MIB, 512, 0, true },
		{ 128 * 1024 * MIB + 512, 512, 0, false },
		{ 4096 * TIB, 0, VD_CREATE_EXTENDED_L2, true },
		{ 4096 * TIB + 512, 0, VD_CREATE_EXTENDED_L2, false },
		{ 2 * MIB * TIB, 2u << 20, 0, true },
		{ INT64_MAX - 511, 2u << 20, 0, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vd_create_opts o = disk_create_opts(qcow2, cases[i].size);
		struct vd_image *img = NULL;
		struct vd_error e;

		disks.mem->unlink(disks.mem, "x", NULL);
		o.cluster_size = cases[i].cluster;
		o.flags = cases[i].flags;
		if (cases[i].fits) {
			create(o);
			img = disk_open(qcow2, "x", 0);
			assert_true(vd_image_size(img) == cases[i].size);
			disk_close(img);
			continue;
		}
		expect_failure(vd_image_create_on(disks.host, qcow2, "x", &o, &img, &e), VD_EARG, &e, "too large for clusters");
		assert_non_null(strstr(e.hint, "larger cluster size"));
	}
}

/* A disk of 64 TiB written full does not move its refcount table, and is no burden while it is empty. */
static void the_refcount_table_is_large_enough(void **state)
{
	uint64_t reach;

	(void)state;
	create(disk_create_opts(qcow2, 64 * TIB));
	reach = bytes_get("x", 56, 4) * 65536 / 8 * 32768 * 65536;
	assert_true(reach > 64 * TIB + TIB);
	assert_true(bytes_size("x") < 2 * MIB);
}

static void what_cannot_be_is_refused(void **state)
{
	static char long_name[1025];
	const struct { struct vd_create_opts o; int code; const char *words; } cases[] = {
		{ { .cluster_size = 256 }, VD_EARG, "cluster size of 256" },
		{ { .cluster_size = 65537 }, VD_EARG, "cluster size of 65537" },
		{ { .cluster_size = 4u << 20 }, VD_EARG, "cluster size of 4194304" },
		{ { .cluster_size = 8192, .flags = VD_CREATE_EXTENDED_L2 }, VD_EARG, "8192 is not possible with extended L2" },
		{ { .refcount_bits = 3 }, VD_EARG, "refcounts of 3 bits" },
		{ { .refcount_bits = 128 }, VD_EARG, "refcounts of 128 bits" },
		{ { .refcount_bits = 8, .flags = VD_CREATE_COMPAT_V2 }, VD_EUNSUPPORTED, "version 2 has no refcounts other" },
		{ { .flags = VD_CREATE_COMPAT_V2 | VD_CREATE_EXTENDED_L2 }, VD_EUNSUPPORTED, "version 2 has no extended" },
		{ { .flags = VD_CREATE_COMPAT_V2 | VD_CREATE_LAZY_REFCOUNTS }, VD_EUNSUPPORTED, "version 2 has no lazy" },
		{ { .flags = VD_CREATE_COMPAT_V2, .compression = VD_COMPRESSION_ZSTD }, VD_EUNSUPPORTED, "has no zstd" },
		{ { .flags = VD_CREATE_COMPAT_V2, .data_file = "data" }, VD_EUNSUPPORTED, "has no external data files" },
		{ { .flags = VD_CREATE_DATA_FILE_RAW }, VD_EARG, "a raw data file needs a name" },
		{ { .flags = VD_CREATE_DATA_FILE_RAW, .data_file = "data", .backing_file = "base", .backing_format = "raw" },
		  VD_EUNSUPPORTED, "cannot have a backing file" },
		{ { .backing_file = long_name, .backing_format = "raw" }, VD_EARG, "1024 bytes, must be at most 1023" },
		{ { .cluster_size = 512, .backing_file = long_name + 600, .backing_format = "raw" }, VD_EARG, "do not fit the header" },
	};

	(void)state;
	memset(long_name, 'n', 1024);
	disk_put_raw("base", 512, 1);
	disk_put_raw(long_name, 512, 1);
	disk_put_raw(long_name + 600, 512, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vd_create_opts o = cases[i].o;
		struct vd_image *img = NULL;
		struct vd_error e;

		o.struct_size = sizeof(o);
		o.format = "qcow2";
		o.size = MIB;
		o.gate = disks_gate;
		expect_failure(vd_image_create_on(disks.host, qcow2, "x", &o, &img, &e), cases[i].code, &e, cases[i].words);
		assert_false(disks.mem->exists(disks.mem, "x") || disks.mem->exists(disks.mem, "x.vdisk-partial"));
		assert_false(disks.mem->exists(disks.mem, "data") || disks.mem->exists(disks.mem, "data.vdisk-partial"));
	}
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(the_default_is_version_3_as_qemu_makes_it),
		T(each_option_is_where_the_format_has_it),
		T(the_backing_file_is_named_with_its_format),
		T(the_key_area_lies_first_and_is_named_first),
		T(old_bytes_of_a_device_are_no_tables),
		T(every_cluster_size_and_width_is_sound),
		T(sizes_go_to_the_limits),
		T(the_refcount_table_is_large_enough),
		T(what_cannot_be_is_refused),
	};
#undef T

	return cmocka_run_group_tests(tests, NULL, NULL);
}
