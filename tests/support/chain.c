/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes the chains and looks at them. */
#include "tests/support/chain.h"

#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/qcow2_check.h"

#define KIB 1024
#define KDF { .iterations = 1000 }
#define QCOW2 &vd_format_qcow2
#define VMDK &vd_format_vmdk

const struct chain_kind chain_kinds[] = {
	{ "raw", &vd_format_raw, false, false, { 0 } },
	{ "luks", &vd_format_raw, true, false, { .kdf = KDF } },
	{ "packed", QCOW2, false, true, { .cluster_size = 16 * KIB } },
	{ "qcow2", QCOW2, false, false, { 0 } },
	{ "qcow2 512", QCOW2, false, false, { .cluster_size = 512 } },
	{ "qcow2 4k", QCOW2, false, false, { .cluster_size = 4 * KIB } },
	{ "qcow2 v2", QCOW2, false, false, { .cluster_size = 4 * KIB, .flags = VD_CREATE_COMPAT_V2 } },
	{ "qcow2 extended l2", QCOW2, false, false, { .cluster_size = 16 * KIB, .flags = VD_CREATE_EXTENDED_L2 } },
	{ "qcow2 data file", QCOW2, false, false, { .cluster_size = 4 * KIB, .data_file = "x" } },
	{ "qcow2 luks", QCOW2, true, false, { .cluster_size = 4 * KIB, .kdf = KDF } },
	/* Over others of their format alone. */
	{ "vhd", &vd_format_vhd, false, false, { .cluster_size = 4 * KIB } },
	{ "vhd 64k", &vd_format_vhd, false, false, { .cluster_size = 64 * KIB } },
	{ "vhdx", &vd_format_vhdx, false, false, { .cluster_size = 1024 * KIB } },
	{ "vmdk", VMDK, false, false, { 0 } },
	{ "vmdk 4k", VMDK, false, false, { .cluster_size = 4 * KIB, .flags = VD_CREATE_ZEROED_GRAINS } },
	{ "vmdk in parts", VMDK, false, false, { .subformat = "twoGbMaxExtentSparse", .cluster_size = 4 * KIB } },
};
const size_t n_chain_kinds = sizeof(chain_kinds) / sizeof(chain_kinds[0]);
#define FIRST_OVERLAY 3
#define END_OVERLAY 10

const struct chain_kind *chain_kind_named(const char *name)
{
	for (size_t i = 0; i < n_chain_kinds; i++)
		if (!strcmp(chain_kinds[i].name, name))
			return &chain_kinds[i];
	fail_msg("there is no kind '%s'", name);
	return NULL;
}

const struct chain_kind *chain_any_kind(struct chain *c, int parent)
{
	size_t first = parent < 0 ? 0 : FIRST_OVERLAY;

	return &chain_kinds[first + chance_below(&c->chance, END_OVERLAY - first)];
}

const char *chain_format(const struct chain_layer *l)
{
	return l->kind->format == &vd_format_raw && l->kind->is_luks ? "luks" : l->kind->format->name;
}

void chain_init(struct chain *c, uint64_t seed)
{
	*c = (struct chain){ .chance = seed };
	assert_int_equal(vd_key_from_bytes("correct horse", 13, &c->key, NULL), 0);
}

void chain_free(struct chain *c)
{
	for (size_t i = 0; i < c->n; i++)
		model_free(&c->at[i].m);
	vd_key_free(c->key);
}

/* ---- making --------------------------------------------------------------------------------------------- */

/* Of another cluster count than the parent, often; or a little more or less. */
static uint64_t choose_size(struct chain *c, int parent)
{
	uint64_t *chance = &c->chance, size;

	if (parent < 0 || chance_below(chance, 3) == 0)
		return 512 * (20 + chance_below(chance, 700));
	size = c->at[parent].m.size;
	return vd_round_up(size, 512) + 512 * chance_below(chance, 3);
}

