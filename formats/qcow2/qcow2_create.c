/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lays out an empty image: header, LUKS key area, refcount table and blocks, an L1 table for the whole disk. Writes the
 * files directly: there is nothing yet that a crash could harm.
 */
#include "formats/qcow2/qcow2.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define CLUSTER_DEFAULT 65536u
#define CLUSTER_DEFAULT_EXTENDED 131072u
/* In smaller clusters the names of features would take the place of a long backing file name; qemu draws the same line. */
#define FEATURE_NAMES_CLUSTER_MIN 8192u

/* All in clusters, in the order in which they lie; the header is cluster 0. */
struct layout {
	uint64_t n_key, n_reft, n_blocks, n_l1;
	uint64_t key, reft, blocks, l1, end;    /* where each begins */
};

struct plan {
	const struct vd_create *c;
	struct vd_qcow2_header h;
	uint64_t cluster_size, l2_span, block_entries;
	struct layout at;
};

/* ---- options -------------------------------------------------------------------------------------------- */

static int judge_version(const struct vd_create_opts *o, struct vd_error *e)
{
	const char *what = o->flags & VD_CREATE_EXTENDED_L2 ? "extended L2 entries" :
			   o->flags & VD_CREATE_LAZY_REFCOUNTS ? "lazy refcounts" :
			   o->compression == VD_COMPRESSION_ZSTD ? "zstd compression" :
			   o->data_file ? "external data files" :
			   o->refcount_bits && o->refcount_bits != 16 ? "refcounts other than 16 bits" : NULL;

	if (!(o->flags & VD_CREATE_COMPAT_V2) || !what)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "qcow2 version 2 has no %s", what);
}

static int judge_data_file(const struct vd_create_opts *o, struct vd_error *e)
{
	if (!(o->flags & VD_CREATE_DATA_FILE_RAW))
		return 0;
	if (!o->data_file)
		return vd_fail(e, VD_EARG, "a raw data file needs a name");
	if (o->backing_file)
		return vd_fail(e, VD_EUNSUPPORTED, "a raw data file cannot have a backing file below it");
	/* It would be ciphertext, counted from its own start: no raw image of the disk. */
	if (o->key)
		return vd_fail(e, VD_EUNSUPPORTED, "a raw data file cannot be encrypted");
	return 0;
}

static int choose_cluster(struct plan *p, struct vd_error *e)
{
	const struct vd_create_opts *o = p->c->opts;
	bool is_extended = o->flags & VD_CREATE_EXTENDED_L2;
	uint32_t min = 1u << (is_extended ? QCOW2_EXT_L2_BITS_MIN : QCOW2_CLUSTER_BITS_MIN);
	uint32_t max = 1u << QCOW2_CLUSTER_BITS_MAX;
	uint32_t size = o->cluster_size ? o->cluster_size : is_extended ? CLUSTER_DEFAULT_EXTENDED : CLUSTER_DEFAULT;

	if (!vd_is_pow2(size) || size < min || size > max)
		return vd_fail(e, VD_EARG,
			       "a cluster size of %" PRIu32 " is not possible%s: a power of two from %" PRIu32 " to %" PRIu32,
			       size, is_extended ? " with extended L2 entries" : "", min, max);
	p->cluster_size = size;
	p->h.cluster_bits = __builtin_ctz(size);
	p->l2_span = size / (is_extended ? 16 : 8) * (uint64_t)size;
	return 0;
}

static int choose_refcounts(struct plan *p, struct vd_error *e)
{
	uint32_t bits = p->c->opts->refcount_bits ? p->c->opts->refcount_bits : 16;

	if (!vd_is_pow2(bits) || bits > 64)
		return vd_fail(e, VD_EARG,
			       "refcounts of %" PRIu32 " bits are not possible: a power of two from 1 to 64", bits);
	p->h.refcount_order = __builtin_ctz(bits);
	p->block_entries = p->cluster_size * 8 / bits;
	return 0;
}

