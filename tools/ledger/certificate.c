/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes, signs and reads certificates and incident records. Whose key may sign is allowed.c's, and how they look sheet.c's. */
#include "ledger/certificate.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "ledger/canon.h"
#include "ledger/files.h"
#include "ledger/limits.h"
#include "ledger/schema.h"

const char *certificate_namespace(bool is_incident)
{
	return is_incident ? "vdisk-incident" : "vdisk-certificate";
}

int certificate_sig_path(const char *path, char *sig_path, size_t size, struct vd_error *e)
{
	if ((size_t)snprintf(sig_path, size, "%s.sig", path) < size)
		return 0;
	return fail(e, VD_EARG, "%s: the name is too long", path);
}

/* ---- making ----------------------------------------------------------------------------------------------- */

/* Who this process is for; the login stays what it was over sudo. */
static void put_operator(struct json_object *to, const char *person)
{
	struct json_object *j = json_put_object(to, "operator");
	struct passwd *user = getpwuid(getuid());
	struct bytes login = { 0 };
	struct vd_error ignored;
	unsigned long id;

	if (person)
		json_put_text(j, "name", person);
	json_put_u64(j, "uid", getuid());
	if (user)
		json_put_text(j, "user", user->pw_name);
	if (file_read("/proc/self/loginuid", 32, &login, &ignored) == 0) {
		bytes_add(&login, "", 1);
		if (sscanf((const char *)login.at, "%lu", &id) == 1 && id != UINT32_MAX)
			json_put_u64(j, "login-uid", id);
	}
	bytes_free(&login);
}

static struct json_object *compose(struct json_object *record, const char *person)
{
	struct json_object *doc = json_new();
	time_t now = time(NULL);
	char issued[32];
	struct tm tm;

	strftime(issued, sizeof(issued), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	json_put_text(doc, "type", schema_earns_certificate(record) ? "certificate" : "incident");
	json_put_u64(doc, "version", CERTIFICATE_VERSION);
	json_put_text(doc, "act", "wipe");
	json_put_text(doc, "issued", issued);
	put_operator(doc, person);
	limits_put(doc, record);
	json_put(doc, "wipe", json_object_get(record));
	return doc;
}

int certificate_judge_place(const char *path, struct vd_error *e)
{
	char sig_path[4096];
	int r = certificate_sig_path(path, sig_path, sizeof(sig_path), e);

	if (r == 0)
		r = file_judge_new(path, e);
	return r == 0 ? file_judge_new(sig_path, e) : r;
}

static int write_both(const char *path, const struct bytes *text, bool is_incident, const struct signer *s, struct vd_error *e)
{
	struct bytes sig = { 0 };
	char sig_path[4096];
	int r = certificate_sig_path(path, sig_path, sizeof(sig_path), e);

	if (r == 0)
		r = sshsig_make(s, certificate_namespace(is_incident), text, &sig, e);
	if (r == 0)
		r = file_write(sig_path, &sig, 0644, false, e);
	/* Whoever sees the certificate finds its signature. */
	if (r == 0)
		r = file_write(path, text, 0644, false, e);
	bytes_free(&sig);
	return r;
}

int certificate_write(const char *path, struct json_object *record, const char *person, const struct signer *s, bool *is_incident,
		      struct vd_error *e)
{
	struct json_object *doc = compose(record, person);
	struct bytes text = { 0 };
	int r = schema_judge(doc, e);

	*is_incident = !strcmp(schema_text(doc, "type"), "incident");
	if (r == 0)
		r = canon_write(doc, &text, e);
	if (r == 0)
		r = write_both(path, &text, *is_incident, s, e);
	bytes_free(&text);
	json_object_put(doc);
	return r;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static int read_signature(const char *sig_path, struct certificate *c, struct vd_error *e)
{
	const char *ns;
	int r = file_read(sig_path, SSHSIG_FILE_MAX, &c->sig_text, e);

	if (r == VD_ENOENT)
		return fail_hint(e, r, "a certificate holds with its signature only: bring both files");
	if (r == 0)
		r = sshsig_read(sig_path, &c->sig_text, &c->sig, e);
	if (r < 0)
		return r;
	ns = certificate_namespace(!strcmp(c->sig.ns, certificate_namespace(true)));
	r = sshsig_judge(&c->sig, ns, &c->text, e);
	c->is_signed = r == 0;
	sshkey_print(c->sig.public_key, c->fingerprint);
	return r;
}

static int read_document(const char *path, struct certificate *c, struct vd_error *e)
{
	int r = canon_read(path, &c->text, &c->doc, e);

	if (r == 0)
		r = schema_judge(c->doc, e);
	if (r < 0)
		return r;
	c->is_incident = !strcmp(schema_text(c->doc, "type"), "incident");
	if (c->is_signed && strcmp(c->sig.ns, certificate_namespace(c->is_incident)))
		return fail(e, VD_EAUTH, "%s: is signed as something else than it is: '%s'", path, c->sig.ns);
	return 0;
}

int certificate_open(const char *path, const char *sig_path, struct certificate *c, struct vd_error *e)
{
	uint8_t digest[SHA256_SIZE];
	int r;

	*c = (struct certificate){ 0 };
	r = file_read(path, CERTIFICATE_FILE_MAX, &c->text, e);
	if (r == 0 && sig_path)
		r = read_signature(sig_path, c, e);
	if (r == 0)
		r = read_document(path, c, e);
	if (r < 0) {
		certificate_close(c);
		return r;
	}
	crypto_sha256(c->text.at, c->text.n, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		sprintf(c->sha256 + 2 * i, "%02x", digest[i]);
	return 0;
}

void certificate_close(struct certificate *c)
{
	json_object_put(c->doc);
	bytes_free(&c->text);
	bytes_free(&c->sig_text);
	*c = (struct certificate){ 0 };
}

int certificate_sign(const struct certificate *c, const struct signer *s, const char *sig_path, struct vd_error *e)
{
	struct bytes sig = { 0 };
	int r = file_judge_new(sig_path, e);

	if (r == 0)
		r = sshsig_make(s, certificate_namespace(c->is_incident), &c->text, &sig, e);
	if (r == 0)
		r = file_write(sig_path, &sig, 0644, false, e);
	bytes_free(&sig);
	return r;
}
