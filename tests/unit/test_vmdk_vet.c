/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is found in VMDKs from outside: names of files, wherever in a descriptor they stand, and what misleads a reader. */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/vmdk_bytes.h"

#define DISK 1000

static struct {
	unsigned n;
	char last[512];
} seen;

static int note(void *ctx, enum vd_risk risk, const char *text)
{
	(void)ctx;
	(void)risk;
	seen.n++;
	snprintf(seen.last, sizeof(seen.last), "%s", text);
	return 0;
}

static unsigned risks_of(const void *bytes, size_t len)
{
	const struct vd_inspect_opts opts = { .struct_size = sizeof(opts), .found = note };
	struct vd_inspection result = { .struct_size = sizeof(result) };
	struct vd_inspector *in;
	struct vd_error e;

	memset(&seen, 0, sizeof(seen));
	expect_ok(vd_inspector_new(&in, &e), &e);
	expect_ok(vd_inspector_feed(in, bytes, len, &e), &e);
	expect_ok(vd_inspector_end(in, &opts, &result, &e), &e);
	vd_inspector_free(in);
	assert_string_equal(result.format, "vmdk");
	return result.risks;
}

static unsigned risks_inside(const char *text)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, text);
	unsigned risks = risks_of(b.p, b.len);

	vmdk_free(&b);
	return risks;
}

/* One finding, which has the words. */
static void expect_risk(unsigned risks, enum vd_risk risk, const char *words)
{
	assert_int_equal(risks, risk);
	assert_int_equal(seen.n, 1);
	assert_non_null(strstr(seen.last, words));
}

static const char *text_of(const char *type, const char *extent, const char *more)
{
	static char text[1024];

	snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n%s%s%s\n%s\n",
		 type ? "createType=" : "#", type ? type : "", extent ? extent : "", more);
	return text;
}

#define SELF "\nRW 1000 SPARSE \"x.vmdk\""

static void usual_disks_are_let_through(void **state)
{
	(void)state;
	assert_int_equal(risks_inside(vmdk_sparse_text(DISK, "ddb.adapterType = \"ide\"\nddb.uuid = \"60 00 C2\"\n")), 0);
	assert_int_equal(risks_inside(text_of("\"MONOLITHICSPARSE\"", SELF, "encoding=\"UTF-8\"")), 0);
	assert_int_equal(risks_inside(NULL), 0);
}

static void names_inside_an_extent_are_found(void **state)
{
	(void)state;
	expect_risk(risks_inside(text_of("monolithicSparse", "\nRW 1000 SPARSE \"/etc/passwd\"", "")), VD_RISK_REFERENCE, "/etc/passwd");
	expect_risk(risks_inside(text_of("monolithicSparse", "\nRW 1000 SPARSE \"..\\x\"", "")), VD_RISK_REFERENCE, "..\\x");
	expect_risk(risks_inside(text_of("monolithicFlat", SELF, "")), VD_RISK_REFERENCE, "monolithicFlat");
	expect_risk(risks_inside(text_of(NULL, SELF, "")), VD_RISK_REFERENCE, "custom");
	expect_risk(risks_inside(text_of("monolithicSparse", "\nRW 1000 FLAT \"/etc/passwd\" 0", "")), VD_RISK_BROKEN,
		    "does not describe it");
	expect_risk(risks_inside(text_of("monolithicSparse", SELF SELF, "")), VD_RISK_BROKEN, "2 extents");
}

static void types_that_nobody_knows_are_found(void **state)
{
	(void)state;
	assert_int_equal(risks_inside(text_of("whatever", SELF, "")), VD_RISK_BROKEN | VD_RISK_REFERENCE);
}

static void names_in_keys_are_found(void **state)
{
	static const struct { const char *line, *words; } keys[] = {
		{ "ddb.thing = \"/dev/sda\"", "/dev/sda" }, { "ddb.thing=C:\\x", "C:\\x" }, { "ddb.sidecars = \"a.vmfd\"", "a.vmfd" },
		{ "ddb.nativeParentHint=p.vmdk", "p.vmdk" }, { "other=a/b", "a/b" }, { "changeTrackPath=\"x-ctk.vmdk\"", "x-ctk.vmdk" },
		{ "parentFileNameHint=\"p.vmdk\"", "p.vmdk" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		expect_risk(risks_inside(text_of("monolithicSparse", SELF, keys[i].line)), VD_RISK_REFERENCE, keys[i].words);
}

static void lines_that_are_nothing_are_found(void **state)
{
	(void)state;
	expect_risk(risks_inside(text_of("monolithicSparse", SELF, "RX 1 FLAT \"x\"")), VD_RISK_BROKEN, "line 7");
}

/* Some programs go by the descriptor then. */
static void an_extent_of_no_size_is_found(void **state)
{
	struct vmdk_bytes b = vmdk_hosted(0, text_of("monolithicSparse", SELF, ""));

	(void)state;
	expect_risk(risks_of(b.p, b.len), VD_RISK_BROKEN, "no bytes");
	vmdk_free(&b);
}

static void every_extent_of_a_descriptor_is_found(void **state)
{
	const char *text = text_of("vmfs", "\nRW 5 VMFS \"a\"\nNOACCESS 5 FLAT \"/etc/shadow\"\nRW 5 ZERO", "");

	(void)state;
	assert_int_equal(risks_of(text, strlen(text)), VD_RISK_REFERENCE);
	assert_int_equal(seen.n, 2);
	assert_non_null(strstr(seen.last, "/etc/shadow"));
	text = text_of("vmfsRDM", "\nRW 5 VMFSRDM \"a\"", "");
	expect_risk(risks_of(text, strlen(text)), VD_RISK_BROKEN, "device");
	text = text_of("whatever", "\nRW 5 ZERO", "");
	expect_risk(risks_of(text, strlen(text)), VD_RISK_BROKEN, "whatever");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(usual_disks_are_let_through),
		cmocka_unit_test(names_inside_an_extent_are_found),
		cmocka_unit_test(types_that_nobody_knows_are_found),
		cmocka_unit_test(names_in_keys_are_found),
		cmocka_unit_test(lines_that_are_nothing_are_found),
		cmocka_unit_test(an_extent_of_no_size_is_found),
		cmocka_unit_test(every_extent_of_a_descriptor_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
