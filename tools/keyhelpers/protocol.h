/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's side of the key-command protocol (keys/keycommand.md): reads the one request, writes the one reply, and
 * judges what all programs have to judge alike. A program is a process that lives for one act, so that whatever fails ends
 * it by protocol_fail().
 */
#ifndef KEYHELPERS_PROTOCOL_H
#define KEYHELPERS_PROTOCOL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_SECRET_MAX 8192
#define PROTOCOL_TOKEN_MAX 4096

enum protocol_kind {
	PROTOCOL_NO_MATCH,      /* not our token: of another program, server, card or machine */
	PROTOCOL_DENIED,        /* our token, and the secret is refused */
	PROTOCOL_UNAVAILABLE,   /* what holds the key cannot be reached now */
	PROTOCOL_FAILED,
};

struct protocol_request {
	bool is_seal;
	uint8_t secret[PROTOCOL_SECRET_MAX];    /* to seal */
	size_t secret_len;
	struct json_object *token;              /* to open: hostile, but for its "helper" */
	const char *image_name, *image_uuid;    /* for people; NULL when the request has none */
};

/*
 * First of all: this process leaves no core and is not traced, and the memory, in which the program has all its secrets,
 * is not swapped out where the limits allow that.
 */
void protocol_guard(void *memory, size_t len);
/* Reads the request from standard input. A token of another program than `helper` is no-match. */
void protocol_read(struct protocol_request *request, const char *helper);

/* The reply, in the end. The token is taken over, and may be too long. */
void protocol_reply_token(struct json_object *token);
void protocol_reply_secret(const uint8_t *secret, size_t len);
/* Replies with an error instead, and ends the program. The message becomes one line. */
_Noreturn void protocol_fail(enum protocol_kind kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From now on the program has so many seconds to end; then it replies that `whom` does not answer. */
void protocol_deadline(unsigned seconds, const char *whom);

/* One JSON value and nothing behind it, or NULL. */
struct json_object *protocol_parse(const char *text);
/* A member that is a string without zero bytes, or NULL. */
const char *protocol_text(struct json_object *object, const char *name);
/* A member that is base64 of at most `size` bytes. False: there is none, or it is none. */
bool protocol_bytes(struct json_object *object, const char *name, uint8_t *out, size_t size, size_t *len);
/* Adds members: a text, and bytes in base64. */
void protocol_put_text(struct json_object *object, const char *name, const char *text);
void protocol_put_bytes(struct json_object *object, const char *name, const uint8_t *bytes, size_t len);
/*
 * Takes the first string that is a member `name`, `depth` objects deep (1: of the outermost), out of JSON text before
 * json-c makes copies of it that nobody wipes: decodes it as base64, and overwrites it in the text. False: there is none,
 * it is no base64, or it is too long.
 */
bool protocol_cut(char *text, const char *name, unsigned depth, uint8_t *out, size_t size, size_t *len);

#endif
