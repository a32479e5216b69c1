/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks in VMDK as no tool at hand makes them: what they hold is read, what is forbidden or broken is an error with the
 * file and the place. What qemu-img makes is tried in tests/interop/vmdk.sh.
 */
#include "libvdisk/base/checked.h"
#include "libvdisk/codec/codec.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define SECTOR 512
#define TABLE ((uint64_t)512 * VMDK_GRAIN) /* guest bytes of one grain table */
#define DISK 10004                      /* sectors: three tables, the last grain is half on the disk */

static struct vd_image *open_it(const char *name)
{
	return disk_open(vmdk, name, 0);
}

static int try_open(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vmdk, flags);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, vmdk, name, &opts, &img, e);

	vd_image_abort(img);
	return r;
}

static int try_read(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint8_t *buf = malloc(len);
	int r = vd_image_pread(img, buf, len, off, e);

	free(buf);
	return r;
}

static struct vmdk_bytes usual(const char *more)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, more));

	vmdk_add_grain(&b, 1, 0x11);
	vmdk_add_grain(&b, 0, 0x10);
	vmdk_add_grain(&b, 513, 0x33);
	vmdk_add_grain(&b, DISK / 8, 0x44);
	return b;
}

static void expect_usual(struct vd_image *img)
{
	assert_int_equal(vd_image_size(img), DISK * SECTOR);
	disk_expect(img, 0, VMDK_GRAIN, 0x10);
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 0x11);
	disk_expect(img, 2 * VMDK_GRAIN, 511 * VMDK_GRAIN, 0);
	disk_expect(img, TABLE + VMDK_GRAIN, VMDK_GRAIN, 0x33);
	disk_expect(img, DISK / 8 * VMDK_GRAIN, DISK * SECTOR - DISK / 8 * VMDK_GRAIN, 0x44);
}

/* ---- hosted sparse ------------------------------------------------------------------------------------ */

static void grains_are_read_where_the_tables_say(void **state)
{
	(void)state;
	for (uint32_t version = 1; version <= 3; version++) {
		struct vmdk_bytes b = usual("");
		struct vd_image *img;

		vd_put_le32(b.p + 4, version);
		vmdk_put("d", &b);
		img = open_it("d");
		expect_usual(img);
		disk_close(img);
		vmdk_free(&b);
	}
}

static void zeroed_grains_are_zeros_with_the_flag_alone(void **state)
{
	struct vmdk_bytes b = usual("");
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vd_put_le32(vmdk_entry(&b, 1, false), 1);
	vd_put_le32(vmdk_entry(&b, 1, true), 1);
	vmdk_put("d", &b);
	img = open_it("d");
	expect_failure(try_read(img, VMDK_GRAIN, 1, &e), VD_ECORRUPT, &e, "d: the grain of guest offset 4096 cannot be");
	disk_close(img);
	vd_put_le32(b.p + 8, 7);
	vmdk_put("d", &b);
	img = open_it("d");
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 0);
	disk_close(img);
	vmdk_free(&b);
}

/* Each kind of damage to the first set, mended by the second, alone. */
static void the_redundant_tables_stand_in_for_damaged_ones(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} damage[] = {
		{ 56, 0 }, { 56, 99999 },                                       /* the directory's place */
		{ VMDK_GD_AT * SECTOR, 0 }, { VMDK_GD_AT * SECTOR, 99999 },     /* a table's place */
		{ VMDK_GD_AT * SECTOR, VMDK_RGD_AT },
		{ (VMDK_GD_AT + 1) * SECTOR, 99999 },                           /* a grain's place */
		{ (VMDK_GD_AT + 1) * SECTOR, 2 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		struct vmdk_bytes b = usual("");
		struct vd_image *img;

		vd_put_le32(b.p + damage[i].at, damage[i].value);
		vmdk_put("d", &b);
		img = open_it("d");
		expect_usual(img);
		disk_close(img);
		vmdk_free(&b);
	}
}

