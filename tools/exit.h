/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every exit status of the command, in one table, and what the command adds to the library's codes. The pages' EXIT
 * STATUS and the tests are held against it; the codes themselves are in VD_CODE_TABLE of vdisk.h.
 */
#ifndef TOOLS_EXIT_H
#define TOOLS_EXIT_H

/* Failures that only a command can have: symbol, value, exit status, name. Values lie far from the library's. */
#define EXIT_CODE_TABLE(X) \
	X(EXIT_ECONFIRM, -1001, 15, "confirmation-needed") \
	X(EXIT_EREFUSED, -1002, 20, "refused")

enum exit_code {
#define EXIT_CODE_ENUM(sym, value, status, name) sym = value,
	EXIT_CODE_TABLE(EXIT_CODE_ENUM)
#undef EXIT_CODE_ENUM
};

/* Statuses that compare shares with qemu-img compare; there they come before those of the table below. */
enum compare_status {
	COMPARE_SAME = 0,
	COMPARE_DIFFER = 1,
	COMPARE_OPEN_FAILED = 2,
	COMPARE_TABLES_FAILED = 3,
	COMPARE_READ_FAILED = 4,
};

/* What check has to say; the first is that of qemu-img check, whose 2 is the last. */
enum check_status {
	CHECK_LEAKS = 3,
	CHECK_INCOMPLETE = 1,
	CHECK_FAULTS = 10,
};

/* What a wipe has to say that does not clear; names and meaning are in wipe/grade.h. */
enum wipe_status {
	WIPE_STATUS_VERIFY_FAIL = 10,
	WIPE_STATUS_INCOMPLETE = 16,
	WIPE_STATUS_OVERWRITTEN = 18,
	WIPE_STATUS_NOT_ASSURED = 19,
	WIPE_STATUS_REFUSED = 20,
};

enum scan_status { SCAN_STATUS_FOUND = 21, SCAN_STATUS_INCOMPLETE = 22 };

/* What a drill has to say of a disk. */
enum drill_status {
	DRILL_STATUS_FAILED = 10,
	DRILL_STATUS_UNLOCK = 23,
};

/* Status and reason, as the pages print them. 128 stands for 128 + the number of the signal. */
#define EXIT_STATUS_TABLE(X)                                                             \
	X(0, "done; compare: the disks are the same")                                    \
	X(1, "failed; compare: the disks differ")                                        \
	X(2, "compare only: an image could not be opened")                               \
	X(3, "compare: the tables of an image could not be read; check: leaks, else no fault") \
	X(4, "compare only: the data of an image could not be read")                     \
	X(10, "what was checked does not hold")                                          \
	X(11, "another process uses the image")                                          \
	X(12, "wrong key or passphrase, or none given for an encrypted image")           \
	X(13, "a signature, a checksum or the encryption header does not hold")          \
	X(14, "not enough space")                                                        \
	X(15, "a confirmation is needed and could not be asked for")                     \
	X(16, "a conversion in place, or a wipe, has begun and not ended")                        \
	X(17, "a bitmap does not tell what changed: all may have")                       \
	X(18, "wipe: overwritten, but that nothing is left is not assured")              \
	X(19, "wipe: old blocks were not reached")                                       \
	X(20, "wipe: refused, since something else would be lost with it")               \
	X(21, "scan: findings at or above the severity that fails")                      \
	X(22, "scan: something could not be looked at, and nothing else fails")          \
	X(23, "drill: boots to the prompt for a disk's passphrase; what comes after was not shown") \
	X(63, "the format, or a feature of the image, is not supported")                 \
	X(64, "wrong usage")                                                             \
	X(128, "stopped by a signal: 128 and the number of the signal")

/* Exit status and stable name of a failure: a code of the library, of the table above, or a stop by a signal. */
int exit_status_of(int code);
const char *exit_name_of(int code);

/* The table row by row, for help and its tests; NULL past the last. */
struct exit_row {
	int status;
	const char *reason;
};
const struct exit_row *exit_row(unsigned i);

#endif
