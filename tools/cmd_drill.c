/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk drill: shows that a disk, of an image or of a backup, can be used: its file systems are read, and it is booted. What is looked for is in
 * drill/, where the result goes in report.c there; here a backup is brought back, the disk is served, and the result is told.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/recover.h"
#include "backup/snapshot.h"
#include "drill/report.h"
#include "exit.h"
#include "fail.h"
#include "json.h"
#include "ledger/acts.h"
#include "ledger/canon.h"
#include "ledger/files.h"
#include "ledger/sheet.h"
#include "listen.h"
#include "nbdserver.h"
#include "pickitem.h"
#include "progress.h"
#include "repository.h"
#include "signals.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define SECONDS_DEFAULT 300
#define MEMORY_DEFAULT 1024
#define NAMESPACE "vdisk-drill"

static const struct opt_choice buses[] = { { "virtio", DRILL_VIRTIO }, { "sata", DRILL_SATA }, { "ide", DRILL_IDE }, { NULL, 0 } };
static const struct opt_choice firmwares[] = { { "bios", DRILL_BIOS }, { "uefi", DRILL_UEFI }, { NULL, 0 } };
static const struct opt boot_options[] = {
	{ .name = "no-boot", .kind = OPT_FLAG, .where = WHERE(drill.no_boot), .help = "look at partitions and file systems only" },
	{ .name = "expect", .kind = OPT_TEXT, .where = WHERE(drill.expect), .arg = "TEXT",
	  .help = "what the guest has to say on its serial line (default: a login prompt)" },
	{ .name = "timeout", .kind = OPT_NUMBER, .where = WHERE(drill.timeout), .arg = "SECONDS", .min = 1, .max = 86400,
	  .help = "in which it has to be up (default 300)" },
	{ .name = "memory", .kind = OPT_NUMBER, .where = WHERE(drill.memory), .arg = "MIB", .min = 32, .max = 1048576,
	  .help = "of the machine (default 1024)" },
	{ .name = "bus", .kind = OPT_CHOICE, .where = WHERE(drill.bus), .arg = "BUS", .choices = buses,
	  .help = "virtio, sata or ide (default: sata with NTFS on the disk, else virtio)" },
	{ .name = "firmware", .kind = OPT_CHOICE, .where = WHERE(drill.firmware), .arg = "KIND", .choices = firmwares,
	  .help = "bios (default) or uefi" },
	{ .name = "no-kvm", .kind = OPT_FLAG, .where = WHERE(drill.no_kvm), .help = "emulate, even where KVM is there" },
	{ .name = "scratch", .kind = OPT_TEXT, .where = WHERE(drill.scratch), .arg = "FOLDER",
	  .help = "where a backup is brought back to, encrypted with a key of the moment (default: TMPDIR or /var/tmp)" },
	{ 0 },
};
static const struct opt_group boot_group = { "Drill", boot_options };

static const struct opt_choice languages[] = { { "en", SHEET_ENGLISH }, { "zh", SHEET_CHINESE }, { NULL, 0 } };
static const struct opt report_options[] = {
	{ .name = "path", .kind = OPT_TEXT, .where = WHERE(backup.path), .arg = "PATH", .help = "which disk of the snapshot" },
	{ .name = "report", .kind = OPT_TEXT, .where = WHERE(drill.report), .arg = "FILE",
	  .help = "write the result to this new file, and FILE.sig with --sign-key" },
	{ .name = "html", .kind = OPT_TEXT, .where = WHERE(drill.html), .arg = "OUT", .help = "and as a page with the picture of the screen" },
	{ .name = "lang", .kind = OPT_CHOICE, .where = WHERE(drill.lang), .arg = "LANG", .choices = languages, .help = "of the page: en (default) or zh" },
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "sign the result: a private key file, or a public one whose key ssh-agent has" },
	{ 0 },
};
static const struct opt_group report_group = { "Result", report_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_repo_key, &opts_keys, &boot_group, &report_group, &opts_format, &opts_header, &opts_backing, &opts_snapshot, &opts_sharing,
	&opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk drill --key-file key web.qcow2",
	"vdisk drill --repo /backup/vms --passphrase-file pw --report=drill.json --html drill.html --sign-key sign latest",
	"vdisk drill --no-boot web.vmdk",
	NULL,
};

struct doing {
	struct settings *s;
	struct settings own;            /* of the disk that is drilled: for a backup it is another than the options speak of */
	struct drill d;
	struct keys keys;
	char folder[PATH_MAX], disk[PATH_MAX + 16];
	char repository[128], snapshot[STORE_NAME_SIZE], path[4096];
	struct boot_plan plan;
	struct boot_result *boot;
	struct signer signer;
};

