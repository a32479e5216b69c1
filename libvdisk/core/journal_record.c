/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes records of a conversion in place, and finds those that a crash left whole. */
#include "libvdisk/core/journal.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"
#include "libvdisk/core/journal_layout.h"

static const uint8_t magic[8] = { 'v', 'd', 'i', 's', 'k', 'r', 'e', 'c' };
#define HEAD_LEN 512
#define MAC_AT (HEAD_LEN - VD_JOURNAL_MAC)
#define ENTRY_LEN 48

_Static_assert(HEAD_LEN + (uint64_t)VD_JOURNAL_CHUNKS * ENTRY_LEN <= RECORD_USED, "the table of a record has its room");

static uint64_t place_of(const struct vd_journal *j, uint64_t number)
{
	uint64_t at = HEADERS_AT;

	for (int i = 0; i < 2; i++)
		at = vd_round_up(at + j->state.header_len[i], STATE_LEN);
	return vd_round_up(at, RECORD_ALIGN) + number % 2 * (RECORD_TABLE + (uint64_t)VD_JOURNAL_BATCH);
}

uint64_t vd_journal_room(uint64_t headers, uint64_t payload)
{
	return vd_round_up(HEADERS_AT + 2 * STATE_LEN + headers, RECORD_ALIGN) + 2 * (RECORD_TABLE + payload);
}

static size_t table_len(const struct vd_record *rec)
{
	return HEAD_LEN + (size_t)rec->n_chunks * ENTRY_LEN;
}

static void encode_table(const struct vd_journal *j, const struct vd_record *rec, uint8_t *table)
{
	struct vd_writer w = vd_writer_of(table, table_len(rec));

	vd_write_bytes(&w, magic, sizeof(magic));
	vd_write_bytes(&w, j->state.uuid, sizeof(j->state.uuid));
	vd_write_le64(&w, rec->number);
	vd_write_le32(&w, rec->n_chunks);
	vd_write_u8(&w, rec->has_marks);
	vd_write_u8(&w, rec->is_born);
	vd_write_le32(&w, rec->cursor_file);
	vd_write_le64(&w, rec->cursor);
	vd_write_le64(&w, rec->payload_len);
	vd_write_bytes(&w, rec->salt, sizeof(rec->salt));
	w.pos = HEAD_LEN;
	for (uint32_t i = 0; i < rec->n_chunks; i++) {
		const struct vd_chunk *c = &rec->chunks[i];

		vd_write_le32(&w, c->file);
		vd_write_le32(&w, c->len);
		vd_write_le64(&w, c->src);
		vd_write_le64(&w, c->dst);
		vd_write_le64(&w, c->unit);
		vd_write_bytes(&w, rec->tags[i], VD_JOURNAL_TAG);
	}
}

/* Over the table with zeros where the MAC goes. */
static int mac_table(const struct vd_journal *j, uint8_t *table, size_t len, uint8_t mac[VD_JOURNAL_MAC], struct vd_error *e)
{
	memset(table + MAC_AT, 0, VD_JOURNAL_MAC);
	return vd_journal_mac(j, (struct vd_bytes){ table, len }, mac, e);
}

/* Goes with what is flushed next: a record without it may be one that was torn before anything came of it. */
static int write_used(struct vd_journal *j, uint64_t number, uint64_t at, struct vd_error *e)
{
	uint8_t used[8 + VD_JOURNAL_MAC];
	int r;

	vd_put_le64(used, number);
	r = vd_journal_mac(j, (struct vd_bytes){ used, 8 }, used + 8, e);
	return r < 0 ? r : vd_io_pwrite(j->io, used, sizeof(used), at, e);
}

/* 0: none was. */
static int read_used(struct vd_journal *j, unsigned place, uint64_t *number, struct vd_error *e)
{
	uint8_t used[8 + VD_JOURNAL_MAC], mac[VD_JOURNAL_MAC];
	int r = vd_io_pread(j->io, used, sizeof(used), place_of(j, place) + RECORD_USED, e);

	if (r == 0)
		r = vd_journal_mac(j, (struct vd_bytes){ used, 8 }, mac, e);
	*number = r == 0 && vd_secret_equal(mac, used + 8, sizeof(mac)) ? vd_get_le64(used) : 0;
	return r;
}

int vd_journal_write_record(struct vd_journal *j, struct vd_record *rec, struct vd_error *e)
{
	vd_auto_free uint8_t *table = NULL;
	uint8_t mac[VD_JOURNAL_MAC];
	uint64_t at;
	int r = vd_alloc(1, table_len(rec), &table, e);

	if (r < 0)
		return r;
	rec->number = ++j->n_records;
	at = place_of(j, rec->number);
	encode_table(j, rec, table);
	r = mac_table(j, table, table_len(rec), mac, e);
	memcpy(table + MAC_AT, mac, sizeof(mac));
	if (r == 0)
		r = vd_io_pwrite(j->io, rec->payload, rec->payload_len, at + RECORD_TABLE, e);
	if (r == 0)
		r = vd_io_pwrite(j->io, table, table_len(rec), at, e);
	if (r == 0)
		r = vd_io_flush(j->io, e);
	return r < 0 ? r : write_used(j, rec->number, at + RECORD_USED, e);
}

/* ---- reading -------------------------------------------------------------------------------------------- */

void vd_record_fini(struct vd_record *rec)
{
	free(rec->chunks);
	free(rec->tags);
	free(rec->payload);
	*rec = (struct vd_record){ 0 };
}

