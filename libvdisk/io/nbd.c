/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads and writes over NBD. The server is believed in nothing but the bytes and where there are zeros; requests go over several
 * connections where it says that they show the same and that a flush of one is a flush of all, since each takes one at a time.
 *
 * There are no locks over NBD: who else writes is for the server, and for who starts it, to know. Which servers are
 * named is the user's word alone: no name in an image gets here (gate.c).
 */
#include "libvdisk/io/nbd.h"

#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

/* Those with TLS come first. */
static const char *const schemes[] = { "nbds://", "nbds+unix://", "nbd://", "nbd+unix://" };
#define N_TLS 2

/* Its place above, or -1. */
static int scheme_of(const char *path)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(path, schemes[i], strlen(schemes[i])))
			return (int)i;
	return -1;
}

bool vd_nbd_is_name(const char *path)
{
	return scheme_of(path) >= 0;
}

#ifndef VD_HAVE_LIBNBD

int vd_nbd_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	(void)flags;
	(void)out;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: this library was built without libnbd", name);
}

#else

#include <errno.h>
#include <libnbd.h>
#include <pthread.h>

#define CONNECTIONS 4
#define REQUEST_MAX (UINT64_C(16) << 20)        /* servers take 32 MiB */
#define STATUS_MAX (UINT64_C(1) << 30)          /* asked about at a time: a length has 32 bits */
#define PIECES 1024
#define MIN_BLOCK_MAX 65536u                    /* NBD, "Block size constraints" */

struct piece {
	uint64_t end;
	bool is_data;
};
struct nbd_io {
	struct vd_io io;
	struct nbd_handle *conn[CONNECTIONS];
	unsigned n_conn;
	atomic_uint turn;
	uint64_t size;
	uint32_t block;                 /* requests are multiples of it */
	bool has_map, can_flush, can_zero;
	pthread_rwlock_t edges;         /* held whole by a write of a part of a block */
	/* The last answer on where data is. */
	pthread_mutex_t map_lock;
	uint64_t map_start;
	struct piece pieces[PIECES];
	size_t n_pieces;
};

static struct nbd_io *nbd_of(const struct vd_io *io)
{
	return (struct nbd_io *)io;
}

static int failed(const struct vd_io *io, const char *what, struct vd_error *e)
{
	int code = nbd_get_errno() == ENOSPC ? VD_ENOSPC : VD_EIO;

	return vd_fail(e, code, "%s: %s: %s", io->name, what, nbd_get_error());
}

static struct nbd_handle *next_connection(struct nbd_io *n)
{
	return n->conn[atomic_fetch_add(&n->turn, 1) % n->n_conn];
}

/* The blocks that the range touches, inside the disk. */
static void widen(const struct nbd_io *n, uint64_t off, uint64_t len, uint64_t *first, uint64_t *last)
{
	*first = off - off % n->block;
	*last = off + len;
	if (*last % n->block)
		*last = vd_min_u64(*last + n->block - *last % n->block, n->size);
}

/* ---- reading -------------------------------------------------------------------------------------------- */

/* On the server's blocks. */
static int read_blocks(struct nbd_io *n, uint8_t *buf, uint64_t len, uint64_t off, struct vd_error *e)
{
	struct nbd_handle *h = next_connection(n);

	for (uint64_t at = 0, part; at < len; at += part) {
		part = vd_min_u64(len - at, REQUEST_MAX);
		if (nbd_pread(h, buf + at, (size_t)part, off + at, 0) < 0)
			return failed(&n->io, "reading failed", e);
	}
	return 0;
}

static int nbd_pread_whole(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);
	vd_auto_free uint8_t *bounce = NULL;
	uint64_t inside = off >= n->size ? 0 : vd_min_u64(len, n->size - off), first, last;
	int r;

	memset((uint8_t *)buf + inside, 0, len - inside);
	if (!inside)
		return 0;
	widen(n, off, inside, &first, &last);
	if (first == off && last == off + inside)
		return read_blocks(n, buf, inside, off, e);
	r = vd_alloc_buffer((size_t)(last - first), &bounce, e);
	if (r == 0)
		r = read_blocks(n, bounce, last - first, first, e);
	if (r == 0)
		memcpy(buf, bounce + (off - first), (size_t)inside);
	return r;
}

/* ---- where data is -------------------------------------------------------------------------------------- */

