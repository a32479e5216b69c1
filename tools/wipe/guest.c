/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks the view of the image's file systems. What it says comes from the guest: it can harm nobody's disk but that guest's. */
#include "wipe/guest.h"

#include "exit.h"
#include "fail.h"
#include "fsview/fsview.h"

struct asked {
	struct fsview *v;
	size_t volume;
	int (*each)(void *ctx, uint64_t off, uint64_t len);
	void *ctx;
	struct vd_error *e;
};

static int tell(void *ctx, const struct fsview_range *r)
{
	const struct asked *a = ctx;

	return a->each(a->ctx, r->off, r->len);
}

static int place(void *ctx, const struct fsview_range *r)
{
	struct asked *a = ctx;

	return a->each ? fsview_volume_place(a->v, a->volume, *r, tell, a, a->e) : 0;
}

/* Of NTFS and FAT the view tells free space, too, but nobody has shown yet that it may be overwritten. */
static bool may_be_asked(const struct fsview_volume *vol)
{
	return vol->is_readable && vol->fs == FSVIEW_FS_EXT;
}

/* A shortfall says why a volume is not read; the limit, what that means. */
static int judge_volume(struct asked *a, struct wipe_set *set, size_t *n, struct vd_error *e)
{
	const struct fsview_volume *vol = fsview_volume(a->v, a->volume);
	struct asked silent = { .v = a->v, .volume = a->volume };
	int r;

	if (vol->is_dirty) {
		fail(e, EXIT_EREFUSED, "%s: its %s was not unmounted cleanly: what is free in it is not known", vol->name, fsview_fs_name(vol->fs));
		return fail_hint(e, EXIT_EREFUSED, "start the machine and shut it down, or check the file system, first");
	}
	r = may_be_asked(vol) ? fsview_free_ranges(a->v, a->volume, place, &silent, e) : VD_EUNSUPPORTED;
	if (r == 0)
		++*n;
	if (r != VD_EUNSUPPORTED)
		return r;
	if (vol->fs != FSVIEW_FS_EMPTY && vol->fs != FSVIEW_FS_LVM)
		wipe_set_note(set, "%s: what is free in it (%s) cannot be told, and is left", vol->name, fsview_fs_name(vol->fs));
	return 0;
}

static int ask_all(struct asked *a, struct wipe_set *set, struct vd_error *e)
{
	size_t n = 0;
	int r = 0;

	for (a->volume = 0; r == 0 && fsview_volume(a->v, a->volume); a->volume++)
		r = judge_volume(a, set, &n, e);
	if (r == 0 && !n) {
		fail(e, VD_EUNSUPPORTED, "no file system was found in it that says what is free");
		return fail_hint(e, VD_EUNSUPPORTED, "ext2, ext3 and ext4 do");
	}
	for (a->volume = 0; a->each && r == 0 && fsview_volume(a->v, a->volume); a->volume++)
		if (may_be_asked(fsview_volume(a->v, a->volume))) {
			r = fsview_free_ranges(a->v, a->volume, place, a, e);
			r = r == VD_EUNSUPPORTED ? 0 : r;
		}
	return r;
}

int wipe_guest_free(struct vd_image *img, struct wipe_set *set, int (*each)(void *ctx, uint64_t off, uint64_t len), void *ctx,
		    struct vd_error *e)
{
	struct fsview_opts o = { .struct_size = sizeof(o) };
	struct asked a = { .each = each, .ctx = ctx, .e = e };
	int r = fsview_open(img, &o, &a.v, e);

	if (r == 0)
		r = ask_all(&a, set, e);
	fsview_close(a.v);
	return r;
}