static void decode_head(struct vd_record *rec, const uint8_t *head)
{
	struct vd_reader rd = vd_reader_of(head, HEAD_LEN);

	vd_reader_take(&rd, sizeof(magic) + 16);
	rec->number = vd_read_le64(&rd);
	rec->n_chunks = vd_read_le32(&rd);
	rec->has_marks = vd_read_u8(&rd);
	rec->is_born = vd_read_u8(&rd);
	rec->cursor_file = vd_read_le32(&rd);
	rec->cursor = vd_read_le64(&rd);
	rec->payload_len = vd_read_le64(&rd);
	memcpy(rec->salt, vd_reader_take(&rd, sizeof(rec->salt)), sizeof(rec->salt));
}

static int decode_chunks(struct vd_record *rec, const uint8_t *table, struct vd_error *e)
{
	struct vd_reader rd = vd_reader_of(table + HEAD_LEN, (size_t)rec->n_chunks * ENTRY_LEN);
	int r = vd_alloc(rec->n_chunks, sizeof(*rec->chunks), &rec->chunks, e);

	if (r == 0)
		r = vd_alloc(rec->n_chunks, sizeof(*rec->tags), &rec->tags, e);
	for (uint32_t i = 0; i < rec->n_chunks && r == 0; i++) {
		struct vd_chunk *c = &rec->chunks[i];

		c->file = vd_read_le32(&rd);
		c->len = vd_read_le32(&rd);
		c->src = vd_read_le64(&rd);
		c->dst = vd_read_le64(&rd);
		c->unit = vd_read_le64(&rd);
		memcpy(rec->tags[i], vd_reader_take(&rd, VD_JOURNAL_TAG), VD_JOURNAL_TAG);
	}
	return r;
}

static int read_table(struct vd_journal *j, uint64_t at, struct vd_record *rec, bool *sound, struct vd_error *e)
{
	vd_auto_free uint8_t *table = NULL;
	uint8_t head[HEAD_LEN], mac[VD_JOURNAL_MAC], said[VD_JOURNAL_MAC];
	int r = vd_io_pread(j->io, head, sizeof(head), at, e);

	*sound = false;
	if (r < 0 || memcmp(head, magic, sizeof(magic)) || memcmp(head + sizeof(magic), j->state.uuid, sizeof(j->state.uuid)))
		return r;
	decode_head(rec, head);
	if (rec->n_chunks > VD_JOURNAL_CHUNKS || rec->payload_len > VD_JOURNAL_BATCH)
		return 0;
	r = vd_alloc(1, table_len(rec), &table, e);
	if (r == 0)
		r = vd_io_pread(j->io, table, table_len(rec), at, e);
	if (r < 0)
		return r;
	memcpy(said, table + MAC_AT, sizeof(said));
	r = mac_table(j, table, table_len(rec), mac, e);
	if (r < 0 || !vd_secret_equal(mac, said, sizeof(mac)))
		return r;
	*sound = true;
	return decode_chunks(rec, table, e);
}

static int read_payload(struct vd_journal *j, uint64_t at, struct vd_record *rec, bool *sound, struct vd_error *e)
{
	int r = vd_alloc_buffer(rec->payload_len + 1, &rec->payload, e);
	uint64_t pos = 0;

	if (r == 0)
		r = vd_io_pread(j->io, rec->payload, rec->payload_len, at, e);
	for (uint32_t i = 0; i < rec->n_chunks && r == 0 && *sound; i++) {
		uint64_t part = vd_record_part(rec, &rec->chunks[i]);
		uint8_t tag[VD_JOURNAL_TAG];

		if (!vd_range_inside(pos, part, rec->payload_len)) {
			*sound = false;
			break;
		}
		r = vd_journal_tag(j, rec->salt, i, (struct vd_bytes){ rec->payload + pos, part }, tag, e);
		*sound = vd_secret_equal(tag, rec->tags[i], sizeof(tag));
		pos += part;
	}
	return r;
}

static int read_one(struct vd_journal *j, unsigned place, struct vd_record *rec, bool *sound, struct vd_error *e)
{
	uint64_t at = place_of(j, place);
	int r = read_table(j, at, rec, sound, e);

	if (r == 0 && *sound)
		r = read_payload(j, at + RECORD_TABLE, rec, sound, e);
	if (r == 0 && *sound && (rec->number <= j->state.record || rec->number % 2 != place))
		*sound = false;
	return r;
}

/* The newest that was put to use has to be there, unless the state speaks of what came after it. */
static int judge_used(struct vd_journal *j, uint64_t newest, struct vd_error *e)
{
	uint64_t number;
	int r = 0;

	for (unsigned place = 0; place < 2 && r == 0; place++) {
		r = read_used(j, place, &number, e);
		if (r == 0 && number > vd_max_u64(newest, j->state.record))
			r = vd_journal_say_changed(j, e);
	}
	return r;
}

int vd_journal_read_record(struct vd_journal *j, unsigned i, struct vd_record *rec, bool *got, struct vd_error *e)
{
	struct vd_record both[2] = { { 0 } };
	bool sound[2] = { false };
	unsigned pick;
	int r = read_one(j, 0, &both[0], &sound[0], e);

	if (r == 0)
		r = read_one(j, 1, &both[1], &sound[1], e);
	if (r == 0)
		r = judge_used(j, vd_max_u64(sound[0] ? both[0].number : 0, sound[1] ? both[1].number : 0), e);
	*got = r == 0 && (i == 0 ? sound[0] || sound[1] : sound[0] && sound[1]);
	if (sound[0] && sound[1])
		pick = (both[0].number < both[1].number) == (i == 0) ? 0 : 1;
	else
		pick = sound[0] ? 0 : 1;
	for (unsigned k = 0; k < 2; k++) {
		if (sound[k] && both[k].number > j->n_records)
			j->n_records = both[k].number;
		if (*got && k == pick)
			*rec = both[k];
		else
			vd_record_fini(&both[k]);
	}
	return r;
}
