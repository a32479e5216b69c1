/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes, enters and removes a folder for one test. */
#include "tests/support/tempdir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct tempdir {
	char path[4096];
	int before;     /* descriptor of the folder to go back to */
};

int vd_tempdir_enter(void **state)
{
	const char *base = getenv("TMPDIR");
	struct tempdir *t = malloc(sizeof(*t));

	if (!t)
		return -1;
	snprintf(t->path, sizeof(t->path), "%s/vdisk-unit.XXXXXX", base ? base : "/tmp");
	t->before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->before < 0 || !mkdtemp(t->path) || chdir(t->path) < 0)
		return -1;
	*state = t;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int vd_tempdir_leave(void **state)
{
	struct tempdir *t = *state;
	int r = fchdir(t->before);

	close(t->before);
	if (!r)
		r = nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(t);
	return r;
}
