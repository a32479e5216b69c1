/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signed paper about a wipe: a certificate, or an incident record where it did not complete or was not verified. What is in it, and
 * why, is in certificate.md.
 */
#ifndef TOOLS_LEDGER_CERTIFICATE_H
#define TOOLS_LEDGER_CERTIFICATE_H

#include <json-c/json.h>

#include "ledger/allowed.h"

#define CERTIFICATE_FILE_MAX (64u << 20)
#define CERTIFICATE_VERSION 1

/* What is at `path` is not there yet, nor its signature: to be asked before the act of which it speaks. */
int certificate_judge_place(const char *path, struct vd_error *e);
/*
 * Writes `path`, which appears last, and `path`.sig. `record` is what wipe_record_to_json() made; it is borrowed. What it says decides
 * whether it is a certificate or an incident record: *is_incident. `person` is who is responsible, or NULL.
 */
int certificate_write(const char *path, struct json_object *record, const char *person, const struct signer *s, bool *is_incident,
		      struct vd_error *e);

struct certificate {
	struct bytes text;
	char sha256[2 * SHA256_SIZE + 1];
	struct json_object *doc;        /* in canonical form, and as certificate.md has it */
	bool is_incident;
	bool is_signed;                 /* else what follows says nothing */
	struct bytes sig_text;
	struct sshsig sig;
	char fingerprint[SSHKEY_PRINT_SIZE];
};
/*
 * Reads it. With a signature file, which certificate_sig_path() may have named, the signature is verified before anything of the
 * document is looked at. VD_EAUTH: it does not hold. VD_ECORRUPT: it is no certificate. NULL: it is read without.
 */
int certificate_open(const char *path, const char *sig_path, struct certificate *c, struct vd_error *e);
void certificate_close(struct certificate *c);
/* FILE.sig. */
int certificate_sig_path(const char *path, char *sig_path, size_t size, struct vd_error *e);
/* The namespace in which it is signed: one paper cannot stand for the other. */
const char *certificate_namespace(bool is_incident);
/* Signs what is open: the file must not be there. */
int certificate_sign(const struct certificate *c, const struct signer *s, const char *sig_path, struct vd_error *e);

#endif
