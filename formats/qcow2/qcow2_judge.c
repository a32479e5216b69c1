/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules that offsets keep: inside the file, at cluster boundaries, off the places that hold something else. Every
 * offset that a header or a table names passes here before it is used. The header's own rules are qcow2_header.c's.
 */
#include "formats/qcow2/qcow2.h"

#include <stdarg.h>
#include <stdio.h>

int vd_qcow2_corrupt(const struct vd_qcow2 *s, struct vd_error *e, uint64_t at, const char *fmt, ...)
{
	char text[sizeof(e->message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s->name)
		vd_fail_at(e, VD_ECORRUPT, at, "%s: %s", s->name, text);
	else
		vd_fail_at(e, VD_ECORRUPT, at, "%s", text);
	return vd_hint(e, VD_ECORRUPT,
		       "restore it from a backup, or on a copy: vdisk check --repair=all mends what can be mended");
}

/*
 * The refcount table moves while map() runs. It only moves up, and the mover stores first reft_off, then reft_end;
 * loaded the other way round, the pair is the old table, the new one, or empty, never a range that was no table.
 */
static bool overlaps_reft(const struct vd_qcow2 *s, uint64_t off, uint64_t len)
{
	uint64_t end = atomic_load(&s->reft_end);

	return off < end && off + len > atomic_load(&s->reft_off);
}

const char *vd_qcow2_overlaps(const struct vd_qcow2 *s, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < s->n_areas; i++)
		if (off < s->areas[i].end && off + len > s->areas[i].off)
			return s->areas[i].what;
	return overlaps_reft(s, off, len) ? "refcount table" : NULL;
}

int vd_qcow2_judge_cluster(const struct vd_qcow2 *s, uint64_t host_off, const char *what, uint64_t entry_off,
			   struct vd_error *e)
{
	const char *other;

	if (host_off & (s->cluster_size - 1))
		return vd_qcow2_corrupt(s, e, entry_off,
					"the %s at %" PRIu64 " does not begin at a cluster boundary", what, host_off);
	if (host_off >= atomic_load(&s->host_end))
		return vd_qcow2_corrupt(s, e, entry_off,
					"the %s at %" PRIu64 " lies beyond the end of the file", what, host_off);
	other = vd_qcow2_overlaps(s, host_off, s->cluster_size);
	if (other)
		return vd_qcow2_corrupt(s, e, entry_off, "the %s at %" PRIu64 " lies on the %s", what, host_off,
					other);
	return 0;
}

/* ---- the tables that the header names ------------------------------------------------------------------- */

/* field_off: where the header says it; count and size were bounded, so that count * size is no overflow. */
struct named_table {
	const char *what;
	uint64_t field_off, off, len;
};

static int judge_table(struct vd_qcow2 *s, const struct named_table *t, uint64_t file_size, struct vd_error *e)
{
	const char *other;

	if (t->off & (s->cluster_size - 1))
		return vd_qcow2_corrupt(s, e, t->field_off,
					"the %s at %" PRIu64 " does not begin at a cluster boundary", t->what, t->off);
	/* The last cluster of the file may be cut short, and with it the padding of a table. */
	if (!vd_range_inside(t->off, t->len, vd_round_up(file_size, s->cluster_size)))
		return vd_qcow2_corrupt(s, e, t->field_off,
					"the %s of %" PRIu64 " bytes at %" PRIu64 " reaches beyond the end of the file",
				     t->what, t->len, t->off);
	other = vd_qcow2_overlaps(s, t->off, t->len);
	if (other)
		return vd_qcow2_corrupt(s, e, t->field_off, "the %s at %" PRIu64 " lies on the %s", t->what,
					t->off, other);
	return 0;
}

static int add_area(struct vd_qcow2 *s, const struct named_table *t, uint64_t file_size, struct vd_error *e)
{
	int r;

	if (!t->len)
		return 0;
	r = judge_table(s, t, file_size, e);
	if (r == 0)
		s->areas[s->n_areas++] = (struct vd_qcow2_area){ t->what, t->off,
								vd_round_up(t->off + t->len, s->cluster_size) };
	return r;
}

static int judge_counts(const struct vd_qcow2 *s, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;
	uint64_t l1_needed = h->size / s->l2_span + (h->size % s->l2_span != 0);

	if (h->l1_size > QCOW2_L1_BYTES_MAX / 8)
		return vd_qcow2_corrupt(s, e, 36, "an L1 table of %" PRIu32 " entries is too large",
					h->l1_size);
	if (h->l1_size < l1_needed)
		return vd_qcow2_corrupt(s, e, 36,
					"an L1 table of %" PRIu32 " entries is too small for %" PRIu64 " bytes, which need %" PRIu64,
				     h->l1_size, h->size, l1_needed);
	if (!h->reft_clusters)
		return vd_qcow2_corrupt(s, e, 56, "there is no refcount table");
	if (h->reft_clusters > QCOW2_REFT_BYTES_MAX / s->cluster_size)
		return vd_qcow2_corrupt(s, e, 56, "a refcount table of %" PRIu32 " clusters is too large",
					h->reft_clusters);
	if (h->n_snapshots > QCOW2_SNAPSHOTS_MAX)
		return vd_qcow2_corrupt(s, e, 60, "%" PRIu32 " snapshots are too many", h->n_snapshots);
	return 0;
}

int vd_qcow2_judge_tables(struct vd_qcow2 *s, uint64_t file_size, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;
	const struct named_table tables[] = {
		{ "L1 table", 40, h->l1_off, (uint64_t)h->l1_size * 8 },
		{ "snapshot table", 64, h->snap_off, (uint64_t)h->n_snapshots * QCOW2_SNAPSHOT_BYTES_MIN },
		{ "LUKS key area", QCOW2_V2_LENGTH, s->key_area_off, s->key_area_len },
	};
	const struct named_table reft = { "refcount table", 48, h->reft_off,
					 h->reft_clusters * s->cluster_size };
	int r = judge_counts(s, e);

	/* Anew, where the tables have just changed places. */
	s->n_areas = 0;
	atomic_store(&s->reft_end, 0);
	s->areas[s->n_areas++] = (struct vd_qcow2_area){ "header", 0, s->cluster_size };
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && r == 0; i++)
		r = add_area(s, &tables[i], file_size, e);
	if (r == 0)
		r = judge_table(s, &reft, file_size, e);
	if (r < 0)
		return r;
	atomic_store(&s->reft_off, reft.off);
	atomic_store(&s->reft_end, reft.off + reft.len);
	return 0;
}
