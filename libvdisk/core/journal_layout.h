/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where things lie in a journal file (journal.h has the picture), for the two files that read and write it. */
#ifndef VD_CORE_JOURNAL_LAYOUT_H
#define VD_CORE_JOURNAL_LAYOUT_H

#define STATE_LEN 4096
#define HIDDEN_AT 8192
#define HIDDEN_LEN 1024                 /* of each of a hidden sector's two copies */
#define ENDS_AT 24576
#define HEADERS_AT 57344
#define RECORD_ALIGN (1u << 20)
#define RECORD_TABLE (1u << 20)         /* room for it; the payload follows */
#define RECORD_USED (RECORD_TABLE - 512)        /* in there: that the record was put to use */

#endif
