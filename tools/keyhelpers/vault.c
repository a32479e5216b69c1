/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-key-vault: has secrets encrypted and decrypted by the transit engine of HashiCorp Vault, or of a server that
 * speaks as it does (OpenBao). The key never leaves the server.
 *
 *   token = { "helper": "vault", "key": the key's name, "ciphertext": "vault:v1:..." }
 *
 * Which server, engine and key are asked comes from the options alone; a token that is for another key is not sent.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "keyhelpers/base64.h"
#include "keyhelpers/options.h"
#include "keyhelpers/protocol.h"

#define DEFAULT_TIMEOUT 10
#define REPLY_MAX 65536         /* replies to what we ask have about 1 KiB */
#define CREDENTIAL_MAX 8192     /* Vault's tokens have about 100 bytes, those of its batch kind some hundred */
#define CIPHERTEXT_MAX 3900     /* what still fits into a token */

struct settings {
	const char *address, *mount, *key, *ca, *token_file, *name_space;
	unsigned timeout;
};

/* All that holds secrets, in one place that is locked and wiped. */
static struct {
	char credential[CREDENTIAL_MAX + 32];   /* the header line with it */
	char body[BASE64_LEN(PROTOCOL_SECRET_MAX) + 64];
	char reply[REPLY_MAX + 1];
	size_t reply_len;
	uint8_t secret[PROTOCOL_SECRET_MAX];
	size_t secret_len;
	struct protocol_request request;
} memory;

/* Text that means the same in a URL, in JSON and in a header line. */
static bool is_plain(const char *text, const char *also, size_t max)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		if (!strchr(plain, text[i]) && !strchr(also, text[i]))
			return false;
	return n > 0 && n <= max;
}

static bool is_ciphertext(const char *text)
{
	return is_plain(text, "+/=:", CIPHERTEXT_MAX) && !strncmp(text, "vault:v", 7);
}

/* ---- the connection ------------------------------------------------------------------------------------- */

static void set(CURL *curl, CURLoption option, const char *value)
{
	if (curl_easy_setopt(curl, option, value) != CURLE_OK)
		protocol_fail(PROTOCOL_FAILED, "libcurl does not take the settings");
}

static void set_number(CURL *curl, CURLoption option, long value)
{
	if (curl_easy_setopt(curl, option, value) != CURLE_OK)
		protocol_fail(PROTOCOL_FAILED, "libcurl does not take the settings");
}

/* http is for this machine alone: the credential and the secret go over the wire. */
static bool is_here(const char *host)
{
	struct in_addr address;

	if (inet_pton(AF_INET, host, &address) == 1)
		return ntohl(address.s_addr) >> 24 == 127;
	return !strcmp(host, "localhost") || !strcmp(host, "[::1]");
}

/* The URL of the engine's act; of the address only scheme, host and port are taken. *is_https tells the scheme. */
static CURLU *url_of(const struct settings *s, const char *act, bool *is_https)
{
	CURLU *url = curl_url();
	char *scheme = NULL, *host = NULL, *path = NULL, wanted[512];

	if (!url || curl_url_set(url, CURLUPART_URL, s->address, 0) || curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0) || curl_url_get(url, CURLUPART_PATH, &path, 0) || strcmp(path, "/") != 0)
		protocol_fail(PROTOCOL_FAILED, "--address: https://HOST[:PORT] is wanted");
	*is_https = !strcmp(scheme, "https");
	if (!*is_https && (strcmp(scheme, "http") != 0 || !is_here(host)))
		protocol_fail(PROTOCOL_FAILED, "--address: only https leaves this machine");
	snprintf(wanted, sizeof(wanted), "/v1/%s/%s/%s", s->mount, act, s->key);
	if (curl_url_set(url, CURLUPART_PATH, wanted, 0) || curl_url_set(url, CURLUPART_QUERY, NULL, 0) ||
	    curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0) || curl_url_set(url, CURLUPART_USER, NULL, 0) ||
	    curl_url_set(url, CURLUPART_PASSWORD, NULL, 0))
		protocol_fail(PROTOCOL_FAILED, "out of memory");
	curl_free(scheme);
	curl_free(host);
	curl_free(path);
	return url;
}

static size_t take(char *p, size_t size, size_t n, void *unused)
{
	size_t len = size * n;

	(void)unused;
	if (len > REPLY_MAX - memory.reply_len)
		return 0;
	memcpy(memory.reply + memory.reply_len, p, len);
	memory.reply_len += len;
	return len;
}

