/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LVM2: the text that a physical volume has at its beginning, and the linear logical volumes that it describes. Every other kind
 * of logical volume is told as one that cannot be read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsview/reader/reader.h"

#define TEXT_MAX ((size_t)1 << 20)
#define PVS_MAX 64

struct pv {
	char uuid[40];                  /* without dashes: 32 characters */
	uint64_t disk_off, size;
};
static struct pv pvs[PVS_MAX];
static size_t n_pvs;
static char *texts[PVS_MAX];            /* metadata of each, where it has any */
static char group_ids[PVS_MAX][48];     /* of groups that were told */

/* ---- where the text is ------------------------------------------------------------------------------------ */

/* The circular buffer of a metadata area. */
static char *read_text(const struct device *d, uint64_t area, uint64_t size, struct vd_error *e)
{
	uint8_t h[512];
	uint64_t off, len, head;
	char *text;

	if (device_read(d, h, sizeof(h), area, e) < 0 || memcmp(h + 4, " LVM2 x[5A%r0N*>", 16) != 0)
		return NULL;
	off = read_le64(h + 40);
	len = read_le64(h + 48);
	if (!off || !len || len > TEXT_MAX || size < 1024 || off >= size || len > size - 512)
		return NULL;
	text = calloc(1, (size_t)len + 1);
	if (!text)
		return NULL;
	head = len < size - off ? len : size - off;
	if (device_read(d, text, (size_t)head, area + off, e) == 0 &&
	    (head == len || device_read(d, text + head, (size_t)(len - head), area + 512, e) == 0))
		return text;
	free(text);
	return NULL;
}

int lvm_add(const struct device *d, uint64_t disk_off, struct vd_error *e)
{
	uint8_t b[2048];
	const uint8_t *label = NULL, *p;
	uint32_t at;
	int r = device_read(d, b, sizeof(b), 0, e);

	if (r == VD_EIO)
		return r;
	for (size_t i = 0; r == 0 && i < sizeof(b) && !label; i += 512)
		if (!memcmp(b + i, "LABELONE", 8) && !memcmp(b + i + 24, "LVM2 001", 8))
			label = b + i;
	at = label ? read_le32(label + 20) : 0;
	if (!label || n_pvs == PVS_MAX || at < 32 || (size_t)(label - b) + at + 40 > sizeof(b))
		return 0;
	p = label + at;
	snprintf(pvs[n_pvs].uuid, sizeof(pvs[n_pvs].uuid), "%.32s", (const char *)p);
	pvs[n_pvs].disk_off = disk_off;
	pvs[n_pvs].size = d->size;
	p += 40;
	/* Data areas, then metadata areas, each list with zeros at its end. */
	for (int list = 0; list < 2; list++) {
		while (p + 16 <= b + sizeof(b) && read_le64(p)) {
			if (list && !texts[n_pvs])
				texts[n_pvs] = read_text(d, read_le64(p), read_le64(p + 8), e);
			p += 16;
		}
		p += 16;
	}
	n_pvs++;
	return 0;
}

/* ---- what the text says ----------------------------------------------------------------------------------- */

/* Key = value, and sections in braces: `at` is behind what was read. */
struct words {
	const char *at;
	char word[160];
	bool is_text;                   /* was in quotes */
};

static bool next_word(struct words *w)
{
	size_t n = 0;

	for (;; w->at++) {
		if (*w->at == '#')
			w->at += strcspn(w->at, "\n");
		if (!*w->at)
			return false;
		if (!strchr(" \t\r\n", *w->at))
			break;
	}
	w->is_text = *w->at == '"';
	if (w->is_text) {
		for (w->at++; *w->at && *w->at != '"'; w->at++) {
			if (*w->at == '\\' && w->at[1])
				w->at++;
			if (n + 1 < sizeof(w->word))
				w->word[n++] = *w->at;
		}
		w->at += *w->at == '"';
	} else if (strchr("{}[]=,", *w->at)) {
		w->word[n++] = *w->at++;
	} else {
		for (; *w->at && !strchr(" \t\r\n{}[]=,#\"", *w->at); w->at++)
			if (n + 1 < sizeof(w->word))
				w->word[n++] = *w->at;
	}
	w->word[n] = '\0';
	return true;
}

static bool is_sign(const struct words *w, char c)
{
	return !w->is_text && w->word[0] == c && !w->word[1];
}

