/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options as data: tables say what an option is called, what it takes and where it goes; one parser reads argv by
 * them, one printer makes help of them, and completion and tests get them as JSON.
 *
 * The functions of the command are named after the file they are in (opts_, ui_, secrets_ ...): vd_ is the library.
 */
#ifndef TOOLS_OPTS_H
#define TOOLS_OPTS_H

#include "settings.h"

enum opt_kind {
	OPT_FLAG,       /* bool */
	OPT_SWITCH,     /* bool; takes on or off */
	OPT_TEXT,       /* const char * */
	OPT_TEXTS,      /* struct texts; may be repeated */
	OPT_NUMBER,     /* uint64_t within min and max */
	OPT_SIZE,       /* uint64_t; 64K, 1.5G */
	OPT_CHOICE,     /* int: the value of one of the choices */
	OPT_SECRET,     /* struct secret_sources; may be repeated; `value` says which kind of source */
};

struct opt_choice {
	const char *name;       /* NULL ends the list */
	int value;
};

struct opt {
	const char *name;               /* without dashes; NULL ends the table */
	char letter;                    /* 0: none */
	enum opt_kind kind;
	size_t where;                   /* offset in struct settings */
	const char *arg;                /* what help calls the argument; NULL: takes none */
	const char *help;
	const struct opt_choice *choices;
	uint64_t min, max;              /* OPT_NUMBER */
	int value;                      /* OPT_SECRET: the kind; OPT_CHOICE without its argument: the value */
	bool arg_is_optional;           /* --name[=ARG]; the letter takes none */
};

struct opt_group {
	const char *title;              /* neighbours of the same title are printed as one */
	const struct opt *opts;
};

struct verb {
	const char *name;
	const char *operands;           /* as the synopsis prints them */
	size_t min_operands, max_operands;
	bool ends_with_number;          /* the last operand may be -1G, which is no option */
	const char *summary;            /* one line */
	const char *about;              /* a paragraph or two */
	const struct opt_group *const *groups;          /* NULL ends the list */
	const char *const *examples;                    /* NULL ends the list */
	const struct verb *const *acts;                 /* verbs that may be said behind this one, too; NULL ends the list, or is it */
	/* 0, an exit status above 0 (what had to be said is said), or a negative code with *e filled. */
	int (*run)(struct settings *s, struct vd_error *e);
};

/* What several verbs have alike. */
extern const struct opt_group opts_keys;        /* of images that exist */
extern const struct opt_group opts_sole_key;    /* of the image that is made, in verbs that read none with a key */
extern const struct opt_group opts_new_key;     /* of the image that is made, beside opts_keys */
extern const struct opt_group opts_sealed_key;  /* the same, of a program that seals it */
extern const struct opt_group opts_second_key;  /* for an image that has one */
extern const struct opt_group opts_encryption;  /* how the image that is made is encrypted */
extern const struct opt_group opts_job;         /* long jobs: threads, progress */
extern const struct opt_group opts_progress;    /* long jobs of one thread */
extern const struct opt_group opts_format;      /* of the image that is read */
extern const struct opt_group opts_header;      /* the same */
extern const struct opt_group opts_backing;     /* its backing file */
extern const struct opt_group opts_snapshot;    /* which of its snapshots */
extern const struct opt_group opts_sharing;     /* locks, and what the image may refer to */
extern const struct opt_group opts_scrub;       /* verbs that free space inside an image */
extern const struct opt_group opts_output;      /* verbs that make an image */
extern const struct opt_group opts_compress;
extern const struct opt_group opts_room;
extern const struct opt_group opts_in_clear;    /* verbs that move content from layer to layer */
extern const struct opt_group opts_repo;        /* where backups are */
extern const struct opt_group opts_repo_key;    /* the repository's, in verbs whose key options are of images first */
extern const struct opt_group opts_output_form; /* human or json */
extern const struct opt_group opts_speech;      /* every verb: colour, quiet, help */

/* argv[0] is the verb. Fills s; VD_EARG and words on wrong usage. */
int opts_parse(const struct verb *verb, int argc, char **argv, struct settings *s, struct vd_error *e);
/*
 * "key=value,key=value" by a table; a comma in a value is doubled. `what` names the table in messages: "qcow2". Takes
 * `pairs` apart; the settings point into it afterwards.
 */
int opts_parse_pairs(const struct opt *table, const char *what, char *pairs, struct settings *s, struct vd_error *e);
/* One option by its row; `shown` is how the user knows it: "--size", "cluster_size". */
int opts_set(const struct opt *o, const char *shown, const char *value, struct settings *s, struct vd_error *e);

/* The nearest of the names to a mistyped one, or NULL when none is near: next(ctx, i) is the i-th name, NULL past the last. */
const char *opts_nearest(const char *typed, const char *(*next)(const void *ctx, size_t i), const void *ctx);

#endif
