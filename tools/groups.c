/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The option tables that several verbs share. Data only: opts.c reads them, help.c prints them. */
#include "opts.h"

#define WHERE(member) offsetof(struct settings, member)

/* One text for three tables: whose key it is, the title says. */
#define SECRET_OPTS(prefix, member)                                                                                  \
	{ .name = prefix "key-file", .kind = OPT_SECRET, .value = SECRET_KEY_FILE, .where = WHERE(member),           \
	  .arg = "FILE", .help = "the bytes of FILE as they are, a newline at the end counts; - is standard input" },\
	{ .name = prefix "passphrase-file", .kind = OPT_SECRET, .value = SECRET_PASSPHRASE_FILE,                     \
	  .where = WHERE(member), .arg = "FILE",                                                                     \
	  .help = "the first line of FILE without its newline; - is standard input" },                               \
	{ .name = prefix "passphrase-fd", .kind = OPT_SECRET, .value = SECRET_PASSPHRASE_FD, .where = WHERE(member), \
	  .arg = "N", .help = "the first line read from file descriptor N" },                                        \
	{ .name = prefix "passphrase-command", .kind = OPT_SECRET, .value = SECRET_PASSPHRASE_COMMAND,               \
	  .where = WHERE(member), .arg = "CMD", .help = "the first line that the shell command CMD prints" },         \
	{ .name = prefix "key-keyring", .kind = OPT_SECRET, .value = SECRET_KEYRING, .where = WHERE(member),         \
	  .arg = "DESC", .help = "the key of this description in the kernel's keyrings" }

/* Programs that give keys for tokens: where a new image is made there are none yet. */
#define KEY_COMMAND_OPTS(prefix, member, file)                                                                       \
	{ .name = prefix "key-command", .kind = OPT_SECRET, .value = SECRET_KEY_COMMAND, .where = WHERE(member),     \
	  .arg = "CMD", .help = "what the program CMD gives for a token of the image, such as vdisk-key-tpm2" },     \
	{ .name = prefix "token-file", .kind = OPT_TEXT, .where = WHERE(file), .arg = "FILE",                        \
	  .help = "a token for --" prefix "key-command that is kept in FILE and not in the image" }
#define KEY_TIMEOUT_OPT                                                                                              \
	{ .name = "key-timeout", .kind = OPT_NUMBER, .where = WHERE(key_timeout), .arg = "SECONDS", .min = 1,        \
	  .max = 86400, .help = "how long a key command may take (default 60)" }

#define OBJECT_OPT(member)                                                                                           \
	{ .name = "object", .kind = OPT_SECRET, .value = SECRET_OBJECT, .where = WHERE(member), .arg = "OBJECT",     \
	  .help = "as qemu has it: secret,id=ID,file=FILE" }

static const struct opt keys[] = {
	SECRET_OPTS("", keys),
	{ .name = "key-share", .kind = OPT_SECRET, .value = SECRET_SHARE, .where = WHERE(keys), .arg = "FILE",
	  .help = "one share of a recovery key that was split, each in a FILE of its own; - is standard input" },
	KEY_COMMAND_OPTS("", keys, token_file),
	KEY_TIMEOUT_OPT,
	OBJECT_OPT(keys),
	{ 0 },
};
const struct opt_group opts_keys = { "Key (may be repeated; otherwise asked for)", keys };

/* Where the header of a new container goes. */
#define NEW_HEADER_OPT(prefix)                                                                                       \
	{ .name = prefix "header", .kind = OPT_TEXT, .where = WHERE(new_header), .arg = "FILE",                      \
	  .help = "keep the LUKS header in the new FILE, and nothing but the disk in the image (not qcow2)" }

static const struct opt header[] = {
	{ .name = "header", .kind = OPT_TEXT, .where = WHERE(header), .arg = "FILE",
	  .help = "the LUKS header of IMAGE, where it is in a FILE of its own" },
	{ 0 },
};
const struct opt_group opts_header = { "Input", header };

static const struct opt sole_key[] = {
	SECRET_OPTS("", new_keys),
	OBJECT_OPT(new_keys),
	NEW_HEADER_OPT(""),
	{ 0 },
};
const struct opt_group opts_sole_key = { "Key (otherwise asked for, twice)", sole_key };

static const struct opt new_key[] = {
	{ .name = "encrypt", .kind = OPT_FLAG, .where = WHERE(made.encrypt),
	  .help = "encrypt the output; any key below says so too" },
	SECRET_OPTS("new-", new_keys),
	NEW_HEADER_OPT("new-"),
	{ 0 },
};
const struct opt_group opts_new_key = { "Key of the output (otherwise asked for, twice)", new_key };

