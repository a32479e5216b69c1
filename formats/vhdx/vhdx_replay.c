/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a log that is not empty and replays it into the cache of tables (keeps X1); on the first write what was replayed
 * is put in place. Who wrote the log does not matter: sequences of many entries are replayed, too.
 */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define ZEROS_MAX (UINT64_C(64) << 20)  /* zeros that a log may make of tables: a bat, some bitmaps; they are held in memory */
#define CHECKS_MAX 8                    /* the log's length is checksummed so often at most, whatever it looks like */

struct entry {
	const uint8_t *raw;             /* in the doubled log: an entry that goes round is in one piece */
	uint32_t off, length, tail, n;
	uint64_t sequence, flushed, last;
};

/* Entries that follow each other. */
struct run {
	uint32_t first, head;           /* offsets of the first and of the last entry */
	uint64_t sequence;              /* of the last */
};

struct log {
	struct vd_vhdx *s;
	uint8_t *bytes;                 /* twice the log, one after the other */
	uint32_t length;
	uint64_t checked;               /* bytes that were checksummed */
	bool has_entries;               /* something that looks like an entry of this log */
};

/* ---- entries -------------------------------------------------------------------------------------------- */

static uint32_t descriptors_bytes(uint32_t n)
{
	return vd_round_up(VHDX_LOG_HEADER_BYTES + (uint64_t)n * VHDX_DESCRIPTOR_BYTES, VHDX_LOG_SECTOR);
}

static bool checksum_holds(struct log *log, const struct entry *x)
{
	static const uint8_t zeros[4];
	uint32_t crc = vd_crc32c(0, x->raw, 4);

	log->checked += x->length;
	crc = vd_crc32c(crc, zeros, 4);
	return vd_crc32c(crc, x->raw + 8, x->length - 8) == vd_get_le32(x->raw + 4);
}

static bool descriptors_hold(const struct entry *x)
{
	const uint8_t *data = x->raw + descriptors_bytes(x->n);
	uint64_t room = x->length - descriptors_bytes(x->n);

	for (uint32_t i = 0; i < x->n; i++) {
		const uint8_t *d = x->raw + VHDX_LOG_HEADER_BYTES + i * VHDX_DESCRIPTOR_BYTES;
		bool is_data = !memcmp(d, "desc", 4);

		if ((!is_data && memcmp(d, "zero", 4)) || vd_get_le64(d + 24) != x->sequence ||
		    vd_get_le64(d + 16) % VHDX_LOG_SECTOR)
			return false;
		if (!is_data) {
			if (vd_get_le64(d + 8) % VHDX_LOG_SECTOR)
				return false;
			continue;
		}
		if (room < VHDX_LOG_SECTOR || memcmp(data, "data", 4) || vd_get_le32(data + 4) != x->sequence >> 32 ||
		    vd_get_le32(data + VHDX_LOG_SECTOR - 4) != (uint32_t)x->sequence)
			return false;
		data += VHDX_LOG_SECTOR;
		room -= VHDX_LOG_SECTOR;
	}
	return true;
}

/* The entry at off, if there is a whole one of this log. */
static bool entry_at(struct log *log, uint32_t off, struct entry *x)
{
	const uint8_t *raw = log->bytes + off;

	if (memcmp(raw, "loge", 4) || memcmp(raw + 32, log->s->h.log, VD_GUID_LEN))
		return false;
	log->has_entries = true;
	*x = (struct entry){
		.raw = raw, .off = off, .length = vd_get_le32(raw + 8), .tail = vd_get_le32(raw + 12),
		.sequence = vd_get_le64(raw + 16), .n = vd_get_le32(raw + 24), .flushed = vd_get_le64(raw + 48),
		.last = vd_get_le64(raw + 56),
	};
	return x->length && x->length % VHDX_LOG_SECTOR == 0 && x->length <= log->length && x->sequence &&
	       x->tail % VHDX_LOG_SECTOR == 0 && x->tail < log->length && x->n <= x->length / VHDX_DESCRIPTOR_BYTES &&
	       descriptors_bytes(x->n) <= x->length && checksum_holds(log, x) && descriptors_hold(x);
}

static uint32_t behind(const struct log *log, const struct entry *x)
{
	return (x->off + (uint64_t)x->length) % log->length;
}

