/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that come by a pipe: what is made of them, what is noticed when something is missing or not as the stream says, and
 * that a file with the same bytes is the same disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/incoming.h"
#include "tests/support/targets.h"
#include "tests/support/vmdk_stream_bytes.h"

#define SECTOR 512
#define vmdk (&vd_format_vmdk)

static const struct vd_job two = { .struct_size = sizeof(two), .n_threads = 2 };

/* Some grains with holes between them, in three tables; number g is of the value g + 1. */
static bool is_there(unsigned g)
{
	return g == 0 || g == 1 || g == 4 || g > 10;
}

static struct stream_bytes usual(bool tables_first)
{
	struct stream_bytes s = stream_start(tables_first);

	for (unsigned g = 0; g < STREAM_GRAINS; g++)
		if (is_there(g))
			stream_add(&s, g, g + 1);
	stream_end(&s);
	return s;
}

static int open_bytes(const void *p, size_t len, const char *format, uint64_t size, struct vd_incoming **in, struct vd_error *e)
{
	const struct vd_incoming_opts o = { .struct_size = sizeof(o), .format = format, .size = size };
	struct vd_feed *feed = NULL;
	int r;

	expect_ok(vd_feed_new_bytes((struct vd_bytes){ p, len }, "pipe", &feed, e), e);
	r = vd_incoming_new(feed, &o, in, e);
	if (r < 0)
		vd_feed_free(feed);
	return r;
}

/* Into "o"; nothing is there after a failure. */
static int receive(const struct target *t, const void *p, size_t len, const char *format, uint64_t size, struct vd_error *e)
{
	struct vd_outcome o = { .struct_size = sizeof(o) };
	struct vd_incoming *in = NULL;
	struct vd_image *dst = NULL;
	int r = open_bytes(p, len, format, size, &in, e);

	if (r == 0)
		r = target_create(t, disks.host, "o", vd_incoming_size(in), &dst, e);
	if (r == 0)
		r = vd_incoming_copy(in, dst, t->compresses, &two, &o, e);
	if (r == 0)
		r = vd_image_commit(dst, e);
	assert_true(r < 0 || o.done == vd_image_size(dst));
	vd_image_abort(dst);
	vd_incoming_free(in);
	if (r < 0)
		assert_false(disks.host->exists(disks.host, "o"));
	return r;
}

static int receive_stream(const struct stream_bytes *s, struct vd_error *e)
{
	return receive(target_named("qcow2"), s->p, s->len, NULL, 0, e);
}

static void expect_grains(struct vd_image *img)
{
	for (unsigned g = 0; g < STREAM_GRAINS; g++)
		disk_expect(img, (uint64_t)g * STREAM_GRAIN, STREAM_GRAIN, is_there(g) ? g + 1 : 0);
}

/* ---- what comes --------------------------------------------------------------------------------------- */

static void what_comes_is_the_disk_in_every_format(void **state)
{
	struct vd_error e;

	(void)state;
	for (int first = 0; first < 2; first++) {
		struct stream_bytes s = usual(first);

		for (size_t i = 0; i < n_targets; i++) {
			struct vd_image *img;

			print_message("# into %s\n", targets[i].name);
			expect_ok(receive(&targets[i], s.p, s.len, NULL, 0, &e), &e);
			img = target_open(&targets[i], "o");
			expect_grains(img);
			disk_close(img);
		}
		stream_free(&s);
	}
}

static void the_file_is_the_same_disk(void **state)
{
	(void)state;
	for (int first = 0; first < 2; first++) {
		struct stream_bytes s = usual(first);
		struct vd_image *img;
		struct vd_error e;

		expect_ok(vd_mem_put(disks.mem, "f", s.p, s.len, &e), &e);
		img = disk_open(vmdk, "f", 0);
		expect_grains(img);
		disk_close(img);
		stream_free(&s);
	}
}

