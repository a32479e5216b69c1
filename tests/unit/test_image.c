/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening, creating, committing, closing; what a handle refuses; what a failure leaves behind. */
#include "tests/support/disks.h"

#include <errno.h>

#include "libvdisk/base/alloc.h"

#define SIZE 200192
#define toy (&vd_format_toy)
#define raw (&vd_format_raw)

/* ---- creating ----------------------------------------------------------------------------------------- */

static void nothing_has_the_final_name_before_commit(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img = disk_create(toy, "d", &opts);

	(void)state;
	disk_write(img, 0, 5000, 7);
	disk_flush(img);
	assert_false(disks.mem->exists(disks.mem, "d"));
	assert_string_equal(vd_mem_name(disks.mem, 0), "d.vdisk-partial");
	disk_commit(img);
	assert_string_equal(vd_mem_name(disks.mem, 0), "d");
	assert_null(vd_mem_name(disks.mem, 1));
	disk_close(img);
	img = disk_open(toy, "d", 0);
	disk_expect(img, 0, 5000, 7);
	disk_expect(img, 5000, SIZE - 5000, 0);
	disk_close(img);
}

static void abort_and_close_without_commit_leave_no_file(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img = disk_create(toy, "d", &opts);

	(void)state;
	disk_write(img, 0, 5000, 7);
	vd_image_abort(img);
	assert_null(vd_mem_name(disks.mem, 0));
	img = disk_create(toy, "d", &opts);
	disk_write(img, 0, 5000, 7);
	disk_close(img);
	assert_null(vd_mem_name(disks.mem, 0));
}

/* A host that says whether the partial file was still locked when it was removed. */
static struct lock_watch {
	struct vd_wrap wrap;
	bool was_locked;
} lock_watch;

static int watch_unlink(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	struct vd_io *io = NULL;

	(void)e;
	if (op->kind == VD_OP_UNLINK) {
		lock_watch.was_locked = w->inner->open(w->inner, op->name, VD_IO_WRITE, &io, NULL) == VD_EBUSY;
		vd_io_abort(io);
	}
	return 0;
}

static void partial_is_removed_while_it_is_locked(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img = NULL;

	(void)state;
	vd_wrap_init(&lock_watch.wrap, disks.mem);
	lock_watch.wrap.before = watch_unlink;
	assert_int_equal(vd_image_create_on(&lock_watch.wrap.host, toy, "d", &opts, &img, NULL), 0);
	lock_watch.was_locked = false;
	vd_image_abort(img);
	assert_true(lock_watch.was_locked);
	assert_int_equal(vd_image_create_on(&lock_watch.wrap.host, toy, "d", &opts, &img, NULL), 0);
	lock_watch.was_locked = false;
	disk_close(img);
	assert_true(lock_watch.was_locked);
}

static void commit_refuses_a_name_that_was_taken_meanwhile(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img = disk_create(toy, "d", &opts);
	struct vd_error e;

	(void)state;
	disk_put_raw("d", 1, 9);
	expect_failure(vd_image_commit(img, &e), VD_EEXIST, &e, "d");
	vd_image_abort(img);
	assert_string_equal(vd_mem_name(disks.mem, 0), "d");
	assert_null(vd_mem_name(disks.mem, 1));
}

static void replacing_keeps_the_old_file_until_commit(void **state)
{
	struct vd_create_opts opts = disk_create_opts(raw, 3);
	struct vd_error e;
	struct vd_image *img, *old;

	(void)state;
	disk_put_raw("d", 5, 9);
	expect_failure(vd_image_create_on(disks.host, raw, "d", &opts, &img, &e), VD_EEXIST, &e, "d: exists");
	opts.flags = VD_CREATE_REPLACE;
	img = disk_create(raw, "d", &opts);
	disk_write(img, 0, 3, 7);
	old = disk_open(raw, "d", 0);
	disk_expect(old, 0, 5, 9);
	disk_close(old);
	disk_commit(img);
	disk_close(img);
	img = disk_open(raw, "d", 0);
	assert_int_equal(vd_image_size(img), 3);
	disk_expect(img, 0, 3, 7);
	disk_close(img);
}

