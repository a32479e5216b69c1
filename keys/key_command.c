/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys that a program of the user's gives for the token of a keyslot (keycommand.md): the key object, requests, and what
 * becomes of replies. Which tokens there are, luks_tokens.c knows.
 */
#include "keys/base64.h"
#include "keys/key.h"
#include "keys/keycommand.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_S 60
#define TIMEOUT_MAX_S 86400
#define SECRET_BYTES 32         /* of a new secret: 256 bits, twice as many hexadecimal digits */
#define NAME_MAX_BYTES 255      /* of an image's name in a request */
#define REQUEST_MAX (VD_KEY_TOKEN_MAX + 6 * NAME_MAX_BYTES + 512)

struct vd_key_command {
	char *command, *token_file;
	unsigned timeout_s;
	/* What was opened last: a person is asked for a PIN once, and not each time that the key is used. */
	pthread_mutex_t lock;
	char token[VD_KEY_TOKEN_MAX + 1];
	struct vd_secret secret;
};

void vd_key_command_free(struct vd_key_command *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->lock);
	vd_secret_free(&c->secret);
	free(c->command);
	free(c->token_file);
	free(c);
}
VD_DEFINE_CLEANUP(struct vd_key_command, cleanup_command, vd_key_command_free)
VD_DEFINE_CLEANUP(struct vd_key, cleanup_key, vd_key_free)

VD_PUBLIC int vd_key_from_key_command(const char *command, const struct vd_key_command_opts *opts, struct vd_key **out,
				      struct vd_error *e)
{
	__attribute__((cleanup(cleanup_command))) struct vd_key_command *c = NULL;
	int r;

	if (opts && opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_key_command_opts: struct_size is %zu, want %zu", opts->struct_size, sizeof(*opts));
	if (opts && opts->timeout_s > TIMEOUT_MAX_S)
		return vd_fail(e, VD_EARG, "a key command may take at most %d seconds", TIMEOUT_MAX_S);
	r = vd_alloc(1, sizeof(*c), &c, e);
	if (r < 0)
		return r;
	pthread_mutex_init(&c->lock, NULL);
	c->timeout_s = opts && opts->timeout_s ? opts->timeout_s : TIMEOUT_S;
	r = vd_strdup(command, &c->command, e);
	if (r == 0 && opts && opts->token_file)
		r = vd_strdup(opts->token_file, &c->token_file, e);
	return r < 0 ? r : vd_key_of_command(vd_steal(&c), out, e);
}

/* ---- requests ------------------------------------------------------------------------------------------- */

/* The name as JSON has it: what is not ASCII, or cut off, is for the eye alone, and a question mark will do. */
static void show_name(const char *path, char out[6 * NAME_MAX_BYTES + 1])
{
	const char *slash = strrchr(path, '/');
	size_t n = 0;

	for (const char *p = slash ? slash + 1 : path; *p && n < 6 * (NAME_MAX_BYTES - 1); p++) {
		if (*p == '"' || *p == '\\')
			out[n++] = '\\';
		out[n++] = *p < 0x20 || *p >= 0x7f ? '?' : *p;
	}
	out[n] = '\0';
}

/* `what`: the member that the act is about, secret or token, as JSON. */
static int ask(struct vd_key_command *c, enum vd_key_act act, const char *what, const struct vd_key_image *image,
	       struct vd_key_reply *reply, struct vd_error *e)
{
	vd_auto_secret struct vd_secret request = { 0 }, text = { 0 };
	char name[6 * NAME_MAX_BYTES + 1];
	int status = 0, r = vd_secret_alloc(&request, REQUEST_MAX, e), n;

