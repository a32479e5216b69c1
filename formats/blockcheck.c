/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Marks off what is named, window by window. Which entries there are, the drivers know. */
#include "formats/blockcheck.h"

#include <inttypes.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define WINDOW_UNITS (UINT64_C(64) << 20)       /* a bit each: 8 MiB */

static int found(struct vd_block_check *k, struct vd_finding *f, const char *text, struct vd_error *e)
{
	f->file = k->file;
	snprintf(f->text, sizeof(f->text), "%.*s", (int)sizeof(f->text) - 1, text);
	return k->c->found(k->c, f, e);
}

int vd_check_tell(struct vd_block_check *k, enum vd_finding_kind kind, enum vd_severity severity, const char *text,
		  struct vd_error *e)
{
	struct vd_finding f = { .kind = kind, .severity = severity, .can_mend = true, .n = 1 };

	return found(k, &f, text, e);
}

int vd_check_broken(struct vd_block_check *k, uint64_t entry_off, uint64_t guest_off, const struct vd_error *what,
		    struct vd_error *e)
{
	struct vd_finding f = {
		.kind = VD_FOUND_TABLE, .severity = VD_SEVERITY_CORRUPTION, .n = 1, .has_entry = true, .entry_off = entry_off,
		.has_guest = guest_off != VD_HOST_NOWHERE, .guest_off = guest_off,
	};

	return k->is_first ? found(k, &f, what->message, e) : 0;
}

/* Marks units of the window; false when some were taken. */
static bool mark(struct vd_block_check *k, uint64_t from, uint64_t to)
{
	bool is_new = true;

	for (uint64_t i = vd_max_u64(from, k->start); i < vd_min_u64(to, k->stop); i++) {
		uint8_t bit = 1u << i % 8, *byte = &k->taken[(i - k->start) / 8];

		is_new &= !(*byte & bit);
		*byte |= bit;
	}
	return is_new;
}

int vd_check_place(struct vd_block_check *k, uint64_t off, uint64_t len, uint64_t entry_off, uint64_t guest_off,
		   struct vd_error *e)
{
	struct vd_check_report *rep = k->c->report;
	uint64_t from = off / k->unit, to = vd_round_up(off + len, k->unit) / k->unit;
	struct vd_finding f = {
		.kind = VD_FOUND_OVERLAP, .severity = VD_SEVERITY_CORRUPTION, .n = 1, .has_entry = true, .entry_off = entry_off,
		.has_host = true, .host_off = off, .has_guest = guest_off != VD_HOST_NOWHERE, .guest_off = guest_off,
	};
	char text[200];

	if (k->is_first) {
		rep->image_end_offset = vd_max_u64(rep->image_end_offset, off + len);
		rep->allocated_clusters += f.has_guest;
	}
	/* Of what lies across two windows the one where it begins tells. */
	if (mark(k, from, to) || from < k->start || from >= k->stop)
		return 0;
	snprintf(text, sizeof(text), "what the entry at %" PRIu64 " names at %" PRIu64 " belongs to something else, too", entry_off, off);
	return found(k, &f, text, e);
}

int vd_check_blocks(struct vd_block_check *k, struct vd_error *e)
{
	struct vd_check_report *rep = k->c->report;
	uint64_t n_units = vd_round_up(k->end, k->unit) / k->unit;
	vd_auto_free uint8_t *taken = NULL;
	int r = vd_alloc(1, vd_min_u64(n_units, WINDOW_UNITS) / 8 + 1, &taken, e);

	k->taken = taken;
	k->is_first = true;
	for (k->start = 0; k->start < n_units && r == 0; k->start = k->stop, k->is_first = false) {
		k->stop = vd_min_u64(n_units, k->start + WINDOW_UNITS);
		memset(taken, 0, (k->stop - k->start) / 8 + 1);
		r = k->visit(k->st, k, e);
		if (r == 0)
			r = k->c->progress(k->c, k->stop * k->unit, n_units * k->unit, e);
	}
	k->taken = NULL;
	rep->has_clusters = true;
	rep->total_clusters = vd_round_up(k->size, k->block_size) / k->block_size;
	return r;
}
