/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The view itself: volumes, shortfalls, and the calls about one file. How paths lead there is resolve.c's, many files are walk.c's. */
#include "fsview/fsview.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "fsview/backend.h"

static const char *const lack_names[] = {
#define NAME(sym, name, text) name,
	FSVIEW_SHORTFALL_TABLE(NAME)
#undef NAME
};
static const char *const lack_texts[] = {
#define TEXT(sym, name, text) text,
	FSVIEW_SHORTFALL_TABLE(TEXT)
#undef TEXT
};
static const char *const fs_names[] = {
#define NAME(sym, name, has_files) name,
	FSVIEW_FS_TABLE(NAME)
#undef NAME
};

const char *fsview_lack_name(enum fsview_lack lack)
{
	return (unsigned)lack < FSVIEW_N_LACKS ? lack_names[lack] : "damaged";
}

const char *fsview_fs_name(enum fsview_fs fs)
{
	return (unsigned)fs < FSVIEW_N_FS ? fs_names[fs] : "unknown";
}

int fsview_new(const struct fsview_backend *backend, void *ctx, struct fsview **out, struct vd_error *e)
{
	struct fsview *v = calloc(1, sizeof(*v));

	if (v)
		v->volumes = calloc(FSVIEW_VOLUMES_MAX, sizeof(*v->volumes));
	if (!v || !v->volumes) {
		free(v);
		return fail(e, VD_ENOMEM, "not enough memory for a view of the file systems");
	}
	v->backend = backend;
	v->ctx = ctx;
	v->table = "none";
	*out = v;
	return 0;
}

void fsview_close(struct fsview *v)
{
	if (!v)
		return;
	v->backend->close(v->ctx);
	free(v->volumes);
	free(v);
}

/* ---- what cannot be seen ---------------------------------------------------------------------------------- */

/* Bytes that a terminal would obey become '?'. */
static void disarm(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

/* The end of a path tells more than its beginning. */
static void shorten(char *to, size_t size, const char *from)
{
	size_t len = strlen(from);

	if (len < size)
		snprintf(to, size, "%s", from);
	else
		snprintf(to, size, "...%s", from + len - (size - 4));
	disarm(to);
}

static bool is_known(const struct fsview *v, const struct fsview_shortfall *s)
{
	for (size_t i = 0; i < v->n_shortfalls; i++)
		if (v->shortfalls[i].lack == s->lack && !strcmp(v->shortfalls[i].where, s->where) &&
		    !strcmp(v->shortfalls[i].text, s->text))
			return true;
	return false;
}

void fsview_fall_short(struct fsview *v, enum fsview_lack lack, const char *where, const char *fmt, ...)
{
	struct fsview_shortfall s = { .lack = lack };
	va_list ap;

	shorten(s.where, sizeof(s.where), where);
	va_start(ap, fmt);
	vsnprintf(s.text, sizeof(s.text), fmt, ap);
	va_end(ap);
	disarm(s.text);
	if (is_known(v, &s))
		return;
	v->total_shortfalls++;
	if (v->n_shortfalls < FSVIEW_SHORTFALLS_MAX)
		v->shortfalls[v->n_shortfalls++] = s;
}

const struct fsview_shortfall *fsview_shortfalls(const struct fsview *v, size_t *n, uint64_t *total)
{
	*n = v->n_shortfalls;
	*total = v->total_shortfalls;
	return v->shortfalls;
}

int fsview_failed(struct fsview *v, const char *where, int code, const struct vd_error *e)
{
	static const struct { int code; enum fsview_lack lack; } kinds[] = {
		{ VD_ECORRUPT, FSVIEW_DAMAGED }, { VD_EUNSUPPORTED, FSVIEW_UNSUPPORTED }, { VD_EACCESS, FSVIEW_ACCESS },
		{ VD_EIO, FSVIEW_ACCESS }, { VD_EFAILED, FSVIEW_STOPPED }, { VD_ENOSPC, FSVIEW_LIMIT },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].code == code)
			fsview_fall_short(v, kinds[i].lack, where, "%s", e && e->message[0] ? e->message : lack_texts[kinds[i].lack]);
	return code;
}

