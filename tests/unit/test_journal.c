/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal of a conversion in place, and the veil: what survives, what is noticed, what nobody can read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/core/stub.h"
#include "libvdisk/core/veil.h"
#include "tests/support/disks.h"

static const uint8_t vk[64] = "sixty-four bytes of a volume key, whose two halves do differ...";
static const uint8_t header[] = "a header of LUKS, as far as the journal knows";
static const uint64_t ends[] = { 4096, 8192 };

static struct vd_bytes volume_key(void)
{
	return (struct vd_bytes){ vk, sizeof(vk) };
}

static struct vd_journal *make(void)
{
	struct vd_journal_state s = { .uuid = "sixteen bytes...", .act = 1, .phase = VD_PHASE_UNPACK, .format = "raw", .n_files = 2 };
	struct vd_bytes headers[2] = { { 0 }, { header, sizeof(header) } };
	struct vd_journal *j = NULL;
	struct vd_error e;

	expect_ok(vd_journal_create(disks.mem, "j", &s, ends, headers, volume_key(), &j, &e), &e);
	expect_ok(vd_journal_write_state(j, &e), &e);
	return j;
}

static int reopen(struct vd_journal **j, struct vd_error *e)
{
	int r;

	*j = NULL;
	r = vd_journal_open(disks.mem, "j", true, j, e);
	return r < 0 ? r : vd_journal_unlock(*j, volume_key(), e);
}

static void flip_in(struct vd_io *io, uint64_t at)
{
	uint8_t byte;
	struct vd_error e;

	expect_ok(vd_io_pread(io, &byte, 1, at, &e), &e);
	byte ^= 1;
	expect_ok(vd_io_pwrite(io, &byte, 1, at, &e), &e);
}

static void flip(const char *name, uint64_t at)
{
	struct vd_io *io = NULL;
	struct vd_error e;

	expect_ok(disks.mem->open(disks.mem, name, VD_IO_WRITE, &io, &e), &e);
	flip_in(io, at);
	vd_io_abort(io);
}

static void state_survives_a_torn_write(void **state)
{
	struct vd_journal *j = make();
	struct vd_error e;

	(void)state;
	j->state.phase = VD_PHASE_DATA;
	j->state.cursor = 77;
	expect_ok(vd_journal_write_state(j, &e), &e);
	j->state.cursor = 99;
	expect_ok(vd_journal_write_state(j, &e), &e);
	vd_journal_close(j);
	for (int i = 0; i < 2; i++) {
		flip("j", i * 4096 + 100);
		expect_ok(reopen(&j, &e), &e);
		assert_int_equal(j->state.cursor, 99);
		assert_int_equal(j->state.phase, VD_PHASE_DATA);
		assert_memory_equal(j->header[1], header, sizeof(header));
		assert_int_equal(j->ends[1], 8192);
		vd_journal_close(j);
		flip("j", i * 4096 + 100);
	}
	flip("j", 100);
	flip("j", 4096 + 100);
	expect_failure(reopen(&j, &e), VD_ECORRUPT, &e, "both of its states are damaged");
}

static void change_by_a_stranger_is_noticed(void **state)
{
	static const uint64_t places[] = { 24576 + 3, 57344 + 5 };      /* lengths, header */
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct vd_journal *j = make();

		vd_journal_close(j);
		flip("j", places[i]);
		expect_failure(reopen(&j, &e), VD_EAUTH, &e, "was changed, and not by vdisk");
		vd_journal_close(j);
		assert_int_equal(disks.mem->unlink(disks.mem, "j", &e), 0);
	}
}

static void other_key_does_not_pass(void **state)
{
	struct vd_journal *j = make();
	uint8_t other[64] = { 1 };
	struct vd_error e;

	(void)state;
	vd_journal_close(j);
	expect_ok(vd_journal_open(disks.mem, "j", true, &j, &e), &e);
	expect_failure(vd_journal_unlock(j, (struct vd_bytes){ other, sizeof(other) }, &e), VD_EAUTH, &e, "changed");
	vd_journal_close(j);
}

