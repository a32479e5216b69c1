/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes and opens the images of the table, and asks qemu-img about them. */
#include "tests/support/variant.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define KEY "correct horse"
#define KDF { .iterations = 1000 }      /* the least that LUKS allows: keys are not what is tried here */
#define KIB 1024
#define MIB (1024 * 1024)
/* Ends in the middle of a cluster of every size. */
#define TAIL 1536

#define RAW &vd_format_raw
#define TOY &vd_format_toy
#define QCOW2 &vd_format_qcow2
#define VHD &vd_format_vhd
#define VMDK &vd_format_vmdk
#define VHDX &vd_format_vhdx

const struct variant variants[] = {
	{ "raw", RAW, 0, MIB + 777, 64 * KIB, { 0 } },
	{ "toy", TOY, 0, 40 * TOY_BLOCK + TAIL, TOY_BLOCK, { 0 } },
	{ "toy over raw", TOY, VARIANT_OVER_RAW, 40 * TOY_BLOCK + TAIL, TOY_BLOCK, { 0 } },
	{ "toy over toy", TOY, VARIANT_OVER_SAME, 40 * TOY_BLOCK + TAIL, TOY_BLOCK, { 0 } },
	{ "qcow2", QCOW2, 0, 4 * MIB + TAIL, 64 * KIB, { 0 } },
	{ "qcow2 4k", QCOW2, 0, 3 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "qcow2 512", QCOW2, 0, 512 * KIB + 512, 512, { .cluster_size = 512 } },
	{ "qcow2 512 refcount 1", QCOW2, 0, 512 * KIB + 512, 512, { .cluster_size = 512, .refcount_bits = 1 } },
	{ "qcow2 4k refcount 64", QCOW2, 0, 3 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB, .refcount_bits = 64 } },
	{ "qcow2 v2", QCOW2, 0, 2 * MIB + TAIL, 64 * KIB, { .flags = VD_CREATE_COMPAT_V2 } },
	{ "qcow2 v2 over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB + TAIL, 4 * KIB,
	  { .flags = VD_CREATE_COMPAT_V2, .cluster_size = 4 * KIB } },
	{ "qcow2 extended l2", QCOW2, 0, 2 * MIB + TAIL, 16 * KIB,
	  { .flags = VD_CREATE_EXTENDED_L2, .cluster_size = 16 * KIB } },
	{ "qcow2 extended l2 over raw", QCOW2, VARIANT_OVER_RAW, 2 * MIB + TAIL, 16 * KIB,
	  { .flags = VD_CREATE_EXTENDED_L2, .cluster_size = 16 * KIB } },
	{ "qcow2 lazy", QCOW2, 0, 2 * MIB + TAIL, 16 * KIB,
	  { .flags = VD_CREATE_LAZY_REFCOUNTS, .cluster_size = 16 * KIB } },
	{ "qcow2 over raw", QCOW2, VARIANT_OVER_RAW, 4 * MIB + TAIL, 64 * KIB, { 0 } },
	{ "qcow2 over qcow2", QCOW2, VARIANT_OVER_SAME, 3 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "qcow2 deflate", QCOW2, VARIANT_PACKED, 3 * MIB + TAIL, 16 * KIB, { .cluster_size = 16 * KIB } },
	{ "qcow2 zstd", QCOW2, VARIANT_PACKED, 3 * MIB + TAIL, 64 * KIB, { .compression = VD_COMPRESSION_ZSTD } },
	{ "qcow2 data file", QCOW2, 0, 3 * MIB + TAIL, 64 * KIB, { .data_file = "x" } },
	{ "qcow2 raw data file", QCOW2, 0, 3 * MIB + TAIL, 64 * KIB,
	  { .data_file = "x", .flags = VD_CREATE_DATA_FILE_RAW } },
	{ "qcow2 snapshot", QCOW2, VARIANT_SNAPSHOT, 2 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "qcow2 luks", QCOW2, VARIANT_LUKS, 3 * MIB + TAIL, 64 * KIB, { .kdf = KDF } },
	{ "qcow2 luks 4k over raw", QCOW2, VARIANT_LUKS | VARIANT_OVER_RAW, 3 * MIB + TAIL, 4 * KIB,
	  { .cluster_size = 4 * KIB, .kdf = KDF } },
	{ "vhd", VHD, 0, 3 * MIB + TAIL, 64 * KIB, { .cluster_size = 64 * KIB } },
	{ "vhd 4k", VHD, 0, 512 * KIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "vhd fixed", VHD, 0, MIB + TAIL, 4 * KIB, { .subformat = "fixed" } },
	{ "vhd over vhd", VHD, VARIANT_OVER_SAME, 2 * MIB + TAIL, 32 * KIB, { .cluster_size = 32 * KIB } },
	{ "vmdk", VMDK, 0, 3 * MIB + TAIL, 64 * KIB, { 0 } },
	{ "vmdk 4k", VMDK, 0, 2 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "vmdk flat", VMDK, 0, MIB + TAIL, 4 * KIB, { .subformat = "monolithicFlat" } },
	{ "vmdk in parts", VMDK, 0, 2 * MIB + TAIL, 8 * KIB,
	  { .subformat = "twoGbMaxExtentSparse", .cluster_size = 8 * KIB } },
	{ "vmdk over vmdk", VMDK, VARIANT_OVER_SAME, 2 * MIB + TAIL, 4 * KIB, { .cluster_size = 4 * KIB } },
	{ "vmdk zeroed grains over vmdk", VMDK, VARIANT_OVER_SAME, 2 * MIB + TAIL, 4 * KIB,
	  { .cluster_size = 4 * KIB, .flags = VD_CREATE_ZEROED_GRAINS } },
	{ "vmdk cowd over vmdk", VMDK, VARIANT_OVER_SAME, 5 * MIB + TAIL, 4 * KIB, { .subformat = "vmfsSparse" } },
	{ "vmdk luks1", VMDK, VARIANT_LUKS, 3 * MIB + TAIL, 64 * KIB, { .kdf = KDF } },
	{ "vhdx", VHDX, 0, 4 * MIB + TAIL, MIB, { .cluster_size = MIB } },
	{ "vhdx fixed", VHDX, 0, MIB + TAIL, 64 * KIB, { .subformat = "fixed", .cluster_size = MIB } },
	{ "vhd luks1", VHD, VARIANT_LUKS, MIB + TAIL, 64 * KIB, { .cluster_size = 64 * KIB, .kdf = KDF } },
	{ "vhdx luks1", VHDX, VARIANT_LUKS, MIB + TAIL, MIB, { .cluster_size = MIB, .kdf = KDF } },
	{ "vhdx over vhdx", VHDX, VARIANT_OVER_SAME, 3 * MIB + TAIL, MIB, { .cluster_size = MIB } },
	{ "luks1", RAW, VARIANT_LUKS, MIB + TAIL, 4 * KIB, { .luks_type = VD_LUKS1, .kdf = KDF } },
	{ "luks2 4096", RAW, VARIANT_LUKS, MIB + 4096, 4 * KIB,
	  { .luks_type = VD_LUKS2, .luks_sector_size = 4096, .kdf = { .iterations = 4, .memory_kib = 64 } } },
};
const size_t n_variants = sizeof(variants) / sizeof(variants[0]);

