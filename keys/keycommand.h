/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys that a program gives for a token: the protocol in keycommand.md, between the files of this room. */
#ifndef VD_KEYS_KEYCOMMAND_H
#define VD_KEYS_KEYCOMMAND_H

#include "keys/json.h"
#include "libvdisk/base/secret.h"

#define VD_KEY_REPLY_MAX 16384          /* bytes of a reply */
#define VD_KEY_TOKEN_DEPTH 8            /* of objects and arrays in a token */

/* ---- key_reply.c: what a program says ---- */

enum vd_key_act { VD_KEY_SEAL, VD_KEY_OPEN };
enum vd_key_verdict { VD_KEY_GIVEN, VD_KEY_NO_MATCH, VD_KEY_DENIED, VD_KEY_UNAVAILABLE, VD_KEY_FAILED };

struct vd_key_reply {
	enum vd_key_verdict verdict;
	char message[256];                      /* of an error */
	struct vd_secret secret;                /* VD_KEY_OPEN */
	char token[VD_KEY_TOKEN_MAX + 1];       /* VD_KEY_SEAL: without blanks */
};
/* Judges the text; the secret goes from there into locked memory alone. VD_EFAILED: it is no reply of the protocol. */
int vd_key_reply_read(struct vd_bytes text, enum vd_key_act act, struct vd_key_reply *reply, struct vd_error *e) VD_MUST_CHECK;
void vd_key_reply_free(struct vd_key_reply *reply);

/* The token without blanks; false when it is none: no object, or not as the protocol limits it. */
bool vd_key_token_take(struct vd_json value, char out[VD_KEY_TOKEN_MAX + 1]);

/* ---- exchange.c: running it ---- */

/*
 * Runs the command with the request as its input, for at most timeout_s seconds. *reply: its output, in locked memory.
 * *status: how it ended by itself. VD_EFAILED tells what went wrong with the program; then nothing of it runs any more.
 */
int vd_exchange(const char *command, unsigned timeout_s, struct vd_bytes request, struct vd_secret *reply, int *status,
		struct vd_error *e) VD_MUST_CHECK;

/* ---- key_command.c: the key ---- */

struct vd_key_command;
void vd_key_command_free(struct vd_key_command *c);

/* What the program is told of the image. */
struct vd_key_image {
	const char *name, *uuid;
};
/*
 * Has the program open the token: 0 with a verdict and, where it is VD_KEY_GIVEN, *out, an ordinary key. Negative: the
 * program broke the protocol and is not to be asked again. A token that it has opened before is not shown to it twice.
 */
int vd_key_command_open(struct vd_key_command *c, const char *token, const struct vd_key_image *image, struct vd_key **out,
			struct vd_key_reply *reply, struct vd_error *e) VD_MUST_CHECK;
/* A new random secret, and the token of it. */
int vd_key_command_seal(struct vd_key_command *c, const struct vd_key_image *image, struct vd_key **out,
			char token[VD_KEY_TOKEN_MAX + 1], struct vd_error *e) VD_MUST_CHECK;
/* The token in the file that the user names; "" when there is none. */
int vd_key_command_file_token(const struct vd_key_command *c, char token[VD_KEY_TOKEN_MAX + 1], struct vd_error *e) VD_MUST_CHECK;
const char *vd_key_command_file(const struct vd_key_command *c);
/* Words an error of the program: VD_EKEY, or VD_EFAILED. */
int vd_key_command_refuses(const struct vd_key_reply *reply, struct vd_error *e);

/* The command of a key that is one, else NULL. */
struct vd_key_command *vd_key_command_of(const struct vd_key *key);
/* A key that is a command; takes it over. */
int vd_key_of_command(struct vd_key_command *c, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;

#endif
