/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What those who gather facts share. */
#ifndef TOOLS_SCAN_GATHER_H
#define TOOLS_SCAN_GATHER_H

#include "scan/facts.h"

/* A copy that lives as long as the facts. */
char *scan_keep(struct scan_facts *f, const char *text);
/* A file, kept as text that may be cut up; NULL: there is none, or it cannot be read, which is a shortfall. */
char *scan_load(struct scan_facts *f, const char *path, size_t max);
/* Room for one more than n. */
void *scan_grow(void *at, size_t n, size_t size);

int scan_read_packages(struct scan_facts *f, struct vd_error *e);

#endif
