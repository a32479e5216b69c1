/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Knows the files of a machine by their names, and reads from its configuration which there are. What is in a disk is discover.c's
 * business. A configuration is only looked through for names of files: what else it says, or breaks, does not matter here.
 */
#include "wipe/machine.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"
#include "wipe/discover.h"

#define DEPTH_MAX 4                     /* of folders; Hyper-V has two */
#define CONFIG_MAX (4 << 20)            /* bytes of a configuration that are looked at */
#define LIBVIRT_STATE "/var/lib/libvirt/"

/* Longer endings first: what is a disk's part is said by more than its extension. A disk is WIPE_IMAGE. */
static const struct ending {
	const char *text;
	enum wipe_role role;
} endings[] = {
	{ "-ctk.vmdk", WIPE_CHANGE_TRACK }, { "-flat.vmdk", WIPE_EXTENT }, { "-delta.vmdk", WIPE_EXTENT },
	{ "-sesparse.vmdk", WIPE_EXTENT }, { ".vmdk", WIPE_IMAGE }, { ".qcow2", WIPE_IMAGE }, { ".vhdx", WIPE_IMAGE },
	{ ".avhdx", WIPE_IMAGE }, { ".vhd", WIPE_IMAGE }, { ".avhd", WIPE_IMAGE }, { ".raw", WIPE_IMAGE }, { ".img", WIPE_IMAGE },
	{ ".luks", WIPE_IMAGE }, { ".rct", WIPE_CHANGE_TRACK }, { ".mrt", WIPE_CHANGE_TRACK },
	{ ".header", WIPE_HEADER }, { ".hdr", WIPE_HEADER }, { ".luks-header", WIPE_HEADER },
	{ ".vdisk-journal", WIPE_JOURNAL },
	{ ".vmx", WIPE_CONFIG }, { ".vmxf", WIPE_CONFIG }, { ".vmsd", WIPE_CONFIG }, { ".vmtx", WIPE_CONFIG },
	{ ".vmx~", WIPE_CONFIG }, { ".vmcx", WIPE_CONFIG }, { ".vmgs", WIPE_FIRMWARE }, { ".xml", WIPE_CONFIG }, { ".ovf", WIPE_CONFIG },
	{ ".vmsn", WIPE_MEMORY }, { ".vmss", WIPE_MEMORY }, { ".vmem", WIPE_MEMORY }, { ".vswp", WIPE_MEMORY },
	{ ".vmrs", WIPE_MEMORY }, { ".vsv", WIPE_MEMORY }, { ".bin", WIPE_MEMORY }, { ".save", WIPE_MEMORY },
	{ ".nvram", WIPE_FIRMWARE }, { "_VARS.fd", WIPE_FIRMWARE }, { ".permall", WIPE_TPM }, { ".volatilestate", WIPE_TPM },
	{ ".savestate", WIPE_TPM }, { ".log", WIPE_LOG }, { ".hlog", WIPE_LOG }, { ".scoreboard", WIPE_LOG },
	{ ".psf", WIPE_FILE }, { ".dsd", WIPE_FILE }, { ".dsv", WIPE_FILE }, { ".mf", WIPE_FILE }, { "-aux.xml", WIPE_FILE },
	{ ".core", WIPE_MEMORY }, { ".png", WIPE_FILE },
};

static const struct ending *ending_of(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		size_t n = strlen(endings[i].text);

		if (len > n && !strcasecmp(name + len - n, endings[i].text))
			return &endings[i];
	}
	return NULL;
}

static bool ends_in(const char *name, const char *ending)
{
	size_t len = strlen(name), n = strlen(ending);

	return len > n && !strcasecmp(name + len - n, ending);
}

bool wipe_is_machine(const char *path)
{
	return ends_in(path, ".vmx") || ends_in(path, ".xml");
}

/* disk-s001.vmdk, disk-f001.vmdk: a part; its descriptor names it. */
static bool is_numbered_part(const char *name)
{
	size_t len = strlen(name);
	const char *tail = name + len - 10;

	return len > 10 && tail[0] == '-' && (tail[1] == 's' || tail[1] == 'f') && strspn(tail + 2, "0123456789") == 3 &&
	       !strcasecmp(tail + 5, ".vmdk");
}

