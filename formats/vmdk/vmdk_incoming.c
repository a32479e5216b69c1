/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads stream-optimized disks from the first byte to the last, marker by marker. Unpacking grains and storing them is the
 * core's part.
 *
 * The tables decide which grain is where, and other readers ask them alone. Here grains are handed on before their tables
 * come, so at the end both have to say the same:
 *
 * R1  Tables behind the grains (VMware): each grain and each entry of a table is taken into a sum, under a key made for
 *     the occasion, by its number and its sector. The disk is sound when the sums are the same: nothing that a table names is
 *     missing, or was something else, and nothing came that no table names. Kept are the directory and a sum for each table.
 * R2  Tables before the grains (qemu): they are kept. A grain is handed on when its entry names its sector; at the end all
 *     that are named must have come.
 * R3  A stream ends with its marker, and behind its footer; with tables before the grains it ends with the file.
 */
#include "formats/vmdk/vmdk.h"

#include <stdlib.h>
#include <sys/random.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define TABLES_MAX      (UINT64_C(1) << 20)     /* 32 TiB of the usual grains */
#define FRONT_MAX       (UINT64_C(64) << 20)    /* kept of what lies before the grains: the tables of 512 GiB */
#define FRONT_PIECE     (1u << 20)
#define PROGRESS_MAX    2048                    /* sectors of a marker that only tells how far its writer was */

/* A grain table that has come: its sector, and what its entries sum up to. */
struct table {
	uint32_t sector;
	uint64_t sum;
};

struct incoming {
	struct vd_feed *in;
	struct vd_vmdk_header h;
	struct vd_vmdk_sparse sp;
	uint8_t *front;                 /* the file up to the first marker */
	uint64_t front_len;
	bool tables_first;              /* R2, else R1 */
	uint64_t n_named, n_came;       /* R2 */
	uint64_t key[3], grains_sum;    /* R1 */
	struct table *tables;
	size_t n_tables, room;
	uint32_t *gd;
	uint64_t gd_sector;             /* 0: has not come */
	bool has_footer, has_end;
	uint64_t sound, sound_to;       /* whole grains came up to this byte of the disk, and of the file */
};

static int corrupt(const struct incoming *s, struct vd_error *e, uint64_t at, const char *what)
{
	vd_fail_at(e, VD_ECORRUPT, at, "%s: %s", vd_feed_name(s->in), what);
	return vd_hint(e, VD_ECORRUPT, "copy or download the file again; up to here the first %" PRIu64 " bytes of the disk came",
		       vd_min_u64(s->sound, s->sp.capacity));
}

static int cut_off(const struct incoming *s, struct vd_error *e)
{
	int r = vd_vmdk_cut_off(e, vd_feed_at(s->in), s->sound_to, s->sound, s->sp.capacity);

	return vd_error_prefix(e, r, "%s: ", vd_feed_name(s->in));
}

/* All of it, or it is cut off. */
static int take(struct incoming *s, void *buf, uint64_t len, struct vd_error *e)
{
	uint64_t got;
	int r = vd_feed_take(s->in, buf, len, &got, e);

	return r < 0 || got == len ? r : cut_off(s, e);
}

/* ---- before the grains ------------------------------------------------------------------------------------ */

/* Room grows with what comes, not with what the header says. */
static int take_front(struct incoming *s, uint64_t len, struct vd_error *e)
{
	int r = 0;

	if (len > FRONT_MAX) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: %" PRIu64 " bytes before the first grain are too many to be kept",
			vd_feed_name(s->in), len);
		return vd_hint(e, VD_EUNSUPPORTED, "save it into a file, and convert that");
	}
	while (s->front_len < len && r == 0) {
		uint64_t n = vd_min_u64(FRONT_PIECE, len - s->front_len);

		r = vd_realloc(&s->front, s->front_len + n, 1, e);
		if (r == 0)
			r = take(s, s->front + s->front_len, n, e);
		s->front_len += n;
	}
	return r;
}

/* A table that lies before the grains; NULL: it does not, or not where tables can. */
static const uint8_t *in_front(const struct incoming *s, uint64_t sector, uint64_t len)
{
	if (sector >= VMDK_SECTORS_MAX || !vd_range_inside(sector * VMDK_SECTOR, len, s->front_len) ||
	    vd_vmdk_overlaps(&s->sp, sector * VMDK_SECTOR, len))
		return NULL;
	return s->front + sector * VMDK_SECTOR;
}

