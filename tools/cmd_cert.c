/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk cert: makes keys, signs, verifies and shows certificates of wipes. The pieces are in ledger/. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "ledger/certificate.h"
#include "ledger/files.h"
#include "ledger/pdf.h"
#include "ledger/schema.h"
#include "ledger/sheet.h"
#include "ledger/sm2.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt trust[] = {
	{ .name = "allowed-signers", .kind = OPT_TEXT, .where = WHERE(cert.allowed_signers), .arg = "FILE",
	  .help = "whose keys may sign, as ssh-keygen has it: NAME ssh-ed25519 KEY" },
	{ .name = "signer", .kind = OPT_TEXT, .where = WHERE(cert.signer), .arg = "NAME",
	  .help = "who of them has to have signed (default: any)" },
	{ .name = "validator", .kind = OPT_TEXT, .where = WHERE(cert.validator), .arg = "NAME",
	  .help = "verify: who of them has to have signed FILE.validator.sig, with another key" },
	{ .name = "sm2-public-key", .kind = OPT_TEXT, .where = WHERE(cert.sm2_public_key), .arg = "PEM",
	  .help = "verify: whose SM2 signature FILE.sm2.sig has to be" },
	{ .name = "public-key", .kind = OPT_TEXT, .where = WHERE(cert.public_key), .arg = "FILE", .help = "the one key that may sign" },
	{ .name = "signature", .kind = OPT_TEXT, .where = WHERE(cert.signature), .arg = "SIG",
	  .help = "the signature's file (default: FILE.sig)" },
	{ 0 },
};
static const struct opt_group trust_group = { "Signature", trust };

static const struct opt signing[] = {
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "sign: a private key file, or a public one whose key ssh-agent has" },
	{ .name = "sm2-key", .kind = OPT_TEXT, .where = WHERE(cert.sm2_key), .arg = "PEM",
	  .help = "sign: with SM2 and SM3, raw, into FILE.sm2.sig" },
	{ .name = "comment", .kind = OPT_TEXT, .where = WHERE(cert.comment), .arg = "TEXT",
	  .help = "keygen: whose key it is (default: user@host)" },
	{ 0 },
};
static const struct opt_group signing_group = { "Keys", signing };

static const struct opt_choice languages[] = { { "en", SHEET_ENGLISH }, { "zh", SHEET_CHINESE }, { NULL, 0 } };
static const struct opt page[] = {
	{ .name = "lang", .kind = OPT_CHOICE, .where = WHERE(cert.lang), .arg = "LANG", .choices = languages,
	  .help = "show, render: en (default) or zh" },
	{ .name = "html", .kind = OPT_TEXT, .where = WHERE(cert.html), .arg = "OUT", .help = "render: the page's file" },
	{ .name = "pdf", .kind = OPT_TEXT, .where = WHERE(cert.pdf), .arg = "OUT", .help = "render: the same as PDF, with its fonts" },
	{ .name = "force", .kind = OPT_FLAG, .where = WHERE(force), .help = "render: replace OUT if it exists" },
	{ 0 },
};
static const struct opt_group page_group = { "Page", page };

static const struct opt_group *const groups[] = { &trust_group, &signing_group, &page_group, &opts_output_form, &opts_speech, NULL };

static const char *const examples[] = {
	"vdisk cert keygen --comment ops@example.com /etc/vdisk/sign",
	"vdisk cert verify --allowed-signers allowed --signer ops@example.com web.json",
	"vdisk cert show web.json",
	"vdisk cert render --lang=zh --html web.html web.json",
	"vdisk cert sign --sign-key auditor.pub web.json",
	NULL,
};

struct request {
	const struct settings *s;
	const char *path;
	char sig_path[PATH_MAX];
	struct certificate c;
	char name[ALLOWED_NAME_MAX];    /* whose key signed; "": was not asked */
};

static struct json_object *summary(const struct request *q, const char *act)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "cert");
	json_put_text(j, "act", act);
	json_put_text(j, "file", q->path);
	return j;
}

