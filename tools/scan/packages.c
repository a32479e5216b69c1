/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Package databases: dpkg's status file. Those of rpm and apk are told, and make the scan incomplete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan/gather.h"

#define STATUS_MAX ((size_t)64 << 20)

/* "name (version)" or "name". */
static void take_source(struct scan_package *p, char *value)
{
	char *paren = strchr(value, '(');

	p->source = value;
	value[strcspn(value, " ")] = '\0';
	if (!paren)
		return;
	paren[strcspn(paren, ")")] = '\0';
	p->source_version = paren + 1;
}

static void take_field(struct scan_package *p, const char *key, char *value)
{
	if (!strcmp(key, "Package"))
		p->name = value;
	else if (!strcmp(key, "Version"))
		p->version = value;
	else if (!strcmp(key, "Architecture"))
		p->arch = value;
	else if (!strcmp(key, "Source"))
		take_source(p, value);
	else if (!strcmp(key, "Status"))
		p->is_installed = strlen(value) >= 10 && !strcmp(value + strlen(value) - 10, " installed");
}

static void end_package(struct scan_facts *f, struct scan_package *p, const char *path)
{
	if (p->name && p->version) {
		if (!p->source)
			p->source = p->name;
		if (!p->source_version)
			p->source_version = p->version;
		if (!p->arch)
			p->arch = "";
		f->packages = scan_grow(f->packages, f->n_packages, sizeof(*f->packages));
		f->packages[f->n_packages++] = *p;
	} else if (p->name && p->is_installed) {
		fsview_fall_short(f->view, FSVIEW_DAMAGED, path, "a package in it has no version");
	}
	*p = (struct scan_package){ 0 };
}

static void read_status(struct scan_facts *f, const char *path, bool is_part)
{
	char *text = scan_load(f, path, STATUS_MAX), *line;
	struct scan_package p = { 0 };

	while ((line = strsep(&text, "\n"))) {
		char *value = strchr(line, ':');

		if (!line[0])
			end_package(f, &p, path);
		if (!value || line[0] == ' ' || line[0] == '\t')
			continue;
		*value++ = '\0';
		take_field(&p, line, value + strspn(value, " "));
		/* In status.d of images without dpkg there is no such field. */
		p.is_installed |= is_part;
	}
	end_package(f, &p, path);
}

static int read_part(void *ctx, const char *path)
{
	size_t len = strlen(path);

	if (len < 8 || strcmp(path + len - 8, ".md5sums") != 0)
		read_status(ctx, path, true);
	return 0;
}

int scan_read_packages(struct scan_facts *f, struct vd_error *e)
{
	static const char *const others[][2] = {
		{ "/var/lib/rpm/rpmdb.sqlite", "rpm" }, { "/usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm" }, { "/var/lib/rpm/Packages", "rpm" },
		{ "/var/lib/rpm/Packages.db", "rpm" }, { "/lib/apk/db/installed", "apk" }, { "/var/lib/pacman/local", "pacman" },
	};
	int r = 0;

	if (fsview_exists(f->view, "/var/lib/dpkg/status")) {
		f->package_system = "dpkg";
		read_status(f, "/var/lib/dpkg/status", false);
	}
	r = fsview_glob(f->view, "/var/lib/dpkg/status.d/*", 10000, read_part, f, e);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]) && r == 0; i++) {
		if (!fsview_exists(f->view, others[i][0]))
			continue;
		f->package_system = f->package_system[0] ? f->package_system : others[i][1];
		fsview_fall_short(f->view, FSVIEW_UNSUPPORTED, others[i][0], "the package database of %s is not read", others[i][1]);
	}
	return r;
}
