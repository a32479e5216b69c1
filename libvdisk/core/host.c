/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's files for the public: walks them, reads them, tells whose a byte is. Overwriting is scrub.c's. */
#include "libvdisk/core/host.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/shape.h"

/* ---- names ---------------------------------------------------------------------------------------------- */

static const struct { const char *name, *text; } owners[] = {
#define OWNER(sym, name, text) [sym] = { name, text },
	VD_OWNER_LIST(OWNER)
};

static const char *const whys[] = {
#define WHY(sym, name) [sym] = name,
	VD_WHY_LIST(WHY)
};

VD_PUBLIC const char *vd_owner_name(int owner)
{
	return owner >= 0 && owner < VD_N_OWNERS ? owners[owner].name : NULL;
}

VD_PUBLIC const char *vd_owner_text(int owner)
{
	return owner >= 0 && owner < VD_N_OWNERS ? owners[owner].text : NULL;
}

VD_PUBLIC const char *vd_why_name(int why)
{
	return why >= 0 && why < VD_N_WHYS ? whys[why] : NULL;
}

/* ---- files ---------------------------------------------------------------------------------------------- */

VD_PUBLIC uint32_t vd_host_file_count(const struct vd_image *img)
{
	return vd_set_count(img->set);
}

VD_PUBLIC const char *vd_host_file_name(const struct vd_image *img, uint32_t file)
{
	return file < vd_set_count(img->set) ? vd_set_name(img->set, file) : NULL;
}

VD_PUBLIC int vd_host_file_size(struct vd_image *img, uint32_t file, uint64_t *size, struct vd_error *e)
{
	if (file >= vd_set_count(img->set))
		return vd_fail(e, VD_EARG, "%s consists of %u files: there is no file %u", img->path, vd_set_count(img->set), file);
	if (!vd_set_io(img->set, file))
		return vd_fail(e, VD_EREFERENCE, "%s, which the image %s names, was not opened", vd_set_name(img->set, file),
			       img->path);
	return vd_io_size(vd_set_io(img->set, file), size, e);
}

VD_PUBLIC int vd_host_read(struct vd_image *img, uint32_t file, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint64_t size;
	int r = vd_host_file_size(img, file, &size, e);

	if (r == 0 && !vd_range_inside(off, len, size))
		r = vd_fail_at(e, VD_ERANGE, off, "%s has %llu bytes: %zu at %llu are outside of it", vd_set_name(img->set, file),
			       (unsigned long long)size, len, (unsigned long long)off);
	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&img->control);
	r = vd_set_pread(img->set, file, buf, len, off, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

/* ---- looking -------------------------------------------------------------------------------------------- */

static int judge(const struct vd_image *img, struct vd_error *e)
{
	if (!img->format->walk)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the host's bytes of format %s cannot be told apart", img->path,
			       img->format->name);
	if (img->is_view)
		return vd_fail(e, VD_EARG, "%s: the files are the whole image's: open it without a snapshot", img->path);
	return 0;
}

static int run_driver(struct vd_image *img, struct vd_window *w, struct vd_error *e)
{
	int r = judge(img, e);

	if (r == 0)
		r = vd_image_poisoned(img, e);
	if (r == 0 && atomic_load(&img->begun))
		r = vd_shape_settle(img, e);
	return r < 0 ? r : img->format->walk(img->state, w, e);
}

/* A header that cannot be judged has no room that is known to be dead. */
static void find_dead_slots(struct vd_image *img, struct vd_window *w)
{
	struct vd_luks_area areas[VD_LUKS_AREAS_MAX];
	vd_auto_free uint8_t *header = NULL;
	size_t len, n = 0;

	if (img->layer.encryption != VD_ENCRYPTED_LUKS ||
	    vd_layer_read_header(img, img->layer.is_container, &header, &len, NULL) < 0 ||
	    vd_luks_dead_areas((struct vd_bytes){ header, len }, areas, &n, NULL) < 0)
		return;
	for (w->n_dead = 0; w->n_dead < n && w->n_dead < VD_WINDOW_DEAD_MAX; w->n_dead++)
		w->dead[w->n_dead] = (struct vd_span){ areas[w->n_dead].off, areas[w->n_dead].end };
}

int vd_host_look(struct vd_image *img, uint32_t file, uint64_t start, uint64_t end, struct vd_window *w,
		 struct vd_error *e)
{
	uint64_t size = 0;
	int r = vd_host_file_size(img, file, &size, e);

	vd_window_init(w, file, start, vd_min_u64(size, end));
	if (r == 0)
		r = run_driver(img, w, e);
	if (r == 0)
		find_dead_slots(img, w);
	vd_window_settle(w);
	return r;
}

/* ---- walking -------------------------------------------------------------------------------------------- */

struct vd_host_walk {
	struct vd_image *img;
	uint32_t file;
	uint64_t at;                    /* of that file: told up to here */
	struct vd_window w;
	struct vd_cover c;
	bool has_window;
	uint64_t n_findings;
	struct vd_error first;
};

