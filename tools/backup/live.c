/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One transaction of qemu's is the moment: in it begins the job that copies what is overwritten, the base's bitmap is copied to one that does not record, and the fresh
 * one begins to record. So the base's is never touched before the snapshot is durable, and a backup that is killed leaves nothing that is missed. What it
 * does leave in qemu has fixed names, and the next one clears it away: who holds the QMP socket is the only one.
 */
#include "backup/live.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/blockset.h"
#include "backup/freeze.h"
#include "backup/qmp.h"
#include "fail.h"
#include "json.h"

#define NODE "vdisk-fleece"
#define JOB "vdisk-job"
#define EXPORT "vdisk-export"
#define SECRET "vdisk-secret"
#define MOMENT "vdisk-moment"
#define SECONDS 20              /* for a command */
#define JOB_POLLS 500           /* of 20 ms, until a cancelled job is gone */

struct live {
	struct qmp *q;
	char node[128];                 /* the machine's */
	uint64_t size;
	bool has_moment, has_fresh, is_qcow2;
	char folder[64];                /* of the socket; "": none yet */
	char uri[160];
};

/* ---- commands ------------------------------------------------------------------------------------------- */

/* Of text alone: key, value, ..., NULL. */
static struct json_object *texts(const char *key, ...) __attribute__((sentinel));
static struct json_object *texts(const char *key, ...)
{
	struct json_object *o = json_new();
	va_list ap;

	va_start(ap, key);
	for (const char *k = key; k; k = va_arg(ap, const char *))
		json_put_text(o, k, va_arg(ap, const char *));
	va_end(ap);
	return o;
}

static int tell(struct live *l, const char *command, struct json_object *arguments, struct vd_error *e)
{
	return qmp_run(l->q, command, arguments, SECONDS, NULL, e);
}

static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
}

static bool flag_of(struct json_object *o, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o, key, &v) && json_object_get_boolean(v);
}

/* ---- clearing away -------------------------------------------------------------------------------------- */

static bool has_job(struct live *l)
{
	struct json_object *jobs = NULL;
	struct vd_error ignored;
	bool found = false;

	if (qmp_run(l->q, "query-jobs", NULL, SECONDS, &jobs, &ignored) == 0 && json_object_is_type(jobs, json_type_array))
		for (size_t i = 0; i < json_object_array_length(jobs); i++)
			found |= !strcmp(text_of(json_object_array_get_idx(jobs, i), "id"), JOB);
	json_object_put(jobs);
	return found;
}

