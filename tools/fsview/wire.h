/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the view and its sandboxed reader say to each other. One request is under way at a time, and the view asks: message
 * by message over a SEQPACKET socket, each a struct wire and `len` bytes behind it. The reader may ask for bytes of its
 * volume in between (NEED), which is answered (GIVEN), and ends with DONE. Larger things lie in memory that both have mapped:
 * bytes of the volume at its beginning, answers in its second half. Both are one program's parts: no byte order, no versions.
 *
 * The view believes nothing of it: lengths and offsets are held against the area, numbers against tables, texts are cut.
 */
#ifndef TOOLS_FSVIEW_WIRE_H
#define TOOLS_FSVIEW_WIRE_H

#include "fsview/fsview.h"

#define WIRE_SOCKET 3           /* descriptors of the reader */
#define WIRE_MEMORY 4
#define WIRE_HALF ((size_t)1 << 20)
#define WIRE_TEXT_MAX (FSVIEW_PATH_MAX + FSVIEW_NAME_MAX)

enum wire_kind {
	WIRE_LIST,              /* what is on the disk: a = its size -> struct wire_volume and its pieces, one after another */
	WIRE_OPEN,              /* a = size of the volume, b = enum fsview_fs -> struct wire_opened */
	WIRE_LOOKUP,            /* text = path -> a = used, struct fsview_stat */
	WIRE_READLINK,          /* text = path -> the link's bytes */
	WIRE_READDIR,           /* text = path, a = cursor -> a = cursor, struct wire_entry and name ... */
	WIRE_READ,              /* text = path, a = offset, b = length -> bytes */
	WIRE_XATTR,             /* text = path NUL name -> bytes */
	WIRE_BLOCKS,            /* text = path, a = cursor -> a = cursor, struct fsview_block ... */
	WIRE_FREE,              /* a = cursor -> a = cursor, struct fsview_range ... */
	WIRE_DELETED,           /* a = cursor -> a = cursor, struct wire_deleted and name ... */
	WIRE_N_REQUESTS,
	WIRE_NEED = 100,        /* a = offset, b = length */
	WIRE_GIVEN,             /* result */
	WIRE_DONE,              /* result; if negative, text = words. Else b = bytes of answer */
};
struct wire {
	uint32_t kind;
	int32_t result;
	uint64_t a, b;
	uint32_t len, zero;
};

struct wire_volume {
	struct fsview_volume v;
	uint32_t n_pieces;      /* struct fsview_range each, of the disk; one gap has a name "" and one piece */
	uint32_t lack;          /* enum fsview_lack and 1 more, of a text in `why`: 0: none */
	char why[160];
};
#define WIRE_PIECES_MAX 256

struct wire_opened {
	uint32_t block_size;
	bool is_dirty;
	char label[64];         /* "": what probe.c found stands */
};
struct wire_entry {
	struct fsview_stat st;
	uint32_t name_len;      /* bytes that follow, to the next multiple of 8 */
};
struct wire_deleted {
	uint64_t ino, size;
	int64_t time;
	uint32_t mode, name_len;
};
#define WIRE_ALIGN(n) (((n) + 7) & ~(size_t)7)

#endif
