/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Remains in an image's files and on its disk outside of volumes: parents, snapshots, memory of machines, clusters of nobody,
 * text in descriptors, gaps between partitions. What is inside file systems is not looked at here.
 */
#include "scan/container.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "scan/residue.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"

#define RULE "SEAL-028"         /* of the catalogue: the container */
#define RULE_GAPS "SEAL-025"
#define PIECE ((size_t)1 << 20)
#define RUNS 256

struct look {
	struct vd_image *img;
	struct fsview *v;
	struct scan_findings *f;
	uint8_t *piece;
	bool is_encrypted;
	uint64_t bytes[VD_N_OWNERS];            /* that are not zeros, of those who should have none */
	uint64_t vm_state;
	struct scan_nonzero gaps;
};

/* Nothing but zeros; or but ones, with which tables are padded. */
static bool is_blank(const uint8_t *p, size_t n)
{
	return !n || ((!p[0] || p[0] == 0xff) && !memcmp(p, p + 1, n - 1));
}

/* ---- what the image says of itself ------------------------------------------------------------------------- */

static int judge_info(struct look *l, struct vd_error *e)
{
	struct vd_info info;
	int r = source_info(l->img, &info, e);

	if (r < 0)
		return r;
	l->is_encrypted = info.encryption != VD_PLAIN;
	if (info.backing_file)
		scan_findings_add(l->f, RULE, SCAN_HIGH, "", "flatten it: vdisk flatten, or convert it into a new image",
				  "the image stands on another: '%s'", info.backing_file);
	if (info.n_bitmaps)
		scan_findings_add(l->f, RULE, SCAN_LOW, "", "vdisk bitmap remove", "%u dirty bitmap%s: they tell what was written when",
				  info.n_bitmaps, info.n_bitmaps == 1 ? "" : "s");
	if (info.change_track)
		scan_findings_add(l->f, RULE, SCAN_LOW, "", "convert it into a new image", "a file of changed blocks is named: '%s'",
				  info.change_track);
	if (info.is_dirty)
		scan_findings_add(l->f, RULE, SCAN_MEDIUM, "", "vdisk check --repair", "the image was not closed cleanly");
	return 0;
}

static int judge_snapshots(struct look *l, struct vd_error *e)
{
	struct vd_snapshot *list = NULL;
	size_t n = 0;
	int r = vd_snapshot_list(l->img, &list, &n, e);

	if (r == VD_EUNSUPPORTED)
		return 0;
	for (size_t i = 0; i < n && r == 0; i++)
		scan_findings_add(l->f, RULE, SCAN_HIGH, list[i].name, "vdisk snapshot delete --scrub, or convert into a new image",
				  list[i].vm_state_size ? "a snapshot inside the image, with the memory of a machine" : "a snapshot inside the image");
	vd_snapshot_list_free(list);
	return r;
}

/* ---- descriptors ------------------------------------------------------------------------------------------- */

/* Comment lines that are not those of VMware's programs or of this one. */
static bool is_own_comment(const char *line)
{
	static const char *const known[] = { "# Disk DescriptorFile", "# Extent description", "# The Disk Data Base", "#DDB", "# The disk Data Base",
					     "# Change Tracking File" };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strncmp(line, known[i], strlen(known[i])))
			return true;
	return !line[1 + strspn(line + 1, "# \t\r")];
}

static int judge_text(struct look *l, const struct vd_host_run *r, struct vd_error *e)
{
	size_t n = r->len < PIECE - 1 ? (size_t)r->len : PIECE - 1;
	char *text = (char *)l->piece, *line;
	int code = vd_host_read(l->img, r->file, l->piece, n, r->off, e);

	if (code < 0)
		return code;
	l->piece[n] = '\0';
	while ((line = strsep(&text, "\n")))
		if (line[0] == '#' && !is_own_comment(line))
			scan_findings_add(l->f, RULE, SCAN_LOW, "", "edit the descriptor, or convert into a new image",
					  "the descriptor has a comment: '%.200s'", line);
	return 0;
}

/* ---- the host's files -------------------------------------------------------------------------------------- */

/* Owners whose bytes are nobody's: what is left there goes along. */
static bool is_nobodys(const struct vd_host_run *r)
{
	/* Room for key material is filled with noise. */
	if (r->why == VD_SLACK_DEAD_SLOT)
		return false;
	return r->owner == VD_OWNER_FREE || r->owner == VD_OWNER_LEAKED || r->owner == VD_OWNER_SLACK || r->owner == VD_OWNER_TAIL ||
	       r->owner == VD_OWNER_ZEROED;
}

