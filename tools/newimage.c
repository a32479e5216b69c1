/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The -o tables, spelled as qemu-img spells them, and their way into the library's options. */
#include "newimage.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "opts.h"

#define WHERE(member) offsetof(struct settings, made.member)
#define N(table) (sizeof(table) / sizeof((table)[0]))

static const struct opt_choice compats[] = {
	{ "0.10", COMPAT_V2 }, { "v2", COMPAT_V2 }, { "1.1", COMPAT_V3 }, { "v3", COMPAT_V3 }, { NULL, 0 },
};
static const struct opt_choice compressions[] = {
	{ "zlib", VD_COMPRESSION_DEFLATE }, { "deflate", VD_COMPRESSION_DEFLATE },
	{ "zstd", VD_COMPRESSION_ZSTD }, { NULL, 0 },
};
static const struct opt_choice only_luks[] = { { "luks", 1 }, { NULL, 0 } };
static const struct opt_choice cipher_algs[] = {
	{ "aes-256", VD_AES_256_XTS }, { "aes-128", VD_AES_128_XTS }, { NULL, 0 },
};
static const struct opt_choice only_xts[] = { { "xts", 1 }, { NULL, 0 } };
static const struct opt_choice only_plain64[] = { { "plain64", 1 }, { NULL, 0 } };

#define LUKS_OPTS(prefix)                                                                                            \
	{ .name = prefix "key-secret", .kind = OPT_TEXT, .where = WHERE(key_secret) },                               \
	{ .name = prefix "cipher-alg", .kind = OPT_CHOICE, .where = WHERE(cipher), .choices = cipher_algs },         \
	{ .name = prefix "cipher-mode", .kind = OPT_CHOICE, .where = WHERE(cipher_mode), .choices = only_xts },      \
	{ .name = prefix "ivgen-alg", .kind = OPT_CHOICE, .where = WHERE(ivgen), .choices = only_plain64 }

static const struct opt raw_options[] = {
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(size) },
	{ 0 },
};
static const struct opt luks_options[] = {
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(size) },
	LUKS_OPTS(""),
	{ 0 },
};
static const struct opt qcow2_options[] = {
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(size) },
	{ .name = "compat", .kind = OPT_CHOICE, .where = WHERE(compat), .choices = compats },
	{ .name = "cluster_size", .kind = OPT_SIZE, .where = WHERE(cluster_size) },
	{ .name = "refcount_bits", .kind = OPT_NUMBER, .where = WHERE(refcount_bits), .min = 1, .max = 64 },
	{ .name = "lazy_refcounts", .kind = OPT_SWITCH, .where = WHERE(lazy_refcounts) },
	{ .name = "extended_l2", .kind = OPT_SWITCH, .where = WHERE(extended_l2) },
	{ .name = "compression_type", .kind = OPT_CHOICE, .where = WHERE(compression), .choices = compressions },
	{ .name = "data_file", .kind = OPT_TEXT, .where = WHERE(data_file) },
	{ .name = "data_file_raw", .kind = OPT_SWITCH, .where = WHERE(data_file_raw) },
	{ .name = "backing_file", .kind = OPT_TEXT, .where = WHERE(backing_file) },
	{ .name = "backing_fmt", .kind = OPT_TEXT, .where = WHERE(backing_format) },
	{ .name = "encrypt.format", .kind = OPT_CHOICE, .where = WHERE(encrypt_format), .choices = only_luks },
	LUKS_OPTS("encrypt."),
	{ 0 },
};

#define VHD_OPTS                                                                                       \
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(size) },                                     \
	{ .name = "subformat", .kind = OPT_TEXT, .where = WHERE(subformat) },                           \
	{ .name = "block_size", .kind = OPT_SIZE, .where = WHERE(cluster_size) },                       \
	{ .name = "backing_file", .kind = OPT_TEXT, .where = WHERE(backing_file) },                     \
	{ .name = "backing_fmt", .kind = OPT_TEXT, .where = WHERE(backing_format) }

static const struct opt vhd_options[] = {
	VHD_OPTS,
	{ 0 },
};

static const struct opt vhdx_options[] = {
	VHD_OPTS,
	{ .name = "logical_sector_size", .kind = OPT_NUMBER, .where = WHERE(logical_sector_size), .min = 512, .max = 4096 },
	{ 0 },
};

static const struct opt vmdk_options[] = {
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(size) },
	{ .name = "subformat", .kind = OPT_TEXT, .where = WHERE(subformat) },
	{ .name = "adapter_type", .kind = OPT_TEXT, .where = WHERE(adapter_type) },
	{ .name = "hwversion", .kind = OPT_NUMBER, .where = WHERE(hw_version), .min = 1, .max = 99 },
	{ .name = "zeroed_grain", .kind = OPT_SWITCH, .where = WHERE(zeroed_grains) },
	{ .name = "grain_size", .kind = OPT_SIZE, .where = WHERE(cluster_size) },
	{ .name = "backing_file", .kind = OPT_TEXT, .where = WHERE(backing_file) },
	{ .name = "backing_fmt", .kind = OPT_TEXT, .where = WHERE(backing_format) },
	{ 0 },
};