static int add_one(const struct settings *s, struct wipe_set *set, const char *path, enum wipe_role role, size_t parent,
		   struct vd_error *e)
{
	size_t index;

	if (role == WIPE_IMAGE)
		return wipe_discover_image(s, path, NULL, role, parent, set, e);
	return wipe_set_add(set, path, role, parent, &index, e);
}

/* ---- folders -------------------------------------------------------------------------------------------- */

struct sweep {
	const struct settings *s;
	struct wipe_set *set;
	size_t parent;
	const char *stem;               /* only names that begin so, and logs; NULL: all */
	bool disks;                     /* this round: disks; else all that is not in the set after that */
	size_t n;                       /* files found */
	size_t n_machines;              /* of VMware in the folder */
};

/* web-2.nvram is of the machine web-2, where there is a web-2.vmx, and not of web. */
static bool is_of_longer_stem(const char *path, const char *name, size_t stem_len)
{
	for (size_t n = stem_len + 1; name[n]; n++) {
		char config[PATH_MAX];

		if (!strchr(".-_", name[n]))
			continue;
		snprintf(config, sizeof(config), "%.*s%.*s.vmx", (int)(name - path), path, (int)n, name);
		if (access(config, F_OK) == 0)
			return true;
	}
	return false;
}

/* `name` is the last part of `path`. */
static bool is_of_stem(const struct sweep *w, const char *path, const char *name)
{
	size_t n = strlen(w->stem);

	if (!strncmp(name, "vmware", 6) && ends_in(name, ".log")) {
		if (w->n_machines > 1)
			wipe_set_note(w->set, "%s is left: several machines are in its folder", path);
		return w->n_machines <= 1;
	}
	return !strncmp(name, w->stem, n) && name[n] && strchr(".-_", name[n]) && !is_of_longer_stem(path, name, n);
}

static int take_file(struct sweep *w, const char *path, struct vd_error *e)
{
	const char *name = strrchr(path, '/') + 1;
	const struct ending *end = ending_of(name);
	bool is_disk = end && end->role == WIPE_IMAGE && !is_numbered_part(name);
	struct stat st;

	if (w->stem && !is_of_stem(w, path, name))
		return 0;
	if (lstat(path, &st))
		return fail_errno(e, errno, "%s cannot be looked at", path);
	if (!end || !S_ISREG(st.st_mode)) {
		if (!w->disks && !w->stem)
			wipe_set_note(w->set, "%s is left: it is not known to belong to a machine", path);
		return 0;
	}
	w->n++;
	if (is_disk != w->disks || wipe_set_has(w->set, st.st_dev, st.st_ino))
		return 0;
	return add_one(w->s, w->set, path, is_numbered_part(name) ? WIPE_EXTENT : end->role, w->parent, e);
}

static int sweep(struct sweep *w, const char *folder, unsigned depth, struct vd_error *e)
{
	struct dirent **names = NULL;
	int n = scandir(folder, &names, NULL, alphasort), r = 0;

	if (n < 0)
		return fail_errno(e, errno, "%s cannot be read", folder);
	w->n_machines = 0;
	for (int i = 0; i < n; i++)
		w->n_machines += ends_in(names[i]->d_name, ".vmx");
	for (int i = 0; i < n; i++) {
		char path[PATH_MAX];
		const char *name = names[i]->d_name;
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", folder, name);
		if (r == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
			if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
				if (!w->stem && depth < DEPTH_MAX)
					r = sweep(w, path, depth + 1, e);
			} else {
				r = take_file(w, path, e);
			}
		}
		free(names[i]);
	}
	free(names);
	return r;
}

/* Disks first: their parts are theirs then, and not the folder's. */
static int sweep_twice(struct sweep *w, const char *folder, struct vd_error *e)
{
	int r;

	w->disks = true;
	r = sweep(w, folder, 0, e);
	w->disks = false;
	w->n = 0;
	return r < 0 ? r : sweep(w, folder, 0, e);
}

