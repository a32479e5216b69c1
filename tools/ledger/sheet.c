/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts what a certificate says into words, in the order in which a reader asks; html.c draws the page. */
#include "ledger/sheet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger/limits.h"
#include "ledger/schema.h"
#include "sizes.h"
#include "ui.h"
#include "wipe/grade.h"

const char *sheet_say(const struct sheet *s, const char *english, const char *chinese)
{
	return s->lang == SHEET_CHINESE ? chinese : english;
}

/* ---- words of the document -------------------------------------------------------------------------------- */

struct word {
	const char *name, *english, *chinese;
};

static const struct word grades[] = {
	[WIPE_CLEARED] = { "cleared", NULL, "已清除：就地覆写，并已回读" },
	[WIPE_CLEARED_CE] = { "cleared-ce", NULL, "加密擦除清除：密钥已就地覆写；数据自始加密由操作者声明" },
	[WIPE_OVERWRITTEN] = { "overwritten", NULL, "已覆写；不能保证达到“清除”" },
	[WIPE_NOT_ASSURED] = { "not-assured", NULL, "无保证：旧数据块未被触及" },
	[WIPE_INCOMPLETE] = { "incomplete", NULL, "未完成" },
	[WIPE_VERIFY_FAIL] = { "verify-fail", NULL, "验证失败：读回内容与写入内容不符" },
	[WIPE_REFUSED] = { "refused", NULL, "已拒绝；未写入任何内容" },
};

static const struct word words[] = {
	{ "overwrite", "overwriting", "覆写" },
	{ "crypto-erase", "crypto-erase: the keys are overwritten", "加密擦除：覆写密钥" },
	{ "overwrite-free", "overwriting what the image does not use", "覆写映像中未使用的部分" },
	{ "full", "all that was written was read back", "全部回读" },
	{ "sample", "a sample was read back", "抽样回读" },
	{ "none", "nothing was read back", "未回读" },
	{ "typed-name", "its name was typed at the terminal", "在终端键入其名称" },
	{ "id", "by the ID of what was shown before", "以预先显示的标识确认" },
	{ "resume", "given when it was begun; it was resumed", "开始时已确认；此次为续做" },
};

static const char *word_of(const struct sheet *s, const char *name)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(words[i].name, name))
			return sheet_say(s, words[i].english, words[i].chinese);
	return name;
}

static enum wipe_grade grade_of(const char *name)
{
	int g = 0;

	while (g < WIPE_REFUSED && strcmp(grades[g].name, name))
		g++;
	return (enum wipe_grade)g;
}

static const char *grade_text(const struct sheet *s, const char *name)
{
	enum wipe_grade g = grade_of(name);

	return sheet_say(s, wipe_grade_text(g), grades[g].chinese);
}

/* ---- pairs ------------------------------------------------------------------------------------------------ */

struct walk {
	const struct sheet *s;
	const struct sheet_sink *out;
};

static void pair(const struct walk *w, const char *english, const char *chinese, const char *value)
{
	if (value && value[0])
		w->out->pair(w->out->ctx, sheet_say(w->s, english, chinese), value);
}

static void section(const struct walk *w, const char *english, const char *chinese)
{
	w->out->section(w->out->ctx, sheet_say(w->s, english, chinese));
}

/* Text, a number, or yes and no; what is not there is left out. */
static void member(const struct walk *w, struct json_object *of, const char *path, const char *english, const char *chinese)
{
	struct json_object *j = schema_at(of, path);

	if (json_object_is_type(j, json_type_boolean))
		pair(w, english, chinese, json_object_get_boolean(j) ? sheet_say(w->s, "yes", "是") : sheet_say(w->s, "no", "否"));
	else if (json_object_is_type(j, json_type_string) || json_object_is_type(j, json_type_int))
		pair(w, english, chinese, json_object_get_string(j));
}

static void bytes_member(const struct walk *w, struct json_object *of, const char *path, const char *english, const char *chinese)
{
	struct json_object *j = schema_at(of, path);
	unsigned long long n = json_object_get_uint64(j);
	char text[96];

	if (!json_object_is_type(j, json_type_int))
		return;
	snprintf(text, sizeof(text), "%llu (%s)", n, size_show((double)n).s);
	pair(w, english, chinese, text);
}

