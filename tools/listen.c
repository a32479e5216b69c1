/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes sockets to listen at. A socket of this machine lets in who may write to its file, which is its owner; TCP lets in who
 * proves by TLS who he is, and that proof is the server's to ask for: here it is only seen that it will be.
 */
#include "listen.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fail.h"

#define NBD_PORT "10809"
#define BACKLOG 128

/* ---- URIs ------------------------------------------------------------------------------------------------ */

/* Appends; what is not plain in a URI's query (RFC 3986, section 2.3) goes as %XX. */
static void append_encoded(char *uri, size_t size, const char *text)
{
	size_t n = strlen(uri);

	for (; *text && n + 4 < size; text++) {
		bool is_plain = isalnum((unsigned char)*text) || strchr("-._~/", *text);

		n += (size_t)snprintf(uri + n, size - n, is_plain ? "%c" : "%%%02X", (unsigned char)*text);
	}
}

/* ---- sockets of this machine ------------------------------------------------------------------------------ */

static int make_folder(struct listener *l, struct vd_error *e)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	if (!dir || access(dir, W_OK) < 0)
		dir = getenv("TMPDIR");
	snprintf(l->folder, sizeof(l->folder), "%s/vdisk-serve.XXXXXX", dir && dir[0] ? dir : "/tmp");
	if (mkdtemp(l->folder)) {
		snprintf(l->path, sizeof(l->path), "%.*s/socket", PATH_MAX - 8, l->folder);
		return 0;
	}
	fail_errno(e, errno, "%s: no folder for the socket can be made", l->folder);
	l->folder[0] = '\0';
	return e->code;
}

static int bind_path(struct listener *l, struct vd_error *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	mode_t old;
	int r, err;

	if (strlen(l->path) >= sizeof(a.sun_path))
		return fail(e, VD_EARG, "%s: the path of a socket has at most %zu bytes", l->path, sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, l->path);
	old = umask(0177);
	r = bind(l->fd, (struct sockaddr *)&a, sizeof(a));
	err = errno;
	umask(old);
	if (r == 0)
		return 0;
	fail_errno(e, err, "%s: cannot listen there", l->path);
	l->path[0] = '\0';
	if (err == EADDRINUSE)
		return fail_hint(e, e->code, "remove it if nobody listens there any more");
	return e->code;
}

static int open_local(struct listener *l, const struct settings *s, struct vd_error *e)
{
	char full[PATH_MAX];
	int r = 0;

	if (s->serve.socket)
		snprintf(l->path, sizeof(l->path), "%s", s->serve.socket);
	else
		r = make_folder(l, e);
	if (r < 0)
		return r;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return fail_errno(e, errno, "no socket can be made");
	r = bind_path(l, e);
	if (r < 0)
		return r;
	/* Whoever takes the address may be in another folder. */
	snprintf(l->uri, sizeof(l->uri), "nbd+unix:///?socket=");
	append_encoded(l->uri, sizeof(l->uri), realpath(l->path, full) ? full : l->path);
	return 0;
}

/* ---- TCP --------------------------------------------------------------------------------------------------- */

/* "HOST", "HOST:PORT", "[V6]:PORT", ":PORT"; text is taken apart. */
static void split_address(char *text, const char **host, const char **port)
{
	char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');

	*host = text;
	*port = NBD_PORT;
	if (colon && colon > bracket && (bracket || strchr(text, ':') == colon)) {
		*colon = '\0';
		*port = colon + 1;
	}
	if (text[0] == '[' && bracket) {
		*bracket = '\0';
		*host = text + 1;
	}
}

/* The first name of the file, by which clients that have the file authenticate. */
static void append_psk_user(char *uri, size_t size, const char *file)
{
	FILE *f = fopen(file, "re");
	char line[512] = "";

	if (f && fgets(line, sizeof(line), f) && strchr(line, ':')) {
		*strchr(line, ':') = '\0';
		append_encoded(uri, size, line);
		strncat(uri, "@", size - strlen(uri) - 1);
	}
	explicit_bzero(line, sizeof(line));
	if (f)
		fclose(f);
}

