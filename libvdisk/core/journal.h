/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal of a conversion in place: a file beside the image that holds all that a crash must not lose. What a
 * conversion does with it is inplace.c's; this file's readers know nothing of images.
 *
 * J1  Nothing in it is plaintext of the disk. Records hold the side of the change that is ciphertext; what the veil hides
 *     is encrypted with a key of the journal's own.
 * J2  State, LUKS headers and records are authenticated under a key derived from the volume key, which takes a key of the
 *     disk: before vd_journal_unlock() only the state is read, and only to be shown.
 * J3  State and hidden sectors are kept twice: the second copy is written when the first is durable, and each has a
 *     checksum of its own, so that one which was torn or damaged loses to the other.
 * J4  Two records, by turns; of those that are whole each may be put in place any number of times, the older first. One that
 *     was put to use says so in a mark of its own: that it is not whole then is no work of a crash.
 *
 *	0       state, twice, 4 KiB each
 *	8 KiB   hidden sectors, twice, 1 KiB each with its MAC
 *	24 KiB  the length that each file of the image had at the start, 8 bytes each
 *	56 KiB  LUKS header of before, then that of after, each at 4 KiB
 *	then    two records, each at 1 MiB: its table, then its payload
 */
#ifndef VD_CORE_JOURNAL_H
#define VD_CORE_JOURNAL_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/crypto/diskcipher.h"
#include "libvdisk/io/io.h"

#define VD_JOURNAL_SUFFIX ".vdisk-journal"
#define VD_JOURNAL_HIDDEN 8             /* sectors at most */
#define VD_JOURNAL_FILES 4096
#define VD_JOURNAL_CHUNKS 8192          /* of a record */
#define VD_JOURNAL_BATCH (16u << 20)    /* payload of a record at most */
#define VD_JOURNAL_MAC 32
#define VD_JOURNAL_TAG 16
#define VD_JOURNAL_SALT 8

/* How far a conversion is. In this order; some conversions leave some out. */
enum vd_phase {
	VD_PHASE_BEGIN,                 /* the image is untouched */
	VD_PHASE_UNPACK,
	VD_PHASE_FILL,
	VD_PHASE_DATA,                  /* up to the cursor all is done */
	VD_PHASE_SWITCH,                /* tables */
	VD_PHASE_HEADER,
	VD_PHASE_UNVEIL,                /* the image is whole, and hidden sectors go back to their places */
	VD_PHASE_DONE,
	VD_N_PHASES
};

struct vd_journal_state {
	uint8_t uuid[16];
	uint8_t act;                    /* enum vd_inplace_act */
	uint8_t resilience;             /* enum vd_resilience */
	uint8_t phase;
	bool is_back;                   /* what was done is undone */
	bool is_container;
	bool moves;                     /* data change their place by payload_off */
	char format[16];
	uint64_t dev, ino;              /* of the image's file: by which the journal of an image that is whole again is known */
	uint64_t size;                  /* of the disk inside the driver, when it began */
	uint64_t payload_off;           /* container: of the payload in it */
	uint32_t from_sector, to_sector;/* of the ciphers; 0: plain */
	uint64_t total;                 /* bytes to go through */
	/* DATA: done up to here, in the order of files. is_back: what lay behind `stop` was not done yet; moves: see inplace_move.c. */
	uint32_t cursor_file, stop_file;
	uint64_t cursor, stop;
	bool is_born;                   /* is_back: the part that was born converted is what is gone through */
	uint64_t record;                /* number of the newest record that counts for nothing any more */
	uint64_t header_len[2];         /* LUKS headers of before and after; 0: none */
	uint32_t n_files;
	uint32_t n_hidden;
	uint64_t hidden[VD_JOURNAL_HIDDEN];     /* where they lie in the image's file */
	uint32_t short_size;            /* the image's true size while that is less than a sector; else 0 */
};

/* A piece of data on its way: len bytes from src to dst of a file; the cipher counts from `unit`. */
struct vd_chunk {
	uint32_t file, len;
	uint64_t src, dst, unit;
};

struct vd_journal {
	struct vd_host *host;
	struct vd_io *io;
	char *path;
	struct vd_journal_state state;
	uint64_t *ends;                 /* n_files */
	uint8_t *header[2];
	uint64_t n_written;             /* the number of the state that was written last */
	uint32_t sum;                   /* what it says of ends and headers */
	uint64_t n_records;             /* the number of the record that was */
	bool is_unlocked;
	uint8_t auth[VD_JOURNAL_MAC];
	uint8_t fixed[3][VD_JOURNAL_MAC];       /* MACs of what never changes: ends, and either header */
	uint8_t tag_key[VD_JOURNAL_MAC];
	struct vd_diskcipher *hider;
};

