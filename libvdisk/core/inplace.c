/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypts, decrypts and re-encrypts an image where it lies: the order of the passes, and what is durable between them.
 *
 * P1  The journal is durable before the stub; from the stub on nobody else opens the image.
 * P2  A pass that is not over is begun again after a crash, and finds out by itself what of it is done.
 * P3  What becomes of tables goes the ordinary way of the image's driver, which sees the image through the veil.
 * P4  The last sector that comes back is the first of the file: with it the image is whole, and the journal of no use.
 */
#include "libvdisk/core/inplace.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/inplace_steps.h"
#include "libvdisk/core/inplace_unpack.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/shape.h"
#include "libvdisk/core/stub.h"

static struct vd_journal_state *state_of(struct vd_inplace *p)
{
	return &p->j->state;
}

/* ---- progress ------------------------------------------------------------------------------------------- */

static uint64_t position(const struct vd_inplace *p, uint32_t file, uint64_t at)
{
	const struct vd_journal_state *s = &p->j->state;
	uint64_t sum = at;

	/* Of a disk that moves into a container the cursor goes down. */
	if (s->moves)
		return !s->from_sector ? s->total - vd_min_u64(at, s->total) : at;
	if (s->is_born)
		return s->total;
	for (uint32_t i = 0; i < file && i < s->n_files; i++)
		sum += p->j->ends[i];
	return vd_min_u64(sum, s->total);
}

int vd_inplace_progress(struct vd_inplace *p, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	struct vd_progress report = { .phase = s->is_back ? "revert" : vd_inplace_act_name(s->act), .total = s->total };

	if (!p->job || !p->job->progress)
		return 0;
	report.done = position(p, p->at_file, p->at);
	if (s->is_back && s->moves)
		report.done = s->total - report.done;
	return p->job->progress(p->job->ctx, &report) ? vd_fail(e, VD_ECANCELLED, "stopped") : 0;
}

/* ---- the image ------------------------------------------------------------------------------------------ */

static int open_bare(struct vd_inplace *p, const char *format, const char *header, struct vd_error *e)
{
	struct vd_open_opts o = {
		.struct_size = sizeof(o), .format = format, .header = header, .gate = p->opts->gate, .gate_ctx = p->opts->gate_ctx,
		.flags = VD_OPEN_WRITE | VD_OPEN_METADATA | VD_OPEN_FILES | VD_OPEN_SCRUB_FREED | VD_OPEN_APPENDS | VD_OPEN_BARE,
	};

	return vd_image_open_below(vd_veil_host(p->veil), NULL, p->path, &o, NULL, &p->img, e);
}

static int close_bare(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_image *img = vd_steal(&p->img);

	return img ? vd_image_close(img, e) : 0;
}

/* Notes tell whose they are: a header that they do not belong to has none. */
struct vd_luks_view vd_inplace_view(const struct vd_inplace *p, struct vd_bytes header)
{
	struct vd_luks_view view = { .header = header, .image = p->path };

	if (p->img && p->img->format->encrypts)
		view.notes = p->img->info.key_notes;
	return view;
}

int vd_inplace_unlock(struct vd_inplace *p, int i, struct vd_bytes header, struct vd_secret *vk, struct vd_error *e)
{
	const struct vd_luks_view view = vd_inplace_view(p, header);
	int r = vd_fail(e, VD_ENOKEY, "%s: the key %s is needed", p->path, i ? "of the new header" : "that opens it as it was");

	for (size_t k = 0; k < p->opts->n_keys && (r == VD_ENOKEY || r == VD_EKEY); k++)
		r = vd_luks_unlock(&view, p->opts->keys[k], vk, e);
	if ((r == VD_ENOKEY || r == VD_EKEY) && i && p->opts->new_key)
		r = vd_luks_unlock(&view, p->opts->new_key, vk, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", p->path);
	return vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, vk->p, vk->len, &p->cipher[i], e);
}

/* ---- the passes ----------------------------------------------------------------------------------------- */

