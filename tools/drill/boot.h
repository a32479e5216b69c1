/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Boots a disk and watches until it is plain what came of it, or the time is over. With KVM where a machine runs under it, else with TCG.
 */
#ifndef TOOLS_DRILL_BOOT_H
#define TOOLS_DRILL_BOOT_H

#include "drill/machine.h"

struct boot_plan {
	struct machine_plan machine;    /* but for the accelerator */
	bool no_kvm;
	const char *expected;           /* what has to be said on the serial line; NULL: a login prompt is enough */
	unsigned seconds;               /* that it may take */
};
struct boot_result {
	enum drill_outcome outcome;
	enum drill_accel accel;
	char why_tcg[160];              /* "": it is KVM, or was asked for */
	char words[160];                /* by which it was recognised, or what qemu said */
	double first_output, settled;   /* seconds after the start; negative: never */
	unsigned resets;
	char picture[PATH_MAX];         /* PNG in the plan's folder; "": none */
	struct evidence serial, firmware;
};
/* Large: the caller's, zeroed. A guest that does not come up is no failure of this call. */
int boot_run(const struct boot_plan *plan, struct boot_result *r, struct vd_error *e);

#endif
