/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Judges where a verb is about to write, before it costs anybody time: what is there, whether it may go, whether there is room. */
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include "settings.h"

/* A name that stands for standard output, or input. */
bool output_is_stream(const char *path);
/* Standard output takes a disk: no terminal. */
int output_judge_stream(struct vd_error *e);
/* Nothing is there, or what is there may be replaced: --force for files, a confirmation for block devices. */
int output_judge(const struct settings *s, const char *path, struct vd_error *e);
/* The output is not the input, under whatever name; and no other file of the input's chain. */
int output_is_not_file(const char *path, const char *input, struct vd_error *e);
int output_is_not_in(const struct settings *s, const char *path, struct vd_image *input, struct vd_error *e);
/* There is room for `bytes` more where `path` will be; VD_ENOSPC with both numbers. */
int output_has_room(const char *path, uint64_t bytes, struct vd_error *e);
/* A device is written where it is: a broken run leaves it half written. */
bool output_is_device(const char *path);

#endif