static void list_member(const struct walk *w, struct json_object *of, const char *path, const char *english, const char *chinese)
{
	struct json_object *list = schema_at(of, path);
	struct bytes text = { 0 };

	for (size_t i = 0; json_object_is_type(list, json_type_array) && i < json_object_array_length(list); i++) {
		bytes_text(&text, i ? ", " : "");
		bytes_text(&text, json_object_get_string(json_object_array_get_idx(list, i)));
	}
	bytes_add(&text, "", 1);
	pair(w, english, chinese, (const char *)text.at);
	bytes_free(&text);
}

/* ---- parts ------------------------------------------------------------------------------------------------ */

static void walk_title(const struct walk *w, struct json_object *wipe)
{
	const char *grade = schema_text(wipe, "grade");
	enum wipe_grade g = grade_of(grade);
	enum sheet_tone tone = w->s->c->is_incident ? SHEET_BAD : g <= WIPE_CLEARED_CE ? SHEET_GOOD : SHEET_DOUBTFUL;

	const char *title = sheet_say(w->s, "Certificate of a wipe", "数据擦除证书");

	if (w->s->c->is_incident)
		title = sheet_say(w->s, "Incident record of a wipe; no certificate", "擦除事故记录（不是证书）");
	else if (!strcmp(schema_text(wipe, "method"), "overwrite-free"))
		title = sheet_say(w->s, "Certificate of a wipe in part; the image stays", "部分擦除证书（映像保留）");
	w->out->title(w->out->ctx, title, tone, grade_text(w->s, grade));
}

static void walk_head(const struct walk *w, struct json_object *doc, struct json_object *wipe)
{
	section(w, "What, when, who", "对象、时间、人员");
	member(w, wipe, "machine.name", "machine", "虚拟机");
	member(w, wipe, "machine.id", "machine's identifier", "虚拟机标识");
	member(w, wipe, "run", "number of the wipe", "作业编号");
	member(w, wipe, "started", "started", "开始");
	member(w, wipe, "ended", "ended", "结束");
	member(w, wipe, "seconds", "seconds at work", "工作秒数");
	member(w, wipe, "resumed", "times resumed", "续做次数");
	member(w, doc, "issued", "issued", "签发");
	member(w, doc, "operator.name", "responsible", "责任人");
	member(w, doc, "operator.user", "user", "用户");
	member(w, doc, "operator.uid", "user's number", "用户编号");
	member(w, doc, "operator.login-uid", "number of the login", "登录用户编号");
	pair(w, "consent", "确认方式", word_of(w->s, schema_text(wipe, "consent")));
	member(w, wipe, "host.name", "host", "主机");
	member(w, wipe, "host.machine-id", "host's identifier", "主机标识");
	member(w, wipe, "host.kernel", "kernel", "内核");
	member(w, wipe, "tool.name", "tool", "工具");
	member(w, wipe, "tool.version", "its version", "工具版本");
}

static void walk_method(const struct walk *w, struct json_object *wipe)
{
	section(w, "How", "方法");
	pair(w, "method", "方法", word_of(w->s, schema_text(wipe, "method")));
	member(w, wipe, "snapshot", "snapshot that was deleted", "所删除的快照");
	member(w, wipe, "guest-free", "what the guest calls free, too", "包括客户机的空闲空间");
	member(w, wipe, "profile", "profile", "方案");
	list_member(w, wipe, "passes", "passes", "各遍图样");
	pair(w, "verification", "验证", word_of(w->s, schema_text(wipe, "verification.mode")));
	member(w, wipe, "verification.blocks-a-member", "blocks read back of each file", "每个文件抽样块数");
	member(w, wipe, "verification.block-size", "size of a block", "块大小");
	member(w, wipe, "verification.confidence-percent", "confidence, per cent", "置信度（%）");
	member(w, wipe, "verification.detects-percent", "of a rest so large, per cent", "可检出的残留比例（%）");
	member(w, wipe, "forced", "forced", "强制执行");
	member(w, wipe, "pattern-key-sha256", "SHA-256 of the pattern's key", "图样密钥的 SHA-256");
	member(w, wipe, "pattern-key", "the pattern's key", "图样密钥");
}