static void damage_to_both_tables_is_told_with_its_place(void **state)
{
	struct vmdk_bytes b = usual("");
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vd_put_le32(vmdk_entry(&b, 0, false), 99999);
	vd_put_le32(vmdk_entry(&b, 0, true), 99999);
	vd_put_le32(b.p + VMDK_GD_AT * SECTOR + 4, 99999);
	vd_put_le32(b.p + VMDK_RGD_AT * SECTOR + 4, 0);
	vmdk_put("d", &b);
	img = open_it("d");
	expect_failure(try_read(img, 0, 1, &e), VD_ECORRUPT, &e, "at offset 15872");
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 0x11);
	expect_failure(try_read(img, TABLE, 1, &e), VD_ECORRUPT, &e, "grain table of guest offset 2097152");
	disk_close(img);
	vmdk_free(&b);
}

/* Bytes of the header that make it impossible. */
static void impossible_headers_are_refused(void **state)
{
	static const struct {
		size_t at;
		uint64_t value;
		unsigned len;
		int code;
		const char *words;
	} wrong[] = {
		{ 4, 0, 4, VD_EUNSUPPORTED, "version 0" }, { 4, 4, 4, VD_EUNSUPPORTED, "version 4" },
		{ 8, 0x40003, 4, VD_EUNSUPPORTED, "flags 0x40000" }, { 8, 0x80000003, 4, VD_EUNSUPPORTED, "not known" },
		{ 8, 0x10003, 4, VD_EUNSUPPORTED, "compression 0" },
		{ 12, UINT64_MAX, 8, VD_ECORRUPT, "capacity" }, { 12, UINT64_C(1) << 53, 8, VD_ECORRUPT, "grain tables" },
		{ 12, UINT64_C(1) << 32, 8, VD_ECORRUPT, "directory" },
		{ 20, 0, 8, VD_ECORRUPT, "grains of 0" }, { 20, 3, 8, VD_ECORRUPT, "grains of 3" },
		{ 20, UINT64_C(1) << 22, 8, VD_ECORRUPT, "grains of" }, { 20, UINT64_C(1) << 55, 8, VD_ECORRUPT, "grains of" },
		{ 28, 100000, 8, VD_ECORRUPT, "descriptor" }, { 28, UINT64_MAX, 8, VD_ECORRUPT, "descriptor" },
		{ 36, 100000, 8, VD_ECORRUPT, "descriptor" }, { 36, UINT64_MAX, 8, VD_ECORRUPT, "descriptor" },
		{ 44, 0, 4, VD_ECORRUPT, "grain tables of 0" }, { 44, 513, 4, VD_ECORRUPT, "grain tables of 513" },
		{ 44, UINT32_MAX, 4, VD_ECORRUPT, "grain tables of" },
		{ 73, 0x0a, 1, 0, NULL }, { 73, 0x0d, 1, VD_ECORRUPT, "as if it were text" },
		{ 56, UINT64_MAX, 8, VD_ECORRUPT, "cut off" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct vmdk_bytes b = usual("");
		struct vd_error e = { 0 };

		for (unsigned k = 0; k < wrong[i].len; k++)
			b.p[wrong[i].at + k] = wrong[i].value >> 8 * k;
		vmdk_put("d", &b);
		if (wrong[i].code)
			expect_failure(try_open("d", 0, &e), wrong[i].code, &e, wrong[i].words);
		else
			expect_ok(try_open("d", 0, &e), &e);
		vmdk_free(&b);
	}
}

static void a_file_cut_anywhere_is_read_up_to_there(void **state)
{
	struct vmdk_bytes b = usual("");
	size_t whole = b.len;

	(void)state;
	for (size_t len = 1; len < whole; len += len < 40000 ? 511 : 1500) {
		struct vd_error e = { 0 };
		struct vd_image *img = NULL;
		struct vd_open_opts opts = disk_open_opts(vmdk, 0);

		b.len = len;
		vmdk_put("d", &b);
		if (vd_image_open_on(disks.host, vmdk, "d", &opts, &img, &e) < 0) {
			assert_true(e.code == VD_ECORRUPT && strstr(e.message, "d: "));
			assert_in_range(len, 0, VMDK_GRAINS_AT * SECTOR);
			continue;
		}
		if (try_read(img, 0, DISK * SECTOR, &e) < 0)
			assert_int_equal(e.code, VD_ECORRUPT);
		vd_image_abort(img);
	}
	b.len = whole;
	vmdk_free(&b);
}

/* ---- descriptors and extents -------------------------------------------------------------------------- */

static void every_kind_of_extent_is_part_of_the_disk(void **state)
{
	struct vmdk_bytes sparse = usual(""), cowd = vmdk_cowd(1000), se = vmdk_sesparse(1000);
	struct vd_image *img;

	(void)state;
	vmdk_cowd_add_grain(&cowd, 3, 0xc3);
	vmdk_sesparse_set(&se, 5, 3, 0x5e);
	vmdk_put("s", &sparse);
	vmdk_put("c", &cowd);
	vmdk_put("e", &se);
	disk_put_raw("f", 100 * SECTOR, 0xf1);
	vmdk_put_text("d", "version=1\ncreateType=custom\nRW 40 ZERO\nRDONLY 16 FLAT \"f\" 8\nRW 1000 SPARSE \"c\"\n"
		      "RW 20 FLAT \"f\" 80\nRW 1000 SESPARSE \"e\"\nRW 10004 SPARSE \"s\"\n");
	img = open_it("d");
	assert_int_equal(vd_image_size(img), (40 + 16 + 1000 + 20 + 1000 + DISK) * SECTOR);
	disk_expect(img, 0, 40 * SECTOR, 0);
	disk_expect(img, 40 * SECTOR, 16 * SECTOR, 0xf1);
	disk_expect(img, (56 + 24) * SECTOR, VMDK_GRAIN, 0xc3);
	disk_expect(img, (56 + 32) * SECTOR, (1000 - 32) * SECTOR, 0);
	disk_expect(img, 1056 * SECTOR, 20 * SECTOR, 0xf1);
	disk_expect(img, 1076 * SECTOR, 40 * SECTOR, 0);
	disk_expect(img, (1076 + 40) * SECTOR, VMDK_GRAIN, 0x5e);
	disk_expect(img, 2076 * SECTOR, VMDK_GRAIN, 0x10);
	disk_expect(img, (2076 + DISK) * SECTOR - 1, 1, 0x44);
	disk_close(img);
	vmdk_free(&sparse);
	vmdk_free(&cowd);
	vmdk_free(&se);
}

static void noaccess_is_an_error_where_it_is(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("f", 100 * SECTOR, 0xf1);
	vmdk_put_text("d", "version=1\nRW 10 FLAT \"f\" 0\nNOACCESS 10 FLAT \"is not there\" 0\nRW 10 FLAT \"f\" 10\n");
	img = open_it("d");
	assert_int_equal(vd_image_size(img), 30 * SECTOR);
	disk_expect(img, 0, 10 * SECTOR, 0xf1);
	disk_expect(img, 20 * SECTOR, 10 * SECTOR, 0xf1);
	expect_failure(try_read(img, 0, 30 * SECTOR, &e), VD_EACCESS, &e, "NOACCESS");
	expect_failure(try_read(img, 10 * SECTOR, 1, &e), VD_EACCESS, &e, "bytes 5120 to 10240");
	disk_close(img);
}

static void disks_that_do_not_fit_together_are_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *words;
	} wrong[] = {
		{ "version=1\n", VD_ECORRUPT, "lists no extents" },
		{ "version=1\nRW 101 FLAT \"f\"\n", VD_ECORRUPT, "f has 51200 bytes, the extent in it needs 51712" },
		{ "version=1\nRW 1 FLAT \"f\" 100\n", VD_ECORRUPT, "f has 51200 bytes" },
		{ "version=1\nRW 1 FLAT \"f\" 9007199254740992\n", VD_ECORRUPT, "f has 51200 bytes" },
		{ "version=1\nRW 1 SPARSE \"f\"\n", VD_ECORRUPT, "f: there is no header of a sparse extent" },
		{ "version=1\nRW 10005 SPARSE \"s\"\n", VD_ECORRUPT, "s holds 5122048 bytes of disk" },
		{ "version=1\nRW 1 SPARSE \"s\"\nRW 1 SPARSE \"s\"\n", VD_ECORRUPT, "same file twice" },
		{ "version=1\nRW 1 FLAT \"d\"\n", VD_ECORRUPT, "same file twice" },
		{ "version=1\nRW 1 FLAT \"none\"\n", VD_ENOENT, "none" },
		{ "version=1\nRW 9007199254740992 ZERO\nRW 9007199254740992 ZERO\nRW 9007199254740992 ZERO\n", VD_ECORRUPT,
		  "larger than any disk" },
		{ "version=1\nparentCID=1\nRW 1 ZERO\n", VD_ECORRUPT, "does not say of which file" },
	};
	struct vmdk_bytes b = usual("");

	(void)state;
	vmdk_put("s", &b);
	disk_put_raw("f", 100 * SECTOR, 1);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct vd_error e;

		vmdk_put_text("d", wrong[i].text);
		expect_failure(try_open("d", 0, &e), wrong[i].code, &e, wrong[i].words);
	}
	vmdk_free(&b);
}

