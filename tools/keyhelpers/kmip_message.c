/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts requests together and takes replies apart. One operation a message: not every server does batches.
 *
 * Versions 1.x name attributes by text, inside a Template-Attribute; 2.0 gives each its own tag, inside Attributes
 * (KMIP 1.4, 2.1.8; KMIP 2.0, 6.1.8). Of what is used here nothing else differs.
 */
#include "keyhelpers/kmip_message.h"

#include <string.h>

/* KMIP 1.4, 9.1.3.1; ATTRIBUTES is of KMIP 2.0, 11.59. */
enum tag {
	ATTRIBUTE = 0x420008,
	ATTRIBUTE_NAME = 0x42000a,
	ATTRIBUTE_VALUE = 0x42000b,
	BATCH_COUNT = 0x42000d,
	BATCH_ITEM = 0x42000f,
	CRYPTOGRAPHIC_ALGORITHM = 0x420028,
	CRYPTOGRAPHIC_LENGTH = 0x42002a,
	CRYPTOGRAPHIC_USAGE_MASK = 0x42002c,
	KEY_BLOCK = 0x420040,
	KEY_FORMAT_TYPE = 0x420042,
	KEY_MATERIAL = 0x420043,
	KEY_VALUE = 0x420045,
	KEY_WRAPPING_DATA = 0x420046,
	NAME = 0x420053,
	NAME_TYPE = 0x420054,
	NAME_VALUE = 0x420055,
	OBJECT_TYPE = 0x420057,
	OPERATION = 0x42005c,
	PROTOCOL_VERSION = 0x420069,
	PROTOCOL_VERSION_MAJOR = 0x42006a,
	PROTOCOL_VERSION_MINOR = 0x42006b,
	REQUEST_HEADER = 0x420077,
	REQUEST_MESSAGE = 0x420078,
	REQUEST_PAYLOAD = 0x420079,
	RESPONSE_HEADER = 0x42007a,
	RESPONSE_MESSAGE = 0x42007b,
	RESPONSE_PAYLOAD = 0x42007c,
	RESULT_MESSAGE = 0x42007d,
	RESULT_REASON = 0x42007e,
	RESULT_STATUS = 0x42007f,
	SYMMETRIC_KEY = 0x42008f,
	TEMPLATE_ATTRIBUTE = 0x420091,
	UNIQUE_IDENTIFIER = 0x420094,
	ATTRIBUTES = 0x420125,
};

/* KMIP 1.4, 9.1.3.2 and 9.1.3.3.1 */
enum {
	OBJECT_SYMMETRIC_KEY = 2,
	ALGORITHM_AES = 3,
	FORMAT_RAW = 1,
	NAME_IS_TEXT = 1,
	MAY_ENCRYPT_AND_DECRYPT = 0x04 | 0x08,
	STATUS_SUCCESS = 0,
};

/* 2.0 comes last: where a server has a 1.x, that has been in use for longer. */
const struct kmip_version kmip_versions[] = { { 1, 4 }, { 1, 3 }, { 1, 2 }, { 1, 1 }, { 1, 0 }, { 2, 0 }, { 0, 0 } };

/* ---- requests ------------------------------------------------------------------------------------------- */

static void put_version(struct ttlv_writer *w, struct kmip_version version)
{
	ttlv_begin(w, PROTOCOL_VERSION);
	ttlv_put_integer(w, PROTOCOL_VERSION_MAJOR, version.major);
	ttlv_put_integer(w, PROTOCOL_VERSION_MINOR, version.minor);
	ttlv_end(w);
}

/* All up to the payload, which stays open. */
static struct ttlv_writer begin(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, enum kmip_operation operation)
{
	struct ttlv_writer w = { .p = out, .cap = KMIP_REQUEST_MAX };

	ttlv_begin(&w, REQUEST_MESSAGE);
	ttlv_begin(&w, REQUEST_HEADER);
	put_version(&w, version);
	ttlv_put_integer(&w, BATCH_COUNT, 1);
	ttlv_end(&w);
	ttlv_begin(&w, BATCH_ITEM);
	ttlv_put_enum(&w, OPERATION, operation);
	ttlv_begin(&w, REQUEST_PAYLOAD);
	return w;
}

