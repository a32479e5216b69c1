/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arithmetic on sizes that came from an image. Each returns false when the result does not fit, and then
 * leaves *out alone: untrusted sizes pass here before anything is computed from them.
 */
#ifndef VD_BASE_CHECKED_H
#define VD_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool vd_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

static inline bool vd_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

/* Up to the next multiple of unit, which is not zero. */
static inline bool vd_round_up_u64(uint64_t a, uint64_t unit, uint64_t *out)
{
	uint64_t rest = a % unit;

	if (!rest) {
		*out = a;
		return true;
	}
	return vd_add_u64(a, unit - rest, out);
}

/* [off, off+len) lies inside [0, size). */
static inline bool vd_range_inside(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline bool vd_is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* For values that the caller has bounded already. */
static inline uint64_t vd_round_down(uint64_t a, uint64_t unit)
{
	return a - a % unit;
}
static inline uint64_t vd_round_up(uint64_t a, uint64_t unit)
{
	return a % unit ? a + (unit - a % unit) : a;
}
static inline uint64_t vd_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t vd_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
