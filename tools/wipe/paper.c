/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Orders the certificate of a wipe and has it written. What is in it, and how it is signed, is ledger/'s business. */
#include "wipe/paper.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "ledger/certificate.h"
#include "ledger/files.h"
#include "ledger/schema.h"
#include "ui.h"

/* ---- the order -------------------------------------------------------------------------------------------- */

/* A resume may be in another folder. What the last part of the name is, or whether it is there, does not matter. */
static int make_absolute(const char *path, char to[PATH_MAX], struct vd_error *e)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char above[PATH_MAX], folder[PATH_MAX];

	snprintf(above, sizeof(above), "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
	if (!realpath(above, folder))
		return fail_errno(e, errno, "the folder of %s", path);
	if (!*name || (size_t)snprintf(to, PATH_MAX, "%s/%s", strcmp(folder, "/") ? folder : "", name) >= PATH_MAX)
		return fail(e, VD_EARG, "%s is no name of a file", path);
	return 0;
}

int wipe_paper_order(const struct settings *s, struct wipe_paper *p, struct signer *signer, struct vd_error *e)
{
	int r = s->wipe.certificate ? make_absolute(s->wipe.certificate, p->file, e) : 0;

	if (r == 0 && s->cert.sign_key)
		r = make_absolute(s->cert.sign_key, p->sign_key, e);
	if (s->wipe.person && (size_t)snprintf(p->person, sizeof(p->person), "%s", s->wipe.person) >= sizeof(p->person))
		return fail(e, VD_EARG, "--operator: more than %zu bytes", sizeof(p->person) - 1);
	if (r < 0)
		return r;
	if (!p->file[0])
		return p->sign_key[0] || p->person[0] ? fail(e, VD_EARG, "--sign-key and --operator go with --certificate=FILE") : 0;
	if (!p->sign_key[0]) {
		fail(e, VD_EARG, "--certificate: --sign-key KEY says with which key it is signed");
		return fail_hint(e, VD_EARG, "vdisk cert keygen KEY makes one");
	}
	return signer_open(p->sign_key, signer, e);
}

/* ---- its place -------------------------------------------------------------------------------------------- */

/* The files that a name leads to: itself, and those that are there only while it is written. */
static const char *const paper_endings[] = { "", ".sig", ".vdisk-partial", ".sig.vdisk-partial" };
static const char *const state_endings[] = { "", ".next" };
#define N_OF(list) (sizeof(list) / sizeof((list)[0]))

static bool is_name_of(const char *path, const char *name, const char *const *endings, size_t n)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (!strncmp(path, name, len) && !strcmp(path + len, endings[i]))
			return true;
	return false;
}

static int judge_names(const char *what, const char *name, const char *const *endings, size_t n, const struct wipe_set *set,
		       struct vd_error *e)
{
	for (size_t i = 0; i < set->n; i++)
		if (is_name_of(set->at[i].path, name, endings, n))
			return fail(e, VD_EARG, "%s=%s: that is, or takes the place of, what is to be wiped: %s", what, name, set->at[i].path);
	return 0;
}

static int judge_folders(const struct settings *s, const char *what, const char *name, struct vd_error *e)
{
	for (size_t i = 0; i < s->n_operands; i++) {
		char folder[PATH_MAX];
		struct stat st;
		size_t n;

		if (stat(s->operands[i], &st) || !S_ISDIR(st.st_mode) || !realpath(s->operands[i], folder))
			continue;
		n = strlen(folder);
		if (strncmp(name, folder, n) || (name[n] != '/' && strcmp(folder, "/")))
			continue;
		fail(e, VD_EARG, "%s=%s lies in the folder that is to be wiped", what, name);
		return fail_hint(e, VD_EARG, "what tells of a wipe is kept apart from what is wiped");
	}
	return 0;
}

