/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors: what they say in all the ways in which it is written, and which are refused. */
#include <stdio.h>

#include "formats/vmdk/vmdk.h"
#include "tests/support/disks.h"

static struct vd_bytes bytes_of(const char *text)
{
	return (struct vd_bytes){ (const uint8_t *)text, strlen(text) };
}

static struct vd_vmdk_descriptor parsed(const char *text)
{
	struct vd_vmdk_descriptor d;
	struct vd_error e;

	expect_ok(vd_vmdk_descriptor_parse(bytes_of(text), &d, &e), &e);
	return d;
}

static const char usual[] =
	"# Disk DescriptorFile\nversion=1\nCID=0123abcd\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\n"
	"# Extent description\nRW 4192256 SPARSE \"d-s001.vmdk\"\nRW 2048 SPARSE \"d-s002.vmdk\"\n\n"
	"# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"4\"\n";

static void the_usual_descriptor_is_read(void **state)
{
	struct vd_vmdk_descriptor d = parsed(usual);

	(void)state;
	assert_int_equal(d.version, 1);
	assert_true(d.has_cid && d.cid == 0x123abcd && d.parent_cid == VMDK_CID_NONE);
	assert_memory_equal(usual + d.cid_in.at, "0123abcd", d.cid_in.len);
	assert_string_equal(d.create_type, "twoGbMaxExtentSparse");
	assert_string_equal(d.adapter_type, "lsilogic");
	assert_int_equal(d.n_lines, 2);
	assert_int_equal(d.lines[0].sectors, 4192256);
	assert_string_equal(d.lines[1].file, "d-s002.vmdk");
	vd_vmdk_descriptor_fini(&d);
}

static void case_blanks_quotes_and_line_ends_do_not_matter(void **state)
{
	struct vd_vmdk_descriptor d = parsed(
		"\xef\xbb\xbf  # a comment\r\n\r\n VERSION = \"2\" \r\n\tcid = 1F\r\nPARENTCID=\"FFFFFFFE\"\r\n"
		"CREATETYPE=custom\r\n  rw\t2048  flat   \"x\"  128 \r\nParentFileNameHint = \"a b\"\r\nchangetrackpath=c");

	(void)state;
	assert_int_equal(d.version, 2);
	assert_true(d.cid == 0x1f && d.cid_in.len == 2 && d.parent_cid == VMDK_CID_LONG);
	assert_string_equal(d.create_type, "custom");
	assert_string_equal(d.parent_hint, "a b");
	assert_string_equal(d.change_track, "c");
	assert_int_equal(d.lines[0].first_sector, 128);
	vd_vmdk_descriptor_fini(&d);
}

static void extent_lines_of_all_kinds_are_read(void **state)
{
	static const struct {
		const char *line, *file;
		enum vd_vmdk_access access;
		enum vd_vmdk_kind kind;
		uint64_t sectors, first;
	} lines[] = {
		{ "RW 1 FLAT \"a\" 0", "a", VMDK_RW, VMDK_FLAT, 1, 0 },
		{ "RW 63 FLAT \"/dev/sda\" 63 \"uuid\" devid", "/dev/sda", VMDK_RW, VMDK_FLAT, 63, 63 },
		{ "RDONLY 7 VMFS \"x-flat.vmdk\"", "x-flat.vmdk", VMDK_RDONLY, VMDK_FLAT, 7, 0 },
		{ "NOACCESS 9 ZERO", NULL, VMDK_NOACCESS, VMDK_ZERO, 9, 0 },
		{ "RW 9 ZERO \"ignored\" 4", NULL, VMDK_RW, VMDK_ZERO, 9, 4 },
		{ "RW 8 VMFSSPARSE \"d.vmdk\"", "d.vmdk", VMDK_RW, VMDK_COWD, 8, 0 },
		{ "RW 8 SESPARSE \"d.vmdk\"", "d.vmdk", VMDK_RW, VMDK_SESPARSE, 8, 0 },
		{ "RW 8 SPARSE \"a \"quoted\" name.vmdk\"", "a \"quoted\" name.vmdk", VMDK_RW, VMDK_SPARSE, 8, 0 },
		{ "RW 8 SPARSE \"\xf0\x9f\x98\x80 \xc3\xa9.vmdk\"", "\xf0\x9f\x98\x80 \xc3\xa9.vmdk", VMDK_RW, VMDK_SPARSE, 8, 0 },
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct vd_vmdk_descriptor d;

		snprintf(text, sizeof(text), "version=1\n%s\n", lines[i].line);
		d = parsed(text);
		assert_int_equal(d.n_lines, 1);
		assert_true(d.lines[0].access == lines[i].access && d.lines[0].kind == lines[i].kind);
		assert_true(d.lines[0].sectors == lines[i].sectors && d.lines[0].first_sector == lines[i].first);
		assert_true(!lines[i].file == !d.lines[0].file);
		if (lines[i].file)
			assert_string_equal(d.lines[0].file, lines[i].file);
		vd_vmdk_descriptor_fini(&d);
	}
}

