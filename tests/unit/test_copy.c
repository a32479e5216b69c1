/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a copy holds, what it leaves out, where it puts it, and which copies are refused. Failures: test_copy_faults.c. */
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/targets.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)
#define CLUSTER 65536
#define raw (&vd_format_raw)
#define qcow2 (&vd_format_qcow2)

/* ---- every kind to every kind ------------------------------------------------------------------------- */

/* Data, zeros and untouched parts in pieces of all lengths, cut at no boundary in particular. */
static void scatter(struct model *m, struct vd_image *img, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t off = chance_below(&m->chance, m->size);
		uint64_t len = vd_min_u64(m->size - off, 1 + chance_below(&m->chance, i % 3 ? 9000 : 200000));

		if (i % 4 == 3)
			model_zero(m, img, off, len);
		else if (i % 4 == 2)
			model_fill(m, img, off, len, i);
		else
			model_write(m, img, off, len);
	}
}

static void expect_sound_tables(const struct target *t, const char *name)
{
	struct qcow2_verdict verdict;

	if (t->format != qcow2)
		return;
	verdict = qcow2_check(disks.mem, name);
	if (verdict.n_errors + verdict.n_leaks)
		fail_msg("%s: %u errors, %u leaks in the tables: %s", t->name, verdict.n_errors, verdict.n_leaks,
			 verdict.first);
}

static void copy_and_check(const struct target *t, struct vd_image *src, const struct model *m)
{
	struct vd_outcome o = target_copy(t, src, "o", 0, 3);
	struct vd_image *dst = target_open(t, "o");

	print_message("# into %s\n", t->name);
	assert_in_range(vd_image_size(dst), m->size, m->size + 4095);
	assert_int_equal(o.done, vd_image_size(dst));
	assert_false(o.changed);
	model_check_all(m, dst);
	for (uint64_t off = m->size; off < vd_image_size(dst); off++)
		disk_expect(dst, off, 1, 0);
	disk_close(dst);
	expect_sound_tables(t, "o");
}

static void a_copy_into_any_kind_reads_the_same(void **state)
{
	const struct variant *v = *state;
	struct vd_image *src;
	struct model m;

	model_init(&m, v->size, 7);
	if (!variant_make(v, &m))
		skip();
	src = variant_open(v, VD_OPEN_WRITE);
	scatter(&m, src, 40);
	disk_close(src);
	src = variant_open(v, 0);
	for (size_t i = 0; i < n_targets; i++)
		copy_and_check(&targets[i], src, &m);
	disk_close(src);
	model_free(&m);
}

/* ---- sizes -------------------------------------------------------------------------------------------- */

static void what_the_source_lacks_reads_as_zeros(void **state)
{
	const uint64_t size = 3 * MIB + 77;

	(void)state;
	disk_put_raw("d", size, 0xa5);
	for (size_t i = 0; i < n_targets; i++) {
		struct vd_image *src = disk_open(raw, "d", 0), *dst;
		struct vd_outcome o = target_copy(&targets[i], src, "o", 5 * MIB, 2);

		assert_int_equal(o.done, 5 * MIB);
		dst = target_open(&targets[i], "o");
		assert_int_equal(vd_image_size(dst), 5 * MIB);
		disk_expect(dst, 0, size, 0xa5);
		disk_expect(dst, size, 5 * MIB - size, 0);
		disk_close(dst);
		disk_close(src);
	}
}

static void the_smallest_disks_are_copied(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 511, 512, 4096, 4097, MIB, MIB + 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct vd_image *src, *dst;

		disk_put_raw("d", sizes[i], 0x11);
		src = disk_open(raw, "d", 0);
		assert_int_equal(target_copy(target_named("raw"), src, "o", 0, 2).done, sizes[i]);
		dst = target_open(target_named("raw"), "o");
		assert_int_equal(vd_image_size(dst), sizes[i]);
		disk_expect(dst, 0, sizes[i], 0x11);
		disk_close(dst);
		disk_close(src);
	}
}

/* ---- zeros -------------------------------------------------------------------------------------------- */

/* A raw file that is a hole but for a little data in a few places. */
static struct vd_image *make_sparse(uint64_t size, const uint64_t *places, size_t n)
{
	struct vd_image *img;

