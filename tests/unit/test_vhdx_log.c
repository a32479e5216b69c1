/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of VHDX: replayed in memory or in place, whoever wrote it; what an entry may say; and that our own tables go
 * through it. The states after a crash are tests/crash's, logs written by qemu tests/interop's.
 */
#include "tests/support/vhdx_bytes.h"

#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/crc32c.h"

#define BLOCK (1u << 20)
#define SIZE (10 * (uint64_t)BLOCK)
#define LOG (1u << 20)                  /* where it lies, and how long it is */
#define SECTOR 4096u

static int try_open(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vhdx, flags);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, vhdx, name, &opts, &img, e);

	vd_image_abort(img);
	return r;
}

/* ---- logs by hand --------------------------------------------------------------------------------------- */

#define GUID_BYTE 0x5a                  /* of the log that is written here */

/* An entry with one page, or with zeros of len bytes if page is NULL, at `at` in the log. Its length. */
struct entry {
	uint32_t at, tail;
	uint64_t sequence, off, len, last;
	const uint8_t *page;
};

static uint32_t put_entry(const char *name, const struct entry *x)
{
	uint8_t raw[2 * SECTOR] = { 0 };
	uint32_t length = x->page ? 2 * SECTOR : SECTOR;

	memcpy(raw, "loge", 4);
	vd_put_le32(raw + 8, length);
	vd_put_le32(raw + 12, x->tail);
	vd_put_le64(raw + 16, x->sequence);
	vd_put_le32(raw + 24, 1);
	memset(raw + 32, GUID_BYTE, 16);
	vd_put_le64(raw + 48, bytes_size(name));
	vd_put_le64(raw + 56, x->last ? x->last : bytes_size(name));
	memcpy(raw + 64, x->page ? "desc" : "zero", 4);
	if (x->page) {
		memcpy(raw + 68, x->page + SECTOR - 4, 4);
		memcpy(raw + 72, x->page, 8);
		memcpy(raw + SECTOR, "data", 4);
		vd_put_le32(raw + SECTOR + 4, x->sequence >> 32);
		memcpy(raw + SECTOR + 8, x->page + 8, 4084);
		vd_put_le32(raw + 2 * SECTOR - 4, x->sequence);
	} else {
		vd_put_le64(raw + 72, x->len);
	}
	vd_put_le64(raw + 80, x->off);
	vd_put_le64(raw + 88, x->sequence);
	vd_put_le32(raw + 4, vd_crc32c(0, raw, length));
	for (uint32_t i = 0; i < length; i += SECTOR)
		bytes_write(name, LOG + (x->at + i) % LOG, raw + i, SECTOR);
	return length;
}

/* Both headers say that there is a log. */
static void announce(const char *name)
{
	for (int i = 0; i < 2; i++) {
		uint8_t guid[16];

		memset(guid, GUID_BYTE, sizeof(guid));
		bytes_write(name, (65536 << i) + 48, guid, sizeof(guid));
		crc_put(name, 65536 << i, 4096);
	}
}

/* A disk whose block 0 is full of ones, and what its first page of the bat is; on disk the bat is empty then. */
static void make_hidden(const char *name, uint8_t page[SECTOR])
{
	struct vd_image *img;

	vhdx_make(name, SIZE, NULL, NULL);
	img = disk_open(vhdx, name, VD_OPEN_WRITE);
	disk_write(img, 0, BLOCK, 1);
	disk_close(img);
	bytes_read(name, vhdx_bat(name), page, SECTOR);
	le_put(name, vhdx_entry(name, 0), 8, 0);
	announce(name);
}

static void expect_block(const char *name, uint8_t value)
{
	struct vd_image *img = disk_open(vhdx, name, 0);

	disk_expect(img, 0, BLOCK, value);
	disk_close(img);
}

/* ---- replay --------------------------------------------------------------------------------------------- */

static void reading_replays_in_memory_and_writes_nothing(void **state)
{
	uint8_t page[SECTOR];
	uint64_t tick;

	(void)state;
	make_hidden("d", page);
	expect_block("d", 0);
	put_entry("d", &(struct entry){ .sequence = 7, .off = vhdx_bat("d"), .page = page });
	tick = vd_record_tick(disks.record);
	expect_block("d", 1);
	assert_int_equal(disks_count(CHANGES, tick), 0);
}

static void writing_puts_the_log_in_place_first(void **state)
{
	struct vd_image *img;
	uint8_t page[SECTOR];

	(void)state;
	make_hidden("d", page);
	put_entry("d", &(struct entry){ .sequence = 7, .off = vhdx_bat("d"), .page = page, .last = 64 * BLOCK });
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	assert_int_equal(le_get("d", vhdx_entry("d", 0), 8), 0);
	disk_write(img, 5 * BLOCK, 1, 2);
	assert_int_equal(le_get("d", vhdx_entry("d", 0), 8), vd_get_le64(page));
	assert_true(bytes_size("d") >= 64 * BLOCK);
	disk_expect(img, 0, BLOCK, 1);
	disk_close(img);
	assert_int_equal(le_get("d", 65536 + 48, 8), 0);
	expect_block("d", 1);
}

