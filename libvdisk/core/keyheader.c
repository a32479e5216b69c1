/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backs up the LUKS header of an image to a file and puts it back. Single keyslots are keyslots.c's. */
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/shape.h"

#define BACKUP_UNIT 4096        /* cryptsetup reads backups in whole pages */
#define BACKUP_MAX (128u << 20) /* longest LUKS2 header: see layer.c */

/* ---- backup ------------------------------------------------------------------------------------------------ */

VD_PUBLIC int vd_header_backup(struct vd_image *img, const char *path, struct vd_error *e)
{
	vd_auto_free uint8_t *header = NULL;
	size_t len = 0;
	int r = vd_keyslots_judge(img, e);

	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&img->control);
	r = vd_layer_read_header(img, img->layer.is_container, &header, &len, e);
	pthread_rwlock_unlock(&img->control);
	if (r == 0 && img->layer.luks.damaged_copy)
		r = vd_luks_mend(header, len, e);
	return r < 0 ? r : vd_output_put(vd_host_os(), path, false, header, len, vd_round_up(len, BACKUP_UNIT), e);
}

/* ---- restore ----------------------------------------------------------------------------------------------- */

/* The header in the file: its bytes without the padding. */
static int read_file(const char *path, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	struct vd_host *host = vd_host_os();
	vd_auto_free uint8_t *bytes = NULL;
	struct vd_io *io = NULL;
	uint64_t size = 0, extent = 0;
	int r = host->open(host, path, 0, &io, e);

	if (r < 0)
		return r;
	r = vd_io_size(io, &size, e);
	if (r == 0 && (size < 2 * BACKUP_UNIT || size > BACKUP_MAX))
		r = vd_fail(e, VD_ECORRUPT, "%s: a file of %llu bytes is no LUKS header backup", path, (unsigned long long)size);
	if (r == 0)
		r = vd_alloc(1, size, &bytes, e);
	if (r == 0)
		r = vd_io_pread_exact(io, bytes, size, 0, e);
	vd_io_abort(io);
	if (r < 0)
		return r;
	if (!vd_luks_search((struct vd_bytes){ bytes, size }, &extent) || extent > size)
		return vd_fail(e, VD_ECORRUPT, "%s: it is no LUKS header backup, or cut short", path);
	*out = vd_steal(&bytes);
	*out_len = extent;
	return 0;
}

struct restore {
	const char *path;
	const struct vd_key *key;
};

static int mismatch(const struct vd_image *img, const char *path, const char *what, struct vd_error *e)
{
	vd_fail(e, VD_EMISMATCH, "%s: this header backup is for another disk than %s: %s", path, img->path, what);
	return vd_hint(e, VD_EMISMATCH, "nothing was changed; with the wrong header the data would be lost");
}

/* What can be known of the disk without its own header: where its payload lies, and how large the header may be. */
static int judge_fit(const struct vd_image *img, const char *path, const struct vd_luks_info *backup, size_t len,
		     struct vd_error *e)
{
	const struct vd_luks_info *own = &img->layer.luks;
	uint64_t room = img->header ? BACKUP_MAX : img->layer.is_container ? img->info.size : img->info.key_area_len;

	if (len > room)
		return mismatch(img, path, "it does not fit", e);
	if (!img->layer.is_container && backup->version != 1)
		return mismatch(img, path, "an image's own header is LUKS1", e);
	if (!own->version)
		return 0;
	if (strcmp(own->uuid, backup->uuid))
		return mismatch(img, path, "the UUIDs differ", e);
	if (own->version != backup->version || own->key_bits != backup->key_bits || strcmp(own->mode, backup->mode) ||
	    (img->layer.is_container && (own->payload_off != backup->payload_off || own->sector_size != backup->sector_size)))
		return mismatch(img, path, "it says otherwise of version, cipher or place of the payload", e);
	return 0;
}

/*
 * In which order the parts go to the disk: key material of the slots in the backup, the header, then the room that none of
 * these slots uses, where the slots of before were. So a slot of before or of the backup opens at every instant, but for
 * those that have the same place and another key.
 */
