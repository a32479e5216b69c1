/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes through all memory that /proc/PID/smaps lists as readable, and reads it by /proc/PID/mem. What is read lies in one
 * window meanwhile, which is not searched and is wiped.
 */
#include "tests/support/leftover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW ((size_t)1 << 20)
#define MAPS_MAX 4096

struct map {
	uintptr_t from, to;
	int is_readable, is_locked, is_undumped;
};

void vd_leftover_shift(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(bytes[i] + VD_LEFTOVER_SHIFT);
}

static int count_in(const uint8_t *p, size_t n, const uint8_t *shifted, size_t len)
{
	const uint8_t first = (uint8_t)(shifted[0] - VD_LEFTOVER_SHIFT);
	int found = 0;

	for (const uint8_t *at = p; n >= len && (at = memchr(at, first, (size_t)(p + n - len + 1 - at))); at++) {
		size_t k = 0;

		while (k < len && ((at[k] + VD_LEFTOVER_SHIFT) & 0xff) == shifted[k])
			k++;
		found += k == len;
	}
	return found;
}

static size_t read_maps(pid_t pid, struct map *maps)
{
	char path[64], line[512], mode[8];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "r");
	if (!f)
		abort();
	while (n < MAPS_MAX && fgets(line, sizeof(line), f)) {
		struct map m = { 0 };

		if (sscanf(line, "%lx-%lx %7s", &m.from, &m.to, mode) == 3) {
			m.is_readable = mode[0] == 'r';
			maps[n++] = m;
		} else if (n && !strncmp(line, "VmFlags:", 8)) {
			maps[n - 1].is_locked = strstr(line, " lo") != NULL;
			maps[n - 1].is_undumped = strstr(line, " dd") != NULL;
		}
	}
	fclose(f);
	return n;
}

/* Windows overlap by len - 1 bytes, so that nothing hides across two of them. */
static int count_in_map(int mem, const struct map *m, uint8_t *window, const uint8_t *shifted, size_t len)
{
	int found = 0;

	for (uintptr_t at = m->from; at < m->to; at += WINDOW - len + 1) {
		size_t want = m->to - at < WINDOW ? m->to - at : WINDOW;
		ssize_t got = pread(mem, window, want, (off_t)at);

		if (got > 0)
			found += count_in(window, (size_t)got, shifted, len);
	}
	return found;
}

struct vd_leftovers vd_leftovers_of(pid_t pid, const uint8_t *shifted, size_t len)
{
	static struct map maps[MAPS_MAX];
	struct vd_leftovers found = { 0 };
	size_t n = read_maps(pid, maps);
	uint8_t *window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0 || window == MAP_FAILED)
		abort();
	for (size_t i = 0; i < n; i++) {
		int here = maps[i].is_readable ? count_in_map(mem, &maps[i], window, shifted, len) : 0;

		found.all += here;
		found.swappable += maps[i].is_locked ? 0 : here;
		found.dumped += maps[i].is_undumped ? 0 : here;
	}
	close(mem);
	explicit_bzero(window, WINDOW);
	munmap(window, WINDOW);
	return found;
}

int vd_leftovers(const uint8_t *shifted, size_t len)
{
	return vd_leftovers_of(getpid(), shifted, len).all;
}
