/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws. What the cells hold is hostmap.c's to find out. */
#include "hostpicture.h"

#include <stdio.h>

#include "picture.h"
#include "sizes.h"
#include "ui.h"

#define COLUMNS HOSTMAP_COLUMNS
#define BAR 24

/* How each owner is shown. A cell is told by its sign; colour only helps. */
static const struct look {
	const char *utf8, *ascii;
	enum ui_colour colour;
	const char *svg_fill;
	int rank;                       /* a cell shows the owner of the highest rank; among equals, of most bytes */
} looks[VD_N_OWNERS] = {
	[VD_OWNER_HEADER] = { "H", "H", UI_PLAIN, "#1f3b6f", 2 },
	[VD_OWNER_TABLE] = { "T", "T", UI_PLAIN, "#3d6fc4", 2 },
	[VD_OWNER_JOURNAL] = { "J", "J", UI_PLAIN, "#5b8bd8", 2 },
	[VD_OWNER_COPY] = { "C", "C", UI_PLAIN, "#8fb2e8", 2 },
	[VD_OWNER_BITMAP] = { "B", "B", UI_PLAIN, "#2aa0a8", 2 },
	[VD_OWNER_KEYAREA] = { "K", "K", UI_MAGENTA, "#b0308c", 2 },
	[VD_OWNER_DESCRIPTOR] = { "D", "D", UI_PLAIN, "#6a7fa8", 2 },
	[VD_OWNER_DATA] = { "█", "#", UI_GREEN, "#2a7a3a", 2 },
	[VD_OWNER_PACKED] = { "▓", "+", UI_GREEN, "#7ab648", 2 },
	[VD_OWNER_VMSTATE] = { "M", "M", UI_MAGENTA, "#8a4a9a", 2 },
	[VD_OWNER_ZEROED] = { "0", "0", UI_DIM, "#b9c4b4", 2 },
	[VD_OWNER_FREE] = { "░", ":", UI_DIM, "#dcd8cc", 1 },
	[VD_OWNER_LEAKED] = { "!", "!", UI_YELLOW, "#e0a020", 3 },
	[VD_OWNER_SLACK] = { "-", "-", UI_YELLOW, "#efdca0", 1 },
	[VD_OWNER_TAIL] = { "~", "~", UI_DIM, "#cfcfcf", 1 },
	[VD_OWNER_HOSTHOLE] = { "·", ".", UI_DIM, "#f4f4f4", 1 },
	[VD_OWNER_CORRUPT] = { "X", "X", UI_RED, "#d02020", 4 },
};

static const char *sign_of(int owner)
{
	return ui_is_utf8() ? looks[owner].utf8 : looks[owner].ascii;
}

/* Whom a cell shows: trouble first, then who uses most of it. */
static int winner(const uint64_t *bytes)
{
	int best = VD_OWNER_HOSTHOLE;

	for (int o = 0; o < VD_N_OWNERS; o++)
		if (bytes[o] && (!bytes[best] || looks[o].rank > looks[best].rank ||
				 (looks[o].rank == looks[best].rank && bytes[o] > bytes[best])))
			best = o;
	return best;
}

static void draw_row(const struct hostmap *m, size_t first)
{
	size_t last = first + COLUMNS < m->n_cells ? first + COLUMNS : m->n_cells;
	int shown = -1;

	printf("%9s  ", size_show((double)first * (double)m->cell_bytes).s);
	for (size_t i = first; i < last; i++) {
		int o = winner(m->cells[i]);

		if (o != shown)
			printf("%s%s", shown < 0 ? "" : ui_colour(UI_PLAIN), ui_colour(looks[o].colour));
		shown = o;
		printf("%s", sign_of(o));
	}
	printf("%s\n", ui_colour(UI_PLAIN));
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? (double)part * 100 / (double)whole : 0;
}

/* Legend and bar in one: what there is of an owner. Anything there is shows, however little. */
static void draw_owner(const struct hostmap *m, int o)
{
	size_t filled = (size_t)((double)m->bytes[o] * BAR / (double)m->size + 0.5);
	const char *full = ui_is_utf8() ? "■" : "=";

	printf("  %s%s%s %-11s %9s %5.1f %%  %s", ui_colour(looks[o].colour), sign_of(o), ui_colour(UI_PLAIN), vd_owner_name(o),
	       size_show((double)m->bytes[o]).s, percent(m->bytes[o], m->size), ui_colour(looks[o].colour));
	for (size_t i = 0; i < (filled ? filled : 1); i++)
		printf("%s", full);
	printf("%s%*s %s\n", ui_colour(UI_PLAIN), (int)(BAR - (filled ? filled : 1)), "", vd_owner_text(o));
}

void hostpicture_draw(const struct hostmap *m)
{
	ui_line("%s: %s, one cell is %s", m->name, size_show((double)m->size).s, size_show((double)m->cell_bytes).s);
	for (size_t i = 0; i < m->n_cells; i += COLUMNS)
		draw_row(m, i);
	for (int o = 0; o < VD_N_OWNERS; o++)
		if (m->n_runs[o])
			draw_owner(m, o);
	if (m->shared)
		printf("shared by several entries, as snapshots do: %s\n", size_show((double)m->shared).s);
	if (m->sparse)
		printf("not stored by the host: %s\n", size_show((double)m->sparse).s);
}