static int judge_descriptor(struct incoming *s, struct vd_error *e)
{
	struct vd_vmdk_descriptor d = { .parent_cid = VMDK_CID_NONE };
	int r = vd_vmdk_header_place(&s->h, s->front_len, &s->sp, e);

	if (r < 0 || !s->sp.desc_len)
		return r;
	r = vd_vmdk_descriptor_parse((struct vd_bytes){ s->front + s->sp.desc_off, s->sp.desc_len }, &d, e);
	if (r == 0)
		r = vd_vmdk_judge_embedded(&d, e);
	if (r == 0 && d.parent_cid != VMDK_CID_NONE)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: a disk with a parent is not read from a stream", vd_feed_name(s->in));
	vd_vmdk_descriptor_fini(&d);
	return r;
}

static int judge_header(struct incoming *s, struct vd_error *e)
{
	uint32_t needed = VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS;
	int r = vd_vmdk_header_judge(&s->h, e);

	if (r == 0 && (s->h.flags & needed) != needed) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: of VMDK only stream-optimized disks with markers are read from a stream",
			vd_feed_name(s->in));
		r = vd_hint(e, r, "save it into a file, and convert that");
	}
	if (r == 0)
		r = vd_vmdk_header_apply(&s->h, &s->sp, e);
	if (r == 0 && s->sp.n_tables > TABLES_MAX)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: %" PRIu64 " grain tables are too many to be kept: save it into a file, and convert "
			    "that", vd_feed_name(s->in), s->sp.n_tables);
	return r;
}

/* The entry of a grain, by the tables before the grains; 0: there is none. */
static uint32_t entry_in_front(const struct incoming *s, uint64_t gd_off, uint64_t number)
{
	const uint8_t *gd = in_front(s, gd_off, s->sp.n_tables * 4), *gt = NULL;
	uint32_t sector = gd ? vd_get_le32(gd + number / s->sp.entries * 4) : 0;

	if (sector)
		gt = in_front(s, sector, s->sp.entries * 4);
	return gt ? vd_get_le32(gt + number % s->sp.entries * 4) : 0;
}

static bool is_table_in_front(const struct incoming *s, uint64_t index)
{
	uint32_t sector = vd_get_le32(s->front + s->h.gd_off * VMDK_SECTOR + 4 * index);

	return !sector || in_front(s, sector, s->sp.entries * 4);
}

static bool is_grain(const struct incoming *s, uint32_t entry)
{
	return entry && !(entry == 1 && s->h.flags & VMDK_FLAG_ZEROED);
}

/* A reader that can look around may choose between them. */
static int two_tables(const struct incoming *s, struct vd_error *e)
{
	vd_fail(e, VD_EUNSUPPORTED, "%s: there are two sets of grain tables, and they differ or come at different ends",
		vd_feed_name(s->in));
	return vd_hint(e, VD_EUNSUPPORTED, "save it into a file, and convert that");
}

static int count_named(struct incoming *s, struct vd_error *e)
{
	uint64_t n = vd_round_up(s->sp.capacity, s->sp.grain) / s->sp.grain;

	if (!in_front(s, s->h.gd_off, s->sp.n_tables * 4))
		return corrupt(s, e, 56, "the grain directory is neither before the first grain nor at the end");
	for (uint64_t i = 0; i < s->sp.n_tables; i++)
		if (!is_table_in_front(s, i))
			return corrupt(s, e, s->h.gd_off * VMDK_SECTOR + 4 * i,
				       "the directory names a grain table that is not before the grains");
	for (uint64_t i = 0; i < n; i++) {
		uint32_t entry = entry_in_front(s, s->h.gd_off, i);

		if (s->h.flags & VMDK_FLAG_REDUNDANT && entry_in_front(s, s->h.rgd_off, i) != entry)
			return two_tables(s, e);
		s->n_named += is_grain(s, entry);
	}
	return 0;
}