/* ---- keygen ----------------------------------------------------------------------------------------------- */

static int keygen(struct request *q, struct vd_error *e)
{
	char comment[128] = "", host[64] = "", print[SSHKEY_PRINT_SIZE];
	const char *user = getlogin();
	struct json_object *j;
	struct sshkey k;
	int r;

	if (q->s->cert.comment && strpbrk(q->s->cert.comment, "\r\n"))
		return fail(e, VD_EARG, "--comment: is one line");
	gethostname(host, sizeof(host) - 1);
	snprintf(comment, sizeof(comment), "%s@%s", user ? user : "vdisk", host);
	r = sshkey_make(q->path, q->s->cert.comment ? q->s->cert.comment : comment, &k, e);
	sshkey_free(&k);
	if (r < 0)
		return r;
	sshkey_print(k.public_key, print);
	if (ui_is_json()) {
		j = summary(q, "keygen");
		json_put_text(j, "fingerprint", print);
		json_put_text(j, "comment", k.comment);
		json_print(j);
		return 0;
	}
	ui_summary("%s: private key, for you alone; %s.pub: public key %s", q->path, q->path, print);
	return 0;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

/* FILE and an ending, if no other name was given. */
static int name_signature(struct request *q, const char *ending, struct vd_error *e)
{
	if (!q->s->cert.signature)
		return (size_t)snprintf(q->sig_path, sizeof(q->sig_path), "%s%s", q->path, ending) < sizeof(q->sig_path) ? 0 :
			       fail(e, VD_EARG, "%s: the name is too long", q->path);
	snprintf(q->sig_path, sizeof(q->sig_path), "%s", q->s->cert.signature);
	return 0;
}

static int judge_signer(struct request *q, struct vd_error *e)
{
	const struct cert_settings *s = &q->s->cert;

	if (s->allowed_signers && s->public_key)
		return fail(e, VD_EARG, "--allowed-signers and --public-key are two answers to one question: one of them");
	if (s->signer && !s->allowed_signers)
		return fail(e, VD_EARG, "--signer goes with --allowed-signers");
	if (s->allowed_signers)
		return allowed_by_file(s->allowed_signers, &q->c.sig, s->signer, q->name, e);
	return s->public_key ? allowed_by_key(s->public_key, &q->c.sig, q->name, e) : 0;
}

static int read_signed(struct request *q, struct vd_error *e)
{
	int r = name_signature(q, ".sig", e);

	if (r == 0)
		r = certificate_open(q->path, q->sig_path, &q->c, e);
	return r == 0 ? judge_signer(q, e) : r;
}

static bool is_trust_given(const struct request *q)
{
	return q->s->cert.allowed_signers || q->s->cert.public_key;
}

static void put_signature(struct json_object *j, const struct request *q)
{
	json_put_text(j, "sha256", q->c.sha256);
	json_put_text(j, "fingerprint", q->c.fingerprint);
	json_put_bool(j, "signer-checked", is_trust_given(q));
	if (is_trust_given(q))
		json_put_text(j, "signer", q->name);
}

/* The second signature: by somebody else, and with a key that is not the first's. */
static int judge_validator(const struct request *q, struct vd_error *e)
{
	char path[PATH_MAX], name[ALLOWED_NAME_MAX] = "";
	struct certificate second;
	int r;

	if (!q->s->cert.validator)
		return 0;
	if (!q->s->cert.allowed_signers)
		return fail(e, VD_EARG, "--validator goes with --allowed-signers");
	snprintf(path, sizeof(path), "%.4000s.validator.sig", q->path);
	r = certificate_open(q->path, path, &second, e);
	if (r < 0)
		return r;
	r = allowed_by_file(q->s->cert.allowed_signers, &second.sig, q->s->cert.validator, name, e);
	if (r == 0 && !memcmp(second.sig.public_key, q->c.sig.public_key, ED25519_SIZE))
		r = fail(e, VD_EAUTH, "%s: was made with the key of the first signature: that is no second person", path);
	certificate_close(&second);
	return r;
}

static int judge_sm2(const struct request *q, struct vd_error *e)
{
	struct bytes sig = { 0 };
	char path[PATH_MAX];
	int r;

	if (!q->s->cert.sm2_public_key)
		return 0;
	snprintf(path, sizeof(path), "%.4000s.sm2.sig", q->path);
	r = file_read(path, SSHSIG_FILE_MAX, &sig, e);
	if (r == 0)
		r = sm2_judge(q->s->cert.sm2_public_key, path, &sig, &q->c.text, e);
	bytes_free(&sig);
	return r;
}

static int verify(struct request *q, struct vd_error *e)
{
	struct json_object *wipe, *j;
	int r;

	if (!is_trust_given(q)) {
		fail(e, VD_EARG, "cert verify: whose signature is good? --allowed-signers FILE or --public-key FILE says it");
		return fail_hint(e, VD_EARG, "vdisk cert show tells which key signed, and that it did");
	}
	r = read_signed(q, e);
	if (r == 0)
		r = judge_validator(q, e);
	if (r == 0)
		r = judge_sm2(q, e);
	if (r < 0)
		return r;
	wipe = schema_at(q->c.doc, "wipe");
	if (!ui_is_json()) {
		ui_line("%s: %s, signed by %s with %s", q->path, q->c.is_incident ? "an incident record, no certificate" : "a certificate",
			q->name[0] ? q->name : "the key", q->c.fingerprint);
		ui_line("grade: %s", schema_text(wipe, "statement"));
		if (q->s->cert.validator)
			ui_line("validated by %s", q->s->cert.validator);
		if (q->s->cert.sm2_public_key)
			ui_line("the signature with SM2 holds, too");
		return 0;
	}
	j = summary(q, "verify");
	json_put_text(j, "kind", schema_text(q->c.doc, "type"));
	json_put_text(j, "grade", schema_text(wipe, "grade"));
	put_signature(j, q);
	json_print(j);
	return 0;
}

/* ---- the others ------------------------------------------------------------------------------------------- */

static struct sheet sheet_of(const struct request *q)
{
	return (struct sheet){ .c = &q->c, .lang = (enum sheet_lang)q->s->cert.lang, .path = q->path, .sig_path = q->sig_path,
			       .signer = is_trust_given(q) ? q->name : NULL };
}

static int show(struct request *q, struct vd_error *e)
{
	struct sheet sheet;
	struct json_object *j;
	int r = read_signed(q, e);

	if (r < 0)
		return r;
	if (ui_is_json()) {
		j = summary(q, "show");
		put_signature(j, q);
		json_put(j, "document", json_object_get(q->c.doc));
		json_print(j);
		return 0;
	}
	sheet = sheet_of(q);
	sheet_print(&sheet);
	return 0;
}

static int judge_page(const struct request *q, const char *out, struct vd_error *e)
{
	int r = out && !q->s->force ? file_judge_new(out, e) : 0;

	return r == VD_EEXIST ? fail_hint(e, r, "choose another name, or replace the file with --force") : r;
}

static int write_page(const struct request *q, const char *out, bool is_pdf, struct vd_error *e)
{
	struct sheet sheet = sheet_of(q);
	struct bytes drawn = { 0 };
	int r = 0;

	if (is_pdf)
		r = sheet_to_pdf(&sheet, &drawn, e);
	else
		sheet_to_html(&sheet, &drawn);
	if (r == 0)
		r = file_write(out, &drawn, 0644, q->s->force, e);
	bytes_free(&drawn);
	if (r == 0 && !ui_is_json())
		ui_summary("%s: the page of %s", out, q->path);
	return r;
}

static int render(struct request *q, struct vd_error *e)
{
	const char *html = q->s->cert.html, *pdf = q->s->cert.pdf;
	struct json_object *j;
	int r = html || pdf ? read_signed(q, e) : fail(e, VD_EARG, "cert render: --html OUT, or --pdf OUT, says where the page goes");

	if (r == 0)
		r = judge_page(q, html, e);
	if (r == 0)
		r = judge_page(q, pdf, e);
	if (r == 0 && html)
		r = write_page(q, html, false, e);
	if (r == 0 && pdf)
		r = write_page(q, pdf, true, e);
	if (r < 0 || !ui_is_json())
		return r;
	j = summary(q, "render");
	if (html)
		json_put_text(j, "html", html);
	if (pdf)
		json_put_text(j, "pdf", pdf);
	json_print(j);
	return 0;
}

/* What of the two was asked for; print "": it is SM2, whose keys have no fingerprint. */
static int make_signature(struct request *q, char print[SSHKEY_PRINT_SIZE], struct vd_error *e)
{
	struct bytes sig = { 0 };
	struct signer s;
	int r;

	print[0] = '\0';
	if (q->s->cert.sm2_key) {
		r = file_judge_new(q->sig_path, e);
		if (r == 0)
			r = sm2_sign(q->s->cert.sm2_key, &q->c.text, &sig, e);
		if (r == 0)
			r = file_write(q->sig_path, &sig, 0644, false, e);
		bytes_free(&sig);
		return r;
	}
	r = signer_open(q->s->cert.sign_key, &s, e);
	if (r < 0)
		return r;
	sshkey_print(s.key.public_key, print);
	r = certificate_sign(&q->c, &s, q->sig_path, e);
	signer_close(&s);
	return r;
}

static int sign(struct request *q, struct vd_error *e)
{
	const struct cert_settings *s = &q->s->cert;
	char print[SSHKEY_PRINT_SIZE];
	struct json_object *j;
	int r;

	if (!s->sign_key == !s->sm2_key)
		return fail(e, VD_EARG, "cert sign: --sign-key KEY, or --sm2-key PEM, says with which key");
	r = name_signature(q, s->sm2_key ? ".sm2.sig" : ".validator.sig", e);
	if (r == 0)
		r = certificate_open(q->path, NULL, &q->c, e);
	if (r == 0)
		r = make_signature(q, print, e);
	if (r < 0)
		return r;
	if (!ui_is_json()) {
		ui_summary("%s: signed with %s", q->sig_path, print[0] ? print : "SM2");
		return 0;
	}
	j = summary(q, "sign");
	json_put_text(j, "signature", q->sig_path);
	json_put_text(j, "fingerprint", print);
	json_print(j);
	return 0;
}

/* ---- the verb --------------------------------------------------------------------------------------------- */

static const struct act {
	const char *word;
	int (*run)(struct request *q, struct vd_error *e);
} acts[] = {
	{ "verify", verify }, { "show", show }, { "render", render }, { "keygen", keygen }, { "sign", sign },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static const char *act_word(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N_ACTS ? acts[i].word : NULL;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct request q = { .s = s, .path = s->operands[1] };
	const char *near;
	int r;

	for (size_t i = 0; i < N_ACTS; i++) {
		if (strcmp(acts[i].word, s->operands[0]))
			continue;
		r = acts[i].run(&q, e);
		certificate_close(&q.c);
		return r;
	}
	near = opts_nearest(s->operands[0], act_word, NULL);
	fail(e, VD_EARG, "cert: '%s' is not verify, show, render, keygen or sign", s->operands[0]);
	return near ? fail_hint(e, VD_EARG, "did you mean %s?", near) :
		      fail_hint(e, VD_EARG, "what to do comes first: vdisk cert show FILE");
}

const struct verb verb_cert = {
	.name = "cert",
	.operands = "verify|show|render|keygen|sign FILE",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "verify and show certificates of wipes, and make keys for them",
	.about = "A certificate is a JSON file that vdisk wipe --certificate=FILE writes, and FILE.sig its signature, which ssh-keygen -Y "
		 "verify checks as well. Of a wipe that did not complete or was not verified there is an incident record instead, signed "
		 "for another purpose: it cannot pass for a certificate.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
