/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rebase, flatten and commit on random chains beside byte arrays. VD_RANDOM_CHAINS: how many; VD_RANDOM_SEED: another
 * sequence of them.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/chain.h"

#define CHAINS 60

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static struct chain c;

static struct vd_rebase_opts rebase_opts(int parent)
{
	return (struct vd_rebase_opts){
		.struct_size = sizeof(struct vd_rebase_opts), .flags = VD_REBASE_IN_CLEAR, .gate = disks_gate,
		.keys = &c.key, .n_keys = 1,
		.backing_file = parent < 0 ? NULL : c.at[parent].name,
		.backing_format = parent < 0 ? NULL : chain_format(&c.at[parent]),
	};
}

static struct vd_commit_opts commit_opts(unsigned depth, unsigned flags)
{
	return (struct vd_commit_opts){
		.struct_size = sizeof(struct vd_commit_opts), .flags = VD_COMMIT_IN_CLEAR | flags, .gate = disks_gate,
		.keys = &c.key, .n_keys = 1, .depth = depth,
	};
}

/* ---- random --------------------------------------------------------------------------------------------- */

static void make_chain(uint64_t seed)
{
	size_t n;
	int parent = -1;

	assert_int_equal(disks_start(NULL), 0);
	chain_init(&c, seed);
	n = 2 + chance_below(&c.chance, CHAIN_MAX - 1);
	for (size_t i = 0; i < n; i++) {
		/* Half of them do not stand on what was made before. */
		if (i + 1 < n && chance_below(&c.chance, 2) == 0)
			parent = -1;
		parent = (int)chain_add(&c, chain_any_kind(&c, i + 1 == n ? 0 : parent), parent);
	}
}

static void end_chain(void)
{
	chain_free(&c);
	assert_int_equal(disks_stop(NULL), 0);
}

static void print_chain(uint64_t seed)
{
	print_message("# seed %llu:", (unsigned long long)seed);
	for (size_t i = 0; i < c.n; i++)
		print_message(" %s (%s, %llu) over %d", c.at[i].name, c.at[i].kind->name, (unsigned long long)c.at[i].m.size,
			      c.at[i].parent);
	print_message("\n");
}

static void rebase_at_random(void)
{
	size_t top = c.n - 1;
	int parent = (int)chance_below(&c.chance, c.n) - 1;
	struct vd_rebase_opts opts = rebase_opts(parent);
	struct vd_image *img = chain_open(&c, top, VD_OPEN_WRITE);
	struct vd_error e;

	print_message("# rebase onto %d\n", parent);
	expect_ok(vd_backing_rebase(img, &opts, NULL, NULL, &e), &e);
	c.at[top].parent = parent;
	model_check_all(&c.at[top].m, img);
	if (chance_below(&c.chance, 2))
		model_write(&c.at[top].m, img, c.at[top].m.size / 2, 1000);
	disk_close(img);
}

static unsigned depth_of_chain(size_t i)
{
	unsigned depth = 0;

	for (; c.at[i].parent >= 0; i = (size_t)c.at[i].parent)
		depth++;
	return depth;
}

/* The base gets the overlay's disk, and keeps what it has past its end. */
static void note_commit(struct chain_layer *base, const struct chain_layer *top)
{
	uint64_t size = vd_max_u64(base->m.size, top->m.size);

	base->m.bytes = realloc(base->m.bytes, size + 1);
	base->m.size = size;
	memcpy(base->m.bytes, top->m.bytes, top->m.size);
}

static void commit_at_random(void)
{
	size_t top = c.n - 1, base = top;
	unsigned max = depth_of_chain(top), depth = max ? 1 + chance_below(&c.chance, max) : 0;
	struct vd_commit_opts opts = commit_opts(depth, chance_below(&c.chance, 3) ? 0 : VD_COMMIT_KEEP);
	struct vd_image *img;
	struct vd_error e;

	if (!max)
		return;
	for (unsigned i = 0; i < depth; i++)
		base = (size_t)c.at[base].parent;
	print_message("# commit into %zu%s\n", base, opts.flags & VD_COMMIT_KEEP ? ", keep" : "");
	img = chain_open(&c, top, VD_OPEN_WRITE);
	expect_ok(vd_backing_commit(img, &opts, NULL, NULL, &e), &e);
	note_commit(&c.at[base], &c.at[top]);
	if (!(opts.flags & VD_COMMIT_KEEP))
		c.at[top].parent = (int)base;
	model_check_all(&c.at[top].m, img);
	disk_close(img);
	chain_check(&c, base);
}

static void acts_keep_the_disk(void **state)
{
	uint64_t seed = setting("VD_RANDOM_SEED", 1), n = setting("VD_RANDOM_CHAINS", CHAINS);

	(void)state;
	for (uint64_t i = 0; i < n; i++, seed++) {
		make_chain(seed);
		print_chain(seed);
		chain_check(&c, c.n - 1);
		for (int act = 0; act < 4; act++) {
			if (chance_below(&c.chance, 2))
				rebase_at_random();
			else
				commit_at_random();
			chain_check(&c, c.n - 1);
		}
		end_chain();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acts_keep_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