static size_t finish(struct ttlv_writer *w)
{
	ttlv_end(w);
	ttlv_end(w);
	ttlv_end(w);
	return ttlv_finish(w);
}

/* Asked in 1.1, the first version that has this question (KMIP 1.1, 4.26). */
size_t kmip_ask_versions(uint8_t out[KMIP_REQUEST_MAX])
{
	struct ttlv_writer w = begin(out, (struct kmip_version){ 1, 1 }, KMIP_DISCOVER_VERSIONS);

	for (const struct kmip_version *v = kmip_versions; v->major; v++)
		put_version(&w, *v);
	return finish(&w);
}

/* Begins an attribute, and returns the tag that its value has. */
static uint32_t begin_attribute(struct ttlv_writer *w, struct kmip_version version, uint32_t tag, const char *name)
{
	if (version.major > 1)
		return tag;
	ttlv_begin(w, ATTRIBUTE);
	ttlv_put_text(w, ATTRIBUTE_NAME, name);
	return ATTRIBUTE_VALUE;
}

static void end_attribute(struct ttlv_writer *w, struct kmip_version version)
{
	if (version.major == 1)
		ttlv_end(w);
}

size_t kmip_ask_create(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *name)
{
	struct ttlv_writer w = begin(out, version, KMIP_CREATE);

	ttlv_put_enum(&w, OBJECT_TYPE, OBJECT_SYMMETRIC_KEY);
	ttlv_begin(&w, version.major > 1 ? ATTRIBUTES : TEMPLATE_ATTRIBUTE);
	ttlv_put_enum(&w, begin_attribute(&w, version, CRYPTOGRAPHIC_ALGORITHM, "Cryptographic Algorithm"), ALGORITHM_AES);
	end_attribute(&w, version);
	ttlv_put_integer(&w, begin_attribute(&w, version, CRYPTOGRAPHIC_LENGTH, "Cryptographic Length"), KMIP_KEY * 8);
	end_attribute(&w, version);
	ttlv_put_integer(&w, begin_attribute(&w, version, CRYPTOGRAPHIC_USAGE_MASK, "Cryptographic Usage Mask"),
			 MAY_ENCRYPT_AND_DECRYPT);
	end_attribute(&w, version);
	ttlv_begin(&w, begin_attribute(&w, version, NAME, "Name"));
	ttlv_put_text(&w, NAME_VALUE, name);
	ttlv_put_enum(&w, NAME_TYPE, NAME_IS_TEXT);
	ttlv_end(&w);
	end_attribute(&w, version);
	ttlv_end(&w);
	return finish(&w);
}

size_t kmip_ask_activate(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *id)
{
	struct ttlv_writer w = begin(out, version, KMIP_ACTIVATE);

	ttlv_put_text(&w, UNIQUE_IDENTIFIER, id);
	return finish(&w);
}

size_t kmip_ask_get(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *id)
{
	struct ttlv_writer w = begin(out, version, KMIP_GET);

	ttlv_put_text(&w, UNIQUE_IDENTIFIER, id);
	ttlv_put_enum(&w, KEY_FORMAT_TYPE, FORMAT_RAW);
	return finish(&w);
}

/* ---- replies -------------------------------------------------------------------------------------------- */

size_t kmip_reply_len(const uint8_t head[TTLV_HEADER])
{
	return ttlv_message_len(head, RESPONSE_MESSAGE, KMIP_REPLY_MAX);
}

/* The server's own words are for people: what cannot be shown is left out, and the end if there is too much. */
static void copy_message(struct ttlv_item text, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < text.len && n + 1 < size; i++)
		if (text.p[i] >= ' ' && text.p[i] <= '~')
			out[n++] = (char)text.p[i];
	out[n] = '\0';
}

