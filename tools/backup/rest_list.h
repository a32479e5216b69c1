/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server's list of objects, [{"name":"...","size":N},...] (restic's REST backend, version 2), read as it comes in: memory grows with the names of
 * objects and with nothing else that the server sends.
 */
#ifndef TOOLS_BACKUP_REST_LIST_H
#define TOOLS_BACKUP_REST_LIST_H

#include "backup/store.h"

#define REST_LIST_MAX (4u << 20)        /* objects: 64 TiB in packs of 16 MiB */
#define REST_ITEM_MAX 1024              /* bytes of one; what servers send has about 100 */
#define REST_BLANKS_MAX 64              /* for each object: a server could send them without end */

struct rest_item {
	uint8_t id[32];
	uint64_t size;
};
struct rest_list {
	struct rest_item *at;
	size_t n, room;
	char text[REST_ITEM_MAX + 1];   /* of the object that is being read */
	size_t text_n;
	int where;                      /* enum in rest_list.c */
	uint64_t blanks;
	bool is_bad;
};
/* What was read before is forgotten; {0} is new. */
void rest_list_begin(struct rest_list *l);
/* False: it breaks a rule, and nothing that follows can mend it. */
bool rest_list_feed(struct rest_list *l, const char *bytes, size_t n);
/* It is whole, and in order. */
bool rest_list_is_done(const struct rest_list *l);
void rest_list_free(struct rest_list *l);
void rest_item_name(const struct rest_item *item, char name[STORE_NAME_SIZE]);

#endif
