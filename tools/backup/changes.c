/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asks the sources of changed blocks in turn, and keeps what a snapshot has to remember. What a source is and when it is to be doubted, each knows for
 * itself (changes_bitmap.c and its neighbours); here is what makes all of them worthless: another size, other files below the image.
 */
#include "backup/changes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "backup/changes_sources.h"
#include "backup/live.h"
#include "fail.h"

int in_doubt(char why[CHANGES_WHY_SIZE], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, CHANGES_WHY_SIZE, fmt, ap);
	va_end(ap);
	return 0;
}

/* ---- marks ---------------------------------------------------------------------------------------------- */

bool mark_get(const char *mark, const char *key, char value[MARK_VALUE_SIZE])
{
	size_t n = strlen(key), len;

	for (const char *at = mark; at && *at; at = strchr(at, ';') ? strchr(at, ';') + 1 : NULL) {
		if (strncmp(at, key, n) || at[n] != '=')
			continue;
		at += n + 1;
		len = strcspn(at, ";");
		if (len >= MARK_VALUE_SIZE)
			return false;
		memcpy(value, at, len);
		value[len] = 0;
		return true;
	}
	return false;
}

bool mark_get_u64(const char *mark, const char *key, uint64_t *value)
{
	char text[MARK_VALUE_SIZE], *end;

	if (!mark_get(mark, key, text) || text[0] < '0' || text[0] > '9')
		return false;
	*value = strtoull(text, &end, 10);
	return !*end;
}

void mark_put(struct changes *c, const char *key, const char *fmt, ...)
{
	size_t room = sizeof(c->mark) - c->mark_len, n;
	char value[MARK_VALUE_SIZE];
	va_list ap;

	va_start(ap, fmt);
	n = (size_t)vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (n >= sizeof(value) || strlen(key) + n + 2 >= room)
		return;
	c->mark_len += (size_t)snprintf(c->mark + c->mark_len, room, "%s%s=%s", c->mark_len ? ";" : "", key, value);
}

/* ---- the files below ------------------------------------------------------------------------------------ */

struct digest {
	uint64_t value;                 /* FNV-1a: nobody gains by a collision */
	bool can_tell;
};

static void digest_add(struct digest *d, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++)
		d->value = (d->value ^ p[i]) * UINT64_C(0x100000001b3);
}

/* A file that is written has another size or time. Of devices nothing tells that they were. */
static void digest_file(struct digest *d, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
		d->can_tell = false;
		return;
	}
	digest_add(d, path, strlen(path) + 1);
	digest_add(d, &st.st_size, sizeof(st.st_size));
	digest_add(d, &st.st_mtim, sizeof(st.st_mtim));
}

/* What records changes of an image sees none of those that are made below it. */
static struct digest digest_chain(struct vd_image *img)
{
	struct digest d = { UINT64_C(0xcbf29ce484222325), true };

	for (struct vd_image *layer = vd_image_parent(img); layer; layer = vd_image_parent(layer))
		for (uint32_t i = 0; i < vd_host_file_count(layer); i++)
			digest_file(&d, vd_host_file_name(layer, i));
	return d;
}

/* ---- one backup ----------------------------------------------------------------------------------------- */

/* A name of our own: not one that was made for another chain of backups of the same image. */
static int choose_series(struct changes *c, struct vd_error *e)
{
	char name[MARK_VALUE_SIZE];
	uint64_t random;

	if (c->want->mark && mark_get(c->want->mark, "series", name) && strlen(name) == sizeof(c->series) - 1 &&
	    strspn(name, "0123456789abcdef") == sizeof(c->series) - 1) {
		memcpy(c->series, name, sizeof(c->series));
		return 0;
	}
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return fail(e, VD_EFAILED, "the system gives no random bytes");
	snprintf(c->series, sizeof(c->series), "%016" PRIx64, random);
	return 0;
}

static void take_base(struct changes *c)
{
	char name[MARK_VALUE_SIZE];

	if (c->want->mark && mark_get(c->want->mark, "bitmap", name) && strlen(name) < sizeof(c->base_bitmap))
		memcpy(c->base_bitmap, name, strlen(name) + 1);
}

/* The moment of the backup is that of the call. */
static int begin_live(struct changes *c, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	struct live_want w = { .qmp = c->want->qmp, .agent = c->want->agent, .image = c->path };
	char prefix[64], fresh[sizeof(c->fresh)] = "";
	struct live_doubts doubts;
	int r = 0;

	if (c->opts->snapshot || c->want->list || c->want->nbd || c->want->bitmap)
		return fail(e, VD_EARG, "of a running machine's disk its qemu tells what changed: nothing else goes with that");
	if (c->want->tracks)
		r = changes_bitmap_name(c, fresh, e);
	if (r < 0)
		return r;
	changes_bitmap_prefix(c, prefix);
	w.leftovers = prefix;
	w.fresh_bitmap = fresh;
	if (c->want->is_automatic && mark_get_u64(c->want->mark, "granularity", &w.base_granularity))
		w.base_bitmap = c->base_bitmap;
	r = live_begin(&w, &c->live, &doubts, e);
	if (r < 0)
		return r;
	memcpy(c->live_doubt, doubts.base, sizeof(c->live_doubt));
	memcpy(why, doubts.fresh, CHANGES_WHY_SIZE);
	if (live_has_fresh(c->live))
		memcpy(c->fresh, fresh, sizeof(fresh));
	return 0;
}

