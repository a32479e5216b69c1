/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files of the book: its lock, its head, its parts, and the lines in them as bytes. What follows from what is book.c's and book_read.c's. */
#include "ledger/book_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"

/* {"kind":" */
#define START "{\"kind\":\""
#define START_N "\",\"n\":"
#define START_PREV ",\"prev\":\""

int book_lock(struct book *b, int operation, struct vd_error *e)
{
	int fd = openat(b->dir, "lock", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail_errno(e, errno, "%s/lock", b->folder);
	while (flock(fd, operation) < 0) {
		if (errno == EINTR)
			continue;
		fail_errno(e, errno, "%s/lock", b->folder);
		close(fd);
		return e ? e->code : VD_EIO;
	}
	return fd;
}

int book_open_part(struct book *b, uint32_t part, int flags, struct vd_error *e)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%08u.jsonl", part);
	fd = openat(b->dir, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? fail_errno(e, errno, "%s/%s", b->folder, name) : fd;
}

bool book_part_exists(struct book *b, uint32_t part)
{
	char name[32];

	snprintf(name, sizeof(name), "%08u.jsonl", part);
	return faccessat(b->dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool is_hash(const char *text)
{
	return strspn(text, "0123456789abcdef") >= BOOK_HASH_SIZE - 1;
}

int book_read_head(struct book *b, struct book_head *head, bool *is_lost, struct vd_error *e)
{
	int fd = openat(b->dir, "head", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char text[161] = "";
	unsigned long long n, end;
	ssize_t got = 0;

	*is_lost = false;
	*head = (struct book_head){ .hash = BOOK_NO_HASH };
	if (fd < 0 && errno != ENOENT)
		return fail_errno(e, errno, "%s/head", b->folder);
	if (fd >= 0) {
		got = pread(fd, text, sizeof(text) - 1, 0);
		close(fd);
	}
	if (got < 0)
		return fail_errno(e, errno, "%s/head", b->folder);
	if (sscanf(text, "%20llu %64s %8u %20llu\n", &n, head->hash, &head->part, &end) == 4 && is_hash(head->hash)) {
		head->n = n;
		head->end = end;
		return 0;
	}
	*is_lost = book_part_exists(b, 1);
	*head = (struct book_head){ .hash = BOOK_NO_HASH };
	return 0;
}

bool book_take_start(const char *line, size_t len, uint64_t *n, const char **prev)
{
	const char *at = line, *end = line + len;

	if (len < sizeof(START) || memcmp(at, START, sizeof(START) - 1))
		return false;
	at = memchr(at + sizeof(START) - 1, '"', len - (sizeof(START) - 1));
	if (!at || (size_t)(end - at) < sizeof(START_N) || memcmp(at, START_N, sizeof(START_N) - 1))
		return false;
	at += sizeof(START_N) - 1;
	*n = 0;
	for (int digits = 0; at < end && *at >= '0' && *at <= '9' && digits < 19; digits++)
		*n = *n * 10 + (uint64_t)(*at++ - '0');
	if ((size_t)(end - at) < sizeof(START_PREV) + BOOK_HASH_SIZE || memcmp(at, START_PREV, sizeof(START_PREV) - 1))
		return false;
	*prev = at + sizeof(START_PREV) - 1;
	return (*prev)[BOOK_HASH_SIZE - 1] == '"';
}

void book_hash(const char *line, size_t len, char hash[BOOK_HASH_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t digest[SHA256_SIZE];

	crypto_sha256(line, len, digest);
	for (size_t i = 0; i < SHA256_SIZE; i++) {
		hash[2 * i] = digits[digest[i] >> 4];
		hash[2 * i + 1] = digits[digest[i] & 15];
	}
	hash[BOOK_HASH_SIZE - 1] = 0;
}

int book_reader_open(struct book *b, uint32_t part, uint64_t at, struct book_reader *r, struct vd_error *e)
{
	*r = (struct book_reader){ .part = part, .at = at };
	r->fd = book_open_part(b, part, O_RDONLY, e);
	if (r->fd < 0)
		return r->fd;
	r->buf = malloc(2 * BOOK_LINE_MAX);
	if (!r->buf)
		ui_out_of_memory();
	return 0;
}

void book_reader_close(struct book_reader *r)
{
	if (!r->buf)
		return;
	close(r->fd);
	free(r->buf);
	*r = (struct book_reader){ 0 };
}

/* More of the file behind what is left in the buffer. */
static int refill(struct book *b, struct book_reader *r, ssize_t *got, struct vd_error *e)
{
	memmove(r->buf, r->buf + r->taken, r->used - r->taken);
	r->used -= r->taken;
	r->taken = 0;
	do {
		*got = pread(r->fd, r->buf + r->used, 2 * BOOK_LINE_MAX - r->used, (off_t)(r->at + r->used));
	} while (*got < 0 && errno == EINTR);
	if (*got < 0)
		return fail_errno(e, errno, "%s/%08u.jsonl", b->folder, r->part);
	r->used += (size_t)*got;
	return 0;
}

int book_reader_next(struct book *b, struct book_reader *r, const char **line, size_t *len, uint64_t *torn, struct vd_error *e)
{
	const char *end;
	ssize_t got;
	int ret;

	while (!(end = memchr(r->buf + r->taken, '\n', r->used - r->taken))) {
		if (r->used - r->taken > BOOK_LINE_MAX)
			return fail(e, VD_ECORRUPT, "%s/%08u.jsonl: no line of the ledger at byte %llu", b->folder, r->part, (unsigned long long)r->at);
		ret = refill(b, r, &got, e);
		if (ret < 0)
			return ret;
		if (!got) {
			*torn = r->used;
			return 0;
		}
	}
	*line = r->buf + r->taken;
	*len = (size_t)(end - *line);
	r->taken += *len + 1;
	r->at += *len + 1;
	return 1;
}
