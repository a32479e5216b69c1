/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes stream-optimized disks, as VMware lays them out: grains in ascending order, each in a sector of its own behind
 * a marker; behind those of one grain table that table; at the end the directory, the footer and the end of the stream.
 *
 * P1  Grains are given out in ascending order, each when the one before is written, and once: nothing behind the last one
 *     exists yet, and the file may be a stream.
 * P2  Of the tables the current one is in memory, and the directory; both are bounded by the largest disk (256 KiB).
 * P3  A stream of which a grain was not written gets no footer.
 */
#include "formats/vmdk/vmdk.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define VERSION         3               /* vSphere refuses streams of older ones */
#define DESC_SECTORS    20
#define OVERHEAD        128             /* sectors before the first grain */
#define GTES            512
#define TABLE_BYTES     (GTES * 4)
#define NO_TABLE        UINT64_MAX

/*
 * A file that grows at its end. Past the cache of tables: nobody reads them before the end is there, and to a stream they
 * have to go in their order.
 */
struct tail {
	struct vd_io *io;
	uint64_t at;
};

static int append(struct tail *t, const void *buf, size_t len, struct vd_error *e)
{
	int r = vd_io_pwrite(t->io, buf, len, t->at, e);

	t->at += len;
	return r;
}

static int append_marker(struct tail *t, enum vd_vmdk_marker type, uint64_t sectors, struct vd_error *e)
{
	uint8_t raw[VMDK_SECTOR] = { 0 };

	vd_put_le64(raw, sectors);
	vd_put_le32(raw + 12, type);
	return append(t, raw, sizeof(raw), e);
}

/* A marker and what it announces, filled up to whole sectors; *sector is where that begins. */
static int append_table(struct tail *t, enum vd_vmdk_marker type, const uint32_t *entries, uint64_t n, uint64_t *sector,
			struct vd_error *e)
{
	uint64_t sectors = vd_round_up(n * 4, VMDK_SECTOR) / VMDK_SECTOR;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(sectors, VMDK_SECTOR, &raw, e);

	for (uint64_t i = 0; i < n && r == 0; i++)
		vd_put_le32(raw + 4 * i, entries[i]);
	if (r == 0)
		r = append_marker(t, type, sectors, e);
	*sector = t->at / VMDK_SECTOR;
	return r < 0 ? r : append(t, raw, sectors * VMDK_SECTOR, e);
}

static int append_end(struct tail *t, struct vd_vmdk_header *h, const uint32_t *gd, uint64_t n_gd, struct vd_error *e)
{
	uint8_t raw[VMDK_HEADER_LEN];
	int r = append_table(t, VMDK_MARKER_GD, gd, n_gd, &h->gd_off, e);

	if (r == 0)
		r = append_marker(t, VMDK_MARKER_FOOTER, 1, e);
	vd_vmdk_header_put(raw, h);
	if (r == 0)
		r = append(t, raw, sizeof(raw), e);
	return r < 0 ? r : append_marker(t, VMDK_MARKER_EOS, 0, e);
}

static struct vd_vmdk_header header_of(uint64_t size, uint64_t grain)
{
	return (struct vd_vmdk_header){
		.version = VERSION, .flags = VMDK_FLAG_NEWLINE | VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS,
		.capacity = size / VMDK_SECTOR, .grain = grain / VMDK_SECTOR, .desc_off = 1, .desc_len = DESC_SECTORS,
		.entries = GTES, .gd_off = VMDK_GD_AT_END, .overhead = OVERHEAD, .compression = 1,
	};
}

int vd_vmdk_stream_create(struct vd_io *io, uint64_t size, uint64_t grain, struct vd_bytes text, struct vd_error *e)
{
	uint64_t n_gd = vd_round_up(size, grain * GTES) / (grain * GTES);
	struct vd_vmdk_header h = header_of(size, grain);
	struct tail tail = { .io = io, .at = OVERHEAD * VMDK_SECTOR };
	vd_auto_free uint32_t *gd = NULL;
	uint8_t raw[VMDK_HEADER_LEN];
	int r = vd_alloc(n_gd, sizeof(*gd), &gd, e);

	vd_vmdk_header_put(raw, &h);
	if (r == 0 && text.len > DESC_SECTORS * VMDK_SECTOR)
		r = vd_fail(e, VD_EARG, "the descriptor does not fit the stream's header");
	if (r == 0)
		r = vd_io_pwrite(io, raw, sizeof(raw), 0, e);
	if (r == 0)
		r = vd_io_pwrite(io, text.p, text.len, VMDK_SECTOR, e);
	return r < 0 ? r : append_end(&tail, &h, gd, n_gd, e);
}

