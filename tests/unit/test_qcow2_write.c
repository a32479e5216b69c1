/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What qcow2 reserves for a write, links, takes back, and punches: seen at the driver's door, and in the tables. */
#include "tests/support/model.h"
#include "tests/support/qcow2_bytes.h"

#include "formats/qcow2/qcow2.h"

#define qcow2 (&vd_format_qcow2)
#define MIB (UINT64_C(1) << 20)
#define CS UINT64_C(4096)               /* cluster size of most tests: an L2 table maps 2 MiB */
#define EXT_CS UINT64_C(65536)          /* with extended L2: subclusters of 2 KiB */
#define EXT_SUB UINT64_C(2048)

static void make(uint64_t size, uint32_t cluster, unsigned flags, const char *backing)
{
	struct vd_create_opts o = disk_create_opts(qcow2, size);
	struct vd_image *img;

	o.cluster_size = cluster;
	o.flags = flags;
	o.backing_file = backing;
	o.backing_format = backing ? "raw" : NULL;
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
}

/* With begin_write behind it. */
static struct vd_image *open_for_writing(void)
{
	struct vd_image *img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	struct vd_error e;

	expect_ok(vd_write_start(img, &e), &e);
	return img;
}

static struct vd_resv reserve(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_resv v = { .off = off, .len = len };
	struct vd_error e;

	expect_ok(qcow2->reserve(img->state, &v, &e), &e);
	assert_true(v.covered && v.covered <= len);
	assert_true(v.fill_off <= off && v.fill_off + v.fill_len >= off + v.covered);
	return v;
}

static struct vd_resv reserve_packed(struct vd_image *img, uint64_t off, uint64_t packed_len)
{
	struct vd_resv v = { .off = off, .len = CS, .packed_len = packed_len };
	struct vd_error e;

	expect_ok(qcow2->reserve(img->state, &v, &e), &e);
	assert_true(v.covered == CS && !v.in_place && v.file == 0);
	return v;
}

static void publish(struct vd_image *img, struct vd_resv *v)
{
	struct vd_error e;

	expect_ok(qcow2->publish(img->state, v, &e), &e);
}

static uint64_t punch(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;
	uint64_t done;

	expect_ok(qcow2->punch(img->state, off, len, VD_PUNCH_ZERO, &done, &e), &e);
	assert_true(done <= len);
	return done;
}

static struct vd_run map_at(struct vd_image *img, uint64_t off)
{
	struct vd_run run;
	struct vd_error e;
	size_t n = 1;

	expect_ok(qcow2->map(img->state, off, 1, 0, &run, &n, &e), &e);
	return run;
}

/* The entry of a cluster loses its copied flag and its cluster gets a second owner, as a snapshot does it. */
static void share(uint64_t guest_off)
{
	uint64_t entry = bytes_l2_entry("x", guest_off), word = bytes_get("x", entry, 8);
	uint64_t host = word & QCOW2_OFFSET_MASK, block = bytes_get("x", bytes_get("x", 48, 8), 8);

	bytes_put("x", entry, 8, word & ~QCOW2_COPIED);
	bytes_put("x", block + host / (UINT64_C(1) << bytes_get("x", 20, 4)) * 2, 2, 2);
}

static void end(struct vd_image *img)
{
	disk_close(img);
	expect_sound("x");
}

/* ---- reserving ---------------------------------------------------------------------------------------- */

static void new_space_is_whole_clusters_and_fresh(void **state)
{
	struct vd_image *img;
	struct vd_resv v;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	v = reserve(img, 3 * CS + 100, 5 * CS);
	assert_true(!v.in_place && v.fresh && v.file == 0);
	assert_true(v.covered == 5 * CS && v.fill_off == 3 * CS && v.fill_len == 6 * CS);
	assert_int_equal(map_at(img, 4 * CS).where, VD_HOLE);
	publish(img, &v);
	assert_true(map_at(img, 4 * CS).host_off == v.host_off + CS);
	/* Not even zeros were written, and yet the file reaches as far as its tables. */
	assert_true(bytes_size("x") >= v.host_off + 6 * CS);
	end(img);
}

