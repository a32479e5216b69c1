/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The qcow2 driver as the core sees it: opens, describes and closes; the table of its callbacks is at the bottom. What
 * the format is, is said in qcow2.h; what of it is read and written, in qcow2.md.
 */
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/qcow2_bitmap.h"
#include "formats/qcow2/qcow2_claims.h"
#include "formats/qcow2/qcow2_check.h"
#include "formats/qcow2/qcow2_shape.h"

#include <stdlib.h>

#define PAGE_SIZE_MAX 4096              /* of cached tables: a change of one entry writes that much */

static bool qcow2_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	(void)tail;
	(void)size;
	/* Any version: open() says that it cannot, which is better than raw bytes. */
	return head.len >= 4 && vd_get_be32(head.p) == QCOW2_MAGIC;
}

static void derive_geometry(struct vd_qcow2 *s)
{
	bool is_extended = s->h.incompat & QCOW2_INCOMPAT_EXTENDED_L2;

	s->cluster_size = UINT64_C(1) << s->h.cluster_bits;
	s->entry_size = is_extended ? 16 : 8;
	s->n_sub = is_extended ? QCOW2_SUBCLUSTERS : 1;
	s->sub_mask = UINT32_MAX >> (32 - s->n_sub);
	s->sub_size = s->cluster_size / s->n_sub;
	s->l2_entries = s->cluster_size / s->entry_size;
	s->l2_span = s->l2_entries * s->cluster_size;
	s->block_entries = s->cluster_size * 8 >> s->h.refcount_order;
}

/* The core's create has the data file in the set already. */
static int add_data_file(struct vd_qcow2 *s, struct vd_error *e)
{
	if (!(s->h.incompat & QCOW2_INCOMPAT_DATA_FILE))
		return 0;
	s->is_raw_external = s->h.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	s->payload_file = 1;
	if (vd_set_count(s->set) > 1)
		return 0;
	return vd_set_add(s->set, VD_REF_DATA_FILE, s->data_file_name, "raw", &s->payload_file, e);
}

/* Where each file ends now, from where on it is given out. */
static int set_floors(struct vd_qcow2 *s, struct vd_error *e)
{
	struct vd_io *data = s->payload_file ? vd_set_io(s->set, s->payload_file) : NULL;

	s->floor = s->next_free = atomic_load(&s->host_end) / s->cluster_size;
	return data ? vd_io_size(data, &s->data_floor, e) : 0;
}

static const char *read_only_why(const struct vd_qcow2 *s)
{
	if (s->h.incompat & QCOW2_INCOMPAT_CORRUPT)
		return "the image is marked corrupt";
	if (s->h.incompat & QCOW2_INCOMPAT_DIRTY)
		return "the image was not closed cleanly, its refcounts may be wrong";
	if (s->h.crypt_method == 1)
		return "its encryption, qcow2's old AES-CBC, is only read";
	return NULL;
}

static int judge_write(const struct vd_qcow2 *s, struct vd_error *e)
{
	const char *why = read_only_why(s);

	if (!why)
		return 0;
	vd_fail(e, VD_EREADONLY, "the image cannot be written: %s", why);
	if (s->h.crypt_method == 1)
		return vd_hint(e, VD_EREADONLY, "convert it to an image with LUKS encryption");
	return vd_hint(e, VD_EREADONLY, "vdisk check --repair=all mends it; keep a copy of it first");
}

static int qcow2_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	struct vd_io *io = vd_set_io(o->set, 0);
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	s->set = o->set;
	s->meta = o->meta;
	s->space = o->space;
	s->scrubs = o->scrubs;
	if (r == 0)
		r = vd_qcow2_header_read(s, io, size, e);
	if (r < 0)
		return r;
	derive_geometry(s);
	r = vd_qcow2_judge_tables(s, size, e);
	if (r == 0 && o->write && !o->repair)
		r = judge_write(s, e);
	if (r == 0)
		r = add_data_file(s, e);
	if (r < 0)
		return r;
	vd_meta_set_page_size(s->meta, vd_min_u64(s->cluster_size, PAGE_SIZE_MAX));
	atomic_store(&s->host_end, vd_round_up(size, s->cluster_size));
	s->host_limit = io->is_device ? size : UINT64_MAX;
	if (o->appends)
		r = set_floors(s, e);
	if (r == 0 && o->snapshot)
		r = vd_qcow2_view_snapshot(s, o->snapshot, size, e);
	/* From here on messages name the file; those of open are the core's to complete. */
	s->name = vd_set_name(s->set, 0);
	return r;
}

static void qcow2_close(void *st)
{
	struct vd_qcow2 *s = st;

	free(s->backing_file);
	free(s->backing_format);
	free(s->data_file_name);
	free(s->key_notes);
	free(s->feature_names);
	vd_qcow2_bitmaps_free(s->bitmaps);
	vd_qcow2_bitmap_store_free(s);
}