/* Each grain may grow by a marker, what deflate loses, and the rest of a sector. */
uint64_t vd_vmdk_stream_overhead(uint64_t size, uint64_t grain)
{
	uint64_t n_gd = vd_round_up(size, grain * GTES) / (grain * GTES), n = vd_round_up(size, grain) / grain;

	return OVERHEAD * VMDK_SECTOR + n * (VMDK_SECTOR + grain / 512) + n_gd * (VMDK_SECTOR + TABLE_BYTES) +
	       vd_round_up(n_gd * 4, VMDK_SECTOR) + 4 * VMDK_SECTOR;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

struct vd_vmdk_stream {
	struct tail tail;
	uint64_t grain, span, n_gd;
	uint32_t *gd, gt[GTES];
	uint64_t table;                 /* of gt; NO_TABLE: none yet */
	uint64_t next;                  /* guest offset: grains below are not taken any more */
	bool is_broken;
};

int vd_vmdk_stream_new(struct vd_vmdk *s, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &s->extents[0].sp;
	struct vd_vmdk_stream *w;
	int r = vd_alloc(1, sizeof(*w), &w, e);

	if (r < 0)
		return r;
	*w = (struct vd_vmdk_stream){
		.tail = { .io = vd_set_io(s->set, 0), .at = OVERHEAD * VMDK_SECTOR },
		.grain = sp->grain, .span = sp->span, .n_gd = sp->n_tables, .table = NO_TABLE,
	};
	r = vd_alloc(w->n_gd, sizeof(*w->gd), &w->gd, e);
	if (r < 0) {
		free(w);
		return r;
	}
	s->stream = w;
	return 0;
}

void vd_vmdk_stream_free(struct vd_vmdk_stream *w)
{
	if (w)
		free(w->gd);
	free(w);
}

/* The end that an empty stream has goes: grains come there. */
int vd_vmdk_stream_begin(struct vd_vmdk *s, struct vd_error *e)
{
	vd_meta_forget_all(s->meta);
	s->is_streaming = true;
	return vd_io_truncate(s->stream->tail.io, s->stream->tail.at, e);
}

static int end_table(struct vd_vmdk_stream *w, struct vd_error *e)
{
	uint64_t sector;
	int r;

	if (w->table == NO_TABLE)
		return 0;
	r = append_table(&w->tail, VMDK_MARKER_GT, w->gt, GTES, &sector, e);
	w->gd[w->table] = sector;
	memset(w->gt, 0, sizeof(w->gt));
	return r;
}

int vd_vmdk_stream_reserve(struct vd_vmdk *s, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vmdk_stream *w = s->stream;
	uint64_t need = vd_round_up(VMDK_MARKER_LEN + v->packed_len, VMDK_SECTOR);
	int r = 0;

	if (!v->packed_len || v->off < w->next || v->off % w->grain || v->len > w->grain)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a stream-optimized disk is written once, whole grains in ascending order",
			       s->name);
	if (v->off / w->span != w->table)
		r = end_table(w, e);
	if (r == 0 && (w->tail.at + need + TABLE_BYTES * 2) / VMDK_SECTOR > UINT32_MAX)
		r = vd_fail(e, VD_ENOSPC, "%s has no room left that its tables can name: 2 TiB", s->name);
	if (r < 0)
		return r;
	w->table = v->off / w->span;
	w->gt[v->off % w->span / w->grain] = w->tail.at / VMDK_SECTOR;
	w->next = v->off + w->grain;
	vd_put_le64(v->prefix, v->off / VMDK_SECTOR);
	vd_put_le32(v->prefix + 8, v->packed_len);
	v->prefix_len = VMDK_MARKER_LEN;
	v->host_off = w->tail.at + VMDK_MARKER_LEN;
	v->covered = v->fill_len = v->len;
	v->fill_off = v->off;
	v->file = 0;
	v->in_place = v->fresh = false;
	w->tail.at += need;
	return 0;
}

void vd_vmdk_stream_cancel(struct vd_vmdk *s)
{
	s->stream->is_broken = true;
}

/* Keeps P3. Afterwards the tables are where any reader finds them. */
int vd_vmdk_stream_end(struct vd_vmdk *s, struct vd_error *e)
{
	struct vd_vmdk_stream *w = s->stream;
	struct vd_vmdk_sparse *sp = &s->extents[0].sp;
	struct vd_vmdk_header h = header_of(s->size, w->grain);
	int r;

	if (w->is_broken)
		return vd_fail(e, VD_EIO, "%s: a grain could not be written, so the stream has no end", s->name);
	r = end_table(w, e);
	w->table = NO_TABLE;
	if (r == 0)
		r = append_end(&w->tail, &h, w->gd, w->n_gd, e);
	if (r < 0)
		return r;
	sp->gd_off = h.gd_off * VMDK_SECTOR;
	sp->n_areas = 0;
	atomic_store(&sp->host_end, w->tail.at);
	s->is_streaming = false;
	return 0;
}
