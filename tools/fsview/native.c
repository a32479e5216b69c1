/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The view of an image by the sandboxed reader: one process finds the volumes, and one for each volume reads its files, so
 * that what one of them does with its reader touches no other. The readers take file systems apart; this side reads the
 * image for them, sees to it that they answer in time, and believes nothing of what they say.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "fsview/backend.h"
#include "fsview/wire.h"
#include "signals.h"

#define REQUEST_MS 60000
#define ROUNDS_MAX 65536        /* requests in a row of which none is answered by anything */
#define FD_LOW 10               /* above those that the reader gets, so that giving them clobbers none */

struct reader {
	pid_t pid;              /* 0: not started; -1: gone */
	int socket;
	uint8_t *area;
};
struct place {
	struct fsview_range *pieces;
	size_t n;
	struct reader reader;
};
struct native {
	struct vd_image *img;
	uint64_t disk_size;
	char program[PATH_MAX];
	unsigned request_ms;
	struct fsview *v;
	struct place *places;           /* one a volume */
	struct fsview_range *gaps;
	size_t n_gaps;
};

/* ---- the process ------------------------------------------------------------------------------------------ */

/* Beside this program in the build tree and where it is installed. */
static int find_program(const struct fsview_opts *o, struct native *n, struct vd_error *e)
{
	char self[PATH_MAX];
	ssize_t len;

	if (o && o->reader) {
		snprintf(n->program, sizeof(n->program), "%s", o->reader);
		return 0;
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[len > 0 ? len : 0] = '\0';
	if (strrchr(self, '/'))
		strrchr(self, '/')[1] = '\0';
	snprintf(n->program, sizeof(n->program), "%.4000svdisk-fsview", self);
	if (len > 0 && access(n->program, X_OK) == 0)
		return 0;
	fail(e, VD_ENOENT, "%s: the program that reads file systems is not there", n->program);
	return fail_hint(e, VD_ENOENT, "it is installed with vdisk, in the same folder");
}

static int spawn(const struct native *n, struct reader *r, int theirs, int memory, struct vd_error *e)
{
	char *argv[] = { (char *)"vdisk-fsview", NULL }, *none[] = { NULL };
	posix_spawn_file_actions_t acts;
	int err;

	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_addopen(&acts, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&acts, 0, 1);
	posix_spawn_file_actions_adddup2(&acts, theirs, WIRE_SOCKET);
	posix_spawn_file_actions_adddup2(&acts, memory, WIRE_MEMORY);
	err = posix_spawn(&r->pid, n->program, &acts, NULL, argv, none);
	posix_spawn_file_actions_destroy(&acts);
	if (!err)
		return 0;
	r->pid = 0;
	return fail_errno(e, err, "%s", n->program);
}

static int start(const struct native *n, struct reader *r, struct vd_error *e)
{
	int pair[2], memory, theirs, code;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail_errno(e, errno, "a socket for the reader of file systems");
	memory = memfd_create("vdisk-fsview", MFD_CLOEXEC);
	r->area = MAP_FAILED;
	if (memory >= 0 && ftruncate(memory, (off_t)(2 * WIRE_HALF)) == 0)
		r->area = mmap(NULL, 2 * WIRE_HALF, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, FD_LOW);
	close(pair[1]);
	r->socket = pair[0];
	if (r->area == MAP_FAILED || theirs < 0) {
		code = fail_errno(e, errno, "memory for the reader of file systems");
		r->area = NULL;
	} else {
		int high = fcntl(memory, F_DUPFD_CLOEXEC, FD_LOW);

		code = spawn(n, r, theirs, high, e);
		close(high);
	}
	close(theirs);
	close(memory);
	return code;
}

static void stop(struct reader *r)
{
	if (r->pid > 0) {
		kill(r->pid, SIGKILL);
		while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (r->area) {
		munmap(r->area, 2 * WIRE_HALF);
		close(r->socket);
	}
	*r = (struct reader){ .pid = -1 };
}

/* ---- one request ------------------------------------------------------------------------------------------ */

struct ask {
	struct native *n;
	struct reader *r;
	const struct place *place;      /* NULL: the disk */
	uint64_t size;
	const char *where;
	int read_code;                  /* of the image, if that failed */
	struct vd_error read_error;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int read_pieces(const struct native *n, const struct place *p, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < p->n && len && r == 0; i++) {
		size_t some;

		if (off >= p->pieces[i].len) {
			off -= p->pieces[i].len;
			continue;
		}
		some = p->pieces[i].len - off < len ? (size_t)(p->pieces[i].len - off) : len;
		r = vd_image_pread(n->img, buf, some, p->pieces[i].off + off, e);
		buf += some;
		len -= some;
		off = 0;
	}
	return r == 0 && len ? fail(e, VD_ERANGE, "past the end of the volume") : r;
}

static int send_to(const struct reader *r, struct wire *w, const char *text)
{
	struct iovec parts[2] = { { w, sizeof(*w) }, { (void *)(uintptr_t)text, w->len } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

	return sendmsg(r->socket, &m, MSG_NOSIGNAL) < 0 ? VD_EFAILED : 0;
}

static int gone(struct ask *a, const char *why, struct vd_error *e)
{
	stop(a->r);
	return fail(e, VD_EFAILED, "%s: the reader of file systems %s", a->where, why);
}

/* The next message, before the time is over. */
static int receive_from(struct ask *a, uint64_t deadline, struct wire *w, char *text, size_t size, struct vd_error *e)
{
	struct iovec parts[2] = { { w, sizeof(*w) }, { text, size - 1 } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	struct pollfd p = { .fd = a->r->socket, .events = POLLIN };
	ssize_t n = -1;

	while (n < 0) {
		uint64_t now = now_ms();
		int ready, r = signals_check(e);

		if (r < 0) {
			stop(a->r);
			return r;
		}
		ready = now < deadline ? poll(&p, 1, (int)(deadline - now < 1000 ? deadline - now : 1000)) : 0;
		if (now >= deadline)
			return gone(a, "took too long, and was stopped", e);
		if (ready > 0)
			n = recvmsg(a->r->socket, &m, MSG_DONTWAIT);
		if (ready > 0 && (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)))
			return gone(a, "has died of what it read", e);
	}
	if (n < (ssize_t)sizeof(*w) || w->len != (size_t)n - sizeof(*w))
		return gone(a, "answers nonsense, and was stopped", e);
	text[w->len] = '\0';
	return 0;
}

static int give(struct ask *a, const struct wire *need, struct vd_error *e)
{
	struct wire w = { .kind = WIRE_GIVEN };

	if (!need->b || need->b > WIRE_HALF || need->a > a->size || need->b > a->size - need->a)
		return gone(a, "asks for what there is not, and was stopped", e);
	if (a->place)
		w.result = read_pieces(a->n, a->place, a->r->area, (size_t)need->b, need->a, &a->read_error);
	else
		w.result = vd_image_pread(a->n->img, a->r->area, (size_t)need->b, need->a, &a->read_error);
	if (w.result < 0)
		a->read_code = w.result;
	return send_to(a->r, &w, NULL) < 0 ? gone(a, "has died of what it read", e) : 0;
}

/* What the reader says went wrong: only what it may say counts. */
static int refused(struct ask *a, int code, const char *text, struct vd_error *e)
{
	static const int allowed[] = { VD_ENOENT, VD_ECORRUPT, VD_EUNSUPPORTED, VD_ERANGE, VD_ENOSPC };

	if (a->read_code < 0) {
		*e = a->read_error;
		return a->read_code;
	}
	if (code == VD_ENOMEM)
		return gone(a, "needs more memory than it gets, and was stopped", e);
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (allowed[i] == code)
			return fail(e, code == VD_ERANGE ? VD_ECORRUPT : code, "%s: %s", a->where, text);
	return fail(e, VD_ECORRUPT, "%s: %s", a->where, text);
}

/* The answer is in the second half of the area afterwards, w->b bytes of it. */
static int ask(struct ask *a, struct wire *w, const char *text, struct vd_error *e)
{
	uint64_t deadline = now_ms() + a->n->request_ms;
	char said[1024];
	int r;

	if (a->r->pid == 0)
		return fail(e, VD_EUNSUPPORTED, "%s: nothing here reads it", a->where);
	if (a->r->pid < 0)
		return fail(e, VD_EFAILED, "%s: the reader of file systems was stopped", a->where);
	if (send_to(a->r, w, text) < 0)
		return gone(a, "has died of what it read", e);
	for (;;) {
		r = receive_from(a, deadline, w, said, sizeof(said), e);
		if (r == 0 && w->kind == WIRE_NEED)
			r = give(a, w, e);
		else if (r == 0)
			break;
		if (r < 0)
			return r;
	}
	if (w->kind != WIRE_DONE || w->b > WIRE_HALF)
		return gone(a, "answers nonsense, and was stopped", e);
	return w->result < 0 ? refused(a, w->result, said, e) : 0;
}

/* A copy of the answer from `at` on, which the reader cannot change any more. False: it ends before. */
static bool take(const struct reader *r, const struct wire *w, size_t *at, void *to, size_t len)
{
	if (*at > w->b || len > w->b - *at)
		return false;
	memcpy(to, r->area + WIRE_HALF + *at, len);
	*at += len;
	return true;
}

static int nonsense(struct ask *a, struct vd_error *e)
{
	return gone(a, "answers nonsense, and was stopped", e);
}

/* ---- files ------------------------------------------------------------------------------------------------ */

/* Texts of the reader end, and hold nothing that a terminal obeys. */
static void tame(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static struct ask of_volume(void *ctx, size_t volume)
{
	struct native *n = ctx;

	return (struct ask){ .n = n, .r = &n->places[volume].reader, .place = &n->places[volume],
			     .size = n->v->volumes[volume].size, .where = n->v->volumes[volume].name };
}

/* Starts the volume's reader at its first use. */
static int open_reader(struct ask *a, struct fsview_volume *v, struct vd_error *e)
{
	struct wire w = { .kind = WIRE_OPEN, .a = v->size, .b = v->fs };
	struct wire_opened o;
	size_t at = 0;
	int r = start(a->n, a->r, e);

	if (r == 0)
		r = ask(a, &w, NULL, e);
	if (r == 0 && !take(a->r, &w, &at, &o, sizeof(o)))
		r = nonsense(a, e);
	if (r < 0) {
		stop(a->r);
		return r;
	}
	tame(o.label, sizeof(o.label));
	if (o.label[0])
		snprintf(v->label, sizeof(v->label), "%s", o.label);
	v->block_size = o.block_size;
	v->is_dirty = o.is_dirty;
	v->is_readable = true;
	return 0;
}

static int ask_path(struct ask *a, struct wire *w, const char *path, struct vd_error *e)
{
	w->len = (uint32_t)strlen(path);
	return w->len > WIRE_TEXT_MAX ? fail(e, VD_ENOSPC, "%s: a path is too long", a->where) : ask(a, w, path, e);
}

static int lookup(void *ctx, size_t volume, const char *path, struct fsview_found *f, struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	struct wire w = { .kind = WIRE_LOOKUP };
	size_t at = 0;
	int r = ask_path(&a, &w, path, e);

	if (r < 0)
		return r;
	f->used = (size_t)w.a;
	return take(a.r, &w, &at, &f->st, sizeof(f->st)) && w.a <= strlen(path) ? 0 : nonsense(&a, e);
}

static int read_link(void *ctx, size_t volume, const char *path, char *buf, size_t size, struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	struct wire w = { .kind = WIRE_READLINK };
	size_t at = 0;
	int r = ask_path(&a, &w, path, e);

	if (r < 0)
		return r;
	if (w.a >= size)
		return fail(e, VD_ERANGE, "%s: a link is longer than %zu bytes", a.where, size - 1);
	if (!take(a.r, &w, &at, buf, (size_t)w.a))
		return nonsense(&a, e);
	buf[w.a] = '\0';
	return 0;
}

/* Entries from the answer into the batch, which takes fewer: the cursor says for the next time how many to leave out. */
#define SKIP_BITS 14
static int take_entries(struct ask *a, const struct wire *w, size_t skip, size_t *taken, struct fsview_batch *b, struct vd_error *e)
{
	char name[FSVIEW_NAME_MAX];
	struct wire_entry entry;
	size_t at = 0, i = 0;

	for (*taken = 0; at < w->b; i++) {
		if (!take(a->r, w, &at, &entry, sizeof(entry)) || !entry.name_len || entry.name_len >= sizeof(name) ||
		    !take(a->r, w, &at, name, entry.name_len) || memchr(name, '/', entry.name_len) || memchr(name, 0, entry.name_len))
			return nonsense(a, e);
		at = WIRE_ALIGN(at);
		if (i < skip)
			continue;
		if (!fsview_batch_add(b, name, entry.name_len, &entry.st))
			return 0;
		++*taken;
	}
	*taken = SIZE_MAX;
	return 0;
}

/*
 * An answer holds more than a batch. Where in it the next batch begins is kept beside the reader's cursor: what was read
 * once is asked for again, and comes from its cache.
 */
static int read_dir(void *ctx, size_t volume, const char *path, uint64_t *cursor, struct fsview_batch *b, struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	struct wire w = { .kind = WIRE_READDIR, .a = *cursor >> SKIP_BITS };
	size_t skip = (size_t)(*cursor & ((1U << SKIP_BITS) - 1)), taken = 0;
	int r = ask_path(&a, &w, path, e);

	if (r == 0)
		r = take_entries(&a, &w, skip, &taken, b, e);
	if (r < 0)
		return r;
	if (taken != SIZE_MAX)
		*cursor += taken;
	else if (w.a == FSVIEW_CURSOR_END)
		*cursor = FSVIEW_CURSOR_END;
	else if (w.a >> (64 - SKIP_BITS) || w.a <= *cursor >> SKIP_BITS)
		return nonsense(&a, e);
	else
		*cursor = w.a << SKIP_BITS;
	return 0;
}

static int read_file(void *ctx, size_t volume, const char *path, void *buf, size_t len, uint64_t off, size_t *got, struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	struct wire w = { .kind = WIRE_READ, .a = off, .b = len < WIRE_HALF ? len : WIRE_HALF };
	size_t at = 0, wanted = (size_t)w.b;
	int r = ask_path(&a, &w, path, e);

	if (r < 0)
		return r;
	*got = (size_t)w.a;
	return w.a <= wanted && take(a.r, &w, &at, buf, *got) ? 0 : nonsense(&a, e);
}

static int read_xattr(void *ctx, size_t volume, const char *path, const char *name, void *buf, size_t size, size_t *got,
		      struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	char text[WIRE_TEXT_MAX];
	int n = snprintf(text, sizeof(text), "%s%c%s", path, 0, name);
	struct wire w = { .kind = WIRE_XATTR, .len = (uint32_t)n };
	size_t at = 0;
	int r = n < 0 || (size_t)n >= sizeof(text) ? fail(e, VD_ENOSPC, "%s: a path is too long", a.where) : ask(&a, &w, text, e);

	if (r < 0)
		return r;
	*got = (size_t)w.a;
	if (w.a > size)
		return fail(e, VD_ERANGE, "%s: an attribute is longer than %zu bytes", a.where, size);
	return take(a.r, &w, &at, buf, *got) ? 0 : nonsense(&a, e);
}

/* ---- lists ------------------------------------------------------------------------------------------------ */

struct list {
	uint32_t kind;
	const char *path;               /* or NULL */
	/* One of them: whom the things are for. */
	int (*range)(void *ctx, const struct fsview_range *r);
	int (*block)(void *ctx, const struct fsview_block *b);
	int (*deleted)(void *ctx, const struct fsview_deleted *d);
	void *ctx;
};

static bool take_deleted(const struct reader *r, const struct wire *w, size_t *at, struct fsview_deleted *d)
{
	struct wire_deleted raw;

	if (!take(r, w, at, &raw, sizeof(raw)) || raw.name_len >= sizeof(d->name))
		return false;
	*d = (struct fsview_deleted){ .ino = raw.ino, .size = raw.size, .time = raw.time, .mode = raw.mode };
	if (!take(r, w, at, d->name, raw.name_len))
		return false;
	*at = WIRE_ALIGN(*at);
	return true;
}

/* One thing of a copied answer. */
static int tell_one(struct ask *a, const struct list *l, const struct reader *copy, const struct wire *w, size_t *at, struct vd_error *e)
{
	struct fsview_range range;
	struct fsview_block block;
	struct fsview_deleted deleted;

	if (l->range)
		return take(copy, w, at, &range, sizeof(range)) ? l->range(l->ctx, &range) : nonsense(a, e);
	if (l->block)
		return take(copy, w, at, &block, sizeof(block)) ? l->block(l->ctx, &block) : nonsense(a, e);
	return take_deleted(copy, w, at, &deleted) ? l->deleted(l->ctx, &deleted) : nonsense(a, e);
}

/* The answer is copied, since callbacks may ask for other things. */
static int tell_all(struct ask *a, const struct list *l, const struct wire *w, struct vd_error *e)
{
	struct reader copy = { .area = malloc(WIRE_HALF + (size_t)w->b + 1) };
	size_t at = 0;
	int r = 0;

	if (!copy.area)
		return fail(e, VD_ENOMEM, "not enough memory for an answer");
	memcpy(copy.area + WIRE_HALF, a->r->area + WIRE_HALF, (size_t)w->b);
	while (r == 0 && at < w->b)
		r = tell_one(a, l, &copy, w, &at, e);
	free(copy.area);
	return r;
}

static int ask_list(void *ctx, size_t volume, const struct list *l, struct vd_error *e)
{
	struct ask a = of_volume(ctx, volume);
	uint64_t cursor = 0;
	unsigned rounds = 0;
	int r = 0;

	while (r == 0 && cursor != FSVIEW_CURSOR_END) {
		struct wire w = { .kind = l->kind, .a = cursor };

		r = l->path ? ask_path(&a, &w, l->path, e) : ask(&a, &w, NULL, e);
		if (r < 0)
			return r;
		if (w.a <= cursor)
			return nonsense(&a, e);
		cursor = w.a;
		rounds = w.b ? 0 : rounds + 1;
		if (rounds == ROUNDS_MAX)
			return fail(e, VD_ENOSPC, "%s: there is more than can be gone through", a.where);
		r = tell_all(&a, l, &w, e);
	}
	return r;
}

static int blocks(void *ctx, size_t volume, const char *path, int (*each)(void *, const struct fsview_block *), void *each_ctx,
		  struct vd_error *e)
{
	return ask_list(ctx, volume, &(struct list){ .kind = WIRE_BLOCKS, .path = path, .block = each, .ctx = each_ctx }, e);
}

static int free_ranges(void *ctx, size_t volume, int (*each)(void *, const struct fsview_range *), void *each_ctx, struct vd_error *e)
{
	return ask_list(ctx, volume, &(struct list){ .kind = WIRE_FREE, .range = each, .ctx = each_ctx }, e);
}

static int deleted(void *ctx, size_t volume, int (*each)(void *, const struct fsview_deleted *), void *each_ctx, struct vd_error *e)
{
	return ask_list(ctx, volume, &(struct list){ .kind = WIRE_DELETED, .deleted = each, .ctx = each_ctx }, e);
}

/* ---- places ----------------------------------------------------------------------------------------------- */

static int volume_read(void *ctx, size_t volume, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct native *n = ctx;

	return read_pieces(n, &n->places[volume], buf, len, off, e);
}

static int volume_place(void *ctx, size_t volume, struct fsview_range where, int (*each)(void *, const struct fsview_range *),
			void *each_ctx, struct vd_error *e)
{
	const struct native *n = ctx;
	const struct place *p = &n->places[volume];
	int r = 0;

	(void)e;
	for (size_t i = 0; i < p->n && where.len && r == 0; i++) {
		struct fsview_range part;

		if (where.off >= p->pieces[i].len) {
			where.off -= p->pieces[i].len;
			continue;
		}
		part.off = p->pieces[i].off + where.off;
		part.len = p->pieces[i].len - where.off < where.len ? p->pieces[i].len - where.off : where.len;
		where.len -= part.len;
		where.off = 0;
		r = each(each_ctx, &part);
	}
	return r;
}

static int gaps(void *ctx, int (*each)(void *, const struct fsview_range *), void *each_ctx, struct vd_error *e)
{
	const struct native *n = ctx;
	int r = 0;

	(void)e;
	for (size_t i = 0; i < n->n_gaps && r == 0; i++)
		r = each(each_ctx, &n->gaps[i]);
	return r;
}

static void close_native(void *ctx)
{
	struct native *n = ctx;

	for (size_t i = 0; n->places && i < FSVIEW_VOLUMES_MAX; i++) {
		stop(&n->places[i].reader);
		free(n->places[i].pieces);
	}
	free(n->places);
	free(n->gaps);
	free(n);
}

static const struct fsview_backend native_backend = {
	lookup, read_link, read_dir, read_file, read_xattr, blocks, free_ranges, deleted, volume_read, volume_place, gaps, close_native,
};

/* ---- opening ---------------------------------------------------------------------------------------------- */

static void tame_volume(struct wire_volume *w)
{
	tame(w->v.name, sizeof(w->v.name));
	tame(w->v.label, sizeof(w->v.label));
	tame(w->v.uuid, sizeof(w->v.uuid));
	tame(w->v.part_label, sizeof(w->v.part_label));
	tame(w->v.part_uuid, sizeof(w->v.part_uuid));
	tame(w->v.part_type, sizeof(w->v.part_type));
	tame(w->why, sizeof(w->why));
	w->v.mounted_at[0] = '\0';
	w->v.is_readable = w->v.is_dirty = false;
	w->v.block_size = 0;
}

/* Pieces have to lie on the disk and to be as long as they say together. */
static bool are_sound(const struct native *n, const struct wire_volume *w, const struct fsview_range *pieces)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < w->n_pieces; i++) {
		if (pieces[i].off > n->disk_size || pieces[i].len > n->disk_size - pieces[i].off)
			return false;
		if (__builtin_add_overflow(sum, pieces[i].len, &sum))
			return false;
	}
	return !w->n_pieces || !w->v.name[0] || sum == w->v.size;
}

static int add_gap(struct native *n, struct fsview_range gap, struct vd_error *e)
{
	struct fsview_range *more = realloc(n->gaps, (n->n_gaps + 1) * sizeof(*more));

	if (!more)
		return fail(e, VD_ENOMEM, "not enough memory");
	n->gaps = more;
	n->gaps[n->n_gaps++] = gap;
	return 0;
}

static int add_volume(struct native *n, const struct wire_volume *w, const struct fsview_range *pieces, struct vd_error *e)
{
	struct fsview *v = n->v;
	struct place *p = &n->places[v->n_volumes];

	if (w->lack && w->lack <= FSVIEW_N_LACKS)
		fsview_fall_short(v, (enum fsview_lack)(w->lack - 1), w->v.name, "%s", w->why);
	if (!w->n_pieces)
		return 0;
	if (!w->v.name[0])
		return add_gap(n, pieces[0], e);
	if (v->n_volumes == FSVIEW_VOLUMES_MAX) {
		fsview_fall_short(v, FSVIEW_LIMIT, "", "there are more than %d volumes", FSVIEW_VOLUMES_MAX);
		return 0;
	}
	p->pieces = malloc(w->n_pieces * sizeof(*pieces));
	if (!p->pieces)
		return fail(e, VD_ENOMEM, "not enough memory");
	memcpy(p->pieces, pieces, w->n_pieces * sizeof(*pieces));
	p->n = w->n_pieces;
	v->volumes[v->n_volumes] = w->v;
	if ((unsigned)w->v.fs >= FSVIEW_N_FS)
		v->volumes[v->n_volumes].fs = FSVIEW_FS_UNKNOWN;
	v->n_volumes++;
	return 0;
}

static const char *table_name(const char *said)
{
	return !strcmp(said, "gpt") ? "gpt" : !strcmp(said, "mbr") ? "mbr" : "none";
}

static int take_volumes(struct native *n, struct ask *a, const struct wire *w, struct vd_error *e)
{
	struct fsview_range pieces[WIRE_PIECES_MAX];
	struct wire_volume got;
	size_t at = 0;
	int r = 0;

	for (size_t i = 0; at < w->b && r == 0; i++) {
		if (!take(a->r, w, &at, &got, sizeof(got)) || got.n_pieces > WIRE_PIECES_MAX ||
		    !take(a->r, w, &at, pieces, got.n_pieces * sizeof(pieces[0])))
			return nonsense(a, e);
		at = WIRE_ALIGN(at);
		tame_volume(&got);
		if (!are_sound(n, &got, pieces))
			return nonsense(a, e);
		if (i == 0)
			n->v->table = table_name(got.v.name);
		r = add_volume(n, &got, pieces, e);
	}
	return r;
}

/* What the first process finds. It is gone afterwards. */
static int list_volumes(struct native *n, struct vd_error *e)
{
	struct reader reader = { 0 };
	struct ask a = { .n = n, .r = &reader, .size = n->disk_size, .where = "disk" };
	struct wire w = { .kind = WIRE_LIST, .a = n->disk_size };
	int r = start(n, &reader, e), code = r;

	if (r == 0)
		code = ask(&a, &w, NULL, e);
	if (r == 0 && code == 0)
		code = take_volumes(n, &a, &w, e);
	stop(&reader);
	/* A reader that cannot be started is a failure, one that was confounded by the disk a shortfall. */
	if (r == 0 && (code == VD_EFAILED || code == VD_ECORRUPT)) {
		fsview_failed(n->v, "disk", code, e);
		return 0;
	}
	return code;
}

static void open_volumes(struct native *n)
{
	for (size_t i = 0; i < n->v->n_volumes; i++) {
		struct fsview_volume *v = &n->v->volumes[i];
		struct ask a = of_volume(n, i);
		struct vd_error e = { 0 };
		int r;

		if (v->fs != FSVIEW_FS_EXT && v->fs != FSVIEW_FS_NTFS && v->fs != FSVIEW_FS_FAT)
			continue;
		r = open_reader(&a, v, &e);
		if (r < 0)
			fsview_failed(n->v, v->name, r == VD_ENOENT ? VD_EUNSUPPORTED : r, &e);
	}
}

int fsview_open(struct vd_image *img, const struct fsview_opts *opts, struct fsview **out, struct vd_error *e)
{
	struct native *n = calloc(1, sizeof(*n));
	struct fsview *v = NULL;
	int r;

	if (!n || !(n->places = calloc(FSVIEW_VOLUMES_MAX, sizeof(*n->places)))) {
		free(n);
		return fail(e, VD_ENOMEM, "not enough memory for a view of the image");
	}
	n->img = img;
	n->disk_size = vd_image_size(img);
	n->request_ms = opts && opts->request_ms ? opts->request_ms : REQUEST_MS;
	r = find_program(opts, n, e);
	if (r == 0)
		r = fsview_new(&native_backend, n, &v, e);
	if (r < 0) {
		close_native(n);
		return r;
	}
	n->v = v;
	r = list_volumes(n, e);
	if (r == 0) {
		open_volumes(n);
		r = fsview_mount_all(v, e);
	}
	if (r < 0)
		fsview_close(v);
	else
		*out = v;
	return r;
}