/* Goes behind the brace that closes the section. */
static void skip_section(struct words *w)
{
	int depth = 1;

	while (depth > 0 && next_word(w))
		depth += is_sign(w, '{') ? 1 : is_sign(w, '}') ? -1 : 0;
}

/*
 * The next thing of a section: 'k' with key and first value, 's' for a section whose body is to be read or skipped, 'a' for
 * a list, whose first word is to be read, 0 at the end.
 */
static char next_thing(struct words *w, char key[160])
{
	while (next_word(w)) {
		if (is_sign(w, '}'))
			return 0;
		snprintf(key, 160, "%s", w->word);
		if (!next_word(w))
			return 0;
		if (is_sign(w, '{'))
			return 's';
		if (!is_sign(w, '=') || !next_word(w))
			return 0;
		if (!is_sign(w, '['))
			return 'k';
		return 'a';
	}
	return 0;
}

static void skip_list(struct words *w)
{
	while (next_word(w) && !is_sign(w, ']'))
		;
}

struct lv {
	char name[160];
	struct fsview_range at[WIRE_PIECES_MAX];
	size_t n;
	uint64_t size;
	bool is_visible, is_linear;
	char why[160];
};
struct group {
	char id[160], name[160];
	uint64_t extent;                /* bytes */
	struct { char name[160]; const struct pv *pv; uint64_t start; } pv[PVS_MAX];
	size_t n_pv;
	unsigned n_lv;
};

static void read_pvs(struct words *w, struct group *g)
{
	char name[160], key[160], kind;

	while ((kind = next_thing(w, name)) == 's') {
		const struct pv *found = NULL;
		uint64_t start = 0;

		while ((kind = next_thing(w, key))) {
			char plain[40];
			size_t n = 0;

			if (kind == 's')
				skip_section(w);
			if (kind == 'a')
				skip_list(w);
			if (kind != 'k')
				continue;
			for (const char *p = w->word; *p && n + 1 < sizeof(plain); p++)
				if (*p != '-')
					plain[n++] = *p;
			plain[n] = '\0';
			if (!strcmp(key, "pe_start"))
				start = strtoull(w->word, NULL, 10) * 512;
			for (size_t i = 0; !strcmp(key, "id") && i < n_pvs; i++)
				if (!strcmp(pvs[i].uuid, plain))
					found = &pvs[i];
		}
		if (g->n_pv == PVS_MAX)
			continue;
		snprintf(g->pv[g->n_pv].name, sizeof(name), "%s", name);
		g->pv[g->n_pv].pv = found;
		g->pv[g->n_pv++].start = start;
	}
}