static const struct format_options {
	const char *format;
	const struct opt *table;
} formats[] = {
	{ "raw", raw_options }, { "luks", luks_options }, { "qcow2", qcow2_options }, { "vhd", vhd_options },
	{ "vpc", vhd_options }, { "vhdx", vhdx_options }, { "vmdk", vmdk_options },
};

static const struct opt *options_of(const char *format)
{
	for (size_t i = 0; i < N(formats); i++)
		if (!strcmp(formats[i].format, format))
			return formats[i].table;
	return raw_options;
}

int newimage_judge_format(const char *format, struct vd_error *e)
{
	char known[256] = "luks, ova";
	size_t used = strlen(known);
	const char *name;
	int r;

	if (!strcmp(format, "luks") || !strcmp(format, "ova") || vd_format_is_writable(format))
		return 0;
	for (size_t i = 0; (name = vd_format_name(i)) && used < sizeof(known); i++)
		if (vd_format_is_writable(name))
			used += (size_t)snprintf(known + used, sizeof(known) - used, ", %s", name);
	r = fail(e, VD_EUNSUPPORTED, "format '%s' cannot be written", format);
	return fail_hint(e, r, "formats that can be written are: %s", known);
}

int newimage_parse(struct settings *s, const char *format, struct vd_error *e)
{
	return newimage_parse_by(options_of(format), format, s, e);
}

int newimage_parse_by(const struct opt *table, const char *what, struct settings *s, struct vd_error *e)
{
	char *all = s->option_text;
	size_t size = sizeof(s->option_text), used = 0;

	if (!s->create_options.n)
		return 0;
	/* One list: what is said twice is refused, in one -o or in two. */
	for (size_t i = 0; i < s->create_options.n && used < size; i++)
		used += (size_t)snprintf(all + used, size - used, "%s%s", i ? "," : "", s->create_options.at[i]);
	if (used >= size)
		return fail(e, VD_EARG, "-o is longer than %zu bytes", size - 1);
	return opts_parse_pairs(table, what, all, s, e);
}

static unsigned flags_of(const struct settings *s)
{
	const struct new_image *m = &s->made;

	return (s->force ? VD_CREATE_REPLACE : 0) | (m->extended_l2 ? VD_CREATE_EXTENDED_L2 : 0) |
	       (m->lazy_refcounts ? VD_CREATE_LAZY_REFCOUNTS : 0) | (m->compat == COMPAT_V2 ? VD_CREATE_COMPAT_V2 : 0) |
	       (m->data_file_raw ? VD_CREATE_DATA_FILE_RAW : 0) | (m->azure ? VD_CREATE_AZURE : 0) |
	       (m->zeroed_grains ? VD_CREATE_ZEROED_GRAINS : 0);
}

/* Compressed, a VMDK is a stream. */
static const char *default_subformat(const struct settings *s, const char *format)
{
	return s->compress && !strcmp(format, "vmdk") ? "streamOptimized" : NULL;
}

int newimage_opts(const struct settings *s, const char *format, struct vd_create_opts *o, struct vd_error *e)
{
	const struct new_image *m = &s->made;

	if (m->cluster_size > UINT32_MAX)
		return fail(e, VD_EARG, "cluster_size: a cluster of %llu bytes is too large",
			    (unsigned long long)m->cluster_size);
	if (m->sector_size > UINT32_MAX)
		return fail(e, VD_EARG, "--sector-size is 512 or 4096");
	if (m->azure && strcmp(format, "vhd") != 0 && strcmp(format, "vpc") != 0)
		return fail(e, VD_EARG, "--azure is for vhd, which Azure takes, not for %s", format);
	*o = (struct vd_create_opts){
		.struct_size = sizeof(*o),
		.flags = flags_of(s),
		.format = format,
		.subformat = m->subformat ? m->subformat : default_subformat(s, format),
		.adapter_type = m->adapter_type,
		.hw_version = (uint32_t)m->hw_version,
		.logical_sector_size = (uint32_t)m->logical_sector_size,
		.cluster_size = (uint32_t)m->cluster_size,
		.refcount_bits = (uint32_t)m->refcount_bits,
		.compression = (enum vd_compression)m->compression,
		.backing_file = m->backing_file,
		.backing_format = m->backing_format,
		.data_file = m->data_file,
		.header = s->new_header,
		.luks_type = (enum vd_luks_type)m->luks_type,
		.cipher = (enum vd_cipher)m->cipher,
		.luks_sector_size = (uint32_t)m->sector_size,
		.kdf = { .iterations = (uint32_t)m->pbkdf_iterations, .memory_kib = (uint32_t)m->pbkdf_memory },
	};
	return 0;
}