#define COST_OPTS                                                                                                    \
	{ .name = "pbkdf-iterations", .kind = OPT_NUMBER, .where = WHERE(made.pbkdf_iterations), .arg = "N",         \
	  .min = 1, .max = UINT32_MAX,                                                                               \
	  .help = "cost of each guess at the passphrase: PBKDF2 iterations or Argon2id passes" },                    \
	{ .name = "pbkdf-memory", .kind = OPT_NUMBER, .where = WHERE(made.pbkdf_memory), .arg = "KIB",               \
	  .min = 1, .max = UINT32_MAX, .help = "memory that each guess costs with luks2, in KiB (default 262144)" }

static const struct opt second_key[] = {
	SECRET_OPTS("new-", new_keys),
	COST_OPTS,
	{ 0 },
};
const struct opt_group opts_second_key = { "New key (otherwise asked for, twice)", second_key };

static const struct opt sealed_key[] = { KEY_COMMAND_OPTS("new-", new_keys, new_token_file), { 0 } };
const struct opt_group opts_sealed_key = { "New key (otherwise asked for, twice)", sealed_key };

static const struct opt_choice ciphers[] = {
	{ "aes-256-xts", VD_AES_256_XTS }, { "aes-128-xts", VD_AES_128_XTS }, { NULL, 0 },
};
static const struct opt_choice luks_types[] = { { "luks1", VD_LUKS1 }, { "luks2", VD_LUKS2 }, { NULL, 0 } };
static const struct opt encryption[] = {
	{ .name = "cipher", .kind = OPT_CHOICE, .where = WHERE(made.cipher), .arg = "NAME", .choices = ciphers,
	  .help = "aes-256-xts (default) or aes-128-xts" },
	{ .name = "type", .kind = OPT_CHOICE, .where = WHERE(made.luks_type), .arg = "TYPE", .choices = luks_types,
	  .help = "luks1 (default; opens in qemu too) or luks2 (raw only)" },
	{ .name = "sector-size", .kind = OPT_SIZE, .where = WHERE(made.sector_size), .arg = "BYTES",
	  .help = "unit of encryption with luks2: 512 (default) or 4096" },
	COST_OPTS,
	{ 0 },
};
const struct opt_group opts_encryption = { "Encryption of the output", encryption };

static const struct opt_choice progress_modes[] = {
	{ "auto", PROGRESS_AUTO }, { "bar", PROGRESS_BAR }, { "line", PROGRESS_LINE },
	{ "json", PROGRESS_JSON }, { "none", PROGRESS_NONE }, { NULL, 0 },
};
#define PROGRESS_OPT                                                                                                 \
	{ .name = "progress", .letter = 'p', .kind = OPT_CHOICE, .where = WHERE(progress), .arg = "MODE",            \
	  .arg_is_optional = true, .value = PROGRESS_AUTO, .choices = progress_modes,                                \
	  .help = "auto (a bar on a terminal, else lines), bar, line, json or none" }

static const struct opt progress[] = { PROGRESS_OPT, { 0 } };
const struct opt_group opts_progress = { "Work", progress };

static const struct opt job[] = {
	PROGRESS_OPT,
	{ .name = "threads", .letter = 'm', .kind = OPT_NUMBER, .where = WHERE(threads), .arg = "N",
	  .min = 1, .max = 1024, .help = "work with N threads (default: one for each processor)" },
	{ 0 },
};
const struct opt_group opts_job = { "Work", job };

static const struct opt format[] = {
	{ .name = "format", .letter = 'f', .kind = OPT_TEXT, .where = WHERE(format), .arg = "FMT",
	  .help = "format of IMAGE (default: told from its bytes)" },
	{ 0 },
};
const struct opt_group opts_format = { "Input", format };

static const struct opt backing[] = {
	{ .name = "backing-format", .letter = 'F', .kind = OPT_TEXT, .where = WHERE(backing_format), .arg = "FMT",
	  .help = "format of IMAGE's backing file, where IMAGE does not say it" },
	{ 0 },
};
const struct opt_group opts_backing = { "Input", backing };

static const struct opt snapshot[] = {
	{ .name = "snapshot", .letter = 'l', .kind = OPT_TEXT, .where = WHERE(snapshot), .arg = "NAME",
	  .help = "read this snapshot inside IMAGE, by name or id, instead of the disk as it is" },
	{ .name = "disk", .kind = OPT_TEXT, .where = WHERE(disk), .arg = "NAME",
	  .help = "which disk, where IMAGE is an OVA with several" },
	{ 0 },
};
const struct opt_group opts_snapshot = { "Input", snapshot };