static void committed_handle_reads_and_does_not_write(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img = disk_create(toy, "d", &opts);
	struct vd_error e;
	uint64_t tick;

	(void)state;
	disk_write(img, 100, 100, 7);
	disk_commit(img);
	tick = vd_record_tick(disks.record);
	disk_expect(img, 100, 100, 7);
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EREADONLY, &e, "d is open for reading only");
	expect_failure(vd_image_commit(img, &e), VD_EARG, &e, "vd_image_create");
	disk_close(img);
	assert_int_equal(disks_count(CHANGES | VD_OP_FLUSH, tick), 0);
}

static void commit_is_flushed_before_the_rename(void **state)
{
	const struct vd_event *ev;
	uint64_t last_write = 0, last_flush = 0, rename = 0;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++) {
		if (ev->kind == VD_OP_WRITE || ev->kind == VD_OP_TRUNCATE)
			last_write = ev->end;
		if (ev->kind == VD_OP_FLUSH)
			last_flush = ev->begin;
		if (ev->kind == VD_OP_RENAME)
			rename = ev->begin;
	}
	assert_true(last_write && last_write < last_flush && last_flush < rename);
}

static void only_a_created_image_is_committed(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", 512, 9);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_commit(img, &e), VD_EARG, &e, "d: only an image made by");
	disk_close(img);
}

static void bad_create_options_are_refused_and_leave_no_file(void **state)
{
	static const struct {
		struct vd_create_opts opts;
		int code;
		const char *words;
	} bad[] = {
		{ { .size = 1 }, VD_EARG, "not named" },
		{ { .format = "qed", .size = 1 }, VD_EUNSUPPORTED, "'qed' cannot be created" },
		{ { .format = "luks", .size = 1 }, VD_ENOKEY, "needs a key" },
		{ { .format = "raw", .size = 1, .backing_file = "b", .backing_format = "raw" }, VD_EUNSUPPORTED,
		  "raw has neither" },
		{ { .format = "raw", .size = 1, .data_file = "b" }, VD_EUNSUPPORTED, "raw has neither" },
		{ { .format = "qcow2", .size = 1, .backing_file = "b" }, VD_EARG, "format of the backing file b" },
		{ { .format = "raw", .size = UINT64_MAX }, VD_EARG, "too large" },
		{ { .format = "raw", .size = (uint64_t)INT64_MAX + 1 }, VD_EARG, "too large" },
	};
	struct vd_create_opts opts;
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		opts = bad[i].opts;
		opts.struct_size = sizeof(opts);
		expect_failure(vd_image_create_on(disks.host, NULL, "d", &opts, &img, &e), bad[i].code, &e,
			       bad[i].words);
	}
	opts.struct_size--;
	expect_failure(vd_image_create_on(disks.host, NULL, "d", &opts, &img, &e), VD_EARG, &e, "struct_size");
	assert_null(img);
	assert_null(vd_mem_name(disks.mem, 0));
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static void bad_open_options_are_refused(void **state)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts) };
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", 512, 9);
	expect_failure(vd_image_open_on(disks.host, NULL, "none", &opts, &img, &e), VD_ENOENT, &e, "none");
	opts.format = "qed";
	expect_failure(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), VD_EUNSUPPORTED, &e,
		       "unknown format 'qed'");
	opts = disk_open_opts(raw, VD_OPEN_METADATA | VD_OPEN_WRITE);
	expect_failure(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), VD_EARG, &e, "cannot be written");
	opts.struct_size--;
	expect_failure(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), VD_EARG, &e, "struct_size");
	assert_null(img);
}

static void raw_that_was_guessed_is_not_written(void **state)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .flags = VD_OPEN_WRITE };
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", 512, 9);
	expect_failure(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), VD_EARG, &e, "needs the format named");
	opts.flags = 0;
	expect_ok(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), &e);
	disk_close(img);
	opts = disk_open_opts(raw, VD_OPEN_WRITE);
	expect_ok(vd_image_open_on(disks.host, NULL, "d", &opts, &img, &e), &e);
	disk_write(img, 0, 1, 1);
	disk_close(img);
}

