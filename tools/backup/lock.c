/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks by restic's rules: who wants one looks for others, writes its own, waits a moment, looks again, and gives way if somebody came meanwhile. A
 * lock of half an hour ago is stale, so one that is held is written anew every five minutes.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backup/jread.h"
#include "backup/keyfile.h"
#include "backup/repo.h"
#include "backup/snapshot.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"

#define STALE_S (30 * 60)
#define REFRESH_S (5 * 60)
#define RETRY_S 20                      /* after a refresh that failed */
#define GIVE_UP_S (25 * 60)             /* others may take it for stale soon */
#define SETTLE_MS 200                   /* what restic waits before it looks again */

struct repo_lock {
	struct repo *repo;
	bool is_exclusive;
	char name[STORE_NAME_SIZE];
	struct timespec kept;           /* when the newest was written, by CLOCK_BOOTTIME */
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t stop;
	bool is_over;
};

/* ---- reading those of others ---------------------------------------------------------------------------- */

static void parse(const struct bytes *text, struct repo_lock_info *l, bool *is_bad)
{
	struct jread j = jread_of(text->at, text->n);
	char key[32], when[64] = "";
	uint32_t nsec;

	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (!strcmp(key, "time"))
				jread_text(&j, when, sizeof(when));
			else if (!strcmp(key, "exclusive"))
				l->is_exclusive = jread_bool(&j);
			else if (!strcmp(key, "hostname"))
				jread_text(&j, l->host, sizeof(l->host));
			else if (!strcmp(key, "username"))
				jread_text(&j, l->user, sizeof(l->user));
			else if (!strcmp(key, "pid"))
				l->pid = jread_u64(&j);
			else
				jread_skip(&j);
		}
	*is_bad = !jread_is_done(&j) || !time_read(when, &l->time, &nsec);
}

static bool is_stale(const struct repo_lock_info *l)
{
	char here[128];

	if (l->time + STALE_S < time(NULL))
		return true;
	writer_host(here, sizeof(here));
	/* Without a signal: one would reach its process. */
	return !strcmp(l->host, here) && l->pid && l->pid <= INT32_MAX && kill((pid_t)l->pid, 0) < 0 && errno == ESRCH;
}

struct visit {
	struct repo *repo;
	int (*each)(void *ctx, const struct repo_lock_info *l);
	void *ctx;
};

static int visit_lock(void *ctx, const char *name, uint64_t size)
{
	struct visit *v = ctx;
	struct repo_lock_info l = { 0 };
	struct bytes text = { 0 };
	struct vd_error ignored;
	bool is_bad = true;
	int r = repo_load(v->repo, STORE_LOCK, name, &text, &ignored);

	(void)size;
	if (r == VD_ENOENT)             /* given up meanwhile */
		return 0;
	snprintf(l.name, sizeof(l.name), "%s", name);
	if (r == 0)
		parse(&text, &l, &is_bad);
	bytes_free(&text);
	if (is_bad)
		l = (struct repo_lock_info){ .is_exclusive = true };
	snprintf(l.name, sizeof(l.name), "%s", name);
	l.is_stale = !is_bad && is_stale(&l);
	return v->each(v->ctx, &l);
}

int repo_each_lock(struct repo *r, int (*each)(void *ctx, const struct repo_lock_info *l), void *ctx, struct vd_error *e)
{
	struct visit v = { r, each, ctx };

	return store_list(repo_store(r), STORE_LOCK, visit_lock, &v, e);
}

/* ---- taking --------------------------------------------------------------------------------------------- */

struct search {
	const char *own;                /* passed over */
	bool wants_exclusive, found;
	struct repo_lock_info in_the_way;
};

static int look_at(void *ctx, const struct repo_lock_info *l)
{
	struct search *s = ctx;

	if (!strcmp(l->name, s->own) || !(s->wants_exclusive || l->is_exclusive))
		return 0;
	s->found = true;
	s->in_the_way = *l;
	return 1;
}

static int refuse(const struct repo *r, const struct repo_lock_info *l, struct vd_error *e)
{
	char when[40];

	if (!l->host[0]) {
		fail(e, VD_EBUSY, "%s: a lock that cannot be read is there: %.8s", repo_where(r), l->name);
	} else {
		time_show(l->time, 0, when);
		fail(e, VD_EBUSY, "%s: locked %sby %s on %s, process %llu, since %s%s", repo_where(r), l->is_exclusive ? "exclusively " : "", l->user,
		     l->host, (unsigned long long)l->pid, when, l->is_stale ? "; that lock is stale" : "");
	}
	return fail_hint(e, VD_EBUSY, l->is_stale ? "take stale locks away: vdisk repo unlock --repo %s" :
						    "wait for it; only what is stale is taken away by: vdisk repo unlock --repo %s", repo_where(r));
}

