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
#include "libvdisk/io/atomic.h"

#define auto_edit __attribute__((cleanup(vd_luks_edit_free)))

int vd_keyslots_judge(const struct vd_image *img, struct vd_error *e)
{
	if (img->layer.encryption == VD_ENCRYPTED_LUKS)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: %s", img->path, img->layer.encryption == VD_PLAIN ?
		       "it is not encrypted, so it has no keyslots" : "its encryption has no keyslots");
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

struct request {
	const struct vd_key *any, *new;
	struct vd_luks_slot_opts opts;
	uint32_t *slot;
	unsigned flags;
};

static void fill_note(struct vd_slot_info *s, const struct request *q, const char *token)
{
	snprintf(s->label, sizeof(s->label), "%s", q->opts.label ? q->opts.label : "");
	snprintf(s->kind, sizeof(s->kind), "%s", q->opts.kind);
	s->created = q->opts.created;
	if (token)
		vd_luks_take_token(token, s);
}

/*
 * LUKS2 has them in its tokens. `q`: what is to be noted of edit's slot; NULL: it went. `luks` is what the header of the edit
 * holds; its notes are filled in.
 */
static int note(struct vd_image *img, const struct vd_luks_edit *edit, const struct request *q, struct vd_luks_info *luks,
		struct vd_error *e)
{
	const struct vd_luks_view view = vd_layer_luks_view(img, (struct vd_bytes){ edit->now, edit->len });
	const char *kept = q && !vd_key_token_file(q->new) ? edit->token : NULL;
	vd_auto_free char *text = NULL;
	int r;

	if (!keeps_notes(img))
		return 0;
	vd_luks_notes_read(view.header, view.notes, luks);
	for (uint32_t i = 0; q && i < luks->n_slots; i++)
		if (luks->slots[i].index == edit->slot)
			fill_note(&luks->slots[i], q, edit->token);
	r = vd_luks_notes_write(&view, luks, edit->slot, kept, &text, e);
	if (r == 0)
		r = img->format->keep_notes(img->state, text, e);
	img->format->describe(img->state, &img->info);
	return r;
}

/*
 * Before the slot is there: of a slot that the header does not have nobody takes note, and where they do not fit nothing has
 * changed yet.
 */
static int note_ahead(struct vd_image *img, const struct vd_luks_edit *edit, const struct request *q, struct vd_error *e)
{
	struct vd_luks_info luks;
	int r = vd_luks_inspect((struct vd_bytes){ edit->now, edit->len }, 0, &luks, e);

	if (r == 0)
		r = note(img, edit, q, &luks, e);
	if (r != VD_EUNSUPPORTED || !edit->token)
		return r;
	vd_fail(e, VD_ENOSPC, "the image's header cluster has no room for a token of %zu bytes", strlen(edit->token));
	return vd_hint(e, VD_ENOSPC, "nothing was changed; --new-token-file keeps the token in a file instead");
}

static int store(struct vd_image *img, const struct vd_luks_edit *edit, struct vd_error *e)
{
	struct vd_luks_info *luks = &img->layer.luks;
	int r = 0;

	for (size_t i = 0; i < edit->n_steps && r == 0; i++)
		r = vd_layer_write_header(img, edit->now + edit->steps[i].off, edit->steps[i].len, edit->steps[i].off, e);
	if (r == 0)
		r = vd_keyslots_read_back(img, (struct vd_bytes){ edit->now, edit->len }, e);
	if (r == 0 && keeps_notes(img))
		vd_luks_notes_read((struct vd_bytes){ edit->now, edit->len }, img->info.key_notes, luks);
	return r;
}

/* ---- add, change, remove --------------------------------------------------------------------------------- */

static bool is_plain_text(const char *text, size_t size)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f || *p == '"' || *p == '\\')
			return false;
	return strlen(text) < size;
}

static bool has_place_for_notes(const struct vd_image *img)
{
	return img->layer.luks.version == 2 || keeps_notes(img);
}

static int judge_token_place(const struct vd_image *img, const struct request *q, struct vd_error *e)
{
	if (!vd_key_is_command(q->new) || vd_key_token_file(q->new) || has_place_for_notes(img))
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: a LUKS1 container has no place for the token of a key command", img->path);
	return vd_hint(e, VD_EUNSUPPORTED, "--new-token-file keeps it in a file; a LUKS2 container or a qcow2 file has a place");
}