static void text_behind_a_nul_is_not_left_out(void **state)
{
	static const char text[] = "version=1\nRW 1 ZERO\n\0RW 1 ZERO\n", rest[] = "version=1\nRW 1 ZERO\n\0\"ide\"\n\0";
	struct vd_error e;

	(void)state;
	expect_ok(vd_mem_put(disks.mem, "d", text, sizeof(text), &e), &e);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "not text throughout");
	/* Of a text that qemu made shorter. */
	expect_ok(vd_mem_put(disks.mem, "q", rest, sizeof(rest), &e), &e);
	expect_ok(try_open("q", 0, &e), &e);
	expect_ok(vd_mem_put(disks.mem, "d", text, 21, &e), &e);
	expect_ok(try_open("d", 0, &e), &e);
}

static void metadata_alone_opens_no_extents(void **state)
{
	struct vd_open_opts opts = disk_open_opts(vmdk, VD_OPEN_METADATA);
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vmdk_put_text("d", "version=1\ncreateType=twoGbMaxExtentSparse\nRW 100 SPARSE \"none\"\nRW 10 FLAT \"none2\"\n"
		      "changeTrackPath=d-ctk.vmdk\n");
	expect_ok(vd_image_open_on(disks.host, vmdk, "d", &opts, &img, &e), &e);
	expect_ok(vd_image_info(img, &info, &e), &e);
	assert_int_equal(info.virtual_size, 110 * SECTOR);
	assert_string_equal(info.subformat, "twoGbMaxExtentSparse");
	assert_int_equal(info.n_extents, 2);
	assert_string_equal(info.change_track, "d-ctk.vmdk");
	disk_close(img);
	expect_failure(try_open("d", VD_OPEN_METADATA | VD_OPEN_FILES, &e), VD_ENOENT, &e, "none");
}

