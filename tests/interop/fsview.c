/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shows what the view of files sees in an image: fsview READER FORMAT IMAGE ls|cat|blocks|free|deleted|xattr|short [PATH]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsview/fsview.h"

/* As find -printf '%y %m %U %G %s %P\\n' shows them; of folders the size is the file system's own affair. */
static int show(void *ctx, const char *path, const struct fsview_stat *st)
{
	char type = S_ISDIR(st->mode) ? 'd' : S_ISLNK(st->mode) ? 'l' : S_ISREG(st->mode) ? 'f' : S_ISCHR(st->mode) ? 'c' :
		    S_ISBLK(st->mode) ? 'b' : S_ISFIFO(st->mode) ? 'p' : 's';

	(void)ctx;
	printf("%c %o %u %u %llu %s\n", type, st->mode & 07777, st->uid, st->gid, S_ISDIR(st->mode) ? 0ULL : (unsigned long long)st->size,
	       path + 1);
	return 0;
}

static int cat(struct fsview *v, const char *path, struct vd_error *e)
{
	static char buf[3000000];
	uint64_t off = 0;
	size_t n = 1;
	int r = 0;

	while (r == 0 && n) {
		r = fsview_read(v, path, buf, sizeof(buf), off, &n, e);
		if (r == 0)
			fwrite(buf, 1, n, stdout);
		off += n;
	}
	return r;
}

static int show_range(void *ctx, const struct fsview_range *r)
{
	(void)ctx;
	printf("%llu %llu\n", (unsigned long long)r->off, (unsigned long long)r->len);
	return 0;
}

static int show_block(void *ctx, const struct fsview_block *b)
{
	(void)ctx;
	printf("%llu %llu %llu\n", (unsigned long long)b->file_off, (unsigned long long)b->at.off, (unsigned long long)b->at.len);
	return 0;
}

static int show_deleted(void *ctx, const struct fsview_deleted *d)
{
	(void)ctx;
	printf("%llu %s\n", (unsigned long long)d->size, d->name);
	return 0;
}

static void show_shortfalls(const struct fsview *v)
{
	uint64_t total;
	size_t n;
	const struct fsview_shortfall *s = fsview_shortfalls(v, &n, &total);

	for (size_t i = 0; i < n; i++)
		printf("%s %s: %s\n", fsview_lack_name(s[i].lack), s[i].where, s[i].text);
}

static int act(struct fsview *v, const char *what, const char *path, struct vd_error *e)
{
	int r = 0;

	if (!strcmp(what, "ls"))
		return fsview_walk(v, path, show, NULL, e);
	if (!strcmp(what, "cat"))
		return cat(v, path, e);
	if (!strcmp(what, "blocks"))
		return fsview_blocks(v, path, show_block, NULL, e);
	if (!strcmp(what, "free"))
		return fsview_free_ranges(v, 0, show_range, NULL, e);
	if (!strcmp(what, "deleted"))
		return fsview_deleted(v, 0, show_deleted, NULL, e);
	if (!strcmp(what, "xattr")) {
		unsigned char value[256];
		size_t n = 0;

		r = fsview_xattr(v, path, "security.capability", value, sizeof(value), &n, e);
		for (size_t i = 0; i < n; i++)
			printf("%02x", value[i]);
		return r;
	}
	r = fsview_walk(v, "/", show, NULL, e);
	show_shortfalls(v);
	return r;
}

int main(int argc, char **argv)
{
	struct fsview_opts fo = { .struct_size = sizeof(fo), .reader = argv[1] };
	struct vd_open_opts o = { .struct_size = sizeof(o), .format = argv[2] };
	struct vd_image *img = NULL;
	struct fsview *v = NULL;
	struct vd_error e = { 0 };
	int r;

	if (argc < 5)
		return 64;
	r = vd_image_open(argv[3], &o, &img, &e);
	if (r == 0)
		r = fsview_open(img, &fo, &v, &e);
	if (r == 0)
		r = act(v, argv[4], argc > 5 ? argv[5] : "/", &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.message);
	fsview_close(v);
	vd_image_abort(img);
	return r < 0;
}