static void what_comes_in_no_order_goes_where_it_can(void **state)
{
	static const char *const in_order[] = { "luks1", "vmdk luks1", "vmdk stream", "qcow2 deflate" };
	struct stream_bytes s = stream_start(false);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	for (unsigned g = STREAM_GRAINS; g-- > 0;)
		stream_add(&s, g, g + 1);
	stream_end(&s);
	for (unsigned i = 0; i < 2; i++) {
		const struct target *t = target_named(i ? "qcow2 2M" : "vhdx 1M");

		expect_ok(receive(t, s.p, s.len, NULL, 0, &e), &e);
		img = target_open(t, "o");
		for (unsigned g = 0; g < STREAM_GRAINS; g++)
			disk_expect(img, (uint64_t)g * STREAM_GRAIN, STREAM_GRAIN, g + 1);
		disk_close(img);
		disks.host->unlink(disks.host, "o", NULL);
	}
	for (unsigned i = 0; i < 4; i++)
		expect_failure(receive(target_named(in_order[i]), s.p, s.len, NULL, 0, &e), VD_EUNSUPPORTED, &e, "takes it in order only");
	stream_free(&s);
}

/* ---- what is missing ---------------------------------------------------------------------------------- */

/* How much of the disk a stream of this length has whole. */
static uint64_t sound_of(const struct stream_bytes *s, size_t len)
{
	uint64_t sound = 0;

	for (unsigned g = 0; g < STREAM_GRAINS; g++) {
		const uint8_t *at = s->p + (size_t)s->gt[g] * SECTOR;

		if (s->gt[g] && (size_t)(at - s->p) + 12 + vd_get_le32(at + 8) <= len)
			sound = (uint64_t)(g + 1) * STREAM_GRAIN;
	}
	return sound;
}

static void expect_cut(const struct stream_bytes *s, size_t len)
{
	char words[100];
	struct vd_error e;
	int r = receive(target_named("qcow2"), s->p, len, "vmdk", 0, &e);

	snprintf(words, sizeof(words), "only the first %" PRIu64 " of %" PRIu64 " bytes", sound_of(s, len), STREAM_SIZE);
	if (len < SECTOR)
		expect_failure(r, len ? VD_EUNSUPPORTED : VD_ECORRUPT, &e, len ? "only stream-optimized" : "nothing came");
	else
		expect_failure(r, VD_ECORRUPT, &e, words);
}

static void wherever_it_is_cut_off_it_says_what_is_sound(void **state)
{
	struct stream_bytes s = usual(false), q = usual(true);

	(void)state;
	for (size_t len = 0; len < s.len; len += len < STREAM_FRONT * SECTOR ? 100 : 7)
		expect_cut(&s, len);
	for (size_t at = 0; at < s.len; at += SECTOR)
		for (int i = -1; i < 2; i++)
			expect_cut(&s, at ? at + i : 0);
	expect_cut(&s, s.len - 1);
	/* Without an end marker the last grain's padding may be missing. */
	for (size_t len = SECTOR; len < q.gt[STREAM_GRAINS - 1] * (size_t)SECTOR + 12; len += 7)
		expect_cut(&q, len);
	stream_free(&s);
	stream_free(&q);
}

static void the_file_says_the_same(void **state)
{
	struct stream_bytes s = usual(false);
	struct vd_open_opts opts = disk_open_opts(vmdk, 0);
	struct vd_image *img = NULL;
	struct vd_error piped, e;

	(void)state;
	for (size_t len = STREAM_FRONT * SECTOR + 1500; len < s.len; len += 1400) {
		assert_int_equal(receive(target_named("qcow2"), s.p, len, NULL, 0, &piped), VD_ECORRUPT);
		expect_ok(vd_mem_put(disks.mem, "f", s.p, len, &e), &e);
		expect_failure(vd_image_open_on(disks.host, vmdk, "f", &opts, &img, &e), VD_ECORRUPT, &e,
			       strchr(piped.message, ' ') + 1);
	}
	stream_free(&s);
}

