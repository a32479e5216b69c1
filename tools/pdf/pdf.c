/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk-pdf: draws the records of ledger/pdf.h on A4 pages. Pango chooses fonts and breaks lines, cairo writes the file, with the fonts in
 * it. What the texts mean is not known here; each is laid out by itself, so that none changes the direction of another.
 */
#include "ledger/pdf.h"

#include <cairo-pdf.h>
#include <pango/pangocairo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 595.276           /* points: A4 */
#define HEIGHT 841.89
#define MARGIN 48.0
#define FOOT 30.0               /* from the lower edge */
#define LABELS 150.0            /* width of that column */
#define INPUT_MAX (64u << 20)

struct page {
	cairo_t *cr;
	cairo_surface_t *surface;
	const char *foot, *label;
	double y;
	unsigned number, n_signs;
	int no_font;
};

static const struct look {
	char kind;
	const char *font;
	double before, after, red, green, blue;
} looks[] = {
	{ PDF_TITLE, "sans bold 18", 0, 8, .07, .07, .07 },
	{ PDF_GOOD, "sans bold 12", 4, 12, .04, .36, .16 },
	{ PDF_DOUBTFUL, "sans bold 12", 4, 12, .48, .29, 0 },
	{ PDF_BAD, "sans bold 12", 4, 12, .64, .06, .06 },
	{ PDF_SECTION, "sans bold 11", 12, 5, .07, .07, .07 },
	{ PDF_LABEL, "sans 9", 0, 0, .33, .33, .33 },
	{ PDF_VALUE, "sans 9", 0, 2.5, .07, .07, .07 },
	{ PDF_ITEM, "sans 9", 0, 2.5, .07, .07, .07 },
	{ PDF_VERBATIM, "monospace 7", 8, 6, .07, .07, .07 },
	{ PDF_SIGN, "sans 8", 2, 0, .33, .33, .33 },
	{ PDF_NOTE, "sans 8", 14, 0, .33, .33, .33 },
	{ PDF_FOOT, "sans 7", 0, 0, .33, .33, .33 },
};

static const struct look *look_of(char kind)
{
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
		if (looks[i].kind == kind)
			return &looks[i];
	return NULL;
}

static PangoLayout *lay_out(struct page *p, const struct look *look, const char *text, double width)
{
	PangoLayout *layout = pango_cairo_create_layout(p->cr);
	PangoFontDescription *font = pango_font_description_from_string(look->font);
	PangoAttrList *attributes = pango_attr_list_new();

	pango_layout_set_font_description(layout, font);
	pango_font_description_free(font);
	pango_layout_set_auto_dir(layout, FALSE);
	pango_layout_set_width(layout, (int)(width * PANGO_SCALE));
	pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
	pango_layout_set_text(layout, text, -1);
	/* A sum that is broken into two lines has no hyphen. */
	pango_attr_list_insert(attributes, pango_attr_insert_hyphens_new(FALSE));
	pango_layout_set_attributes(layout, attributes);
	pango_attr_list_unref(attributes);
	p->no_font |= pango_layout_get_unknown_glyphs_count(layout) > 0;
	cairo_set_source_rgb(p->cr, look->red, look->green, look->blue);
	return layout;
}

static void draw_foot(struct page *p)
{
	const struct look *look = look_of(PDF_FOOT);
	char text[256];
	PangoLayout *layout;

	snprintf(text, sizeof(text), "%s    %u", p->foot, p->number);
	layout = lay_out(p, look, text, WIDTH - 2 * MARGIN);
	cairo_move_to(p->cr, MARGIN, HEIGHT - FOOT);
	pango_cairo_show_layout(p->cr, layout);
	g_object_unref(layout);
}

static void turn(struct page *p)
{
	draw_foot(p);
	cairo_show_page(p->cr);
	p->number++;
	p->y = MARGIN;
}

/* Line by line, on as many pages as it takes; the first line is at the present place. */
static void draw_lines(struct page *p, PangoLayout *layout, const struct look *look, double x)
{
	PangoLayoutIter *line = pango_layout_get_iter(layout);

	do {
		PangoRectangle box;

		pango_layout_iter_get_line_extents(line, NULL, &box);
		if (p->y + box.height / (double)PANGO_SCALE > HEIGHT - MARGIN - 8)
			turn(p);
		cairo_set_source_rgb(p->cr, look->red, look->green, look->blue);
		cairo_move_to(p->cr, x, p->y + (pango_layout_iter_get_baseline(line) - box.y) / (double)PANGO_SCALE);
		pango_cairo_show_layout_line(p->cr, pango_layout_iter_get_line_readonly(line));
		p->y += box.height / (double)PANGO_SCALE;
	} while (pango_layout_iter_next_line(line));
	pango_layout_iter_free(line);
}

static void draw_text(struct page *p, char kind, const char *text, double x)
{
	const struct look *look = look_of(kind);
	PangoLayout *layout = lay_out(p, look, text, WIDTH - MARGIN - x);

	p->y += look->before;
	/* A heading is not the last line of a page. */
	if (kind == PDF_SECTION && p->y > HEIGHT - MARGIN - 60)
		turn(p);
	draw_lines(p, layout, look, x);
	if (kind == PDF_SECTION) {
		cairo_set_line_width(p->cr, .5);
		cairo_move_to(p->cr, MARGIN, p->y + 1.5);
		cairo_line_to(p->cr, WIDTH - MARGIN, p->y + 1.5);
		cairo_stroke(p->cr);
	}
	p->y += look->after;
	g_object_unref(layout);
}

