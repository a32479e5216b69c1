/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens images as the options say and gives them to tools/backup/disk.c; finds the base of each. What a folder of a machine holds, vmfolder.c says. */
#include "imagebackup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/changes.h"
#include "fail.h"
#include "ledger/files.h"
#include "source.h"
#include "ui.h"
#include "vmfolder.h"

#define HEAD_SIZE 65536                 /* of the image's file: header, descriptor, what a format keeps in front */
#define LUKS_HEADER_MAX (32u << 20)
#define OTHER_FILE_MAX (64u << 20)      /* files of a machine that are no disks */
#define OPAQUE_CHUNKS_MAX (1u << 20)    /* of one file, whose tree is in one piece */

/* ---- the base ------------------------------------------------------------------------------------------- */

static bool is_of(const struct snapshot *s, const char *host, const char *absolute)
{
	bool found = false;

	for (size_t i = 0; i < s->n_paths; i++)
		found |= !strcmp(s->paths[i], absolute);
	return found && !strcmp(s->host, host);
}

/* The same image in the newest snapshot of the same path and host; false: there is none, or it cannot be read. */
static bool find_base(struct backup_run *b, const char *absolute, const char *name, struct disk_base *out)
{
	struct vd_error ignored;

	for (size_t i = 0; i < b->before->n; i++)
		if (is_of(&b->before->at[i], b->host, absolute))
			return disk_open_base(b->r->repo, b->before->at[i].tree, name, out, &ignored) == 0;
	return false;
}

/* ---- changed blocks ------------------------------------------------------------------------------------- */

static void set_want(struct imagebackup *im, const struct settings *s, bool has_base)
{
	im->want = (struct changes_want){
		.bitmap = s->backup.bitmap, .list = s->backup.changes, .nbd = s->backup.nbd, .qmp = s->backup.qmp, .agent = s->backup.agent, .is_automatic = !s->backup.scan,
		.tracks = s->backup.track, .trusts_ctk = s->backup.trusts_ctk, .mark = has_base ? im->mark : NULL,
	};
}

/* Before the image is open for reading: a bitmap that records from here on is made by writing to it. */
static int begin_changes(struct backup_run *b, struct imagebackup *im, const char *path, struct vd_error *e)
{
	char why[CHANGES_WHY_SIZE] = "";
	int r;

	im->opts = source_opts(b->s, b->s->format, b->keys, &im->dirs);
	r = changes_begin(path, &im->opts, &im->want, &im->changes, why, e);
	if (r == 0 && why[0])
		ui_note("%s: nothing will record what changes from here on: %s", path, why);
	return r;
}

static int look_at_changes(struct imagebackup *im, struct vd_image *img, bool *is_known, struct vd_error *e)
{
	char why[CHANGES_WHY_SIZE] = "";
	int r = changes_look(im->changes, img, why, e);

	if (r < 0)
		return r;
	*is_known = r == 1;
	if (r == 1)
		snprintf(im->how, sizeof(im->how), "what changed, by %s", changes_source(im->changes));
	else
		snprintf(im->how, sizeof(im->how), "all that is allocated: %s", why);
	snprintf(im->facts.mark, sizeof(im->facts.mark), "%s", changes_mark(im->changes));
	return 0;
}

/* ---- what is kept beside the content -------------------------------------------------------------------- */

static int store_head(struct backup_run *b, struct vd_image *img, struct tree *folder, int64_t mtime, struct vd_error *e)
{
	uint8_t buf[HEAD_SIZE];
	uint64_t size;
	struct bytes head = bytes_over(buf, sizeof(buf));
	struct vd_error ignored;

	if (vd_host_file_size(img, 0, &size, &ignored) < 0)
		return 0;
	head.n = size < sizeof(buf) ? (size_t)size : sizeof(buf);
	if (vd_host_read(img, 0, buf, head.n, 0, &ignored) < 0)
		return 0;
	return disk_store_bytes(b->w, &head, folder, "image-head", mtime, e);
}

