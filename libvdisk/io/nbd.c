/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads over NBD from a socket of this machine. The server is believed in nothing but the bytes and where there are zeros; requests go over several
 * connections where it says that they show the same, since each takes one at a time.
 */
#include "libvdisk/io/nbd.h"

#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

static const char prefix[] = "nbd+unix://";

bool vd_nbd_is_name(const char *path)
{
	return !strncmp(path, prefix, sizeof(prefix) - 1);
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
	bool has_map;
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
	return vd_fail(e, VD_EIO, "%s: %s: %s", io->name, what, nbd_get_error());
}

/* ---- reading -------------------------------------------------------------------------------------------- */

/* On the server's blocks. */
static int read_blocks(struct nbd_io *n, uint8_t *buf, uint64_t len, uint64_t off, struct vd_error *e)
{
	struct nbd_handle *h = n->conn[atomic_fetch_add(&n->turn, 1) % n->n_conn];

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
	first = off - off % n->block;
	last = off + inside;
	if (last % n->block)
		last = vd_min_u64(last + n->block - last % n->block, n->size);
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

/* ---- the rest ------------------------------------------------------------------------------------------- */

static int nbd_pwrite_never(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	(void)buf;
	(void)len;
	(void)off;
	return vd_fail(e, VD_EREADONLY, "%s: disks over NBD are only read", io->name);
}

static int nbd_flush_nothing(struct vd_io *io, struct vd_error *e)
{
	(void)io;
	(void)e;
	return 0;
}

static int nbd_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = nbd_of(io)->size;
	return 0;
}

static int nbd_truncate_never(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	return nbd_pwrite_never(io, NULL, 0, size, e);
}

static int nbd_punch_never(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	return nbd_pwrite_never(io, NULL, (size_t)len, off, e);
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
	free(n->io.name);
	free(n);
	return 0;
}

static const struct vd_io_ops nbd_ops = {
	.pread = nbd_pread_whole, .pwrite = nbd_pwrite_never, .flush = nbd_flush_nothing, .size = nbd_size,
	.truncate = nbd_truncate_never, .punch = nbd_punch_never, .extent = nbd_extent, .allocated = nbd_allocated,
	.close = nbd_close_all,
};

/* Nothing but the socket that the name says: no other file of this machine's, no other machine. */
static int connect_once(struct nbd_io *n, struct vd_error *e)
{
	struct nbd_handle *h = nbd_create();

	if (!h)
		return failed(&n->io, "connecting failed", e);
	n->conn[n->n_conn++] = h;
	if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 || nbd_set_uri_allow_local_file(h, false) < 0 ||
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
	n->size = (uint64_t)size;
	n->block = block > 0 ? (uint32_t)block : 1;
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

	if (flags & (VD_IO_WRITE | VD_IO_CREATE))
		return vd_fail(e, VD_EREADONLY, "%s: disks over NBD are only read", name);
	r = vd_alloc(1, sizeof(*n), &n, e);
	if (r < 0)
		return r;
	r = vd_io_init(&n->io, &nbd_ops, name, flags, e);
	if (r < 0) {
		free(n);
		return r;
	}
	pthread_mutex_init(&n->map_lock, NULL);
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