int changes_begin(const char *path, const struct vd_open_opts *opts, const struct changes_want *want, struct changes **out,
		  char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	struct changes *c = calloc(1, sizeof(*c));
	int r;

	why[0] = 0;
	if (!c)
		return fail(e, VD_ENOMEM, "not enough memory");
	c->path = path;
	c->opts = opts;
	c->want = want;
	r = choose_series(c, e);
	if (r < 0) {
		free(c);
		return r;
	}
	take_base(c);
	if (want->qmp)
		r = begin_live(c, why, e);
	else if (want->tracks)
		changes_bitmap_make(c, why);
	if (r < 0)
		free(c);
	else
		*out = c;
	return r;
}

const char *changes_path(const struct changes *c)
{
	return c->live ? live_uri(c->live) : c->path;
}

/* Whether the base is of this disk, as far as it can be told without any source. */
static int judge_base(const struct changes *c, struct vd_image *img, const struct digest *chain, char why[CHANGES_WHY_SIZE])
{
	const char *mark = c->want->mark;
	char digest[MARK_VALUE_SIZE];
	uint64_t size;

	if (!mark)
		return in_doubt(why, "no base");
	if (c->opts->snapshot)
		return in_doubt(why, "nothing records changes of a snapshot");
	if (!mark_get_u64(mark, "size", &size) || !mark_get(mark, "chain", digest))
		return in_doubt(why, "the base kept no mark");
	if (size != vd_image_size(img))
		return in_doubt(why, "the disk had another size");
	if (!chain->can_tell)
		return in_doubt(why, "nothing tells whether the backing files have changed");
	if (strtoull(digest, NULL, 16) != chain->value)
		return in_doubt(why, "the backing files have changed");
	return 1;
}

typedef int (*source_fn)(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);

struct source {
	const char *name;
	source_fn look;
	bool is_wanted;
};

/* The first that knows is the one, the first that doubts the reason. Without a base they are asked for what they leave in the mark. */
static int ask(struct changes *c, struct vd_image *img, const struct source *sources, bool is_base, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	char doubt[CHANGES_WHY_SIZE];
	int r;

	for (const struct source *s = sources; s->name; s++) {
		if (!s->is_wanted)
			continue;
		r = s->look(c, img, doubt, e);
		if (r < 0)
			return r;
		if (r == 1 && is_base) {
			c->source = s->name;
			return 1;
		}
		if (r == 0 && !why[0])
			memcpy(why, doubt, sizeof(doubt));
		blockset_fini(&c->set);
		if (!blockset_init(&c->set, vd_image_size(img)))
			return fail(e, VD_ENOMEM, "not enough memory");
	}
	if (!why[0])
		in_doubt(why, "nothing tells changes");
	return 0;
}

int changes_look(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	const struct changes_want *w = c->want;
	struct digest chain = digest_chain(img);
	int is_base, r;

	why[0] = 0;
	if (!blockset_init(&c->set, vd_image_size(img)))
		return fail(e, VD_ENOMEM, "not enough memory");
	mark_put(c, "size", "%" PRIu64, vd_image_size(img));
	mark_put(c, "chain", "%016" PRIx64, chain.value);
	mark_put(c, "series", "%s", c->series);
	is_base = judge_base(c, img, &chain, why);
	r = ask(c, img, (const struct source[]){
		{ "list", changes_of_list, w->list },
		{ "NBD bitmap", changes_of_nbd, is_base && (w->nbd || c->live) },
		{ "qcow2 bitmap", changes_of_bitmap, is_base && !c->live && ((w->bitmap && !w->nbd) || (w->is_automatic && c->base_bitmap[0])) },
		{ "VMware CTK", changes_of_ctk, w->is_automatic && w->trusts_ctk },
		{ 0 },
	}, is_base, why, e);
	changes_bitmap_mark(c, vd_image_size(img));
	if (r == 1)
		why[0] = 0;
	return r;
}

void changes_next(const struct changes *c, uint64_t off, struct change_range *r)
{
	blockset_next(&c->set, off, &r->off, &r->len);
}

uint64_t changes_bytes(const struct changes *c)
{
	return blockset_bytes(&c->set);
}

const char *changes_source(const struct changes *c)
{
	return c->source;
}

const char *changes_mark(const struct changes *c)
{
	return c->mark;
}

int changes_settle(struct changes *c, bool is_durable, struct vd_error *e)
{
	/* Without a new one, the base's records since an earlier time, which is no less than since now. */
	const char *name = is_durable && c->fresh[0] ? c->base_bitmap : is_durable ? "" : c->fresh;

	struct live *live = c->live;

	c->live = NULL;
	if (live)
		return live_end(live, name, e);
	return name[0] ? changes_bitmap_remove(c, name, e) : 0;
}

void changes_close(struct changes *c)
{
	struct vd_error ignored;

	if (!c)
		return;
	/* Not settled: nobody needs the new one. */
	live_end(c->live, c->fresh, &ignored);
	blockset_fini(&c->set);
	free(c);
}