static void no_failure_to_write_leaves_a_file(void **state)
{
	static const char *const kinds[] = { "qcow2", "luks1", "vmdk stream" };
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_FLUSH, .err = ENOSPC, .half_done = true };
	struct stream_bytes s = usual(false);
	struct vd_error e;
	int r;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		for (plan.nth = 1; ; plan.nth++) {
			vd_fault_arm(disks.fault, &plan);
			r = receive(target_named(kinds[i]), s.p, s.len, NULL, 0, &e);
			if (!vd_fault_fired(disks.fault))
				break;
			expect_failure(r, VD_ENOSPC, &e, "");
		}
		expect_ok(r, &e);
		assert_true(plan.nth > 3);
		vd_fault_arm(disks.fault, NULL);
		expect_ok(disks.host->unlink(disks.host, "o", &e), &e);
	}
	stream_free(&s);
}

/* ---- what is not as it says --------------------------------------------------------------------------- */

static void change32(struct stream_bytes *s, size_t at, uint32_t value)
{
	vd_put_le32(s->p + at, value);
}

static void expect_broken(struct stream_bytes *s, int code, const char *words)
{
	struct vd_error e;

	expect_failure(receive_stream(s, &e), code, &e, words);
	stream_free(s);
}

static void tables_have_to_say_what_came(void **state)
{
	struct stream_bytes s = usual(false);

	(void)state;
	change32(&s, s.gd[0] * SECTOR + 4, 0);
	expect_broken(&s, VD_ECORRUPT, "name other grains");
	s = usual(false);
	change32(&s, s.gd[0] * SECTOR + 4, s.gt[0]);
	expect_broken(&s, VD_ECORRUPT, "name other grains");
	s = usual(false);
	change32(&s, s.gd_at, s.gd[1]);
	expect_broken(&s, VD_ECORRUPT, "name other grains");
	s = usual(false);
	change32(&s, s.gd_at, s.gd[0] + 1);
	expect_broken(&s, VD_ECORRUPT, "a grain table that did not come");
	s = stream_start(false);
	stream_add(&s, 3, 1);
	stream_add(&s, 3, 2);
	stream_end(&s);
	expect_broken(&s, VD_ECORRUPT, "name other grains");
	s = usual(false);
	vd_put_le64(s.p + s.gt[1] * SECTOR, 2 * STREAM_GRAIN / SECTOR);
	expect_broken(&s, VD_ECORRUPT, "name other grains");
}

static void tables_before_the_grains_decide(void **state)
{
	struct stream_bytes s = stream_start(true);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	/* The first one is of no use: another was written since. */
	stream_add(&s, 3, 1);
	stream_add(&s, 3, 2);
	stream_end(&s);
	expect_ok(receive_stream(&s, &e), &e);
	img = disk_open(&vd_format_qcow2, "o", 0);
	disk_expect(img, 3 * STREAM_GRAIN, STREAM_GRAIN, 2);
	disk_close(img);
	disks.host->unlink(disks.host, "o", NULL);
	change32(&s, s.gd[0] * SECTOR + 4 * 4, s.gt[3]);
	expect_broken(&s, VD_ECORRUPT, "is cut off");
	s = usual(true);
	vd_put_le64(s.p + 56, STREAM_FRONT - 1);
	change32(&s, (STREAM_FRONT - 1) * SECTOR, 3);
	expect_broken(&s, VD_ECORRUPT, "a grain table that is not before the grains");
	s = usual(true);
	change32(&s, 8, 0x30003);
	vd_put_le64(s.p + 48, 5);
	expect_broken(&s, VD_EUNSUPPORTED, "two sets of grain tables");
}

