/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads the files in which a system describes itself. Packages are packages.c's. */
#include "scan/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "scan/gather.h"
#include "ui.h"

#define FILE_MAX ((size_t)4 << 20)
#define SERVICES_MAX 4096

struct scan_text {
	struct scan_text *next;
	char bytes[];
};

char *scan_keep(struct scan_facts *f, const char *text)
{
	size_t size = strlen(text) + 1;
	struct scan_text *t = malloc(sizeof(*t) + size);

	if (!t)
		ui_out_of_memory();
	memcpy(t->bytes, text, size);
	t->next = f->texts;
	f->texts = t;
	return t->bytes;
}

void *scan_grow(void *at, size_t n, size_t size)
{
	/* Doubles at powers of two, so that no room has to be remembered. */
	if (n && (n & (n - 1)))
		return at;
	at = realloc(at, (n ? 2 * n : 1) * size);
	if (!at)
		ui_out_of_memory();
	return at;
}

char *scan_load(struct scan_facts *f, const char *path, size_t max)
{
	struct vd_error e;
	size_t len;
	char *text = NULL, *kept;
	int r = fsview_load(f->view, path, max, &text, &len, &e);

	if (r == VD_ERANGE)
		fsview_fall_short(f->view, FSVIEW_LIMIT, path, "is larger than %zu bytes, and is not read", max);
	if (r < 0)
		return NULL;
	if (strlen(text) != len)
		fsview_fall_short(f->view, FSVIEW_DAMAGED, path, "has zero bytes, and is read up to the first");
	kept = scan_keep(f, text);
	free(text);
	return kept;
}

/* ---- the system ------------------------------------------------------------------------------------------- */

static const char *unquoted(char *value)
{
	size_t len = strlen(value);

	if (len >= 2 && (value[0] == '"' || value[0] == '\'') && value[len - 1] == value[0]) {
		value[len - 1] = '\0';
		value++;
	}
	return value;
}

static void read_release(struct scan_facts *f)
{
	char *text = scan_load(f, "/etc/os-release", FILE_MAX), *line;

	f->os_id = f->os_version = f->os_codename = f->os_name = "";
	if (!text)
		text = scan_load(f, "/usr/lib/os-release", FILE_MAX);
	while ((line = strsep(&text, "\n"))) {
		char *value = strchr(line, '=');

		if (!value || line[0] == '#')
			continue;
		*value++ = '\0';
		if (!strcmp(line, "ID"))
			f->os_id = unquoted(value);
		else if (!strcmp(line, "VERSION_ID"))
			f->os_version = unquoted(value);
		else if (!strcmp(line, "VERSION_CODENAME"))
			f->os_codename = unquoted(value);
		else if (!strcmp(line, "PRETTY_NAME"))
			f->os_name = unquoted(value);
	}
}

/* ---- users ------------------------------------------------------------------------------------------------ */

/* Cuts a line at its colons; how many fields there are. */
static size_t cut(char *line, char **fields, size_t max)
{
	size_t n = 0;
	char *field;

	while (n < max && (field = strsep(&line, ":")))
		fields[n++] = field;
	return n;
}

static int64_t days(const char *field)
{
	return field[0] ? strtoll(field, NULL, 10) : -1;
}

static void read_passwd(struct scan_facts *f)
{
	char *text = scan_load(f, "/etc/passwd", FILE_MAX), *line, *fields[7];

	while ((line = strsep(&text, "\n"))) {
		if (!line[0])
			continue;
		if (cut(line, fields, 7) < 7) {
			fsview_fall_short(f->view, FSVIEW_DAMAGED, "/etc/passwd", "has a line of less than seven fields");
			continue;
		}
		f->users = scan_grow(f->users, f->n_users, sizeof(*f->users));
		f->users[f->n_users++] = (struct scan_user){
			.name = fields[0], .uid = (uint32_t)strtoul(fields[2], NULL, 10), .gid = (uint32_t)strtoul(fields[3], NULL, 10),
			.home = fields[5], .shell = fields[6], .password = fields[1], .last_change = -1, .max_days = -1,
		};
	}
}

