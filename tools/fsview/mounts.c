/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which volume is the system's, and where the others belong in its tree: by its /etc/fstab, else by what they hold. A volume
 * that nothing mounts is put below /.volumes, so that what is on it is looked at, too.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "fail.h"
#include "fsview/backend.h"

#define FSTAB_MAX ((size_t)256 << 10)

static bool has(struct fsview *v, size_t volume, const char *path)
{
	struct fsview_found f = { 0 };
	struct vd_error ignored;

	return v->backend->lookup(v->ctx, volume, path, &f, &ignored) == 0;
}

static bool is_system(struct fsview *v, size_t volume)
{
	static const char *const marks[] = { "etc/os-release", "usr/lib/os-release", "etc/passwd", "etc/fstab", "Windows/System32/config" };
	bool found = false;

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]) && !found; i++)
		found = has(v, volume, marks[i]);
	return found;
}

/* Things that no implementation here reads, each said once. */
static void tell_unread(struct fsview *v)
{
	static const bool has_files[] = {
#define HAS(sym, name, files) files,
		FSVIEW_FS_TABLE(HAS)
#undef HAS
	};

	for (size_t i = 0; i < v->n_volumes; i++) {
		const struct fsview_volume *x = &v->volumes[i];
		bool is_locked = x->fs == FSVIEW_FS_LUKS || x->fs == FSVIEW_FS_BITLOCKER;
		bool was_tried = x->fs == FSVIEW_FS_EXT || x->fs == FSVIEW_FS_NTFS || x->fs == FSVIEW_FS_FAT;

		if (x->is_dirty)
			fsview_add_note(v, "%s: was not unmounted cleanly, and what is only in its journal is not seen", x->name);
		if (x->is_readable || was_tried || !has_files[x->fs] || !x->size)
			continue;
		fsview_fall_short(v, is_locked ? FSVIEW_LOCKED : FSVIEW_UNSUPPORTED, x->name, "%s: %s%s", x->name, fsview_fs_name(x->fs),
				  is_locked ? " is encrypted inside the image" : ", which cannot be read here");
	}
}

static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && isdigit((unsigned char)s[1]) && isdigit((unsigned char)s[2]) && isdigit((unsigned char)s[3])) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static bool is_named(const struct fsview_volume *x, const char *spec)
{
	static const struct { const char *prefix; size_t at; } names[] = {
		{ "UUID=", offsetof(struct fsview_volume, uuid) }, { "/dev/disk/by-uuid/", offsetof(struct fsview_volume, uuid) },
		{ "LABEL=", offsetof(struct fsview_volume, label) }, { "/dev/disk/by-label/", offsetof(struct fsview_volume, label) },
		{ "PARTUUID=", offsetof(struct fsview_volume, part_uuid) },
		{ "PARTLABEL=", offsetof(struct fsview_volume, part_label) },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t len = strlen(names[i].prefix);
		const char *is = (const char *)x + names[i].at;
		char plain[128];

		if (strncmp(spec, names[i].prefix, len) != 0)
			continue;
		snprintf(plain, sizeof(plain), "%s", spec + len + (spec[len] == '"'));
		plain[strcspn(plain, "\"")] = '\0';
		return is[0] && !strcasecmp(is, plain);
	}
	return false;
}

/* /dev/sda1, /dev/vda1, /dev/nvme0n1p1: of the only disk there is. /dev/VG/LV and /dev/mapper/VG-LV. */
static bool is_device(const struct fsview_volume *x, const char *spec)
{
	const char *name = x->name + strlen("lvm "), *slash = strchr(name, '/');
	char by_folder[192], by_mapper[400];
	size_t n = 0;

	if (strncmp(spec, "/dev/", 5) != 0)
		return false;
	if (strncmp(x->name, "lvm ", 4) == 0 && slash) {
		snprintf(by_folder, sizeof(by_folder), "/dev/%s", name);
		for (const char *p = name; *p; p++) {
			by_mapper[n++] = *p == '/' ? '-' : *p;
			if (*p == '-')
				by_mapper[n++] = '-';
		}
		by_mapper[n] = '\0';
		return !strcmp(spec, by_folder) || (!strncmp(spec, "/dev/mapper/", 12) && !strcmp(spec + 12, by_mapper));
	}
	if (!x->partition || (strncmp(spec, "/dev/sd", 7) && strncmp(spec, "/dev/vd", 7) && strncmp(spec, "/dev/xvd", 8) &&
			      strncmp(spec, "/dev/hd", 7) && strncmp(spec, "/dev/nvme", 9)))
		return false;
	n = strlen(spec);
	while (n && isdigit((unsigned char)spec[n - 1]))
		n--;
	return spec[n] && strtoul(spec + n, NULL, 10) == x->partition;
}

