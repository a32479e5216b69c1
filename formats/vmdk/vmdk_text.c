/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes descriptors apart. What a line says is kept or refused here; whether the files it names may be opened is the
 * gate's business, whether their content fits vmdk_open.c's.
 */
#include "formats/vmdk/vmdk.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define N(table) (sizeof(table) / sizeof((table)[0]))
#define VERSION_MAX 3                   /* 2: long content ids, 3: changed block tracking */

/* ---- text ------------------------------------------------------------------------------------------------ */

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct vd_bytes trimmed(struct vd_bytes t)
{
	while (t.len && is_blank(t.p[0]))
		t = (struct vd_bytes){ t.p + 1, t.len - 1 };
	while (t.len && is_blank(t.p[t.len - 1]))
		t.len--;
	return t;
}

/* Up to the end of the line, which is taken off *rest. */
static struct vd_bytes next_line(struct vd_bytes *rest)
{
	const uint8_t *end = memchr(rest->p, '\n', rest->len);
	struct vd_bytes line = { rest->p, end ? (size_t)(end - rest->p) : rest->len };
	size_t used = line.len + (end != NULL);

	*rest = (struct vd_bytes){ rest->p + used, rest->len - used };
	return trimmed(line);
}

/* Up to the next blank, which with those after it is taken off *rest. */
static struct vd_bytes next_word(struct vd_bytes *rest)
{
	size_t n = 0, used;

	while (n < rest->len && !is_blank(rest->p[n]))
		n++;
	used = n;
	while (used < rest->len && is_blank(rest->p[used]))
		used++;
	*rest = (struct vd_bytes){ rest->p + used, rest->len - used };
	return (struct vd_bytes){ rest->p - used, n };
}

static bool is_word(struct vd_bytes t, const char *word)
{
	return t.len == strlen(word) && !strncasecmp((const char *)t.p, word, t.len);
}

static bool begins_with(struct vd_bytes t, const char *word)
{
	return t.len >= strlen(word) && !strncasecmp((const char *)t.p, word, strlen(word));
}

static unsigned digit_of(uint8_t c)
{
	if (isdigit(c))
		return c - '0';
	return isxdigit(c) ? (unsigned)tolower(c) - 'a' + 10 : UINT8_MAX;
}

static bool number_of(struct vd_bytes t, unsigned base, uint64_t *out)
{
	uint64_t v = 0;

	if (!t.len)
		return false;
	for (size_t i = 0; i < t.len; i++) {
		unsigned digit = digit_of(t.p[i]);

		if (digit >= base || !vd_mul_u64(v, base, &v) || !vd_add_u64(v, digit, &v))
			return false;
	}
	*out = v;
	return true;
}

static struct vd_vmdk_span span_of(struct vd_bytes text, struct vd_bytes part)
{
	return (struct vd_vmdk_span){ part.p - text.p, part.len };
}

static bool has_bom(struct vd_bytes t)
{
	return begins_with(t, "\xef\xbb\xbf");
}

static struct vd_bytes without_bom(struct vd_bytes t)
{
	return has_bom(t) ? (struct vd_bytes){ t.p + 3, t.len - 3 } : t;
}

/* An embedded descriptor is padded with NULs; a text ends at the first. */
static struct vd_bytes up_to_nul(struct vd_bytes t)
{
	const uint8_t *nul = memchr(t.p, 0, t.len);

	return (struct vd_bytes){ t.p, nul ? (size_t)(nul - t.p) : t.len };
}

/* "key = value": false when the line is no such thing. Quotes go. */
static bool split(struct vd_bytes line, struct vd_bytes *key, struct vd_bytes *value)
{
	const uint8_t *eq = memchr(line.p, '=', line.len);

	if (!eq)
		return false;
	*key = trimmed((struct vd_bytes){ line.p, eq - line.p });
	*value = trimmed((struct vd_bytes){ eq + 1, line.p + line.len - eq - 1 });
	if (value->len >= 2 && value->p[0] == '"' && value->p[value->len - 1] == '"')
		*value = (struct vd_bytes){ value->p + 1, value->len - 2 };
	return key->len;
}

#define SQUEEZED 4096

/* What of a text in UTF-16 is ASCII. */
static struct vd_bytes squeezed(struct vd_bytes t, uint8_t out[SQUEEZED])
{
	bool is_little = t.p[0] == 0xff;
	size_t n = t.len / 2 - 1 < SQUEEZED ? t.len / 2 - 1 : SQUEEZED;

