/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notes on keyslots where LUKS itself keeps none: what LUKS2 has as tokens, as a JSON text that an image keeps beside its
 * LUKS1 header. Where that text lies is its format's business.
 *
 *   {"keyslots":[{"slot":"0","salt":"<16 hex digits>","label":"...","kind":"...","created":"<seconds since 1970>"}, ...]}
 *
 * Other programs change keyslots without a look at the notes. So a note says whose it is by the salt of the slot's key, and
 * one whose slot has another salt is void.
 */
#include "keys/json.h"
#include "keys/luks.h"

#include "libvdisk/base/alloc.h"

#include <stdio.h>
#include <string.h>

#define NOTE_MAX 192            /* one note with the longest label and kind */
#define SALT_BYTES 8            /* of the 32 there are: enough to tell two apart */

static void show_salt(struct vd_bytes header, uint32_t slot, char out[2 * SALT_BYTES + 1])
{
	uint64_t at = vd_luks1_slot(header, slot).params + 4;   /* behind the iterations */

	for (int i = 0; i < SALT_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02x", header.p[at + (uint64_t)i]);
}

void vd_luks_take_notes(struct vd_json object, struct vd_slot_info *slot)
{
	vd_json_copy(vd_json_get(object, "label"), slot->label, sizeof(slot->label));
	vd_json_copy(vd_json_get(object, "kind"), slot->kind, sizeof(slot->kind));
	if (!vd_json_u64(vd_json_get(object, "created"), &slot->created))
		slot->created = 0;
}

static void take(struct vd_bytes header, struct vd_json note, struct vd_luks_info *info)
{
	char salt[2 * SALT_BYTES + 1];
	uint64_t number;

	if (!vd_json_u64(vd_json_get(note, "slot"), &number))
		return;
	for (uint32_t i = 0; i < info->n_slots; i++) {
		if (info->slots[i].index != number)
			continue;
		show_salt(header, info->slots[i].index, salt);
		if (vd_json_is(vd_json_get(note, "salt"), salt))
			vd_luks_take_notes(note, &info->slots[i]);
	}
}

void vd_luks_notes_read(struct vd_bytes header, struct vd_bytes notes, struct vd_luks_info *info)
{
	struct vd_json list = vd_json_get(vd_json_of(notes), "keyslots"), key, note;
	size_t at = 0;

	while (vd_json_next(list, &at, &key, &note))
		take(header, note, info);
}

int vd_luks_notes_write(struct vd_bytes header, const struct vd_luks_info *info, char **out, struct vd_error *e)
{
	size_t room = 32 + (size_t)NOTE_MAX * info->n_slots, at;
	char salt[2 * SALT_BYTES + 1], *text;
	int r = vd_alloc(room, 1, &text, e);

	if (r < 0)
		return r;
	at = (size_t)snprintf(text, room, "{\"keyslots\":[");
	for (uint32_t i = 0, n = 0; i < info->n_slots; i++) {
		const struct vd_slot_info *s = &info->slots[i];

		if (!s->kind[0])
			continue;
		show_salt(header, s->index, salt);
		at += (size_t)snprintf(text + at, room - at,
				       "%s{\"slot\":\"%u\",\"salt\":\"%s\",\"label\":\"%s\",\"kind\":\"%s\",\"created\":\"%llu\"}",
				       n++ ? "," : "", s->index, salt, s->label, s->kind, (unsigned long long)s->created);
	}
	snprintf(text + at, room - at, "]}");
	*out = text;
	return 0;
}
