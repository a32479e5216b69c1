/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks and checks what holds of every walk. What a certain image's walk says is for the tests to claim. */
#include "tests/support/hostwalk.h"

struct host_walk walked;

void walk_free(void)
{
	free(walked.runs);
	walked = (struct host_walk){ 0 };
}

static void take(const struct vd_host_run *runs, size_t n)
{
	walked.runs = realloc(walked.runs, (walked.n + n) * sizeof(*runs));
	assert_non_null(walked.runs);
	memcpy(walked.runs + walked.n, runs, n * sizeof(*runs));
	walked.n += n;
}

/* Sum of lengths is the size of each file: nothing is told twice, nothing is left out. */
static void expect_cover(struct vd_image *img)
{
	uint64_t at = 0, size;
	uint32_t file = 0;
	struct vd_error e;

	for (size_t i = 0; i < walked.n; i++) {
		const struct vd_host_run *r = &walked.runs[i];

		if (r->file != file) {
			expect_ok(vd_host_file_size(img, file, &size, &e), &e);
			assert_int_equal(at, size);
			file = r->file;
			at = 0;
		}
		assert_int_equal(r->off, at);
		assert_true(r->len > 0);
		assert_true(r->owner < VD_N_OWNERS && r->why < VD_N_WHYS);
		at += r->len;
	}
	expect_ok(vd_host_file_size(img, file, &size, &e), &e);
	assert_int_equal(at, size);
}

void walk_host(struct vd_image *img, size_t room)
{
	struct vd_host_run runs[64];
	struct vd_host_walk *w = NULL;
	struct vd_error e;
	size_t n = 1;

	walk_free();
	expect_ok(vd_host_walk_start(img, 0, 0, &w, &e), &e);
	while (n) {
		expect_ok(vd_host_walk_next(w, runs, room, &n, &e), &e);
		assert_true(n <= room);
		take(runs, n);
	}
	walked.n_findings = vd_host_walk_findings(w, &walked.first);
	vd_host_walk_end(w);
	expect_cover(img);
}

const struct vd_host_run *walked_at(uint32_t file, uint64_t off)
{
	for (size_t i = 0; i < walked.n; i++)
		if (walked.runs[i].file == file && off >= walked.runs[i].off && off - walked.runs[i].off < walked.runs[i].len)
			return &walked.runs[i];
	fail_msg("no run holds byte %llu of file %u", (unsigned long long)off, file);
	return NULL;
}

static bool is_of(const struct vd_host_run *r, enum vd_owner owner, enum vd_why why)
{
	return r->owner == owner && (why == VD_N_WHYS || r->why == why);
}

uint64_t walked_bytes(enum vd_owner owner, enum vd_why why)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < walked.n; i++)
		if (is_of(&walked.runs[i], owner, why))
			sum += walked.runs[i].len;
	return sum;
}

const struct vd_host_run *walked_first(enum vd_owner owner, enum vd_why why)
{
	for (size_t i = 0; i < walked.n; i++)
		if (is_of(&walked.runs[i], owner, why))
			return &walked.runs[i];
	return NULL;
}
