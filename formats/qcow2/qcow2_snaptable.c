/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The snapshot table as a list in memory: reads, judges, finds, encodes. What snapshots do to clusters is qcow2_shape.c's. */
#include "formats/qcow2/qcow2_shape.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define EXTRA_DISK_SIZE 16              /* vm_state_size, disk_size */
#define EXTRA_KNOWN 24                  /* vm_state_size, disk_size, icount */
#define EXTRA_MAX 1024u                 /* qemu's limits: block/qcow2.h */
#define TABLE_MAX (64u << 20)

static void free_entry(struct vd_qcow2_snapshot *n)
{
	free(n->id);
	free(n->name);
	free(n->more);
}

void vd_qcow2_snapshots_free(struct vd_qcow2_snapshots *list)
{
	for (size_t i = 0; i < list->n; i++)
		free_entry(&list->at[i]);
	free(list->at);
	*list = (struct vd_qcow2_snapshots){ 0 };
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static int take_string(struct vd_reader *r, size_t len, char **out, struct vd_error *e)
{
	const uint8_t *p = vd_reader_take(r, len);
	int err = vd_alloc(len + 1, 1, out, e);

	if (err == 0 && len)
		memcpy(*out, p, len);
	return err;
}

/* `r` holds exactly the variable part. */
static int take_variable(const struct vd_qcow2 *s, struct vd_reader *r, size_t extra, size_t id_len, size_t name_len,
			 struct vd_qcow2_snapshot *n, struct vd_error *e)
{
	int err = 0;

	/* Without its size the snapshot is of the disk as it is (spec "Snapshots", version 2). */
	n->disk_size = s->h.size;
	n->icount = UINT64_MAX;
	if (extra >= 8)
		n->vm_state_size = vd_read_be64(r);
	if (extra >= 16)
		n->disk_size = vd_read_be64(r);
	if (extra >= EXTRA_KNOWN) {
		n->icount = vd_read_be64(r);
		n->more_len = extra - EXTRA_KNOWN;
		err = vd_memdup(vd_reader_take(r, n->more_len), n->more_len, &n->more, e);
	} else {
		vd_reader_take(r, extra % 8);
	}
	if (err == 0)
		err = take_string(r, id_len, &n->id, e);
	return err < 0 ? err : take_string(r, name_len, &n->name, e);
}

static int judge_entry(const struct vd_qcow2 *s, const struct vd_qcow2_snapshot *n, uint64_t at, struct vd_error *e)
{
	if (n->l1_size > QCOW2_L1_BYTES_MAX / 8)
		return vd_qcow2_corrupt(s, e, at + 8, "an L1 table of %" PRIu32 " entries of a snapshot is too large",
					n->l1_size);
	if (n->disk_size > INT64_MAX)
		return vd_qcow2_corrupt(s, e, at, "a snapshot's disk of %" PRIu64 " bytes is too large", n->disk_size);
	return 0;
}

/* *at moves behind the entry. */
static int read_entry(const struct vd_qcow2 *s, uint64_t *at, struct vd_qcow2_snapshot *n, struct vd_error *e)
{
	uint8_t fixed[QCOW2_SNAPSHOT_BYTES_MIN];
	struct vd_reader r = vd_reader_of(fixed, sizeof(fixed));
	vd_auto_free uint8_t *var = NULL;
	uint64_t limit = atomic_load(&s->host_end), len;
	uint32_t id_len, name_len, extra;
	int err = 0;

	if (!vd_range_inside(*at, sizeof(fixed), limit))
		return vd_qcow2_corrupt(s, e, *at, "the snapshot table reaches beyond the end of the file");
	err = vd_meta_read(s->meta, 0, *at, fixed, sizeof(fixed), 0, e);
	if (err < 0)
		return err;
	n->at = *at;
	n->l1_off = vd_read_be64(&r);
	n->l1_size = vd_read_be32(&r);
	id_len = vd_read_be16(&r);
	name_len = vd_read_be16(&r);
	n->date_sec = vd_read_be32(&r);
	n->date_nsec = vd_read_be32(&r);
	n->vm_clock = vd_read_be64(&r);
	n->vm_state_size = vd_read_be32(&r);
	extra = vd_read_be32(&r);
	len = (uint64_t)extra + id_len + name_len;
	/* Version 3 has the disk's size (spec "Snapshots"); without an L1 table there is no disk. */
	if ((s->h.version > 2 && extra < EXTRA_DISK_SIZE) || (!n->l1_size && s->h.size))
		return vd_qcow2_corrupt(s, e, *at, "a snapshot table entry is not complete");
	if (extra > EXTRA_MAX || !vd_range_inside(*at + sizeof(fixed), len, limit))
		return vd_qcow2_corrupt(s, e, *at, "a snapshot table entry of %" PRIu64 " bytes is too large", len);
	err = vd_alloc(len + 1, 1, &var, e);
	if (err == 0)
		err = vd_meta_read(s->meta, 0, *at + sizeof(fixed), var, len, 0, e);
	r = vd_reader_of(var, len);
	if (err == 0)
		err = take_variable(s, &r, extra, id_len, name_len, n, e);
	if (err == 0)
		err = judge_entry(s, n, *at, e);
	*at = vd_round_up(*at + sizeof(fixed) + len, 8);
	return err;
}

int vd_qcow2_snapshots_read(const struct vd_qcow2 *s, struct vd_qcow2_snapshots *list, struct vd_error *e)
{
	uint64_t at = s->h.snap_off;
	int r = vd_alloc(s->h.n_snapshots, sizeof(*list->at), &list->at, e);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->h.n_snapshots && r == 0; i++) {
		list->n++;
		r = read_entry(s, &at, &list->at[i], e);
		if (r == 0 && at - s->h.snap_off > TABLE_MAX)
			r = vd_qcow2_corrupt(s, e, at, "the snapshot table has more than %u bytes", TABLE_MAX);
	}
	list->table_len = at - s->h.snap_off;
	return r;
}