static void a_reservation_ends_with_its_table(void **state)
{
	struct vd_image *img;
	struct vd_resv v;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	v = reserve(img, 2 * MIB - 10, 3 * MIB);
	assert_true(v.covered == 10 && v.fill_len == CS);
	publish(img, &v);
	v = reserve(img, 2 * MIB, 3 * MIB);
	assert_true(v.covered == 2 * MIB);
	publish(img, &v);
	end(img);
}

static void what_is_ours_is_written_in_place(void **state)
{
	struct vd_image *img;
	struct vd_resv v;
	uint64_t host;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 8 * CS, 1);
	host = map_at(img, 0).host_off;
	v = reserve(img, CS + 7, 20 * CS);
	/* Up to where nothing is allocated, and no fill. */
	assert_true(v.in_place && !v.fresh && v.covered == 7 * CS - 7);
	assert_true(v.fill_off == CS + 7 && v.fill_len == v.covered && v.host_off == host + CS + 7);
	end(img);
}

static void shared_space_is_left_alone(void **state)
{
	struct vd_image *img;
	struct vd_resv v;
	uint64_t host, shared;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 3 * CS, 1);
	host = map_at(img, 0).host_off;
	disk_close(img);
	share(CS);
	img = open_for_writing();
	v = reserve(img, 0, 3 * CS);
	assert_true(v.in_place && v.covered == CS);
	v = reserve(img, CS + 1, 2 * CS);
	assert_true(!v.in_place && v.covered == CS - 1 && v.fill_off == CS && v.fill_len == CS && v.host_off != host + CS);
	shared = host + CS;
	publish(img, &v);
	disk_close(img);
	assert_int_equal(bytes_refcount("x", shared), 1);
	assert_int_equal(bytes_refcount("x", v.host_off), 1);
	expect_leaks("x", 1);
}

static void a_shared_table_is_copied_once(void **state)
{
	struct vd_image *img;
	uint64_t l1, old, host;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 3 * CS, 1);
	host = map_at(img, 0).host_off;
	disk_close(img);
	for (uint64_t off = 0; off < 3 * CS; off += CS)
		share(off);
	/* The flag of an entry in a shared table says nothing: it was written when the table had one owner. */
	bytes_put("x", bytes_l2_entry("x", 2 * CS), 8, QCOW2_COPIED | (host + 2 * CS));
	l1 = bytes_l1("x");
	old = bytes_get("x", l1, 8) & QCOW2_OFFSET_MASK;
	bytes_put("x", l1, 8, old);
	bytes_put("x", bytes_get("x", bytes_get("x", 48, 8), 8) + old / CS * 2, 2, 2);
	img = open_for_writing();
	disk_write(img, CS, 100, 9);
	disk_write(img, 5 * CS, 100, 9);
	disk_close(img);
	assert_true((bytes_get("x", l1, 8) & QCOW2_OFFSET_MASK) != old && bytes_get("x", l1, 8) & QCOW2_COPIED);
	assert_int_equal(bytes_refcount("x", old), 1);
	/* The other owner's table still says what it said. */
	assert_true(bytes_get("x", old + 8, 8) == host + CS);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0), 8) == host);
	assert_true(bytes_get("x", bytes_l2_entry("x", 2 * CS), 8) == host + 2 * CS);
	img = disk_open(qcow2, "x", 0);
	disk_expect(img, 0, CS, 1);
	disk_expect(img, CS, 100, 9);
	disk_expect(img, CS + 100, 2 * CS - 100, 1);
	disk_close(img);
}

static void zeroed_host_space_is_used_again(void **state)
{
	struct vd_image *img;
	struct vd_resv v;
	uint64_t entry, word;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 4 * CS, 1);
	disk_close(img);
	for (uint64_t off = 0; off < 3 * CS; off += CS) {
		entry = bytes_l2_entry("x", off);
		bytes_put("x", entry, 8, bytes_get("x", entry, 8) | QCOW2_ZERO);
	}
	word = bytes_get("x", bytes_l2_entry("x", 0), 8) & QCOW2_OFFSET_MASK;
	img = open_for_writing();
	v = reserve(img, 10, 4 * CS);
	assert_true(!v.in_place && !v.fresh && v.covered == 3 * CS - 10 && v.host_off == word && v.fill_len == 3 * CS);
	/* Nothing was taken, so cancel gives nothing back. */
	qcow2->cancel(img->state, &v);
	/* Zeros already: a punch has nothing to gain there. */
	assert_true(punch(img, 0, 3 * CS) == 3 * CS && map_at(img, CS).flags == VD_RUN_HOSTED);
	disk_write(img, 10, 2 * CS, 5);
	disk_expect(img, 0, 10, 0);
	disk_expect(img, 10, 2 * CS, 5);
	disk_expect(img, 2 * CS + 10, CS - 10, 0);
	end(img);
}

