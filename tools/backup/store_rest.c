/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A repository behind restic's REST protocol, version 2 ("REST Backend" of restic's documentation): rest-server, rclone serve restic. The one file that
 * includes libcurl.
 *
 *  I1  A server is believed in nothing: an answer takes no more memory than was asked for, and no more time than timeout_of() says.
 *  I2  What was lost is asked for again, from the byte on that is still missing, with pauses that double, for `patience` seconds since the last MiB
 *      that came. What a server refuses is not asked for again.
 *  I3  No redirection is followed: credentials go where the user has said, or nowhere.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/rest_list.h"
#include "backup/store_kind.h"
#include "fail.h"
#include "ledger/files.h"
#include "locked.h"
#include "signals.h"
#include "ui.h"

#define PATIENCE 300
#define FIRST_PATIENCE 10       /* before it has answered once: an address that is mistyped should not keep anybody waiting */
#define STALL 120               /* seconds without SLOWEST bytes each: the link is dead, though nobody said so */
#define SLOWEST 1024
#define LIST_SECONDS 3600
#define PAUSE_MS 250
#define PAUSE_MAX_MS 10000
#define PROGRESS (1u << 20)     /* bytes that count as progress */
#define IDLE_MAX 64
#define IGNORED_MAX 65536       /* of a page that tells an error in HTML */
#define COMPARE_SIZE (1u << 20)
#define CREDENTIALS_MAX 1024
#define URL_SIZE 2200
#define URL_MAX 2000

struct rest {
	struct store store;
	char *url;                      /* ends with '/' */
	char *credentials;              /* locked; "user:password", or NULL */
	char *ca, *pin;
	bool is_here, is_https;
	unsigned patience;
	struct curl_slist *headers;

	pthread_mutex_t lock;           /* for what is below */
	CURL *idle[IDLE_MAX];           /* each with its connection, kept open */
	size_t n_idle;
	bool has_answered;
};

enum act { HEAD, GET, POST, DELETE, LIST };
struct request {
	enum act act;
	char url[URL_SIZE];
	const char *what;               /* for messages: the URL's last parts */

	const struct iovec *pieces;     /* POST */
	int n_pieces;
	uint64_t sent;

	uint8_t *buf;                   /* GET: `want` bytes from `off`; `got` are there */
	uint64_t off;
	size_t want, got;
	bool is_whole;                  /* this try asks from the first byte on: an answer without a range will do */
	struct rest_list *list;

	size_t ignored;
	bool is_too_long;
	long status;
	curl_off_t length, retry_after;
	char detail[CURL_ERROR_SIZE];
};

static struct rest *rest_of(struct store *s)
{
	return (struct rest *)s;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- one try --------------------------------------------------------------------------------------------- */

static size_t send_body(char *to, size_t size, size_t n, void *ctx)
{
	struct request *q = ctx;
	uint64_t off = q->sent;
	size_t room = size * n, used = 0;

	for (int i = 0; i < q->n_pieces && used < room; i++) {
		size_t here;

		if (off >= q->pieces[i].iov_len) {
			off -= q->pieces[i].iov_len;
			continue;
		}
		here = q->pieces[i].iov_len - off < room - used ? q->pieces[i].iov_len - off : room - used;
		memcpy(to + used, (const char *)q->pieces[i].iov_base + off, here);
		used += here;
		off = 0;
	}
	q->sent += used;
	return used;
}

static int rewind_body(void *ctx, curl_off_t off, int origin)
{
	struct request *q = ctx;

	if (origin != SEEK_SET || off < 0)
		return CURL_SEEKFUNC_FAIL;
	q->sent = (uint64_t)off;
	return CURL_SEEKFUNC_OK;
}

struct answer {
	struct request *q;
	CURL *curl;
};

/* I1: fewer bytes than `n` end the transfer. */
static size_t take_body(char *from, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;
	struct request *q = a->q;
	size_t len = size * n, here;

	curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &q->status);
	if (q->act == LIST && q->status == 200)
		return rest_list_feed(q->list, from, len) ? len : 0;
	if (q->act == GET && (q->status == 206 || (q->status == 200 && q->is_whole))) {
		here = len < q->want - q->got ? len : q->want - q->got;
		memcpy(q->buf + q->got, from, here);
		q->got += here;
		q->is_too_long |= here < len;
		return here;
	}
	q->ignored += len;
	return q->ignored <= IGNORED_MAX ? len : 0;
}

