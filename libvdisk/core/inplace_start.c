/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The beginning of a conversion in place: whether the image can be converted, what it will take, keys and headers, the
 * journal. Up to the approval nothing is changed.
 */
#include "libvdisk/core/inplace.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/inplace_steps.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"

#define SECTOR 512
#define RUNS 64
#define TABLES_BASE (4u << 20)          /* what the formats round up to: a BAT and a log of VHDX, tables of qcow2 */
#define TABLE_ENTRY 24                  /* bytes of tables for a unit at most: qcow2's extended L2 entry, and its refcount */

/* ---- the image as it is --------------------------------------------------------------------------------- */

static const char *const act_names[] = {
	[VD_INPLACE_ENCRYPT] = "encrypt", [VD_INPLACE_DECRYPT] = "decrypt", [VD_INPLACE_REKEY] = "rekey",
};

const char *vd_inplace_act_name(int act)
{
	return act >= VD_INPLACE_ENCRYPT && act <= VD_INPLACE_REKEY ? act_names[act] : "convert";
}

static int refuse(const struct vd_inplace *p, enum vd_code code, struct vd_error *e, const char *what, const char *hint)
{
	vd_fail(e, code, "%s %s", p->path, what);
	return vd_hint(e, code, "%s", hint);
}

/* Of a header in a file of its own nothing in the image tells; what there is otherwise, it would be taken for. */
static int judge_header_file(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	const char *path = p->opts->header;

	if (!path)
		return 0;
	if (p->img->format->encrypts)
		return refuse(p, VD_EUNSUPPORTED, e, "keeps its LUKS header in the image, and takes no other", "leave --header out");
	if (b->act != VD_INPLACE_ENCRYPT && b->is_encrypted)
		return refuse(p, VD_EARG, e, "begins with a LUKS header of its own", "leave --header out");
	if (b->act == VD_INPLACE_ENCRYPT && p->inner->exists(p->inner, path)) {
		vd_fail(e, VD_EEXIST, "%s: exists already, and may be the header of this disk, or another", path);
		return vd_hint(e, VD_EEXIST, "a header is never replaced by a new disk's: choose another name, or remove the file");
	}
	b->is_encrypted |= b->act != VD_INPLACE_ENCRYPT;
	return 0;
}

static int judge_encryption(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_image *img = p->img;
	int r = 0;

	if (img->info.encryption == VD_ENCRYPTED_LEGACY_AES)
		return refuse(p, VD_EUNSUPPORTED, e, "has the old AES-CBC encryption of qcow2", "decrypt it into a new image first");
	b->is_encrypted = img->info.encryption == VD_ENCRYPTED_LUKS;
	if (!img->format->encrypts)
		r = vd_layer_probe_header(img, &b->is_encrypted, e);
	if (r == 0)
		r = judge_header_file(p, b, e);
	if (r < 0)
		return r;
	if (b->act == VD_INPLACE_ENCRYPT && b->is_encrypted)
		return refuse(p, VD_EARG, e, "is encrypted already", "vdisk rekey gives it another volume key, vdisk key other passphrases");
	if (b->act != VD_INPLACE_ENCRYPT && !b->is_encrypted)
		return refuse(p, VD_EARG, e, "is not encrypted", "vdisk info shows what it is");
	return 0;
}

/* An overlay may be converted by itself: what its parent has goes on showing through it. */
static bool is_layer_alone(const struct vd_inplace *p, const struct vd_begin *b)
{
	if (!b->is_container)
		return p->opts->flags & VD_INPLACE_LEAVE_PARENT;
	return p->opts->parent && b->act == VD_INPLACE_ENCRYPT && vd_image_is_bare_overlay(p->img);
}

