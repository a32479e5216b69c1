/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Goes through the host walk for `vdisk map --host`. How it is drawn is hostpicture.c's. */
#include "hostmap.h"

#include <stdlib.h>

#include "fail.h"
#include "json.h"
#include "signals.h"
#include "ui.h"

#define RUNS 256
#define CELL_BYTES_MIN 512

/* Calls take() with each run. */
struct walk {
	struct vd_image *img;
	void (*take)(void *ctx, const struct vd_host_run *r);
	void *ctx;
};

static void warn_of_findings(const struct vd_host_walk *w)
{
	struct vd_error first;

	if (vd_host_walk_findings(w, &first))
		ui_warn("the image is damaged, and what damaged entries should lead to looks free or leaked: %s", first.message);
}

static int walk(const struct walk *x, struct vd_error *e)
{
	struct vd_host_run runs[RUNS];
	struct vd_host_walk *w = NULL;
	size_t n = 1;
	int r = vd_host_walk_start(x->img, 0, 0, &w, e);

	while (r == 0 && n) {
		r = vd_host_walk_next(w, runs, RUNS, &n, e);
		for (size_t i = 0; i < n && r == 0; i++)
			x->take(x->ctx, &runs[i]);
		if (r == 0)
			r = signals_check(e);
	}
	if (r == 0)
		warn_of_findings(w);
	vd_host_walk_end(w);
	return r;
}

/* ---- the list --------------------------------------------------------------------------------------------- */

struct list {
	struct vd_image *img;
	uint64_t n;
};

static void print_run(void *ctx, const struct vd_host_run *r)
{
	struct list *l = ctx;
	struct json_object *j = json_new();

	json_put_text(j, "filename", vd_host_file_name(l->img, r->file));
	json_put_u64(j, "start", r->off);
	json_put_u64(j, "length", r->len);
	json_put_text(j, "owner", vd_owner_name(r->owner));
	if (r->why != VD_WHY_NONE)
		json_put_text(j, "kind", vd_why_name(r->why));
	json_put_u64(j, "references", r->refs);
	json_put_bool(j, "shared", r->flags & VD_HOST_SHARED);
	json_put_bool(j, "sparse", r->flags & VD_HOST_SPARSE);
	json_put_bool(j, "encrypted", r->flags & VD_HOST_ENCRYPTED);
	if (r->guest_off != VD_HOST_NOWHERE) {
		json_put_u64(j, "view", r->view);
		json_put_u64(j, "guest-offset", r->guest_off);
	}
	if (r->parent_off != VD_HOST_NOWHERE)
		json_put_u64(j, "entry-offset", r->parent_off);
	json_print_item(j, l->n++ == 0);
}

int hostmap_print(struct vd_image *img, struct vd_error *e)
{
	struct list l = { .img = img };
	int r = walk(&(struct walk){ img, print_run, &l }, e);

	if (r == 0)
		json_print_items_end(l.n == 0);
	return r;
}

/* ---- the sum ---------------------------------------------------------------------------------------------- */

struct sum {
	struct hostmap *maps;
	size_t *map_of;                 /* file to map */
};

static void add_run(void *ctx, const struct vd_host_run *r)
{
	const struct sum *s = ctx;
	struct hostmap *m = &s->maps[s->map_of[r->file]];

	m->bytes[r->owner] += r->len;
	m->n_runs[r->owner]++;
	if (r->flags & VD_HOST_SHARED)
		m->shared += r->len;
	if (r->flags & VD_HOST_SPARSE || r->owner == VD_OWNER_HOSTHOLE)
		m->sparse += r->len;
	for (uint64_t at = r->off, end = r->off + r->len, next; at < end; at = next) {
		size_t cell = (size_t)(at / m->cell_bytes);

		next = (cell + 1) * m->cell_bytes < end ? (cell + 1) * m->cell_bytes : end;
		/* A file that has grown since: what is new is summed up, not drawn. */
		if (cell < m->n_cells)
			m->cells[cell][r->owner] += next - at;
	}
}

static int add_map(struct vd_image *img, uint32_t file, struct hostmap *m, struct vd_error *e)
{
	int r = vd_host_file_size(img, file, &m->size, e);

	m->name = vd_host_file_name(img, file);
	m->cell_bytes = CELL_BYTES_MIN;
	while (m->cell_bytes * HOSTMAP_CELLS_MAX < m->size)
		m->cell_bytes *= 2;
	m->n_cells = (size_t)((m->size + m->cell_bytes - 1) / m->cell_bytes);
	return r;
}

int hostmap_gather(struct vd_image *img, struct hostmap **maps, size_t *n, struct vd_error *e)
{
	uint32_t n_files = vd_host_file_count(img);
	struct sum s = { calloc(n_files, sizeof(**maps)), calloc(n_files, sizeof(*s.map_of)) };
	int r = 0;

	if (!s.maps || !s.map_of)
		ui_out_of_memory();
	*n = 0;
	for (uint32_t i = 0; i < n_files && r == 0; i++) {
		s.map_of[i] = *n;
		r = add_map(img, i, &s.maps[(*n)++], e);
	}
	if (r == 0)
		r = walk(&(struct walk){ img, add_run, &s }, e);
	free(s.map_of);
	if (r < 0)
		free(s.maps);
	else
		*maps = s.maps;
	return r;
}