static int look_for_stop(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)ctx, (void)a, (void)b, (void)c, (void)d;
	return signals_stop() != 0;
}

/* Seconds that one try may take: at eight times the speed below which it counts as dead. */
static long timeout_of(const struct rest *r, const struct request *q)
{
	uint64_t bytes = q->act == GET ? q->want : store_sum(q->pieces, q->n_pieces);
	unsigned stall = r->patience < STALL ? r->patience : STALL;

	return q->act == LIST ? LIST_SECONDS : (long)(2 * stall + bytes / (8 * SLOWEST));
}

static void set_up_link(const struct rest *r, CURL *c)
{
	long stall = r->patience < STALL ? (long)r->patience : STALL;

	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, r->is_https ? "https" : "http");
	if (r->is_here)
		curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	if (r->ca) {
		curl_easy_setopt(c, CURLOPT_CAINFO, r->ca);
		curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	}
	if (r->pin)
		curl_easy_setopt(c, CURLOPT_PINNEDPUBLICKEY, r->pin);
	if (r->credentials) {
		curl_easy_setopt(c, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(c, CURLOPT_USERPWD, r->credentials);
	}
	curl_easy_setopt(c, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L << 10);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, stall < 15 ? stall : 15L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, stall);
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, look_for_stop);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, r->headers);
}

static void set_up_act(CURL *c, struct request *q, char range[64])
{
	if (q->act == HEAD)
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	if (q->act == DELETE)
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, "DELETE");
	if (q->act == GET) {
		snprintf(range, 64, "%llu-%llu", (unsigned long long)(q->off + q->got), (unsigned long long)(q->off + q->want - 1));
		curl_easy_setopt(c, CURLOPT_RANGE, range);
	}
	if (q->act == POST) {
		curl_easy_setopt(c, CURLOPT_POST, 1L);
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)store_sum(q->pieces, q->n_pieces));
		curl_easy_setopt(c, CURLOPT_READFUNCTION, send_body);
		curl_easy_setopt(c, CURLOPT_READDATA, q);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, rewind_body);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, q);
	}
}

static CURLcode try_once(struct rest *r, CURL *c, struct request *q)
{
	struct answer a = { q, c };
	char range[64];
	CURLcode code;

	q->status = 0;
	q->sent = q->ignored = 0;
	q->is_whole = q->off + q->got == 0;
	q->detail[0] = '\0';
	if (q->list)
		rest_list_begin(q->list);
	curl_easy_reset(c);
	set_up_link(r, c);
	set_up_act(c, q, range);
	curl_easy_setopt(c, CURLOPT_URL, q->url);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, timeout_of(r, q));
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, q->detail);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
	code = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &q->status);
	curl_easy_getinfo(c, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &q->length);
	curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &q->retry_after);
	return code;
}

static CURL *take_link(struct rest *r)
{
	CURL *c = NULL;

	pthread_mutex_lock(&r->lock);
	if (r->n_idle)
		c = r->idle[--r->n_idle];
	pthread_mutex_unlock(&r->lock);
	c = c ? c : curl_easy_init();
	if (!c)
		ui_out_of_memory();
	return c;
}

