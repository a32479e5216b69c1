/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Damages sound images of all kinds at random and holds check and repair against qemu-img, for each:
 *
 *  - what qemu-img calls an error or a leak, the check has a finding for;
 *  - after a repair qemu-img finds no errors, or where the repair left something no more than before;
 *  - no byte of the disk or of a snapshot that could be read reads otherwise afterwards, or not any more;
 *  - what is sound afterwards stays so when it is written to;
 *  - on what qemu-img has repaired, the check finds nothing that it did not find before.
 *
 * VD_DAMAGE_FIRST, VD_DAMAGE_IMAGES: which seeds. VD_DAMAGE_TELL: prints what was done to each.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/qcow2/qcow2_tally.h"
#include "libvdisk/base/checked.h"
#include "tests/support/damage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_IMAGES 1000
#define N_VIEWS 3
#define PIECE_MIN 4096

static const char *const views[N_VIEWS] = { NULL, "one", "two" };

static const char *const kinds[] = {
	"qcow2", "qcow2 4k", "qcow2 512", "qcow2 512 refcount 1", "qcow2 4k refcount 64", "qcow2 v2", "qcow2 v2 over raw",
	"qcow2 extended l2", "qcow2 extended l2 over raw", "qcow2 lazy", "qcow2 deflate", "qcow2 zstd", "qcow2 data file",
	"qcow2 raw data file", "qcow2 luks 4k over raw",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct base {
	const struct variant *v;
	struct damage_base d;
	char folder[16];
} bases[N_KINDS];

static size_t n_opened, n_mended;

/* The image at hand, for messages. */
static struct {
	const struct base *base;
	uint64_t seed;
	char story[1200];
	jmp_buf next;
	size_t n_broken;
} now;

/* A claim does not hold for this image; the next one is tried all the same. */
static void broken(const char *fmt, ...) VD_PRINTF(1, 2) __attribute__((noreturn));
static void broken(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	print_error("seed %" PRIu64 ", %s: %s\n%s\n", now.seed, now.base->v->name, text, now.story);
	now.n_broken++;
	longjmp(now.next, 1);
}

/* ---- the peer ------------------------------------------------------------------------------------------- */

struct verdict {
	int status;                     /* -1: it did not get so far as to have one */
	uint64_t corruptions, leaks;
};

static uint64_t number_of(const char *json, const char *key)
{
	const char *at = strstr(json, key);

	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* repair: "", "-rleaks", "-rall". */
static struct verdict ask_peer(const char *name, const char *repair)
{
	extern char **environ;
	char command[320], out[4096] = "";
	/* Some damage makes it take all memory and time that there is. */
	const char *argv[] = { "sh", "-c", command, NULL };
	posix_spawn_file_actions_t files;
	struct verdict v = { 0 };
	int status = -1, pipes[2];
	ssize_t n, len = 0;
	pid_t pid;

	snprintf(command, sizeof(command), "ulimit -v 1000000; ulimit -t 3; ulimit -f 65536; exec qemu-img check --output=json --object "
		 "secret,id=s,file=../key --image-opts driver=qcow2,file.filename=%s%s %s", name,
		 now.base->v->flags & VARIANT_LUKS ? ",encrypt.key-secret=s" : "", repair);
	assert_int_equal(pipe(pipes), 0);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, pipes[1], 1);
	posix_spawn_file_actions_addclose(&files, pipes[0]);
	posix_spawn_file_actions_addopen(&files, 2, "peer.err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(posix_spawnp(&pid, argv[0], &files, NULL, (char *const *)argv, environ), 0);
	posix_spawn_file_actions_destroy(&files);
	close(pipes[1]);
	while ((n = read(pipes[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += n;
	close(pipes[0]);
	waitpid(pid, &status, 0);
	v.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	if (v.status != 0 && v.status != 2 && v.status != 3)
		v.status = -1;
	v.corruptions = number_of(out, "\"corruptions\": ");
	v.leaks = number_of(out, "\"leaks\": ");
	return v;
}

/* Once more when it gave up: the machine may have been short of something. */
static struct verdict peer(const char *name, const char *repair)
{
	struct verdict v = ask_peer(name, repair);

	return v.status < 0 ? ask_peer(name, repair) : v;
}

/* ---- files ---------------------------------------------------------------------------------------------- */

static void put_file(const char *name, const uint8_t *bytes, uint64_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	assert_int_equal(close(fd), 0);
}

static int open_image(const char *name, unsigned flags, const char *snapshot, struct vd_image **img, struct vd_error *e)
{
	static struct vd_key *key;
	const struct variant *v = now.base->v;
	struct vd_open_opts opts = disk_open_opts(v->format, flags);

	if (!key)
		assert_int_equal(vd_key_from_bytes("correct horse", 13, &key, NULL), 0);
	opts.keys = &key;
	opts.n_keys = v->flags & VARIANT_LUKS ? 1 : 0;
	opts.snapshot = snapshot;
	return vd_image_open_on(vd_host_os(), v->format, name, &opts, img, e);
}

/* ---- what can be read ----------------------------------------------------------------------------------- */

struct reading {
	uint8_t *bytes[N_VIEWS], *is_read[N_VIEWS];
	uint64_t piece, n_pieces;
};

static void read_view(struct reading *r, const char *name, int view)
{
	struct vd_image *img = NULL;
	uint64_t size;

	r->bytes[view] = calloc(r->n_pieces, r->piece);
	r->is_read[view] = calloc(1, r->n_pieces);
	if (open_image(name, 0, views[view], &img, NULL) < 0)
		return;
	size = vd_image_size(img);
	for (uint64_t i = 0; i < r->n_pieces && i * r->piece < size; i++)
		r->is_read[view][i] = vd_image_pread(img, r->bytes[view] + i * r->piece, vd_min_u64(r->piece, size - i * r->piece),
						     i * r->piece, NULL) == 0;
	vd_image_abort(img);
}

static struct reading read_all(const char *name)
{
	const struct variant *v = now.base->v;
	struct reading r = { .piece = vd_max_u64(v->unit, PIECE_MIN) };

	r.n_pieces = v->size / r.piece;
	for (int view = 0; view < N_VIEWS; view++)
		read_view(&r, name, view);
	return r;
}

static void free_reading(struct reading *r)
{
	for (int view = 0; view < N_VIEWS; view++) {
		free(r->bytes[view]);
		free(r->is_read[view]);
	}
}

static void expect_kept(const struct reading *before, const struct reading *after)
{
	for (int view = 0; view < N_VIEWS; view++)
		for (uint64_t i = 0; i < before->n_pieces; i++) {
			if (!before->is_read[view][i])
				continue;
			if (!after->is_read[view][i])
				broken("byte %" PRIu64 " of %s cannot be read any more", i * before->piece, views[view] ? views[view] : "the disk");
			if (memcmp(before->bytes[view] + i * before->piece, after->bytes[view] + i * before->piece, before->piece))
				broken("byte %" PRIu64 " of %s has changed", i * before->piece, views[view] ? views[view] : "the disk");
		}
}

/* ---- our side ------------------------------------------------------------------------------------------- */

struct result {
	int code;
	bool is_open;
	struct vd_check_report rep;
	uint32_t corrupt;               /* a bit for each kind of corruption found, before a repair */
	struct vd_error e;
};

static int note(void *ctx, const struct vd_finding *f)
{
	struct result *r = ctx;

	if (f->severity == VD_SEVERITY_CORRUPTION && !f->remains)
		r->corrupt |= 1u << f->kind;
	return 0;
}

static struct result check(const char *name, enum vd_repair repair)
{
	struct result r = { .rep = { .struct_size = sizeof(r.rep) } };
	struct vd_image *img = NULL;

	r.code = open_image(name, repair ? VD_OPEN_REPAIR : VD_OPEN_METADATA, NULL, &img, &r.e);
	if (r.code < 0)
		return r;
	r.is_open = true;
	r.code = vd_image_check(img, repair, note, &r, NULL, &r.rep, &r.e);
	if (r.code == 0)
		r.code = vd_image_close(img, &r.e);
	else
		vd_image_abort(img);
	return r;
}

/* ---- the claims ----------------------------------------------------------------------------------------- */

static void expect_seen(const struct result *r, const struct verdict *p)
{
	if (p->corruptions && !r->rep.corruptions)
		broken("qemu-img finds %" PRIu64 " errors, the check none", p->corruptions);
	if (p->leaks && !r->rep.leaks && !r->rep.corruptions)
		broken("qemu-img finds %" PRIu64 " leaks, the check none", p->leaks);
}

static void expect_mended(const struct result *r, const struct verdict *before)
{
	struct verdict p = peer("d", "");

	/* It could check the image before: what it is short of now may come. */
	for (unsigned pause = 1; before->status >= 0 && p.status < 0 && pause <= 8; pause *= 2) {
		sleep(pause);
		p = peer("d", "");
	}
	if (r->rep.corruptions == 0 && (p.status < 0 || p.corruptions))
		broken("mended, but qemu-img finds %" PRIu64 " errors (status %d)", p.corruptions, p.status);
	if (before->status >= 0 && p.status < 0)
		broken("qemu-img cannot check it any more");
	if (before->status >= 0 && p.corruptions > before->corruptions)
		broken("qemu-img finds %" PRIu64 " errors, %" PRIu64 " before", p.corruptions, before->corruptions);
	if (r->rep.corruptions == 0 && r->rep.leaks == 0 && p.leaks)
		broken("no leaks are left, but qemu-img finds %" PRIu64, p.leaks);
}

static void write_some(uint64_t seed)
{
	const struct variant *v = now.base->v;
	struct vd_image *img = NULL;
	struct model m;
	struct vd_error e;

	if (open_image("d", VD_OPEN_WRITE, NULL, &img, &e) < 0)
		broken("cannot be written: %s", e.message);
	model_init(&m, v->size, seed);
	for (int i = 0; i < 4; i++) {
		uint64_t off = chance_below(&m.chance, v->size - 2 * v->unit), len = 1 + chance_below(&m.chance, 2 * v->unit);
		int r = vd_image_pwrite(img, m.bytes + off, len, off, &e);

		/* What the tables cannot tell, bytes do: a compressed cluster that is none, and refcounts that are used up. */
		if (r < 0 && r != VD_ECORRUPT)
			broken("cannot be written: %s", e.message);
		if (r < 0)
			break;
	}
	model_free(&m);
	if (vd_image_close(img, &e) < 0)
		broken("cannot be closed: %s", e.message);
}

/* Sound images: nothing more is mended, leaks can go, and it can be used. */
static void expect_usable(struct result *r)
{
	struct result again;

	if (r->rep.leaks)
		*r = check("d", VD_REPAIR_LEAKS);
	if (r->code < 0 || r->rep.leaks || r->rep.corruptions)
		broken("leaks are not given back: %s", r->code < 0 ? r->e.message : "");
	again = check("d", VD_REPAIR_ALL);
	if (again.code < 0 || again.rep.changed)
		broken("a second repair changes something");
}

static void expect_sound_after_writing(void)
{
	struct result r;

	write_some(now.seed);
	r = check("d", VD_REPAIR_NONE);
	/* A cluster that two entries name has lost its flag; when one of them goes elsewhere, the other does not get it back. */
	if (r.code < 0 || r.corrupt & ~(1u << VD_FOUND_COPIED))
		broken("writing broke it: kinds %x", r.corrupt);
}

/* Something that qemu-img leaves may still be seen; nothing new may be. */
static void expect_nothing_new(const struct result *found)
{
	struct verdict p = peer("q", "-rall");
	struct result r;

	if (p.status < 0)
		return;
	r = check("q", VD_REPAIR_NONE);
	/* Counts that it raised, flags that it changed: what follows from a wrong entry is not new. */
	if (r.code == 0 && p.status == 0 && r.corrupt & ~(found->corrupt | 1u << VD_FOUND_COPIED))
		broken("after qemu-img's repair the check finds kinds %x, before %x", r.corrupt, found->corrupt);
}

/* In its folder. */
static void try_image(const struct base *b, uint64_t seed)
{
	uint8_t *copy = malloc(b->d.size);
	struct reading before, after;
	struct verdict p;
	struct result r;
	uint64_t size;

	now.base = b;
	now.seed = seed;
	/* Every fifth goes through many windows, as files of terabytes do. */
	vd_qcow2_tally_window = seed % 5 ? 32u << 20 : 2048;
	damage_apply(&b->d, copy, &size, seed, now.story, sizeof(now.story));
	if (getenv("VD_DAMAGE_TELL"))
		print_message("%" PRIu64 " %s: %s\n", seed, b->v->name, now.story);
	put_file("d", copy, size);
	put_file("q", copy, size);
	free(copy);
	r = check("d", VD_REPAIR_NONE);
	if (r.is_open) {
		n_opened++;
		if (r.code < 0)
			broken("the check fails: %s", r.e.message);
		p = peer("d", "");
		expect_seen(&r, &p);
		before = read_all("d");
		if (seed % 4 == 1)
			expect_nothing_new(&r);
		r = check("d", VD_REPAIR_ALL);
		if (r.code < 0 && r.code != VD_ECORRUPT)
			broken("the repair fails: %s", r.e.message);
		after = read_all("d");
		expect_kept(&before, &after);
		free_reading(&before);
		free_reading(&after);
		if (r.code == 0)
			expect_mended(&r, &p);
		if (r.code == 0 && !r.rep.corruptions) {
			n_mended++;
			expect_usable(&r);
			expect_sound_after_writing();
		}
	}
}

static void try_or_tell(const struct base *b, uint64_t seed)
{
	if (!setjmp(now.next))
		try_image(b, seed);
}

/* ---- sound images --------------------------------------------------------------------------------------- */

static void fill(const struct variant *v, struct model *m)
{
	struct vd_image *img = variant_open(v, VD_OPEN_WRITE);
	bool has_snapshots = !v->opts.data_file && v->opts.refcount_bits != 1;
	struct vd_error e;

	model_write(m, img, 0, m->size / 3);
	if (has_snapshots)
		expect_ok(vd_snapshot_create(img, "one", &e), &e);
	if (!(v->opts.flags & VD_CREATE_COMPAT_V2))
		expect_ok(vd_bitmap_create(img, "b", 65536, 0, &e), &e);
	model_write(m, img, m->size / 4, m->size / 4);
	model_zero(m, img, m->size / 8, m->size / 16);
	if (has_snapshots)
		expect_ok(vd_snapshot_create(img, "two", &e), &e);
	model_write(m, img, m->size / 5 * 4, m->size / 8);
	model_zero(m, img, m->size / 9 * 8, v->unit);
	disk_close(img);
}

static void make_base(struct base *b, size_t i)
{
	const struct variant *v = variant_named(kinds[i]);
	struct model m;
	struct result r;
	uint64_t size;
	uint8_t *bytes;
	struct vd_error e;

	assert_int_equal(disks_start(NULL), 0);
	model_init(&m, v->size, i + 1);
	assert_true(variant_make(v, &m));
	fill(v, &m);
	b->v = v;
	snprintf(b->folder, sizeof(b->folder), "base%zu", i);
	assert_int_equal(mkdir(b->folder, 0700), 0);
	expect_ok(vd_crash_save(disks.mem, b->folder, &e), &e);
	size = bytes_size("d");
	bytes = malloc(size);
	bytes_read("d", 0, bytes, size);
	damage_survey(&b->d, bytes, size);
	model_free(&m);
	assert_int_equal(disks_stop(NULL), 0);
	now.base = b;
	assert_int_equal(chdir(b->folder), 0);
	r = check("d", VD_REPAIR_NONE);
	if (r.code < 0 || r.rep.corruptions || r.rep.leaks || peer("d", "").status != 0)
		fail_msg("%s: the sound image is not", v->name);
	assert_int_equal(chdir(".."), 0);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static void check_and_repair_agree_with_qemu(void **state)
{
	uint64_t first = setting("VD_DAMAGE_FIRST", 0), n = setting("VD_DAMAGE_IMAGES", N_IMAGES);

	(void)state;
	if (!peer_is_here())
		skip();
	put_file("key", (const uint8_t *)"correct horse", 13);
	for (size_t i = 0; i < N_KINDS; i++)
		make_base(&bases[i], i);
	for (uint64_t seed = first; seed < first + n; seed++) {
		const struct base *b = &bases[seed % N_KINDS];

		assert_int_equal(chdir(b->folder), 0);
		try_or_tell(b, seed);
		assert_int_equal(chdir(".."), 0);
	}
	print_message("%" PRIu64 " images: %zu opened, %zu mended wholly\n", n, n_opened, n_mended);
	assert_int_equal(now.n_broken, 0);
	/* Else little was seen. */
	assert_true(n_opened > n / 2 && n_mended > n / 4);
	for (size_t i = 0; i < N_KINDS; i++)
		damage_free(&bases[i].d);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(check_and_repair_agree_with_qemu) };
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	r = cmocka_run_group_tests_name("damaged images", tests, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