/* The first line of the file, as a header line. */
static void load_credential(const char *path)
{
	static const char name[] = "X-Vault-Token: ";
	char *text = memory.credential + strlen(name);
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		protocol_fail(PROTOCOL_FAILED, "%s: %s", path, strerror(errno));
	setvbuf(f, NULL, _IONBF, 0);
	n = fread(text, 1, CREDENTIAL_MAX, f);
	fclose(f);
	text[n] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	if (!is_plain(text, ".", CREDENTIAL_MAX - 1))
		protocol_fail(PROTOCOL_FAILED, "%s: it holds no token of Vault", path);
	memcpy(memory.credential, name, strlen(name));
}

static struct curl_slist *headers(const struct settings *s)
{
	static char name_space[300];
	struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");

	list = list ? curl_slist_append(list, "X-Vault-Request: true") : NULL;
	list = list ? curl_slist_append(list, memory.credential) : NULL;
	if (list && s->name_space) {
		snprintf(name_space, sizeof(name_space), "X-Vault-Namespace: %s", s->name_space);
		list = curl_slist_append(list, name_space);
	}
	if (!list)
		protocol_fail(PROTOCOL_FAILED, "out of memory");
	return list;
}

_Noreturn static void fail_connection(const struct settings *s, CURLcode code, const char *detail)
{
	bool is_away = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_COULDNT_CONNECT ||
		       code == CURLE_OPERATION_TIMEDOUT;

	if (code == CURLE_WRITE_ERROR)
		protocol_fail(PROTOCOL_FAILED, "%s: the reply has over %d bytes", s->address, REPLY_MAX);
	protocol_fail(is_away ? PROTOCOL_UNAVAILABLE : PROTOCOL_FAILED, "%s: %s", s->address,
		      detail[0] ? detail : curl_easy_strerror(code));
}