static void choose_features(struct plan *p)
{
	const struct vd_create_opts *o = p->c->opts;
	struct vd_qcow2_header *h = &p->h;

	h->version = o->flags & VD_CREATE_COMPAT_V2 ? 2 : 3;
	h->header_length = h->version == 2 ? QCOW2_V2_LENGTH : QCOW2_OWN_LENGTH;
	h->crypt_method = p->c->key_area.len ? 2 : 0;
	h->size = p->c->size;
	if (o->flags & VD_CREATE_LAZY_REFCOUNTS)
		h->compat |= QCOW2_COMPAT_LAZY;
	if (o->flags & VD_CREATE_EXTENDED_L2)
		h->incompat |= QCOW2_INCOMPAT_EXTENDED_L2;
	if (o->data_file)
		h->incompat |= QCOW2_INCOMPAT_DATA_FILE;
	if (o->flags & VD_CREATE_DATA_FILE_RAW)
		h->autoclear |= QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	if (o->compression == VD_COMPRESSION_ZSTD) {
		h->incompat |= QCOW2_INCOMPAT_COMPRESSION;
		h->compression_type = 1;
	}
}

/* ---- layout --------------------------------------------------------------------------------------------- */

static uint64_t div_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* A refcount table for the disk written full, tables and an eighth more, so that it need not move. */
static uint64_t reft_clusters(const struct plan *p)
{
	uint64_t data = p->c->opts->data_file ? 0 : div_up(p->h.size, p->cluster_size);
	uint64_t tables = p->h.l1_size + p->at.n_key + p->at.n_l1;
	uint64_t all = data + tables;
	uint64_t blocks = div_up(all + all / 8, p->block_entries) + 1;

	return vd_min_u64(div_up(blocks * 8, p->cluster_size), QCOW2_REFT_BYTES_MAX / p->cluster_size);
}

static int lay_out(struct plan *p, struct vd_error *e)
{
	struct layout *at = &p->at;
	uint64_t l1_size = div_up(p->h.size, p->l2_span);

	if (p->h.size > INT64_MAX || l1_size > QCOW2_L1_BYTES_MAX / 8) {
		vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64,
			p->h.size, p->cluster_size);
		return vd_hint(e, VD_EARG, "choose a larger cluster size");
	}
	p->h.l1_size = l1_size;
	at->n_key = div_up(p->c->key_area.len, p->cluster_size);
	at->n_l1 = div_up(l1_size * 8, p->cluster_size);
	at->n_reft = reft_clusters(p);
	/* The blocks count themselves, too. */
	at->n_blocks = div_up(1 + at->n_key + at->n_reft + at->n_l1, p->block_entries - 1);
	at->key = 1;
	at->reft = at->key + at->n_key;
	at->blocks = at->reft + at->n_reft;
	at->l1 = at->blocks + at->n_blocks;
	at->end = at->l1 + at->n_l1;
	p->h.reft_off = at->reft * p->cluster_size;
	p->h.reft_clusters = at->n_reft;
	p->h.l1_off = l1_size ? at->l1 * p->cluster_size : 0;
	return 0;
}

/* ---- header --------------------------------------------------------------------------------------------- */

static void put_header(struct vd_writer *w, const struct vd_qcow2_header *h)
{
	vd_write_be32(w, QCOW2_MAGIC);
	vd_write_be32(w, h->version);
	vd_write_be64(w, h->backing_off);
	vd_write_be32(w, h->backing_len);
	vd_write_be32(w, h->cluster_bits);
	vd_write_be64(w, h->size);
	vd_write_be32(w, h->crypt_method);
	vd_write_be32(w, h->l1_size);
	vd_write_be64(w, h->l1_off);
	vd_write_be64(w, h->reft_off);
	vd_write_be32(w, h->reft_clusters);
	vd_write_be32(w, h->n_snapshots);
	vd_write_be64(w, h->snap_off);
	if (h->version == 2)
		return;
	vd_write_be64(w, h->incompat);
	vd_write_be64(w, h->compat);
	vd_write_be64(w, h->autoclear);
	vd_write_be32(w, h->refcount_order);
	vd_write_be32(w, h->header_length);
	vd_write_u8(w, h->compression_type);
	vd_write_zeros(w, 7);
}