static void failed_open_leaves_no_lock(void **state)
{
	struct vd_image *img = NULL;
	struct vd_open_opts opts = disk_open_opts(toy, 0);
	struct vd_error e;
	struct vd_io *io;

	(void)state;
	disk_put_raw("d", 512, 9);
	expect_failure(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), VD_ECORRUPT, &e,
		       "d: no header of a toy");
	assert_int_equal(disks.mem->open(disks.mem, "d", VD_IO_WRITE, &io, NULL), 0);
	vd_io_abort(io);
}

static void read_everything(struct vd_image *img)
{
	uint8_t *buf = malloc(SIZE);
	struct vd_extent extents[4];
	struct vd_info info = { .struct_size = sizeof(info) };
	size_t n;

	assert_int_equal(vd_image_pread(img, buf, SIZE, 0, NULL), 0);
	assert_int_equal(vd_image_extents(img, 0, SIZE, extents, 4, &n, NULL), 0);
	assert_int_equal(vd_image_info(img, &info, NULL), 0);
	assert_int_equal(vd_image_flush(img, NULL), 0);
	free(buf);
}

static void open_without_a_write_changes_no_file(void **state)
{
	static const unsigned flags[] = { 0, VD_OPEN_WRITE, VD_OPEN_FORCE_SHARE };

	(void)state;
	disk_make(raw, "r", SIZE, NULL);
	disk_make(toy, "p", SIZE, NULL);
	disk_make(toy, "d", SIZE, "p");
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		uint64_t tick = vd_record_tick(disks.record);
		struct vd_image *d = disk_open(toy, "d", flags[i]), *r = disk_open(raw, "r", flags[i]);

		read_everything(d);
		read_everything(r);
		disk_close(d);
		disk_close(r);
		assert_int_equal(disks_count(CHANGES | VD_OP_FLUSH, tick), 0);
	}
}

static void read_only_handle_refuses_to_write(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", 0);
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EREADONLY, &e, "d is open for reading only");
	expect_failure(vd_image_write_zeroes(img, 0, 1, 0, &e), VD_EREADONLY, &e, "d is open for reading only");
	disk_close(img);
}

static void describe_read_only(const void *st, struct vd_format_info *i)
{
	toy->describe(st, i);
	i->read_only_why = "it is made of glass";
}

static void image_that_may_only_be_read_is_not_opened_for_writing(void **state)
{
	struct vd_format glass = *toy;
	struct vd_open_opts opts = disk_open_opts(toy, VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	glass.describe = describe_read_only;
	expect_failure(vd_image_open_on(disks.host, &glass, "d", &opts, &img, &e), VD_EREADONLY, &e, "made of glass");
	glass = *toy;
	glass.writable = false;
	expect_failure(vd_image_open_on(disks.host, &glass, "d", &opts, &img, &e), VD_EREADONLY, &e, "only read");
	disk_close(disk_open(&glass, "d", 0));
}

static void two_writers_exclude_each_other(void **state)
{
	struct vd_open_opts opts = disk_open_opts(toy, 0);
	struct vd_image *img, *other;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_open_on(disks.host, toy, "d", &opts, &other, &e), VD_EBUSY, &e, "d");
	opts.flags = VD_OPEN_FORCE_SHARE;
	expect_ok(vd_image_open_on(disks.host, toy, "d", &opts, &other, &e), &e);
	disk_close(other);
	disk_close(img);
}

/* ---- the ends of writing ------------------------------------------------------------------------------ */

static bool is_marked_dirty(const char *name)
{
	struct toy_header h;
	struct vd_io *io;

	assert_int_equal(disks.mem->open(disks.mem, name, VD_IO_FORCE_SHARE, &io, NULL), 0);
	assert_int_equal(vd_io_pread(io, &h, sizeof(h), 0, NULL), 0);
	vd_io_abort(io);
	return h.is_dirty;
}

