/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the options of a command line say, for all verbs in one struct: option tables point into it. Zero is unsaid. */
#ifndef TOOLS_SETTINGS_H
#define TOOLS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

/* More than anybody types; a limit so that no table of the command grows with its arguments. */
#define TEXTS_MAX 32
#define OPERANDS_MAX 512        /* those of serve may be another program's command line */

struct texts {
	const char *at[TEXTS_MAX];
	size_t n;
};

enum secret_kind {
	SECRET_KEY_FILE,                /* bytes as they are; "-" is standard input */
	SECRET_PASSPHRASE_FILE,         /* first line; "-" is standard input */
	SECRET_PASSPHRASE_FD,
	SECRET_PASSPHRASE_COMMAND,
	SECRET_KEYRING,                 /* of the kernel */
	SECRET_KEY_COMMAND,             /* a program that gives the key for a token of the image */
	SECRET_OBJECT,                  /* qemu's secret,id=ID,file=FILE */
	SECRET_SHARE,                   /* first line: one share of a key that several make together */
};
struct secret_source {
	enum secret_kind kind;
	const char *value;
};
/* In the order in which they were given. */
struct secret_sources {
	struct secret_source at[TEXTS_MAX];
	size_t n;
};

enum output { OUTPUT_HUMAN, OUTPUT_JSON, OUTPUT_SVG };
enum colour_when { COLOUR_AUTO, COLOUR_ALWAYS, COLOUR_NEVER };
/* UNSAID is AUTO that spares short jobs and -q the lines. */
enum progress_how { PROGRESS_UNSAID, PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_LINE, PROGRESS_JSON, PROGRESS_NONE };

/* The image that is made: options of its own and -o. */
struct new_image {
	uint64_t size;                  /* -o size= */
	uint64_t size_unit;             /* it is a multiple of this; 0: any */
	uint64_t cluster_size, refcount_bits, hw_version, logical_sector_size;
	int compat;                     /* enum compat */
	int compression;                /* enum vd_compression */
	bool lazy_refcounts, extended_l2, data_file_raw, zeroed_grains;
	const char *data_file, *backing_file, *backing_format, *subformat, *adapter_type;
	bool azure;
	/* encryption */
	bool encrypt;
	int encrypt_format;             /* -o encrypt.format=luks is 1: like encrypt */
	int luks_type;                  /* enum vd_luks_type */
	int cipher;                     /* enum vd_cipher */
	int cipher_mode, ivgen;         /* accepted where they say what is done anyway */
	uint64_t sector_size, pbkdf_iterations, pbkdf_memory;
	const char *key_secret;         /* -o encrypt.key-secret=ID: of one --object */
};
/* What becomes of an overlay's backing files when it is converted in place. */
enum chain { CHAIN_REFUSE, CHAIN_LEAVE, CHAIN_FLATTEN, CHAIN_ENCRYPT };
enum compat { COMPAT_DEFAULT, COMPAT_V2, COMPAT_V3 };

/* wipe */
struct wipe_settings {
	struct texts also_scan;
	bool free;                      /* only what is nobody's in an image */
	bool guest_free;                /* and what its guest's file systems call free */
	const char *snapshot;           /* only this one in it, and what is nobody's */
	bool dry_run, keep_backing, resume, unlink, publish_key, crypto_erase, was_encrypted;
	const char *confirm, *profile, *verify, *state, *certificate, *person;
	int accept;                     /* enum wipe_grade */
	uint64_t depth;                 /* requests at a time on one device */
};

/* cert */
struct cert_settings {
	const char *allowed_signers, *signer, *public_key, *signature;
	const char *sign_key, *comment;
	const char *sm2_key, *sm2_public_key, *validator;
	const char *html, *pdf;
	int lang;                       /* enum sheet_lang */
};

/* serve, mount */
struct serve_settings {
	const char *socket, *address, *tls_certificates, *tls_psk;
	bool read_write, foreground;
};

