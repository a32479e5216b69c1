/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk info: says what an image is, without its key and without the files it refers to. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "keyslots.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

static const struct opt_group *const groups[] = {
	&opts_format, &opts_snapshot, &opts_header, &opts_sharing, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk info disk.qcow2",
	"vdisk info --output=json disk.qcow2 | jq '.\"virtual-size\"'",
	NULL,
};

/* What is known of a file that the image refers to. */
struct reference {
	const char *name;
	int code;                       /* of source_resolve() */
	char path[PATH_MAX];
};

struct facts {
	struct vd_image *img;
	const struct settings *s;
	struct vd_info info;
	struct reference backing, data_file;
};

static void look_up(struct facts *f, enum vd_reference_kind kind, const char *name, struct reference *ref)
{
	struct vd_error ignored;

	ref->name = name;
	if (name)
		ref->code = source_resolve(f->s, kind, f->info.path, name, ref->path, sizeof(ref->path), &ignored);
}

static const char *state_of(const struct reference *ref)
{
	if (ref->code == 0)
		return "present";
	return ref->code == VD_ENOENT ? "missing" : "not-allowed";
}

static bool is_unknown_raw(const struct facts *f)
{
	return !strcmp(f->info.format, "raw") && !f->s->format && !f->info.header;
}

static unsigned slots_total(const struct vd_luks_info *l)
{
	return l->version == 1 ? 8 : 32;
}

/* ---- for people ----------------------------------------------------------------------------------------- */