static bool multiply(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

static void add_stripe(const struct group *g, struct lv *lv, const char *pv_name, uint64_t first, uint64_t count)
{
	for (size_t i = 0; i < g->n_pv; i++) {
		uint64_t off, len;
		const struct pv *pv = g->pv[i].pv;

		if (strcmp(g->pv[i].name, pv_name) != 0)
			continue;
		if (!pv) {
			snprintf(lv->why, sizeof(lv->why), "a disk of its volume group is not there");
			return;
		}
		if (!multiply(first, g->extent, &off) || !multiply(count, g->extent, &len) || off > pv->size ||
		    g->pv[i].start > pv->size - off || len > pv->size - off - g->pv[i].start || lv->n == WIRE_PIECES_MAX) {
			snprintf(lv->why, sizeof(lv->why), "it lies past the end of its physical volume, or in more than %d pieces", WIRE_PIECES_MAX);
			return;
		}
		lv->at[lv->n++] = (struct fsview_range){ pv->disk_off + g->pv[i].start + off, len };
		lv->size += len;
		return;
	}
	snprintf(lv->why, sizeof(lv->why), "its volume group has no physical volume of that name");
}

/* Segments come in order, which is checked. */
static void read_segment(struct words *w, const struct group *g, struct lv *lv)
{
	uint64_t start = 0, count = 0, stripes = 0, first = 0;
	char key[160], pv_name[160] = "", kind;
	bool is_striped = false;

	while ((kind = next_thing(w, key))) {
		if (kind == 's')
			skip_section(w);
		if (kind == 'a' && !strcmp(key, "stripes") && next_word(w) && !is_sign(w, ']')) {
			snprintf(pv_name, sizeof(pv_name), "%s", w->word);
			if (next_word(w) && is_sign(w, ',') && next_word(w))
				first = strtoull(w->word, NULL, 10);
		}
		if (kind == 'a' && !is_sign(w, ']'))
			skip_list(w);
		if (kind != 'k')
			continue;
		if (!strcmp(key, "type"))
			is_striped = !strcmp(w->word, "striped");
		if (!strcmp(key, "start_extent"))
			start = strtoull(w->word, NULL, 10);
		if (!strcmp(key, "extent_count"))
			count = strtoull(w->word, NULL, 10);
		if (!strcmp(key, "stripe_count"))
			stripes = strtoull(w->word, NULL, 10);
	}
	if (!is_striped || stripes != 1 || !g->extent || start != lv->size / g->extent)
		lv->is_linear = false;
	else
		add_stripe(g, lv, pv_name, first, count);
}

static void answer_lv(const struct group *g, struct lv *lv, struct vd_error *e)
{
	struct fsview_volume v = { .size = lv->size, .disk_off = lv->n ? lv->at[0].off : 0 };
	struct device d = { lv->size, lv->n, lv->at };
	enum fsview_lack lack = lv->is_linear ? FSVIEW_DAMAGED : FSVIEW_UNSUPPORTED;

	if (!lv->is_linear)
		snprintf(lv->why, sizeof(lv->why), "it is no linear logical volume");
	if (!lv->why[0] && lv->n)
		probe(&d, &v, e);
	snprintf(v.name, sizeof(v.name), "lvm %.70s/%.70s", g->name, lv->name);
	table_answer(&v, lv->at, lv->why[0] ? 0 : lv->n, lv->why[0] ? (int)lack + 1 : 0, lv->why);
}

static void read_lvs(struct words *w, struct group *g, struct vd_error *e)
{
	static struct lv lv;
	char key[160], kind;

	while (next_thing(w, key) == 's') {
		lv = (struct lv){ .is_linear = true };
		snprintf(lv.name, sizeof(lv.name), "%s", key);
		while ((kind = next_thing(w, key))) {
			if (kind == 's' && !strncmp(key, "segment", 7))
				read_segment(w, g, &lv);
			else if (kind == 's')
				skip_section(w);
			while (kind == 'a' && next_word(w) && !is_sign(w, ']'))
				lv.is_visible |= !strcmp(key, "status") && !strcmp(w->word, "VISIBLE");
		}
		if (lv.is_visible && g->n_lv++ < FSVIEW_VOLUMES_MAX / 2)
			answer_lv(g, &lv, e);
	}
}

static bool is_told(const char *id, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(group_ids[i], id))
			return true;
	return false;
}

/* One group: its section is the first of the text. */
static void read_group(const char *text, size_t *n_told, struct vd_error *e)
{
	static struct group g;
	struct words w = { .at = text };
	char key[160], kind;

	g = (struct group){ 0 };
	while ((kind = next_thing(&w, key)) && kind != 's')
		if (kind == 'a')
			skip_list(&w);
	if (!kind)
		return;
	snprintf(g.name, sizeof(g.name), "%s", key);
	while ((kind = next_thing(&w, key))) {
		if (kind == 'a')
			skip_list(&w);
		if (kind == 'k' && !strcmp(key, "id"))
			snprintf(g.id, sizeof(g.id), "%s", w.word);
		if (kind == 'k' && !strcmp(key, "extent_size") && !multiply(strtoull(w.word, NULL, 10), 512, &g.extent))
			return;
		if (kind != 's')
			continue;
		if (!strcmp(key, "physical_volumes"))
			read_pvs(&w, &g);
		else if (!strcmp(key, "logical_volumes") && !is_told(g.id, *n_told))
			read_lvs(&w, &g, e);
		else
			skip_section(&w);
	}
	snprintf(group_ids[(*n_told)++], sizeof(group_ids[0]), "%.47s", g.id);
}

int lvm_answer(struct vd_error *e)
{
	struct fsview_volume none = { .name = "lvm" };
	size_t n_told = 0;
	bool any = false;

	for (size_t i = 0; i < n_pvs; i++) {
		if (texts[i])
			read_group(texts[i], &n_told, e);
		any |= texts[i] != NULL;
	}
	if (n_pvs && !any)
		table_answer(&none, NULL, 0, FSVIEW_DAMAGED + 1, "no physical volume says what is on it");
	return 0;
}
