/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* By the text of VMware's "Virtual Disk Format 5.0", and by the files of others, without a line of the library's writer. */
#include "tests/support/vmdk_stream_bytes.h"

#include <zlib.h>

#define SECTOR 512
#define GD_SECTOR 6                     /* tables first: the directory; a table in each sector after it */

static uint8_t *grow(struct stream_bytes *s, size_t len)
{
	uint8_t *at;

	s->p = realloc(s->p, s->len + len);
	assert_non_null(s->p);
	at = s->p + s->len;
	memset(at, 0, len);
	s->len += len;
	return at;
}

static void put_header(uint8_t *p, bool tables_first, uint64_t gd_sector)
{
	vd_put_le32(p, 0x564d444b);
	vd_put_le32(p + 4, 3);
	vd_put_le32(p + 8, 0x30001);
	vd_put_le64(p + 12, STREAM_SIZE / SECTOR);
	vd_put_le64(p + 20, STREAM_GRAIN / SECTOR);
	vd_put_le64(p + 28, 1);
	vd_put_le64(p + 36, 4);
	vd_put_le32(p + 44, STREAM_GTES);
	vd_put_le64(p + 56, tables_first ? GD_SECTOR : gd_sector);
	vd_put_le64(p + 64, STREAM_FRONT);
	memcpy(p + 73, "\n \r\n", 4);
	vd_put_le16(p + 77, 1);
}

struct stream_bytes stream_start(bool tables_first)
{
	struct stream_bytes s = { .tables_first = tables_first };
	uint8_t *p = grow(&s, STREAM_FRONT * SECTOR);

	put_header(p, tables_first, UINT64_MAX);
	strcpy((char *)p + SECTOR, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
	       "createType=\"streamOptimized\"\nRDONLY 192 SPARSE \"x.vmdk\"\n");
	return s;
}

void stream_add_bytes(struct stream_bytes *s, unsigned grain, const uint8_t plain[STREAM_GRAIN])
{
	uint8_t packed[STREAM_GRAIN + 1000], *at;
	uLongf n = sizeof(packed);

	assert_int_equal(compress(packed, &n, plain, STREAM_GRAIN), Z_OK);
	s->gt[grain] = s->len / SECTOR;
	at = grow(s, (12 + n + SECTOR - 1) / SECTOR * SECTOR);
	vd_put_le64(at, grain * (STREAM_GRAIN / SECTOR));
	vd_put_le32(at + 8, n);
	memcpy(at + 12, packed, n);
}

void stream_add(struct stream_bytes *s, unsigned grain, uint8_t value)
{
	uint8_t plain[STREAM_GRAIN];

	memset(plain, value, sizeof(plain));
	stream_add_bytes(s, grain, plain);
}

static size_t add_marker(struct stream_bytes *s, uint64_t sectors, uint32_t type)
{
	uint8_t *at = grow(s, SECTOR + sectors * SECTOR);

	vd_put_le64(at, sectors);
	vd_put_le32(at + 12, type);
	return s->len - sectors * SECTOR;
}

static void put_entries(uint8_t *p, const uint32_t *entries, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		vd_put_le32(p + 4 * i, entries[i]);
}

void stream_end(struct stream_bytes *s)
{
	for (unsigned t = 0; t < STREAM_N_TABLES; t++) {
		size_t at = s->tables_first ? (GD_SECTOR + 1 + t) * SECTOR : add_marker(s, 1, 1);

		s->gd[t] = at / SECTOR;
		put_entries(s->p + at, s->gt + t * STREAM_GTES, STREAM_GTES);
	}
	s->gd_at = s->tables_first ? GD_SECTOR * SECTOR : add_marker(s, 1, 2);
	put_entries(s->p + s->gd_at, s->gd, STREAM_N_TABLES);
	if (s->tables_first)
		return;
	s->footer_at = add_marker(s, 1, 3);
	put_header(s->p + s->footer_at, false, s->gd_at / SECTOR);
	s->eos_at = add_marker(s, 0, 0) - SECTOR;
}

void stream_free(struct stream_bytes *s)
{
	free(s->p);
}