/* ---- changing ------------------------------------------------------------------------------------------- */

int vd_qcow2_snapshots_add(struct vd_qcow2_snapshots *list, struct vd_qcow2_snapshot *entry, struct vd_error *e)
{
	int r = vd_realloc(&list->at, list->n + 1, sizeof(*list->at), e);

	if (r < 0)
		return r;
	list->at[list->n++] = *entry;
	*entry = (struct vd_qcow2_snapshot){ 0 };
	return 0;
}

void vd_qcow2_snapshots_remove(struct vd_qcow2_snapshots *list, size_t i)
{
	free_entry(&list->at[i]);
	list->n--;
	memmove(&list->at[i], &list->at[i + 1], (list->n - i) * sizeof(*list->at));
}

int vd_qcow2_snapshots_find(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, const char *name,
			    size_t *i, struct vd_error *e)
{
	const char *whose = s->name ? s->name : "the image";
	size_t n_found = 0;

	for (size_t k = 0; k < list->n; k++)
		if (!strcmp(list->at[k].id, name) || !strcmp(list->at[k].name, name)) {
			n_found++;
			*i = k;
		}
	if (n_found == 1)
		return 0;
	if (n_found) {
		vd_fail(e, VD_EARG, "%s: '%s' is the name or id of more than one snapshot", whose, name);
		return vd_hint(e, VD_EARG, "use the id or name that only the one that is meant has");
	}
	vd_fail(e, VD_ENOENT, "%s has no snapshot '%s'", whose, name);
	return vd_hint(e, VD_ENOENT, list->n ? "vdisk snapshot list shows those it has" : "it has none at all");
}

/* ---- encoding ------------------------------------------------------------------------------------------- */

static uint64_t entry_len(const struct vd_qcow2_snapshot *n)
{
	return vd_round_up(QCOW2_SNAPSHOT_BYTES_MIN + EXTRA_KNOWN + n->more_len + strlen(n->id) + strlen(n->name), 8);
}

static void put_entry(struct vd_writer *w, const struct vd_qcow2_snapshot *n)
{
	size_t end = w->pos + entry_len(n);

	vd_write_be64(w, n->l1_off);
	vd_write_be32(w, n->l1_size);
	vd_write_be16(w, strlen(n->id));
	vd_write_be16(w, strlen(n->name));
	vd_write_be32(w, n->date_sec);
	vd_write_be32(w, n->date_nsec);
	vd_write_be64(w, n->vm_clock);
	/* The wide field is in the extra data; what does not fit here is 0, as qemu has it. */
	vd_write_be32(w, n->vm_state_size > UINT32_MAX ? 0 : n->vm_state_size);
	vd_write_be32(w, EXTRA_KNOWN + n->more_len);
	vd_write_be64(w, n->vm_state_size);
	vd_write_be64(w, n->disk_size);
	vd_write_be64(w, n->icount);
	vd_write_bytes(w, n->more, n->more_len);
	vd_write_bytes(w, n->id, strlen(n->id));
	vd_write_bytes(w, n->name, strlen(n->name));
	vd_write_zeros(w, end - w->pos);
}

int vd_qcow2_snapshots_encode(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, uint8_t **out,
			      size_t *len, struct vd_error *e)
{
	struct vd_writer w;
	uint64_t total = 0;
	int r;

	for (size_t i = 0; i < list->n; i++)
		total += entry_len(&list->at[i]);
	if (list->n > QCOW2_SNAPSHOTS_MAX || total > TABLE_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: %zu snapshots in %" PRIu64 " bytes are more than the format can hold",
			       s->name, list->n, total);
	*len = vd_round_up(total, s->cluster_size);
	r = vd_alloc(*len, 1, out, e);
	if (r < 0)
		return r;
	w = vd_writer_of(*out, *len);
	for (size_t i = 0; i < list->n; i++)
		put_entry(&w, &list->at[i]);
	return 0;
}