/* By the port that the system gave, where it was asked for any. */
static void make_uri(struct listener *l, const struct settings *s, const char *host)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char port[16] = NBD_PORT, name[512], *end;

	if (getsockname(l->fd, (struct sockaddr *)&a, &len) == 0)
		getnameinfo((struct sockaddr *)&a, len, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
	snprintf(name, sizeof(name), "%s", host);
	if (!host[0] || !strcmp(host, "0.0.0.0") || !strcmp(host, "::"))
		gethostname(name, sizeof(name) - 1);
	snprintf(l->uri, sizeof(l->uri), "nbds://");
	if (s->serve.tls_psk)
		append_psk_user(l->uri, sizeof(l->uri), s->serve.tls_psk);
	end = l->uri + strlen(l->uri);
	snprintf(end, sizeof(l->uri) - (size_t)(end - l->uri), strchr(name, ':') ? "[%s]:%s/" : "%s:%s/", name, port);
	if (s->serve.tls_psk) {
		strncat(l->uri, "?tls-psk-file=", sizeof(l->uri) - strlen(l->uri) - 1);
		append_encoded(l->uri, sizeof(l->uri), s->serve.tls_psk);
	}
}

static int bind_one(struct listener *l, const struct addrinfo *a)
{
	const int on = 1;

	l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, a->ai_protocol);
	if (l->fd < 0)
		return -1;
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return bind(l->fd, a->ai_addr, a->ai_addrlen);
}

static int open_tcp(struct listener *l, const struct settings *s, struct vd_error *e)
{
	const struct addrinfo wanted = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *found = NULL;
	const char *host, *port;
	char text[512];
	int r;

	snprintf(text, sizeof(text), "%s", s->serve.address);
	split_address(text, &host, &port);
	r = getaddrinfo(host[0] ? host : NULL, port, &wanted, &found);
	if (r != 0)
		return fail(e, VD_EARG, "--listen: '%s': %s", s->serve.address, gai_strerror(r));
	r = bind_one(l, found);
	if (r < 0)
		fail_errno(e, errno, "cannot listen at %s", s->serve.address);
	freeaddrinfo(found);
	if (r < 0)
		return e->code;
	make_uri(l, s, host);
	return 0;
}

static int judge(const struct settings *s, struct vd_error *e)
{
	bool has_tls = s->serve.tls_certificates || s->serve.tls_psk;

	if (s->serve.address && s->serve.socket)
		return fail(e, VD_EARG, "the disk is served either at a socket or over TCP");
	if (s->serve.tls_certificates && s->serve.tls_psk)
		return fail(e, VD_EARG, "clients show either certificates or pre-shared keys");
	if (has_tls && !s->serve.address)
		return fail(e, VD_EARG, "TLS is for TCP: say --listen, too");
	if (!s->serve.address || has_tls)
		return 0;
	fail(e, VD_EARG, "over TCP without authentication, everybody who reaches the port would have the disk");
	return fail_hint(e, VD_EARG, "say who may: --tls-certificates DIR, or --tls-psk FILE; or leave --listen out");
}

int listener_open(struct listener *l, const struct settings *s, struct vd_error *e)
{
	int r = judge(s, e);

	*l = (struct listener){ .fd = -1 };
	if (r == 0)
		r = s->serve.address ? open_tcp(l, s, e) : open_local(l, s, e);
	if (r == 0 && listen(l->fd, BACKLOG) < 0)
		r = fail_errno(e, errno, "cannot listen at %s", l->uri);
	if (r < 0)
		listener_close(l);
	return r;
}

void listener_close(struct listener *l)
{
	if (l->fd >= 0)
		close(l->fd);
	if (l->path[0])
		unlink(l->path);
	if (l->folder[0])
		rmdir(l->folder);
	*l = (struct listener){ .fd = -1 };
}