static int judge_format(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_image *img = p->img;
	const struct vd_format_info *i = &img->info;
	bool needs_room = !img->format->encrypts && b->act != VD_INPLACE_REKEY && !p->opts->header;

	if (i->packs_only || !img->format->walk || !img->format->reserve)
		return refuse(p, VD_EUNSUPPORTED, e, "is of a kind that is only written once, from front to end",
			      "convert it into a new image");
	if (i->backing_file && !is_layer_alone(p, b))
		return refuse(p, VD_EUNSUPPORTED, e, "has a backing file, whose bytes would stay as they are",
			      img->format->encrypts ? "convert each layer by itself (--chain=leave), or flatten it first (--chain=flatten)" :
			      b->act == VD_INPLACE_ENCRYPT ? "convert them all (--chain=encrypt), or flatten it first (--chain=flatten)" :
			      "convert the chain into a new image");
	b->moves = needs_room && i->unit == 1 && vd_set_count(img->set) == 1;
	if (b->moves && vd_veil_file(p->veil)->is_device)
		return refuse(p, VD_EUNSUPPORTED, e, "is a device, in which there is no room for a header",
			      b->act == VD_INPLACE_ENCRYPT ? "keep the header in a file of its own, and no data move: --header FILE" :
			      "decrypt it to another device or a file");
	if (vd_veil_file(p->veil)->is_device && !p->opts->journal)
		return refuse(p, VD_EARG, e, "is a device: beside it a journal would be lost when the system stops",
			      "name a file on a disk: --journal FILE");
	if (needs_room && !b->moves && !img->format->shift)
		return refuse(p, VD_EUNSUPPORTED, e, "is of a format in which a disk cannot make room for a header", "convert it into a new image");
	if (i->size % SECTOR && !img->format->encrypts && !img->format->resize)
		return refuse(p, VD_EUNSUPPORTED, e, "ends inside a sector", "convert it into a new image");
	if (img->format->encrypts && !img->format->set_key_area)
		return refuse(p, VD_EUNSUPPORTED, e, "cannot get another key area", "convert it into a new image");
	return 0;
}

static int note_finding(void *ctx, const struct vd_finding *f)
{
	struct vd_begin *b = ctx;

	if (f->severity != VD_SEVERITY_LEAK && !b->finding[0])
		snprintf(b->finding, sizeof(b->finding), "%s", f->text);
	return 0;
}

/* What a table says wrongly would be taken for free, or encrypted twice. */
static int judge_tables(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_check_report report = { .struct_size = sizeof(report) };
	int r = p->img->format->repair ? vd_image_check(p->img, VD_REPAIR_NONE, note_finding, b, p->job, &report, e) : 0;

	if (r < 0)
		return r;
	b->n_packed = report.compressed_clusters;
	if (!report.corruptions && !report.check_errors)
		return 0;
	vd_fail(e, VD_ECORRUPT, "%s is damaged: %s", p->path, b->finding);
	return vd_hint(e, VD_ECORRUPT, "vdisk check --repair=all mends what can be mended; nothing was changed");
}

/* A disk of whole sectors: those of a raw file that ends inside one get zeros behind. */
static int make_whole(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_image *img = p->img;
	uint64_t size = vd_round_up(img->info.size, SECTOR);
	int r;

	if (size == img->info.size || img->format->encrypts)
		return 0;
	r = img->format->resize(img->state, size, e);
	img->format->describe(img->state, &img->info);
	return r < 0 ? r : vd_host_file_size(img, 0, &b->ends[0], e);
}

/* ---- keys ----------------------------------------------------------------------------------------------- */

/* All of the disk is payload, in whole sectors of the cipher. */
static int judge_detached(const struct vd_inplace *p, const struct vd_luks_info *luks, struct vd_error *e)
{
	if (luks->payload_off) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: it is the header of a disk that begins at %llu of its image", p->opts->header,
			(unsigned long long)luks->payload_off);
		return vd_hint(e, VD_EUNSUPPORTED, "a disk with its header inside, or a backup of that, is converted without --header");
	}
	if (p->img->info.size % luks->sector_size)
		return refuse(p, VD_EUNSUPPORTED, e, "does not end with a sector of its encryption", "convert it into a new image");
	return 0;
}