static void markers_are_judged(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *words;
	} first_grain[] = {
		{ 0, 1, "which the disk has not" }, { 0, STREAM_SIZE / SECTOR, "which the disk has not" },
		{ 4, 1, "which the disk has not" }, { 8, 1, "a length that is not possible" },
		{ 8, UINT32_MAX, "a length that is not possible" }, { 8, 0, "no marker where one should be" },
	};
	struct stream_bytes s;

	(void)state;
	for (size_t i = 0; i < sizeof(first_grain) / sizeof(first_grain[0]); i++) {
		s = usual(false);
		change32(&s, s.gt[0] * SECTOR + first_grain[i].at, first_grain[i].value);
		expect_broken(&s, VD_ECORRUPT, first_grain[i].at < 8 ? "one that the disk has not" : first_grain[i].words);
	}
	s = usual(false);
	change32(&s, s.gd[0] * SECTOR - SECTOR, 2);
	expect_broken(&s, VD_ECORRUPT, "another length");
	s = usual(false);
	change32(&s, s.gd_at - SECTOR + 4, 1);
	expect_broken(&s, VD_ECORRUPT, "another length");
	s = usual(false);
	change32(&s, s.gd[1] * SECTOR - SECTOR + 12, 7);
	expect_broken(&s, VD_ECORRUPT, "no marker where one should be");
	s = usual(false);
	s.p[s.gt[0] * SECTOR + 20] ^= 0x55;
	expect_broken(&s, VD_ECORRUPT, "the unit at byte 0 of the disk");
}

static void a_stream_has_one_end(void **state)
{
	struct stream_bytes s = usual(false);

	(void)state;
	s.p = realloc(s.p, s.len + 1);
	s.p[s.len++] = 0;
	expect_broken(&s, VD_ECORRUPT, "something follows the end");
	s = usual(false);
	change32(&s, s.footer_at + 12, 1);
	expect_broken(&s, VD_ECORRUPT, "contradict each other");
	s = usual(false);
	change32(&s, s.footer_at + 56, 5);
	expect_broken(&s, VD_ECORRUPT, "contradict each other");
	s = usual(false);
	memmove(s.p + s.footer_at - SECTOR, s.p + s.eos_at, SECTOR);
	s.len = s.footer_at;
	expect_broken(&s, VD_ECORRUPT, "without its directory and footer");
}

static void what_is_not_read_as_it_comes_is_refused_by_name(void **state)
{
	static const struct {
		uint32_t at, value;
		const char *words;
	} headers[] = {
		{ 8, 0x20001, "only stream-optimized disks with markers" }, { 8, 0x10001, "only stream-optimized disks with markers" },
		{ 8, 0x130001, "features that are not known" }, { 64, 0x1000000, "too many to be kept" }, { 36, 100, "claims a descriptor of 100 sectors" },
	};
	static const uint8_t qcow2[65536] = "QFI\xfb\0\0\0\3", noise[1000] = "some words", luks[1000] = "LUKS\xba\xbe\0\1";
	struct vd_incoming *in = NULL;
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		struct stream_bytes s = usual(false);
		int r;

		change32(&s, headers[i].at, headers[i].value);
		r = receive_stream(&s, &e);
		expect_failure(r, headers[i].at == 36 ? VD_ECORRUPT : VD_EUNSUPPORTED, &e, headers[i].words);
		stream_free(&s);
	}
	expect_failure(open_bytes(qcow2, sizeof(qcow2), NULL, 0, &in, &e), VD_EUNSUPPORTED, &e, "qcow2 is not read from a stream");
	expect_failure(open_bytes(noise, sizeof(noise), NULL, 0, &in, &e), VD_EARG, &e, "cannot be told by its beginning");
	expect_failure(open_bytes(luks, sizeof(luks), NULL, 0, &in, &e), VD_EUNSUPPORTED, &e, "a LUKS container");
	expect_failure(open_bytes(luks, sizeof(luks), "luks", 0, &in, &e), VD_EUNSUPPORTED, &e, "luks is not read from a stream");
	expect_failure(open_bytes(noise, sizeof(noise), "vdi", 0, &in, &e), VD_EUNSUPPORTED, &e, "unknown format");
}