/* The same two characters, or an e with an accent, in each code page; some hold a byte that is a backslash alone. */
static void names_in_every_encoding_become_utf8(void **state)
{
	static const struct {
		const char *encoding, *bytes, *utf8;
	} names[] = {
		{ "UTF-8", "\xe7\xa3\x81\xe7\x9b\x98", "\xe7\xa3\x81\xe7\x9b\x98" },
		{ "GBK", "\xb4\xc5\xc5\xcc", "\xe7\xa3\x81\xe7\x9b\x98" },
		{ "windows-936", "\xb4\xc5\xc5\xcc", "\xe7\xa3\x81\xe7\x9b\x98" },
		{ "GBK", "\x81\x5c", "\xe4\xb9\x97" },
		{ "Big5", "\xba\xcf\xba\xd0", "\xe7\xa3\x81\xe7\xa2\x9f" },
		{ "windows-950", "\xa5\x5c", "\xe5\x8a\x9f" },
		{ "Shift_JIS", "\x8e\xa5\x94\xd5", "\xe7\xa3\x81\xe7\x9b\xa4" },
		{ "shift_jis", "C:\\\x87\x40\xfb\xfc\\a", "C:\\\xe2\x91\xa0\xe9\xab\x99\\a" },
		{ "windows-932", "\x95\x5c", "\xe8\xa1\xa8" },
		{ "windows-949", "\xb5\xf0", "\xeb\x94\x94" },
		{ "windows-1252", "\xe9", "\xc3\xa9" },
		{ "windows-1251", "\xe4", "\xd0\xb4" },
		{ "ISO-8859-1", "\xe9", "\xc3\xa9" },
		{ "windows-1252", "plain", "plain" },
		{ "no such thing", "plain", "plain" },
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct vd_vmdk_descriptor d;

		/* The encoding may be said after the name. */
		snprintf(text, sizeof(text), "version=1\nRW 1 FLAT \"%s\" 0\nencoding=\"%s\"\n", names[i].bytes, names[i].encoding);
		d = parsed(text);
		assert_string_equal(d.lines[0].file, names[i].utf8);
		vd_vmdk_descriptor_fini(&d);
	}
}

