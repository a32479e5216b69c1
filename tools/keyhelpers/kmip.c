/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-key-kmip: seals secrets with keys of a KMIP server. Does what vSphere does with such a server and so asks it for
 * no more: the server makes an AES-256 key (Create, Activate) and hands it out (Get), and the secret is wrapped here,
 * by AES-256-GCM. Other ways ask for more than many servers do: Encrypt and Decrypt are of a profile of their own,
 * and Register is often not for clients.
 *
 *   token = { "helper": "kmip", "id": the key's identifier, "wrapped": base64(nonce:12 secret tag:16) }
 *
 * The identifier is authenticated with the secret. A token names no server: the one that the options name is asked.
 */
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "keyhelpers/base64.h"
#include "keyhelpers/kmip_tls.h"
#include "keyhelpers/options.h"
#include "keyhelpers/protocol.h"

#define DEFAULT_PORT "5696"     /* KMIP Profiles 1.4, 3.1 */
#define DEFAULT_TIMEOUT 10
#define NONCE 12                /* SP 800-38D, 8.2: the length that GCM is made for */
#define TAG 16
#define WRAPPED_MAX (NONCE + PROTOCOL_SECRET_MAX + TAG)

struct settings {
	char server_text[300];          /* host and port, taken apart */
	struct kmip_server server;
	struct kmip_version version;    /* { 0, 0 }: ask the server */
	const char *key_id;             /* NULL: a new key for each secret */
	unsigned timeout;
};

/* All that holds secrets, in one place that is locked and wiped. */
static struct {
	uint8_t reply[KMIP_REPLY_MAX];
	uint8_t key[KMIP_KEY];
	uint8_t secret[PROTOCOL_SECRET_MAX];
	struct protocol_request request;
} memory;

/* ---- talking to the server ------------------------------------------------------------------------------ */

_Noreturn static void fail_refused(const struct kmip_reply *reply, const char *what)
{
	enum protocol_kind kind = PROTOCOL_FAILED;

	switch (reply->reason) {
	case KMIP_ITEM_NOT_FOUND:
	case KMIP_OBJECT_NOT_FOUND:
	case KMIP_OBJECT_DESTROYED:
		kind = PROTOCOL_NO_MATCH;
		break;
	case KMIP_AUTHENTICATION_NOT_SUCCESSFUL:
	case KMIP_PERMISSION_DENIED:
	case KMIP_NOT_AUTHORISED:
	case KMIP_OBJECT_ARCHIVED:
	case KMIP_SENSITIVE:
	case KMIP_NOT_EXTRACTABLE:
		kind = PROTOCOL_DENIED;
		break;
	default:
		break;
	}
	protocol_fail(kind, "%s: the server refuses: %s (reason 0x%x)", what, reply->message[0] ? reply->message : "it does not say why",
		      reply->reason);
}

/* What is wrong with a reply, if anything is. */
static void judge(const char *wrong, const char *what)
{
	if (wrong)
		protocol_fail(PROTOCOL_FAILED, "%s: the server's reply: %s", what, wrong);
}

static struct kmip_reply ask(struct kmip_link *link, const uint8_t *request, size_t len, enum kmip_operation operation,
			     const char *what)
{
	struct kmip_reply reply;

	if (!len)
		protocol_fail(PROTOCOL_FAILED, "%s: the request is too long", what);
	len = kmip_exchange(link, request, len, memory.reply);
	judge(kmip_read_reply(memory.reply, len, operation, &reply), what);
	return reply;
}

/* A server of 1.0 does not know the question: any refusal but that of us is taken for that. */
static struct kmip_version agree(struct kmip_link *link)
{
	const char *what = "asking for the versions of KMIP";
	uint8_t request[KMIP_REQUEST_MAX];
	struct kmip_reply reply = ask(link, request, kmip_ask_versions(request), KMIP_DISCOVER_VERSIONS, what);
	struct kmip_version version = { 1, 0 };

	if (reply.reason == KMIP_AUTHENTICATION_NOT_SUCCESSFUL || reply.reason == KMIP_PERMISSION_DENIED)
		fail_refused(&reply, what);
	if (reply.is_success)
		version = kmip_reply_version(&reply);
	if (!version.major)
		protocol_fail(PROTOCOL_FAILED, "the server speaks none of KMIP 1.0 to 1.4 and 2.0");
	return version;
}

/* Names are unique on a server, so that this one says more than the image. */
static void make_key(struct kmip_link *link, struct kmip_version version, const char *uuid, char id[KMIP_ID_MAX])
{
	uint8_t request[KMIP_REQUEST_MAX], random[4];
	struct kmip_reply reply;
	char name[128];

	if (gnutls_rnd(GNUTLS_RND_NONCE, random, sizeof(random)) < 0)
		protocol_fail(PROTOCOL_FAILED, "there are no random numbers");
	snprintf(name, sizeof(name), "vdisk-%.64s%s%02x%02x%02x%02x", uuid ? uuid : "", uuid ? "-" : "", random[0], random[1],
		 random[2], random[3]);
	reply = ask(link, request, kmip_ask_create(request, version, name), KMIP_CREATE, "making a key");
	if (!reply.is_success)
		fail_refused(&reply, "making a key");
	judge(kmip_reply_id(&reply, id), "making a key");
	reply = ask(link, request, kmip_ask_activate(request, version, id), KMIP_ACTIVATE, "activating the new key");
	if (!reply.is_success)
		fail_refused(&reply, "activating the new key");
	fprintf(stderr, "vdisk-key-kmip: made key %s, %s\n", id, name);
}

static void fetch_key(struct kmip_link *link, struct kmip_version version, const char *id)
{
	uint8_t request[KMIP_REQUEST_MAX];
	struct kmip_reply reply = ask(link, request, kmip_ask_get(request, version, id), KMIP_GET, "fetching the key");

	if (!reply.is_success)
		fail_refused(&reply, "fetching the key");
	judge(kmip_reply_key(&reply, id, memory.key), "fetching the key");
	explicit_bzero(memory.reply, sizeof(memory.reply));
}

/* Connects, and returns the version to speak. */
static struct kmip_version begin(struct kmip_link *link, const struct settings *s)
{
	char what[300];

	snprintf(what, sizeof(what), "%s:%s", s->server.host, s->server.port);
	protocol_deadline(s->timeout, what);
	kmip_connect(link, &s->server);
	return s->version.major ? s->version : agree(link);
}

/* ---- wrapping ------------------------------------------------------------------------------------------- */

static gnutls_aead_cipher_hd_t cipher(void)
{
	gnutls_datum_t key = { memory.key, sizeof(memory.key) };
	gnutls_aead_cipher_hd_t handle;

	if (gnutls_aead_cipher_init(&handle, GNUTLS_CIPHER_AES_256_GCM, &key) < 0)
		protocol_fail(PROTOCOL_FAILED, "AES-256-GCM is not to be had");
	explicit_bzero(memory.key, sizeof(memory.key));
	return handle;
}

/* Returns the length of what is in out. */
static size_t wrap(const char *id, const uint8_t *secret, size_t len, uint8_t out[WRAPPED_MAX])
{
	gnutls_aead_cipher_hd_t handle = cipher();
	size_t out_len = WRAPPED_MAX - NONCE;

	if (gnutls_rnd(GNUTLS_RND_NONCE, out, NONCE) < 0 ||
	    gnutls_aead_cipher_encrypt(handle, out, NONCE, id, strlen(id), TAG, secret, len, out + NONCE, &out_len) < 0)
		protocol_fail(PROTOCOL_FAILED, "wrapping the secret failed");
	gnutls_aead_cipher_deinit(handle);
	return NONCE + out_len;
}

/* Into memory.secret; returns the length. */
static size_t unwrap(const char *id, const uint8_t *wrapped, size_t len)
{
	gnutls_aead_cipher_hd_t handle = cipher();
	size_t secret_len = sizeof(memory.secret);

	if (gnutls_aead_cipher_decrypt(handle, wrapped, NONCE, id, strlen(id), TAG, wrapped + NONCE, len - NONCE, memory.secret,
				       &secret_len) < 0)
		protocol_fail(PROTOCOL_NO_MATCH, "key %s of the server does not open the token", id);
	gnutls_aead_cipher_deinit(handle);
	return secret_len;
}

/* ---- the two acts --------------------------------------------------------------------------------------- */

static void seal(const struct settings *s, const struct protocol_request *request)
{
	struct json_object *token = json_object_new_object();
	char id[KMIP_ID_MAX], text[BASE64_LEN(WRAPPED_MAX) + 1];
	uint8_t wrapped[WRAPPED_MAX];
	struct kmip_link link;
	struct kmip_version version = begin(&link, s);

	if (s->key_id)
		strcpy(id, s->key_id);
	else
		make_key(&link, version, request->image_uuid, id);
	fetch_key(&link, version, id);
	kmip_disconnect(&link);
	base64_encode(wrapped, wrap(id, request->secret, request->secret_len, wrapped), text);
	protocol_put_text(token, "helper", "kmip");
	protocol_put_text(token, "id", id);
	protocol_put_text(token, "wrapped", text);
	protocol_reply_token(token);
}

static bool is_storable(const char *id)
{
	size_t n = strlen(id);

	for (size_t i = 0; i < n; i++)
		if (id[i] < ' ' || id[i] > '~')
			return false;
	return n > 0 && n < KMIP_ID_MAX;
}

static void open_token(const struct settings *s, const struct protocol_request *request)
{
	const char *id = protocol_text(request->token, "id"), *text = protocol_text(request->token, "wrapped");
	uint8_t wrapped[WRAPPED_MAX];
	struct kmip_link link;
	size_t len;

	if (!id || !is_storable(id) || !text || !base64_decode(text, strlen(text), wrapped, sizeof(wrapped), &len) || len <= NONCE + TAG)
		protocol_fail(PROTOCOL_FAILED, "the token is damaged");
	fetch_key(&link, begin(&link, s), id);
	kmip_disconnect(&link);
	len = unwrap(id, wrapped, len);
	protocol_reply_secret(memory.secret, len);
}

/* ---- options -------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: vdisk-key-kmip --server HOST[:PORT] --ca FILE --cert FILE --cert-key FILE\n"
	"                      [--key-id ID] [--kmip-version N.N] [--timeout SECONDS]\n"
	"Seals and opens secrets for vdisk's --new-key-command and --key-command.\n";

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT */
static void set_server(struct settings *s, const char *option)
{
	char *text = s->server_text, *end, *colon;

	if (snprintf(text, sizeof(s->server_text), "%s", option) >= (int)sizeof(s->server_text))
		protocol_fail(PROTOCOL_FAILED, "--server: no name is that long");
	end = text[0] == '[' ? strchr(text, ']') : NULL;
	colon = strchr(end ? end : text, ':');
	s->server.host = end ? text + 1 : text;
	s->server.port = colon ? colon + 1 : DEFAULT_PORT;
	if (colon)
		*colon = '\0';
	if (end)
		*end = '\0';
	if (!s->server.host[0] || !s->server.port[0])
		protocol_fail(PROTOCOL_FAILED, "--server: HOST[:PORT] is wanted");
}

static struct kmip_version parse_version(const char *text)
{
	for (const struct kmip_version *v = kmip_versions; v->major; v++) {
		char name[16];

		snprintf(name, sizeof(name), "%u.%u", v->major, v->minor);
		if (!strcmp(text, name))
			return *v;
	}
	protocol_fail(PROTOCOL_FAILED, "--kmip-version: 1.0 to 1.4 and 2.0 are spoken, not '%s'", text);
}

static void parse(int argc, char **argv, struct settings *s)
{
	const char *server = NULL, *version = NULL, *timeout = NULL;
	const struct options_entry table[] = {
		{ "server", &server },
		{ "ca", &s->server.ca },
		{ "cert", &s->server.cert },
		{ "cert-key", &s->server.key },
		{ "key-id", &s->key_id },
		{ "kmip-version", &version },
		{ "timeout", &timeout },
		{ 0 },
	};

	if (options_take(argc, argv, table, usage) < argc || !server || !s->server.ca || !s->server.cert || !s->server.key)
		protocol_fail(PROTOCOL_FAILED, "--server, --ca, --cert and --cert-key are needed, and nothing behind the options");
	set_server(s, server);
	if (version)
		s->version = parse_version(version);
	s->timeout = options_timeout(timeout, DEFAULT_TIMEOUT);
	if (s->key_id && !is_storable(s->key_id))
		protocol_fail(PROTOCOL_FAILED, "--key-id: up to %d printable characters", KMIP_ID_MAX - 1);
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };

	protocol_guard(&memory, sizeof(memory));
	parse(argc, argv, &s);
	protocol_read(&memory.request, "kmip");
	if (memory.request.is_seal)
		seal(&s, &memory.request);
	else
		open_token(&s, &memory.request);
	explicit_bzero(&memory, sizeof(memory));
	return 0;
}
