/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In which order a changed LUKS header goes to the disk. What has changed is libcryptsetup's work (luks.c), writing and
 * flushing is the core's.
 *
 *  P1  LUKS1 has no second copy, and each sector of it is one instant: a new slot gets its key material, then its salt and
 *      iterations, then the flag of 4 bytes that makes it one. A slot that goes loses the flag first.
 *  P2  LUKS2 has two copies under checksums with a number that rises, and the higher sound one counts. Key material of a
 *      new slot comes before both, that of a slot that goes is wiped after both.
 *  P3  Of the two copies a damaged one is written first, so that the sound one is there until it is done.
 */
#include "keys/luks.h"

#include <stdlib.h>
#include <string.h>

void vd_luks_edit_free(struct vd_luks_edit *edit)
{
	free(edit->now);
	free(edit->token);
	*edit = (struct vd_luks_edit){ 0 };
}

/* The part of [off, end) that differs; nothing when none does. */
static void add_step(struct vd_luks_edit *edit, const uint8_t *old, const uint8_t *now, uint64_t off, uint64_t end)
{
	while (off < end && old[off] == now[off])
		off++;
	while (off < end && old[end - 1] == now[end - 1])
		end--;
	if (off < end)
		edit->steps[edit->n_steps++] = (struct vd_luks_step){ off, end - off };
}

/* Each byte that differs is in a step. */
static bool is_complete(const struct vd_luks_edit *edit, const uint8_t *old, const uint8_t *now)
{
	for (size_t i = 0; i < edit->len; i++) {
		size_t k = 0;

		if (old[i] == now[i])
			continue;
		while (k < edit->n_steps && i - edit->steps[k].off >= edit->steps[k].len)
			k++;
		if (k == edit->n_steps)
			return false;
	}
	return true;
}

static void plan_luks1(struct vd_bytes header, const uint8_t *now, enum vd_luks_act act, struct vd_luks_edit *edit)
{
	struct vd_luks1_slot s = vd_luks1_slot(header, edit->slot);

	if (act == VD_LUKS_REMOVE)
		add_step(edit, header.p, now, s.active, s.active + 4);
	add_step(edit, header.p, now, s.material, s.material_end);
	add_step(edit, header.p, now, s.params, s.params_end);
	if (act == VD_LUKS_ADD)
		add_step(edit, header.p, now, s.active, s.active + 4);
}

static void plan_luks2(struct vd_bytes header, const uint8_t *sound, const uint8_t *now, enum vd_luks_act act,
		       struct vd_luks_edit *edit)
{
	uint64_t copy = vd_get_be64(now + 8);   /* hdr_size of the binary header (LUKS2 spec 1.1.4, 2.1) */
	bool second_first = memcmp(header.p + copy, sound + copy, copy) != 0;

	if (act == VD_LUKS_ADD)
		add_step(edit, header.p, now, 2 * copy, edit->len);
	add_step(edit, header.p, now, second_first ? copy : 0, second_first ? 2 * copy : copy);
	add_step(edit, header.p, now, second_first ? 0 : copy, second_first ? copy : 2 * copy);
	if (act == VD_LUKS_REMOVE)
		add_step(edit, header.p, now, 2 * copy, edit->len);
}

int vd_luks_plan(struct vd_bytes header, const uint8_t *sound, const uint8_t *now, enum vd_luks_act act,
		 struct vd_luks_edit *edit, struct vd_error *e)
{
	uint64_t ignored;

	edit->n_steps = 0;
	if (vd_luks_search(header, &ignored) == VD_LUKS1)
		plan_luks1(header, now, act, edit);
	else
		plan_luks2(header, sound, now, act, edit);
	if (!is_complete(edit, header.p, now))
		return vd_fail(e, VD_EFAILED, "more than keyslot %u of the LUKS header would change", edit->slot);
	return 0;
}