static void an_encrypted_disk_is_refused(void **state)
{
	struct stream_bytes s = stream_start(false);
	uint8_t plain[STREAM_GRAIN] = "LUKS\xba\xbe\0\1";

	(void)state;
	stream_add_bytes(&s, 0, plain);
	stream_end(&s);
	expect_broken(&s, VD_EUNSUPPORTED, "the disk is encrypted");
}

/* ---- raw ---------------------------------------------------------------------------------------------- */

static void raw_bytes_are_as_many_as_said(void **state)
{
	const struct target *t = target_named("qcow2");
	uint8_t *bytes = malloc(3 << 20);
	size_t len = (3 << 20) - 512;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	assert_non_null(bytes);
	memset(bytes, 0x5a, 3 << 20);
	expect_ok(receive(t, bytes, len, "raw", len, &e), &e);
	img = target_open(t, "o");
	disk_expect(img, 0, len, 0x5a);
	disk_close(img);
	disks.host->unlink(disks.host, "o", NULL);
	expect_failure(receive(t, bytes, len, "raw", len + 512, &e), VD_ECORRUPT, &e, "only the first 3145216 of 3145728 bytes");
	expect_failure(receive(t, bytes, len, "raw", len - 512, &e), VD_EARG, &e, "more came than the 3144704");
	expect_failure(receive(t, bytes, 0, "raw", 512, &e), VD_ECORRUPT, &e, "only the first 0 of 512");
	free(bytes);
}

static void a_pipe_does_not_say_how_long_it_is(void **state)
{
	const struct vd_incoming_opts o = { .struct_size = sizeof(o), .format = "raw" };
	struct vd_incoming *in = NULL;
	struct vd_error e;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "abc", 3), 3);
	close(ends[1]);
	expect_failure(vd_incoming_open(ends[0], "pipe", &o, &in, &e), VD_EARG, &e, "cannot be told before it has come");
	close(ends[0]);
	expect_failure(vd_incoming_open(-1, "pipe", &o, &in, &e), VD_EIO, &e, "pipe");
}

static int cancel(void *ctx, const struct vd_progress *p)
{
	(void)ctx;
	(void)p;
	return 1;
}

static void who_waits_for_more_can_be_cancelled(void **state)
{
	const struct vd_incoming_opts o = { .struct_size = sizeof(o), .format = "raw", .size = 1 << 20 };
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = 2, .progress = cancel };
	struct vd_incoming *in = NULL;
	struct vd_image *dst;
	struct vd_error e;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], "abc", 3), 3);
	/* Looking ahead would wait for more: it is for the format, which is said. */
	expect_ok(vd_incoming_open(ends[0], "pipe", &o, &in, &e), &e);
	expect_ok(target_create(target_named("qcow2"), disks.host, "o", 1 << 20, &dst, &e), &e);
	expect_failure(vd_incoming_copy(in, dst, false, &job, NULL, &e), VD_ECANCELLED, &e, "cancelled");
	expect_failure(vd_incoming_copy(in, dst, false, &two, NULL, &e), VD_EARG, &e, "read once");
	vd_image_abort(dst);
	vd_incoming_free(in);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(what_comes_is_the_disk_in_every_format),
		T(the_file_is_the_same_disk),
		T(what_comes_in_no_order_goes_where_it_can),
		T(wherever_it_is_cut_off_it_says_what_is_sound),
		T(the_file_says_the_same),
		T(no_failure_to_write_leaves_a_file),
		T(tables_have_to_say_what_came),
		T(tables_before_the_grains_decide),
		T(markers_are_judged),
		T(a_stream_has_one_end),
		T(what_is_not_read_as_it_comes_is_refused_by_name),
		T(an_encrypted_disk_is_refused),
		T(raw_bytes_are_as_many_as_said),
		T(a_pipe_does_not_say_how_long_it_is),
		T(who_waits_for_more_can_be_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
