/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log of this handle: opens and closes it in the headers, and writes entries for the commits (keeps X2 and X3). */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cursor.h"

#define ENTRY_MAX (4u << 20)

/* ---- entries -------------------------------------------------------------------------------------------- */

static uint32_t descriptors_bytes(size_t n)
{
	return vd_round_up(VHDX_LOG_HEADER_BYTES + n * VHDX_DESCRIPTOR_BYTES, VHDX_LOG_SECTOR);
}

/* At most half of the log, so that the entry before stays whole. */
static size_t entry_max(const struct vd_vhdx *s)
{
	return vd_min_u64(s->log.len / 2, ENTRY_MAX);
}

static size_t pages_max(const struct vd_vhdx *s)
{
	size_t n = entry_max(s) / VHDX_LOG_SECTOR - 1;

	while (descriptors_bytes(n) + n * VHDX_LOG_SECTOR > entry_max(s))
		n--;
	return n;
}

static void put_page(uint8_t *descriptor, uint8_t *data, const struct vd_meta_change *page, uint64_t sequence)
{
	memcpy(descriptor, "desc", 4);
	memcpy(descriptor + 4, page->data + VHDX_LOG_SECTOR - 4, 4);
	memcpy(descriptor + 8, page->data, 8);
	vd_put_le64(descriptor + 16, page->off);
	vd_put_le64(descriptor + 24, sequence);
	memcpy(data, "data", 4);
	vd_put_le32(data + 4, sequence >> 32);
	memcpy(data + 8, page->data + 8, VHDX_LOG_DATA_BYTES);
	vd_put_le32(data + VHDX_LOG_SECTOR - 4, sequence);
}

/*
 * [MS-VHDX] 2.3.1.1: FlushedFileOffset promises what stable storage has of the file, LastFileOffset tells what its structures
 * need. Another writer may have made the file longer since the last flush: a crash may take that back, and a promise of it would
 * call the file cut short.
 */
static uint32_t build_entry(struct vd_vhdx *s, const struct vd_meta_change *pages, size_t n, uint64_t file_size)
{
	uint32_t length = descriptors_bytes(n) + n * VHDX_LOG_SECTOR;
	struct vd_writer w = vd_writer_of(s->log_buf, VHDX_LOG_HEADER_BYTES);

	memset(s->log_buf, 0, descriptors_bytes(n));
	vd_write_bytes(&w, "loge", 4);
	vd_write_le32(&w, 0);
	vd_write_le32(&w, length);
	vd_write_le32(&w, s->log_head);
	vd_write_le64(&w, s->log_sequence);
	vd_write_le32(&w, n);
	vd_write_le32(&w, 0);
	vd_write_bytes(&w, s->h.log, VD_GUID_LEN);
	vd_write_le64(&w, s->flushed_end);
	vd_write_le64(&w, file_size);
	for (size_t i = 0; i < n; i++)
		put_page(s->log_buf + VHDX_LOG_HEADER_BYTES + i * VHDX_DESCRIPTOR_BYTES,
			 s->log_buf + descriptors_bytes(n) + i * VHDX_LOG_SECTOR, &pages[i], s->log_sequence);
	vd_put_le32(s->log_buf + 4, vd_crc32c(0, s->log_buf, length));
	return length;
}

static int write_round(struct vd_vhdx *s, uint32_t length, struct vd_error *e)
{
	uint32_t first = vd_min_u64(length, s->log.len - s->log_head);
	int r = vd_set_pwrite(s->set, 0, s->log_buf, first, s->log.off + s->log_head, e);

	if (r == 0 && first < length)
		r = vd_set_pwrite(s->set, 0, s->log_buf + first, length - first, s->log.off, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int log_pages(void *ctx, const struct vd_meta_change *pages, size_t n, struct vd_error *e)
{
	struct vd_vhdx *s = ctx;
	uint64_t file_size;
	uint32_t length;
	int r = vd_io_size(vd_set_io(s->set, 0), &file_size, e);

	if (r < 0)
		return r;
	length = build_entry(s, pages, n, file_size);
	r = write_round(s, length, e);
	if (r == 0)
		s->flushed_end = file_size;
	s->log_head = (s->log_head + (uint64_t)length) % s->log.len;
	s->log_sequence++;
	return r;
}

/* ---- the log as a whole --------------------------------------------------------------------------------- */

static int start_entries(struct vd_vhdx *s, struct vd_error *e)
{
	const struct vd_meta_journal journal = { .ctx = s, .max_pages = pages_max(s), .log = log_pages };
	int r = vd_guid_make(s->h.log, true, e);

	if (r == 0)
		r = vd_io_size(vd_set_io(s->set, 0), &s->flushed_end, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	s->log_sequence = 1;
	s->log_head = 0;
	/* An empty one, so that the log is sound as soon as a header speaks of it. */
	if (r == 0)
		r = log_pages(s, NULL, 0, e);
	if (r == 0)
		vd_meta_set_journal(s->meta, &journal);
	return r;
}

/* Ends a log that was replayed before its place is written over. */
static int end_replayed(struct vd_vhdx *s, struct vd_error *e)
{
	int r;

	if (!memcmp(s->h.log, vd_vhdx_no_guid, VD_GUID_LEN))
		return 0;
	r = vd_vhdx_log_settle(s, e);
	memset(s->h.log, 0, VD_GUID_LEN);
	return r < 0 ? r : vd_vhdx_headers_write(s, e);
}

/* The file changes with the log, the disk with what the caller is about to write. */
static int make_identifiers(struct vd_vhdx *s, enum vd_vhdx_change change, struct vd_error *e)
{
	int r = vd_guid_make(s->h.file_write, true, e);

	if (r < 0 || change == VHDX_CHANGES_TABLES)
		return r;
	s->has_new_identifier = true;
	if (!memcmp(s->next_data_write, vd_vhdx_no_guid, VD_GUID_LEN))
		return vd_guid_make(s->h.data_write, true, e);
	memcpy(s->h.data_write, s->next_data_write, VD_GUID_LEN);
	return 0;
}

/* What the headers said stays what they say until they are written: a failure leaves all to be tried again. */
static int open_log(struct vd_vhdx *s, enum vd_vhdx_change change, struct vd_error *e)
{
	struct vd_vhdx_header before = s->h;
	int r = 0;

	if (!s->log_buf)
		r = vd_alloc_buffer(entry_max(s), &s->log_buf, e);
	if (r == 0)
		r = end_replayed(s, e);
	if (r < 0) {
		memcpy(s->h.log, before.log, VD_GUID_LEN);
		return r;
	}
	r = start_entries(s, e);
	if (r == 0)
		r = make_identifiers(s, change, e);
	if (r == 0)
		r = vd_vhdx_headers_write(s, e);
	if (r < 0)
		memset(s->h.log, 0, VD_GUID_LEN);
	s->log_is_open = r == 0;
	return r;
}

int vd_vhdx_log_open(struct vd_vhdx *s, enum vd_vhdx_change change, struct vd_error *e)
{
	int r;

	if (!s->log_is_open)
		return open_log(s, change, e);
	if (change == VHDX_CHANGES_TABLES || s->has_new_identifier)
		return 0;
	r = make_identifiers(s, change, e);
	return r < 0 ? r : vd_vhdx_headers_write(s, e);
}

int vd_vhdx_log_close(struct vd_vhdx *s, struct vd_error *e)
{
	if (!s->log_is_open)
		return 0;
	s->log_is_open = s->has_new_identifier = false;
	memset(s->h.log, 0, VD_GUID_LEN);
	return vd_vhdx_headers_write(s, e);
}