	disk_make(raw, "d", size, NULL);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	for (size_t i = 0; i < n; i++)
		disk_write(img, places[i], 100, 0x77);
	disk_close(img);
	return disk_open(raw, "d", 0);
}

static uint64_t data_bytes(struct vd_image *img)
{
	struct vd_extent x[64];
	uint64_t sum = 0, off = 0;
	struct vd_error e;
	size_t n;

	while (off < vd_image_size(img)) {
		expect_ok(vd_image_extents(img, off, vd_image_size(img) - off, x, 64, &n, &e), &e);
		for (size_t i = 0; i < n; i++)
			sum += x[i].flags & VD_EXTENT_DATA ? x[i].len : 0;
		off = x[n - 1].off + x[n - 1].len;
	}
	return sum;
}

static void holes_and_zeros_stay_unallocated(void **state)
{
	static const uint64_t places[] = { 5000, 3 * MIB - 50, 700 * MIB };
	/* A hole of the memory host is 64 KiB; a raw copy writes the pages that hold data. */
	static const struct { const char *target; uint64_t unit; } table[] = {
		{ "raw", 4096 }, { "qcow2", CLUSTER }, { "qcow2 luks", CLUSTER }, { "qcow2 512", 4096 },
	};
	struct vd_image *src = make_sparse(1024 * MIB + 3, places, 3);

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct vd_outcome o = target_copy(target_named(table[i].target), src, "o", 0, 2);
		struct vd_image *dst = target_open(target_named(table[i].target), "o");

		assert_int_equal(o.written, 4 * table[i].unit);
		assert_int_equal(data_bytes(dst), 4 * (i ? table[i].unit : CLUSTER));
		for (int p = 0; p < 3; p++)
			disk_expect(dst, places[p], 100, 0x77);
		disk_close(dst);
	}
	disk_close(src);
}

static void allocated_zeros_are_found(void **state)
{
	struct vd_image *src, *dst;

	(void)state;
	disk_put_raw("d", 4 * MIB, 0);
	src = disk_open(raw, "d", 0);
	assert_int_equal(data_bytes(src), 4 * MIB);
	for (size_t i = 0; i < n_targets; i++) {
		struct vd_outcome o = target_copy(&targets[i], src, "o", 0, 2);

		/* Only a container has to write them; packed, ciphertext becomes a little more. */
		if (targets[i].encrypts && !targets[i].format->encrypts)
			assert_in_range(o.written, 4 * MIB, 4 * MIB + (targets[i].compresses ? 64 * KIB : 0));
		else
			assert_int_equal(o.written, 0);
		assert_int_equal(o.done, 4 * MIB);
		dst = target_open(&targets[i], "o");
		disk_expect(dst, 0, 4 * MIB, 0);
		disk_close(dst);
	}
	disk_close(src);
}

static void an_empty_disk_of_many_terabytes_takes_no_time(void **state)
{
	struct vd_outcome o;
	struct vd_image *src;

	(void)state;
	disk_make(qcow2, "d", (uint64_t)64 << 40, NULL);
	src = disk_open(qcow2, "d", 0);
	o = target_copy(target_named("qcow2"), src, "o", 0, 2);
	assert_int_equal(o.done, (uint64_t)64 << 40);
	assert_int_equal(o.written, 0);
	disk_close(src);
}

/* What shows through from a parent must be covered where the source has zeros. */
static void zeros_cover_a_parent(void **state)
{
	static const uint64_t places[] = { 0, 2 * MIB, 2 * MIB + 8 * CLUSTER };
	struct vd_create_opts opts = disk_create_opts(qcow2, 8 * MIB + 512);
	struct vd_image *src = make_sparse(8 * MIB, places, 3), *dst;
	struct vd_outcome o = { .struct_size = sizeof(o) };
	struct vd_error e;

	(void)state;
	disk_put_raw("p", 8 * MIB + 512, 0xcc);
	opts.backing_file = "p";
	opts.backing_format = "raw";
	dst = disk_create(qcow2, "o", &opts);
	expect_ok(vd_image_copy(src, dst, false, NULL, &o, &e), &e);
	assert_int_equal(o.done, 8 * MIB + 512);
	assert_in_range(o.written, 3 * CLUSTER, 4 * CLUSTER);
	disk_commit(dst);
	for (int i = 0; i < 3; i++)
		disk_expect(dst, places[i], 100, 0x77);
	disk_expect(dst, 100, 2 * MIB - 100, 0);
	disk_expect(dst, 3 * MIB, 5 * MIB + 512, 0);
	disk_close(dst);
	disk_close(src);
}

