/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk backup: images, or folders of machines, into one snapshot of a repository. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backup/crew.h"
#include "backup/keyfile.h"
#include "backup/retention.h"
#include "fail.h"
#include "imagebackup.h"
#include "json.h"
#include "ledger/acts.h"
#include "progress.h"
#include "signals.h"
#include "sizes.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt what_options[] = {
	{ .name = "opaque", .kind = OPT_FLAG, .where = WHERE(backup.opaque),
	  .help = "the files of IMAGE as they lie, ciphertext and all: no key is needed, and little is found twice" },
	{ .name = "host", .kind = OPT_TEXT, .where = WHERE(backup.host), .arg = "NAME", .help = "name of the machine (default: this one's)" },
	{ .name = "tag", .kind = OPT_TEXTS, .where = WHERE(backup.tags), .arg = "TAG", .help = "a tag for the snapshot (may be repeated)" },
	{ 0 },
};
static const struct opt_group what_group = { "Backup", what_options };

static const struct opt changes_options[] = {
	{ .name = "track", .kind = OPT_FLAG, .where = WHERE(backup.track),
	  .help = "keep a bitmap in IMAGE (qcow2), so that the next backup reads only what changes from here on" },
	{ .name = "scan", .kind = OPT_FLAG, .where = WHERE(backup.scan),
	  .help = "read all that is allocated, whatever a bitmap says" },
	{ .name = "bitmap", .kind = OPT_TEXT, .where = WHERE(backup.bitmap), .arg = "NAME",
	  .help = "what changed, by this bitmap, which you look after" },
	{ .name = "changed-blocks", .kind = OPT_TEXT, .where = WHERE(backup.changes), .arg = "FILE",
	  .help = "what changed, as JSON; - is standard input" },
	{ .name = "changes-from", .kind = OPT_TEXT, .where = WHERE(backup.nbd), .arg = "URI",
	  .help = "what changed, by --bitmap of the running qemu at nbd+unix:///EXPORT?socket=PATH" },
	{ .name = "trust-ctk", .kind = OPT_FLAG, .where = WHERE(backup.trusts_ctk),
	  .help = "what changed, by VMware's CTK file, whose layout is not published" },
	{ 0 },
};
static const struct opt_group changes_group = { "What has changed since the last backup (otherwise told by what it left behind, else all is read)", changes_options };

static const struct opt live_options[] = {
	{ .name = "qmp", .kind = OPT_TEXT, .where = WHERE(backup.qmp), .arg = "SOCKET",
	  .help = "qemu has IMAGE open, and takes commands here: its disk of one moment, while the machine runs" },
	{ .name = "agent", .kind = OPT_TEXT, .where = WHERE(backup.agent), .arg = "SOCKET",
	  .help = "socket of the guest's agent, which makes its file systems stand still for that moment" },
	{ 0 },
};
static const struct opt_group live_group = { "A machine that runs", live_options };

static const struct opt receipt_options[] = {
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "sign the receipt in the ledger with this Ed25519 key of OpenSSH, or the agent's for a public one" },
	{ 0 },
};
static const struct opt_group receipt_group = { "Receipt", receipt_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_repo_key, &opts_keys, &what_group, &changes_group, &live_group, &receipt_group, &opts_format, &opts_header, &opts_backing, &opts_snapshot,
	&opts_sharing, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk backup --repo /backup/vms --passphrase-file pw disk.qcow2",
	"vdisk backup --repo /backup/vms --passphrase-file pw --track --tag nightly disk.qcow2",
	"vdisk backup --repo /backup/vms --repo-passphrase-file pw --key-file disk.key /vm/mail",
	"vdisk backup --repo rest:https://backup.example.org/vms --rest-credentials cred --repo-passphrase-file pw --opaque disk.qcow2",
	NULL,
};

/* ---- words ---------------------------------------------------------------------------------------------- */

static void tell_image(const struct imagebackup *im)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: disk of %s, %s read (%s), %s unchanged, %s of holes and zeros", im->name, size_show((double)im->facts.size).s,
			   size_show((double)im->counts.read).s, im->how, size_show((double)im->counts.same).s, size_show((double)im->counts.zero).s);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "image");
	json_put_text(j, "name", im->name);
	json_put_text(j, "source", im->facts.source);
	json_put_text(j, "format", im->facts.format);
	json_put_bool(j, "opaque", im->facts.is_opaque);
	json_put_u64(j, "size", im->facts.size);
	json_put_u64(j, "chunk-size", im->facts.chunk);
	json_put_u64(j, "read", im->counts.read);
	json_put_u64(j, "unchanged", im->counts.same);
	json_put_u64(j, "zero", im->counts.zero);
	json_put_text(j, "how", im->how);
	json_put_text(j, "content-root", im->facts.root);
	json_print(j);
}

