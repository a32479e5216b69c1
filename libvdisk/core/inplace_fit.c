/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a LUKS header from a file of its own is that of the disk. Nothing binds the two, and a key that opens another
 * disk's header would turn all data to noise. What the right key decrypts is noise throughout on hardly any disk.
 */
#include "libvdisk/core/inplace.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/inplace_steps.h"
#include "libvdisk/core/noise.h"

#define PIECE (64u << 10)
#define PIECES 64               /* the first, and others spread over the disk; a small one is looked at in whole */

struct look {
	uint32_t sector;                /* of the cipher */
	uint8_t *buf;                   /* PIECE bytes */
	uint64_t n_seen;                /* sectors that say something */
	bool fits;
};

/* l->fits: something in the piece reads like data. Sectors of zeros on the host are holes, and say nothing; others count. */
static int look_at_piece(struct vd_inplace *p, struct look *l, uint64_t at, struct vd_error *e)
{
	size_t len = vd_min_u64(PIECE, vd_round_down(p->img->info.size - at, l->sector));
	struct vd_noise ignored = { { 0 } };
	int r = vd_read(p->img, l->buf, len, at, e);

	for (uint8_t *sector = l->buf; sector < l->buf + len && r == 0 && !l->fits; sector += l->sector) {
		if (vd_is_zero(sector, l->sector))
			continue;
		l->n_seen++;
		r = vd_diskcipher_decrypt(p->cipher[0], sector, l->sector, (at + (uint64_t)(sector - l->buf)) / VD_JOURNAL_SECTOR,
					  l->sector, e);
		for (size_t i = 0; i < l->sector && r == 0; i += VD_NOISE_SECTOR)
			l->fits |= !vd_noise_sector(sector + i, VD_NOISE_SECTOR, &ignored);
	}
	return r;
}

static int refuse(const struct vd_inplace *p, struct vd_error *e)
{
	vd_fail(e, VD_EMISMATCH, "%s: decrypted with the header in %s it is noise wherever it was looked at: that is another disk's header, it seems",
		p->path, p->opts->header);
	return vd_hint(e, VD_EMISMATCH, "nothing was changed; name this disk's own header, or, if the disk does hold random bytes "
		       "only, convert it into a new image");
}

int vd_inplace_judge_fit(struct vd_inplace *p, uint32_t sector, struct vd_error *e)
{
	uint64_t size = p->img->info.size, step = vd_max_u64(PIECE, vd_round_up(size / PIECES, PIECE));
	vd_auto_free uint8_t *buf = NULL;
	struct look l = { .sector = sector };
	int r;

	if (!p->opts->header || !p->cipher[0])
		return 0;
	r = vd_alloc_buffer(PIECE, &buf, e);
	l.buf = buf;
	for (uint64_t at = 0; at + sector <= size && r == 0 && !l.fits; at += step)
		r = look_at_piece(p, &l, at, e);
	if (buf)
		vd_wipe(buf, PIECE);
	return r < 0 || l.fits || !l.n_seen ? r : refuse(p, e);
}