/* What repositories of backups ask for, and backup, restore and backups beside it. */
struct backup_settings {
	const char *repo, *credentials, *ca, *pin;
	struct secret_sources keys;     /* of the repository, where the image has others */
	bool all_locks;                 /* repo unlock */
	bool opaque, scan, track, trusts_ctk;
	const char *bitmap, *changes, *nbd, *host;
	const char *qmp, *agent;        /* of a machine that runs on the image */
	struct texts tags;
	bool only_differing;
	const char *path;               /* of a file in a snapshot */
	uint64_t keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly;
	bool dry_run;
};

/* drill */
struct drill_settings {
	bool no_boot, no_kvm;
	const char *expect, *report, *html, *scratch;
	uint64_t timeout, memory;       /* seconds, MiB */
	int bus, firmware, lang;        /* enum drill_bus, drill_firmware, sheet_lang */
};

/* ledger */
struct ledger_settings {
	const char *from, *to, *image, *who, *act;
	const char *file;               /* export: where it goes */
	int form;                       /* export: enum export_form */
};

/* scan */
struct scan_settings {
	int fail_on;                    /* enum scan_severity; 0: medium */
};

/* verify */
struct verify_settings {
	int level;                      /* enum verify_level + 1 */
	bool keyless, repair;
	const char *budget, *source, *quarantine;
};

struct settings {
	const char *operands[OPERANDS_MAX];
	size_t n_operands;

	const char *format;             /* of the image that is read; create: of the new one */
	const char *target_format;
	int platform;                   /* convert --for: platforms.c */
	const char *backing_format;
	const char *second_format;
	const char *snapshot;           /* of the image that is read; compare: of A */
	const char *second_snapshot;
	const char *disk;               /* in a package */
	bool snap_list;                 /* snapshot -l */
	const char *snap_create, *snap_apply, *snap_delete;
	const char *overlay, *overlay_format;   /* snapshot create */
	bool numbered;
	int lazy_refcounts, data_file_raw;      /* amend -o: enum vd_switch */
	const char *unamendable[10];    /* amend -o: what was asked for in vain */
	bool shrink, scrub;
	const char *label, *header_backup;      /* key */
	bool last_slot, qr, libvirt;
	struct texts recipients, openpgp_keys;
	const char *split;              /* key recovery: K/N */
	uint64_t granularity;           /* bitmap */
	bool disabled;
	const char *from_image;
	const char *since;              /* map: a bitmap */
	bool unsafe, in_clear, keep;    /* rebase, flatten, commit */
	bool in_place, volume_key, drop_slots;  /* conversions in place */
	int chain, resilience;          /* enum chain, enum vd_resilience */
	const char *journal;
	uint64_t bwlimit;               /* bytes a second */
	const char *base;               /* commit --base */
	int repair;                     /* enum vd_repair */
	bool plaintext;                 /* check */
	int policy;                     /* inspect */
	uint64_t max_size;
	struct texts create_options;    /* -o, unparsed: the target's format says what is known */
	char option_text[4096];         /* the same in one list, taken apart; what is below points into it */
	struct new_image made;
	bool compress;

	struct wipe_settings wipe;
	struct cert_settings cert;
	struct scan_settings scan;
	struct serve_settings serve;
	struct backup_settings backup;
	struct ledger_settings ledger;
	struct verify_settings verify;
	struct drill_settings drill;

	struct secret_sources keys, new_keys;
	const char *token_file, *new_token_file;        /* of key commands */
	const char *header, *new_header, *second_header;        /* LUKS headers in files of their own; the last: of compare's B */
	uint64_t key_timeout;                           /* seconds */

	struct texts allow;
	bool force_share, force, yes, no_space_check;
	bool ignore_trailing_zeros, full, host;
	uint64_t threads;
	int progress;                   /* enum progress_how */

	int output;                     /* enum output */
	int colour;                     /* enum colour_when */
	bool quiet, help;
};

#endif