static const struct opt sharing[] = {
	{ .name = "force-share", .letter = 'U', .kind = OPT_FLAG, .where = WHERE(force_share),
	  .help = "read although another process writes: what is read may be inconsistent" },
	{ .name = "allow", .kind = OPT_TEXTS, .where = WHERE(allow), .arg = "DIR",
	  .help = "let an image refer to files below DIR too (may be repeated)" },
	{ 0 },
};
const struct opt_group opts_sharing = { "Input", sharing };

static const struct opt scrub[] = {
	{ .name = "scrub", .kind = OPT_FLAG, .where = WHERE(scrub),
	  .help = "overwrite what becomes free inside the image with zeros before reporting success" },
	{ 0 },
};
const struct opt_group opts_scrub = { "Space", scrub };

static const struct opt output[] = {
	{ .name = "options", .letter = 'o', .kind = OPT_TEXTS, .where = WHERE(create_options), .arg = "K=V,...",
	  .help = "options of the new image, as qemu-img has them" },
	{ .name = "azure", .kind = OPT_FLAG, .where = WHERE(made.azure),
	  .help = "vhd as Azure takes it: fixed, the size rounded up to whole MiB" },
	{ .name = "force", .kind = OPT_FLAG, .where = WHERE(force), .help = "replace the file if it exists" },
	{ .name = "yes", .letter = 'y', .kind = OPT_FLAG, .where = WHERE(yes),
	  .help = "do not ask before a block device is overwritten" },
	{ 0 },
};
const struct opt_group opts_output = { "Output", output };

static const struct opt compress[] = {
	{ .name = "compress", .letter = 'c', .kind = OPT_FLAG, .where = WHERE(compress),
	  .help = "compress it (qcow2, but not with encryption; vmdk as a stream)" },
	{ 0 },
};
const struct opt_group opts_compress = { "Output", compress };

static const struct opt room[] = {
	{ .name = "no-space-check", .kind = OPT_FLAG, .where = WHERE(no_space_check),
	  .help = "start even if it may not fit" },
	{ 0 },
};
const struct opt_group opts_room = { "Output", room };

static const struct opt in_clear[] = {
	{ .name = "in-clear", .kind = OPT_FLAG, .where = WHERE(in_clear),
	  .help = "store in clear what encrypted images hold, where it goes into one that is not encrypted" },
	{ 0 },
};
const struct opt_group opts_in_clear = { "Encryption", in_clear };

#define REPO(member) WHERE(backup.member)
static const struct opt repo[] = {
	{ .name = "repo", .letter = 'r', .kind = OPT_TEXT, .where = REPO(repo), .arg = "REPO",
	  .help = "the repository: a folder, or rest:https://HOST/PATH of a server" },
	{ .name = "rest-credentials", .kind = OPT_TEXT, .where = REPO(credentials), .arg = "FILE",
	  .help = "its first line is the server's \"user:password\"" },
	{ .name = "rest-ca", .kind = OPT_TEXT, .where = REPO(ca), .arg = "FILE",
	  .help = "certificates (PEM) that may vouch for the server, instead of the system's" },
	{ .name = "rest-pin", .kind = OPT_TEXT, .where = REPO(pin), .arg = "sha256//HASH",
	  .help = "the only public key that the server may have" },
	{ 0 },
};
const struct opt_group opts_repo = { "Repository", repo };

static const struct opt repo_key[] = { SECRET_OPTS("repo-", backup.keys), { 0 } };
const struct opt_group opts_repo_key = { "Key of the repository (otherwise a key below opens it, too)", repo_key };

static const struct opt_choice outputs[] = { { "human", OUTPUT_HUMAN }, { "json", OUTPUT_JSON }, { NULL, 0 } };
static const struct opt_choice colours[] = {
	{ "auto", COLOUR_AUTO }, { "always", COLOUR_ALWAYS }, { "never", COLOUR_NEVER }, { NULL, 0 },
};
static const struct opt output_form[] = {
	{ .name = "output", .kind = OPT_CHOICE, .where = WHERE(output), .arg = "FORM", .choices = outputs,
	  .help = "human (default) or json; errors too" },
	{ 0 },
};
const struct opt_group opts_output_form = { "General", output_form };

static const struct opt speech[] = {
	{ .name = "color", .kind = OPT_CHOICE, .where = WHERE(colour), .arg = "WHEN", .choices = colours,
	  .help = "auto (default), always or never" },
	{ .name = "quiet", .letter = 'q', .kind = OPT_FLAG, .where = WHERE(quiet),
	  .help = "say nothing but results and errors" },
	{ .name = "help", .letter = 'h', .kind = OPT_FLAG, .where = WHERE(help), .help = "show this help" },
	{ 0 },
};
const struct opt_group opts_speech = { "General", speech };
