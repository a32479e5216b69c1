/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cleanup attributes: every resource is released by the line that declares it. No macro here hides a return. */
#ifndef VD_BASE_CLEANUP_H
#define VD_BASE_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* Calls fn(*p) when p is not NULL, for a variable of pointer type. */
#define VD_DEFINE_CLEANUP(type, name, fn)                \
	static inline void name(type **p)                \
	{                                                \
		if (*p)                                  \
			fn(*p);                          \
	}

static inline void vd_cleanup_free(void *p)
{
	free(*(void **)p);
}
#define vd_auto_free __attribute__((cleanup(vd_cleanup_free)))

/* For descriptors opened for reading only: a close after writing has a result and is written out. */
static inline void vd_cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define vd_auto_fd __attribute__((cleanup(vd_cleanup_fd)))

static inline void vd_cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}
/* Holds the mutex until the end of the scope: vd_auto_unlock pthread_mutex_t *held = vd_locked(&m); */
#define vd_auto_unlock __attribute__((cleanup(vd_cleanup_unlock), unused))
static inline pthread_mutex_t *vd_locked(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

/* Takes the value out of a pointer variable, leaving NULL: hands ownership on past a cleanup attribute. */
#define vd_steal(p)                              \
	__extension__({                          \
		__typeof__(p) vd_steal_p = (p);  \
		__typeof__(*vd_steal_p) vd_steal_v = *vd_steal_p; \
		*vd_steal_p = NULL;              \
		vd_steal_v;                      \
	})

#endif
