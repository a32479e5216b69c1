/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The book of what was done: what follows is taken, each kind of change to it is told from the others, what was killed is put right. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/book.h"
#include "ledger/files.h"
#include "tests/support/tempdir.h"

#define PART "book/00000001.jsonl"
#define N_LINES 7

static void append(struct book *b, int value)
{
	struct json_object *body = json_object_new_object();
	struct vd_error e;

	json_object_object_add(body, "value", json_object_new_int(value));
	if (book_append(b, "test", body, NULL, NULL, &e) < 0)
		fail_msg("%s", e.message);
	json_object_put(body);
}

static void write_book(void)
{
	struct book *b;
	struct vd_error e;

	assert_int_equal(book_open("book", &b, &e), 0);
	for (int i = 1; i <= N_LINES; i++)
		append(b, i);
	book_close(b);
}

struct seen {
	uint64_t n, sum;
	char last_kind[33];
};

static int see(void *ctx, const struct book_line *line)
{
	struct json_object *value = json_object_object_get(line->body, "value");
	struct seen *s = ctx;

	s->n++;
	s->sum += (uint64_t)json_object_get_int64(value);
	snprintf(s->last_kind, sizeof(s->last_kind), "%s", line->kind);
	return line->n == s->n ? 0 : -1;
}

static int walk(struct seen *s, struct vd_error *e)
{
	struct book *b;
	int r;

	*s = (struct seen){ 0 };
	assert_int_equal(book_open("book", &b, e), 0);
	r = book_walk(b, see, s, e);
	book_close(b);
	return r;
}

static void lines_are_read_in_the_order_in_which_they_were_written(void **state)
{
	struct seen s;
	struct vd_error e;

	(void)state;
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, 0);
	write_book();
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES);
	assert_int_equal(s.sum, N_LINES * (N_LINES + 1) / 2);
}

/* The file's lines, each with its end; the text they are of is the caller's. */
static size_t split(char *text, char *lines[64])
{
	size_t n = 0;

	for (char *at = text; *at; n++) {
		char *end = strchr(at, '\n');

		lines[n] = strndup(at, (size_t)(end - at) + 1);
		at = end + 1;
	}
	return n;
}

static void put(char *const *lines, const int *order, size_t n)
{
	FILE *f = fopen(PART, "w");

	for (size_t i = 0; i < n; i++)
		fputs(lines[order[i]], f);
	assert_int_equal(fclose(f), 0);
}

static void expect(const char *words, int line_no)
{
	struct seen s;
	struct vd_error e;

	if (walk(&s, &e) != VD_ECORRUPT || !strstr(e.message, words))
		fail_msg("%d: wanted '%s', got '%s'", line_no, words, e.message);
}
#define EXPECT(words) expect(words, __LINE__)

static void a_cut_an_edit_a_reorder_and_a_lost_end_are_told_apart(void **state)
{
	static const int missing[] = { 0, 1, 3, 4, 5, 6 }, two[] = { 0, 3, 4, 5, 6 }, swapped[] = { 0, 2, 1, 3, 4, 5, 6 };
	static const int twice[] = { 0, 1, 1, 2, 3, 4, 5, 6 }, cut[] = { 0, 1, 2, 3, 4 }, first[] = { 1, 2, 3, 4, 5, 6 };
	static const int last[] = { 0, 1, 2, 3, 4, 5 }, all[] = { 0, 1, 2, 3, 4, 5, 6 };
	struct bytes text = { 0 };
	char *lines[64];
	struct vd_error e;

	(void)state;
	write_book();
	assert_int_equal(file_read(PART, 1 << 20, &text, &e), 0);
	bytes_add(&text, "", 1);
	assert_int_equal(split((char *)text.at, lines), N_LINES);
	put(lines, missing, 6);
	EXPECT("line 3 is missing");
	put(lines, two, 5);
	EXPECT("lines 2 to 3 are missing");
	put(lines, first, 6);
	EXPECT("line 1 is missing");
	put(lines, swapped, 7);
	EXPECT("line 3 stands where line 2 should");
	put(lines, twice, 8);
	EXPECT("line 2 stands where line 3 should");
	put(lines, cut, 5);
	EXPECT("its end was cut off: lines 6 to 7 are missing");
	put(lines, last, 6);
	EXPECT("its end was cut off: lines 7 to 7 are missing");
	for (int i = 0; i < N_LINES; i++) {
		char *at = strstr(lines[i], "\"value\":") + 8, words[40];

		*at += 1;
		put(lines, all, 7);
		snprintf(words, sizeof(words), "line %d was changed", i + 1);
		EXPECT(words);
		*at -= 1;
	}
	put(lines, all, 7);
	{
		struct seen s;

		assert_int_equal(walk(&s, &e), 0);
	}
	for (int i = 0; i < N_LINES; i++)
		free(lines[i]);
	bytes_free(&text);
}

