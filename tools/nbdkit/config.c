/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads the parameters of the nbdkit plugin. A secret is never one of them: they say where it is to be had, and it goes
 * from there into the library's locked memory.
 *
 * nbdkit forks into the background after it has asked for everything. The library wipes secrets in the child of a fork,
 * where they would no longer be locked: a pipe carries them over.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char config_help[] =
	"[file=]<IMAGE>         (required) the image: qcow2, VMDK, VHD, VHDX, raw, LUKS, OVA\n"
	"format=<FMT>           its format, instead of what its bytes say\n"
	"backing-format=<FMT>   that of its backing file, where it does not say so\n"
	"snapshot=<NAME>        a snapshot inside it, by name or id\n"
	"disk=<NAME>            which disk of an OVA\n"
	"header=<FILE>          its LUKS header, where that is in a file of its own\n"
	"allow=<DIR>            let it refer to files below DIR too; may be repeated\n"
	"password=-|+FILE|-FD   its passphrase: asked for, in a file, from a descriptor; may be repeated\n"
	"key-file=<FILE>        its key: all bytes of FILE; may be repeated\n"
	"key-fd=<FD>            its key: all bytes of a descriptor; may be repeated\n"
	"key-command=<CMD>      a program that opens a token of the image; may be repeated\n"
	"token-file=<FILE>      the token for the key commands that follow, if it is not in the image\n"
	"key-timeout=<SECONDS>  how long the key commands that follow may take\n"
	"read-write=<BOOL>      allow writing; the default only reads\n"
	"force-share=<BOOL>     read although another process writes";

static int refuse(const struct vd_error *e)
{
	nbdkit_error("%s", e->message);
	if (e->hint[0])
		nbdkit_error("%s", e->hint);
	return -1;
}

/* ---- keys ------------------------------------------------------------------------------------------------ */

static int add_key(struct config *c, struct vd_key *key)
{
	for (size_t i = 0; i < CONFIG_KEYS_MAX; i++)
		if (!c->keys[i]) {
			c->keys[i] = key;
			c->opts.n_keys = i + 1;
			return 0;
		}
	vd_key_free(key);
	nbdkit_error("more than %d keys are given", CONFIG_KEYS_MAX);
	return -1;
}

/* nbdkit's own forms, but for the one in which the secret itself stands in the command line. */
static int take_password(struct config *c, const char *value)
{
	struct vd_key *key = NULL;
	char *password = NULL;
	struct vd_error e;
	int r;

	if (value[0] != '-' && value[0] != '+') {
		nbdkit_error("password: a secret in the command line is seen by every user of this machine: use -, +FILE or -FD");
		return -1;
	}
	if (nbdkit_read_password(value, &password) < 0)
		return -1;
	r = vd_key_from_bytes(password, strlen(password), &key, &e);
	explicit_bzero(password, strlen(password));
	free(password);
	return r < 0 ? refuse(&e) : add_key(c, key);
}

static int take_key_file(struct config *c, const char *value)
{
	struct vd_key *key = NULL;
	struct vd_error e;

	return vd_key_from_file(value, &key, &e) < 0 ? refuse(&e) : add_key(c, key);
}

static int take_key_fd(struct config *c, const char *value)
{
	struct vd_key *key = NULL;
	struct vd_error e;
	int fd, r;

	if (nbdkit_parse_int("key-fd", value, &fd) < 0)
		return -1;
	r = vd_key_from_fd(fd, true, &key, &e);
	close(fd);
	return r < 0 ? refuse(&e) : add_key(c, key);
}

/* What the next key command is to know. */
static struct vd_key_command_opts next_command = { .struct_size = sizeof(next_command) };

static int take_key_command(struct config *c, const char *value)
{
	struct vd_key *key = NULL;
	struct vd_error e;

	return vd_key_from_key_command(value, &next_command, &key, &e) < 0 ? refuse(&e) : add_key(c, key);
}

static int carry(struct config *c, size_t i, struct vd_error *e)
{
	int ends[2], r;

	if (pipe(ends) < 0) {
		*e = (struct vd_error){ .code = VD_EFAILED, .sys_errno = errno, .message = "no pipe to keep a key in" };
		return VD_EFAILED;
	}
	r = vd_key_to_fd(c->keys[i], ends[1], e);
	close(ends[1]);
	c->carried[i] = ends[0];
	return r;
}

