/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells from bytes alone whether they look like plain data, compressed data, or ciphertext. */
#ifndef TOOLS_CLASSIFY_H
#define TOOLS_CLASSIFY_H

#include <stddef.h>
#include <stdint.h>

/* From good to bad, where an encrypted disk is what is wanted. */
enum content {
	CONTENT_ZERO,           /* nothing, or nothing but zeros */
	CONTENT_RANDOM,         /* no structure at all: encrypted, or random, or xz's output */
	CONTENT_PACKED,         /* little structure: compressed */
	CONTENT_PLAIN,
	CONTENT_N,
};

/* How much should be looked at together: in 64 KiB up to half of what gzip makes of text looks random, in 256 KiB none. */
#define CLASSIFY_BYTES 262144

enum content classify(const uint8_t *bytes, size_t len);

#endif
