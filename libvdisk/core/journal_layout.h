/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where things lie in a journal file (journal.h has the picture), for the two files that read and write it. */
#ifndef VD_CORE_JOURNAL_LAYOUT_H
#define VD_CORE_JOURNAL_LAYOUT_H

#define STATE_LEN 4096
#define HIDDEN_AT 8192
#define ENDS_AT 16384
#define HEADERS_AT 49152
#define RECORD_ALIGN (1u << 20)
#define RECORD_TABLE (1u << 20)         /* room for it; the payload follows */

#endif
