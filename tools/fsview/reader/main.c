/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reader: answers one request after another, from a cell that it cannot leave. What files are is the file systems' business. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fsview/reader/reader.h"

#define CHUNK ((size_t)65536)
#define CHUNKS 128              /* 8 MiB of cache */

static uint8_t *area;           /* the memory that the view has mapped, too */
static size_t answered;
static struct { uint64_t at; uint8_t *bytes; } cache[CHUNKS];   /* at: chunk number + 1 */
static const struct filesystem *fs;
static struct device volume;

/* ---- messages --------------------------------------------------------------------------------------------- */

static void send_message(struct wire *w, const char *text)
{
	struct iovec parts[2] = { { w, sizeof(*w) }, { (void *)(uintptr_t)text, w->len } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

	if (sendmsg(WIRE_SOCKET, &m, MSG_NOSIGNAL) < 0)
		_exit(1);
}

/* The view has gone: so does this. */
static void receive(struct wire *w, char *text, size_t size)
{
	struct iovec parts[2] = { { w, sizeof(*w) }, { text, size } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n = recvmsg(WIRE_SOCKET, &m, 0);

	if (n < (ssize_t)sizeof(*w) || w->len != (size_t)n - sizeof(*w) || w->len >= size)
		_exit(1);
	text[w->len] = '\0';
}

static int fetch(uint64_t off, size_t len, struct vd_error *e)
{
	struct wire w = { .kind = WIRE_NEED, .a = off, .b = len };
	char none[8];

	send_message(&w, NULL);
	receive(&w, none, sizeof(none));
	return w.result < 0 ? fail(e, VD_EIO, "reading the image failed") : 0;
}

/* ---- bytes of the volume ---------------------------------------------------------------------------------- */

static int read_chunk(uint64_t chunk, uint64_t size, const uint8_t **bytes, struct vd_error *e)
{
	size_t slot = (size_t)(chunk % CHUNKS), len = CHUNK;
	int r;

	*bytes = cache[slot].bytes;
	if (cache[slot].at == chunk + 1)
		return 0;
	if (!*bytes && !(*bytes = cache[slot].bytes = malloc(CHUNK)))
		return fail(e, VD_ENOMEM, "not enough memory");
	cache[slot].at = 0;
	if (size - chunk * CHUNK < len)
		len = (size_t)(size - chunk * CHUNK);
	r = fetch(chunk * CHUNK, len, e);
	if (r < 0)
		return r;
	memcpy(cache[slot].bytes, area, len);
	memset(cache[slot].bytes + len, 0, CHUNK - len);
	cache[slot].at = chunk + 1;
	return 0;
}

static int read_flat(uint64_t size, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = 0;

	if (off > size || len > size - off)
		return fail(e, VD_ERANGE, "something is said to lie at byte %llu, past the end of the volume", (unsigned long long)off);
	while (len && r == 0) {
		size_t within = (size_t)(off % CHUNK), n = CHUNK - within;
		const uint8_t *bytes = area;

		if (!within && len >= 2 * CHUNK) {
			n = len < WIRE_HALF ? len : WIRE_HALF;
			r = fetch(off, n, e);
		} else {
			n = len < n ? len : n;
			r = read_chunk(off / CHUNK, size, &bytes, e);
			bytes += within;
		}
		if (r == 0)
			memcpy(buf, bytes, n);
		buf += n;
		off += n;
		len -= n;
	}
	return r;
}

int device_read(const struct device *d, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint8_t *to = buf;

	if (!d->pieces)
		return read_flat(d->size, buf, len, off, e);
	for (size_t i = 0; i < d->n && len; i++) {
		size_t n;
		int r;

		if (off >= d->pieces[i].len) {
			off -= d->pieces[i].len;
			continue;
		}
		n = d->pieces[i].len - off < len ? (size_t)(d->pieces[i].len - off) : len;
		r = read_flat(volume.size, to, n, d->pieces[i].off + off, e);
		if (r < 0)
			return r;
		to += n;
		len -= n;
		off = 0;
	}
	return len ? fail(e, VD_ERANGE, "something is said to lie past the end of the volume") : 0;
}

/* ---- answers ---------------------------------------------------------------------------------------------- */

void *answer_room(size_t len)
{
	void *p = area + WIRE_HALF + answered;

	if (WIRE_ALIGN(len) > WIRE_HALF - answered)
		return NULL;
	answered += WIRE_ALIGN(len);
	return p;
}

/* One thing and a name behind it. */
static bool answer_named(const void *what, size_t size, const char *name, size_t len)
{
	uint8_t *p = answer_room(size + len);

	if (!p)
		return false;
	memcpy(p, what, size);
	memcpy(p + size, name, len);
	return true;
}

bool answer_entry(const char *name, size_t len, const struct fsview_stat *st)
{
	struct wire_entry w;

	memset(&w, 0, sizeof(w));
	w.st = *st;
	w.name_len = (uint32_t)len;
	return answer_named(&w, sizeof(w), name, len);
}

bool answer_range(uint64_t off, uint64_t len)
{
	struct fsview_range *r = answer_room(sizeof(*r));

	if (r)
		*r = (struct fsview_range){ off, len };
	return r;
}

bool answer_block(uint64_t file_off, uint64_t off, uint64_t len)
{
	struct fsview_block *b = answer_room(sizeof(*b));

	if (b)
		*b = (struct fsview_block){ file_off, { off, len } };
	return b;
}

bool answer_deleted(const struct wire_deleted *d, const char *name)
{
	struct wire_deleted w = *d;

	w.name_len = (uint32_t)strlen(name);
	return answer_named(&w, sizeof(w), name, w.name_len);
}

/* ---- requests --------------------------------------------------------------------------------------------- */

static int open_volume(struct request *r, struct vd_error *e)
{
	static const struct filesystem *const known[FSVIEW_N_FS] = {
		[FSVIEW_FS_EXT] = &filesystem_ext, [FSVIEW_FS_NTFS] = &filesystem_ntfs, [FSVIEW_FS_FAT] = &filesystem_fat,
	};
	struct wire_opened *o = answer_room(sizeof(*o));
	int code;

	if (fs || r->b >= FSVIEW_N_FS || !known[r->b] || !o)
		return fail(e, VD_EUNSUPPORTED, "nothing reads this");
	memset(o, 0, sizeof(*o));
	volume.size = r->a;
	code = known[r->b]->open(&volume, o, e);
	if (code == 0)
		fs = known[r->b];
	return code;
}

static int look_up(struct request *r, struct vd_error *e)
{
	struct fsview_stat *st = answer_room(sizeof(*st));

	memset(st, 0, sizeof(*st));
	return fs->lookup(r, st, e);
}

static int serve(uint32_t kind, struct request *r, struct vd_error *e)
{
	int (*call)(struct request *r, struct vd_error *e) = NULL;

	if (kind == WIRE_LIST) {
		volume.size = r->a;
		return table_list(r->a, e);
	}
	if (kind == WIRE_OPEN)
		return open_volume(r, e);
	if (!fs)
		return fail(e, VD_EUNSUPPORTED, "no volume is open");
	switch (kind) {
	case WIRE_LOOKUP: return look_up(r, e);
	case WIRE_READLINK: call = fs->readlink; break;
	case WIRE_READDIR: call = fs->readdir; break;
	case WIRE_READ: call = fs->read; break;
	case WIRE_XATTR: call = fs->xattr; break;
	case WIRE_BLOCKS: call = fs->blocks; break;
	case WIRE_FREE: call = fs->free; break;
	case WIRE_DELETED: call = fs->deleted; break;
	}
	return call ? call(r, e) : fail(e, VD_EUNSUPPORTED, "this file system cannot tell");
}

static void serve_one(void)
{
	static char text[WIRE_TEXT_MAX + 1];
	struct vd_error e = { 0 };
	struct request r;
	struct wire w;

	receive(&w, text, sizeof(text));
	r = (struct request){ .a = w.a, .b = w.b, .path = text, .name = text + strnlen(text, w.len) };
	if (r.name < text + w.len)
		r.name++;
	answered = 0;
	w.result = serve(w.kind, &r, &e);
	w.kind = WIRE_DONE;
	w.a = r.a;
	w.b = w.result < 0 ? 0 : answered;
	w.len = w.result < 0 ? (uint32_t)strlen(e.message) : 0;
	send_message(&w, e.message);
}

int main(void)
{
	struct vd_error e = { 0 };

	area = mmap(NULL, 2 * WIRE_HALF, PROT_READ | PROT_WRITE, MAP_SHARED, WIRE_MEMORY, 0);
	if (area == MAP_FAILED) {
		fputs("this program is run by vdisk scan, and is of no use by itself\n", stderr);
		return 1;
	}
	if (sandbox_enter(&e) < 0)
		_exit(2);
	for (;;)
		serve_one();
}
