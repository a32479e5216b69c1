/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kinds of new image that disks are copied into, and the copying of one, as the tests of the copy need them. */
#ifndef TESTS_TARGETS_H
#define TESTS_TARGETS_H

#include "tests/support/disks.h"

struct target {
	const char *name;
	const struct vd_format *format;
	bool encrypts, compresses;
	struct vd_create_opts opts;     /* beside format, size, key */
};

extern const struct target targets[];
extern const size_t n_targets;
const struct target *target_named(const char *name);

/* Makes it on the host, not yet committed. */
int target_create(const struct target *t, struct vd_host *host, const char *name, uint64_t size, struct vd_image **img,
		  struct vd_error *e);
struct vd_image *target_open(const struct target *t, const char *name);

/* Creates `name`, copies src into it on so many threads, commits and closes it. Zero size: the source's. */
struct vd_outcome target_copy(const struct target *t, struct vd_image *src, const char *name, uint64_t size,
			      unsigned n_threads);

#endif
