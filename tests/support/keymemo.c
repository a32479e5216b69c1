/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Questions are told apart by all bytes of the header, not by a sum of them. One thread at a time. */
#include "tests/support/keymemo.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_ANSWERS 48            /* of which the oldest gives way; a header has some MiB */
#define PASS_MAX 64
#define KEY_MAX 64

typedef int get_fn(struct crypt_device *, int, char *, size_t *, const char *, size_t);

static struct answer {
	uint8_t *header;
	size_t header_len, pass_len, key_len;
	int slot, result;
	char pass[PASS_MAX], key[KEY_MAX];
} answers[N_ANSWERS];
static size_t n_given;
static bool is_on;

void keymemo_start(void)
{
	is_on = true;
}

static uint8_t *map_header(struct crypt_device *cd, size_t *len)
{
	int fd = open(crypt_get_device_name(cd), O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p = MAP_FAILED;

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
		p = mmap(NULL, *len = (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static const struct answer *find(const uint8_t *header, size_t len, int slot, const char *pass, size_t pass_len)
{
	for (size_t i = 0; i < N_ANSWERS; i++) {
		const struct answer *a = &answers[i];

		if (a->header && a->slot == slot && a->pass_len == pass_len && !memcmp(a->pass, pass, pass_len) && a->header_len == len &&
		    !memcmp(a->header, header, len))
			return a;
	}
	return NULL;
}

static void remember(const struct answer *now, const uint8_t *header)
{
	struct answer *a = &answers[n_given++ % N_ANSWERS];
	uint8_t *copy = malloc(now->header_len);

	if (!copy)
		return;
	free(a->header);
	*a = *now;
	a->header = memcpy(copy, header, now->header_len);
}

static int ask(get_fn *get, struct crypt_device *cd, struct answer *now, char *key, size_t *key_len)
{
	size_t room = *key_len;

	now->result = get(cd, now->slot, key, key_len, now->pass, now->pass_len);
	now->key_len = now->result < 0 ? 0 : *key_len;
	if (now->key_len > KEY_MAX || room > KEY_MAX)
		abort();
	memcpy(now->key, key, now->key_len);
	return now->result;
}

/* In the place of libcryptsetup's. */
int crypt_volume_key_get(struct crypt_device *cd, int slot, char *key, size_t *key_len, const char *pass, size_t pass_len)
{
	get_fn *get = (get_fn *)dlsym(RTLD_NEXT, "crypt_volume_key_get");
	struct answer now = { .slot = slot, .pass_len = pass_len };
	const struct answer *known;
	uint8_t *header;
	int r;

	if (!is_on || pass_len > PASS_MAX || !(header = map_header(cd, &now.header_len)))
		return get(cd, slot, key, key_len, pass, pass_len);
	memcpy(now.pass, pass, pass_len);
	known = find(header, now.header_len, slot, pass, pass_len);
	if (known) {
		*key_len = known->result < 0 ? *key_len : known->key_len;
		memcpy(key, known->key, known->key_len);
		r = known->result;
	} else {
		r = ask(get, cd, &now, key, key_len);
		if (r >= 0 || r == -EPERM || r == -ENOENT)
			remember(&now, header);
	}
	munmap(header, now.header_len);
	return r;
}