/* Labels are short: the longer of the two decides where the next pair is. */
static void draw_pair(struct page *p, const char *value)
{
	const struct look *look = look_of(PDF_LABEL);
	PangoLayout *label = lay_out(p, look, p->label, LABELS - 10);
	int height, from;

	pango_layout_get_pixel_size(label, NULL, &height);
	if (p->y + height > HEIGHT - MARGIN - 8)
		turn(p);
	cairo_move_to(p->cr, MARGIN, p->y);
	pango_cairo_show_layout(p->cr, label);
	g_object_unref(label);
	from = (int)p->number;
	height += (int)p->y;
	draw_text(p, PDF_VALUE, value, MARGIN + LABELS);
	if (from == (int)p->number && p->y < height)
		p->y = height;
}

static void draw_sign(struct page *p, const char *text)
{
	bool is_second = p->n_signs++ % 2;
	double half = (WIDTH - 2 * MARGIN - 30) / 2, x = MARGIN + (is_second ? half + 30 : 0), y;
	PangoLayout *layout;

	if (!is_second && p->y > HEIGHT - MARGIN - 100)
		turn(p);
	p->y += is_second ? 0 : 50;
	y = p->y;
	layout = lay_out(p, look_of(PDF_SIGN), text, half);
	cairo_set_line_width(p->cr, .5);
	cairo_move_to(p->cr, x, y - 2);
	cairo_line_to(p->cr, x + half, y - 2);
	cairo_stroke(p->cr);
	draw_lines(p, layout, look_of(PDF_SIGN), x);
	g_object_unref(layout);
	if (!is_second)
		p->y = y;
}

static void draw_bullet(struct page *p)
{
	if (p->y > HEIGHT - MARGIN - 24)
		turn(p);
	cairo_set_source_rgb(p->cr, .07, .07, .07);
	cairo_new_path(p->cr);
	cairo_arc(p->cr, MARGIN + 4, p->y + 6.5, 1.4, 0, 6.2832);
	cairo_fill(p->cr);
}

static void draw_verdict(struct page *p, char kind, const char *text)
{
	double from = p->y;

	draw_text(p, kind, text, MARGIN + 10);
	cairo_set_line_width(p->cr, 1.5);
	cairo_rectangle(p->cr, MARGIN, from - 3, WIDTH - 2 * MARGIN, p->y - from);
	cairo_stroke(p->cr);
	p->y += 2;
}

static void draw(struct page *p, char kind, const char *text)
{
	switch (kind) {
	case PDF_DATE: cairo_pdf_surface_set_metadata(p->surface, CAIRO_PDF_METADATA_CREATE_DATE, text); break;
	case PDF_FOOT: p->foot = text; break;
	case PDF_LABEL: p->label = text; break;
	case PDF_VALUE: draw_pair(p, text); break;
	case PDF_SIGN: draw_sign(p, text); break;
	case PDF_GOOD: case PDF_DOUBTFUL: case PDF_BAD: draw_verdict(p, kind, text); break;
	case PDF_ITEM:
		draw_bullet(p);
		draw_text(p, kind, text, MARGIN + 12);
		break;
	case PDF_TITLE:
		cairo_pdf_surface_set_metadata(p->surface, CAIRO_PDF_METADATA_TITLE, text);
		draw_text(p, kind, text, MARGIN);
		break;
	default:
		if (look_of(kind))
			draw_text(p, kind, text, MARGIN);
	}
}

/* All of standard input; control characters but line breaks become U+FFFD where they are drawn. */
static char *read_input(size_t *n)
{
	size_t room = 1 << 16;
	char *text = malloc(room);
	ssize_t got;

	*n = 0;
	while (text && (got = read(0, text + *n, room - *n)) > 0) {
		*n += (size_t)got;
		if (*n == room && room < INPUT_MAX)
			text = realloc(text, room *= 2);
		else if (*n == room)
			return NULL;
	}
	return text;
}

static char *tame(const char *text)
{
	GString *s = g_string_new(NULL);
	char *valid = g_utf8_make_valid(text, -1);

	for (const char *c = valid; *c; c++) {
		if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f)
			g_string_append(s, "\xef\xbf\xbd");
		else
			g_string_append_c(s, *c);
	}
	g_free(valid);
	return g_string_free(s, FALSE);
}

static cairo_status_t to_stdout(void *ctx, const unsigned char *bytes, unsigned n)
{
	(void)ctx;
	return fwrite(bytes, 1, n, stdout) == n ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

int main(void)
{
	struct page p = { .foot = "", .label = "", .y = MARGIN, .number = 1 };
	size_t n = 0;
	char *text = read_input(&n);
	GPtrArray *texts = g_ptr_array_new_with_free_func(g_free);
	cairo_status_t status;

	if (!text || !n || text[n - 1]) {
		fprintf(stderr, "vdisk-pdf: what is to be drawn cannot be read\n");
		return 1;
	}
	p.surface = cairo_pdf_surface_create_for_stream(to_stdout, NULL, WIDTH, HEIGHT);
	p.cr = cairo_create(p.surface);
	/* Labels and the foot stay until later records. */
	for (size_t at = 0; at < n; at += strlen(text + at) + 1) {
		g_ptr_array_add(texts, tame(text[at] ? text + at + 1 : text + at));
		draw(&p, text[at], texts->pdata[texts->len - 1]);
	}
	draw_foot(&p);
	cairo_show_page(p.cr);
	cairo_destroy(p.cr);
	cairo_surface_finish(p.surface);
	status = cairo_surface_status(p.surface);
	cairo_surface_destroy(p.surface);
	g_ptr_array_free(texts, TRUE);
	free(text);
	if (status || fflush(stdout)) {
		fprintf(stderr, "vdisk-pdf: %s\n", status ? cairo_status_to_string(status) : "standard output");
		return 1;
	}
	return p.no_font ? PDF_NO_FONT : 0;
}