static int incoming_open(void *st, struct vd_feed *in, uint64_t size, struct vd_error *e)
{
	struct incoming *s = st;
	uint64_t got;
	int r;

	(void)size;
	s->in = in;
	r = vd_realloc(&s->front, VMDK_HEADER_LEN, 1, e);
	if (r == 0)
		r = vd_feed_take(in, s->front, VMDK_HEADER_LEN, &got, e);
	if (r < 0)
		return r;
	s->front_len = VMDK_HEADER_LEN;
	if (got < VMDK_HEADER_LEN || vd_get_le32(s->front) != VMDK_MAGIC) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: of VMDK only stream-optimized disks are read from a stream", vd_feed_name(in));
		return vd_hint(e, VD_EUNSUPPORTED, "save it into a file, and convert that");
	}
	vd_vmdk_header_get(s->front, &s->h);
	r = judge_header(s, e);
	if (r == 0 && getrandom(s->key, sizeof(s->key), 0) != sizeof(s->key))
		r = vd_fail(e, VD_EIO, "no random numbers are to be had");
	s->sound_to = vd_max_u64(s->sp.overhead, VMDK_HEADER_LEN);
	if (r == 0)
		r = take_front(s, s->sound_to, e);
	if (r == 0)
		r = judge_descriptor(s, e);
	/* A directory that the header names behind the first grain was written there when the grains were. */
	s->tables_first = s->h.gd_off < s->front_len / VMDK_SECTOR;
	if (r == 0 && s->tables_first)
		return count_named(s, e);
	return r == 0 && s->h.flags & VMDK_FLAG_REDUNDANT ? two_tables(s, e) : r;
}

static void incoming_close(void *st)
{
	struct incoming *s = st;

	free(s->front);
	free(s->tables);
	free(s->gd);
}

static void incoming_describe(const void *st, struct vd_incoming_info *i)
{
	const struct incoming *s = st;

	*i = (struct vd_incoming_info){
		.size = s->sp.capacity, .unit_max = s->sp.grain, .host_max = vd_vmdk_packed_max(&s->sp),
	};
}

/* ---- sums ------------------------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t key, uint64_t a, uint64_t b)
{
	uint64_t x = (key ^ a) * UINT64_C(0x9e3779b97f4a7c15) + b;

	for (int i = 0; i < 2; i++) {
		x = (x ^ (x >> 31)) * UINT64_C(0xbf58476d1ce4e5b9) + key;
		x = (x ^ (x >> 29)) * UINT64_C(0x94d049bb133111eb);
	}
	return x ^ (x >> 32);
}

static uint64_t entry_sum(const struct incoming *s, uint64_t index, uint32_t sector)
{
	return mixed(s->key[0], index + s->key[2], sector);
}

/* Odd, so that nothing of the sum is lost. */
static uint64_t weight_of_table(const struct incoming *s, uint64_t index)
{
	return mixed(s->key[1], index, 0) | 1;
}

static const struct table *find_table(const struct incoming *s, uint32_t sector)
{
	size_t low = 0, high = s->n_tables;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (s->tables[mid].sector < sector)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->n_tables && s->tables[low].sector == sector ? &s->tables[low] : NULL;
}

/* Keeps R1. */
static int compare_sums(struct incoming *s, struct vd_error *e)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < s->sp.n_tables; i++) {
		const struct table *t = s->gd[i] ? find_table(s, s->gd[i]) : NULL;

		if (s->gd[i] && !t)
			return corrupt(s, e, s->gd_sector * VMDK_SECTOR + i * 4, "the directory names a grain table that did not come");
		if (t)
			sum += weight_of_table(s, i) * t->sum;
	}
	if (sum != s->grains_sum)
		return corrupt(s, e, s->gd_sector * VMDK_SECTOR, "the tables at the end name other grains than those that came");
	return 0;
}

/* ---- what markers announce -------------------------------------------------------------------------------- */

static int add_table(struct incoming *s, const struct table *t, struct vd_error *e)
{
	if (s->n_tables == s->room) {
		size_t room = s->room * 2 + 64;
		int r = vd_realloc(&s->tables, room, sizeof(*s->tables), e);

		if (r < 0)
			return r;
		s->room = room;
	}
	s->tables[s->n_tables++] = *t;
	return 0;
}

static int take_table(struct incoming *s, uint64_t sectors, struct vd_error *e)
{
	uint64_t at = vd_feed_at(s->in), len = sectors * VMDK_SECTOR;
	struct table t = { .sector = at / VMDK_SECTOR };
	vd_auto_free uint8_t *raw = NULL;
	int r;

	if (sectors != vd_round_up(s->sp.entries * 4, VMDK_SECTOR) / VMDK_SECTOR)
		return corrupt(s, e, at - VMDK_SECTOR, "a marker announces a grain table of another length than the header");
	if (s->n_tables == TABLES_MAX || at / VMDK_SECTOR > UINT32_MAX)
		return corrupt(s, e, at - VMDK_SECTOR, "there are more grain tables than a disk has");
	r = vd_alloc(1, len, &raw, e);
	if (r == 0)
		r = take(s, raw, len, e);
	for (uint64_t i = 0; i < s->sp.entries && r == 0; i++)
		if (is_grain(s, vd_get_le32(raw + 4 * i)))
			t.sum += entry_sum(s, i, vd_get_le32(raw + 4 * i));
	return r < 0 ? r : add_table(s, &t, e);
}

