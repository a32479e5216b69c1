/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON on standard output: a thin door to json-c that keeps text valid UTF-8 and numbers numbers. */
#ifndef TOOLS_JSON_H
#define TOOLS_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json_object *json_new(void);
/* Whether all n bytes are UTF-8; a NUL stands after them. */
bool json_is_utf8(const char *text, size_t n);
/* Bytes that are no UTF-8 (file names may hold any) become U+FFFD. */
struct json_object *json_text(const char *text);

void json_put(struct json_object *to, const char *key, struct json_object *value);      /* takes value */
void json_put_text(struct json_object *to, const char *key, const char *text);
void json_put_u64(struct json_object *to, const char *key, uint64_t n);
void json_put_bool(struct json_object *to, const char *key, bool b);
/* A new object or array inside `to`; belongs to it. */
struct json_object *json_put_object(struct json_object *to, const char *key);
struct json_object *json_put_array(struct json_object *to, const char *key);
void json_add(struct json_object *array, struct json_object *value);    /* takes value */

/* On one line, flushed; json_print_pretty() on many. All that print also free. */
void json_print_to(FILE *f, struct json_object *j);
void json_print(struct json_object *j);
void json_print_pretty(struct json_object *j);
/* An array of any length, item by item: nothing is kept. */
void json_print_item(struct json_object *j, bool is_first);
void json_print_items_end(bool is_empty);

#endif
