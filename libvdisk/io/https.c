/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a file on a web server by range requests (RFC 9110, section 14), each tried again for a while when the server or the way to
 * it fails. The only file that includes libcurl in the library.
 *
 * H1  What comes is of the file that was opened: a reply with another size or another validator (ETag) is a failure, not data.
 * H2  TLS alone, redirects as well, certificates verified. No environment is read: no proxy, no .netrc.
 */
#include "libvdisk/io/https.h"

#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

static const char prefix[] = "https://";

bool vd_https_is_name(const char *path)
{
	return !strncmp(path, prefix, sizeof(prefix) - 1);
}

#ifndef VD_HAVE_CURL

int vd_https_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	(void)flags;
	(void)out;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: this library was built without libcurl", name);
}

#else

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#define CONNECTIONS 8
#define TRIES 6                         /* waiting 0.1, 0.2, ... 1.6 s between them */
#define FIRST_WAIT_NS 100000000L
#define CONNECT_SECONDS 15L
#define STALL_SECONDS 30L               /* without a byte */
#define REDIRECTS 5L
#define VALIDATOR_MAX 256

struct https_io {
	struct vd_io io;
	uint64_t size;
	char validator[VALIDATOR_MAX];  /* "": the server gives none */
	pthread_mutex_t lock;
	pthread_cond_t returned;
	CURL *idle[CONNECTIONS];
	unsigned n_idle;
};

/* One range on its way. */
struct request {
	const struct https_io *h;       /* what the reply has to be of; NULL: to be learned */
	uint8_t *buf;
	uint64_t off, len, got;
	/* Of the reply's header. */
	long status;
	bool has_range;
	uint64_t total;
	char validator[VALIDATOR_MAX];
	bool is_other;                  /* breaks H1 */
};

static struct https_io *https_of(const struct vd_io *io)
{
	return (struct https_io *)io;
}

/* ---- replies --------------------------------------------------------------------------------------------- */

/* "bytes 0-99/1234" */
static void take_range(struct request *q, const char *value)
{
	unsigned long long first, last, total;

	q->has_range = sscanf(value, " bytes %llu-%llu/%llu", &first, &last, &total) == 3 && first == q->off + q->got &&
		       last >= first && last < total;
	q->total = q->has_range ? total : 0;
}

static size_t take_header(char *line, size_t one, size_t len, void *ctx)
{
	struct request *q = ctx;
	char text[VALIDATOR_MAX + 16];

	(void)one;
	snprintf(text, sizeof(text), "%.*s", (int)len, line);
	text[strcspn(text, "\r\n")] = '\0';
	/* Of a redirect's headers nothing counts. */
	if (!strncmp(text, "HTTP/", 5)) {
		q->status = strchr(text, ' ') ? strtol(strchr(text, ' '), NULL, 10) : 0;
		q->has_range = false;
		q->validator[0] = '\0';
	} else if (!strncasecmp(text, "content-range:", 14)) {
		take_range(q, text + 14);
	} else if (!strncasecmp(text, "etag:", 5)) {
		snprintf(q->validator, sizeof(q->validator), "%s", text + 5 + strspn(text + 5, " "));
	}
	return len;
}

static bool is_same_file(const struct request *q)
{
	return !q->h || (q->total == q->h->size && !strcmp(q->validator, q->h->validator));
}

/* Returning less than len makes curl give up. */
static size_t take_body(char *bytes, size_t one, size_t len, void *ctx)
{
	struct request *q = ctx;

	(void)one;
	if (q->status != 206)
		return 0;
	q->is_other = !q->has_range || !is_same_file(q);
	if (q->is_other || len > q->len - q->got)
		return 0;
	memcpy(q->buf + q->got, bytes, len);
	q->got += len;
	return len;
}

/* ---- requests -------------------------------------------------------------------------------------------- */

static CURL *borrow(struct https_io *h)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&h->lock);

	while (!h->n_idle)
		pthread_cond_wait(&h->returned, &h->lock);
	return h->idle[--h->n_idle];
}

static void give_back(struct https_io *h, CURL *c)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&h->lock);

	h->idle[h->n_idle++] = c;
	pthread_cond_signal(&h->returned);
}

static CURLcode ask(CURL *c, struct request *q)
{
	char range[64];

	snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)(q->off + q->got),
		 (unsigned long long)(q->off + q->len - 1));
	q->status = 0;
	curl_easy_setopt(c, CURLOPT_RANGE, range);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, q);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, q);
	return curl_easy_perform(c);
}

/* Another try may do better: the way there, or a server that says so itself. */
static bool is_passing(const struct request *q, CURLcode code)
{
	if (q->is_other)
		return false;
	if (q->status >= 500 || q->status == 429 || q->status == 408)
		return true;
	if (q->status && q->status != 206)
		return false;
	return code != CURLE_PEER_FAILED_VERIFICATION && code != CURLE_UNSUPPORTED_PROTOCOL && code != CURLE_URL_MALFORMAT &&
	       code != CURLE_TOO_MANY_REDIRECTS && code != CURLE_COULDNT_RESOLVE_HOST;
}