static void walk_object(const struct walk *w, struct json_object *m, size_t number)
{
	char name[64];

	snprintf(name, sizeof(name), "%s %zu", sheet_say(w->s, "File", "文件"), number);
	w->out->section(w->out->ctx, name);
	member(w, m, "path", "path", "路径");
	pair(w, "grade", "等级", grade_text(w->s, schema_text(m, "grade")));
	member(w, m, "role", "role", "角色");
	member(w, m, "format", "format", "格式");
	member(w, m, "disk-id", "identifier of the disk", "磁盘标识");
	member(w, m, "encrypted", "encrypted", "已加密");
	bytes_member(w, m, "size", "size, bytes", "大小（字节）");
	bytes_member(w, m, "allocated", "allocated, bytes", "已分配（字节）");
	member(w, m, "head-sha256", "SHA-256 of its beginning, before", "擦除前开头的 SHA-256");
	member(w, m, "medium.device", "device", "设备");
	member(w, m, "medium.vendor", "vendor", "厂商");
	member(w, m, "medium.model", "model", "型号");
	member(w, m, "medium.serial", "serial number", "序列号");
	member(w, m, "before.extents", "extents before", "擦除前区段数");
	bytes_member(w, m, "before.bytes", "bytes in them", "擦除前区段字节");
	member(w, m, "after.extents", "extents after", "擦除后区段数");
	bytes_member(w, m, "after.bytes", "bytes in them", "擦除后区段字节");
	bytes_member(w, m, "moved", "moved meanwhile, bytes", "期间移位（字节）");
	bytes_member(w, m, "before.shared", "shared with others, bytes", "与他者共享（字节）");
	member(w, m, "crypto-erase.areas", "key areas", "密钥区");
	member(w, m, "crypto-erase.proven", "proven to be overwritten", "已证实覆写");
	member(w, m, "passes-done", "passes done", "完成遍数");
	bytes_member(w, m, "written", "written, bytes", "已写（字节）");
	bytes_member(w, m, "verified", "read back, bytes", "已回读（字节）");
	bytes_member(w, m, "unwritable.bytes", "could not be written, bytes", "无法写入（字节）");
	bytes_member(w, m, "unreadable.bytes", "could not be read, bytes", "无法读取（字节）");
	bytes_member(w, m, "mismatch.bytes", "read back otherwise, bytes", "读回不符（字节）");
	member(w, m, "done", "done", "完成");
	member(w, m, "unlinked", "removed afterwards", "其后已删除");
}

static void walk_findings(const struct walk *w, struct json_object *wipe)
{
	struct json_object *list = schema_at(wipe, "findings");
	size_t n = json_object_array_length(list);

	section(w, "Findings", "发现");
	for (size_t i = 0; i < n; i++) {
		struct json_object *f = json_object_array_get_idx(list, i), *of = schema_at(f, "member");
		struct bytes text = { 0 };

		if (of)
			bytes_format(&text, "%s %llu: ", sheet_say(w->s, "file", "文件"), (unsigned long long)json_object_get_uint64(of) + 1);
		bytes_format(&text, "%s [%s]", schema_text(f, "text"), schema_text(f, "code"));
		bytes_add(&text, "", 1);
		w->out->item(w->out->ctx, (const char *)text.at);
		bytes_free(&text);
	}
	if (!n)
		w->out->item(w->out->ctx, sheet_say(w->s, "none recorded", "无记录"));
}

static void walk_limits(const struct walk *w, struct json_object *doc, struct json_object *wipe)
{
	struct json_object *list = schema_at(doc, "limitations"), *notes = schema_at(wipe, "limits");

	section(w, "Limits that apply", "适用的局限");
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *l = json_object_array_get_idx(list, i);
		const char *chinese = limits_chinese(schema_text(l, "code"));

		w->out->item(w->out->ctx, w->s->lang == SHEET_CHINESE && chinese ? chinese : schema_text(l, "text"));
	}
	for (size_t i = 0; i < json_object_array_length(notes); i++)
		w->out->item(w->out->ctx, json_object_get_string(json_object_array_get_idx(notes, i)));
}

