/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A certificate as PDF, drawn by a program beside this one, so that the command itself loads no fonts and no drawing. */
#ifndef TOOLS_LEDGER_PDF_H
#define TOOLS_LEDGER_PDF_H

#include "ledger/sheet.h"

/* The same document gives the same bytes where the fonts are the same. VD_EUNSUPPORTED: the program is not there, or a font with the letters. */
int sheet_to_pdf(const struct sheet *s, struct bytes *out, struct vd_error *e);

/*
 * What the program reads on its standard input: records of one letter, a text in UTF-8 and a NUL, in the order in which they are drawn;
 * the file goes to its standard output.
 */
enum pdf_record {
	PDF_DATE = 'C',                 /* of the file: as in the document */
	PDF_FOOT = 'F',                 /* at the foot of each page; before what is drawn */
	PDF_TITLE = 'T',
	PDF_GOOD = 'g', PDF_DOUBTFUL = 'd', PDF_BAD = 'b',      /* the verdict */
	PDF_SECTION = 'S',
	PDF_LABEL = 'K', PDF_VALUE = 'V',                       /* side by side */
	PDF_ITEM = 'I',
	PDF_VERBATIM = 'P',
	PDF_SIGN = 'O',                 /* a line to sign on, side by side by twos */
	PDF_NOTE = 'N',
};
#define PDF_NO_FONT 3                   /* exit status of the program */

#endif
