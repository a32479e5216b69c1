/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the acts on a disk's shape share: they change the descriptor and the header of an extent at one instant, by the
 * write of one sector. Each runs alone on the handle with every table committed, as core/format.h has it.
 */
#ifndef VD_FORMATS_VMDK_SHAPE_H
#define VD_FORMATS_VMDK_SHAPE_H

#include "formats/vmdk/vmdk.h"

/* These bytes of the descriptor's text become others. */
struct vd_vmdk_edit {
	struct vd_vmdk_span where;
	const char *text;
};
/* A change of the descriptor that can be made. */
struct vd_vmdk_rewrite {
	char *text;                     /* as it will be */
	size_t len;
	struct vd_vmdk_descriptor d;    /* what that says */
	char was[VMDK_SECTOR];          /* a file of its own: the sector that changes, padded */
	size_t sector, tail_at;         /* and its number; where lines are added, SIZE_MAX: none are */
	bool exchanges;                 /* another file takes the name */
};
/* What a sparse extent's header says from then on, in bytes; 0: what it said. */
struct vd_vmdk_header_change {
	uint64_t capacity, rgd_off, gd_off, desc_off, overhead;
};

/* vmdk_desc.c */
/* Edits in the order of the text, which do not overlap. VD_EUNSUPPORTED when no single write makes the change. */
int vd_vmdk_rewrite_prepare(struct vd_vmdk *s, const struct vd_vmdk_edit *edits, size_t n, struct vd_vmdk_rewrite *w,
			    struct vd_error *e) VD_MUST_CHECK;
/* The same for any change of a descriptor in a file of its own, which another one takes the place of: it is another file then. */
int vd_vmdk_rewrite_prepare_whole(struct vd_vmdk *s, const struct vd_vmdk_edit *edits, size_t n, struct vd_vmdk_rewrite *w,
				  struct vd_error *e) VD_MUST_CHECK;
/*
 * Durably. An embedded descriptor and its extent's header change together: NULL when there is nothing to change in that.
 * Needs spare room from the extent's host_end on. Failed, nothing has changed, but for VD_EPOISONED. Takes w->d.
 */
int vd_vmdk_rewrite_commit(struct vd_vmdk *s, struct vd_vmdk_rewrite *w, const struct vd_vmdk_header_change *h,
			   struct vd_error *e) VD_MUST_CHECK;
/* Accepts one of which prepare() failed. */
void vd_vmdk_rewrite_fini(struct vd_vmdk_rewrite *w);
/* One sector, durably. */
int vd_vmdk_header_write(struct vd_vmdk *s, uint32_t file, const struct vd_vmdk_header_change *h,
			 struct vd_error *e) VD_MUST_CHECK;
int vd_vmdk_write_durably(struct vd_vmdk *s, uint32_t file, const void *buf, size_t len, uint64_t off,
			  struct vd_error *e) VD_MUST_CHECK;
/* VD_EPOISONED: a failure that leaves open which of two states is on disk. */
int vd_vmdk_unsure(const struct vd_vmdk *s, struct vd_error *e);

/* vmdk_tables.c: tables beside those in force. */
struct vd_vmdk_layout {
	uint64_t n;                     /* tables */
	uint64_t rgd, gd;               /* rgd 0: there is one set */
	uint64_t end;
};
/* Both directories larger, with new tables behind those that the disk fills: durable, and not in force yet. */
int vd_vmdk_tables_extend(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t capacity, struct vd_vmdk_layout *l,
			  struct vd_error *e) VD_MUST_CHECK;
/* All tables anew, with every grain moved by so many bytes: the same. */
int vd_vmdk_tables_shifted(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t capacity, int64_t by,
			   struct vd_vmdk_layout *l, struct vd_error *e) VD_MUST_CHECK;
/* Adds where directories and tables in force lie. */
int vd_vmdk_tables_ranges(const struct vd_vmdk_extent *x, struct vd_space_batch *b, struct vd_error *e) VD_MUST_CHECK;
/* They are in force: the handle learns it. */
void vd_vmdk_tables_adopt(struct vd_vmdk *s, struct vd_vmdk_extent *x, const struct vd_vmdk_layout *l);


/* vmdk_parts.c: further extents of a disk, each in a file of its own. */
/* How many extents the descriptor in force has. */
static inline size_t vd_vmdk_n_listed(const struct vd_vmdk *s)
{
	return s->is_embedded ? 1 : s->d.n_lines;
}
/* Some extents belong to no larger one than VMware makes. */
bool vd_vmdk_is_split(const struct vd_vmdk *s);
/* The name of the index-th extent, which is not listed yet: it counts on from the last one's. The caller frees it. */
int vd_vmdk_part_name(const struct vd_vmdk *s, size_t index, char **out, struct vd_error *e) VD_MUST_CHECK;
/* Another extent behind the last, in a new file that holds nothing: durable, and listed nowhere. */
int vd_vmdk_part_add(struct vd_vmdk *s, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
/* An extent that is listed nowhere any more: its file goes, unless it has other bytes, or may not be written. */
int vd_vmdk_part_dispose(struct vd_vmdk *s, const struct vd_vmdk_extent *x, struct vd_error *e) VD_MUST_CHECK;
/* Some extent but this one (NULL: any) lies in the file. */
bool vd_vmdk_shares_file(const struct vd_vmdk *s, uint32_t file, const struct vd_vmdk_extent *but);
int vd_vmdk_overwrite(struct vd_vmdk *s, uint32_t file, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;

#endif
