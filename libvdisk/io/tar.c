/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads tar headers of the kinds that tar programs write (ustar, GNU's long names and large numbers, pax records), and
 * writes plain ustar. What the members are is their readers' business.
 *
 *   header = name:100 mode:8 uid:8 gid:8 size:12 mtime:12 checksum:8 type:1 link:100 "ustar\0" "00" owner:32 group:32
 *            major:8 minor:8 prefix:155 pad:12
 */
#include "libvdisk/io/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/checked.h"

#define AT_SIZE 124
#define AT_MTIME 136
#define AT_CHECKSUM 148
#define AT_TYPE 156
#define AT_MAGIC 257
#define AT_PREFIX 345
#define RECORDS_MAX 4096                /* of a pax header or a long name */

/* What an extended header says of the next member. */
struct extension {
	bool has_name, has_size;
	char name[256];
	uint64_t size;
};

/* Octal digits, or big-endian binary behind a set top bit (GNU, for more than 8 GiB). */
static bool parse_number(const uint8_t *p, size_t len, uint64_t *out)
{
	uint64_t n = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		for (i = 1; i < len; i++) {
			if (n >> 56)
				return false;
			n = n << 8 | p[i];
		}
		*out = n;
		return !(p[0] & 0x7f);
	}
	while (i < len && p[i] == ' ')
		i++;
	for (; i < len && p[i] >= '0' && p[i] <= '7'; i++) {
		if (n >> 61)
			return false;
		n = n << 3 | (uint64_t)(p[i] - '0');
	}
	*out = n;
	return i == len || p[i] == ' ' || !p[i];
}

/* The sum of all bytes, those of the checksum taken for blanks. */
static unsigned checksum(const uint8_t *h)
{
	unsigned sum = 0;

	for (size_t i = 0; i < VD_TAR_BLOCK; i++)
		sum += i >= AT_CHECKSUM && i < AT_CHECKSUM + 8 ? ' ' : h[i];
	return sum;
}

static bool is_header(const uint8_t *h)
{
	uint64_t sum;

	return parse_number(h + AT_CHECKSUM, 8, &sum) && sum == checksum(h) && !memcmp(h + AT_MAGIC, "ustar", 5);
}

int vd_tar_probe(struct vd_io *io, bool *yes, struct vd_error *e)
{
	uint8_t h[VD_TAR_BLOCK];
	int r = vd_io_pread(io, h, sizeof(h), 0, e);

	*yes = r == 0 && is_header(h);
	return r;
}

static void take_name(const uint8_t *h, char out[256])
{
	/* At most 155, a slash and 100: what does not fit a name of 255 bytes is no file of a package. */
	snprintf(out, 256, "%.154s%s%.100s", h[AT_PREFIX] ? (const char *)h + AT_PREFIX : "", h[AT_PREFIX] ? "/" : "",
		 (const char *)h);
}

/* One pax record: "LEN key=value\n". False: it is none. */
static bool take_record(const char **at, const char *end, struct extension *x)
{
	char *rest;
	unsigned long len = strtoul(*at, &rest, 10);
	const char *record_end = *at + len, *value;

	if (*rest != ' ' || len > (size_t)(end - *at) || record_end <= rest || record_end[-1] != '\n')
		return false;
	rest++;
	value = memchr(rest, '=', (size_t)(record_end - rest));
	if (!value++)
		return false;
	if (!strncmp(rest, "path=", 5)) {
		snprintf(x->name, sizeof(x->name), "%.*s", (int)(record_end - 1 - value), value);
		x->has_name = true;
	} else if (!strncmp(rest, "size=", 5)) {
		x->size = strtoull(value, NULL, 10);
		x->has_size = true;
	}
	*at = record_end;
	return true;
}

/* A pax header ('x') or a long name ('L') before the member that it is about. */
static int take_extension(struct vd_io *io, char type, uint64_t off, uint64_t len, struct extension *x, struct vd_error *e)
{
	char text[RECORDS_MAX + 1] = "";
	const char *at = text;
	int r;

	if (len > RECORDS_MAX)
		return vd_fail_at(e, VD_ECORRUPT, off, "%s: an extended tar header of %llu bytes is too long", io->name,
				  (unsigned long long)len);
	r = vd_io_pread(io, text, len, off, e);
	if (r < 0)
		return r;
	if (type == 'L') {
		snprintf(x->name, sizeof(x->name), "%s", text);
		x->has_name = true;
		return 0;
	}
	while (at < text + len)
		if (!take_record(&at, text + len, x))
			return vd_fail_at(e, VD_ECORRUPT, off, "%s: an extended tar header has a broken record", io->name);
	return 0;
}

