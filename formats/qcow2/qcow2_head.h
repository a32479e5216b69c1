/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header cluster taken apart, to be changed and brought into force as a whole. */
#ifndef VD_FORMATS_QCOW2_HEAD_H
#define VD_FORMATS_QCOW2_HEAD_H

#include "formats/qcow2/qcow2.h"

struct vd_qcow2_head {
	uint8_t *fixed;                 /* the header itself; fields are changed in it, but not those of the name */
	size_t fixed_len;               /* header_length */
	uint8_t *list;                  /* extensions, each padded to 8 bytes; without the end mark */
	size_t list_len;
	char *backing_file;             /* NULL: none */
};

/* As it is on disk. All it holds is freed by vd_qcow2_head_free(), also after a failure. */
int vd_qcow2_head_read(const struct vd_qcow2 *s, struct vd_qcow2_head *h, struct vd_error *e) VD_MUST_CHECK;
void vd_qcow2_head_free(struct vd_qcow2_head *h);
#define vd_auto_head __attribute__((cleanup(vd_qcow2_head_free)))

/* Replaces the extension of this type, or adds it; data NULL takes it away. */
int vd_qcow2_head_put(struct vd_qcow2_head *h, uint32_t type, const void *data, size_t len, struct vd_error *e) VD_MUST_CHECK;
/* NULL: none. */
int vd_qcow2_head_set_backing_file(struct vd_qcow2_head *h, const char *name, struct vd_error *e) VD_MUST_CHECK;

/* VD_EUNSUPPORTED when it does not fit the header cluster. */
int vd_qcow2_head_judge(const struct vd_qcow2 *s, const struct vd_qcow2_head *h, struct vd_error *e) VD_MUST_CHECK;
/*
 * Brings it into force, durably, and lets this handle know. Under the conditions of vd_snap_ops: failed, nothing has
 * changed, but for VD_EPOISONED. A crash leaves the old header or the new one.
 */
int vd_qcow2_head_switch(struct vd_qcow2 *s, const struct vd_qcow2_head *h, struct vd_error *e) VD_MUST_CHECK;

#endif