/* By way of a file of its own, which the library makes: a header is no secret but for its keyslots, which are sealed. */
static int store_luks_header(struct backup_run *b, struct vd_image *img, struct tree *folder, int64_t mtime, struct vd_error *e)
{
	char where[] = "/tmp/vdisk-backup-XXXXXX", path[64];
	struct bytes header = { 0 };
	int r;

	if (!mkdtemp(where))
		return fail(e, VD_EFAILED, "no folder can be made in /tmp");
	snprintf(path, sizeof(path), "%s/header", where);
	r = vd_header_backup(img, path, e);
	if (r == 0)
		r = file_read(path, LUKS_HEADER_MAX, &header, e);
	unlink(path);
	rmdir(where);
	if (r == 0)
		r = disk_store_bytes(b->w, &header, folder, "luks-header", mtime, e);
	bytes_free(&header);
	return r;
}

static int store_facts(struct backup_run *b, struct imagebackup *im, struct tree *folder, int64_t mtime, struct vd_error *e)
{
	struct bytes text = { 0 };
	int r;

	disk_write_facts(&im->facts, &text);
	r = disk_store_bytes(b->w, &text, folder, "image.json", mtime, e);
	bytes_free(&text);
	return r;
}

static void set_facts(struct imagebackup *im, const struct settings *s, const struct vd_info *info, const char *absolute)
{
	static const char *const words[] = { "none", "luks", "aes", "xen" };
	struct disk_facts *f = &im->facts;

	snprintf(f->format, sizeof(f->format), "%s", info->format);
	snprintf(f->subformat, sizeof(f->subformat), "%s", info->subformat ? info->subformat : "");
	snprintf(f->encryption, sizeof(f->encryption), "%s", words[info->encryption & 3]);
	snprintf(f->source, sizeof(f->source), "%s", absolute);
	f->is_consistent = !s->force_share;
}

/* ---- by content ----------------------------------------------------------------------------------------- */

static int store_open_image(struct backup_run *b, struct imagebackup *im, struct vd_image *img, const struct disk_base *base, bool knows_changes,
			    struct tree *folder, const char *absolute, int64_t mtime, struct vd_error *e)
{
	struct vd_info info;
	int r = source_info(img, &info, e);

	if (r < 0)
		return r;
	set_facts(im, b->s, &info, absolute);
	im->facts.size = vd_image_size(img);
	/* The same chunks as before, also when a disk has grown: else nothing of it would be the repository's already. */
	im->facts.chunk = base && !base->facts.is_opaque ? base->facts.chunk : disk_chunk(im->facts.size);
	r = disk_store_content(b->w, img, knows_changes ? im->changes : NULL, base, &im->facts, folder, &b->job, &im->counts, e);
	if (r == 0 && info.encryption == VD_ENCRYPTED_LUKS)
		r = store_luks_header(b, img, folder, mtime, e);
	if (r == 0 && strcmp(info.format, "raw") != 0)
		r = store_head(b, img, folder, mtime, e);
	return r < 0 ? r : store_facts(b, im, folder, mtime, e);
}

static int take_content(struct backup_run *b, struct imagebackup *im, const char *path, const char *operand, const char *absolute, struct tree *folder,
			int64_t mtime, struct vd_error *e)
{
	struct disk_base base = { 0 };
	bool has_base = find_base(b, operand, im->name, &base), knows = false;
	struct vd_image *img = NULL;
	bool is_written = b->s->backup.track && !b->s->backup.qmp;
	/* What cannot be opened is not written to either. */
	int r = is_written ? source_open(b->s, path, b->s->format, b->keys, &img, e) : 0;

	if (has_base)
		snprintf(im->mark, sizeof(im->mark), "%s", base.facts.mark);
	set_want(im, b->s, has_base);
	vd_image_abort(img);
	img = NULL;
	if (r == 0)
		r = begin_changes(b, im, path, e);
	if (r == 0)
		r = source_open(b->s, changes_path(im->changes), b->s->backup.qmp ? NULL : b->s->format, b->keys, &img, e);
	if (r == 0)
		r = look_at_changes(im, img, &knows, e);
	if (r == 0 && b->s->backup.scan)
		snprintf(im->how, sizeof(im->how), "all that is allocated: asked for");
	if (r == 0)
		r = store_open_image(b, im, img, has_base ? &base : NULL, knows, folder, absolute, mtime, e);
	vd_image_abort(img);
	disk_close_base(&base);
	return r;
}

