/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notes on keyslots where LUKS itself keeps none: what LUKS2 has as tokens, as a JSON text that an image keeps beside its
 * LUKS1 header. Where that text lies is its format's business.
 *
 *   {"keyslots":[{"slot":"0","salt":"<16 hex digits>","label":"...","kind":"...","created":"<seconds since 1970>"
 *     [,"helper":"..."] [,"machine-bound":true] [,"token":{...}]}, ...]}
 *
 * Other programs change keyslots without a look at the notes. So a note says whose it is by the salt of the slot's key, and
 * one whose slot has another salt is void. `helper` and `machine-bound` are what the token says (keycommand.md); they are here
 * too where the user keeps the token.
 */
#include "keys/keycommand.h"
#include "keys/luks.h"

#include "libvdisk/base/alloc.h"

#include <stdio.h>
#include <string.h>

#define NOTE_MAX (256 + VD_KEY_TOKEN_MAX)       /* one note with all that may be in it, at its longest */
#define SALT_BYTES 8            /* of the 32 there are: enough to tell two apart */

static void show_salt(struct vd_bytes header, uint32_t slot, char out[2 * SALT_BYTES + 1])
{
	uint64_t at = vd_luks1_slot(header, slot).params + 4;   /* behind the iterations */

	for (int i = 0; i < SALT_BYTES; i++)
		snprintf(out + 2 * i, 3, "%02x", header.p[at + (uint64_t)i]);
}

static void take_helper(struct vd_json object, struct vd_slot_info *slot)
{
	struct vd_json bound = vd_json_get(object, "machine-bound");

	vd_json_copy(vd_json_get(object, "helper"), slot->helper, sizeof(slot->helper));
	if (strspn(slot->helper, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(slot->helper))
		slot->helper[0] = '\0';
	slot->is_machine_bound = bound.len == 4 && !memcmp(bound.p, "true", 4);
}

void vd_luks_take_notes(struct vd_json object, struct vd_slot_info *slot)
{
	vd_json_copy(vd_json_get(object, "label"), slot->label, sizeof(slot->label));
	vd_json_copy(vd_json_get(object, "kind"), slot->kind, sizeof(slot->kind));
	if (!vd_json_u64(vd_json_get(object, "created"), &slot->created))
		slot->created = 0;
	take_helper(object, slot);
}

void vd_luks_take_token(const char *token, struct vd_slot_info *slot)
{
	take_helper(vd_json_of((struct vd_bytes){ (const uint8_t *)token, strlen(token) }), slot);
}

struct vd_json vd_luks_note_of(const struct vd_luks_view *view, uint32_t slot)
{
	struct vd_json list = vd_json_get(vd_json_of(view->notes), "keyslots"), key, note;
	char salt[2 * SALT_BYTES + 1];
	uint64_t number;
	size_t at = 0;

	show_salt(view->header, slot, salt);
	while (vd_json_next(list, &at, &key, &note))
		if (vd_json_u64(vd_json_get(note, "slot"), &number) && number == slot && vd_json_is(vd_json_get(note, "salt"), salt))
			return note;
	return (struct vd_json){ 0 };
}

void vd_luks_notes_read(struct vd_bytes header, struct vd_bytes notes, struct vd_luks_info *info)
{
	const struct vd_luks_view view = { .header = header, .notes = notes };

	for (uint32_t i = 0; i < info->n_slots; i++)
		vd_luks_take_notes(vd_luks_note_of(&view, info->slots[i].index), &info->slots[i]);
}

static size_t write_note(const struct vd_luks_view *view, const struct vd_slot_info *s, const char *token, char *out, size_t room)
{
	char salt[2 * SALT_BYTES + 1];

	show_salt(view->header, s->index, salt);
	return (size_t)snprintf(out, room, "{\"slot\":\"%u\",\"salt\":\"%s\",\"label\":\"%s\",\"kind\":\"%s\",\"created\":\"%llu\""
				"%s%s%s%s%s%s}", s->index, salt, s->label, s->kind, (unsigned long long)s->created,
				s->helper[0] ? ",\"helper\":\"" : "", s->helper, s->helper[0] ? "\"" : "",
				s->is_machine_bound ? ",\"machine-bound\":true" : "", token[0] ? ",\"token\":" : "", token);
}

int vd_luks_notes_write(const struct vd_luks_view *view, const struct vd_luks_info *info, uint32_t slot, const char *token,
			char **out, struct vd_error *e)
{
	size_t room = 32 + (size_t)NOTE_MAX * info->n_slots, at;
	char *text;
	int r = vd_alloc(room, 1, &text, e);

	if (r < 0)
		return r;
	at = (size_t)snprintf(text, room, "{\"keyslots\":[");
	for (uint32_t i = 0, n = 0; i < info->n_slots; i++) {
		const struct vd_slot_info *s = &info->slots[i];
		char kept[VD_KEY_TOKEN_MAX + 1] = "";

		if (!s->kind[0])
			continue;
		if (s->index != slot)
			vd_key_token_take(vd_json_get(vd_luks_note_of(view, s->index), "token"), kept);
		if (n++)
			text[at++] = ',';
		at += write_note(view, s, s->index == slot && token ? token : kept, text + at, room - at);
	}
	snprintf(text + at, room - at, "]}");
	*out = text;
	return 0;
}