/* True: it has answered before, or now. */
static bool give_link(struct rest *r, CURL *c, bool has_answered)
{
	pthread_mutex_lock(&r->lock);
	if (r->n_idle < IDLE_MAX) {
		r->idle[r->n_idle++] = c;
		c = NULL;
	}
	has_answered = r->has_answered = r->has_answered || has_answered;
	pthread_mutex_unlock(&r->lock);
	curl_easy_cleanup(c);
	return has_answered;
}

/* ---- what an answer means -------------------------------------------------------------------------------- */

#define AGAIN 1

static int fail_answer(const struct rest *r, const struct request *q, int code, const char *why, struct vd_error *e)
{
	return fail(e, code, "%s: %s: %s", r->store.where, q->what, why);
}

static int judge_success(const struct rest *r, const struct request *q, struct vd_error *e)
{
	if (q->act == GET && q->status == 200 && !q->is_whole)
		return fail_answer(r, q, VD_EIO, "the server gives whole objects only, and no ranges of them", e);
	if (q->act == GET && q->got < q->want)
		return fail_answer(r, q, VD_ECORRUPT, "is shorter than it has to be", e);
	if (q->act == LIST && !rest_list_is_done(q->list)) {
		fail_answer(r, q, VD_EIO, "the server's list cannot be read", e);
		return fail_hint(e, VD_EIO, "version 2 of restic's REST protocol is wanted");
	}
	return 0;
}

static int judge_status(const struct rest *r, const struct request *q, struct vd_error *e)
{
	char why[64];

	switch (q->status) {
	case 200 ... 299:
		return judge_success(r, q, e);
	case 401: case 403:
		fail_answer(r, q, VD_EACCESS, "the server does not allow it", e);
		return r->credentials ? VD_EACCESS : fail_hint(e, VD_EACCESS, "user and password come from a file: --rest-credentials");
	case 404:
		return fail_answer(r, q, VD_ENOENT, "the server does not have it", e);
	case 413: case 507:
		return fail_answer(r, q, VD_ENOSPC, "the server has no room", e);
	case 416:
		return fail_answer(r, q, VD_ECORRUPT, "is shorter than it has to be", e);
	case 300 ... 399:
		return fail_answer(r, q, VD_EIO, "the server names another address, which is not gone to", e);
	default:
		snprintf(why, sizeof(why), "the server answers with status %ld", q->status);
		fail_answer(r, q, VD_EIO, why, e);
		return q->status == 408 || q->status == 429 || (q->status >= 500 && q->status != 501) ? AGAIN : VD_EIO;
	}
}

static int judge_failure(const struct rest *r, const struct request *q, CURLcode code, struct vd_error *e)
{
	const char *why = q->detail[0] ? q->detail : curl_easy_strerror(code);

	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return signals_check(e);
	case CURLE_PEER_FAILED_VERIFICATION: case CURLE_SSL_PINNEDPUBKEYNOTMATCH: case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return fail_answer(r, q, VD_EAUTH, why, e);
	case CURLE_OUT_OF_MEMORY:
		ui_out_of_memory();
	case CURLE_URL_MALFORMAT: case CURLE_UNSUPPORTED_PROTOCOL:
		return fail_answer(r, q, VD_EIO, why, e);
	default:
		fail_answer(r, q, VD_EIO, why, e);
		return AGAIN;
	}
}

/* 0, AGAIN with *e filled, or a failure that another try does not change. */
static int judge(const struct rest *r, const struct request *q, CURLcode code, struct vd_error *e)
{
	if (code == CURLE_WRITE_ERROR && q->act == LIST && q->list->is_bad)
		return judge_success(r, q, e);
	if (code == CURLE_WRITE_ERROR && q->is_too_long && q->status == 200)
		return judge_success(r, q, e);
	if (code == CURLE_WRITE_ERROR && q->is_too_long)
		return fail_answer(r, q, VD_EIO, "the server sends more than was asked for", e);
	if (code == CURLE_WRITE_ERROR && q->status / 100 != 2)
		return judge_status(r, q, e);
	return code == CURLE_OK ? judge_status(r, q, e) : judge_failure(r, q, code, e);
}