static void subclusters_are_filled_alone(void **state)
{
	struct vd_image *img;
	struct vd_resv v;
	uint64_t host;

	(void)state;
	make(8 * MIB, EXT_CS, VD_CREATE_EXTENDED_L2, NULL);
	img = open_for_writing();
	v = reserve(img, 3 * EXT_SUB + 5, EXT_SUB);
	assert_true(v.fill_off == 3 * EXT_SUB && v.fill_len == 2 * EXT_SUB && v.covered == EXT_SUB);
	host = v.host_off - 3 * EXT_SUB;
	publish(img, &v);
	assert_int_equal(map_at(img, 5 * EXT_SUB).where, VD_HOLE);
	/* Ours, but not allocated there: the same host cluster, and yet something to publish. */
	v = reserve(img, 5 * EXT_SUB, 1);
	assert_true(!v.in_place && !v.fresh && v.host_off == host + 5 * EXT_SUB && v.fill_len == EXT_SUB);
	publish(img, &v);
	v = reserve(img, 4 * EXT_SUB + 1, 2 * EXT_SUB - 1);
	assert_true(v.in_place && v.host_off == host + 4 * EXT_SUB + 1);
	disk_close(img);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0) + 8, 8) == 0x38);
	expect_sound("x");
}

static void a_cluster_that_moves_is_filled_whole(void **state)
{
	struct vd_image *img;
	struct vd_resv v;

	(void)state;
	make(8 * MIB, EXT_CS, VD_CREATE_EXTENDED_L2, NULL);
	img = open_for_writing();
	disk_write(img, 0, 4 * EXT_CS, 1);
	disk_close(img);
	share(0);
	share(EXT_CS);
	img = open_for_writing();
	v = reserve(img, EXT_CS - 1, EXT_SUB);
	assert_true(v.fill_off == 0 && v.fill_len == 2 * EXT_CS);
	publish(img, &v);
	disk_close(img);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0) + 8, 8) == UINT32_MAX);
}

static void the_fill_of_a_data_file_ends_with_the_disk(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, MIB + 512);
	struct vd_image *img;
	struct vd_resv v;

	(void)state;
	o.data_file = "data";
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
	img = open_for_writing();
	v = reserve(img, MIB + 100, 10);
	assert_true(v.file == 1 && !v.fresh && v.host_off == MIB && v.fill_len == 512);
	publish(img, &v);
	/* There are no counts for that file: a cancel has nothing to do. */
	v = reserve(img, 0, 10);
	qcow2->cancel(img->state, &v);
	disk_write(img, MIB, 512, 3);
	end(img);
	assert_true(bytes_size("data") == MIB + 512);
}

/* ---- cancelling --------------------------------------------------------------------------------------- */

static void a_cancelled_reservation_leaves_no_trace(void **state)
{
	struct vd_image *img;
	struct vd_resv v, w;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	v = reserve(img, 0, 5 * CS);
	qcow2->cancel(img->state, &v);
	assert_int_equal(map_at(img, 0).where, VD_HOLE);
	w = reserve(img, 0, 5 * CS);
	assert_true(w.host_off == v.host_off && !w.fresh);
	qcow2->cancel(img->state, &w);
	v = reserve_packed(img, 0, 100);
	w = reserve_packed(img, CS, 100);
	qcow2->cancel(img->state, &v);
	publish(img, &w);
	disk_close(img);
	assert_int_equal(bytes_refcount("x", w.host_off), 1);
	expect_sound("x");
}