static int judge_run(struct look *l, const struct vd_host_run *r, struct vd_error *e)
{
	if (r->owner == VD_OWNER_DESCRIPTOR)
		return judge_text(l, r, e);
	for (uint64_t at = 0; at < r->len && is_nobodys(r) && !(r->flags & VD_HOST_SPARSE); at += PIECE) {
		size_t n = r->len - at < PIECE ? (size_t)(r->len - at) : PIECE;
		int code = vd_host_read(l->img, r->file, l->piece, n, r->off + at, e);

		if (code == 0)
			code = signals_check(e);
		if (code < 0)
			return code;
		if (!is_blank(l->piece, n))
			l->bytes[r->owner] += n;
	}
	if (r->owner == VD_OWNER_VMSTATE)
		l->vm_state += r->len;
	return 0;
}

static void tell_bytes(struct look *l)
{
	for (int owner = 0; owner < VD_N_OWNERS; owner++) {
		if (!l->bytes[owner])
			continue;
		/* In an encrypted image they are ciphertext, as far as that is kept: check --plaintext tells. */
		scan_findings_add(l->f, RULE, l->is_encrypted ? SCAN_LOW : SCAN_HIGH, "", "convert it into a new image, or vdisk wipe --free",
				  "about %s of the file are nobody's (%s: %s) and are not zeros", size_show((double)l->bytes[owner]).s,
				  vd_owner_name(owner), vd_owner_text(owner));
	}
	if (l->vm_state)
		scan_findings_add(l->f, RULE, SCAN_CRITICAL, "", "vdisk snapshot delete --scrub", "%s of a machine's memory are in the image",
				  size_show((double)l->vm_state).s);
}

static int walk_host(struct look *l, struct vd_error *e)
{
	struct vd_host_run runs[RUNS];
	struct vd_host_walk *w = NULL;
	struct vd_error first;
	size_t n = 1;
	int r = vd_host_walk_start(l->img, 0, 0, &w, e);

	while (r == 0 && n) {
		r = vd_host_walk_next(w, runs, RUNS, &n, e);
		for (size_t i = 0; i < n && r == 0; i++)
			r = judge_run(l, &runs[i], e);
	}
	if (r == 0 && vd_host_walk_findings(w, &first))
		fsview_fall_short(l->v, FSVIEW_DAMAGED, "", "the image's tables are damaged: %s", first.message);
	vd_host_walk_end(w);
	if (r == VD_EUNSUPPORTED) {
		fsview_fall_short(l->v, FSVIEW_UNSUPPORTED, "", "what the image's files consist of cannot be told: %s", e->message);
		return 0;
	}
	if (r == 0)
		tell_bytes(l);
	return r;
}

/* ---- gaps -------------------------------------------------------------------------------------------------- */

/* Boot code of BIOS loaders lies before the first partition of an MBR, by design. */
#define EMBEDDED_END ((uint64_t)1 << 20)

static int judge_gap(void *ctx, const struct fsview_range *gap)
{
	struct look *l = ctx;
	struct vd_error e = { 0 };
	int r;
	bool is_mbr = !strcmp(fsview_table(l->v), "mbr");
	uint64_t at = gap->off, end = gap->off + gap->len;

	if (is_mbr && at < EMBEDDED_END)
		at = end < EMBEDDED_END ? end : EMBEDDED_END;
	if (at >= end)
		return 0;
	r = scan_count_nonzero(l->img, (struct fsview_range){ at, end - at }, &l->gaps, &e);
	if (r < 0 && r != VD_ECANCELLED) {
		fsview_fall_short(l->v, FSVIEW_ACCESS, "", "a gap between partitions cannot be read: %s", e.message);
		return 0;
	}
	return r;
}

static int judge_gaps(struct look *l, struct vd_error *e)
{
	int r = fsview_gaps(l->v, judge_gap, l, e);

	if (r == 0 && l->gaps.bytes)
		scan_findings_add(l->f, RULE_GAPS, SCAN_HIGH, "", "overwrite them with zeros",
				  "about %s between partitions are not zeros, first at byte %llu of the disk",
				  size_show((double)l->gaps.bytes).s, (unsigned long long)l->gaps.first);
	return r;
}

int scan_container(struct vd_image *img, struct fsview *v, struct scan_findings *f, struct vd_error *e)
{
	struct look l = { .img = img, .v = v, .f = f, .piece = malloc(PIECE) };
	int r;

	if (!l.piece)
		return fail(e, VD_ENOMEM, "not enough memory to look at the image's files");
	r = judge_info(&l, e);
	if (r == 0)
		r = judge_snapshots(&l, e);
	if (r == 0)
		r = walk_host(&l, e);
	if (r == 0)
		r = judge_gaps(&l, e);
	free(l.piece);
	return r;
}
