/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where keys come from: options first, in the order given; without any $VDISK_PASSCOMMAND, then the credential of
 * systemd, then the terminal. No secret is ever taken from argv or the environment, or put into a message.
 */
#ifndef TOOLS_SECRETS_H
#define TOOLS_SECRETS_H

#include "settings.h"

#define KEYS_MAX (TEXTS_MAX + 8)

struct keys {
	struct vd_key *at[KEYS_MAX];
	size_t n;
};

/* Names of the credentials below $CREDENTIALS_DIRECTORY. */
#define CREDENTIAL_KEY "vdisk.key"
#define CREDENTIAL_NEW_KEY "vdisk.new-key"
#define CREDENTIAL_REPO_KEY "vdisk.repo-key"

/* The keys that options name for images that exist; none is no error. */
int secrets_of_options(const struct settings *s, struct keys *out, struct vd_error *e);
/* One that nobody had to name: the command of the environment or the credential. None is no error. */
int secrets_unasked(const char *credential, struct keys *out, struct vd_error *e);
/* Asks for the passphrase of `image` and adds it. */
int secrets_ask(const char *image, struct keys *out, struct vd_error *e);
/*
 * The one key of an image to be made: of options, else unasked, else asked for twice. `credential` is the name of the
 * credential to look for. Free it with vd_key_free().
 */
int secrets_for_new(const struct settings *s, const char *image, const char *credential, struct vd_key **out,
		    struct vd_error *e);
/* The secrets of `sources` alone; none is no error. */
int secrets_of(const struct settings *s, const struct secret_sources *sources, struct keys *out, struct vd_error *e);
/* Tells that a key is being derived, which takes a while. Not so with a key command: it may have a question on that line. */
void secrets_status(struct vd_key *const *keys, size_t n);
void secrets_free(struct keys *keys);

#endif