/* Payload that cannot be written: the guest sees the old bytes, and the image is whole. */
static void a_failed_write_changes_nothing(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE, .nth = 1, .err = 28 };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 4 * CS, 1);
	disk_flush(img);
	disk_zero(img, 0, 2 * CS);
	vd_fault_arm(disks.fault, &plan);
	expect_failure(vd_image_pwrite(img, "abc", 3, 100, &e), VD_ENOSPC, &e, "x");
	vd_fault_arm(disks.fault, NULL);
	disk_expect(img, 0, 2 * CS, 0);
	disk_expect(img, 2 * CS, 2 * CS, 1);
	end(img);
}

/* ---- compressed --------------------------------------------------------------------------------------- */

static void compressed_clusters_are_linked_by_byte_and_sector(void **state)
{
	struct vd_image *img;
	struct vd_resv v, w;
	struct vd_run run;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	v = reserve_packed(img, 0, 1000);
	w = reserve_packed(img, CS, 300);
	assert_true(w.host_off == v.host_off + 1000);
	publish(img, &w);
	publish(img, &v);
	run = map_at(img, CS + 5);
	assert_true(run.where == VD_PACKED && run.host_off == w.host_off && run.host_len == 1536 - 1000);
	run = map_at(img, 0);
	assert_true(run.host_off == v.host_off && run.host_len == 1024 && run.unit_len == CS);
	end(img);
}

static void a_compressed_cluster_overwritten_gives_back_its_share(void **state)
{
	struct vd_image *img;
	struct vd_resv v[3];
	uint64_t host;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	for (int i = 0; i < 3; i++) {
		v[i] = reserve_packed(img, i * CS, 1500);
		publish(img, &v[i]);
	}
	host = v[0].host_off;
	/* The third began in the first host cluster and goes on in the second. */
	disk_zero(img, 0, 2 * CS);
	disk_close(img);
	assert_int_equal(bytes_refcount("x", host), 1);
	assert_int_equal(bytes_refcount("x", host + CS), 1);
	expect_sound("x");
	img = open_for_writing();
	v[0] = reserve(img, 2 * CS, CS);
	assert_false(v[0].in_place);
	publish(img, &v[0]);
	disk_close(img);
	assert_int_equal(bytes_refcount("x", host), 0);
	expect_sound("x");
}

static void what_is_no_compressed_cluster_is_refused(void **state)
{
	static const struct vd_resv wrong[] = {
		{ .off = 100, .len = CS, .packed_len = 10 },
		{ .off = 0, .len = 2 * CS, .packed_len = 10 },
		{ .off = 0, .len = CS, .packed_len = CS + 1 },
	};
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	for (size_t i = 0; i < 3; i++) {
		struct vd_resv v = wrong[i];

		expect_failure(qcow2->reserve(img->state, &v, &e), VD_EARG, &e, "no compressed cluster");
	}
	end(img);
}

static void the_smallest_and_largest_clusters_take_compressed_ones(void **state)
{
	static const uint32_t sizes[] = { 512, 2u << 20 };

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		uint64_t cs = sizes[k], size = 8 * cs;
		struct vd_image *img;

		make(size, cs, 0, NULL);
		img = open_for_writing();
		for (uint64_t i = 0; i < 8; i++) {
			struct vd_resv v = { .off = i * cs, .len = cs, .packed_len = i % 2 ? cs - 7 : 1 };
			struct vd_error e;
			struct vd_run run;

			expect_ok(qcow2->reserve(img->state, &v, &e), &e);
			publish(img, &v);
			run = map_at(img, i * cs);
			assert_true(run.where == VD_PACKED && run.host_off == v.host_off && run.unit_len == cs);
			assert_true(run.host_len >= v.packed_len && run.host_len < v.packed_len + 512);
		}
		end(img);
		disks.mem->unlink(disks.mem, "x", NULL);
	}
}

/* ---- punching ----------------------------------------------------------------------------------------- */

static void whole_clusters_become_zero_clusters(void **state)
{
	struct vd_image *img;
	uint64_t host;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, 0, 6 * CS, 1);
	host = map_at(img, CS).host_off;
	assert_true(punch(img, 100, 5 * CS) == 0);
	assert_true(punch(img, CS, CS - 1) == 0);
	assert_true(punch(img, CS, 3 * CS + 5) == 3 * CS);
	assert_int_equal(map_at(img, CS).where, VD_ZERO);
	disk_close(img);
	assert_true(bytes_get("x", bytes_l2_entry("x", CS), 8) == QCOW2_ZERO);
	assert_int_equal(bytes_refcount("x", host), 0);
	expect_sound("x");
}

