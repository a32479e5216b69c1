/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Speaks the key-command protocol for the programs beside it; what a token means, each of them knows itself. */
#include "keyhelpers/protocol.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "keyhelpers/base64.h"

#define REQUEST_MAX 32768       /* a secret in base64 has 11 KiB, a token 4, the name of a file at most 255 letters */
#define MESSAGE_MAX 1024

/* What passes through here in clear: locked by protocol_guard(), wiped as soon as it is used. */
static char buffer[REQUEST_MAX + 1];

void protocol_guard(void *memory, size_t len)
{
	static const struct rlimit none;

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	/* Under the usual limit of 8 MiB there is room for the secrets alone, not for what libraries copy. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0) {
		mlock(memory, len);
		mlock(buffer, sizeof(buffer));
	}
	/* A server, or vdisk, that hangs up is an error that is told. */
	signal(SIGPIPE, SIG_IGN);
}

/* ---- errors --------------------------------------------------------------------------------------------- */

static struct json_object *error_of(enum protocol_kind kind, char *message)
{
	static const char *const kinds[] = { "no-match", "denied", "unavailable", "failed" };
	struct json_object *reply = json_object_new_object(), *error = json_object_new_object();

	/* Words of servers are in it: one line, and nothing that a terminal obeys. */
	for (char *p = message; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = *p == '\n' || *p == '\t' ? ' ' : '?';
	json_object_object_add(error, "kind", json_object_new_string(kinds[kind]));
	json_object_object_add(error, "message", json_object_new_string(message));
	json_object_object_add(reply, "error", error);
	return reply;
}

static const char *line_of(struct json_object *reply)
{
	return json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

void protocol_fail(enum protocol_kind kind, const char *fmt, ...)
{
	char message[MESSAGE_MAX];
	struct json_object *reply;
	va_list ap;

	alarm(0);
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	reply = error_of(kind, message);
	puts(line_of(reply));
	json_object_put(reply);
	exit(EXIT_FAILURE);
}

/* Made beforehand: a signal's handler may only write. */
static char late[MESSAGE_MAX + 128];
static size_t late_len;

static void on_alarm(int sig)
{
	(void)sig;
	_exit(write(STDOUT_FILENO, late, late_len) == (ssize_t)late_len ? EXIT_FAILURE : EXIT_FAILURE + 1);
}

void protocol_deadline(unsigned seconds, const char *whom)
{
	char message[MESSAGE_MAX];
	struct json_object *reply;

	snprintf(message, sizeof(message), "%s does not answer within %u seconds", whom, seconds);
	reply = error_of(PROTOCOL_UNAVAILABLE, message);
	late_len = (size_t)snprintf(late, sizeof(late), "%s\n", line_of(reply));
	json_object_put(reply);
	signal(SIGALRM, on_alarm);
	alarm(seconds);
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

struct json_object *protocol_parse(const char *text)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *value;

	if (!tokener)
		protocol_fail(PROTOCOL_FAILED, "out of memory");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	value = json_tokener_parse_ex(tokener, text, (int)strlen(text) + 1);
	if (json_tokener_get_error(tokener) != json_tokener_success) {
		json_object_put(value);
		value = NULL;
	}
	json_tokener_free(tokener);
	return value;
}

const char *protocol_text(struct json_object *object, const char *name)
{
	struct json_object *value;

	if (!json_object_is_type(object, json_type_object) || !json_object_object_get_ex(object, name, &value) ||
	    !json_object_is_type(value, json_type_string) ||
	    strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
		return NULL;
	return json_object_get_string(value);
}

bool protocol_bytes(struct json_object *object, const char *name, uint8_t *out, size_t size, size_t *len)
{
	const char *text = protocol_text(object, name);

	return text && base64_decode(text, strlen(text), out, size, len);
}

void protocol_put_text(struct json_object *object, const char *name, const char *text)
{
	json_object_object_add(object, name, json_object_new_string(text));
}

void protocol_put_bytes(struct json_object *object, const char *name, const uint8_t *bytes, size_t len)
{
	char text[BASE64_LEN(PROTOCOL_TOKEN_MAX) + 1];

	if (len > PROTOCOL_TOKEN_MAX)
		protocol_fail(PROTOCOL_FAILED, "the %s has over %d bytes", name, PROTOCOL_TOKEN_MAX);
	base64_encode(bytes, len, text);
	protocol_put_text(object, name, text);
}

/* Behind the blanks. */
static char *skip_blanks(char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* The quote that ends the string that begins behind p, or the end of the text. */
static char *end_of_string(char *p)
{
	while (*p && *p != '"')
		p += *p == '\\' && p[1] ? 2 : 1;
	return p;
}

bool protocol_cut(char *text, const char *name, unsigned depth, uint8_t *out, size_t size, size_t *len)
{
	unsigned deep = 0;

	for (char *p = text; *p; p++) {
		char *begin = p + 1, *end, *value;
		bool is_sound;

		deep += *p == '{';
		deep -= *p == '}';
		if (*p != '"')
			continue;
		p = end = end_of_string(begin);
		if (!*end)
			return false;
		value = skip_blanks(end + 1);
		if (deep != depth || (size_t)(end - begin) != strlen(name) || memcmp(begin, name, strlen(name)) != 0 || *value != ':')
			continue;
		value = skip_blanks(value + 1);
		if (*value != '"' || !*(end = end_of_string(value + 1)))
			return false;
		is_sound = base64_decode(value + 1, (size_t)(end - value - 1), out, size, len);
		memset(value + 1, '.', (size_t)(end - value - 1));
		return is_sound;
	}
	return false;
}

/* ---- the request ---------------------------------------------------------------------------------------- */

static void read_all(void)
{
	size_t len = 0;
	ssize_t n;

	while (len < REQUEST_MAX && (n = read(STDIN_FILENO, buffer + len, REQUEST_MAX - len)) != 0) {
		if (n < 0 && errno != EINTR)
			protocol_fail(PROTOCOL_FAILED, "reading the request: %s", strerror(errno));
		len += n > 0 ? (size_t)n : 0;
	}
	buffer[len] = '\0';
	if (len == REQUEST_MAX || strlen(buffer) != len)
		protocol_fail(PROTOCOL_FAILED, "the request is no JSON, or over %d bytes", REQUEST_MAX - 1);
}

static void take_token(struct protocol_request *request, struct json_object *json, const char *helper)
{
	const char *of;

	if (!json_object_object_get_ex(json, "token", &request->token) || !json_object_is_type(request->token, json_type_object))
		protocol_fail(PROTOCOL_FAILED, "the request has no token");
	of = protocol_text(request->token, "helper");
	if (!of || strcmp(of, helper) != 0)
		protocol_fail(PROTOCOL_NO_MATCH, "the token is of another program");
}

void protocol_read(struct protocol_request *request, const char *helper)
{
	/* Lives as long as the process, since the caller gets parts of it. */
	static struct json_object *json;
	struct json_object *version, *image;
	bool has_secret;
	const char *act;

	read_all();
	has_secret = protocol_cut(buffer, "secret", 1, request->secret, sizeof(request->secret), &request->secret_len);
	json = protocol_parse(buffer);
	explicit_bzero(buffer, sizeof(buffer));
	act = protocol_text(json, "act");
	if (!act || !json_object_object_get_ex(json, "vdisk-key-command", &version))
		protocol_fail(PROTOCOL_FAILED, "the request is none of vdisk");
	if (!json_object_is_type(version, json_type_int) || json_object_get_int64(version) != 1)
		protocol_fail(PROTOCOL_FAILED, "the request is of another version of the protocol than 1");
	request->is_seal = !strcmp(act, "seal");
	if (!request->is_seal && strcmp(act, "open") != 0)
		protocol_fail(PROTOCOL_FAILED, "the request asks neither to seal nor to open");
	if (!request->is_seal)
		take_token(request, json, helper);
	else if (!has_secret || !request->secret_len)
		protocol_fail(PROTOCOL_FAILED, "the request has no secret of 1 to %d bytes", PROTOCOL_SECRET_MAX);
	if (json_object_object_get_ex(json, "image", &image)) {
		request->image_name = protocol_text(image, "name");
		request->image_uuid = protocol_text(image, "uuid");
	}
}

/* ---- the reply ------------------------------------------------------------------------------------------ */

static void finish(void)
{
	if (fflush(stdout) || ferror(stdout))
		exit(EXIT_FAILURE);
}

void protocol_reply_token(struct json_object *token)
{
	struct json_object *reply = json_object_new_object();

	if (strlen(line_of(token)) > PROTOCOL_TOKEN_MAX)
		protocol_fail(PROTOCOL_FAILED, "the secret is too long: its token would have more than %d bytes", PROTOCOL_TOKEN_MAX);
	alarm(0);
	json_object_object_add(reply, "token", token);
	puts(line_of(reply));
	json_object_put(reply);
	finish();
}

/* Not through stdio, which keeps what it wrote. */
void protocol_reply_secret(const uint8_t *secret, size_t len)
{
	static const char before[] = "{\"secret\":\"", behind[] = "\"}\n";
	char *p = buffer + strlen(before);

	_Static_assert(sizeof(buffer) > BASE64_LEN(PROTOCOL_SECRET_MAX) + sizeof(before) + sizeof(behind), "a secret fits");
	alarm(0);
	memcpy(buffer, before, strlen(before));
	base64_encode(secret, len, p);
	memcpy(p + BASE64_LEN(len), behind, sizeof(behind));
	for (p = buffer; *p;) {
		ssize_t n = write(STDOUT_FILENO, p, strlen(p));

		if (n < 0 && errno != EINTR)
			exit(EXIT_FAILURE);
		p += n > 0 ? n : 0;
	}
	explicit_bzero(buffer, sizeof(buffer));
}
