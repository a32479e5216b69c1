/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk unmount: ends what vdisk mount began, and hears from the process that serves whether all that was written is in the
 * image: through a FIFO, whose name it is told before.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "fusefs.h"
#include "verbs.h"

static const struct opt_group *const groups[] = { &opts_output_form, &opts_speech, NULL };

static const char *const examples[] = { "vdisk unmount mnt", NULL };

extern char **environ;

/* What hears the result: all of it in a folder of its own. */
struct ear {
	char folder[PATH_MAX];
	struct fusefs_farewell farewell;
	int fifo, process;      /* -1: none */
};

static int open_ear(struct ear *ear, struct vd_error *e)
{
	const char *tmp = getenv("TMPDIR");

	*ear = (struct ear){ .fifo = -1, .process = -1 };
	snprintf(ear->folder, sizeof(ear->folder), "%s/vdisk-unmount.XXXXXX", tmp && tmp[0] && strlen(tmp) < 200 ? tmp : "/tmp");
	if (!mkdtemp(ear->folder)) {
		fail_errno(e, errno, "%s: no folder can be made", ear->folder);
		ear->folder[0] = '\0';
		return e->code;
	}
	snprintf(ear->farewell.report_to, sizeof(ear->farewell.report_to), "%.240s/report", ear->folder);
	if (mkfifo(ear->farewell.report_to, 0600) == 0)
		ear->fifo = open(ear->farewell.report_to, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return ear->fifo < 0 ? fail_errno(e, errno, "%s: no FIFO can be made", ear->farewell.report_to) : 0;
}

static void close_ear(struct ear *ear)
{
	if (ear->fifo >= 0)
		close(ear->fifo);
	if (ear->process >= 0)
		close(ear->process);
	if (ear->farewell.report_to[0])
		unlink(ear->farewell.report_to);
	if (ear->folder[0])
		rmdir(ear->folder);
}

/* *is_dead: it was mounted, and nobody serves it any more. */
static int announce(struct ear *ear, const char *dir, bool *is_dead, struct vd_error *e)
{
	char disk[PATH_MAX];
	int fd, r = 0;

	snprintf(disk, sizeof(disk), "%s/disk", dir);
	fd = open(disk, O_RDONLY | O_CLOEXEC);
	*is_dead = fd < 0 && errno == ENOTCONN;
	if (*is_dead)
		return 0;
	if (fd < 0 || ioctl(fd, FUSEFS_FAREWELL, &ear->farewell) < 0)
		r = fail(e, VD_EARG, "%s: nothing that vdisk mount has mounted", dir);
	else
		ear->process = pidfd_open(ear->farewell.pid, 0);
	if (fd >= 0)
		close(fd);
	return r;
}

static int unmount(const char *dir, struct vd_error *e)
{
	char *words[] = { (char *)"fusermount3", (char *)"-u", (char *)"--", (char *)dir, NULL };
	pid_t child;
	int err = posix_spawnp(&child, words[0], NULL, NULL, words, environ), status;

	if (err)
		return fail_errno(e, err, "fusermount3 cannot be started");
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fail(e, VD_EBUSY, "%s: not unmounted: a program has a file in it open, or it is not yours", dir);
	return fail_hint(e, VD_EBUSY, "fuser -vm %s says who", dir);
}

/* Until the server has said it, or is no more. */
static int hear(const struct ear *ear, const char *dir, struct vd_error *e)
{
	struct pollfd wait[] = { { .fd = ear->fifo, .events = POLLIN }, { .fd = ear->process, .events = POLLIN } };
	struct vd_error said;

	while (poll(wait, 2, -1) < 0 && errno == EINTR)
		;
	if (read(ear->fifo, &said, sizeof(said)) != (ssize_t)sizeof(said)) {
		fail(e, VD_EFAILED, "%s: unmounted, but the process that served it has not said that all is in the image", dir);
		return fail_hint(e, VD_EFAILED, "vdisk check tells whether the image is sound; what was not flushed may be lost");
	}
	/* The image is closed; its locks are gone with the process. */
	while (ear->process >= 0 && poll(&wait[1], 1, -1) < 0 && errno == EINTR)
		;
	if (said.code)
		*e = said;
	return said.code;
}

static int run(struct settings *s, struct vd_error *e)
{
	const char *dir = s->operands[0];
	bool is_dead = false;
	struct ear ear;
	int r = open_ear(&ear, e);

	if (r == 0)
		r = announce(&ear, dir, &is_dead, e);
	if (r == 0)
		r = unmount(dir, e);
	if (r == 0 && is_dead)
		r = fail(e, VD_EFAILED, "%s: unmounted, but the process that served it had died: what was not flushed is lost", dir);
	else if (r == 0)
		r = hear(&ear, dir, e);
	close_ear(&ear);
	return r;
}

const struct verb verb_unmount = {
	.name = "unmount",
	.operands = "DIR",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "end what vdisk mount began, with all of it in the image",
	.about = "Unmounts DIR, waits until all that was written to its files is in the image and durable, and says so if it is "
		 "not. fusermount3 -u DIR does it, too, but is not told.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
