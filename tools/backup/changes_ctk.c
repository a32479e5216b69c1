/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changed blocks from the -ctk.vmdk file beside a VMware disk. Its layout was never published: what is read here is what files show, and
 * no more than is needed. Behind a header of 512 bytes there is a number for each block of the disk, which goes up with the number that counts
 * VMware's points in time. Which field counts them is not known, so none is asked: a block that was written after a moment has
 * no lesser number than the largest that there was at that moment. What is not as expected is a doubt.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/changes_sources.h"
#include "fail.h"

#define CTK_MAGIC UINT32_C(0xf61972a2)  /* a2 72 19 f6 */
#define CTK_VERSION 1
#define CTK_HEADER 512
#define CTK_UUID 44
#define CTK_SHIFT_MIN 16
#define CTK_SHIFT_MAX 26
#define CTK_PAD_MAX 127                 /* numbers that fill the last 512 bytes */

struct ctk {
	int fd;
	uint64_t n_entries;
	unsigned shift;                 /* log2 of a block's bytes */
	char uuid[33];
	uint64_t largest;
};

/* ---- the file ------------------------------------------------------------------------------------------- */

/* Its name is the image's to say, and so is a plain one in the image's folder, or none. */
static int open_beside(const char *image, const char *name)
{
	const char *slash = strrchr(image, '/');
	char *path;
	int fd;

	if (strchr(name, '/') || !strcmp(name, "..") ||
	    asprintf(&path, "%.*s%s", slash ? (int)(slash + 1 - image) : 0, image, name) < 0)
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	free(path);
	return fd;
}

static bool is_newer(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Who writes without keeping the file leaves it older than what was written. */
static bool is_overtaken(struct vd_image *img, const struct stat *ctk)
{
	struct stat st;

	for (uint32_t i = 0; i < vd_host_file_count(img); i++)
		if (stat(vd_host_file_name(img, i), &st) < 0 || is_newer(&st.st_mtim, &ctk->st_mtim))
			return true;
	return false;
}

/* The one block size with which the numbers are as many as the disk has blocks; 0: none, or more than one. */
static unsigned find_shift(uint64_t size, uint64_t n_entries)
{
	unsigned found = 0;

	for (unsigned shift = CTK_SHIFT_MIN; shift <= CTK_SHIFT_MAX; shift++) {
		uint64_t n = size ? ((size - 1) >> shift) + 1 : 0;

		if (n_entries < n || n_entries - n > CTK_PAD_MAX)
			continue;
		if (found)
			return 0;
		found = shift;
	}
	return found;
}

static int judge_header(struct ctk *k, char why[CHANGES_WHY_SIZE])
{
	uint8_t head[CTK_HEADER];
	uint32_t words[4];
	bool is_any = false;

	if (pread(k->fd, head, sizeof(head), 0) != sizeof(head))
		return in_doubt(why, "the CTK file is cut off");
	memcpy(words, head, sizeof(words));
	if (le32toh(words[0]) != CTK_MAGIC || le32toh(words[1]) != CTK_VERSION || words[2] || le32toh(words[3]) != CTK_HEADER)
		return in_doubt(why, "the CTK file is of an unknown kind");
	for (int i = 0; i < 16; i++) {
		is_any |= head[CTK_UUID + i];
		snprintf(k->uuid + 2 * i, 3, "%02x", head[CTK_UUID + i]);
	}
	return is_any ? 1 : in_doubt(why, "the CTK file does not say of which disk it is");
}

static int judge_file(struct ctk *k, struct vd_image *img, char why[CHANGES_WHY_SIZE])
{
	struct stat st;

	if (fstat(k->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return in_doubt(why, "the CTK file is no file");
	if (is_overtaken(img, &st))
		return in_doubt(why, "the disk was written after its CTK file");
	if (st.st_size <= CTK_HEADER || (st.st_size - CTK_HEADER) % 4)
		return in_doubt(why, "the CTK file is cut off");
	k->n_entries = (uint64_t)(st.st_size - CTK_HEADER) / 4;
	k->shift = find_shift(vd_image_size(img), k->n_entries);
	if (!k->shift)
		return in_doubt(why, "the CTK file is of a disk of another size");
	return judge_header(k, why);
}

/* ---- the numbers ---------------------------------------------------------------------------------------- */

/* Those from `since` on go into the set; the largest of all is found. */
static int read_numbers(struct ctk *k, uint64_t since, struct blockset *set, char why[CHANGES_WHY_SIZE])
{
	uint64_t n_blocks = set->size ? ((set->size - 1) >> k->shift) + 1 : 0;
	uint32_t numbers[16384];
	ssize_t got;

	for (uint64_t i = 0; i < k->n_entries; i += (uint64_t)got / 4) {
		got = pread(k->fd, numbers, sizeof(numbers), (off_t)(CTK_HEADER + i * 4));
		if (got < 4)
			return in_doubt(why, "the CTK file cannot be read");
		for (size_t j = 0; j < (size_t)got / 4; j++) {
			uint32_t number = le32toh(numbers[j]);

			if (number && i + j >= n_blocks)
				return in_doubt(why, "the CTK file tells of blocks past the disk's end");
			if (number >= since)
				blockset_put(set, (i + j) << k->shift, UINT64_C(1) << k->shift);
			if (number > k->largest)
				k->largest = number;
		}
	}
	return 1;
}

static int compare_with_base(const struct changes *c, const struct ctk *k, uint64_t *since, char why[CHANGES_WHY_SIZE])
{
	char base[MARK_VALUE_SIZE], *end;

	if (!c->want->mark || !mark_get(c->want->mark, "ctk", base))
		return in_doubt(why, "the base was not backed up with a CTK file");
	if (strlen(base) < 34 || base[32] != '/' || strncmp(base, k->uuid, 32))
		return in_doubt(why, "the CTK file began anew since");
	*since = strtoull(base + 33, &end, 10);
	return *since && !*end ? 1 : in_doubt(why, "the base kept no mark");
}

static int look(struct changes *c, struct ctk *k, struct vd_image *img, char why[CHANGES_WHY_SIZE])
{
	uint64_t since = UINT64_MAX;
	int r = judge_file(k, img, why), is_base;

	if (r != 1)
		return r;
	is_base = compare_with_base(c, k, &since, why);
	r = read_numbers(k, since, &c->set, why);
	if (r != 1)
		return r;
	if (k->largest)
		mark_put(c, "ctk", "%s/%" PRIu64, k->uuid, k->largest);
	if (is_base && k->largest < since)
		return in_doubt(why, "the CTK file is older than the base");
	return is_base;
}

int changes_of_ctk(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	struct vd_info info = { .struct_size = sizeof(info) };
	struct ctk k = { 0 };
	int r = vd_image_info(img, &info, e);

	if (r < 0)
		return r;
	if (!info.change_track)
		return in_doubt(why, "the image names no CTK file");
	if (vd_image_parent(img))
		return in_doubt(why, "the CTK file of a delta link does not tell of the disks below");
	k.fd = open_beside(c->path, info.change_track);
	if (k.fd < 0)
		return in_doubt(why, "the CTK file is not there");
	r = look(c, &k, img, why);
	close(k.fd);
	return r;
}