static int look_for_others(const struct repo_lock *l, struct vd_error *e)
{
	struct search s = { .own = l->name, .wants_exclusive = l->is_exclusive };
	int r = repo_each_lock(l->repo, look_at, &s, e);

	return s.found ? refuse(l->repo, &s.in_the_way, e) : r;
}

static int write_lock(struct repo_lock *l, struct vd_error *e)
{
	char host[128], user[64], when[40], name[STORE_NAME_SIZE];
	struct bytes text = { 0 };
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	time_show(now.tv_sec, (uint32_t)now.tv_nsec, when);
	writer_host(host, sizeof(host));
	writer_user(user, sizeof(user));
	bytes_format(&text, "{\"time\":\"%s\",\"exclusive\":%s,\"hostname\":", when, l->is_exclusive ? "true" : "false");
	jwrite_text(&text, host);
	bytes_text(&text, ",\"username\":");
	jwrite_text(&text, user);
	bytes_format(&text, ",\"pid\":%d,\"uid\":%u,\"gid\":%u}", (int)getpid(), (unsigned)getuid(), (unsigned)getgid());
	r = repo_save(l->repo, STORE_LOCK, &text, name, e);
	bytes_free(&text);
	if (r < 0)
		return r;
	/* Who looks for locks on files without end sees either the old one or the new. */
	if (l->name[0] && strcmp(l->name, name) != 0)
		store_remove(repo_store(l->repo), STORE_LOCK, l->name, &(struct vd_error){ 0 });
	pthread_mutex_lock(&l->mutex);
	memcpy(l->name, name, sizeof(name));
	clock_gettime(CLOCK_BOOTTIME, &l->kept);
	pthread_mutex_unlock(&l->mutex);
	return 0;
}

static void *keep_fresh(void *arg)
{
	struct repo_lock *l = arg;
	struct timespec until;
	struct vd_error ignored;
	int wait = REFRESH_S;

	pthread_mutex_lock(&l->mutex);
	while (!l->is_over) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += wait;
		while (!l->is_over && pthread_cond_timedwait(&l->stop, &l->mutex, &until) != ETIMEDOUT)
			;
		if (l->is_over)
			break;
		pthread_mutex_unlock(&l->mutex);
		wait = write_lock(l, &ignored) == 0 ? REFRESH_S : RETRY_S;
		pthread_mutex_lock(&l->mutex);
	}
	pthread_mutex_unlock(&l->mutex);
	return NULL;
}

static void drop(struct repo_lock *l)
{
	if (l->name[0])
		store_remove(repo_store(l->repo), STORE_LOCK, l->name, &(struct vd_error){ 0 });
	pthread_mutex_destroy(&l->mutex);
	pthread_cond_destroy(&l->stop);
	free(l);
	signals_spare_hangup(false);
}

int repo_lock(struct repo *r, bool is_exclusive, struct vd_error *e)
{
	struct repo_lock *l = calloc(1, sizeof(*l));
	int c;

	if (!l)
		ui_out_of_memory();
	*l = (struct repo_lock){ .repo = r, .is_exclusive = is_exclusive };
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->stop, NULL);
	signals_spare_hangup(true);
	c = look_for_others(l, e);
	if (c == 0)
		c = write_lock(l, e);
	if (c == 0) {
		nanosleep(&(struct timespec){ .tv_nsec = SETTLE_MS * 1000000L }, NULL);
		c = look_for_others(l, e);
	}
	if (c == 0 && pthread_create(&l->thread, NULL, keep_fresh, l) != 0)
		c = fail(e, VD_ENOMEM, "no thread could be started");
	if (c < 0) {
		drop(l);
		return c;
	}
	*repo_lock_slot(r) = l;
	return 0;
}

void repo_unlock(struct repo *r)
{
	struct repo_lock *l = *repo_lock_slot(r);

	if (!l)
		return;
	pthread_mutex_lock(&l->mutex);
	l->is_over = true;
	pthread_cond_signal(&l->stop);
	pthread_mutex_unlock(&l->mutex);
	pthread_join(l->thread, NULL);
	*repo_lock_slot(r) = NULL;
	drop(l);
}

int repo_still_locked(struct repo *r, struct vd_error *e)
{
	struct repo_lock *l = *repo_lock_slot(r);
	struct timespec now;
	bool is_kept;

	clock_gettime(CLOCK_BOOTTIME, &now);
	pthread_mutex_lock(&l->mutex);
	is_kept = now.tv_sec - l->kept.tv_sec < GIVE_UP_S;
	pthread_mutex_unlock(&l->mutex);
	return is_kept ? 0 : fail(e, VD_EBUSY, "%s: the lock could not be kept for 25 minutes; nothing that was begun is committed", repo_where(r));
}
