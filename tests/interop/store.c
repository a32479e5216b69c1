/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drives one store: store WHERE [credentials=F] [ca=F] [pin=P] [patience=N] COMMAND...
 *   create | put KIND NAME FILE | get KIND NAME OFF LEN | size KIND NAME | list KIND | remove KIND NAME | many THREADS N FILE
 * Prints what it got; a failure ends it with the status that the command vdisk would have, in its words.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "backup/store.h"
#include "exit.h"
#include "ledger/files.h"

static struct vd_error e;

static void need(int r)
{
	if (r == 0)
		return;
	fprintf(stderr, "%s: %s\n%s\n", exit_name_of(r), e.message, e.hint);
	exit(exit_status_of(r));
}

static enum store_kind kind_of(const char *word)
{
	static const char *const words[] = { "config", "key", "lock", "snapshot", "index", "pack" };

	for (int i = 0; i < 6; i++)
		if (!strcmp(word, words[i]))
			return i;
	abort();
}

static const char *name_of(const char *word)
{
	return strcmp(word, "-") ? word : "";
}

static int print(void *ctx, const char *name, uint64_t size)
{
	(void)ctx;
	printf("%s %llu\n", name, (unsigned long long)size);
	return 0;
}

static struct {
	struct store *s;
	struct bytes content;
	unsigned n;
	atomic_uint next;
} many;

/* Object i is its number and the file. */
static void *put_some(void *unused)
{
	char name[STORE_NAME_SIZE];
	struct vd_error mine;
	unsigned i;

	while ((i = atomic_fetch_add(&many.next, 1)) < many.n) {
		struct iovec pieces[] = { { &i, sizeof(i) }, { many.content.at, many.content.n } };

		snprintf(name, sizeof(name), "%02x%062x", i % 256, i);
		if (store_put(many.s, STORE_PACK, name, pieces, 2, &mine) < 0) {
			fprintf(stderr, "%s\n", mine.message);
			exit(1);
		}
	}
	return unused;
}

static void put_many(struct store *s, unsigned threads, unsigned n, const char *path)
{
	pthread_t at[64];

	many.s = s;
	many.n = n;
	need(file_read(path, 1 << 30, &many.content, &e));
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&at[i], NULL, put_some, NULL);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(at[i], NULL);
}

static void get(struct store *s, char **word)
{
	size_t n = strtoull(word[4], NULL, 10);
	char *buf = malloc(n + 1);

	need(store_get(s, kind_of(word[1]), name_of(word[2]), strtoull(word[3], NULL, 10), buf, n, &e));
	fwrite(buf, 1, n, stdout);
	free(buf);
}

static void put(struct store *s, char **word)
{
	struct bytes content = { 0 };
	struct iovec piece;

	need(file_read(word[3], 1 << 30, &content, &e));
	piece = (struct iovec){ content.at, content.n };
	need(store_put(s, kind_of(word[1]), name_of(word[2]), &piece, 1, &e));
	bytes_free(&content);
}

static void print_peak(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	fprintf(stderr, "peak %ld KiB\n", used.ru_maxrss);
}

int main(int argc, char **argv)
{
	struct store_access access = { 0 };
	struct store *s = NULL;
	uint64_t size;
	char **word = argv + 2, *value;

	atexit(print_peak);
	for (; word < argv + argc && (value = strchr(*word, '=')) != NULL; word++) {
		value++;
		if (!strncmp(*word, "patience", 8))
			access.patience = (unsigned)atoi(value);
		else
			*(**word == 'p' ? &access.pin : (*word)[1] == 'r' ? &access.credentials : &access.ca) = value;
	}
	need(strcmp(*word, "create") ? store_open(argv[1], &access, &s, &e) : store_create(argv[1], &access, &s, &e));
	if (!strcmp(*word, "put"))
		put(s, word);
	else if (!strcmp(*word, "get"))
		get(s, word);
	else if (!strcmp(*word, "list"))
		need(store_list(s, kind_of(word[1]), print, NULL, &e));
	else if (!strcmp(*word, "remove"))
		need(store_remove(s, kind_of(word[1]), name_of(word[2]), &e));
	else if (!strcmp(*word, "many"))
		put_many(s, (unsigned)atoi(word[1]), (unsigned)atoi(word[2]), word[3]);
	else if (!strcmp(*word, "size")) {
		need(store_size(s, kind_of(word[1]), name_of(word[2]), &size, &e));
		printf("%llu\n", (unsigned long long)size);
	}
	store_close(s);
	return 0;
}
