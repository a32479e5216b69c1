/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Converts images in place, recorded, and looks at the states in which a crash could have left them: by turns each is
 * resumed or reverted, and afterwards the disk, and its snapshot, hold byte by byte what they held. Once it is encrypted, no
 * byte of the host's files shows what was planted in the disk, or behind the data in what is nobody's.
 *
 * The argument is a format: of its kinds and acts together 10,000 states are looked at. VD_CRASH_STATES: how many of each conversion
 * instead, drawn evenly from all; 0: all. VD_CRASH_RANDOM: how many random ones at each cut there are at least among these, by
 * VD_RANDOM_SEED. VD_CRASH_KIND: one kind alone. VD_CRASH_FAULTS: how many operations, and allocations, of each kind
 * fail, one at a time; after that, too, an image is whole or goes on to the same bytes.
 */
#include <errno.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/core/inplace.h"
#include "tests/support/keymemo.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_STATES 10000          /* of a format */
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define BATCH (64u << 10)
#define MARK "planted by the test, to be found"

static const struct kind {
	const char *name, *variant;
	const char *header;             /* file of its own that the LUKS header is in, or will be */
} kinds[] = {
	{ "raw", "raw", NULL },
	{ "raw detached", "raw", "h" },
	{ "qcow2", "qcow2", NULL },
	{ "qcow2 512", "qcow2 512", NULL },
	{ "qcow2 deflate", "qcow2 deflate", NULL },
	{ "qcow2 extended l2", "qcow2 extended l2", NULL },
	{ "vhd 4k", "vhd 4k", NULL },
	{ "vhd 4k detached", "vhd 4k", "h" },
	{ "vhd fixed", "vhd fixed", NULL },
	{ "vhdx", "vhdx", NULL },
	{ "vhdx fixed", "vhdx fixed", NULL },
	{ "vmdk", "vmdk", NULL },
	{ "vmdk flat", "vmdk flat", NULL },
	{ "vmdk in parts", "vmdk in parts", NULL },
	{ "vhd over vhd", "vhd over vhd", NULL },
	{ "vhdx over vhdx", "vhdx over vhdx", NULL },
	{ "vmdk over vmdk", "vmdk over vmdk", NULL },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct act {
	const char *name;
	enum vd_inplace_act act;
	enum vd_resilience resilience;
} acts[] = {
	{ "encrypt", VD_INPLACE_ENCRYPT, VD_RESILIENCE_JOURNAL },
	{ "encrypt by checksum", VD_INPLACE_ENCRYPT, VD_RESILIENCE_CHECKSUM },
	{ "decrypt", VD_INPLACE_DECRYPT, VD_RESILIENCE_JOURNAL },
	{ "decrypt by checksum", VD_INPLACE_DECRYPT, VD_RESILIENCE_CHECKSUM },
	{ "rekey", VD_INPLACE_REKEY, VD_RESILIENCE_JOURNAL },
	{ "rekey by checksum", VD_INPLACE_REKEY, VD_RESILIENCE_CHECKSUM },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static const char *format;             /* that is tried, by its name */
static size_t n_seen;                  /* states, of all conversions */

static struct vd_key *old_key, *new_key;
static const struct kind *kind;        /* that is tried */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* An overlay is encrypted over a parent that is already. */
static bool is_overlay(const struct variant *v)
{
	return v->flags & VARIANT_OVER_SAME;
}

static bool is_tried(const struct kind *k, const struct act *act)
{
	const struct variant *v = variant_named(k->variant);
	const char *only = getenv("VD_CRASH_KIND");

	if (strcmp(v->format->name, format) || (only && strcmp(only, k->name)))
		return false;
	return !is_overlay(v) || act->act == VD_INPLACE_ENCRYPT;
}

static size_t n_conversions(void)
{
	size_t n = 0;

	for (size_t k = 0; k < N_KINDS; k++)
		for (size_t a = 0; a < N_ACTS; a++)
			n += is_tried(&kinds[k], &acts[a]);
	return n;
}

/* ---- converting ----------------------------------------------------------------------------------------- */

static struct vd_inplace_opts opts_of(const struct variant *v, const struct act *act, struct vd_key *const *keys)
{
	return (struct vd_inplace_opts){
		.struct_size = sizeof(struct vd_inplace_opts), .format = v->format->name, .keys = keys,
		.n_keys = act->act == VD_INPLACE_ENCRYPT ? 0 : 1, .new_key = act->act == VD_INPLACE_DECRYPT ? NULL : new_key,
		.kdf = { .iterations = 1000 }, .resilience = act->resilience, .gate = disks_gate, .header = kind->header,
		.parent = is_overlay(v) ? "p" : NULL,
	};
}

static void adopt_parent(const struct variant *v, struct vd_host *host)
{
	struct vd_rebase_opts adopt = {
		.struct_size = sizeof(adopt), .flags = VD_REBASE_UNSAFE | VD_REBASE_ADOPT, .backing_file = "p",
		.backing_format = v->format->name, .gate = disks_gate,
	};
	struct vd_open_opts o = disk_open_opts(v->format, VD_OPEN_CONTROL);
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	expect_ok(vd_backing_rebase(img, &adopt, NULL, NULL, &e), &e);
	disk_close(img);
}

/* The table's parents are shorter than their overlays. */
static void make_parent_as_long(const struct variant *v)
{
	struct vd_image *img = disk_open(v->format, "p", VD_OPEN_WRITE);
	struct vd_error e;

	expect_ok(vd_image_resize(img, v->size, 0, &e), &e);
	disk_close(img);
	adopt_parent(v, disks.mem);
}

/* Data that can be known again, a snapshot where the format has them, and freed space with something left in it. */
static void prepare(const struct variant *v, const struct act *act, struct model *m)
{
	struct vd_key *const keys[] = { old_key };
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_inplace_opts o = opts_of(v, &acts[0], keys);
	struct vd_image *img;
	struct vd_error e;

	assert_true(variant_make(v, m));
	if (is_overlay(v))
		make_parent_as_long(v);
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(m, img, 0, m->size / 2);
	for (uint64_t at = 0; at + 4096 <= m->size / 2; at += 3 * 4096) {
		expect_ok(vd_image_pwrite(img, MARK, sizeof(MARK), at + 100, &e), &e);
		memcpy(m->bytes + at + 100, MARK, sizeof(MARK));
	}
	if (v->format->snap)
		expect_ok(vd_snapshot_create(img, "old", &e), &e);
	model_write(m, img, m->size / 4, m->size / 3);
	expect_ok(vd_image_discard(img, m->size / 3, m->size / 8, &e), &e);
	model_zero(m, img, m->size / 3, m->size / 8);
	disk_close(img);
	if (is_overlay(v)) {
		o.parent = NULL;
		o.align = v->unit;
		expect_ok(vd_inplace_run_on(disks.mem, "p", (enum vd_inplace_run)VD_INPLACE_ENCRYPT, &o, NULL, &report, &e), &e);
	}
	if (act->act == VD_INPLACE_ENCRYPT)
		return;
	o.new_key = old_key;
	expect_ok(vd_inplace_run_on(disks.mem, "d", (enum vd_inplace_run)VD_INPLACE_ENCRYPT, &o, NULL, &report, &e), &e);
}

/* ---- looking -------------------------------------------------------------------------------------------- */

/* The image tells nothing of a header in a file of its own: in clear it shows the disk. */
static bool is_noise(struct vd_host *host, const struct variant *v, const struct model *m)
{
	struct vd_open_opts o = disk_open_opts(v->format, 0);
	struct vd_image *img = NULL;
	uint8_t bytes[4096];
	struct vd_error e;

	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	expect_ok(vd_image_pread(img, bytes, sizeof(bytes), 0, &e), &e);
	vd_image_abort(img);
	return memcmp(bytes, m->bytes, sizeof(bytes));
}

static bool is_luks(struct vd_host *host, const struct variant *v, const struct model *m)
{
	struct vd_open_opts o = disk_open_opts(v->format, VD_OPEN_METADATA | VD_OPEN_FILES);
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_image *img = NULL;
	struct vd_error e;

	if (kind->header)
		return is_noise(host, v, m);
	if (v->format == &vd_format_raw)
		o.format = NULL;
	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	expect_ok(vd_image_info(img, &info, &e), &e);
	vd_image_abort(img);
	return info.encryption != VD_PLAIN;
}

static struct vd_image *open_it(const struct variant *v, struct vd_host *host, const char *snapshot, bool encrypted)
{
	struct vd_key *const keys[] = { new_key, old_key };
	struct vd_open_opts o = disk_open_opts(v->format, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	if (v->format == &vd_format_raw && encrypted)
		o.format = "luks";
	o.header = encrypted ? kind->header : NULL;
	o.keys = keys;
	o.n_keys = 2;
	o.snapshot = snapshot;
	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	return img;
}

/* What an overlay has is read with its parent: so it becomes what that is already, and knows it again. */
static void join_parent(const struct variant *v, struct vd_host *host, bool encrypted)
{
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_inplace_opts encrypt = opts_of(v, &acts[0], NULL);
	struct vd_error e;

	/* Of an image that is whole; on a host that was copied it is not known by its inode. */
	if (!encrypted && host->exists(host, "d" VD_JOURNAL_SUFFIX))
		expect_ok(host->unlink(host, "d" VD_JOURNAL_SUFFIX, &e), &e);
	if (!encrypted)
		expect_ok(vd_inplace_run_on(host, "d", (enum vd_inplace_run)VD_INPLACE_ENCRYPT, &encrypt, NULL, &report, &e), &e);
	adopt_parent(v, host);
}

static void expect_disk(const struct variant *v, struct vd_host *host, const struct model *m, const char *what)
{
	bool encrypted = is_luks(host, v, m);
	struct vd_image *img;
	struct vd_error e;
	uint8_t *bytes = malloc(m->size);

	if (is_overlay(v))
		join_parent(v, host, encrypted);
	img = open_it(v, host, NULL, encrypted || is_overlay(v));
	/* A raw disk that ended inside a sector has got the rest of it. */
	assert_true(vd_image_size(img) == m->size || vd_image_size(img) == vd_round_up(m->size, 512));
	expect_ok(vd_image_pread(img, bytes, m->size, 0, &e), &e);
	for (uint64_t i = 0; memcmp(bytes, m->bytes, m->size) && i < m->size; i++)
		if (bytes[i] != m->bytes[i])
			fail_msg("%s: byte %llu is not what it was", what, (unsigned long long)i);
	vd_image_abort(img);
	if (v->format->snap) {
		img = open_it(v, host, "old", encrypted);
		expect_ok(vd_image_pread(img, bytes, sizeof(MARK), 100, &e), &e);
		assert_memory_equal(bytes, MARK, sizeof(MARK));
		vd_image_abort(img);
	}
	free(bytes);
}

static void expect_no_mark(struct vd_host *host, const char *what)
{
	struct vd_error e;

	for (size_t i = 0; vd_mem_name(host, i); i++) {
		struct vd_io *io = NULL;
		uint64_t size;
		uint8_t *bytes;

		expect_ok(host->open(host, vd_mem_name(host, i), 0, &io, &e), &e);
		expect_ok(vd_io_size(io, &size, &e), &e);
		bytes = malloc(size + 1);
		expect_ok(vd_io_pread(io, bytes, size, 0, &e), &e);
		if (memmem(bytes, size, MARK, strlen(MARK)))
			fail_msg("%s: %s shows what was planted, at %zu", what, vd_mem_name(host, i),
				 (size_t)((uint8_t *)memmem(bytes, size, MARK, strlen(MARK)) - bytes));
		free(bytes);
		vd_io_abort(io);
	}
}

static int keep_first(void *ctx, const struct vd_plaintext *p)
{
	char *text = ctx;

	if (!text[0])
		snprintf(text, sizeof(p->text), "%s", p->text);
	return 0;
}

/* Nor is anything else readable, by the look that every conversion ends with. */
static void expect_no_plaintext(const struct variant *v, struct vd_host *host, const char *what)
{
	struct vd_open_opts o = disk_open_opts(v->format, VD_OPEN_METADATA | VD_OPEN_FILES);
	struct vd_plaintext_report rep = { .struct_size = sizeof(rep) };
	char first[320] = "";
	struct vd_plaintext_opts opts = { .struct_size = sizeof(opts), .found = keep_first, .ctx = first };
	struct vd_image *img = NULL;
	struct vd_error e;

	o.header = kind->header;
	if (v->format == &vd_format_raw)
		o.format = "luks";
	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	expect_ok(vd_plaintext_scan(img, &opts, NULL, &rep, &e), &e);
	vd_image_abort(img);
	if (rep.findings)
		fail_msg("%s: %s", what, first);
}

/* ---- states --------------------------------------------------------------------------------------------- */

struct seen {
	size_t whole, resumed, reverted, too_late;
};

static int go_on(const struct variant *v, struct vd_host *host, bool back, struct vd_error *e)
{
	struct vd_key *const keys[] = { new_key, old_key };
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_inplace_opts o = opts_of(v, &acts[0], keys);

	o.n_keys = 2;
	o.new_key = NULL;
	return vd_inplace_run_on(host, "d", back ? VD_INPLACE_REVERT : VD_INPLACE_RESUME, &o, NULL, &report, e);
}

static bool is_half_way(const struct variant *v, struct vd_host *host)
{
	struct vd_open_opts o = disk_open_opts(v->format, VD_OPEN_METADATA);
	struct vd_image *img = NULL;
	struct vd_error e;
	int r;

	r = vd_image_open_on(host, NULL, "d", &o, &img, &e);
	vd_image_abort(img);
	if (r < 0 && r != VD_EHALFWAY)
		expect_ok(r, &e);
	return r == VD_EHALFWAY;
}

static void check_state(const struct variant *v, const struct act *act, const struct vd_crash *c, size_t nth, const struct model *m,
			struct seen *seen)
{
	bool back = nth % 2, is_encrypted;
	char what[256];
	struct vd_error e;
	int r;

	snprintf(what, sizeof(what), "%s, %s, crash after %zu events, variant %u, %s", kind->name, act->name, c->cut, c->variant,
		 back ? "reverted" : "resumed");
	if (!is_half_way(v, c->host)) {
		seen->whole++;
		expect_disk(v, c->host, m, what);
		return;
	}
	r = go_on(v, c->host, back, &e);
	if (r == VD_EARG && back) {
		seen->too_late++;
		back = false;
		r = go_on(v, c->host, false, &e);
	}
	if (r < 0)
		fail_msg("%s: %s; %s", what, e.message, e.hint);
	*(back ? &seen->reverted : &seen->resumed) += 1;
	is_encrypted = is_luks(c->host, v, m);
	assert_true(is_encrypted == (back ? act->act != VD_INPLACE_ENCRYPT : act->act != VD_INPLACE_DECRYPT));
	if (!back && act->act == VD_INPLACE_ENCRYPT)
		expect_no_mark(c->host, what);
	if (!back && act->act != VD_INPLACE_DECRYPT)
		expect_no_plaintext(v, c->host, what);
	expect_disk(v, c->host, m, what);
	/* A disk that was never encrypted has no header left. */
	if (kind->header)
		assert_true(c->host->exists(c->host, kind->header) == !(back && act->act == VD_INPLACE_ENCRYPT));
}

static void check_states(const struct variant *v, const struct act *act, struct vd_record *record, const struct model *m)
{
	unsigned n_random = (unsigned)setting("VD_CRASH_RANDOM", N_RANDOM);
	size_t all = vd_crash_count(record, n_random), wanted = setting("VD_CRASH_STATES", N_STATES / n_conversions() + 1);
	struct seen seen = { 0 };
	struct vd_error e;

	while (all < wanted)
		all = vd_crash_count(record, ++n_random);
	wanted = wanted ? wanted : all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;

		/* The last state of all, too. */
		expect_ok(vd_crash_state(record, n_random, setting("VD_RANDOM_SEED", 1), wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &c, &e), &e);
		check_state(v, act, &c, i, m, &seen);
		vd_mem_host_free(c.host);
	}
	print_message("# %s, %s: %zu of %zu states: %zu whole, %zu resumed, %zu reverted, %zu too late for that\n", kind->name, act->name,
		      wanted, all, seen.whole, seen.resumed, seen.reverted, seen.too_late);
	n_seen += wanted;
	assert_true(seen.whole && seen.resumed + seen.too_late && seen.reverted);
}

static void crash_is_resumed_or_reverted(void **state)
{
	const struct act *act = *state;

	for (size_t i = 0; i < N_KINDS; i++) {
		const struct variant *v = variant_named(kinds[i].variant);
		struct vd_key *const keys[] = { old_key };
		struct vd_inplace_report report = { .struct_size = sizeof(report) };
		struct vd_inplace_opts o;
		struct vd_record *record;
		struct vd_error e;
		struct model m;

		if (!is_tried(&kinds[i], act))
			continue;
		kind = &kinds[i];
		o = opts_of(v, act, keys);
		assert_int_equal(disks_start(NULL), 0);
		model_init(&m, v->size, i + 1);
		prepare(v, act, &m);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		expect_ok(vd_inplace_run_on(vd_record_host(record), "d", (enum vd_inplace_run)act->act, &o, NULL, &report, &e), &e);
		expect_disk(v, disks.mem, &m, kind->name);
		check_states(v, act, record, &m);
		vd_record_free(record);
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* ---- failures ------------------------------------------------------------------------------------------- */

#define FAULTS (VD_OP_READ | VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE | VD_OP_OPEN | VD_OP_RENAME | VD_OP_UNLINK)
#define N_FAULTS 25             /* of each kind */

static int encrypt_on(const struct variant *v, struct vd_host *host, struct vd_error *e)
{
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_inplace_opts o = opts_of(v, &acts[0], NULL);

	return vd_inplace_run_on(host, "d", (enum vd_inplace_run)VD_INPLACE_ENCRYPT, &o, NULL, &report, e);
}

/* It is whole, with no journal beside it, or goes on to the same bytes. */
static void expect_survived(const struct variant *v, struct vd_host *host, const struct model *m, int r, const char *what)
{
	struct vd_error e;

	if (is_half_way(v, host)) {
		r = go_on(v, host, false, &e);
		if (r < 0)
			fail_msg("%s: %s; %s", what, e.message, e.hint);
		expect_no_mark(host, what);
	} else if (r == 0 || !is_luks(host, v, m)) {
		if (host->exists(host, "d" VD_JOURNAL_SUFFIX) || host->exists(host, "d" VD_JOURNAL_SUFFIX ".vdisk-partial"))
			fail_msg("%s: it is whole, and its journal is still there", what);
	}
	expect_disk(v, host, m, what);
}

/* The nth operation, or with `memory` allocation, fails; false: there are no so many. */
static bool fail_nth(const struct variant *v, const struct model *m, uint64_t nth, bool memory)
{
	struct vd_fault_plan plan = { .kinds = FAULTS, .nth = nth, .err = nth % 2 ? EIO : ENOSPC, .half_done = nth % 3 == 0 };
	struct vd_host *host = disks_clone();
	struct vd_fault *fault = NULL;
	char what[128];
	struct vd_error e;
	bool fired;
	int r;

	assert_int_equal(vd_fault_new(host, &fault, &e), 0);
	vd_fault_arm(fault, memory ? NULL : &plan);
	if (memory)
		vd_alloc_fail_after((long)nth);
	r = encrypt_on(v, vd_fault_host(fault), &e);
	fired = memory ? vd_alloc_fail_after(-1) < 0 : vd_fault_fired(fault);
	vd_fault_free(fault);
	snprintf(what, sizeof(what), "%s, %s %llu fails", kind->name, memory ? "allocation" : "operation", (unsigned long long)nth);
	expect_survived(v, host, m, r, what);
	vd_mem_host_free(host);
	return fired;
}

static void failure_is_survived(void **state)
{
	bool memory = *state;
	uint64_t n_faults = setting("VD_CRASH_FAULTS", N_FAULTS);

	for (size_t i = 0; i < N_KINDS; i++) {
		const struct variant *v = variant_named(kinds[i].variant);
		uint64_t last = 1, nth;
		struct model m;

		if (!is_tried(&kinds[i], &acts[0]))
			continue;
		kind = &kinds[i];
		assert_int_equal(disks_start(NULL), 0);
		model_init(&m, v->size, i + 1);
		prepare(v, &acts[0], &m);
		while (fail_nth(v, &m, last, memory))
			last *= 2;
		for (nth = 1; nth < last; nth += 1 + last / n_faults)
			fail_nth(v, &m, nth, memory);
		print_message("# %s: up to %llu failures\n", kind->name, (unsigned long long)last);
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void ten_thousand_states_were_looked_at(void **state)
{
	(void)state;
	print_message("# %s: %zu states\n", format, n_seen);
	assert_true(n_seen >= N_STATES || getenv("VD_CRASH_STATES") || getenv("VD_CRASH_KIND"));
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[N_ACTS + 3];
	void *folder;
	int r;

	if (argc != 2)
		return 2;
	format = argv[1];
	vd_mover_batch = BATCH;
	keymemo_start();
	if (vd_tempdir_enter(&folder) < 0 || vd_key_from_bytes("before", 6, &old_key, NULL) < 0 ||
	    vd_key_from_bytes("after", 5, &new_key, NULL) < 0)
		return 1;
	for (size_t i = 0; i < N_ACTS; i++)
		tests[i] = (struct CMUnitTest){ acts[i].name, crash_is_resumed_or_reverted, NULL, NULL, (void *)&acts[i] };
	tests[N_ACTS] = (struct CMUnitTest){ "failing operation", failure_is_survived, NULL, NULL, NULL };
	tests[N_ACTS + 1] = (struct CMUnitTest){ "failing allocation", failure_is_survived, NULL, NULL, &old_key };
	tests[N_ACTS + 2] = (struct CMUnitTest){ "ten thousand states", ten_thousand_states_were_looked_at, NULL, NULL, NULL };
	r = _cmocka_run_group_tests("crash while an image is converted in place", tests, N_ACTS + 3, NULL, NULL);
	vd_key_free(old_key);
	vd_key_free(new_key);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