/* A paper speaks of one machine. */
static int judge_machines(const struct wipe_set *set, struct vd_error *e)
{
	const char *first = NULL;

	for (size_t i = 0; i < set->n; i++) {
		const char *path = set->at[i].path, *dot = strrchr(path, '.');

		if (set->at[i].role != WIPE_CONFIG || !dot || (strcmp(dot, ".vmx") && strcmp(dot, ".vmcx") &&
							       !(set->at[i].parent == i && !strcmp(dot, ".xml"))))
			continue;
		if (first) {
			fail(e, VD_EARG, "--certificate: %s and %s are two machines, and a certificate is of one", first, path);
			return fail_hint(e, VD_EARG, "wipe them one after the other");
		}
		first = path;
	}
	return 0;
}

int wipe_paper_judge_place(const struct settings *s, const struct wipe_record *rec, const char *state, struct vd_error *e)
{
	const char *file = rec->paper.file;
	char state_file[PATH_MAX] = "";
	int r = state ? make_absolute(state, state_file, e) : 0;

	if (r == 0 && state)
		r = judge_names("--state", state_file, state_endings, N_OF(state_endings), &rec->set, e);
	if (r == 0 && state)
		r = judge_folders(s, "--state", state_file, e);
	if (r < 0 || !file[0])
		return r;
	for (size_t i = 0; state && i < N_OF(state_endings); i++) {
		char name[PATH_MAX + 8];

		snprintf(name, sizeof(name), "%s%s", state_file, state_endings[i]);
		if (is_name_of(name, file, paper_endings, N_OF(paper_endings)))
			return fail(e, VD_EARG, "--certificate=%s: %s is where it is kept how far the wipe is", file, name);
	}
	r = judge_names("--certificate", file, paper_endings, N_OF(paper_endings), &rec->set, e);
	if (r == 0)
		r = judge_folders(s, "--certificate", file, e);
	return r == 0 ? judge_machines(&rec->set, e) : r;
}

static int judge_folder(const char *file, struct vd_error *e)
{
	char folder[PATH_MAX];

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(file, '/') - file) + (strrchr(file, '/') == file), file);
	return access(folder, W_OK | X_OK) ? fail_errno(e, errno, "%s: nothing can be written there", folder) : 0;
}

/* A paper of this run is there already: a certificate is all that was missing, an incident record stays what it is. */
static int judge_earlier(const struct wipe_record *rec, const char *sig_path, bool *is_written, struct vd_error *e)
{
	struct certificate c;
	struct vd_error ignored;
	int r;

	if (certificate_open(rec->paper.file, sig_path, &c, &ignored) < 0)
		return file_judge_new(rec->paper.file, e);
	*is_written = !c.is_incident && !strcmp(schema_text(c.doc, "wipe.run"), rec->run);
	certificate_close(&c);
	if (*is_written)
		return 0;
	r = file_judge_new(rec->paper.file, e);
	return fail_hint(e, r, "it is kept: --certificate=FILE names a place for what is to come");
}

int wipe_paper_judge_new(const struct wipe_record *rec, bool resumes, bool *is_written, struct vd_error *e)
{
	const char *file = rec->paper.file;
	char sig_path[PATH_MAX];
	int r;

	*is_written = false;
	if (!file[0])
		return 0;
	r = certificate_sig_path(file, sig_path, sizeof(sig_path), e);
	if (r == 0)
		r = judge_folder(file, e);
	if (r < 0)
		return r;
	if (!resumes)
		return certificate_judge_place(file, e);
	if (access(file, F_OK) == 0)
		return judge_earlier(rec, sig_path, is_written, e);
	/* The signature comes first: alone it is what a kill has left. */
	if (unlink(sig_path) && errno != ENOENT)
		return fail_errno(e, errno, "%s", sig_path);
	return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

int wipe_paper_write(const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], const struct signer *signer, struct vd_error *e)
{
	const struct wipe_paper *p = &rec->paper;
	struct json_object *record = json_new();
	bool is_incident = false;
	int r;

	wipe_record_to_json(rec, key, record);
	r = certificate_write(p->file, record, p->person[0] ? p->person : NULL, signer, &is_incident, e);
	json_object_put(record);
	if (r < 0)
		return r;
	if (!ui_is_json())
		ui_summary("%s: %s; %s.sig: its signature", p->file, is_incident ? "an incident record, no certificate" : "certificate", p->file);
	return 0;
}