static int take_map(void *ctx, const char *context, uint64_t off, uint32_t *entries, size_t n_entries, int *error)
{
	struct nbd_io *n = ctx;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || off != n->map_start)
		return 0;
	n->n_pieces = 0;
	for (size_t i = 0; i + 1 < n_entries && n->n_pieces < PIECES && off < n->size; i += 2) {
		off += vd_min_u64(entries[i], n->size - off);
		n->pieces[n->n_pieces++] = (struct piece){ off, !(entries[i + 1] & LIBNBD_STATE_ZERO) };
	}
	return 0;
}

static int ask_map(struct nbd_io *n, uint64_t off, struct vd_error *e)
{
	uint64_t len = vd_min_u64(n->size - off, STATUS_MAX);

	n->map_start = off;
	n->n_pieces = 0;
	if (nbd_block_status(n->conn[0], len, off, (nbd_extent_callback){ .callback = take_map, .user_data = n }, 0) < 0)
		return failed(&n->io, "asking where data is failed", e);
	return n->n_pieces ? 0 : vd_fail(e, VD_EIO, "%s: the server does not say where data is", n->io.name);
}

static int nbd_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&n->map_lock);
	int r = 0;

	*is_data = true;
	*len = n->size - off;
	if (!n->has_map)
		return 0;
	if (!n->n_pieces || off < n->map_start || off >= n->pieces[n->n_pieces - 1].end)
		r = ask_map(n, off - off % n->block, e);
	for (size_t i = 0; i < n->n_pieces && r == 0; i++) {
		if (n->pieces[i].end <= off)
			continue;
		*is_data = n->pieces[i].is_data;
		*len = n->pieces[i].end - off;
		break;
	}
	return r;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static void forget_map(struct nbd_io *n)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&n->map_lock);

	n->n_pieces = 0;
}

static int write_blocks(struct nbd_io *n, const uint8_t *buf, uint64_t len, uint64_t off, struct vd_error *e)
{
	struct nbd_handle *h = next_connection(n);

	for (uint64_t at = 0, part; at < len; at += part) {
		part = vd_min_u64(len - at, REQUEST_MAX);
		if (nbd_pwrite(h, buf + at, (size_t)part, off + at, 0) < 0)
			return failed(&n->io, "writing failed", e);
	}
	return 0;
}

/* Nobody else writes meanwhile: the rest of the blocks would become what it was before. */
static int write_parts(struct nbd_io *n, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	vd_auto_free uint8_t *bounce = NULL;
	uint64_t first, last;
	int r;

	widen(n, off, len, &first, &last);
	r = vd_alloc_buffer((size_t)(last - first), &bounce, e);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&n->edges);
	r = read_blocks(n, bounce, last - first, first, e);
	if (r == 0) {
		memcpy(bounce + (off - first), buf, len);
		r = write_blocks(n, bounce, last - first, first, e);
	}
	pthread_rwlock_unlock(&n->edges);
	return r;
}

static int nbd_pwrite_whole(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);
	uint64_t first, last;
	int r;

	if (!vd_range_inside(off, len, n->size))
		return vd_fail_at(e, VD_ENOSPC, off, "%s: the server's disk ends before (%llu bytes)", io->name, (unsigned long long)n->size);
	widen(n, off, len, &first, &last);
	if (first != off || last != off + len) {
		r = write_parts(n, buf, len, off, e);
	} else {
		pthread_rwlock_rdlock(&n->edges);
		r = write_blocks(n, buf, len, off, e);
		pthread_rwlock_unlock(&n->edges);
	}
	forget_map(n);
	return r;
}

/* One connection's is all connections'. A server that knows no flush has nothing that is not as durable as it gets. */
static int nbd_flush_all(struct vd_io *io, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);

	if (!n->can_flush || !(io->flags & VD_IO_WRITE))
		return 0;
	return nbd_flush(n->conn[0], 0) < 0 ? failed(io, "flushing failed", e) : 0;
}

static int nbd_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);
	uint64_t first, last;
	int r = 0;

	widen(n, off, len, &first, &last);
	if (!n->can_zero || first != off || last != off + len)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the server makes no zeros here", io->name);
	pthread_rwlock_rdlock(&n->edges);
	for (uint64_t at = 0, part; at < len && r == 0; at += part) {
		part = vd_min_u64(len - at, STATUS_MAX);
		if (nbd_zero(next_connection(n), part, off + at, 0) < 0)
			r = failed(io, "making zeros failed", e);
	}
	pthread_rwlock_unlock(&n->edges);
	forget_map(n);
	return r;
}

/* ---- the rest ------------------------------------------------------------------------------------------- */

static int nbd_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = nbd_of(io)->size;
	return 0;
}

