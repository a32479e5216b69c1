/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes and knows stubs. Where they are put, and when they go, the veil says. */
#include "libvdisk/core/stub.h"

#include "libvdisk/base/crc32c.h"
#include "libvdisk/base/cursor.h"

/* docs/interop/qcow2.txt: header of version 3, "Feature name table". */
#define QCOW2_MAGIC 0x514649fb
#define HEADER_LEN 104
#define FEATURE_TABLE 0x6803f857
#define FEATURE_LEN 48
#define FEATURE_BIT 60          /* of no meaning to anybody */

/* Past all that qemu looks at. */
#define MARK_AT 448
static const uint8_t mark[8] = { 'v', 'd', 'i', 's', 'k', 'c', 'v', 't' };

static void write_header(struct vd_writer *w)
{
	vd_write_be32(w, QCOW2_MAGIC);
	vd_write_be32(w, 3);
	vd_write_zeros(w, 12);          /* no backing file */
	vd_write_be32(w, 16);           /* cluster_bits */
	vd_write_be64(w, 0);            /* a disk of no bytes */
	vd_write_zeros(w, 8);           /* not encrypted, no L1 table */
	vd_write_be64(w, 0x10000);      /* where it would be */
	vd_write_be64(w, 0x20000);      /* refcount table */
	vd_write_be32(w, 1);
	vd_write_zeros(w, 12);          /* no snapshots */
	vd_write_be64(w, UINT64_C(1) << FEATURE_BIT);
	vd_write_zeros(w, 16);
	vd_write_be32(w, 4);            /* refcount_order */
	vd_write_be32(w, HEADER_LEN);
}

void vd_stub_make(uint8_t stub[VD_STUB_SIZE], const uint8_t uuid[VD_STUB_UUID])
{
	static const char name[FEATURE_LEN - 2] = "vdisk encryption in progress (vdisk resume)";
	struct vd_writer w = vd_writer_of(stub, VD_STUB_SIZE);

	memset(stub, 0, VD_STUB_SIZE);
	write_header(&w);
	vd_write_be32(&w, FEATURE_TABLE);
	vd_write_be32(&w, FEATURE_LEN);
	vd_write_u8(&w, 0);             /* an incompatible feature */
	vd_write_u8(&w, FEATURE_BIT);
	vd_write_bytes(&w, name, sizeof(name));
	w.pos = MARK_AT;
	vd_write_bytes(&w, mark, sizeof(mark));
	vd_write_bytes(&w, uuid, VD_STUB_UUID);
	w.pos = VD_STUB_SIZE - 4;
	vd_write_be32(&w, vd_crc32c(0, stub, VD_STUB_SIZE - 4));
}

bool vd_stub_read(struct vd_bytes head, uint8_t uuid[VD_STUB_UUID])
{
	if (head.len < VD_STUB_SIZE || vd_get_be32(head.p) != QCOW2_MAGIC || memcmp(head.p + MARK_AT, mark, sizeof(mark)) ||
	    vd_get_be32(head.p + VD_STUB_SIZE - 4) != vd_crc32c(0, head.p, VD_STUB_SIZE - 4))
		return false;
	memcpy(uuid, head.p + MARK_AT + sizeof(mark), VD_STUB_UUID);
	return true;
}
