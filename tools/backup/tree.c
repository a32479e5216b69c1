/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Trees between memory and JSON, as restic has them ("Trees and Data" of its design document), names quoted twice, as Go does. */
#include "backup/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/jread.h"
#include "backup/snapshot.h"
#include "fail.h"
#include "json.h"
#include "ui.h"

static void node_free(struct node *n)
{
	free(n->name);
	free(n->content);
}

void tree_free(struct tree *t)
{
	for (size_t i = 0; i < t->n; i++)
		node_free(&t->at[i]);
	free(t->at);
	*t = (struct tree){ 0 };
}

static struct node *new_node(struct tree *t)
{
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 16;
		t->at = reallocarray(t->at, t->room, sizeof(*t->at));
		if (!t->at)
			ui_out_of_memory();
	}
	t->at[t->n] = (struct node){ 0 };
	return &t->at[t->n++];
}

struct node *tree_add(struct tree *t, const char *name, enum node_type type)
{
	struct node *n = new_node(t);

	n->name = strdup(name);
	if (!n->name)
		ui_out_of_memory();
	n->type = type;
	return n;
}

struct node *tree_find(const struct tree *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->at[i].name, name))
			return &t->at[i];
	return NULL;
}

/* ---- names ---------------------------------------------------------------------------------------------- */

/* As strconv.Quote() does, without the quotes; in JSON the backslashes become two. */
static void quote(struct bytes *out, const char *name)
{
	bool is_utf8 = json_is_utf8(name, strlen(name));

	for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
		if (*c == '"' || *c == '\\')
			bytes_format(out, "\\\\\\%s", *c == '"' ? "\"" : "\\");
		else if (*c < 0x20 || *c == 0x7f || (*c >= 0x80 && !is_utf8))
			bytes_format(out, "\\\\x%02x", *c);
		else
			bytes_add(out, c, 1);
	}
}

static bool take_code(const char **at, int digits, int base, unsigned long *v)
{
	char text[9] = "", *end;

	for (int i = 0; i < digits; i++) {
		if (!(*at)[i])
			return false;
		text[i] = (*at)[i];
	}
	*v = strtoul(text, &end, base);
	*at += digits;
	return !*end;
}

static void add_letter(struct bytes *out, unsigned long c)
{
	char u[4];
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (size_t i = n; i-- > 1; c >>= 6)
		u[i] = (char)(0x80 | (c & 0x3f));
	u[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0) | c);
	bytes_add(out, u, n);
}

static bool unquote(const char *from, struct bytes *out)
{
	static const char plain[] = "abfnrtv\\\"'", means[] = "\a\b\f\n\r\t\v\\\"'";

	while (*from) {
		unsigned long v;
		const char *known;

		if (*from != '\\') {
			bytes_add(out, from++, 1);
			continue;
		}
		from++;
		known = *from ? strchr(plain, *from) : NULL;
		if (known) {
			bytes_add(out, &means[known - plain], 1);
			from++;
		} else if (*from == 'x') {
			from++;
			if (!take_code(&from, 2, 16, &v))
				return false;
			bytes_add(out, &(char){ (char)v }, 1);
		} else if (*from == 'u' || *from == 'U') {
			int digits = *from++ == 'u' ? 4 : 8;

			if (!take_code(&from, digits, 16, &v) || v > 0x10ffff)
				return false;
			add_letter(out, v);
		} else if (take_code(&from, 3, 8, &v) && v < 256) {
			bytes_add(out, &(char){ (char)v }, 1);
		} else {
			return false;
		}
	}
	return true;
}

static void read_name(struct jread *j, struct node *n)
{
	struct bytes quoted = { 0 }, name = { 0 };

	jread_bytes(j, &quoted);
	bytes_add(&quoted, "", 1);
	if (!unquote((const char *)quoted.at, &name))
		j->is_bad = true;
	bytes_add(&name, "", 1);
	bytes_free(&quoted);
	free(n->name);
	n->name = (char *)name.at;
}

