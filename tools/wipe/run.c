/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Orders the steps of a wipe: nothing is taken away before every member's canary, keys go before data, and what is on one device is
 * wiped one after the other. What a step does is member.c's.
 */
#include "wipe/run.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"
#include "wipe/inuse.h"
#include "wipe/state.h"

#define DEPTH_MAX 8             /* of devices on devices */
#define SAVE_EVERY_S 1          /* at least between two checkpoints of small files */
#define POLL_NS 100000000

struct whole {
	struct wipe_run *run;
	struct wipe_shared shared;
	pthread_mutex_t lock;           /* of the record while it is saved, and of last_saved */
	time_t last_saved;
	struct timespec from;
	uint64_t total;
	unsigned lanes_left;            /* under lock */
	pthread_cond_t ended;           /* one of them has */
};

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

static int save(struct whole *w, struct vd_error *e)
{
	if (!w->run->state)
		return 0;
	w->last_saved = time(NULL);
	return wipe_state_save(w->run->state, &w->run->rec, w->run->key, e);
}

struct lane {
	struct whole *w;
	uint64_t device;
	size_t *members;                /* in the order of their ranks */
	size_t n;
	pthread_t thread;
	struct wipe_member working;     /* the lane's own copy; the record has what is durable */
	size_t index;
};

/* What the lane works on is copied, so that no other lane saves it half changed. */
static int checkpoint(void *ctx, struct vd_error *e)
{
	struct lane *l = ctx;
	struct whole *w = l->w;
	int r = 0;

	pthread_mutex_lock(&w->lock);
	w->run->rec.set.at[l->index] = l->working;
	if (l->working.size > (SAVE_EVERY_S << 26) || time(NULL) - w->last_saved >= SAVE_EVERY_S)
		r = save(w, e);
	pthread_mutex_unlock(&w->lock);
	return r;
}

/* ---- lanes ------------------------------------------------------------------------------------------------ */

static dev_t dev_in(const char *folder)
{
	char path[PATH_MAX + 16];
	unsigned major_no = 0, minor_no = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/dev", folder);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%u:%u", &major_no, &minor_no) != 2)
			major_no = minor_no = 0;
		fclose(f);
	}
	return makedev(major_no, minor_no);
}

/* The device, or file, directly below; 0: there is none, or it is not told. */
static dev_t below(const char *folder)
{
	char path[PATH_MAX + 300], file[PATH_MAX] = "";
	struct dirent **names = NULL;
	struct stat st;
	dev_t dev = 0;
	FILE *f;
	int n;

	snprintf(path, sizeof(path), "%s/loop/backing_file", folder);
	f = fopen(path, "re");
	if (f) {
		if (fgets(file, sizeof(file), f))
			file[strcspn(file, "\n")] = '\0';
		fclose(f);
		return file[0] && stat(file, &st) == 0 ? st.st_dev : 0;
	}
	snprintf(path, sizeof(path), "%s/partition", folder);
	if (access(path, F_OK) == 0) {
		snprintf(path, sizeof(path), "%s/..", folder);
		return dev_in(path);
	}
	snprintf(path, sizeof(path), "%s/slaves", folder);
	n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.' && !dev) {
			snprintf(path, sizeof(path), "%s/slaves/%.255s", folder, names[i]->d_name);
			dev = dev_in(path);
		}
		free(names[i]);
	}
	free(names);
	return dev;
}

/* The lowest device on which the member lies: what shares one is not wiped at the same time. */
static uint64_t device_of(const struct wipe_member *m)
{
	dev_t dev = (dev_t)(m->is_device ? m->ino : m->dev);

	for (int i = 0; i < DEPTH_MAX; i++) {
		char path[64], folder[PATH_MAX];
		dev_t next;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
		next = realpath(path, folder) ? below(folder) : 0;
		if (!next)
			break;
		dev = next;
	}
	return dev;
}

static void tell_failure(struct wipe_member *m, int r, const struct vd_error *e)
{
	if (r < 0 && r != VD_ECANCELLED)
		snprintf(m->failure, sizeof(m->failure), "%.255s", e->message);
}

static void wipe_one(struct lane *l)
{
	struct whole *w = l->w;
	struct wipe_record *rec = &w->run->rec;
	struct wipe_steps steps = { &w->shared, &rec->plan, (uint32_t)l->index, checkpoint, l };
	struct vd_error e;
	int r;

	l->working = rec->set.at[l->index];
	if (l->working.is_done || (rec->plan.erases_only && l->working.is_encrypted))
		return;
	r = wipe_member_overwrite(&l->working, &steps, &e);
	tell_failure(&l->working, r, &e);
	pthread_mutex_lock(&w->lock);
	rec->set.at[l->index] = l->working;
	pthread_mutex_unlock(&w->lock);
}

static void *wipe_lane(void *arg)
{
	struct lane *l = arg;

	for (size_t i = 0; i < l->n && !atomic_load(&l->w->shared.stop); i++) {
		l->index = l->members[i];
		wipe_one(l);
	}
	pthread_mutex_lock(&l->w->lock);
	l->w->lanes_left--;
	pthread_cond_signal(&l->w->ended);
	pthread_mutex_unlock(&l->w->lock);
	return NULL;
}

