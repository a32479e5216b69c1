/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changed blocks from a bitmap that qemu exports over NBD, as the meta context "qemu:dirty-bitmap:NAME". Which bitmap records since the base, who
 * asks says: qemu does not.
 */
#include "backup/changes_sources.h"
#include "fail.h"

#include "backup/live.h"

/* A machine's qemu shows the bitmap as it was at the moment of the backup; else it is one of the caller's. */
static const char *server_of(const struct changes *c)
{
	return c->live ? live_uri(c->live) : c->want->nbd;
}

#ifndef VD_HAVE_LIBNBD

int changes_of_nbd(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	(void)img;
	(void)why;
	return fail(e, VD_EUNSUPPORTED, "%s: this program was built without libnbd", server_of(c));
}

#else

#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#define CONTEXT "qemu:dirty-bitmap:"
#define DIRTY 1u                        /* of an entry's flags: qemu's interop/nbd.txt */
#define ASK_MAX (UINT64_C(1) << 30)     /* a length has 32 bits */

struct answer {
	struct changes *c;
	const char *context;
	uint64_t from, to;              /* up to here the server has said something */
};

static int take(void *ctx, const char *context, uint64_t off, uint32_t *entries, size_t n, int *error)
{
	struct answer *a = ctx;

	(void)error;
	if (strcmp(context, a->context) || off != a->from)
		return 0;
	for (size_t i = 0; i + 1 < n; i += 2) {
		if (entries[i + 1] & DIRTY)
			blockset_put(&a->c->set, off, entries[i]);
		off += entries[i];
	}
	a->to = off;
	return 0;
}

static int ask_all(struct changes *c, struct nbd_handle *h, const char *context, uint64_t size, char why[CHANGES_WHY_SIZE])
{
	struct answer a = { .c = c, .context = context };

	while (a.from < size) {
		uint64_t len = size - a.from < ASK_MAX ? size - a.from : ASK_MAX;

		a.to = a.from;
		if (nbd_block_status(h, len, a.from, (nbd_extent_callback){ .callback = take, .user_data = &a }, 0) < 0)
			return in_doubt(why, "the server's bitmap ends at byte %" PRIu64 ": %.80s", a.from, nbd_get_error());
		if (a.to <= a.from)
			return in_doubt(why, "the server's bitmap does not tell at byte %" PRIu64, a.from);
		a.from = a.to;
	}
	return 1;
}

static int ask(struct changes *c, struct nbd_handle *h, const char *bitmap, uint64_t size, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	char context[1024];

	if ((size_t)snprintf(context, sizeof(context), CONTEXT "%s", bitmap) >= sizeof(context))
		return fail(e, VD_EARG, "the bitmap's name is too long");
	if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 || nbd_set_uri_allow_local_file(h, false) < 0 ||
	    nbd_add_meta_context(h, context) < 0 || nbd_connect_uri(h, server_of(c)) < 0)
		return fail(e, VD_EIO, "%s: connecting failed: %s", server_of(c), nbd_get_error());
	if (nbd_get_size(h) < 0 || (uint64_t)nbd_get_size(h) != size)
		return in_doubt(why, "the server's disk has another size");
	if (nbd_can_meta_context(h, context) != 1)
		return in_doubt(why, "the server exports no bitmap '%.60s'", bitmap);
	return ask_all(c, h, context, size, why);
}

int changes_of_nbd(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	const char *bitmap = c->live ? live_bitmap(c->live) : c->want->bitmap;
	struct nbd_handle *h;
	int r;

	if (c->live && !bitmap[0])
		return in_doubt(why, "%s", c->live_doubt[0] ? c->live_doubt : "the base has no bitmap");
	if (!bitmap)
		return in_doubt(why, "no bitmap of the server is named");
	h = nbd_create();
	if (!h)
		return fail(e, VD_ENOMEM, "not enough memory");
	r = ask(c, h, bitmap, vd_image_size(img), why, e);
	c->base_tells = r == 1 && c->live;
	nbd_shutdown(h, 0);
	nbd_close(h);
	return r;
}

#endif