static int enter(struct vd_inplace *p, enum vd_phase phase, struct vd_error *e)
{
	state_of(p)->phase = (uint8_t)phase;
	state_of(p)->record = p->j->n_records;
	return vd_journal_write_state(p->j, e);
}

static int resize_to(struct vd_inplace *p, uint64_t size, struct vd_error *e)
{
	struct vd_image *img = p->img;
	int r = 0;

	if (img->info.size == size)
		return 0;
	if (size > img->info.size && img->format->reach)
		r = img->format->reach(img->state, size, e);
	if (r == 0)
		r = vd_shape_settle(img, e);
	if (r == 0)
		r = img->format->resize(img->state, size, e);
	img->format->describe(img->state, &img->info);
	return r < 0 ? r : vd_image_learn_size(img, e);
}

/* Compressed bytes cannot be ciphertext: they become data, born encrypted. */
static int unpack(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_layer to = { .cipher = p->cipher[1], .encryption = VD_ENCRYPTED_LUKS, .sector_size = VD_JOURNAL_SECTOR,
			       .tweak = VD_TWEAK_HOST };

	return to.cipher && p->img->format->unpack ? vd_inplace_unpack(p->img, &to, p->job, e) : 0;
}

/* Room for what comes: a larger file for data that move, places for holes. */
static int fill(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_journal_state *s = state_of(p);

	if (s->moves)
		return s->act == VD_INPLACE_ENCRYPT ? resize_to(p, s->size + s->payload_off, e) : 0;
	/* Where the disk lies byte for byte in one file, the walk turns its holes, too. */
	if (p->img->info.unit == 1 && vd_set_count(p->img->set) == 1)
		return 0;
	return s->is_container ? vd_inplace_fill(p, e) : 0;
}

/* Those who know the format by its end are kept off there, too. */
static int hide_tail(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_io *file = vd_veil_file(p->veil);
	uint64_t size = 0;
	int r;

	if (!p->img->info.tail_mark || state_of(p)->n_hidden > 1)
		return 0;
	r = vd_io_size(file, &size, e);
	return r < 0 || size < 2 * VD_STUB_SIZE ? r : vd_veil_hide(p->veil, size - VD_STUB_SIZE, e);
}

static int data(struct vd_inplace *p, struct vd_error *e)
{
	int r = hide_tail(p, e);

	if (r < 0)
		return r;
	p->at_file = state_of(p)->cursor_file;
	p->at = state_of(p)->cursor;
	return state_of(p)->moves ? vd_inplace_move(p, e) : vd_inplace_walk(p, e);
}

static int shift(struct vd_inplace *p, uint64_t size, struct vd_error *e)
{
	struct vd_image *img = p->img;
	int r = vd_shape_settle(img, e);

	if (img->info.size == size || r < 0)
		return r;
	r = img->format->shift(img->state, (int64_t)(size - img->info.size), false, e);
	img->format->describe(img->state, &img->info);
	if (r == 0)
		r = vd_image_learn_size(img, e);
	return r < 0 ? r : vd_shape_settle(img, e);
}

/* Tables change from what they were to what they are to be, each by one step of its driver. */
static int switch_tables(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_journal_state *s = state_of(p);
	int r;

	/* Begun, a driver ends as it should: with nothing left in a log of its own. */
	if (s->is_back && s->is_container && !s->moves)
		return vd_write_start(p->img, e);
	if (s->is_back)
		return s->moves && s->act == VD_INPLACE_ENCRYPT ? resize_to(p, s->size, e) : 0;
	if (!s->is_container) {
		r = vd_shape_settle(p->img, e);
		if (r == 0)
			r = p->img->format->set_key_area(p->img->state, vd_inplace_header(p, 1), e);
		p->img->format->describe(p->img->state, &p->img->info);
		return r < 0 ? r : vd_shape_settle(p->img, e);
	}
	if (s->moves)
		return s->act == VD_INPLACE_DECRYPT ? resize_to(p, s->size - s->payload_off, e) : 0;
	if (s->act == VD_INPLACE_REKEY)
		return 0;
	return shift(p, s->act == VD_INPLACE_ENCRYPT ? s->size + s->payload_off : s->size - s->payload_off, e);
}