/* ---- as it lies ----------------------------------------------------------------------------------------- */

static int take_host_file(struct backup_run *b, struct imagebackup *im, const char *path, struct tree *files, struct vd_error *e)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .format = "raw", .flags = b->s->force_share ? VD_OPEN_FORCE_SHARE : 0 };
	const char *slash = strrchr(path, '/');
	struct content_counts counts = { 0 };
	struct vd_image *img = NULL;
	uint32_t chunk;
	int r = vd_image_open(path, &o, &img, e);

	if (r < 0)
		return r;
	for (chunk = disk_chunk(0); chunk < (8u << 20) && vd_image_size(img) / chunk > OPAQUE_CHUNKS_MAX;)
		chunk *= 2;
	if (chunk > im->facts.chunk)
		im->facts.chunk = chunk;
	im->facts.size += vd_image_size(img);
	r = disk_store_file(b->w, img, chunk, files, slash ? slash + 1 : path, &b->job, &counts, e);
	im->counts.read += counts.read;
	im->counts.zero += counts.zero;
	vd_image_abort(img);
	return r;
}

static int take_opaque(struct backup_run *b, struct imagebackup *im, const char *path, const char *absolute, struct tree *folder, int64_t mtime,
		       struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct tree files = { 0 };
	struct vd_info info;
	uint8_t id[ID_SIZE];
	int r = source_open_tables(b->s, path, b->s->format, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0) {
		set_facts(im, b->s, &info, absolute);
		im->facts.is_opaque = true;
		snprintf(im->how, sizeof(im->how), "the files as they lie");
		if (info.backing_file)
			ui_warn("%s: its backing file %s is not in the backup: that is to be backed up by itself", path, info.backing_file);
	}
	for (uint32_t i = 0; r == 0 && i < vd_host_file_count(img); i++)
		r = take_host_file(b, im, vd_host_file_name(img, i), &files, e);
	vd_image_abort(img);
	if (r == 0)
		r = writer_add_tree(b->w, &files, id, e);
	if (r == 0) {
		id_show(id, im->facts.root);
		r = disk_store_folder(b->w, &files, folder, "files", 0, e);
	}
	tree_free(&files);
	return r < 0 ? r : store_facts(b, im, folder, mtime, e);
}

/* ---- one image, one folder ------------------------------------------------------------------------------ */

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* Another image of the same name is there already: "disk.qcow2-2". */
static void name_anew(const struct tree *t, const char *wanted, char *name, size_t size)
{
	snprintf(name, size, "%s", wanted);
	for (unsigned i = 2; tree_find(t, name); i++)
		snprintf(name, size, "%s-%u", wanted, i);
}

bool imagebackup_is_served(const char *operand)
{
	return !strncmp(operand, "nbd+unix://", 11);
}

/* A path's last part. Of what a server shows the name of its export, if it has one. */
static void name_of(const char *absolute, char *name, size_t size)
{
	const char *from = imagebackup_is_served(absolute) ? absolute + 11 : base_of(absolute);
	size_t n;

	from += imagebackup_is_served(absolute) && *from == '/';
	n = imagebackup_is_served(absolute) ? strcspn(from, "?/") : strlen(from);
	snprintf(name, size, "%.*s", n ? (int)n : 4, n ? from : "disk");
}

