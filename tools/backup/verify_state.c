/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line a pack: its name, and when its packs' bytes and its data were verified. Reads and writes that file; who asks is verify_packs.c. */
#include "backup/verify_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger/files.h"
#include "ui.h"

#define HEAD "vdisk verified 1\n"
#define FILE_MAX (512u << 20)
#define MODE 0600

struct line {
	uint8_t id[ID_SIZE];
	int64_t packs, data;
};
struct verify_state {
	pthread_mutex_t mutex;
	struct line *at;                /* the first n_sorted are in order; what is noted comes behind */
	size_t n, n_sorted, room;
};

static int by_id(const void *a, const void *b)
{
	return memcmp(((const struct line *)a)->id, ((const struct line *)b)->id, ID_SIZE);
}

static struct line *find(const struct verify_state *s, const uint8_t id[ID_SIZE])
{
	struct line key;

	memcpy(key.id, id, ID_SIZE);
	return s->n_sorted ? bsearch(&key, s->at, s->n_sorted, sizeof(key), by_id) : NULL;
}

static void add(struct verify_state *s, const struct line *l)
{
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 256;
		s->at = reallocarray(s->at, s->room, sizeof(*s->at));
		if (!s->at)
			ui_out_of_memory();
	}
	s->at[s->n++] = *l;
}

static void read_lines(struct verify_state *s, const char *text)
{
	while (*text) {
		char hex[ID_HEX_SIZE] = "";
		long long packs, data;
		struct line l;

		if (sscanf(text, "%64[0-9a-f] %lld %lld", hex, &packs, &data) == 3 && id_read(hex, l.id)) {
			l.packs = packs;
			l.data = data;
			add(s, &l);
		}
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	if (s->n)
		qsort(s->at, s->n, sizeof(*s->at), by_id);
	s->n_sorted = s->n;
}

int verify_state_open(const char *path, struct verify_state **out, struct vd_error *e)
{
	struct verify_state *s = calloc(1, sizeof(*s));
	struct bytes text = { 0 };
	int r;

	if (!s)
		ui_out_of_memory();
	pthread_mutex_init(&s->mutex, NULL);
	r = file_read(path, FILE_MAX, &text, e);
	bytes_add(&text, "", 1);
	if (r == 0 && !strncmp((char *)text.at, HEAD, strlen(HEAD)))
		read_lines(s, (char *)text.at + strlen(HEAD));
	bytes_free(&text);
	*out = s;
	return r == VD_ENOENT ? 0 : r;
}

int64_t verify_state_when(const struct verify_state *s, const uint8_t pack[ID_SIZE], enum verify_level level)
{
	const struct line *l = find(s, pack);

	if (!l)
		return 0;
	return level == VERIFY_PACKS && l->packs > l->data ? l->packs : l->data;
}

void verify_state_note(struct verify_state *s, const uint8_t pack[ID_SIZE], enum verify_level level, int64_t when)
{
	struct line *l, new = { 0 };

	pthread_mutex_lock(&s->mutex);
	l = find(s, pack);
	if (!l) {
		memcpy(new.id, pack, ID_SIZE);
		l = &new;
	}
	*(level == VERIFY_PACKS ? &l->packs : &l->data) = when;
	if (l == &new)
		add(s, &new);
	pthread_mutex_unlock(&s->mutex);
}

int verify_state_save(struct verify_state *s, const char *path, struct vd_error *e)
{
	struct bytes text = { 0 };
	char hex[ID_HEX_SIZE];
	int r;

	bytes_text(&text, HEAD);
	for (size_t i = 0; i < s->n; i++) {
		id_show(s->at[i].id, hex);
		bytes_format(&text, "%s %lld %lld\n", hex, (long long)s->at[i].packs, (long long)s->at[i].data);
	}
	r = file_write(path, &text, MODE, true, e);
	bytes_free(&text);
	return r;
}

void verify_state_free(struct verify_state *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->mutex);
	free(s->at);
	free(s);
}