static const struct {
	const char *name;
	int (*run)(struct vd_inplace *p, struct vd_error *e);
} phases[VD_N_PHASES] = {
	[VD_PHASE_BEGIN] = { "begin", NULL },
	[VD_PHASE_UNPACK] = { "unpack", unpack },
	[VD_PHASE_FILL] = { "fill", fill },
	[VD_PHASE_DATA] = { "data", data },
	[VD_PHASE_SWITCH] = { "switch", switch_tables },
	[VD_PHASE_HEADER] = { "header", vd_inplace_write_header },
	[VD_PHASE_UNVEIL] = { "unveil", NULL },
	[VD_PHASE_DONE] = { "done", NULL },
};

/* The image opens, as what it is to be, with the header that the keys were tried on. */
static int look_again(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_journal_state *s = state_of(p);
	struct vd_open_opts o = { .struct_size = sizeof(o), .flags = VD_OPEN_METADATA | VD_OPEN_FILES, .format = s->format,
				  .gate = p->opts->gate, .gate_ctx = p->opts->gate_ctx };
	struct vd_bytes want = vd_inplace_header(p, s->is_back ? 0 : 1);
	uint64_t size = s->size - (s->from_sector ? s->payload_off : 0);
	vd_auto_free uint8_t *header = NULL;
	struct vd_image *img = NULL;
	size_t len = 0;
	int r;

	if (s->is_container && want.len && !strcmp(s->format, "raw"))
		o.format = "luks";
	if (want.len && vd_inplace_is_detached(s))
		o.header = p->opts->header;
	r = vd_image_open_below(vd_veil_host(p->veil), NULL, p->path, &o, NULL, &img, e);
	if (r < 0)
		return r;
	if (img->size != size || (img->layer.encryption == VD_ENCRYPTED_LUKS) != (want.len > 0))
		r = vd_fail(e, VD_EFAILED, "%s: looked at again, it is not what it should be", p->path);
	if (r == 0 && want.len)
		r = vd_layer_read_header(img, img->layer.is_container, &header, &len, e);
	if (r == 0 && want.len && memcmp(header, want.p, vd_min_u64(len, want.len)))
		r = vd_fail(e, VD_EIO, "%s: its header reads back otherwise than it was written", p->path);
	vd_image_abort(img);
	return r;
}

/* Everything but the veil. */
static int run_passes(struct vd_inplace *p, struct vd_error *e)
{
	int r = 0;

	while (r == 0 && state_of(p)->phase < VD_PHASE_UNVEIL) {
		enum vd_phase now = state_of(p)->phase;

		if (phases[now].run)
			r = phases[now].run(p, e);
		if (r == 0)
			r = vd_image_commit_tables(p->img, e);
		if (r == 0 && now + 1 < VD_PHASE_UNVEIL)
			r = enter(p, now + 1, e);
		else if (r == 0)
			break;
	}
	return r;
}

static int finish(struct vd_inplace *p, struct vd_error *e)
{
	int r = 0;

	if (state_of(p)->phase < VD_PHASE_UNVEIL) {
		r = run_passes(p, e);
		if (r == 0)
			r = close_bare(p, e);
		if (r == 0)
			r = look_again(p, e);
		if (r == 0)
			r = enter(p, VD_PHASE_UNVEIL, e);
	}
	if (r == 0)
		r = vd_veil_lift(p->veil, e);
	if (r < 0)
		return r;
	p->report->is_encrypted = state_of(p)->header_len[!state_of(p)->is_back];
	r = enter(p, VD_PHASE_DONE, e);
	if (r == 0)
		r = vd_journal_remove(vd_steal(&p->j), e);
	if (r == 0)
		return 0;
	p->report->changed = false;
	return vd_hint(e, r, "%s is whole, and its conversion has ended: its journal is of no use any more, and can be removed", p->path);
}

/* ---- beginning and going on ----------------------------------------------------------------------------- */

