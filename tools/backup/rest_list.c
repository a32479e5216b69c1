/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cuts the list into its objects by brackets and quotes, and leaves each of them to json-c. Of servers it knows nothing. */
#include "backup/rest_list.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/store_kind.h"
#include "ui.h"

enum where { BEGIN, FIRST, ITEM, TEXT, ESCAPE, NEXT, AFTER_COMMA, DONE };

void rest_list_begin(struct rest_list *l)
{
	l->n = 0;
	l->text_n = 0;
	l->blanks = 0;
	l->where = BEGIN;
	l->is_bad = false;
}

void rest_list_free(struct rest_list *l)
{
	free(l->at);
	*l = (struct rest_list){ 0 };
}

bool rest_list_is_done(const struct rest_list *l)
{
	return l->where == DONE && !l->is_bad;
}

static unsigned digit_of(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

void rest_item_name(const struct rest_item *item, char name[STORE_NAME_SIZE])
{
	for (size_t i = 0; i < sizeof(item->id); i++)
		sprintf(name + 2 * i, "%02x", item->id[i]);
}

static bool add(struct rest_list *l, const char *name, uint64_t size)
{
	struct rest_item *item;

	if (l->n == REST_LIST_MAX)
		return false;
	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 1024;
		l->at = reallocarray(l->at, l->room, sizeof(l->at[0]));
		if (!l->at)
			ui_out_of_memory();
	}
	item = &l->at[l->n++];
	item->size = size;
	for (size_t i = 0; i < sizeof(item->id); i++)
		item->id[i] = (uint8_t)(digit_of(name[2 * i]) << 4 | digit_of(name[2 * i + 1]));
	return true;
}

/* What has no name of an object is passed over, as in a folder; without name or size it is no list. */
static bool take_item(struct rest_list *l)
{
	struct json_tokener *t = json_tokener_new_ex(4);
	struct json_object *j, *name = NULL, *size = NULL;
	bool is_good;

	if (!t)
		ui_out_of_memory();
	j = json_tokener_parse_ex(t, l->text, (int)l->text_n);
	is_good = j && json_object_is_type(j, json_type_object) && json_object_object_get_ex(j, "name", &name) &&
		  json_object_object_get_ex(j, "size", &size) && json_object_is_type(name, json_type_string) &&
		  json_object_is_type(size, json_type_int) && json_object_get_int64(size) >= 0;
	if (is_good && store_is_name(json_object_get_string(name)))
		is_good = add(l, json_object_get_string(name), (uint64_t)json_object_get_int64(size));
	json_object_put(j);
	json_tokener_free(t);
	l->text_n = 0;
	return is_good;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Between objects. */
static bool step_outside(struct rest_list *l, char c)
{
	bool opens = l->where == FIRST || l->where == AFTER_COMMA;

	if (is_blank(c))
		return ++l->blanks <= REST_BLANKS_MAX * ((uint64_t)l->n + 2);
	if (l->where == BEGIN && c == '[')
		l->where = FIRST;
	else if ((l->where == FIRST || l->where == NEXT) && c == ']')
		l->where = DONE;
	else if (l->where == NEXT && c == ',')
		l->where = AFTER_COMMA;
	else if (opens && c == '{')
		l->where = ITEM;
	else
		return false;
	if (l->where == ITEM)
		l->text[l->text_n++] = c;
	return true;
}

/* In one, which has no others in it. */
static bool step_inside(struct rest_list *l, char c)
{
	if (l->text_n == REST_ITEM_MAX || !c)
		return false;
	l->text[l->text_n++] = c;
	l->text[l->text_n] = '\0';
	if (l->where == ESCAPE)
		l->where = TEXT;
	else if (l->where == TEXT)
		l->where = c == '"' ? ITEM : c == '\\' ? ESCAPE : TEXT;
	else if (c == '"')
		l->where = TEXT;
	else if (c == '}') {
		l->where = NEXT;
		return take_item(l);
	}
	return true;
}

bool rest_list_feed(struct rest_list *l, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n && !l->is_bad; i++) {
		bool is_inside = l->where == ITEM || l->where == TEXT || l->where == ESCAPE;

		l->is_bad = is_inside ? !step_inside(l, bytes[i]) : !step_outside(l, bytes[i]);
	}
	return !l->is_bad;
}
