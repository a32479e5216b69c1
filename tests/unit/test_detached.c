/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS headers in files of their own: what lies where, what is refused, and that keyslots change there and nowhere else. Crashes
 * are tests/crash/keyslots.c's and inplace.c's; what others make of it, tests/interop/detached.sh's.
 */
#include <stdio.h>
#include <unistd.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/inplace.h"
#include "libvdisk/core/keysrc.h"
#include "tests/support/disks.h"
#include "tests/support/tempdir.h"

#define MIB UINT64_C(1048576)
#define SIZE MIB
#define BYTE 0x5a

static struct vd_key *key, *other_key;
static const struct vd_kdf_opts cheap[] = { [VD_LUKS1] = { 1000, 0 }, [VD_LUKS2] = { 4, 32 } };

static struct vd_create_opts create_opts(const char *format, enum vd_luks_type type)
{
	return (struct vd_create_opts){
		.struct_size = sizeof(struct vd_create_opts), .format = format, .size = SIZE, .key = key, .luks_type = type,
		.kdf = cheap[type], .header = "h", .cluster_size = strcmp(format, "vhdx") ? 0 : MIB,
	};
}

static struct vd_open_opts open_opts(const char *format, unsigned flags)
{
	return (struct vd_open_opts){
		.struct_size = sizeof(struct vd_open_opts), .format = format, .flags = flags, .keys = &key, .n_keys = 1, .header = "h",
	};
}

static void make(struct vd_host *host, const struct vd_create_opts *o)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_create_on(host, NULL, "d", o, &img, &e), &e);
	disk_write(img, 0, SIZE, BYTE);
	disk_commit(img);
	disk_close(img);
}

static struct vd_image *open_it(const struct vd_open_opts *o)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(disks.mem, NULL, "d", o, &img, &e), &e);
	return img;
}

/* All bytes of a file, malloc'ed. */
static uint8_t *bytes_of(const char *name, uint64_t *size)
{
	struct vd_io *io = NULL;
	struct vd_error e;
	uint8_t *bytes;

	expect_ok(disks.mem->open(disks.mem, name, 0, &io, &e), &e);
	expect_ok(vd_io_size(io, size, &e), &e);
	bytes = malloc(*size + 1);
	expect_ok(vd_io_pread(io, bytes, *size, 0, &e), &e);
	vd_io_abort(io);
	return bytes;
}

static void expect_same_file(const char *name, const uint8_t *bytes, uint64_t size)
{
	uint64_t now_size;
	vd_auto_free uint8_t *now = bytes_of(name, &now_size);

	assert_int_equal(now_size, size);
	assert_memory_equal(now, bytes, size);
}

/* ---- making and reading ---------------------------------------------------------------------------------- */

