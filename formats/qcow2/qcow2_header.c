/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads the header cluster: header, extensions, backing file name. Judges all that needs no other table; where the
 * tables lie is qcow2_judge.c's. Writing a header is qcow2_create.c's: an open image keeps its own, extensions of
 * unknown type included, and has single fields changed.
 */
#include "formats/qcow2/qcow2.h"

#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define STRING_MAX 4096                 /* of a name in an extension: what a path can have */

static void parse_v2(struct vd_reader *r, struct vd_qcow2_header *h)
{
	h->version = vd_read_be32(r);
	h->backing_off = vd_read_be64(r);
	h->backing_len = vd_read_be32(r);
	h->cluster_bits = vd_read_be32(r);
	h->size = vd_read_be64(r);
	h->crypt_method = vd_read_be32(r);
	h->l1_size = vd_read_be32(r);
	h->l1_off = vd_read_be64(r);
	h->reft_off = vd_read_be64(r);
	h->reft_clusters = vd_read_be32(r);
	h->n_snapshots = vd_read_be32(r);
	h->snap_off = vd_read_be64(r);
	h->refcount_order = 4;
	h->header_length = QCOW2_V2_LENGTH;
}

static void parse_v3(struct vd_reader *r, struct vd_qcow2_header *h)
{
	h->incompat = vd_read_be64(r);
	h->compat = vd_read_be64(r);
	h->autoclear = vd_read_be64(r);
	h->refcount_order = vd_read_be32(r);
	h->header_length = vd_read_be32(r);
	if (h->header_length > QCOW2_V3_LENGTH)
		h->compression_type = vd_read_u8(r);
}

static int judge_version(const struct vd_qcow2_header *h, struct vd_error *e)
{
	if (h->version == 2 || h->version == 3)
		return 0;
	vd_fail_at(e, VD_EUNSUPPORTED, 4, "qcow version %" PRIu32 ": this library reads versions 2 and 3",
		   h->version);
	return vd_hint(e, VD_EUNSUPPORTED, "qemu-img convert -f %s -O qcow2 makes a version 3 image of it",
		       h->version == 1 ? "qcow" : "qcow2");
}

