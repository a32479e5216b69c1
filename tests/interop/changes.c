/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes through the motions of a backup that reads nothing, so that scripts can hold what tells changed blocks against their
 * witnesses.
 *
 *     changes [-m MARK] [-b BITMAP] [-l LIST] [-n NBD] [-a] [-t] [-c] [-q QMP] [-g AGENT] [-w SECONDS] [-o COPY] [-k KEYFILE] [-s SNAPSHOT] [-e durable|failed|killed] IMAGE
 *
 * With -o the image is copied to a raw file; with -w it waits before that. Prints "begin: WHY" if there is one, "source: WHO" and a line "OFF LEN" for each range, or "scan: WHY", and "mark: MARK".
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vdisk.h>

#include "backup/changes.h"

static unsigned wait_seconds;
static const char *copy_to;

static int report(const char *what, const struct vd_error *e)
{
	fprintf(stderr, "changes: %s: %s: %s\n", what, vd_code_name(e->code), e->message);
	return 1;
}

static int tell(struct changes *c, struct vd_image *img)
{
	char why[CHANGES_WHY_SIZE];
	struct change_range x;
	struct vd_error e;
	int r = changes_look(c, img, why, &e);

	if (r < 0)
		return report("look", &e);
	if (r == 0)
		printf("scan: %s\n", why);
	else
		printf("source: %s\n", changes_source(c));
	for (uint64_t at = 0; r == 1; at = x.off + x.len) {
		changes_next(c, at, &x);
		if (!x.len)
			break;
		printf("%llu %llu\n", (unsigned long long)x.off, (unsigned long long)x.len);
	}
	printf("mark: %s\n", changes_mark(c));
	return 0;
}

static int copy(struct vd_image *img)
{
	struct vd_create_opts o = { .struct_size = sizeof(o), .format = "raw", .size = vd_image_size(img), .flags = VD_CREATE_REPLACE };
	struct vd_outcome outcome = { .struct_size = sizeof(outcome) };
	struct vd_job job = { .struct_size = sizeof(job) };
	struct vd_image *out = NULL;
	struct vd_error e;

	if (vd_image_create(copy_to, &o, &out, &e) < 0 || vd_image_copy(img, out, false, &job, &outcome, &e) < 0 ||
	    vd_image_commit(out, &e) < 0 || vd_image_close(out, &e) < 0)
		return report("copy", &e);
	return 0;
}

static int backup(const char *path, const struct vd_open_opts *o, const struct changes_want *want, const char *end)
{
	struct changes *c = NULL;
	struct vd_image *img = NULL;
	char why[CHANGES_WHY_SIZE];
	struct vd_error e;
	int r;

	if (changes_begin(path, o, want, &c, why, &e) < 0)
		return report("begin", &e);
	if (why[0])
		printf("begin: %s\n", why);
	fflush(stdout);
	sleep(wait_seconds);
	if (vd_image_open(changes_path(c), o, &img, &e) < 0)
		return report("open", &e);
	r = tell(c, img);
	if (copy_to && r == 0)
		r = copy(img);
	if (vd_image_close(img, &e) < 0)
		return report("close", &e);
	if (strcmp(end, "killed") && changes_settle(c, !strcmp(end, "durable"), &e) < 0)
		return report("settle", &e);
	changes_close(c);
	return r;
}

int main(int argc, char **argv)
{
	struct vd_open_opts o = { .struct_size = sizeof(o) };
	struct changes_want want = { 0 };
	const char *end = "durable";
	struct vd_key *key = NULL;
	struct vd_error e;
	int r;

	for (int opt; (opt = getopt(argc, argv, "m:b:l:n:atcq:g:w:o:k:s:e:")) > 0;)
		switch (opt) {
		case 'm': want.mark = optarg; break;
		case 'b': want.bitmap = optarg; break;
		case 'l': want.list = optarg; break;
		case 'n': want.nbd = optarg; break;
		case 'a': want.is_automatic = true; break;
		case 't': want.tracks = true; break;
		case 'c': want.trusts_ctk = true; break;
		case 'q': want.qmp = optarg; break;
		case 'g': want.agent = optarg; break;
		case 'w': wait_seconds = (unsigned)atoi(optarg); break;
		case 'o': copy_to = optarg; break;
		case 'k':
			if (vd_key_from_file(optarg, &key, &e) < 0)
				return report(optarg, &e);
			o.keys = &key;
			o.n_keys = 1;
			break;
		case 's': o.snapshot = optarg; break;
		case 'e': end = optarg; break;
		default: return 2;
		}
	r = optind + 1 == argc ? backup(argv[optind], &o, &want, end) : 2;
	vd_key_free(key);
	return r;
}