int wipe_discover_folder(const struct settings *s, const char *path, struct wipe_set *set, struct vd_error *e)
{
	struct sweep w = { .s = s, .set = set, .parent = SIZE_MAX };
	int r = sweep_twice(&w, path, e);

	if (r == 0 && !w.n)
		return fail(e, VD_ENOENT, "%s: no file in this folder is known to belong to a machine", path);
	return r;
}

/* ---- configurations ------------------------------------------------------------------------------------- */

static char *read_text(const char *path, struct vd_error *e)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, CONFIG_MAX + 1);

	if (!text)
		ui_out_of_memory();
	if (!f || fread(text, 1, CONFIG_MAX, f) == 0) {
		fail_errno(e, f && !ferror(f) ? EINVAL : errno, "%s cannot be read", path);
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

static int take_named(const struct settings *s, struct wipe_set *set, size_t config, const char *value, struct vd_error *e)
{
	const char *config_path = set->at[config].path;
	const struct ending *end = ending_of(value);
	const char *slash = strrchr(config_path, '/');
	char path[PATH_MAX];

	if (!end || strstr(value, "://"))
		return 0;
	snprintf(path, sizeof(path), "%.*s%s", value[0] != '/' && slash ? (int)(slash - config_path + 1) : 0, config_path, value);
	if (access(path, F_OK)) {
		wipe_set_note(set, "%s names %s, which is not there", config_path, value);
		return 0;
	}
	return add_one(s, set, path, end->role, config, e);
}

/* The value of one key, at the beginning of a line. */
static void take_value(const char *text, const char *key, char *value, size_t size)
{
	const char *at = text;
	size_t len = strlen(key), n;

	for (; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
		const char *open = strchr(at, '"');

		if (strncasecmp(at, key, len) != 0 || !open || strspn(at + len, " =") != (size_t)(open - at - len))
			continue;
		n = strcspn(open + 1, "\"\n");
		snprintf(value, size, "%.*s", (int)(n < size ? n : size - 1), open + 1);
		return;
	}
}

/* All quoted values of a text that look like files of a machine: key = "value". */
static int take_quoted(const struct settings *s, struct wipe_set *set, size_t config, struct vd_error *e)
{
	char *text = read_text(set->at[config].path, e), *at = text;
	int r = text ? 0 : e->code;

	if (text && !set->machine_name[0]) {
		take_value(text, "displayName", set->machine_name, sizeof(set->machine_name));
		take_value(text, "uuid.bios", set->machine_id, sizeof(set->machine_id));
	}
	while (r == 0 && (at = strchr(at, '"'))) {
		char *end = strchr(++at, '"');

		if (!end)
			break;
		*end = '\0';
		if (strlen(at) < PATH_MAX / 2 && !strchr(at, '\n'))
			r = take_named(s, set, config, at, e);
		at = end + 1;
	}
	free(text);
	return r;
}

static int discover_vmx(const struct settings *s, const char *path, size_t config, struct wipe_set *set, struct vd_error *e)
{
	char folder[PATH_MAX], stem[NAME_MAX + 1], snapshots[PATH_MAX];
	const char *slash = strrchr(path, '/');
	struct sweep w = { .s = s, .set = set, .parent = config, .stem = stem };
	size_t index;
	int r = take_quoted(s, set, config, e);

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
	snprintf(stem, sizeof(stem), "%s", slash ? slash + 1 : path);
	stem[strlen(stem) - strlen(".vmx")] = '\0';
	snprintf(snapshots, sizeof(snapshots), "%.*s/%s.vmsd", (int)sizeof(folder) / 2, folder, stem);
	if (r == 0 && access(snapshots, F_OK) == 0) {
		r = wipe_set_add(set, snapshots, WIPE_CONFIG, config, &index, e);
		if (r == 0)
			r = take_quoted(s, set, index, e);
	}
	return r < 0 ? r : sweep_twice(&w, folder, e);
}

/* ---- libvirt -------------------------------------------------------------------------------------------- */

/* The text behind `open` up to one of `ends`, if it is there within [text, end) and fits. */
static bool text_between(const char *text, const char *end, const char *open, const char *ends, char *value, size_t size)
{
	const char *at = strstr(text, open);
	size_t n;

	if (!at || at >= end)
		return false;
	at += strlen(open);
	n = strcspn(at, ends);
	if (!n || n >= size || memchr(at, '\n', n))
		return false;
	memcpy(value, at, n);
	value[n] = '\0';
	return true;
}

/* The top of each disk's chain; CDs are not the machine's. */
static int take_disks(const struct settings *s, struct wipe_set *set, size_t config, const char *text, struct vd_error *e)
{
	const char *at = text, *end;
	char path[PATH_MAX / 2];
	int r = 0;

	for (; r == 0 && (at = strstr(at, "<disk ")) && (end = strstr(at, "</disk>")); at = end) {
		const char *cd = strstr(at, "device='cdrom'"), *floppy = strstr(at, "device='floppy'");

		if ((cd && cd < end) || (floppy && floppy < end))
			continue;
		if (!text_between(at, end, "<source file='", "'", path, sizeof(path)) &&
		    !text_between(at, end, "<source dev='", "'", path, sizeof(path)))
			wipe_set_note(set, "%s: a disk that is neither file nor device is left", set->at[config].path);
		else if (access(path, F_OK))
			wipe_set_note(set, "%s names %s, which is not there", set->at[config].path, path);
		else
			r = wipe_discover_image(s, path, NULL, WIPE_IMAGE, config, set, e);
	}
	return r;
}

static int add_kept(const struct settings *s, struct wipe_set *set, size_t config, const char *path, enum wipe_role role,
		    struct vd_error *e)
{
	return access(path, F_OK) ? 0 : add_one(s, set, path, role, config, e);
}

static int take_state_folder(struct sweep *w, const char *of, const char *name, struct vd_error *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), LIBVIRT_STATE "%s/%s", of, name);
	return name[0] == '.' || access(path, F_OK) ? 0 : sweep_twice(w, path, e);
}

