/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a conversion in place takes beside the image: no file with the disk's bytes but its own, and at no moment more room
 * than was told before the first change. Every format, every kind, every unit; a recorder and a meter behind the I/O see it.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/core/inplace.h"
#include "libvdisk/core/keysrc.h"
#include "tests/support/disks.h"
#include "tests/support/tempdir.h"
#include "tests/support/vmdk_bytes.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define SIZE (5 * MIB + 1536)
#define N_FILES 16
#define PIECE (64 * KIB)                /* in which the host in memory counts */
#define LUKS1_ROOM (2 * MIB)
/* Beside a header's units: directories and tables anew, and what VHDX and qcow2 round up to. */
#define TABLES (3 * MIB)

/* ---- the meter ------------------------------------------------------------------------------------------ */

struct taken {
	char name[64];
	uint64_t ino, bytes;            /* an open file keeps the name that it was opened by */
};

/* Bytes that are allocated. */
struct room {
	uint64_t journal, image;        /* all that is not the journal */
};

static struct meter {
	struct vd_wrap wrap;
	pthread_mutex_t lock;
	struct taken files[N_FILES];
	size_t n;
	struct room before, peak;
} meter;

static struct taken *find(const char *name)
{
	for (size_t i = 0; i < meter.n; i++)
		if (!strcmp(meter.files[i].name, name))
			return &meter.files[i];
	return NULL;
}

static struct taken *find_open(const struct vd_io *io)
{
	for (size_t i = 0; i < meter.n; i++)
		if (meter.files[i].ino == io->ino)
			return &meter.files[i];
	return NULL;
}

static void look_at(const char *name, struct vd_io *io)
{
	struct taken *t = find_open(io);

	if (!t) {
		assert_true(meter.n < N_FILES);
		t = &meter.files[meter.n++];
		*t = (struct taken){ .ino = io->ino };
		snprintf(t->name, sizeof(t->name), "%s", name);
	}
	assert_int_equal(vd_io_allocated(io, &t->bytes, NULL), 0);
}

static void forget(const char *name)
{
	struct taken *t = find(name);

	if (t)
		*t = meter.files[--meter.n];
}

static bool is_journal(const char *name)
{
	return !strncmp(name, "d" VD_JOURNAL_SUFFIX, strlen("d" VD_JOURNAL_SUFFIX));
}

static struct room sum_up(void)
{
	struct room sum = { 0 };

	for (size_t i = 0; i < meter.n; i++)
		*(is_journal(meter.files[i].name) ? &sum.journal : &sum.image) += meter.files[i].bytes;
	return sum;
}

static void after(struct vd_wrap *w, struct vd_op *op, int result)
{
	struct room now;

	(void)w;
	if (result < 0 || !(op->kind & (VD_OP_OPEN | VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_PUNCH | VD_OP_RENAME | VD_OP_UNLINK)))
		return;
	pthread_mutex_lock(&meter.lock);
	if (op->kind == VD_OP_UNLINK) {
		forget(op->name);
	} else if (op->kind == VD_OP_RENAME) {
		forget(op->to);
		snprintf(find(op->name)->name, sizeof(meter.files[0].name), "%s", op->to);
	} else {
		look_at(op->name, op->inner);
	}
	now = sum_up();
	meter.peak.journal = vd_max_u64(meter.peak.journal, now.journal);
	meter.peak.image = vd_max_u64(meter.peak.image, now.image);
	pthread_mutex_unlock(&meter.lock);
}

static void meter_start(void)
{
	meter = (struct meter){ .lock = PTHREAD_MUTEX_INITIALIZER };
	vd_wrap_init(&meter.wrap, disks.mem);
	meter.wrap.after = after;
	for (size_t i = 0; vd_mem_name(disks.mem, i); i++) {
		struct vd_io *io = NULL;

		assert_int_equal(disks.mem->open(disks.mem, vd_mem_name(disks.mem, i), 0, &io, NULL), 0);
		look_at(vd_mem_name(disks.mem, i), io);
		vd_io_abort(io);
	}
	meter.before = meter.peak = sum_up();
}

/* ---- disks ---------------------------------------------------------------------------------------------- */

struct kind {
	const char *format, *subformat;
	uint32_t unit;
	unsigned flags;                 /* enum vd_create_flag */
	bool in_parts;                  /* of several extents with data */
};