static void writing_begins_once_before_the_first_payload(void **state)
{
	const struct vd_event *ev;
	struct vd_image *img;
	uint64_t tick;
	size_t i = 0;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	assert_false(is_marked_dirty("d"));
	tick = vd_record_tick(disks.record);
	disk_write(img, 0, 512, 7);
	disk_write(img, 9216, 512, 7);
	while ((ev = vd_record_event(disks.record, i)) && ev->end <= tick)
		i++;
	assert_int_equal(vd_record_event(disks.record, i)->len, 1);
	assert_int_equal(vd_record_event(disks.record, i)->off, offsetof(struct toy_header, is_dirty));
	assert_int_equal(vd_record_event(disks.record, i + 1)->kind, VD_OP_FLUSH);
	assert_int_equal(vd_record_event(disks.record, i + 2)->len, 512);
	assert_int_equal(disks_count(VD_OP_WRITE, tick), 3);
	assert_true(is_marked_dirty("d"));
	disk_close(img);
	assert_false(is_marked_dirty("d"));
}

static void abort_does_not_end_writing(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 512, 7);
	disk_flush(img);
	disk_write(img, 512, 512, 8);
	vd_image_abort(img);
	assert_true(is_marked_dirty("d"));
	img = disk_open(toy, "d", 0);
	disk_expect(img, 0, 512, 7);
	disk_expect(img, 512, 512, 0);
	disk_close(img);
}

static unsigned n_begun, n_ended;

static int count_begin(void *st, struct vd_error *e)
{
	n_begun++;
	return toy->begin_write(st, e);
}

static int count_end(void *st, struct vd_error *e)
{
	n_ended++;
	return toy->end_write(st, e);
}

static void writing_ends_only_if_it_has_begun(void **state)
{
	struct vd_format counted = *toy;
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img;

	(void)state;
	counted.begin_write = count_begin;
	counted.end_write = count_end;
	n_begun = n_ended = 0;
	img = disk_create(&counted, "d", &opts);
	disk_commit(img);
	disk_close(img);
	disk_close(disk_open(&counted, "d", VD_OPEN_WRITE));
	assert_int_equal(n_begun + n_ended, 0);
	img = disk_create(&counted, "e", &opts);
	disk_write(img, 0, 1, 1);
	disk_commit(img);
	disk_close(img);
	assert_int_equal(n_begun, 1);
	assert_int_equal(n_ended, 1);
}

static struct vd_image *ending;
static bool was_dirty_at_the_end;

/* As of a driver that counts owners: what is freed changes a table. */
static int freed_with_a_table(void *st, const struct vd_range *range, struct vd_error *e)
{
	uint8_t entry[4];
	int r = vd_meta_read(ending->meta, 0, TOY_TABLE_OFF, entry, sizeof(entry), 0, e);

	if (r == 0)
		r = vd_meta_write(ending->meta, 0, TOY_TABLE_OFF, entry, sizeof(entry), VD_RANK_OWNER, e);
	return r < 0 ? r : toy->freed(st, range, e);
}

static int end_and_look(void *st, struct vd_error *e)
{
	was_dirty_at_the_end = vd_meta_is_dirty(ending->meta);
	return toy->end_write(st, e);
}

static void all_tables_are_committed_before_writing_ends(void **state)
{
	struct vd_format counted = *toy;

	(void)state;
	counted.freed = freed_with_a_table;
	counted.end_write = end_and_look;
	disk_make(toy, "d", SIZE, NULL);
	ending = disk_open(&counted, "d", VD_OPEN_WRITE);
	disk_write(ending, 0, TOY_BLOCK, 7);
	disk_flush(ending);
	disk_zero(ending, 0, TOY_BLOCK);
	was_dirty_at_the_end = true;
	disk_close(ending);
	assert_false(was_dirty_at_the_end);
}

static void failed_begin_is_tried_again(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_WRITE, .nth = 1, .err = EIO });
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EIO, &e, "made to fail");
	disk_write(img, 0, 1, 1);
	disk_expect(img, 0, 1, 1);
	disk_close(img);
	assert_false(is_marked_dirty("d"));
}

