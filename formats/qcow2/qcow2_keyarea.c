/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts another LUKS header in place of the one the image has, or of none, or none in place of it. What is in such a header,
 * and that the payload is what it says, is the core's.
 *
 *  K1  The new header lies in clusters of its own, which are owned and durable before the image's header names them; that,
 *      crypt_method and the pointer together, is one switch by qcow2_head.c. So a crash leaves the old key area or the new
 *      one, and at most leaks the other.
 *  K2  The old one's clusters are released when nothing names them any more, and pass through the core as all space does.
 */
#include "formats/qcow2/qcow2_head.h"
#include "formats/qcow2/qcow2_shape.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define AT_CRYPT_METHOD 32
#define LUKS_SECTOR 512                 /* spec "encryption method": sectors of LUKS in qcow2 */

/* The cipher works on whole sectors: what is left of a disk behind them could not be read any more. */
static int judge_size(const struct vd_qcow2 *s, uint64_t size, struct vd_error *e)
{
	if (size % LUKS_SECTOR == 0)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: a disk of %" PRIu64 " bytes cannot be encrypted: its size is no multiple of %d", s->name,
		size, LUKS_SECTOR);
	return vd_hint(e, VD_EUNSUPPORTED, "make the disk larger first; a snapshot of such a size has to be deleted");
}

static int judge(const struct vd_qcow2 *s, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	int r;

	if (s->is_raw_external)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a raw data file cannot be encrypted", s->name);
	r = judge_size(s, s->h.size, e);
	if (r == 0)
		r = vd_qcow2_snapshots_read(s, &list, e);
	for (size_t i = 0; i < list.n && r == 0; i++)
		r = judge_size(s, list.at[i].disk_size, e);
	return r;
}

static uint64_t clusters_len(const struct vd_qcow2 *s, uint64_t len)
{
	return vd_round_up(len, s->cluster_size);
}

/* What is left of the last cluster is zeros. Nothing names it yet. */
static int write_area(struct vd_qcow2 *s, struct vd_bytes header, uint64_t off, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, clusters_len(s, header.len), &raw, e);

	if (r < 0)
		return r;
	memcpy(raw, header.p, header.len);
	r = vd_set_pwrite(s->set, 0, raw, clusters_len(s, header.len), off, e);
	/* With its owners. */
	return r < 0 ? r : vd_space_drain(s->space, e);
}

/* The header cluster as it is to be, with the new area at `off`. */
static int prepare(const struct vd_qcow2 *s, struct vd_bytes header, uint64_t off, struct vd_qcow2_head *h, struct vd_error *e)
{
	uint8_t pointer[16];
	int r = vd_qcow2_head_read(s, h, e);

	if (r < 0)
		return r;
	vd_put_be64(pointer, off);
	vd_put_be64(pointer + 8, header.len);
	vd_put_be32(h->fixed + AT_CRYPT_METHOD, header.len ? 2 : 0);
	r = vd_qcow2_head_put(h, QCOW2_EXT_LUKS, header.len ? pointer : NULL, sizeof(pointer), e);
	/* They are on slots that are no more. */
	if (r == 0)
		r = vd_qcow2_head_put(h, QCOW2_EXT_KEY_NOTES, NULL, 0, e);
	return r < 0 ? r : vd_qcow2_head_judge(s, h, e);
}

static int switch_to(struct vd_qcow2 *s, struct vd_bytes header, uint64_t off, struct vd_error *e)
{
	vd_auto_head struct vd_qcow2_head h = { 0 };
	int r = prepare(s, header, off, &h, e);

	return r < 0 ? r : vd_qcow2_head_switch(s, &h, e);
}

static void release(struct vd_qcow2 *s, uint64_t off, uint64_t len)
{
	vd_space_release(s->space, (struct vd_range){ .host_off = off, .len = clusters_len(s, len) });
}

static int free_old(struct vd_qcow2 *s, uint64_t off, uint64_t len, struct vd_error *e)
{
	int r;

	if (!len)
		return 0;
	release(s, off, len);
	r = vd_space_drain(s->space, e);
	if (r == 0)
		return 0;
	vd_fail(e, VD_EPOISONED, "%s: another key area is in force, but giving up the old one failed", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that the image's disk works: the old LUKS header may be left in the file");
}

/* Into an area of its own and into force. The refcount table may move on the way, so the header is read anew. */
static int bring_in(struct vd_qcow2 *s, struct vd_bytes header, struct vd_error *e)
{
	uint64_t off = 0;
	int r = vd_qcow2_alloc_stretch(s, clusters_len(s, header.len) / s->cluster_size, &off, e);

	if (r < 0)
		return r;
	r = write_area(s, header, off, e);
	if (r == 0)
		r = switch_to(s, header, off, e);
	/* Unless it may be in force. */
	if (r < 0 && r != VD_EPOISONED)
		release(s, off, header.len);
	return r;
}

int vd_qcow2_set_key_area(void *st, struct vd_bytes header, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_head struct vd_qcow2_head tried = { 0 };
	uint64_t old_off = s->key_area_off, old_len = s->key_area_len;
	int r = header.len ? judge(s, e) : 0;

	if (r == 0)
		r = prepare(s, header, 0, &tried, e);
	if (r < 0)
		return r;
	r = header.len ? bring_in(s, header, e) : switch_to(s, header, 0, e);
	return r < 0 ? r : free_old(s, old_off, old_len, e);
}
