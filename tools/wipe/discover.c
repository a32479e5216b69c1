/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Follows a disk through its files and its chain. What is beside the disks of a machine is machine.c's business; whether somebody
 * needs or uses what is found, children.c's and inuse.c's.
 */
#include "wipe/discover.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "wipe/machine.h"

#define DEPTH_MAX 64            /* of a chain: a longer one is a loop through names */
#define RUNS 256
#define SPANS_MAX 4096

/* ---- key areas ------------------------------------------------------------------------------------------ */

static void add_span(struct wipe_member *m, uint64_t off, uint64_t len)
{
	struct wipe_span *last = m->n_key_areas ? &m->key_areas[m->n_key_areas - 1] : NULL;
	struct wipe_span *at;

	if (last && last->off + last->len == off) {
		last->len += len;
		return;
	}
	if (m->n_key_areas == SPANS_MAX)
		return;
	at = realloc(m->key_areas, (m->n_key_areas + 1) * sizeof(*at));
	if (!at)
		ui_out_of_memory();
	m->key_areas = at;
	at[m->n_key_areas++] = (struct wipe_span){ off, len };
}

/* Where keys lie, by the host walk: headers, key material, and slots that are not in use any more. */
static int find_key_areas(struct vd_image *img, struct wipe_set *set, const size_t *member_of, struct vd_error *e)
{
	struct vd_host_run runs[RUNS];
	struct vd_host_walk *w = NULL;
	size_t n = 1;
	int r = vd_host_walk_start(img, 0, 0, &w, e);

	while (r == 0 && n) {
		r = vd_host_walk_next(w, runs, RUNS, &n, e);
		for (size_t i = 0; i < n && r == 0; i++)
			if (runs[i].owner == VD_OWNER_KEYAREA || runs[i].why == VD_SLACK_DEAD_SLOT)
				add_span(&set->at[member_of[runs[i].file]], runs[i].off, runs[i].len);
		if (r == 0)
			r = signals_check(e);
	}
	vd_host_walk_end(w);
	return r;
}

/* ---- one layer ------------------------------------------------------------------------------------------ */

struct layer {
	const struct settings *s;
	struct wipe_set *set;
	size_t index;                   /* of its member */
	const char *path;               /* as opened: names in it are relative to this one's folder */
	char backing[PATH_MAX], backing_format[16];
	bool has_backing;
};

static int add_if_there(struct wipe_set *set, const char *path, enum wipe_role role, size_t parent, struct vd_error *e)
{
	size_t index;

	if (access(path, F_OK))
		return 0;
	return wipe_set_add(set, path, role, parent, &index, e);
}

/* A file that the image names beside itself, by name or by where it is. */
static void name_beside(char *to, size_t size, const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	int folder = name[0] != '/' && slash ? (int)(slash - image + 1) : 0;

	snprintf(to, size, "%.*s%s", folder, image, name);
}

/* Names under which headers are kept apart from the disk; the journal of a conversion that has not ended. */
static int add_beside(struct layer *l, struct vd_error *e)
{
	static const char *const endings[] = { ".header", ".hdr", ".luks-header" };
	struct vd_inplace_status status = { .struct_size = sizeof(status) };
	char path[PATH_MAX];
	struct vd_error ignored;
	int r = 0;

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]) && r == 0; i++) {
		snprintf(path, sizeof(path), "%s%s", l->path, endings[i]);
		r = add_if_there(l->set, path, WIPE_HEADER, l->index, e);
	}
	snprintf(path, sizeof(path), "%s.vdisk-journal", l->path);
	if (r < 0 || access(path, F_OK))
		return r;
	if (vd_inplace_status(l->path, l->s->journal, &status, &ignored) == 0 && status.in_progress)
		wipe_set_note(l->set, "%s: a conversion in place has not ended: its journal is wiped with it", l->path);
	return add_if_there(l->set, path, WIPE_JOURNAL, l->index, e);
}

static int add_files(struct layer *l, struct vd_image *img, const struct vd_info *info, size_t **members, struct vd_error *e)
{
	uint32_t n = vd_host_file_count(img);
	size_t *member_of = calloc(n ? n : 1, sizeof(*member_of));
	enum wipe_role role = info->data_file ? WIPE_DATA_FILE : WIPE_EXTENT;
	int r = 0;

	if (!member_of)
		ui_out_of_memory();
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = wipe_set_add(l->set, vd_host_file_name(img, i), i ? role : WIPE_IMAGE, l->index, &member_of[i], e);
	*members = member_of;
	return r;
}