static void qcow2_describe(const void *st, struct vd_format_info *i)
{
	static const enum vd_encryption encryption[] = { VD_PLAIN, VD_ENCRYPTED_LEGACY_AES, VD_ENCRYPTED_LUKS };
	const struct vd_qcow2 *s = st;

	*i = (struct vd_format_info){
		.size = s->h.size,
		.unit = s->cluster_size, .zero_unit = s->sub_size,
		/* Not the subcluster: see qcow2_write.c. */
		.fill_unit = s->cluster_size,
		/* qemu refuses to make compressed clusters of encrypted images, and data files hold no compressed ones. */
		.packs = !s->h.crypt_method && !s->payload_file,
		.codec = s->codec,
		.links_zeros = s->h.version > 2 && !s->payload_file,
		.is_flat = s->payload_file != 0, .flat_file = s->payload_file,
		.encryption = encryption[s->h.crypt_method],
		.tweak = s->h.crypt_method == 1 ? VD_TWEAK_GUEST : VD_TWEAK_HOST,
		.key_area_off = s->key_area_off, .key_area_len = s->key_area_len,
		.key_notes = { s->key_notes, s->key_notes_len },
		.backing_file = s->backing_file, .backing_format = s->backing_format,
		.read_only_why = read_only_why(s),
	};
}

static void qcow2_info(const void *st, struct vd_info *i)
{
	const struct vd_qcow2 *s = st;

	i->qcow2_version = s->h.version;
	i->refcount_bits = 1u << s->h.refcount_order;
	i->n_snapshots = s->h.n_snapshots;
	i->n_bitmaps = s->n_bitmaps;
	i->lazy_refcounts = s->h.compat & QCOW2_COMPAT_LAZY;
	i->extended_l2 = s->n_sub > 1;
	i->compression_type = s->codec == VD_CODEC_ZSTD ? "zstd" : "deflate";
	i->is_dirty = s->h.incompat & QCOW2_INCOMPAT_DIRTY;
	i->is_corrupt = s->h.incompat & QCOW2_INCOMPAT_CORRUPT;
	i->data_file = s->payload_file ? s->data_file_name : NULL;
	i->data_file_raw = s->is_raw_external;
	i->is_read_only_format = read_only_why(s) != NULL;
}

/* Bitmaps, where there are any: see B1 in qcow2_bitmap.c. */
uint64_t vd_qcow2_autoclear_kept(const struct vd_qcow2 *s)
{
	return s->h.autoclear & ((s->n_bitmaps ? QCOW2_AUTOCLEAR_BITMAPS : 0) |
				 (s->payload_file ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0));
}

/*
 * Autoclear bits say that something beside the disk is up to date; a writer that does not keep it so clears them first.
 * Lazy refcounts need no dirty bit: refcounts are exact at every commit (Q1).
 */
static int qcow2_begin_write(void *st, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	uint64_t kept = vd_qcow2_autoclear_kept(s);
	uint8_t raw[8];
	int r;

	if (kept == s->h.autoclear)
		return 0;
	vd_put_be64(raw, kept);
	/* Past the cache of tables, which has not seen the header yet: only a refcount table that moves takes it there. */
	r = vd_set_pwrite(s->set, 0, raw, sizeof(raw), QCOW2_AT_AUTOCLEAR, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		s->h.autoclear = kept;
	return r;
}

static const struct vd_repair_ops qcow2_repair = { .check = vd_qcow2_check, .mend = vd_qcow2_mend };

const struct vd_format vd_format_qcow2 = {
	.name = "qcow2",
	.state_size = sizeof(struct vd_qcow2),
	.writable = true,
	.encrypts = true,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.create = vd_qcow2_create,
	.close = qcow2_close,
	.describe = qcow2_describe,
	.info = qcow2_info,
	.begin_write = qcow2_begin_write,
	.map = vd_qcow2_map,
	.reserve = vd_qcow2_reserve,
	.publish = vd_qcow2_publish,
	.cancel = vd_qcow2_cancel,
	.punch = vd_qcow2_punch,
	.freed = vd_qcow2_freed,
	.disown = vd_qcow2_disown,
	.walk = vd_qcow2_walk,
	.snap = &vd_qcow2_snap_ops,
	.bitmap = &vd_qcow2_bitmap_ops,
	.reach = vd_qcow2_reach,
	.resize = vd_qcow2_resize,
	.amend = vd_qcow2_amend,
	.set_backing = vd_qcow2_set_backing,
	.set_key_area = vd_qcow2_set_key_area,
	.unpack = &vd_qcow2_unpack_ops,
	.keep_notes = vd_qcow2_keep_notes,
	.empty = vd_qcow2_empty,
	.forecast = vd_qcow2_forecast,
	.repair = &qcow2_repair,
};
