/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another LUKS header for an image, or none: what was encrypted before the word was given is read by it, here and by qemu. */
#include "tests/support/hostwalk.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/recrypt.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include "formats/qcow2/qcow2.h"
#include <errno.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

static const char *const kinds[] = {
	"qcow2", "qcow2 512", "qcow2 512 refcount 1", "qcow2 4k refcount 64", "qcow2 v2 over raw", "qcow2 extended l2 over raw",
	"qcow2 over qcow2", "qcow2 data file", "qcow2 snapshot", "qcow2 lazy",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int start(void **state)
{
	int r = vd_tempdir_enter(state);

	return r < 0 ? r : disks_start(NULL);
}

static int stop(void **state)
{
	int r = disks_stop(NULL);

	return vd_tempdir_leave(state) < 0 ? -1 : r;
}

/* For the next kind. */
static void restart(struct model *m)
{
	model_free(m);
	assert_int_equal(disks_stop(NULL), 0);
	assert_int_equal(disks_start(NULL), 0);
}

/* An image of the kind with holes, zeros and data; encrypted is what it will be. */
static bool prepare_own(const struct variant *kind, struct variant *v, struct model *m)
{
	struct vd_image *img;

	*v = *kind;
	model_init(m, v->size, 7);
	if (!variant_make(v, m))
		return false;
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(m, img, m->size / 4, m->size / 3);
	model_write(m, img, m->size - 700, 700);
	model_zero(m, img, m->size / 3, m->size / 8);
	disk_close(img);
	return true;
}

static bool prepare(const char *kind, struct variant *v, struct model *m)
{
	return prepare_own(variant_named(kind), v, m);
}

static void expect_content(const struct variant *v, const struct model *m)
{
	struct vd_image *img = variant_open(v, 0);

	model_check_all(m, img);
	disk_close(img);
	expect_sound("d");
	if (peer_is_here()) {
		peer_check(v, disks.mem, false);
		peer_compare(v, disks.mem, m);
	}
}

static void encrypt(const struct recrypt *to)
{
	struct vd_image *img = recrypt_open(0);
	struct vd_error e;

	recrypt_data(img, UINT64_MAX, NULL, &to->layer);
	expect_ok(recrypt_set(img, to, &e), &e);
	assert_int_equal(img->info.encryption, VD_ENCRYPTED_LUKS);
	assert_int_equal(img->info.key_area_len, to->header_len);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	assert_non_null(walked_first(VD_OWNER_KEYAREA, VD_N_WHYS));
	walk_free();
	disk_close(img);
}

static void an_image_of_any_kind_becomes_encrypted(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct recrypt to;
		struct variant v;
		struct model m;
		uint64_t end;

		if (!prepare(kinds[i], &v, &m)) {
			restart(&m);
			continue;
		}
		recrypt_init(&to);
		end = vd_round_up(bytes_size("d"), 512);
		encrypt(&to);
		v.flags |= VARIANT_LUKS;
		expect_content(&v, &m);
		/* In space of its own. */
		assert_true(bytes_size("d") >= end + to.header_len / 512 * 512);
		recrypt_free(&to);
		restart(&m);
	}
}

/* The key area is more than the refcount table reaches. */
static void the_refcount_table_may_move(void **state)
{
	static const struct variant small = {
		"qcow2 512 refcount 64", &vd_format_qcow2, 0, 64 << 10, 512, { .cluster_size = 512, .refcount_bits = 64 },
	};
	struct recrypt to;
	struct variant v;
	struct model m;
	uint64_t table;

	(void)state;
	assert_true(prepare_own(&small, &v, &m));
	table = bytes_get("d", QCOW2_AT_REFT_OFF, 8);
	recrypt_init(&to);
	encrypt(&to);
	assert_true(bytes_get("d", QCOW2_AT_REFT_OFF, 8) != table);
	v.flags |= VARIANT_LUKS;
	expect_content(&v, &m);
	recrypt_free(&to);
	model_free(&m);
}

/* What is known of bitmaps stays: the disk is the same. */
static void bitmaps_stay(void **state)
{
	struct vd_bitmap *list;
	struct vd_image *img;
	struct recrypt to;
	struct vd_error e;
	struct variant v;
	struct model m;
	size_t n;

	(void)state;
	assert_true(prepare("qcow2", &v, &m));
	img = variant_open(&v, VD_OPEN_WRITE);
	expect_ok(vd_bitmap_create(img, "b", 65536, 0, &e), &e);
	model_write(&m, img, 0, 1000);
	disk_close(img);
	recrypt_init(&to);
	encrypt(&to);
	v.flags |= VARIANT_LUKS;
	expect_content(&v, &m);
	img = variant_open(&v, 0);
	expect_ok(vd_bitmap_list(img, &list, &n, &e), &e);
	assert_int_equal(n, 1);
	assert_null(list[0].unusable);
	vd_bitmap_list_free(list);
	disk_close(img);
	recrypt_free(&to);
	model_free(&m);
}