/* The header that there is, and its volume key. */
static int open_old(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	bool is_container = b->is_container;
	size_t len = 0;
	int r = vd_layer_read_header(p->img, is_container, &b->header[0], &len, e);

	/* Nobody holds its file while another takes its place. */
	vd_io_abort(vd_steal(&p->img->header));
	if (r < 0)
		return r;
	b->header_len[0] = len;
	r = vd_luks_inspect((struct vd_bytes){ b->header[0], len }, is_container && !p->opts->header ? p->img->info.size : 0, &b->luks, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", p->opts->header ? p->opts->header : p->path);
	if (p->opts->header)
		r = judge_detached(p, &b->luks, e);
	if (r < 0)
		return r;
	b->from_sector = is_container ? b->luks.sector_size : SECTOR;
	b->payload_off = is_container ? b->luks.payload_off : 0;
	if (is_container && !b->moves && b->act == VD_INPLACE_DECRYPT && b->payload_off % p->img->info.unit)
		return refuse(p, VD_EUNSUPPORTED, e, "has its payload inside an allocation unit, so its data would have to move",
			      "decrypt it into a new image");
	return vd_inplace_unlock(p, 0, (struct vd_bytes){ b->header[0], len }, &b->vk[0], e);
}

/* The key of the new header's first keyslot. A key command has no token there yet. */
static const struct vd_key *first_key(const struct vd_inplace_opts *o)
{
	size_t i = 0;

	if (o->new_key)
		return o->new_key;
	while (i < o->n_keys && vd_key_is_command(o->keys[i]))
		i++;
	return i < o->n_keys ? o->keys[i] : NULL;
}

/* The parent's header as it is, for the overlay; and what it says of the parent's payload. */
static int read_parent(struct vd_inplace *p, struct vd_begin *b, struct vd_luks_info *luks, struct vd_error *e)
{
	struct vd_open_opts o = {
		.struct_size = sizeof(o), .flags = VD_OPEN_METADATA | VD_OPEN_FILES, .format = p->img->format->name,
		.gate = p->opts->gate, .gate_ctx = p->opts->gate_ctx,
	};
	struct vd_image *parent = NULL;
	int r = vd_image_open_below(p->inner, NULL, p->opts->parent, &o, NULL, &parent, e);

	if (r == 0 && !parent->layer.is_container) {
		r = vd_fail(e, VD_EARG, "%s is not encrypted, and so cannot be the parent of what is", p->opts->parent);
		vd_hint(e, r, "a chain is encrypted from its lowest layer upwards: --chain=encrypt");
	}
	if (r == 0)
		r = vd_layer_read_header(parent, true, &b->header[1], &b->header_len[1], e);
	if (r == 0) {
		b->parent_size = parent->info.size;
		*luks = parent->layer.luks;
	}
	vd_image_abort(parent);
	return r;
}

static int take_parents(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_luks_info luks = { 0 };
	int r = read_parent(p, b, &luks, e);

	if (r < 0)
		return r;
	if (luks.sector_size != SECTOR)
		return refuse(p, VD_EUNSUPPORTED, e, "lies over a container with sectors of 4096 bytes, of which it may have parts",
			      "convert the chain into a new image");
	if (luks.payload_off % p->img->info.unit)
		return refuse(p, VD_EUNSUPPORTED, e, "has units that do not fit the place of its parent's payload",
			      "convert the chain into a new image");
	if (p->img->info.size + luks.payload_off != b->parent_size)
		return refuse(p, VD_EUNSUPPORTED, e, "is not of its parent's size", "convert the chain into a new image");
	b->payload_off = luks.payload_off;
	b->to_sector = SECTOR;
	return vd_inplace_unlock(p, 1, (struct vd_bytes){ b->header[1], b->header_len[1] }, &b->vk[1], e);
}

static int make_new(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	bool is_container = b->is_container, is_rekey = b->act == VD_INPLACE_REKEY;
	enum vd_luks_type type = p->opts->luks_type == VD_LUKS2 || (is_rekey && b->luks.version == 2) ? VD_LUKS2 : VD_LUKS1;
	uint64_t unit = vd_max_u64(b->moves ? SECTOR : p->img->info.unit, p->opts->align);
	struct vd_luks_format_opts f = {
		.type = type, .sector_size = is_rekey && is_container ? b->luks.sector_size : SECTOR,
		.payload_off = p->opts->header || (is_rekey && is_container) ? b->payload_off :
			       vd_round_up(vd_luks_payload_off(type), is_container ? unit : SECTOR),
		.kdf = p->opts->kdf,
	};
	const struct vd_key *first = first_key(p->opts);
	size_t len = 0;
	int r;

	if (!first)
		return refuse(p, VD_ENOKEY, e, "gets a new header, for which no key was given", "give one");
	if (!is_container && type == VD_LUKS2)
		return refuse(p, VD_EUNSUPPORTED, e, "has LUKS1 as its own encryption, and no other", "leave out the type");
	r = vd_secret_alloc(&b->vk[1], p->opts->cipher == VD_AES_128_XTS ? 32 : 64, e);
	if (r == 0)
		r = vd_random(b->vk[1].p, b->vk[1].len, e);
	if (r == 0)
		r = vd_luks_format(&f, &b->vk[1], first, &b->header[1], &len, e);
	if (r < 0)
		return r;
	b->header_len[1] = len;
	b->to_sector = f.sector_size;
	if (is_container)
		b->payload_off = f.payload_off;
	if (is_container && !p->opts->header && len > b->payload_off)
		return refuse(p, VD_EUNSUPPORTED, e, "has too little room before its payload for the new header", "rekey it into a new image");
	return vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, b->vk[1].p, b->vk[1].len, &p->cipher[1], e);
}