static int read_header(struct vd_io *io, uint64_t at, uint8_t *h, struct vd_error *e)
{
	uint64_t size;
	int r = vd_io_size(io, &size, e);

	if (r < 0)
		return r;
	if (at + VD_TAR_BLOCK > size)
		return vd_fail(e, VD_ENOENT, "%s: no member is left", io->name);
	r = vd_io_pread(io, h, VD_TAR_BLOCK, at, e);
	if (r < 0)
		return r;
	if (vd_is_zero(h, VD_TAR_BLOCK))
		return vd_fail(e, VD_ENOENT, "%s: no member is left", io->name);
	return is_header(h) ? 0 : vd_fail_at(e, VD_ECORRUPT, at, "%s: there is no tar header where one has to be", io->name);
}

/* Whether the member, padded, lies inside the archive. */
static int judge_member(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint64_t size, ignored;
	int r = vd_io_size(io, &size, e);

	if (r < 0 || (vd_range_inside(off, len, size) && vd_round_up_u64(len, VD_TAR_BLOCK, &ignored)))
		return r;
	vd_fail_at(e, VD_ECORRUPT, off, "%s: a member of %llu bytes reaches past the end of the archive", io->name,
		   (unsigned long long)len);
	return vd_hint(e, VD_ECORRUPT, "the file was cut short: fetch it again");
}

int vd_tar_next(struct vd_io *io, uint64_t *at, struct vd_tar_member *m, struct vd_error *e)
{
	struct extension x = { 0 };
	uint8_t h[VD_TAR_BLOCK];

	for (;;) {
		uint64_t len, off = *at + VD_TAR_BLOCK;
		int r = read_header(io, *at, h, e);
		char type;

		if (r < 0)
			return r;
		type = (char)h[AT_TYPE];
		if (!parse_number(h + AT_SIZE, 12, &len))
			return vd_fail_at(e, VD_ECORRUPT, *at, "%s: a tar header has no sound size", io->name);
		if (x.has_size && type != 'x' && type != 'L')
			len = x.size;
		r = judge_member(io, off, len, e);
		if (r < 0)
			return r;
		*at = off + vd_round_up(len, VD_TAR_BLOCK);
		if (type == 'x' || type == 'L')
			r = take_extension(io, type, off, len, &x, e);
		if (r < 0)
			return r;
		if (type != '0' && type != '\0')
			continue;
		take_name(h, m->name);
		if (x.has_name)
			snprintf(m->name, sizeof(m->name), "%s", x.name);
		m->off = off;
		m->len = len;
		return 0;
	}
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* Octal where that fits, else binary. */
static void put_number(uint8_t *p, size_t len, uint64_t n)
{
	if (n >> (3 * (len - 1)) == 0) {
		snprintf((char *)p, len, "%0*llo", (int)len - 1, (unsigned long long)n);
		return;
	}
	for (size_t i = len; i-- > 1; n >>= 8)
		p[i] = (uint8_t)n;
	p[0] = 0x80;
}

void vd_tar_header(uint8_t out[VD_TAR_BLOCK], const char *name, uint64_t len, uint64_t mtime)
{
	memset(out, 0, VD_TAR_BLOCK);
	snprintf((char *)out, 100, "%s", name);
	put_number(out + 100, 8, 0644);
	put_number(out + 108, 8, 0);
	put_number(out + 116, 8, 0);
	put_number(out + AT_SIZE, 12, len);
	put_number(out + AT_MTIME, 12, mtime);
	out[AT_TYPE] = '0';
	memcpy(out + AT_MAGIC, "ustar\00000", 8);
	snprintf((char *)out + AT_CHECKSUM, 8, "%06o", checksum(out));
	out[AT_CHECKSUM + 7] = ' ';
}