static void walk_signature(const struct walk *w)
{
	struct bytes command = { 0 };

	section(w, "Signature", "签名");
	pair(w, "signed document", "被签名的文件", w->s->path);
	pair(w, "its SHA-256", "其 SHA-256", w->s->c->sha256);
	pair(w, "key", "密钥", w->s->c->fingerprint);
	pair(w, "signer", "签名者", w->s->signer ? w->s->signer : sheet_say(w->s, "not checked: the signature holds; whose key it is was not asked",
									   "未核对：签名有效，但未核对密钥属于何人"));
	sheet_put_command(w->s, &command);
	bytes_add(&command, "", 1);
	pair(w, "anybody verifies it with", "任何人可用此命令验证", (const char *)command.at);
	bytes_free(&command);
}

static void put_shell_word(struct bytes *out, const char *text)
{
	bytes_text(out, "'");
	for (; *text; text++) {
		if (*text == '\'')
			bytes_text(out, "'\\''");
		else
			bytes_add(out, text, 1);
	}
	bytes_text(out, "'");
}

void sheet_put_command(const struct sheet *s, struct bytes *out)
{
	bytes_text(out, "ssh-keygen -Y verify -f allowed_signers -I ");
	if (s->signer && s->signer[0])
		put_shell_word(out, s->signer);
	else
		bytes_text(out, "NAME");
	bytes_format(out, " -n %s -s ", certificate_namespace(s->c->is_incident));
	put_shell_word(out, s->sig_path);
	bytes_text(out, " < ");
	put_shell_word(out, s->path);
}

const char *sheet_operator_line(const struct sheet *s)
{
	return sheet_say(s, "operator: name, signature, date", "操作人：姓名、签字、日期");
}

const char *sheet_validator_line(const struct sheet *s)
{
	return sheet_say(s, "validator: name, signature, date", "验证人：姓名、签字、日期");
}

const char *sheet_note(const struct sheet *s)
{
	return sheet_say(s, "This page is a picture of the signed document and proves nothing itself: the document with its signature counts.",
			 "本页仅是已签名文件的呈现，本身不构成证明：以该文件及其签名为准。");
}

void sheet_walk(const struct sheet *s, const struct sheet_sink *sink)
{
	struct walk w = { s, sink };
	struct json_object *doc = s->c->doc, *wipe = schema_at(doc, "wipe"), *set = schema_at(wipe, "set");

	walk_title(&w, wipe);
	walk_head(&w, doc, wipe);
	walk_method(&w, wipe);
	walk_limits(&w, doc, wipe);
	walk_findings(&w, wipe);
	for (size_t i = 0; i < json_object_array_length(set); i++)
		walk_object(&w, json_object_array_get_idx(set, i), i + 1);
	walk_signature(&w);
}

/* ---- lines of text ---------------------------------------------------------------------------------------- */

static void text_title(void *ctx, const char *title, enum sheet_tone tone, const char *verdict)
{
	static const enum ui_colour colours[] = { [SHEET_GOOD] = UI_GREEN, [SHEET_DOUBTFUL] = UI_YELLOW, [SHEET_BAD] = UI_RED };

	(void)ctx;
	fprintf(ui_results(), "%s", ui_colour(colours[tone]));
	ui_line("%s: %s", title, verdict);
	fprintf(ui_results(), "%s", ui_colour(UI_PLAIN));
}

static void text_section(void *ctx, const char *name)
{
	(void)ctx;
	ui_line("%s", "");
	ui_line("%s", name);
}

static void text_pair(void *ctx, const char *label, const char *value)
{
	(void)ctx;
	ui_line("  %s: %s", label, value);
}

static void text_item(void *ctx, const char *text)
{
	(void)ctx;
	ui_line("  - %s", text);
}

void sheet_print(const struct sheet *s)
{
	const struct sheet_sink sink = { text_title, text_section, text_pair, text_item, NULL };

	sheet_walk(s, &sink);
}