/* A device holds what it held before, so that a raw copy has to make every zero. */
static void zeros_overwrite_a_device(void **state)
{
	static const uint64_t places[] = { MIB, 3 * MIB + 5000 };
	struct vd_image *src = make_sparse(6 * MIB, places, 2), *dst = NULL;
	struct vd_outcome o = { .struct_size = sizeof(o) };
	struct vd_error e;

	(void)state;
	expect_ok(target_create(target_named("raw"), disks.host, "o", 7 * MIB, &dst, &e), &e);
	disk_write(dst, 0, 7 * MIB, 0xee);
	vd_set_io(dst->set, 0)->is_device = true;
	expect_ok(vd_image_copy(src, dst, false, NULL, &o, &e), &e);
	assert_true(o.changed);
	disk_expect(dst, 0, MIB, 0);
	disk_expect(dst, MIB, 100, 0x77);
	disk_expect(dst, MIB + 100, 2 * MIB + 4900, 0);
	disk_expect(dst, 3 * MIB + 5000, 100, 0x77);
	disk_expect(dst, 3 * MIB + 5100, 4 * MIB - 5100, 0);
	vd_set_io(dst->set, 0)->is_device = false;
	vd_image_abort(dst);
	disk_close(src);
}

/* ---- layout ------------------------------------------------------------------------------------------- */

static uint8_t *read_file(const char *name, uint64_t *size)
{
	struct vd_io *io = NULL;
	uint8_t *bytes;

	assert_int_equal(disks.mem->open(disks.mem, name, 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, size, NULL), 0);
	bytes = malloc(*size + 1);
	assert_int_equal(vd_io_pread(io, bytes, *size, 0, NULL), 0);
	vd_io_abort(io);
	return bytes;
}

static void the_file_does_not_depend_on_the_threads(void **state)
{
	static const char *const names[] = { "raw", "toy", "qcow2", "qcow2 512", "qcow2 deflate", "qcow2 zstd" };
	struct vd_image *src;
	struct model m;

	(void)state;
	model_init(&m, 16 * MIB + 512, 3);
	disk_make(qcow2, "d", m.size, NULL);
	src = disk_open(qcow2, "d", VD_OPEN_WRITE);
	scatter(&m, src, 150);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		vd_auto_free uint8_t *first = NULL;
		uint64_t size, other_size;

		target_copy(target_named(names[i]), src, "one", 0, 1);
		first = read_file("one", &size);
		for (unsigned n = 2; n <= 16; n *= 2) {
			vd_auto_free uint8_t *other = NULL;

			target_copy(target_named(names[i]), src, "many", 0, n);
			other = read_file("many", &other_size);
			assert_int_equal(size, other_size);
			assert_memory_equal(first, other, size);
		}
	}
	disk_close(src);
	model_free(&m);
}

static void payload_lies_in_guest_order_without_gaps(void **state)
{
	struct vd_image *src, *dst;
	struct vd_extent x, before = { 0 };
	struct vd_error e;
	size_t n;

	(void)state;
	disk_put_raw("d", 16 * MIB, 0x42);
	src = disk_open(raw, "d", 0);
	target_copy(target_named("qcow2"), src, "o", 0, 8);
	dst = target_open(target_named("qcow2"), "o");
	for (uint64_t off = 0; off < 16 * MIB; off += x.len, before = x) {
		expect_ok(vd_image_extents(dst, off, 16 * MIB - off, &x, 1, &n, &e), &e);
		/* Before the first are the header and the first of each table; later one table at most comes in between. */
		assert_in_range(x.host_off - (before.host_off + before.len), 0, off ? CLUSTER : 8 * CLUSTER);
	}
	disk_close(dst);
	disk_close(src);
}

/* ---- compression -------------------------------------------------------------------------------------- */

