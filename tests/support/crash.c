/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the states in which a crash could have left recorded files (the rules are in record.h); judges none of them. */
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/mem.h"
#include "tests/support/record_log.h"

#define SECTOR 512u             /* what disks write whole or not at all */
#define CHUNK (1u << 20)

/* ---- names ---- */

static void set_name(struct vd_names *names, const char *name, unsigned file)
{
	for (size_t i = 0; i < names->n; i++)
		if (!strcmp(names->of[i].name, name)) {
			names->of[i].file = file;
			return;
		}
	names->of = reallocarray(names->of, names->n + 1, sizeof(*names->of));
	if (!names->of)
		abort();
	names->of[names->n].name = name;
	names->of[names->n++].file = file;
}

static void drop_name(struct vd_names *names, const char *name)
{
	for (size_t i = 0; i < names->n; i++)
		if (!strcmp(names->of[i].name, name)) {
			names->of[i] = names->of[--names->n];
			return;
		}
}

long vd_names_find(const struct vd_names *names, const char *name)
{
	for (size_t i = 0; i < names->n; i++)
		if (!strcmp(names->of[i].name, name))
			return names->of[i].file;
	return -1;
}

static void apply_name(struct vd_names *names, const struct vd_event *ev)
{
	long file = vd_names_find(names, ev->name);

	if (ev->kind == VD_OP_OPEN) {
		set_name(names, ev->name, ev->file);
	} else if (file >= 0) {
		drop_name(names, ev->name);
		if (ev->kind == VD_OP_RENAME)
			set_name(names, ev->to, (unsigned)file);
	}
}

void vd_names_at(const struct vd_record *rec, struct vd_names *names, uint64_t tick)
{
	for (unsigned i = 0; i < rec->n_files; i++)
		if (!rec->files[i].is_new)
			set_name(names, rec->files[i].name, i);
	for (size_t i = 0; i < rec->n_events && rec->events[i].end <= tick; i++)
		if (rec->events[i].name && rec->events[i].result >= 0)
			apply_name(names, &rec->events[i]);
}

void vd_names_free(struct vd_names *names)
{
	free(names->of);
}

/* ---- chance: splitmix64 ---- */

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* ---- states ---- */

struct crash_run {
	const struct vd_record *rec;
	uint64_t tick;
	unsigned variant;
	uint64_t chance;
};

int vd_copy_io(struct vd_io *from, struct vd_io *to, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	uint64_t size, len;
	bool is_data;
	int r = vd_alloc_buffer(CHUNK, &buf, e);

	if (r >= 0)
		r = vd_io_size(from, &size, e);
	if (r >= 0)
		r = vd_io_truncate(to, size, e);
	for (uint64_t off = 0; r >= 0 && off < size; off += len) {
		r = vd_io_extent(from, off, &is_data, &len, e);
		if (r < 0 || !is_data)
			continue;
		len = vd_min_u64(len, CHUNK);
		r = vd_io_pread(from, buf, (size_t)len, off, e);
		if (r >= 0)
			r = vd_io_pwrite(to, buf, (size_t)len, off, e);
	}
	return r;
}

/* The tick up to which the file is durable: the latest beginning among the flushes that had succeeded. */
static uint64_t durable_until(const struct crash_run *run, unsigned file)
{
	uint64_t until = 0;

	for (size_t i = 0; i < run->rec->n_events && run->rec->events[i].end <= run->tick; i++) {
		const struct vd_event *ev = &run->rec->events[i];

		if (ev->kind == VD_OP_FLUSH && ev->file == file && ev->result >= 0)
			until = vd_max_u64(until, ev->begin);
	}
	return until;
}

/* The part of a change that lies in [off, off + len). */
static int apply_part(struct vd_io *io, const struct vd_event *ev, uint64_t off, uint64_t len, struct vd_error *e)
{
	if (ev->kind == VD_OP_WRITE)
		return vd_io_pwrite(io, ev->data + (off - ev->off), (size_t)len, off, e);
	return vd_io_punch(io, off, len, e);
}

static int apply_whole(struct vd_io *io, const struct vd_event *ev, struct vd_error *e)
{
	if (ev->kind == VD_OP_TRUNCATE)
		return vd_io_truncate(io, ev->off, e);
	return apply_part(io, ev, ev->off, ev->len, e);
}

/* Each sector by itself arrives or does not. */
static int apply_torn(struct crash_run *run, struct vd_io *io, const struct vd_event *ev, struct vd_error *e)
{
	uint64_t end = ev->off + ev->len, len;
	int r = 0;

	if (ev->kind == VD_OP_TRUNCATE)
		return 0;
	for (uint64_t off = ev->off; r >= 0 && off < end; off += len) {
		len = vd_min_u64(SECTOR - off % SECTOR, end - off);
		if (next_random(&run->chance) & 1)
			r = apply_part(io, ev, off, len, e);
	}
	return r;
}

