/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decrypts and encrypts in place, and has the driver say so. */
#include "tests/support/recrypt.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/core/shape.h"
#include "tests/support/hostwalk.h"

void recrypt_init(struct recrypt *c)
{
	struct vd_create_opts opts = { .struct_size = sizeof(opts), .kdf = { .iterations = 1000 } };
	struct vd_key *key = NULL;
	struct vd_error e;

	*c = (struct recrypt){ 0 };
	expect_ok(vd_key_from_bytes("correct horse", 13, &key, &e), &e);
	opts.key = key;
	expect_ok(vd_layer_create(&c->layer, &opts, false, &c->header, &c->header_len, &e), &e);
	vd_key_free(key);
}

void recrypt_free(struct recrypt *c)
{
	vd_layer_fini(&c->layer);
	free(c->header);
}

struct vd_image *recrypt_open(unsigned flags)
{
	return disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL | VD_OPEN_FILES | VD_OPEN_APPENDS | flags);
}

static void turn(struct vd_image *img, const struct vd_host_run *run, const struct vd_layer *from, const struct vd_layer *to)
{
	uint8_t *bytes = malloc(run->len);
	struct vd_error e;

	expect_ok(vd_set_pread(img->set, run->file, bytes, run->len, run->off, &e), &e);
	if (from)
		expect_ok(vd_layer_decrypt(from, bytes, run->len, run->guest_off, run->off, &e), &e);
	if (to)
		expect_ok(vd_layer_encrypt(to, bytes, run->len, run->guest_off, run->off, &e), &e);
	expect_ok(vd_set_pwrite(img->set, run->file, bytes, run->len, run->off, &e), &e);
	free(bytes);
}

void recrypt_data(struct vd_image *img, uint64_t end, const struct vd_layer *from, const struct vd_layer *to)
{
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	for (size_t i = 0; i < walked.n; i++) {
		struct vd_host_run run = walked.runs[i];

		if (run.off >= end || (run.owner != VD_OWNER_DATA && run.owner != VD_OWNER_VMSTATE))
			continue;
		run.len = vd_min_u64(run.len, end - run.off);
		turn(img, &run, from, to);
	}
	walk_free();
}

static int set(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct recrypt *c = arg;

	return img->format->set_key_area(img->state, c ? (struct vd_bytes){ c->header, c->header_len } : (struct vd_bytes){ 0 }, e);
}

int recrypt_set(struct vd_image *img, const struct recrypt *c, struct vd_error *e)
{
	return vd_shape_run(img, set, c, e);
}