static int judge_sizes(const struct vd_qcow2 *s, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;

	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return vd_qcow2_corrupt(s, e, 20, "cluster_bits is %" PRIu32 ", must be %d to %d",
					h->cluster_bits,
				     QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_BITS_MAX);
	if (h->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
		return vd_qcow2_corrupt(s, e, 96, "refcount_order is %" PRIu32 ", must be at most %d",
					h->refcount_order,
				     QCOW2_REFCOUNT_ORDER_MAX);
	if (h->size > INT64_MAX)
		return vd_qcow2_corrupt(s, e, 24, "a virtual size of %" PRIu64 " bytes is too large", h->size);
	if (h->version == 2)
		return 0;
	if (h->header_length < QCOW2_V3_LENGTH || h->header_length % 8)
		return vd_qcow2_corrupt(s, e, 100,
					"header_length is %" PRIu32 ", must be %d or more and a multiple of 8",
				     h->header_length, QCOW2_V3_LENGTH);
	if (h->header_length > UINT32_C(1) << h->cluster_bits)
		return vd_qcow2_corrupt(s, e, 100, "header_length %" PRIu32 " is more than a cluster",
					h->header_length);
	return 0;
}

/* ---- extensions ----------------------------------------------------------------------------------------- */

/* A string that is not NUL-terminated on disk. A NUL inside would hide what follows from whoever judges the name. */
static int take_string(const struct vd_qcow2 *s, const uint8_t *p, size_t len, const char *what, uint64_t at,
		       char **out,
		       struct vd_error *e)
{
	char *copy;
	int r;

	while (len && !p[len - 1])
		len--;
	if (!len || len > STRING_MAX)
		return vd_qcow2_corrupt(s, e, at, "the %s has %zu bytes, must be 1 to %d", what, len,
					STRING_MAX);
	if (memchr(p, 0, len))
		return vd_qcow2_corrupt(s, e, at, "the %s has a NUL byte inside", what);
	r = vd_alloc(len + 1, 1, &copy, e);
	if (r < 0)
		return r;
	memcpy(copy, p, len);
	free(*out);
	*out = copy;
	return 0;
}

static int take_bytes(const uint8_t *p, size_t len, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	uint8_t *copy;
	int r = vd_memdup(p, len, &copy, e);

	if (r < 0)
		return r;
	free(*out);
	*out = copy;
	*out_len = len;
	return 0;
}

static int take_luks(struct vd_qcow2 *s, const uint8_t *p, size_t len, uint64_t at, struct vd_error *e)
{
	if (s->h.crypt_method != 2)
		return vd_qcow2_corrupt(s, e, at, "there is a LUKS key area, but crypt_method is %" PRIu32,
					s->h.crypt_method);
	if (len != 16)
		return vd_qcow2_corrupt(s, e, at, "the LUKS extension has %zu bytes, must be 16", len);
	s->key_area_at = at;
	s->key_area_off = vd_get_be64(p);
	s->key_area_len = vd_get_be64(p + 8);
	return 0;
}

static int take_bitmaps(struct vd_qcow2 *s, const uint8_t *p, size_t len, uint64_t at, struct vd_error *e)
{
	if (len != 24)
		return vd_qcow2_corrupt(s, e, at, "the bitmaps extension has %zu bytes, must be 24", len);
	s->bitmaps_at = at;
	s->n_bitmaps = vd_get_be32(p);
	s->bitmaps_len = vd_get_be64(p + 8);
	s->bitmaps_off = vd_get_be64(p + 16);
	return 0;
}

/* p: len bytes that begin at file offset `at`. Unknown types are skipped; they stay where they are. */
static int take_extension(struct vd_qcow2 *s, uint32_t type, const uint8_t *p, size_t len, uint64_t at,
			  struct vd_error *e)
{
	switch (type) {
	case QCOW2_EXT_BACKING_FORMAT:
		return take_string(s, p, len, "backing format", at, &s->backing_format, e);
	case QCOW2_EXT_DATA_FILE:
		return take_string(s, p, len, "data file name", at, &s->data_file_name, e);
	case QCOW2_EXT_FEATURE_NAMES:
		return take_bytes(p, len, &s->feature_names, &s->feature_names_len, e);
	case QCOW2_EXT_KEY_NOTES:
		return take_bytes(p, len, &s->key_notes, &s->key_notes_len, e);
	case QCOW2_EXT_LUKS:
		return take_luks(s, p, len, at, e);
	case QCOW2_EXT_BITMAPS:
		return take_bitmaps(s, p, len, at, e);
	default:
		return 0;
	}
}

/* `head`: the file from offset 0 to where extensions must have ended. */
static int read_extensions(struct vd_qcow2 *s, struct vd_bytes head, struct vd_error *e)
{
	struct vd_reader r = vd_reader_of(head.p, head.len);

	vd_reader_take(&r, s->h.header_length);
	s->header_end = s->h.header_length;
	/* Without an end mark the list runs up to the backing file name or the end of the cluster. */
	while (vd_reader_left(&r) >= 8) {
		uint64_t at = r.pos;
		uint32_t type = vd_read_be32(&r);
		uint32_t len = vd_read_be32(&r);
		const uint8_t *p;
		int err;

		s->header_end = r.pos;
		if (type == QCOW2_EXT_END)
			return 0;
		p = vd_reader_take(&r, len);
		if (!p)
			return vd_qcow2_corrupt(s, e, at,
						"header extension 0x%08" PRIx32 " of %" PRIu32 " bytes leaves the header cluster",
					     type, len);
		err = take_extension(s, type, p, len, at + 8, e);
		if (err < 0)
			return err;
		vd_reader_take(&r, vd_min_u64(vd_reader_left(&r), -len % 8));
		s->header_end = r.pos;
	}
	return 0;
}

/* ---- features ------------------------------------------------------------------------------------------- */

/* The image's own word for an incompatible feature. */
static void name_feature(const struct vd_qcow2 *s, unsigned bit, char *out, size_t out_len)
{
	const uint8_t *p = s->feature_names;

	for (size_t left = s->feature_names_len; left >= QCOW2_FEATURE_LENGTH; left -= QCOW2_FEATURE_LENGTH) {
		if (p[0] == 0 && p[1] == bit && p[2]) {
			snprintf(out, out_len, "%.46s", (const char *)p + 2);
			return;
		}
		p += QCOW2_FEATURE_LENGTH;
	}
	snprintf(out, out_len, "unnamed feature, bit %u", bit);
}

static int judge_incompatible(const struct vd_qcow2 *s, struct vd_error *e)
{
	uint64_t unknown = s->h.incompat & ~QCOW2_INCOMPAT_KNOWN;
	char list[400] = "";
	size_t used = 0;

	if (!unknown)
		return 0;
	for (unsigned bit = 0; bit < 64; bit++) {
		char name[64];

		if (!(unknown >> bit & 1) || used >= sizeof(list))
			continue;
		name_feature(s, bit, name, sizeof(name));
		used += snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", name);
	}
	vd_fail_at(e, VD_EUNSUPPORTED, 72, "unsupported qcow2 feature(s): %s", list);
	return vd_hint(e, VD_EUNSUPPORTED, "the program that made the image can tell what it needs");
}

static int judge_compression(struct vd_qcow2 *s, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;
	bool said = h->incompat & QCOW2_INCOMPAT_COMPRESSION;

	if (h->compression_type > 1)
		return vd_fail_at(e, VD_EUNSUPPORTED, 104, "compression type %u is unknown",
				  h->compression_type);
	if (said != (h->compression_type != 0))
		return vd_qcow2_corrupt(s, e, 104,
					"compression type %u, but its incompatible feature bit is %s",
				     h->compression_type, said ? "set" : "clear");
	s->codec = h->compression_type ? VD_CODEC_ZSTD : VD_CODEC_DEFLATE12;
	return 0;
}

static int judge_features(struct vd_qcow2 *s, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;

	if (h->crypt_method > 2)
		return vd_fail_at(e, VD_EUNSUPPORTED, 32, "encryption method %" PRIu32 " is unknown",
				  h->crypt_method);
	if (h->crypt_method == 2 && !s->key_area_len)
		return vd_qcow2_corrupt(s, e, 32,
					"the image is LUKS encrypted, but its header does not say where the key area is");
	if (h->incompat & QCOW2_INCOMPAT_EXTENDED_L2 && h->cluster_bits < QCOW2_EXT_L2_BITS_MIN)
		return vd_qcow2_corrupt(s, e, 20,
					"extended L2 entries need cluster_bits of %d or more, not %" PRIu32,
				     QCOW2_EXT_L2_BITS_MIN, h->cluster_bits);
	if (h->incompat & QCOW2_INCOMPAT_DATA_FILE && !s->data_file_name)
		return vd_qcow2_corrupt(s, e, 72, "the image has an external data file, but does not name it");
	/* Refcounts, which is how snapshots share clusters, do not reach there. */
	if (h->incompat & QCOW2_INCOMPAT_DATA_FILE && h->n_snapshots)
		return vd_qcow2_corrupt(s, e, 60, "an image with an external data file cannot have snapshots");
	return judge_compression(s, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int read_backing_name(struct vd_qcow2 *s, struct vd_bytes head, struct vd_error *e)
{
	const struct vd_qcow2_header *h = &s->h;

	if (!h->backing_off)
		return 0;
	if (h->backing_len > QCOW2_BACKING_LEN_MAX)
		return vd_qcow2_corrupt(s, e, 16,
					"the backing file name has %" PRIu32 " bytes, must be at most %u",
				     h->backing_len, QCOW2_BACKING_LEN_MAX);
	if (h->backing_off < h->header_length || !vd_range_inside(h->backing_off, h->backing_len, head.len))
		return vd_qcow2_corrupt(s, e, 8,
					"the backing file name at %" PRIu64 " lies outside the header cluster",
				     h->backing_off);
	s->header_end = vd_max_u64(s->header_end, h->backing_off + h->backing_len);
	return take_string(s, head.p + h->backing_off, h->backing_len, "backing file name", h->backing_off,
			   &s->backing_file, e);
}

static int read_fixed(struct vd_qcow2 *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	uint8_t raw[QCOW2_OWN_LENGTH] = { 0 };
	struct vd_reader r = vd_reader_of(raw, sizeof(raw));
	int err;

	if (file_size < QCOW2_V2_LENGTH)
		return vd_qcow2_corrupt(s, e, 0, "a file of %" PRIu64 " bytes cannot hold a qcow2 header",
					file_size);
	/* Past the end of a short file zeros are read, which no rule for version 3 lets pass. */
	err = vd_io_pread(io, raw, sizeof(raw), 0, e);
	if (err < 0)
		return err;
	/* Read anew, it may be of another version than before. */
	s->h = (struct vd_qcow2_header){ 0 };
	if (vd_read_be32(&r) != QCOW2_MAGIC)
		return vd_qcow2_corrupt(s, e, 0,
					"this is no qcow2 image: the file does not begin with QFI\\xfb");
	parse_v2(&r, &s->h);
	err = judge_version(&s->h, e);
	if (err == 0 && s->h.version == 3)
		parse_v3(&r, &s->h);
	return err < 0 ? err : judge_sizes(s, e);
}

int vd_qcow2_header_read(struct vd_qcow2 *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	vd_auto_free uint8_t *head = NULL;
	size_t len, ext_end;
	int r = read_fixed(s, io, file_size, e);

	if (r < 0)
		return r;
	s->n_bitmaps = 0;
	len = vd_min_u64(UINT64_C(1) << s->h.cluster_bits, file_size);
	r = vd_alloc(len, 1, &head, e);
	if (r == 0)
		r = vd_io_pread(io, head, len, 0, e);
	if (r == 0 && s->h.header_length > len)
		r = vd_qcow2_corrupt(s, e, 100, "the file ends inside its header of %" PRIu32 " bytes",
				     s->h.header_length);
	ext_end = s->h.backing_off ? vd_min_u64(s->h.backing_off, len) : len;
	if (r == 0)
		r = read_extensions(s, (struct vd_bytes){ head, ext_end }, e);
	/* After the extensions, which hold the names of features. */
	if (r == 0)
		r = judge_incompatible(s, e);
	if (r == 0)
		r = judge_features(s, e);
	return r < 0 ? r : read_backing_name(s, (struct vd_bytes){ head, len }, e);
}