static int judge_request(const struct vd_image *img, const struct vd_keyslot_opts *o, struct request *q, struct vd_error *e)
{
	struct vd_slot_info room;
	int r = vd_keyslots_judge(img, e);

	q->opts.kind = vd_key_is_command(q->new) ? "token" : "passphrase";
	q->opts.created = (uint64_t)time(NULL);
	if (r == 0)
		r = judge_token_place(img, q, e);
	if (r < 0 || !o)
		return r;
	if (o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_keyslot_opts: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if ((o->label && !is_plain_text(o->label, sizeof(room.label))) || (o->kind && !is_plain_text(o->kind, sizeof(room.kind))))
		return vd_fail(e, VD_EARG, "a label has at most %zu bytes and a kind %zu, without quotes, backslashes or control "
			       "characters", sizeof(room.label) - 1, sizeof(room.kind) - 1);
	if (o->label && !has_place_for_notes(img)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a LUKS1 container has no place for a label", img->path);
		return vd_hint(e, VD_EUNSUPPORTED, "leave the label out, or use a LUKS2 container");
	}
	q->opts.label = o->label;
	q->opts.kdf = o->kdf;
	if (o->kind)
		q->opts.kind = o->kind;
	return 0;
}

/* Whether a slot but this one is left that opens on any machine. */
static bool is_last_unbound(const struct vd_luks_info *luks, uint32_t slot)
{
	for (uint32_t i = 0; i < luks->n_slots; i++)
		if (luks->slots[i].index != slot && !luks->slots[i].is_machine_bound)
			return false;
	return true;
}

static int judge_removal(const struct vd_image *img, uint32_t slot, unsigned flags, struct vd_error *e)
{
	const struct vd_luks_info *luks = &img->layer.luks;
	bool is_used = false;

	for (uint32_t i = 0; i < luks->n_slots; i++)
		is_used |= luks->slots[i].index == slot;
	if (!is_used)
		return vd_hint(e, vd_fail(e, VD_ENOENT, "%s: keyslot %u is not in use", img->path, slot),
			       "vdisk key list shows those that are");
	if (!is_last_unbound(luks, slot) || (flags & VD_KEYSLOT_LAST))
		return 0;
	if (luks->n_slots == 1) {
		vd_fail(e, VD_EARG, "%s: keyslot %u is the last one: without it nothing opens the disk any more", img->path, slot);
		return vd_hint(e, VD_EARG, "add another key first; or say that the last one may go, which erases the disk");
	}
	vd_fail(e, VD_EARG, "%s: without keyslot %u the disk opens on one machine alone: all others are bound to it", img->path, slot);
	return vd_hint(e, VD_EARG, "add a passphrase or recovery key first; or say that the last one may go");
}

/* The token goes where the user keeps it, or with the notes, before the slot is there. */
static int keep_token(struct vd_image *img, const struct request *q, const struct vd_luks_edit *edit, struct vd_error *e)
{
	const char *file = vd_key_token_file(q->new);
	vd_auto_free char *line = NULL;

	if (!file || !edit->token)
		return 0;
	if (asprintf(&line, "%s\n", edit->token) < 0) {
		line = NULL;
		return vd_fail(e, VD_ENOMEM, "%s: not enough memory for a token", img->path);
	}
	return vd_output_put(vd_host_os(), file, false, line, strlen(line), strlen(line), e);
}

/* `replaces`: the slot that goes when this one is there; NULL: none does. */
static int add_for(struct vd_image *img, const struct request *q, const uint32_t *replaces, struct vd_error *e)
{
	vd_auto_free uint8_t *header = NULL;
	auto_edit struct vd_luks_edit edit = { 0 };
	struct vd_slot_info made = { 0 };
	struct vd_luks_view view;
	size_t len = 0;
	int r = read_header(img, &header, &len, e);

	view = vd_layer_luks_view(img, (struct vd_bytes){ header, len });
	if (r == 0)
		r = vd_luks_add_slot(&view, q->any, q->new, &q->opts, &edit, e);
	if (r < 0)
		return r;
	*q->slot = edit.slot;
	if (edit.token)
		vd_luks_take_token(edit.token, &made);
	if (replaces && made.is_machine_bound)
		r = judge_removal(img, *replaces, 0, e);
	if (r == 0)
		r = keep_token(img, q, &edit, e);
	if (r < 0)
		return r;
	r = note_ahead(img, &edit, q, e);
	if (r == 0)
		return store(img, &edit, e);
	if (vd_key_token_file(q->new))
		remove(vd_key_token_file(q->new));
	return r;
}

static int add(struct vd_image *img, const void *arg, struct vd_error *e)
{
	int r = add_for(img, arg, NULL, e);

	return r < 0 ? vd_error_prefix(e, r, "%s: ", img->path) : 0;
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
	return r < 0 ? r : note(img, &edit, NULL, &img->layer.luks, e);
}

static int change(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_free uint8_t *header = NULL;
	struct request old = { 0 };
	struct vd_luks_view view;
	uint32_t old_slot = 0;
	size_t len = 0;
	int r = read_header(img, &header, &len, e);

	view = vd_layer_luks_view(img, (struct vd_bytes){ header, len });
	if (r == 0)
		r = vd_luks_find_slot(&view, q->any, &old_slot, e);
	if (r == 0)
		r = add_for(img, q, &old_slot, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", img->path);
	old.slot = &old_slot;
	return remove_slot(img, &old, e);
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
	struct vd_luks_view view;
	size_t len = 0;
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = read_header(img, &header, &len, e);
	view = vd_layer_luks_view(img, (struct vd_bytes){ header, len });
	pthread_rwlock_unlock(&img->control);
	if (r == 0)
		r = vd_luks_find_slot(&view, key, slot, e);
	return r < 0 ? vd_error_prefix(e, r, "%s: ", img->path) : 0;
}