int config_carry_keys(struct config *c, struct vd_error *e)
{
	int r = 0;

	c->pid = getpid();
	memset(c->carried, -1, sizeof(c->carried));
	for (size_t i = 0; i < c->opts.n_keys && r == 0; i++)
		if (!vd_key_is_command(c->keys[i]))
			r = carry(c, i, e);
	return r;
}

int config_regain_keys(struct config *c, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < c->opts.n_keys; i++) {
		if (c->carried[i] < 0)
			continue;
		if (c->pid != getpid() && r == 0) {
			vd_key_free(c->keys[i]);
			c->keys[i] = NULL;
			r = vd_key_from_fd(c->carried[i], true, &c->keys[i], e);
		}
		close(c->carried[i]);
		c->carried[i] = -1;
	}
	return r;
}

void config_free_keys(struct config *c)
{
	for (size_t i = 0; i < c->opts.n_keys; i++) {
		vd_key_free(c->keys[i]);
		c->keys[i] = NULL;
	}
	c->opts.n_keys = 0;
}

/* ---- parameters ------------------------------------------------------------------------------------------ */

static int take_allow(struct config *c, const char *value)
{
	char *real = nbdkit_realpath(value);

	if (!real)
		return -1;
	if (c->allowed.n == CONFIG_DIRS_MAX) {
		nbdkit_error("allow: more than %d folders", CONFIG_DIRS_MAX);
		free(real);
		return -1;
	}
	c->dirs[c->allowed.n++] = nbdkit_strdup_intern(real);
	free(real);
	return 0;
}

/* nbdkit changes to the root folder when it goes into the background. */
static int take_path(const char **where, const char *value)
{
	char *path = nbdkit_absolute_path(value);

	*where = path ? nbdkit_strdup_intern(path) : NULL;
	free(path);
	return *where ? 0 : -1;
}

static int take_text(const char **where, const char *value)
{
	*where = nbdkit_strdup_intern(value);
	return *where ? 0 : -1;
}

static int take_flag(struct config *c, unsigned flag, const char *value)
{
	int on = nbdkit_parse_bool(value);

	if (on < 0)
		return -1;
	c->opts.flags = on ? c->opts.flags | flag : c->opts.flags & ~flag;
	return 0;
}

int config_take(struct config *c, const char *key, const char *value)
{
	const struct {
		const char *name;
		const char **where;
		int (*take)(const char **where, const char *value);
	} texts[] = {
		{ "file", &c->file, take_path },
		{ "format", &c->opts.format, take_text },
		{ "backing-format", &c->opts.backing_format, take_text },
		{ "snapshot", &c->opts.snapshot, take_text },
		{ "disk", &c->opts.disk, take_text },
		{ "header", &c->opts.header, take_path },
		{ "token-file", &next_command.token_file, take_path },
	};
	static const struct {
		const char *name;
		int (*take)(struct config *c, const char *value);
	} others[] = {
		{ "allow", take_allow },
		{ "password", take_password },
		{ "key-file", take_key_file },
		{ "key-fd", take_key_fd },
		{ "key-command", take_key_command },
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (!strcmp(key, texts[i].name))
			return texts[i].take(texts[i].where, value);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (!strcmp(key, others[i].name))
			return others[i].take(c, value);
	if (!strcmp(key, "read-write"))
		return take_flag(c, VD_OPEN_WRITE, value);
	if (!strcmp(key, "force-share"))
		return take_flag(c, VD_OPEN_FORCE_SHARE, value);
	if (!strcmp(key, "key-timeout"))
		return nbdkit_parse_unsigned(key, value, &next_command.timeout_s);
	if (!strcmp(key, "report-fd"))
		return nbdkit_parse_int(key, value, &c->report_fd);
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

int config_complete(struct config *c)
{
	unsigned both = VD_OPEN_WRITE | VD_OPEN_FORCE_SHARE;

	if (!c->file) {
		nbdkit_error("which image? Say file=IMAGE");
		return -1;
	}
	if ((c->opts.flags & both) == both) {
		nbdkit_error("force-share is for reading: it does not go with read-write");
		return -1;
	}
	c->opts.struct_size = sizeof(c->opts);
	c->opts.keys = c->keys;
	c->allowed.dirs = c->dirs;
	c->opts.gate = c->allowed.n ? vd_gate_below_dirs : NULL;
	c->opts.gate_ctx = &c->allowed;
	return 0;
}