	for (size_t i = 0; i < n; i++) {
		const uint8_t *unit = t.p + 2 + 2 * i;

		out[i] = unit[is_little] ? '?' : unit[!is_little];
	}
	return (struct vd_bytes){ out, n };
}

/* The first line that is neither blank nor a comment says the version; or a comment says what the file is. */
bool vd_vmdk_is_descriptor(struct vd_bytes head)
{
	uint8_t ascii[SQUEEZED];
	struct vd_bytes text = vd_vmdk_utf16(head) ? squeezed(head, ascii) : head;
	struct vd_bytes rest = without_bom(up_to_nul(text)), key, value;

	while (rest.len) {
		struct vd_bytes line = next_line(&rest);
		uint64_t version;

		if (begins_with(line, "# Disk DescriptorFile"))
			return true;
		if (!line.len || line.p[0] == '#')
			continue;
		return split(line, &key, &value) && is_word(key, "version") && number_of(value, 10, &version);
	}
	return false;
}

/* ---- extents --------------------------------------------------------------------------------------------- */

static const struct {
	const char *word;
	enum vd_vmdk_access access;
} accesses[] = { { "RW", VMDK_RW }, { "RDONLY", VMDK_RDONLY }, { "NOACCESS", VMDK_NOACCESS } };

static const struct {
	const char *word;
	enum vd_vmdk_kind kind;
	bool is_device;                 /* of the VMware host alone */
} types[] = {
	{ "FLAT", VMDK_FLAT, false }, { "VMFS", VMDK_FLAT, false }, { "ZERO", VMDK_ZERO, false },
	{ "SPARSE", VMDK_SPARSE, false }, { "VMFSSPARSE", VMDK_COWD, false }, { "SESPARSE", VMDK_SESPARSE, false },
	{ "VMFSRDM", VMDK_FLAT, true }, { "VMFSRAW", VMDK_FLAT, true },
};

/* After the name: nothing, or the first sector, and then two words at most. */
static bool is_after_name(struct vd_bytes rest, uint64_t *first_sector)
{
	struct vd_bytes word;

	*first_sector = 0;
	if (!rest.len)
		return true;
	if (!is_blank(rest.p[0]))
		return false;
	rest = trimmed(rest);
	word = next_word(&rest);
	if (!number_of(word, 10, first_sector))
		return false;
	next_word(&rest);
	next_word(&rest);
	return !rest.len;
}

/* A name may hold quotes: it ends at the first one after which the rest of the line makes sense. */
static bool split_name(struct vd_bytes rest, struct vd_bytes *name, uint64_t *first_sector)
{
	if (rest.len < 2 || rest.p[0] != '"')
		return false;
	for (size_t i = 1; i < rest.len; i++) {
		if (rest.p[i] != '"' || !is_after_name((struct vd_bytes){ rest.p + i + 1, rest.len - i - 1 }, first_sector))
			continue;
		*name = (struct vd_bytes){ rest.p + 1, i - 1 };
		return true;
	}
	return false;
}

static int wrong_line(size_t number, const char *what, struct vd_error *e)
{
	return vd_fail(e, VD_ECORRUPT, "line %zu of the descriptor: %s", number, what);
}

static bool is_extent(struct vd_bytes line)
{
	struct vd_bytes word = next_word(&line);

	for (size_t i = 0; i < N(accesses); i++)
		if (is_word(word, accesses[i].word))
			return true;
	return false;
}

static int parse_type(struct vd_bytes word, size_t number, struct vd_vmdk_line *x, struct vd_error *e)
{
	for (size_t i = 0; i < N(types); i++) {
		if (!is_word(word, types[i].word))
			continue;
		x->kind = types[i].kind;
		if (!types[i].is_device)
			return 0;
		return vd_fail(e, VD_EUNSUPPORTED, "line %zu of the descriptor: %s is a device of a VMware host, of which "
			       "this is only the name", number, types[i].word);
	}
	return vd_fail(e, VD_EUNSUPPORTED, "line %zu of the descriptor: extents of type '%.*s' are not known", number,
		       (int)vd_min_u64(word.len, 32), (const char *)word.p);
}

static int parse_extent(struct vd_bytes text, struct vd_bytes line, size_t number, const char *encoding,
			struct vd_vmdk_line *x, struct vd_error *e)
{
	struct vd_bytes rest = line, access = next_word(&rest), size = next_word(&rest), type = next_word(&rest), name;
	int r;