/*
 * From the entry at run->first on, as far as sequence numbers follow. False: nothing to replay. *used: how many bytes
 * need not be looked at again.
 */
static bool follow(struct log *log, uint32_t first, struct run *run, uint32_t *used)
{
	struct entry x, next;
	uint32_t back;

	*used = VHDX_LOG_SECTOR;
	if (!entry_at(log, first, &x))
		return false;
	for (*used = x.length; *used < log->length && entry_at(log, behind(log, &x), &next) &&
	     next.sequence == x.sequence + 1 && next.length <= log->length - *used; *used += next.length)
		x = next;
	*run = (struct run){ x.tail, x.off, x.sequence };
	/* The last one's tail is among those found: all that it needs is there. Replay sees whether an entry begins there. */
	back = (x.off + log->length - x.tail) % log->length;
	return back <= (x.off + log->length - first) % log->length;
}

static int find_newest(struct log *log, struct run *newest, struct vd_error *e)
{
	uint32_t used;

	*newest = (struct run){ 0 };
	for (uint32_t off = 0; off < log->length; off += used) {
		struct run run;

		if (follow(log, off, &run, &used) && run.sequence > newest->sequence)
			*newest = run;
		if (log->checked > (uint64_t)CHECKS_MAX * log->length)
			return vd_corrupt(log->s->name, e, log->s->log.off, "the log's entries lie over each other");
	}
	return 0;
}

/* ---- replay --------------------------------------------------------------------------------------------- */

static int note(struct vd_vhdx *s, uint64_t off, uint64_t len, struct vd_error *e)
{
	int r = vd_realloc(&s->replayed, s->n_replayed + 1, sizeof(*s->replayed), e);

	if (r == 0)
		s->replayed[s->n_replayed++] = (struct vd_vhdx_area){ "replayed", off, len };
	return r;
}

static int judge_place(const struct vd_vhdx *s, uint64_t off, uint64_t len, uint64_t last, struct vd_error *e)
{
	const struct vd_vhdx_area *log = &s->log;

	if (off >= VHDX_REGIONS_OFF && vd_range_inside(off, len, last) && (off >= log->off + log->len || off + len <= log->off))
		return 0;
	return vd_corrupt(s->name, e, log->off, "the log would change %" PRIu64 " bytes at %" PRIu64 ", where it may not", len, off);
}

static int replay_zeros(struct vd_vhdx *s, const struct entry *x, const uint8_t *d, uint64_t *zeros, struct vd_error *e)
{
	uint64_t len = vd_get_le64(d + 8), off = vd_get_le64(d + 16);
	int r = judge_place(s, off, len, x->last, e);

	if (r < 0 || !len)
		return r;
	*zeros += len;
	if (*zeros > ZEROS_MAX)
		return vd_fail_at(e, VD_EUNSUPPORTED, s->log.off, "the log makes zeros of %" PRIu64 " bytes of tables, more than is held in memory",
				  *zeros);
	r = vd_meta_zero(s->meta, 0, off, len, VD_RANK_INDEX, e);
	return r < 0 ? r : note(s, off, len, e);
}

static int replay_data(struct vd_vhdx *s, const struct entry *x, const uint8_t *d, const uint8_t *data, struct vd_error *e)
{
	uint64_t off = vd_get_le64(d + 16);
	uint8_t sector[VHDX_LOG_SECTOR];
	int r = judge_place(s, off, sizeof(sector), x->last, e);

	if (r < 0)
		return r;
	memcpy(sector, d + 8, 8);
	memcpy(sector + 8, data + 8, VHDX_LOG_DATA_BYTES);
	memcpy(sector + sizeof(sector) - 4, d + 4, 4);
	r = vd_meta_write(s->meta, 0, off, sector, sizeof(sector), VD_RANK_INDEX, e);
	return r < 0 ? r : note(s, off, sizeof(sector), e);
}

static int replay_entry(struct vd_vhdx *s, const struct entry *x, uint64_t *zeros, struct vd_error *e)
{
	const uint8_t *data = x->raw + descriptors_bytes(x->n);
	int r = 0;

	for (uint32_t i = 0; i < x->n && r == 0; i++) {
		const uint8_t *d = x->raw + VHDX_LOG_HEADER_BYTES + i * VHDX_DESCRIPTOR_BYTES;

		if (!memcmp(d, "zero", 4)) {
			r = replay_zeros(s, x, d, zeros, e);
			continue;
		}
		r = replay_data(s, x, d, data, e);
		data += VHDX_LOG_SECTOR;
	}
	return r;
}