static void fact(const char *label, const char *fmt, ...) VD_PRINTF(2, 3);
static void fact(const char *label, const char *fmt, ...)
{
	char value[PATH_MAX + 128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	ui_line("%-16s %s", label, value);
}

static void print_verdict(const struct facts *f)
{
	const struct vd_info *i = &f->info;
	const struct vd_luks_info *l = &i->luks;

	printf("%s", ui_colour(i->encryption == VD_ENCRYPTED_LUKS ? UI_GREEN : UI_YELLOW));
	if (i->encryption == VD_ENCRYPTED_LUKS)
		printf("ENCRYPTED (LUKS%u, %s-%s, %u-bit key, %u of %u keyslots)", l->version, l->cipher, l->mode,
		       l->key_bits, l->n_slots, slots_total(l));
	else if (i->encryption == VD_ENCRYPTED_LEGACY_AES)
		printf("WEAKLY ENCRYPTED (qcow2's old AES-CBC: a copy with vdisk convert is safer)");
	else if (i->encryption == VD_ENCRYPTED_XEN)
		printf("ENCRYPTED (by Xen's tools, AES-XTS without key slots)");
	else if (i->is_encryption_unknown)
		printf("NOT KNOWN WHETHER ENCRYPTED (not all of its files were opened)");
	else
		printf("NOT ENCRYPTED%s", is_unknown_raw(f) ? ", unless its LUKS header is in a file of its own (--header)" : "");
	printf("%s\n", ui_colour(UI_PLAIN));
}

static void print_format(const struct facts *f)
{
	const struct vd_info *i = &f->info;

	if (is_unknown_raw(f))
		fact("file format:", "raw (no known header)");
	else if (i->qcow2_version)
		fact("file format:", "%s version %u", i->format, i->qcow2_version);
	else
		fact("file format:", "%s%s%s", i->format, i->subformat ? ", " : "", i->subformat ? i->subformat : "");
}

static void print_size(const char *label, uint64_t bytes)
{
	fact(label, "%s (%llu bytes)", size_show((double)bytes).s, (unsigned long long)bytes);
}

static void print_reference(const char *label, const struct reference *ref, const char *format)
{
	const char *note = "";

	if (!ref->name)
		return;
	if (ref->code == VD_ENOENT)
		note = " MISSING";
	else if (ref->code < 0)
		note = " (not opened without --allow)";
	fact(label, "%s%s%s%s%s", ref->name, format ? " (" : "", format ? format : "", format ? ")" : "", note);
}

static void print_slots(const struct vd_luks_info *l)
{
	for (uint32_t i = 0; i < l->n_slots && i < VD_MAX_SLOTS; i++) {
		const struct vd_slot_info *s = &l->slots[i];
		char label[24];

		snprintf(label, sizeof(label), "keyslot %u:", s->index);
		fact(label, "%s%s", keyslot_cost(s).s, s->is_weak ? " WEAK" : "");
	}
}

static void print_qcow2(const struct vd_info *i)
{
	if (!i->qcow2_version)
		return;
	fact("compression:", "%s", i->compression_type ? i->compression_type : "deflate");
	fact("refcounts:", "%u bits%s", i->refcount_bits, i->lazy_refcounts ? ", lazy" : "");
	if (i->extended_l2)
		fact("subclusters:", "32 a cluster");
	if (i->n_snapshots)
		fact("snapshots:", "%u", i->n_snapshots);
	if (i->n_bitmaps)
		fact("bitmaps:", "%u", i->n_bitmaps);
}

#define PARTS_MAX 32            /* for people; JSON has them all */

static void print_parts(const struct facts *f)
{
	struct vd_part p = { .struct_size = sizeof(p) };

	if (!f->info.n_extents)
		return;
	fact("extents:", "%u", f->info.n_extents);
	for (uint32_t i = 0; i < f->info.n_extents && i < PARTS_MAX && vd_image_part(f->img, i, &p, NULL) == 0; i++) {
		char label[24];

		snprintf(label, sizeof(label), "extent %u:", i);
		fact(label, "%s %s, %s%s%s", p.access, p.kind, size_show((double)p.size).s, p.name ? ", " : "", p.name ? p.name : "");
	}
	if (f->info.n_extents > PARTS_MAX)
		fact("", "and %u more: --output=json has them all", f->info.n_extents - PARTS_MAX);
}

static void print_human(const struct facts *f)
{
	const struct vd_info *i = &f->info;

	print_verdict(f);
	fact("image:", "%s", i->path);
	print_format(f);
	print_size("virtual size:", i->virtual_size);
	print_size("disk size:", i->actual_size);
	if (i->cluster_size)
		fact("cluster size:", "%s", size_show(i->cluster_size).s);
	print_reference("backing file:", &f->backing, i->backing_format);
	print_reference("data file:", &f->data_file, i->data_file_raw ? "raw" : NULL);
	if (i->parent_id)
		fact("parent id:", "%s", i->parent_id);
	if (i->disk_id)
		fact("disk id:", "%s", i->disk_id);
	print_parts(f);
	if (i->change_track)
		fact("changed blocks:", "recorded in %s", i->change_track);
	print_qcow2(i);
	if (i->header)
		fact("header:", "%s (detached)", i->header);
	if (i->luks.version) {
		fact("LUKS uuid:", "%s", i->luks.uuid);
		print_slots(&i->luks);
	}
	if (i->is_dirty)
		fact("state:", "not closed cleanly");
	if (i->is_corrupt)
		fact("state:", "marked corrupt by the program that wrote it last");
	if (i->is_read_only_format)
		fact("access:", "this format is only read");
	if (f->s->force_share)
		ui_note("read while another process may be writing: this may be inconsistent");
}

/* ---- for programs: the keys of qemu-img info, and an object of our own ------------------------------------- */

/* qemu splits "xts-plain64" into mode and iv generator, and names the cipher with its strength. */
static void put_qemu_luks(struct json_object *to, const struct vd_luks_info *l)
{
	const char *dash = strchr(l->mode, '-');
	char text[80];

	/* XTS has two keys: half of the bits are each one's. */
	snprintf(text, sizeof(text), "%s-%u", l->cipher, !strncmp(l->mode, "xts", 3) ? l->key_bits / 2 : l->key_bits);
	json_put_text(to, "cipher-alg", text);
	snprintf(text, sizeof(text), "%.*s", (int)strcspn(l->mode, "-"), l->mode);
	json_put_text(to, "cipher-mode", text);
	json_put_text(to, "ivgen-alg", dash ? dash + 1 : "");
	json_put_text(to, "hash-alg", l->hash);
	json_put_text(to, "uuid", l->uuid);
	json_put_u64(to, "payload-offset", l->payload_off);
}

static void put_qcow2(struct json_object *data, const struct vd_info *i)
{
	bool is_deflate = !i->compression_type || !strcmp(i->compression_type, "deflate");

	json_put_text(data, "compat", i->qcow2_version == 2 ? "0.10" : "1.1");
	json_put_text(data, "compression-type", is_deflate ? "zlib" : i->compression_type);
	json_put_bool(data, "lazy-refcounts", i->lazy_refcounts);
	json_put_u64(data, "refcount-bits", i->refcount_bits);
	json_put_bool(data, "corrupt", i->is_corrupt);
	json_put_bool(data, "extended-l2", i->extended_l2);
	if (i->data_file) {
		json_put_text(data, "data-file", i->data_file);
		json_put_bool(data, "data-file-raw", i->data_file_raw);
	}
	if (i->encryption) {
		struct json_object *j = json_put_object(data, "encrypt");

		json_put_text(j, "format", i->encryption == VD_ENCRYPTED_LUKS ? "luks" : "aes");
		if (i->encryption == VD_ENCRYPTED_LUKS)
			put_qemu_luks(j, &i->luks);
	}
}

/* qemu has the ids as numbers, and says of a disk without parent that its id is all ones. */
static void put_vmdk(struct json_object *data, const struct facts *f)
{
	const struct vd_info *i = &f->info;
	struct vd_part p = { .struct_size = sizeof(p) };
	struct json_object *parts;

	json_put_u64(data, "cid", i->disk_id ? strtoull(i->disk_id, NULL, 16) : 0);
	json_put_u64(data, "parent-cid", i->parent_id ? strtoull(i->parent_id, NULL, 16) : UINT32_MAX);
	json_put_text(data, "create-type", i->subformat);
	parts = json_put_array(data, "extents");
	for (uint32_t k = 0; k < i->n_extents && vd_image_part(f->img, k, &p, NULL) == 0; k++) {
		struct json_object *j = json_new();

		if (p.name)
			json_put_text(j, "filename", p.name);
		json_put_text(j, "format", p.kind);
		json_put_u64(j, "virtual-size", p.size);
		if (p.cluster_size)
			json_put_u64(j, "cluster-size", p.cluster_size);
		json_put_text(j, "access", p.access);
		json_put_u64(j, "offset", p.off);
		json_put_u64(j, "file-offset", p.file_off);
		json_add(parts, j);
	}
}

static void put_format_specific(struct json_object *to, const struct facts *f)
{
	const struct vd_info *i = &f->info;
	bool is_vmdk = !strcmp(i->format, "vmdk");
	struct json_object *j, *data;

	if (!i->qcow2_version && !i->luks.version && !is_vmdk)
		return;
	j = json_put_object(to, "format-specific");
	json_put_text(j, "type", i->format);
	data = json_put_object(j, "data");
	if (i->qcow2_version)
		put_qcow2(data, i);
	else if (is_vmdk)
		put_vmdk(data, f);
	else
		put_qemu_luks(data, &i->luks);
}

static void put_encryption(struct json_object *to, const struct vd_info *i)
{
	static const char *const kinds[] = {
		[VD_PLAIN] = "none", [VD_ENCRYPTED_LUKS] = "luks", [VD_ENCRYPTED_LEGACY_AES] = "legacy-aes",
		[VD_ENCRYPTED_XEN] = "xen",
	};
	const struct vd_luks_info *l = &i->luks;
	struct json_object *j = json_put_object(to, "encryption");
	char cipher[80];

	json_put_text(j, "kind", i->is_encryption_unknown ? "unknown" : kinds[i->encryption]);
	if (!l->version)
		return;
	snprintf(cipher, sizeof(cipher), "%s-%s", l->cipher, l->mode);
	json_put_bool(j, "container", i->is_container);
	json_put_u64(j, "luks-version", l->version);
	json_put_text(j, "cipher", cipher);
	json_put_u64(j, "key-bits", l->key_bits);
	json_put_u64(j, "sector-size", l->sector_size);
	if (i->header)
		json_put_text(j, "detached-header", i->header);
	json_put_u64(j, "header-offset", l->header_off);
	json_put_u64(j, "keyslots-in-use", l->n_slots);
	json_put_u64(j, "keyslots-total", slots_total(l));
	keyslots_put(j, l);
}

static void put_own(struct json_object *to, const struct facts *f)
{
	const struct vd_info *i = &f->info;
	struct json_object *j = json_put_object(to, "vdisk");

	json_put_u64(j, "file-size", i->file_size);
	json_put_bool(j, "known-header", !is_unknown_raw(f));
	json_put_bool(j, "read-only-format", i->is_read_only_format);
	json_put_bool(j, "consistent", !f->s->force_share);
	if (i->qcow2_version) {
		json_put_u64(j, "qcow2-version", i->qcow2_version);
		json_put_u64(j, "snapshots", i->n_snapshots);
		json_put_u64(j, "bitmaps", i->n_bitmaps);
	}
	if (i->subformat)
		json_put_text(j, "subformat", i->subformat);
	if (i->disk_id)
		json_put_text(j, "disk-id", i->disk_id);
	if (i->parent_id)
		json_put_text(j, "parent-id", i->parent_id);
	if (i->n_extents)
		json_put_u64(j, "extents", i->n_extents);
	if (i->change_track)
		json_put_text(j, "change-track-path", i->change_track);
	if (f->backing.name)
		json_put_text(j, "backing-file-state", state_of(&f->backing));
	if (f->data_file.name)
		json_put_text(j, "data-file-state", state_of(&f->data_file));
	put_encryption(j, i);
}

static void print_object(const struct facts *f)
{
	const struct vd_info *i = &f->info;
	struct json_object *j = json_new();

	json_put_text(j, "schema", "vdisk.info/1");
	json_put_text(j, "filename", i->path);
	json_put_text(j, "format", i->format);
	json_put_u64(j, "virtual-size", i->virtual_size);
	json_put_u64(j, "actual-size", i->actual_size);
	if (i->cluster_size)
		json_put_u64(j, "cluster-size", i->cluster_size);
	json_put_bool(j, "encrypted", i->encryption != VD_PLAIN);
	json_put_bool(j, "dirty-flag", i->is_dirty);
	if (i->backing_file)
		json_put_text(j, "backing-filename", i->backing_file);
	if (i->backing_file && f->backing.code == 0)
		json_put_text(j, "full-backing-filename", f->backing.path);
	if (i->backing_format)
		json_put_text(j, "backing-filename-format", i->backing_format);
	put_format_specific(j, f);
	put_own(j, f);
	json_print_pretty(j);
}

/* What cannot be opened is no failure: the rest is known. */
static int look_into_files(struct facts *f, struct vd_image **img, struct vd_error *e)
{
	struct vd_image *whole = NULL;

	if (source_open_tables(f->s, f->s->operands[0], f->s->format, &whole, NULL) < 0)
		return 0;
	vd_image_abort(*img);
	*img = whole;
	return source_info(whole, &f->info, e);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct facts f = { .s = s };
	struct vd_image *img = NULL;
	int r = source_open_metadata(s, s->operands[0], s->format, &img, e);

	if (r == 0)
		r = source_info(img, &f.info, e);
	if (r == 0 && f.info.is_encryption_unknown)
		r = look_into_files(&f, &img, e);
	f.img = img;
	if (r == 0) {
		look_up(&f, VD_REF_BACKING, f.info.backing_file, &f.backing);
		look_up(&f, VD_REF_DATA_FILE, f.info.data_file, &f.data_file);
		if (ui_is_json())
			print_object(&f);
		else
			print_human(&f);
	}
	vd_image_abort(img);
	return r;
}

const struct verb verb_info = {
	.name = "info",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "say what an image is, and whether it is encrypted",
	.about = "Says what IMAGE is. Needs neither its key nor its backing file, and reads no data of the disk.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
