/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts of every width in a refcount block's bytes. Which block, and what a count means, is qcow2_refcount.c's. */
#include "formats/qcow2/qcow2.h"

/* For counts narrower than a byte: the first lies in the least significant bits (spec "Refcounts"). */
static unsigned shift_in_byte(uint64_t index, uint32_t order)
{
	return (index << order) & 7;
}

uint64_t vd_qcow2_count_get(const uint8_t *block, uint64_t index, uint32_t order)
{
	switch (order) {
	case 3: return block[index];
	case 4: return vd_get_be16(block + index * 2);
	case 5: return vd_get_be32(block + index * 4);
	case 6: return vd_get_be64(block + index * 8);
	default: return block[index >> (3 - order)] >> shift_in_byte(index, order) & vd_qcow2_count_max(order);
	}
}

void vd_qcow2_count_put(uint8_t *block, uint64_t index, uint32_t order, uint64_t count)
{
	unsigned shift = shift_in_byte(index, order);
	uint8_t *byte;

	switch (order) {
	case 3: block[index] = count; break;
	case 4: vd_put_be16(block + index * 2, count); break;
	case 5: vd_put_be32(block + index * 4, count); break;
	case 6: vd_put_be64(block + index * 8, count); break;
	default:
		byte = &block[index >> (3 - order)];
		*byte = (*byte & ~(vd_qcow2_count_max(order) << shift)) | count << shift;
	}
}

uint64_t vd_qcow2_count_max(uint32_t order)
{
	return UINT64_MAX >> (64 - (1u << order));
}