	if (r < 0)
		return r;
	show_name(image->name, name);
	n = snprintf((char *)request.p, request.len,
		     "{\"vdisk-key-command\":1,\"act\":\"%s\",%s,\"image\":{\"name\":\"%s\",\"uuid\":\"%s\"}}\n",
		     act == VD_KEY_SEAL ? "seal" : "open", what, name, image->uuid);
	r = vd_exchange(c->command, c->timeout_s, (struct vd_bytes){ request.p, (size_t)n }, &text, &status, e);
	if (r < 0)
		return r;
	r = vd_key_reply_read((struct vd_bytes){ text.p, text.len }, act, reply, e);
	if (!status || (r == 0 && reply->verdict != VD_KEY_GIVEN))
		return r;
	vd_key_reply_free(reply);
	vd_fail(e, VD_EFAILED, "the key command failed with status %d and told no reason", status);
	if (status == 127)
		return vd_hint(e, VD_EFAILED, "that is how the shell says that there is no such command");
	return VD_EFAILED;
}

int vd_key_command_refuses(const struct vd_key_reply *reply, struct vd_error *e)
{
	static const char *const words[] = {
		[VD_KEY_NO_MATCH] = "knows no token of the image", [VD_KEY_DENIED] = "is refused",
		[VD_KEY_UNAVAILABLE] = "finds the key out of reach", [VD_KEY_FAILED] = "failed",
	};
	bool is_wrong = reply->verdict == VD_KEY_NO_MATCH || reply->verdict == VD_KEY_DENIED;

	return vd_fail(e, is_wrong ? VD_EKEY : VD_EFAILED, "the key command %s%s%s", words[reply->verdict],
		       reply->message[0] ? ": " : "", reply->message);
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static int remember(struct vd_key_command *c, const char *token, const struct vd_secret *secret, struct vd_error *e)
{
	struct vd_secret copy = { 0 };
	int r = vd_secret_copy(&copy, secret->p, secret->len, e);

	if (r < 0)
		return r;
	vd_secret_free(&c->secret);
	c->secret = copy;
	snprintf(c->token, sizeof(c->token), "%s", token);
	return 0;
}

int vd_key_command_open(struct vd_key_command *c, const char *token, const struct vd_key_image *image, struct vd_key **out,
			struct vd_key_reply *reply, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&c->lock);
	char what[VD_KEY_TOKEN_MAX + 16];
	int r = 0;

	*reply = (struct vd_key_reply){ 0 };
	if (!c->secret.len || strcmp(c->token, token)) {
		snprintf(what, sizeof(what), "\"token\":%s", token);
		r = ask(c, VD_KEY_OPEN, what, image, reply, e);
		if (r == 0 && reply->verdict == VD_KEY_GIVEN)
			r = remember(c, token, &reply->secret, e);
		vd_key_reply_free(reply);
	}
	if (r < 0 || reply->verdict != VD_KEY_GIVEN)
		return r;
	return vd_key_from_bytes(c->secret.p, c->secret.len, out, e);
}

/* ---- sealing -------------------------------------------------------------------------------------------- */

/* What cannot be got back is no key: a slot for it would only look like one. */
static int judge_sealed(struct vd_key_command *c, const char *token, const struct vd_key_image *image,
			const struct vd_secret *secret, struct vd_error *e)
{
	__attribute__((cleanup(cleanup_key))) struct vd_key *back = NULL;
	struct vd_key_reply reply;
	struct vd_bytes got;
	int r = vd_key_command_open(c, token, image, &back, &reply, e);

	if (r == 0 && reply.verdict != VD_KEY_GIVEN)
		r = vd_key_command_refuses(&reply, e);
	if (r < 0)
		return vd_error_prefix(e, r, "getting a new secret back: ");
	got = vd_key_bytes(back);
	if (got.len != secret->len || !vd_secret_equal(got.p, secret->p, secret->len))
		return vd_fail(e, VD_EFAILED, "the key command gives another secret back than it was given");
	return 0;
}

/* Hexadecimal digits: text, which qemu takes, too. */
static int make_secret(struct vd_secret *s, struct vd_error *e)
{
	static const char digits[] = "0123456789abcdef";
	int r = vd_secret_alloc(s, (size_t)2 * SECRET_BYTES, e);

	if (r == 0)
		r = vd_random(s->p + SECRET_BYTES, SECRET_BYTES, e);
	for (size_t i = 0; r == 0 && i < SECRET_BYTES; i++) {
		uint8_t byte = s->p[SECRET_BYTES + i];

		s->p[2 * i] = (uint8_t)digits[byte >> 4];
		s->p[2 * i + 1] = (uint8_t)digits[byte & 15];
	}
	return r;
}

int vd_key_command_seal(struct vd_key_command *c, const struct vd_key_image *image, struct vd_key **out,
			char token[VD_KEY_TOKEN_MAX + 1], struct vd_error *e)
{
	static const char head[] = "\"secret\":\"";
	vd_auto_secret struct vd_secret secret = { 0 }, what = { 0 };
	struct vd_key_reply reply;
	size_t n = sizeof(head) - 1;
	int r = make_secret(&secret, e);

	if (r == 0)
		r = vd_secret_alloc(&what, sizeof(head) + VD_BASE64_LEN(2 * SECRET_BYTES) + 2, e);
	if (r < 0)
		return r;
	memcpy(what.p, head, sizeof(head));
	n += vd_base64_encode((struct vd_bytes){ secret.p, secret.len }, (char *)what.p + n);
	while ((n - (sizeof(head) - 1)) % 4)
		what.p[n++] = '=';
	memcpy(what.p + n, "\"", 2);
	r = ask(c, VD_KEY_SEAL, (const char *)what.p, image, &reply, e);
	if (r < 0)
		return r;
	if (reply.verdict != VD_KEY_GIVEN)
		return vd_key_command_refuses(&reply, e);
	memcpy(token, reply.token, sizeof(reply.token));
	r = judge_sealed(c, token, image, &secret, e);
	return r < 0 ? r : vd_key_adopt(&secret, "a key command", out, e);
}

/* ---- a token in a file ---------------------------------------------------------------------------------- */

const char *vd_key_command_file(const struct vd_key_command *c)
{
	return c->token_file;
}

int vd_key_command_file_token(const struct vd_key_command *c, char token[VD_KEY_TOKEN_MAX + 1], struct vd_error *e)
{
	char text[2 * VD_KEY_TOKEN_MAX];
	vd_auto_fd int fd = -1;
	ssize_t n;

	token[0] = '\0';
	if (!c->token_file)
		return 0;
	fd = open(c->token_file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n < 0)
		return vd_fail_errno(e, errno, "reading the token in %s", c->token_file);
	if (vd_key_token_take(vd_json_of((struct vd_bytes){ (const uint8_t *)text, (size_t)n }), token))
		return 0;
	return vd_fail(e, VD_EARG, "%s: it holds no token of a key command", c->token_file);
}