static void raw_disk_begins_at_byte_0(void **state)
{
	(void)state;
	for (int type = VD_LUKS1; type <= VD_LUKS2; type++) {
		struct vd_create_opts o = create_opts("raw", (enum vd_luks_type)type);
		struct vd_luks_info luks;
		struct vd_error e;
		uint64_t size, len, ignored;

		assert_int_equal(disks_start(NULL), 0);
		make(disks.mem, &o);
		vd_auto_free uint8_t *image = bytes_of("d", &size), *header = bytes_of("h", &len);

		assert_int_equal(size, SIZE);
		assert_int_equal(vd_luks_probe((struct vd_bytes){ image, size }, &ignored), 0);
		assert_int_equal(vd_luks_probe((struct vd_bytes){ header, len }, &ignored), type);
		expect_ok(vd_luks_inspect((struct vd_bytes){ header, len }, 0, &luks, &e), &e);
		assert_int_equal(luks.payload_off, 0);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void every_container_format_reads_with_its_header(void **state)
{
	static const char *const formats[] = { "raw", "luks", "vhd", "vhdx", "vmdk" };

	(void)state;
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		struct vd_create_opts c = create_opts(formats[i], VD_LUKS1);
		struct vd_open_opts o = open_opts(formats[i], VD_OPEN_WRITE);
		struct vd_image *img;

		assert_int_equal(disks_start(NULL), 0);
		make(disks.mem, &c);
		img = open_it(&o);
		assert_int_equal(vd_image_size(img), SIZE);
		disk_expect(img, 0, SIZE, BYTE);
		disk_write(img, 700, 5000, 7);
		disk_close(img);
		img = open_it(&o);
		disk_expect(img, 700, 5000, 7);
		disk_expect(img, 5700, SIZE - 5700, BYTE);
		disk_close(img);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void without_its_header_it_is_bytes(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts(NULL, 0);
	struct vd_info info = { .struct_size = sizeof(info) };
	uint8_t start[512];
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(disks.mem, &c);
	o.header = NULL;
	img = open_it(&o);
	expect_ok(vd_image_info(img, &info, &e), &e);
	assert_int_equal(info.encryption, VD_PLAIN);
	assert_null(info.header);
	expect_ok(vd_image_pread(img, start, sizeof(start), 0, &e), &e);
	assert_null(memmem(start, sizeof(start), "ZZZZ", 4));
	disk_close(img);
}

static void info_names_the_file(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS2);
	struct vd_open_opts o = open_opts(NULL, VD_OPEN_METADATA);
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(disks.mem, &c);
	img = open_it(&o);
	expect_ok(vd_image_info(img, &info, &e), &e);
	assert_string_equal(info.header, "h");
	assert_string_equal(info.format, "raw");
	assert_int_equal(info.encryption, VD_ENCRYPTED_LUKS);
	assert_int_equal(info.luks.payload_off, 0);
	assert_int_equal(info.virtual_size, SIZE);
	disk_close(img);
}

static void disk_grows_without_room_for_a_header(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts("raw", VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_error e;
	uint64_t size;

	(void)state;
	make(disks.mem, &c);
	img = open_it(&o);
	expect_ok(vd_image_resize(img, 2 * SIZE, 0, &e), &e);
	assert_int_equal(vd_image_size(img), 2 * SIZE);
	disk_expect(img, 0, SIZE, BYTE);
	disk_close(img);
	free(bytes_of("d", &size));
	assert_int_equal(size, 2 * SIZE);
}

/* ---- what is refused ------------------------------------------------------------------------------------- */

static void qcow2_takes_no_header_but_its_own(void **state)
{
	struct vd_create_opts c = create_opts("qcow2", VD_LUKS1);
	struct vd_open_opts o = open_opts("qcow2", 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_create_on(disks.mem, NULL, "d", &c, &img, &e), VD_EUNSUPPORTED, &e, "keeps its LUKS header in the image");
	c.header = NULL;
	make(disks.mem, &c);
	expect_failure(vd_image_open_on(disks.mem, NULL, "d", &o, &img, &e), VD_EUNSUPPORTED, &e, "takes no other");
}

static void header_without_key_is_refused(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	c.key = NULL;
	expect_failure(vd_image_create_on(disks.mem, NULL, "d", &c, &img, &e), VD_EARG, &e, "has no header");
}

static void header_is_never_replaced(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	expect_ok(vd_mem_put(disks.mem, "h", "precious", 8, &e), &e);
	c.flags = VD_CREATE_REPLACE;
	expect_failure(vd_image_create_on(disks.mem, NULL, "d", &c, &img, &e), VD_EEXIST, &e, "may be the header of another disk");
	expect_same_file("h", (const uint8_t *)"precious", 8);
}

static void given_up_it_leaves_no_header(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	expect_ok(vd_image_create_on(disks.mem, NULL, "d", &c, &img, &e), &e);
	vd_image_abort(img);
	assert_null(vd_mem_name(disks.mem, 0));
}

static void header_has_its_name_first_and_is_durable_then(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	const struct vd_event *ev;
	const char *named[2] = { NULL, NULL };
	size_t n = 0;

	(void)state;
	make(disks.host, &c);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		if (ev->kind == VD_OP_RENAME && n < 2)
			named[n++] = ev->to;
	assert_int_equal(n, 2);
	assert_string_equal(named[0], "h");
	assert_string_equal(named[1], "d");
	assert_true(vd_mem_flushes(disks.mem, "h") > 0);
}

static void damaged_header_is_told_by_its_name(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts("raw", 0);
	struct vd_image *img = NULL;
	struct vd_error e;
	uint64_t len;
	vd_auto_free uint8_t *header = NULL;

	(void)state;
	make(disks.mem, &c);
	header = bytes_of("h", &len);
	expect_ok(vd_mem_put(disks.mem, "h", header, len / 2, &e), &e);
	expect_failure(vd_image_open_on(disks.mem, NULL, "d", &o, &img, &e), VD_EAUTH, &e, "h: the LUKS header claims");
	expect_ok(vd_mem_put(disks.mem, "h", "", 0, &e), &e);
	expect_failure(vd_image_open_on(disks.mem, NULL, "d", &o, &img, &e), VD_ECORRUPT, &e, "h has no LUKS header");
	o.header = "nowhere";
	expect_failure(vd_image_open_on(disks.mem, NULL, "d", &o, &img, &e), VD_ENOENT, &e, "nowhere");
}

static void payload_past_the_end_is_refused(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts("raw", 0);
	struct vd_image *img = NULL;
	struct vd_error e;
	uint64_t len;
	vd_auto_free uint8_t *header = NULL;

	(void)state;
	make(disks.mem, &c);
	header = bytes_of("h", &len);
	/* payload-offset (LUKS1 spec 1.2.3, figure 1): 2 MiB into a disk of one. */
	memcpy(header + 104, "\0\0\x10\0", 4);
	expect_ok(vd_mem_put(disks.mem, "h", header, len, &e), &e);
	expect_failure(vd_image_open_on(disks.mem, NULL, "d", &o, &img, &e), VD_ECORRUPT, &e, "past the end");
}

/* ---- keyslots -------------------------------------------------------------------------------------------- */

static int find_slot(struct vd_key *wanted, uint32_t *slot, struct vd_error *e)
{
	struct vd_open_opts o = open_opts("raw", VD_OPEN_METADATA);
	struct vd_image *img = open_it(&o);
	int r = vd_keyslot_find(img, wanted, slot, e);

	disk_close(img);
	return r;
}

static void keys_change_in_the_header_file_alone(void **state)
{
	(void)state;
	for (int type = VD_LUKS1; type <= VD_LUKS2; type++) {
		struct vd_create_opts c = create_opts("raw", (enum vd_luks_type)type);
		struct vd_open_opts o = open_opts("raw", VD_OPEN_CONTROL);
		struct vd_keyslot_opts slot_opts = { .struct_size = sizeof(slot_opts), .kdf = cheap[type] };
		struct vd_image *img;
		struct vd_error e;
		uint32_t slot = 9;
		uint64_t size;

		assert_int_equal(disks_start(NULL), 0);
		make(disks.mem, &c);
		vd_auto_free uint8_t *before = bytes_of("d", &size);

		img = open_it(&o);
		expect_ok(vd_keyslot_add(img, key, other_key, &slot_opts, &slot, &e), &e);
		expect_ok(vd_keyslot_remove(img, 0, 0, &e), &e);
		disk_close(img);
		expect_ok(find_slot(other_key, &slot, &e), &e);
		assert_int_equal(slot, 1);
		expect_failure(find_slot(key, &slot, &e), VD_EKEY, &e, "opens none");
		expect_same_file("d", before, size);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void payload_is_written_with_a_header_that_others_read(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts("raw", VD_OPEN_WRITE);
	struct vd_io *reader = NULL;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(disks.mem, &c);
	expect_ok(disks.mem->open(disks.mem, "h", 0, &reader, &e), &e);
	img = open_it(&o);
	disk_write(img, 0, 4096, 3);
	disk_close(img);
	vd_io_abort(reader);
}

/* ---- backups, on real files ------------------------------------------------------------------------------ */

static void make_file(const struct vd_create_opts *c)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_create("d", c, &img, &e), &e);
	disk_write(img, 0, SIZE, BYTE);
	disk_commit(img);
	disk_close(img);
}

static void expect_file_opens(const char *header)
{
	struct vd_open_opts o = open_opts("raw", 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	o.header = header;
	expect_ok(vd_image_open("d", &o, &img, &e), &e);
	disk_expect(img, 0, SIZE, BYTE);
	disk_close(img);
}

static void back_up(const char *header)
{
	struct vd_open_opts o = open_opts(header ? "raw" : "luks", VD_OPEN_METADATA);
	struct vd_image *img = NULL;
	struct vd_error e;

	o.header = header;
	expect_ok(vd_image_open("d", &o, &img, &e), &e);
	expect_ok(vd_header_backup(img, "backup", &e), &e);
	disk_close(img);
}

static void backup_is_a_header_itself_and_goes_back(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_open_opts o = open_opts("raw", VD_OPEN_CONTROL);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	make_file(&c);
	back_up("h");
	expect_file_opens("backup");
	assert_int_equal(truncate("h", 100), 0);
	expect_ok(vd_image_open("d", &o, &img, &e), &e);
	expect_ok(vd_header_restore(img, "backup", key, &e), &e);
	disk_close(img);
	expect_file_opens("h");
}

static void backup_of_a_container_opens_it_as_its_header(void **state)
{
	struct vd_create_opts c = create_opts("luks", VD_LUKS1);
	uint8_t zeros[4096] = { 0 };
	FILE *f;

	(void)state;
	c.header = NULL;
	make_file(&c);
	back_up(NULL);
	f = fopen("d", "r+");
	assert_int_equal(fwrite(zeros, sizeof(zeros), 1, f), 1);
	assert_int_equal(fclose(f), 0);
	expect_file_opens("backup");
}

/* ---- converted in place ---------------------------------------------------------------------------------- */

static struct vd_inplace_opts inplace_opts(const char *header)
{
	return (struct vd_inplace_opts){
		.struct_size = sizeof(struct vd_inplace_opts), .format = "raw", .keys = &key, .n_keys = 1, .new_key = key, .kdf = cheap[VD_LUKS1],
		.header = header,
	};
}

static int convert(enum vd_inplace_run what, const struct vd_inplace_opts *o, const struct vd_job *job, struct vd_error *e)
{
	struct vd_inplace_report report = { .struct_size = sizeof(report) };

	return vd_inplace_run_on(disks.mem, "d", what, o, job, &report, e);
}

#define ENCRYPT ((enum vd_inplace_run)VD_INPLACE_ENCRYPT)
#define DECRYPT ((enum vd_inplace_run)VD_INPLACE_DECRYPT)
#define REKEY ((enum vd_inplace_run)VD_INPLACE_REKEY)

static int stop(void *ctx, const struct vd_progress *p)
{
	(void)ctx;
	return p->done > 0 && !strcmp(p->phase, "rekey");
}

/* A disk whose header is "h", on its way to another volume key. */
static void stop_rekey_half_way(void)
{
	struct vd_job job = { .struct_size = sizeof(job), .progress = stop };
	struct vd_inplace_opts o = inplace_opts("h");
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_error e;

	make(disks.mem, &c);
	expect_failure(convert(REKEY, &o, &job, &e), VD_EHALFWAY, &e, "stopped");
	assert_non_null(strstr(e.hint, "vdisk resume --header h d"));
}

static void it_goes_on_with_its_header_named_and_no_other(void **state)
{
	struct vd_inplace_opts o = inplace_opts(NULL);
	struct vd_open_opts open = open_opts("raw", 0);
	uint64_t len;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	stop_rekey_half_way();
	vd_auto_free uint8_t *before = bytes_of("h", &len);

	expect_failure(convert(VD_INPLACE_RESUME, &o, NULL, &e), VD_EARG, &e, "which is not named");
	expect_failure(convert(VD_INPLACE_REVERT, &o, NULL, &e), VD_EARG, &e, "which is not named");
	expect_ok(vd_mem_put(disks.mem, "other", "precious", 8, &e), &e);
	o.header = "other";
	expect_failure(convert(VD_INPLACE_RESUME, &o, NULL, &e), VD_EEXIST, &e, "not the header of this disk");
	expect_same_file("other", (const uint8_t *)"precious", 8);
	expect_same_file("h", before, len);
	o.header = "h";
	expect_ok(convert(VD_INPLACE_RESUME, &o, NULL, &e), &e);
	img = open_it(&open);
	disk_expect(img, 0, SIZE, BYTE);
	disk_close(img);
}

static void lost_header_is_written_where_a_name_is_free(void **state)
{
	struct vd_inplace_opts o = inplace_opts("free");
	struct vd_open_opts open = open_opts("raw", 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	stop_rekey_half_way();
	expect_ok(disks.mem->unlink(disks.mem, "h", &e), &e);
	expect_ok(convert(VD_INPLACE_RESUME, &o, NULL, &e), &e);
	open.header = "free";
	img = open_it(&open);
	disk_expect(img, 0, SIZE, BYTE);
	disk_close(img);
}

static void turned_back_it_has_touched_no_header(void **state)
{
	struct vd_inplace_opts o = inplace_opts("h");
	struct vd_open_opts open = open_opts("raw", 0);
	struct vd_image *img;
	struct vd_error e;
	uint64_t len;

	(void)state;
	stop_rekey_half_way();
	vd_auto_free uint8_t *before = bytes_of("h", &len);

	expect_ok(convert(VD_INPLACE_REVERT, &o, NULL, &e), &e);
	expect_same_file("h", before, len);
	img = open_it(&open);
	disk_expect(img, 0, SIZE, BYTE);
	disk_close(img);
}

static void new_header_takes_no_name_that_is_taken(void **state)
{
	struct vd_inplace_opts o = inplace_opts("h");
	struct vd_error e;

	(void)state;
	disk_put_raw("d", SIZE, BYTE);
	expect_ok(vd_mem_put(disks.mem, "h", "precious", 8, &e), &e);
	expect_failure(convert(ENCRYPT, &o, NULL, &e), VD_EEXIST, &e, "may be the header of this disk, or another");
	expect_same_file("h", (const uint8_t *)"precious", 8);
	assert_false(disks.mem->exists(disks.mem, "d.vdisk-journal"));
}

static void header_that_is_in_the_disk_takes_no_other(void **state)
{
	struct vd_create_opts c = create_opts("raw", VD_LUKS1);
	struct vd_inplace_opts o = inplace_opts("h");
	struct vd_error e;
	uint64_t len;

	(void)state;
	c.header = NULL;
	make(disks.mem, &c);
	vd_auto_free uint8_t *image = bytes_of("d", &len);

	expect_ok(vd_mem_put(disks.mem, "h", image, 2 * MIB, &e), &e);
	expect_failure(convert(DECRYPT, &o, NULL, &e), VD_EARG, &e, "LUKS header of its own");
	memset(image, 0, 4096);
	expect_ok(vd_mem_put(disks.mem, "d", image, len, &e), &e);
	expect_failure(convert(DECRYPT, &o, NULL, &e), VD_EUNSUPPORTED, &e, "of a disk that begins at 2097152");
}

static void qcow2_is_not_converted_with_a_header_file(void **state)
{
	struct vd_create_opts c = create_opts("qcow2", VD_LUKS1);
	struct vd_inplace_opts o = inplace_opts("h");
	struct vd_error e;

	(void)state;
	c.header = NULL;
	c.key = NULL;
	make(disks.mem, &c);
	o.format = "qcow2";
	expect_failure(convert(ENCRYPT, &o, NULL, &e), VD_EUNSUPPORTED, &e, "keeps its LUKS header in the image");
}

#define ON_DISKS(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, vd_tempdir_enter, vd_tempdir_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(raw_disk_begins_at_byte_0),
		cmocka_unit_test(every_container_format_reads_with_its_header),
		ON_DISKS(without_its_header_it_is_bytes),
		ON_DISKS(info_names_the_file),
		ON_DISKS(disk_grows_without_room_for_a_header),
		ON_DISKS(qcow2_takes_no_header_but_its_own),
		ON_DISKS(header_without_key_is_refused),
		ON_DISKS(header_is_never_replaced),
		ON_DISKS(given_up_it_leaves_no_header),
		ON_DISKS(header_has_its_name_first_and_is_durable_then),
		ON_DISKS(damaged_header_is_told_by_its_name),
		ON_DISKS(payload_past_the_end_is_refused),
		cmocka_unit_test(keys_change_in_the_header_file_alone),
		ON_DISKS(payload_is_written_with_a_header_that_others_read),
		ON_DISKS(it_goes_on_with_its_header_named_and_no_other),
		ON_DISKS(lost_header_is_written_where_a_name_is_free),
		ON_DISKS(turned_back_it_has_touched_no_header),
		ON_DISKS(new_header_takes_no_name_that_is_taken),
		ON_DISKS(header_that_is_in_the_disk_takes_no_other),
		ON_DISKS(qcow2_is_not_converted_with_a_header_file),
		IN_FOLDER(backup_is_a_header_itself_and_goes_back),
		IN_FOLDER(backup_of_a_container_opens_it_as_its_header),
	};
	int r;

	vd_mover_batch = 64 << 10;
	if (vd_key_from_bytes("secret", 6, &key, NULL) < 0 || vd_key_from_bytes("other", 5, &other_key, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests_name("detached", tests, NULL, NULL);
	vd_key_free(key);
	vd_key_free(other_key);
	return r;
}