static bool is_zero_at(uint64_t off, uint64_t len)
{
	vd_auto_free uint8_t *bytes = malloc(len);

	bytes_read("d", off, bytes, len);
	return vd_is_zero(bytes, len);
}

/* With a note on its slot. */
static void make_luks(struct variant *v, struct model *m)
{
	struct vd_keyslot_opts o = { .struct_size = sizeof(o), .label = "second", .kdf = { .iterations = 1000 } };
	struct vd_key *key = NULL, *second = NULL;
	struct vd_image *img;
	struct vd_error e;

	assert_true(prepare("qcow2 luks", v, m));
	expect_ok(vd_key_from_bytes("correct horse", 13, &key, &e), &e);
	expect_ok(vd_key_from_bytes("battery", 7, &second, &e), &e);
	img = recrypt_open(0);
	expect_ok(vd_keyslot_add(img, key, second, &o, NULL, &e), &e);
	assert_true(img->info.key_notes.len > 0);
	disk_close(img);
	vd_key_free(key);
	vd_key_free(second);
}

/* From what the image has to another header, or to none. */
static void turn_to(const struct variant *v, const struct recrypt *to, unsigned flags)
{
	struct vd_image *keyed = variant_open(v, 0), *img;
	struct vd_layer from = keyed->layer;
	struct vd_error e;

	keyed->layer.cipher = NULL;
	disk_close(keyed);
	img = recrypt_open(flags);
	recrypt_data(img, UINT64_MAX, &from, to ? &to->layer : NULL);
	expect_ok(recrypt_set(img, to, &e), &e);
	assert_int_equal(img->info.key_notes.len, 0);
	disk_close(img);
	vd_layer_fini(&from);
}

static void an_encrypted_image_becomes_plain(void **state)
{
	(void)state;
	for (int scrubs = 0; scrubs < 2; scrubs++) {
		struct vd_image *img;
		struct variant v;
		struct model m;
		uint64_t off, len;

		make_luks(&v, &m);
		img = recrypt_open(0);
		off = img->info.key_area_off;
		len = img->info.key_area_len;
		disk_close(img);
		turn_to(&v, NULL, scrubs ? VD_OPEN_SCRUB_FREED : 0);
		v.flags &= ~VARIANT_LUKS;
		expect_content(&v, &m);
		img = recrypt_open(0);
		assert_int_equal(img->info.encryption, VD_PLAIN);
		assert_int_equal(img->info.key_area_len, 0);
		disk_close(img);
		assert_int_equal(bytes_refcount("d", off), 0);
		assert_int_equal(is_zero_at(off, len), scrubs);
		restart(&m);
	}
}

static void another_key_takes_the_place_of_the_first(void **state)
{
	struct recrypt to;
	struct variant v;
	struct model m;

	(void)state;
	make_luks(&v, &m);
	recrypt_init(&to);
	turn_to(&v, &to, VD_OPEN_SCRUB_FREED);
	expect_content(&v, &m);
	recrypt_free(&to);
	model_free(&m);
}

static void the_same_handle_goes_on(void **state)
{
	struct vd_image *img;
	struct recrypt to;
	struct variant v;
	struct vd_error e;
	struct model m;

	(void)state;
	assert_true(prepare("qcow2", &v, &m));
	recrypt_init(&to);
	img = recrypt_open(0);
	expect_ok(recrypt_set(img, &to, &e), &e);
	expect_ok(recrypt_set(img, &to, &e), &e);
	expect_ok(recrypt_set(img, NULL, &e), &e);
	expect_ok(recrypt_set(img, NULL, &e), &e);
	recrypt_data(img, UINT64_MAX, NULL, &to.layer);
	expect_ok(recrypt_set(img, &to, &e), &e);
	expect_ok(vd_snapshot_create(img, "later", &e), &e);
	disk_close(img);
	v.flags |= VARIANT_LUKS;
	expect_content(&v, &m);
	recrypt_free(&to);
	model_free(&m);
}

