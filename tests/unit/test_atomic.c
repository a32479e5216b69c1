/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Outputs appear whole or not at all, whatever fails and whoever else writes the same one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libvdisk/io/atomic.h"
#include "tests/support/fault.h"
#include "tests/support/tempdir.h"

#define OUT "out.raw"
#define PARTIAL "out.raw.vdisk-partial"

static void put(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void assert_content(const char *name, const char *want)
{
	char got[64] = "";
	FILE *f = fopen(name, "r");

	assert_non_null(f);
	if (!fgets(got, sizeof(got), f))
		got[0] = '\0';
	fclose(f);
	assert_string_equal(got, want);
}

/* The whole life of an output; on failure it is abandoned. */
static int produce(struct vd_host *host, const char *text, bool replace, struct vd_error *e)
{
	struct vd_output out = { 0 };
	struct vd_io *io;
	int closed, r = vd_output_open(host, OUT, replace, &out, &io, e);

	if (r < 0)
		return r;
	r = vd_io_pwrite(io, text, strlen(text), 0, e);
	if (r >= 0)
		r = vd_io_flush(io, e);
	if (r >= 0)
		r = vd_output_commit(&out, e);
	vd_output_abandon(&out);
	closed = vd_io_close(io, r < 0 ? NULL : e);
	return r < 0 ? r : closed;
}

static void the_final_name_appears_at_commit(void **state)
{
	struct vd_output out;
	struct vd_io *io;

	(void)state;
	assert_int_equal(vd_output_open(vd_host_os(), OUT, false, &out, &io, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, "new", 3, 0, NULL), 0);
	assert_int_equal(access(OUT, F_OK), -1);
	assert_int_equal(access(PARTIAL, F_OK), 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_output_commit(&out, NULL), 0);
	assert_content(OUT, "new");
	assert_int_equal(access(PARTIAL, F_OK), -1);
	vd_output_abandon(&out);
	assert_content(OUT, "new");
	assert_int_equal(vd_io_pwrite(io, "usable", 6, 0, NULL), 0);
	assert_int_equal(vd_io_close(io, NULL), 0);
	assert_content(OUT, "usable");
}

static void an_abandoned_output_leaves_nothing(void **state)
{
	struct vd_output out;
	struct vd_io *io;

	(void)state;
	assert_int_equal(vd_output_open(vd_host_os(), OUT, false, &out, &io, NULL), 0);
	vd_output_abandon(&out);
	vd_output_abandon(&out);
	vd_io_abort(io);
	assert_int_equal(access(OUT, F_OK), -1);
	assert_int_equal(access(PARTIAL, F_OK), -1);
}

static void an_existing_file_is_replaced_only_when_asked(void **state)
{
	struct vd_error e = { 0 };

	(void)state;
	put(OUT, "old");
	assert_int_equal(produce(vd_host_os(), "new", false, &e), VD_EEXIST);
	assert_string_equal(e.message, "out.raw: exists already");
	assert_string_equal(e.hint, "choose another name, or replace the file with --force");
	assert_content(OUT, "old");
	assert_int_equal(produce(vd_host_os(), "new", true, &e), 0);
	assert_content(OUT, "new");
}

static void a_file_in_use_is_not_replaced(void **state)
{
	struct vd_host *os = vd_host_os();
	struct vd_error e = { 0 };
	struct vd_output out;
	struct vd_io *reader, *io;

	(void)state;
	put(OUT, "old");
	assert_int_equal(os->open(os, OUT, 0, &reader, NULL), 0);
	assert_int_equal(vd_output_open(os, OUT, true, &out, &io, &e), VD_EBUSY);
	assert_int_equal(access(PARTIAL, F_OK), -1);
	vd_io_abort(reader);
	/* Also when the user comes while the output grows. */
	assert_int_equal(vd_output_open(os, OUT, true, &out, &io, NULL), 0);
	assert_int_equal(os->open(os, OUT, 0, &reader, NULL), 0);
	assert_int_equal(vd_output_commit(&out, &e), VD_EBUSY);
	vd_output_abandon(&out);
	vd_io_abort(io);
	vd_io_abort(reader);
	assert_content(OUT, "old");
}

static void a_name_taken_meanwhile_is_not_replaced(void **state)
{
	struct vd_error e = { 0 };
	struct vd_output out;
	struct vd_io *io;

	(void)state;
	assert_int_equal(vd_output_open(vd_host_os(), OUT, false, &out, &io, NULL), 0);
	put(OUT, "theirs");
	assert_int_equal(vd_output_commit(&out, &e), VD_EEXIST);
	assert_string_not_equal(e.hint, "");
	vd_output_abandon(&out);
	vd_io_abort(io);
	assert_content(OUT, "theirs");
	assert_int_equal(access(PARTIAL, F_OK), -1);
}

static void a_second_run_is_busy(void **state)
{
	struct vd_error e = { 0 };
	struct vd_output out;
	struct vd_io *io;

	(void)state;
	assert_int_equal(vd_output_open(vd_host_os(), OUT, false, &out, &io, NULL), 0);
	assert_int_equal(produce(vd_host_os(), "second", false, &e), VD_EBUSY);
	assert_non_null(strstr(e.message, PARTIAL ": in use"));
	assert_non_null(strstr(e.hint, "another run writes the same output"));
	assert_int_equal(access(PARTIAL, F_OK), 0);
	vd_output_abandon(&out);
	vd_io_abort(io);
	assert_int_equal(produce(vd_host_os(), "second", false, &e), 0);
}

static void die_while_writing(void)
{
	struct vd_output out;
	struct vd_io *io;

	if (vd_output_open(vd_host_os(), OUT, false, &out, &io, NULL) || vd_io_pwrite(io, "half of a longer text", 21, 0, NULL))
		_exit(1);
	kill(getpid(), SIGKILL);
}

static void what_a_killed_run_left_is_replaced(void **state)
{
	struct vd_error e = { 0 };
	pid_t child = fork();
	int status;

	(void)state;
	if (!child)
		die_while_writing();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(access(OUT, F_OK), -1);
	assert_content(PARTIAL, "half of a longer text");
	assert_int_equal(produce(vd_host_os(), "whole", false, &e), 0);
	assert_content(OUT, "whole");
	assert_int_equal(access(PARTIAL, F_OK), -1);
}

/* Somebody lays a second name of a precious file where the partial will be. */
static void a_planted_partial_costs_no_other_file(void **state)
{
	struct vd_error e = { 0 };

	(void)state;
	put("precious", "gold");
	assert_int_equal(link("precious", PARTIAL), 0);
	assert_int_equal(produce(vd_host_os(), "new", false, &e), 0);
	assert_content("precious", "gold");
	assert_int_equal(unlink(OUT), 0);
	assert_int_equal(symlink("precious", PARTIAL), 0);
	assert_true(produce(vd_host_os(), "new", false, &e) < 0);
	assert_string_equal(e.hint, "it is in the way of the temporary file: remove it");
	assert_content("precious", "gold");
	assert_int_equal(access(OUT, F_OK), -1);
}

static void a_link_that_leads_nowhere_is_a_taken_name(void **state)
{
	struct vd_error e = { 0 };

	(void)state;
	assert_int_equal(symlink("absent", OUT), 0);
	assert_int_equal(produce(vd_host_os(), "new", false, &e), VD_EEXIST);
	assert_int_equal(produce(vd_host_os(), "new", true, &e), 0);
	assert_content(OUT, "new");
	assert_int_equal(access("absent", F_OK), -1);
}

static void what_is_no_file_is_refused_as_output(void **state)
{
	struct vd_error e = { 0 };
	struct vd_output out;
	struct vd_io *io;

	(void)state;
	assert_int_equal(mkdir(OUT, 0700), 0);
	assert_int_equal(vd_output_open(vd_host_os(), OUT, true, &out, &io, &e), VD_EARG);
	assert_int_equal(vd_output_open(vd_host_os(), "/dev/null", true, &out, &io, &e), VD_EARG);
	assert_int_equal(vd_output_open(vd_host_os(), "no/folder", false, &out, &io, &e), VD_ENOENT);
}

#define RUNS 8
static void *run_once(void *arg)
{
	struct vd_error e = { 0 };
	int *result = arg;

	*result = produce(vd_host_os(), "whole", false, &e);
	return NULL;
}

/* The stale partial of a killed run lies there as well. */
static void of_many_runs_at_once_one_wins(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		pthread_t threads[RUNS];
		int results[RUNS], won = 0;

		put(PARTIAL, "stale");
		for (int i = 0; i < RUNS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, run_once, &results[i]), 0);
		for (int i = 0; i < RUNS; i++) {
			pthread_join(threads[i], NULL);
			won += results[i] == 0;
			assert_true(results[i] == 0 || results[i] == VD_EBUSY || results[i] == VD_EEXIST);
		}
		assert_int_equal(won, 1);
		assert_content(OUT, "whole");
		assert_int_equal(access(PARTIAL, F_OK), -1);
		assert_int_equal(unlink(OUT), 0);
	}
}

