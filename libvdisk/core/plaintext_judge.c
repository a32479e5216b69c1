/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may lie where in an encrypted image. Which bytes may be ciphertext, noise.c says; who goes through the files is
 * plaintext.c.
 *
 *   data, vm state                 ciphertext; zeros are a finding of their own
 *   compressed                     a finding by itself: no writer encrypts compressed clusters
 *   headers, tables, bitmaps       the format's own, in clear by its rules; what is behind them is slack
 *   LUKS header                    what the header in force says in clear; else ciphertext or zeros
 *   all else is nobody's           ciphertext that was somebody's, or zeros; behind tables 0xff, too
 */
#include "libvdisk/core/plaintext.h"

#include <string.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/core/host.h"

/* Below this a sum says too little to be worth its logarithms: whatever it holds passes. */
#define SUM_LEAST 65536

static bool is_filled(const uint8_t *p, size_t len, uint8_t value)
{
	return p[0] == value && !memcmp(p, p + 1, len - 1);
}

static bool is_known(int owner)
{
	switch (owner) {
	case VD_OWNER_HEADER:
	case VD_OWNER_TABLE:
	case VD_OWNER_JOURNAL:
	case VD_OWNER_COPY:
	case VD_OWNER_BITMAP:
	case VD_OWNER_DESCRIPTOR:
		return true;
	default:
		return false;
	}
}

static bool is_payload(int owner)
{
	return owner == VD_OWNER_DATA || owner == VD_OWNER_VMSTATE;
}

/* The header may lie in pieces anywhere: a sector of it is one that is the same. */
static bool is_in_header(const uint8_t *p, size_t len, struct vd_bytes clear)
{
	for (size_t at = 0; at + len <= clear.len; at += VD_NOISE_SECTOR)
		if (!memcmp(p, clear.p + at, len))
			return true;
	return false;
}

static void see(struct vd_piece *p, enum vd_plaintext_kind kind, uint32_t run, uint64_t off, uint64_t len)
{
	struct vd_sighting *last = p->n_seen ? &p->seen[p->n_seen - 1] : NULL;

	if (last && last->run == run && last->kind == kind && last->off + last->len == off)
		last->len += len;
	else
		p->seen[p->n_seen++] = (struct vd_sighting){ .kind = kind, .run = run, .off = off, .len = len };
}

/* A sector, or what of it is the run's. */
static void judge_sector(struct vd_piece *p, uint32_t run, uint64_t off, size_t len, struct vd_bytes clear,
			 struct vd_noise *sum)
{
	const uint8_t *bytes = p->bytes + (off - p->off);
	int owner = p->runs[run].owner;

	if (is_filled(bytes, len, 0)) {
		if (is_payload(owner))
			see(p, VD_PLAINTEXT_ZEROS, run, off, len);
		return;
	}
	/* Entries that lead nowhere, with which a VHD's table is padded. */
	if (owner == VD_OWNER_SLACK && p->runs[run].why == VD_SLACK_TABLE && is_filled(bytes, len, 0xff))
		return;
	p->not_zeros[run] = true;
	/* The cipher works in whole sectors, so less than one is the end of a payload that is cut short: nothing can be said. */
	if (len < VD_NOISE_LEAST ? is_payload(owner) : vd_noise_sector(bytes, len, sum))
		return;
	if (owner == VD_OWNER_KEYAREA && is_in_header(bytes, len, clear))
		return;
	see(p, VD_PLAINTEXT_READABLE, run, off, len);
}

static void judge_run(struct vd_piece *p, uint32_t run, struct vd_bytes clear, struct vd_noise sums[VD_N_OWNERS])
{
	const struct vd_host_run *r = &p->runs[run];
	struct vd_noise sum = { 0 };

	p->looked_at += r->len;
	for (uint64_t off = r->off, end = r->off + r->len, next; off < end; off = next) {
		next = vd_min_u64(end, vd_round_down(off, VD_NOISE_SECTOR) + VD_NOISE_SECTOR);
		judge_sector(p, run, off, next - off, clear, &sum);
	}
	if (r->len >= SUM_LEAST && !vd_noise_may_be(&sum))
		see(p, VD_PLAINTEXT_UNEVEN, run, r->off, r->len);
	else
		vd_noise_add(&sums[r->owner], &sum);
}

void vd_piece_judge(struct vd_piece *p, struct vd_bytes clear, struct vd_noise sums[VD_N_OWNERS])
{
	p->n_seen = 0;
	p->looked_at = p->known = 0;
	memset(p->not_zeros, 0, sizeof(p->not_zeros));
	for (uint32_t i = 0; i < p->n_runs; i++) {
		const struct vd_host_run *r = &p->runs[i];

		if (is_known(r->owner)) {
			p->known += r->len;
		} else if (r->owner == VD_OWNER_PACKED) {
			p->looked_at += r->len;
			see(p, VD_PLAINTEXT_COMPRESSED, i, r->off, r->len);
		} else {
			judge_run(p, i, clear, sums);
		}
	}
}
