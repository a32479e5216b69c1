/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Does the acts; what has to hold while and after they are done, the tests say. */
#include "tests/support/chain_acts.h"

static int rebase_onto(const struct chain *c, struct vd_image *img, int parent, struct vd_error *e)
{
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .flags = VD_REBASE_IN_CLEAR, .gate = disks_gate, .keys = &c->key, .n_keys = 1,
		.backing_file = parent < 0 ? NULL : c->at[parent].name,
		.backing_format = parent < 0 ? NULL : chain_format(&c->at[parent]),
	};

	return vd_backing_rebase(img, &o, NULL, NULL, e);
}

static int do_rebase(const struct chain *c, struct vd_image *img, struct vd_error *e)
{
	return rebase_onto(c, img, 3, e);
}

static int do_flatten(const struct chain *c, struct vd_image *img, struct vd_error *e)
{
	return rebase_onto(c, img, -1, e);
}

static int commit_to(const struct chain *c, struct vd_image *img, unsigned depth, struct vd_error *e)
{
	struct vd_commit_opts o = {
		.struct_size = sizeof(o), .flags = VD_COMMIT_IN_CLEAR, .gate = disks_gate, .keys = &c->key, .n_keys = 1,
		.depth = depth,
	};

	return vd_backing_commit(img, &o, NULL, NULL, e);
}

static int do_commit(const struct chain *c, struct vd_image *img, struct vd_error *e)
{
	return commit_to(c, img, 1, e);
}

static int do_commit_below(const struct chain *c, struct vd_image *img, struct vd_error *e)
{
	return commit_to(c, img, 2, e);
}

const struct chain_act chain_acts[CHAIN_ACTS] = {
	{ "rebase", do_rebase, "l1", "l3" }, { "flatten", do_flatten, "l1", "" }, { "commit", do_commit, "l1", "l1" },
	{ "commit --base", do_commit_below, "l1", "l0" },
};

void chain_make(struct chain *c, const char *const kinds[4], uint64_t seed)
{
	chain_init(c, seed);
	for (int i = 0; i < 3; i++)
		chain_add(c, chain_kind_named(kinds[i]), i - 1);
	chain_add(c, chain_kind_named(kinds[3]), -1);
}

bool chain_act_suits(const struct chain_act *act, const char *const kinds[4])
{
	return act->run != do_commit_below || !chain_kind_named(kinds[2])->format->expect_parent;
}