static void units_are_packed_where_that_saves_space(void **state)
{
	struct vd_image *src, *dst;
	struct vd_extent x[2];
	struct vd_outcome o;
	struct vd_error e;
	struct model m;
	size_t n;

	(void)state;
	model_init(&m, 2 * CLUSTER, 1);
	disk_make(raw, "d", m.size, NULL);
	src = disk_open(raw, "d", VD_OPEN_WRITE);
	model_fill(&m, src, 0, CLUSTER, 9);
	model_write(&m, src, CLUSTER, CLUSTER);
	o = target_copy(target_named("qcow2 deflate"), src, "o", 0, 2);
	assert_in_range(o.written, CLUSTER, CLUSTER + 1000);
	dst = target_open(target_named("qcow2 deflate"), "o");
	expect_ok(vd_image_extents(dst, 0, m.size, x, 2, &n, &e), &e);
	assert_int_equal(n, 2);
	assert_true(x[0].flags & VD_EXTENT_PACKED);
	assert_false(x[1].flags & VD_EXTENT_PACKED);
	model_check_all(&m, dst);
	disk_close(dst);
	disk_close(src);
	model_free(&m);
}

/* Pieces that cut units would have each unpacked once a piece. */
static void large_units_are_read_once(void **state)
{
	const struct target packed = {
		"packed", qcow2, false, true, { .compression = VD_COMPRESSION_ZSTD, .cluster_size = 2 * MIB }
	};
	const struct vd_fault_plan reads = { .kinds = VD_OP_READ, .only = "d" };
	struct vd_image *src;

	(void)state;
	disk_put_raw("r", 16 * MIB, 3);
	src = disk_open(raw, "r", 0);
	target_copy(&packed, src, "d", 0, 2);
	disk_close(src);
	src = target_open(&packed, "d");
	disk_expect(src, 0, 1, 3);
	vd_fault_arm(disks.fault, &reads);
	target_copy(target_named("raw"), src, "o", 0, 2);
	assert_int_equal(vd_fault_seen(disks.fault), 8);
	vd_fault_arm(disks.fault, NULL);
	disk_close(src);
}

/* qemu stores compressed clusters in clear even in an encrypted image; a user wants to hear of it. */
static void clear_bytes_of_an_encrypted_source_are_counted(void **state)
{
	const struct target *luks = target_named("qcow2 luks");
	vd_auto_free uint8_t *packed = malloc(CLUSTER), *plain = malloc(CLUSTER);
	struct vd_resv v = { .off = 3 * CLUSTER, .len = CLUSTER };
	struct vd_image *src = NULL;
	struct vd_error e;

	(void)state;
	expect_ok(target_create(luks, disks.host, "d", 4 * MIB, &src, &e), &e);
	disk_write(src, 0, CLUSTER, 1);
	memset(plain, 5, CLUSTER);
	expect_ok(vd_codec_pack(src->codec, src->info.codec, packed, CLUSTER, plain, CLUSTER, &v.packed_len, &e), &e);
	expect_ok(vd_write_reserve(src, &v, &e), &e);
	expect_ok(vd_write_complete(src, &v, packed, &e), &e);
	disk_commit(src);
	disk_close(src);
	src = target_open(luks, "d");
	disk_expect(src, 3 * CLUSTER, CLUSTER, 5);
	assert_int_equal(target_copy(target_named("raw"), src, "o", 0, 2).packed_in_clear, CLUSTER);
	disk_close(src);
}

static void clear_bytes_of_a_plain_source_do_not_count(void **state)
{
	struct vd_image *src;

	(void)state;
	disk_put_raw("r", MIB, 3);
	src = disk_open(raw, "r", 0);
	target_copy(target_named("qcow2 zstd"), src, "d", 0, 1);
	disk_close(src);
	src = target_open(target_named("qcow2 zstd"), "d");
	assert_int_equal(target_copy(target_named("qcow2 luks"), src, "o", 0, 2).packed_in_clear, 0);
	disk_close(src);
}

/* ---- refusals ----------------------------------------------------------------------------------------- */

static void expect_refusal(struct vd_image *src, struct vd_image *dst, bool compress, int code, const char *words)
{
	struct vd_outcome o = { .struct_size = sizeof(o), .done = 99 };
	struct vd_error e;

	expect_failure(vd_image_copy(src, dst, compress, NULL, &o, &e), code, &e, words);
	assert_int_equal(o.done, 0);
}