/* Two entries, of which the second needs the first; the log goes round between them. */
static void a_sequence_is_replayed_from_its_tail(void **state)
{
	uint8_t first[SECTOR], second[SECTOR] = { 0 };
	struct vd_image *img;

	(void)state;
	make_hidden("d", first);
	/* The second page of the bat: zero blocks, which no disk of this size reaches. The first is what shows. */
	vd_put_le64(second, 2);
	put_entry("d", &(struct entry){ .at = LOG - SECTOR, .tail = LOG - SECTOR, .sequence = 8, .off = vhdx_bat("d"), .page = first });
	put_entry("d", &(struct entry){ .at = SECTOR, .tail = LOG - SECTOR, .sequence = 9, .off = vhdx_bat("d") + SECTOR, .page = second });
	/* Older, and not part of it. */
	memset(first, 0, sizeof(first));
	put_entry("d", &(struct entry){ .at = 8 * SECTOR, .tail = 8 * SECTOR, .sequence = 3, .off = vhdx_bat("d"), .page = first });
	expect_block("d", 1);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_write(img, 5 * BLOCK, 1, 2);
	disk_close(img);
	assert_int_equal(le_get("d", vhdx_bat("d") + SECTOR, 8), 2);
}

static void the_newest_whole_entry_counts(void **state)
{
	uint8_t page[SECTOR], zero[SECTOR] = { 0 };

	(void)state;
	make_hidden("d", page);
	put_entry("d", &(struct entry){ .sequence = 7, .off = vhdx_bat("d"), .page = page });
	put_entry("d", &(struct entry){ .at = 2 * SECTOR, .tail = 2 * SECTOR, .sequence = 8, .off = vhdx_bat("d"), .page = zero });
	expect_block("d", 0);
	/* Torn. */
	le_put("d", LOG + 3 * SECTOR + 1000, 1, 77);
	expect_block("d", 1);
}

static void zeros_of_a_log_are_replayed(void **state)
{
	struct vd_image *img;
	uint8_t page[SECTOR];

	(void)state;
	make_hidden("d", page);
	bytes_write("d", vhdx_bat("d"), page, sizeof(page));
	expect_block("d", 1);
	put_entry("d", &(struct entry){ .sequence = 1, .off = vhdx_bat("d"), .len = 1 << 20 });
	expect_block("d", 0);
	img = disk_open(vhdx, "d", VD_OPEN_METADATA);
	disk_close(img);
}

static void hostile_entries_are_refused(void **state)
{
	static const struct { uint64_t off, len, last; bool has_page; int code; const char *words; } cases[] = {
		{ 0, 0, 0, true, VD_ECORRUPT, "may not" },
		{ 65536, 0, 0, true, VD_ECORRUPT, "may not" },
		{ LOG, 0, 0, true, VD_ECORRUPT, "may not" },
		{ UINT64_C(1) << 40, 0, 0, true, VD_ECORRUPT, "may not" },
		{ UINT64_MAX - SECTOR + 1, 0, UINT64_MAX, true, VD_ECORRUPT, "may not" },
		{ 3 << 20, UINT64_MAX - SECTOR + 1, 0, false, VD_ECORRUPT, "may not" },
		{ 3 << 20, UINT64_C(1) << 40, UINT64_C(1) << 50, false, VD_EUNSUPPORTED, "held in memory" },
		{ 3 << 20, SECTOR, UINT64_MAX, false, VD_ECORRUPT, "says that the file" },
	};
	uint8_t page[SECTOR];
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make_hidden("d", page);
		put_entry("d", &(struct entry){ .sequence = 1, .off = cases[i].off, .len = cases[i].len, .last = cases[i].last,
						.page = cases[i].has_page ? page : NULL });
		expect_failure(try_open("d", 0, &e), cases[i].code, &e, cases[i].words);
		expect_failure(try_open("d", VD_OPEN_WRITE, &e), cases[i].code, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void a_log_without_a_whole_entry_is_an_error(void **state)
{
	uint8_t page[SECTOR];
	struct vd_error e;

	(void)state;
	make_hidden("d", page);
	/* Nothing was ever logged: what the headers say alone is no harm. */
	assert_int_equal(try_open("d", 0, &e), 0);
	put_entry("d", &(struct entry){ .sequence = 1, .off = vhdx_bat("d"), .page = page });
	le_put("d", LOG + 60, 1, 9);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "none of its entries is whole");
}

static void a_file_that_was_cut_short_is_refused(void **state)
{
	uint8_t page[SECTOR];
	struct vd_error e;

	(void)state;
	make_hidden("d", page);
	put_entry("d", &(struct entry){ .sequence = 1, .off = vhdx_bat("d"), .page = page });
	bytes_truncate("d", bytes_size("d") - 1);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "cut short");
}