/* Where the old area was something else may lie, on this handle, too. */
static void the_old_place_is_free(void **state)
{
	struct vd_image *img;
	struct recrypt to;
	struct variant v;
	struct vd_error e;
	struct model m;
	uint64_t off;

	(void)state;
	make_luks(&v, &m);
	recrypt_init(&to);
	img = disk_open(v.format, "d", VD_OPEN_CONTROL);
	off = img->info.key_area_off;
	expect_ok(recrypt_set(img, NULL, &e), &e);
	expect_ok(recrypt_set(img, &to, &e), &e);
	assert_int_equal(img->info.key_area_off, off);
	disk_close(img);
	expect_sound("d");
	recrypt_free(&to);
	model_free(&m);
}

static void a_failed_write_gives_its_space_back(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .nth = 1, .err = EIO };
	struct vd_image *img;
	struct recrypt to;
	struct variant v;
	struct vd_error e;
	struct model m;

	(void)state;
	assert_true(prepare("qcow2", &v, &m));
	recrypt_init(&to);
	img = recrypt_open(0);
	vd_fault_arm(disks.fault, &plan);
	expect_failure(recrypt_set(img, &to, &e), VD_EIO, &e, "");
	vd_fault_arm(disks.fault, NULL);
	/* The next act commits that. */
	expect_ok(vd_snapshot_create(img, "later", &e), &e);
	disk_close(img);
	expect_sound("d");
	recrypt_free(&to);
	model_free(&m);
}

/* ---- what cannot be ------------------------------------------------------------------------------------- */

static void expect_refusal(int code, const char *words)
{
	uint64_t size = bytes_size("d");
	uint8_t *before = malloc(size), *after = malloc(size);
	struct vd_image *img;
	struct recrypt to;
	struct vd_error e;

	bytes_read("d", 0, before, size);
	recrypt_init(&to);
	img = recrypt_open(0);
	expect_failure(recrypt_set(img, &to, &e), code, &e, words);
	assert_int_equal(img->info.encryption, VD_PLAIN);
	disk_close(img);
	assert_int_equal(bytes_size("d"), size);
	bytes_read("d", 0, after, size);
	assert_memory_equal(before, after, size);
	recrypt_free(&to);
	free(before);
	free(after);
}

static void a_raw_data_file_stays_plain(void **state)
{
	struct variant v;
	struct model m;

	(void)state;
	assert_true(prepare("qcow2 raw data file", &v, &m));
	expect_refusal(VD_EUNSUPPORTED, "raw data file cannot be encrypted");
	model_free(&m);
}

static void a_disk_of_odd_size_stays_plain(void **state)
{
	struct variant v;
	struct model m;

	(void)state;
	assert_true(prepare("qcow2", &v, &m));
	bytes_put("d", 24, 8, v.size - 100);
	expect_refusal(VD_EUNSUPPORTED, "no multiple of 512");
	model_free(&m);
}

static void a_header_that_is_full_stays_as_it_is(void **state)
{
	struct variant v;
	struct model m;
	uint64_t at = 112;

	(void)state;
	assert_true(prepare("qcow2 512", &v, &m));
	/* An extension that nobody knows, up to the end of the cluster. */
	bytes_put("d", at, 4, 0x12345678);
	bytes_put("d", at + 4, 4, 512 - 112 - 16);
	bytes_put("d", 504, 8, 0);
	expect_refusal(VD_EUNSUPPORTED, "do not fit the header");
	model_free(&m);
}

/* ---- failures and crashes ------------------------------------------------------------------------------- */

/* Ciphertext by the old word, which is none, or the disk by the new one. */
static bool is_new(const struct variant *v, struct vd_host *host, const struct model *cipher, const struct model *m)
{
	struct vd_open_opts opts = disk_open_opts(v->format, VD_OPEN_METADATA);
	struct variant own = *v;
	struct vd_image *img = NULL;
	struct vd_error e;
	bool is_luks;

	expect_ok(vd_image_open_on(host, v->format, "d", &opts, &img, &e), &e);
	is_luks = img->info.encryption == VD_ENCRYPTED_LUKS;
	vd_image_abort(img);
	own.flags |= is_luks ? VARIANT_LUKS : 0;
	expect_ok(variant_open_on(&own, host, "d", 0, 0, &img, &e), &e);
	model_check_all(is_luks ? m : cipher, img);
	vd_image_abort(img);
	return is_luks;
}

/* The payload is encrypted, and no header says so. */
static void prepare_ciphertext(const char *kind, struct variant *v, struct model *m, struct model *cipher,
			       const struct recrypt *to)
{
	struct vd_image *img;
	struct vd_error e;

	assert_true(prepare(kind, v, m));
	img = recrypt_open(0);
	recrypt_data(img, UINT64_MAX, NULL, &to->layer);
	disk_close(img);
	model_init(cipher, v->size, 1);
	img = variant_open(v, 0);
	expect_ok(vd_image_pread(img, cipher->bytes, cipher->size, 0, &e), &e);
	disk_close(img);
}

