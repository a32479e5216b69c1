/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-key-clevis: has secrets sealed and opened by the programs of Clevis, with its pins tang and sss. The secret goes
 * to them and comes from them in pipes.
 *
 *   token = { "helper": "clevis", "jwe": what `clevis encrypt` prints }
 *
 * What Clevis has sealed names the servers to ask, and `clevis decrypt` asks whom it names. So each is looked up first in
 * the configuration that the options give, which is the same for both acts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keyhelpers/base64.h"
#include "keyhelpers/options.h"
#include "keyhelpers/protocol.h"

extern char **environ;

#define DEFAULT_TIMEOUT 20      /* seconds; a tang server answers in a fraction of one */
#define JWE_MAX 4000            /* what fits into a token: one tang server takes about 1100 */
#define NESTED_MAX 4            /* pins of sss within sss */
#define MESSAGES_MAX 4096

struct settings {
	const char *pin, *text;         /* as for `clevis encrypt` */
	struct json_object *config;
	char timeout[12];               /* seconds */
};

/* All that holds secrets, in one place that is locked and wiped. */
static struct {
	uint8_t secret[PROTOCOL_SECRET_MAX];
	struct protocol_request request;
} memory;

static struct json_object *get(struct json_object *object, const char *name, enum json_type type)
{
	struct json_object *value = NULL;

	if (!json_object_is_type(object, json_type_object) || !json_object_object_get_ex(object, name, &value) ||
	    !json_object_is_type(value, type))
		return NULL;
	return value;
}

/* ---- the configuration ---------------------------------------------------------------------------------- */

/*
 * Goes through a pin's configuration, a list of them too, and what is nested in it. With a url: does a tang server have it?
 * Without: the first thing that is wrong ends the program.
 */
static bool look(const char *pin, struct json_object *config, const char *url, unsigned depth)
{
	struct json_object *pins = get(config, "pins", json_type_object);
	bool found = false;

	if (json_object_is_type(config, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(config); i++)
			found |= look(pin, json_object_array_get_idx(config, i), url, depth + 1);
		return found;
	}
	if (depth > 2 * NESTED_MAX || (strcmp(pin, "tang") != 0 && strcmp(pin, "sss") != 0))
		protocol_fail(PROTOCOL_FAILED, "the pins tang and sss are known, not '%.20s'", pin);
	if (!strcmp(pin, "sss")) {
		if (!pins)
			protocol_fail(PROTOCOL_FAILED, "the configuration of sss has no pins");
		json_object_object_foreach(pins, name, nested)
			found |= look(name, nested, url, depth + 1);
		return found;
	}
	if (!protocol_text(config, "url"))
		protocol_fail(PROTOCOL_FAILED, "the configuration of tang has no url");
	/* Without one, clevis asks somebody at the terminal to trust what the network says. */
	if (!get(config, "thp", json_type_string) && !get(config, "adv", json_type_string) && !get(config, "adv", json_type_object))
		protocol_fail(PROTOCOL_FAILED, "the configuration of tang has neither thp nor adv: tang-show-keys prints the thp");
	return url && !strcmp(protocol_text(config, "url"), url);
}

/* ---- what is sealed ------------------------------------------------------------------------------------- */

/* The protected header of a JWE (RFC 7516, 7.1): base64url up to the first dot. */
static struct json_object *header_of(const char *jwe)
{
	size_t len = strcspn(jwe, "."), n;
	char text[JWE_MAX + 4];
	uint8_t header[JWE_MAX + 1];

	if (len > JWE_MAX || jwe[len] != '.')
		return NULL;
	for (size_t i = 0; i < len; i++)
		text[i] = jwe[i] == '-' ? '+' : jwe[i] == '_' ? '/' : jwe[i];
	while (len % 4)
		text[len++] = '=';
	if (!base64_decode(text, len, header, sizeof(header) - 1, &n) || memchr(header, 0, n))
		return NULL;
	header[n] = '\0';
	return protocol_parse((char *)header);
}