static int take_directory(struct incoming *s, uint64_t sectors, struct vd_error *e)
{
	uint64_t at = vd_feed_at(s->in), need = vd_round_up(s->sp.n_tables * 4, VMDK_SECTOR);
	vd_auto_free uint8_t *raw = NULL;
	int r;

	if (sectors * VMDK_SECTOR < need || sectors > need / VMDK_SECTOR + PROGRESS_MAX)
		return corrupt(s, e, at - VMDK_SECTOR, "a marker announces a grain directory of another length than the header");
	if (s->gd)
		return corrupt(s, e, at - VMDK_SECTOR, "there are two grain directories");
	r = vd_alloc(vd_max_u64(s->sp.n_tables, 1), sizeof(*s->gd), &s->gd, e);
	if (r == 0)
		r = vd_alloc(1, need, &raw, e);
	if (r == 0)
		r = take(s, raw, need, e);
	for (uint64_t i = 0; i < s->sp.n_tables && r == 0; i++)
		s->gd[i] = vd_get_le32(raw + 4 * i);
	s->gd_sector = at / VMDK_SECTOR;
	return r < 0 ? r : take(s, NULL, sectors * VMDK_SECTOR - need, e);
}

static int take_footer(struct incoming *s, uint64_t sectors, struct vd_error *e)
{
	uint64_t at = vd_feed_at(s->in);
	uint8_t raw[VMDK_HEADER_LEN];
	struct vd_vmdk_header f;
	int r;

	if (sectors != 1 || s->has_footer)
		return corrupt(s, e, at - VMDK_SECTOR, "there is a footer too much, or of another length");
	r = take(s, raw, sizeof(raw), e);
	if (r < 0)
		return r;
	vd_vmdk_header_get(raw, &f);
	if (vd_get_le32(raw) != VMDK_MAGIC || !vd_vmdk_header_is_footers(&s->h, &f) || f.gd_off != s->gd_sector)
		return corrupt(s, e, at, "header and footer of the stream-optimized disk contradict each other");
	s->has_footer = true;
	return 0;
}

/* The stream says that it is over. Keeps R3. */
static int end_by_marker(struct incoming *s, struct vd_error *e)
{
	struct vd_bytes more;
	int r = vd_feed_peek(s->in, 1, &more, e);

	if (r < 0)
		return r;
	if (more.len)
		return corrupt(s, e, vd_feed_at(s->in), "something follows the end of the stream");
	if (!s->gd || (s->h.gd_off == VMDK_GD_AT_END ? !s->has_footer : s->h.gd_off != s->gd_sector))
		return corrupt(s, e, vd_feed_at(s->in), "the stream ended without its directory and footer");
	s->has_end = true;
	return compare_sums(s, e);
}

static int end_by_file(struct incoming *s, struct vd_error *e)
{
	if (!s->tables_first || s->n_came != s->n_named)
		return cut_off(s, e);
	s->has_end = true;
	return 0;
}

static int pass_metadata(struct incoming *s, const uint8_t *raw, struct vd_error *e)
{
	uint64_t sectors = vd_get_le64(raw), at = vd_feed_at(s->in) - VMDK_SECTOR;
	uint32_t type = vd_get_le32(raw + 12);

	/* With tables before the grains, nothing that follows counts; zeros fill the file up. */
	if (s->tables_first)
		return sectors > VMDK_GD_ENTRIES_MAX ? corrupt(s, e, at, "there is no marker where one should be") :
		       take(s, NULL, sectors * VMDK_SECTOR, e);
	switch (type) {
	case VMDK_MARKER_EOS:
		return end_by_marker(s, e);
	case VMDK_MARKER_GT:
		return take_table(s, sectors, e);
	case VMDK_MARKER_GD:
		return take_directory(s, sectors, e);
	case VMDK_MARKER_FOOTER:
		return take_footer(s, sectors, e);
	case VMDK_MARKER_PROGRESS:
		if (sectors <= PROGRESS_MAX)
			return take(s, NULL, sectors * VMDK_SECTOR, e);
		break;
	}
	return corrupt(s, e, at, "there is no marker where one should be");
}

