/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qemu as witness of the map: images that qemu-img and qemu-io make, each sector of them where `qemu-img map` says.
 * What is read there, and images made here, the scripts in tests/interop compare.
 */
#include "tests/support/disks.h"

#include <stdio.h>

#include "tests/support/tempdir.h"

#define qcow2 (&vd_format_qcow2)
#define SIZE (8u << 20)
#define SECTOR 512u
#define N_SECTORS (SIZE / SECTOR)

/*
 * As `qemu-img map --output=json` tells it. "data" is true for compressed clusters too, which have no offset; "zero" says
 * no more of the tables: it may come with "data", where qemu has looked for holes in the host file.
 */
struct place {
	bool data, has_off;
	uint64_t off;
};

static void run(const char *fmt, ...) VD_PRINTF(1, 2);
static void run(const char *fmt, ...)
{
	char command[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (system(command))
		fail_msg("failed: %s", command);
}

static bool has_qemu(void)
{
	return system("qemu-img --version >/dev/null 2>&1 && qemu-io --version >/dev/null 2>&1") == 0;
}

/* One of each kind of cluster, and of each kind beside each. */
static void make(const char *options)
{
	run("qemu-img create -q -f qcow2 -o %s x.qcow2 8M", options);
	run("qemu-io -f qcow2 -c 'write -P 1 0 3M' -c 'write -P 2 3500000 3000' -c 'write -z 64k 64k' -c 'write -z -u 192k 64k'"
	    " -c 'write -z -u 1M 1M' -c 'discard 320k 64k' -c 'write -z 5000000 1000' -c 'write -P 3 2M 4k' x.qcow2 >log 2>&1");
	/* Not into every kind of image. */
	if (system("qemu-io -f qcow2 -c 'write -c -P 4 4M 2M' x.qcow2 >log 2>&1"))
		return;
}

static const char *after(const char *line, const char *key)
{
	const char *p = strstr(line, key);

	return p ? p + strlen(key) : NULL;
}

static void ask_qemu(struct place *places)
{
	FILE *f = popen("qemu-img map --output=json x.qcow2", "r");
	uint64_t next = 0;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		const char *start = after(line, "\"start\": "), *len = after(line, "\"length\": "), *off = after(line, "\"offset\": ");
		uint64_t from = start ? strtoull(start, NULL, 10) : 0, n = len ? strtoull(len, NULL, 10) : 0;

		for (uint64_t at = from; at < from + n; at += SECTOR)
			places[at / SECTOR] = (struct place){
				.data = strstr(line, "\"data\": true"), .has_off = off,
				.off = off ? strtoull(off, NULL, 10) + (at - from) : 0,
			};
		assert_true(!start || from == next);
		next = from + n;
	}
	assert_int_equal(pclose(f), 0);
	assert_true(next == SIZE || next == 0);
}

static void ask_driver(struct place *places)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .flags = VD_OPEN_METADATA, .format = "qcow2" };
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open("x.qcow2", &opts, &img, &e), &e);
	for (uint64_t at = 0; at < SIZE;) {
		struct vd_run runs[5];
		size_t n = 5;

		expect_ok(qcow2->map(img->state, at, SIZE - at, 0, runs, &n, &e), &e);
		for (size_t i = 0; i < n; at += runs[i++].len)
			for (uint64_t done = 0; done < runs[i].len; done += SECTOR)
				places[(at + done) / SECTOR] = (struct place){
					.data = runs[i].where == VD_DATA || runs[i].where == VD_PACKED,
					.has_off = runs[i].where == VD_DATA || runs[i].flags & VD_RUN_HOSTED,
					.off = runs[i].host_len && runs[i].where != VD_PACKED ? runs[i].host_off + done : 0,
				};
	}
	vd_image_abort(img);
}

/* qemu tells the place of a hole in a cluster of which other parts are in use, too. */
static bool agree(const struct place *ours, const struct place *theirs)
{
	if (!ours->data && !theirs->data && !ours->has_off)
		return true;
	return ours->data == theirs->data && ours->has_off == theirs->has_off && ours->off == theirs->off;
}

static void each_sector_is_where_qemu_says(void **state)
{
	static const char *const options[] = {
		"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1",
		"preallocation=metadata", "extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M",
		"extended_l2=on,preallocation=metadata", "compression_type=zstd", "data_file=x.data", "data_file=x.data,extended_l2=on",
	};
	static struct place theirs[N_SECTORS], ours[N_SECTORS];

	(void)state;
	if (!has_qemu())
		skip();
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		make(options[i]);
		memset(theirs, 0, sizeof(theirs));
		ask_qemu(theirs);
		ask_driver(ours);
		for (uint64_t k = 0; k < N_SECTORS; k++)
			if (!agree(&ours[k], &theirs[k]))
				fail_msg("%s: sector %llu: data %d at %lld, qemu: data %d at %lld", options[i], (unsigned long long)k,
					 ours[k].data, (long long)ours[k].off, theirs[k].data, (long long)theirs[k].off);
		run("rm -f x.qcow2 x.data");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_sector_is_where_qemu_says, vd_tempdir_enter, vd_tempdir_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
