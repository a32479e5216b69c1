/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Key files are JSON that anybody may read; the master key inside is sealed, and handled in locked memory only. */
#include "backup/keyfile.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backup/jread.h"
#include "backup/snapshot.h"
#include "fail.h"
#include "keyhelpers/base64.h"
#include "locked.h"

#define SALT_SIZE 64
/* What restic takes where it has not measured: a sixth of a second, 32 MiB. */
#define SCRYPT_N 32768
#define SCRYPT_R 8
#define SCRYPT_P 1
#define MASTER_MAX 512          /* bytes of the JSON in it */

/* All that handles the secret, in one piece of locked memory. */
struct workshop {
	struct seal_key user;
	char json[MASTER_MAX];
	char b64[64];
};

void writer_host(char *out, size_t size)
{
	if (gethostname(out, size) < 0)
		snprintf(out, size, "localhost");
	out[size - 1] = '\0';
}

void writer_user(char *out, size_t size)
{
	struct passwd pw, *found = NULL;
	char buf[4096];

	if (getpwuid_r(geteuid(), &pw, buf, sizeof(buf), &found) == 0 && found)
		snprintf(out, size, "%s", found->pw_name);
	else
		snprintf(out, size, "%u", (unsigned)geteuid());
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static int master_json(struct workshop *w, const struct seal_key *m)
{
	size_t n;

	base64_encode(m->mac_k, sizeof(m->mac_k), w->b64);
	n = (size_t)snprintf(w->json, MASTER_MAX, "{\"mac\":{\"k\":\"%s\"", w->b64);
	base64_encode(m->mac_r, sizeof(m->mac_r), w->b64);
	n += (size_t)snprintf(w->json + n, MASTER_MAX - n, ",\"r\":\"%s\"}", w->b64);
	base64_encode(m->encrypt, sizeof(m->encrypt), w->b64);
	return (int)n + snprintf(w->json + n, MASTER_MAX - n, ",\"encrypt\":\"%s\"}", w->b64);
}

static void write_text(const uint8_t salt[SALT_SIZE], const uint8_t *sealed, size_t n, struct bytes *text)
{
	char host[256], user[256], when[40], b64[BASE64_LEN(MASTER_MAX + SEAL_OVERHEAD) + 1];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	time_show(now.tv_sec, (uint32_t)now.tv_nsec, when);
	writer_host(host, sizeof(host));
	writer_user(user, sizeof(user));
	bytes_format(text, "{\"created\":\"%s\",\"username\":", when);
	jwrite_text(text, user);
	bytes_text(text, ",\"hostname\":");
	jwrite_text(text, host);
	base64_encode(salt, SALT_SIZE, b64);
	bytes_format(text, ",\"kdf\":\"scrypt\",\"N\":%u,\"r\":%u,\"p\":%u,\"salt\":\"%s\"", SCRYPT_N, SCRYPT_R, SCRYPT_P, b64);
	base64_encode(sealed, n, b64);
	bytes_format(text, ",\"data\":\"%s\"}", b64);
}

int keyfile_write(const struct vd_key *secret, const struct seal_key *master, struct bytes *text, struct vd_error *e)
{
	struct workshop *w = (struct workshop *)(void *)locked_new(sizeof(*w));
	uint8_t salt[SALT_SIZE], sealed[MASTER_MAX + SEAL_OVERHEAD];
	struct sealer *sealer = NULL;
	size_t n = 0;
	int r;

	seal_random(salt, sizeof(salt));
	r = seal_derive(secret, salt, sizeof(salt), &(struct scrypt_cost){ SCRYPT_N, SCRYPT_R, SCRYPT_P }, &w->user, e);
	if (r == 0)
		r = sealer_new(&w->user, &sealer, e);
	if (r == 0) {
		n = (size_t)master_json(w, master);
		r = seal(sealer, w->json, n, sealed, e);
	}
	if (r == 0)
		write_text(salt, sealed, n + SEAL_OVERHEAD, text);
	sealer_free(sealer);
	locked_free((char *)w, sizeof(*w));
	return r;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

struct keyfile {
	char kdf[16];
	struct scrypt_cost cost;
	uint8_t salt[256], sealed[MASTER_MAX + SEAL_OVERHEAD];
	size_t salt_len, sealed_len;
};

static void read_base64(struct jread *j, char *tmp, size_t tmp_size, uint8_t *out, size_t size, size_t *len)
{
	size_t n = jread_text(j, tmp, tmp_size);

	if (!base64_decode(tmp, n, out, size, len))
		j->is_bad = true;
}

static int parse(const char *name, const struct bytes *text, struct keyfile *k, struct vd_error *e)
{
	struct jread j = jread_of(text->at, text->n);
	char key[32], tmp[1024];

	*k = (struct keyfile){ 0 };
	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (!strcmp(key, "kdf"))
				jread_text(&j, k->kdf, sizeof(k->kdf));
			else if (!strcmp(key, "N"))
				k->cost.n = jread_u64(&j);
			else if (!strcmp(key, "r"))
				k->cost.r = jread_u64(&j);
			else if (!strcmp(key, "p"))
				k->cost.p = jread_u64(&j);
			else if (!strcmp(key, "salt"))
				read_base64(&j, tmp, sizeof(tmp), k->salt, sizeof(k->salt), &k->salt_len);
			else if (!strcmp(key, "data"))
				read_base64(&j, tmp, sizeof(tmp), k->sealed, sizeof(k->sealed), &k->sealed_len);
			else
				jread_skip(&j);
		}
	if (!jread_is_done(&j) || strcmp(k->kdf, "scrypt") != 0 || k->sealed_len < SEAL_OVERHEAD)
		return fail(e, VD_ECORRUPT, "key %.8s: it is not what a key file looks like", name);
	return 0;
}

static void read_mac(struct jread *j, struct workshop *w, struct seal_key *m, size_t *have)
{
	char key[8];
	size_t len = 0;

	if (!jread_object(j))
		return;
	while (jread_key(j, key, sizeof(key))) {
		if (!strcmp(key, "k"))
			read_base64(j, w->b64, sizeof(w->b64), m->mac_k, sizeof(m->mac_k), &len);
		else if (!strcmp(key, "r"))
			read_base64(j, w->b64, sizeof(w->b64), m->mac_r, sizeof(m->mac_r), &len);
		else
			jread_skip(j);
		*have += len;
		len = 0;
	}
}

static int parse_master(const char *name, struct workshop *w, size_t n, struct seal_key *m, struct vd_error *e)
{
	struct jread j = jread_of(w->json, n);
	size_t have = 0, len = 0;
	char key[16];

	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (!strcmp(key, "mac"))
				read_mac(&j, w, m, &have);
			else if (!strcmp(key, "encrypt"))
				read_base64(&j, w->b64, sizeof(w->b64), m->encrypt, sizeof(m->encrypt), &len);
			else
				jread_skip(&j);
		}
	if (!jread_is_done(&j) || have + len != sizeof(*m))
		return fail(e, VD_ECORRUPT, "key %.8s: what is sealed in it is no master key", name);
	return 0;
}

int keyfile_open(const char *name, const struct bytes *text, const struct vd_key *secret, struct seal_key *master, struct vd_error *e)
{
	struct workshop *w;
	struct sealer *sealer = NULL;
	struct keyfile k;
	int r = parse(name, text, &k, e);

	if (r < 0)
		return r;
	w = (struct workshop *)(void *)locked_new(sizeof(*w));
	r = seal_derive(secret, k.salt, k.salt_len, &k.cost, &w->user, e);
	if (r == 0)
		r = sealer_new(&w->user, &sealer, e);
	if (r == 0)
		r = unseal(sealer, k.sealed, k.sealed_len, (uint8_t *)w->json, e);
	if (r == VD_EAUTH)
		r = fail(e, VD_EKEY, "key %.8s: the secret is not its", name);
	else if (r == 0)
		r = parse_master(name, w, k.sealed_len - SEAL_OVERHEAD, master, e);
	sealer_free(sealer);
	locked_free((char *)w, sizeof(*w));
	return r;
}
