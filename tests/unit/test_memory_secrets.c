/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the secrets of an open image are: this process looks through its own memory, and through a core file of its own. A
 * searcher must not hold what it looks for, so the image is made in a child, which tells its keys in disguise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"
#include "tests/support/leftover.h"
#include "tests/support/tempdir.h"

#define MIB ((uint64_t)1 << 20)
#define PASS 32                 /* letters of the passphrase, which is in the file "pass" */
#define PART 16                 /* bytes that are looked for: a secret that is gone may leave half of itself */
#define THREADS 4

static const struct kind {
	const char *name, *format, *open_as;
	enum vd_luks_type type;
} kinds[] = {
	{ "luks1 container", "raw", "luks", VD_LUKS1 },
	{ "luks2 container", "raw", "luks", VD_LUKS2 },
	{ "qcow2", "qcow2", "qcow2", VD_LUKS1 },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* In disguise: the passphrase's first and second half, and the first and last bytes of both halves of the volume key. */
static struct wanted {
	uint8_t pass[2][PART], vk[4][PART];
} wanted;

/* ---- the image, made elsewhere ---- */

static void or_die(int r)
{
	if (r < 0)
		_exit(1);
}

/* Of qcow2 it is where the header extension says; tables of such a small image leave it in the first MiB. */
static struct vd_bytes find_header(uint8_t *file, size_t len)
{
	uint64_t header_len;

	for (size_t at = 0; at < len; at += 512)
		if (vd_luks_probe((struct vd_bytes){ file + at, len - at }, &header_len) && at + header_len <= len)
			return (struct vd_bytes){ file + at, header_len };
	_exit(2);
}

static void make_image(const struct kind *k, struct wanted *w)
{
	static uint8_t file[20 * MIB];
	struct vd_create_opts o = {
		.struct_size = sizeof(o), .format = k->format, .size = 4 * MIB, .luks_type = k->type,
		.kdf = { k->type == VD_LUKS1 ? 1000 : 4, k->type == VD_LUKS1 ? 0 : 32 },
	};
	struct vd_image *img;
	struct vd_secret vk = { 0 };
	char pass[PASS];
	FILE *f = fopen("pass", "w");
	size_t len;

	or_die(vd_random(pass, PASS, NULL));
	for (size_t i = 0; i < PASS; i++)
		pass[i] = (char)('a' + (pass[i] & 15));
	if (!f || fwrite(pass, 1, PASS, f) != PASS || fclose(f))
		_exit(1);
	or_die(vd_key_from_bytes(pass, PASS, &o.key, NULL));
	or_die(vd_image_create("d", &o, &img, NULL));
	or_die(vd_image_commit(img, NULL));
	or_die(vd_image_close(img, NULL));
	f = fopen("d", "r");
	len = f ? fread(file, 1, sizeof(file), f) : 0;
	or_die(vd_luks_unlock(&(struct vd_luks_view){ .header = find_header(file, len) }, o.key, &vk, NULL));
	memcpy(w->pass, pass, PASS);
	for (size_t i = 0; i < 4; i++)
		memcpy(w->vk[i], vk.p + i * PART, PART);
	vd_leftover_shift((uint8_t *)w, sizeof(*w));
}

static void make_image_elsewhere(const struct kind *k)
{
	int ends[2], status;
	pid_t pid;

	unlink("d");
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		struct wanted w;

		make_image(k, &w);
		_exit(write(ends[1], &w, sizeof(w)) == sizeof(w) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], &wanted, sizeof(wanted)), sizeof(wanted));
	close(ends[0]);
	close(ends[1]);
}

/* ---- the image, in use ---- */

static struct vd_key *take_key(void)
{
	struct vd_key *key = NULL;

	assert_int_equal(vd_key_from_file("pass", &key, NULL), 0);
	return key;
}

static struct vd_image *open_image(const struct kind *k, struct vd_key *key)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .format = k->open_as, .flags = VD_OPEN_WRITE, .keys = &key, .n_keys = 1 };
	struct vd_image *img = NULL;
	struct vd_error e = { 0 };

	if (vd_image_open("d", &o, &img, &e) < 0)
		fail_msg("%s: %s", k->name, e.message);
	return img;
}

static void *use_part(void *arg)
{
	struct vd_image *img = arg;
	static _Thread_local uint8_t buf[65536];

	for (uint64_t at = 0; at < 4 * MIB; at += sizeof(buf))
		if (vd_image_pwrite(img, buf, sizeof(buf), at, NULL) < 0 || vd_image_pread(img, buf, sizeof(buf), at, NULL) < 0)
			return img;
	return NULL;
}

/* By several threads, each of which needs a cipher of its own. */
static void use(struct vd_image *img)
{
	pthread_t threads[THREADS];
	void *failed;

	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_part, img), 0);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
}