static void failed_flush_of_begin_poisons(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_FLUSH, .nth = 1, .err = EIO });
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EIO, &e, "made to fail");
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EPOISONED, &e, "nothing more is written");
	expect_failure(vd_image_flush(img, &e), VD_EPOISONED, &e, "nothing more is written");
	expect_failure(vd_image_close(img, &e), VD_EPOISONED, &e, "nothing more is written");
}

/* ---- failures ----------------------------------------------------------------------------------------- */

/* Flushed 7s, then 8s that are not flushed; now the nth operation of these kinds fails. */
static struct vd_image *half_flushed(unsigned kinds, uint64_t nth)
{
	struct vd_image *img;

	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 1024, 7);
	disk_flush(img);
	disk_write(img, 1024, 40000, 8);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = kinds, .nth = nth, .err = EIO });
	return img;
}

static void expect_poisoned(struct vd_image *img)
{
	uint64_t tick = vd_record_tick(disks.record);
	struct vd_error e;

	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EPOISONED, &e, "d: an earlier write");
	assert_true(strstr(e.hint, "check the image"));
	expect_failure(vd_image_write_zeroes(img, 0, 1, 0, &e), VD_EPOISONED, &e, "d: an earlier write");
	expect_failure(vd_image_flush(img, &e), VD_EPOISONED, &e, "d: an earlier write");
	disk_expect(img, 0, 1024, 7);
	disk_expect(img, 1024, 40000, 8);
	expect_failure(vd_image_close(img, &e), VD_EPOISONED, &e, "d: an earlier write");
	assert_int_equal(disks_count(CHANGES | VD_OP_FLUSH, tick), 0);
	img = disk_open(toy, "d", 0);
	disk_expect(img, 0, 1024, 7);
	disk_close(img);
}

static void failed_table_write_poisons(void **state)
{
	struct vd_image *img = half_flushed(VD_OP_WRITE, 1);
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_flush(img, &e), VD_EIO, &e, "made to fail");
	expect_poisoned(img);
}

static void failed_flush_poisons(void **state)
{
	(void)state;
	for (uint64_t nth = 1; nth <= 3; nth++) {
		struct vd_image *img = half_flushed(VD_OP_FLUSH, nth);
		struct vd_error e;

		expect_failure(vd_image_flush(img, &e), VD_EIO, &e, "made to fail");
		assert_int_equal(vd_fault_fired(disks.fault), 1);
		expect_poisoned(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static int publish_nothing(void *st, struct vd_resv *v, struct vd_error *e)
{
	(void)st;
	(void)v;
	return vd_fail(e, VD_ENOMEM, "no table today");
}

static void failed_publish_poisons(void **state)
{
	struct vd_format broken = *toy;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	broken.publish = publish_nothing;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(&broken, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_ENOMEM, &e, "no table today");
	expect_failure(vd_image_flush(img, &e), VD_EPOISONED, &e, "d: an earlier write");
	vd_image_abort(img);
}

/* Out of space, in the middle of the bytes: nothing is lost, and with room again the same handle goes on. */
static void failed_payload_leaves_the_image_whole_and_usable(void **state)
{
	static const int errs[] = { ENOSPC, EIO };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct vd_image *img = half_flushed(0, 0);
		uint8_t *buf = calloc(1, 100000);
		struct vd_error e;

		vd_fault_arm(disks.fault,
			     &(struct vd_fault_plan){ .kinds = VD_OP_WRITE, .nth = 2, .err = errs[i],
						      .half_done = true });
		expect_failure(vd_image_pwrite(img, buf, 100000, 50000, &e), i ? VD_EIO : VD_ENOSPC, &e, "made to fail");
		free(buf);
		disk_expect(img, 0, 1024, 7);
		disk_expect(img, 1024, 40000, 8);
		disk_expect(img, 50000, SIZE - 50000, 0);
		disk_write(img, 60000, 100000, 9);
		disk_close(img);
		img = disk_open(toy, "d", 0);
		disk_expect(img, 1024, 40000, 8);
		disk_expect(img, 41024, 60000 - 41024, 0);
		disk_expect(img, 60000, 100000, 9);
		disk_expect(img, 160000, SIZE - 160000, 0);
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void out_of_memory_in_a_flush_may_be_tried_again(void **state)
{
	struct vd_image *img = half_flushed(0, 0);
	struct vd_error e;

	(void)state;
	vd_alloc_fail_after(0);
	expect_failure(vd_image_flush(img, &e), VD_ENOMEM, &e, "");
	vd_alloc_fail_after(-1);
	disk_flush(img);
	vd_image_abort(img);
	img = disk_open(toy, "d", 0);
	disk_expect(img, 1024, 40000, 8);
	disk_close(img);
}

static void failed_commit_leaves_no_final_name(void **state)
{
	static const unsigned kinds[] = { VD_OP_WRITE, VD_OP_FLUSH, VD_OP_RENAME };
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct vd_image *img = disk_create(toy, "d", &opts);
		struct vd_error e;

		disk_write(img, 0, 5000, 7);
		vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = kinds[i], .nth = 1, .err = EIO });
		expect_failure(vd_image_commit(img, &e), VD_EIO, &e, "made to fail");
		assert_false(disks.mem->exists(disks.mem, "d"));
		vd_image_abort(img);
		assert_null(vd_mem_name(disks.mem, 0));
	}
}

static void failed_close_is_told(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_CLOSE, .nth = 1, .err = EIO });
	expect_failure(vd_image_close(img, &e), VD_EIO, &e, "made to fail");
}

