/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all pages are made with: text in them is escaped, they look alike, and load nothing from elsewhere. */
#ifndef TOOLS_LEDGER_HTML_H
#define TOOLS_LEDGER_HTML_H

#include "ledger/bytes.h"

void html_put_text(struct bytes *out, const char *text);
/* Up to <body>; "</body>" and "</html>" are the caller's. `policy` is added to what the page may load, which is nothing: "; img-src data:". */
void html_put_head(struct bytes *out, const char *lang, const char *title, const char *policy);

#endif