static int explain(const struct vd_io *io, const struct request *q, CURLcode code, struct vd_error *e)
{
	if (q->is_other && q->h)
		return vd_fail(e, VD_EIO, "%s: the file is another than the one that was opened", io->name);
	if (q->status == 404 || q->status == 410)
		return vd_fail(e, VD_ENOENT, "%s: the server has no such file", io->name);
	if (q->status == 401 || q->status == 403)
		return vd_fail(e, VD_EACCESS, "%s: the server does not allow it (%ld)", io->name, q->status);
	if (q->status == 200 || q->is_other)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the server does not give parts of files", io->name);
	if (q->status && q->status != 206)
		return vd_fail(e, VD_EIO, "%s: the server answers %ld", io->name, q->status);
	return vd_fail(e, VD_EIO, "%s: %s", io->name, curl_easy_strerror(code));
}

static void wait_before(int attempt)
{
	long ns = FIRST_WAIT_NS << attempt;
	struct timespec t = { .tv_sec = ns / 1000000000L, .tv_nsec = ns % 1000000000L };

	nanosleep(&t, NULL);
}

/* All of the range; what came before a failure is not asked for again. */
static int fetch(struct https_io *h, struct request *q, struct vd_error *e)
{
	CURL *c = borrow(h);
	CURLcode code = CURLE_OK;
	int r = 0;

	for (int attempt = 0; q->got < q->len && r == 0; attempt++) {
		uint64_t before = q->got;

		code = ask(c, q);
		if (q->got == q->len)
			break;
		/* Bytes that came are progress, however little. */
		if (q->got > before && !q->is_other)
			attempt = 0;
		if (attempt + 1 == TRIES || !is_passing(q, code))
			r = explain(&h->io, q, code, e);
		else
			wait_before(attempt);
	}
	give_back(h, c);
	return r;
}

/* ---- the file -------------------------------------------------------------------------------------------- */

static int https_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct https_io *h = https_of(io);
	uint64_t inside = off >= h->size ? 0 : vd_min_u64(len, h->size - off);
	struct request q = { .h = h, .buf = buf, .off = off, .len = inside };

	memset((uint8_t *)buf + inside, 0, len - inside);
	return inside ? fetch(h, &q, e) : 0;
}

static int https_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = https_of(io)->size;
	return 0;
}

static int https_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	(void)e;
	*is_data = true;
	*len = https_of(io)->size - off;
	return 0;
}

/* No change gets here: io.c holds it against the flags. */
static int https_flush(struct vd_io *io, struct vd_error *e)
{
	(void)io;
	(void)e;
	return 0;
}

static int https_close(struct vd_io *io, struct vd_error *e)
{
	struct https_io *h = https_of(io);

	(void)e;
	while (h->n_idle)
		curl_easy_cleanup(h->idle[--h->n_idle]);
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->returned);
	free(h->io.name);
	free(h);
	return 0;
}

static const struct vd_io_ops https_ops = {
	.pread = https_pread, .flush = https_flush, .size = https_size, .extent = https_extent, .allocated = https_size,
	.close = https_close,
};

static CURL *new_connection(const char *url)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(c, CURLOPT_MAXREDIRS, REDIRECTS);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	return c;
}

static int learn(struct https_io *h, struct vd_error *e)
{
	uint8_t first;
	struct request q = { .buf = &first, .len = 1 };
	int r = fetch(h, &q, e);

	if (r < 0)
		return r;
	h->size = q.total;
	strcpy(h->validator, q.validator);
	return 0;
}

static int judge(const char *name, unsigned flags, struct vd_error *e)
{
	size_t host = strcspn(name + sizeof(prefix) - 1, "/");

	if (flags & (VD_IO_WRITE | VD_IO_CREATE))
		return vd_fail(e, VD_EREADONLY, "%s: files on web servers are only read", name);
	/* The name goes into messages and lists of processes. */
	if (memchr(name + sizeof(prefix) - 1, '@', host))
		return vd_fail(e, VD_EARG, "an address with a password in it is seen by every user of this machine");
	return 0;
}

int vd_https_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	static atomic_uint_fast64_t last_ino;
	struct https_io *h = NULL;
	int r = judge(name, flags, e);

	if (r == 0)
		r = vd_alloc(1, sizeof(*h), &h, e);
	if (r < 0)
		return r;
	r = vd_io_init(&h->io, &https_ops, name, flags, e);
	if (r < 0) {
		free(h);
		return r;
	}
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->returned, NULL);
	/* No file has this device. */
	h->io.dev = UINT64_MAX - 1;
	h->io.ino = atomic_fetch_add(&last_ino, 1);
	while (h->n_idle < CONNECTIONS && (h->idle[h->n_idle] = new_connection(name)))
		h->n_idle++;
	r = h->n_idle == CONNECTIONS ? learn(h, e) : vd_fail(e, VD_ENOMEM, "%s: not enough memory to connect", name);
	if (r < 0) {
		https_close(&h->io, NULL);
		return r;
	}
	*out = &h->io;
	return 0;
}

#endif