	*x = (struct vd_vmdk_line){
		.digits = span_of(text, size), .type = span_of(text, type),
		.rest = { line.p + line.len - text.p, 0 },
	};
	for (size_t i = 0; i < N(accesses); i++)
		if (is_word(access, accesses[i].word))
			x->access = accesses[i].access;
	if (!number_of(size, 10, &x->sectors) || !x->sectors || x->sectors > VMDK_SECTORS_MAX)
		return wrong_line(number, "an extent has an impossible size", e);
	r = parse_type(type, number, x, e);
	if (r < 0)
		return r;
	if (!rest.len)
		return x->kind == VMDK_ZERO ? 0 : wrong_line(number, "an extent names no file", e);
	if (!split_name(rest, &name, &x->first_sector) || x->first_sector > VMDK_SECTORS_MAX)
		return wrong_line(number, "an extent's file or first sector cannot be made out", e);
	x->rest.at = name.p + name.len + 1 - text.p;
	x->rest.len = line.p + line.len - text.p - x->rest.at;
	return x->kind == VMDK_ZERO ? 0 : vd_vmdk_to_utf8(encoding, name, &x->file, e);
}

static int add_extent(struct vd_vmdk_descriptor *d, struct vd_bytes text, struct vd_bytes line, size_t number,
		      struct vd_error *e)
{
	struct vd_vmdk_line x;
	int r = 0;

	if (d->n_lines == VMDK_EXTENTS_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "the descriptor lists more than %d extents", VMDK_EXTENTS_MAX);
	if (d->n_lines % 64 == 0)
		r = vd_realloc(&d->lines, d->n_lines + 64, sizeof(x), e);
	if (r == 0)
		r = parse_extent(text, line, number, d->encoding, &x, e);
	if (r == 0)
		d->lines[d->n_lines++] = x;
	return r;
}

/* ---- keys ------------------------------------------------------------------------------------------------ */

static int set_text(char **to, const char *encoding, struct vd_bytes value, struct vd_error *e)
{
	vd_auto_free char *text = NULL;
	int r = vd_vmdk_to_utf8(encoding, value, &text, e);

	if (r < 0)
		return r;
	if (*to && strcmp(*to, text))
		return vd_fail(e, VD_ECORRUPT, "the descriptor says '%s' and '%s' of one thing", *to, text);
	free(*to);
	*to = vd_steal(&text);
	return 0;
}

static int set_cid(struct vd_vmdk_descriptor *d, struct vd_bytes text, struct vd_bytes value, struct vd_error *e)
{
	uint64_t cid;

	if (!number_of(value, 16, &cid) || cid > UINT32_MAX)
		return vd_fail(e, VD_ECORRUPT, "the descriptor's CID '%.*s' is no number of 32 bits",
			       (int)vd_min_u64(value.len, 32), (const char *)value.p);
	if (d->has_cid && d->cid != cid)
		return vd_fail(e, VD_ECORRUPT, "the descriptor has two CIDs, %08" PRIx32 " and %08" PRIx32, d->cid, (uint32_t)cid);
	d->cid = cid;
	d->has_cid = true;
	d->cid_in = span_of(text, value);
	return 0;
}

static int set_parent_cid(struct vd_vmdk_descriptor *d, struct vd_bytes text, struct vd_bytes value, struct vd_error *e)
{
	uint64_t cid;

	if (!number_of(value, 16, &cid) || cid > UINT32_MAX)
		return vd_fail(e, VD_ECORRUPT, "the descriptor's parentCID '%.*s' is no number of 32 bits",
			       (int)vd_min_u64(value.len, 32), (const char *)value.p);
	if (d->parent_cid != VMDK_CID_NONE && d->parent_cid != cid)
		return vd_fail(e, VD_ECORRUPT, "the descriptor has two parentCIDs");
	d->parent_cid = cid;
	d->parent_cid_in = span_of(text, value);
	return 0;
}

static int set_version(struct vd_vmdk_descriptor *d, struct vd_bytes value, struct vd_error *e)
{
	uint64_t version;

	if (!number_of(value, 10, &version) || !version || version > VERSION_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "the descriptor has version '%.*s', 1 to %d are known",
			       (int)vd_min_u64(value.len, 32), (const char *)value.p, VERSION_MAX);
	d->version = version;
	return 0;
}

static bool contains_word(struct vd_bytes t, const char *word)
{
	for (size_t i = 0; i + strlen(word) <= t.len; i++)
		if (begins_with((struct vd_bytes){ t.p + i, t.len - i }, word))
			return true;
	return false;
}

