/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one place that speaks to people: errors, notes, results, questions. Results go to standard output, unless a disk
 * does; all else goes to standard error or the terminal. What jobs show while they run is progress.h.
 */
#ifndef TOOLS_UI_H
#define TOOLS_UI_H

#include <stdio.h>
#include <stdnoreturn.h>

#include "settings.h"

enum ui_colour { UI_PLAIN, UI_GREEN, UI_YELLOW, UI_RED, UI_MAGENTA, UI_DIM };

/* Before the options are read only the form of errors is known. */
void ui_setup_early(bool json);
void ui_setup(const struct settings *s);
bool ui_is_json(void);
/* Standard output is for a disk: results go to standard error from here on, as all else does. */
void ui_give_up_stdout(void);
/* Where results go. */
FILE *ui_results(void);
/* The terminal or file takes UTF-8. */
bool ui_is_utf8(void);

/* "vdisk: what: why" and "hint: what to do"; with --output=json one object on standard output. `image` may be NULL. */
void ui_error(const struct vd_error *e, int status, const char *image);
/* For standard error: what the user must know even with -q, and what is good to know. */
void ui_warn(const char *fmt, ...) VD_PRINTF(1, 2);
void ui_note(const char *fmt, ...) VD_PRINTF(1, 2);
/* One line of result on standard output; control characters, which names may hold, do not get through. */
void ui_line(const char *fmt, ...) VD_PRINTF(1, 2);
/* A line of result that -q leaves out, such as a summary. */
void ui_summary(const char *fmt, ...) VD_PRINTF(1, 2);
/* Terminal codes, or "" where colour is not wanted. */
const char *ui_colour(enum ui_colour c);

/* "deriving key ...": shown on a terminal until ui_status_end(). */
void ui_status(const char *text);
void ui_status_end(void);

/*
 * Asks on the terminal, without echo, even when the standard streams are redirected. Fills at most size - 1 bytes and a
 * NUL; the caller wipes. VD_ENOKEY when there is no terminal, VD_ECANCELLED when a signal came.
 */
int ui_ask_secret(const char *prompt, char *buf, size_t size, struct vd_error *e);
/* 0 when the user types "yes" on the terminal, or said --yes. EXIT_ECONFIRM else. */
int ui_confirm(bool yes, const char *question, struct vd_error *e);
/* 0 when the user types `wanted` on the terminal. EXIT_ECONFIRM else, with `hint` where there is no terminal. */
int ui_confirm_name(const char *question, const char *wanted, const char *hint, struct vd_error *e);
/* Somebody sits there who can be asked what is not needed to go on. */
bool ui_is_interactive(void);
/* 1 when the user types "y" or "yes" on the terminal, 0 for any other line. */
int ui_offer(const char *question, struct vd_error *e);

/* Nothing sensible can be said or done any more. */
noreturn void ui_out_of_memory(void);
/* Standard output was written whole: the result of the last flush. */
int ui_finish(struct vd_error *e);

#endif