static void put_extension(struct vd_writer *w, uint32_t type, const void *data, size_t len)
{
	vd_write_be32(w, type);
	vd_write_be32(w, len);
	vd_write_bytes(w, data, len);
	vd_write_zeros(w, -len % 8);
}

static void put_luks(struct vd_writer *w, const struct plan *p)
{
	uint8_t raw[16];

	vd_put_be64(raw, p->at.key * p->cluster_size);
	vd_put_be64(raw + 8, p->c->key_area.len);
	put_extension(w, QCOW2_EXT_LUKS, raw, sizeof(raw));
}

/* For the error messages of readers that lack a feature; the words are qemu's. */
static void put_feature_names(struct vd_writer *w)
{
	static const struct {
		uint8_t type, bit;      /* type 0: incompatible, 1: compatible, 2: autoclear */
		const char *name;
	} features[] = {
		{ 0, 0, "dirty bit" },
		{ 0, 1, "corrupt bit" },
		{ 0, 2, "external data file" },
		{ 0, 3, "compression type" },
		{ 0, 4, "extended L2 entries" },
		{ 1, 0, "lazy refcounts" },
		{ 2, 0, "bitmaps" },
		{ 2, 1, "raw external data" },
	};
	uint8_t raw[sizeof(features) / sizeof(features[0])][QCOW2_FEATURE_LENGTH] = { 0 };

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		raw[i][0] = features[i].type;
		raw[i][1] = features[i].bit;
		memcpy(raw[i] + 2, features[i].name, strlen(features[i].name));
	}
	put_extension(w, QCOW2_EXT_FEATURE_NAMES, raw, sizeof(raw));
}

/* The LUKS extension is the first: in version 3 it then lies at 0x70, in one sector with the header. */
static void put_extensions(struct vd_writer *w, const struct plan *p)
{
	const struct vd_create_opts *o = p->c->opts;

	if (p->h.crypt_method)
		put_luks(w, p);
	if (o->backing_file && o->backing_format)
		put_extension(w, QCOW2_EXT_BACKING_FORMAT, o->backing_format, strlen(o->backing_format));
	if (o->data_file)
		put_extension(w, QCOW2_EXT_DATA_FILE, o->data_file, strlen(o->data_file));
	if (p->h.version > 2 && p->cluster_size >= FEATURE_NAMES_CLUSTER_MIN)
		put_feature_names(w);
	put_extension(w, QCOW2_EXT_END, NULL, 0);
}