/* Ends the program unless everything that the JWE, and those nested in it, would ask is configured. */
static void judge_jwe(const struct settings *s, const char *jwe, unsigned depth)
{
	struct json_object *header = header_of(jwe), *clevis = get(header, "clevis", json_type_object);
	const char *pin = clevis ? protocol_text(clevis, "pin") : NULL, *url;
	struct json_object *about = pin ? get(clevis, pin, json_type_object) : NULL, *nested;

	if (!about || depth > NESTED_MAX)
		protocol_fail(PROTOCOL_FAILED, "the token is damaged");
	if (!strcmp(pin, "tang")) {
		url = protocol_text(about, "url");
		if (!url || !look(s->pin, s->config, url, 0))
			protocol_fail(PROTOCOL_NO_MATCH, "the token names a server that is not configured");
	} else if (!strcmp(pin, "sss")) {
		nested = get(about, "jwe", json_type_array);
		for (size_t i = 0; nested && i < json_object_array_length(nested); i++) {
			struct json_object *one = json_object_array_get_idx(nested, i);

			if (!json_object_is_type(one, json_type_string))
				protocol_fail(PROTOCOL_FAILED, "the token is damaged");
			judge_jwe(s, json_object_get_string(one), depth + 1);
		}
	} else {
		protocol_fail(PROTOCOL_NO_MATCH, "the token names a pin that is not configured");
	}
	json_object_put(header);
}

static bool is_jwe(const char *text, size_t len)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

	return len && len <= JWE_MAX && strspn(text, letters) == len;
}

/* ---- clevis --------------------------------------------------------------------------------------------- */

/* The child's ends of the pipes, and where its messages go; it has nothing else of ours, and dies of SIGPIPE again. */
static pid_t spawn(char *const argv[], int in, int out, int messages)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t reset;
	pid_t pid;
	int err;

	/* Neither of the two ever fails here. */
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	sigemptyset(&reset);
	sigaddset(&reset, SIGPIPE);
	err = posix_spawnattr_setsigdefault(&attr, &reset);
	if (!err)
		err = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&actions, messages, STDERR_FILENO);
	if (!err)
		err = posix_spawnp(&pid, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		protocol_fail(PROTOCOL_FAILED, "starting clevis: %s", strerror(err));
	return pid;
}

/* Up to end of file, or one byte more than there is room for. */
static size_t read_all(int fd, uint8_t *out, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size && (n = read(fd, out + len, size - len)) != 0) {
		if (n < 0 && errno != EINTR)
			protocol_fail(PROTOCOL_FAILED, "reading from clevis: %s", strerror(errno));
		len += n > 0 ? (size_t)n : 0;
	}
	return len;
}

/* Its exit status is 1 for everything, so that only its words tell a server that is away from all else. */
_Noreturn static void fail_child(int status, int messages)
{
	char text[MESSAGES_MAX + 1];
	size_t n;

	lseek(messages, 0, SEEK_SET);
	n = read_all(messages, (uint8_t *)text, MESSAGES_MAX);
	text[n] = '\0';
	fputs(text, stderr);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		protocol_fail(PROTOCOL_FAILED, "there is no program clevis here");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 124)
		protocol_fail(PROTOCOL_UNAVAILABLE, "clevis did not come to an end in time");
	if (strstr(text, "ommunicating with server") || strstr(text, "fetch advertisement"))
		protocol_fail(PROTOCOL_UNAVAILABLE, "a tang server does not answer, or has the key no more");
	if (strstr(text, "did not sign"))
		protocol_fail(PROTOCOL_DENIED, "the tang server has other keys than those that the configuration trusts");
	protocol_fail(PROTOCOL_FAILED, "clevis failed");
}