static int add_snapshots(struct layer *l, struct vd_image *img, struct vd_error *e)
{
	struct wipe_member *m = &l->set->at[l->index];
	struct vd_snapshot *list = NULL;
	size_t n = 0;
	int r = vd_snapshot_list(img, &list, &n, e);

	if (r == VD_EUNSUPPORTED)
		return 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		m->vm_state += list[i].vm_state_size;
	if (r == 0)
		m->n_snapshots = (uint32_t)n;
	vd_snapshot_list_free(list);
	return r;
}

static int resolve_backing(struct layer *l, const struct vd_info *info, struct vd_error *e)
{
	int r;

	if (!info->backing_file)
		return 0;
	if (l->s->wipe.keep_backing) {
		wipe_set_note(l->set, "%s: its backing file %s is left as it is, with what it holds of the disk", l->path,
			      info->backing_file);
		return 0;
	}
	r = source_resolve(l->s, VD_REF_BACKING, l->path, info->backing_file, l->backing, sizeof(l->backing), e);
	if (r < 0)
		return fail_hint(e, r, "it belongs to the disk: --allow its folder to wipe it too, or leave it with --keep-backing");
	snprintf(l->backing_format, sizeof(l->backing_format), "%s", info->backing_format ? info->backing_format : "");
	l->has_backing = true;
	return 0;
}

/* A header in a file of its own is overwritten whole, and before the disk. */
static int add_header(struct layer *l, const char *path, struct vd_error *e)
{
	size_t index;
	int r = wipe_set_add(l->set, path, WIPE_HEADER, l->index, &index, e);

	if (r == 0 && !l->set->at[index].n_key_areas)
		add_span(&l->set->at[index], 0, l->set->at[index].size);
	return r;
}

static int look_into(struct layer *l, struct vd_image *img, struct vd_error *e)
{
	struct wipe_member *m;
	struct vd_info info;
	size_t *member_of = NULL;
	char path[PATH_MAX];
	int r = source_info(img, &info, e);

	if (r == 0)
		r = add_files(l, img, &info, &member_of, e);
	if (r == 0) {
		m = &l->set->at[l->index];
		m->is_encrypted = info.encryption == VD_ENCRYPTED_LUKS;
		snprintf(m->format, sizeof(m->format), "%s", info.format);
		snprintf(m->disk_id, sizeof(m->disk_id), "%s", info.disk_id ? info.disk_id : info.luks.uuid);
		if (m->is_encrypted && info.luks.payload_off && info.luks.header_off == 0 && !strcmp(info.format, "raw") &&
		    info.luks.payload_off >= m->size)
			m->role = WIPE_HEADER;
		for (uint32_t i = 0; m->is_encrypted && i < vd_host_file_count(img); i++)
			l->set->at[member_of[i]].is_encrypted = true;
		if (info.header)
			r = add_header(l, info.header, e);
		else if (info.encryption != VD_PLAIN)
			r = find_key_areas(img, l->set, member_of, e);
	}
	if (r == 0 && info.change_track) {
		name_beside(path, sizeof(path), l->path, info.change_track);
		r = add_if_there(l->set, path, WIPE_CHANGE_TRACK, l->index, e);
	}
	if (r == 0)
		r = add_snapshots(l, img, e);
	if (r == 0)
		r = resolve_backing(l, &info, e);
	free(member_of);
	return r;
}

/* What cannot be read as an image is wiped as the bytes that it is; only what it may name stays unknown. */
static int open_layer(struct layer *l, const char *format, struct vd_image **img, struct vd_error *e)
{
	int r = source_open_whole(l->s, l->path, format, false, img, e);

	switch (r) {
	case 0: case VD_EBUSY: case VD_ENOMEM: case VD_EACCESS: case VD_EIO: case VD_EARG:
		return r;
	case VD_EREFERENCE: case VD_ENOENT:
		return fail_hint(e, r, "the set has to be whole: --allow the folder of what is named");
	case VD_EHALFWAY:
		wipe_set_note(l->set, "%s: half-way through a conversion in place, so what it refers to cannot be told", l->path);
		return 0;
	default:
		wipe_set_note(l->set, "%s: wiped as the bytes that it is; whether it refers to other files cannot be told: %s",
			      l->path, e->message);
		return 0;
	}
}

