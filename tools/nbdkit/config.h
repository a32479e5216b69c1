/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parameters of the nbdkit plugin, and the keys that they name. What is done with the image, plugin.c says. */
#ifndef TOOLS_NBDKIT_CONFIG_H
#define TOOLS_NBDKIT_CONFIG_H

#include <sys/types.h>
#include <vdisk.h>

#define CONFIG_KEYS_MAX 40      /* as many as the vdisk command takes */
#define CONFIG_DIRS_MAX 32

struct config {
	struct vd_open_opts opts;               /* but for what follows; its strings are nbdkit's */
	const char *file;
	int report_fd;                          /* -1: nobody listens */
	struct vd_key *keys[CONFIG_KEYS_MAX];
	int carried[CONFIG_KEYS_MAX];           /* the key of that index on its way over a fork; -1: it needs none */
	const char *dirs[CONFIG_DIRS_MAX];
	struct vd_gate_dirs allowed;
	pid_t pid;                              /* of who read the keys */
};

/* One parameter: 0, or -1 when nbdkit has been told what is wrong. */
int config_take(struct config *c, const char *key, const char *value);
/* All are there: whether they make sense together. */
int config_complete(struct config *c);
/* Keeps the keys where a fork does not wipe them. */
int config_carry_keys(struct config *c, struct vd_error *e);
/* After it: has them again. */
int config_regain_keys(struct config *c, struct vd_error *e);
void config_free_keys(struct config *c);

extern const char config_help[];

#endif
