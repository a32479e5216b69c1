/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The encryption layer between guest bytes and the map: finds it, unlocks it, makes it, runs the cipher. What a LUKS
 * header holds is the keys room's business; where payload lies is the driver's.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/crypto/hash.h"
#include "libvdisk/crypto/random.h"

#define UNIT 512                        /* tweaks count 512-byte units whatever the sector size (LUKS2 spec, "sector_size") */
#define MAX_HEADER (128u << 20)         /* LUKS2 keyslots area is at most 128 MiB (cryptsetup's own limit) */

static uint64_t unit_of(const struct vd_layer *l, uint64_t guest_off, uint64_t host_off)
{
	return (l->tweak == VD_TWEAK_HOST ? host_off : guest_off) / UNIT;
}

int vd_layer_encrypt(const struct vd_layer *l, void *buf, size_t len, uint64_t guest_off, uint64_t host_off,
		     struct vd_error *e)
{
	if (!l->cipher)
		return 0;
	return vd_diskcipher_encrypt(l->cipher, buf, len, unit_of(l, guest_off, host_off), l->sector_size, e);
}

int vd_layer_decrypt(const struct vd_layer *l, void *buf, size_t len, uint64_t guest_off, uint64_t host_off,
		     struct vd_error *e)
{
	if (!l->cipher)
		return 0;
	return vd_diskcipher_decrypt(l->cipher, buf, len, unit_of(l, guest_off, host_off), l->sector_size, e);
}

void vd_layer_fini(struct vd_layer *l)
{
	vd_diskcipher_free(l->cipher);
	*l = (struct vd_layer){ 0 };
}

static int no_key(const struct vd_image *img, struct vd_error *e)
{
	vd_fail(e, VD_ENOKEY, "%s is encrypted and no key was given", img->path);
	return vd_hint(e, VD_ENOKEY, "give the key by --key-file, --passphrase-file or another key option");
}

/* ---- the header's bytes ----------------------------------------------------------------------------------- */

int vd_layer_open_header(struct vd_host *host, struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	unsigned flags = (img->is_control ? VD_IO_WRITE : 0) | (opts->flags & VD_OPEN_FORCE_SHARE ? VD_IO_FORCE_SHARE : 0);

	if (!opts->header)
		return 0;
	if (!img->format->encrypts)
		return host->open(host, opts->header, flags, &img->header, e);
	vd_fail(e, VD_EUNSUPPORTED, "%s: %s keeps its LUKS header in the image, and takes no other", img->path, img->format->name);
	return vd_hint(e, VD_EUNSUPPORTED, "leave --header out; a header that was lost comes back by vdisk key restore-header");
}

static int header_limit(const struct vd_image *img, bool is_container, uint64_t *limit, struct vd_error *e)
{
	if (img->header)
		return vd_io_size(img->header, limit, e);
	*limit = is_container ? img->info.size : img->info.key_area_len;
	return 0;
}

/* In the file that the next one names. */
static uint64_t header_start(const struct vd_image *img, bool is_container)
{
	return is_container ? 0 : img->info.key_area_off;
}

static const char *header_file(const struct vd_image *img)
{
	return img->header ? img->header->name : img->path;
}

/* Byte `at` of the header on the host: *run says where, and for how many bytes. A key area is one piece of file 0. */
static int find_header(struct vd_image *img, bool is_container, uint64_t at, size_t len, struct vd_run *run,
		       struct vd_error *e)
{
	size_t one = 1;

	if (is_container)
		return img->format->map(img->state, at, len, VD_MAP_TO_READ, run, &one, e);
	*run = (struct vd_run){ .where = VD_DATA, .len = len, .host_off = img->info.key_area_off + at };
	return 0;
}

/* Of the disk as it is without its layer. */
static int read_packed_part(struct vd_image *img, uint8_t *buf, size_t len, uint64_t at, struct vd_error *e)
{
	struct vd_layer layer = img->layer;
	uint64_t size = img->size;
	int r;

	img->layer = (struct vd_layer){ 0 };
	img->size = img->info.size;
	r = vd_read(img, buf, len, at, e);
	img->layer = layer;
	img->size = size;
	return r;
}

static int read_header_part(struct vd_image *img, bool is_container, uint8_t *buf, size_t len, uint64_t at,
			    struct vd_error *e)
{
	int r = 0;

	if (img->header)
		return vd_io_pread(img->header, buf, len, at, e);
	for (size_t n; len && r == 0; buf += n, at += n, len -= n) {
		struct vd_run run;

		r = find_header(img, is_container, at, len, &run, e);
		if (r < 0)
			return r;
		n = vd_min_u64(len, run.len);
		if (run.where == VD_DATA)
			r = vd_set_pread(img->set, run.file, buf, n, run.host_off, e);
		else if (run.where == VD_HOLE && img->parent && vd_image_is_bare_overlay(img))
			r = vd_read(img->parent, buf, n, at, e);
		else if (run.where == VD_PACKED)
			r = read_packed_part(img, buf, n, at, e);
		else
			memset(buf, 0, n);
	}
	return r;
}