static void other_vmdk_files_are_named_and_refused(void **state)
{
	static const uint8_t ctk[16] = { 0xa2, 0x72, 0x19, 0xf6 };
	struct vmdk_bytes b = usual("encryptionKeys=\"x\"\n");
	struct vd_error e;

	(void)state;
	vmdk_put("d", &b);
	expect_failure(try_open("d", 0, &e), VD_EUNSUPPORTED, &e, "encrypted by VMware");
	memset(b.p + SECTOR, 0x9c, 4 * SECTOR);
	vmdk_put("d", &b);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "damaged, or encrypted");
	expect_ok(vd_mem_put(disks.mem, "d", ctk, sizeof(ctk), &e), &e);
	expect_failure(try_open("d", 0, &e), VD_EUNSUPPORTED, &e, "record of changed blocks");
	vmdk_free(&b);
}

/* An editor that saves as Unicode leaves the key of before. */
static void descriptors_in_utf16_are_read(void **state)
{
	static const char text[] = "# Disk DescriptorFile\r\nversion=1\r\nencoding=\"windows-1252\"\r\nCID=1\r\n"
				   "parentCID=ffffffff\r\nRW 8 FLAT \"d@.vmdk\" 0\r\n";
	uint8_t raw[2 * sizeof(text)];
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("d\xc3\xa9.vmdk", 8 * SECTOR, 0x44);
	for (int big = 0; big < 2; big++) {
		raw[big] = 0xff;
		raw[!big] = 0xfe;
		for (size_t i = 0; i < sizeof(text) - 1; i++) {
			raw[2 + 2 * i + big] = text[i] == '@' ? 0xe9 : text[i];
			raw[2 + 2 * i + !big] = 0;
		}
		expect_ok(vd_mem_put(disks.mem, "d", raw, sizeof(raw), &e), &e);
		assert_true(vd_format_vmdk.probe((struct vd_bytes){ raw, sizeof(raw) }, (struct vd_bytes){ 0 }, sizeof(raw)));
		img = open_it("d");
		disk_expect(img, 0, 8 * SECTOR, 0x44);
		disk_close(img);
		expect_failure(try_open("d", VD_OPEN_WRITE, &e), VD_EREADONLY, &e, "UTF-16");
	}
	/* Half of a pair. */
	raw[40] = 0xd8;
	expect_ok(vd_mem_put(disks.mem, "d", raw, sizeof(raw), &e), &e);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "not valid in its encoding UTF-16");
}