/* Names go into paths of files. */
static bool is_component(const char *name)
{
	return name && name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static void read_content(struct jread *j, struct node *n)
{
	size_t room = 0;

	free(n->content);
	n->content = NULL;
	n->n_content = 0;
	if (!jread_array(j))
		return;
	while (jread_item(j)) {
		if (n->n_content == room) {
			room = room ? 2 * room : 16;
			n->content = reallocarray(n->content, room, ID_SIZE);
			if (!n->content)
				ui_out_of_memory();
		}
		jread_id(j, n->content[n->n_content++]);
	}
}

static enum node_type read_type(struct jread *j)
{
	char word[16];

	jread_text(j, word, sizeof(word));
	return !strcmp(word, "file") ? NODE_FILE : !strcmp(word, "dir") ? NODE_FOLDER : NODE_OTHER;
}

static void read_node(struct jread *j, struct node *n)
{
	char key[32], when[64];
	uint32_t nsec;

	if (!jread_object(j)) {
		j->is_bad = true;
		return;
	}
	while (jread_key(j, key, sizeof(key))) {
		if (!strcmp(key, "name"))
			read_name(j, n);
		else if (!strcmp(key, "type"))
			n->type = read_type(j);
		else if (!strcmp(key, "mode"))
			n->mode = (uint32_t)jread_u64(j) & 07777;
		else if (!strcmp(key, "mtime")) {
			jread_text(j, when, sizeof(when));
			time_read(when, &n->mtime, &nsec);
		} else if (!strcmp(key, "uid"))
			n->uid = (uint32_t)jread_u64(j);
		else if (!strcmp(key, "gid"))
			n->gid = (uint32_t)jread_u64(j);
		else if (!strcmp(key, "size"))
			n->size = jread_u64(j);
		else if (!strcmp(key, "subtree"))
			jread_id(j, n->subtree);
		else if (!strcmp(key, "content"))
			read_content(j, n);
		else
			jread_skip(j);
	}
	if (!is_component(n->name))
		j->is_bad = true;
}

int tree_read(const void *json, size_t n, struct tree *out, struct vd_error *e)
{
	struct jread j = jread_of(json, n);
	char key[16];

	*out = (struct tree){ 0 };
	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (strcmp(key, "nodes") != 0)
				jread_skip(&j);
			else if (jread_array(&j))
				while (jread_item(&j))
					read_node(&j, new_node(out));
		}
	if (jread_is_done(&j))
		return 0;
	tree_free(out);
	return fail(e, VD_ECORRUPT, "a tree is not what one looks like");
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct node *)a)->name, ((const struct node *)b)->name);
}

static void write_content(struct bytes *out, const struct node *n)
{
	/* By the million: quote, digits, quote, comma at once. */
	char item[ID_HEX_SIZE + 2];

	bytes_text(out, ",\"content\":[");
	item[0] = item[ID_HEX_SIZE] = '"';
	item[ID_HEX_SIZE + 1] = ',';
	for (size_t i = 0; i < n->n_content; i++) {
		id_show(n->content[i], item + 1);
		item[ID_HEX_SIZE] = '"';
		bytes_add(out, item, i + 1 < n->n_content ? sizeof(item) : sizeof(item) - 1);
	}
	bytes_text(out, "]");
}

/* Of os.FileMode the bit of a folder is the highest. */
#define GO_MODE_FOLDER (UINT32_C(1) << 31)

static void write_node(struct bytes *out, const struct node *n)
{
	bool is_folder = n->type == NODE_FOLDER;
	char when[40], hex[ID_HEX_SIZE];

	time_show(n->mtime, 0, when);
	bytes_text(out, "{\"name\":\"");
	quote(out, n->name);
	bytes_format(out, "\",\"type\":\"%s\",\"mode\":%u,\"mtime\":\"%s\",\"atime\":\"%s\",\"ctime\":\"%s\",\"uid\":%u,\"gid\":%u",
		     is_folder ? "dir" : "file", n->mode | (is_folder ? GO_MODE_FOLDER : 0), when, when, when, n->uid, n->gid);
	if (is_folder) {
		id_show(n->subtree, hex);
		bytes_format(out, ",\"content\":null,\"subtree\":\"%s\"}", hex);
		return;
	}
	bytes_format(out, ",\"size\":%llu,\"links\":1", (unsigned long long)n->size);
	write_content(out, n);
	bytes_text(out, "}");
}

void tree_write(struct tree *t, struct bytes *out)
{
	if (t->n)
		qsort(t->at, t->n, sizeof(*t->at), by_name);
	bytes_text(out, "{\"nodes\":[");
	for (size_t i = 0; i < t->n; i++) {
		bytes_text(out, i ? "," : "");
		write_node(out, &t->at[i]);
	}
	bytes_text(out, "]}\n");
}

/* ---- from a repository ---------------------------------------------------------------------------------- */

int tree_load(struct repo *r, const uint8_t id[ID_SIZE], struct tree *out, struct vd_error *e)
{
	struct bytes text = { 0 };
	int c = repo_load_blob(r, BLOB_TREE, id, &text, e);

	*out = (struct tree){ 0 };
	if (c == 0)
		c = tree_read(text.at, text.n, out, e);
	bytes_free(&text);
	return c;
}

int tree_walk(struct repo *r, const uint8_t root[ID_SIZE], const char *path, struct tree *holder, struct node **out, struct vd_error *e)
{
	uint8_t at[ID_SIZE];
	char part[1024];

	memcpy(at, root, ID_SIZE);
	for (;;) {
		size_t n = strcspn(path += strspn(path, "/"), "/");
		int c = tree_load(r, at, holder, e);

		if (c < 0)
			return c;
		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		*out = tree_find(holder, part);
		path += n;
		path += strspn(path, "/");
		if (*out && !*path)
			return 0;
		if (*out)
			memcpy(at, (*out)->subtree, ID_SIZE);
		if (!*out || (*out)->type != NODE_FOLDER) {
			tree_free(holder);
			return fail(e, VD_ENOENT, "there is no '%s' in it", part);
		}
		tree_free(holder);
	}
}