static int journal_path(const struct vd_inplace *p, char **path, struct vd_error *e)
{
	size_t len = strlen(p->path) + sizeof(VD_JOURNAL_SUFFIX);
	int r;

	if (p->opts->journal)
		return vd_strdup(p->opts->journal, path, e);
	r = vd_alloc(1, len, path, e);
	if (r == 0)
		snprintf(*path, len, "%s%s", p->path, VD_JOURNAL_SUFFIX);
	return r;
}

bool vd_inplace_is_stale(const struct vd_inplace *p, const struct vd_journal *j)
{
	const struct vd_io *file = vd_veil_file(p->veil);
	const struct vd_journal_state *s = &j->state;

	if (s->phase == VD_PHASE_DONE)
		return true;
	return (s->phase <= VD_PHASE_UNPACK || s->phase == VD_PHASE_UNVEIL) && s->dev == file->dev && s->ino == file->ino;
}

static int read_stub(struct vd_inplace *p, uint8_t uuid[VD_STUB_UUID], bool *has_stub, struct vd_error *e)
{
	uint8_t head[VD_STUB_SIZE];
	int r = vd_io_pread(vd_veil_file(p->veil), head, sizeof(head), 0, e);

	*has_stub = r == 0 && vd_stub_read((struct vd_bytes){ head, sizeof(head) }, uuid);
	return r;
}

/* Whatever stopped it: what to do is the same. */
static int say_half_way(struct vd_inplace *p, int r, struct vd_error *e)
{
	const char *journal = p->opts->journal, *header = p->opts->header;
	char opts[sizeof(e->hint)];

	/* What was asked for in vain has a hint of its own. */
	if (r == 0 || r == VD_EARG || !p->report->changed)
		return r;
	snprintf(opts, sizeof(opts), "%s%s%s%s", journal ? " --journal " : "", journal ? journal : "", header ? " --header " : "",
		 header ? header : "");
	if (r == VD_ECANCELLED)
		vd_fail(e, VD_EHALFWAY, "%s: stopped; the conversion can go on", p->path);
	return vd_hint(e, r == VD_ECANCELLED ? VD_EHALFWAY : r, "vdisk resume%s %s goes on, vdisk revert%s %s undoes it", opts, p->path,
		       opts, p->path);
}

static int start(struct vd_inplace *p, enum vd_inplace_act act, struct vd_error *e)
{
	vd_auto_free char *path = NULL;
	/* Of a new header nothing is to be read. */
	int r = open_bare(p, p->opts->format, act == VD_INPLACE_ENCRYPT ? NULL : p->opts->header, e);

	if (r == 0)
		r = journal_path(p, &path, e);
	if (r == 0)
		r = vd_inplace_begin(p, act, path, e);
	if (r == 0)
		r = vd_veil_use(p->veil, p->j, e);
	if (r < 0)
		return r;
	p->report->changed = true;
	state_of(p)->phase = VD_PHASE_UNPACK;
	r = vd_veil_hide(p->veil, 0, e);
	if (r == 0)
		return finish(p, e);
	/* Nothing has become of it yet. */
	p->report->changed = vd_veil_lift(p->veil, NULL) < 0 || vd_journal_remove(vd_steal(&p->j), NULL) < 0;
	return r;
}

static int no_stub(struct vd_inplace *p, struct vd_error *e)
{
	vd_fail(e, VD_EARG, "%s is not half-way through a conversion", p->path);
	return vd_hint(e, VD_EARG, "if this is a copy from before, or the wrong file, leave the journal where it is");
}

static int open_journal(struct vd_inplace *p, const uint8_t uuid[VD_STUB_UUID], struct vd_error *e)
{
	vd_auto_secret struct vd_secret before = { 0 }, after = { 0 };
	struct vd_secret *vk[2] = { &before, &after }, *anchor;
	vd_auto_free char *path = NULL;
	int r = journal_path(p, &path, e);

	if (r == 0)
		r = vd_journal_open(p->inner, path, true, &p->j, e);
	if (r == VD_ENOENT)
		return vd_hint(e, r, "without its journal a half-converted image is lost: look for the journal, or name it with --journal");
	if (r == 0 && memcmp(uuid, state_of(p)->uuid, VD_STUB_UUID))
		r = vd_fail(e, VD_EARG, "%s is the journal of another conversion", path);
	for (int i = 0; i < 2 && r == 0; i++)
		if (state_of(p)->header_len[i])
			r = vd_inplace_unlock(p, i, vd_inplace_header(p, i), vk[i], e);
	if (r < 0)
		return r;
	anchor = state_of(p)->header_len[1] ? &after : &before;
	r = vd_journal_unlock(p->j, (struct vd_bytes){ anchor->p, anchor->len }, e);
	return r < 0 ? r : vd_veil_use(p->veil, p->j, e);
}