void fsview_add_note(struct fsview *v, const char *fmt, ...)
{
	va_list ap;

	if (v->n_notes == FSVIEW_NOTES_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(v->notes[v->n_notes], sizeof(v->notes[0]), fmt, ap);
	va_end(ap);
	disarm(v->notes[v->n_notes++]);
}

const char *fsview_note(const struct fsview *v, size_t i)
{
	return i < v->n_notes ? v->notes[i] : NULL;
}

/* ---- volumes ---------------------------------------------------------------------------------------------- */

const struct fsview_volume *fsview_volume(const struct fsview *v, size_t i)
{
	return i < v->n_volumes ? &v->volumes[i] : NULL;
}

const char *fsview_table(const struct fsview *v)
{
	return v->table;
}

static int cannot_tell(struct vd_error *e)
{
	return fail(e, VD_EUNSUPPORTED, "this view of files cannot tell");
}

static int judge_volume(const struct fsview *v, size_t volume, struct vd_error *e)
{
	return volume < v->n_volumes ? 0 : fail(e, VD_EARG, "there is no volume %zu", volume);
}

int fsview_volume_read(struct fsview *v, size_t volume, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = judge_volume(v, volume, e);

	if (r < 0)
		return r;
	if (!v->backend->volume_read)
		return cannot_tell(e);
	if (off > v->volumes[volume].size || len > v->volumes[volume].size - off)
		return fail(e, VD_ERANGE, "%s: ends before byte %llu", v->volumes[volume].name, (unsigned long long)off + len);
	return fsview_failed(v, v->volumes[volume].name, v->backend->volume_read(v->ctx, volume, buf, len, off, e), e);
}

int fsview_volume_place(struct fsview *v, size_t volume, struct fsview_range where,
			int (*each)(void *ctx, const struct fsview_range *r), void *ctx, struct vd_error *e)
{
	int r = judge_volume(v, volume, e);

	if (r < 0)
		return r;
	if (!v->backend->volume_place)
		return cannot_tell(e);
	if (where.off > v->volumes[volume].size || where.len > v->volumes[volume].size - where.off)
		return fail(e, VD_ERANGE, "%s: the range lies outside", v->volumes[volume].name);
	return v->backend->volume_place(v->ctx, volume, where, each, ctx, e);
}

int fsview_gaps(struct fsview *v, int (*each)(void *ctx, const struct fsview_range *r), void *ctx, struct vd_error *e)
{
	return v->backend->gaps ? v->backend->gaps(v->ctx, each, ctx, e) : cannot_tell(e);
}

int fsview_free_ranges(struct fsview *v, size_t volume, int (*each)(void *ctx, const struct fsview_range *r), void *ctx,
		       struct vd_error *e)
{
	int r = judge_volume(v, volume, e);

	if (r < 0)
		return r;
	if (!v->backend->free_ranges)
		return cannot_tell(e);
	return fsview_failed(v, v->volumes[volume].name, v->backend->free_ranges(v->ctx, volume, each, ctx, e), e);
}

int fsview_deleted(struct fsview *v, size_t volume, int (*each)(void *ctx, const struct fsview_deleted *d), void *ctx,
		   struct vd_error *e)
{
	int r = judge_volume(v, volume, e);

	if (r < 0)
		return r;
	if (!v->backend->deleted)
		return cannot_tell(e);
	return fsview_failed(v, v->volumes[volume].name, v->backend->deleted(v->ctx, volume, each, ctx, e), e);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static int look_up(struct fsview *v, const char *path, bool follow, struct fsview_place *p, struct vd_error *e)
{
	return fsview_failed(v, path, fsview_follow(v, path, follow, p, e), e);
}

static int stat_by(struct fsview *v, const char *path, bool follow, struct fsview_stat *st, struct vd_error *e)
{
	struct fsview_place p;
	int r = look_up(v, path, follow, &p, e);

	if (r == 0)
		*st = p.st;
	return r;
}

int fsview_stat(struct fsview *v, const char *path, struct fsview_stat *st, struct vd_error *e)
{
	return stat_by(v, path, true, st, e);
}

int fsview_lstat(struct fsview *v, const char *path, struct fsview_stat *st, struct vd_error *e)
{
	return stat_by(v, path, false, st, e);
}

bool fsview_exists(struct fsview *v, const char *path)
{
	struct fsview_stat st;
	struct vd_error ignored;

	return fsview_stat(v, path, &st, &ignored) == 0;
}

int fsview_readlink(struct fsview *v, const char *path, char *buf, size_t size, struct vd_error *e)
{
	struct fsview_place p;
	int r = look_up(v, path, false, &p, e);

	if (r < 0)
		return r;
	if (!S_ISLNK(p.st.mode))
		return fail(e, VD_EARG, "%s: is no symbolic link", path);
	return fsview_failed(v, path, v->backend->readlink(v->ctx, p.volume, p.below, buf, size, e), e);
}

static int look_up_file(struct fsview *v, const char *path, struct fsview_place *p, struct vd_error *e)
{
	int r = look_up(v, path, true, p, e);

	if (r == 0 && !S_ISREG(p->st.mode))
		return fail(e, VD_EARG, "%s: is no regular file", path);
	return r;
}

static int read_at(struct fsview *v, const struct fsview_place *p, void *buf, size_t len, uint64_t off, size_t *got,
		   struct vd_error *e)
{
	size_t some = 1;

	*got = 0;
	while (*got < len && some) {
		int r = v->backend->read(v->ctx, p->volume, p->below, (char *)buf + *got, len - *got, off + *got, &some, e);

		if (r < 0)
			return fsview_failed(v, p->path, r, e);
		*got += some;
	}
	return 0;
}

int fsview_read(struct fsview *v, const char *path, void *buf, size_t len, uint64_t off, size_t *got, struct vd_error *e)
{
	struct fsview_place p;
	int r = look_up_file(v, path, &p, e);

	return r < 0 ? r : read_at(v, &p, buf, len, off, got, e);
}

int fsview_load(struct fsview *v, const char *path, size_t max, char **text, size_t *len, struct vd_error *e)
{
	struct fsview_place p;
	char *buf;
	int r = look_up_file(v, path, &p, e);

	if (r < 0)
		return r;
	if (p.st.size > max)
		return fail(e, VD_ERANGE, "%s: has %llu bytes, more than %zu", path, (unsigned long long)p.st.size, max);
	buf = malloc((size_t)p.st.size + 1);
	if (!buf)
		return fail(e, VD_ENOMEM, "%s: not enough memory for it", path);
	r = read_at(v, &p, buf, (size_t)p.st.size, 0, len, e);
	if (r < 0) {
		free(buf);
		return r;
	}
	buf[*len] = '\0';
	*text = buf;
	return 0;
}

int fsview_xattr(struct fsview *v, const char *path, const char *name, void *buf, size_t size, size_t *got, struct vd_error *e)
{
	struct fsview_place p;
	int r = look_up(v, path, false, &p, e);

	if (r < 0)
		return r;
	if (!v->backend->xattr)
		return cannot_tell(e);
	return fsview_failed(v, path, v->backend->xattr(v->ctx, p.volume, p.below, name, buf, size, got, e), e);
}

int fsview_blocks(struct fsview *v, const char *path, int (*each)(void *ctx, const struct fsview_block *b), void *ctx,
		  struct vd_error *e)
{
	struct fsview_place p;
	int r = look_up_file(v, path, &p, e);

	if (r < 0)
		return r;
	if (!v->backend->blocks)
		return cannot_tell(e);
	return fsview_failed(v, path, v->backend->blocks(v->ctx, p.volume, p.below, each, ctx, e), e);
}