static void add_to_lanes(struct whole *w, struct lane *lanes, size_t *n, size_t index)
{
	const struct wipe_set *set = &w->run->rec.set;
	uint64_t device = device_of(&set->at[index]);
	size_t i = 0, at;

	while (i < *n && lanes[i].device != device)
		i++;
	if (i == *n) {
		lanes[i] = (struct lane){ .w = w, .device = device, .members = calloc(set->n, sizeof(size_t)) };
		if (!lanes[i].members)
			ui_out_of_memory();
		++*n;
	}
	for (at = lanes[i].n++; at; at--) {
		if (wipe_role_rank(set->at[lanes[i].members[at - 1]].role) <= wipe_role_rank(set->at[index].role))
			break;
		lanes[i].members[at] = lanes[i].members[at - 1];
	}
	lanes[i].members[at] = index;
}

/* Draws progress until all lanes have ended; a stop is passed on to them. */
static void watch(struct whole *w)
{
	struct timespec until;

	pthread_mutex_lock(&w->lock);
	while (w->lanes_left) {
		struct vd_progress p = { "wipe", atomic_load(&w->shared.done), w->total };

		pthread_mutex_unlock(&w->lock);
		if (p.done > p.total)
			p.done = p.total;
		if (w->run->job->progress(w->run->job->ctx, &p))
			atomic_store(&w->shared.stop, true);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += POLL_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_mutex_lock(&w->lock);
		if (w->lanes_left)
			pthread_cond_timedwait(&w->ended, &w->lock, &until);
	}
	pthread_mutex_unlock(&w->lock);
}

static void overwrite(struct whole *w)
{
	const struct wipe_set *set = &w->run->rec.set;
	struct lane *lanes = calloc(set->n, sizeof(*lanes));
	size_t n = 0;

	if (!lanes)
		ui_out_of_memory();
	for (size_t i = 0; i < set->n; i++)
		add_to_lanes(w, lanes, &n, i);
	w->lanes_left = (unsigned)n;
	for (size_t i = 0; i < n; i++)
		if (pthread_create(&lanes[i].thread, NULL, wipe_lane, &lanes[i]))
			ui_out_of_memory();
	watch(w);
	for (size_t i = 0; i < n; i++) {
		pthread_join(lanes[i].thread, NULL);
		free(lanes[i].members);
	}
	free(lanes);
}

/* ---- locks ------------------------------------------------------------------------------------------------ */

static int lock_all(const struct wipe_set *set, int *fds, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n; i++)
		fds[i] = -1;
	for (size_t i = 0; i < set->n && r == 0; i++)
		if (!set->at[i].is_device && !set->at[i].is_unlinked)
			r = wipe_lock(set->at[i].path, &fds[i], e);
	return r;
}

