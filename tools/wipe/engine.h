/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves the bytes of a wipe: overwrites and reads back, several requests at a time, past the page cache where that can be. */
#ifndef TOOLS_WIPE_ENGINE_H
#define TOOLS_WIPE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "wipe/cipher.h"
#include "wipe/extents.h"

#define WIPE_CHUNK (4u << 20)   /* the largest request */
#define WIPE_ALIGN 4096u        /* of requests past the page cache, and of what is tried again when a larger one failed */

/* What all threads of a run share. */
struct wipe_shared {
	_Atomic uint64_t done;          /* bytes written and read */
	_Atomic bool stop;
	unsigned depth;                 /* requests at a time on one device */
	uint8_t key[WIPE_KEY_SIZE];     /* of the random patterns */
	uint64_t bytes_per_second;      /* 0: as fast as it goes */
	pthread_mutex_t pace;
	double next;                    /* when the next request may go */
};

/* What is written: one byte over and over, or the keyed stream of this member and pass. */
struct wipe_fill {
	bool is_random;
	uint8_t byte;
	uint32_t member, pass;
};

/* A member that is open for the wipe. direct: past the page cache, or -1. */
struct wipe_file {
	int direct, plain;
};
int wipe_file_open(const struct wipe_member *m, struct wipe_file *f, struct vd_error *e);
/* All that was written is on the device; what the cache holds of it is dropped. */
int wipe_file_sync(const struct wipe_file *f, const struct wipe_member *m, struct vd_error *e);
int wipe_file_close(struct wipe_file *f, const struct wipe_member *m, struct vd_error *e);

/* What was made, renamed or removed in the folder of that file is durable. */
int wipe_flush_folder_of(const char *path, struct vd_error *e);

struct wipe_work {
	struct wipe_shared *shared;
	const struct wipe_file *file;
	const struct wipe_extent *at;   /* in order */
	size_t n;
	struct wipe_fill fill;
	bool verifies;                  /* read and compare; else write */
	const struct wipe_bad *known;   /* what could not be written, and is no mismatch therefore */
	/* The result. */
	struct wipe_bad *failed, *mismatch;
	uint64_t bytes;                 /* dealt with, failures too */
	_Atomic bool through_cache;             /* some of it went by the page cache, other than the last bytes of a file */
};
/* VD_ECANCELLED: shared->stop was set. What fails is in the lists, and is no failure of the call. */
int wipe_work(struct wipe_work *w, struct vd_error *e);
void wipe_bad_add(struct wipe_bad *bad, uint64_t off, uint64_t len);

#endif