static const struct kind kinds[] = {
	{ "raw", NULL, 0, 0, false },
	{ "qcow2", NULL, 512, 0, false },
	{ "qcow2", NULL, 4 * KIB, 0, false },
	{ "qcow2", NULL, 64 * KIB, 0, false },
	{ "qcow2", NULL, 64 * KIB, VD_CREATE_COMPAT_V2, false },
	{ "qcow2", NULL, 128 * KIB, VD_CREATE_EXTENDED_L2, false },
	{ "qcow2", NULL, 2 * MIB, 0, false },
	{ "vhd", "fixed", 0, 0, false },
	{ "vhd", "dynamic", 512 * KIB, 0, false },
	{ "vhd", "dynamic", 1 * MIB, 0, false },
	{ "vhd", "dynamic", 2 * MIB, 0, false },
	{ "vhd", "dynamic", 4 * MIB, 0, false },
	{ "vhdx", "fixed", 1 * MIB, 0, false },
	{ "vhdx", "dynamic", 1 * MIB, 0, false },
	{ "vhdx", "dynamic", 2 * MIB, 0, false },
	{ "vhdx", "dynamic", 4 * MIB, 0, false },
	{ "vhdx", "dynamic", 8 * MIB, 0, false },
	{ "vhdx", "dynamic", 16 * MIB, 0, false },
	{ "vhdx", "dynamic", 32 * MIB, 0, false },
	{ "vhdx", "dynamic", 64 * MIB, 0, false },
	{ "vhdx", "dynamic", 128 * MIB, 0, false },
	{ "vhdx", "dynamic", 256 * MIB, 0, false },
	{ "vmdk", "monolithicSparse", 4 * KIB, 0, false },
	{ "vmdk", "monolithicSparse", 64 * KIB, 0, false },
	{ "vmdk", "monolithicFlat", 0, 0, false },
	{ "vmdk", "twoGbMaxExtentSparse", 64 * KIB, 0, true },
	{ "vmdk", "twoGbMaxExtentFlat", 0, 0, true },
	{ "vmdk", "vmfs", 0, 0, false },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct {
	const char *name;
	enum vd_inplace_act act;
} acts[] = {
	{ "encrypt", VD_INPLACE_ENCRYPT }, { "rekey", VD_INPLACE_REKEY }, { "decrypt", VD_INPLACE_DECRYPT },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static struct vd_key *key;

/* Two extents of half the disk each, as they come to be beyond 2 GiB. */
static void make_parts(const struct kind *k)
{
	uint64_t sectors = vd_round_up(SIZE, 2 * MIB) / 512 / 2;
	bool is_sparse = strstr(k->subformat, "Sparse");
	char text[1024];

	snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"%s\"\n"
		 "RW %llu %s \"d-1.vmdk\"%s\nRW %llu %s \"d-2.vmdk\"%s\nddb.adapterType = \"ide\"\n", k->subformat,
		 (unsigned long long)sectors, is_sparse ? "SPARSE" : "FLAT", is_sparse ? "" : " 0",
		 (unsigned long long)sectors, is_sparse ? "SPARSE" : "FLAT", is_sparse ? "" : " 0");
	vmdk_put_text("d", text);
	for (int i = 1; i <= 2; i++) {
		struct vmdk_bytes b = vmdk_hosted(sectors, NULL);
		char name[16];

		snprintf(name, sizeof(name), "d-%d.vmdk", i);
		if (is_sparse)
			vmdk_put(name, &b);
		else
			disk_put_raw(name, sectors * 512, 0);
		vmdk_free(&b);
	}
}

/* With data throughout, or with three quarters of it holes. */
static void make(const struct kind *k, bool is_full)
{
	const struct vd_format *format = vd_registry_find(k->format);
	struct vd_create_opts o = disk_create_opts(format, SIZE);
	struct vd_image *img;
	uint64_t size;

	assert_non_null(format);
	o.subformat = k->subformat;
	o.cluster_size = k->unit;
	o.flags |= k->flags;
	if (k->in_parts) {
		make_parts(k);
	} else {
		img = disk_create(format, "d", &o);
		disk_commit(img);
		disk_close(img);
	}
	img = disk_open(format, "d", VD_OPEN_WRITE);
	size = vd_image_size(img);
	disk_write(img, 0, is_full ? size : size / 4, 0x5a);
	disk_close(img);
}

/* ---- looking -------------------------------------------------------------------------------------------- */

static struct vd_inplace_plan told;

static int note_plan(void *ctx, const struct vd_inplace_plan *plan)
{
	(void)ctx;
	told = *plan;
	return 0;
}

static uint64_t end_of_writes(struct vd_record *rec, unsigned file)
{
	const struct vd_event *ev;
	uint64_t end = 0;

	for (size_t i = 0; (ev = vd_record_event(rec, i)); i++)
		if (ev->file == file && ev->kind == VD_OP_WRITE)
			end = vd_max_u64(end, ev->off + ev->len);
	return end;
}

/* Of new files there is the journal, and before flat extents one that has the container's header and no more. */
static void expect_no_second_payload(struct vd_record *rec, const char *what)
{
	const struct vd_event *ev;
	size_t n_journals = 0;

	for (size_t i = 0; (ev = vd_record_event(rec, i)); i++) {
		if (ev->kind != VD_OP_OPEN)
			continue;
		n_journals += is_journal(ev->name);
		if (!is_journal(ev->name) && end_of_writes(rec, ev->file) > LUKS1_ROOM)
			fail_msg("%s: makes %s, with more than a header in it", what, ev->name);
	}
	if (n_journals != 1)
		fail_msg("%s: makes %zu journals", what, n_journals);
}

static void expect_room(const struct kind *k, bool is_full, const char *what)
{
	uint64_t journal = meter.peak.journal, growth = meter.peak.image - meter.before.image;
	uint64_t header = vd_round_up(LUKS1_ROOM, vd_max_u64(k->unit, 1));

	if (journal > told.journal || growth > told.growth + PIECE)
		fail_msg("%s: takes %llu bytes of journal where %llu were told, and grows by %llu where %llu were", what,
			 (unsigned long long)journal, (unsigned long long)told.journal, (unsigned long long)growth,
			 (unsigned long long)told.growth);
	/* What is told is no excuse. */
	if (is_full && growth > header + TABLES)
		fail_msg("%s: grows by %llu bytes, the header's room being %llu", what, (unsigned long long)growth, (unsigned long long)header);
	if (journal > 2 * (meter.before.image + LUKS1_ROOM + TABLES))
		fail_msg("%s: its journal takes %llu bytes", what, (unsigned long long)journal);
}

static void convert(const struct kind *k, size_t act, bool is_full)
{
	bool encrypts = acts[act].act == VD_INPLACE_ENCRYPT;
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_inplace_opts o = {
		.struct_size = sizeof(o), .format = k->format, .keys = &key, .n_keys = !encrypts, .new_key = encrypts ? key : NULL,
		.kdf = { .iterations = 1000 }, .resilience = is_full ? VD_RESILIENCE_JOURNAL : VD_RESILIENCE_CHECKSUM,
		.gate = disks_gate, .approve = note_plan,
	};
	struct vd_record *rec = NULL;
	char what[128];
	struct vd_error e;

	snprintf(what, sizeof(what), "%s %s, units of %u, %s, %s", k->format, k->subformat ? k->subformat : "", k->unit,
		 is_full ? "full" : "with holes", acts[act].name);
	meter_start();
	expect_ok(vd_record_new(&meter.wrap.host, &rec, &e), &e);
	expect_ok(vd_inplace_run_on(vd_record_host(rec), "d", (enum vd_inplace_run)acts[act].act, &o, NULL, &report, &e), &e);
	expect_room(k, is_full, what);
	expect_no_second_payload(rec, what);
	vd_record_free(rec);
}

static void try_all(bool is_full)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		assert_int_equal(disks_start(NULL), 0);
		make(&kinds[i], is_full);
		for (size_t act = 0; act < N_ACTS; act++)
			convert(&kinds[i], act, is_full);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void full_disks_take_journal_and_tables(void **state)
{
	(void)state;
	try_all(true);
}

static void holes_take_what_was_told(void **state)
{
	(void)state;
	try_all(false);
}

static void every_format_is_tried(void **state)
{
	(void)state;
	for (size_t i = 0; vd_format_name(i); i++) {
		size_t k = 0;

		while (k < N_KINDS && strcmp(kinds[k].format, vd_format_name(i)))
			k++;
		if (k == N_KINDS)
			fail_msg("nothing here is %s", vd_format_name(i));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_disks_take_journal_and_tables),
		cmocka_unit_test(holes_take_what_was_told),
		cmocka_unit_test(every_format_is_tried),
	};
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0 || vd_key_from_bytes("correct horse", 13, &key, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests_name("the room that a conversion in place takes", tests, NULL, NULL);
	vd_key_free(key);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
