/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was written to a part of a disk and when, and by that what may be read there after a crash. Bytes that a flush
 * has acknowledged are there, or what was begun later in the same place; nothing else ever is. In what was begun
 * later each byte stands for itself: host writes may arrive in any order, sector by sector.
 */
#ifndef TESTS_HISTORY_H
#define TESTS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct history_op {
	uint64_t off, len;
	uint8_t *bytes;
	uint64_t begun;                 /* the recorder's tick before the call */
};

struct history_ack {
	size_t n_ops;                   /* so many had ended before the flush began */
	uint64_t tick;                  /* when it had returned */
};

struct history {
	uint64_t start, end;            /* the part of the disk */
	struct history_op *ops;
	size_t n_ops;
	struct history_ack *acks;
	size_t n_acks;
	uint8_t *durable;               /* the part, with n_durable operations done to it */
	size_t n_durable;
};

/* `content`: of the part, before the first operation. Nothing here fails but for want of memory, which ends the test. */
void history_init(struct history *h, uint64_t start, uint64_t end, const uint8_t *content);
void history_free(struct history *h);
void history_add(struct history *h, uint64_t off, uint64_t len, const uint8_t *bytes, uint64_t begun);
void history_ack(struct history *h, size_t n_ops, uint64_t tick);

/*
 * Whether `got`, the part's content after a crash at this tick, may be; else *bad is the first offset that tells. Ticks
 * ascend from call to call.
 */
bool history_allows(struct history *h, uint64_t tick, const uint8_t *got, uint64_t *bad);

#endif
