/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keyslots of the LUKS header inside an image, for the public: locks, durability, backups. What changes in the header and
 * in which order it may reach the disk, the keys room says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/shape.h"

#define auto_edit __attribute__((cleanup(vd_luks_edit_free)))

int vd_keyslots_judge(const struct vd_image *img, struct vd_error *e)
{
	if (img->layer.encryption == VD_ENCRYPTED_LUKS)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: %s", img->path, img->layer.encryption == VD_PLAIN ?
		       "it is not encrypted, so it has no keyslots" : "its old AES-CBC encryption has no keyslots");
}

static int read_header(struct vd_image *img, uint8_t **header, size_t *len, struct vd_error *e)
{
	int r = vd_keyslots_judge(img, e);

	return r < 0 ? r : vd_layer_read_header(img, img->layer.is_container, header, len, e);
}

int vd_keyslots_read_back(struct vd_image *img, struct vd_bytes now, struct vd_error *e)
{
	vd_auto_free uint8_t *stored = NULL;
	struct vd_luks_info *luks = &img->layer.luks;
	uint64_t header_off = luks->header_off;
	size_t len = 0;
	int r = read_header(img, &stored, &len, e);

	if (r == 0 && (len != now.len || memcmp(stored, now.p, len)))
		r = vd_fail(e, VD_EIO, "%s: the LUKS header reads back otherwise than it was written", img->path);
	if (r == 0)
		r = vd_luks_inspect(now, 0, luks, e);
	luks->header_off = header_off;
	return r;
}

static bool keeps_notes(const struct vd_image *img)
{
	return img->format->keep_notes && !img->layer.is_container;
}

/* LUKS2 has them in its tokens. `opts`: what is to be noted of edit's slot; NULL: it went. */
static int note(struct vd_image *img, const struct vd_luks_edit *edit, const struct vd_luks_slot_opts *opts, struct vd_error *e)
{
	struct vd_bytes header = { edit->now, edit->len };
	struct vd_luks_info *luks = &img->layer.luks;
	vd_auto_free char *text = NULL;
	int r;

	if (!keeps_notes(img))
		return 0;
	vd_luks_notes_read(header, img->info.key_notes, luks);
	for (uint32_t i = 0; opts && i < luks->n_slots; i++) {
		struct vd_slot_info *s = &luks->slots[i];

		if (s->index != edit->slot)
			continue;
		snprintf(s->label, sizeof(s->label), "%s", opts->label ? opts->label : "");
		snprintf(s->kind, sizeof(s->kind), "%s", opts->kind);
		s->created = opts->created;
	}
	r = vd_luks_notes_write(header, luks, &text, e);
	if (r == 0)
		r = img->format->keep_notes(img->state, text, e);
	img->format->describe(img->state, &img->info);
	return r;
}

static int store(struct vd_image *img, const struct vd_luks_edit *edit, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < edit->n_steps && r == 0; i++)
		r = vd_layer_write_header(img, edit->now + edit->steps[i].off, edit->steps[i].len, edit->steps[i].off, e);
	return r < 0 ? r : vd_keyslots_read_back(img, (struct vd_bytes){ edit->now, edit->len }, e);
}

/* ---- add, change, remove --------------------------------------------------------------------------------- */

struct request {
	const struct vd_key *any, *new;
	struct vd_luks_slot_opts opts;
	uint32_t *slot;
	unsigned flags;
};

static bool is_plain_text(const char *text, size_t size)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\')
			return false;
	return strlen(text) < size;
}

