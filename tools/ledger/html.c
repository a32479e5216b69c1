/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws a certificate as one HTML page to print. Every text is escaped and stands in an element that isolates its direction. */
#include <string.h>

#include "ledger/html.h"
#include "ledger/sheet.h"

static const char style[] =
	"@page{size:A4;margin:16mm}"
	"body{font:10.5pt/1.45 system-ui,'Noto Sans CJK SC','Source Han Sans SC','Microsoft YaHei',sans-serif;color:#111;max-width:180mm;"
	"margin:8mm auto;padding:0 6mm}"
	"h1{font-size:19pt;margin:0 0 3mm}h2{font-size:12pt;margin:6mm 0 1.5mm;border-bottom:1px solid #999;break-after:avoid}"
	".verdict{font-size:13pt;font-weight:600;padding:3mm 4mm;border:2px solid;border-radius:2mm}"
	".good{color:#0a5d2a}.doubtful{color:#7a4b00}.bad{color:#a30f0f}"
	"dl{display:grid;grid-template-columns:52mm 1fr;gap:.6mm 4mm;margin:0}dt{color:#555}dd{margin:0;overflow-wrap:anywhere}"
	"ul{margin:0;padding-left:5mm}li{overflow-wrap:anywhere}"
	"pre{font-size:8pt;white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #ccc;padding:2mm}"
	".sign{display:grid;grid-template-columns:1fr 1fr;gap:10mm;margin-top:12mm;break-inside:avoid}.sign div{border-top:1px solid #111;"
	"padding-top:1mm;color:#555}.note{margin-top:6mm;color:#555;font-size:9pt}";

enum open { NOTHING, PAIRS, ITEMS };
struct page {
	struct bytes *out;
	enum open open;
};

void html_put_text(struct bytes *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '&')
			bytes_text(out, "&amp;");
		else if (c == '<')
			bytes_text(out, "&lt;");
		else if (c == '>')
			bytes_text(out, "&gt;");
		else if (c == '"')
			bytes_text(out, "&quot;");
		else if (c == '\'')
			bytes_text(out, "&#39;");
		else if ((c < 0x20 && c != '\n') || c == 0x7f)
			bytes_text(out, "\xef\xbf\xbd");
		else
			bytes_add(out, text, 1);
	}
}

static void put_start(struct bytes *out, const char *lang, const char *policy)
{
	bytes_format(out,
		     "<!DOCTYPE html>\n<html lang=\"%s\">\n<head>\n<meta charset=\"utf-8\">\n"
		     "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'%s\">\n<style>%s</style>\n",
		     lang, policy, style);
}

void html_put_head(struct bytes *out, const char *lang, const char *title, const char *policy)
{
	put_start(out, lang, policy);
	bytes_text(out, "<title>");
	html_put_text(out, title);
	bytes_text(out, "</title>\n</head>\n<body>\n");
}

static void put_in(struct bytes *out, const char *before, const char *text, const char *after)
{
	bytes_text(out, before);
	html_put_text(out, text);
	bytes_text(out, after);
}

static void turn_to(struct page *p, enum open open)
{
	static const char *const begin[] = { "", "<dl>\n", "<ul>\n" }, *const end[] = { "", "</dl>\n", "</ul>\n" };

	if (p->open == open)
		return;
	bytes_text(p->out, end[p->open]);
	bytes_text(p->out, begin[open]);
	p->open = open;
}

static void html_title(void *ctx, const char *title, enum sheet_tone tone, const char *verdict)
{
	static const char *const classes[] = { [SHEET_GOOD] = "good", [SHEET_DOUBTFUL] = "doubtful", [SHEET_BAD] = "bad" };
	struct page *p = ctx;

	put_in(p->out, "<title>", title, "</title>\n</head>\n<body>\n");
	put_in(p->out, "<h1>", title, "</h1>\n");
	bytes_format(p->out, "<p class=\"verdict %s\">", classes[tone]);
	put_in(p->out, "", verdict, "</p>\n");
}

static void html_section(void *ctx, const char *name)
{
	struct page *p = ctx;

	turn_to(p, NOTHING);
	put_in(p->out, "<h2>", name, "</h2>\n");
}

static void html_pair(void *ctx, const char *label, const char *value)
{
	struct page *p = ctx;

	turn_to(p, PAIRS);
	put_in(p->out, "<dt>", label, "</dt>");
	put_in(p->out, "<dd><bdi>", value, "</bdi></dd>\n");
}

static void html_item(void *ctx, const char *text)
{
	struct page *p = ctx;

	turn_to(p, ITEMS);
	put_in(p->out, "<li><bdi>", text, "</bdi></li>\n");
}

static void put_foot(const struct sheet *s, struct bytes *out)
{
	struct bytes sig = { 0 };

	bytes_add(&sig, s->c->sig_text.at, s->c->sig_text.n);
	bytes_add(&sig, "", 1);
	put_in(out, "<pre>", (const char *)sig.at, "</pre>\n");
	bytes_free(&sig);
	put_in(out, "<div class=\"sign\"><div>", sheet_operator_line(s), "</div>");
	put_in(out, "<div>", sheet_validator_line(s), "</div></div>\n");
	put_in(out, "<p class=\"note\">", sheet_note(s), "</p>\n</body>\n</html>\n");
}

void sheet_to_html(const struct sheet *s, struct bytes *out)
{
	struct page page = { .out = out };
	const struct sheet_sink sink = { html_title, html_section, html_pair, html_item, &page };

	put_start(out, sheet_say(s, "en", "zh-CN"), "");
	sheet_walk(s, &sink);
	turn_to(&page, NOTHING);
	put_foot(s, out);
}