/* Input is shorter than what a pipe holds, so that writing does not wait for the child. */
static size_t run(const char *const argv[], const void *input, size_t len, uint8_t *out, size_t size)
{
	int in[2], from[2], messages = memfd_create("clevis messages", MFD_CLOEXEC), status = 0;
	size_t n;
	pid_t pid;

	if (messages < 0 || pipe2(in, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
		protocol_fail(PROTOCOL_FAILED, "starting clevis: %s", strerror(errno));
	pid = spawn((char *const *)argv, in[0], from[1], messages);
	close(in[0]);
	close(from[1]);
	/* One that does not read says why by its status. */
	if (write(in[1], input, len) != (ssize_t)len && errno != EPIPE)
		protocol_fail(PROTOCOL_FAILED, "writing to clevis: %s", strerror(errno));
	close(in[1]);
	n = read_all(from[0], out, size);
	close(from[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n == size)
		protocol_fail(PROTOCOL_FAILED, "clevis prints more than a token or a secret can have");
	if (status)
		fail_child(status, messages);
	close(messages);
	return n;
}

/* ---- the two acts --------------------------------------------------------------------------------------- */

static void seal(const struct settings *s, const struct protocol_request *request)
{
	const char *const argv[] = { "timeout", "-k", "1", s->timeout, "clevis", "encrypt", s->pin, s->text, NULL };
	struct json_object *token = json_object_new_object();
	char jwe[JWE_MAX + 2];
	size_t n = run(argv, request->secret, request->secret_len, (uint8_t *)jwe, JWE_MAX + 1);

	jwe[n] = '\0';
	if (!is_jwe(jwe, n))
		protocol_fail(PROTOCOL_FAILED, "clevis prints something else than a JWE");
	protocol_put_text(token, "helper", "clevis");
	protocol_put_text(token, "jwe", jwe);
	protocol_reply_token(token);
}

static void open_token(const struct settings *s, const struct protocol_request *request)
{
	const char *const argv[] = { "timeout", "-k", "1", s->timeout, "clevis", "decrypt", NULL };
	const char *jwe = protocol_text(request->token, "jwe");
	size_t n;

	if (!jwe || !is_jwe(jwe, strlen(jwe)))
		protocol_fail(PROTOCOL_FAILED, "the token is damaged");
	judge_jwe(s, jwe, 0);
	n = run(argv, jwe, strlen(jwe), memory.secret, sizeof(memory.secret));
	if (!n)
		protocol_fail(PROTOCOL_FAILED, "clevis prints no secret");
	protocol_reply_secret(memory.secret, n);
}

/* ---- options -------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: vdisk-key-clevis [--timeout SECONDS] tang|sss CONFIG\n"
	"Seals and opens secrets for vdisk's --new-key-command and --key-command.\n"
	"CONFIG is that of clevis-encrypt-tang(1) or clevis-encrypt-sss(1), and the same for both.\n";

static void parse(int argc, char **argv, struct settings *s)
{
	const char *timeout = NULL;
	const struct options_entry table[] = { { "timeout", &timeout }, { 0 } };
	int behind = options_take(argc, argv, table, usage);

	if (argc - behind != 2)
		protocol_fail(PROTOCOL_FAILED, "a pin and its configuration are needed");
	snprintf(s->timeout, sizeof(s->timeout), "%u", options_timeout(timeout, DEFAULT_TIMEOUT));
	s->pin = argv[behind];
	s->text = argv[behind + 1];
	s->config = protocol_parse(s->text);
	if (!json_object_is_type(s->config, json_type_object))
		protocol_fail(PROTOCOL_FAILED, "the configuration is no JSON object");
	look(s->pin, s->config, NULL, 0);
}

int main(int argc, char **argv)
{
	struct settings s = { 0 };

	protocol_guard(&memory, sizeof(memory));
	parse(argc, argv, &s);
	protocol_read(&memory.request, "clevis");
	if (memory.request.is_seal)
		seal(&s, &memory.request);
	else
		open_token(&s, &memory.request);
	json_object_put(s.config);
	explicit_bzero(&memory, sizeof(memory));
	return 0;
}
