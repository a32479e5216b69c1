/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The acts on snapshots, each as the difference that it makes; carrying them out is qcow2_shape.c's. A snapshot keeps the
 * L1 and L2 tables that were active when it was made, the active tree gets new ones where its flags change.
 */
#include "formats/qcow2/qcow2_shape.h"

#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/* ---- list ----------------------------------------------------------------------------------------------- */

static char *put_string(char **room, const char *text)
{
	size_t len = strlen(text) + 1;
	char *at = memcpy(*room, text, len);

	*room += len;
	return at;
}

static int snap_list(void *st, struct vd_snapshot **out, size_t *n, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	size_t bytes = 0;
	char *room;
	int r = vd_qcow2_snapshots_read(st, &list, e);

	for (size_t i = 0; i < list.n && r == 0; i++)
		bytes += sizeof(**out) + strlen(list.at[i].id) + strlen(list.at[i].name) + 2;
	if (r == 0)
		r = vd_alloc(bytes, 1, out, e);
	if (r < 0)
		return r;
	room = (char *)(*out + list.n);
	*n = list.n;
	for (size_t i = 0; i < list.n; i++) {
		const struct vd_qcow2_snapshot *from = &list.at[i];

		(*out)[i] = (struct vd_snapshot){
			.id = put_string(&room, from->id), .name = put_string(&room, from->name),
			.date_sec = from->date_sec, .date_nsec = from->date_nsec, .vm_clock_nsec = from->vm_clock,
			.vm_state_size = from->vm_state_size, .disk_size = from->disk_size,
		};
	}
	return 0;
}

/* ---- create --------------------------------------------------------------------------------------------- */

/* Ids are decimal numbers, as qemu gives them. */
static uint64_t free_id(const struct vd_qcow2_snapshots *list)
{
	uint64_t max = 0;

	for (size_t i = 0; i < list->n; i++)
		max = vd_max_u64(max, strtoul(list->at[i].id, NULL, 10));
	return max + 1;
}

static int judge_name(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, const char *name,
		      struct vd_error *e)
{
	if (!name[0] || strlen(name) > UINT16_MAX)
		return vd_fail(e, VD_EARG, "a snapshot's name has 1 to %d bytes", UINT16_MAX);
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->at[i].name, name) || !strcmp(list->at[i].id, name)) {
			vd_fail(e, VD_EEXIST, "%s has a snapshot '%s' already", s->name, name);
			return vd_hint(e, VD_EEXIST, "choose another name, or delete that snapshot first");
		}
	return 0;
}

/* The entry owns the strings. */
static int new_entry(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, const struct vd_snapshot *new,
		     struct vd_qcow2_snapshot *entry, struct vd_error *e)
{
	char id[24];
	int r;

	snprintf(id, sizeof(id), "%" PRIu64, free_id(list));
	*entry = (struct vd_qcow2_snapshot){
		.l1_off = s->h.l1_off, .l1_size = s->h.l1_size, .date_sec = new->date_sec, .date_nsec = new->date_nsec,
		.vm_clock = new->vm_clock_nsec, .disk_size = s->h.size, .icount = UINT64_MAX,
	};
	r = vd_strdup(id, &entry->id, e);
	return r < 0 ? r : vd_strdup(new->name, &entry->name, e);
}

static int add_entry(const struct vd_qcow2 *s, struct vd_qcow2_snapshots *list, const struct vd_snapshot *new,
		     struct vd_error *e)
{
	struct vd_qcow2_snapshot entry = { 0 };
	int r = new_entry(s, list, new, &entry, e);

	if (r == 0)
		r = vd_qcow2_snapshots_add(list, &entry, e);
	free(entry.id);
	free(entry.name);
	return r;
}

static int snap_create(void *st, const struct vd_snapshot *new, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree active = { 0 };
	struct vd_qcow2_act act = {
		.size = s->h.size, .l1_size = vd_max_u64(1, s->h.l1_size), .active = &active, .n_kept = UINT64_MAX,
		.gains = &active, .snapshots = &list,
	};
	int r;

	if (s->payload_file)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: an image with an external data file cannot have snapshots", s->name);
	r = vd_qcow2_snapshots_read(s, &list, e);
	act.old_snap_len = list.table_len;
	if (r == 0)
		r = judge_name(s, &list, new->name, e);
	if (r == 0)
		r = add_entry(s, &list, new, e);
	if (r == 0)
		r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &active, e);
	return r < 0 ? r : vd_qcow2_shape(s, &act, e);
}

