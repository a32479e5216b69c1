/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The encryption between guest and map: where it is found, what opens it, that host bytes are the ciphertext they should
 * be (computed here from the header and the key) and nothing else ever reaches a file.
 */
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "tests/support/model.h"

#define SIZE (1u << 20)
#define raw (&vd_format_raw)
#define qcow2 (&vd_format_qcow2)

static struct vd_key *key, *wrong;

static int make_keys(void **state)
{
	(void)state;
	return vd_key_from_bytes("right", 5, &key, NULL) < 0 || vd_key_from_bytes("wrong", 5, &wrong, NULL) < 0;
}

static int drop_keys(void **state)
{
	(void)state;
	vd_key_free(key);
	vd_key_free(wrong);
	return 0;
}

static struct vd_create_opts encrypted(const struct vd_format *format, uint64_t size)
{
	struct vd_create_opts opts = disk_create_opts(format, size);

	opts.key = key;
	opts.kdf.iterations = 1000;
	return opts;
}

static struct vd_create_opts luks2(uint64_t size, uint32_t sector_size)
{
	struct vd_create_opts opts = encrypted(raw, size);

	opts.luks_type = VD_LUKS2;
	opts.luks_sector_size = sector_size;
	opts.kdf = (struct vd_kdf_opts){ .iterations = 4, .memory_kib = 64 };
	return opts;
}

static void make(const struct vd_create_opts *opts, const char *name)
{
	struct vd_image *img = disk_create(NULL, name, opts);

	disk_commit(img);
	disk_close(img);
}

static int open_with(const char *name, const char *format, unsigned flags, struct vd_key *const *keys, size_t n,
		     struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(raw, flags);

	opts.format = format;
	opts.keys = keys;
	opts.n_keys = n;
	return vd_image_open_on(disks.host, NULL, name, &opts, img, e);
}

static struct vd_image *open_named(const char *name, const char *format)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(open_with(name, format, VD_OPEN_WRITE, &key, 1, &img, &e), &e);
	return img;
}

static void read_file(const char *name, uint64_t off, void *buf, size_t len)
{
	struct vd_io *io;

	assert_int_equal(disks.mem->open(disks.mem, name, VD_IO_FORCE_SHARE, &io, NULL), 0);
	assert_int_equal(vd_io_pread(io, buf, len, off, NULL), 0);
	vd_io_abort(io);
}

static void write_file(const char *name, uint64_t off, const void *buf, size_t len)
{
	struct vd_io *io;

	assert_int_equal(disks.mem->open(disks.mem, name, VD_IO_WRITE, &io, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, buf, len, off, NULL), 0);
	vd_io_abort(io);
}

/* ---- ciphertext --------------------------------------------------------------------------------------- */

/* The cipher of a file whose LUKS header is at header_off, without the image's help. */
static struct vd_diskcipher *cipher_of(const char *name, uint64_t header_off)
{
	vd_auto_secret struct vd_secret vk = { 0 };
	vd_auto_free uint8_t *header = calloc(1, VD_LUKS_PROBE_LEN);
	struct vd_diskcipher *cipher = NULL;
	uint64_t len;

	read_file(name, header_off, header, VD_LUKS_PROBE_LEN);
	assert_true(vd_luks_probe((struct vd_bytes){ header, VD_LUKS_PROBE_LEN }, &len));
	header = realloc(header, vd_max_u64(len, VD_LUKS_PROBE_LEN));
	read_file(name, header_off, header, len);
	assert_int_equal(vd_luks_unlock(&(struct vd_luks_view){ .header = { header, len } }, key, &vk, NULL), 0);
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, vk.p, vk.len, &cipher, NULL), 0);
	return cipher;
}

/* The 4096 host bytes decrypt to what the guest reads, counted from this 512-byte unit. */
static void expect_decrypts(struct vd_image *img, uint64_t guest_off, struct vd_diskcipher *cipher, uint64_t host_off,
			    uint64_t unit, size_t sector)
{
	uint8_t host[4096], guest[4096];

	read_file(img->path, host_off, host, sizeof(host));
	assert_int_equal(vd_image_pread(img, guest, sizeof(guest), guest_off, NULL), 0);
	assert_memory_not_equal(host, guest, sizeof(guest));
	assert_int_equal(vd_diskcipher_decrypt(cipher, host, sizeof(host), unit, sector, NULL), 0);
	assert_memory_equal(host, guest, sizeof(guest));
}