/* Three in eight are there, three are not, two are torn. */
static int apply_by_chance(struct crash_run *run, struct vd_io *io, const struct vd_event *ev, struct vd_error *e)
{
	unsigned die = next_random(&run->chance) % 8;

	if (die < 3 && ev->result >= 0)
		return apply_whole(io, ev, e);
	return die < 6 ? 0 : apply_torn(run, io, ev, e);
}

static int apply(struct crash_run *run, struct vd_io *io, const struct vd_event *ev, uint64_t durable,
		 struct vd_error *e)
{
	bool ended_well = ev->result >= 0 && ev->end <= run->tick;

	if (ended_well && (ev->end <= durable || run->variant == 0))
		return apply_whole(io, ev, e);
	return run->variant > 1 ? apply_by_chance(run, io, ev, e) : 0;
}

static int apply_all(struct crash_run *run, struct vd_io *io, unsigned file, struct vd_error *e)
{
	uint64_t durable = durable_until(run, file);
	int r = 0;

	for (size_t i = 0; r >= 0 && i < run->rec->n_events; i++) {
		const struct vd_event *ev = &run->rec->events[i];

		if (ev->file == file && ev->begin < run->tick &&
		    (ev->kind & (VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_PUNCH)))
			r = apply(run, io, ev, durable, e);
	}
	return r;
}

static int copy_base(const struct vd_record *rec, unsigned file, struct vd_io *to, struct vd_error *e)
{
	struct vd_io *from;
	char name[32];
	int r;

	if (rec->files[file].is_new)
		return 0;
	snprintf(name, sizeof(name), "%u", file);
	r = rec->base->open(rec->base, name, 0, &from, e);
	if (r < 0)
		return r;
	r = vd_copy_io(from, to, e);
	vd_io_abort(from);
	return r;
}

static int make_file(struct crash_run *run, struct vd_host *host, const char *name, unsigned file, struct vd_error *e)
{
	struct vd_io *io;
	int r = host->open(host, name, VD_IO_CREATE, &io, e);

	if (r < 0)
		return r;
	r = copy_base(run->rec, file, io, e);
	if (r >= 0)
		r = apply_all(run, io, file, e);
	vd_io_abort(io);
	return r;
}

size_t vd_crash_count(struct vd_record *rec, unsigned n_random)
{
	return (rec->n_events + 1) * (2 + (size_t)n_random);
}

int vd_crash_state(struct vd_record *rec, unsigned n_random, uint64_t seed, size_t index, struct vd_crash *out,
		   struct vd_error *e)
{
	size_t cut = index / (2 + (size_t)n_random);
	struct vd_names names = { 0 };
	struct crash_run run = { .rec = rec, .variant = (unsigned)(index % (2 + (size_t)n_random)) };
	struct vd_host *host;
	int r = vd_mem_host_new(&host, e);

	if (r < 0)
		return r;
	run.tick = cut ? rec->events[cut - 1].end : 0;
	run.chance = seed ^ (index + 1) * 0x9e3779b97f4a7c15u;
	vd_names_at(rec, &names, run.tick);
	for (size_t i = 0; r >= 0 && i < names.n; i++)
		r = make_file(&run, host, names.of[i].name, names.of[i].file, e);
	vd_names_free(&names);
	if (r < 0) {
		vd_mem_host_free(host);
		return r;
	}
	*out = (struct vd_crash){ host, run.tick, cut, run.variant };
	return 0;
}

static int save_one(struct vd_host *mem, const char *name, const char *folder, struct vd_error *e)
{
	const char *slash = strrchr(name, '/');
	struct vd_host *os = vd_host_os();
	struct vd_io *from, *to;
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/%s", folder, slash ? slash + 1 : name);
	if (os->exists(os, path) && (r = os->unlink(os, path, e)) < 0)
		return r;
	r = mem->open(mem, name, 0, &from, e);
	if (r < 0)
		return r;
	r = os->open(os, path, VD_IO_CREATE, &to, e);
	if (r >= 0) {
		int closed;

		r = vd_copy_io(from, to, e);
		closed = vd_io_close(to, r < 0 ? NULL : e);
		r = r < 0 ? r : closed;
	}
	vd_io_abort(from);
	return r;
}

int vd_crash_save(struct vd_host *mem, const char *folder, struct vd_error *e)
{
	const char *name;
	int r = 0;

	for (size_t i = 0; r >= 0 && (name = vd_mem_name(mem, i)); i++)
		r = save_one(mem, name, folder, e);
	return r;
}