static int write_part(struct vd_image *img, const uint8_t *header, uint64_t from, uint64_t end, struct vd_error *e)
{
	return from < end ? vd_layer_write_header(img, header + from, end - from, from, e) : 0;
}

/* The key material in use, or all that is not. */
static int write_areas(struct vd_image *img, struct vd_bytes header, bool in_use, struct vd_error *e)
{
	struct vd_luks_area dead[VD_LUKS_AREAS_MAX];
	uint64_t at = vd_round_up(vd_luks_clear_len(header), BACKUP_UNIT);
	size_t n = 0;
	int r = vd_luks_dead_areas(header, dead, &n, e);

	for (size_t i = 0; i < n && r == 0; i++) {
		uint64_t end = vd_min_u64(dead[i].end, header.len);

		r = in_use ? write_part(img, header.p, at, dead[i].off, e) : write_part(img, header.p, dead[i].off, end, e);
		at = end;
	}
	return r < 0 || !in_use ? r : write_part(img, header.p, at, header.len, e);
}

#define SECTOR 512
#define SLOTS_IN_FIRST_SECTOR 6         /* whole ones, of LUKS1 (spec 1.2.3, figures 1 and 2) */

/* Each sector is one instant: that with a slot in use goes first. */
static int write_luks1(struct vd_image *img, const uint8_t *header, const struct vd_luks_info *info, struct vd_error *e)
{
	bool first = false;
	int r;

	for (uint32_t i = 0; i < info->n_slots; i++)
		first |= info->slots[i].index < SLOTS_IN_FIRST_SECTOR;
	r = first ? write_part(img, header, 0, SECTOR, e) : write_part(img, header, SECTOR, BACKUP_UNIT, e);
	if (r < 0)
		return r;
	return first ? write_part(img, header, SECTOR, BACKUP_UNIT, e) : write_part(img, header, 0, SECTOR, e);
}

/* The two copies: that which does not hold now first. */
static int write_luks2(struct vd_image *img, struct vd_bytes header, struct vd_error *e)
{
	uint64_t clear = vd_luks_clear_len(header), copy = clear / 2;
	bool first = img->layer.luks.damaged_copy == 1;
	int r = first ? write_part(img, header.p, 0, copy, e) : write_part(img, header.p, copy, clear, e);

	if (r < 0)
		return r;
	return first ? write_part(img, header.p, copy, clear, e) : write_part(img, header.p, 0, copy, e);
}

static int restore(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct restore *q = arg;
	vd_auto_free uint8_t *header = NULL;
	struct vd_luks_info info;
	struct vd_luks_view view;
	uint32_t slot;
	size_t len = 0;
	int r = read_file(q->path, &header, &len, e);

	if (r < 0)
		return r;
	r = vd_luks_inspect((struct vd_bytes){ header, len }, img->layer.is_container && !img->header ? img->info.size : 0, &info, e);
	if (r == 0 && info.damaged_copy)
		r = vd_luks_mend(header, len, e);
	if (r == 0)
		r = judge_fit(img, q->path, &info, len, e);
	view = vd_layer_luks_view(img, (struct vd_bytes){ header, len });
	if (r == 0)
		r = vd_luks_find_slot(&view, q->key, &slot, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", q->path);
	r = write_areas(img, (struct vd_bytes){ header, len }, true, e);
	if (r == 0)
		r = info.version == 1 ? write_luks1(img, header, &info, e) : write_luks2(img, (struct vd_bytes){ header, len }, e);
	if (r == 0)
		r = write_areas(img, (struct vd_bytes){ header, len }, false, e);
	return r < 0 ? r : vd_keyslots_read_back(img, (struct vd_bytes){ header, len }, e);
}

VD_PUBLIC int vd_header_restore(struct vd_image *img, const char *path, const struct vd_key *key, struct vd_error *e)
{
	const struct restore q = { path, key };
	int r = vd_keyslots_judge(img, e);

	return r < 0 ? r : vd_shape_run(img, restore, &q, e);
}
