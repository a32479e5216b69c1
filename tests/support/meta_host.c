/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The scripted host and the fixture of meta_host.h; what they prove is said in the tests. */
#include "tests/support/meta_host.h"

#include <stdio.h>

#include "libvdisk/base/alloc.h"

struct world world;

static int scripted(struct vd_io *io, char kind, uint64_t off, size_t len, struct vd_error *e)
{
	struct host_op op = { kind, ((struct host_file *)io)->index, off, len };
	void (*hook)(const struct host_op *op) = world.hook;

	pthread_mutex_lock(&world.lock);
	if (world.n_ops < LOG_MAX)
		world.log[world.n_ops++] = op;
	pthread_mutex_unlock(&world.lock);
	if (hook)
		hook(&op);
	if (kind != 'R' && world.fail_after >= 0 && world.fail_after-- == 0)
		return vd_fail(e, VD_EIO, "scripted failure");
	return 0;
}

static int host_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	pthread_mutex_lock(&world.lock);
	memcpy(buf, ((struct host_file *)io)->bytes + off, len);
	pthread_mutex_unlock(&world.lock);
	return scripted(io, 'R', off, len, e);
}

static int host_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = scripted(io, 'W', off, len, e);

	pthread_mutex_lock(&world.lock);
	if (r == 0)
		memcpy(((struct host_file *)io)->bytes + off, buf, len);
	pthread_mutex_unlock(&world.lock);
	return r;
}

static int host_flush(struct vd_io *io, struct vd_error *e)
{
	return scripted(io, 'F', 0, 0, e);
}

static int host_close(struct vd_io *io, struct vd_error *e)
{
	(void)e;
	free(io->name);
	free(io);
	return 0;
}

const struct vd_io_ops host_ops = {
	.pread = host_pread, .pwrite = host_pwrite, .flush = host_flush, .close = host_close,
};

static struct vd_io *new_file(uint32_t index)
{
	struct host_file *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(vd_io_init(&f->io, &host_ops, index ? "data" : "image", VD_IO_WRITE, NULL), 0);
	f->index = index;
	f->io.ino = index + 1;
	for (size_t i = 0; i < FILE_SIZE; i++)
		f->bytes[i] = (uint8_t)(i + (i >> 8) * 7 + index);
	world.files[index] = f;
	return &f->io;
}

void host_clear_log(void)
{
	world.n_ops = 0;
}

const char *host_log(void)
{
	static char text[4096];
	size_t n = 0;

	text[0] = '\0';
	for (size_t i = 0; i < world.n_ops && n < sizeof(text) - 64; i++) {
		const struct host_op *op = &world.log[i];

		n += snprintf(text + n, sizeof(text) - n, "%s%c", i ? " " : "", op->kind);
		if (op->kind != 'F')
			n += snprintf(text + n, sizeof(text) - n, "%s%llu", op->file ? ":" : "",
				      (unsigned long long)(op->off / PAGE));
		if (op->len > PAGE)
			n += snprintf(text + n, sizeof(text) - n, "+%zu", op->len / PAGE);
	}
	return text;
}

size_t host_count(char kind)
{
	size_t n = 0;

	for (size_t i = 0; i < world.n_ops; i++)
		n += world.log[i].kind == kind;
	return n;
}

void host_payload(uint64_t page)
{
	uint8_t bytes[PAGE] = { 0 };

	assert_int_equal(vd_set_pwrite(world.set, 0, bytes, PAGE, page * PAGE, NULL), 0);
}

/* ---- the fixture -------------------------------------------------------------------------------------- */

int meta_start(uint64_t cache_bytes, bool fresh)
{
	struct vd_set_opts opts = { .io_flags = VD_IO_WRITE };
	uint32_t index;

	memset(&world, 0, sizeof(world));
	pthread_mutex_init(&world.lock, NULL);
	world.fail_after = -1;
	assert_int_equal(vd_set_new(&opts, new_file(0), &world.set, NULL), 0);
	assert_int_equal(vd_set_adopt(world.set, new_file(1), &index, NULL), 0);
	assert_int_equal(vd_meta_new(world.set, cache_bytes, fresh, &world.meta, NULL), 0);
	/* A file that came open may hold writes of before: the first flush reaches both. */
	assert_int_equal(vd_set_flush(world.set, NULL), 0);
	host_clear_log();
	return 0;
}

int meta_stop(void **state)
{
	(void)state;
	vd_alloc_fail_after(-1);
	vd_meta_free(world.meta);
	vd_set_abort(world.set);
	pthread_mutex_destroy(&world.lock);
	return 0;
}

void meta_put(uint64_t page, uint8_t value, enum vd_meta_rank rank)
{
	assert_int_equal(vd_meta_write(world.meta, 0, page * PAGE + 8, &value, 1, rank, NULL), 0);
}

uint8_t meta_get(uint64_t page)
{
	uint8_t value;

	assert_int_equal(vd_meta_read(world.meta, 0, page * PAGE + 8, &value, 1, 0, NULL), 0);
	return value;
}

uint8_t meta_on_host(uint64_t page)
{
	return world.files[0]->bytes[page * PAGE + 8];
}

bool meta_is_resident(uint64_t page)
{
	uint8_t value;

	return vd_meta_read(world.meta, 0, page * PAGE, &value, 1, VD_META_NOWAIT, NULL) == 0;
}

struct vd_meta_batch *meta_snapshot(void)
{
	struct vd_meta_batch *b = NULL;

	assert_int_equal(vd_meta_snapshot(world.meta, &b, NULL), 0);
	assert_non_null(b);
	return b;
}

int meta_commit(struct vd_error *e)
{
	return vd_meta_commit(world.meta, meta_snapshot(), e);
}

void meta_commit_ok(void)
{
	host_clear_log();
	assert_int_equal(meta_commit(NULL), 0);
}
