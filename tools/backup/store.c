/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds the store that an address names, and judges what is asked of it. How objects get there is store_folder.c and store_rest.c. */
#include <stdlib.h>
#include <string.h>

#include "backup/store_kind.h"
#include "fail.h"

#define REST "rest:"

const char *store_place(enum store_kind kind)
{
	static const char *const places[] = {
		[STORE_CONFIG] = "config", [STORE_KEY] = "keys", [STORE_LOCK] = "locks",
		[STORE_SNAPSHOT] = "snapshots", [STORE_INDEX] = "index", [STORE_PACK] = "data",
	};

	return places[kind];
}

bool store_is_name(const char *name)
{
	return strspn(name, "0123456789abcdef") == STORE_NAME_SIZE - 1 && !name[STORE_NAME_SIZE - 1];
}

uint64_t store_sum(const struct iovec *pieces, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += pieces[i].iov_len;
	return sum;
}

bool store_is_same(const struct iovec *pieces, int n_pieces, uint64_t off, const uint8_t *bytes, size_t n)
{
	for (int i = 0; i < n_pieces && n > 0; i++) {
		size_t here;

		if (off >= pieces[i].iov_len) {
			off -= pieces[i].iov_len;
			continue;
		}
		here = pieces[i].iov_len - off < n ? pieces[i].iov_len - off : n;
		if (memcmp((const uint8_t *)pieces[i].iov_base + off, bytes, here) != 0)
			return false;
		bytes += here;
		n -= here;
		off = 0;
	}
	return n == 0;
}

int store_refuse_full(const struct store *s, const char *what, struct vd_error *e)
{
	fail(e, VD_EEXIST, "%s: %s is there already", s->where, what);
	return fail_hint(e, VD_EEXIST, "a repository is made in a place where nothing is yet");
}

int store_refuse_other(const struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	fail(e, VD_EEXIST, "%s: %s%s%s is there with another content", s->where, store_place(kind), *name ? "/" : "", name);
	return fail_hint(e, VD_EEXIST, "vdisk verify tells what is damaged");
}

int store_refuse_short(const struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	return fail(e, VD_ECORRUPT, "%s: %s%s%s is shorter than it has to be", s->where, store_place(kind), *name ? "/" : "", name);
}

static int judge(const struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	if (kind == STORE_CONFIG ? !*name : store_is_name(name))
		return 0;
	return fail(e, VD_EARG, "%s: '%s' is no name of an object", s->where, name);
}

static int open_any(const char *where, const struct store_access *access, bool creates, struct store **out, struct vd_error *e)
{
	static const struct store_access none;

	*out = NULL;
	if (!strncmp(where, REST, strlen(REST))) {
#ifdef VD_HAVE_CURL
		return store_rest_open(where, access ? access : &none, creates, out, e);
#else
		(void)access, (void)none;
		return fail(e, VD_EUNSUPPORTED, "%s: this vdisk was built without libcurl", where);
#endif
	}
	return store_folder_open(where, creates, out, e);
}

int store_open(const char *where, const struct store_access *access, struct store **out, struct vd_error *e)
{
	return open_any(where, access, false, out, e);
}

int store_create(const char *where, const struct store_access *access, struct store **out, struct vd_error *e)
{
	return open_any(where, access, true, out, e);
}

void store_close(struct store *s)
{
	if (!s)
		return;
	free(s->where);
	s->acts->close(s);
}

const char *store_where(const struct store *s)
{
	return s->where;
}

int store_put(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e)
{
	int r = judge(s, kind, name, e);

	return r < 0 ? r : s->acts->put(s, kind, name, pieces, n, e);
}

int store_get(struct store *s, enum store_kind kind, const char *name, uint64_t off, void *buf, size_t n, struct vd_error *e)
{
	int r = judge(s, kind, name, e);

	if (r == 0 && off > INT64_MAX - (uint64_t)n)
		r = store_refuse_short(s, kind, name, e);
	return r < 0 ? r : s->acts->get(s, kind, name, off, buf, n, e);
}

int store_size(struct store *s, enum store_kind kind, const char *name, uint64_t *size, struct vd_error *e)
{
	int r = judge(s, kind, name, e);

	return r < 0 ? r : s->acts->size(s, kind, name, size, e);
}

int store_list(struct store *s, enum store_kind kind, int (*each)(void *ctx, const char *name, uint64_t size), void *ctx, struct vd_error *e)
{
	if (kind == STORE_CONFIG)
		return fail(e, VD_EARG, "%s: there is one config, and no list", s->where);
	return s->acts->list(s, kind, each, ctx, e);
}

int store_remove(struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	int r = judge(s, kind, name, e);

	return r < 0 ? r : s->acts->remove(s, kind, name, e);
}
