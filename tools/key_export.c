/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk key export: what another program needs to open the image itself. So far libvirt; no secret goes into any of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "key_acts.h"
#include "source.h"
#include "ui.h"

struct export {
	char *path;             /* of the image, absolute: libvirt knows no other */
	char uuid[40];
	const char *type;       /* of the disk in libvirt's words */
	char *xml, *disk, *set_value;
};

static void export_free(struct export *x)
{
	free(x->path);
	free(x->xml);
	free(x->disk);
	free(x->set_value);
}

/* ---- text --------------------------------------------------------------------------------------------------- */

/* Malloc'ed; what XML has no way to say, control characters, is refused before. */
static char *xml_text(const char *text)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	for (; f && *text; text++) {
		const char *entity = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" :
				     *text == '\'' ? "&apos;" : *text == '"' ? "&quot;" : NULL;

		if (entity)
			fputs(entity, f);
		else
			putc(*text, f);
	}
	if (!f || fclose(f))
		ui_out_of_memory();
	return out;
}

/* For a shell: in quotes, which end and begin anew around each quote. */
static char *shell_word(const char *text)
{
	char *out = NULL;
	size_t len;
	FILE *f = open_memstream(&out, &len);

	if (f)
		putc('\'', f);
	for (; f && *text; text++)
		if (*text == '\'')
			fputs("'\\''", f);
		else
			putc(*text, f);
	if (f)
		putc('\'', f);
	if (!f || fclose(f))
		ui_out_of_memory();
	return out;
}

static bool is_uuid(const char *text)
{
	for (int i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]) || !text[i])
			return false;
	return !text[36];
}

static bool has_control_characters(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

/* ---- what libvirt wants --------------------------------------------------------------------------------------- */

static int judge(const struct key_request *q, struct export *x, struct vd_error *e)
{
	struct vd_info info;
	int r = source_info(q->img, &info, e);

	if (r < 0)
		return r;
	if (info.encryption != VD_ENCRYPTED_LUKS)
		return fail(e, VD_EUNSUPPORTED, "%s: it has no LUKS header, so there is nothing for libvirt to open", q->image);
	if (info.luks.version != 1)
		return fail(e, VD_EUNSUPPORTED, "%s: qemu opens LUKS1 only, this is LUKS%u", q->image, info.luks.version);
	if (info.header)
		return fail(e, VD_EUNSUPPORTED, "%s: libvirt opens no LUKS header in a file of its own", q->image);
	x->type = !info.is_container ? info.format : !strcmp(info.format, "luks") ? "raw" : NULL;
	if (!x->type)
		return fail(e, VD_EUNSUPPORTED, "%s: libvirt opens LUKS in raw and qcow2 only, not in %s", q->image, info.format);
	if (!is_uuid(info.luks.uuid))
		return fail(e, VD_EUNSUPPORTED, "%s: its LUKS header has no UUID, by which libvirt would know the secret", q->image);
	snprintf(x->uuid, sizeof(x->uuid), "%s", info.luks.uuid);
	x->path = realpath(q->image, NULL);
	if (!x->path)
		return fail_errno(e, errno, "%s", q->image);
	if (has_control_characters(x->path))
		return fail(e, VD_EUNSUPPORTED, "%s: its name has characters that XML cannot say", q->image);
	return 0;
}

/* The first file that the user has named holds the key as it is. */
static const char *key_file(const struct settings *s)
{
	for (size_t i = 0; i < s->keys.n; i++)
		if (s->keys.at[i].kind == SECRET_KEY_FILE && strcmp(s->keys.at[i].value, "-"))
			return s->keys.at[i].value;
	return NULL;
}

static void word(const struct key_request *q, struct export *x)
{
	const char *file = key_file(q->s);
	char *path = xml_text(x->path), *quoted = file ? shell_word(file) : NULL;
	int ok = asprintf(&x->xml,
			  "<secret ephemeral='no' private='yes'>\n"
			  "  <uuid>%s</uuid>\n"
			  "  <description>LUKS key of %s</description>\n"
			  "  <usage type='volume'>\n"
			  "    <volume>%s</volume>\n"
			  "  </usage>\n"
			  "</secret>\n", x->uuid, path, path);

	if (ok >= 0)
		ok = asprintf(&x->disk,
			      "<disk type='file' device='disk'>\n"
			      "  <driver name='qemu' type='%s'/>\n"
			      "  <source file='%s'>\n"
			      "    <encryption format='luks'>\n"
			      "      <secret type='passphrase' uuid='%s'/>\n"
			      "    </encryption>\n"
			      "  </source>\n"
			      "  <target dev='vda' bus='virtio'/>\n"
			      "</disk>\n", x->type, path, x->uuid);
	if (ok >= 0)
		ok = quoted ? asprintf(&x->set_value, "virsh secret-set-value %s --plain --file %s", x->uuid, quoted) :
			      asprintf(&x->set_value, "virsh secret-set-value %s --interactive", x->uuid);
	if (ok < 0)
		ui_out_of_memory();
	free(path);
	free(quoted);
}

static int write_file(const char *path, const char *text, struct vd_error *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), r = 0;
	size_t len = strlen(text);

	if (fd < 0)
		return fail_errno(e, errno, "%s", path);
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) < 0)
		r = fail_errno(e, errno, "%s", path);
	if (close(fd) < 0 && r == 0)
		r = fail_errno(e, errno, "%s", path);
	if (r < 0)
		unlink(path);
	return r;
}

static void show(const struct key_request *q, const struct export *x)
{
	char *file = shell_word(q->what);
	struct json_object *j;

	if (ui_is_json()) {
		j = key_summary(q, "export");
		json_put_text(j, "file", q->what);
		json_put_text(j, "uuid", x->uuid);
		json_put_text(j, "secret-xml", x->xml);
		json_put_text(j, "disk-xml", x->disk);
		json_put_text(j, "set-value", x->set_value);
		json_print(j);
	} else {
		ui_line("virsh secret-define %s", file);
		ui_line("%s", x->set_value);
		for (char *save = NULL, *l = strtok_r(x->disk, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
			ui_line("%s", l);
	}
	free(file);
}

/* A key is not asked for. One that is given is tried, and looked at with qemu's eyes. */
int key_act_export(struct key_request *q, struct vd_error *e)
{
	struct export x = { 0 };
	int r = q->s->libvirt ? judge(q, &x, e) : fail(e, VD_EARG, "key export: for whom? --libvirt is what there is");

	if (r == 0 && q->s->keys.n)
		r = key_find(q, e);
	if (r == 0 && q->key)
		key_warn_of(q, q->key);
	if (r == 0) {
		word(q, &x);
		r = write_file(q->what, x.xml, e);
	}
	if (r == 0)
		show(q, &x);
	export_free(&x);
	return r;
}
