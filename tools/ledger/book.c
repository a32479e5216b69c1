/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Appends to the book. Each line is durable before the head that tells of it is written, under a lock; reading it back is book_read.c's.
 */
#include "ledger/book.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "ledger/canon.h"
#include "ledger/book_files.h"
#include "ledger/files.h"
#include "ui.h"

/* A part is full when it is as long as this: it can be read, copied and put away by itself. */
#define PART_SIZE (64u << 20)
#define KIND_MAX 32

int book_open(const char *folder, struct book **out, struct vd_error *e)
{
	struct book *b = calloc(1, sizeof(*b));

	*out = NULL;
	if (!b)
		ui_out_of_memory();
	crypto_setup();
	snprintf(b->folder, sizeof(b->folder), "%s", folder);
	if (mkdir(folder, 0700) < 0 && errno != EEXIST) {
		free(b);
		return fail_errno(e, errno, "%s", folder);
	}
	b->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir < 0) {
		int r = fail_errno(e, errno, "%s", folder);

		free(b);
		return r;
	}
	*out = b;
	return 0;
}

void book_close(struct book *b)
{
	if (!b)
		return;
	close(b->dir);
	free(b);
}

const char *book_folder(const struct book *b)
{
	return b->folder;
}

/* Who does it, as far as the system knows: the user, the one who logged in for it, the process, the machine. */
static struct json_object *who(void)
{
	struct json_object *j = json_object_new_object();
	struct passwd *user = getpwuid(getuid());
	struct bytes login = { 0 };
	struct vd_error ignored;
	char host[65] = "";

	gethostname(host, sizeof(host) - 1);
	json_object_object_add(j, "host", json_object_new_string(host));
	json_object_object_add(j, "pid", json_object_new_int64(getpid()));
	json_object_object_add(j, "uid", json_object_new_int64(getuid()));
	if (user)
		json_object_object_add(j, "user", json_object_new_string(user->pw_name));
	if (file_read("/proc/self/loginuid", 32, &login, &ignored) == 0) {
		bytes_add(&login, "", 1);
		/* -1, as an unsigned number: nobody logged in for it. */
		if (strcmp((char *)login.at, "4294967295"))
			json_object_object_add(j, "loginuid", json_object_new_int64(strtoll((char *)login.at, NULL, 10)));
	}
	bytes_free(&login);
	json_object_object_add(j, "version", json_object_new_string(vd_version()));
	return j;
}

static struct json_object *now(void)
{
	struct timespec ts;
	struct tm tm;
	char text[80];
	size_t n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%06ldZ", ts.tv_nsec / 1000);
	return json_object_new_string(text);
}

static int put_signature(struct json_object *line, const char *kind, struct json_object *body, const struct signer *s, struct vd_error *e)
{
	struct bytes text = { 0 }, sig = { 0 };
	char ns[KIND_MAX + 8];
	int r = canon_write(body, &text, e);

	snprintf(ns, sizeof(ns), "vdisk-%s", kind);
	if (r == 0)
		r = sshsig_make(s, ns, &text, &sig, e);
	if (r == 0)
		json_object_object_add(line, "signature", json_object_new_string_len((char *)sig.at, (int)sig.n));
	bytes_free(&text);
	bytes_free(&sig);
	return r;
}

/* The line that follows from `head`, with its end. */
static int make_line(const struct book_head *head, const char *kind, struct json_object *body, const struct signer *s, struct bytes *out,
		     struct vd_error *e)
{
	struct json_object *line = json_object_new_object();
	int r = 0;

	json_object_object_add(line, "kind", json_object_new_string(kind));
	json_object_object_add(line, "n", json_object_new_uint64(head->n + 1));
	json_object_object_add(line, "prev", json_object_new_string(head->hash));
	json_object_object_add(line, "time", now());
	json_object_object_add(line, "what", json_object_get(body));
	json_object_object_add(line, "who", who());
	if (s)
		r = put_signature(line, kind, body, s, e);
	if (r == 0)
		r = canon_write(line, out, e);
	bytes_add(out, "\n", 1);
	json_object_put(line);
	if (r == 0 && out->n > BOOK_LINE_MAX)
		r = fail(e, VD_EUNSUPPORTED, "a line of the ledger would be longer than %u bytes", BOOK_LINE_MAX);
	return r;
}

static int write_at(int fd, const char *name, const void *bytes, size_t n, uint64_t off, struct vd_error *e)
{
	for (size_t done = 0; done < n;) {
		ssize_t w = pwrite(fd, (const char *)bytes + done, n - done, (off_t)(off + done));

		if (w < 0 && errno != EINTR)
			return fail_errno(e, errno, "%s", name);
		done += w > 0 ? (size_t)w : 0;
	}
	return 0;
}

