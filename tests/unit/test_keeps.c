/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What keeps old blocks, by file system types and by a sysfs and a procfs that are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "libvdisk/io/keeps.h"
#include "tests/support/tempdir.h"

static struct vd_keeps facts[8];

static struct vd_keeps_list empty(void)
{
	return (struct vd_keeps_list){ .sys = "sys", .proc = "proc", .buf = facts, .room = 8, .via = "" };
}

static void expect_one(const struct vd_keeps_list *l, enum vd_keeps_kind kind, bool is_certain, const char *words)
{
	assert_int_equal(l->n, 1);
	assert_int_equal(facts[0].kind, kind);
	assert_int_equal(facts[0].is_certain, is_certain);
	assert_non_null(strstr(facts[0].text, words));
}

static void types_say_what_they_keep(void **state)
{
	static const struct { long type; enum vd_keeps_kind kind; bool is_certain; const char *words; } cases[] = {
		{ 0x9123683e, VD_KEEPS_COPY_ON_WRITE, true, "btrfs: " }, { 0x2fc12fc1, VD_KEEPS_COPY_ON_WRITE, true, "ZFS" },
		{ (int32_t)0xca451a4e, VD_KEEPS_COPY_ON_WRITE, true, "bcachefs" }, { 0x3434, VD_KEEPS_LOG, true, "NILFS2" },
		{ 0xf2f52010, VD_KEEPS_LOG, true, "F2FS" }, { 0x794c7630, VD_KEEPS_OVERLAY, false, "overlayfs" },
		{ 0x6969, VD_KEEPS_REMOTE, false, "NFS" }, { 0xff534d42, VD_KEEPS_REMOTE, false, "CIFS" },
		{ 0x65735546, VD_KEEPS_FUSE, false, "FUSE" }, { 0x12345678, VD_KEEPS_UNKNOWN, false, "not known" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vd_keeps_list l = empty();

		vd_keeps_of_type(&l, cases[i].type, false);
		expect_one(&l, cases[i].kind, cases[i].is_certain, cases[i].words);
	}
}

static void others_keep_nothing(void **state)
{
	static const long types[] = { 0xef53, 0x58465342, 0x01021994 };
	struct vd_keeps_list l = empty();

	(void)state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		vd_keeps_of_type(&l, types[i], false);
	vd_keeps_of_type(&l, 0x9123683e, true);
	assert_int_equal(l.n, 0);
}

/* ---- devices -------------------------------------------------------------------------------------------- */

static void put(const char *path, const char *text)
{
	char command[1024];

	snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s)\" && printf '%%s\\n' '%s' > %s", path, text, path);
	assert_int_equal(system(command), 0);
}

/* The device `number`, of this name, in sysfs. */
static void put_device(const char *number, const char *folder)
{
	char command[1024];

	snprintf(command, sizeof(command), "mkdir -p sys/dev/block sys/%s && ln -s ../../%s sys/dev/block/%s", folder, folder, number);
	assert_int_equal(system(command), 0);
}

static int start(void **state)
{
	(void)state;
	return system("rm -rf sys proc");
}

static void media_say_what_they_are(void **state)
{
	static const struct { const char *name, *rotational, *discard; enum vd_keeps_kind kind; } cases[] = {
		{ "nvme0n1", "0", "0", VD_KEEPS_FLASH }, { "sda", "1", "4294966784", VD_KEEPS_THIN },
		{ "vda", "1", "0", VD_KEEPS_UNKNOWN_MEDIUM },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vd_keeps_list l = empty();
		char path[256];

		start(state);
		snprintf(path, sizeof(path), "block/%s", cases[i].name);
		put_device("8:1", path);
		snprintf(path, sizeof(path), "sys/block/%s/queue/rotational", cases[i].name);
		put(path, cases[i].rotational);
		snprintf(path, sizeof(path), "sys/block/%s/queue/discard_max_bytes", cases[i].name);
		put(path, cases[i].discard);
		vd_keeps_of_device(&l, makedev(8, 1));
		expect_one(&l, cases[i].kind, false, cases[i].name);
	}
}

static void a_plain_disk_keeps_nothing(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	put_device("8:2", "block/sda/sda2");
	put("sys/block/sda/sda2/partition", "2");
	put("sys/block/sda/queue/rotational", "1");
	put("sys/block/sda/queue/discard_max_bytes", "0");
	vd_keeps_of_device(&l, makedev(8, 2));
	assert_int_equal(l.n, 0);
	/* Without a device in sysfs there is nothing to look at. */
	vd_keeps_of_device(&l, makedev(9, 9));
	assert_int_equal(l.n, 0);
}

