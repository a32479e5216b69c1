/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VMDK driver as the core sees it: describes and closes; the table of its callbacks is at the bottom. What the
 * format is, is said in vmdk.h; what of it is read and written, in vmdk.md.
 */
#include "formats/vmdk/vmdk.h"
#include "formats/vmdk/vmdk_visit.h"

#include <stdlib.h>

static bool vmdk_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	(void)tail;
	(void)size;
	if (head.len < 8)
		return false;
	return vd_get_le32(head.p) == VMDK_MAGIC || vd_get_le32(head.p) == VMDK_COWD_MAGIC ||
	       vd_get_le32(head.p) == VMDK_CTK_MAGIC || vd_get_le64(head.p) == VMDK_SE_MAGIC ||
	       vd_vmdk_is_descriptor(head);
}

static void vmdk_close(void *st)
{
	struct vd_vmdk *s = st;

	vd_vmdk_descriptor_fini(&s->d);
	for (size_t i = 0; i < sizeof(s->parent_names) / sizeof(s->parent_names[0]); i++)
		free(s->parent_names[i]);
	vd_vmdk_stream_free(s->stream);
	free(s->extents);
}

static const char *extent_read_only_why(const struct vd_vmdk *s, const struct vd_vmdk_extent *x)
{
	struct vd_io *io = vd_set_io(s->set, x->file);

	if (x->kind == VMDK_SESPARSE)
		return "seSparse extents are only read";
	if (x->kind != VMDK_SPARSE && x->kind != VMDK_COWD)
		return NULL;
	if (x->sp.flags & VMDK_FLAG_COMPRESSED)
		return "its grains are compressed";
	/* VMware marks so a disk of which another file records the changed blocks. */
	if (x->sp.version > 2)
		return "sparse extents of version 3 are only read";
	if (x->sp.lost_first)
		return "its first grain directory is damaged";
	if (io && io->is_device)
		return "a sparse extent on a device is only read";
	return NULL;
}

static const char *read_only_why(const struct vd_vmdk *s)
{
	if (s->stream)
		return NULL;
	if (s->is_lone_extent)
		return "it is an extent without the descriptor of its disk";
	if (s->is_utf16)
		return "its descriptor is in UTF-16, which no writer of VMDKs makes";
	if (s->d.change_track)
		return "another file records which blocks change, and would miss what is written here";
	if (s->is_misaligned)
		return "its extents do not begin where grains do";
	if (s->is_incomplete)
		return "a grain table is damaged or missing";
	for (size_t i = 0; i < s->n_extents; i++) {
		const char *why = extent_read_only_why(s, &s->extents[i]);

		if (why)
			return why;
	}
	return NULL;
}

static void vmdk_describe(const void *st, struct vd_format_info *i)
{
	const struct vd_vmdk *s = st;

	*i = (struct vd_format_info){
		.size = s->size,
		.unit = s->unit,
		.fill_unit = s->unit,
		.packs = s->stream,
		.packs_only = s->stream,
		.keeps_place = true,
		.codec = VD_CODEC_ZLIB,
		.backing_file = s->has_parent ? s->d.parent_hint : NULL,
		.backing_format = s->has_parent ? "vmdk" : NULL,
		.backing_others = (const char *const *)s->parent_names,
		.read_only_why = read_only_why(s),
	};
}

static const char *kind_of_lone_extent(const struct vd_vmdk *s)
{
	switch (s->extents[0].kind) {
	case VMDK_COWD: return "vmfsSparse extent";
	case VMDK_SESPARSE: return "seSparse extent";
	default: return "sparse extent";
	}
}

static void vmdk_info(const void *st, struct vd_info *i)
{
	const struct vd_vmdk *s = st;

	i->subformat = s->is_lone_extent ? kind_of_lone_extent(s) : s->d.create_type ? s->d.create_type : "custom";
	i->disk_id = s->cid[0] ? s->cid : NULL;
	i->parent_id = s->parent_cid[0] ? s->parent_cid : NULL;
	i->n_extents = s->n_extents;
	i->change_track = s->d.change_track;
	i->is_read_only_format = read_only_why(s) != NULL;
	for (size_t k = 0; k < s->n_extents; k++)
		i->is_dirty |= s->extents[k].sp.unclean;
}

static void vmdk_part(const void *st, uint32_t i, struct vd_part *part)
{
	static const char *const kinds[] = {
		[VMDK_FLAT] = "FLAT", [VMDK_ZERO] = "ZERO", [VMDK_SPARSE] = "SPARSE", [VMDK_COWD] = "VMFSSPARSE",
		[VMDK_SESPARSE] = "SESPARSE",
	};
	static const char *const accesses[] = { [VMDK_RW] = "RW", [VMDK_RDONLY] = "RDONLY", [VMDK_NOACCESS] = "NOACCESS" };
	const struct vd_vmdk *s = st;
	const struct vd_vmdk_extent *x = &s->extents[i];

	part->kind = kinds[x->kind];
	part->access = accesses[x->access];
	part->off = x->start;
	part->size = x->end - x->start;
	part->file_off = x->host_off;
	part->cluster_size = x->sp.grain;
	/* The name that an embedded descriptor has is an old one. */
	if (s->is_embedded || s->is_lone_extent)
		part->name = s->name;
	else if (x->kind != VMDK_ZERO)
		part->name = s->d.lines[i].file;
}

const struct vd_format vd_format_vmdk = {
	.name = "vmdk",
	.state_size = sizeof(struct vd_vmdk),
	.writable = true,
	.cuts_zeros_only = true,
	.stream_kind = "streamOptimized",
	.probe = vmdk_probe,
	.open = vd_vmdk_open,
	.create = vd_vmdk_create,
	.forecast = vd_vmdk_forecast,
	.check_parent = vd_vmdk_check_parent,
	.close = vmdk_close,
	.describe = vmdk_describe,
	.vet = vd_vmdk_vet,
	.info = vmdk_info,
	.part = vmdk_part,
	.begin_write = vd_vmdk_begin_write,
	.end_write = vd_vmdk_end_write,
	.map = vd_vmdk_map,
	.frame = vd_vmdk_frame,
	.reserve = vd_vmdk_reserve,
	.publish = vd_vmdk_publish,
	.cancel = vd_vmdk_cancel,
	.punch = vd_vmdk_punch,
	.freed = vd_vmdk_freed,
	.walk = vd_vmdk_walk,
	.reach = vd_vmdk_reach,
	.resize = vd_vmdk_resize,
	.set_backing = vd_vmdk_set_backing,
	.expect_parent = vd_vmdk_expect_parent,
	.empty = vd_vmdk_empty,
	.shift = vd_vmdk_shift,
	.repair = &vd_vmdk_repair_ops,
	.incoming = &vd_vmdk_incoming_ops,
};
