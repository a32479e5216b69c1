/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a machine that boots gives away of itself: texts on its serial line, from its firmware and on its screen. Knows the words of success and
 * of the usual failures; what is done about them is boot.c's.
 */
#ifndef TOOLS_DRILL_EVIDENCE_H
#define TOOLS_DRILL_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>

/* Symbol, stable name, whether a backup is proven by it, words in English and Chinese. */
#define DRILL_OUTCOME_TABLE(X)                                                                                                            \
	X(DRILL_NOTHING,      "not-run",       false, "nothing was booted",                                  "未启动")                        \
	X(DRILL_BOOTED,       "booted",        true,  "the system came up to a login prompt",                "系统已启动到登录提示符")        \
	X(DRILL_EXPECTED,     "expected",      true,  "the system said what was expected of it",             "系统输出了预期的内容")          \
	X(DRILL_UNLOCK,       "unlock-prompt", false, "it boots to the prompt for a disk's passphrase; what comes after was not shown",     \
	  "启动到磁盘口令提示；其后的部分未得到证明")                                                                                         \
	X(DRILL_NOT_BOOTABLE, "not-bootable",  false, "the firmware finds nothing to boot on the disk",      "固件在磁盘上找不到可启动的内容") \
	X(DRILL_LOADER,       "boot-loader",   false, "the boot loader stops",                               "引导程序停止")                  \
	X(DRILL_NO_ROOT,      "no-root",       false, "the kernel runs and finds no root file system",       "内核已运行，但找不到根文件系统") \
	X(DRILL_EMERGENCY,    "emergency",     false, "the system stops in emergency mode",                  "系统停在紧急模式")              \
	X(DRILL_PANIC,        "panic",         false, "the kernel panics",                                   "内核崩溃")                      \
	X(DRILL_RESETS,       "reset-loop",    false, "the machine resets again and again",                  "虚拟机反复重启")                \
	X(DRILL_OFF,          "powered-off",   false, "the machine switched itself off before it was up",    "虚拟机在启动完成前关机")        \
	X(DRILL_TIME,         "time-limit",    false, "the system was not up within the time limit",         "系统未在时限内启动")            \
	X(DRILL_BROKEN,       "qemu-failed",   false, "qemu itself failed: nothing is shown of the disk",    "qemu 自身出错：未证明任何结果")
enum drill_outcome {
#define DRILL_OUTCOME_ENUM(sym, name, proves, en, zh) sym,
	DRILL_OUTCOME_TABLE(DRILL_OUTCOME_ENUM)
#undef DRILL_OUTCOME_ENUM
};
const char *drill_outcome_name(enum drill_outcome o);
bool drill_outcome_proves(enum drill_outcome o);
const char *drill_outcome_words(enum drill_outcome o, bool chinese);

/* One stream of text. Escape sequences of terminals are taken out; what was said is kept from its end, for the report. */
#define EVIDENCE_KEPT 65536
struct evidence {
	char text[EVIDENCE_KEPT + 1];
	size_t n, looked;               /* bytes; up to where it was searched */
	unsigned long long total;
	int escape;                     /* within a sequence */
};
void evidence_add(struct evidence *v, const char *bytes, size_t n);
/* What the stream has come to, DRILL_NOTHING as long as it says nothing of weight; `expected` may be NULL. *words is what was found. */
enum drill_outcome evidence_judge(struct evidence *v, const char *expected, const char **words);
/* The last line that has something in it, printable, at most size - 1 bytes. */
void evidence_last_line(const struct evidence *v, char *line, size_t size);

#endif
