/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps idle handles for reuse; what a handle is, is its maker's business. */
#include "libvdisk/base/freelist.h"

#include "libvdisk/base/cleanup.h"

void vd_freelist_init(struct vd_freelist *f, void (*destroy)(void *handle))
{
	pthread_mutex_init(&f->lock, NULL);
	f->n = 0;
	f->destroy = destroy;
}

void *vd_freelist_get(struct vd_freelist *f)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&f->lock);

	return f->n ? f->idle[--f->n] : NULL;
}

void vd_freelist_put(struct vd_freelist *f, void *handle)
{
	pthread_mutex_lock(&f->lock);
	if (f->n < sizeof(f->idle) / sizeof(f->idle[0])) {
		f->idle[f->n++] = handle;
		handle = NULL;
	}
	pthread_mutex_unlock(&f->lock);
	if (handle)
		f->destroy(handle);
}

void vd_freelist_fini(struct vd_freelist *f)
{
	while (f->n)
		f->destroy(f->idle[--f->n]);
	pthread_mutex_destroy(&f->lock);
}
