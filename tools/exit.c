/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns failures into exit statuses and names. Prints nothing and exits nowhere. */
#include "exit.h"

#include <stddef.h>
#include <vdisk.h>

#include "signals.h"

#define N(table) (sizeof(table) / sizeof((table)[0]))

struct code_row {
	int code, status;
	const char *name;
};

static const struct code_row *own_code(int code)
{
	static const struct code_row rows[] = {
#define ROW(sym, value, status, name) { sym, status, name },
		EXIT_CODE_TABLE(ROW)
#undef ROW
	};

	for (size_t i = 0; i < N(rows); i++)
		if (rows[i].code == code)
			return &rows[i];
	return NULL;
}

static bool is_stop(int code)
{
	return code == VD_ECANCELLED && signals_stop();
}

int exit_status_of(int code)
{
	const struct code_row *own = own_code(code);

	if (is_stop(code))
		return 128 + signals_stop();
	return own ? own->status : vd_code_exit_status(code);
}

const char *exit_name_of(int code)
{
	const struct code_row *own = own_code(code);

	if (is_stop(code))
		return "interrupted";
	return own ? own->name : vd_code_name(code);
}

const struct exit_row *exit_row(unsigned i)
{
	static const struct exit_row rows[] = {
#define ROW(status, reason) { status, reason },
		EXIT_STATUS_TABLE(ROW)
#undef ROW
	};

	return i < N(rows) ? &rows[i] : NULL;
}