static void read_shadow(struct scan_facts *f)
{
	char *text = scan_load(f, "/etc/shadow", FILE_MAX), *line, *fields[9];

	while ((line = strsep(&text, "\n"))) {
		size_t n = line[0] ? cut(line, fields, 9) : 0;

		for (size_t i = 0; n >= 2 && i < f->n_users; i++) {
			struct scan_user *u = &f->users[i];

			if (strcmp(u->name, fields[0]) != 0)
				continue;
			u->has_shadow = true;
			u->password = fields[1];
			u->last_change = n > 2 ? days(fields[2]) : -1;
			u->max_days = n > 4 ? days(fields[4]) : -1;
		}
	}
}

/* ---- services --------------------------------------------------------------------------------------------- */

static int add_service(void *ctx, const char *path)
{
	struct scan_facts *f = ctx;
	const char *name = strrchr(path, '/') + 1;
	char target[FSVIEW_PATH_MAX];
	struct vd_error ignored;
	struct scan_service s;

	if (fsview_readlink(f->view, path, target, sizeof(target), &ignored) < 0)
		target[0] = '\0';
	s = (struct scan_service){ .by = scan_keep(f, path), .is_masked = !strcmp(target, "/dev/null") };
	s.name = strrchr(s.by, '/') + 1;
	/* S02ssh in rc5.d starts ssh. */
	if (!strncmp(path, "/etc/rc", 7) && strlen(name) > 3)
		s.name += 3;
	f->services = scan_grow(f->services, f->n_services, sizeof(*f->services));
	f->services[f->n_services++] = s;
	return 0;
}

/* Links in /etc/systemd/system itself are aliases, but for those that mask. */
static int add_masked(void *ctx, const char *path)
{
	struct scan_facts *f = ctx;
	char target[FSVIEW_PATH_MAX];
	struct fsview_stat st;
	struct vd_error ignored;

	if (fsview_lstat(f->view, path, &st, &ignored) < 0 || (st.mode & 0170000) != 0120000)
		return 0;
	if (fsview_readlink(f->view, path, target, sizeof(target), &ignored) < 0 || strcmp(target, "/dev/null") != 0)
		return 0;
	return add_service(ctx, path);
}

static int read_services(struct scan_facts *f, struct vd_error *e)
{
	static const char *const patterns[] = { "/etc/systemd/system/*.wants/*", "/etc/systemd/system/*.requires/*", "/etc/rc[235].d/S*" };
	int r = fsview_glob(f->view, "/etc/systemd/system/*.*", SERVICES_MAX, add_masked, f, e);

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]) && r == 0; i++)
		r = fsview_glob(f->view, patterns[i], SERVICES_MAX, add_service, f, e);
	return r;
}

/* ---- mounts ----------------------------------------------------------------------------------------------- */

static void read_fstab(struct scan_facts *f)
{
	char *text = scan_load(f, "/etc/fstab", FILE_MAX), *line;

	while ((line = strsep(&text, "\n"))) {
		char *fields[4] = { NULL }, *inside = NULL;

		for (int i = 0; i < 4; i++)
			fields[i] = strtok_r(i ? NULL : line, " \t", &inside);
		if (!fields[2] || fields[0][0] == '#')
			continue;
		f->mounts = scan_grow(f->mounts, f->n_mounts, sizeof(*f->mounts));
		f->mounts[f->n_mounts++] = (struct scan_mount){ fields[0], fields[1], fields[2], fields[3] ? fields[3] : "" };
	}
}

int scan_facts_gather(struct fsview *v, struct vd_image *image, struct scan_facts *f, struct vd_error *e)
{
	int r;

	*f = (struct scan_facts){ .view = v, .image = image, .package_system = "" };
	read_release(f);
	f->is_windows = fsview_exists(v, "/Windows/System32");
	f->is_linux = !f->is_windows && (f->os_id[0] || fsview_exists(v, "/etc/passwd"));
	read_passwd(f);
	read_shadow(f);
	read_fstab(f);
	r = read_services(f, e);
	return r < 0 ? r : scan_read_packages(f, e);
}

void scan_facts_free(struct scan_facts *f)
{
	while (f->texts) {
		struct scan_text *next = f->texts->next;

		/* Password fields are among them. */
		explicit_bzero(f->texts->bytes, strlen(f->texts->bytes));
		free(f->texts);
		f->texts = next;
	}
	free(f->packages);
	free(f->users);
	free(f->services);
	free(f->mounts);
	*f = (struct scan_facts){ 0 };
}
