/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHD that Xen's tools encrypted, built by hand after blktap's include/vhd.h: read with the key of the right hash, by no
 * other, and never written. The ciphertext was made by OpenSSL, through Python's cryptography: the first two cipher blocks
 * of a sector of which the rest is zeros.
 */
#include "tests/support/qcow2_bytes.h"

#include "formats/vhd/vhd.h"

#define vhd (&vd_format_vhd)
#define BLOCK 65536u
#define SIZE (8 * (uint64_t)BLOCK)
#define TABLE 1536                      /* of one sector */
#define BATMAP 2048
#define FIRST 2560                      /* block */

static const struct vector {
	uint8_t key_from, key_len;      /* bytes that go up from one to the next */
	uint8_t hash[32], of_5[32], of_391[32];
} vectors[] = {
	{ 0, 64,
	  { 0x0f, 0x85, 0x4f, 0xdd, 0xab, 0x85, 0x14, 0x1c, 0x64, 0x94, 0xc8, 0xfd, 0x56, 0xb0, 0x32, 0x18,
	    0x2f, 0x7e, 0x4f, 0x3e, 0xd4, 0xd9, 0xa5, 0x2d, 0x1e, 0xf1, 0x3e, 0x47, 0x9f, 0xd8, 0xd2, 0xce },
	  { 0x8c, 0x6c, 0x95, 0xfc, 0x6e, 0x4e, 0x63, 0xbb, 0xa5, 0x55, 0x40, 0x7d, 0x52, 0xd8, 0xb0, 0xc8,
	    0xf8, 0xc3, 0x90, 0xb2, 0x21, 0xdf, 0x5d, 0xfe, 0x38, 0xb3, 0xab, 0x29, 0x16, 0xa2, 0x21, 0x6a },
	  { 0xfa, 0x5f, 0x99, 0xa4, 0x64, 0xd3, 0xb2, 0xfa, 0x60, 0x30, 0x92, 0xaa, 0xb8, 0x2e, 0xa9, 0xe7,
	    0xbc, 0xb0, 0xa1, 0x57, 0xc8, 0x9a, 0x45, 0x3a, 0x60, 0xd2, 0x77, 0x77, 0x28, 0xd6, 0xe2, 0xb8 } },
	{ 100, 32,
	  { 0x7d, 0x8c, 0x71, 0x8e, 0x47, 0x0b, 0x84, 0x28, 0x1c, 0x62, 0x5c, 0xe7, 0x18, 0xee, 0x8f, 0xcf,
	    0xba, 0x68, 0x14, 0x59, 0x8e, 0x4b, 0x8a, 0x5a, 0x96, 0x55, 0xa8, 0xd6, 0x6e, 0x57, 0x9f, 0x6a },
	  { 0x0b, 0x38, 0x96, 0xe7, 0xf4, 0xa0, 0x0e, 0x5c, 0x56, 0xa1, 0x1e, 0x51, 0x35, 0xfb, 0xd0, 0x77,
	    0xe4, 0x4a, 0xbc, 0x95, 0x10, 0xbf, 0xf5, 0x35, 0x35, 0xa7, 0x08, 0xc3, 0x3e, 0xa7, 0x61, 0x70 },
	  { 0x3b, 0xa6, 0x5f, 0x3b, 0xde, 0xef, 0x5a, 0xc8, 0xf4, 0x67, 0xe2, 0x2c, 0xf8, 0x5e, 0x78, 0x93,
	    0x1d, 0xcc, 0x6a, 0x10, 0x10, 0x2f, 0x7a, 0xf4, 0xbf, 0x87, 0xaa, 0xc3, 0x48, 0x07, 0x44, 0x0d } },
};

static void put(uint64_t off, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes_put("d", off + i, 1, ((const uint8_t *)bytes)[i]);
}

/* A block with one sector in it. */
static void put_block(uint64_t block, uint64_t host_off, uint32_t sector, const uint8_t text[32])
{
	bytes_put("d", TABLE + block * 4, 4, host_off / 512);
	bytes_put("d", host_off + sector / 8, 1, 0x80 >> sector % 8);
	put(host_off + 512 + sector * 512, text, 32);
}

