/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks the extents, takes samples, remembers the worst of each cell. Drawing is picture.c. */
#include "survey.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "signals.h"

#define EXTENTS 256
#define SAMPLES_PER_CELL 4      /* of 256 KiB each: a survey of 512 cells reads at most 512 MiB, however large the disk */

/* The sample that is being taken. It may be put together from several extents of one cell. */
struct sampler {
	struct survey *v;
	uint64_t due;                   /* bytes of data until the next sample begins */
	uint64_t stride;                /* from the start of one to the start of the next; 0: all */
	size_t cell;
	size_t fill;
	bool is_taking;
	const char *file_name;          /* the library's: the same pointer is the same file */
	int fd;
	uint8_t buf[CLASSIFY_BYTES];
};

static void note(struct survey_cell *cell, enum content c)
{
	cell->has_data = true;
	if (c > cell->worst)
		cell->worst = c;
}

static void end_sample(struct sampler *s)
{
	if (s->is_taking && s->fill) {
		enum content c = classify(s->buf, s->fill);

		note(&s->v->cells[s->cell], c);
		s->v->looked_at[c] += s->fill;
	}
	s->is_taking = false;
	s->fill = 0;
}

static int open_file(struct sampler *s, const char *name, struct vd_error *e)
{
	if (s->fd >= 0 && s->file_name == name)
		return 0;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = open(name, O_RDONLY | O_CLOEXEC);
	s->file_name = name;
	return s->fd < 0 ? fail_errno(e, errno, "%s: cannot be read", name) : 0;
}

/* What lies past the end of the file reads as zeros, as it does for a guest. */
static int read_bytes(struct sampler *s, size_t len, uint64_t off, struct vd_error *e)
{
	uint8_t *to = s->buf + s->fill;

	s->fill += len;
	while (len) {
		ssize_t n = pread(s->fd, to, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno(e, errno, "%s: reading at %llu", s->file_name, (unsigned long long)off);
		if (n == 0) {
			memset(to, 0, len);
			break;
		}
		to += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* A piece of data inside one cell: skips to where a sample is due, takes it, and so on. */
static int sample_piece(struct sampler *s, const char *file, uint64_t host_off, uint64_t len, struct vd_error *e)
{
	int r = open_file(s, file, e);

	while (r == 0 && len) {
		uint64_t room = CLASSIFY_BYTES - s->fill, step;

		if (!s->is_taking) {
			step = s->due < len ? s->due : len;
			s->is_taking = step == s->due;
			s->due -= step;
		} else {
			step = room < len ? room : len;
			r = read_bytes(s, (size_t)step, host_off, e);
			if (r == 0 && s->fill == CLASSIFY_BYTES) {
				end_sample(s);
				s->due = s->stride > CLASSIFY_BYTES ? s->stride - CLASSIFY_BYTES : 0;
			}
		}
		host_off += step;
		len -= step;
	}
	return r;
}

static void enter_cell(struct sampler *s, size_t cell)
{
	if (cell == s->cell)
		return;
	end_sample(s);
	s->cell = cell;
	s->due = 0;
}

static enum survey_kind kind_of(const struct vd_extent *x)
{
	if (!(x->flags & VD_EXTENT_DATA))
		return SURVEY_HOLE;
	return x->flags & VD_EXTENT_HOST ? SURVEY_DATA : SURVEY_PACKED;
}

static int survey_extent(struct sampler *s, const struct vd_extent *x, struct vd_error *e)
{
	struct survey *v = s->v;
	enum survey_kind kind = kind_of(x);
	uint64_t at = x->off, end = x->off + x->len;
	int r = 0;

	v->bytes_by_tables[kind] += x->len;
	while (at < end && r == 0 && kind != SURVEY_HOLE) {
		size_t cell = (size_t)(at / v->cell_bytes);
		uint64_t cell_end = (uint64_t)(cell + 1) * v->cell_bytes;
		uint64_t len = (cell_end < end ? cell_end : end) - at;

		enter_cell(s, cell);
		/* A format's own compression needs no look, and its bytes lie anywhere. */
		if (kind == SURVEY_PACKED)
			note(&v->cells[cell], CONTENT_PACKED);
		else
			r = sample_piece(s, x->file, x->host_off + (at - x->off), len, e);
		at += len;
	}
	return r;
}

static int walk(struct sampler *s, struct vd_error *e)
{
	uint64_t at = 0, size = vd_image_size(s->v->img);
	struct vd_extent x[EXTENTS];
	size_t n;
	int r = 0;

	while (at < size && r == 0) {
		r = vd_image_extents(s->v->img, at, size - at, x, EXTENTS, &n, e);
		for (size_t i = 0; i < n && r == 0; i++) {
			r = survey_extent(s, &x[i], e);
			at = x[i].off + x[i].len;
			if (r == 0)
				r = signals_check(e);
		}
	}
	return r;
}

int survey_run(struct survey *v, struct vd_error *e)
{
	static struct sampler s;        /* too large for the stack */
	int r;

	memset(v->cells, 0, v->n_cells * sizeof(v->cells[0]));
	s = (struct sampler){ .v = v, .fd = -1, .stride = v->full ? 0 : v->cell_bytes / SAMPLES_PER_CELL };
	r = walk(&s, e);
	end_sample(&s);
	if (s.fd >= 0)
		close(s.fd);
	return r;
}