static int judge_request(const struct vd_image *img, const struct vd_keyslot_opts *o, struct request *q, struct vd_error *e)
{
	struct vd_slot_info room;
	int r = vd_keyslots_judge(img, e);

	q->opts.kind = "passphrase";
	q->opts.created = (uint64_t)time(NULL);
	if (r < 0 || !o)
		return r;
	if (o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_keyslot_opts: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if ((o->label && !is_plain_text(o->label, sizeof(room.label))) || (o->kind && !is_plain_text(o->kind, sizeof(room.kind))))
		return vd_fail(e, VD_EARG, "a label has at most %zu bytes and a kind %zu, without quotes, backslashes or control "
			       "characters", sizeof(room.label) - 1, sizeof(room.kind) - 1);
	if (o->label && img->layer.luks.version != 2 && !keeps_notes(img)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a LUKS1 container has no place for a label", img->path);
		return vd_hint(e, VD_EUNSUPPORTED, "leave the label out, or use a LUKS2 container");
	}
	q->opts.label = o->label;
	q->opts.kdf = o->kdf;
	if (o->kind)
		q->opts.kind = o->kind;
	return 0;
}

static int add(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_free uint8_t *header = NULL;
	auto_edit struct vd_luks_edit edit = { 0 };
	size_t len = 0;
	int r = read_header(img, &header, &len, e);

	if (r == 0)
		r = vd_luks_add_slot((struct vd_bytes){ header, len }, q->any, q->new, &q->opts, &edit, e);
	if (r == 0)
		r = store(img, &edit, e);
	if (r == 0)
		r = note(img, &edit, &q->opts, e);
	*q->slot = edit.slot;
	return r < 0 ? vd_error_prefix(e, r, "%s: ", img->path) : 0;
}

static int judge_removal(const struct vd_image *img, uint32_t slot, unsigned flags, struct vd_error *e)
{
	const struct vd_luks_info *luks = &img->layer.luks;
	bool is_used = false;

	for (uint32_t i = 0; i < luks->n_slots; i++)
		is_used |= luks->slots[i].index == slot;
	if (!is_used)
		return vd_fail(e, VD_ENOENT, "%s: keyslot %u is not in use", img->path, slot);
	if (luks->n_slots > 1 || (flags & VD_KEYSLOT_LAST))
		return 0;
	vd_fail(e, VD_EARG, "%s: keyslot %u is the last one: without it nothing opens the disk any more", img->path, slot);
	return vd_hint(e, VD_EARG, "add another key first; or say that the last one may go, which erases the disk");
}

static int remove_slot(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_free uint8_t *header = NULL;
	auto_edit struct vd_luks_edit edit = { 0 };
	size_t len = 0;
	int r = read_header(img, &header, &len, e);

	if (r == 0)
		r = judge_removal(img, *q->slot, q->flags, e);
	if (r == 0)
		r = vd_luks_remove_slot((struct vd_bytes){ header, len }, *q->slot, &edit, e);
	if (r == 0)
		r = store(img, &edit, e);
	return r < 0 ? r : note(img, &edit, NULL, e);
}

static int change(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_free uint8_t *header = NULL;
	struct request old = { 0 };
	uint32_t old_slot = 0;
	size_t len = 0;
	int r = read_header(img, &header, &len, e);

	if (r == 0)
		r = vd_luks_find_slot((struct vd_bytes){ header, len }, q->any, &old_slot, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", img->path);
	r = add(img, q, e);
	old.slot = &old_slot;
	return r < 0 ? r : remove_slot(img, &old, e);
}

static int run(struct vd_image *img, vd_shape_fn fn, const struct vd_key *any, const struct vd_key *new,
	       const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e)
{
	uint32_t ignored;
	struct request q = { .any = any, .new = new, .slot = slot ? slot : &ignored };
	int r = judge_request(img, opts, &q, e);

	return r < 0 ? r : vd_shape_run(img, fn, &q, e);
}

VD_PUBLIC int vd_keyslot_add(struct vd_image *img, const struct vd_key *any, const struct vd_key *new_key,
			     const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e)
{
	return run(img, add, any, new_key, opts, slot, e);
}

VD_PUBLIC int vd_keyslot_change(struct vd_image *img, const struct vd_key *old_key, const struct vd_key *new_key,
				const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e)
{
	return run(img, change, old_key, new_key, opts, slot, e);
}

VD_PUBLIC int vd_keyslot_remove(struct vd_image *img, uint32_t slot, unsigned flags, struct vd_error *e)
{
	struct request q = { .slot = &slot, .flags = flags };
	int r = vd_keyslots_judge(img, e);

	return r < 0 ? r : vd_shape_run(img, remove_slot, &q, e);
}

VD_PUBLIC int vd_keyslot_find(struct vd_image *img, const struct vd_key *key, uint32_t *slot, struct vd_error *e)
{
	vd_auto_free uint8_t *header = NULL;
	size_t len = 0;
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = read_header(img, &header, &len, e);
	pthread_rwlock_unlock(&img->control);
	if (r == 0)
		r = vd_luks_find_slot((struct vd_bytes){ header, len }, key, slot, e);
	return r < 0 ? vd_error_prefix(e, r, "%s: ", img->path) : 0;
}