/* ---- COWD and seSparse -------------------------------------------------------------------------------- */

static void sesparse_entries_of_each_kind_are_understood(void **state)
{
	struct vmdk_bytes b = vmdk_sesparse(32000);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		vmdk_sesparse_set(&b, i, i, 0x70 + i);
	/* Enough grains for a number of more than 12 bits would be 16 MiB: the rotation is tried by an entry that leads out. */
	vd_put_le64(b.p + 3 * SECTOR + 8 * 20, UINT64_C(0x3000000000000001));
	vmdk_put("d", &b);
	img = open_it("d");
	disk_expect(img, 0, 3 * VMDK_GRAIN, 0);
	disk_expect(img, 3 * VMDK_GRAIN, VMDK_GRAIN, 0x73);
	for (unsigned i = 4; i < 16; i++)
		expect_failure(try_read(img, i * VMDK_GRAIN, 1, &e), VD_ECORRUPT, &e, "cannot be where the table says");
	disk_expect(img, 16 * VMDK_GRAIN, 4 * VMDK_GRAIN, 0);
	expect_failure(try_read(img, 20 * VMDK_GRAIN, 1, &e), VD_ECORRUPT, &e, "cannot be where the table says");
	disk_close(img);
	vd_put_le64(b.p + SECTOR + 24, 1);
	vmdk_put("d", &b);
	expect_failure(try_open("d", 0, &e), VD_EUNSUPPORTED, &e, "journal");
	vmdk_free(&b);
}

static void a_child_of_cowd_shows_its_parent(void **state)
{
	struct vmdk_bytes parent = usual(""), child = vmdk_cowd(DISK);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vmdk_put("p", &parent);
	vmdk_cowd_add_grain(&child, 1, 0xcc);
	vmdk_put("c", &child);
	vmdk_put_text("d", "version=1\nCID=2\nparentCID=12345678\nparentFileNameHint=\"p\"\nRW 10004 VMFSSPARSE \"c\"\n");
	img = open_it("d");
	disk_expect(img, 0, VMDK_GRAIN, 0x10);
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 0xcc);
	disk_expect(img, TABLE + VMDK_GRAIN, VMDK_GRAIN, 0x33);
	disk_close(img);
	vmdk_put_text("d", "version=1\nCID=2\nparentCID=12345679\nparentFileNameHint=\"p\"\nRW 10004 VMFSSPARSE \"c\"\n");
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "made on a parent with the CID 12345679, but p has 12345678");
	vmdk_put_text("d", "version=1\nCID=2\nparentCID=12345678\nparentFileNameHint=\"gone\"\nRW 10004 VMFSSPARSE \"c\"\n");
	expect_failure(try_open("d", 0, &e), VD_ENOENT, &e, "gone");
	vmdk_free(&parent);
	vmdk_free(&child);
}

/* ---- compressed --------------------------------------------------------------------------------------- */