static bool is_mounted(const struct fsview *v, size_t volume)
{
	for (size_t i = 0; i < v->n_mounts; i++)
		if (v->mounts[i].volume == volume)
			return true;
	return false;
}

/* Of these there is nothing to see in an image. */
static bool is_of_no_disk(const char *spec, const char *type)
{
	static const char *const types[] = { "proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "efivarfs", "debugfs",
					     "nfs", "nfs4", "cifs", "none", "auto", "iso9660", "udf", "9p", "virtiofs", "hugetlbfs" };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(type, types[i]) && strncmp(spec, "UUID=", 5) != 0)
			return true;
	return false;
}

static void mount_line(struct fsview *v, const char *spec, const char *where, const char *type, const char *options)
{
	char at[sizeof(v->mounts[0].path)];
	struct vd_error ignored;
	size_t i = 0;

	while (i < v->n_volumes && !is_named(&v->volumes[i], spec) && !is_device(&v->volumes[i], spec))
		i++;
	if (where[0] != '/' || !where[1] || is_of_no_disk(spec, type) || strstr(options, "bind"))
		return;
	if (i == v->n_volumes) {
		if (!strstr(options, "nofail") && !strstr(options, "noauto"))
			fsview_fall_short(v, FSVIEW_MISSING, where, "fstab mounts %s there, which is on no volume of the image", spec);
		return;
	}
	if (!v->volumes[i].is_readable || is_mounted(v, i))
		return;
	/* The folder may be behind links; if it is not there the volume is found all the same. */
	if (fsview_resolve(v, where, at, sizeof(at), &ignored) < 0)
		snprintf(at, sizeof(at), "%.255s", where);
	if (at[0] == '/' && at[1])
		fsview_add_mount(v, at, i);
}

static void mount_by_fstab(struct fsview *v)
{
	struct vd_error e;
	char *text, *rest, *line;
	size_t len;
	int r = fsview_load(v, "/etc/fstab", FSTAB_MAX, &text, &len, &e);

	if (r == VD_ERANGE)
		fsview_fall_short(v, FSVIEW_LIMIT, "/etc/fstab", "is larger than %zu bytes", FSTAB_MAX);
	if (r < 0)
		return;
	for (rest = text; (line = strsep(&rest, "\n"));) {
		char *fields[4] = { NULL }, *inside = NULL;

		for (int i = 0; i < 4; i++)
			fields[i] = strtok_r(i ? NULL : line, " \t", &inside);
		if (!fields[2] || fields[0][0] == '#')
			continue;
		unescape(fields[0]);
		unescape(fields[1]);
		mount_line(v, fields[0], fields[1], fields[2], fields[3] ? fields[3] : "");
	}
	free(text);
}

static void mount_rest(struct fsview *v)
{
	for (size_t i = 0; i < v->n_volumes; i++) {
		const struct fsview_mount *system;
		const char *below;
		char at[64];

		if (!v->volumes[i].is_readable || is_mounted(v, i))
			continue;
		system = fsview_mount_of(v, "/boot/efi", &below);
		if (v->volumes[i].fs == FSVIEW_FS_FAT && system && *below && has(v, i, "EFI")) {
			fsview_add_mount(v, "/boot/efi", i);
			continue;
		}
		snprintf(at, sizeof(at), "/.volumes/%zu", i);
		fsview_add_mount(v, at, i);
	}
}

int fsview_mount_all(struct fsview *v, struct vd_error *e)
{
	bool found = false;

	(void)e;
	for (size_t i = 0; i < v->n_volumes; i++) {
		if (!v->volumes[i].is_readable || !is_system(v, i))
			continue;
		if (found)
			fsview_fall_short(v, FSVIEW_SECOND, v->volumes[i].name, "a second system is on %s", v->volumes[i].name);
		else
			fsview_add_mount(v, "", i);
		found = true;
	}
	if (found)
		mount_by_fstab(v);
	else
		fsview_fall_short(v, FSVIEW_NO_SYSTEM, "", "no volume that can be read holds an operating system");
	tell_unread(v);
	mount_rest(v);
	return 0;
}
