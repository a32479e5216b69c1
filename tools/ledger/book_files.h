/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the writing and the reading half of book.h know together: the files in its folder, its head, and the beginning of a line. */
#ifndef TOOLS_LEDGER_BOOK_FILES_H
#define TOOLS_LEDGER_BOOK_FILES_H

#include "ledger/book.h"

/*
 * 00000001.jsonl and on: the parts, in which the lines stand; a part that is long enough is never written to again.
 * head: the last line's number and hash, and where it ends. It is written after the line is durable, so that it never tells of a line that is not there;
 * lines behind it were written by somebody who was killed before he wrote the head.
 * lock: held while one of them is written to.
 */
struct book {
	int dir;
	char folder[4096];
};
struct book_head {
	uint64_t n;                     /* 0: there is no line yet */
	char hash[BOOK_HASH_SIZE];     /* of line n; zeros before the first */
	uint32_t part;                  /* that holds line n */
	uint64_t end;                   /* of line n in its part */
};
#define BOOK_NO_HASH "0000000000000000000000000000000000000000000000000000000000000000"

/* Waits for the lock, LOCK_EX or LOCK_SH; the descriptor that holds it, or negative. */
int book_lock(struct book *b, int operation, struct vd_error *e);
/* *is_lost: lines are there and no head, or one that cannot be read. A new chain has a head of zeros. */
int book_read_head(struct book *b, struct book_head *head, bool *is_lost, struct vd_error *e);
int book_open_part(struct book *b, uint32_t part, int flags, struct vd_error *e);
bool book_part_exists(struct book *b, uint32_t part);

/* {"kind":"...","n":...,"prev":"...": a line begins so, and nothing that a body holds can. False: this one does not. `prev` is not terminated. */
bool book_take_start(const char *line, size_t len, uint64_t *n, const char **prev);
void book_hash(const char *line, size_t len, char hash[BOOK_HASH_SIZE]);

/* Lines of one file after the other, without their ends. */
struct book_reader {
	int fd;
	uint32_t part;
	uint64_t at;                    /* in the file: where the next line begins */
	char *buf;
	size_t used, taken;
};
int book_reader_open(struct book *b, uint32_t part, uint64_t at, struct book_reader *r, struct vd_error *e);
void book_reader_close(struct book_reader *r);
/* 1: a line, valid until the next call; 0: the part ends, *torn bytes of no whole line behind it. VD_ECORRUPT: a line is too long. */
int book_reader_next(struct book *b, struct book_reader *r, const char **line, size_t *len, uint64_t *torn, struct vd_error *e);

/* Goes on over lines that follow from `head`, to the end of the last part; *torn bytes of none are left there. */
int book_roll(struct book *b, struct book_head *head, uint64_t *torn, struct vd_error *e);

#endif
