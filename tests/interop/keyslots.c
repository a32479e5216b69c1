/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edits the keyslots of one image in random turn by this library, by libcryptsetup and by qemu-img, and sees after each edit
 * that what opens is what has been put in and not taken out.
 *
 * usage: keyslots raw|luks2|qcow2 EDITS SEED     in an empty folder; TAP on stdout
 *
 * Every secret is a file "kN" with the text "secret N": qemu wants files.
 */
#include <libcryptsetup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/include/vdisk.h"

#define N_SECRETS 5             /* at most so many in use: LUKS1 has 8 slots */
#define SLOT_NONE UINT32_MAX

static const char *kind;
static bool in_use[N_SECRETS];
static unsigned long edit;

static void bail(const char *doing, const char *why)
{
	printf("not ok 1 - %s: edit %lu, %s: %s\n1..1\n", kind, edit, doing, why);
	exit(1);
}

static struct vd_key *key_of(unsigned n)
{
	struct vd_key *key;
	char name[16];
	struct vd_error e;

	snprintf(name, sizeof(name), "k%u", n);
	if (vd_key_from_file(name, &key, &e) < 0)
		bail(name, e.message);
	return key;
}

static bool is_luks2(void)
{
	return !strcmp(kind, "luks2");
}

static struct vd_image *open_image(unsigned flags)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .flags = flags };
	struct vd_image *img;
	struct vd_error e;

	if (vd_image_open("d", &o, &img, &e) < 0)
		bail("opening", e.message);
	return img;
}

static void close_image(struct vd_image *img)
{
	struct vd_error e;

	if (vd_image_close(img, &e) < 0)
		bail("closing", e.message);
}

static unsigned pick(bool used)
{
	unsigned n;

	do
		n = (unsigned)random() % N_SECRETS;
	while (in_use[n] != used);
	return n;
}

static unsigned count(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < N_SECRETS; i++)
		n += in_use[i];
	return n;
}

/* ---- by this library -------------------------------------------------------------------------------------- */

static uint32_t slot_of(struct vd_image *img, unsigned n)
{
	struct vd_key *key = key_of(n);
	uint32_t slot;
	struct vd_error e;
	int r = vd_keyslot_find(img, key, &slot, &e);

	vd_key_free(key);
	if (r < 0 && r != VD_EKEY)
		bail("finding a slot", e.message);
	return r < 0 ? SLOT_NONE : slot;
}

static struct vd_keyslot_opts cheap(void)
{
	return (struct vd_keyslot_opts){
		.struct_size = sizeof(struct vd_keyslot_opts), .kdf = { is_luks2() ? 4 : 1000, is_luks2() ? 32 : 0 },
	};
}

static void our_add(unsigned any, unsigned new, bool instead)
{
	struct vd_image *img = open_image(VD_OPEN_CONTROL);
	struct vd_key *a = key_of(any), *b = key_of(new);
	struct vd_keyslot_opts o = cheap();
	struct vd_error e;
	int r = instead ? vd_keyslot_change(img, a, b, &o, NULL, &e) : vd_keyslot_add(img, a, b, &o, NULL, &e);

	if (r < 0)
		bail("our add or change", e.message);
	vd_key_free(a);
	vd_key_free(b);
	close_image(img);
}

static void our_remove(unsigned n)
{
	struct vd_image *img = open_image(VD_OPEN_CONTROL);
	struct vd_error e;

	if (vd_keyslot_remove(img, slot_of(img, n), 0, &e) < 0)
		bail("our remove", e.message);
	close_image(img);
}

/* ---- by libcryptsetup ------------------------------------------------------------------------------------- */

static struct crypt_device *cryptsetup_open(void)
{
	const struct crypt_pbkdf_type luks1 = { .type = "pbkdf2", .hash = "sha512", .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK };
	const struct crypt_pbkdf_type luks2 = {
		.type = "argon2id", .hash = "sha512", .iterations = 4, .max_memory_kb = 32, .parallel_threads = 1,
		.flags = CRYPT_PBKDF_NO_BENCHMARK,
	};
	struct crypt_device *cd;

	if (crypt_init(&cd, "d") < 0 || crypt_load(cd, is_luks2() ? CRYPT_LUKS2 : CRYPT_LUKS1, NULL) < 0)
		bail("libcryptsetup", "does not load the header");
	if (crypt_set_pbkdf_type(cd, is_luks2() ? &luks2 : &luks1) < 0)
		bail("libcryptsetup", "does not take the cost");
	return cd;
}

static size_t text_of(unsigned n, char text[16])
{
	return (size_t)snprintf(text, 16, "secret %u", n);
}

static void cryptsetup_add(unsigned any, unsigned new, bool instead)
{
	struct crypt_device *cd = cryptsetup_open();
	char a[16], b[16];
	size_t a_len = text_of(any, a), b_len = text_of(new, b);
	int r = instead ? crypt_keyslot_change_by_passphrase(cd, CRYPT_ANY_SLOT, CRYPT_ANY_SLOT, a, a_len, b, b_len) :
			  crypt_keyslot_add_by_passphrase(cd, CRYPT_ANY_SLOT, a, a_len, b, b_len);

	if (r < 0)
		bail("libcryptsetup", "does not add");
	crypt_free(cd);
}

