/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rabin's test of irreducibility, which for a prime degree is short. */
#include "backup/polynomial.h"

#include "backup/seal.h"

static uint64_t square_mod(uint64_t a, uint64_t f)
{
	uint64_t product = 0;

	/* a * a by Horner: each step doubles, and is reduced at once. */
	for (int i = POLYNOMIAL_DEGREE - 1; i >= 0; i--) {
		product <<= 1;
		if (product >> POLYNOMIAL_DEGREE & 1)
			product ^= f;
		if (a >> i & 1)
			product ^= a;
	}
	return product;
}

/*
 * f is irreducible when x^(2^53) = x modulo f, and f shares no factor with x^2 - x: 53 has no other divisor than 1. The latter is to say that neither
 * 0 nor 1 is a root: a constant term, and an odd number of terms.
 */
bool polynomial_is_irreducible(uint64_t f)
{
	uint64_t power = 2;

	if (f >> POLYNOMIAL_DEGREE != 1 || !(f & 1) || !(__builtin_popcountll(f) & 1))
		return false;
	for (int i = 0; i < POLYNOMIAL_DEGREE; i++)
		power = square_mod(power, f);
	return power == 2;
}

/* One of 53 is. */
uint64_t polynomial_random(void)
{
	uint64_t f;

	do {
		seal_random(&f, sizeof(f));
		f = (f & ((UINT64_C(1) << POLYNOMIAL_DEGREE) - 1)) | UINT64_C(1) << POLYNOMIAL_DEGREE | 1;
	} while (!polynomial_is_irreducible(f));
	return f;
}
