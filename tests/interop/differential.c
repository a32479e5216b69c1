/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One image, two writers and two models. By turns this library and qemu-io do random operations to it; a byte array says
 * what must come of them, and so does the other side: what the library wrote qemu reads, and the reverse, and qemu-img
 * finds no error and no leak after either. Snapshots, made and applied by both, have byte arrays of their own; a bitmap
 * that both keep up tells of every byte that has changed.
 *
 * The library works on a host in memory, qemu on copies of its files in the current folder. Operations of one turn are
 * kept as text, which a failure prints, with what repeats it.
 *
 * VD_RANDOM_OPS: how many operations a kind    VD_RANDOM_SEED    VD_VARIANT: one kind alone, by its name
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/variant.h"

#define OPS 100000
#define TURN 250                /* operations of one side before the other looks */
#define SNAPSHOTS 4
#define KIB 1024
#define MIB (1024 * 1024)
#define SIZE_MAX_TRIED (4 * MIB)

#define KDF { .iterations = 1000 }
#define RAW &vd_format_raw
#define QCOW2 &vd_format_qcow2
#define V2 VD_CREATE_COMPAT_V2
#define EXTENDED VD_CREATE_EXTENDED_L2

static const struct variant kinds[] = {
	{ "qcow2", QCOW2, 0, 2 * MIB + 1536, 64 * KIB, { 0 } },
	{ "512", QCOW2, 0, 512 * KIB, 512, { .cluster_size = 512 } },
	{ "512 refcount 1", QCOW2, 0, 512 * KIB + 512, 512, { .cluster_size = 512, .refcount_bits = 1 } },
	{ "1k refcount 2", QCOW2, 0, 700 * KIB, KIB, { .cluster_size = KIB, .refcount_bits = 2 } },
	{ "4k refcount 4 over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB, .refcount_bits = 4 } },
	{ "16k refcount 8", QCOW2, 0, 2 * MIB + 1536, 16 * KIB, { .cluster_size = 16 * KIB, .refcount_bits = 8 } },
	{ "4k refcount 32", QCOW2, 0, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB, .refcount_bits = 32 } },
	{ "4k refcount 64 over qcow2", QCOW2, VARIANT_OVER_SAME, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB, .refcount_bits = 64 } },
	{ "2M", QCOW2, 0, 4 * MIB - 1536, 2 * MIB, { .cluster_size = 2 * MIB } },
	{ "v2", QCOW2, 0, 2 * MIB + 1536, 64 * KIB, { .flags = V2 } },
	{ "v2 4k over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB + 1536, 4 * KIB, { .flags = V2, .cluster_size = 4 * KIB } },
	{ "v2 512 over qcow2", QCOW2, VARIANT_OVER_SAME, 512 * KIB, 512, { .flags = V2, .cluster_size = 512 } },
	{ "extended l2", QCOW2, 0, 2 * MIB + 1536, 128 * KIB, { .flags = EXTENDED } },
	{ "extended l2 16k", QCOW2, 0, 2 * MIB + 1536, 16 * KIB, { .flags = EXTENDED, .cluster_size = 16 * KIB } },
	{ "extended l2 16k over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB, 16 * KIB, { .flags = EXTENDED, .cluster_size = 16 * KIB } },
	{ "extended l2 32k over qcow2", QCOW2, VARIANT_OVER_SAME, 2 * MIB, 32 * KIB, { .flags = EXTENDED, .cluster_size = 32 * KIB } },
	{ "lazy 4k", QCOW2, 0, 2 * MIB + 1536, 4 * KIB, { .flags = VD_CREATE_LAZY_REFCOUNTS, .cluster_size = 4 * KIB } },
	{ "lazy", QCOW2, VARIANT_OVER_RAW, 2 * MIB, 64 * KIB, { .flags = VD_CREATE_LAZY_REFCOUNTS } },
	{ "packed 4k", QCOW2, VARIANT_PACKED, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "packed 64k zstd", QCOW2, VARIANT_PACKED, 2 * MIB + 1536, 64 * KIB, { .compression = VD_COMPRESSION_ZSTD } },
	{ "packed 4k refcount 16 over raw", QCOW2, VARIANT_PACKED | VARIANT_OVER_RAW, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "packed extended l2", QCOW2, VARIANT_PACKED, 2 * MIB, 16 * KIB, { .flags = EXTENDED, .cluster_size = 16 * KIB } },
	{ "packed v2 1k", QCOW2, VARIANT_PACKED, 700 * KIB, KIB, { .flags = V2, .cluster_size = KIB } },
	{ "data file", QCOW2, 0, 2 * MIB + 1536, 64 * KIB, { .data_file = "x" } },
	{ "data file 4k over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB, 4 * KIB, { .data_file = "x", .cluster_size = 4 * KIB } },
	{ "data file extended l2", QCOW2, 0, 2 * MIB, 16 * KIB, { .data_file = "x", .flags = EXTENDED, .cluster_size = 16 * KIB } },
	{ "raw data file", QCOW2, 0, 2 * MIB + 1536, 64 * KIB, { .data_file = "x", .flags = VD_CREATE_DATA_FILE_RAW } },
	{ "luks", QCOW2, VARIANT_LUKS, 2 * MIB + 1536, 64 * KIB, { .kdf = KDF } },
	{ "luks 4k", QCOW2, VARIANT_LUKS, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB, .kdf = KDF } },
	{ "luks 4k over raw", QCOW2, VARIANT_LUKS | VARIANT_OVER_RAW, 2 * MIB, 4 * KIB, { .cluster_size = 4 * KIB, .kdf = KDF } },
	{ "luks extended l2", QCOW2, VARIANT_LUKS, 2 * MIB, 16 * KIB, { .flags = EXTENDED, .cluster_size = 16 * KIB, .kdf = KDF } },
	{ "raw", RAW, 0, MIB, 4 * KIB, { 0 } },
	{ "luks1 container", RAW, VARIANT_LUKS, MIB + 1536, 4 * KIB, { .luks_type = VD_LUKS1, .kdf = KDF } },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct kept {
	char name[16];
	uint8_t *bytes;
	uint64_t size;
};

static struct run {
	const struct variant *v;
	struct vd_image *img;
	struct model m;
	struct kept kept[SNAPSHOTS];
	size_t n_kept;
	unsigned n_made;
	struct kept since;              /* the disk when the bitmap was cleared; no bytes: it has to be cleared anew */
	bool has_bitmap;
	uint64_t seed, n_ops;
	char *log;                      /* operations of this turn, a line each */
	size_t log_len;
	FILE *to_log;
} run;

static uint64_t total;                  /* operations of all kinds */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- the log -------------------------------------------------------------------------------------------- */

static void begin_turn(const char *who)
{
	if (run.to_log)
		fclose(run.to_log);
	free(run.log);
	run.log = NULL;
	run.to_log = open_memstream(&run.log, &run.log_len);
	assert_non_null(run.to_log);
	fprintf(run.to_log, "# %s, after %llu operations\n", who, (unsigned long long)run.n_ops);
}

/* What is about to be done counts. */
static void did(const char *fmt, ...) VD_PRINTF(1, 2);
static void did(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(run.to_log, fmt, ap);
	va_end(ap);
	fputc('\n', run.to_log);
	run.n_ops++;
}

static int has_failed(const char *what, const char *why)
{
	fflush(run.to_log);
	/* cmocka's own printing has a bound. */
	fprintf(stderr, "VD_VARIANT='%s' VD_RANDOM_SEED=%llu\n%s%s: %s\n", run.v->name, (unsigned long long)run.seed, run.log, what, why);
	fail();
	return -1;
}

static void must(int result, const struct vd_error *e, const char *what)
{
	if (result < 0)
		has_failed(what, e->message);
}

static void same(const uint8_t *got, const uint8_t *want, uint64_t len, uint64_t off, const char *who)
{
	char why[100];

	if (!memcmp(got, want, len))
		return;
	for (uint64_t i = 0; i < len; i++) {
		if (got[i] == want[i])
			continue;
		snprintf(why, sizeof(why), "byte %llu is 0x%02x, want 0x%02x", (unsigned long long)(off + i), got[i], want[i]);
		has_failed(who, why);
	}
}

/* ---- the peer ------------------------------------------------------------------------------------------- */

static const char *const secret = "--object secret,id=s,file=key";

static const char *image_opts(void)
{
	bool is_luks = run.v->flags & VARIANT_LUKS;

	if (run.v->format == RAW)
		return is_luks ? "driver=luks,key-secret=s,file.filename=d" : "driver=raw,file.filename=d";
	return is_luks ? "driver=qcow2,encrypt.key-secret=s,file.filename=d" : "driver=qcow2,file.filename=d";
}

static void show_log_of(const char *what)
{
	char text[1500] = "";
	FILE *f = fopen("peer.log", "r");

	if (f) {
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		fclose(f);
	}
	has_failed(what, text);
}

/* Its output goes to peer.log. The exit status. */
static int peer(const char *fmt, ...) VD_PRINTF(1, 2);
static int peer(const char *fmt, ...)
{
	char command[1000];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = (size_t)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	snprintf(command + n, sizeof(command) - n, " > peer.log 2>&1");
	return system(command);
}

static void hand_over(void)
{
	struct vd_error e;
	FILE *key = fopen("key", "w");

	must(vd_image_close(run.img, &e), &e, "close");
	run.img = NULL;
	must(vd_crash_save(disks.mem, ".", &e), &e, "copying the files out");
	assert_true(fputs("correct horse", key) >= 0);
	assert_int_equal(fclose(key), 0);
}

static void load(const char *name)
{
	struct vd_error e;
	struct stat st;
	vd_auto_fd int fd = open(name, O_RDONLY);
	vd_auto_free uint8_t *bytes = NULL;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	must(vd_mem_put(disks.mem, name, bytes, (size_t)st.st_size, &e), &e, "copying the files back");
}

static void take_back(void)
{
	load("d");
	if (run.v->opts.data_file)
		load("x");
}

static void peer_finds_no_fault(const char *when)
{
	if (run.v->format == QCOW2 && peer("qemu-img check %s --image-opts %s", secret, image_opts()))
		show_log_of(when);
}

/* What qemu reads, of the disk or of a snapshot. */
static uint8_t *peer_reads(const struct kept *k, uint64_t size)
{
	uint8_t *bytes = malloc(size + 1);
	char snapshot[64] = "";
	FILE *f;

	if (k)
		snprintf(snapshot, sizeof(snapshot), "-l snapshot.name=%s", k->name);
	if (peer("qemu-img convert %s %s --image-opts %s -O raw out", secret, snapshot, image_opts()))
		show_log_of("qemu-img convert");
	f = fopen("out", "rb");
	assert_non_null(f);
	if (fread(bytes, 1, size, f) != size)
		has_failed("qemu-img convert", "gave too few bytes");
	fclose(f);
	return bytes;
}

static const struct kept *any_kept(void)
{
	return run.n_kept ? &run.kept[chance_below(&run.m.chance, run.n_kept)] : NULL;
}

static void peer_finds_what_we_wrote(void)
{
	const struct kept *k = any_kept();
	vd_auto_free uint8_t *got = peer_reads(NULL, run.m.size), *old = NULL;

	peer_finds_no_fault("qemu-img check after our writes");
	same(got, run.m.bytes, run.m.size, 0, "qemu reads what we wrote");
	/* It takes a snapshot's size to be the disk's. */
	if (!k || k->size != run.m.size)
		return;
	old = peer_reads(k, k->size);
	same(old, k->bytes, k->size, 0, "qemu reads a snapshot");
}

/* ---- what we do ----------------------------------------------------------------------------------------- */

static bool keeps_snapshots(void)
{
	return run.v->format == QCOW2 && !run.v->opts.data_file && run.v->opts.refcount_bits != 1;
}

static bool has_parent(void)
{
	return run.v->flags & (VARIANT_OVER_RAW | VARIANT_OVER_SAME);
}

/* A snapshot may be one owner too many for some cluster. */
static bool has_narrow_counts(void)
{
	return run.v->opts.refcount_bits && run.v->opts.refcount_bits < 8;
}

static bool packs(void)
{
	return run.v->format == QCOW2 && !run.v->opts.data_file && !(run.v->flags & VARIANT_LUKS);
}

static void draw(uint64_t *off, uint64_t *len)
{
	uint64_t *chance = &run.m.chance, unit = run.v->unit;

	*off = chance_below(chance, run.m.size);
	switch (chance_below(chance, 4)) {
	case 0:
		*off = vd_round_down(*off, unit);
		*len = unit * (1 + chance_below(chance, unit < 65536 ? 8 : 2));
		break;
	case 1:
		*off = vd_round_down(*off, 512);
		*len = 512 * (1 + chance_below(chance, 40));
		break;
	default:
		*len = 1 + chance_below(chance, chance_below(chance, 2) ? 700 : vd_min_u64(3 * unit, 100000));
	}
	*len = vd_min_u64(*len, run.m.size - *off);
}

#define LL(x) ((unsigned long long)(x))

static void pack_unit(void)
{
	uint64_t unit = run.v->unit, off = vd_round_down(chance_below(&run.m.chance, run.m.size), unit);
	struct vd_resv v = { .off = off, .len = unit };
	vd_auto_free uint8_t *packed = malloc(unit);
	struct vd_error e;
	size_t n = 0;

	if (off + unit > run.m.size || !packs())
		return;
	did("pack %llu %llu", LL(off), LL(unit));
	memset(run.m.bytes + off, (int)chance_next(&run.m.chance), unit);
	for (uint64_t i = 0, noise = chance_below(&run.m.chance, unit); i < noise; i += 3)
		run.m.bytes[off + i] = (uint8_t)chance_next(&run.m.chance);
	must(vd_write_start(run.img, &e), &e, "begin");
	must(vd_codec_pack(run.img->codec, run.img->info.codec, packed, unit - 1, run.m.bytes + off, unit, &n, &e), &e, "pack");
	v.packed_len = n;
	must(vd_write_reserve(run.img, &v, &e), &e, "reserve");
	must(vd_write_complete(run.img, &v, n ? packed : run.m.bytes + off, &e), &e, "complete");
}

static void change(uint64_t die)
{
	uint64_t off, len;

	draw(&off, &len);
	if (die < 24) {
		did("write %llu %llu", LL(off), LL(len));
		model_write(&run.m, run.img, off, len);
	} else if (die < 40) {
		did("fill %llu %llu", LL(off), LL(len));
		model_fill(&run.m, run.img, off, len, (uint8_t)chance_next(&run.m.chance));
	} else if (die < 49) {
		did("zero %llu %llu", LL(off), LL(len));
		model_zero(&run.m, run.img, off, len);
	} else if (die < 55) {
		did("zero allocated %llu %llu", LL(off), LL(len));
		model_zero_allocated(&run.m, run.img, off, len);
	} else if (die < 64) {
		did("discard %llu %llu", LL(off), LL(len));
		model_discard(&run.m, run.img, off, len);
	} else {
		vd_auto_free uint8_t *got = malloc(len + 1);
		struct vd_error e;

		did("read %llu %llu", LL(off), LL(len));
		must(vd_image_pread(run.img, got, len, off, &e), &e, "read");
		same(got, run.m.bytes + off, len, off, "our read");
	}
}

static void keep(const char *by)
{
	struct kept *k = &run.kept[run.n_kept++];

	snprintf(k->name, sizeof(k->name), "%s%u", by, run.n_made++);
	k->size = run.m.size;
	k->bytes = malloc(k->size + 1);
	memcpy(k->bytes, run.m.bytes, k->size);
}

static void forget(size_t i)
{
	free(run.kept[i].bytes);
	run.kept[i] = run.kept[--run.n_kept];
}

static void go_back_to(const struct kept *k)
{
	run.m.size = k->size;
	memcpy(run.m.bytes, k->bytes, k->size);
}

static void change_snapshots(void)
{
	uint64_t die = chance_below(&run.m.chance, 8);
	const struct kept *k = any_kept();
	struct vd_error e;

	if (die < 4 && run.n_kept < SNAPSHOTS) {
		int r;

		keep("ours");
		k = &run.kept[run.n_kept - 1];
		did("snapshot create %s", k->name);
		r = vd_snapshot_create(run.img, k->name, &e);
		if (r == VD_EUNSUPPORTED && has_narrow_counts())
			forget(run.n_kept - 1);
		else
			must(r, &e, "snapshot create");
	} else if (k && die < 6) {
		did("snapshot apply %s", k->name);
		must(vd_snapshot_apply(run.img, k->name, &e), &e, "snapshot apply");
		go_back_to(k);
	} else if (k) {
		did("snapshot delete %s", k->name);
		must(vd_snapshot_delete(run.img, k->name, &e), &e, "snapshot delete");
		forget((size_t)(k - run.kept));
	}
}

static uint64_t draw_size(void)
{
	uint64_t size = 512 * (1 + chance_below(&run.m.chance, SIZE_MAX_TRIED / 512));

	/* Not so far that most of a disk of small clusters would be holes. */
	size = vd_min_u64(size, run.v->size * 3 / 2 / 512 * 512);
	return chance_below(&run.m.chance, 2) ? size : vd_round_up(size, run.v->unit);
}

static void resized(uint64_t size)
{
	if (size > run.m.size)
		memset(run.m.bytes + run.m.size, 0, size - run.m.size);
	run.m.size = size;
}

/* A container's new part is noise; a version 2 image with snapshots has but one size. */
static void resize(void)
{
	uint64_t size = draw_size();
	struct vd_error e;
	int r;

	if (run.v->format == RAW && run.v->flags & VARIANT_LUKS)
		return;
	did("resize %llu", LL(size));
	r = vd_image_resize(run.img, size, VD_RESIZE_SHRINK, &e);
	if (r == VD_EUNSUPPORTED)
		return;
	must(r, &e, "resize");
	resized(size);
}

static void reopen(void)
{
	struct vd_error e;

	did("reopen");
	must(vd_image_close(run.img, &e), &e, "close");
	run.img = variant_open(run.v, VD_OPEN_WRITE);
}

static void begin_bitmap(void)
{
	struct vd_error e;

	if (run.v->format != QCOW2 || run.v->opts.flags & V2 || run.since.bytes)
		return;
	did("bitmap");
	if (!run.has_bitmap)
		must(vd_bitmap_create(run.img, "changes", 4096, 0, &e), &e, "bitmap create");
	else
		must(vd_bitmap_clear(run.img, "changes", &e), &e, "bitmap clear");
	run.has_bitmap = true;
	run.since = (struct kept){ .size = run.m.size, .bytes = malloc(run.m.size + 1) };
	memcpy(run.since.bytes, run.m.bytes, run.m.size);
}

static void end_bitmap(void)
{
	free(run.since.bytes);
	run.since = (struct kept){ 0 };
}

/* What is not called dirty is as it was. */
static void check_bitmap(void)
{
	uint64_t end = vd_min_u64(run.m.size, run.since.size), n;
	struct vd_extent x;
	struct vd_error e;
	size_t got;

	for (uint64_t off = 0; run.since.bytes && off < end; off += n) {
		must(vd_image_extents_since(run.img, "changes", off, end - off, &x, 1, &got, &e), &e, "changes");
		n = x.len;
		if (!(x.flags & VD_EXTENT_DIRTY))
			same(run.m.bytes + off, run.since.bytes + off, n, off, "what the bitmap calls unchanged");
	}
}

/* Soon again, while some of the disk is still unchanged. */
static void begin_bitmap_anew(void)
{
	check_bitmap();
	end_bitmap();
	begin_bitmap();
}

static void step(void)
{
	uint64_t die = chance_below(&run.m.chance, 100);
	struct vd_error e;

	if (die < 80) {
		change(die);
	} else if (die < 87) {
		pack_unit();
	} else if (die < 91) {
		did("flush");
		must(vd_image_flush(run.img, &e), &e, "flush");
	} else if (die < 93) {
		reopen();
	} else if (die < 95) {
		begin_bitmap_anew();
	} else if (die < 98) {
		if (keeps_snapshots())
			change_snapshots();
	} else {
		resize();
	}
}

static void our_turn(uint64_t n)
{
	uint64_t until = run.n_ops + n;

	begin_turn("this library");
	begin_bitmap();
	while (run.n_ops < until)
		step();
	begin_bitmap_anew();
	hand_over();
	peer_finds_what_we_wrote();
}

/* ---- what qemu does ------------------------------------------------------------------------------------- */

static bool is_uniform(uint64_t off, uint64_t len)
{
	return len && !memcmp(run.m.bytes + off, run.m.bytes + off + 1, len - 1);
}

/* What is discarded may have its old bytes, zeros, or the parent's (version 2): the disk is what qemu reads then. */
static void draw_command(uint8_t *unknown)
{
	uint64_t off, len, die = chance_below(&run.m.chance, 100);
	uint8_t value = (uint8_t)chance_next(&run.m.chance);

	draw(&off, &len);
	if (die < 40) {
		did("write -q -P %u %llu %llu", value, LL(off), LL(len));
	} else if (die < 65) {
		did("write -q -z%s %llu %llu", die < 55 ? " -u" : "", LL(off), LL(len));
		value = 0;
	} else if (die < 75) {
		did("discard -q %llu %llu", LL(off), LL(len));
		memset(unknown + off, 1, len);
		return;
	} else if (die < 78) {
		did("flush");
		return;
	} else {
		bool is_known = is_uniform(off, len) && vd_is_zero(unknown + off, len);

		if (is_known)
			did("read -q -P %u %llu %llu", run.m.bytes[off], LL(off), LL(len));
		else
			did("read -q %llu %llu", LL(off), LL(len));
		return;
	}
	memset(run.m.bytes + off, value, len);
	memset(unknown + off, 0, len);
}

/*
 * It compresses only what is not allocated, which in version 2 nothing over a parent becomes. Before all else: where a
 * cluster of compressed ones was freed and is in use again, qemu 7.2 goes on to fill it.
 */
static void draw_packed(void)
{
	uint64_t unit = run.v->unit, n = run.m.size / unit, first = chance_below(&run.m.chance, n + 1);
	uint64_t end = vd_min_u64(n, first + chance_below(&run.m.chance, 12));

	if (!packs() || first >= end || (run.v->opts.flags & V2 && has_parent()))
		return;
	did("discard -q %llu %llu", LL(first * unit), LL((end - first) * unit));
	for (uint64_t i = first; i < end; i++) {
		uint8_t value = (uint8_t)chance_next(&run.m.chance);

		did("write -q -c -P %u %llu %llu", value, LL(i * unit), LL(unit));
		memset(run.m.bytes + i * unit, value, unit);
	}
}

/* The log's lines are the commands. */
static void run_commands(void)
{
	FILE *f = fopen("commands", "w");

	fflush(run.to_log);
	assert_non_null(f);
	fputs(strchr(run.log, '\n') + 1, f);
	assert_int_equal(fclose(f), 0);
	if (peer("qemu-io %s --image-opts %s,cache.no-flush=on,discard=unmap < commands", secret, image_opts()) ||
	    !system("grep -Eq 'failed|rror|verification' peer.log")) {
		/* Less its prompts. */
		system("sed -i 's/qemu-io> //g' peer.log");
		show_log_of("qemu-io");
	}
}

/* With one it does not go back to a snapshot. */
static void peer_removes_bitmap(void)
{
	did("qemu-img bitmap --remove");
	if (peer("qemu-img bitmap --remove %s --image-opts %s changes", secret, image_opts()))
		show_log_of("qemu-img bitmap");
	run.has_bitmap = false;
	end_bitmap();
}

/* It counts up before it counts down: with narrow counts it cannot even go back to a snapshot. */
static void peer_changes_snapshots(void)
{
	uint64_t die = has_narrow_counts() ? 7 : chance_below(&run.m.chance, 8);
	const struct kept *k = any_kept();
	const char *how = die < 6 ? "-a" : "-d";

	if (die < 4 && run.n_kept < SNAPSHOTS) {
		keep("theirs");
		how = "-c";
		k = &run.kept[run.n_kept - 1];
	}
	if (!k)
		return;
	if (how[1] == 'a' && run.has_bitmap)
		peer_removes_bitmap();
	did("qemu-img snapshot %s %s", how, k->name);
	if (peer("qemu-img snapshot %s %s %s --image-opts %s", how, k->name, secret, image_opts()))
		show_log_of("qemu-img snapshot");
	if (how[1] == 'a')
		go_back_to(k);
	if (how[1] == 'd')
		forget((size_t)(k - run.kept));
}

/*
 * qemu does not resize a version 2 image with snapshots, cannot hide a parent in one, and rounds raw files up. What it
 * leaves of an older disk in the last cluster shows when the disk grows.
 */
static void peer_resizes(uint8_t *unknown)
{
	uint64_t size = draw_size(), end = run.m.size;

	if (run.v->format == RAW || (run.v->opts.flags & V2 && (run.n_kept || has_parent())) || chance_below(&run.m.chance, 2))
		return;
	did("qemu-img resize %llu", LL(size));
	if (peer("qemu-img resize --shrink %s --image-opts %s %llu", secret, image_opts(), LL(size)))
		show_log_of("qemu-img resize");
	resized(size);
	/* It tells no bitmap of what is new. */
	end_bitmap();
	if (size > end)
		memset(unknown + end, 1, vd_min_u64(size, vd_round_up(end, run.v->unit)) - end);
}

static void check_kept(const struct kept *k)
{
	vd_auto_free uint8_t *got = malloc(k->size + 1);
	struct vd_image *old = NULL;
	struct vd_error e;

	must(variant_open_snapshot(run.v, disks.mem, "d", k->name, &old, &e), &e, "opening a snapshot");
	if (vd_image_size(old) != k->size)
		has_failed("a snapshot", "has another size");
	must(vd_image_pread(old, got, k->size, 0, &e), &e, "reading a snapshot");
	same(got, k->bytes, k->size, 0, "we read a snapshot");
	vd_image_abort(old);
}

static void we_find_what_it_wrote(const uint8_t *theirs)
{
	vd_auto_free uint8_t *got = malloc(run.m.size + 1);
	struct vd_error e;

	take_back();
	for (size_t i = 0; i < run.n_kept; i++)
		check_kept(&run.kept[i]);
	run.img = variant_open(run.v, VD_OPEN_WRITE);
	if (vd_image_size(run.img) != run.m.size)
		has_failed("the disk", "has another size");
	must(vd_image_pread(run.img, got, run.m.size, 0, &e), &e, "read");
	same(got, theirs, run.m.size, 0, "we read what qemu reads");
	check_bitmap();
}

/* What is not known is what it reads. */
static uint8_t *what_it_has(uint8_t *unknown, const char *when)
{
	uint8_t *theirs = peer_reads(NULL, run.m.size);

	for (uint64_t i = 0; i < run.m.size; i++)
		if (unknown[i])
			run.m.bytes[i] = theirs[i];
	memset(unknown, 0, run.m.size);
	same(theirs, run.m.bytes, run.m.size, 0, when);
	return theirs;
}

static void its_turn(uint64_t n)
{
	vd_auto_free uint8_t *unknown = calloc(1, run.v->size * 2 + SIZE_MAX_TRIED), *theirs = NULL;
	uint64_t until = run.n_ops + n;

	begin_turn("qemu");
	draw_packed();
	while (run.n_ops < until)
		draw_command(unknown);
	run_commands();
	theirs = what_it_has(unknown, "qemu reads what it wrote");
	if (keeps_snapshots())
		peer_changes_snapshots();
	peer_resizes(unknown);
	free(theirs);
	theirs = what_it_has(unknown, "qemu reads what it changed");
	we_find_what_it_wrote(theirs);
}

/* ---- the tests ------------------------------------------------------------------------------------------ */

static uint64_t ops_each;

static int start(void **state)
{
	const struct variant *v = *state;

	run = (struct run){ .v = v, .seed = setting("VD_RANDOM_SEED", 1) };
	model_init(&run.m, v->size * 2 + SIZE_MAX_TRIED, run.seed * 1000 + (uint64_t)(v - kinds));
	run.m.size = v->size;
	begin_turn("nobody");
	if (disks_start(NULL) < 0)
		return -1;
	/* What nobody asks for need not be recorded: it would be all bytes ever written. */
	disks.host = disks.mem;
	return 0;
}

static int stop(void **state)
{
	(void)state;
	while (run.n_kept)
		forget(0);
	end_bitmap();
	model_free(&run.m);
	fclose(run.to_log);
	free(run.log);
	return disks_stop(NULL);
}

static void both_write_and_read_alike(void **state)
{
	if (!peer_is_here() || !variant_make(*state, &run.m))
		skip();
	run.img = variant_open(*state, VD_OPEN_WRITE);
	while (run.n_ops < ops_each) {
		our_turn(vd_min_u64(TURN, ops_each - run.n_ops));
		its_turn(TURN);
	}
	hand_over();
	peer_finds_no_fault("qemu-img check at the end");
	total += run.n_ops;
}

static void they_are_as_many_as_promised(void **state)
{
	if (!peer_is_here())
		skip();
	assert_true(total >= *(uint64_t *)*state);
}

int main(void)
{
	const char *only = getenv("VD_VARIANT");
	struct CMUnitTest tests[N_KINDS + 1];
	uint64_t promised;
	size_t n = 0;
	int r;

	ops_each = setting("VD_RANDOM_OPS", OPS / N_KINDS + 1);
	for (size_t i = 0; i < N_KINDS; i++)
		if (!only || !strcmp(only, kinds[i].name))
			tests[n++] = (struct CMUnitTest){ kinds[i].name, both_write_and_read_alike, start, stop, (void *)&kinds[i] };
	promised = n * ops_each;
	tests[n++] = (struct CMUnitTest){ "they are as many as promised", they_are_as_many_as_promised, NULL, NULL, &promised };
	r = _cmocka_run_group_tests("differential", tests, n, NULL, NULL);
	printf("# %llu operations\n", LL(total));
	return r;
}