/* Workstation keeps a list of keys in the descriptor, ESXi a filter that encrypts and a bundle of keys. */
static bool says_encrypted(struct vd_bytes key, struct vd_bytes value)
{
	if (contains_word(key, "iofilters"))
		return contains_word(value, "crypt");
	return begins_with(key, "encryption") || begins_with(key, "ddb.encryption") || contains_word(key, "keySafe");
}

static int refuse_encrypted(struct vd_error *e)
{
	vd_fail(e, VD_EUNSUPPORTED, "the disk is encrypted by VMware, in a way that is not published");
	return vd_hint(e, VD_EUNSUPPORTED, "decrypt the virtual machine with the VMware product that encrypted it, then try again");
}

/* Paths, and keys of VMware's that hold names alone. */
static bool names_file(struct vd_bytes key, struct vd_bytes value)
{
	if (is_word(key, "ddb.sidecars") || is_word(key, "ddb.nativeParentHint"))
		return value.len;
	return memchr(value.p, '/', value.len) || memchr(value.p, '\\', value.len);
}

static int take_pair(struct vd_vmdk_descriptor *d, struct vd_bytes text, struct vd_bytes key, struct vd_bytes value,
		     struct vd_error *e)
{
	struct vd_vmdk_span ignored;
	const struct {
		const char *key;
		char **to;
		struct vd_vmdk_span *in;
	} texts[] = {
		{ "createType", &d->create_type, &d->create_type_in }, { "parentFileNameHint", &d->parent_hint, &d->hint_in },
		{ "changeTrackPath", &d->change_track, &ignored }, { "ddb.adapterType", &d->adapter_type, &ignored },
		{ "ddb.virtualHWVersion", &d->hardware, &ignored },
	};

	if (says_encrypted(key, value))
		return refuse_encrypted(e);
	if (is_word(key, "version"))
		return set_version(d, value, e);
	if (is_word(key, "CID"))
		return set_cid(d, text, value, e);
	if (is_word(key, "parentCID"))
		return set_parent_cid(d, text, value, e);
	for (size_t i = 0; i < N(texts); i++)
		if (is_word(key, texts[i].key)) {
			*texts[i].in = span_of(text, value);
			return set_text(texts[i].to, d->encoding, value, e);
		}
	return !d->outside && names_file(key, value) ? set_text(&d->outside, d->encoding, value, e) : 0;
}

/* Before all else, because names may come before it. A mark of UTF-8 says more than the key, which an editor leaves. */
static int find_encoding(struct vd_bytes text, bool is_utf8, struct vd_vmdk_descriptor *d, struct vd_error *e)
{
	struct vd_bytes rest = text, key, value;
	int r = 0;

	while (rest.len && r == 0)
		if (split(next_line(&rest), &key, &value) && is_word(key, "encoding"))
			r = set_text(&d->encoding, NULL, value, e);
	if (r < 0 || !is_utf8)
		return r;
	free(d->encoding);
	d->encoding = NULL;
	return vd_strdup("UTF-8", &d->encoding, e);
}

int vd_vmdk_descriptor_parse(struct vd_bytes text, struct vd_vmdk_descriptor *d, struct vd_error *e)
{
	struct vd_bytes rest = up_to_nul(text), key, value;
	int r;

	*d = (struct vd_vmdk_descriptor){ .parent_cid = VMDK_CID_NONE };
	rest = without_bom(rest);
	r = find_encoding(rest, has_bom(up_to_nul(text)), d, e);
	for (size_t number = 1; rest.len && r == 0; number++) {
		struct vd_bytes line = next_line(&rest);

		if (!line.len || line.p[0] == '#')
			continue;
		if (is_extent(line)) {
			r = add_extent(d, text, line, number, e);
			if (r == 0)
				d->lines[d->n_lines - 1].line = (struct vd_vmdk_span){ line.p - text.p, rest.p - line.p };
		} else if (split(line, &key, &value)) {
			r = take_pair(d, text, key, value, e);
		} else if (!d->unknown_line) {
			d->unknown_line = number;
		}
	}
	if (r == 0 && !d->version)
		r = vd_fail(e, VD_ECORRUPT, "the descriptor says no version: it is damaged, or encrypted by VMware");
	return r;
}

void vd_vmdk_descriptor_fini(struct vd_vmdk_descriptor *d)
{
	for (size_t i = 0; i < d->n_lines; i++)
		free(d->lines[i].file);
	free(d->lines);
	free(d->outside);
	free(d->create_type);
	free(d->encoding);
	free(d->parent_hint);
	free(d->change_track);
	free(d->adapter_type);
	free(d->hardware);
	*d = (struct vd_vmdk_descriptor){ 0 };
}