const struct variant *variant_named(const char *name)
{
	for (size_t i = 0; i < n_variants; i++)
		if (!strcmp(variants[i].name, name))
			return &variants[i];
	fail_msg("there is no variant '%s'", name);
	return NULL;
}

uint8_t *variant_snapshot;

/* ---- the peer ----------------------------------------------------------------------------------------- */

/* Runs a command, its output in the file "peer.log"; the exit status. */
static int run_peer(const char *const argv[])
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		int log = open("peer.log", O_WRONLY | O_CREAT | O_TRUNC, 0600);

		dup2(log, 1);
		dup2(log, 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define PEER(...) run_peer((const char *const[]){ "qemu-img", __VA_ARGS__, NULL })

static void fail_with_log(const char *what, const struct variant *v, int status)
{
	char text[2000] = "";
	FILE *log = fopen("peer.log", "r");

	if (log) {
		text[fread(text, 1, sizeof(text) - 1, log)] = '\0';
		fclose(log);
	}
	fail_msg("%s: %s, exit status %d:\n%s", v->name, what, status, text);
}

bool peer_is_here(void)
{
	static int status = -1;

	if (status < 0)
		status = PEER("--version");
	return status == 0;
}

bool peer_knows(const struct variant *v)
{
	/* Of a differencing VHD it reads zeros; a differencing VHDX it refuses. */
	bool is_known_vhd = (v->format == VHD || v->format == VHDX) && !(v->flags & VARIANT_OVER_SAME);

	return peer_is_here() && (v->format == QCOW2 || v->format == VMDK || is_known_vhd);
}

static void save(const struct variant *v, struct vd_host *mem)
{
	struct vd_error e;
	FILE *key = fopen("key", "w");

	assert_non_null(key);
	fputs(KEY, key);
	assert_int_equal(fclose(key), 0);
	if (vd_crash_save(mem, ".", &e) < 0)
		fail_msg("%s: %s", v->name, e.message);
}

static const char *image_opts(const struct variant *v)
{
	if (v->format == VHD)
		return v->flags & VARIANT_LUKS ? "driver=luks,key-secret=s,file.driver=vpc,file.file.filename=d" :
						 "driver=vpc,file.filename=d";
	if (v->format == VMDK)
		return v->flags & VARIANT_LUKS ? "driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=d" :
						 "driver=vmdk,file.filename=d";
	if (v->format == VHDX)
		return v->flags & VARIANT_LUKS ? "driver=luks,key-secret=s,file.driver=vhdx,file.file.filename=d" :
						 "driver=vhdx,file.filename=d";
	return v->flags & VARIANT_LUKS ? "driver=qcow2,file.filename=d,encrypt.key-secret=s" :
					 "driver=qcow2,file.filename=d";
}

void peer_check(const struct variant *v, struct vd_host *mem, bool may_leak)
{
	int status;

	/* It has no check of VHD, nor of what is inside a container. */
	if (v->format == VHD || (v->format != QCOW2 && v->flags & VARIANT_LUKS))
		return;
	save(v, mem);
	/* It replays a log only when it may write. */
	if (v->format == VHDX) {
		status = PEER("check", "-r", "all", "--image-opts", image_opts(v));
		if (status)
			fail_with_log("qemu-img check -r all", v, status);
		return;
	}
	status = PEER("check", "--object", "secret,id=s,file=key", "--image-opts", image_opts(v));
	/* 3: leaked clusters, and nothing worse (qemu-img(1)). */
	if (status != 0 && !(may_leak && status == 3))
		fail_with_log("qemu-img check", v, status);
}

static void compare(const struct variant *v, const uint8_t *bytes, uint64_t size)
{
	FILE *raw = fopen("model", "w");
	int status;

	assert_non_null(raw);
	assert_int_equal(fwrite(bytes, 1, size, raw), size);
	assert_int_equal(fclose(raw), 0);
	status = PEER("compare", "--object", "secret,id=s,file=key", "--image-opts", image_opts(v),
		      "driver=raw,file.filename=model");
	if (status != 0)
		fail_with_log("qemu-img compare", v, status);
}

void peer_compare(const struct variant *v, struct vd_host *mem, const struct model *m)
{
	int status;

	save(v, mem);
	compare(v, m->bytes, m->size);
	if (!(v->flags & VARIANT_SNAPSHOT))
		return;
	status = PEER("snapshot", "--object", "secret,id=s,file=key", "--image-opts", "-a", "s", image_opts(v));
	if (status != 0)
		fail_with_log("qemu-img snapshot -a", v, status);
	compare(v, variant_snapshot, m->size);
}

/* ---- making ------------------------------------------------------------------------------------------- */

/* One for all, made before any test takes memory away. */
static struct vd_key *key_of(const struct variant *v)
{
	static struct vd_key *key;

	if (!key)
		assert_int_equal(vd_key_from_bytes(KEY, strlen(KEY), &key, NULL), 0);
	return v->flags & VARIANT_LUKS ? key : NULL;
}

static int open_with_key(const struct variant *v, struct vd_host *host, const char *name, struct vd_open_opts *opts,
			 struct vd_image **img, struct vd_error *e)
{
	struct vd_key *key = key_of(v);

	if (key && v->format == &vd_format_raw)
		opts->format = "luks";
	opts->keys = &key;
	opts->n_keys = key ? 1 : 0;
	return vd_image_open_on(host, v->format, name, opts, img, e);
}

int variant_open_on(const struct variant *v, struct vd_host *host, const char *name, unsigned flags,
		    uint64_t cache_bytes, struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(v->format, flags);

	opts.cache_bytes = cache_bytes;
	return open_with_key(v, host, name, &opts, img, e);
}

int variant_open_snapshot(const struct variant *v, struct vd_host *host, const char *name, const char *snapshot,
			  struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(v->format, 0);

	opts.snapshot = snapshot;
	return open_with_key(v, host, name, &opts, img, e);
}

struct vd_image *variant_open(const struct variant *v, unsigned flags)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_open_on(v, disks.host, "d", flags, 0, &img, &e), &e);
	return img;
}