/* All pieces of one secret are found this often, and wherever they are the memory is locked and left out of core files. */
static void is_guarded(const struct kind *k, const char *what, const uint8_t (*parts)[PART], size_t n, int least, int most)
{
	for (size_t i = 0; i < n; i++) {
		struct vd_leftovers found = vd_leftovers_of(getpid(), parts[i], PART);

		if (found.all < least || found.all > most || found.swappable || found.dumped)
			fail_msg("%s: part %zu of the %s is %d times in memory, %d of them not locked, %d of them in core files", k->name,
				 i, what, found.all, found.swappable, found.dumped);
	}
}

static void secrets_lie_in_locked_memory_and_go_with_the_image(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS && !VD_SANITIZED; i++) {
		struct vd_key *key;
		struct vd_image *img;

		make_image_elsewhere(&kinds[i]);
		key = take_key();
		is_guarded(&kinds[i], "passphrase", wanted.pass, 2, 1, 1);
		img = open_image(&kinds[i], key);
		use(img);
		is_guarded(&kinds[i], "passphrase", wanted.pass, 2, 1, 1);
		is_guarded(&kinds[i], "volume key", wanted.vk, 4, 1, 64);
		vd_key_free(key);
		is_guarded(&kinds[i], "passphrase", wanted.pass, 2, 0, 0);
		assert_int_equal(vd_image_close(img, NULL), 0);
		is_guarded(&kinds[i], "volume key", wanted.vk, 4, 0, 0);
	}
}

/* What edits keyslots has more of them in hand. */
static void changing_keys_leaves_nothing_behind(void **state)
{
	struct vd_keyslot_opts o = { .struct_size = sizeof(o), .kdf = { 1000, 0 } };

	(void)state;
	for (size_t i = 0; i < N_KINDS && !VD_SANITIZED; i++) {
		struct vd_key *key, *new_key = NULL;
		struct vd_image *img;

		make_image_elsewhere(&kinds[i]);
		o.kdf = (struct vd_kdf_opts){ kinds[i].type == VD_LUKS1 ? 1000 : 4, kinds[i].type == VD_LUKS1 ? 0 : 32 };
		key = take_key();
		assert_int_equal(vd_key_from_bytes("new", 3, &new_key, NULL), 0);
		img = open_image(&kinds[i], key);
		assert_int_equal(vd_keyslot_add(img, key, new_key, &o, NULL, NULL), 0);
		assert_int_equal(vd_keyslot_change(img, key, new_key, &o, NULL, NULL), 0);
		is_guarded(&kinds[i], "passphrase", wanted.pass, 2, 1, 1);
		vd_key_free(key);
		vd_key_free(new_key);
		assert_int_equal(vd_image_close(img, NULL), 0);
		is_guarded(&kinds[i], "passphrase", wanted.pass, 2, 0, 0);
		is_guarded(&kinds[i], "volume key", wanted.vk, 4, 0, 0);
	}
}

/* ---- a core file ---- */

static int count_in_file(const char *path, const uint8_t *shifted)
{
	FILE *f = fopen(path, "r");
	uint8_t last[PART] = { 0 };
	int found = 0;

	if (!f)
		return -1;
	for (int c; (c = getc(f)) != EOF;) {
		memmove(last, last + 1, PART - 1);
		last[PART - 1] = (uint8_t)(c + VD_LEFTOVER_SHIFT);
		found += !memcmp(last, shifted, PART);
	}
	fclose(f);
	return found;
}

static char marker[] = "marker of a core";

static void die_with_core(const struct kind *k)
{
	const struct rlimit most = { RLIM_INFINITY, RLIM_INFINITY };
	struct vd_key *key = take_key();
	struct vd_image *img = open_image(k, key);
	setrlimit(RLIMIT_CORE, &most);
	use(img);
	marker[0] = 'M';        /* written to, so that a core file has the page */
	signal(SIGABRT, SIG_DFL);
	abort();
}

/*
 * Where the kernel writes core files into the working folder; elsewhere (a program takes them) that the memory is marked to
 * be left out, which the tests above look at, has to do.
 */
static void a_core_file_has_no_secret(void **state)
{
	uint8_t hidden[PART];
	const char *core = "core";
	char numbered[32];
	int status;
	pid_t pid;

	(void)state;
	if (VD_SANITIZED)
		return;
	make_image_elsewhere(&kinds[0]);
	pid = fork();
	if (!pid)
		die_with_core(&kinds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	snprintf(numbered, sizeof(numbered), "core.%d", (int)pid);
	if (access(core, R_OK) < 0)
		core = numbered;
	if (access(core, R_OK) < 0)
		return;
	memcpy(hidden, marker, PART);
	hidden[0] = 'M';
	vd_leftover_shift(hidden, PART);
	assert_true(count_in_file(core, hidden) > 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(count_in_file(core, wanted.pass[i]), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(count_in_file(core, wanted.vk[i]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_lie_in_locked_memory_and_go_with_the_image),
		cmocka_unit_test(changing_keys_leaves_nothing_behind),
		cmocka_unit_test(a_core_file_has_no_secret),
	};

	return cmocka_run_group_tests_name("secrets in memory", tests, vd_tempdir_enter, vd_tempdir_leave);
}