/* ---- the folder for all that goes again ------------------------------------------------------------------- */

static int make_folder(struct doing *x, struct vd_error *e)
{
	const char *above = x->s->drill.scratch ? x->s->drill.scratch : getenv("TMPDIR");

	if (!above || !*above)
		above = "/var/tmp";
	if ((size_t)snprintf(x->folder, sizeof(x->folder), "%s/vdisk-drill.XXXXXX", above) >= sizeof(x->folder))
		return fail(e, VD_EARG, "%s: the name is too long", above);
	if (mkdtemp(x->folder))
		return 0;
	x->folder[0] = 0;
	return fail_errno(e, errno, "%s", above);
}

static void remove_folder(struct doing *x)
{
	int fd = x->folder[0] ? open(x->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(fd, entry->d_name, 0);
	if (dir)
		closedir(dir);
	if (x->folder[0] && rmdir(x->folder) < 0)
		ui_warn("%s: %s", x->folder, strerror(errno));
}

/* ---- the disk of a backup --------------------------------------------------------------------------------- */

/* Nobody ever knows it: what is brought back is on the disk as ciphertext, and lost with this process. */
static int make_key(struct doing *x, struct vd_error *e)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t random[32];
	char text[64];
	int r;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return fail_errno(e, errno, "no random bytes");
	for (size_t i = 0; i < sizeof(random); i++) {
		text[2 * i] = digits[random[i] >> 4];
		text[2 * i + 1] = digits[random[i] & 15];
	}
	r = vd_key_from_bytes(text, sizeof(text), &x->keys.at[0], e);
	x->keys.n = r == 0;
	explicit_bzero(random, sizeof(random));
	explicit_bzero(text, sizeof(text));
	return r;
}

static int make_disk(struct doing *x, uint64_t size, struct vd_image **out, struct vd_error *e)
{
	struct vd_create_opts o = { .struct_size = sizeof(o), .format = "qcow2", .size = (size + 511) / 512 * 512 };
	int r = make_key(x, e);

	if (r < 0)
		return r;
	o.key = x->keys.at[0];
	o.kdf.iterations = 1000;        /* the key is random already */
	snprintf(x->disk, sizeof(x->disk), "%s/disk.qcow2", x->folder);
	return vd_image_create(x->disk, &o, out, e);
}

static int bring_back(struct doing *x, struct repository *r, struct item *item, struct vd_error *e)
{
	struct recovery v = { .repo = r->repo, .threads = (unsigned)x->s->threads, .phase = "restore", .total = item->size };
	int ret = make_disk(x, item->size, &v.to, e);

	if (ret < 0)
		return ret;
	v.job = progress_start(x->s, "drill");
	ret = item->is_verbatim ? recover_node(&v, item->file, 0, e) : recover_disk(&v, &item->disk, e);
	progress_end();
	if (ret == 0)
		ret = vd_image_commit(v.to, e);
	if (ret < 0) {
		vd_image_abort(v.to);
		return ret;
	}
	return vd_image_close(v.to, e);
}

static void bad_snapshot(void *ctx, const char *name, const struct vd_error *why)
{
	(void)ctx;
	(void)name;
	ui_warn("%s", why->message);
}

static int restore_in(struct doing *x, struct repository *r, struct snapshots *all, struct item *item, struct vd_error *e)
{
	const struct snapshot *snap;
	int ret = repository_open(x->s, REPOSITORY_SHARED, r, e);

	if (ret == 0)
		ret = snapshots_load(r->repo, bad_snapshot, NULL, all, e);
	if (ret == 0)
		ret = snapshots_find(all, x->s->n_operands ? x->s->operands[0] : "latest", &snap, e);
	if (ret == 0)
		ret = repo_load_index(r->repo, e);
	if (ret == 0)
		ret = pickitem(r->repo, snap->tree, x->s->backup.path, item, e);
	if (ret < 0)
		return ret;
	snprintf(x->repository, sizeof(x->repository), "%s", repo_id(r->repo));
	snprintf(x->snapshot, sizeof(x->snapshot), "%s", snap->name);
	snprintf(x->path, sizeof(x->path), "%s", item->path);
	x->d.repository = x->repository;
	x->d.where = x->s->backup.repo;
	x->d.snapshot = x->snapshot;
	x->d.path = x->path;
	x->d.image = x->path;
	return bring_back(x, r, item, e);
}