static void fill(struct chain *c, struct model *m, struct vd_image *img)
{
	uint64_t n = chance_below(&c->chance, 6);

	if (img->layer.is_container)
		model_zero(m, img, 0, m->size);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t off = chance_below(&c->chance, m->size);
		uint64_t len = vd_min_u64(1 + chance_below(&c->chance, chance_below(&c->chance, 2) ? 90000 : 3000), m->size - off);

		if (chance_below(&c->chance, 3))
			model_write(m, img, off, len);
		else
			model_zero(m, img, off, len);
	}
}

/* The disk goes to "s" in clear and from there, compressed, to its place. */
static void pack(struct model *m, struct vd_image *img)
{
	struct vd_image *from;
	struct vd_error e;

	disk_put_raw("s", m->size, 0);
	from = disk_open(&vd_format_raw, "s", VD_OPEN_WRITE);
	for (uint64_t off = 0; off < m->size; off += 40000)
		model_fill(m, from, off, vd_min_u64(20000, m->size - off), 1 + off / 40000);
	expect_ok(vd_image_copy(from, img, true, NULL, NULL, &e), &e);
	disk_close(from);
}

size_t chain_add(struct chain *c, const struct chain_kind *kind, int parent)
{
	struct chain_layer *l = &c->at[c->n];
	struct vd_create_opts opts = kind->opts;
	struct vd_image *img = NULL;
	struct vd_error e;

	*l = (struct chain_layer){ .kind = kind, .parent = parent };
	snprintf(l->name, sizeof(l->name), "l%zu", c->n);
	model_init(&l->m, choose_size(c, parent), chance_next(&c->chance));
	opts.struct_size = sizeof(opts);
	opts.format = chain_format(l);
	opts.size = l->m.size;
	opts.gate = disks_gate;
	opts.key = kind->is_luks ? c->key : NULL;
	opts.backing_keys = &c->key;
	opts.n_backing_keys = 1;
	if (opts.data_file)
		opts.data_file = l->name[1] == '0' ? "x0" : l->name[1] == '1' ? "x1" : l->name[1] == '2' ? "x2" : "x3";
	if (parent >= 0) {
		const struct chain_layer *below = &c->at[parent];

		opts.backing_file = below->name;
		opts.backing_format = chain_format(below);
		memcpy(l->m.bytes, below->m.bytes, vd_min_u64(l->m.size, below->m.size));
	}
	expect_ok(vd_image_create_on(disks.host, kind->format, l->name, &opts, &img, &e), &e);
	if (kind->is_packed)
		pack(&l->m, img);
	fill(c, &l->m, img);
	disk_commit(img);
	disk_close(img);
	return c->n++;
}

/* ---- looking -------------------------------------------------------------------------------------------- */

int chain_open_on(const struct chain *c, struct vd_host *host, size_t i, unsigned flags, struct vd_image **img,
		  struct vd_error *e)
{
	const struct chain_layer *l = &c->at[i];
	struct vd_open_opts opts = disk_open_opts(l->kind->format, flags);

	opts.format = chain_format(l);
	opts.keys = &c->key;
	opts.n_keys = 1;
	return vd_image_open_on(host, l->kind->format, l->name, &opts, img, e);
}

struct vd_image *chain_open(const struct chain *c, size_t i, unsigned flags)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(chain_open_on(c, disks.host, i, flags, &img, &e), &e);
	return img;
}

static void check_tables(const struct chain_layer *l, struct vd_image *img)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct qcow2_verdict v;
	struct vd_error e;

	if (l->kind->format == QCOW2) {
		v = qcow2_check(disks.mem, l->name);
		if (v.n_errors || v.n_leaks)
			fail_msg("%s: %s", l->name, v.n_errors ? v.first : "leaked clusters");
	} else if (l->kind->format->repair) {
		expect_ok(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e), &e);
		assert_int_equal(rep.corruptions + rep.leaks, 0);
	}
}

void chain_check(const struct chain *c, size_t i)
{
	struct vd_image *img = chain_open(c, i, 0);

	assert_int_equal(vd_image_size(img), c->at[i].m.size);
	model_check_all(&c->at[i].m, img);
	check_tables(&c->at[i], img);
	disk_close(img);
}