VD_PUBLIC int vd_host_walk_start(struct vd_image *img, uint32_t file, uint64_t off, struct vd_host_walk **out,
				 struct vd_error *e)
{
	int r = judge(img, e);

	if (r == 0)
		r = vd_alloc(1, sizeof(**out), out, e);
	if (r < 0)
		return r;
	(*out)->img = img;
	(*out)->file = file;
	(*out)->at = off;
	return 0;
}

VD_PUBLIC void vd_host_walk_end(struct vd_host_walk *w)
{
	if (w)
		vd_window_fini(&w->w);
	free(w);
}

VD_PUBLIC uint64_t vd_host_walk_findings(const struct vd_host_walk *w, struct vd_error *first)
{
	if (w->n_findings && first)
		*first = w->first;
	return w->n_findings;
}

static void drop_window(struct vd_host_walk *w)
{
	vd_window_fini(&w->w);
	w->has_window = false;
}

/* Sees to it that there is a window with w->at inside; *more false: no byte is left. */
static int find_window(struct vd_host_walk *w, bool *more, struct vd_error *e)
{
	struct vd_image *img = w->img;
	uint64_t size = 0;
	int r = 0;

	*more = true;
	while (!w->has_window && w->file < vd_set_count(img->set)) {
		if (vd_set_io(img->set, w->file))
			r = vd_host_file_size(img, w->file, &size, e);
		if (r < 0)
			return r;
		if (vd_set_io(img->set, w->file) && w->at < size) {
			r = vd_host_look(img, w->file, vd_round_down(w->at, VD_WINDOW_ALIGN), UINT64_MAX, &w->w, e);
			w->has_window = r == 0;
			if (r < 0) {
				drop_window(w);
				return r;
			}
			if (!w->n_findings)
				w->first = w->w.first_finding;
			w->n_findings += w->w.n_findings;
			vd_cover_start(&w->c, img, &w->w, w->at);
		} else {
			w->file++;
			w->at = 0;
		}
	}
	*more = w->has_window;
	return 0;
}

static int next_run(struct vd_host_walk *w, struct vd_host_run *run, bool *got, struct vd_error *e)
{
	int r = 0;

	*got = false;
	while (r == 0 && !*got) {
		bool more;

		r = find_window(w, &more, e);
		if (r < 0 || !more)
			return r;
		r = vd_cover_next(&w->c, run, got, e);
		if (r == 0 && !*got)
			drop_window(w);
		if (*got)
			w->at = run->off + run->len;
	}
	return r;
}

VD_PUBLIC int vd_host_walk_next(struct vd_host_walk *w, struct vd_host_run *runs, size_t n, size_t *got,
				struct vd_error *e)
{
	bool more = true;
	int r = 0;

	*got = 0;
	pthread_rwlock_wrlock(&w->img->control);
	while (*got < n && more && r == 0) {
		r = next_run(w, &runs[*got], &more, e);
		*got += r == 0 && more;
	}
	pthread_rwlock_unlock(&w->img->control);
	return r;
}

/* ---- owners --------------------------------------------------------------------------------------------- */

struct owner_list {
	struct vd_image *img;
	uint64_t off;
	struct vd_host_owner *buf;
	size_t max, n;
};

static int list_owner(void *ctx, const struct vd_claim *c, struct vd_error *e)
{
	struct owner_list *l = ctx;
	struct vd_host_owner o = {
		.guest_off = c->guest_off, .parent_off = c->parent_off, .view = c->view, .owner = c->owner, .why = c->why,
	};

	(void)e;
	if (!c->refs)
		return 0;
	if (c->guest_off != VD_HOST_NOWHERE && c->owner != VD_OWNER_PACKED && c->owner != VD_OWNER_TABLE)
		o.guest_off += l->off - c->host_off - l->img->layer.payload_off;
	o.parent_off = vd_claim_parent(c, l->off);
	if (l->n < l->max)
		l->buf[l->n] = o;
	l->n++;
	return 0;
}

VD_PUBLIC int vd_host_owners(struct vd_image *img, uint32_t file, uint64_t off, struct vd_host_owner *buf, size_t n,
			     size_t *got, struct vd_error *e)
{
	struct owner_list l = { .img = img, .off = off, .buf = buf, .max = n };
	struct vd_window w;
	uint64_t size = 0;
	int r = vd_host_file_size(img, file, &size, e);

	*got = 0;
	if (r == 0 && off >= size)
		r = vd_fail_at(e, VD_ERANGE, off, "%s ends before, at %llu", vd_set_name(img->set, file), (unsigned long long)size);
	if (r < 0)
		return r;
	vd_window_init(&w, file, off, off + 1);
	w.each = true;
	w.list = list_owner;
	w.list_ctx = &l;
	pthread_rwlock_wrlock(&img->control);
	r = run_driver(img, &w, e);
	pthread_rwlock_unlock(&img->control);
	vd_window_fini(&w);
	*got = l.n;
	return r;
}