bool variant_keeps_snapshot(const struct variant *v, struct vd_host *host, uint64_t size, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(v->format, 0);
	vd_auto_free uint8_t *got = malloc(size);
	struct vd_image *img;
	int r;

	if (!(v->flags & VARIANT_SNAPSHOT))
		return true;
	opts.snapshot = "s";
	r = vd_image_open_on(host, v->format, "d", &opts, &img, e);
	if (r < 0)
		return false;
	r = vd_image_pread(img, got, size, 0, e);
	vd_image_abort(img);
	if (r == 0 && memcmp(got, variant_snapshot, size))
		r = vd_fail(e, VD_EMISMATCH, "the snapshot has changed");
	return r == 0;
}

/* The parent "p": a third shorter than the disk, some of it zeros. */
static void make_parent(const struct variant *v, struct model *m)
{
	struct model below;
	struct vd_image *img;
	const struct vd_format *format = v->flags & VARIANT_OVER_RAW ? &vd_format_raw : v->format;

	model_init(&below, vd_round_down(m->size / 3 * 2, 512) + (format == &vd_format_raw ? 99 : 0), m->chance);
	disk_make(format, "p", below.size, NULL);
	img = disk_open(format, "p", VD_OPEN_WRITE);
	model_write(&below, img, 0, below.size);
	model_zero(&below, img, below.size / 4, below.size / 4);
	disk_close(img);
	memcpy(m->bytes, below.bytes, below.size);
	model_free(&below);
}