static int no_header(const struct vd_image *img, bool is_container, struct vd_error *e)
{
	vd_fail_at(e, VD_ECORRUPT, header_start(img, is_container), is_container ? "%s has no LUKS header" :
		   "%s: there is no LUKS header where the image says it is", header_file(img));
	return vd_hint(e, VD_ECORRUPT, "vdisk key restore-header brings a lost header back from a backup of it: without it "
		       "the data is lost");
}

/* How long the header is. Where its beginning is lost, a second copy of it is looked for further out. */
static int measure_header(struct vd_image *img, bool is_container, uint64_t *len, struct vd_error *e)
{
	size_t sizes[] = { VD_LUKS_PROBE_LEN, VD_LUKS_SEARCH_LEN };
	uint64_t limit;
	int r = header_limit(img, is_container, &limit, e);

	if (r < 0)
		return r;
	for (int i = 0; i < (is_container ? 2 : 1); i++) {
		vd_auto_free uint8_t *head = NULL;
		size_t n = vd_min_u64(sizes[i], limit);

		r = vd_alloc(1, n ? n : 1, &head, e);

		if (r == 0)
			r = read_header_part(img, is_container, head, n, 0, e);
		if (r < 0)
			return r;
		if (vd_luks_search((struct vd_bytes){ head, n }, len))
			return 0;
	}
	return no_header(img, is_container, e);
}

int vd_layer_read_header(struct vd_image *img, bool is_container, uint8_t **header, size_t *header_len, struct vd_error *e)
{
	uint64_t limit = 0, len = 0, start = header_start(img, is_container);
	vd_auto_free uint8_t *buf = NULL;
	int r = measure_header(img, is_container, &len, e);

	if (r == 0)
		r = header_limit(img, is_container, &limit, e);
	if (r < 0)
		return r;
	if (len > limit || len > MAX_HEADER)
		return vd_fail_at(e, VD_EAUTH, start, "%s: the LUKS header claims %llu bytes, there are %llu", header_file(img),
				  (unsigned long long)len, (unsigned long long)limit);
	r = vd_alloc(1, len, &buf, e);
	if (r == 0)
		r = read_header_part(img, is_container, buf, len, 0, e);
	if (r < 0)
		return r;
	*header = vd_steal(&buf);
	*header_len = len;
	return 0;
}

int vd_layer_write_header(struct vd_image *img, const uint8_t *buf, size_t len, uint64_t at, struct vd_error *e)
{
	int r = 0;

	if (img->header) {
		r = vd_io_pwrite(img->header, buf, len, at, e);
		return r < 0 ? r : vd_io_flush(img->header, e);
	}
	for (size_t n; len && r == 0; buf += n, at += n, len -= n) {
		struct vd_run run;

		r = find_header(img, img->layer.is_container, at, len, &run, e);
		if (r < 0)
			return r;
		if (run.where != VD_DATA || (run.flags & VD_RUN_SHARED))
			return vd_fail(e, VD_EUNSUPPORTED, "%s: its LUKS header cannot be changed where it lies", img->path);
		n = vd_min_u64(len, run.len);
		r = vd_set_pwrite(img->set, run.file, buf, n, run.host_off, e);
	}
	return r < 0 ? r : vd_set_flush(img->set, e);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

struct vd_luks_view vd_layer_luks_view(const struct vd_image *img, struct vd_bytes header)
{
	struct vd_luks_view view = { .header = header, .image = img->path };

	if (!img->layer.is_container)
		view.notes = img->info.key_notes;
	return view;
}

static int unlock_luks(struct vd_image *img, struct vd_bytes header, const struct vd_open_opts *opts, struct vd_error *e)
{
	const struct vd_luks_view view = vd_layer_luks_view(img, header);
	vd_auto_secret struct vd_secret vk = { 0 };
	int r = VD_ENOKEY;

	if (!opts->n_keys)
		return no_key(img, e);
	for (size_t i = 0; i < opts->n_keys && (r == VD_ENOKEY || r == VD_EKEY); i++)
		r = vd_luks_unlock(&view, opts->keys[i], &vk, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", img->path);
	return vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, vk.p, vk.len, &img->layer.cipher, e);
}

/* A 32-bit tweak would come round in so many bytes. */
static int judge_mode(const struct vd_image *img, uint64_t bytes, struct vd_error *e)
{
	if (strcmp(img->layer.luks.mode, "xts-plain") || bytes / UNIT <= UINT32_MAX)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: mode xts-plain repeats itself beyond 2 TiB", img->path);
}

/* What the format's own encryption cannot be: LUKS2 (qemu docs/interop/qcow2). */
static int judge_key_area(struct vd_image *img, struct vd_error *e)
{
	const struct vd_luks_info *luks = &img->layer.luks;
	uint64_t host_size;
	int r;

	if (luks->version != 1)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the image's own LUKS header has version %u, only 1 is known there",
			       img->path, luks->version);
	r = vd_io_size(vd_set_io(img->set, 0), &host_size, e);
	return r < 0 ? r : judge_mode(img, host_size, e);
}