/* ---- as often as it takes -------------------------------------------------------------------------------- */

static int pause_for(uint64_t ms, struct vd_error *e)
{
	const struct timespec slice = { 0, 50000000 };
	uint64_t end = now_ms() + ms;
	int r = 0;

	while (r == 0 && now_ms() < end) {
		nanosleep(&slice, NULL);
		r = signals_check(e);
	}
	return r;
}

static int perform(struct rest *r, struct request *q, struct vd_error *e)
{
	uint64_t since = now_ms(), pause = PAUSE_MS, asked;
	size_t counted = 0;
	bool has_answered;
	int result;

	for (;;) {
		CURL *c = take_link(r);

		result = judge(r, q, try_once(r, c, q), e);
		has_answered = give_link(r, c, q->status != 0);
		if (result != AGAIN)
			return result;
		if (q->got - counted >= PROGRESS) {
			counted = q->got;
			since = now_ms();
			pause = PAUSE_MS;
		}
		if (now_ms() - since >= 1000ull * (has_answered || r->patience < FIRST_PATIENCE ? r->patience : FIRST_PATIENCE))
			return fail_hint(e, e->code, "it was tried again and again; what is there already need not be sent a second time");
		asked = q->retry_after > 0 && q->retry_after < 30 ? 1000ull * (uint64_t)q->retry_after : 0;
		result = pause_for(asked > pause ? asked : pause, e);
		if (result < 0)
			return result;
		pause = 2 * pause < PAUSE_MAX_MS ? 2 * pause : PAUSE_MAX_MS;
	}
}

static struct request request_of(const struct rest *r, enum act act, enum store_kind kind, const char *name)
{
	struct request q = { .act = act };
	int base = snprintf(q.url, sizeof(q.url), "%s", r->url);

	snprintf(q.url + base, sizeof(q.url) - (size_t)base, kind == STORE_CONFIG ? "%s" : "%s/%s", store_place(kind), name);
	return q;
}

static int ask(struct rest *r, struct request *q, struct vd_error *e)
{
	q->what = q->url + strlen(r->url);
	return perform(r, q, e);
}

/* ---- the calls of a store -------------------------------------------------------------------------------- */

static int rest_size(struct store *s, enum store_kind kind, const char *name, uint64_t *size, struct vd_error *e)
{
	struct rest *r = rest_of(s);
	struct request q = request_of(r, HEAD, kind, name);
	int result = ask(r, &q, e);

	if (result == 0 && q.length < 0)
		result = fail_answer(r, &q, VD_EIO, "the server does not say how long it is", e);
	if (result == 0)
		*size = (uint64_t)q.length;
	return result;
}

static int rest_get(struct store *s, enum store_kind kind, const char *name, uint64_t off, void *buf, size_t n, struct vd_error *e)
{
	struct rest *r = rest_of(s);
	struct request q = request_of(r, GET, kind, name);

	if (!n)
		return 0;
	q.buf = buf;
	q.off = off;
	q.want = n;
	return ask(r, &q, e);
}

/* 1: it is there, with this content. 0: it is not there. VD_EEXIST: it is there and is something else. */
static int judge_there(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e)
{
	uint64_t size, sum = store_sum(pieces, n), off = 0;
	int r = rest_size(s, kind, name, &size, e);
	bool is_same = r == 0 && size == sum;
	uint8_t *buf;

	if (r < 0)
		return r == VD_ENOENT ? 0 : r;
	buf = malloc(COMPARE_SIZE);
	if (!buf)
		ui_out_of_memory();
	while (r == 0 && is_same && off < sum) {
		size_t here = sum - off < COMPARE_SIZE ? (size_t)(sum - off) : COMPARE_SIZE;

		r = rest_get(s, kind, name, off, buf, here, e);
		is_same = r == 0 && store_is_same(pieces, n, off, buf, here);
		off += here;
	}
	free(buf);
	if (r < 0)
		return r;
	return is_same ? 1 : store_refuse_other(s, kind, name, e);
}