static int build_header(struct plan *p, uint8_t *cluster, struct vd_error *e)
{
	const char *backing = p->c->opts->backing_file;
	struct vd_writer w = vd_writer_of(cluster, p->cluster_size);

	if (backing && strlen(backing) > QCOW2_BACKING_LEN_MAX)
		return vd_fail(e, VD_EARG, "the backing file name has %zu bytes, must be at most %u",
			       strlen(backing), QCOW2_BACKING_LEN_MAX);
	vd_write_zeros(&w, p->h.header_length);
	put_extensions(&w, p);
	if (backing) {
		p->h.backing_off = w.pos;
		p->h.backing_len = strlen(backing);
		vd_write_bytes(&w, backing, p->h.backing_len);
	}
	if (w.failed)
		return vd_fail(e, VD_EARG,
			       "the names of other files do not fit the header: a cluster has %" PRIu64 " bytes", p->cluster_size);
	w.pos = 0;
	put_header(&w, &p->h);
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

/* A file grows by zeros; a device holds what it held, which must not be taken for tables. */
static int make_zeros(const struct plan *p, struct vd_io *io, struct vd_error *e)
{
	uint64_t len = p->at.end * p->cluster_size, size;
	static const uint8_t zeros[CLUSTER_DEFAULT];
	int r;

	if (!io->is_device)
		return vd_io_truncate(io, len, e);
	r = vd_io_size(io, &size, e);
	if (r == 0 && size < len)
		return vd_fail(e, VD_ENOSPC,
			       "the device has %" PRIu64 " bytes, the tables of an empty image need %" PRIu64, size, len);
	for (uint64_t at = 0, n; at < len && r == 0; at += n) {
		n = vd_min_u64(sizeof(zeros), len - at);
		r = vd_io_pwrite(io, zeros, n, at, e);
	}
	return r;
}

/* Every cluster up to the end of the layout has one owner. */
static int write_refcounts(const struct plan *p, struct vd_io *io, struct vd_error *e)
{
	vd_auto_free uint8_t *table = NULL, *block = NULL;
	uint64_t left = p->at.end;
	int r = vd_alloc(p->at.n_blocks, 8, &table, e);

	if (r == 0)
		r = vd_alloc(1, p->cluster_size, &block, e);
	for (uint64_t i = 0, n; i < p->at.n_blocks && r == 0; i++, left -= n) {
		uint64_t off = (p->at.blocks + i) * p->cluster_size;

		n = vd_min_u64(left, p->block_entries);
		memset(block, 0, p->cluster_size);
		for (uint64_t k = 0; k < n; k++)
			vd_qcow2_count_put(block, k, p->h.refcount_order, 1);
		vd_put_be64(table + i * 8, off);
		r = vd_io_pwrite(io, block, p->cluster_size, off, e);
	}
	return r < 0 ? r : vd_io_pwrite(io, table, p->at.n_blocks * 8, p->h.reft_off, e);
}

static int write_image(struct plan *p, struct vd_io *io, struct vd_error *e)
{
	vd_auto_free uint8_t *cluster = NULL;
	int r = vd_alloc(1, p->cluster_size, &cluster, e);

	if (r == 0)
		r = build_header(p, cluster, e);
	if (r == 0)
		r = make_zeros(p, io, e);
	if (r == 0)
		r = vd_io_pwrite(io, cluster, p->cluster_size, 0, e);
	if (r == 0)
		r = vd_io_pwrite(io, p->c->key_area.p, p->c->key_area.len, p->at.key * p->cluster_size, e);
	return r < 0 ? r : write_refcounts(p, io, e);
}

static int make_plan(struct plan *p, struct vd_error *e)
{
	int r = judge_version(p->c->opts, e);

	if (r == 0)
		r = judge_data_file(p->c->opts, e);
	if (r == 0)
		r = choose_cluster(p, e);
	if (r == 0)
		r = choose_refcounts(p, e);
	if (r < 0)
		return r;
	choose_features(p);
	return lay_out(p, e);
}

/* Bits, a table of their clusters, and the directory, whose entries have 24 bytes and a name (spec "Bitmaps extension"). */
static uint64_t bitmap_clusters(const struct plan *p, const struct vd_forecast *f)
{
	uint64_t n = 0, dir = 0;

	for (size_t i = 0; i < f->n_bitmaps && p->h.version > 2; i++) {
		uint64_t bits = div_up(p->h.size, f->bitmaps[i].granularity);
		uint64_t clusters = div_up(div_up(bits, 8), p->cluster_size);

		n += clusters + div_up(clusters * 8, p->cluster_size);
		dir += vd_round_up(24 + strlen(f->bitmaps[i].name), 8);
	}
	return n + div_up(dir, p->cluster_size);
}

/* Of a full disk: each of its L2 tables, and refcount blocks for all of it, themselves included. */
int vd_qcow2_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e)
{
	struct plan p = { .c = c };
	int r = make_plan(&p, e);
	uint64_t n_fixed, n_data;

	if (r < 0)
		return r;
	n_fixed = 1 + p.at.n_key + p.at.n_reft + p.at.n_l1 + p.h.l1_size;
	n_data = c->opts->data_file ? 0 : div_up(p.h.size, p.cluster_size);
	f->unit = c->opts->data_file ? 1 : p.cluster_size;
	f->is_full = c->opts->data_file;
	f->overhead = (n_fixed + div_up(n_fixed + n_data, p.block_entries - 1)) * p.cluster_size;
	f->bitmap_bytes = bitmap_clusters(&p, f) * p.cluster_size;
	return 0;
}

int vd_qcow2_create(const struct vd_create *c, struct vd_error *e)
{
	struct plan p = { .c = c };
	int r = make_plan(&p, e);

	if (r == 0)
		r = write_image(&p, vd_set_io(c->set, 0), e);
	if (r == 0 && c->opts->data_file)
		r = vd_io_truncate(vd_set_io(c->set, 1), p.h.size, e);
	return r;
}