static void the_last_cluster_is_whole_at_the_end_of_the_disk(void **state)
{
	struct vd_image *img;

	(void)state;
	make(MIB + 512, CS, 0, NULL);
	img = open_for_writing();
	disk_write(img, MIB - CS, CS + 512, 1);
	assert_true(punch(img, MIB, 511) == 0);
	assert_true(punch(img, MIB - CS, CS + 512) == CS + 512);
	disk_expect(img, MIB - CS, CS + 512, 0);
	end(img);
}

static void a_punch_ends_with_its_table(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_put_raw("base", 8 * MIB, 4);
	make(8 * MIB, CS, 0, "base");
	img = open_for_writing();
	assert_true(punch(img, MIB, 7 * MIB) == MIB);
	assert_true(punch(img, 2 * MIB, 6 * MIB) == 2 * MIB);
	disk_expect(img, MIB, 3 * MIB, 0);
	disk_expect(img, 4 * MIB, MIB, 4);
	end(img);
}

static void holes_that_read_as_zeros_cost_no_table(void **state)
{
	struct vd_image *img;

	(void)state;
	make(8 * MIB, CS, 0, NULL);
	img = open_for_writing();
	assert_true(punch(img, 0, 8 * MIB) == 2 * MIB);
	assert_false(vd_meta_is_dirty(img->meta));
	end(img);
	assert_true(bytes_get("x", bytes_l1("x"), 8) == 0);
}

static void version_2_has_holes_alone(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_put_raw("base", 8 * MIB, 4);
	make(8 * MIB, CS, VD_CREATE_COMPAT_V2, NULL);
	img = open_for_writing();
	disk_write(img, 0, 4 * CS, 1);
	assert_true(punch(img, CS, 2 * CS) == 2 * CS);
	assert_int_equal(map_at(img, CS).where, VD_HOLE);
	end(img);
	disks.mem->unlink(disks.mem, "x", NULL);
	make(8 * MIB, CS, VD_CREATE_COMPAT_V2, "base");
	img = open_for_writing();
	disk_write(img, 0, 4 * CS, 1);
	assert_true(punch(img, CS, 2 * CS) == 0);
	disk_zero(img, CS, 20 * CS);
	disk_expect(img, CS, 20 * CS, 0);
	disk_expect(img, 21 * CS, CS, 4);
	end(img);
}

static void subclusters_are_punched_by_their_bits(void **state)
{
	struct vd_image *img;
	uint64_t host;

	(void)state;
	make(8 * MIB, EXT_CS, VD_CREATE_EXTENDED_L2, NULL);
	img = open_for_writing();
	disk_write(img, 0, 2 * EXT_CS, 1);
	host = map_at(img, 0).host_off;
	assert_true(punch(img, 2 * EXT_SUB, 3 * EXT_SUB + 1) == 3 * EXT_SUB);
	assert_true(punch(img, EXT_SUB + 1, 3 * EXT_SUB) == 0);
	/* No further than its cluster. */
	assert_true(punch(img, 31 * EXT_SUB, 2 * EXT_SUB) == EXT_SUB);
	disk_flush(img);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0) + 8, 8) == (UINT64_C(0x8000001c) << 32 | 0x7fffffe3));
	/* With the last subcluster the host cluster goes. */
	assert_true(punch(img, 0, 2 * EXT_SUB) == 2 * EXT_SUB);
	assert_true(punch(img, 5 * EXT_SUB, 26 * EXT_SUB) == 26 * EXT_SUB);
	disk_close(img);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0), 8) == 0);
	assert_true(bytes_get("x", bytes_l2_entry("x", 0) + 8, 8) == UINT64_C(0xffffffff) << 32);
	assert_int_equal(bytes_refcount("x", host), 0);
	expect_sound("x");
}