static void write_record(struct vd_journal *j, uint8_t value, uint64_t cursor)
{
	uint8_t payload[1024], tags[2][VD_JOURNAL_TAG];
	struct vd_chunk chunks[2] = { { .len = 512, .src = 512, .dst = 512 }, { .file = 1, .len = 512, .dst = 1024 } };
	struct vd_record rec = { .n_chunks = 2, .chunks = chunks, .tags = tags, .payload = payload, .payload_len = 1024, .cursor = cursor };
	struct vd_error e;

	memset(payload, value, sizeof(payload));
	for (uint32_t i = 0; i < 2; i++)
		expect_ok(vd_journal_tag(j, rec.salt, i, (struct vd_bytes){ payload + i * 512, 512 }, tags[i], &e), &e);
	expect_ok(vd_journal_write_record(j, &rec, &e), &e);
}

static void expect_records(struct vd_journal *j, unsigned n, const uint8_t values[2])
{
	for (unsigned i = 0; i < 2; i++) {
		struct vd_record rec = { 0 };
		struct vd_error e;
		bool got;

		expect_ok(vd_journal_read_record(j, i, &rec, &got, &e), &e);
		assert_true(got == (i < n));
		if (got)
			assert_int_equal(rec.payload[1023], values[i]);
		vd_record_fini(&rec);
	}
}

static void records_come_back_in_their_order(void **state)
{
	struct vd_journal *j = make();
	struct vd_error e;

	(void)state;
	expect_records(j, 0, NULL);
	write_record(j, 'a', 1);
	expect_records(j, 1, (const uint8_t[]){ 'a', 0 });
	write_record(j, 'b', 2);
	write_record(j, 'c', 3);
	expect_records(j, 2, (const uint8_t[]){ 'b', 'c' });
	vd_journal_close(j);
	expect_ok(reopen(&j, &e), &e);
	expect_records(j, 2, (const uint8_t[]){ 'b', 'c' });
	/* Those that count for nothing any more are not found. */
	j->state.record = 2;
	expect_records(j, 1, (const uint8_t[]){ 'c', 0 });
	vd_journal_close(j);
}

/* Two records at 1 MiB: the first has an even number. Its table, its chunks, its payload. */
#define SECOND ((1u << 20) + (1u << 20) + VD_JOURNAL_BATCH)
static const uint64_t record_places[] = { SECOND + 30, SECOND + 512 + 8, SECOND + (1u << 20) + 700 };
#define SECOND_USED (SECOND + (1u << 20) - 512)

static void torn_record_is_none(void **state)
{
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct vd_journal *j = make();

		write_record(j, 'a', 1);
		vd_journal_close(j);
		flip("j", record_places[i]);
		flip("j", SECOND_USED);
		expect_ok(reopen(&j, &e), &e);
		expect_records(j, 0, NULL);
		vd_journal_close(j);
		assert_int_equal(disks.mem->unlink(disks.mem, "j", &e), 0);
	}
}

static void damaged_record_is_noticed(void **state)
{
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct vd_journal *j = make();
		struct vd_record rec = { 0 };
		bool got;

		write_record(j, 'a', 1);
		vd_journal_close(j);
		flip("j", record_places[i]);
		expect_ok(reopen(&j, &e), &e);
		expect_failure(vd_journal_read_record(j, 0, &rec, &got, &e), VD_EAUTH, &e, "was changed");
		/* What the state has passed counts for nothing. */
		j->state.record = 1;
		expect_records(j, 0, NULL);
		vd_journal_close(j);
		assert_int_equal(disks.mem->unlink(disks.mem, "j", &e), 0);
	}
}

static void hidden_sector_outlives_one_change(void **state)
{
	struct vd_journal *j = make();
	uint8_t sector[512] = "the first of the image", back[512];
	struct vd_error e;

	(void)state;
	expect_ok(vd_journal_write_hidden(j, 1, sector, &e), &e);
	for (int i = 0; i < 2; i++) {
		flip_in(j->io, 8192 + (2 + i) * 1024 + 7);
		expect_ok(vd_journal_read_hidden(j, 1, back, &e), &e);
		assert_memory_equal(back, sector, sizeof(sector));
		flip_in(j->io, 8192 + (2 + i) * 1024 + 7);
	}
	flip_in(j->io, 8192 + 2 * 1024 + 7);
	flip_in(j->io, 8192 + 3 * 1024 + 7);
	expect_failure(vd_journal_read_hidden(j, 1, back, &e), VD_EAUTH, &e, "was changed");
	vd_journal_close(j);
}

/* ---- the veil ------------------------------------------------------------------------------------------- */

static void put_image(uint64_t size)
{
	disk_put_raw("i", size, 'x');
}

static struct vd_io *look_through(struct vd_veil *v, unsigned flags)
{
	struct vd_io *io = NULL;
	struct vd_error e;

