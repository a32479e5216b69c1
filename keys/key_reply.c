/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judges what a key command says (keycommand.md). The text lies in locked memory and so does the secret that is taken out
 * of it: between the two there is no copy. Running the command is exchange.c's.
 */
#include "keys/base64.h"
#include "keys/keycommand.h"

#include <string.h>

static int no_reply(const char *what, struct vd_error *e)
{
	return vd_fail(e, VD_EFAILED, "the key command's reply %s", what);
}

bool vd_key_token_take(struct vd_json value, char out[VD_KEY_TOKEN_MAX + 1])
{
	size_t len = value.len && *value.p == '{' ? vd_json_compact(value, out, VD_KEY_TOKEN_MAX) : 0;

	out[len] = '\0';
	/* libcryptsetup would write other characters, and their escapes, in its own way. */
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)out[i] >= 0x7f || (out[i] == '\\' && out[++i] == 'u'))
			return false;
	return len && vd_json_depth(value) <= VD_KEY_TOKEN_DEPTH;
}

static int take_token(struct vd_json token, struct vd_key_reply *reply, struct vd_error *e)
{
	if (!token.len)
		return no_reply("has no token", e);
	if (vd_key_token_take(token, reply->token))
		return 0;
	return vd_fail(e, VD_EFAILED, "the key command's token is no JSON object of at most %d bytes of plain ASCII, %d deep",
		       VD_KEY_TOKEN_MAX, VD_KEY_TOKEN_DEPTH);
}

static int take_secret(struct vd_json secret, struct vd_key_reply *reply, struct vd_error *e)
{
	size_t len = 0;
	int r;

	if (!vd_json_text(secret).p)
		return no_reply("has no secret", e);
	r = vd_secret_alloc(&reply->secret, VD_BASE64_LEN(VD_KEY_MAX), e);
	if (r < 0)
		return r;
	if (!vd_json_unescape(secret, (char *)reply->secret.p, reply->secret.len, &len) ||
	    !vd_base64_decode(reply->secret.p, &len) || len > VD_KEY_MAX)
		return vd_fail(e, VD_EFAILED, "the key command's secret is no base64 of at most %d bytes", VD_KEY_MAX);
	if (!len)
		return no_reply("has an empty secret", e);
	reply->secret.len = len;
	return 0;
}

static void take_error(struct vd_json error, struct vd_key_reply *reply)
{
	struct vd_json kind = vd_json_get(error, "kind");
	size_t len;

	reply->verdict = vd_json_is(kind, "no-match") ? VD_KEY_NO_MATCH : vd_json_is(kind, "denied") ? VD_KEY_DENIED :
			 vd_json_is(kind, "unavailable") ? VD_KEY_UNAVAILABLE : VD_KEY_FAILED;
	/* One that is too long is cut where it may be inside a character: messages are cleaned of such. */
	vd_json_unescape(vd_json_get(error, "message"), reply->message, sizeof(reply->message) - 1, &len);
	reply->message[len] = '\0';
	for (char *p = reply->message; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
}

int vd_key_reply_read(struct vd_bytes text, enum vd_key_act act, struct vd_key_reply *reply, struct vd_error *e)
{
	struct vd_json root = vd_json_of(text), error;
	int r;

	*reply = (struct vd_key_reply){ 0 };
	if (!root.len || *root.p != '{')
		return no_reply(text.len ? "is no JSON object" : "is empty", e);
	error = vd_json_get(root, "error");
	if (error.len) {
		take_error(error, reply);
		return 0;
	}
	r = act == VD_KEY_SEAL ? take_token(vd_json_get(root, "token"), reply, e) :
				 take_secret(vd_json_get(root, "secret"), reply, e);
	if (r < 0)
		vd_key_reply_free(reply);
	return r;
}

void vd_key_reply_free(struct vd_key_reply *reply)
{
	vd_secret_free(&reply->secret);
}