static void container_counts_from_its_payload(void **state)
{
	const struct vd_create_opts kinds[] = { encrypted(raw, SIZE), luks2(SIZE, 512), luks2(SIZE, 4096) };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct vd_diskcipher *cipher;
		struct vd_image *img;
		uint64_t payload;

		make(&kinds[i], "d");
		img = open_named("d", "luks");
		payload = vd_luks_payload_off(i ? VD_LUKS2 : VD_LUKS1);
		assert_int_equal(img->layer.payload_off, payload);
		assert_int_equal(vd_image_size(img), SIZE);
		disk_write(img, 40000, 30000, 0x5a);
		disk_write(img, SIZE - 1, 1, 7);
		cipher = cipher_of("d", 0);
		for (uint64_t off = 36864; off < 73728; off += 4096)
			expect_decrypts(img, off, cipher, payload + off, off / 512, img->layer.sector_size);
		expect_decrypts(img, SIZE - 4096, cipher, payload + SIZE - 4096, (SIZE - 4096) / 512,
				img->layer.sector_size);
		vd_diskcipher_free(cipher);
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static uint64_t key_area_of(struct vd_image *img)
{
	struct vd_info info = { .struct_size = sizeof(info) };

	assert_int_equal(vd_image_info(img, &info, NULL), 0);
	assert_int_equal(info.encryption, VD_ENCRYPTED_LUKS);
	assert_int_equal(info.luks.version, 1);
	assert_false(info.is_container);
	return info.luks.header_off;
}

static void qcow2_counts_from_the_start_of_the_file(void **state)
{
	struct vd_create_opts opts = encrypted(qcow2, SIZE);
	struct vd_diskcipher *cipher;
	struct vd_image *img;

	(void)state;
	make(&opts, "d");
	img = open_named("d", "qcow2");
	/* So that guest and host order differ. */
	disk_write(img, 9 << 16, 65536, 0x5a);
	disk_write(img, 3 << 16, 65536, 0x5b);
	cipher = cipher_of("d", key_area_of(img));
	for (uint64_t off = 3 << 16; off <= 9 << 16; off += 6 << 16) {
		struct vd_extent x;
		size_t n;

		assert_int_equal(vd_image_extents(img, off, 4096, &x, 1, &n, NULL), 0);
		assert_int_equal(x.flags, VD_EXTENT_DATA | VD_EXTENT_HOST | VD_EXTENT_ENCRYPTED);
		expect_decrypts(img, off, cipher, x.host_off, x.host_off / 512, 512);
	}
	vd_diskcipher_free(cipher);
	disk_close(img);
}

static void legacy_aes_counts_guest_sectors(void **state)
{
	static const uint8_t aes_key[16] = "right";     /* the password, padded with zeros */
	struct vd_create_opts opts = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = disk_create(qcow2, "d", &opts);
	struct vd_diskcipher *cipher;
	uint8_t buf[4096];
	struct vd_error e;

	(void)state;
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_CBC_PLAIN64, aes_key, 16, &cipher, NULL), 0);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(vd_diskcipher_encrypt(cipher, buf, sizeof(buf), (3 << 16) / 512, 512, NULL), 0);
	vd_diskcipher_free(cipher);
	assert_int_equal(vd_image_pwrite(img, buf, sizeof(buf), 3 << 16, NULL), 0);
	disk_commit(img);
	disk_close(img);
	/* crypt_method, at byte 32 of the header: 1 */
	write_file("d", 32, "\0\0\0\1", 4);
	expect_failure(open_with("d", "qcow2", 0, NULL, 0, &img, &e), VD_ENOKEY, &e, "d is encrypted");
	expect_failure(open_with("d", "qcow2", VD_OPEN_WRITE, &key, 1, &img, &e), VD_EREADONLY, &e, "only read");
	expect_ok(open_with("d", "qcow2", 0, &key, 1, &img, &e), &e);
	disk_expect(img, 3 << 16, 4096, 0x5a);
	disk_expect(img, 0, 65536, 0);
	disk_close(img);
}

/* ---- what reaches the host ---------------------------------------------------------------------------- */

static bool holds_run(const uint8_t *p, size_t len, uint8_t value)
{
	size_t run = 0;

	for (size_t i = 0; i < len && run < 16; i++)
		run = p[i] == value ? run + 1 : 0;
	return run == 16;
}