/* What was kept of an image as it lies has its own format and key; a disk by its content is plain below ours. */
static int restore(struct doing *x, struct vd_error *e)
{
	struct repository r = { 0 };
	struct snapshots all = { 0 };
	struct item item = { 0 };
	int ret = restore_in(x, &r, &all, &item, e);

	if (ret == 0 && item.is_verbatim && item.disk.facts.is_opaque)
		ret = fail(e, VD_EUNSUPPORTED, "%s: was kept as it lies: restore it, and drill what comes back", item.path);
	pickitem_free(&item);
	snapshots_free(&all);
	repository_close(&r);
	x->own.format = "qcow2";
	x->own.keys.n = 0;
	return ret;
}

/* ---- the drill -------------------------------------------------------------------------------------------- */

static int check_structure(struct doing *x, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r = 0;

	if (x->keys.n) {
		struct vd_gate_dirs dirs;
		struct vd_open_opts o = source_opts(&x->own, x->own.format, &x->keys, &dirs);

		r = vd_image_open(x->disk, &o, &img, e);
	} else {
		r = source_open(&x->own, x->disk, x->own.format, &x->keys, &img, e);
	}
	if (r < 0)
		return r;
	ui_status("reading the file systems");
	r = structure_check(img, &x->d.structure, e);
	ui_status_end();
	vd_image_abort(img);
	return r;
}

static void plan_machine(struct doing *x)
{
	const struct drill_settings *s = &x->s->drill;
	struct machine_plan *m = &x->plan.machine;

	x->plan.no_kvm = s->no_kvm;
	x->plan.expected = s->expect;
	x->plan.seconds = s->timeout ? (unsigned)s->timeout : SECONDS_DEFAULT;
	m->folder = x->folder;
	m->memory_mib = s->memory ? (unsigned)s->memory : MEMORY_DEFAULT;
	m->bus = s->bus ? (enum drill_bus)s->bus : x->d.structure.has_windows ? DRILL_SATA : DRILL_VIRTIO;
	m->firmware = s->firmware ? (enum drill_firmware)s->firmware : DRILL_BIOS;
}

static int boot(struct doing *x, struct vd_error *e)
{
	struct nbdserver server = { .s = &x->own, .image = x->disk };
	struct listener l;
	struct vd_error at_end;
	int r = listener_open(&l, &x->own, e);

	if (r < 0)
		return r;
	server.listen_fd = l.fd;
	r = nbdserver_start(&server, &x->keys, e);
	if (r == 0) {
		plan_machine(x);
		x->plan.machine.socket = l.path;
		x->d.plan = &x->plan;
		r = boot_run(&x->plan, x->boot, e);
		if (nbdserver_stop(&server, &at_end) < 0)
			ui_warn("%s", at_end.message);
	}
	listener_close(&l);
	return r;
}

/* ---- the result ------------------------------------------------------------------------------------------- */

static int write_report(struct doing *x, struct json_object *doc, struct vd_error *e)
{
	const char *path = x->s->drill.report;
	struct bytes text = { 0 }, sig = { 0 };
	char sig_path[PATH_MAX];
	int r = path ? canon_write(doc, &text, e) : 0;

	if (!path)
		return 0;
	snprintf(sig_path, sizeof(sig_path), "%s.sig", path);
	if (r == 0 && x->s->cert.sign_key)
		r = sshsig_make(&x->signer, NAMESPACE, &text, &sig, e);
	if (r == 0 && x->s->cert.sign_key)
		r = file_write(sig_path, &sig, 0644, false, e);
	if (r == 0)
		r = file_write(path, &text, 0644, false, e);
	bytes_free(&text);
	bytes_free(&sig);
	return r;
}

static int write_page(struct doing *x, struct json_object *doc, struct vd_error *e)
{
	struct bytes html = { 0 };
	int r;

	if (!x->s->drill.html)
		return 0;
	drill_page(&x->d, doc, x->s->drill.lang == SHEET_CHINESE, &html);
	r = file_write(x->s->drill.html, &html, 0644, false, e);
	bytes_free(&html);
	return r;
}

/* A receipt in the ledger: what a schedule and retention go by. */
static int write_receipt(struct doing *x, struct json_object *doc, struct vd_error *e)
{
	struct book *book;
	bool off = false;
	int r = ledger_open(&book, e);

	if (r == 0)
		r = ledger_is_off(book, &off, e);
	if (r == 0 && !off)
		r = book_append(book, "drill", doc, x->s->cert.sign_key ? &x->signer : NULL, NULL, e);
	book_close(book);
	return r;
}

