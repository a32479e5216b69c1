/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Feeds stored inputs to a fuzz target without libFuzzer, so that every build of any compiler replays the corpus. What
 * is wrong with an input the target tells by dying.
 * usage: fuzz_NAME.replay FILE|FOLDER...
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LONGEST (64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static unsigned long n_inputs;

static void give_up(const char *path)
{
	perror(path);
	printf("1..1\nnot ok 1 - %s can be read\n", path);
	exit(1);
}

/* In a block of its exact size: one byte past the input is one byte past the block. */
static void replay_file(const char *path, size_t len)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(len ? len : 1);

	if (!f || !data || fread(data, 1, len, f) != len)
		give_up(path);
	fclose(f);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
	n_inputs++;
}

static void replay(const char *path);

static void replay_folder(const char *path)
{
	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort);
	char below[4096];

	if (n < 0)
		give_up(path);
	for (int i = 0; i < n; i++) {
		snprintf(below, sizeof(below), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			replay(below);
		free(names[i]);
	}
	free(names);
}

static void replay(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		give_up(path);
	if (S_ISDIR(st.st_mode))
		replay_folder(path);
	else if (st.st_size <= LONGEST)
		replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	name = name ? name + 1 : argv[0];
	printf("1..1\n%s 1 - %lu inputs of %.*s replayed\n", n_inputs ? "ok" : "not ok", n_inputs,
	       (int)strcspn(name, "."), name);
	return n_inputs ? 0 : 1;
}
