/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes writes durable. One commit runs at a time; a flush that arrives while one runs waits for the next, which then
 * serves all that wait (group commit). After it the quarantine of what was unlinked ends (freeing.c).
 */
#include "libvdisk/core/image.h"

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

/* With the lock held, which is not held while it runs. It serves all who have asked by now. */
static int lead_commit(struct vd_image *img, struct vd_error *e)
{
	uint64_t serves = img->commits_asked;
	int r;

	img->is_committing = true;
	pthread_mutex_unlock(&img->commit);
	r = commit_once(img, e);
	/* Out of memory before anything was written harms nothing: the caller may flush again. */
	if (r < 0 && r != VD_ENOMEM)
		atomic_store(&img->poisoned, true);
	pthread_mutex_lock(&img->commit);
	img->is_committing = false;
	if (r == 0)
		img->commits_done = serves;
	/* All at once: those who are served go on, and one of the others leads. */
	pthread_cond_broadcast(&img->commit_ended);
	return r;
}

int vd_image_commit_tables(struct vd_image *img, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->commit);
	uint64_t mine = ++img->commits_asked;
	int r = 0;

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
