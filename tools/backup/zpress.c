/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one file of the tools that includes libzstd. */
#include "backup/zpress.h"

#include <stdlib.h>
#include <zstd.h>

#include "fail.h"
#include "ui.h"

/* Beside level 3 half the time, and 3 % more bytes, on disks of systems; restic's own "fastest" is as fast. */
#define LEVEL 1
#define STEP (256u << 10)

struct zpress {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
};

int zpress_new(struct zpress **out, struct vd_error *e)
{
	struct zpress *z = calloc(1, sizeof(*z));

	(void)e;
	if (!z)
		ui_out_of_memory();
	z->pack = ZSTD_createCCtx();
	z->unpack = ZSTD_createDCtx();
	if (!z->pack || !z->unpack)
		ui_out_of_memory();
	*out = z;
	return 0;
}

void zpress_free(struct zpress *z)
{
	if (!z)
		return;
	ZSTD_freeCCtx(z->pack);
	ZSTD_freeDCtx(z->unpack);
	free(z);
}

size_t zpress_bound(size_t n)
{
	return ZSTD_compressBound(n);
}

int zpress_pack(struct zpress *z, const void *in, size_t n, void *out, size_t room, size_t *got, struct vd_error *e)
{
	*got = ZSTD_compressCCtx(z->pack, out, room, in, n, LEVEL);
	return ZSTD_isError(*got) ? fail(e, VD_EFAILED, "compressing: %s", ZSTD_getErrorName(*got)) : 0;
}

int zpress_unpack(struct zpress *z, const void *in, size_t in_len, void *out, size_t n, struct vd_error *e)
{
	size_t got = ZSTD_decompressDCtx(z->unpack, out, n, in, in_len);

	if (ZSTD_isError(got))
		return fail(e, VD_ECORRUPT, "it does not unpack: %s", ZSTD_getErrorName(got));
	return got == n ? 0 : fail(e, VD_ECORRUPT, "it unpacks to %zu bytes instead of %zu", got, n);
}

int zpress_unpack_any(struct zpress *z, const void *in, size_t in_len, size_t max, struct bytes *out, struct vd_error *e)
{
	ZSTD_inBuffer from = { in, in_len, 0 };
	size_t left = 1, begun = out->n;
	uint8_t *step = malloc(STEP);

	if (!step)
		ui_out_of_memory();
	ZSTD_DCtx_reset(z->unpack, ZSTD_reset_session_only);
	while (!ZSTD_isError(left) && (left || from.pos < from.size)) {
		ZSTD_outBuffer to = { step, STEP, 0 };

		left = ZSTD_decompressStream(z->unpack, &to, &from);
		if (ZSTD_isError(left) || out->n - begun + to.pos > max || (left && !to.pos && from.pos == from.size))
			break;
		bytes_add(out, step, to.pos);
	}
	free(step);
	if (ZSTD_isError(left))
		return fail(e, VD_ECORRUPT, "it does not unpack: %s", ZSTD_getErrorName(left));
	return left || from.pos < from.size ? fail(e, VD_ECORRUPT, "it unpacks to more than %zu bytes, or is cut off", max) : 0;
}