/* ---- apply, remove, view -------------------------------------------------------------------------------- */

static struct vd_qcow2_area area_of(const struct vd_qcow2_tree *t)
{
	return (struct vd_qcow2_area){ "L1 table", t->l1_off, t->l1_off + (uint64_t)t->l1_size * 8 };
}

/* The list, the snapshot in it, and its tree, which lies on nothing else. */
static int find_tree(const struct vd_qcow2 *s, const char *name, struct vd_qcow2_snapshots *list, size_t *i,
		     struct vd_qcow2_tree *t, struct vd_error *e)
{
	const struct vd_qcow2_snapshot *n;
	const char *other;
	int r = vd_qcow2_snapshots_read(s, list, e);

	if (r == 0)
		r = vd_qcow2_snapshots_find(s, list, name, i, e);
	if (r < 0)
		return r;
	n = &list->at[*i];
	other = n->l1_size ? vd_qcow2_overlaps(s, n->l1_off, (uint64_t)n->l1_size * 8) : NULL;
	if (other)
		return vd_qcow2_corrupt(s, e, n->l1_off, "the L1 table of snapshot '%s' lies on the %s", n->name, other);
	if (n->disk_size / s->l2_span + (n->disk_size % s->l2_span != 0) > QCOW2_L1_BYTES_MAX / 8)
		return vd_qcow2_corrupt(s, e, s->h.snap_off, "the disk of snapshot '%s' is too large: %" PRIu64 " bytes",
					n->name, n->disk_size);
	return vd_qcow2_tree_read(s, n->l1_off, n->l1_size, t, e);
}

/* The tables of a snapshot may be shorter than its disk, which is holes there. */
static uint32_t l1_size_for(const struct vd_qcow2 *s, const struct vd_qcow2_snapshot *n)
{
	uint64_t needed = n->disk_size / s->l2_span + (n->disk_size % s->l2_span != 0);

	return vd_max_u64(1, vd_max_u64(n->l1_size, needed));
}

static int snap_apply(void *st, const char *name, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree then = { 0 }, now = { 0 };
	struct vd_qcow2_act act = {
		.active = &then, .n_kept = UINT64_MAX, .gains = &then, .loses = &now, .snapshots = &list,
		.ends_autoclear = true,
	};
	size_t i = 0;
	int r = find_tree(s, name, &list, &i, &then, e);

	if (r == 0)
		r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &now, e);
	if (r < 0)
		return r;
	act.size = list.at[i].disk_size;
	act.l1_size = l1_size_for(s, &list.at[i]);
	act.old_snap_len = list.table_len;
	act.dead[0] = area_of(&now);
	return vd_qcow2_shape(s, &act, e);
}

static int snap_remove(void *st, const char *name, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree then = { 0 }, now = { 0 };
	struct vd_qcow2_act act = {
		.size = s->h.size, .l1_size = vd_max_u64(1, s->h.l1_size), .active = &now, .n_kept = UINT64_MAX,
		.loses = &then, .snapshots = &list,
	};
	size_t i = 0;
	int r = find_tree(s, name, &list, &i, &then, e);

	if (r == 0)
		r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &now, e);
	if (r < 0)
		return r;
	act.old_snap_len = list.table_len;
	act.dead[0] = area_of(&now);
	act.dead[1] = area_of(&then);
	vd_qcow2_snapshots_remove(&list, i);
	return vd_qcow2_shape(s, &act, e);
}

int vd_qcow2_view_snapshot(struct vd_qcow2 *s, const char *name, uint64_t file_size, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree then = { 0 };
	size_t i = 0;
	int r = find_tree(s, name, &list, &i, &then, e);

	if (r < 0)
		return r;
	if (list.at[i].l1_size < (list.at[i].disk_size + s->l2_span - 1) / s->l2_span)
		return vd_qcow2_corrupt(s, e, s->h.snap_off, "the L1 table of snapshot '%s' is too small for its disk", name);
	s->h.size = list.at[i].disk_size;
	s->h.l1_off = then.l1_off;
	s->h.l1_size = then.l1_size;
	return vd_qcow2_judge_tables(s, file_size, e);
}

const struct vd_snap_ops vd_qcow2_snap_ops = {
	.list = snap_list,
	.create = snap_create,
	.apply = snap_apply,
	.remove = snap_remove,
};
