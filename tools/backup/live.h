/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk of a running machine as it is at one moment, shown by its qemu over NBD while the machine goes on writing: what is overwritten is first copied to a
 * file that qemu alone knows, encrypted with a key that nobody keeps.
 */
#ifndef TOOLS_BACKUP_LIVE_H
#define TOOLS_BACKUP_LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <vdisk.h>

struct live_want {
	const char *qmp;                /* qemu's QMP socket; nobody else may be connected to it meanwhile */
	const char *agent;              /* the guest agent's, to freeze file systems for the moment; NULL: they go on */
	const char *image;              /* whose disk */
	const char *base_bitmap;        /* one that records since the base; NULL or "": none */
	uint64_t base_granularity;
	const char *fresh_bitmap;       /* to be made, in the same moment, in pieces as blockset_shift() has them; NULL or "": none */
	const char *leftovers;          /* bitmaps whose names begin so are of backups that were killed; NULL: none */
};
struct live;

/* Why the base's bitmap does not tell, and why the fresh one was not made; "": it does, and was, or was not asked for. */
struct live_doubts {
	char base[160], fresh[160];
};
int live_begin(const struct live_want *want, struct live **out, struct live_doubts *doubts, struct vd_error *e);
/* What to open, and under which name the server has what the base's bitmap said at that moment; "": it does not tell. */
const char *live_uri(const struct live *l);
const char *live_bitmap(const struct live *l);
/* It was made, and records. */
bool live_has_fresh(const struct live *l);
/* Qemu stops showing it, and forgets the bitmap `drop`, if any. NULL is allowed for both. */
int live_end(struct live *l, const char *drop, struct vd_error *e);

#endif