static int open_luks(struct vd_image *img, const struct vd_open_opts *opts, bool is_container, struct vd_error *e)
{
	struct vd_layer *l = &img->layer;
	vd_auto_free uint8_t *header = NULL;
	size_t len = 0;
	int r = vd_layer_read_header(img, is_container, &header, &len, e);

	l->encryption = VD_ENCRYPTED_LUKS;
	l->is_container = is_container;
	if (r == 0) {
		r = vd_luks_inspect((struct vd_bytes){ header, len }, is_container && !img->header ? img->info.size : 0, &l->luks, e);
		r = r < 0 ? vd_error_prefix(e, r, "%s: ", header_file(img)) : 0;
	}
	if (r == 0 && img->header)
		r = judge_mode(img, img->info.size, e);
	if (r == 0 && !is_container)
		r = judge_key_area(img, e);
	/* An act on the image's shape needs no header, and one of them brings it back. */
	if (r < 0 && (opts->flags & VD_OPEN_CONTROL) && (r == VD_ECORRUPT || r == VD_EAUTH || r == VD_EUNSUPPORTED)) {
		l->luks = (struct vd_luks_info){ 0 };
		l->sector_size = UNIT;
		return 0;
	}
	if (r < 0)
		return r;
	l->luks.header_off = header_start(img, is_container);
	if (!is_container)
		vd_luks_notes_read((struct vd_bytes){ header, len }, img->info.key_notes, &l->luks);
	l->payload_off = is_container ? l->luks.payload_off : 0;
	l->sector_size = is_container ? l->luks.sector_size : UNIT;
	l->tweak = is_container ? VD_TWEAK_GUEST : img->info.tweak;
	if (opts->flags & VD_OPEN_METADATA)
		return 0;
	return unlock_luks(img, (struct vd_bytes){ header, len }, opts, e);
}

/* qcow2 crypt_method 1: the key is the first 16 bytes of the password, zero padded; there is no check of it (qemu crypto/block-qcow.c). */
static int open_legacy_aes(struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	vd_auto_secret struct vd_secret key = { 0 };
	struct vd_bytes given;
	int r;

	img->layer.encryption = VD_ENCRYPTED_LEGACY_AES;
	img->layer.sector_size = UNIT;
	img->layer.tweak = img->info.tweak;
	if (opts->flags & VD_OPEN_METADATA)
		return 0;
	if (!opts->n_keys)
		return no_key(img, e);
	given = vd_key_bytes(opts->keys[0]);
	r = vd_key_judge_secret(opts->keys[0], "an image of the old encryption", e);
	if (r == 0)
		r = vd_secret_alloc(&key, 16, e);
	if (r < 0)
		return r;
	memcpy(key.p, given.p, vd_min_u64(given.len, key.len));
	return vd_diskcipher_new(VD_DISKCIPHER_AES_CBC_PLAIN64, key.p, key.len, &img->layer.cipher, e);
}

/* Of Xen's VHD the key is itself the volume key; what the image keeps of it is a hash. */
static int is_xens_key(const struct vd_format_info *i, struct vd_bytes key, bool *yes, struct vd_error *e)
{
	uint8_t hash[VD_SHA256_LEN];
	struct vd_hash *h;
	int r = vd_hash_new(VD_SHA256, &h, e);

	if (r < 0)
		return r;
	vd_hash_add(h, i->key_nonce, VD_SHA256_LEN);
	vd_hash_add(h, key.p, key.len);
	vd_hash_end(h, hash);
	vd_hash_free(h);
	*yes = (key.len == 32 || key.len == 64) && vd_secret_equal(hash, i->key_hash, sizeof(hash));
	return 0;
}

static int open_xen(struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	struct vd_layer *l = &img->layer;
	bool yes = false;

	l->encryption = VD_ENCRYPTED_XEN;
	l->sector_size = UNIT;
	l->tweak = img->info.tweak;
	if (opts->flags & VD_OPEN_METADATA)
		return 0;
	if (!opts->n_keys)
		return no_key(img, e);
	for (size_t i = 0; i < opts->n_keys; i++) {
		struct vd_bytes key = vd_key_bytes(opts->keys[i]);
		int r = is_xens_key(&img->info, key, &yes, e);

		if (r < 0 || yes)
			return r < 0 ? r : vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key.p, key.len, &l->cipher, e);
	}
	vd_fail(e, VD_EKEY, "%s: the key is not the one whose hash the image has", img->path);
	return vd_hint(e, VD_EKEY, "it is a file of 32 or 64 random bytes, given with --key-file");
}

