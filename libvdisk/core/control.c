/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is in an image: lends shares of the control lock to I/O that outlives its call, and waits until they are back. */
#include "libvdisk/core/image.h"

void vd_control_lend(struct vd_image *img)
{
	pthread_mutex_lock(&img->lent_lock);
	img->n_lent++;
	pthread_mutex_unlock(&img->lent_lock);
}

void vd_control_give_back(struct vd_image *img)
{
	pthread_mutex_lock(&img->lent_lock);
	if (--img->n_lent == 0)
		pthread_cond_broadcast(&img->lent_back);
	pthread_mutex_unlock(&img->lent_lock);
}

/* With the lock held nobody can lend any more. */
void vd_control_alone(struct vd_image *img)
{
	pthread_rwlock_wrlock(&img->control);
	pthread_mutex_lock(&img->lent_lock);
	while (img->n_lent)
		pthread_cond_wait(&img->lent_back, &img->lent_lock);
	pthread_mutex_unlock(&img->lent_lock);
}

void vd_control_release(struct vd_image *img)
{
	pthread_rwlock_unlock(&img->control);
}
