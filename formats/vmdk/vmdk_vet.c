/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is risky of a disk from outside, though it can be opened here: names of files that other readers may follow, and words
 * that mislead them. The extents that a descriptor of its own lists are the core's to tell; what breaks the format, open()'s.
 */
#include "formats/vmdk/vmdk.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#define N(table) (sizeof(table) / sizeof((table)[0]))

static int found(const struct vd_vetting *v, enum vd_risk risk, const char *fmt, ...) VD_PRINTF(3, 4);
static int found(const struct vd_vetting *v, enum vd_risk risk, const char *fmt, ...)
{
	char text[sizeof(((struct vd_error *)0)->message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return v->found(v->ctx, risk, text);
}

static bool is_path(const char *name)
{
	return strchr(name, '/') || strchr(name, '\\');
}

/* qemu looks into a file without capacity for a descriptor, and follows the names in that, and by what the type says. */
static int vet_embedded(const struct vd_vmdk *s, const struct vd_vetting *v)
{
	static const char *const inside[] = { "monolithicSparse", "streamOptimized" };
	const char *type = s->d.create_type ? s->d.create_type : "custom";
	bool is_inside = false;
	int r = 0;

	for (size_t i = 0; i < N(inside); i++)
		is_inside |= !strcasecmp(type, inside[i]);
	if (!s->size)
		r = found(v, VD_RISK_BROKEN, "it says that its disk has no bytes, though it has a descriptor");
	if (r == 0 && !is_inside)
		r = found(v, VD_RISK_REFERENCE, "it says that it is of type '%s', whose content is in other files", type);
	if (r == 0 && s->d.n_lines && is_path(s->d.lines[0].file))
		r = found(v, VD_RISK_REFERENCE, "its descriptor says that the content is in another file: %s", s->d.lines[0].file);
	return r;
}

/* Their files are not opened here, and so not among those of the disk. */
static int vet_lines(const struct vd_vmdk *s, const struct vd_vetting *v)
{
	int r = 0;

	for (size_t i = 0; i < s->d.n_lines && r == 0; i++)
		if (s->d.lines[i].access == VMDK_NOACCESS && s->d.lines[i].file)
			r = found(v, VD_RISK_REFERENCE, "it keeps its content in another file: %s", s->d.lines[i].file);
	return r;
}

static int vet_type(const struct vd_vmdk *s, const struct vd_vetting *v)
{
	static const char *const known[] = {
		"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "2GbMaxExtentSparse",
		"2GbMaxExtentFlat", "streamOptimized", "vmfs", "vmfsThin", "vmfsEagerZeroedThick", "vmfsPreallocated", "vmfsSparse",
		"seSparse", "fullDevice", "partitionedDevice", "vmfsRaw", "vmfsRDM", "vmfsRDMP", "vmfsRawDeviceMap",
		"vmfsPassthroughRawDeviceMap", "custom",
	};

	for (size_t i = 0; i < N(known); i++)
		if (!s->d.create_type || !strcasecmp(s->d.create_type, known[i]))
			return 0;
	return found(v, VD_RISK_BROKEN, "its type '%s' is not known", s->d.create_type);
}

static int vet_keys(const struct vd_vmdk *s, const struct vd_vetting *v)
{
	const struct vd_vmdk_descriptor *d = &s->d;
	int r = 0;

	if (d->unknown_line)
		r = found(v, VD_RISK_BROKEN, "line %zu of its descriptor is no comment, no pair and no extent", d->unknown_line);
	if (r == 0 && d->parent_hint && d->parent_hint[0] && !s->has_parent)
		r = found(v, VD_RISK_REFERENCE, "it names a parent, though it says that it has none: %s", d->parent_hint);
	if (r == 0 && d->change_track)
		r = found(v, VD_RISK_REFERENCE, "it names a file that records changed blocks: %s", d->change_track);
	if (r == 0 && d->outside)
		r = found(v, VD_RISK_REFERENCE, "its descriptor names another file: %s", d->outside);
	return r;
}

int vd_vmdk_vet(const void *st, const struct vd_vetting *v)
{
	const struct vd_vmdk *s = st;
	int r = s->is_lone_extent ? 0 : vet_keys(s, v);

	if (r == 0)
		r = vet_type(s, v);
	if (r == 0 && !s->is_lone_extent)
		r = s->is_embedded ? vet_embedded(s, v) : vet_lines(s, v);
	return r;
}
