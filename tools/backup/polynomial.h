/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The polynomial that restic cuts files by, one for each repository: random, so that the lengths of chunks tell nothing of known files. */
#ifndef TOOLS_BACKUP_POLYNOMIAL_H
#define TOOLS_BACKUP_POLYNOMIAL_H

#include <stdbool.h>
#include <stdint.h>

#define POLYNOMIAL_DEGREE 53

/* Over GF(2), bit i is the coefficient of x^i. Of degree 53 alone. */
bool polynomial_is_irreducible(uint64_t f);
uint64_t polynomial_random(void);

#endif