static void what_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *words;
	} wrong[] = {
		{ "CID=1\n", VD_ECORRUPT, "no version" },
		{ "version=0\n", VD_EUNSUPPORTED, "version '0'" },
		{ "version=4\n", VD_EUNSUPPORTED, "version '4'" },
		{ "version=1\nCID=123456789\n", VD_ECORRUPT, "no number of 32 bits" },
		{ "version=1\nCID=12g4\n", VD_ECORRUPT, "no number of 32 bits" },
		{ "version=1\nCID=1\nCID=2\n", VD_ECORRUPT, "two CIDs" },
		{ "version=1\nparentCID=1\nparentCID=2\n", VD_ECORRUPT, "two parentCIDs" },
		{ "version=1\nparentFileNameHint=a\nparentfilenamehint=b\n", VD_ECORRUPT, "'a' and 'b'" },
		{ "version=1\nRW 0 FLAT \"a\"\n", VD_ECORRUPT, "line 2 of the descriptor: an extent has an impossible size" },
		{ "version=1\nRW -1 FLAT \"a\"\n", VD_ECORRUPT, "impossible size" },
		{ "version=1\nRW 99999999999999999999 FLAT \"a\"\n", VD_ECORRUPT, "impossible size" },
		{ "version=1\nRW 18014398509481984 FLAT \"a\"\n", VD_ECORRUPT, "impossible size" },
		{ "version=1\nRW 1 FLAT\n", VD_ECORRUPT, "names no file" },
		{ "version=1\nRW 1 FLAT \"a\n", VD_ECORRUPT, "cannot be made out" },
		{ "version=1\nRW 1 FLAT a\n", VD_ECORRUPT, "cannot be made out" },
		{ "version=1\nRW 1 FLAT \"a\" x\n", VD_ECORRUPT, "cannot be made out" },
		{ "version=1\nRW 1 FLAT \"a\" 1 2 3 4\n", VD_ECORRUPT, "cannot be made out" },
		{ "version=1\nRW 1 FLAT \"a\" 99999999999999999999\n", VD_ECORRUPT, "cannot be made out" },
		{ "version=1\nRW 1 VMFSRDM \"a\"\n", VD_EUNSUPPORTED, "VMFSRDM is a device" },
		{ "version=1\nRW 1 NEW \"a\"\n", VD_EUNSUPPORTED, "type 'NEW'" },
		{ "version=1\nencoding=GBK\nRW 1 FLAT \"\xff\xff\"\n", VD_ECORRUPT, "not valid in its encoding GBK" },
		{ "version=1\nencoding=none\nRW 1 FLAT \"\xff\xff\"\n", VD_EUNSUPPORTED, "'none' is not known" },
		{ "version=1\nencryptionKeys=\"vmware:key/list/x\"\n", VD_EUNSUPPORTED, "encrypted by VMware" },
		{ "version=1\nddb.iofilters = \"vmwarevmcrypt\"\n", VD_EUNSUPPORTED, "encrypted by VMware" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct vd_vmdk_descriptor d;
		struct vd_error e;

		expect_failure(vd_vmdk_descriptor_parse(bytes_of(wrong[i].text), &d, &e), wrong[i].code, &e, wrong[i].words);
		vd_vmdk_descriptor_fini(&d);
	}
}

static void descriptors_are_known_by_their_first_lines(void **state)
{
	static const struct {
		const char *text;
		bool is;
	} texts[] = {
		{ "# Disk DescriptorFile\n", true }, { "  # disk descriptorfile", true }, { "\r\n# x\r\nVersion = 1\r\n", true },
		{ "version=1", true }, { "\xef\xbb\xbfversion=3\n", true },
		{ "version=one\n", false }, { "# x\nname=1\nversion=1\n", false }, { "", false }, { "#", false }, { "\n\n", false },
		{ "\xff\xfeversion=1", false }, { "\xef\xbb\xbf# Disk DescriptorFile", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(vd_vmdk_is_descriptor(bytes_of(texts[i].text)), texts[i].is);
}

static void no_more_extents_than_the_limit_are_taken(void **state)
{
	const char line[] = "RW 1 ZERO\n";
	size_t n = VMDK_EXTENTS_MAX + 1, len = strlen(line);
	char *text = malloc(20 + n * len);
	struct vd_vmdk_descriptor d;
	struct vd_error e;

	(void)state;
	strcpy(text, "version=1\n");
	for (size_t i = 0; i < n; i++)
		strcpy(text + 10 + i * len, line);
	expect_failure(vd_vmdk_descriptor_parse(bytes_of(text), &d, &e), VD_EUNSUPPORTED, &e, "more than 4095 extents");
	vd_vmdk_descriptor_fini(&d);
	text[10 + (n - 1) * len] = 0;
	d = parsed(text);
	assert_int_equal(d.n_lines, n - 1);
	vd_vmdk_descriptor_fini(&d);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_descriptor_is_read),
		cmocka_unit_test(case_blanks_quotes_and_line_ends_do_not_matter),
		cmocka_unit_test(extent_lines_of_all_kinds_are_read),
		cmocka_unit_test(names_in_every_encoding_become_utf8),
		cmocka_unit_test(what_makes_no_sense_is_refused),
		cmocka_unit_test(descriptors_are_known_by_their_first_lines),
		cmocka_unit_test(no_more_extents_than_the_limit_are_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