static int nbd_truncate(struct vd_io *io, uint64_t want, struct vd_error *e)
{
	uint64_t size = nbd_of(io)->size;

	if (want == size)
		return 0;
	return vd_fail(e, want > size ? VD_ENOSPC : VD_EUNSUPPORTED, "%s: the server's disk has %llu bytes, not %llu, and keeps them",
		       io->name, (unsigned long long)size, (unsigned long long)want);
}

/* What the server's file takes is not told. */
static int nbd_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	return nbd_size(io, bytes, e);
}

static int nbd_close_all(struct vd_io *io, struct vd_error *e)
{
	struct nbd_io *n = nbd_of(io);

	(void)e;
	for (unsigned i = 0; i < n->n_conn; i++) {
		nbd_shutdown(n->conn[i], 0);
		nbd_close(n->conn[i]);
	}
	pthread_mutex_destroy(&n->map_lock);
	pthread_rwlock_destroy(&n->edges);
	free(n->io.name);
	free(n);
	return 0;
}

static const struct vd_io_ops nbd_ops = {
	.pread = nbd_pread_whole, .pwrite = nbd_pwrite_whole, .flush = nbd_flush_all, .size = nbd_size,
	.truncate = nbd_truncate, .punch = nbd_punch, .extent = nbd_extent, .allocated = nbd_allocated,
	.close = nbd_close_all,
};

/* Nothing but what the name says: TLS if it says so, and files of this machine, as the keys of TLS, for that alone. */
static int connect_once(struct nbd_io *n, struct vd_error *e)
{
	struct nbd_handle *h = nbd_create();
	bool has_tls = scheme_of(n->io.name) < N_TLS;

	if (!h)
		return failed(&n->io, "connecting failed", e);
	n->conn[n->n_conn++] = h;
	if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_UNIX | LIBNBD_ALLOW_TRANSPORT_TCP) < 0 ||
	    nbd_set_uri_allow_local_file(h, has_tls) < 0 ||
	    nbd_set_uri_allow_tls(h, has_tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) < 0 ||
	    nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 || nbd_connect_uri(h, n->io.name) < 0)
		return failed(&n->io, "connecting failed", e);
	return 0;
}

static int learn(struct nbd_io *n, struct vd_error *e)
{
	int64_t size = nbd_get_size(n->conn[0]), block = nbd_get_block_size(n->conn[0], LIBNBD_SIZE_MINIMUM);

	if (size < 0)
		return failed(&n->io, "it has no size", e);
	if (block > MIN_BLOCK_MAX)
		return vd_fail(e, VD_EIO, "%s: the server wants blocks of %lld bytes", n->io.name, (long long)block);
	if (n->io.flags & VD_IO_WRITE && nbd_is_read_only(n->conn[0]) != 0)
		return vd_fail(e, VD_EREADONLY, "%s: the server lets nobody write", n->io.name);
	n->size = (uint64_t)size;
	n->block = block > 0 ? (uint32_t)block : 1;
	n->can_flush = nbd_can_flush(n->conn[0]) == 1;
	n->can_zero = nbd_can_zero(n->conn[0]) == 1;
	n->has_map = nbd_can_meta_context(n->conn[0], LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	return 0;
}

static int connect_all(struct nbd_io *n, struct vd_error *e)
{
	int r = connect_once(n, e);

	if (r == 0)
		r = learn(n, e);
	if (r == 0 && nbd_can_multi_conn(n->conn[0]) == 1)
		for (int i = 1; i < CONNECTIONS && r == 0; i++)
			r = connect_once(n, e);
	return r;
}

int vd_nbd_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	static atomic_uint_fast64_t last_ino;
	struct nbd_io *n = NULL;
	int r;

	if (flags & VD_IO_CREATE)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: no file can be made there: a server's disk is there or is not", name);
	r = vd_alloc(1, sizeof(*n), &n, e);
	if (r < 0)
		return r;
	r = vd_io_init(&n->io, &nbd_ops, name, flags, e);
	if (r < 0) {
		free(n);
		return r;
	}
	pthread_mutex_init(&n->map_lock, NULL);
	pthread_rwlock_init(&n->edges, NULL);
	n->io.is_device = true;
	/* No file has this device. */
	n->io.dev = UINT64_MAX;
	n->io.ino = atomic_fetch_add(&last_ino, 1);
	r = connect_all(n, e);
	if (r < 0) {
		nbd_close_all(&n->io, NULL);
		return r;
	}
	*out = &n->io;
	return 0;
}

#endif