/* ---- grains ----------------------------------------------------------------------------------------------- */

/* Whether the tables know it, as far as that can be told; *known false: no reader would see it. */
static int judge_grain(struct incoming *s, uint64_t at, uint64_t lba, uint32_t size, bool *known, struct vd_error *e)
{
	uint64_t number = lba * VMDK_SECTOR / s->sp.grain;
	uint32_t entry;

	if (lba >= s->h.capacity || lba % s->h.grain)
		return corrupt(s, e, at, "a grain is marked as one that the disk has not");
	if (size < 2 || size > vd_vmdk_packed_max(&s->sp))
		return corrupt(s, e, at, "a compressed grain claims a length that is not possible");
	if (at / VMDK_SECTOR > UINT32_MAX)
		return corrupt(s, e, at, "a grain lies beyond the 2 TiB that tables can name");
	if (!s->tables_first) {
		s->grains_sum += weight_of_table(s, number / s->sp.entries) *
				 entry_sum(s, number % s->sp.entries, at / VMDK_SECTOR);
		return 0;
	}
	entry = entry_in_front(s, s->h.gd_off, number);
	*known = is_grain(s, entry) && entry == at / VMDK_SECTOR;
	return 0;
}

static int pass_padding(struct incoming *s, struct vd_error *e)
{
	uint64_t over = vd_feed_at(s->in) % VMDK_SECTOR, got;

	/* The last grain of a file may end it. */
	return over ? vd_feed_take(s->in, NULL, VMDK_SECTOR - over, &got, e) : 0;
}

static int begin_grain(struct incoming *s, const uint8_t *raw, struct vd_run *r, struct vd_error *e)
{
	uint64_t lba = vd_get_le64(raw), at = vd_feed_at(s->in) - VMDK_MARKER_LEN, inside;
	uint32_t size = vd_get_le32(raw + 8);
	bool known = true;
	int ret = judge_grain(s, at, lba, size, &known, e);

	if (ret < 0)
		return ret;
	if (!known)
		return take(s, NULL, size, e);
	s->n_came++;
	inside = vd_min_u64(s->sp.grain, s->sp.capacity - lba * VMDK_SECTOR);
	*r = (struct vd_run){
		.guest_off = lba * VMDK_SECTOR, .len = inside, .where = VD_PACKED,
		.host_off = at + VMDK_MARKER_LEN, .host_len = size,
		.unit_off = lba * VMDK_SECTOR, .unit_len = s->sp.grain, .unit_least = inside < s->sp.grain ? inside : 0,
	};
	return 0;
}

static int incoming_next(void *st, struct vd_run *r, struct vd_error *e)
{
	struct incoming *s = st;
	int ret = 0;

	*r = (struct vd_run){ 0 };
	while (ret == 0 && !r->len && !s->has_end) {
		uint8_t raw[VMDK_SECTOR];
		struct vd_bytes some;

		ret = pass_padding(s, e);
		if (ret == 0)
			ret = vd_feed_peek(s->in, 1, &some, e);
		if (ret < 0)
			return ret;
		if (!some.len)
			return end_by_file(s, e);
		ret = take(s, raw, VMDK_MARKER_LEN, e);
		if (ret == 0 && vd_get_le32(raw + 8)) {
			ret = begin_grain(s, raw, r, e);
			continue;
		}
		if (ret == 0)
			ret = take(s, raw + VMDK_MARKER_LEN, VMDK_SECTOR - VMDK_MARKER_LEN, e);
		if (ret == 0)
			ret = pass_metadata(s, raw, e);
	}
	return ret;
}

static int incoming_take(void *st, struct vd_run *r, uint8_t *buf, struct vd_error *e)
{
	struct incoming *s = st;
	int ret = take(s, buf, r->host_len, e);

	if (ret < 0)
		return ret;
	r->codec = vd_vmdk_codec_of(buf);
	s->sound = r->guest_off + r->len;
	s->sound_to = r->host_off + r->host_len;
	return 0;
}

const struct vd_incoming_ops vd_vmdk_incoming_ops = {
	.state_size = sizeof(struct incoming),
	.open = incoming_open,
	.close = incoming_close,
	.describe = incoming_describe,
	.next = incoming_next,
	.take = incoming_take,
};
