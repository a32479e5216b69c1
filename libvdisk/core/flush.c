/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes writes durable. One commit runs at a time; a flush that arrives while one runs waits for the next, which then
 * serves all that wait (group commit). After it the quarantine of what was unlinked ends (freeing.c).
 */
#include "libvdisk/core/image.h"

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

int vd_image_commit_tables(struct vd_image *img, struct vd_error *e)
{
	uint64_t mine = atomic_fetch_add(&img->commits_asked, 1) + 1, serves;
	int r;

	pthread_mutex_lock(&img->commit);
	r = vd_image_poisoned(img, e);
	if (r == 0 && img->commits_done < mine) {
		serves = atomic_load(&img->commits_asked);
		r = commit_once(img, e);
		/* Out of memory before anything was written harms nothing: the caller may flush again. */
		if (r < 0 && r != VD_ENOMEM)
			atomic_store(&img->poisoned, true);
		if (r == 0)
			img->commits_done = serves;
	}
	pthread_mutex_unlock(&img->commit);
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