static void make(const struct vector *v)
{
	struct vd_create_opts o = disk_create_opts(vhd, SIZE);
	uint64_t end = FIRST + 2 * (512 + BLOCK);
	struct vd_image *img;
	uint8_t footer[512];

	o.cluster_size = BLOCK;
	img = disk_create(vhd, "d", &o);
	disk_commit(img);
	disk_close(img);
	bytes_read("d", 0, footer, sizeof(footer));
	memcpy(footer + 28, "tap\0\0\1\0\3", 8);
	vd_put_be32(footer + VHD_AT_CHECKSUM, vd_vhd_checksum(footer, sizeof(footer), VHD_AT_CHECKSUM));
	bytes_truncate("d", BATMAP);
	bytes_truncate("d", end + 512);
	put(0, footer, sizeof(footer));
	put(end, footer, sizeof(footer));
	put(BATMAP, "tdbatmap", 8);
	bytes_put("d", BATMAP + 29, 1, 1);
	for (int i = 0; i < 32; i++)
		bytes_put("d", BATMAP + 30 + i, 1, 200 + i);
	put(BATMAP + 62, v->hash, 32);
	put_block(0, FIRST, 5, v->of_5);
	put_block(3, FIRST + 512 + BLOCK, 391 - 3 * BLOCK / 512, v->of_391);
}

static int open_with(const struct vector *v, size_t key_len, unsigned flags, struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vhd, flags);
	uint8_t bytes[64];
	struct vd_key *key;
	int r;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = v->key_from + i;
	assert_int_equal(vd_key_from_bytes(bytes, key_len, &key, NULL), 0);
	opts.keys = &key;
	opts.n_keys = 1;
	r = vd_image_open_on(disks.host, vhd, "d", &opts, img, e);
	vd_key_free(key);
	return r;
}

static void a_disk_is_read_with_its_key(void **state)
{
	char got[32];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct vd_info info = { .struct_size = sizeof(info) };
		struct vd_image *img = NULL;
		struct vd_error e;

		make(&vectors[i]);
		expect_ok(open_with(&vectors[i], vectors[i].key_len, 0, &img, &e), &e);
		expect_ok(vd_image_info(img, &info, &e), &e);
		assert_int_equal(info.encryption, VD_ENCRYPTED_XEN);
		expect_ok(vd_image_pread(img, got, sizeof(got), 5 * 512, &e), &e);
		assert_memory_equal(got, "sector 5 of a disk of Xen's VHD ", 32);
		expect_ok(vd_image_pread(img, got, sizeof(got), 391 * 512, &e), &e);
		assert_memory_equal(got, "sector 391 of a disk of Xen's VH", 32);
		/* What no bit says is there is zeros, not noise. */
		disk_expect(img, 6 * 512, 385 * 512, 0);
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void no_other_key_will_do(void **state)
{
	struct vd_open_opts opts = disk_open_opts(vhd, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	make(&vectors[0]);
	expect_failure(open_with(&vectors[1], 64, 0, &img, &e), VD_EKEY, &e, "not the one");
	expect_failure(open_with(&vectors[0], 32, 0, &img, &e), VD_EKEY, &e, "not the one");
	expect_failure(open_with(&vectors[0], 63, 0, &img, &e), VD_EKEY, &e, "not the one");
	assert_int_equal(vd_image_open_on(disks.host, vhd, "d", &opts, &img, &e), VD_ENOKEY);
	expect_failure(open_with(&vectors[0], 64, VD_OPEN_WRITE, &img, &e), VD_EREADONLY, &e, "Xen's tools");
}

/* Without the cookie, or by another creator, the same bytes say nothing. */
static void only_xens_tools_say_so(void **state)
{
	struct vd_image *img;
	uint8_t raw[512];

	(void)state;
	make(&vectors[0]);
	bytes_put("d", BATMAP + 29, 1, 0);
	img = disk_open(vhd, "d", 0);
	assert_int_equal(img->layer.encryption, VD_PLAIN);
	disk_close(img);
	disks.mem->unlink(disks.mem, "d", NULL);
	make(&vectors[0]);
	bytes_read("d", bytes_size("d") - 512, raw, sizeof(raw));
	memcpy(raw + 28, "win ", 4);
	vd_put_be32(raw + VHD_AT_CHECKSUM, vd_vhd_checksum(raw, sizeof(raw), VHD_AT_CHECKSUM));
	put(bytes_size("d") - 512, raw, sizeof(raw));
	img = disk_open(vhd, "d", 0);
	assert_int_equal(img->layer.encryption, VD_PLAIN);
	disk_close(img);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_disk_is_read_with_its_key),
		CASE(no_other_key_will_do),
		CASE(only_xens_tools_say_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