const char *kmip_read_reply(const uint8_t *p, size_t len, enum kmip_operation asked, struct kmip_reply *out)
{
	struct ttlv_item message = ttlv_parse(p, len), item;
	uint32_t status, operation;

	*out = (struct kmip_reply){ 0 };
	if (message.type != TTLV_STRUCTURE || message.tag != RESPONSE_MESSAGE)
		return "it is no response message of KMIP";
	item = ttlv_get(message, BATCH_ITEM, TTLV_STRUCTURE);
	if (!ttlv_u32(ttlv_get(item, RESULT_STATUS, TTLV_ENUM), &status))
		return "it has no result";
	/* A failure of the message as a whole names no operation. */
	if (ttlv_u32(ttlv_get(item, OPERATION, TTLV_ENUM), &operation) ? operation != asked : status == STATUS_SUCCESS)
		return "it answers another question";
	out->is_success = status == STATUS_SUCCESS;
	ttlv_u32(ttlv_get(item, RESULT_REASON, TTLV_ENUM), &out->reason);
	copy_message(ttlv_get(item, RESULT_MESSAGE, TTLV_TEXT), out->message, sizeof(out->message));
	out->payload = ttlv_get(item, RESPONSE_PAYLOAD, TTLV_STRUCTURE);
	return NULL;
}

static bool names_version(const struct kmip_reply *reply, const struct kmip_version *wanted)
{
	struct ttlv_item item;
	uint32_t major, minor;
	size_t at = 0;

	while (ttlv_next(reply->payload, &at, &item))
		if (item.tag == PROTOCOL_VERSION &&
		    ttlv_u32(ttlv_get(item, PROTOCOL_VERSION_MAJOR, TTLV_INTEGER), &major) &&
		    ttlv_u32(ttlv_get(item, PROTOCOL_VERSION_MINOR, TTLV_INTEGER), &minor) &&
		    major == wanted->major && minor == wanted->minor)
			return true;
	return false;
}

struct kmip_version kmip_reply_version(const struct kmip_reply *reply)
{
	const struct kmip_version *v = kmip_versions;

	while (v->major && !names_version(reply, v))
		v++;
	return *v;
}

const char *kmip_reply_id(const struct kmip_reply *reply, char out[KMIP_ID_MAX])
{
	if (!ttlv_copy_text(ttlv_get(reply->payload, UNIQUE_IDENTIFIER, TTLV_TEXT), out, KMIP_ID_MAX) || !out[0])
		return "it has no identifier of a kind that can be stored";
	return NULL;
}

const char *kmip_reply_key(const struct kmip_reply *reply, const char *id, uint8_t out[KMIP_KEY])
{
	struct ttlv_item block = ttlv_get(ttlv_get(reply->payload, SYMMETRIC_KEY, TTLV_STRUCTURE), KEY_BLOCK, TTLV_STRUCTURE);
	struct ttlv_item key = ttlv_get(ttlv_get(block, KEY_VALUE, TTLV_STRUCTURE), KEY_MATERIAL, TTLV_BYTES);
	char told[KMIP_ID_MAX];
	uint32_t format, algorithm;

	if (kmip_reply_id(reply, told) || strcmp(told, id) != 0)
		return "it is about another key";
	if (block.type == TTLV_NONE)
		return "the object is no symmetric key";
	if (ttlv_get(block, KEY_WRAPPING_DATA, TTLV_STRUCTURE).type != TTLV_NONE)
		return "the key is wrapped by another one";
	if (!ttlv_u32(ttlv_get(block, KEY_FORMAT_TYPE, TTLV_ENUM), &format) || format != FORMAT_RAW)
		return "the key is not in raw format";
	/* Servers may leave out what the attributes of the object say, too (KMIP 1.4, 2.1.3). */
	if (ttlv_u32(ttlv_get(block, CRYPTOGRAPHIC_ALGORITHM, TTLV_ENUM), &algorithm) && algorithm != ALGORITHM_AES)
		return "the key is not for AES";
	if (key.type == TTLV_NONE || key.len != KMIP_KEY)
		return "the key does not have 256 bits";
	memcpy(out, key.p, KMIP_KEY);
	return NULL;
}
