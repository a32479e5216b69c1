/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The book of what was done: lines of canonical JSON, each with the SHA-256 of the line before it, only ever appended. A line says what, who, when and
 * to which object; an act is announced by one line before it is done and closed by another after. What a line's body means is its writer's.
 */
#ifndef TOOLS_LEDGER_BOOK_H
#define TOOLS_LEDGER_BOOK_H

#include <json-c/json.h>

#include "ledger/sshsig.h"

#define BOOK_HASH_SIZE (2 * SHA256_SIZE + 1)
#define BOOK_LINE_MAX (1u << 20)

struct book;
/* The folder is made, 0700, if it is not there. Several processes may have it open, and append at once. */
int book_open(const char *folder, struct book **out, struct vd_error *e);
void book_close(struct book *b);
const char *book_folder(const struct book *b);

/*
 * Appends one line and makes it durable: {"kind":...,"n":...,"prev":...,"time":...,"what":body,"who":...}. `body` is borrowed. With a signer the
 * body's canonical form is signed too (SSHSIG, namespace "vdisk-" and the kind), and the signature goes with it: a receipt. `hash`, of the line, may
 * be NULL. What a writer left half-written when it was killed is cut off and told by a line of its own.
 */
int book_append(struct book *b, const char *kind, struct json_object *body, const struct signer *s, char hash[BOOK_HASH_SIZE],
		 struct vd_error *e);

/* The same, if the last line there is has the hash `last`; VD_EBUSY: somebody has appended another. */
int book_append_after(struct book *b, const char *last, const char *kind, struct json_object *body, const struct signer *s,
		      char hash[BOOK_HASH_SIZE], struct vd_error *e);

struct book_line {
	uint64_t n;                     /* from 1 */
	const char *kind, *time;        /* RFC 3339, in UTC */
	struct json_object *body, *whole;
	const char *signature;          /* armoured, or NULL; book_judge_signature() */
	char hash[BOOK_HASH_SIZE];
};
/*
 * All lines in order, each found to follow from the one before. A result of `each` that is not 0 ends it and is returned. VD_ECORRUPT tells a line
 * that was changed, one that is missing, two that changed places, and an end that was cut off, each by its words and the number of the line.
 */
int book_walk(struct book *b, int (*each)(void *ctx, const struct book_line *line), void *ctx, struct vd_error *e);
/* The same without reading what the lines say, which takes ten times as long; book_line_read() does it for one of them. */
struct book_text {
	uint64_t n;
	const char *kind;               /* kind_len bytes, not terminated, as are the others */
	size_t kind_len;
	const char *text;
	size_t len;
	char hash[BOOK_HASH_SIZE];
};
int book_scan(struct book *b, int (*each)(void *ctx, const struct book_text *line), void *ctx, struct vd_error *e);
int book_line_read(struct book *b, const struct book_text *text, struct book_line *line, struct vd_error *e);
void book_line_free(struct book_line *line);

/* The signature is of the line's body; whose key it is: allowed.h. VD_EAUTH: it is not, or there is none. */
int book_judge_signature(const struct book_line *line, struct sshsig *sig, struct vd_error *e);

#endif