static int take_image(struct backup_run *b, const char *path, const char *operand, const char *absolute, const char *prefix, struct tree *into,
		      struct vd_error *e)
{
	struct imagebackup *im;
	struct tree folder = { 0 };
	char name[256], wanted[240];
	struct stat st = { .st_mtime = time(NULL) };
	int r;

	if (b->n_images == IMAGES_MAX)
		return fail(e, VD_EARG, "more than %d images are not one backup", IMAGES_MAX);
	if (!imagebackup_is_served(path) && stat(path, &st) < 0)
		return fail(e, VD_ENOENT, "%s: is not there", path);
	im = calloc(1, sizeof(*im));
	if (!im)
		ui_out_of_memory();
	b->images[b->n_images++] = im;
	name_of(absolute, wanted, sizeof(wanted));
	name_anew(into, wanted, name, sizeof(name));
	snprintf(im->name, sizeof(im->name), "%s%s", prefix, name);
	r = b->s->backup.opaque ? take_opaque(b, im, path, absolute, &folder, st.st_mtime, e) :
				  take_content(b, im, path, operand, absolute, &folder, st.st_mtime, e);
	if (r == 0)
		r = disk_store_folder(b->w, &folder, into, name, st.st_mtime, e);
	tree_free(&folder);
	return r;
}

static int take_file(struct backup_run *b, const char *path, struct tree *into, struct vd_error *e)
{
	struct bytes content = { 0 };
	struct stat st;
	int r;

	if (stat(path, &st) < 0 || st.st_size > OTHER_FILE_MAX) {
		b->passed_over++;
		ui_note("%s: is no disk, and larger than %u MiB: not in the backup", path, OTHER_FILE_MAX >> 20);
		return 0;
	}
	r = file_read(path, OTHER_FILE_MAX, &content, e);
	if (r == 0)
		r = disk_store_bytes(b->w, &content, into, base_of(path), st.st_mtime, e);
	b->other_files++;
	bytes_free(&content);
	return r;
}

static int take_folder(struct backup_run *b, const char *path, const char *absolute, struct tree *root, struct vd_error *e)
{
	struct vmfolder found = { 0 };
	struct tree folder = { 0 };
	char name[256], prefix[260];
	struct stat st = { 0 };
	int r = vmfolder_look(b->s, path, &found, e);

	if (r == 0 && !found.n_disks)
		r = fail(e, VD_ENOENT, "%s: there is no disk in this folder", path);
	name_anew(root, base_of(absolute), name, sizeof(name));
	snprintf(prefix, sizeof(prefix), "%s/", name);
	for (size_t i = 0; i < found.n_disks && r == 0; i++)
		r = take_image(b, found.disks[i], absolute, found.disks[i], prefix, &folder, e);
	for (size_t i = 0; i < found.n_files && r == 0; i++)
		r = take_file(b, found.files[i], &folder, e);
	if (r == 0 && stat(path, &st) == 0)
		r = disk_store_folder(b->w, &folder, root, name, st.st_mtime, e);
	tree_free(&folder);
	vmfolder_free(&found);
	return r;
}

int imagebackup_take(struct backup_run *b, const char *operand, const char *absolute, struct tree *root, struct vd_error *e)
{
	struct stat st;

	if (stat(operand, &st) == 0 && S_ISDIR(st.st_mode))
		return take_folder(b, operand, absolute, root, e);
	return take_image(b, operand, absolute, absolute, "", root, e);
}

void imagebackup_settle(struct backup_run *b, bool is_durable)
{
	struct vd_error why;

	for (size_t i = 0; i < b->n_images; i++) {
		struct imagebackup *im = b->images[i];

		/* The next backup looks for what is left behind. */
		if (im->changes && changes_settle(im->changes, is_durable, &why) < 0)
			ui_note("%s", why.message);
		changes_close(im->changes);
		free(im);
	}
	b->n_images = 0;
}
