/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Damages qcow2 files at random, by a seed: fields of tables and of the header, found in the sound file, get values that are
 * wrong in the ways of the world: a bit turned, another entry's value, one more or less, a place that is a table or nowhere.
 */
#ifndef TESTS_DAMAGE_H
#define TESTS_DAMAGE_H

#include <stddef.h>
#include <stdint.h>

enum damage_field {
	DAMAGE_COUNT,           /* a refcount; its place is the cluster's number */
	DAMAGE_REFT,            /* words of tables */
	DAMAGE_L1,
	DAMAGE_L2,
	DAMAGE_L2_BITMAP,
	DAMAGE_SNAPSHOT_L1,
	DAMAGE_SNAPSHOT_L2,
	DAMAGE_SNAPSHOT,        /* an entry of the snapshot table: its beginning */
	DAMAGE_BITMAP_DIR,      /* words of the directory, of a table */
	DAMAGE_BITMAP_TABLE,
	DAMAGE_KINDS,
};

struct damage_spot {
	enum damage_field field;
	uint64_t at;
};

/* A sound file and where its fields are. */
struct damage_base {
	uint8_t *bytes;
	uint64_t size, cluster, n_clusters;
	uint32_t version, order, entry_size;
	struct damage_spot *spots;
	size_t n_spots, of_kind[DAMAGE_KINDS];
};

/* Takes the bytes over. */
void damage_survey(struct damage_base *b, uint8_t *bytes, uint64_t size);
void damage_free(struct damage_base *b);
/* 1 to 5 damages of a copy, which has the file's size; *size: the file may be cut. What was done goes into `story`. */
void damage_apply(const struct damage_base *b, uint8_t *copy, uint64_t *size, uint64_t seed, char *story, size_t story_len);

#endif
