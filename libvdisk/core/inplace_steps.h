/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the beginning of a conversion in place and the rest of it have in common. */
#ifndef VD_CORE_INPLACE_STEPS_H
#define VD_CORE_INPLACE_STEPS_H

#include "libvdisk/core/inplace.h"

/* What is known before there is a journal. */
struct vd_begin {
	enum vd_inplace_act act;
	bool is_encrypted, moves;
	bool is_container;              /* the disk's content is, or will be, a LUKS container: the format has no encryption of its own */
	uint64_t payload_off;
	uint64_t parent_size;           /* of an overlay's parent, header and all */
	uint32_t from_sector, to_sector, n_lost;
	uint64_t n_packed;              /* units */
	uint8_t *header[2];             /* of before and after */
	size_t header_len[2];
	struct vd_secret vk[2];
	struct vd_luks_info luks;       /* of before */
	uint64_t *ends;
	struct vd_inplace_plan plan;
	char finding[320];
};
void vd_begin_fini(struct vd_begin *b);

/* The image is open; afterwards p->j and the ciphers are there, and the journal is durable. */
int vd_inplace_begin(struct vd_inplace *p, enum vd_inplace_act act, const char *journal_path, struct vd_error *e) VD_MUST_CHECK;
/* What the keys room is to see of keyslots in this header. */
struct vd_luks_view vd_inplace_view(const struct vd_inplace *p, struct vd_bytes header);
/* Opens the header with one of the keys: p->cipher[i] is ready, the volume key in vk. */
int vd_inplace_unlock(struct vd_inplace *p, int i, struct vd_bytes header, struct vd_secret *vk, struct vd_error *e) VD_MUST_CHECK;
/* Of an image without a stub: it is whole, and the journal of no use. */
bool vd_inplace_is_stale(const struct vd_inplace *p, const struct vd_journal *j);
/* inplace_fit.c: VD_EMISMATCH when the header file is another disk's. The old cipher, with these sectors, is there. */
int vd_inplace_judge_fit(struct vd_inplace *p, uint32_t sector, struct vd_error *e) VD_MUST_CHECK;
const char *vd_inplace_act_name(int act);

#endif