static void tell(const struct doing *x, struct json_object *doc)
{
	const struct drill *d = &x->d;
	const struct boot_result *b = d->boot;

	if (ui_is_json()) {
		json_put_text(doc, "verb", "drill");
		json_print(json_object_get(doc));
		return;
	}
	ui_line("%s: %s%s%s", d->image, ui_colour(drill_passed(d) ? UI_GREEN : UI_RED), drill_passed(d) ? "passed" : "not passed", ui_colour(UI_PLAIN));
	ui_line("  file systems: %s%s%s", d->structure.is_sound ? "read" : "not sound", *d->structure.words ? ", " : "", d->structure.words);
	if (!d->plan)
		return;
	ui_line("  boot: %s%s%s%s", drill_outcome_words(b->outcome, false), *b->words ? " (\"" : "", b->words, *b->words ? "\")" : "");
	if (b->settled >= 0)
		ui_line("  after %.1f s under %s%s%s", b->settled, b->accel == DRILL_KVM ? "KVM" : "TCG", *b->why_tcg ? ": " : "", b->why_tcg);
}

static int give_result(struct doing *x, struct vd_error *e)
{
	struct json_object *doc = drill_document(&x->d);
	int r = write_report(x, doc, e);

	if (r == 0)
		r = write_page(x, doc, e);
	if (r == 0)
		r = write_receipt(x, doc, e);
	if (r == 0)
		tell(x, doc);
	json_object_put(doc);
	if (r < 0 || drill_passed(&x->d))
		return r;
	return x->d.structure.is_sound && x->d.plan && x->boot->outcome == DRILL_UNLOCK ? DRILL_STATUS_UNLOCK : DRILL_STATUS_FAILED;
}

/* ---- the verb --------------------------------------------------------------------------------------------- */

static int judge(const struct settings *s, struct vd_error *e)
{
	char sig_path[PATH_MAX];
	int r = 0;

	if (!s->backup.repo && s->n_operands != 1)
		return fail(e, VD_EARG, "drill: which IMAGE, or --repo and which snapshot of it?");
	if (s->drill.report) {
		snprintf(sig_path, sizeof(sig_path), "%s.sig", s->drill.report);
		r = file_judge_new(s->drill.report, e);
		if (r == 0 && s->cert.sign_key)
			r = file_judge_new(sig_path, e);
	}
	if (r == 0 && s->drill.html)
		r = file_judge_new(s->drill.html, e);
	return r;
}

static int drill(struct doing *x, struct vd_error *e)
{
	struct timespec begun, ended;
	int r = make_folder(x, e);

	clock_gettime(CLOCK_REALTIME, &begun);
	time_show(begun.tv_sec, (uint32_t)begun.tv_nsec, x->d.started);
	if (r == 0 && x->s->backup.repo)
		r = restore(x, e);
	if (r == 0)
		r = check_structure(x, e);
	if (r == 0 && !x->s->drill.no_boot) {
		machine_version(x->d.qemu, sizeof(x->d.qemu));
		r = boot(x, e);
	}
	clock_gettime(CLOCK_REALTIME, &ended);
	x->d.seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
	return r == 0 ? give_result(x, e) : r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct doing *x = calloc(1, sizeof(*x));
	int r = judge(s, e);

	if (!x)
		ui_out_of_memory();
	x->boot = calloc(1, sizeof(*x->boot));
	if (!x->boot)
		ui_out_of_memory();
	x->s = s;
	x->own = *s;
	x->d.boot = x->boot;
	x->d.image = s->n_operands ? s->operands[0] : "latest";
	snprintf(x->disk, sizeof(x->disk), "%s", x->d.image);
	if (r == 0 && s->cert.sign_key)
		r = signer_open(s->cert.sign_key, &x->signer, e);
	if (r == 0)
		r = drill(x, e);
	remove_folder(x);
	if (s->cert.sign_key)
		signer_close(&x->signer);
	json_object_put(x->d.structure.details);
	secrets_free(&x->keys);
	free(x->boot);
	free(x);
	return r;
}

const struct verb verb_drill = {
	.name = "drill",
	.operands = "IMAGE|[SNAPSHOT]",
	.min_operands = 0,
	.max_operands = 1,
	.summary = "show that a disk or a backup can be used: read it, boot it",
	.about = "Reads the partition table and the file systems of the disk, then boots it in qemu without network, its writes thrown away, and watches "
		 "the serial line, the firmware, the screen and qemu's events until it is plain what came of it. With --repo it does so with a "
		 "backup. The result is a receipt in the ledger, and a signed report if one is asked for.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
