/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks ssh-agent, at the socket that SSH_AUTH_SOCK names, for a signature. An answer is believed only if the signature holds. */
#include "ledger/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fail.h"
#include "signals.h"

#define SIGN_REQUEST 13
#define SIGN_RESPONSE 14
#define ANSWER_MAX 4096

static int talk_to(const char *path, int *fd, struct vd_error *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *name = getenv("SSH_AUTH_SOCK");

	if (!name || !name[0] || strlen(name) >= sizeof(address.sun_path)) {
		fail(e, VD_ENOKEY, "%s: is a public key, and there is no ssh-agent for the private one", path);
		return fail_hint(e, VD_ENOKEY, "name the private key file, or set SSH_AUTH_SOCK to the agent's socket");
	}
	strcpy(address.sun_path, name);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return fail_errno(e, errno, "ssh-agent");
	if (connect(*fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	fail(e, VD_ENOKEY, "ssh-agent at %s does not answer: %s", name, strerror(errno));
	close(*fd);
	return VD_ENOKEY;
}

int agent_judge(const char *path, struct vd_error *e)
{
	int fd, r = talk_to(path, &fd, e);

	if (r == 0)
		close(fd);
	return r;
}

static int send_all(int fd, const struct bytes *b, struct vd_error *e)
{
	for (size_t done = 0; done < b->n;) {
		ssize_t n = send(fd, b->at + done, b->n - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return fail_errno(e, errno, "ssh-agent");
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* The agent may be asking a person: only a signal ends the wait. */
static int receive(int fd, uint8_t *to, size_t n, struct vd_error *e)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = recv(fd, to + done, n - done, 0);
		int r = signals_check(e);

		if (r < 0)
			return r;
		if (got < 0 && errno != EINTR)
			return fail_errno(e, errno, "ssh-agent");
		if (got == 0)
			return fail(e, VD_ENOKEY, "ssh-agent gave no answer");
		done += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

static int ask(int fd, const uint8_t public_key[ED25519_SIZE], const struct bytes *message, uint8_t answer[ANSWER_MAX], size_t *n,
	       struct vd_error *e)
{
	uint8_t blob[SSHKEY_BLOB_SIZE], head[4], kind = SIGN_REQUEST;
	struct bytes body = { 0 }, whole = { 0 };
	struct cursor c = cursor_of(head, sizeof(head));
	int r;

	sshkey_blob(public_key, blob);
	bytes_add(&body, &kind, 1);
	bytes_string(&body, blob, sizeof(blob));
	bytes_string(&body, message->at, message->n);
	bytes_u32(&body, 0);            /* no flags: they are for RSA */
	bytes_string(&whole, body.at, body.n);
	r = send_all(fd, &whole, e);
	bytes_free(&body);
	bytes_free(&whole);
	if (r == 0)
		r = receive(fd, head, sizeof(head), e);
	if (r < 0)
		return r;
	*n = cursor_u32(&c);
	return *n && *n <= ANSWER_MAX ? receive(fd, answer, *n, e) : fail(e, VD_EFAILED, "ssh-agent: an answer of %zu bytes is none", *n);
}

static bool take(struct cursor c, uint8_t sig[ED25519_SIG_SIZE])
{
	const uint8_t *kind = cursor_take(&c, 1);
	struct cursor inner, type, raw;

	if (!kind || *kind != SIGN_RESPONSE)
		return false;
	inner = cursor_string(&c);
	type = cursor_string(&inner);
	raw = cursor_string(&inner);
	if (!cursor_is_text(&type, SSHKEY_TYPE) || !cursor_is_done(&inner) || raw.left != ED25519_SIG_SIZE)
		return false;
	memcpy(sig, raw.at, ED25519_SIG_SIZE);
	return true;
}

int agent_sign(const char *path, const uint8_t public_key[ED25519_SIZE], const struct bytes *message,
	       uint8_t sig[ED25519_SIG_SIZE], struct vd_error *e)
{
	uint8_t answer[ANSWER_MAX];
	size_t n = 0;
	int fd, r = talk_to(path, &fd, e);

	if (r < 0)
		return r;
	r = ask(fd, public_key, message, answer, &n, e);
	close(fd);
	if (r < 0)
		return r;
	if (!take(cursor_of(answer, n), sig)) {
		fail(e, VD_ENOKEY, "ssh-agent does not sign with the key of %s", path);
		return fail_hint(e, VD_ENOKEY, "ssh-add -L lists the keys that it has");
	}
	if (!crypto_holds(public_key, message->at, message->n, sig))
		return fail(e, VD_EAUTH, "ssh-agent gave a signature that does not hold");
	return 0;
}