static int rest_put(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e)
{
	struct rest *r = rest_of(s);
	struct request q = request_of(r, POST, kind, name);
	struct vd_error again;
	int result = judge_there(s, kind, name, pieces, n, e);

	if (result != 0)
		return result < 0 ? result : 0;
	q.pieces = pieces;
	q.n_pieces = n;
	result = ask(r, &q, e);
	/* A server that takes no name twice says so when the first try had come through after all, and only its answer was lost. */
	if (result < 0 && q.status / 100 == 4 && judge_there(s, kind, name, pieces, n, &again) == 1)
		result = 0;
	return result;
}

static int rest_list(struct store *s, enum store_kind kind, int (*each)(void *ctx, const char *name, uint64_t size), void *ctx,
		     struct vd_error *e)
{
	struct rest *r = rest_of(s);
	struct request q = request_of(r, LIST, kind, "");
	struct rest_list list = { 0 };
	char name[STORE_NAME_SIZE];
	int result;

	q.list = &list;
	result = ask(r, &q, e);
	/* A place that nothing was put into yet is not there at some servers. */
	if (result == VD_ENOENT)
		list.n = 0;
	result = result == VD_ENOENT ? 0 : result;
	for (size_t i = 0; result == 0 && i < list.n; i++) {
		rest_item_name(&list.at[i], name);
		result = each(ctx, name, list.at[i].size);
	}
	rest_list_free(&list);
	return result;
}

static int rest_remove(struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	struct request q = request_of(rest_of(s), DELETE, kind, name);

	return ask(rest_of(s), &q, e);
}

static void rest_close(struct store *s)
{
	struct rest *r = rest_of(s);

	while (r->n_idle)
		curl_easy_cleanup(r->idle[--r->n_idle]);
	curl_slist_free_all(r->headers);
	pthread_mutex_destroy(&r->lock);
	locked_free(r->credentials, CREDENTIALS_MAX);
	free(r->ca);
	free(r->pin);
	free(r->url);
	free(r);
}

