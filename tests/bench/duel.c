/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Times shell commands against each other: alternating runs after an untimed preparation, medians, ratios to the first,
 * and the peak memory of the first. What is compared, and whether that is fair, is run's.
 *
 * usage: duel RUNS TITLE PREPARE OURS PEER...
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_RUNS 99
#define MAX_RIVALS 4

struct rival {
	const char *command;
	double seconds[MAX_RUNS];
	long peak_kib;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The command's own memory counts, not a shell's around it: it is exec'ed. */
static bool run(const char *command, double *seconds, long *peak_kib)
{
	double start = now();
	struct rusage use;
	int status;
	pid_t pid = fork();

	if (!pid) {
		char *line = NULL;

		if (asprintf(&line, "exec %s", command) > 0)
			execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &use) < 0)
		return false;
	*seconds = now() - start;
	if (use.ru_maxrss > *peak_kib)
		*peak_kib = use.ru_maxrss;
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(struct rival *r, int n)
{
	qsort(r->seconds, (size_t)n, sizeof(r->seconds[0]), by_value);
	return n % 2 ? r->seconds[n / 2] : (r->seconds[n / 2 - 1] + r->seconds[n / 2]) / 2;
}

static void report(const char *title, struct rival *rivals, int n_rivals, int n_runs)
{
	double ours = median(&rivals[0], n_runs);

	printf("%-34s vdisk %7.3f s [%.3f-%.3f] %4ld MiB", title, ours, rivals[0].seconds[0], rivals[0].seconds[n_runs - 1],
	       rivals[0].peak_kib / 1024);
	for (int i = 1; i < n_rivals; i++) {
		double theirs = median(&rivals[i], n_runs);

		printf("   peer%s %7.3f s [%.3f-%.3f] = %5.2fx", i > 1 ? " (flushed)" : "", theirs, rivals[i].seconds[0],
		       rivals[i].seconds[n_runs - 1], theirs / ours);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	static struct rival rivals[MAX_RIVALS];
	int n_runs = argc > 1 ? atoi(argv[1]) : 0, n_rivals = argc - 4;

	if (n_runs < 1 || n_runs > MAX_RUNS || n_rivals < 1 || n_rivals > MAX_RIVALS) {
		fprintf(stderr, "usage: duel RUNS TITLE PREPARE OURS PEER...\n");
		return 2;
	}
	for (int i = 0; i < n_rivals; i++)
		rivals[i].command = argv[4 + i];
	for (int round = 0; round < n_runs; round++)
		for (int i = 0; i < n_rivals; i++) {
			if (system(argv[3]) || !run(rivals[i].command, &rivals[i].seconds[round], &rivals[i].peak_kib)) {
				fprintf(stderr, "duel: %s: failed: %s\n", argv[2], rivals[i].command);
				return 1;
			}
		}
	report(argv[2], rivals, n_rivals, n_runs);
	return 0;
}
