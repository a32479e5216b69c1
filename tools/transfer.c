/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a copy from names on the command line to the line that says it is done. Copying itself is the library's. */
#include "transfer.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "newimage.h"
#include "output.h"
#include "progress.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

#define EXTENTS 256
#define HEADER_MAX (16u << 20)  /* the largest LUKS header that the library makes */

/* What the copy came to, for the summary. */
struct result {
	struct vd_outcome outcome;
	uint64_t size;
	double seconds;
};

static int look_for_encryption(struct transfer *t, struct vd_error *e)
{
	for (struct vd_image *layer = t->from; layer; layer = vd_image_parent(layer)) {
		struct vd_info info;
		int r = source_info(layer, &info, e);

		if (r < 0)
			return r;
		t->from_is_encrypted |= info.encryption != VD_PLAIN;
	}
	return 0;
}

static int judge_request(struct transfer *t, struct vd_error *e)
{
	struct settings *s = t->s;
	int r = newimage_judge_format(t->format, e);

	if (r == 0)
		r = newimage_parse(s, t->format, e);
	if (r < 0)
		return r;
	t->encrypt |= s->made.encrypt || s->made.encrypt_format || s->made.key_secret || s->new_keys.n || s->new_header ||
		      !strcmp(t->format, "luks");
	if (s->made.backing_file)
		return fail(e, VD_EUNSUPPORTED, "%s writes whole disks: backing_file is for vdisk create", t->label);
	/* A container inside a stream is ciphertext before anything packs it. */
	if (t->encrypt && s->compress && strcmp(t->format, "vmdk") != 0) {
		fail(e, VD_EUNSUPPORTED, "both compressed and encrypted cannot be: compressed clusters are stored in clear");
		return fail_hint(e, VD_EUNSUPPORTED, "leave out -c");
	}
	return 0;
}

/* Before anything is made of it. What is no package is none of this. */
static int verify_package(const char *path, struct vd_error *e)
{
	const char *dot = strrchr(path, '.');
	bool has_manifest;
	int r;

	if (!dot || strcasecmp(dot, ".ova") != 0)
		return 0;
	ui_status("checking the manifest");
	r = vd_package_verify(path, &has_manifest, e);
	ui_status_end();
	if (r == 0 && !has_manifest)
		ui_note("%s has no manifest: whether it is whole cannot be told", path);
	return r == VD_EUNSUPPORTED ? 0 : r;
}

static int judge_output(const struct settings *s, const char *in, const char *out, struct vd_error *e)
{
	int r;

	if (output_is_stream(out))
		return output_judge_stream(e);
	if (output_is_stream(in))
		return output_judge(s, out, e);
	/* In this order: "--force" would be bad advice where the output is the input. */
	r = output_is_not_file(out, in, e);
	return r < 0 ? r : output_judge(s, out, e);
}

int transfer_open(struct transfer *t, struct vd_error *e)
{
	struct settings *s = t->s;
	const char *in = s->operands[0], *out = s->operands[1];
	int r;

	t->to_stream = output_is_stream(out);
	t->in_name = output_is_stream(in) ? "standard input" : in;
	t->out_name = t->to_stream ? "standard output" : out;
	if (t->to_stream)
		ui_give_up_stdout();
	r = judge_request(t, e);
	if (r == 0)
		r = judge_output(s, in, out, e);
	if (r == 0 && output_is_stream(in))
		return source_open_stream(s, t->in_name, &t->incoming, e);
	if (r == 0)
		r = verify_package(in, e);
	if (r == 0)
		r = source_open(s, in, s->format, &t->keys, &t->from, e);
	if (r == 0 && !t->to_stream)
		r = output_is_not_in(s, out, t->from, e);
	return r < 0 ? r : look_for_encryption(t, e);
}

