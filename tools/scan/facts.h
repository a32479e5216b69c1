/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image says of itself, gathered once for everything that judges: system, packages, users, services, mounts. Facts are
 * read and not judged here. Every text is the image's, and hostile.
 */
#ifndef TOOLS_SCAN_FACTS_H
#define TOOLS_SCAN_FACTS_H

#include "fsview/fsview.h"

struct scan_package {
	const char *name, *version, *arch;
	const char *source, *source_version;    /* what the sources are called: of dpkg, name and version if it does not say */
	bool is_installed;                      /* false: only its configuration is left, or it was cut off half-way */
};
struct scan_user {
	const char *name, *home, *shell;
	uint32_t uid, gid;
	bool has_shadow;                        /* the fields below are known */
	const char *password;                   /* the field as it is: "", "*", "!$y$..."; a secret: never to be told */
	int64_t last_change, max_days;          /* of shadow; -1: empty */
};
/* A unit of systemd or a script of SysV that is started with the system. */
struct scan_service {
	const char *name;                       /* "ssh.service" */
	const char *by;                         /* the link that enables it */
	bool is_masked;                         /* `by` leads to /dev/null */
};
struct scan_mount {
	const char *what, *where, *type, *options;
};
struct scan_facts {
	struct fsview *view;
	struct vd_image *image;                 /* NULL: a directory */
	bool is_linux, is_windows;
	const char *os_id, *os_version, *os_codename, *os_name;         /* of os-release: ID, VERSION_ID, VERSION_CODENAME, PRETTY_NAME; "" */
	const char *package_system;             /* "dpkg", "rpm", "apk", "" */
	struct scan_package *packages;
	struct scan_user *users;
	struct scan_service *services;
	struct scan_mount *mounts;
	size_t n_packages, n_users, n_services, n_mounts;
	struct scan_text *texts;                /* what the texts point into */
};

/* What is wanting is a shortfall of the view. *facts is to be freed whatever is returned. */
int scan_facts_gather(struct fsview *v, struct vd_image *image, struct scan_facts *facts, struct vd_error *e);
void scan_facts_free(struct scan_facts *facts);

#endif