static void tell(const struct backup_run *b, const struct snapshot *snap, const char *receipt, double seconds)
{
	struct writer_counts c = writer_counts(b->w);
	char tree[ID_HEX_SIZE];
	struct json_object *j;

	for (size_t i = 0; i < b->n_images; i++)
		tell_image(b->images[i]);
	if (!ui_is_json()) {
		ui_summary("snapshot %.8s: %s new, %s stored in %.2f s", snap->name, size_show((double)c.bytes_new).s,
			   size_show((double)c.bytes_stored).s, seconds);
		return;
	}
	id_show(snap->tree, tree);
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "backup");
	json_put_text(j, "repository", b->s->backup.repo);
	json_put_text(j, "snapshot", snap->name);
	json_put_text(j, "tree", tree);
	if (snap->has_parent)
		json_put_text(j, "parent", snap->parent);
	json_put_u64(j, "new", c.bytes_new);
	json_put_u64(j, "new-blobs", c.blobs_new);
	json_put_u64(j, "stored", c.bytes_stored);
	json_put_u64(j, "other-files", b->other_files);
	json_put_u64(j, "passed-over", b->passed_over);
	if (receipt[0])
		json_put_text(j, "receipt", receipt);
	json_put(j, "seconds", json_object_new_double(seconds));
	json_print(j);
}

/* ---- receipt -------------------------------------------------------------------------------------------- */

static struct json_object *receipt_body(const struct backup_run *b, const struct snapshot *snap)
{
	struct json_object *j = json_new(), *list;
	char tree[ID_HEX_SIZE], when[40];

	id_show(snap->tree, tree);
	time_show(snap->sec, snap->nsec, when);
	json_put_text(j, "repository", repo_id(b->r->repo));
	json_put_text(j, "where", b->s->backup.repo);
	json_put_text(j, "snapshot", snap->name);
	json_put_text(j, "tree", tree);
	json_put_text(j, "taken", when);
	json_put_text(j, "host", snap->host);
	list = json_put_array(j, "images");
	for (size_t i = 0; i < b->n_images; i++) {
		struct json_object *x = json_new();

		json_put_text(x, "name", b->images[i]->name);
		json_put_text(x, "content-root", b->images[i]->facts.root);
		json_put_u64(x, "size", b->images[i]->facts.size);
		json_add(list, x);
	}
	return j;
}

static int give_receipt(const struct backup_run *b, const struct snapshot *snap, const struct signer *signer, char hash[BOOK_HASH_SIZE],
			struct vd_error *e)
{
	struct json_object *body = receipt_body(b, snap);
	struct book *book = NULL;
	bool off = false;
	int r = ledger_open(&book, e);

	if (r == 0)
		r = ledger_is_off(book, &off, e);
	if (r == 0 && !off)
		r = book_append(book, "backup", body, signer, hash, e);
	book_close(book);
	json_object_put(body);
	return r < 0 ? fail(e, r, "snapshot %.8s is in the repository, but its receipt is not in the ledger: %s", snap->name, strdupa(e->message)) : 0;
}

/* ---- the snapshot --------------------------------------------------------------------------------------- */

static void describe(const struct backup_run *b, struct snapshot *snap)
{
	char user[256];

	writer_user(user, sizeof(user));
	snap->host = strdup(b->host);
	snap->user = strdup(user);
	snap->uid = geteuid();
	snap->gid = getegid();
	for (size_t i = 0; i < b->s->backup.tags.n; i++)
		snap->tags[snap->n_tags++] = strdup(b->s->backup.tags.at[i]);
	for (size_t i = 0; i < b->before->n && !snap->has_parent; i++)
		if (retention_is_same_series(&b->before->at[i], snap)) {
			snap->has_parent = true;
			memcpy(snap->parent, b->before->at[i].name, sizeof(snap->parent));
		}
}

static int take_all(struct backup_run *b, struct tree *root, struct snapshot *snap, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < b->s->n_operands && r == 0; i++) {
		const char *operand = b->s->operands[i];
		/* What a server shows has the one name that it has. */
		char *absolute = imagebackup_is_served(operand) ? strdup(operand) : realpath(operand, NULL);

		if (!absolute)
			return fail(e, VD_ENOENT, "%s: is not there", b->s->operands[i]);
		snap->paths[snap->n_paths++] = absolute;
		r = imagebackup_take(b, b->s->operands[i], absolute, root, e);
	}
	return r;
}