/* An upper bound: what is allocated and yet zeros will not be written. */
static int data_bytes(struct vd_image *img, uint64_t *bytes, struct vd_error *e)
{
	struct vd_extent x[EXTENTS];
	uint64_t at = 0, size = vd_image_size(img);
	size_t n;

	*bytes = 0;
	while (at < size) {
		int r = vd_image_extents(img, at, size - at, x, EXTENTS, &n, e);

		if (r == 0)
			r = signals_check(e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			*bytes += x[i].flags & VD_EXTENT_DATA ? x[i].len : 0;
		at = x[n - 1].off + x[n - 1].len;
	}
	return 0;
}

static int check_room(const struct transfer *t, uint64_t size, struct vd_error *e)
{
	/* A container is full from end to end: in it, a hole would read as noise. */
	bool is_container = t->encrypt && strcmp(t->format, "qcow2") != 0;
	uint64_t header = t->encrypt ? HEADER_MAX : 0, bytes;
	int r;

	if (t->s->no_space_check || t->s->compress || t->to_stream)
		return 0;
	/* How much of a disk that comes is zeros, nobody knows. */
	if (t->incoming && !is_container)
		return 0;
	r = output_has_room(t->s->operands[1], size + header, e);
	if (r == 0 || is_container)
		return r;
	/* To count what is data takes a search of all of the disk. */
	r = data_bytes(t->from, &bytes, e);
	return r < 0 ? r : output_has_room(t->s->operands[1], bytes + header, e);
}

static int size_of_output(const struct transfer *t, uint64_t *size, struct vd_error *e)
{
	uint64_t wanted = t->s->made.size;

	*size = t->incoming ? vd_incoming_size(t->incoming) : vd_image_size(t->from);
	if (wanted && wanted < *size)
		return fail(e, VD_EARG, "size: the disk has %llu bytes, and %llu are wanted", (unsigned long long)*size,
			    (unsigned long long)wanted);
	*size = wanted ? wanted : *size;
	if (t->s->made.size_unit && *size % t->s->made.size_unit)
		*size += t->s->made.size_unit - *size % t->s->made.size_unit;
	return 0;
}

static int make_output(struct transfer *t, uint64_t size, struct vd_image **to, struct vd_error *e)
{
	struct vd_key *key = NULL;
	struct vd_create_opts o;
	int r = newimage_opts(t->s, t->format, &o, e);

	if (r == 0 && t->encrypt)
		r = secrets_for_new(t->s, t->out_name, t->credential, &key, e);
	if (r < 0)
		return r;
	o.key = key;
	o.size = size;
	if (key)
		ui_status("deriving key");
	r = t->to_stream ? vd_image_create_fd(STDOUT_FILENO, t->out_name, &o, to, e) : vd_image_create(t->out_name, &o, to, e);
	ui_status_end();
	vd_key_free(key);
	return r;
}

static int copy(struct transfer *t, struct vd_image *to, struct result *res, struct vd_error *e)
{
	struct vd_job job = progress_start(t->s, t->label);
	int r = signals_check(e);

	if (r == 0 && t->incoming)
		r = vd_incoming_copy(t->incoming, to, t->s->compress, &job, &res->outcome, e);
	else if (r == 0)
		r = vd_image_copy(t->from, to, t->s->compress, &job, &res->outcome, e);
	if (r == 0)
		r = vd_image_commit(to, e);
	res->seconds = progress_end();
	return r;
}

static void print_summary(const struct transfer *t, const struct result *res)
{
	const char *const *names = t->s->operands, *header = t->s->new_header;
	double speed = res->seconds > 0 ? (double)res->outcome.written / res->seconds : 0;
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s, %s%s%s, disk of %s, %s written in %.2f s, %s/s", t->out_name, t->format,
			   t->encrypt ? "encrypted" : "not encrypted", header ? ", header in " : "", header ? header : "",
			   size_show((double)res->size).s, size_show((double)res->outcome.written).s, res->seconds,
			   size_show(speed).s);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", t->label);
	json_put_text(j, "image", names[0]);
	json_put_text(j, "output", names[1]);
	json_put_text(j, "format", t->format);
	json_put_bool(j, "encrypted", t->encrypt);
	if (header)
		json_put_text(j, "header", header);
	json_put_u64(j, "virtual-size", res->size);
	json_put_u64(j, "done", res->outcome.done);
	json_put_u64(j, "written", res->outcome.written);
	json_put_u64(j, "packed-in-clear", res->outcome.packed_in_clear);
	json_put_bool(j, "consistent", !t->s->force_share);
	json_put(j, "seconds", json_object_new_double(res->seconds));
	json_put_u64(j, "speed", (uint64_t)speed);
	json_print(j);
}

static void tell(const struct transfer *t, const struct result *res)
{
	if (res->outcome.packed_in_clear)
		ui_warn("%s: %s of this encrypted disk were compressed, and so stored in clear", t->in_name,
			size_show((double)res->outcome.packed_in_clear).s);
	if (t->s->force_share)
		ui_note("read while another process may have been writing: the output may be inconsistent");
	print_summary(t, res);
}

/* The library says that the job was cancelled; the user wants to know what is left of it. */
static int explain_stop(const struct transfer *t, int code, struct vd_error *e)
{
	const char *out = t->out_name;
	int r = code == VD_ECANCELLED ? signals_check(e) : 0;

	if (!r)
		return code;
	if (output_is_device(out) || t->to_stream)
		return fail(e, r, "%s; %s is half written", strdupa(e->message), out);
	return fail(e, r, "%s; %s was not written", strdupa(e->message), out);
}

int transfer_run(struct transfer *t, struct vd_error *e)
{
	struct result res = { .outcome.struct_size = sizeof(res.outcome) };
	struct vd_image *to = NULL;
	uint64_t size;
	int r = size_of_output(t, &size, e);

	if (r == 0)
		r = check_room(t, size, e);
	if (r == 0)
		r = make_output(t, size, &to, e);
	if (r == 0)
		r = copy(t, to, &res, e);
	if (r < 0) {
		vd_image_abort(to);
		return explain_stop(t, r, e);
	}
	res.size = vd_image_size(to);
	r = vd_image_close(to, e);
	if (r == 0)
		tell(t, &res);
	return r;
}

void transfer_end(struct transfer *t)
{
	vd_image_abort(t->from);
	vd_incoming_free(t->incoming);
	secrets_free(&t->keys);
}
