/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens images that exist, as the options say: format, locks, what they may refer to, and the key if they need one. */
#ifndef TOOLS_SOURCE_H
#define TOOLS_SOURCE_H

#include <limits.h>

#include "secrets.h"

/* Tables only: no key, nothing that the image refers to. */
int source_open_metadata(const struct settings *s, const char *path, const char *format, struct vd_image **out,
			 struct vd_error *e);
/* The same, with the parts of a disk in several files, for what needs their tables. */
int source_open_tables(const struct settings *s, const char *path, const char *format, struct vd_image **out,
		       struct vd_error *e);
/* To change its shape: no key, nothing that the image refers to. */
int source_open_control(const struct settings *s, const char *path, const char *format, struct vd_image **out,
			struct vd_error *e);
/* Tables and every file of the disk, all of which have to be there; to overwrite what is nobody's, if `scrubs`. */
int source_open_whole(const struct settings *s, const char *path, const char *format, bool scrubs, struct vd_image **out,
		      struct vd_error *e);
/* To check and mend it, under the same conditions, whatever marks it bears. */
int source_open_repair(const struct settings *s, const char *path, const char *format, struct vd_image **out,
		       struct vd_error *e);
/* All of it. Keys are fetched when first needed, asked for when none was given, and kept in `keys` for the next image. */
int source_open(const struct settings *s, const char *path, const char *format, struct keys *keys,
		struct vd_image **out, struct vd_error *e);
/* The same for writing. */
int source_open_writable(const struct settings *s, const char *path, const char *format, struct keys *keys,
			 struct vd_image **out, struct vd_error *e);
/*
 * Keys for what opens `path` itself, in another process say: attempt() is called with those that options name, if any; when
 * it wants some and none were named, with the environment's, or one that is asked for, until it fits.
 */
typedef int (*source_attempt)(void *ctx, const struct keys *keys, struct vd_error *e);
int source_unlock(const struct settings *s, const char *path, struct keys *keys, source_attempt attempt, void *ctx,
		  struct vd_error *e);
/*
 * Standard input as an image that comes once: judged by what the options ask of it, then opened, which waits for its first
 * bytes.
 */
int source_open_stream(const struct settings *s, const char *name, struct vd_incoming **out, struct vd_error *e);
/* What the options say to vd_image_open(), for who opens an image himself. `dirs` is filled in, and pointed to. */
struct vd_open_opts source_opts(const struct settings *s, const char *format, const struct keys *keys, struct vd_gate_dirs *dirs);
int source_info(struct vd_image *img, struct vd_info *info, struct vd_error *e);

/* Adds the folder of the file that `image` is to refer to as `name` (NULL: none) to what is allowed: whoever names it in the command allows it. */
void source_allow_folder_of(struct settings *s, const char *image, const char *name, char folder[PATH_MAX]);

/* Where the name by which `image` refers to a file leads, by the same gate that opens it: 0, VD_ENOENT, VD_EREFERENCE ... */
int source_resolve(const struct settings *s, enum vd_reference_kind kind, const char *image, const char *name,
		   char *path, size_t size, struct vd_error *e);

#endif