/* Packs, then indexes, then the snapshot: at each moment what is named is there. */
static int commit(struct backup_run *b, struct tree *root, struct snapshot *snap, struct vd_error *e)
{
	int r = writer_add_tree(b->w, root, snap->tree, e);

	if (r == 0)
		r = writer_finish(b->w, e);
	if (r == 0)
		r = signals_check(e);
	if (r == 0)
		r = repo_still_locked(b->r->repo, e);
	if (r < 0)
		return r;
	describe(b, snap);
	return snapshot_save(b->r->repo, snap, e);
}

static int make_snapshot(struct backup_run *b, const struct signer *signer, struct vd_error *e)
{
	struct snapshot snap = { 0 };
	struct tree root = { 0 };
	char receipt[BOOK_HASH_SIZE] = "";
	struct timespec now;
	double seconds;
	int r, c = 0;

	clock_gettime(CLOCK_REALTIME, &now);
	snap.sec = now.tv_sec;
	snap.nsec = (uint32_t)now.tv_nsec;
	b->job = progress_start(b->s, "backup");
	r = take_all(b, &root, &snap, e);
	if (r == 0)
		r = commit(b, &root, &snap, e);
	seconds = progress_end();
	if (r == 0)
		c = give_receipt(b, &snap, signer, receipt, e);
	if (r == 0)
		tell(b, &snap, receipt, seconds);
	imagebackup_settle(b, r == 0);
	snapshot_free(&snap);
	tree_free(&root);
	return r < 0 ? r : c;
}

static void bad_snapshot(void *ctx, const char *name, const struct vd_error *why)
{
	(void)ctx;
	(void)name;
	ui_warn("%s", why->message);
}

static int judge(const struct settings *s, struct vd_error *e)
{
	if (s->n_operands > SNAPSHOT_PATHS_MAX)
		return fail(e, VD_EARG, "more than %d images are not one backup", SNAPSHOT_PATHS_MAX);
	if (s->backup.opaque && (s->backup.track || s->backup.bitmap || s->backup.changes || s->backup.nbd || s->backup.trusts_ctk))
		return fail(e, VD_EARG, "--opaque knows nothing of what changed on the disk: it reads the files");
	if (s->backup.agent && !s->backup.qmp)
		return fail(e, VD_EARG, "--agent goes with --qmp: without a moment there is nothing to stand still for");
	if (s->backup.qmp && (s->backup.opaque || s->n_operands != 1))
		return fail(e, VD_EARG, "--qmp shows one disk by its content: one image, and not --opaque");
	return 0;
}

static int run_in(struct backup_run *b, const struct signer *signer, struct vd_error *e)
{
	struct snapshots before = { 0 };
	char host[256];
	int r = repository_open(b->s, REPOSITORY_SHARED, b->r, e);

	if (r == 0)
		r = repo_load_index(b->r->repo, e);
	if (r == 0)
		r = snapshots_load(b->r->repo, bad_snapshot, NULL, &before, e);
	if (r == 0)
		r = writer_new(b->r->repo, crew_size((unsigned)b->s->threads), &b->w, e);
	writer_host(host, sizeof(host));
	b->before = &before;
	b->host = b->s->backup.host ? b->s->backup.host : host;
	if (r == 0)
		r = make_snapshot(b, signer, e);
	writer_free(b->w);
	snapshots_free(&before);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct repository repository = { 0 };
	struct backup_run b = { .s = s, .r = &repository };
	struct signer signer = { 0 };
	struct keys own = { 0 };
	int r = judge(s, e);

	/* Before hours of work, not after. */
	if (r == 0 && s->cert.sign_key)
		r = signer_open(s->cert.sign_key, &signer, e);
	/* One key for all, where the options do not tell the repository's from the images': it is fetched once. */
	b.keys = s->keys.n && !s->backup.keys.n ? &repository.keys : &own;
	if (r == 0)
		r = run_in(&b, s->cert.sign_key ? &signer : NULL, e);
	if (s->cert.sign_key)
		signer_close(&signer);
	repository_close(&repository);
	secrets_free(&own);
	return r;
}

const struct verb verb_backup = {
	.name = "backup",
	.operands = "IMAGE|VM-FOLDER...",
	.min_operands = 1,
	.max_operands = OPERANDS_MAX,
	.summary = "back up disks, or all of a machine, into a repository",
	.about = "Reads what is allocated and has changed, and makes one snapshot of it in a repository of restic's format, encrypted and each "
		 "chunk kept once. Encrypted images are opened with their key and kept by content; with --opaque as they lie. Of a folder all "
		 "disks are kept, and the files that are none.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