static void a_piece_of_a_compressed_cluster_is_not_punched(void **state)
{
	struct vd_image *img;
	struct vd_resv v = { .off = 0, .len = EXT_CS, .packed_len = 100 };
	struct vd_error e;

	(void)state;
	make(8 * MIB, EXT_CS, VD_CREATE_EXTENDED_L2, NULL);
	img = open_for_writing();
	expect_ok(qcow2->reserve(img->state, &v, &e), &e);
	publish(img, &v);
	assert_true(punch(img, 0, EXT_SUB) == 0);
	assert_int_equal(map_at(img, 0).where, VD_PACKED);
	assert_true(punch(img, 0, EXT_CS) == EXT_CS);
	assert_int_equal(map_at(img, 0).where, VD_ZERO);
	end(img);
}

static void a_raw_data_file_gets_real_zeros(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, MIB);
	struct vd_image *img;

	(void)state;
	o.data_file = "data";
	o.flags = VD_CREATE_DATA_FILE_RAW;
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
	img = open_for_writing();
	disk_write(img, 0, 200000, 1);
	assert_true(punch(img, 0, 131072) == 0);
	disk_zero(img, 65536, 65536);
	end(img);
	for (uint64_t off = 0; off < 196608; off += 65536)
		assert_int_equal(bytes_get("data", off, 1), off == 65536 ? 0 : 1);
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

static void random_work_on_every_kind_of_image(void **state)
{
	static const struct { uint32_t cluster; unsigned flags; const char *backing; } kinds[] = {
		{ 512, 0, NULL }, { 512, 0, "base" }, { 4096, 0, "base" }, { 65536, 0, NULL }, { 2u << 20, 0, "base" },
		{ 4096, VD_CREATE_COMPAT_V2, NULL }, { 4096, VD_CREATE_COMPAT_V2, "base" },
		{ 16384, VD_CREATE_EXTENDED_L2, NULL }, { 65536, VD_CREATE_EXTENDED_L2, "base" },
	};
	uint64_t size = 3 * MIB + 512;

	(void)state;
	disk_put_raw("base", MIB + 512, 4);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		struct vd_image *img;
		struct model m;

		make(size, kinds[k].cluster, kinds[k].flags, kinds[k].backing);
		img = open_for_writing();
		model_init(&m, size, k);
		memset(m.bytes, kinds[k].backing ? 4 : 0, MIB + 512);
		for (int i = 0; i < 150; i++) {
			uint64_t off = chance_below(&m.chance, size), len = 1 + chance_below(&m.chance, i % 9 ? 20000 : 500000);

			len = vd_min_u64(len, size - off);
			(i % 4 ? model_write : model_zero)(&m, img, off, len);
			if (i % 20 == 0)
				disk_flush(img);
		}
		model_check_all(&m, img);
		end(img);
		img = disk_open(qcow2, "x", 0);
		model_check_all(&m, img);
		disk_close(img);
		model_free(&m);
		disks.mem->unlink(disks.mem, "x", NULL);
	}
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(new_space_is_whole_clusters_and_fresh),
		T(a_reservation_ends_with_its_table),
		T(what_is_ours_is_written_in_place),
		T(shared_space_is_left_alone),
		T(a_shared_table_is_copied_once),
		T(zeroed_host_space_is_used_again),
		T(subclusters_are_filled_alone),
		T(a_cluster_that_moves_is_filled_whole),
		T(the_fill_of_a_data_file_ends_with_the_disk),
		T(a_cancelled_reservation_leaves_no_trace),
		T(a_failed_write_changes_nothing),
		T(compressed_clusters_are_linked_by_byte_and_sector),
		T(a_compressed_cluster_overwritten_gives_back_its_share),
		T(what_is_no_compressed_cluster_is_refused),
		T(the_smallest_and_largest_clusters_take_compressed_ones),
		T(whole_clusters_become_zero_clusters),
		T(the_last_cluster_is_whole_at_the_end_of_the_disk),
		T(a_punch_ends_with_its_table),
		T(holes_that_read_as_zeros_cost_no_table),
		T(version_2_has_holes_alone),
		T(subclusters_are_punched_by_their_bits),
		T(a_piece_of_a_compressed_cluster_is_not_punched),
		T(a_raw_data_file_gets_real_zeros),
		T(random_work_on_every_kind_of_image),
	};
#undef T

	return cmocka_run_group_tests(tests, NULL, NULL);
}
