/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secret text in memory of its own, written by the system call itself: stdio and json-c keep copies of what they print. */
#include "locked.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"

char *locked_new(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		ui_out_of_memory();
	(void)!mlock(p, size);
	(void)!madvise(p, size, MADV_DONTDUMP);
	return p;
}

void locked_free(char *text, size_t size)
{
	if (!text)
		return;
	explicit_bzero(text, size);
	munmap(text, size);
}

static int put(const char *text, struct vd_error *e)
{
	int fd = fileno(ui_results());

	for (size_t left = strlen(text); left;) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			return fail_errno(e, errno, "standard output cannot be written");
		if (n > 0) {
			text += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

int locked_show(const char *texts, size_t stride, size_t n, struct vd_error *e)
{
	int r = 0;

	fflush(ui_results());
	for (size_t i = 0; i < n && r == 0; i++) {
		r = put(texts + i * stride, e);
		if (r == 0)
			r = put("\n", e);
	}
	return r;
}

static int begin_member(struct json_object *j, const char *key)
{
	const char *text = json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	int len = (int)strlen(text) - 1;        /* without the last brace */

	fprintf(ui_results(), "%.*s,\"%s\":", len, text, key);
	json_object_put(j);
	return fflush(ui_results());
}

int locked_show_array_in(struct json_object *j, const char *key, const char *texts, size_t stride, size_t n,
			 struct vd_error *e)
{
	int r = begin_member(j, key) ? fail_errno(e, errno, "standard output cannot be written") : put("[", e);

	for (size_t i = 0; i < n && r == 0; i++) {
		r = put(i ? ",\"" : "\"", e);
		if (r == 0)
			r = put(texts + i * stride, e);
		if (r == 0)
			r = put("\"", e);
	}
	return r < 0 ? r : put("]}\n", e);
}

int locked_show_text_in(struct json_object *j, const char *key, const char *text, struct vd_error *e)
{
	int r = begin_member(j, key) ? fail_errno(e, errno, "standard output cannot be written") : put("\"", e);

	if (r == 0)
		r = put(text, e);
	return r < 0 ? r : put("\"}\n", e);
}
