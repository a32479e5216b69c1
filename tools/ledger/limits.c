/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The standing limits of a wipe, in words. What the wipe itself found is among its findings. */
#include "ledger/limits.h"

#include <stdbool.h>
#include <string.h>

#include "json.h"
#include "ledger/schema.h"

static bool always(struct json_object *wipe)
{
	(void)wipe;
	return true;
}

static bool is_crypto_erase(struct json_object *wipe)
{
	return !strcmp(schema_text(wipe, "method"), "crypto-erase");
}

static bool is_in_part(struct json_object *wipe)
{
	return !strcmp(schema_text(wipe, "method"), "overwrite-free");
}

static bool is_sampled(struct json_object *wipe)
{
	return !is_crypto_erase(wipe) && !strcmp(schema_text(wipe, "verification.mode"), "sample");
}

static bool is_unverified(struct json_object *wipe)
{
	return !is_crypto_erase(wipe) && !strcmp(schema_text(wipe, "verification.mode"), "none");
}

static bool is_forced(struct json_object *wipe)
{
	return json_object_get_boolean(schema_at(wipe, "forced"));
}

static bool went_through_cache(struct json_object *wipe)
{
	struct json_object *set = schema_at(wipe, "set");

	for (size_t i = 0; json_object_is_type(set, json_type_array) && i < json_object_array_length(set); i++)
		if (!strcmp(schema_text(json_object_array_get_idx(set, i), "read-path"), "page-cache"))
			return true;
	return false;
}

static const struct limit {
	const char *code, *english, *chinese;
	bool (*applies)(struct json_object *wipe);
} limits[] = {
	{ "in-part", "Only what the image does not use was overwritten: the image stays, with all that is in it.",
	  "仅覆写映像中未使用的部分：映像及其中的数据保留。", is_in_part },
	{ "clear-at-most", "Ordinary reads and writes reach Clear in the sense of NIST SP 800-88 at best, and never Purge.",
	  "普通读写最多达到 NIST SP 800-88 所称的“清除”（Clear），绝不是“净化”（Purge）。", always },
	{ "copies-elsewhere", "Nothing is said of copies elsewhere: backups, replicas, snapshots of the storage, exports, swap.",
	  "对其他位置的副本（备份、复制、存储快照、导出文件、交换空间）不作任何说明。", always },
	{ "host-clock", "The times are those of the host's clock.", "时间取自主机时钟。", always },
	{ "operator-says-encrypted", "Only keys were overwritten; that no data ever lay there in clear is what the operator says.",
	  "仅覆写了密钥；数据从未以明文存放，是操作者的声明。", is_crypto_erase },
	{ "sample-only", "Only a sample was read back; its size is in the section on verification.", "仅抽样回读验证，抽样规模见验证一节。", is_sampled },
	{ "not-verified", "Nothing was read back.", "未作回读验证。", is_unverified },
	{ "page-cache", "Some of it was written or read by way of the page cache and not directly.", "部分读写经过页缓存，而非直接访问介质。",
	  went_through_cache },
	{ "forced", "It was forced: other images may depend on what was wiped, or it had other names.", "使用了强制选项：可能有其他映像依赖被擦除的对象，或该对象有其他名称。",
	  is_forced },
};
#define N_LIMITS (sizeof(limits) / sizeof(limits[0]))

void limits_put(struct json_object *doc, struct json_object *wipe)
{
	struct json_object *list = json_put_array(doc, "limitations"), *j;

	for (size_t i = 0; i < N_LIMITS; i++) {
		if (!limits[i].applies(wipe))
			continue;
		j = json_new();
		json_put_text(j, "code", limits[i].code);
		json_put_text(j, "text", limits[i].english);
		json_add(list, j);
	}
}

const char *limits_chinese(const char *code)
{
	for (size_t i = 0; i < N_LIMITS; i++)
		if (!strcmp(limits[i].code, code))
			return limits[i].chinese;
	return NULL;
}