/* A volume on two partitions, one of them flash. */
static void volumes_are_told_with_what_they_lie_on(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	put_device("253:0", "block/dm-0");
	put("sys/block/dm-0/dm/uuid", "LVM-abc");
	put("sys/block/sda/sda2/partition", "2");
	put("sys/block/sda/queue/rotational", "1");
	put("sys/block/nvme0n1/nvme0n1p1/partition", "1");
	put("sys/block/nvme0n1/queue/rotational", "0");
	assert_int_equal(system("mkdir -p sys/block/dm-0/slaves && cd sys/block/dm-0/slaves && ln -s ../../sda/sda2 ../../nvme0n1/nvme0n1p1 ."), 0);
	vd_keeps_of_device(&l, makedev(253, 0));
	assert_int_equal(l.n, 2);
	assert_int_equal(facts[0].kind, VD_KEEPS_VOLUME);
	assert_int_equal(facts[1].kind, VD_KEEPS_FLASH);
	assert_non_null(strstr(facts[1].text, "nvme0n1: "));
	/* Encryption below keeps no blocks of its own, and shows through. */
	put("sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc");
	l = empty();
	vd_keeps_of_device(&l, makedev(253, 0));
	expect_one(&l, VD_KEEPS_FLASH, false, "nvme0n1");
}

static void stacks_without_end_are_given_up(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	put_device("253:1", "block/dm-1");
	put("sys/block/dm-1/dm/uuid", "LVM-abc");
	assert_int_equal(system("mkdir sys/block/dm-1/slaves && ln -s ../../dm-1 sys/block/dm-1/slaves/"), 0);
	vd_keeps_of_device(&l, makedev(253, 1));
	assert_in_range(l.n, 1, 8);
}

static void what_is_below_a_loop_device_is_told(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	put_device("7:0", "block/loop0");
	put("sys/block/loop0/loop/backing_file", "/nowhere/at/all");
	vd_keeps_of_device(&l, makedev(7, 0));
	expect_one(&l, VD_KEEPS_UNKNOWN, false, "/nowhere/at/all");
}

static void ext4_says_how_it_journals(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	put_device("8:2", "block/sda/sda2");
	put("proc/fs/ext4/sda2/options", "rw\ndata=ordered\ncommit=5");
	vd_keeps_of_options(&l, makedev(8, 2));
	assert_int_equal(l.n, 0);
	put("proc/fs/ext4/sda2/options", "rw\ndelalloc\ndata=journal\ncommit=5");
	vd_keeps_of_options(&l, makedev(8, 2));
	expect_one(&l, VD_KEEPS_DATA_JOURNAL, true, "data=journal");
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static void facts_beyond_the_room_are_counted(void **state)
{
	struct vd_keeps_list l = empty();

	(void)state;
	l.room = 1;
	vd_keeps_of_type(&l, 0x6969, false);
	vd_keeps_of_type(&l, 0x3434, false);
	assert_int_equal(l.n, 2);
	assert_int_equal(facts[0].kind, VD_KEEPS_REMOTE);
}

static void names_are_told_and_missing_files_refused(void **state)
{
	struct vd_error e;
	size_t n;

	(void)state;
	assert_string_equal(vd_keeps_name(VD_KEEPS_SHARED), "shared-extents");
	assert_string_equal(vd_keeps_name(99), "unknown");
	assert_int_equal(vd_host_keeps("no such file", facts, 8, &n, &e), VD_ENOENT);
	assert_int_equal(vd_host_keeps(".", facts, 8, &n, &e), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, start)
	const struct CMUnitTest tests[] = {
		T(types_say_what_they_keep),
		T(others_keep_nothing),
		T(media_say_what_they_are),
		T(a_plain_disk_keeps_nothing),
		T(volumes_are_told_with_what_they_lie_on),
		T(stacks_without_end_are_given_up),
		T(what_is_below_a_loop_device_is_told),
		T(ext4_says_how_it_journals),
		T(facts_beyond_the_room_are_counted),
		T(names_are_told_and_missing_files_refused),
	};

	return cmocka_run_group_tests_name("keeps", tests, vd_tempdir_enter, vd_tempdir_leave);
}
