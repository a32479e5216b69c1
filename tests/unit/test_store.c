/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects in a folder: what is put is there whole or not at all. Servers: tests/interop/rest.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "backup/store.h"
#include "tests/support/tempdir.h"

#define SOME "abababababababababababababababababababababababababababababababab"
#define OTHER "ab01010101010101010101010101010101010101010101010101010101010101"

static struct store *new_store(void)
{
	struct store *s = NULL;
	struct vd_error e;

	assert_int_equal(store_create("repo", NULL, &s, &e), 0);
	return s;
}

static int put_text(struct store *s, enum store_kind kind, const char *name, const char *text, struct vd_error *e)
{
	size_t half = strlen(text) / 2;
	struct iovec pieces[] = { { (void *)text, half }, { (void *)(text + half), strlen(text) - half } };

	return store_put(s, kind, name, pieces, 2, e);
}

static int count(void *ctx, const char *name, uint64_t size)
{
	(void)name, (void)size;
	++*(int *)ctx;
	return 0;
}

static int count_of(struct store *s, enum store_kind kind)
{
	struct vd_error e;
	int n = 0;

	assert_int_equal(store_list(s, kind, count, &n, &e), 0);
	return n;
}

static void what_is_put_is_read_listed_and_removed(void **state)
{
	struct store *s = new_store();
	struct vd_error e;
	char buf[4];
	uint64_t size;

	(void)state;
	for (int kind = STORE_CONFIG; kind <= STORE_PACK; kind++) {
		const char *name = kind == STORE_CONFIG ? "" : SOME;

		assert_int_equal(put_text(s, kind, name, "content", &e), 0);
		assert_int_equal(store_get(s, kind, name, 3, buf, 4, &e), 0);
		assert_memory_equal(buf, "tent", 4);
		assert_int_equal(store_get(s, kind, name, 4, buf, 4, &e), VD_ECORRUPT);
		assert_int_equal(store_size(s, kind, name, &size, &e), 0);
		assert_int_equal(size, 7);
		assert_int_equal(kind == STORE_CONFIG ? 1 : count_of(s, kind), 1);
		assert_int_equal(store_remove(s, kind, name, &e), 0);
		assert_int_equal(store_remove(s, kind, name, &e), VD_ENOENT);
		assert_int_equal(store_get(s, kind, name, 0, buf, 1, &e), VD_ENOENT);
		assert_int_equal(store_size(s, kind, name, &size, &e), VD_ENOENT);
	}
	store_close(s);
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void places_and_modes_are_those_of_restic(void **state)
{
	struct store *s = new_store();
	struct vd_error e;

	(void)state;
	umask(022);
	assert_int_equal(put_text(s, STORE_PACK, SOME, "content", &e), 0);
	assert_int_equal(put_text(s, STORE_CONFIG, "", "config", &e), 0);
	assert_int_equal(mode_of("repo"), 0700);
	assert_int_equal(mode_of("repo/data/ab"), 0700);
	assert_int_equal(mode_of("repo/data/ab/" SOME), 0400);
	assert_int_equal(mode_of("repo/config"), 0400);
	assert_int_equal(mode_of("repo/index") | mode_of("repo/keys") | mode_of("repo/locks") | mode_of("repo/snapshots"), 0700);
	store_close(s);
}

static void a_name_that_is_taken_stays_what_it_is(void **state)
{
	struct store *s = new_store();
	struct vd_error e;
	char buf[7];

	(void)state;
	assert_int_equal(put_text(s, STORE_PACK, SOME, "content", &e), 0);
	assert_int_equal(put_text(s, STORE_PACK, SOME, "content", &e), 0);
	assert_int_equal(put_text(s, STORE_PACK, SOME, "Content", &e), VD_EEXIST);
	assert_int_equal(put_text(s, STORE_PACK, SOME, "conten", &e), VD_EEXIST);
	assert_int_equal(put_text(s, STORE_PACK, SOME, "contents", &e), VD_EEXIST);
	assert_int_equal(store_get(s, STORE_PACK, SOME, 0, buf, 7, &e), 0);
	assert_memory_equal(buf, "content", 7);
	assert_int_equal(put_text(s, STORE_PACK, "../../../etc/passwd", "content", &e), VD_EARG);
	assert_int_equal(put_text(s, STORE_CONFIG, SOME, "content", &e), VD_EARG);
	store_close(s);
}

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void what_is_no_object_is_passed_over(void **state)
{
	struct store *s = new_store();
	struct vd_error e;

	(void)state;
	assert_int_equal(put_text(s, STORE_PACK, SOME, "content", &e), 0);
	touch("repo/data/ab/" SOME "-tmp-1");
	touch("repo/data/ab/cd01010101010101010101010101010101010101010101010101010101010101");
	touch("repo/data/stray");
	touch("repo/snapshots/stray");
	assert_int_equal(mkdir("repo/data/ab/" OTHER, 0700), 0);
	assert_int_equal(count_of(s, STORE_PACK), 1);
	assert_int_equal(count_of(s, STORE_SNAPSHOT), 0);
	assert_int_equal(rmdir("repo/locks"), 0);
	assert_int_equal(count_of(s, STORE_LOCK), 0);
	assert_int_equal(put_text(s, STORE_LOCK, SOME, "content", &e), 0);
	store_close(s);
}

static void a_repository_is_made_where_nothing_is(void **state)
{
	struct store *s = new_store(), *again = NULL;
	struct vd_error e;

	(void)state;
	store_close(s);
	/* A try that was cut off has left empty places. */
	assert_int_equal(store_create("repo", NULL, &again, &e), 0);
	assert_int_equal(put_text(again, STORE_KEY, SOME, "key", &e), 0);
	store_close(again);
	assert_int_equal(store_create("repo", NULL, &again, &e), VD_EEXIST);
	assert_int_equal(mkdir("full", 0700), 0);
	touch("full/file");
	assert_int_equal(store_create("full", NULL, &again, &e), VD_EEXIST);
	assert_int_equal(store_open("none", NULL, &again, &e), VD_ENOENT);
	assert_null(again);
}

/* tmpfs of 1 MiB: what does not fit leaves no name and no bytes. */
static void a_full_disk_leaves_nothing(void **state)
{
	struct store *s = NULL;
	struct vd_error e;
	uint8_t *big = calloc(1, 2 << 20);
	struct iovec piece = { big, 2 << 20 };

	(void)state;
	assert_int_equal(mkdir("small", 0700), 0);
	assert_int_equal(mount("none", "small", "tmpfs", 0, "size=1m"), 0);
	assert_int_equal(store_create("small/repo", NULL, &s, &e), 0);
	assert_int_equal(store_put(s, STORE_PACK, SOME, &piece, 1, &e), VD_ENOSPC);
	assert_int_equal(count_of(s, STORE_PACK), 0);
	piece.iov_len = 900 << 10;
	assert_int_equal(store_put(s, STORE_PACK, SOME, &piece, 1, &e), 0);
	store_close(s);
	assert_int_equal(umount("small"), 0);
	free(big);
}

#define THREADS 8
#define OBJECTS 64

/* All put the same objects, and each its own. */
static void *put_many(void *ctx)
{
	struct store *s = ctx;
	struct vd_error e;
	char name[STORE_NAME_SIZE];

	for (unsigned i = 0; i < OBJECTS; i++) {
		snprintf(name, sizeof(name), "%064x", i);
		if (put_text(s, STORE_PACK, name, name, &e) < 0)
			return s;
		snprintf(name, sizeof(name), "%032lx%032x", (unsigned long)pthread_self(), i);
		if (put_text(s, STORE_PACK, name, name, &e) < 0)
			return s;
	}
	return NULL;
}

static void threads_put_side_by_side(void **state)
{
	struct store *s = new_store();
	pthread_t threads[THREADS];
	void *failed;

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_many, s), 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(count_of(s, STORE_PACK), OBJECTS + THREADS * OBJECTS);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_put_is_read_listed_and_removed, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(places_and_modes_are_those_of_restic, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(a_name_that_is_taken_stays_what_it_is, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(what_is_no_object_is_passed_over, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(a_repository_is_made_where_nothing_is, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(a_full_disk_leaves_nothing, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(threads_put_side_by_side, vd_tempdir_enter, vd_tempdir_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