static void unlock_all(const struct wipe_set *set, int *fds)
{
	for (size_t i = 0; i < set->n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(fds);
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

static bool has_begun(const struct wipe_member *m)
{
	return m->pass || m->offset || m->erased || m->is_done;
}

/* What is known to move anyway needs no canary, which would leave one more copy of its block. */
static bool is_known_to_move(const struct wipe_run *run)
{
	struct wipe_findings ignored = { 0 };
	enum wipe_grade best = wipe_grade_set(&run->rec.set, &run->rec.plan, false, &ignored);

	wipe_findings_free(&ignored);
	return best >= WIPE_NOT_ASSURED;
}

bool wipe_run_try_canaries(struct wipe_run *run)
{
	struct wipe_set *set = &run->rec.set;
	bool moved = false;

	if (is_known_to_move(run))
		return run->accept < WIPE_NOT_ASSURED;
	for (size_t i = 0; i < set->n && !signals_stop(); i++) {
		struct wipe_member *m = &set->at[i];
		struct vd_error e;

		if (has_begun(m))
			continue;
		tell_failure(m, wipe_member_canary(m, &e), &e);
		moved |= m->canary_moved || m->failure[0];
	}
	return moved && run->accept < WIPE_NOT_ASSURED;
}

static void erase_keys(struct whole *w)
{
	struct wipe_set *set = &w->run->rec.set;

	for (size_t i = 0; i < set->n && !atomic_load(&w->shared.stop); i++) {
		struct wipe_member *m = &set->at[i];
		struct vd_error e;

		if (!m->n_key_areas || has_begun(m))
			continue;
		tell_failure(m, wipe_member_erase_keys(m, (uint32_t)i, &w->shared, &e), &e);
	}
	atomic_store(&w->shared.done, 0);
}

static void unlink_all(struct wipe_run *run)
{
	enum wipe_grade enough = run->accept > WIPE_OVERWRITTEN ? run->accept : WIPE_OVERWRITTEN;

	for (size_t i = 0; i < run->rec.set.n; i++) {
		struct wipe_member *m = &run->rec.set.at[i];
		struct vd_error e;

		if (run->rec.grade <= enough && !m->is_unlinked && !m->is_device)
			tell_failure(m, wipe_member_unlink(m, &e), &e);
	}
}

static void grade(struct wipe_run *run)
{
	wipe_findings_free(&run->rec.findings);
	run->rec.grade = wipe_grade_set(&run->rec.set, &run->rec.plan, true, &run->rec.findings);
}

static void note_failures(struct wipe_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		struct wipe_member *m = &set->at[i];

		m->has_failed = m->unwritable.bytes || m->unreadable.bytes || m->mismatch.bytes || m->failure[0];
	}
}

static int finish(struct whole *w, bool is_stopped, struct vd_error *e)
{
	struct wipe_run *run = w->run;

	run->rec.set.is_stopped = is_stopped;
	grade(run);
	/* So that after a kill in between what is gone already is known to be done. */
	if (run->unlinks && !is_stopped) {
		int r = save(w, e);

		if (r < 0)
			return r;
		unlink_all(run);
		grade(run);
	}
	note_failures(&run->rec.set);
	return save(w, e);
}

/* What failed as a whole is in the record, too: there is a paper of it. */
static void note_end(struct whole *w, int r, const struct vd_error *e)
{
	struct wipe_record *rec = &w->run->rec;
	struct timespec to;

	clock_gettime(CLOCK_MONOTONIC, &to);
	rec->seconds += (uint64_t)(to.tv_sec - w->from.tv_sec);
	rec->ended = time(NULL);
	if (r == 0)
		return;
	snprintf(rec->set.failure, sizeof(rec->set.failure), "%.255s", e->message);
	grade(w->run);
}

int wipe_run_end(const struct wipe_run *run, struct vd_error *e)
{
	if (!run->state || (!run->rec.set.is_stopped && run->rec.grade >= WIPE_INCOMPLETE))
		return 0;
	return wipe_state_remove(run->state, e);
}

static int run_steps(struct whole *w, struct vd_error *e)
{
	int r = save(w, e);
	bool is_stopped;

	if (r < 0)
		return r;
	is_stopped = wipe_run_try_canaries(w->run);
	if (!is_stopped) {
		erase_keys(w);
		r = save(w, e);
	}
	if (!is_stopped && r == 0)
		overwrite(w);
	return r < 0 ? r : finish(w, is_stopped, e);
}

int wipe_run(struct wipe_run *run, struct vd_error *e)
{
	struct whole w = { .run = run, .shared = { .depth = run->depth, .bytes_per_second = run->bytes_per_second } };
	int *locks = calloc(run->rec.set.n, sizeof(*locks)), r;

	if (!locks)
		ui_out_of_memory();
	clock_gettime(CLOCK_MONOTONIC, &w.from);
	memcpy(w.shared.key, run->key, WIPE_KEY_SIZE);
	pthread_mutex_init(&w.shared.pace, NULL);
	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.ended, NULL);
	for (size_t i = 0; i < run->rec.set.n; i++)
		w.total += wipe_member_cost(&run->rec.set.at[i], &run->rec.plan);
	r = lock_all(&run->rec.set, locks, e);
	if (r == 0)
		r = run_steps(&w, e);
	unlock_all(&run->rec.set, locks);
	note_end(&w, r, e);
	pthread_cond_destroy(&w.ended);
	pthread_mutex_destroy(&w.lock);
	pthread_mutex_destroy(&w.shared.pace);
	return r;
}

/* ---- after a kill ----------------------------------------------------------------------------------------- */

static int recognize(const struct wipe_run *run, size_t i, struct vd_error *e)
{
	struct wipe_member *m = &run->rec.set.at[i], now = { .path = m->path };
	bool holds = false, is_same;
	int r;

	if (m->is_unlinked)
		return 0;
	r = wipe_member_look(&now, e);
	if (r == VD_ENOENT && m->is_done) {
		m->is_unlinked = true;
		return 0;
	}
	if (r < 0)
		return r;
	is_same = now.size == m->size && now.ino == m->ino && now.born == m->born && now.is_device == m->is_device;
	m->dev = now.dev;
	if (is_same && (has_begun(m) || m->is_device))
		r = wipe_member_holds_pattern(m, (uint32_t)i, &run->rec.plan, run->key, &holds, e);
	if (r < 0 || (is_same && (holds || !(has_begun(m) || m->is_device))))
		return r;
	fail(e, EXIT_ECONFIRM, "%s is not, or may not be, what this wipe had begun on", m->path);
	return fail_hint(e, EXIT_ECONFIRM, "remove the state file, and wipe it anew");
}

int wipe_run_recognize(struct wipe_run *run, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < run->rec.set.n && r == 0; i++) {
		struct wipe_member *m = &run->rec.set.at[i];

		r = recognize(run, i, e);
		if (r == 0 && m->has_failed) {
			m->pass = 0;
			m->offset = m->written = m->verified = 0;
			m->has_failed = m->is_done = m->erased = false;
		}
	}
	return r;
}
