/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random allocating writes of 4 KiB, each followed by a flush, by 1 and by 16 threads, on a disk in memory that takes its
 * time: so what is counted is how much of the waiting the threads share, not the machine.
 *
 * usage: writers SECONDS FLUSH-MICROSECONDS WRITE-MICROSECONDS
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libvdisk/core/image.h"
#include "libvdisk/io/mem.h"
#include "tests/support/latency.h"

#define BLOCK 4096
#define SIZE (UINT64_C(16) << 30)
#define UNIT 65536              /* of the format: each write is the first in its cluster */
#define THREADS_MAX 16

static struct vd_image *img;
static atomic_uint_fast64_t n_done, n_next;
static atomic_bool is_over;

static void must(int result, const struct vd_error *e)
{
	if (result == 0)
		return;
	fprintf(stderr, "writers: %s\n", e->message);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Every cluster once, all over the disk: an odd factor permutes the numbers below a power of two. */
static uint64_t next_off(void)
{
	return (atomic_fetch_add(&n_next, 1) * UINT64_C(0x9e3779b1) % (SIZE / UNIT)) * UNIT + BLOCK;
}

static void *work(void *arg)
{
	uint8_t block[BLOCK];
	struct vd_error e;

	(void)arg;
	memset(block, 0x5a, sizeof(block));
	while (!is_over) {
		must(vd_image_pwrite(img, block, BLOCK, next_off(), &e), &e);
		must(vd_image_flush(img, &e), &e);
		n_done++;
	}
	return NULL;
}

/* Writes a second, all of them flushed. */
static double rate(unsigned n_threads, double seconds)
{
	struct timespec ts = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
	pthread_t threads[THREADS_MAX];
	double start = now();

	n_done = 0;
	is_over = false;
	for (unsigned i = 0; i < n_threads; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			exit(1);
	nanosleep(&ts, NULL);
	is_over = true;
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	return (double)n_done / (now() - start);
}

static void make_image(struct vd_host *host)
{
	struct vd_create_opts make = { .struct_size = sizeof(make), .format = "qcow2", .size = SIZE };
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .format = "qcow2", .flags = VD_OPEN_WRITE };
	struct vd_error e;

	must(vd_image_create_on(host, NULL, "d", &make, &img, &e), &e);
	must(vd_image_commit(img, &e), &e);
	must(vd_image_close(img, &e), &e);
	must(vd_image_open_on(host, NULL, "d", &opts, &img, &e), &e);
	/* One in each table: to make a table is more than to fill it, and rare on a disk in use. */
	for (uint64_t off = 0; off < SIZE; off += UINT64_C(512) << 20)
		must(vd_image_pwrite(img, "", 1, off, &e), &e);
	must(vd_image_flush(img, &e), &e);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0, one, many;
	struct vd_latency slow = { 0 };
	struct vd_host *mem = NULL;
	struct vd_error e;

	if (argc != 4 || seconds <= 0) {
		fprintf(stderr, "usage: writers SECONDS FLUSH-MICROSECONDS WRITE-MICROSECONDS\n");
		return 2;
	}
	must(vd_mem_host_new(&mem, &e), &e);
	vd_latency_init(&slow, mem);
	make_image(&slow.wrap.host);
	slow.flush_us = (unsigned)atoi(argv[2]);
	slow.read_us = slow.write_us = (unsigned)atoi(argv[3]);
	one = rate(1, seconds);
	many = rate(THREADS_MAX, seconds);
	printf("flush %5u us, other I/O %4u us: 1 thread %6.0f writes/s, %d threads %6.0f = %5.2fx\n", slow.flush_us, slow.write_us,
	       one, THREADS_MAX, many, many / one);
	slow.flush_us = slow.read_us = slow.write_us = 0;
	must(vd_image_close(img, &e), &e);
	vd_mem_host_free(mem);
	return 0;
}