/* ---- SVG -------------------------------------------------------------------------------------------------- */

#define CELL 12
#define MARGIN 12
#define HEADING 26
#define LEGEND_ROW 18
#define WIDTH (2 * MARGIN + COLUMNS * CELL)

static int rows_of(const struct hostmap *m)
{
	return (int)((m->n_cells + COLUMNS - 1) / COLUMNS);
}

static int n_owners(const struct hostmap *m)
{
	int n = 0;

	for (int o = 0; o < VD_N_OWNERS; o++)
		n += m->n_runs[o] != 0;
	return n;
}

/* The bar, the cells, the legend. */
static int height_of(const struct hostmap *m)
{
	return HEADING + CELL * 2 + rows_of(m) * CELL + MARGIN + n_owners(m) * LEGEND_ROW + MARGIN;
}

/* The share of a cell that an owner is drawn with: a little table among much data still shows. */
static double weight(uint64_t bytes, uint64_t all)
{
	double share = (double)bytes / (double)all;

	return !bytes ? 0 : share < 0.2 ? 0.2 : share;
}

/* A cell is a pile of what is in it. */
static void draw_svg_cell(const struct hostmap *m, size_t i, int x, int y)
{
	double top = y, weights = 0;
	uint64_t all = 0;

	for (int o = 0; o < VD_N_OWNERS; o++)
		all += m->cells[i][o];
	for (int o = 0; o < VD_N_OWNERS; o++)
		weights += weight(m->cells[i][o], all);
	printf("<g><title>%s:", size_show((double)i * (double)m->cell_bytes).s);
	for (int o = 0; o < VD_N_OWNERS; o++)
		if (m->cells[i][o])
			printf(" %s %.0f %%", vd_owner_name(o), percent(m->cells[i][o], all));
	printf("</title>\n");
	for (int o = 0; o < VD_N_OWNERS; o++) {
		double h = (CELL - 1) * weight(m->cells[i][o], all) / weights;

		if (m->cells[i][o])
			printf("<rect x=\"%d\" y=\"%.2f\" width=\"%d\" height=\"%.2f\" fill=\"%s\"/>", x, top, CELL - 1, h, looks[o].svg_fill);
		top += h;
	}
	printf("</g>\n");
}

/* The whole file as one bar. */
static void draw_svg_bar(const struct hostmap *m, int y)
{
	double x = MARGIN;

	for (int o = 0; o < VD_N_OWNERS; o++) {
		double w = (COLUMNS * CELL - 1) * (double)m->bytes[o] / (double)(m->size ? m->size : 1);

		if (m->bytes[o])
			printf("<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\"><title>%s %.1f %%</title></rect>\n",
			       x, y, w, CELL, looks[o].svg_fill, vd_owner_name(o), percent(m->bytes[o], m->size));
		x += w;
	}
}

static void draw_svg_legend(const struct hostmap *m, int y)
{
	int n = 0;

	for (int o = 0; o < VD_N_OWNERS; o++) {
		int at = y + n * LEGEND_ROW;

		if (!m->n_runs[o])
			continue;
		printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\" stroke=\"#888888\" stroke-width=\"0.5\"/>"
		       "<text x=\"%d\" y=\"%d\">%s: %s, %.1f %% <tspan fill=\"#777777\">%s</tspan></text>\n",
		       MARGIN, at, CELL - 1, CELL - 1, looks[o].svg_fill, MARGIN + CELL + 4, at + CELL - 2, vd_owner_name(o),
		       size_show((double)m->bytes[o]).s, percent(m->bytes[o], m->size), vd_owner_text(o));
		n++;
	}
}

static void draw_svg_file(const struct hostmap *m, int y)
{
	printf("<text x=\"%d\" y=\"%d\" font-weight=\"bold\">", MARGIN, y + 14);
	picture_print_xml(m->name);
	printf(": %s, one cell is %s</text>\n", size_show((double)m->size).s, size_show((double)m->cell_bytes).s);
	y += HEADING;
	draw_svg_bar(m, y);
	y += CELL * 2;
	for (size_t i = 0; i < m->n_cells; i++)
		draw_svg_cell(m, i, MARGIN + (int)(i % COLUMNS) * CELL, y + (int)(i / COLUMNS) * CELL);
	draw_svg_legend(m, y + rows_of(m) * CELL + MARGIN);
}

void hostpicture_draw_svg(const struct hostmap *maps, size_t n)
{
	int height = MARGIN, y = MARGIN;

	for (size_t i = 0; i < n; i++)
		height += height_of(&maps[i]);
	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n"
	       "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", WIDTH, height);
	for (size_t i = 0; i < n; i++) {
		draw_svg_file(&maps[i], y);
		y += height_of(&maps[i]);
	}
	printf("</svg>\n");
}