static const struct store_acts rest_acts = {
	.put = rest_put, .get = rest_get, .size = rest_size, .list = rest_list, .remove = rest_remove, .close = rest_close,
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static bool is_this_machine(const char *host)
{
	struct in_addr address;

	if (inet_pton(AF_INET, host, &address) == 1)
		return ntohl(address.s_addr) >> 24 == 127;
	return !strcmp(host, "localhost") || !strcmp(host, "[::1]");
}

/* What the address must not hold it must not hold in any form that libcurl knows. */
static int read_address(struct rest *r, const char *text, struct vd_error *e)
{
	CURLU *url = curl_url();
	char *scheme = NULL, *host = NULL, *whole = NULL, *more = NULL;
	int result = 0;

	if (!url)
		ui_out_of_memory();
	if (curl_url_set(url, CURLUPART_URL, text, 0) || curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0) || curl_url_get(url, CURLUPART_URL, &whole, 0) || strlen(whole) > URL_MAX ||
	    (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0))
		result = fail(e, VD_EARG, "%s: rest:https://HOST[:PORT]/PATH is wanted", r->store.where);
	else if (!curl_url_get(url, CURLUPART_USER, &more, 0) || !curl_url_get(url, CURLUPART_PASSWORD, &more, 0)) {
		/* Not with its name: there is a password in it. */
		fail(e, VD_EARG, "the address of the repository holds a user or a password, which every user of this machine can see");
		result = fail_hint(e, VD_EARG, "put them into a file: --rest-credentials");
	} else if (!curl_url_get(url, CURLUPART_QUERY, &more, 0) || !curl_url_get(url, CURLUPART_FRAGMENT, &more, 0))
		result = fail(e, VD_EARG, "%s: the address of a repository has no '?' or '#'", r->store.where);
	if (result == 0) {
		r->is_https = !strcmp(scheme, "https");
		r->is_here = is_this_machine(host);
		if (asprintf(&r->url, "%s%s", whole, whole[strlen(whole) - 1] == '/' ? "" : "/") < 0)
			ui_out_of_memory();
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(whole);
	curl_free(more);
	curl_url_cleanup(url);
	return result;
}

static int read_credentials(struct rest *r, const char *path, struct vd_error *e)
{
	struct bytes text;
	int result;

	if (!r->is_https && !r->is_here) {
		fail(e, VD_EARG, "%s: a password goes over https alone, but for this machine itself", r->store.where);
		return fail_hint(e, VD_EARG, "use rest:https://...");
	}
	r->credentials = locked_new(CREDENTIALS_MAX);
	text = bytes_over(r->credentials, CREDENTIALS_MAX);
	result = file_read(path, CREDENTIALS_MAX - 1, &text, e);
	if (result < 0)
		return result;
	r->credentials[strcspn(r->credentials, "\r\n")] = '\0';
	if (!strchr(r->credentials, ':'))
		return fail(e, VD_EARG, "%s: its first line is not user:password", path);
	return 0;
}

static int judge_pin(const char *pin, struct vd_error *e)
{
	if (strncmp(pin, "sha256//", 8) == 0 && strlen(pin) == 8 + 44 && !strchr(pin, ';'))
		return 0;
	return fail(e, VD_EARG, "'%s' is no pin: sha256// and 44 letters of base64 are wanted", pin);
}

/* The places that a server needs made, and nothing of a repository there yet. */
static int create(struct rest *r, struct vd_error *e)
{
	struct request q = { .act = POST };
	struct rest_list list = { 0 };
	struct request keys = request_of(r, LIST, STORE_KEY, "");
	uint64_t size;
	int result = rest_size(&r->store, STORE_CONFIG, "", &size, e);

	if (result == 0)
		return store_refuse_full(&r->store, "a repository", e);
	if (result != VD_ENOENT)
		return result;
	snprintf(q.url, sizeof(q.url), "%s?create=true", r->url);
	result = ask(r, &q, e);
	if (result < 0)
		return result;
	keys.list = &list;
	result = ask(r, &keys, e);
	if (result == 0 && list.n)
		result = store_refuse_full(&r->store, "a key", e);
	rest_list_free(&list);
	return result == VD_ENOENT ? 0 : result;
}

static char *copy_of(const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		ui_out_of_memory();
	return copy;
}

static void start_curl(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		ui_out_of_memory();
}

static struct rest *rest_new(const char *where, const struct store_access *access)
{
	static const char *const lines[] = { "Accept: application/vnd.x.restic.rest.v2", "Content-Type: application/octet-stream", "Expect:" };
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct rest *r = calloc(1, sizeof(*r));

	pthread_once(&once, start_curl);
	if (!r)
		ui_out_of_memory();
	r->store.acts = &rest_acts;
	r->store.where = copy_of(where);
	r->ca = copy_of(access->ca);
	r->pin = copy_of(access->pin);
	r->patience = access->patience ? access->patience : PATIENCE;
	pthread_mutex_init(&r->lock, NULL);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		r->headers = curl_slist_append(r->headers, lines[i]);
		if (!r->headers)
			ui_out_of_memory();
	}
	return r;
}

int store_rest_open(const char *where, const struct store_access *access, bool creates, struct store **out, struct vd_error *e)
{
	struct rest *r = rest_new(where, access);
	int result = read_address(r, where + strlen("rest:"), e);

	if (result == 0 && access->credentials)
		result = read_credentials(r, access->credentials, e);
	if (result == 0 && access->pin)
		result = judge_pin(access->pin, e);
	if (result == 0 && creates)
		result = create(r, e);
	if (result < 0)
		store_close(&r->store);
	else
		*out = &r->store;
	return result;
}