/* Replaces the grain at the end by its stream in a frame; returns where that is. */
static size_t pack_last(struct vmdk_bytes *b, uint64_t grain, enum vd_codec_kind kind, unsigned frame)
{
	size_t at = b->len - VMDK_GRAIN, n = 0;
	uint8_t plain[VMDK_GRAIN];
	struct vd_codec *codec;
	struct vd_error e;

	memcpy(plain, b->p + at, VMDK_GRAIN);
	expect_ok(vd_codec_new(&codec, &e), &e);
	expect_ok(vd_codec_pack(codec, kind, b->p + at + frame, VMDK_GRAIN - frame, plain, VMDK_GRAIN, &n, &e), &e);
	vd_codec_free(codec);
	if (frame == 12)
		vd_put_le64(b->p + at, grain * VMDK_GRAIN / SECTOR);
	vd_put_le32(b->p + at + frame - 4, n);
	return at;
}

static struct vmdk_bytes packed(enum vd_codec_kind kind, unsigned frame, size_t *at)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, ""));

	vd_put_le32(b.p + 8, 0x10003 | (frame == 12 ? 0x20000 : 0));
	vd_put_le16(b.p + 77, 1);
	vmdk_add_grain(&b, 7, 0x77);
	*at = pack_last(&b, 7, kind, frame);
	return b;
}

static void compressed_grains_of_all_writers_are_read(void **state)
{
	static const enum vd_codec_kind kinds[] = { VD_CODEC_ZLIB, VD_CODEC_DEFLATE12 };

	(void)state;
	for (int i = 0; i < 4; i++) {
		size_t at;
		struct vmdk_bytes b = packed(kinds[i % 2], i < 2 ? 12 : 4, &at);
		struct vd_image *img;

		vmdk_put("d", &b);
		img = open_it("d");
		disk_expect(img, 7 * VMDK_GRAIN, VMDK_GRAIN, 0x77);
		disk_expect(img, 7 * VMDK_GRAIN + 100, 5, 0x77);
		disk_expect(img, 6 * VMDK_GRAIN, VMDK_GRAIN, 0);
		disk_close(img);
		vmdk_free(&b);
	}
}

static void broken_compressed_grains_are_refused(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *words;
	} wrong[] = {
		{ 0, 57, "sector 56 is marked as that of 57" }, { 7, 1, "sector 56 is marked" }, { 8, 0, "claims" },
		{ 11, 0xff, "claims" }, { 14, 0x55, "compressed" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		size_t at;
		struct vmdk_bytes b = packed(VD_CODEC_ZLIB, 12, &at);
		struct vd_image *img;
		struct vd_error e;

		if (wrong[i].at == 8)
			memset(b.p + at + 8, 0, 4);
		b.p[at + wrong[i].at] = wrong[i].value;
		vmdk_put("d", &b);
		img = open_it("d");
		expect_failure(try_read(img, 7 * VMDK_GRAIN, 1, &e), VD_ECORRUPT, &e, wrong[i].words);
		disk_close(img);
		vmdk_free(&b);
	}
}

int main(void)
{
#define WITH_DISKS(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		WITH_DISKS(grains_are_read_where_the_tables_say),
		WITH_DISKS(zeroed_grains_are_zeros_with_the_flag_alone),
		WITH_DISKS(the_redundant_tables_stand_in_for_damaged_ones),
		WITH_DISKS(damage_to_both_tables_is_told_with_its_place),
		WITH_DISKS(impossible_headers_are_refused),
		WITH_DISKS(a_file_cut_anywhere_is_read_up_to_there),
		WITH_DISKS(every_kind_of_extent_is_part_of_the_disk),
		WITH_DISKS(noaccess_is_an_error_where_it_is),
		WITH_DISKS(disks_that_do_not_fit_together_are_refused),
		WITH_DISKS(text_behind_a_nul_is_not_left_out),
		WITH_DISKS(metadata_alone_opens_no_extents),
		WITH_DISKS(other_vmdk_files_are_named_and_refused),
		WITH_DISKS(sesparse_entries_of_each_kind_are_understood),
		WITH_DISKS(descriptors_in_utf16_are_read),
		WITH_DISKS(a_child_of_cowd_shows_its_parent),
		WITH_DISKS(compressed_grains_of_all_writers_are_read),
		WITH_DISKS(broken_compressed_grains_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
