/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What key commands reply, and tokens: text of programs and images. The first byte says what was asked, the rest is the
 * reply. What is accepted keeps the promises of keys/keycommand.h.
 *
 * The corpus: replies that are sound, and such that break one rule each.
 */
#include <stdlib.h>
#include <string.h>

#include "keys/keycommand.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* A token that was taken is taken again, as it is. */
static void check_token(const char *token)
{
	char again[VD_KEY_TOKEN_MAX + 1];

	must(token[0] == '{' && strlen(token) <= VD_KEY_TOKEN_MAX);
	must(vd_key_token_take(vd_json_of((struct vd_bytes){ (const uint8_t *)token, strlen(token) }), again));
	must(!strcmp(token, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum vd_key_act act = len && data[0] == 's' ? VD_KEY_SEAL : VD_KEY_OPEN;
	struct vd_key_reply reply;
	size_t n = len ? len - 1 : 0;
	uint8_t *exact = malloc(n ? n : 1);

	must(exact);
	memcpy(exact, data + (len ? 1 : 0), n);
	if (n <= VD_KEY_REPLY_MAX && vd_key_reply_read((struct vd_bytes){ exact, n }, act, &reply, NULL) == 0) {
		must(reply.verdict <= VD_KEY_FAILED && strlen(reply.message) < sizeof(reply.message));
		if (reply.verdict == VD_KEY_GIVEN && act == VD_KEY_SEAL)
			check_token(reply.token);
		else if (reply.verdict == VD_KEY_GIVEN)
			must(reply.secret.len && reply.secret.len <= VD_KEY_MAX);
		vd_key_reply_free(&reply);
	}
	free(exact);
	return 0;
}