static void what_cannot_be_is_refused(void **state)
{
	static const struct { const char *target; uint64_t size; bool compress; int code; const char *words; } table[] = {
		{ "qcow2", MIB - 512, false, VD_EARG, "too few for the 1048576 of d" },
		{ "qcow2 luks", MIB, true, VD_EUNSUPPORTED, "compressed and encrypted" },
		{ "luks1", MIB, true, VD_EUNSUPPORTED, "compressed and encrypted" },
		{ "raw", MIB, true, VD_EUNSUPPORTED, "raw does not compress" },
		{ "toy", MIB, true, VD_EUNSUPPORTED, "toy does not compress" },
		{ "qcow2 data file", MIB, true, VD_EUNSUPPORTED, "does not compress" },
	};
	struct vd_image *src, *dst = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", MIB, 1);
	src = disk_open(raw, "d", 0);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		expect_ok(target_create(target_named(table[i].target), disks.host, "o", table[i].size, &dst, &e), &e);
		expect_refusal(src, dst, table[i].compress, table[i].code, table[i].words);
		vd_image_abort(dst);
	}
	disk_close(src);
}

static void only_a_new_image_is_copied_into(void **state)
{
	struct vd_image *src, *dst;

	(void)state;
	disk_put_raw("d", MIB, 1);
	disk_make(qcow2, "o", MIB, NULL);
	src = disk_open(raw, "d", 0);
	dst = disk_open(qcow2, "o", VD_OPEN_WRITE);
	expect_refusal(src, dst, false, VD_EARG, "not yet committed");
	disk_close(dst);
	disk_close(src);
}

/* What lies in a parent that was not opened must not pass for zeros. */
static void an_overlay_without_its_parent_is_refused(void **state)
{
	struct vd_image *src, *dst = NULL;
	struct vd_error e;

	(void)state;
	disk_make(qcow2, "p", MIB, NULL);
	disk_make(qcow2, "d", MIB, "p");
	src = disk_open(qcow2, "d", VD_OPEN_METADATA);
	expect_ok(target_create(target_named("raw"), disks.host, "o", MIB, &dst, &e), &e);
	expect_refusal(src, dst, false, VD_EREFERENCE, "backing file was not opened");
	vd_image_abort(dst);
	disk_close(src);
}

static void structs_of_another_size_are_refused(void **state)
{
	struct vd_job job = { .struct_size = sizeof(job) - 1 };
	struct vd_outcome o = { .struct_size = sizeof(o) + 1 };
	struct vd_image *src, *dst = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", MIB, 1);
	src = disk_open(raw, "d", 0);
	expect_ok(target_create(target_named("raw"), disks.host, "o", MIB, &dst, &e), &e);
	expect_failure(vd_image_copy(src, dst, false, &job, NULL, &e), VD_EARG, &e, "struct vd_job");
	expect_failure(vd_image_copy(src, dst, false, NULL, &o, &e), VD_EARG, &e, "struct vd_outcome");
	vd_image_abort(dst);
	disk_close(src);
}

#define test(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

static int run_variants(void)
{
	struct CMUnitTest *tests = calloc(n_variants, sizeof(*tests));
	int r;

	for (size_t i = 0; i < n_variants; i++)
		tests[i] = (struct CMUnitTest){ variants[i].name, a_copy_into_any_kind_reads_the_same, disks_start, disks_stop,
						(void *)&variants[i] };
	r = _cmocka_run_group_tests("copy_of", tests, n_variants, NULL, NULL);
	free(tests);
	return r;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_the_source_lacks_reads_as_zeros),
		test(the_smallest_disks_are_copied),
		test(holes_and_zeros_stay_unallocated),
		test(allocated_zeros_are_found),
		test(an_empty_disk_of_many_terabytes_takes_no_time),
		test(zeros_cover_a_parent),
		test(zeros_overwrite_a_device),
		test(the_file_does_not_depend_on_the_threads),
		test(payload_lies_in_guest_order_without_gaps),
		test(units_are_packed_where_that_saves_space),
		test(large_units_are_read_once),
		test(clear_bytes_of_an_encrypted_source_are_counted),
		test(clear_bytes_of_a_plain_source_do_not_count),
		test(what_cannot_be_is_refused),
		test(only_a_new_image_is_copied_into),
		test(an_overlay_without_its_parent_is_refused),
		test(structs_of_another_size_are_refused),
	};
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	r = cmocka_run_group_tests_name("copy", tests, NULL, NULL) + run_variants();
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