static void cancel_job(struct live *l)
{
	struct json_object *o = texts("device", JOB, NULL);
	struct vd_error ignored;

	json_put_bool(o, "force", true);
	if (tell(l, "block-job-cancel", o, &ignored) < 0)
		return;
	for (int i = 0; i < JOB_POLLS && has_job(l); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
}

/* The server is ours if the export on it is. As long as the job is there, the machine's disk is another node's than before and after it. */
static void clear_away(struct live *l)
{
	struct vd_error ignored;

	if (tell(l, "block-export-del", texts("id", EXPORT, "mode", "hard", NULL), &ignored) == 0 || l->folder[0])
		tell(l, "nbd-server-stop", NULL, &ignored);
	cancel_job(l);
	tell(l, "blockdev-del", texts("node-name", NODE, NULL), &ignored);
	tell(l, "object-del", texts("id", SECRET, NULL), &ignored);
}

static int remove_bitmap(struct live *l, const char *name, struct vd_error *e)
{
	return tell(l, "block-dirty-bitmap-remove", texts("node", l->node, "name", name, NULL), e);
}

static void remove_folder(struct live *l)
{
	char path[128];

	if (!l->folder[0])
		return;
	snprintf(path, sizeof(path), "%s/nbd", l->folder);
	unlink(path);
	rmdir(l->folder);
}

/* ---- the machine's disk --------------------------------------------------------------------------------- */

static bool is_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Opened with options of its own, such as a key, an image goes by "json:" and these. */
static bool is_image(const char *file, const char *image)
{
	struct json_object *options, *below;
	bool is_it = false;

	if (strncmp(file, "json:", 5))
		return is_same_file(file, image);
	options = json_tokener_parse(file + 5);
	if (json_object_is_type(options, json_type_object) && json_object_object_get_ex(options, "file", &below) &&
	    json_object_is_type(below, json_type_object))
		is_it = is_same_file(text_of(below, "filename"), image);
	json_object_put(options);
	return is_it;
}

/* Of query-block: the device that has this image. NULL: none; it belongs to the answer. */
static struct json_object *find_device(struct json_object *devices, const char *image)
{
	struct json_object *in;

	if (!json_object_is_type(devices, json_type_array))
		return NULL;
	for (size_t i = 0; i < json_object_array_length(devices); i++)
		if (json_object_object_get_ex(json_object_array_get_idx(devices, i), "inserted", &in) && is_image(text_of(in, "file"), image))
			return in;
	return NULL;
}

static bool judge_bitmap(struct json_object *b, const struct live_want *w, char why[160])
{
	struct json_object *granularity;

	if (flag_of(b, "inconsistent"))
		snprintf(why, 160, "bitmap '%.40s' is inconsistent", w->base_bitmap);
	else if (!flag_of(b, "recording"))
		snprintf(why, 160, "bitmap '%.40s' is disabled", w->base_bitmap);
	else if (flag_of(b, "busy"))
		snprintf(why, 160, "bitmap '%.40s' is in use", w->base_bitmap);
	else if (!json_object_object_get_ex(b, "granularity", &granularity) || json_object_get_uint64(granularity) != w->base_granularity)
		snprintf(why, 160, "bitmap '%.40s' is not the one that was made", w->base_bitmap);
	else
		return true;
	return false;
}

static void look_at_bitmaps(struct live *l, struct json_object *inserted, const struct live_want *w, char why[160])
{
	struct json_object *list = NULL;
	struct vd_error ignored;
	bool found = false;

	if (json_object_object_get_ex(inserted, "dirty-bitmaps", &list) && json_object_is_type(list, json_type_array))
		for (size_t i = 0; i < json_object_array_length(list); i++) {
			struct json_object *b = json_object_array_get_idx(list, i);
			const char *name = text_of(b, "name");

			if (w->base_bitmap && w->base_bitmap[0] && !strcmp(name, w->base_bitmap)) {
				found = true;
				l->has_moment = judge_bitmap(b, w, why);
			} else if (w->leftovers && !strncmp(name, w->leftovers, strlen(w->leftovers))) {
				remove_bitmap(l, name, &ignored);
			}
		}
	if (w->base_bitmap && w->base_bitmap[0] && !found)
		snprintf(why, 160, "bitmap '%.60s' is not there", w->base_bitmap);
}

static int take_device(struct live *l, struct json_object *inserted, const struct live_want *w, char why[160], struct vd_error *e)
{
	struct json_object *image, *size;
	struct vd_error ignored;

	if (!json_object_object_get_ex(inserted, "image", &image) || !json_object_object_get_ex(image, "virtual-size", &size))
		return fail(e, VD_EFAILED, "%s: qemu does not say how large its disk is", w->image);
	l->size = json_object_get_uint64(size);
	l->is_qcow2 = !strcmp(text_of(inserted, "drv"), "qcow2");
	snprintf(l->node, sizeof(l->node), "%s", text_of(inserted, "node-name"));
	remove_bitmap(l, MOMENT, &ignored);
	look_at_bitmaps(l, inserted, w, why);
	return 0;
}

static int find_disk(struct live *l, const struct live_want *w, char why[160], struct vd_error *e)
{
	struct json_object *devices = NULL, *inserted;
	int r;

	clear_away(l);
	r = qmp_run(l->q, "query-block", NULL, SECONDS, &devices, e);
	if (r < 0)
		return r;
	inserted = find_device(devices, w->image);
	if (inserted)
		r = take_device(l, inserted, w, why, e);
	else
		r = fail(e, VD_EARG, "%s: the machine at %s has no such disk", w->image, w->qmp);
	json_object_put(devices);
	return r;
}

/* ---- the file for what is overwritten ------------------------------------------------------------------- */

static int random_key(char hex[65], struct vd_error *e)
{
	uint8_t bytes[32];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return fail(e, VD_EFAILED, "the system gives no random bytes");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	explicit_bzero(bytes, sizeof(bytes));
	return 0;
}

/* The machine may run as another user than this. */
static void give_to_qemu(const struct live *l, const char *path)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	/* Where that fails it is qemu that says so. */
	if (getsockopt(qmp_fd(l->q), SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 || lchown(path, peer.uid, peer.gid) < 0)
		return;
}

static int make_file(const struct live *l, const char *path, const char *hex, struct vd_error *e)
{
	struct vd_create_opts o = { .struct_size = sizeof(o), .format = "qcow2", .size = l->size, .kdf.iterations = 1000 };
	struct vd_image *img = NULL;
	int r = vd_key_from_bytes(hex, strlen(hex), &o.key, e);

	if (r == 0)
		r = vd_image_create(path, &o, &img, e);
	if (r == 0)
		r = vd_image_commit(img, e);
	vd_key_free(o.key);
	vd_image_abort(img);
	if (r == 0)
		give_to_qemu(l, path);
	return r;
}

static int add_node(struct live *l, const char *path, const char *hex, struct vd_error *e)
{
	struct json_object *o = texts("driver", "qcow2", "node-name", NODE, "backing", l->node, NULL);
	int r;

	json_put(o, "file", texts("driver", "file", "filename", path, NULL));
	json_put(o, "encrypt", texts("format", "luks", "key-secret", SECRET, NULL));
	r = tell(l, "object-add", texts("qom-type", "secret", "id", SECRET, "data", hex, NULL), e);
	if (r < 0)
		json_object_put(o);
	else
		r = tell(l, "blockdev-add", o, e);
	return r;
}

/* Beside the image, where there is room for what the machine writes; without a name as soon as qemu has it open. */
static int add_fleece(struct live *l, const char *image, struct vd_error *e)
{
	char hex[65], *real = realpath(image, NULL), path[PATH_MAX];
	int r = real ? random_key(hex, e) : fail_errno(e, errno, "%s", image), n;

	if (r < 0)
		return r;
	n = snprintf(path, sizeof(path), "%s.vdisk-fleece-%ld", real, (long)getpid());
	free(real);
	r = n < (int)sizeof(path) ? make_file(l, path, hex, e) : fail(e, VD_EARG, "%s: the name is too long", image);
	if (r == 0) {
		r = add_node(l, path, hex, e);
		unlink(path);
	}
	explicit_bzero(hex, sizeof(hex));
	return r;
}

/* ---- the moment ----------------------------------------------------------------------------------------- */

static void add_action(struct json_object *actions, const char *type, struct json_object *data)
{
	struct json_object *o = texts("type", type, NULL);

	json_put(o, "data", data);
	json_add(actions, o);
}

static struct json_object *actions_of(const struct live *l, const struct live_want *w, bool with_fresh)
{
	struct json_object *o = json_new(), *actions = json_put_array(o, "actions"), *x;

	if (l->has_moment) {
		x = texts("node", l->node, "name", MOMENT, NULL);
		json_put_bool(x, "disabled", true);
		json_put_u64(x, "granularity", w->base_granularity);
		add_action(actions, "block-dirty-bitmap-add", x);
		x = texts("node", l->node, "target", MOMENT, NULL);
		json_add(json_put_array(x, "bitmaps"), json_text(w->base_bitmap));
		add_action(actions, "block-dirty-bitmap-merge", x);
	}
	if (with_fresh) {
		x = texts("node", l->node, "name", w->fresh_bitmap, NULL);
		json_put_bool(x, "persistent", true);
		json_put_u64(x, "granularity", UINT64_C(1) << blockset_shift(l->size));
		add_action(actions, "block-dirty-bitmap-add", x);
	}
	add_action(actions, "blockdev-backup", texts("device", l->node, "target", NODE, "sync", "none", "job-id", JOB, NULL));
	return o;
}

/* Of all or nothing; where a bitmap cannot be made, of the rest. */
static int act(struct live *l, const struct live_want *w, char why[160], struct vd_error *e)
{
	bool wants_fresh = w->fresh_bitmap && w->fresh_bitmap[0];
	int r;

	if (wants_fresh && !l->is_qcow2)
		snprintf(why, 160, "only qcow2 keeps bitmaps");
	l->has_fresh = wants_fresh && l->is_qcow2;
	r = tell(l, "transaction", actions_of(l, w, l->has_fresh), e);
	if (r == VD_EFAILED && l->has_fresh) {
		l->has_fresh = false;
		snprintf(why, 160, "%.150s", e->message);
		r = tell(l, "transaction", actions_of(l, w, false), e);
	}
	return r;
}

/* The guest is thawed before anything else is done, and whatever came of it. */
static int take_moment(struct live *l, const struct live_want *w, char why[160], struct vd_error *e)
{
	struct freeze *f = NULL;
	struct vd_error thaw;
	int r = w->agent ? freeze_begin(w->agent, &f, e) : 0, ended;

	if (r < 0)
		return r;
	r = act(l, w, why, e);
	ended = freeze_end(f, &thaw);
	if (r == 0 && ended < 0)
		r = fail(e, VD_EFAILED, "the guest may still be frozen: %s", thaw.message);
	return r;
}

/* ---- showing it ----------------------------------------------------------------------------------------- */

static int start_server(struct live *l, struct vd_error *e)
{
	struct json_object *o = json_new(), *addr = json_put_object(o, "addr");
	char path[128];
	int r;

	snprintf(l->folder, sizeof(l->folder), "/tmp/vdisk-live-XXXXXX");
	if (!mkdtemp(l->folder)) {
		l->folder[0] = 0;
		json_object_put(o);
		return fail_errno(e, errno, "/tmp: a folder for a socket");
	}
	give_to_qemu(l, l->folder);
	snprintf(path, sizeof(path), "%s/nbd", l->folder);
	json_put_text(addr, "type", "unix");
	json_put(addr, "data", texts("path", path, NULL));
	r = tell(l, "nbd-server-start", o, e);
	if (r < 0) {
		/* Somebody else's, which clear_away() must not stop. */
		remove_folder(l);
		l->folder[0] = 0;
		return r;
	}
	snprintf(l->uri, sizeof(l->uri), "nbd+unix:///disk?socket=%s", path);
	return 0;
}

static int show(struct live *l, struct vd_error *e)
{
	struct json_object *o = texts("type", "nbd", "id", EXPORT, "node-name", NODE, "name", "disk", NULL);
	int r = start_server(l, e);

	if (r < 0) {
		json_object_put(o);
		return r;
	}
	if (l->has_moment)
		json_add(json_put_array(o, "bitmaps"), json_text(MOMENT));
	return tell(l, "block-export-add", o, e);
}

int live_begin(const struct live_want *w, struct live **out, struct live_doubts *doubts, struct vd_error *e)
{
	struct live *l = calloc(1, sizeof(*l));
	struct vd_error ignored;
	int r;

	*doubts = (struct live_doubts){ 0 };
	if (!l)
		return fail(e, VD_ENOMEM, "not enough memory");
	r = qmp_connect(w->qmp, &l->q, e);
	if (r == 0)
		r = find_disk(l, w, doubts->base, e);
	if (r == 0)
		r = add_fleece(l, w->image, e);
	if (r == 0)
		r = take_moment(l, w, doubts->fresh, e);
	if (r == 0)
		r = show(l, e);
	if (r < 0)
		live_end(l, l->has_fresh ? w->fresh_bitmap : NULL, &ignored);
	else
		*out = l;
	return r;
}

const char *live_uri(const struct live *l)
{
	return l->uri;
}

const char *live_bitmap(const struct live *l)
{
	return l->has_moment ? MOMENT : "";
}

bool live_has_fresh(const struct live *l)
{
	return l->has_fresh;
}

int live_end(struct live *l, const char *drop, struct vd_error *e)
{
	struct vd_error ignored;
	int r = 0;

	if (!l)
		return 0;
	if (l->q && l->node[0]) {
		clear_away(l);
		remove_bitmap(l, MOMENT, &ignored);
		if (drop && drop[0])
			r = remove_bitmap(l, drop, e);
	}
	remove_folder(l);
	qmp_close(l->q);
	free(l);
	return r;
}
