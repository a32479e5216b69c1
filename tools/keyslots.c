/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keyslots in words and in JSON, for info and key. */
#include "keyslots.h"

#include <stdio.h>

#include "sizes.h"

struct keyslot_text keyslot_cost(const struct vd_slot_info *slot)
{
	struct keyslot_text text;

	if (slot->memory_kib)
		snprintf(text.s, sizeof(text.s), "%s, %llu passes, %s, %u threads", slot->kdf,
			 (unsigned long long)slot->iterations, size_show(slot->memory_kib * 1024.0).s, slot->parallel);
	else
		snprintf(text.s, sizeof(text.s), "%s-%s, %llu iterations", slot->kdf, slot->hash ? slot->hash : "?",
			 (unsigned long long)slot->iterations);
	return text;
}

static void put_slot(struct json_object *j, const struct vd_slot_info *s)
{
	json_put_u64(j, "index", s->index);
	json_put_text(j, "kdf", s->kdf);
	if (s->hash)
		json_put_text(j, "hash", s->hash);
	json_put_u64(j, "iterations", s->iterations);
	if (s->memory_kib) {
		json_put_u64(j, "memory-kib", s->memory_kib);
		json_put_u64(j, "parallel", s->parallel);
	}
	json_put_bool(j, "weak", s->is_weak);
	if (s->kind[0])
		json_put_text(j, "kind", s->kind);
	if (s->helper[0])
		json_put_text(j, "helper", s->helper);
	if (s->is_machine_bound)
		json_put_bool(j, "machine-bound", true);
	if (s->label[0])
		json_put_text(j, "label", s->label);
	if (s->created)
		json_put_u64(j, "created", s->created);
}

void keyslots_put(struct json_object *to, const struct vd_luks_info *luks)
{
	struct json_object *list = json_put_array(to, "keyslots");

	for (uint32_t i = 0; i < luks->n_slots && i < VD_MAX_SLOTS; i++) {
		struct json_object *j = json_new();

		put_slot(j, &luks->slots[i]);
		json_add(list, j);
	}
}