static void plaintext_is_never_written_to_any_file(void **state)
{
	const struct vd_create_opts kinds[] = { encrypted(qcow2, SIZE), encrypted(raw, SIZE), luks2(SIZE, 4096) };
	const struct vd_event *ev;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct vd_image *img = disk_create(NULL, "d", &kinds[i]);
		uint64_t tick = vd_record_tick(disks.record);

		disk_write(img, 0, SIZE, 0x5a);
		disk_write(img, 1000, 100, 0x5a);
		disk_write(img, 70000, 300001, 0x5a);
		disk_zero(img, 777, 9999);
		disk_commit(img);
		disk_close(img);
		for (size_t k = 0; (ev = vd_record_event(disks.record, k)); k++)
			if (ev->kind == VD_OP_WRITE && ev->end > tick)
				assert_false(holds_run(ev->data, ev->len, 0x5a));
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void equal_sectors_differ_on_the_host(void **state)
{
	struct vd_create_opts opts = encrypted(raw, SIZE);
	struct vd_image *img = disk_create(NULL, "d", &opts);
	uint8_t a[512], b[512];

	(void)state;
	disk_write(img, 0, 1024, 0x5a);
	disk_commit(img);
	read_file("d", img->layer.payload_off, a, 512);
	read_file("d", img->layer.payload_off + 512, b, 512);
	assert_memory_not_equal(a, b, 512);
	disk_close(img);
}

static void zeros_in_a_container_are_ciphertext(void **state)
{
	struct vd_create_opts opts = encrypted(raw, SIZE);
	struct vd_image *img = disk_create(NULL, "d", &opts);
	uint8_t host[4096];
	uint64_t tick = vd_record_tick(disks.record);

	(void)state;
	disk_write(img, 0, 65536, 7);
	disk_zero(img, 100, 60000);
	disk_expect(img, 0, 100, 7);
	disk_expect(img, 100, 60000, 0);
	disk_expect(img, 60100, 65536 - 60100, 7);
	assert_int_equal(disks_count(VD_OP_PUNCH, tick), 0);
	disk_commit(img);
	read_file("d", img->layer.payload_off + 4096, host, sizeof(host));
	assert_false(holds_run(host, sizeof(host), 0));
	disk_close(img);
}

static void hole_in_a_container_is_noise_and_said_to_be(void **state)
{
	struct vd_create_opts opts = encrypted(raw, SIZE);
	uint8_t once[8192], again[4096];
	struct vd_image *img;
	struct vd_extent x;
	size_t n;

	(void)state;
	make(&opts, "d");
	img = open_named("d", "luks");
	assert_int_equal(vd_image_pread(img, once, sizeof(once), 4096, NULL), 0);
	assert_false(holds_run(once, sizeof(once), 0));
	assert_int_equal(vd_image_pread(img, again, 1000, 4097, NULL), 0);
	assert_memory_equal(again, once + 1, 1000);
	assert_int_equal(vd_image_extents(img, 4096, 4096, &x, 1, &n, NULL), 0);
	assert_int_equal(x.flags, VD_EXTENT_HOLE | VD_EXTENT_ENCRYPTED);
	disk_close(img);
}

static void write_next_to_noise_keeps_the_noise(void **state)
{
	const struct vd_create_opts kinds[] = { encrypted(raw, SIZE), luks2(SIZE, 4096) };
	uint8_t before[4096], after[4096];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct vd_image *img;

		make(&kinds[i], "d");
		img = open_named("d", "luks");
		assert_int_equal(vd_image_pread(img, before, sizeof(before), 4096, NULL), 0);
		disk_write(img, 5000, 1, 9);
		assert_int_equal(vd_image_pread(img, after, sizeof(after), 4096, NULL), 0);
		before[5000 - 4096] = 9;
		assert_memory_equal(before, after, sizeof(after));
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

/* ---- finding and opening ------------------------------------------------------------------------------ */

static void keys_are_tried_in_turn(void **state)
{
	const struct vd_create_opts kinds[] = { encrypted(qcow2, SIZE), encrypted(raw, SIZE) };
	struct vd_key *both[] = { wrong, key };
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const char *format = i ? "luks" : "qcow2";

		make(&kinds[i], "d");
		expect_failure(open_with("d", format, 0, NULL, 0, &img, &e), VD_ENOKEY, &e,
			       "d is encrypted and no key was given");
		expect_failure(open_with("d", format, 0, &wrong, 1, &img, &e), VD_EKEY, &e, "d: ");
		assert_null(img);
		expect_ok(open_with("d", format, 0, both, 2, &img, &e), &e);
		disk_close(vd_steal(&img));
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void header_counts_when_looked_for_and_not_when_raw_is_named(void **state)
{
	struct vd_create_opts opts = encrypted(raw, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make(&opts, "d");
	expect_ok(open_with("d", NULL, 0, &key, 1, &img, &e), &e);
	assert_true(img->layer.is_container);
	assert_int_equal(vd_image_size(img), SIZE);
	disk_close(img);
	expect_failure(open_with("d", NULL, VD_OPEN_WRITE, &key, 1, &img, &e), VD_EARG, &e, "needs the format named");
	expect_ok(open_with("d", "raw", VD_OPEN_WRITE, &key, 1, &img, &e), &e);
	assert_false(img->layer.is_container);
	assert_int_equal(vd_image_size(img), SIZE + vd_luks_payload_off(VD_LUKS1));
	disk_expect(img, 0, 1, 'L');
	disk_write(img, 0, 4, 'X');
	disk_close(img);
	expect_failure(open_with("d", "luks", 0, &key, 1, &img, &e), VD_ECORRUPT, &e, "d has no LUKS header");
	assert_true(e.hint[0]);
}

static void parent_named_raw_is_not_unlocked(void **state)
{
	struct vd_create_opts below = encrypted(raw, SIZE), over = disk_create_opts(qcow2, 0);
	struct vd_image *img;

	(void)state;
	make(&below, "p");
	over.backing_file = "p";
	over.backing_format = "raw";
	img = disk_create(NULL, "d", &over);
	disk_expect(img, 0, 1, 'L');
	vd_image_abort(img);
}

static void encrypted_overlay_stands_on_an_encrypted_parent(void **state)
{
	struct vd_create_opts below = encrypted(raw, SIZE), over = encrypted(qcow2, 0);
	struct vd_key *both[] = { wrong, key };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	img = disk_create(NULL, "p", &below);
	disk_write(img, 0, SIZE, 5);
	disk_commit(img);
	disk_close(img);
	over.backing_file = "p";
	over.backing_format = "luks";
	over.key = wrong;
	expect_failure(vd_image_create_on(disks.host, NULL, "d", &over, &img, &e), VD_ENOKEY, &e, "p is encrypted");
	over.backing_keys = &key;
	over.n_backing_keys = 1;
	img = disk_create(NULL, "d", &over);
	assert_int_equal(vd_image_size(img), SIZE);
	disk_write(img, 70000, 10, 9);
	disk_commit(img);
	disk_close(img);
	expect_failure(open_with("d", "qcow2", 0, &wrong, 1, &img, &e), VD_EKEY, &e, "p: ");
	expect_ok(open_with("d", "qcow2", 0, both, 2, &img, &e), &e);
	disk_expect(img, 0, 70000, 5);
	disk_expect(img, 70000, 10, 9);
	disk_expect(img, 70010, SIZE - 70010, 5);
	disk_close(img);
}

static void metadata_needs_no_key_and_reads_no_payload(void **state)
{
	const struct vd_create_opts kinds[] = { encrypted(qcow2, SIZE), encrypted(raw, SIZE) };
	uint8_t buf[512];

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct vd_info info = { .struct_size = sizeof(info) };
		struct vd_image *img = disk_create(NULL, "d", &kinds[i]);
		struct vd_error e;
		struct vd_extent x;
		size_t n;

		disk_write(img, 0, 65536, 7);
		disk_commit(img);
		disk_close(img);
		expect_ok(open_with("d", NULL, VD_OPEN_METADATA, NULL, 0, &img, &e), &e);
		expect_ok(vd_image_info(img, &info, &e), &e);
		assert_string_equal(info.format, i ? "luks" : "qcow2");
		assert_int_equal(info.virtual_size, SIZE);
		assert_int_equal(info.luks.key_bits, 512);
		expect_ok(vd_image_extents(img, 0, 512, &x, 1, &n, &e), &e);
		assert_int_equal(x.flags, VD_EXTENT_DATA | VD_EXTENT_HOST | VD_EXTENT_ENCRYPTED);
		expect_failure(vd_image_pread(img, buf, 512, 0, &e), VD_ENOKEY, &e, "without a key");
		/* A hole of qcow2 is zeros in clear, one of a container is not. */
		if (i)
			expect_failure(vd_image_pread(img, buf, 512, SIZE - 512, &e), VD_ENOKEY, &e, "without a key");
		else
			disk_expect(img, SIZE - 512, 512, 0);
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

/* ---- what is refused ---------------------------------------------------------------------------------- */

static void encryption_that_a_format_lacks_is_refused(void **state)
{
	struct vd_create_opts opts = encrypted(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	opts.luks_type = VD_LUKS2;
	expect_failure(vd_image_create_on(disks.host, NULL, "d", &opts, &img, &e), VD_EUNSUPPORTED, &e, "LUKS1 only");
	opts = encrypted(raw, SIZE);
	opts.luks_sector_size = 4096;
	expect_failure(vd_image_create_on(disks.host, NULL, "d", &opts, &img, &e), VD_EUNSUPPORTED, &e,
		       "4096 needs LUKS2");
	opts = luks2(SIZE, 1024);
	expect_failure(vd_image_create_on(disks.host, NULL, "d", &opts, &img, &e), VD_EARG, &e, "not 1024");
	assert_null(vd_mem_name(disks.mem, 0));
}

static void size_is_rounded_to_whole_cipher_sectors(void **state)
{
	static const struct { bool is_luks2; uint32_t sector; uint64_t want, got; } sizes[] = {
		{ false, 0, 1, 512 }, { false, 0, 512, 512 }, { true, 4096, 1, 4096 }, { true, 4096, 4097, 8192 },
		{ true, 512, 513, 1024 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct vd_create_opts opts = sizes[i].is_luks2 ? luks2(sizes[i].want, sizes[i].sector) :
							      encrypted(raw, sizes[i].want);
		struct vd_image *img = disk_create(NULL, "d", &opts);

		assert_int_equal(vd_image_size(img), sizes[i].got);
		disk_write(img, 0, sizes[i].got, 7);
		disk_expect(img, 0, sizes[i].got, 7);
		vd_image_abort(img);
	}
}

/* What lies behind the last whole sector of a container that somebody cut is not served. */
static void cut_container_ends_at_a_whole_sector(void **state)
{
	struct vd_create_opts opts = luks2(8192, 4096);
	struct vd_image *img = disk_create(NULL, "d", &opts);
	struct vd_error e;
	struct vd_io *io;
	uint8_t byte;

	(void)state;
	disk_write(img, 0, 8192, 7);
	disk_commit(img);
	disk_close(img);
	assert_int_equal(disks.mem->open(disks.mem, "d", VD_IO_WRITE, &io, NULL), 0);
	assert_int_equal(vd_io_truncate(io, vd_luks_payload_off(VD_LUKS2) + 8191, NULL), 0);
	vd_io_abort(io);
	img = open_named("d", "luks");
	assert_int_equal(vd_image_size(img), 4096);
	disk_expect(img, 0, 4096, 7);
	expect_failure(vd_image_pread(img, &byte, 1, 4096, &e), VD_ERANGE, &e, "outside");
	disk_close(img);
}

static void lost_header_is_told(void **state)
{
	struct vd_create_opts opts = encrypted(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;
	uint64_t at;

	(void)state;
	make(&opts, "d");
	img = open_named("d", "qcow2");
	at = key_area_of(img);
	disk_close(img);
	write_file("d", at, "\0\0\0\0\0\0", 6);
	expect_failure(open_with("d", "qcow2", 0, &key, 1, &img, &e), VD_ECORRUPT, &e,
		       "no LUKS header where the image says");
	assert_true(e.has_offset && e.offset == at);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(container_counts_from_its_payload),
		CASE(qcow2_counts_from_the_start_of_the_file),
		CASE(legacy_aes_counts_guest_sectors),
		CASE(plaintext_is_never_written_to_any_file),
		CASE(equal_sectors_differ_on_the_host),
		CASE(zeros_in_a_container_are_ciphertext),
		CASE(hole_in_a_container_is_noise_and_said_to_be),
		CASE(write_next_to_noise_keeps_the_noise),
		CASE(keys_are_tried_in_turn),
		CASE(header_counts_when_looked_for_and_not_when_raw_is_named),
		CASE(parent_named_raw_is_not_unlocked),
		CASE(encrypted_overlay_stands_on_an_encrypted_parent),
		CASE(metadata_needs_no_key_and_reads_no_payload),
		CASE(encryption_that_a_format_lacks_is_refused),
		CASE(size_is_rounded_to_whole_cipher_sectors),
		CASE(cut_container_ends_at_a_whole_sector),
		CASE(lost_header_is_told),
	};

	return cmocka_run_group_tests_name("layer", tests, make_keys, drop_keys);
}
