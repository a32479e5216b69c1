/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tar headers: those of each kind are read, broken ones are refused where they are, and ours are read by what reads theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "libvdisk/io/mem.h"
#include "libvdisk/io/tar.h"

#define BLOCK VD_TAR_BLOCK

static struct archive {
	uint8_t bytes[64 * BLOCK];
	size_t len;
} a;

static void add_block(const void *bytes, size_t len)
{
	memcpy(a.bytes + a.len, bytes, len);
	a.len += (len + BLOCK - 1) / BLOCK * BLOCK;
}

/* The sum over all, that of the checksum's own place taken for blanks (POSIX, "chksum"). */
static void seal(uint8_t *h)
{
	unsigned sum = 0;

	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += h[i];
	snprintf((char *)h + 148, 7, "%06o", sum);
}

static uint8_t *add_header(const char *name, char type, uint64_t len)
{
	uint8_t *h = a.bytes + a.len;

	vd_tar_header(h, name, len, 1);
	h[156] = (uint8_t)type;
	seal(h);
	a.len += BLOCK;
	return h;
}

static int start(void **state)
{
	(void)state;
	memset(&a, 0, sizeof(a));
	return 0;
}

/* The first member of what was added. */
static int first(struct vd_tar_member *m, struct vd_error *e)
{
	struct vd_host *h = NULL;
	struct vd_io *io = NULL;
	uint64_t at = 0;
	int r;

	assert_int_equal(vd_mem_host_new(&h, NULL), 0);
	assert_int_equal(vd_mem_put(h, "t", a.bytes, a.len, NULL), 0);
	assert_int_equal(h->open(h, "t", 0, &io, NULL), 0);
	r = vd_tar_next(io, &at, m, e);
	vd_io_abort(io);
	vd_mem_host_free(h);
	return r;
}

static void expect_member(const char *name, uint64_t off, uint64_t len)
{
	struct vd_tar_member m;
	struct vd_error e;
	int r = first(&m, &e);

	if (r < 0)
		fail_msg("%s", e.message);
	assert_string_equal(m.name, name);
	assert_int_equal(m.off, off);
	assert_int_equal(m.len, len);
}

static void expect_refused(int code, const char *words)
{
	struct vd_tar_member m;
	struct vd_error e;

	assert_int_equal(first(&m, &e), code);
	assert_non_null(strstr(e.message, words));
}

static void plain_members_are_found(void **state)
{
	(void)state;
	add_header("a.ovf", '0', 5);
	add_block("hello", 5);
	expect_member("a.ovf", BLOCK, 5);
}

static void a_prefix_goes_before_the_name(void **state)
{
	uint8_t *h = add_header("disk.vmdk", '0', 0);

	(void)state;
	strcpy((char *)h + 345, "folder");
	seal(h);
	expect_member("folder/disk.vmdk", BLOCK, 0);
}

static void long_names_of_gnu_tar_count(void **state)
{
	char name[200];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	add_header("././@LongLink", 'L', sizeof(name));
	add_block(name, sizeof(name));
	add_header("nnn", '0', 1);
	add_block("x", 1);
	expect_member(name, 3 * BLOCK, 1);
}

static void pax_records_count(void **state)
{
	static const char records[] = "18 path=disk.vmdk\n9 size=3\n12 foo=barz\n";

	(void)state;
	add_header("x", 'x', sizeof(records) - 1);
	add_block(records, sizeof(records) - 1);
	add_header("short", '0', 0);
	add_block("abc", 3);
	expect_member("disk.vmdk", 3 * BLOCK, 3);
}

static void other_kinds_are_passed_over(void **state)
{
	(void)state;
	add_header("folder", '5', 0);
	add_header("link", '2', 0);
	add_header("g", 'g', 3);
	add_block("abc", 3);
	add_header("a", '0', 0);
	expect_member("a", 5 * BLOCK, 0);
}

static void large_sizes_are_binary(void **state)
{
	uint8_t h[BLOCK];

	(void)state;
	vd_tar_header(h, "large", (uint64_t)9 << 30, 0);
	assert_int_equal(h[124], 0x80);
	memcpy(a.bytes, h, BLOCK);
	a.len = BLOCK;
	/* It is read as what it says, which is more than there is. */
	expect_refused(VD_ECORRUPT, "9663676416 bytes reaches past the end");
}

static void zeros_and_the_end_of_the_file_end_it(void **state)
{
	(void)state;
	expect_refused(VD_ENOENT, "no member is left");
	a.len = 2 * BLOCK;
	expect_refused(VD_ENOENT, "no member is left");
	a.len = BLOCK - 1;
	a.bytes[0] = 'x';
	expect_refused(VD_ENOENT, "no member is left");
}

static void broken_headers_are_refused(void **state)
{
	static const struct {
		size_t at;
		const char *bytes, *words;
		bool is_sealed;
	} faults[] = {
		{ 0, "b", "no tar header", false },             /* the sum is not that of the bytes */
		{ 257, "USTAR", "no tar header", true },
		{ 124, "77777777777", "reaches past the end", true },
		{ 124, "\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "no sound size", true },
		{ 124, "12x", "no sound size", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		uint8_t *h;

		start(NULL);
		h = add_header("a", '0', 0);
		memcpy(h + faults[i].at, faults[i].bytes, strlen(faults[i].bytes));
		if (faults[i].is_sealed)
			seal(h);
		expect_refused(VD_ECORRUPT, faults[i].words);
	}
}

static void broken_extensions_are_refused(void **state)
{
	static const char *const records[] = { "5 a", "999999999 path=x\n", "7 path\n\n", "0 a=b\n", "x" };

	(void)state;
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		start(NULL);
		add_header("x", 'x', strlen(records[i]));
		add_block(records[i], strlen(records[i]));
		add_header("a", '0', 0);
		expect_refused(VD_ECORRUPT, "broken record");
	}
	start(NULL);
	add_header("x", 'x', 20 * BLOCK);
	a.len += 20 * BLOCK;
	expect_refused(VD_ECORRUPT, "too long");
}

/* GNU tar knows what is in ours. */
static void the_peer_reads_our_headers(void **state)
{
	FILE *f = tmpfile();
	char line[256] = "", command[64];
	FILE *p;

	(void)state;
	assert_non_null(f);
	add_header("machine.ovf", '0', 5);
	add_block("hello", 5);
	a.len += 2 * BLOCK;
	assert_int_equal(fwrite(a.bytes, 1, a.len, f), a.len);
	assert_int_equal(fflush(f), 0);
	snprintf(command, sizeof(command), "tar -tvf /proc/%d/fd/%d", (int)getpid(), fileno(f));
	p = popen(command, "r");
	assert_non_null(p);
	assert_non_null(fgets(line, sizeof(line), p));
	assert_int_equal(pclose(p), 0);
	assert_non_null(strstr(line, "-rw-r--r-- "));
	assert_non_null(strstr(line, " 5 "));
	assert_non_null(strstr(line, "machine.ovf"));
	fclose(f);
}

#define test(f) cmocka_unit_test_setup(f, start)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(plain_members_are_found),
		test(a_prefix_goes_before_the_name),
		test(long_names_of_gnu_tar_count),
		test(pax_records_count),
		test(other_kinds_are_passed_over),
		test(large_sizes_are_binary),
		test(zeros_and_the_end_of_the_file_end_it),
		test(broken_headers_are_refused),
		test(broken_extensions_are_refused),
		test(the_peer_reads_our_headers),
	};

	return cmocka_run_group_tests_name("tar", tests, NULL, NULL);
}