/* What was under way when it stopped is brought to its end, in the direction that it had. */
static int reopen(struct vd_inplace *p, struct vd_error *e)
{
	uint8_t uuid[VD_STUB_UUID];
	bool has_stub;
	int r = read_stub(p, uuid, &has_stub, e);

	if (r == 0 && !has_stub)
		r = no_stub(p, e);
	if (r == 0)
		r = open_journal(p, uuid, e);
	if (r < 0)
		return r;
	p->report->changed = true;
	if (state_of(p)->phase >= VD_PHASE_UNVEIL)
		return 0;
	r = open_bare(p, state_of(p)->format, NULL, e);
	return r < 0 ? r : vd_mover_replay(p, e);
}

static int resume(struct vd_inplace *p, struct vd_error *e)
{
	int r = reopen(p, e);

	if (r == 0)
		r = vd_inplace_judge_header(p, state_of(p)->is_back, e);
	return r < 0 ? r : finish(p, e);
}

static int turn_round(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_journal_state *s = state_of(p);

	if (s->is_back)
		return 0;
	if (s->phase > VD_PHASE_DATA) {
		vd_fail(e, VD_EARG, "%s: all of its data are converted, which is too late to undo it", p->path);
		return vd_hint(e, VD_EARG, "vdisk resume brings it to its end; then convert it the other way");
	}
	s->is_back = true;
	if (!s->moves) {
		s->stop_file = s->cursor_file;
		s->stop = s->cursor;
		s->cursor_file = 0;
		s->cursor = 0;
	}
	return enter(p, VD_PHASE_DATA, e);
}

static int revert(struct vd_inplace *p, struct vd_error *e)
{
	int r = reopen(p, e);

	if (r == 0)
		r = vd_inplace_judge_header(p, true, e);
	if (r == 0)
		r = turn_round(p, e);
	return r < 0 ? r : finish(p, e);
}