static int add_layer(struct layer *l, const char *format, enum wipe_role role, size_t parent, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r = wipe_set_add(l->set, l->path, role, parent, &l->index, e);

	if (r < 0 || l->set->at[l->index].is_image)
		return r;
	l->set->at[l->index].is_image = true;
	r = add_beside(l, e);
	if (r == 0)
		r = open_layer(l, format, &img, e);
	if (r == 0 && img)
		r = look_into(l, img, e);
	vd_image_abort(img);
	return r;
}

int wipe_discover_image(const struct settings *s, const char *path, const char *format, enum wipe_role role, size_t parent,
			struct wipe_set *set, struct vd_error *e)
{
	char name[PATH_MAX], base_format[16] = "";
	struct settings below = *s;
	int r = 0;

	/* It is that of the image which the user named. */
	below.header = NULL;
	snprintf(name, sizeof(name), "%s", path);
	for (unsigned depth = 0; r == 0; depth++) {
		struct layer l = { .s = depth ? &below : s, .set = set, .path = name };

		if (depth == DEPTH_MAX)
			return fail(e, VD_EREFERENCE, "%s: its chain has more than %d layers", path, DEPTH_MAX);
		r = add_layer(&l, format, role, parent, e);
		if (r < 0 || !l.has_backing)
			return r;
		snprintf(name, sizeof(name), "%s", l.backing);
		snprintf(base_format, sizeof(base_format), "%s", l.backing_format);
		format = base_format[0] ? base_format : NULL;
		role = WIPE_BACKING;
		parent = l.index;
	}
	return r;
}

int wipe_discover(const struct settings *s, const char *target, struct wipe_set *set, struct vd_error *e)
{
	struct stat st;

	if (stat(target, &st)) {
		int r = fail_errno(e, errno, "%s: looking at it failed", target);

		return fail_hint(e, r, "check the spelling, and that you may see it");
	}
	if (s->header && (S_ISDIR(st.st_mode) || wipe_is_machine(target)))
		return fail(e, VD_EARG, "--header goes with one disk");
	if (S_ISDIR(st.st_mode))
		return wipe_discover_folder(s, target, set, e);
	if (wipe_is_machine(target))
		return wipe_discover_machine(s, target, set, e);
	return wipe_discover_image(s, target, s->format, WIPE_IMAGE, SIZE_MAX, set, e);
}

/* ---- the tree ------------------------------------------------------------------------------------------- */

static void print_member(const struct wipe_set *set, size_t i, unsigned depth)
{
	const struct wipe_member *m = &set->at[i];
	char more[256] = "";
	size_t used = 0;

	if (m->format[0])
		used += (size_t)snprintf(more + used, sizeof(more) - used, " %s", m->format);
	if (m->is_device)
		used += (size_t)snprintf(more + used, sizeof(more) - used, ", a device");
	if (m->n_key_areas)
		used += (size_t)snprintf(more + used, sizeof(more) - used, ", encrypted");
	if (m->n_snapshots)
		used += (size_t)snprintf(more + used, sizeof(more) - used, ", %u snapshot%s inside", m->n_snapshots,
					 m->n_snapshots == 1 ? "" : "s");
	if (m->vm_state)
		snprintf(more + used, sizeof(more) - used, " with %s of a machine's memory", size_show((double)m->vm_state).s);
	ui_line("%*s%s: %s%s, %s allocated of %s", (int)(2 * depth), "", m->path, wipe_role_name(m->role), more,
		size_show((double)m->allocated).s, size_show((double)m->size).s);
}

static void print_below(const struct wipe_set *set, size_t parent, unsigned depth)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->at[i].parent == parent && i != parent) {
			print_member(set, i, depth);
			print_below(set, i, depth + 1);
		}
}

void wipe_set_print(const struct wipe_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->at[i].parent == i) {
			print_member(set, i, 0);
			print_below(set, i, 1);
		}
	for (size_t i = 0; i < set->n_notes; i++)
		ui_line("limit: %s", set->notes[i]);
}