static bool is_among(const uint32_t *slots, size_t n, uint32_t slot)
{
	for (size_t i = 0; i < n; i++)
		if (slots[i] == slot)
			return true;
	return false;
}

static int add_slot(struct vd_inplace *p, struct vd_begin *b, const struct vd_key *first, const struct vd_key *key, struct vd_error *e)
{
	struct vd_luks_slot_opts slot = { .kind = "passphrase", .kdf = p->opts->kdf };
	struct vd_luks_edit edit = { 0 };
	const struct vd_luks_view view = { .header = { b->header[1], b->header_len[1] }, .image = p->path };
	int r = vd_luks_add_slot(&view, first, key, &slot, &edit, e);

	if (r < 0)
		return r;
	free(b->header[1]);
	b->header[1] = vd_steal(&edit.now);
	b->header_len[1] = edit.len;
	vd_luks_edit_free(&edit);
	return 0;
}

static bool names_command(const struct vd_inplace_opts *o)
{
	for (size_t i = 0; i < o->n_keys; i++)
		if (vd_key_is_command(o->keys[i]))
			return true;
	return false;
}

/* Every key that opens a keyslot of the old header opens one of the new; of the others the secrets are not known. */
static int keep_slots(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	const struct vd_luks_view old = vd_inplace_view(p, (struct vd_bytes){ b->header[0], b->header_len[0] });
	const struct vd_inplace_opts *o = p->opts;
	const struct vd_key *first = first_key(o);
	uint32_t slots[VD_MAX_SLOTS];
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < o->n_keys && r == 0 && n < VD_MAX_SLOTS; i++) {
		uint32_t slot;

		/* It would have to seal a new secret, whose token has no place yet. */
		if (vd_key_is_command(o->keys[i]))
			continue;
		r = vd_luks_find_slot(&old, o->keys[i], &slot, e);
		if (r == VD_EKEY) {
			r = 0;
			continue;
		}
		if (r < 0 || is_among(slots, n, slot))
			continue;
		slots[n++] = slot;
		if (o->keys[i] != first)
			r = add_slot(p, b, first, o->keys[i], e);
	}
	b->n_lost = b->luks.n_slots - (uint32_t)n;
	if (r < 0 || !b->n_lost || o->flags & VD_INPLACE_DROP_SLOTS)
		return r;
	vd_fail(e, VD_EARG, "%s: %u of its %u keyslots would be gone: a keyslot is kept only with its key", p->path, b->n_lost,
		b->luks.n_slots);
	if (names_command(o))
		return vd_hint(e, VD_EARG, "the keyslot of a key command is never kept: say --drop-unknown-slots, and make it anew "
			       "afterwards with vdisk key add --new-key-command");
	return vd_hint(e, VD_EARG, "give all keys, or say --drop-unknown-slots");
}

