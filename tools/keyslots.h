/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How keyslots are shown, wherever they are. */
#ifndef TOOLS_KEYSLOTS_H
#define TOOLS_KEYSLOTS_H

#include <vdisk.h>

#include "json.h"

struct keyslot_text {
	char s[96];
};
/* "pbkdf2-sha512, 1000000 iterations": what each guess costs. */
struct keyslot_text keyslot_cost(const struct vd_slot_info *slot);
/* An array "keyslots". */
void keyslots_put(struct json_object *to, const struct vd_luks_info *luks);

#endif
