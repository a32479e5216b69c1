/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells bytes that cannot be ciphertext from those that may be. Whose the bytes are, and what follows, is plaintext.c's.
 *
 * Ciphertext of XTS is, to anybody without the key, bytes that fall on the 256 values independently and evenly. Two tests,
 * each of which takes such bytes for something else with a probability of at most 2^-80, by bounds that hold for every
 * length and not only in the limit:
 *
 *  - A sector: the number of pairs of equal bytes in it, which is chi-square in whole numbers. With n bytes spread by a
 *    multinomial law, P(pairs >= t) <= P'(pairs >= t) / P'(n bytes), where P' has a Poisson law of its own in each of the 256
 *    cells; so the tail is one convolution. test_noise computes it for each bound in the table of noise.c.
 *  - Any number of bytes together: their relative entropy D against the even law, P(nD >= g) <= exp(-g) (e g / 255)^255
 *    for g > 255 (R. Agrawal, Finite-Sample Concentration of the Multinomial in Relative Entropy, 2020).
 *
 * 64 TiB have 2^37 sectors, and 2^26 pieces of 1 MiB: a false alarm in all of them has a probability below 2^-42.
 *
 * What gets through a sector: compressed streams, and text of less than about 130 of its 512 bytes if all others are
 * random. Compressed streams show in sums: gzip's from about half a MiB on.
 */
#ifndef VD_CORE_NOISE_H
#define VD_CORE_NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VD_NOISE_SECTOR 512
/* Less says nothing: any bytes are as likely as others. */
#define VD_NOISE_LEAST 64

/* How often each value was met. */
struct vd_noise {
	uint64_t count[256];
};

/* Whether the bytes, VD_NOISE_LEAST to VD_NOISE_SECTOR of them, may be ciphertext; only then they are added to the sum. */
bool vd_noise_sector(const uint8_t *p, size_t len, struct vd_noise *sum);
/* Whether those of the sum may be. */
bool vd_noise_may_be(const struct vd_noise *sum);
void vd_noise_add(struct vd_noise *to, const struct vd_noise *from);
/* The least number of equal pairs that so many bytes are not allowed, for test_noise. */
unsigned vd_noise_bound(size_t len);
#define VD_NOISE_NATS 462.0     /* the same for the sum: n D */

#endif