/* What the tables will have to say at the end they can say: that is known before there is anything to undo. */
static int judge_shift(struct vd_inplace *p, const struct vd_begin *b, struct vd_error *e)
{
	const struct vd_image *img = p->img;
	int64_t by = b->act == VD_INPLACE_ENCRYPT ? (int64_t)b->payload_off : -(int64_t)b->payload_off;

	if (img->format->encrypts || b->moves || b->act == VD_INPLACE_REKEY || p->opts->header)
		return 0;
	return img->format->shift(img->state, by, true, e);
}

static int make_keys(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	int r = b->is_encrypted ? open_old(p, b, e) : 0;

	if (r == 0 && b->act != VD_INPLACE_DECRYPT)
		r = p->opts->parent ? take_parents(p, b, e) : make_new(p, b, e);
	if (r == 0 && b->act == VD_INPLACE_REKEY)
		r = keep_slots(p, b, e);
	return r < 0 ? r : judge_shift(p, b, e);
}

/* ---- what it takes -------------------------------------------------------------------------------------- */

/* Guest bytes without a place, in whole units: a container has none, but for those that its parent shows. */
static int count_holes(struct vd_image *img, uint64_t *bytes, struct vd_error *e)
{
	uint64_t unit = img->info.unit;
	int r = 0;

	for (uint64_t at = 0; at < img->info.size && r == 0;) {
		struct vd_run runs[RUNS];
		size_t n = RUNS;

		r = img->format->map(img->state, at, img->info.size - at, 0, runs, &n, e);
		for (size_t i = 0; i < n && r == 0; i++) {
			at = runs[i].guest_off + runs[i].len;
			if (runs[i].where == VD_ZERO || (runs[i].where == VD_HOLE && !img->info.backing_file))
				*bytes += vd_round_up(at, unit) - vd_round_down(runs[i].guest_off, unit);
		}
	}
	return r;
}

/* New tables lie beside the old ones until they are switched; for new units there are more. */
static uint64_t tables_growth(const struct vd_begin *b, const struct vd_format_info *i)
{
	uint64_t changed = b->plan.growth + (b->is_container && b->act != VD_INPLACE_REKEY ? i->size : 0);

	if (b->moves)
		return 0;
	if (i->unit == 1)
		return TABLES_BASE;
	return TABLES_BASE + (b->is_container ? 0 : 2 * (uint64_t)i->unit) + changed / i->unit * TABLE_ENTRY;
}

static int measure_growth(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	const struct vd_format_info *i = &p->img->info;
	uint64_t *growth = &b->plan.growth;
	int r = b->is_container ? count_holes(p->img, growth, e) : 0;

	if (b->act == VD_INPLACE_ENCRYPT)
		*growth += b->payload_off;
	if (!b->is_container)
		*growth += vd_round_up(b->header_len[1], i->unit);
	*growth += b->n_packed * i->unit;
	*growth += tables_growth(b, i);
	return r;
}

static uint64_t record_payload(const struct vd_inplace *p, uint64_t total)
{
	uint64_t batch = vd_min_u64(VD_JOURNAL_BATCH, total);

	if (p->opts->resilience == VD_RESILIENCE_NONE)
		return 0;
	return p->opts->resilience == VD_RESILIENCE_JOURNAL ? batch : vd_round_up(batch, VD_JOURNAL_SECTOR) / VD_JOURNAL_SECTOR * VD_JOURNAL_MARK;
}

static int measure(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_image *img = p->img;
	uint64_t headers = 0;
	int r = 0;

	for (uint32_t i = 0; i < vd_set_count(img->set) && r == 0; i++) {
		r = vd_host_file_size(img, i, &b->ends[i], e);
		b->plan.total += b->moves ? 0 : b->ends[i];
	}
	if (b->moves)
		b->plan.total = img->info.size - (b->act == VD_INPLACE_DECRYPT ? b->payload_off : 0);
	for (int i = 0; i < 2; i++)
		headers += b->header_len[i];
	b->plan.journal = vd_journal_room(headers, b->moves ? 0 : record_payload(p, b->plan.total));
	b->plan.moves = b->moves;
	b->plan.n_lost_slots = b->n_lost;
	return r < 0 ? r : measure_growth(p, b, e);
}