	expect_ok(vd_veil_host(v)->open(vd_veil_host(v), "i", flags, &io, &e), &e);
	return io;
}

static void hidden_sector_is_seen_by_its_own_only(void **state)
{
	struct vd_journal *j = make();
	struct vd_veil *v = NULL;
	uint8_t buf[2048], uuid[16], raw[8192];
	struct vd_io *io, *jio = NULL;
	struct vd_error e;

	(void)state;
	put_image(4096);
	expect_ok(vd_veil_open(disks.mem, "i", &v, &e), &e);
	expect_ok(vd_veil_use(v, j, &e), &e);
	expect_ok(vd_veil_hide(v, 0, &e), &e);
	expect_ok(vd_io_pread(vd_veil_file(v), buf, 512, 0, &e), &e);
	assert_true(vd_stub_read((struct vd_bytes){ buf, 512 }, uuid));
	assert_memory_equal(uuid, j->state.uuid, 16);
	io = look_through(v, VD_IO_WRITE);
	expect_ok(vd_io_pread(io, buf, sizeof(buf), 100, &e), &e);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 'x');
	/* A write across its end goes to both places. */
	memset(buf, 'y', sizeof(buf));
	expect_ok(vd_io_pwrite(io, buf, 1024, 400, &e), &e);
	expect_ok(vd_io_pread(io, buf, 4, 510, &e), &e);
	assert_memory_equal(buf, "yyyy", 4);
	expect_ok(vd_io_flush(io, &e), &e);
	vd_io_abort(io);
	/* Not in clear in the journal. */
	expect_ok(vd_io_pread(j->io, raw, sizeof(raw), 8192, &e), &e);
	assert_null(memmem(raw, sizeof(raw), "xxxx", 4));
	expect_ok(vd_veil_lift(v, &e), &e);
	vd_veil_abort(v);
	vd_journal_close(j);
	expect_ok(disks.mem->open(disks.mem, "i", 0, &jio, &e), &e);
	expect_ok(vd_io_pread(jio, buf, 4, 398, &e), &e);
	assert_memory_equal(buf, "xxyy", 4);
	vd_io_abort(jio);
}

static void short_file_keeps_its_length(void **state)
{
	struct vd_journal *j = make();
	struct vd_veil *v = NULL;
	uint64_t size;
	struct vd_io *io;
	struct vd_error e;

	(void)state;
	put_image(300);
	expect_ok(vd_veil_open(disks.mem, "i", &v, &e), &e);
	expect_ok(vd_veil_use(v, j, &e), &e);
	expect_ok(vd_veil_hide(v, 0, &e), &e);
	io = look_through(v, VD_IO_WRITE);
	expect_ok(vd_io_size(io, &size, &e), &e);
	assert_int_equal(size, 300);
	expect_ok(vd_io_pwrite(io, "end", 3, 300, &e), &e);
	expect_ok(vd_io_size(io, &size, &e), &e);
	assert_int_equal(size, 303);
	expect_ok(vd_io_truncate(io, 200, &e), &e);
	vd_io_abort(io);
	expect_ok(vd_veil_lift(v, &e), &e);
	expect_ok(vd_io_size(vd_veil_file(v), &size, &e), &e);
	assert_int_equal(size, 200);
	vd_veil_abort(v);
	vd_journal_close(j);
}

static void stub_of_one_bit_less_is_none(void **state)
{
	uint8_t stub[VD_STUB_SIZE], uuid[16] = "whatever it is.";

	(void)state;
	vd_stub_make(stub, uuid);
	assert_true(vd_stub_read((struct vd_bytes){ stub, sizeof(stub) }, uuid));
	assert_false(vd_stub_read((struct vd_bytes){ stub, 511 }, uuid));
	for (size_t i = 0; i < sizeof(stub); i++) {
		stub[i] ^= 4;
		assert_false(vd_stub_read((struct vd_bytes){ stub, sizeof(stub) }, uuid));
		stub[i] ^= 4;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, disks_start, disks_stop)
		TEST(state_survives_a_torn_write),
		TEST(change_by_a_stranger_is_noticed),
		TEST(other_key_does_not_pass),
		TEST(records_come_back_in_their_order),
		TEST(torn_record_is_none),
		TEST(damaged_record_is_noticed),
		TEST(hidden_sector_outlives_one_change),
		TEST(hidden_sector_is_seen_by_its_own_only),
		TEST(short_file_keeps_its_length),
		TEST(stub_of_one_bit_less_is_none),
	};

	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
