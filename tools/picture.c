/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws. What the cells hold is survey.c's to find out. */
#include "picture.h"

#include <stdio.h>

#include "sizes.h"
#include "ui.h"

/* How each kind of content is shown. A cell is told by its shape; colour only helps. */
static const struct look {
	const char *utf8, *ascii;
	enum ui_colour colour;
	const char *svg_fill;
	const char *text;
} looks[CONTENT_N] = {
	[CONTENT_ZERO] = { "·", ".", UI_DIM, "#eeeeee", "hole or zeros" },
	[CONTENT_RANDOM] = { "█", "#", UI_GREEN, "#2a7a3a", "encrypted or random" },
	[CONTENT_PACKED] = { "▓", "+", UI_MAGENTA, "#8a4a9a", "compressed" },
	[CONTENT_PLAIN] = { "▒", "o", UI_YELLOW, "#d0a020", "plain data" },
};

static const char *sign_of(enum content c)
{
	return ui_is_utf8() ? looks[c].utf8 : looks[c].ascii;
}

static void draw_row(const struct survey *v, size_t first)
{
	size_t last = first + PICTURE_COLUMNS < v->n_cells ? first + PICTURE_COLUMNS : v->n_cells;
	enum content shown = CONTENT_N;

	printf("%9s  ", size_show((double)first * (double)v->cell_bytes).s);
	for (size_t i = first; i < last; i++) {
		enum content c = v->cells[i].worst;

		if (c != shown)
			printf("%s%s", shown == CONTENT_N ? "" : ui_colour(UI_PLAIN), ui_colour(looks[c].colour));
		shown = c;
		printf("%s", sign_of(c));
	}
	printf("%s\n", ui_colour(UI_PLAIN));
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? (double)part * 100 / (double)whole : 0;
}

static uint64_t sum_looked_at(const struct survey *v)
{
	uint64_t sum = 0;

	for (int c = 0; c < CONTENT_N; c++)
		sum += v->looked_at[c];
	return sum;
}

static void draw_totals(const struct survey *v)
{
	uint64_t hole = v->bytes_by_tables[SURVEY_HOLE], packed = v->bytes_by_tables[SURVEY_PACKED];
	uint64_t data = v->bytes_by_tables[SURVEY_DATA], all = hole + data + packed;
	uint64_t seen = sum_looked_at(v);

	printf("holes %s (%.1f %%), data %s (%.1f %%), compressed %s (%.1f %%)\n", size_show((double)hole).s,
	       percent(hole, all), size_show((double)data).s, percent(data, all), size_show((double)packed).s, percent(packed, all));
	printf("of the data %s looked at: plain %.1f %%, compressed %.1f %%, encrypted or random %.1f %%, zeros %.1f %%\n",
	       size_show((double)seen).s, percent(v->looked_at[CONTENT_PLAIN], seen),
	       percent(v->looked_at[CONTENT_PACKED], seen), percent(v->looked_at[CONTENT_RANDOM], seen),
	       percent(v->looked_at[CONTENT_ZERO], seen));
}

void picture_draw(const struct survey *v)
{
	for (size_t i = 0; i < v->n_cells; i += PICTURE_COLUMNS)
		draw_row(v, i);
	printf("\none cell is %s, and shows the worst in it:", size_show((double)v->cell_bytes).s);
	for (int c = CONTENT_N - 1; c >= 0; c--)
		printf(" %s%s%s %s%s", ui_colour(looks[c].colour), sign_of((enum content)c), ui_colour(UI_PLAIN),
		       looks[c].text, c ? "," : "\n");
	draw_totals(v);
}

/* ---- SVG ------------------------------------------------------------------------------------------------- */

#define CELL 12
#define MARGIN 10

void picture_print_xml(const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == '<' || c == '>' || c == '&' || c == '"' || c == 0x7f)
			printf("&#%u;", c < 0x20 || c == 0x7f ? '?' : c);
		else
			putchar(c);
	}
}

static void draw_svg_legend(int y)
{
	for (int c = CONTENT_N - 1, x = MARGIN; c >= 0; c--, x += 190)
		printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>"
		       "<text x=\"%d\" y=\"%d\">%s</text>\n",
		       x, y, CELL - 1, CELL - 1, looks[c].svg_fill, x + CELL + 4, y + CELL - 2, looks[c].text);
}

void picture_draw_svg(const struct survey *v, const char *title)
{
	int rows = (int)((v->n_cells + PICTURE_COLUMNS - 1) / PICTURE_COLUMNS), top = MARGIN + 24;

	printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
	       "font-size=\"12\">\n<text x=\"%d\" y=\"%d\">",
	       2 * MARGIN + PICTURE_COLUMNS * CELL, top + rows * CELL + 2 * MARGIN + CELL, MARGIN, MARGIN + 12);
	picture_print_xml(title);
	printf(", one cell is %s</text>\n", size_show((double)v->cell_bytes).s);
	for (size_t i = 0; i < v->n_cells; i++)
		printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n",
		       MARGIN + (int)(i % PICTURE_COLUMNS) * CELL, top + (int)(i / PICTURE_COLUMNS) * CELL, CELL - 1, CELL - 1,
		       looks[v->cells[i].worst].svg_fill);
	draw_svg_legend(top + rows * CELL + MARGIN);
	printf("</svg>\n");
}
