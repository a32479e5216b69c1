/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds words in streams of text. Failures are looked for before success: a kernel that panics after its login prompt is no success. */
#include "drill/evidence.h"

#include <string.h>

#define N(table) (sizeof(table) / sizeof((table)[0]))
/* A word may come in two pieces. */
#define OVERLAP 128

struct row {
	const char *name, *english, *chinese;
	bool proves;
};

static const struct row *row(enum drill_outcome o)
{
	static const struct row rows[] = {
#define ROW(sym, name, proves, en, zh) { name, en, zh, proves },
		DRILL_OUTCOME_TABLE(ROW)
#undef ROW
	};

	return &rows[(size_t)o < N(rows) ? o : 0];
}

const char *drill_outcome_name(enum drill_outcome o)
{
	return row(o)->name;
}

bool drill_outcome_proves(enum drill_outcome o)
{
	return row(o)->proves;
}

const char *drill_outcome_words(enum drill_outcome o, bool chinese)
{
	return chinese ? row(o)->chinese : row(o)->english;
}

/* Words as SeaBIOS, OVMF, boot loaders, Linux, systemd, the BSDs and Windows print them. */
static const struct {
	const char *words;
	enum drill_outcome outcome;
} known[] = {
	{ "Kernel panic - not syncing", DRILL_PANIC },
	{ "VFS: Unable to mount root fs", DRILL_NO_ROOT },
	{ "Gave up waiting for root", DRILL_NO_ROOT },
	{ "(initramfs)", DRILL_NO_ROOT },
	{ "dracut:/#", DRILL_NO_ROOT },
	{ "You are in emergency mode", DRILL_EMERGENCY },
	{ "Give root password for maintenance", DRILL_EMERGENCY },
	{ "Press Enter for maintenance", DRILL_EMERGENCY },
	{ "Cannot open access to console, the root account is locked", DRILL_EMERGENCY },
	{ "No bootable device", DRILL_NOT_BOOTABLE },
	{ "not a bootable disk", DRILL_NOT_BOOTABLE },
	{ "No bootable option or device was found", DRILL_NOT_BOOTABLE },
	{ "Missing operating system", DRILL_LOADER },
	{ "Error loading operating system", DRILL_LOADER },
	{ "Invalid partition table", DRILL_LOADER },
	{ "Boot error", DRILL_LOADER },
	{ "grub rescue>", DRILL_LOADER },
	{ "error: no such partition", DRILL_LOADER },
	{ "error: unknown filesystem", DRILL_LOADER },
	{ "No DEFAULT or UI configuration directive found", DRILL_LOADER },
	{ "Could not find kernel image", DRILL_LOADER },
	{ "failed: No such file or directory\nboot:", DRILL_LOADER },
	{ "BOOTMGR is missing", DRILL_LOADER },
	{ "BOOTMGR is compressed", DRILL_LOADER },
	{ "operating system wasn't found", DRILL_LOADER },
	{ "Please unlock disk", DRILL_UNLOCK },
	{ "Please enter passphrase", DRILL_UNLOCK },
	{ "Enter passphrase for", DRILL_UNLOCK },
	{ "Passphrase for disk", DRILL_UNLOCK },
	{ " login: ", DRILL_BOOTED },
};

/* ESC, then '[' and parameters up to a letter, or one more byte. */
static bool is_text(struct evidence *v, char c)
{
	if (v->escape == 1) {
		v->escape = c == '[' || c == ']' ? 2 : 0;
		return false;
	}
	if (v->escape == 2) {
		if ((c >= '@' && c <= '~') || c == '\a')
			v->escape = 0;
		return false;
	}
	if (c == '\033') {
		v->escape = 1;
		return false;
	}
	return c == '\n' || c == '\t' || (unsigned char)c >= 0x20;
}

void evidence_add(struct evidence *v, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!is_text(v, bytes[i]))
			continue;
		if (v->n == EVIDENCE_KEPT) {
			size_t gone = EVIDENCE_KEPT / 2;

			memmove(v->text, v->text + gone, v->n - gone);
			v->n -= gone;
			v->looked = v->looked > gone ? v->looked - gone : 0;
		}
		v->text[v->n++] = bytes[i];
		v->total++;
	}
	v->text[v->n] = 0;
}

enum drill_outcome evidence_judge(struct evidence *v, const char *expected, const char **words)
{
	size_t from = v->looked > OVERLAP ? v->looked - OVERLAP : 0;
	const char *at = v->text + from;
	size_t n = v->n - from;

	v->looked = v->n;
	for (size_t i = 0; i < N(known); i++) {
		if (!memmem(at, n, known[i].words, strlen(known[i].words)))
			continue;
		/* Where a word of the user's is waited for, a login prompt is on the way to it. */
		if (expected && known[i].outcome == DRILL_BOOTED)
			continue;
		*words = known[i].words;
		return known[i].outcome;
	}
	if (!expected || !memmem(at, n, expected, strlen(expected)))
		return DRILL_NOTHING;
	*words = expected;
	return DRILL_EXPECTED;
}

void evidence_last_line(const struct evidence *v, char *line, size_t size)
{
	size_t end = v->n, begin, n = 0;

	while (end && (v->text[end - 1] == '\n' || v->text[end - 1] == ' '))
		end--;
	for (begin = end; begin && v->text[begin - 1] != '\n';)
		begin--;
	for (size_t i = begin; i < end && n + 1 < size; i++)
		line[n++] = (unsigned char)v->text[i] < 0x20 || (unsigned char)v->text[i] >= 0x7f ? '?' : v->text[i];
	line[n] = 0;
}
