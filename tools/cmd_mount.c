/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk mount: shows the disk in an image, and its partitions, as files. The image is opened by the process that serves, since
 * secrets do not get through a fork; the one that the user started waits for it and says what came of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "fusefs.h"
#include "json.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt mounting[] = {
	{ .name = "read-write", .kind = OPT_FLAG, .where = WHERE(serve.read_write),
	  .help = "let the files be written to; otherwise no byte of any file changes" },
	{ .name = "foreground", .kind = OPT_FLAG, .where = WHERE(serve.foreground),
	  .help = "stay until it is unmounted, and tell how that went" },
	{ 0 },
};
static const struct opt_group mounting_group = { "Mounting", mounting };

static const struct opt_group *const groups[] = {
	&mounting_group, &opts_format, &opts_backing, &opts_snapshot, &opts_header, &opts_sharing, &opts_keys,
	&opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk mount --key-file key disk.qcow2 mnt && e2fsck -fn mnt/p1; vdisk unmount mnt",
	"vdisk mount --read-write --foreground disk.vmdk mnt",
	NULL,
};

/* ---- what is shown ----------------------------------------------------------------------------------------- */

static void add_file(struct json_object *list, const char *name, uint64_t off, uint64_t size)
{
	struct json_object *j = json_new();

	json_put_text(j, "name", name);
	json_put_u64(j, "offset", off);
	json_put_u64(j, "size", size);
	json_add(list, j);
}

static void print_json(const char *dir, const struct fusefs_opts *o)
{
	struct json_object *j = json_new(), *list;

	json_put_text(j, "mounted", dir);
	json_put_u64(j, "pid", (uint64_t)getpid());
	json_put_bool(j, "read-write", o->writes);
	if (o->parts->scheme)
		json_put_text(j, "partition-table", o->parts->scheme);
	list = json_put_array(j, "files");
	add_file(list, "disk", 0, vd_image_size(o->img));
	for (size_t i = 0; i < o->parts->n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "p%u", o->parts->at[i].number);
		add_file(list, name, o->parts->at[i].off, o->parts->at[i].len);
	}
	json_print(j);
}

static void print_files(const char *dir, const struct fusefs_opts *o)
{
	const struct partitions *p = o->parts;

	if (p->is_backup && p->scheme)
		ui_warn("the first copy of the partition table does not hold: this is by the second");
	if (p->n_refused)
		ui_warn("%zu partitions reach past the disk, or are too many, and are not shown", p->n_refused);
	if (ui_is_json()) {
		print_json(dir, o);
		return;
	}
	ui_summary("%s/disk  %s", dir, size_show((double)vd_image_size(o->img)).s);
	for (size_t i = 0; i < p->n; i++)
		ui_summary("%s/p%u  %s", dir, p->at[i].number, size_show((double)p->at[i].len).s);
}

/* ---- the process that serves -------------------------------------------------------------------------------- */

/* To the process that the user waits for, then away from the terminal. */
static int detach(int report, struct vd_error *e)
{
	const struct vd_error fine = { 0 };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || fflush(stdout))
		return fail_errno(e, errno, "going into the background failed");
	if (write(report, &fine, sizeof(fine)) != (ssize_t)sizeof(fine))
		return fail_errno(e, errno, "going into the background failed");
	close(report);
	setsid();
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	return 0;
}

/* Nobody at the terminal: to whoever unmounts, if he listens, and to the log. */
static void bid_farewell(const char *fifo, int r, const struct vd_error *e)
{
	struct vd_error said = { 0 };
	int fd = fifo ? open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;

	if (r < 0) {
		said = *e;
		syslog(LOG_ERR, "%s", e->message);
	}
	if (fd < 0)
		return;
	(void)!write(fd, &said, sizeof(said));
	close(fd);
}

static int serve(const struct fusefs_opts *o, const char *dir, int report, struct vd_error *e)
{
	struct fusefs *f = NULL;
	int r = fusefs_mount(o, &f, e), closed;
	struct vd_error at_end = { 0 };
	const char *fifo;

	if (r < 0) {
		vd_image_abort(o->img);
		return r;
	}
	print_files(dir, o);
	if (report >= 0)
		r = detach(report, e);
	if (r == 0)
		r = fusefs_serve(f, e);
	closed = vd_image_close(o->img, &at_end);
	if (r == 0 && closed < 0) {
		*e = at_end;
		r = closed;
	}
	fifo = fusefs_report_to(f);
	if (report >= 0 || fifo)
		bid_farewell(fifo, r, e);
	fusefs_free(f);
	return r;
}

/* report: -1 in the foreground. */
static int mount_image(struct settings *s, int report, struct vd_error *e)
{
	struct keys keys = { .n = 0 };
	struct partitions parts;
	struct fusefs_opts o = { .parts = &parts, .image = s->operands[0], .writes = s->serve.read_write };
	char dir[PATH_MAX];
	int r;

	if (!realpath(s->operands[1], dir))
		return fail_errno(e, errno, "%s: cannot mount there", s->operands[1]);
	o.dir = dir;
	r = (o.writes ? source_open_writable : source_open)(s, o.image, s->format, &keys, &o.img, e);
	secrets_free(&keys);
	if (r < 0)
		return r;
	r = partitions_read(o.img, &parts, e);
	if (r < 0) {
		vd_image_abort(o.img);
		return r;
	}
	return serve(&o, s->operands[1], report, e);
}

/* ---- the process that the user waits for -------------------------------------------------------------------- */

static int wait_for_child(pid_t child, int report, struct vd_error *e)
{
	struct vd_error said;
	ssize_t n;
	int status;

	do
		n = read(report, &said, sizeof(said));
	while (n < 0 && errno == EINTR);
	close(report);
	if (n == (ssize_t)sizeof(said) && said.code == 0)
		return 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (n != (ssize_t)sizeof(said))
		return fail(e, VD_EFAILED, "the process that was to serve the files has ended");
	*e = said;
	return e->code;
}

static int run_in_background(struct settings *s, struct vd_error *e)
{
	int ends[2], r;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail_errno(e, errno, "no pipe can be made");
	child = fork();
	if (child < 0) {
		close(ends[0]);
		close(ends[1]);
		return fail_errno(e, errno, "no process can be made");
	}
	if (child) {
		close(ends[1]);
		return wait_for_child(child, ends[0], e);
	}
	close(ends[0]);
	r = mount_image(s, ends[1], e);
	/* Of no use once it was detached: then there is nobody at the other end. */
	if (r < 0)
		(void)!write(ends[1], e, sizeof(*e));
	_exit(r < 0);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct stat st;

	if (s->force_share && s->serve.read_write)
		return fail(e, VD_EARG, "--force-share is for reading: it does not go with --read-write");
	if (stat(s->operands[1], &st) < 0)
		return fail_errno(e, errno, "%s: cannot mount there", s->operands[1]);
	if (!S_ISDIR(st.st_mode))
		return fail(e, VD_EARG, "%s: cannot mount there: it is no folder", s->operands[1]);
	return s->serve.foreground ? mount_image(s, -1, e) : run_in_background(s, e);
}

const struct verb verb_mount = {
	.name = "mount",
	.operands = "IMAGE DIR",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "show the disk and its partitions as files",
	.about = "Shows the disk in IMAGE, decrypted and with what its backing files add, as the file DIR/disk, and its "
		 "partitions (GPT, MBR) as DIR/p1, DIR/p2 and so on, for programs that know nothing of images. Needs no root: "
		 "it works by FUSE. vdisk unmount DIR ends it.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