/*
 * A format with tables has disks that are damaged here and there, or whose files were only named: what can be read of the
 * beginning decides. Where that is not even a sector, it is not known; nor where a table of a stream went by.
 */
static bool is_what_the_image_says(int r)
{
	return r == VD_ECORRUPT || r == VD_EREFERENCE || r == VD_EUNSUPPORTED || r == VD_EACCESS || r == VD_EAGAIN;
}

static int holds_luks(struct vd_image *img, bool *yes, struct vd_error *e)
{
	uint8_t head[VD_LUKS_PROBE_LEN] = { 0 };
	uint64_t ignored;
	int r = read_header_part(img, true, head, vd_min_u64(sizeof(head), img->info.size), 0, e);

	if (is_what_the_image_says(r) && img->format != &vd_format_raw) {
		memset(head, 0, sizeof(head));
		r = read_header_part(img, true, head, vd_min_u64(UNIT, img->info.size), 0, e);
		img->content_is_unknown = is_what_the_image_says(r);
	}
	if (img->content_is_unknown)
		r = 0;
	*yes = r == 0 && !img->content_is_unknown && vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &ignored);
	return r;
}

int vd_layer_probe_header(struct vd_image *img, bool *yes, struct vd_error *e)
{
	uint8_t head[VD_LUKS_PROBE_LEN] = { 0 };
	struct vd_io *apart = vd_steal(&img->header);
	uint64_t ignored;
	int r = read_header_part(img, true, head, vd_min_u64(sizeof(head), img->info.size), 0, e);

	/* The disk is asked, not a file that has its header. */
	img->header = apart;
	*yes = r == 0 && vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &ignored);
	return r;
}

static bool is_named_luks(const struct vd_open_opts *opts)
{
	return opts->format && !strcmp(opts->format, "luks");
}

int vd_layer_open(struct vd_image *img, const struct vd_open_opts *opts, bool look_for_container, struct vd_error *e)
{
	const struct vd_format_info *i = &img->info;
	bool is_luks = false;
	int r;

	switch (i->encryption) {
	case VD_ENCRYPTED_LUKS:
		return open_luks(img, opts, false, e);
	case VD_ENCRYPTED_LEGACY_AES:
		return open_legacy_aes(img, opts, e);
	case VD_ENCRYPTED_XEN:
		return open_xen(img, opts, e);
	case VD_PLAIN:
		break;
	}
	if (img->header)
		return open_luks(img, opts, true, e);
	if (!look_for_container)
		return 0;
	r = holds_luks(img, &is_luks, e);
	if (r < 0 || !(is_luks || is_named_luks(opts)))
		return r;
	return open_luks(img, opts, true, e);
}

static int make_volume_key(enum vd_cipher cipher, struct vd_secret *vk, struct vd_error *e)
{
	int r = vd_secret_alloc(vk, cipher == VD_AES_128_XTS ? 32 : 64, e);

	return r < 0 ? r : vd_random(vk->p, vk->len, e);
}

int vd_layer_create(struct vd_layer *l, const struct vd_create_opts *opts, bool is_container, uint8_t **header,
		    size_t *header_len, struct vd_error *e)
{
	enum vd_luks_type type = opts->luks_type == VD_LUKS2 ? VD_LUKS2 : VD_LUKS1;
	struct vd_luks_format_opts f = {
		.type = type,
		.sector_size = opts->luks_sector_size ? opts->luks_sector_size : UNIT,
		.payload_off = opts->header ? 0 : vd_luks_payload_off(type),
		.kdf = opts->kdf,
	};
	vd_auto_secret struct vd_secret vk = { 0 };
	vd_auto_free uint8_t *made = NULL;
	int r = make_volume_key(opts->cipher, &vk, e);

	if (r < 0)
		return r;
	r = vd_luks_format(&f, &vk, opts->key, &made, header_len, e);
	if (r < 0)
		return r;
	r = vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, vk.p, vk.len, &l->cipher, e);
	if (r < 0)
		return r;
	r = vd_luks_inspect((struct vd_bytes){ made, *header_len }, 0, &l->luks, e);
	if (r < 0)
		return r;
	l->encryption = VD_ENCRYPTED_LUKS;
	l->is_container = is_container;
	l->payload_off = is_container ? f.payload_off : 0;
	l->sector_size = is_container ? f.sector_size : UNIT;
	l->tweak = is_container ? VD_TWEAK_GUEST : VD_TWEAK_HOST;
	*header = vd_steal(&made);
	return 0;
}
