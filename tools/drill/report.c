/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts a drill's result into a document and onto a page. Nothing is judged here but whether it passed. */
#include "drill/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "keyhelpers/base64.h"
#include "ledger/crypto.h"
#include "ledger/files.h"
#include "ledger/html.h"
#include "ledger/schema.h"

#define PICTURE_MAX (16u << 20)
#define TAIL_BYTES 6000         /* of the serial line, on the page */

bool drill_passed(const struct drill *d)
{
	return d->structure.is_sound && (!d->plan || drill_outcome_proves(d->boot->outcome));
}

/* ---- the document ----------------------------------------------------------------------------------------- */

static void put_sum(struct json_object *to, const char *key, const void *bytes, size_t n)
{
	uint8_t digest[SHA256_SIZE];
	char hex[2 * SHA256_SIZE + 1];

	crypto_sha256(bytes, n, digest);
	for (size_t i = 0; i < SHA256_SIZE; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	json_put_text(to, key, hex);
}

static void put_ms(struct json_object *to, const char *key, double seconds)
{
	if (seconds >= 0)
		json_put_u64(to, key, (uint64_t)(seconds * 1000));
}

static void put_picture_sum(struct json_object *to, const char *path)
{
	struct bytes picture = { 0 };
	struct vd_error ignored;

	if (*path && file_read(path, PICTURE_MAX, &picture, &ignored) == 0)
		put_sum(to, "picture-sha256", picture.at, picture.n);
	bytes_free(&picture);
}

static void put_boot(struct json_object *doc, const struct drill *d)
{
	static const char *const buses[] = { "", "virtio", "sata", "ide" };
	const struct boot_result *r = d->boot;
	struct json_object *j;

	if (!d->plan)
		return;
	j = json_put_object(doc, "boot");
	json_put_text(j, "outcome", drill_outcome_name(r->outcome));
	json_put_text(j, "statement", drill_outcome_words(r->outcome, false));
	json_put_text(j, "words", r->words);
	if (d->plan->expected)
		json_put_text(j, "expected", d->plan->expected);
	json_put_text(j, "accelerator", r->accel == DRILL_KVM ? "kvm" : "tcg");
	if (r->why_tcg[0])
		json_put_text(j, "why-tcg", r->why_tcg);
	json_put_text(j, "qemu", d->qemu);
	json_put_text(j, "bus", buses[d->plan->machine.bus]);
	json_put_text(j, "firmware", d->plan->machine.firmware == DRILL_UEFI ? "uefi" : "bios");
	json_put_u64(j, "memory-mib", d->plan->machine.memory_mib);
	json_put_u64(j, "limit-seconds", d->plan->seconds);
	json_put_u64(j, "resets", r->resets);
	put_ms(j, "first-output-ms", r->first_output);
	put_ms(j, "settled-ms", r->settled);
	json_put_u64(j, "serial-bytes", r->serial.total);
	put_sum(j, "serial-sha256", r->serial.text, r->serial.n);
	put_picture_sum(j, r->picture);
}

struct json_object *drill_document(const struct drill *d)
{
	struct json_object *doc = json_new(), *source, *tool;
	char host[65] = "";

	gethostname(host, sizeof(host) - 1);
	json_put_text(doc, "type", "drill");
	json_put_u64(doc, "schema", 1);
	json_put_bool(doc, "passed", drill_passed(d));
	json_put_text(doc, "image", d->image);
	/* Of a backup these are at the top as well, where retention looks for what is proven. */
	if (d->repository) {
		json_put_text(doc, "repository", d->repository);
		json_put_text(doc, "snapshot", d->snapshot);
		source = json_put_object(doc, "source");
		json_put_text(source, "where", d->where);
		json_put_text(source, "path", d->path);
	}
	json_put_text(doc, "level", d->plan ? "boot" : "structure");
	json_put_text(doc, "started", d->started);
	put_ms(doc, "ms", d->seconds);
	json_put(doc, "structure", json_object_get(d->structure.details));
	put_boot(doc, d);
	json_put_text(doc, "host", host);
	tool = json_put_object(doc, "tool");
	json_put_text(tool, "name", "vdisk");
	json_put_text(tool, "version", vd_version());
	return doc;
}

/* ---- the page --------------------------------------------------------------------------------------------- */

struct page {
	struct bytes *out;
	struct json_object *doc;
	bool chinese;
};

static const char *say(const struct page *p, const char *english, const char *chinese)
{
	return p->chinese ? chinese : english;
}

static void put_pair(struct page *p, const char *english, const char *chinese, const char *value)
{
	if (!*value)
		return;
	bytes_text(p->out, "<dt>");
	html_put_text(p->out, say(p, english, chinese));
	bytes_text(p->out, "</dt><dd><bdi>");
	html_put_text(p->out, value);
	bytes_text(p->out, "</bdi></dd>\n");
}

static void put_from(struct page *p, const char *english, const char *chinese, const char *at)
{
	struct json_object *x = schema_at(p->doc, at);

	put_pair(p, english, chinese, x ? json_object_get_string(x) : "");
}

static void put_seconds(struct page *p, const char *english, const char *chinese, const char *at)
{
	struct json_object *x = schema_at(p->doc, at);
	char text[32];

	if (!x)
		return;
	snprintf(text, sizeof(text), "%.1f s", (double)json_object_get_int64(x) / 1000);
	put_pair(p, english, chinese, text);
}

static void put_heading(struct page *p, const char *english, const char *chinese)
{
	bytes_text(p->out, "<h2>");
	html_put_text(p->out, say(p, english, chinese));
	bytes_text(p->out, "</h2>\n");
}

static void put_head(struct page *p, const struct drill *d)
{
	bool passed = drill_passed(d);
	const char *verdict = say(p, passed ? "passed" : "not passed", passed ? "通过" : "未通过"), *why = schema_text(p->doc, "structure.words");

	if (d->plan && d->boot->outcome != DRILL_NOTHING)
		why = drill_outcome_words(d->boot->outcome, p->chinese);
	if (!d->structure.is_sound)
		why = schema_text(p->doc, "structure.words");
	html_put_head(p->out, p->chinese ? "zh-CN" : "en", say(p, "Restore drill", "恢复演练"), "; img-src data:");
	bytes_format(p->out, "<h1>%s</h1>\n<p class=\"verdict %s\">", say(p, "Restore drill", "恢复演练"), passed ? "good" : "bad");
	html_put_text(p->out, verdict);
	bytes_text(p->out, ": ");
	html_put_text(p->out, why);
	bytes_text(p->out, "</p>\n");
}

static void put_volumes(struct page *p)
{
	struct json_object *list = schema_at(p->doc, "structure.volumes");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

	put_heading(p, "What the disk holds", "磁盘内容");
	bytes_text(p->out, "<dl>\n");
	put_from(p, "Partition table", "分区表", "structure.table");
	put_from(p, "System", "操作系统", "structure.system");
	for (size_t i = 0; i < n; i++) {
		struct json_object *x = json_object_array_get_idx(list, i);
		struct bytes text = { 0 };

		bytes_format(&text, "%s, %.0f MiB", schema_text(x, "file-system"), (double)json_object_get_int64(schema_at(x, "size")) / 1048576);
		bytes_add(&text, "", 1);
		put_pair(p, schema_text(x, "name"), schema_text(x, "name"), (char *)text.at);
		bytes_free(&text);
	}
	bytes_text(p->out, "</dl>\n");
}

static void put_picture(struct page *p, const char *path)
{
	struct bytes picture = { 0 };
	struct vd_error ignored;
	char *letters;

	if (!*path || file_read(path, PICTURE_MAX, &picture, &ignored) < 0)
		return;
	letters = malloc(BASE64_LEN(picture.n) + 1);
	if (letters) {
		base64_encode(picture.at, picture.n, letters);
		put_heading(p, "The screen at the end", "结束时的屏幕");
		bytes_text(p->out, "<img style=\"max-width:100%\" alt=\"screen\" src=\"data:image/png;base64,");
		bytes_text(p->out, letters);
		bytes_text(p->out, "\">\n");
	}
	free(letters);
	bytes_free(&picture);
}

static void put_serial(struct page *p, const struct evidence *v)
{
	struct json_object *tail;

	if (!v->n)
		return;
	/* The guest's bytes, cut anywhere: what is no UTF-8 is replaced. */
	tail = json_text(v->n > TAIL_BYTES ? v->text + v->n - TAIL_BYTES : v->text);
	put_heading(p, "The end of the serial line", "串口输出的末尾");
	bytes_text(p->out, "<pre>");
	html_put_text(p->out, json_object_get_string(tail));
	bytes_text(p->out, "</pre>\n");
	json_object_put(tail);
}

static void put_boot_section(struct page *p)
{
	put_heading(p, "How it was booted", "启动方式");
	bytes_text(p->out, "<dl>\n");
	put_from(p, "Recognised by", "识别依据", "boot.words");
	put_from(p, "Accelerator", "加速方式", "boot.accelerator");
	put_from(p, "Why not KVM", "未用 KVM 的原因", "boot.why-tcg");
	put_from(p, "Emulator", "模拟器", "boot.qemu");
	put_from(p, "Firmware", "固件", "boot.firmware");
	put_from(p, "Disk's bus", "磁盘总线", "boot.bus");
	put_seconds(p, "First output after", "首次输出", "boot.first-output-ms");
	put_seconds(p, "Decided after", "得出结论", "boot.settled-ms");
	put_from(p, "SHA-256 of the serial line", "串口输出的 SHA-256", "boot.serial-sha256");
	put_from(p, "SHA-256 of the picture", "截图的 SHA-256", "boot.picture-sha256");
	bytes_text(p->out, "</dl>\n");
}

void drill_page(const struct drill *d, struct json_object *document, bool chinese, struct bytes *out)
{
	struct page p = { .out = out, .doc = document, .chinese = chinese };

	put_head(&p, d);
	bytes_text(out, "<dl>\n");
	put_from(&p, "Image", "映像", "image");
	put_from(&p, "Repository", "备份仓库", "source.where");
	put_from(&p, "Snapshot", "快照", "snapshot");
	put_from(&p, "Disk in it", "其中的磁盘", "source.path");
	put_from(&p, "Begun", "开始时间", "started");
	put_seconds(&p, "Took", "用时", "ms");
	put_from(&p, "Host", "主机", "host");
	bytes_text(out, "</dl>\n");
	put_volumes(&p);
	if (d->plan) {
		put_boot_section(&p);
		put_picture(&p, d->boot->picture);
		put_serial(&p, &d->boot->serial);
	}
	bytes_text(out, "</body>\n</html>\n");
}
