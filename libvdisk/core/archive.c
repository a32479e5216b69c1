/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks inside an OVA (DMTF DSP0243, "OVF package"): a tar archive with a descriptor, *.ovf, in it: the first member by the
 * text, any by those who packed theirs with tar. A disk is any member that a driver knows by its content; what the descriptor
 * says of machines is nothing to a disk.
 */
#include "libvdisk/core/archive.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/crypto/hash.h"
#include "libvdisk/io/slice.h"
#include "libvdisk/io/tar.h"

#define MEMBERS_MAX 4096        /* a descriptor with a manifest and disks: more is no package */
#define MANIFEST_MAX (1u << 20)
#define PIECE (1u << 20)

static bool ends_with(const char *name, const char *suffix)
{
	size_t a = strlen(name), b = strlen(suffix);

	return a >= b && !strcasecmp(name + a - b, suffix);
}

/* An archive that is broken before its descriptor is none. */
static int is_ova(struct vd_io *io, bool *yes, struct vd_error *e)
{
	struct vd_tar_member m;
	uint64_t at = 0;
	int r = vd_tar_probe(io, yes, e);

	if (r < 0 || !*yes)
		return r;
	*yes = false;
	for (size_t i = 0; i < MEMBERS_MAX && r == 0 && !*yes; i++) {
		r = vd_tar_next(io, &at, &m, e);
		*yes = r == 0 && ends_with(m.name, ".ovf");
	}
	return r == VD_ECORRUPT || r == VD_ENOENT ? 0 : r;
}

/* ---- the disk --------------------------------------------------------------------------------------------- */

struct found {
	struct vd_tar_member disk;
	size_t n;
	char names[512];                /* of all, as far as they fit, for a message */
	char packed[256];               /* a member that is compressed as a whole, which OVF allows; empty: there is none */
};

/* Told by its ends, of which the slice does not own the archive. */
static int is_disk(struct vd_io *ova, const struct vd_tar_member *m, bool *yes, struct vd_error *e)
{
	vd_auto_ends struct vd_ends ends = { 0 };
	int r = vd_ends_read_part(ova, m->off, m->len, &ends, e);

	*yes = r == 0 && vd_registry_next_match(&ends, NULL);
	return r;
}

static void note(struct found *f, const struct vd_tar_member *m, const char *wanted)
{
	size_t used = strlen(f->names);

	if (!wanted || !strcmp(m->name, wanted)) {
		f->disk = *m;
		f->n++;
	}
	snprintf(f->names + used, sizeof(f->names) - used, "%s%.200s", used ? ", " : "", m->name);
}

static int note_packed(struct found *f, struct vd_io *ova, const struct vd_tar_member *m, struct vd_error *e)
{
	static const uint8_t gzip[] = { 0x1f, 0x8b };
	uint8_t head[2];
	int r = m->len < sizeof(head) ? 0 : vd_io_pread(ova, head, sizeof(head), m->off, e);

	if (r == 0 && m->len >= sizeof(head) && !memcmp(head, gzip, sizeof(gzip)))
		snprintf(f->packed, sizeof(f->packed), "%.200s", m->name);
	return r;
}

static int look(struct vd_io *ova, const char *wanted, struct found *f, struct vd_error *e)
{
	uint64_t at = 0;
	int r = 0;

	for (size_t i = 0; i < MEMBERS_MAX && r == 0; i++) {
		struct vd_tar_member m;
		bool yes;

		r = vd_tar_next(ova, &at, &m, e);
		if (r == 0)
			r = is_disk(ova, &m, &yes, e);
		if (r == 0 && yes)
			note(f, &m, wanted);
		else if (r == 0)
			r = note_packed(f, ova, &m, e);
	}
	return r == VD_ENOENT ? 0 : r;
}

static int judge(const char *path, const struct found *f, const char *wanted, struct vd_error *e)
{
	if (f->n == 1)
		return 0;
	if (!f->names[0] && f->packed[0]) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: in this package '%s' is compressed as a whole, by gzip", path, f->packed);
		return vd_hint(e, VD_EUNSUPPORTED, "unpack both: tar -xf, then gunzip");
	}
	if (!f->names[0])
		return vd_fail(e, VD_EUNSUPPORTED, "%s: this package has no disk in it that is known", path);
	vd_fail(e, VD_EARG, wanted ? "%s: there is no disk '%s' in this package" : "%s: this package has several disks", path,
		wanted);
	return vd_hint(e, VD_EARG, "name one with --disk: %s", f->names);
}

int vd_archive_enter(struct vd_io **io, const struct vd_open_opts *opts, struct vd_error *e)
{
	struct found f = { 0 };
	char name[512];
	bool yes;
	int r = is_ova(*io, &yes, e);

	if (r < 0)
		return r;
	if (!yes)
		return opts->disk ? vd_fail(e, VD_EARG, "%s is no package of disks", (*io)->name) : 0;
	if (opts->flags & (VD_OPEN_WRITE | VD_OPEN_CONTROL))
		return vd_fail(e, VD_EREADONLY, "%s: a disk in a package is only read", (*io)->name);
	r = look(*io, opts->disk, &f, e);
	if (r == 0)
		r = judge((*io)->name, &f, opts->disk, e);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s:%s", (*io)->name, f.disk.name);
	return vd_slice_new(*io, f.disk.off, f.disk.len, name, io, e);
}

/* ---- the manifest ----------------------------------------------------------------------------------------- */

struct line {
	enum vd_hash_kind kind;
	char name[256];
	uint8_t sum[VD_HASH_MAX];
	size_t len;
};