static void sweep(unsigned kinds, int err, bool replace)
{
	struct vd_fault_plan plan = { .kinds = kinds, .err = err, .half_done = true };
	struct vd_error e = { 0 };
	struct vd_fault *f;
	int r;

	assert_int_equal(vd_fault_new(vd_host_os(), &f, NULL), 0);
	for (plan.nth = 1; plan.nth < 100; plan.nth++) {
		if (replace)
			put(OUT, "old");
		vd_fault_arm(f, &plan);
		r = produce(vd_fault_host(f), "new", replace, &e);
		if (!vd_fault_fired(f))
			break;
		assert_int_equal(r, vd_code_of_errno(err));
		if (replace)
			assert_content(OUT, "old");
		else
			assert_int_equal(access(OUT, F_OK), -1);
		/* Who cannot look at the partial again leaves it, empty, to the next run. */
		if (!(kinds & VD_OP_OPEN))
			assert_int_equal(access(PARTIAL, F_OK), -1);
	}
	assert_int_equal(r, 0);
	assert_content(OUT, "new");
	assert_true(plan.nth > 1);
	assert_int_equal(unlink(OUT), 0);
	vd_fault_free(f);
}

static void no_failure_leaves_a_file_under_the_final_name(void **state)
{
	(void)state;
	sweep(VD_OP_OPEN, EIO, false);
	sweep(VD_OP_WRITE, ENOSPC, false);
	sweep(VD_OP_FLUSH, EIO, false);
	sweep(VD_OP_RENAME, EIO, false);
	sweep(VD_OP_WRITE | VD_OP_FLUSH | VD_OP_RENAME, EIO, true);
}