/* Every other unit, some of them hard to pack; the core is asked as the copying workers do. */
static void pack_units(const struct variant *v, struct model *m, struct vd_image *img)
{
	vd_auto_free uint8_t *packed = malloc(v->unit);
	struct vd_error e;

	expect_ok(vd_write_start(img, &e), &e);
	for (uint64_t off = 0; off + v->unit <= m->size; off += 2 * v->unit) {
		struct vd_resv r = { .off = off, .len = v->unit };
		size_t n = 0;

		memset(m->bytes + off, chance_next(&m->chance), v->unit);
		for (uint64_t i = 0, noise = chance_below(&m->chance, v->unit); i < noise; i += 3)
			m->bytes[off + i] = chance_next(&m->chance);
		expect_ok(vd_codec_pack(img->codec, img->info.codec, packed, v->unit - 1, m->bytes + off, v->unit, &n,
					&e), &e);
		r.packed_len = n;
		expect_ok(vd_write_reserve(img, &r, &e), &e);
		expect_ok(vd_write_complete(img, &r, n ? packed : m->bytes + off, &e), &e);
	}
}

int variant_create_on(const struct variant *v, struct vd_host *host, const char *name, struct vd_image **img,
		      struct vd_error *e)
{
	struct vd_create_opts opts = v->opts;

	opts.struct_size = sizeof(opts);
	opts.format = v->format->name;
	opts.size = v->size;
	opts.gate = disks_gate;
	opts.key = key_of(v);
	if (v->flags & (VARIANT_OVER_RAW | VARIANT_OVER_SAME)) {
		opts.backing_file = "p";
		opts.backing_format = v->flags & VARIANT_OVER_RAW ? "raw" : v->format->name;
	}
	/* Two of a kind have the same data file, of which the second makes its own. */
	opts.flags |= VD_CREATE_REPLACE;
	return vd_image_create_on(host, v->format, name, &opts, img, e);
}

static void create(const struct variant *v, struct model *m)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_create_on(v, disks.host, "d", &img, &e), &e);
	if (v->flags & VARIANT_PACKED)
		pack_units(v, m, img);
	/* A new container reads as noise. */
	if (img->layer.is_container)
		model_zero(m, img, 0, m->size);
	disk_commit(img);
	disk_close(img);
}

static void load_file(const char *path)
{
	struct stat st;
	vd_auto_fd int fd = open(path, O_RDONLY);
	vd_auto_free uint8_t *bytes = NULL;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = malloc(st.st_size);
	assert_int_equal(read(fd, bytes, st.st_size), st.st_size);
	assert_int_equal(vd_mem_put(disks.mem, path, bytes, st.st_size, NULL), 0);
}

/* Snapshots are made by the peer: all that is written so far has two owners afterwards. */
static bool take_snapshot(const struct variant *v, struct model *m)
{
	struct vd_image *img;
	int status;

	if (!peer_is_here())
		return false;
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(m, img, 0, m->size / 2);
	disk_close(img);
	save(v, disks.mem);
	status = PEER("snapshot", "-c", "s", "d");
	if (status)
		fail_with_log("qemu-img snapshot", v, status);
	load_file("d");
	free(variant_snapshot);
	variant_snapshot = malloc(m->size);
	memcpy(variant_snapshot, m->bytes, m->size);
	return true;
}

bool variant_make(const struct variant *v, struct model *m)
{
	if (v->flags & (VARIANT_OVER_RAW | VARIANT_OVER_SAME))
		make_parent(v, m);
	create(v, m);
	return !(v->flags & VARIANT_SNAPSHOT) || take_snapshot(v, m);
}