/*
 * A new journal, which is durable, name and all, when it is there; state, ends and headers are copied. VD_EEXIST: there is
 * one.
 */
int vd_journal_create(struct vd_host *host, const char *path, const struct vd_journal_state *state, const uint64_t *ends,
		      const struct vd_bytes header[2], struct vd_bytes volume_key, struct vd_journal **out,
		      struct vd_error *e) VD_MUST_CHECK;
/* An old one. VD_ECORRUPT: it is none, or both states are damaged. */
int vd_journal_open(struct vd_host *host, const char *path, bool write, struct vd_journal **out, struct vd_error *e) VD_MUST_CHECK;
/* Judges it by the volume key (that of after, or, where there is none after, of before): VD_EAUTH when it was changed. */
int vd_journal_unlock(struct vd_journal *j, struct vd_bytes volume_key, struct vd_error *e) VD_MUST_CHECK;
/* Durably. */
int vd_journal_write_state(struct vd_journal *j, struct vd_error *e) VD_MUST_CHECK;
/* Closes and removes it. */
int vd_journal_remove(struct vd_journal *j, struct vd_error *e) VD_MUST_CHECK;
void vd_journal_close(struct vd_journal *j);

/* The i-th hidden sector; VD_EAUTH: both copies were changed. A write is durable. */
int vd_journal_read_hidden(struct vd_journal *j, uint32_t i, uint8_t sector[512], struct vd_error *e) VD_MUST_CHECK;
int vd_journal_write_hidden(struct vd_journal *j, uint32_t i, const uint8_t sector[512], struct vd_error *e) VD_MUST_CHECK;

/*
 * A record: chunks, and of each either its ciphertext or the first VD_JOURNAL_MARK bytes of each of its sectors in that form,
 * which are enough to tell whether a sector has it; and where the cursor is once all of it is in place.
 */
#define VD_JOURNAL_SECTOR 512
#define VD_JOURNAL_MARK 8
struct vd_record {
	uint64_t number;                /* of vd_journal_write_record() */
	uint32_t n_chunks;
	struct vd_chunk *chunks;
	uint8_t salt[VD_JOURNAL_SALT];  /* random, of this record alone */
	uint8_t (*tags)[VD_JOURNAL_TAG];/* of each chunk's part of the payload, by vd_journal_tag() */
	bool has_marks;
	uint8_t *payload;               /* of all chunks, one after the other */
	uint64_t payload_len;
	uint32_t cursor_file;
	uint64_t cursor;
	bool is_born;
};
/* VD_EAUTH, in words. */
int vd_journal_say_changed(const struct vd_journal *j, struct vd_error *e);
int vd_journal_mac(const struct vd_journal *j, struct vd_bytes bytes, uint8_t mac[VD_JOURNAL_MAC], struct vd_error *e) VD_MUST_CHECK;
/* What is long is authenticated by GMAC, at memory speed; salt and chunk number are its nonce. */
int vd_journal_tag(const struct vd_journal *j, const uint8_t salt[VD_JOURNAL_SALT], uint32_t chunk, struct vd_bytes bytes,
		   uint8_t tag[VD_JOURNAL_TAG], struct vd_error *e) VD_MUST_CHECK;
/* How much of the payload a chunk has. */
static inline uint64_t vd_record_part(const struct vd_record *rec, const struct vd_chunk *c)
{
	return rec->has_marks ? (uint64_t)c->len / VD_JOURNAL_SECTOR * VD_JOURNAL_MARK : c->len;
}
/* What a journal takes at most, with so many bytes of headers and payload of a record. */
uint64_t vd_journal_room(uint64_t headers, uint64_t payload);
/* Durably; gives it the next number. */
int vd_journal_write_record(struct vd_journal *j, struct vd_record *rec, struct vd_error *e) VD_MUST_CHECK;
/*
 * What a crash left: the i-th (0, 1) of the whole records newer than state.record, in the order of their numbers; false in
 * *got: there is none. The caller fini()s it. VD_EAUTH: one that was put to use is not whole any more.
 */
int vd_journal_read_record(struct vd_journal *j, unsigned i, struct vd_record *rec, bool *got, struct vd_error *e) VD_MUST_CHECK;
void vd_record_fini(struct vd_record *rec);

#endif
