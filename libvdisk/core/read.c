/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads guest bytes: map, host read, decrypt or unpack, parents for what is not here. Never changes anything; locks
 * against shape changes are taken by the public call, the quarantine ticket around each use of a map.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"

#define N_RUNS 32               /* runs asked of the driver at once */
#define CIPHER_CHUNK (128u << 10) /* read and decrypt in pieces that stay in the core's L2 cache */

int vd_image_check_range(const struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e)
{
	if (vd_range_inside(off, len, img->size))
		return 0;
	return vd_fail(e, VD_ERANGE, "%s: %llu bytes at %llu are outside the disk of %llu bytes", img->path,
		       (unsigned long long)len, (unsigned long long)off, (unsigned long long)img->size);
}

/* Host bytes of a DATA run, `skip` bytes into it. */
static int read_data(struct vd_image *img, const struct vd_run *run, uint64_t skip, uint8_t *buf, size_t len,
		     uint64_t guest_off, struct vd_error *e)
{
	uint64_t host_off = run->host_off + skip;
	size_t chunk = img->layer.cipher ? CIPHER_CHUNK : len;

	if (img->layer.encryption && !img->layer.cipher)
		return vd_fail(e, VD_ENOKEY, "%s is encrypted and was opened without a key", img->path);
	for (size_t done = 0; done < len; done += chunk) {
		size_t n = vd_min_u64(chunk, len - done);
		int r = vd_set_pread(img->set, run->file, buf + done, n, host_off + done, e);

		if (r < 0)
			return r;
		r = vd_layer_decrypt(&img->layer, buf + done, n, guest_off + done, host_off + done, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The stream in what was read of a packed run: some formats put a frame of their own before it. */
static int unframe(struct vd_image *img, struct vd_run *run, const uint8_t *packed, struct vd_bytes *stream,
		   struct vd_error *e)
{
	int r = 0;

	if (run->frame)
		r = img->format->frame(img->state, run, (struct vd_bytes){ packed, run->host_len }, e);
	*stream = (struct vd_bytes){ packed + run->frame, run->host_len - run->frame };
	return r;
}

int vd_read_unit(struct vd_image *img, const struct vd_run *mapped, uint8_t *unit, struct vd_error *e)
{
	vd_auto_free uint8_t *packed = NULL;
	struct vd_run own = *mapped, *run = &own;
	struct vd_bytes stream = { 0 };
	int r = vd_alloc_buffer(run->host_len, &packed, e);

	if (r == 0)
		r = vd_set_pread(img->set, run->file, packed, run->host_len, run->host_off, e);
	if (r == 0)
		r = unframe(img, run, packed, &stream, e);
	if (r < 0)
		return r;
	r = vd_codec_unpack_some(img->codec, run->codec, unit, run->unit_len, run->unit_least ? run->unit_least : run->unit_len,
				 stream.p, stream.len, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: compressed cluster at host offset %llu: ",
				       vd_set_name(img->set, run->file), (unsigned long long)run->host_off);
	return 0;
}

/* A format that encrypts itself packs in clear; in a container packed units hold its ciphertext. */
static int read_packed(struct vd_image *img, const struct vd_run *run, uint64_t skip, uint8_t *buf, size_t len,
		       uint64_t guest_off, struct vd_error *e)
{
	vd_auto_free uint8_t *unit = NULL;
	uint64_t into = run->guest_off + skip - run->unit_off;
	bool direct = into == 0 && len == run->unit_len;
	int r = direct ? 0 : vd_alloc_buffer(run->unit_len, &unit, e);

	if (r == 0)
		r = vd_read_unit(img, run, direct ? buf : unit, e);
	if (r < 0)
		return r;
	if (!direct)
		memcpy(buf, unit + into, len);
	if (!img->layer.is_container)
		return 0;
	if (!img->layer.cipher)
		return vd_fail(e, VD_ENOKEY, "%s is encrypted and was opened without a key", img->path);
	return vd_layer_decrypt(&img->layer, buf, len, guest_off, 0, e);
}

/* What no table of this layer holds. A container's holes are ciphertext of zeros on the host. */
static int read_hole(struct vd_image *img, uint8_t *buf, size_t len, uint64_t guest_off, bool masks_parent,
		     struct vd_error *e)
{
	int r = 0;

	if (img->layer.is_container && !img->layer.cipher)
		return vd_fail(e, VD_ENOKEY, "%s is encrypted and was opened without a key", img->path);
	if (!masks_parent && img->parent_missing)
		return vd_fail(e, VD_EREFERENCE, "%s: byte %llu lies in the backing file, which was not opened", img->path,
			       (unsigned long long)guest_off);
	/* What the layers below a container have are pieces of it: ciphertext. */
	if (!masks_parent && img->parent)
		r = vd_read(img->parent, buf, len, guest_off + img->layer.payload_off, e);
	else
		memset(buf, 0, len);
	return r < 0 || !img->layer.is_container ? r : vd_layer_decrypt(&img->layer, buf, len, guest_off, 0, e);
}

static int read_run(struct vd_image *img, const struct vd_run *run, uint64_t skip, uint8_t *buf, size_t len,
		    uint64_t guest_off, struct vd_error *e)
{
	switch (run->where) {
	case VD_DATA:
		return read_data(img, run, skip, buf, len, guest_off, e);
	case VD_PACKED:
		return read_packed(img, run, skip, buf, len, guest_off, e);
	default:
		return read_hole(img, buf, len, guest_off, run->where == VD_ZERO, e);
	}
}

/* One map call's worth, whole sectors inside the disk; *done bytes on success. */
static int read_mapped(struct vd_image *img, uint8_t *buf, size_t len, uint64_t off, size_t *done, struct vd_error *e)
{
	struct vd_run runs[N_RUNS];
	size_t n = N_RUNS;
	unsigned ticket = vd_space_enter(img->space);
	int r = img->format->map(img->state, off + img->layer.payload_off, len, VD_MAP_TO_READ, runs, &n, e);

	*done = 0;
	for (size_t i = 0; r == 0 && i < n && *done < len; i++) {
		uint64_t at = off + img->layer.payload_off + *done;
		uint64_t skip = at - runs[i].guest_off;
		size_t part = vd_min_u64(len - *done, runs[i].len - skip);

		r = read_run(img, &runs[i], skip, buf + *done, part, off + *done, e);
		*done += part;
	}
	vd_space_leave(img->space, ticket);
	return r;
}

static int read_aligned(struct vd_image *img, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	while (len) {
		size_t done;
		int r = read_mapped(img, buf, len, off, &done, e);

		if (r < 0)
			return r;
		buf += done;
		off += done;
		len -= done;
	}
	return 0;
}

/* The part of one cipher sector that lies in [off, off+len); the sector is read whole. */
static int read_sector_part(struct vd_image *img, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint8_t sector[4096];
	uint64_t start = vd_round_down(off, img->layer.sector_size);
	int r = read_aligned(img, sector, img->layer.sector_size, start, e);

	if (r == 0)
		memcpy(buf, sector + (off - start), len);
	vd_wipe(sector, sizeof(sector));
	return r;
}

/* Inside the disk, any alignment: head and tail that cut a cipher sector go by a bounce of one sector. */
static int read_inside(struct vd_image *img, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	size_t s = img->layer.encryption ? img->layer.sector_size : 1;
	size_t head = vd_min_u64(len, (s - off % s) % s), tail;
	int r = 0;

	if (head)
		r = read_sector_part(img, buf, head, off, e);
	tail = (len - head) % s;
	if (r == 0)
		r = read_aligned(img, buf + head, len - head - tail, off + head, e);
	if (r == 0 && tail)
		r = read_sector_part(img, buf + len - tail, tail, off + len - tail, e);
	return r;
}

int vd_read(struct vd_image *img, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint8_t *p = buf;
	size_t inside = off >= img->size ? 0 : vd_min_u64(len, img->size - off);

	if (inside < len)
		memset(p + inside, 0, len - inside);
	return inside ? read_inside(img, p, inside, off, e) : 0;
}

VD_PUBLIC int vd_image_pread(struct vd_image *img, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = vd_image_check_range(img, off, len, e);
	if (r == 0)
		r = vd_read(img, buf, len, off, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}