/* Sends memory.body to the engine; the reply is in memory.reply. Returns the HTTP status. */
static long perform(const struct settings *s, const char *act)
{
	char detail[CURL_ERROR_SIZE] = "";
	bool is_https;
	CURLU *url = url_of(s, act, &is_https);
	struct curl_slist *list;
	CURL *curl = curl_easy_init();
	CURLcode code;
	long status = 0;

	if (!curl)
		protocol_fail(PROTOCOL_FAILED, "libcurl does not start");
	load_credential(s->token_file);
	list = headers(s);
	set(curl, CURLOPT_PROTOCOLS_STR, is_https ? "https" : "http");
	if (!is_https)
		set(curl, CURLOPT_NOPROXY, "*");
	if (s->ca)
		set(curl, CURLOPT_CAINFO, s->ca);
	set_number(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	set_number(curl, CURLOPT_TIMEOUT, (long)s->timeout);
	set_number(curl, CURLOPT_NOSIGNAL, 1);
	set(curl, CURLOPT_POSTFIELDS, memory.body);
	curl_easy_setopt(curl, CURLOPT_CURLU, url);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		fail_connection(s, code, detail);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(list);
	curl_easy_cleanup(curl);
	curl_url_cleanup(url);
	return status;
}

/* ---- replies -------------------------------------------------------------------------------------------- */

/* The server's words: { "errors": ["..."] } */
static const char *words_of(struct json_object *reply)
{
	struct json_object *errors, *first;

	if (!json_object_object_get_ex(reply, "errors", &errors) || !json_object_is_type(errors, json_type_array))
		return "it does not say why";
	first = json_object_array_get_idx(errors, 0);
	return json_object_is_type(first, json_type_string) ? json_object_get_string(first) : "it does not say why";
}

/* A ciphertext that the server does not take (400) is as good as no permission: it is not going to open it. */
_Noreturn static void fail_status(const struct settings *s, long status, const char *words, bool is_open)
{
	enum protocol_kind kind = PROTOCOL_FAILED;

	if (status == 401 || status == 403 || (status == 400 && is_open))
		kind = PROTOCOL_DENIED;
	else if (status == 429 || status == 472 || status == 473 || (status >= 502 && status <= 504))
		kind = PROTOCOL_UNAVAILABLE;
	protocol_fail(kind, "%s, key %s: the server refuses: %s (HTTP status %ld)", s->address, s->key, words, status);
}

/* The reply; what is secret of it is in memory.secret. Ends the program if it is none, or a refusal. */
static struct json_object *ask(const struct settings *s, const char *act)
{
	bool is_open = !strcmp(act, "decrypt");
	long status = perform(s, act);
	struct json_object *reply;

	memory.secret_len = 0;
	if (is_open)
		protocol_cut(memory.reply, "plaintext", 2, memory.secret, sizeof(memory.secret), &memory.secret_len);
	reply = protocol_parse(memory.reply);
	explicit_bzero(memory.reply, sizeof(memory.reply));
	if (status != 200)
		fail_status(s, status, words_of(reply), is_open);
	if (!reply)
		protocol_fail(PROTOCOL_FAILED, "%s: the reply is not one of Vault", s->address);
	return reply;
}

/* ---- the two acts --------------------------------------------------------------------------------------- */

static void seal(const struct settings *s, const struct protocol_request *request)
{
	struct json_object *token = json_object_new_object(), *reply, *data;
	static const char before[] = "{\"plaintext\":\"";
	const char *ciphertext;

	strcpy(memory.body, before);
	base64_encode(request->secret, request->secret_len, memory.body + strlen(before));
	strcat(memory.body, "\"}");
	reply = ask(s, "encrypt");
	ciphertext = json_object_object_get_ex(reply, "data", &data) ? protocol_text(data, "ciphertext") : NULL;
	if (!ciphertext || !is_ciphertext(ciphertext))
		protocol_fail(PROTOCOL_FAILED, "%s: the reply has no ciphertext of Vault's", s->address);
	protocol_put_text(token, "helper", "vault");
	protocol_put_text(token, "key", s->key);
	protocol_put_text(token, "ciphertext", ciphertext);
	protocol_reply_token(token);
	json_object_put(reply);
}

static void open_token(const struct settings *s, const struct protocol_request *request)
{
	const char *key = protocol_text(request->token, "key"), *ciphertext = protocol_text(request->token, "ciphertext");

	if (!key || !ciphertext || !is_ciphertext(ciphertext))
		protocol_fail(PROTOCOL_FAILED, "the token is damaged");
	if (strcmp(key, s->key) != 0)
		protocol_fail(PROTOCOL_NO_MATCH, "the token is for another key than %s", s->key);
	snprintf(memory.body, sizeof(memory.body), "{\"ciphertext\":\"%s\"}", ciphertext);
	json_object_put(ask(s, "decrypt"));
	if (!memory.secret_len)
		protocol_fail(PROTOCOL_FAILED, "%s: the reply has no plaintext in base64", s->address);
	protocol_reply_secret(memory.secret, memory.secret_len);
}

/* ---- options -------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: vdisk-key-vault --address URL --token-file FILE --key NAME [--mount PATH]\n"
	"                       [--ca FILE] [--namespace NAME] [--timeout SECONDS]\n"
	"Seals and opens secrets for vdisk's --new-key-command and --key-command.\n";

static void judge(const struct settings *s)
{
	if (!s->address || !s->token_file || !s->key)
		protocol_fail(PROTOCOL_FAILED, "--address, --token-file and --key are needed");
	if (!is_plain(s->key, "", 128))
		protocol_fail(PROTOCOL_FAILED, "--key: letters, digits, - and _ are wanted");
	if (!is_plain(s->mount, "/", 200) || (s->name_space && !is_plain(s->name_space, "/", 200)))
		protocol_fail(PROTOCOL_FAILED, "--mount, --namespace: letters, digits, -, _ and / are wanted");
}

static void parse(int argc, char **argv, struct settings *s)
{
	const char *timeout = NULL;
	const struct options_entry table[] = {
		{ "address", &s->address },
		{ "token-file", &s->token_file },
		{ "key", &s->key },
		{ "mount", &s->mount },
		{ "ca", &s->ca },
		{ "namespace", &s->name_space },
		{ "timeout", &timeout },
		{ 0 },
	};
	int behind = options_take(argc, argv, table, usage);

	if (behind < argc)
		protocol_fail(PROTOCOL_FAILED, "'%s' is no option", argv[behind]);
	s->timeout = options_timeout(timeout, DEFAULT_TIMEOUT);
	judge(s);
}

int main(int argc, char **argv)
{
	struct settings s = { .mount = "transit" };

	protocol_guard(&memory, sizeof(memory));
	parse(argc, argv, &s);
	protocol_read(&memory.request, "vault");
	if (memory.request.is_seal)
		seal(&s, &memory.request);
	else
		open_token(&s, &memory.request);
	explicit_bzero(&memory, sizeof(memory));
	return 0;
}
