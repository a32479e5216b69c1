/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One command at a time; events that come between go to who has asked for them. Answers have a bound, as a guest may be the one that gives them. */
#include "backup/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"

#define LINE_MAX_BYTES (8u << 20)
#define GREETING_SECONDS 5
#define AGENT_SECONDS 5

struct qmp {
	int fd;
	char *name;
	uint64_t last_id;
	bool is_agent;
	char *line;                     /* what came, NUL behind it */
	size_t n, room, used;           /* used: of the line that was handed out */
	void (*on_event)(void *ctx, const char *name);
	void *ctx;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- lines ---------------------------------------------------------------------------------------------- */

static int make_room(struct qmp *q, struct vd_error *e)
{
	size_t room = q->room ? q->room * 2 : 65536;
	char *more;

	if (q->n + 1 < q->room)
		return 0;
	if (room > LINE_MAX_BYTES)
		return fail(e, VD_EIO, "%s: an answer has more than 8 MiB", q->name);
	more = realloc(q->line, room);
	if (!more)
		return fail(e, VD_ENOMEM, "not enough memory");
	q->line = more;
	q->room = room;
	return 0;
}

static int receive(struct qmp *q, int64_t until, struct vd_error *e)
{
	struct pollfd p = { .fd = q->fd, .events = POLLIN };
	int64_t left = until - now_ms();
	int r = make_room(q, e);
	ssize_t got;

	if (r < 0)
		return r;
	if (left <= 0 || poll(&p, 1, (int)left) == 0)
		return fail(e, VD_EIO, "%s: no answer", q->name);
	got = recv(q->fd, q->line + q->n, q->room - q->n - 1, MSG_DONTWAIT);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (got <= 0)
		return fail(e, VD_EIO, "%s: the connection is gone", q->name);
	q->n += (size_t)got;
	q->line[q->n] = 0;
	return 0;
}

/* The next object that comes; what is no JSON, such as the agent's rest of an older talk, is passed over. */
static int next_object(struct qmp *q, int64_t until, struct json_object **out, struct vd_error *e)
{
	for (;;) {
		char *end;
		int r;

		if (q->used)
			memmove(q->line, q->line + q->used, q->n - q->used);
		q->n -= q->used;
		q->used = 0;
		end = q->n ? memchr(q->line, '\n', q->n) : NULL;
		if (!end) {
			r = receive(q, until, e);
			if (r < 0)
				return r;
			continue;
		}
		*end = 0;
		q->used = (size_t)(end - q->line) + 1;
		*out = json_tokener_parse(q->line);
		if (json_object_is_type(*out, json_type_object))
			return 0;
		json_object_put(*out);
	}
}

static int send_all(struct qmp *q, const char *text, size_t n, struct vd_error *e)
{
	while (n) {
		ssize_t sent = send(q->fd, text, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return fail(e, VD_EIO, "%s: %s", q->name, strerror(errno));
		text += sent;
		n -= (size_t)sent;
	}
	return 0;
}

void qmp_on_event(struct qmp *q, void (*on_event)(void *ctx, const char *name), void *ctx)
{
	q->on_event = on_event;
	q->ctx = ctx;
}

static void tell_event(struct qmp *q, struct json_object *o)
{
	struct json_object *x;

	if (q->on_event && json_object_object_get_ex(o, "event", &x) && json_object_is_type(x, json_type_string))
		q->on_event(q->ctx, json_object_get_string(x));
}

int qmp_listen(struct qmp *q, struct vd_error *e)
{
	struct pollfd p = { .fd = q->fd, .events = POLLIN };

	while (poll(&p, 1, 0) > 0 || memchr(q->line + q->used, '\n', q->n - q->used)) {
		struct json_object *o;
		int r = next_object(q, now_ms() + 1000, &o, e);

		if (r < 0)
			return r;
		tell_event(q, o);
		json_object_put(o);
	}
	return 0;
}

/* ---- commands ------------------------------------------------------------------------------------------- */

/* The agent answers in turn and knows no ids. */
static bool is_answer(const struct qmp *q, struct json_object *o)
{
	struct json_object *id;

	if (!json_object_object_get_ex(o, "return", NULL) && !json_object_object_get_ex(o, "error", NULL))
		return false;
	return q->is_agent || (json_object_object_get_ex(o, "id", &id) && json_object_get_uint64(id) == q->last_id);
}

static int take_answer(struct qmp *q, const char *command, struct json_object *o, struct json_object **result, struct vd_error *e)
{
	struct json_object *x, *words;

	if (json_object_object_get_ex(o, "error", &x)) {
		bool has_words = json_object_is_type(x, json_type_object) && json_object_object_get_ex(x, "desc", &words);

		return fail(e, VD_EFAILED, "%s: %s: %s", q->name, command, has_words ? json_object_get_string(words) : "refused");
	}
	if (result && json_object_object_get_ex(o, "return", &x))
		*result = json_object_get(x);
	return 0;
}

static int send_command(struct qmp *q, const char *command, struct json_object *arguments, struct vd_error *e)
{
	struct json_object *o = json_new();
	size_t n;
	char *text;
	int r;

	json_put_text(o, "execute", command);
	if (arguments)
		json_put(o, "arguments", arguments);
	if (!q->is_agent)
		json_put_u64(o, "id", ++q->last_id);
	n = (size_t)asprintf(&text, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
	r = send_all(q, text, n, e);
	free(text);
	return r;
}

int qmp_run(struct qmp *q, const char *command, struct json_object *arguments, unsigned seconds, struct json_object **result, struct vd_error *e)
{
	int64_t until = now_ms() + (int64_t)seconds * 1000;
	struct json_object *o = NULL;
	int r = send_command(q, command, arguments, e);

	if (result)
		*result = NULL;
	while (r == 0) {
		r = next_object(q, until, &o, e);
		if (r < 0)
			break;
		if (is_answer(q, o)) {
			r = take_answer(q, command, o, result, e);
			json_object_put(o);
			return r;
		}
		tell_event(q, o);
		json_object_put(o);
	}
	return r;
}

/* ---- connections ---------------------------------------------------------------------------------------- */

static int connect_to(const char *path, bool is_agent, struct qmp **out, struct vd_error *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct qmp *q;

	if (strlen(path) >= sizeof(a.sun_path))
		return fail(e, VD_EARG, "%s: a socket's path has at most %zu bytes", path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	q = calloc(1, sizeof(*q));
	if (!q)
		return fail(e, VD_ENOMEM, "not enough memory");
	q->is_agent = is_agent;
	q->name = strdup(path);
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!q->name || q->fd < 0 || connect(q->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		fail_errno(e, errno, "%s", path);
		qmp_close(q);
		return e->code;
	}
	*out = q;
	return 0;
}

int qmp_connect(const char *path, struct qmp **out, struct vd_error *e)
{
	struct json_object *greeting = NULL;
	struct qmp *q = NULL;
	int r = connect_to(path, false, &q, e);

	if (r < 0)
		return r;
	r = next_object(q, now_ms() + GREETING_SECONDS * 1000, &greeting, e);
	if (r < 0)
		r = fail(e, VD_EBUSY, "%s: qemu does not greet: somebody else may be connected", path);
	else if (!json_object_object_get_ex(greeting, "QMP", NULL))
		r = fail(e, VD_EFAILED, "%s: is no QMP socket", path);
	json_object_put(greeting);
	if (r == 0)
		r = qmp_run(q, "qmp_capabilities", NULL, GREETING_SECONDS, NULL, e);
	if (r < 0)
		qmp_close(q);
	else
		*out = q;
	return r;
}

/* What an older client left unread in the guest comes first: up to the answer to a number that nobody else has. */
static int sync_agent(struct qmp *q, struct vd_error *e)
{
	int64_t until = now_ms() + AGENT_SECONDS * 1000;
	struct json_object *o, *x, *arguments = json_new();
	uint32_t number = 0;
	bool is_it = false;
	int r;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = (uint32_t)now_ms();
	json_put_u64(arguments, "id", number);
	r = send_command(q, "guest-sync", arguments, e);
	while (r == 0 && !is_it) {
		r = next_object(q, until, &o, e);
		if (r < 0)
			return fail(e, VD_EIO, "%s: no agent answers in the guest", q->name);
		is_it = json_object_object_get_ex(o, "return", &x) && json_object_get_uint64(x) == number;
		json_object_put(o);
	}
	return r;
}

int qmp_connect_agent(const char *path, struct qmp **out, struct vd_error *e)
{
	struct qmp *q = NULL;
	int r = connect_to(path, true, &q, e);

	if (r == 0)
		r = sync_agent(q, e);
	if (r < 0)
		qmp_close(q);
	else
		*out = q;
	return r;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	free(q->name);
	free(q->line);
	free(q);
}

int qmp_fd(const struct qmp *q)
{
	return q->fd;
}