/* Not flushed: an older head is made good from the lines behind it. */
static int write_head(struct book *b, const struct book_head *head, struct vd_error *e)
{
	int fd = openat(b->dir, "head", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), r;
	char text[160];

	if (fd < 0)
		return fail_errno(e, errno, "%s/head", b->folder);
	snprintf(text, sizeof(text), "%020llu %s %08u %020llu\n", (unsigned long long)head->n, head->hash, head->part, (unsigned long long)head->end);
	r = write_at(fd, "the ledger's head", text, strlen(text), 0, e);
	if (close(fd) < 0 && r == 0)
		r = fail_errno(e, errno, "%s/head", b->folder);
	return r;
}

/* Flushed, or what was written of it is taken away again. */
static int write_line(struct book *b, int fd, const struct bytes *line, uint64_t off, struct vd_error *e)
{
	int r = write_at(fd, b->folder, line->at, line->n, off, e);

	if (r == 0 && fdatasync(fd) < 0)
		r = fail_errno(e, errno, "%s", b->folder);
	if (r < 0 && ftruncate(fd, (off_t)off) < 0)
		return fail(e, VD_EIO, "%s: neither written to nor put back: 'vdisk ledger verify' tells how it stands", b->folder);
	return r;
}

static int append_line(struct book *b, struct book_head *head, const char *kind, struct json_object *body, const struct signer *s,
		       struct vd_error *e)
{
	bool is_new = head->n == 0 || head->end >= PART_SIZE;
	struct book_head next = { .n = head->n + 1, .part = head->part + is_new };
	uint64_t off = is_new ? 0 : head->end;
	struct bytes line = { 0 };
	int fd, r = make_line(head, kind, body, s, &line, e);

	if (r < 0) {
		bytes_free(&line);
		return r;
	}
	fd = book_open_part(b, next.part, O_WRONLY | (is_new ? O_CREAT : 0), e);
	r = fd < 0 ? fd : write_line(b, fd, &line, off, e);
	if (fd >= 0 && close(fd) < 0 && r == 0)
		r = fail_errno(e, errno, "%s", b->folder);
	if (r == 0 && is_new && fsync(b->dir) < 0)
		r = fail_errno(e, errno, "%s", b->folder);
	if (r == 0) {
		next.end = off + line.n;
		book_hash((char *)line.at, line.n - 1, next.hash);
		*head = next;
		r = write_head(b, head, e);
	}
	bytes_free(&line);
	return r;
}

static int note(struct book *b, struct book_head *head, const char *kind, const char *key, uint64_t value, struct vd_error *e)
{
	struct json_object *body = json_object_new_object();
	int r;

	json_object_object_add(body, key, json_object_new_uint64(value));
	r = append_line(b, head, kind, body, NULL, e);
	json_object_put(body);
	return r;
}

static int cut(struct book *b, const struct book_head *head, struct vd_error *e)
{
	int fd = book_open_part(b, head->part ? head->part : 1, O_WRONLY, e), r = 0;

	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)head->end) < 0)
		r = fail_errno(e, errno, "%s", b->folder);
	if (close(fd) < 0 && r == 0)
		r = fail_errno(e, errno, "%s", b->folder);
	return r;
}

/* Puts right what somebody left who was killed: whole lines count, what is none is cut off, and both are told. */
static int mend(struct book *b, struct book_head *head, struct vd_error *e)
{
	bool is_lost;
	uint64_t torn;
	int r = book_read_head(b, head, &is_lost, e);

	if (r == 0)
		r = book_roll(b, head, &torn, e);
	if (r == 0 && torn)
		r = cut(b, head, e);
	if (r == 0 && torn)
		r = note(b, head, "torn", "bytes", torn, e);
	if (r == 0 && is_lost)
		r = note(b, head, "head-lost", "line", head->n, e);
	return r;
}

static int judge_kind(const char *kind, struct vd_error *e)
{
	size_t n = strlen(kind);

	if (!n || n > KIND_MAX || strspn(kind, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
		return fail(e, VD_EARG, "'%s' is no kind of line for the ledger", kind);
	return 0;
}

int book_append_after(struct book *b, const char *last, const char *kind, struct json_object *body, const struct signer *s,
		      char hash[BOOK_HASH_SIZE], struct vd_error *e)
{
	struct book_head head;
	int lock, r = judge_kind(kind, e);

	if (r < 0)
		return r;
	lock = book_lock(b, LOCK_EX, e);
	if (lock < 0)
		return lock;
	r = mend(b, &head, e);
	if (r == 0 && last && strcmp(last, head.hash))
		r = fail(e, VD_EBUSY, "%s: another line came in between", b->folder);
	if (r == 0)
		r = append_line(b, &head, kind, body, s, e);
	if (r == 0 && hash)
		memcpy(hash, head.hash, BOOK_HASH_SIZE);
	close(lock);
	return r;
}

int book_append(struct book *b, const char *kind, struct json_object *body, const struct signer *s, char hash[BOOK_HASH_SIZE],
		struct vd_error *e)
{
	return book_append_after(b, NULL, kind, body, s, hash, e);
}
