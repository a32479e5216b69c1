/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A second opinion on qcow2 files, which shares no code with the driver: counts who refers to each cluster and compares
 * with the refcounts, as qemu-img check does, but in a millisecond.
 */
#ifndef TESTS_QCOW2_CHECK_H
#define TESTS_QCOW2_CHECK_H

#include "libvdisk/io/io.h"

struct qcow2_verdict {
	unsigned n_errors;      /* fewer counts than owners, an entry that leads nowhere, a wrong copied flag */
	unsigned n_leaks;       /* more counts than owners: space is lost, and nothing else */
	char first[160];        /* the first error in words */
};

struct qcow2_verdict qcow2_check(struct vd_host *host, const char *name);

#endif
