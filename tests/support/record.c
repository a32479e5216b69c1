/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logs operations in the order in which they end; crash.c makes states of the log. Out of memory ends the test. */
#include "tests/support/record_log.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/mem.h"

#define KINDS (VD_OP_OPEN | VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_PUNCH | VD_OP_FLUSH | VD_OP_RENAME | VD_OP_UNLINK)

static void *grown(void *p, size_t n, size_t size)
{
	p = reallocarray(p, n, size);
	if (!p)
		abort();
	return p;
}

static char *copy_text(const char *s)
{
	return s ? strcpy(grown(NULL, strlen(s) + 1, 1), s) : NULL;
}

static struct vd_record *record_of(struct vd_wrap *w)
{
	return (struct vd_record *)w;
}

static int before(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	struct vd_record *rec = record_of(w);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&rec->lock);

	(void)e;
	if (op->kind & KINDS)
		op->begin = ++rec->tick;
	return 0;
}

static struct vd_event *append(struct vd_record *rec, const struct vd_op *op, int result)
{
	struct vd_event *ev;

	if (rec->n_events == rec->room) {
		rec->room = rec->room * 2 + 64;
		rec->events = grown(rec->events, rec->room, sizeof(*rec->events));
	}
	ev = &rec->events[rec->n_events++];
	*ev = (struct vd_event){ .kind = op->kind, .begin = op->begin, .end = ++rec->tick, .result = result,
				 .off = op->off, .len = op->len };
	ev->file = op->mark ? (unsigned)*op->mark : 0;
	if (op->kind == VD_OP_WRITE)
		ev->data = memcpy(grown(NULL, op->len + 1, 1), op->data, op->len);
	if (op->kind & (VD_OP_OPEN | VD_OP_RENAME | VD_OP_UNLINK))
		ev->name = copy_text(op->name);
	ev->to = copy_text(op->to);
	return ev;
}

static void copy_base(struct vd_record *rec, struct vd_io *from, unsigned file)
{
	char name[32];
	struct vd_io *to;

	snprintf(name, sizeof(name), "%u", file);
	if (rec->base->open(rec->base, name, VD_IO_CREATE, &to, NULL) < 0 || vd_copy_io(from, to, NULL) < 0)
		abort();
	vd_io_abort(to);
}

static unsigned add_file(struct vd_record *rec, const char *name, bool is_new)
{
	rec->files = grown(rec->files, rec->n_files + 1, sizeof(*rec->files));
	rec->files[rec->n_files] = (struct vd_record_file){ copy_text(name), is_new };
	return rec->n_files++;
}

static void opened(struct vd_record *rec, const struct vd_op *op)
{
	bool is_new = op->flags & VD_IO_CREATE;
	struct vd_names names = { 0 };
	long known;

	vd_names_at(rec, &names, rec->tick);
	known = is_new ? -1 : vd_names_find(&names, op->name);
	if (known >= 0) {
		*op->mark = (uint64_t)known;
	} else {
		*op->mark = add_file(rec, op->name, is_new);
		if (!is_new)
			copy_base(rec, op->inner, (unsigned)*op->mark);
	}
	vd_names_free(&names);
	if (is_new)
		append(rec, op, 0);
}

static void after(struct vd_wrap *w, struct vd_op *op, int result)
{
	struct vd_record *rec = record_of(w);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&rec->lock);

	if (op->kind == VD_OP_OPEN && result >= 0)
		opened(rec, op);
	else if (op->kind & KINDS & ~(unsigned)VD_OP_OPEN)
		append(rec, op, result);
}

int vd_record_new(struct vd_host *inner, struct vd_record **out, struct vd_error *e)
{
	vd_auto_free struct vd_record *rec = NULL;
	int r = vd_alloc(1, sizeof(*rec), &rec, e);

	if (r >= 0)
		r = vd_mem_host_new(&rec->base, e);
	if (r < 0)
		return r;
	vd_wrap_init(&rec->wrap, inner);
	rec->wrap.before = before;
	rec->wrap.after = after;
	pthread_mutex_init(&rec->lock, NULL);
	*out = vd_steal(&rec);
	return 0;
}

void vd_record_free(struct vd_record *rec)
{
	for (size_t i = 0; i < rec->n_events; i++) {
		free(rec->events[i].data);
		free(rec->events[i].name);
		free(rec->events[i].to);
	}
	for (unsigned i = 0; i < rec->n_files; i++)
		free(rec->files[i].name);
	free(rec->files);
	free(rec->events);
	vd_mem_host_free(rec->base);
	pthread_mutex_destroy(&rec->lock);
	free(rec);
}

struct vd_host *vd_record_host(struct vd_record *rec)
{
	return &rec->wrap.host;
}

uint64_t vd_record_tick(struct vd_record *rec)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&rec->lock);

	return rec->tick;
}

size_t vd_record_count(struct vd_record *rec, unsigned kinds, uint64_t after_tick)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&rec->lock);
	size_t n = 0;

	for (size_t i = 0; i < rec->n_events; i++)
		n += (rec->events[i].kind & kinds) && rec->events[i].end > after_tick;
	return n;
}

const struct vd_event *vd_record_event(struct vd_record *rec, size_t i)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&rec->lock);

	return i < rec->n_events ? &rec->events[i] : NULL;
}