/* ---- the journal ---------------------------------------------------------------------------------------- */

/*
 * One that a crash left before the first stub, or behind the last, is of no use: the image is whole. vd_inplace_start() has
 * seen that it has no stub. The journal of another image may have the same name, and be all that is left of that.
 */
static int remove_stale(struct vd_inplace *p, const char *path, struct vd_error *e)
{
	struct vd_journal *j = NULL;
	int r;

	if (!p->inner->exists(p->inner, path))
		return 0;
	r = vd_journal_open(p->inner, path, true, &j, e);
	if (r == 0 && !vd_inplace_is_stale(p, j)) {
		vd_journal_close(j);
		vd_fail(e, VD_EEXIST, "%s is the journal of a conversion that has not ended", path);
		return vd_hint(e, VD_EEXIST, "it may be all that is left of another image: move it away if it is not, or name another with --journal");
	}
	return r < 0 ? r : vd_journal_remove(j, e);
}

static int make_journal(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	struct vd_image *img = p->img;
	struct vd_journal_state s = {
		.act = (uint8_t)b->act, .resilience = (uint8_t)p->opts->resilience, .phase = VD_PHASE_BEGIN,
		.is_container = b->is_container, .moves = b->moves, .size = img->info.size, .payload_off = b->payload_off,
		.from_sector = b->from_sector, .to_sector = b->to_sector, .total = b->plan.total,
		.n_files = vd_set_count(img->set), .dev = vd_veil_file(p->veil)->dev, .ino = vd_veil_file(p->veil)->ino,
	};
	struct vd_bytes headers[2] = { { b->header[0], b->header_len[0] }, { b->header[1], b->header_len[1] } };
	const struct vd_secret *vk = &b->vk[b->header_len[1] ? 1 : 0];
	int r = vd_random(s.uuid, sizeof(s.uuid), e);

	snprintf(s.format, sizeof(s.format), "%s", img->format->name);
	if (b->moves && b->act == VD_INPLACE_ENCRYPT)
		s.cursor = s.size;
	if (r == 0)
		r = remove_stale(p, b->plan.journal_path, e);
	if (r == 0)
		r = vd_journal_create(p->inner, b->plan.journal_path, &s, b->ends, headers, (struct vd_bytes){ vk->p, vk->len }, &p->j, e);
	return r;
}

void vd_begin_fini(struct vd_begin *b)
{
	for (int i = 0; i < 2; i++) {
		free(b->header[i]);
		vd_secret_free(&b->vk[i]);
	}
	free(b->ends);
}

static int judge_all(struct vd_inplace *p, struct vd_begin *b, struct vd_error *e)
{
	int r = judge_encryption(p, b, e);

	if (r == 0)
		r = judge_format(p, b, e);
	if (r == 0 && vd_set_count(p->img->set) > VD_JOURNAL_FILES)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s consists of too many files", p->path);
	if (r == 0)
		r = judge_tables(p, b, e);
	return r;
}

int vd_inplace_begin(struct vd_inplace *p, enum vd_inplace_act act, const char *journal_path, struct vd_error *e)
{
	struct vd_begin b __attribute__((cleanup(vd_begin_fini))) = { .act = act, .plan.journal_path = journal_path };
	int r;

	b.is_container = !p->img->format->encrypts;
	r = judge_all(p, &b, e);

	if (r == 0)
		r = vd_alloc(vd_set_count(p->img->set), sizeof(*b.ends), &b.ends, e);
	if (r == 0)
		r = make_keys(p, &b, e);
	if (r == 0)
		r = vd_inplace_judge_fit(p, b.from_sector, e);
	if (r == 0)
		r = measure(p, &b, e);
	if (r == 0 && p->opts->approve && p->opts->approve(p->opts->ctx, &b.plan))
		r = vd_fail(e, VD_ECANCELLED, "cancelled before anything was changed");
	if (r == 0)
		r = make_whole(p, &b, e);
	return r < 0 ? r : make_journal(p, &b, e);
}
