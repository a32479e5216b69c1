/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The job that convert, encrypt and decrypt have in common: one image in, a new one out, whole or not at all. */
#ifndef TOOLS_TRANSFER_H
#define TOOLS_TRANSFER_H

#include "secrets.h"

struct transfer {
	/* Set by the verb. */
	struct settings *s;             /* operands: input, output */
	const char *label;              /* the verb, for progress and summary */
	const char *format;             /* of the output */
	const char *credential;         /* name of the credential with the output's key */
	bool encrypt;                   /* the output */
	/* Set by transfer_open(). */
	const char *in_name, *out_name; /* for messages */
	bool to_stream;                 /* standard output takes the disk */
	struct vd_image *from;
	struct vd_incoming *incoming;   /* instead of it: standard input has the disk */
	struct keys keys;
	bool from_is_encrypted;         /* any layer of it */
};

/* Judges what can be judged before anybody is asked for a key, then opens the input. */
int transfer_open(struct transfer *t, struct vd_error *e);
/* Makes the output, copies, commits, and says what was done. After a failure there is no output. */
int transfer_run(struct transfer *t, struct vd_error *e);
/* At the end, however far it came. */
void transfer_end(struct transfer *t);

#endif