static void cut_file(const char *path, long size)
{
	assert_int_equal(truncate(path, size), 0);
}

static off_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* As of somebody who was killed in the middle of a line, or between a line and the head: the next one puts it right and says so. */
static void what_a_killed_writer_left_is_put_right_and_told(void **state)
{
	struct bytes head = { 0 };
	struct book *b;
	struct seen s;
	struct vd_error e;
	off_t before;

	(void)state;
	write_book();
	assert_int_equal(file_read("book/head", 4096, &head, &e), 0);
	assert_int_equal(book_open("book", &b, &e), 0);
	append(b, 100);
	before = size_of(PART);
	/* The head is older than the last line. */
	assert_int_equal(file_write("book/head", &head, 0600, true, &e), 0);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES + 1);
	append(b, 200);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES + 2);
	/* And the last line is half of one. */
	assert_int_equal(file_write("book/head", &head, 0600, true, &e), 0);
	cut_file(PART, (long)before + 30);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES + 1);
	append(b, 300);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES + 3);
	book_close(b);
	bytes_free(&head);
}

static void a_book_whose_head_is_lost_goes_on_and_says_so(void **state)
{
	struct book *b;
	struct seen s;
	struct vd_error e;

	(void)state;
	write_book();
	assert_int_equal(unlink("book/head"), 0);
	assert_int_equal(book_open("book", &b, &e), 0);
	append(b, 1);
	book_close(b);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, N_LINES + 2);
}

static void nothing_is_appended_to_a_book_whose_end_was_cut_off(void **state)
{
	struct json_object *body = json_object_new_object();
	struct book *b;
	struct vd_error e;

	(void)state;
	write_book();
	cut_file(PART, size_of(PART) - 10);
	assert_int_equal(book_open("book", &b, &e), 0);
	assert_int_equal(book_append(b, "test", body, NULL, NULL, &e), VD_ECORRUPT);
	assert_non_null(strstr(e.message, "its end was cut off"));
	json_object_put(body);
	book_close(b);
}

static void fifty_processes_at_once_lose_nothing(void **state)
{
	struct seen s;
	struct vd_error e;
	int status;

	(void)state;
	for (int i = 0; i < 50; i++) {
		if (fork() == 0) {
			struct book *b;

			if (book_open("book", &b, &e) < 0)
				_exit(1);
			for (int k = 0; k < 10; k++)
				append(b, 1);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		assert_int_equal(status, 0);
	assert_int_equal(walk(&s, &e), 0);
	assert_int_equal(s.n, 500);
	assert_int_equal(s.sum, 500);
}

static int judge_last(void *ctx, const struct book_line *line)
{
	struct sshsig sig;
	struct vd_error e;

	*(int *)ctx = book_judge_signature(line, &sig, &e);
	return 0;
}

static void a_receipt_holds_and_one_of_another_kind_does_not(void **state)
{
	struct json_object *body = json_object_new_object();
	struct signer s = { .path = "key" };
	struct book *b;
	struct vd_error e;
	int judged;

	(void)state;
	json_object_object_add(body, "snapshot", json_object_new_string("0123"));
	assert_int_equal(sshkey_make("key", "", &s.key, &e), 0);
	assert_int_equal(book_open("book", &b, &e), 0);
	assert_int_equal(book_append(b, "backup", body, &s, NULL, &e), 0);
	assert_int_equal(book_walk(b, judge_last, &judged, &e), 0);
	assert_int_equal(judged, 0);
	assert_int_equal(system("sed -i 's/\"backup\"/\"verify\"/' " PART " && rm book/head"), 0);
	assert_int_equal(book_walk(b, judge_last, &judged, &e), 0);
	assert_int_equal(judged, VD_EAUTH);
	book_close(b);
	signer_close(&s);
	json_object_put(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, vd_tempdir_enter, vd_tempdir_leave)
		TEST(lines_are_read_in_the_order_in_which_they_were_written),
		TEST(a_cut_an_edit_a_reorder_and_a_lost_end_are_told_apart),
		TEST(what_a_killed_writer_left_is_put_right_and_told),
		TEST(a_book_whose_head_is_lost_goes_on_and_says_so),
		TEST(nothing_is_appended_to_a_book_whose_end_was_cut_off),
		TEST(fifty_processes_at_once_lose_nothing),
		TEST(a_receipt_holds_and_one_of_another_kind_does_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
