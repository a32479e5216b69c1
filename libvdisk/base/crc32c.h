/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), which guards the tables of VHDX. */
#ifndef VD_BASE_CRC32C_H
#define VD_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of the bytes before, 0 at first, to that of the bytes before and these. */
uint32_t vd_crc32c(uint32_t crc, const void *p, size_t len);

#endif