static int cryptsetup_slot(struct crypt_device *cd, unsigned n)
{
	char text[16];
	size_t len = text_of(n, text);

	return crypt_activate_by_passphrase(cd, NULL, CRYPT_ANY_SLOT, text, len, 0);
}

static void cryptsetup_remove(unsigned n)
{
	struct crypt_device *cd = cryptsetup_open();

	if (crypt_keyslot_destroy(cd, cryptsetup_slot(cd, n)) < 0)
		bail("libcryptsetup", "does not remove");
	crypt_free(cd);
}

/* ---- by qemu-img ------------------------------------------------------------------------------------------ */

/* It measures its key derivation, and gives up when it happens to measure between two ticks of the clock. */
static void qemu(unsigned any, unsigned n, const char *act)
{
	const char *prefix = strcmp(kind, "qcow2") ? "" : "encrypt.";
	char command[640];

	snprintf(command, sizeof(command),
		 "for try in 1 2 3 4 5 6; do qemu-img amend --object secret,id=a,file=k%u --object secret,id=b,file=k%u "
		 "--image-opts driver=%s,file.filename=d,%skey-secret=a -o %sstate=%s 2> qemu.log && exit 0; "
		 "grep -q 'accurate CPU usage' qemu.log || exit 1; done; exit 1",
		 any, n, *prefix ? "qcow2" : "luks", prefix, prefix, act);
	if (system(command) != 0)
		bail("qemu-img", command);
}

static void qemu_add(unsigned any, unsigned new)
{
	qemu(any, new, strcmp(kind, "qcow2") ? "active,new-secret=b,iter-time=1" :
					       "active,encrypt.new-secret=b,encrypt.iter-time=1");
}

static void qemu_remove(unsigned any, unsigned n)
{
	qemu(any, n, strcmp(kind, "qcow2") ? "inactive,old-secret=b" : "inactive,encrypt.old-secret=b");
}

/* ---- edits ------------------------------------------------------------------------------------------------ */

enum tool { OURS, CRYPTSETUP, QEMU };

/* qemu knows no LUKS2, libcryptsetup no qcow2; qemu's start costs more than all else here. */
static enum tool pick_tool(void)
{
	enum tool tool = random() % 10 == 0 ? QEMU : random() % 2 ? OURS : CRYPTSETUP;

	if (tool == QEMU && is_luks2())
		return CRYPTSETUP;
	if (tool == CRYPTSETUP && !strcmp(kind, "qcow2"))
		return OURS;
	return tool;
}

static void add(enum tool tool, bool instead)
{
	unsigned any = pick(true), new = pick(false);

	if (tool == OURS)
		our_add(any, new, instead);
	else if (tool == CRYPTSETUP)
		cryptsetup_add(any, new, instead);
	else
		qemu_add(any, new);
	in_use[new] = true;
	if (instead && tool != QEMU)
		in_use[any] = false;
}

static void remove_one(enum tool tool)
{
	unsigned n = pick(true), any;

	in_use[n] = false;
	any = pick(true);
	if (tool == OURS)
		our_remove(n);
	else if (tool == CRYPTSETUP)
		cryptsetup_remove(n);
	else
		qemu_remove(any, n);
}

/* One that is in and one that is not, by us; all of them now and then, by libcryptsetup too. */
static void judge(bool all)
{
	struct vd_image *img = open_image(VD_OPEN_METADATA);
	struct crypt_device *cd = strcmp(kind, "qcow2") ? cryptsetup_open() : NULL;
	unsigned in = pick(true), out = count() < N_SECRETS ? pick(false) : in;

	for (unsigned n = 0; n < N_SECRETS; n++) {
		if (!all && n != in && n != out)
			continue;
		if ((slot_of(img, n) != SLOT_NONE) != in_use[n])
			bail("looking", in_use[n] ? "a key that was put in does not open" : "a key that was taken out opens");
		if (all && cd && (cryptsetup_slot(cd, n) >= 0) != in_use[n])
			bail("looking", "libcryptsetup sees other keys");
	}
	crypt_free(cd);
	vd_image_abort(img);
}

static void make(void)
{
	struct vd_key *key = key_of(0);
	struct vd_create_opts o = {
		.struct_size = sizeof(o), .format = strcmp(kind, "qcow2") ? "raw" : "qcow2", .size = 1 << 20, .key = key,
		.luks_type = is_luks2() ? VD_LUKS2 : VD_LUKS1, .kdf = cheap().kdf,
	};
	struct vd_image *img;
	struct vd_error e;

	if (vd_image_create("d", &o, &img, &e) < 0 || vd_image_commit(img, &e) < 0)
		bail("making", e.message);
	close_image(img);
	vd_key_free(key);
	in_use[0] = true;
}

int main(int argc, char **argv)
{
	unsigned long edits = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;

	if (!edits)
		return 2;
	kind = argv[1];
	srandom((unsigned)strtoul(argv[3], NULL, 10));
	make();
	for (edit = 1; edit <= edits; edit++) {
		enum tool tool = pick_tool();

		if (count() == 1 || (count() < N_SECRETS && random() % 2))
			add(tool, random() % 2);
		else
			remove_one(tool);
		judge(edit % 25 == 0 || edit == edits);
	}
	printf("ok 1 - %s: %lu edits by turns, and the keys that open are those that were put in\n1..1\n", kind, edits);
	return 0;
}
