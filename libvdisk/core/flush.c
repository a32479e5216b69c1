/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes writes durable. One commit runs at a time; a flush that arrives while one runs waits for the next, which then
 * serves all that wait (group commit). After it the quarantine of what was unlinked ends (freeing.c).
 */
#include "libvdisk/core/image.h"

#include <time.h>

#include "libvdisk/base/cleanup.h"

int vd_image_poisoned(const struct vd_image *img, struct vd_error *e)
{
	if (!atomic_load(&img->poisoned))
		return 0;
	vd_fail(e, VD_EPOISONED, "%s: an earlier write of a table or a flush failed; nothing more is written", img->path);
	return vd_hint(e, VD_EPOISONED, "close the image, look after the storage, then check the image: what was flushed before is safe");
}

static int commit_once(struct vd_image *img, struct vd_error *e)
{
	struct vd_meta_batch *batch = NULL;
	struct vd_space_batch freed = { 0 };
	int r;

	pthread_mutex_lock(&img->alloc);
	r = vd_meta_snapshot(img->meta, &batch, e);
	if (r == 0)
		freed = vd_space_take(img->space);
	pthread_mutex_unlock(&img->alloc);
	if (r < 0)
		return r;
	r = vd_meta_commit(img->meta, batch, e);
	if (r == 0)
		return vd_image_free_space(img, &freed, e);
	pthread_mutex_lock(&img->alloc);
	vd_space_put_back(img->space, freed);
	pthread_mutex_unlock(&img->alloc);
	return r;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/*
 * Those whom the last commit has served are likely on their way with the next write. Without a moment's patience they
 * would miss this one, and the threads go on in two halves that wait for each other's commits.
 */
static void gather(struct vd_image *img)
{
	uint64_t until = now_ns() + img->commit_ns / 8;
	struct timespec t = { (time_t)(until / 1000000000), (long)(until % 1000000000) };
	int err = 0;

	while (img->commits_asked - img->commits_done < img->n_flushers && !err)
		err = pthread_cond_clockwait(&img->commit_asked, &img->commit, CLOCK_MONOTONIC, &t);
}

/* With the lock held, which is not held while it runs. It serves all who have asked by then. */
static int lead_commit(struct vd_image *img, struct vd_error *e)
{
	uint64_t serves, start, n;
	int r;

	img->is_committing = true;
	gather(img);
	serves = img->commits_asked;
	n = serves - img->commits_done;
	start = now_ns();
	pthread_mutex_unlock(&img->commit);
	r = commit_once(img, e);
	/* Out of memory before anything was written harms nothing: the caller may flush again. */
	if (r < 0 && r != VD_ENOMEM)
		atomic_store(&img->poisoned, true);
	pthread_mutex_lock(&img->commit);
	img->is_committing = false;
	if (r == 0)
		img->commits_done = serves;
	img->commit_ns = now_ns() - start;
	img->n_flushers = n + (img->commits_asked - serves);
	/* All at once: those who are served go on, and one of the others leads. */
	pthread_cond_broadcast(&img->commit_ended);
	return r;
}

int vd_image_commit_tables(struct vd_image *img, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->commit);
	uint64_t mine = ++img->commits_asked;
	int r = 0;

	pthread_cond_signal(&img->commit_asked);
	while (r == 0 && img->commits_done < mine) {
		if (img->is_committing) {
			pthread_cond_wait(&img->commit_ended, &img->commit);
			continue;
		}
		r = vd_image_poisoned(img, e);
		if (r == 0)
			r = lead_commit(img, e);
	}
	return r;
}

VD_PUBLIC int vd_image_flush(struct vd_image *img, struct vd_error *e)
{
	int r;

	/* A handle that wrote no guest bytes may have scrubbed. */
	if (!img->writable)
		return vd_image_poisoned(img, e);
	pthread_rwlock_rdlock(&img->control);
	r = vd_image_commit_tables(img, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}