/* ---- in another's place ---------------------------------------------------------------------------------- */

static int exchange(struct vd_host *host, const char *name, struct vd_error *e)
{
	struct vd_io *io, *old = NULL;
	int r = host->open(host, name, VD_IO_WRITE, &io, e);

	if (r < 0)
		return r;
	r = vd_output_exchange(host, &io, "new text", 8, &old, e);
	if (r == 0) {
		/* The name that was kept from before is good, and the new file is locked under it. */
		assert_string_equal(io->name, name);
		assert_int_equal(vd_host_os()->open(vd_host_os(), name, VD_IO_WRITE, &old, e), VD_EBUSY);
	}
	vd_io_abort(io);
	return r;
}

static void a_file_in_anothers_place_has_its_name_owner_and_mode(void **state)
{
	struct stat st;

	(void)state;
	put(OUT, "old");
	assert_int_equal(chmod(OUT, 0640), 0);
	assert_int_equal(chown(OUT, 12, 34), 0);
	assert_int_equal(exchange(vd_host_os(), OUT, NULL), 0);
	assert_content(OUT, "new text");
	assert_int_equal(stat(OUT, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_uid, 12);
	assert_int_equal(st.st_gid, 34);
	assert_int_equal(access(PARTIAL, F_OK), -1);
	assert_int_equal(symlink(OUT, "link"), 0);
	assert_true(exchange(vd_host_os(), "link", NULL) < 0);
	assert_content(OUT, "new text");
}

static void a_failed_exchange_leaves_the_old_file(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_OPEN | VD_OP_WRITE | VD_OP_FLUSH | VD_OP_RENAME, .err = EIO };
	struct vd_fault *f;

	(void)state;
	assert_int_equal(vd_fault_new(vd_host_os(), &f, NULL), 0);
	put(OUT, "old");
	for (plan.nth = 1;; plan.nth++) {
		int r;

		vd_fault_arm(f, &plan);
		r = exchange(vd_fault_host(f), OUT, NULL);
		if (!vd_fault_fired(f))
			break;
		assert_true(r < 0);
		assert_content(OUT, "old");
	}
	assert_true(plan.nth > 5);
	assert_content(OUT, "new text");
	vd_fault_free(f);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, vd_tempdir_enter, vd_tempdir_leave)
	const struct CMUnitTest tests[] = {
		IN_FOLDER(the_final_name_appears_at_commit),
		IN_FOLDER(an_abandoned_output_leaves_nothing),
		IN_FOLDER(an_existing_file_is_replaced_only_when_asked),
		IN_FOLDER(a_file_in_use_is_not_replaced),
		IN_FOLDER(a_name_taken_meanwhile_is_not_replaced),
		IN_FOLDER(a_second_run_is_busy),
		IN_FOLDER(what_a_killed_run_left_is_replaced),
		IN_FOLDER(a_planted_partial_costs_no_other_file),
		IN_FOLDER(a_link_that_leads_nowhere_is_a_taken_name),
		IN_FOLDER(what_is_no_file_is_refused_as_output),
		IN_FOLDER(of_many_runs_at_once_one_wins),
		IN_FOLDER(no_failure_leaves_a_file_under_the_final_name),
		IN_FOLDER(a_file_in_anothers_place_has_its_name_owner_and_mode),
		IN_FOLDER(a_failed_exchange_leaves_the_old_file),
	};

	return cmocka_run_group_tests_name("atomic", tests, NULL, NULL);
}