/* ---- what it says of itself --------------------------------------------------------------------------- */

static void info_tells_sizes_and_names(void **state)
{
	struct vd_info info = { .struct_size = sizeof(info) - 1 };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "p", SIZE, NULL);
	disk_make(toy, "d", SIZE, "p");
	img = disk_open(toy, "d", 0);
	expect_failure(vd_image_info(img, &info, &e), VD_EARG, &e, "struct_size");
	info.struct_size = sizeof(info);
	expect_ok(vd_image_info(img, &info, &e), &e);
	assert_string_equal(info.path, "d");
	assert_string_equal(info.format, "toy");
	assert_string_equal(info.backing_file, "p");
	assert_string_equal(info.backing_format, "toy");
	assert_int_equal(info.virtual_size, SIZE);
	assert_int_equal(info.cluster_size, TOY_BLOCK);
	assert_int_equal(info.file_size, 1024);
	assert_int_equal(info.encryption, VD_PLAIN);
	disk_close(img);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(nothing_has_the_final_name_before_commit),
		CASE(abort_and_close_without_commit_leave_no_file),
		CASE(partial_is_removed_while_it_is_locked),
		CASE(commit_refuses_a_name_that_was_taken_meanwhile),
		CASE(replacing_keeps_the_old_file_until_commit),
		CASE(committed_handle_reads_and_does_not_write),
		CASE(commit_is_flushed_before_the_rename),
		CASE(only_a_created_image_is_committed),
		CASE(bad_create_options_are_refused_and_leave_no_file),
		CASE(bad_open_options_are_refused),
		CASE(raw_that_was_guessed_is_not_written),
		CASE(failed_open_leaves_no_lock),
		CASE(open_without_a_write_changes_no_file),
		CASE(read_only_handle_refuses_to_write),
		CASE(image_that_may_only_be_read_is_not_opened_for_writing),
		CASE(two_writers_exclude_each_other),
		CASE(writing_begins_once_before_the_first_payload),
		CASE(abort_does_not_end_writing),
		CASE(writing_ends_only_if_it_has_begun),
		CASE(all_tables_are_committed_before_writing_ends),
		CASE(failed_begin_is_tried_again),
		CASE(failed_flush_of_begin_poisons),
		CASE(failed_table_write_poisons),
		CASE(failed_flush_poisons),
		CASE(failed_publish_poisons),
		CASE(failed_payload_leaves_the_image_whole_and_usable),
		CASE(out_of_memory_in_a_flush_may_be_tried_again),
		CASE(failed_commit_leaves_no_final_name),
		CASE(failed_close_is_told),
		CASE(info_tells_sizes_and_names),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
