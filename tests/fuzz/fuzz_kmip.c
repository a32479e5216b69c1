/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a KMIP server answers, taken for the reply to each question that vdisk-key-kmip asks. What is accepted keeps the
 * promises of the headers: items lie within the message, identifiers can be stored, keys were in the message.
 *
 * The corpus: what a PyKMIP server answers in each version, and messages with one rule broken.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/keyhelpers/kmip_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void walk(struct ttlv_item item, unsigned depth)
{
	struct ttlv_item member;
	size_t at = 0;
	uint32_t value;
	char text[KMIP_ID_MAX];

	must(depth <= TTLV_DEPTH && item.type >= TTLV_STRUCTURE && item.type <= TTLV_INTERVAL);
	must(ttlv_u32(item, &value) == (item.type == TTLV_INTEGER || item.type == TTLV_ENUM));
	must(!ttlv_copy_text(item, text, sizeof(text)) || strlen(text) == item.len);
	while (ttlv_next(item, &at, &member)) {
		must(member.p >= item.p + TTLV_HEADER && member.p + member.len <= item.p + item.len);
		walk(member, depth + 1);
	}
	must(item.type != TTLV_STRUCTURE || at == item.len);
}

static bool is_within(const uint8_t *data, size_t len, const uint8_t *part, size_t part_len)
{
	return memmem(data, len, part, part_len) != NULL;
}

static void read_as(const uint8_t *data, size_t len, enum kmip_operation asked)
{
	struct kmip_reply reply;
	struct kmip_version version;
	uint8_t key[KMIP_KEY];
	char id[KMIP_ID_MAX];

	if (kmip_read_reply(data, len, asked, &reply))
		return;
	must(memchr(reply.message, 0, sizeof(reply.message)) != NULL);
	version = kmip_reply_version(&reply);
	must(!version.major || (version.major == 1 && version.minor <= 4) || (version.major == 2 && version.minor == 0));
	if (kmip_reply_id(&reply, id))
		return;
	must(id[0] && is_within(data, len, (const uint8_t *)id, strlen(id)));
	if (!kmip_reply_key(&reply, id, key))
		must(is_within(data, len, key, sizeof(key)));
	must(kmip_reply_key(&reply, "another", key) || !strcmp(id, "another"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ttlv_item item = ttlv_parse(data, len);

	if (len >= TTLV_HEADER) {
		size_t n = kmip_reply_len(data);

		must(n <= KMIP_REPLY_MAX && (n == 0 || n >= TTLV_HEADER));
	}
	if (item.type != TTLV_NONE)
		walk(item, 0);
	read_as(data, len, KMIP_CREATE);
	read_as(data, len, KMIP_GET);
	read_as(data, len, KMIP_ACTIVATE);
	read_as(data, len, KMIP_DISCOVER_VERSIONS);
	return 0;
}
