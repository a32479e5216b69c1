/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few messages of KMIP that a key server is asked in, for versions 1.0 to 1.4 and 2.0, and the reading of its
 * replies, which are hostile. How they travel is kmip_tls.c's; which follows which, kmip.c's.
 */
#ifndef KEYHELPERS_KMIP_MESSAGE_H
#define KEYHELPERS_KMIP_MESSAGE_H

#include "keyhelpers/kmip_ttlv.h"

#define KMIP_REQUEST_MAX 4096
#define KMIP_REPLY_MAX 65536    /* what we ask for is below 1 KiB; servers add attributes of their own */
#define KMIP_ID_MAX 256         /* most servers use a UUID; the specification sets no limit */
#define KMIP_KEY 32             /* AES-256: servers refuse keys of 512 bits */

struct kmip_version {
	uint32_t major, minor;
};

/* KMIP 1.4, 9.1.3.2.27 */
enum kmip_operation {
	KMIP_CREATE = 0x01,
	KMIP_GET = 0x0a,
	KMIP_ACTIVATE = 0x12,
	KMIP_DISCOVER_VERSIONS = 0x1e,
};

/* The versions spoken, best first; ends with { 0, 0 }. */
extern const struct kmip_version kmip_versions[];

/* Each writes a request, and returns its length; 0: it does not fit. */
size_t kmip_ask_versions(uint8_t out[KMIP_REQUEST_MAX]);
size_t kmip_ask_create(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *name);
size_t kmip_ask_activate(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *id);
size_t kmip_ask_get(uint8_t out[KMIP_REQUEST_MAX], struct kmip_version version, const char *id);

/* KMIP 1.4, 9.1.3.2.29, and KMIP 2.0, 11.53: of the reasons to refuse, those that mean something to us. */
enum kmip_reason {
	KMIP_ITEM_NOT_FOUND = 0x01,
	KMIP_AUTHENTICATION_NOT_SUCCESSFUL = 0x03,
	KMIP_PERMISSION_DENIED = 0x0c,
	KMIP_OBJECT_ARCHIVED = 0x0d,
	KMIP_SENSITIVE = 0x16,
	KMIP_NOT_EXTRACTABLE = 0x17,
	KMIP_OBJECT_DESTROYED = 0x36,
	KMIP_OBJECT_NOT_FOUND = 0x37,
	KMIP_NOT_AUTHORISED = 0x39,
};

struct kmip_reply {
	bool is_success;
	uint32_t reason;                /* 0: none is given */
	char message[160];              /* the server's words, without what is not printable */
	struct ttlv_item payload;       /* within the bytes that were read; none if there is none */
};

/* The length of the reply that begins with these bytes, 0: none of ours does. */
size_t kmip_reply_len(const uint8_t head[TTLV_HEADER]);
/* NULL, or what is wrong with the bytes. */
const char *kmip_read_reply(const uint8_t *p, size_t len, enum kmip_operation asked, struct kmip_reply *out);
/* The first of kmip_versions that the server names, or { 0, 0 }. */
struct kmip_version kmip_reply_version(const struct kmip_reply *reply);
/* Both: NULL, or what is wrong. */
const char *kmip_reply_id(const struct kmip_reply *reply, char out[KMIP_ID_MAX]);
const char *kmip_reply_key(const struct kmip_reply *reply, const char *id, uint8_t out[KMIP_KEY]);

#endif