static int judge_opts(const struct vd_inplace_opts *opts, const struct vd_job *job, struct vd_inplace_report *report,
		      struct vd_error *e)
{
	if (!opts || opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_inplace_opts: struct_size is not %zu", sizeof(*opts));
	if (report->struct_size != sizeof(*report))
		return vd_fail(e, VD_EARG, "struct vd_inplace_report: struct_size is not %zu", sizeof(*report));
	*report = (struct vd_inplace_report){ .struct_size = sizeof(*report) };
	return vd_job_check(job, e);
}

static int run(struct vd_inplace *p, enum vd_inplace_act act, int (*go)(struct vd_inplace *p, struct vd_error *e), struct vd_error *e)
{
	int r = vd_veil_open(p->inner, p->path, &p->veil, e), c;

	if (r < 0)
		return r;
	r = go ? go(p, e) : start(p, act, e);
	r = say_half_way(p, r, e);
	if (p->img)
		vd_image_abort(p->img);
	vd_journal_close(p->j);
	vd_diskcipher_free(p->cipher[0]);
	vd_diskcipher_free(p->cipher[1]);
	c = vd_veil_close(p->veil, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

int vd_inplace_run_on(struct vd_host *host, const char *path, enum vd_inplace_run what, const struct vd_inplace_opts *opts,
		      const struct vd_job *job, struct vd_inplace_report *report, struct vd_error *e)
{
	struct vd_inplace p = { .inner = host ? host : vd_host_os(), .path = path, .opts = opts, .job = job, .report = report };
	int r = judge_opts(opts, job, report, e);

	if (r < 0)
		return r;
	if (what == VD_INPLACE_RESUME || what == VD_INPLACE_REVERT)
		return run(&p, 0, what == VD_INPLACE_RESUME ? resume : revert, e);
	return run(&p, (enum vd_inplace_act)what, NULL, e);
}

VD_PUBLIC int vd_inplace_start(const char *path, enum vd_inplace_act act, const struct vd_inplace_opts *opts, const struct vd_job *job,
			       struct vd_inplace_report *report, struct vd_error *e)
{
	if (act < VD_INPLACE_ENCRYPT || act > VD_INPLACE_REKEY)
		return vd_fail(e, VD_EARG, "there is no conversion %d", act);
	return vd_inplace_run_on(NULL, path, (enum vd_inplace_run)act, opts, job, report, e);
}

VD_PUBLIC int vd_inplace_resume(const char *path, const struct vd_inplace_opts *opts, const struct vd_job *job,
				struct vd_inplace_report *report, struct vd_error *e)
{
	return vd_inplace_run_on(NULL, path, VD_INPLACE_RESUME, opts, job, report, e);
}

VD_PUBLIC int vd_inplace_revert(const char *path, const struct vd_inplace_opts *opts, const struct vd_job *job,
				struct vd_inplace_report *report, struct vd_error *e)
{
	return vd_inplace_run_on(NULL, path, VD_INPLACE_REVERT, opts, job, report, e);
}

/* ---- status --------------------------------------------------------------------------------------------- */

static int look_at_stub(struct vd_host *host, const char *path, bool *has_stub, uint8_t uuid[VD_STUB_UUID], struct vd_error *e)
{
	uint8_t head[VD_STUB_SIZE];
	struct vd_io *io = NULL;
	int r = host->open(host, path, VD_IO_FORCE_SHARE, &io, e);

	if (r < 0)
		return r;
	r = vd_io_pread(io, head, sizeof(head), 0, e);
	*has_stub = r == 0 && vd_stub_read((struct vd_bytes){ head, sizeof(head) }, uuid);
	vd_io_abort(io);
	return r;
}

static void describe(struct vd_inplace *p, struct vd_inplace_status *status)
{
	const struct vd_journal_state *s = state_of(p);

	status->is_back = s->is_back;
	status->act = s->act;
	status->resilience = s->resilience;
	status->has_header_file = vd_inplace_is_detached(s);
	status->phase = phases[s->phase].name;
	memcpy(status->format, s->format, sizeof(status->format));
	status->total = s->total;
	status->done = s->phase > VD_PHASE_DATA ? s->total : position(p, s->cursor_file, s->cursor);
	if (s->phase < VD_PHASE_DATA)
		status->done = 0;
}

VD_PUBLIC int vd_inplace_status(const char *path, const char *journal, struct vd_inplace_status *status, struct vd_error *e)
{
	struct vd_inplace_opts opts = { .struct_size = sizeof(opts), .journal = journal };
	struct vd_inplace p = { .inner = vd_host_os(), .path = path, .opts = &opts };
	uint8_t uuid[VD_STUB_UUID];
	vd_auto_free char *name = NULL;
	bool has_stub = false;
	int r;

	if (status->struct_size != sizeof(*status))
		return vd_fail(e, VD_EARG, "struct vd_inplace_status: struct_size is not %zu", sizeof(*status));
	*status = (struct vd_inplace_status){ .struct_size = sizeof(*status) };
	r = look_at_stub(p.inner, path, &has_stub, uuid, e);
	if (r < 0 || !has_stub)
		return r;
	status->in_progress = true;
	r = journal_path(&p, &name, e);
	if (r == 0)
		r = vd_journal_open(p.inner, name, false, &p.j, e);
	if (r == VD_ENOENT) {
		status->journal_is_missing = true;
		return 0;
	}
	if (r == 0 && memcmp(uuid, p.j->state.uuid, VD_STUB_UUID))
		r = vd_fail(e, VD_EARG, "%s is the journal of another conversion", name);
	if (r == 0)
		describe(&p, status);
	vd_journal_close(p.j);
	return r;
}