static void payload_in_a_log_is_not_read_wrong(void **state)
{
	struct vd_image *img;
	uint8_t page[SECTOR], byte;
	struct vd_error e;

	(void)state;
	make_hidden("d", page);
	bytes_write("d", vhdx_bat("d"), page, sizeof(page));
	put_entry("d", &(struct entry){ .sequence = 1, .off = (vd_get_le64(page) & ~UINT64_C(0xfffff)) + SECTOR, .page = page });
	img = disk_open(vhdx, "d", 0);
	disk_expect(img, 0, 0, 1);
	expect_failure(vd_image_pread(img, &byte, 1, SECTOR, &e), VD_EUNSUPPORTED, &e, "changes payload");
	disk_close(img);
	/* In place it is payload like any other. */
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_write(img, 5 * BLOCK, 1, 2);
	disk_expect(img, 0, SECTOR, 1);
	disk_expect(img, SECTOR, 1, page[0]);
	disk_close(img);
}

/* ---- our own -------------------------------------------------------------------------------------------- */

static uint64_t place_of_bat;

/* A write of the bat that no durable entry of the log speaks of. */
static void expect_logged(uint64_t tick)
{
	const struct vd_event *ev;
	unsigned logged = 0;

	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++) {
		if (ev->begin <= tick)
			continue;
		if (ev->kind == VD_OP_WRITE && ev->off >= LOG && ev->off < 2 * LOG && !memcmp(ev->data, "loge", 4))
			logged = 1;
		else if (ev->kind == VD_OP_FLUSH && logged == 1)
			logged = 2;
		else if (ev->kind == VD_OP_WRITE && ev->off >= place_of_bat && ev->off < place_of_bat + LOG)
			assert_int_equal(logged, 2);
	}
	assert_int_equal(logged, 2);
}

static void tables_are_in_the_log_before_they_are_in_place(void **state)
{
	struct vd_image *img;
	uint64_t tick;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	place_of_bat = vhdx_bat("d");
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	for (int i = 0; i < 5; i++) {
		tick = vd_record_tick(disks.record);
		disk_write(img, 2 * i * BLOCK, 100, 1);
		disk_flush(img);
		expect_logged(tick);
		/* Payload, log, tables; the first write opens the log besides. */
		if (i)
			assert_int_equal(disks_count(VD_OP_FLUSH, tick), 3);
	}
	disk_close(img);
}

static void the_log_goes_round(void **state)
{
	struct vd_image *img;

	(void)state;
	vhdx_make("d", 400 * (uint64_t)BLOCK, NULL, NULL);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	for (int i = 0; i < 300; i++) {
		disk_write(img, i * (uint64_t)BLOCK, 1, i % 255 + 1);
		disk_flush(img);
	}
	vd_image_abort(img);
	assert_int_not_equal(le_get("d", 65536 + 48, 8), 0);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	for (int i = 0; i < 300; i++)
		disk_expect(img, i * (uint64_t)BLOCK, 1, i % 255 + 1);
	disk_write(img, 0, 1, 77);
	disk_close(img);
}

/* Pages of the bat for 512 blocks each: more than an entry of half a log takes. */
static void a_large_commit_takes_several_entries(void **state)
{
	struct vd_image *img;
	size_t n_entries = 0;
	const struct vd_event *ev;
	uint64_t tick;

	(void)state;
	vhdx_make("d", UINT64_C(200) << 30, NULL, NULL);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 1, 1);
	disk_flush(img);
	for (uint64_t i = 0; i < 300; i++)
		disk_write(img, i * 512 * BLOCK, 1, 2);
	tick = vd_record_tick(disks.record);
	disk_flush(img);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		n_entries += ev->begin > tick && ev->kind == VD_OP_WRITE && ev->len >= 4 && !memcmp(ev->data, "loge", 4);
	assert_int_equal(n_entries, 3);
	vd_image_abort(img);
	img = disk_open(vhdx, "d", 0);
	for (uint64_t i = 0; i < 300; i++)
		disk_expect(img, i * 512 * BLOCK, 1, 2);
	disk_close(img);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(reading_replays_in_memory_and_writes_nothing),
		CASE(writing_puts_the_log_in_place_first),
		CASE(a_sequence_is_replayed_from_its_tail),
		CASE(the_newest_whole_entry_counts),
		CASE(zeros_of_a_log_are_replayed),
		CASE(hostile_entries_are_refused),
		CASE(a_log_without_a_whole_entry_is_an_error),
		CASE(a_file_that_was_cut_short_is_refused),
		CASE(payload_in_a_log_is_not_read_wrong),
		CASE(tables_are_in_the_log_before_they_are_in_place),
		CASE(the_log_goes_round),
		CASE(a_large_commit_takes_several_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