/* As VMware's tools write them, and OpenSSL 3. */
static const struct {
	const char *word;
	enum vd_hash_kind kind;
	size_t len;
} sums[] = {
	{ "SHA1", VD_SHA1, 20 }, { "SHA256", VD_SHA256, 32 }, { "SHA2-256", VD_SHA256, 32 },
	{ "SHA512", VD_SHA512, 64 }, { "SHA2-512", VD_SHA512, 64 },
};
#define N_SUMS (sizeof(sums) / sizeof(sums[0]))

static bool parse_hex(const char *text, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned byte;

		if (sscanf(text + 2 * i, "%2x", &byte) != 1)
			return false;
		out[i] = (uint8_t)byte;
	}
	return true;
}

/* "SHA256(name)= hex digits", blanks around the sign of equality or not. */
static bool parse_line(const char *text, size_t len, struct line *l)
{
	const char *open = memchr(text, '(', len), *equals = memchr(text, '=', len), *close = equals, *hex;
	size_t word = strcspn(text, " ("), i = 0;

	while (i < N_SUMS && (word != strlen(sums[i].word) || strncasecmp(text, sums[i].word, word)))
		i++;
	if (i == N_SUMS || !open || !equals || equals < open)
		return false;
	while (close > open && *close != ')')
		close--;
	if (close == open || (size_t)(close - open) > sizeof(l->name))
		return false;
	snprintf(l->name, sizeof(l->name), "%.*s", (int)(close - open - 1), open + 1);
	l->kind = sums[i].kind;
	l->len = sums[i].len;
	for (hex = equals + 1; hex < text + len && *hex == ' '; hex++)
		;
	return (size_t)(text + len - hex) >= 2 * l->len && parse_hex(hex, l->sum, l->len);
}

static int hash_member(struct vd_io *ova, const struct vd_tar_member *m, const struct line *l, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	uint8_t sum[VD_HASH_MAX];
	struct vd_hash *h = NULL;
	int r = vd_alloc_buffer(PIECE, &buf, e);

	if (r == 0)
		r = vd_hash_new(l->kind, &h, e);
	if (r < 0)
		return r;
	for (uint64_t done = 0, n; done < m->len && r == 0; done += n) {
		n = vd_min_u64(PIECE, m->len - done);
		r = vd_io_pread(ova, buf, n, m->off + done, e);
		vd_hash_add(h, buf, n);
	}
	vd_hash_end(h, sum);
	vd_hash_free(h);
	if (r < 0 || !memcmp(sum, l->sum, l->len))
		return r;
	vd_fail(e, VD_EMISMATCH, "%s: %s is not what the manifest says", ova->name, m->name);
	return vd_hint(e, VD_EMISMATCH, "the package was damaged or changed: fetch it again");
}

static int find_member(struct vd_io *ova, const char *name, const char *suffix, struct vd_tar_member *m, struct vd_error *e)
{
	uint64_t at = 0;
	int r = 0;

	for (size_t i = 0; i < MEMBERS_MAX; i++) {
		r = vd_tar_next(ova, &at, m, e);
		if (r < 0 || (name ? !strcmp(m->name, name) : ends_with(m->name, suffix)))
			return r;
	}
	return vd_fail(e, VD_ENOENT, "%s has too many members", ova->name);
}

/* Names are those of the manifest's own folder, which may be "./". */
static int check_line(struct vd_io *ova, const struct vd_tar_member *mf, const char *text, size_t len, struct vd_error *e)
{
	const char *slash = strrchr(mf->name, '/');
	char name[2 * sizeof(mf->name)];
	struct vd_tar_member m;
	struct line l;
	int r;

	if (!parse_line(text, len, &l)) {
		vd_fail(e, VD_ECORRUPT, "%s: its manifest has a line that is none: '%.*s'", ova->name, (int)vd_min_u64(len, 80), text);
		return vd_hint(e, VD_ECORRUPT, "sums by SHA-1, SHA-256 and SHA-512 are known");
	}
	snprintf(name, sizeof(name), "%.*s%s", slash ? (int)(slash - mf->name + 1) : 0, mf->name, l.name);
	r = find_member(ova, name, NULL, &m, e);
	if (r == VD_ENOENT)
		return vd_fail(e, VD_EMISMATCH, "%s: the manifest names %s, which is not there", ova->name, l.name);
	return r < 0 ? r : hash_member(ova, &m, &l, e);
}

static int check_manifest(struct vd_io *ova, const struct vd_tar_member *mf, struct vd_error *e)
{
	vd_auto_free char *text = NULL;
	int r = 0;

	if (mf->len > MANIFEST_MAX)
		return vd_fail(e, VD_ECORRUPT, "%s: a manifest of %llu bytes is too long", ova->name, (unsigned long long)mf->len);
	r = vd_alloc(mf->len + 1, 1, &text, e);
	if (r == 0)
		r = vd_io_pread(ova, text, mf->len, mf->off, e);
	for (char *at = text, *end; r == 0 && *at; at = *end ? end + 1 : end) {
		size_t len = strcspn(at, "\r\n");

		end = at + len;
		if (len)
			r = check_line(ova, mf, at, len, e);
	}
	return r;
}

VD_PUBLIC int vd_package_verify(const char *path, bool *has_manifest, struct vd_error *e)
{
	struct vd_host *host = vd_host_os();
	struct vd_tar_member mf;
	struct vd_io *io = NULL;
	bool yes = false;
	int r = host->open(host, path, 0, &io, e);

	*has_manifest = false;
	if (r < 0)
		return r;
	r = is_ova(io, &yes, e);
	if (r == 0 && !yes)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s is no package of disks", path);
	if (r == 0)
		r = find_member(io, NULL, ".mf", &mf, e);
	*has_manifest = r == 0;
	if (r == 0)
		r = check_manifest(io, &mf, e);
	vd_io_abort(io);
	return r == VD_ENOENT ? 0 : r;
}