/* What libvirt keeps of a domain in its own folders, by name and UUID. */
static int take_state(const struct settings *s, struct wipe_set *set, size_t config, const char *text, struct vd_error *e)
{
	const char *end = text + strlen(text), *nvram = strstr(text, "<nvram");
	struct sweep w = { .s = s, .set = set, .parent = config };
	char value[256], path[PATH_MAX];
	int r = 0;

	if (nvram && text_between(nvram, end, ">", "<", path, sizeof(path)))
		r = add_kept(s, set, config, path, WIPE_FIRMWARE, e);
	if (r == 0 && text_between(text, end, "<name>", "</", value, sizeof(value))) {
		snprintf(set->machine_name, sizeof(set->machine_name), "%.127s", value);
		snprintf(path, sizeof(path), LIBVIRT_STATE "qemu/save/%s.save", value);
		r = add_kept(s, set, config, path, WIPE_MEMORY, e);
		if (r == 0)
			r = take_state_folder(&w, "qemu/snapshot", value, e);
	}
	if (r == 0 && text_between(text, end, "<uuid>", "</", value, sizeof(value))) {
		snprintf(set->machine_id, sizeof(set->machine_id), "%.63s", value);
		r = take_state_folder(&w, "swtpm", value, e);
	}
	return r;
}

static int discover_domain(const struct settings *s, size_t config, struct wipe_set *set, struct vd_error *e)
{
	char *text = read_text(set->at[config].path, e);
	int r;

	if (!text)
		return e->code;
	if (strstr(text, "<domain")) {
		r = take_disks(s, set, config, text, e);
		if (r == 0)
			r = take_state(s, set, config, text, e);
	} else {
		r = fail(e, VD_EARG, "%s is no description of a machine", set->at[config].path);
	}
	free(text);
	return r;
}

int wipe_discover_machine(const struct settings *s, const char *path, struct wipe_set *set, struct vd_error *e)
{
	size_t config;
	int r = wipe_set_add(set, path, WIPE_CONFIG, SIZE_MAX, &config, e);

	if (r < 0)
		return r;
	return ends_in(path, ".vmx") ? discover_vmx(s, path, config, set, e) : discover_domain(s, config, set, e);
}