static int replay_run(struct log *log, const struct run *run, uint64_t file_size, struct vd_error *e)
{
	struct vd_vhdx *s = log->s;
	uint32_t at = run->first;
	uint64_t zeros = 0;
	struct entry x;
	int r;

	do {
		if (!entry_at(log, at, &x) || x.sequence > run->sequence)
			return vd_corrupt(s->name, e, s->log.off + at, "no entry of the log begins where the last one's tail is");
		r = replay_entry(s, &x, &zeros, e);
		at = behind(log, &x);
	} while (r == 0 && x.off != run->head);
	if (r < 0)
		return r;
	if (file_size < x.flushed)
		return vd_corrupt(s->name, e, file_size, "the file was cut short: by its log it has at least %" PRIu64 " bytes", x.flushed);
	if (x.last > INT64_MAX)
		return vd_corrupt(s->name, e, s->log.off, "the log says that the file has %" PRIu64 " bytes", x.last);
	s->replayed_end = x.last;
	return 0;
}

static int load(struct log *log, struct vd_io *io, struct vd_error *e)
{
	struct vd_vhdx *s = log->s;
	int r;

	if (s->log.len > VHDX_LOG_LENGTH_MAX)
		return vd_fail_at(e, VD_EUNSUPPORTED, s->log.off, "a log of %" PRIu64 " bytes is longer than is read", s->log.len);
	log->length = s->log.len;
	r = vd_alloc_buffer(2 * (size_t)log->length, &log->bytes, e);
	if (r == 0)
		r = vd_io_pread(io, log->bytes, log->length, s->log.off, e);
	if (r == 0)
		memcpy(log->bytes + log->length, log->bytes, log->length);
	return r;
}

int vd_vhdx_log_replay(struct vd_vhdx *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	struct log log = { .s = s };
	vd_auto_free uint8_t *bytes = NULL;
	struct run newest = { 0 };
	int r;

	if (!memcmp(s->h.log, vd_vhdx_no_guid, VD_GUID_LEN))
		return 0;
	r = load(&log, io, e);
	bytes = log.bytes;
	if (r == 0)
		r = find_newest(&log, &newest, e);
	if (r < 0)
		return r;
	/* qemu says that there is a log before it writes its first entry. */
	if (!newest.sequence && !log.has_entries)
		return 0;
	if (!newest.sequence)
		return vd_corrupt(s->name, e, s->log.off, "the log is not empty, and none of its entries is whole");
	return replay_run(&log, &newest, file_size, e);
}

bool vd_vhdx_is_replayed(const struct vd_vhdx *s, uint64_t off, uint64_t len)
{
	size_t n = s->n_replayed;

	for (size_t i = 0; i < n; i++)
		if (s->replayed[i].off < off + len && off < s->replayed[i].off + s->replayed[i].len)
			return true;
	return false;
}

/* ---- putting in place ----------------------------------------------------------------------------------- */

static int settle_area(struct vd_vhdx *s, const struct vd_vhdx_area *a, struct vd_error *e)
{
	uint8_t sector[VHDX_LOG_SECTOR];
	int r = 0;

	for (uint64_t at = a->off; at < a->off + a->len && r == 0; at += sizeof(sector)) {
		r = vd_meta_read(s->meta, 0, at, sector, sizeof(sector), 0, e);
		if (r == 0)
			r = vd_set_pwrite(s->set, 0, sector, sizeof(sector), at, e);
	}
	return r;
}

int vd_vhdx_log_settle(struct vd_vhdx *s, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, 0);
	uint64_t size;
	int r = vd_io_size(io, &size, e);

	if (r == 0 && size < s->replayed_end)
		r = vd_io_truncate(io, s->replayed_end, e);
	for (size_t i = 0; i < s->n_replayed && r == 0; i++)
		r = settle_area(s, &s->replayed[i], e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_replayed; i++)
		vd_meta_forget(s->meta, 0, s->replayed[i].off, s->replayed[i].len);
	/* The list stays until the end: readers may be in it. */
	s->n_replayed = 0;
	return 0;
}