static void check_crashes(const char *kind)
{
	struct vd_record *record = NULL;
	struct vd_image *img = NULL;
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_CONTROL | VD_OPEN_APPENDS);
	struct model m, cipher;
	struct recrypt to;
	struct variant v;
	struct vd_error e;
	size_t n[2] = { 0 };

	recrypt_init(&to);
	prepare_ciphertext(kind, &v, &m, &cipher, &to);
	expect_ok(vd_record_new(disks.mem, &record, &e), &e);
	expect_ok(vd_image_open_on(vd_record_host(record), v.format, "d", &opts, &img, &e), &e);
	expect_ok(recrypt_set(img, &to, &e), &e);
	disk_close(img);
	for (size_t i = 0, all = vd_crash_count(record, 2); i < all; i++) {
		struct vd_crash c;
		struct qcow2_verdict verdict;

		expect_ok(vd_crash_state(record, 2, 1, i, &c, &e), &e);
		verdict = qcow2_check(c.host, "d");
		if (verdict.n_errors)
			fail_msg("%s, crash after %zu events: %s", kind, c.cut, verdict.first);
		n[is_new(&v, c.host, &cipher, &m)]++;
		vd_mem_host_free(c.host);
	}
	assert_true(n[0] && n[1]);
	vd_record_free(record);
	recrypt_free(&to);
	model_free(&cipher);
	restart(&m);
}

static void a_crash_leaves_the_old_word_or_the_new(void **state)
{
	(void)state;
	check_crashes("qcow2");
	check_crashes("qcow2 512");
	check_crashes("qcow2 v2");
	check_crashes("qcow2 extended l2");
}

static void a_failure_leaves_the_old_word_or_the_new(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE | VD_OP_FLUSH | VD_OP_READ | VD_OP_TRUNCATE, .err = EIO };
	struct model m, cipher;
	struct recrypt to;
	struct variant v;
	bool fired = true;

	(void)state;
	recrypt_init(&to);
	prepare_ciphertext("qcow2", &v, &m, &cipher, &to);
	for (plan.nth = 1; fired; plan.nth++) {
		struct vd_host *clone = disks_clone();
		struct vd_open_opts opts = disk_open_opts(v.format, VD_OPEN_CONTROL | VD_OPEN_APPENDS);
		struct vd_fault *fault = NULL;
		struct vd_image *img = NULL;
		struct vd_error e;
		int r;

		expect_ok(vd_fault_new(clone, &fault, &e), &e);
		expect_ok(vd_image_open_on(vd_fault_host(fault), v.format, "d", &opts, &img, &e), &e);
		vd_fault_arm(fault, &plan);
		r = recrypt_set(img, &to, &e);
		fired = vd_fault_fired(fault);
		vd_fault_arm(fault, NULL);
		assert_int_equal(r < 0, fired);
		vd_image_abort(img);
		assert_int_equal(qcow2_check(clone, "d").n_errors, 0);
		if (is_new(&v, clone, &cipher, &m) && fired)
			assert_int_equal(r, VD_EPOISONED);
		vd_fault_free(fault);
		vd_mem_host_free(clone);
	}
	assert_true(plan.nth > 10);
	recrypt_free(&to);
	model_free(&m);
	model_free(&cipher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_image_of_any_kind_becomes_encrypted, start, stop),
		cmocka_unit_test_setup_teardown(the_refcount_table_may_move, start, stop),
		cmocka_unit_test_setup_teardown(bitmaps_stay, start, stop),
		cmocka_unit_test_setup_teardown(an_encrypted_image_becomes_plain, start, stop),
		cmocka_unit_test_setup_teardown(another_key_takes_the_place_of_the_first, start, stop),
		cmocka_unit_test_setup_teardown(the_same_handle_goes_on, start, stop),
		cmocka_unit_test_setup_teardown(the_old_place_is_free, start, stop),
		cmocka_unit_test_setup_teardown(a_failed_write_gives_its_space_back, start, stop),
		cmocka_unit_test_setup_teardown(a_raw_data_file_stays_plain, start, stop),
		cmocka_unit_test_setup_teardown(a_disk_of_odd_size_stays_plain, start, stop),
		cmocka_unit_test_setup_teardown(a_header_that_is_full_stays_as_it_is, start, stop),
		cmocka_unit_test_setup_teardown(a_crash_leaves_the_old_word_or_the_new, start, stop),
		cmocka_unit_test_setup_teardown(a_failure_leaves_the_old_word_or_the_new, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
