/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal file of a conversion in place: its state, its headers, the sectors that it hides. Records are journal_record.c's. */
#include "libvdisk/core/journal.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/crc32c.h"
#include "libvdisk/base/cursor.h"
#include "libvdisk/core/journal_layout.h"
#include "libvdisk/crypto/seal.h"

static const uint8_t magic[8] = { 'v', 'd', 'i', 's', 'k', 'j', 'n', 'l' };
#define VERSION 1
#define PARTIAL_SUFFIX ".vdisk-partial"
#define MAC_AT (STATE_LEN - 4 - VD_JOURNAL_MAC)
#define HEADER_MAX (128u << 20)         /* as in layer.c */

VD_DEFINE_CLEANUP(struct vd_journal, cleanup_journal, vd_journal_close)
#define auto_journal __attribute__((cleanup(cleanup_journal)))

void vd_journal_close(struct vd_journal *j)
{
	if (!j)
		return;
	vd_io_abort(j->io);
	vd_diskcipher_free(j->hider);
	vd_wipe(j->auth, sizeof(j->auth));
	vd_wipe(j->tag_key, sizeof(j->tag_key));
	free(j->header[0]);
	free(j->header[1]);
	free(j->ends);
	free(j->path);
	free(j);
}

int vd_journal_say_changed(const struct vd_journal *j, struct vd_error *e)
{
	vd_fail(e, VD_EAUTH, "%s was changed, and not by vdisk", j->path);
	return vd_hint(e, VD_EAUTH, "do not go on with it: look for a copy that was not changed");
}

/* ---- keys ----------------------------------------------------------------------------------------------- */

int vd_journal_mac(const struct vd_journal *j, struct vd_bytes bytes, uint8_t mac[VD_JOURNAL_MAC], struct vd_error *e)
{
	return vd_hmac_sha256((struct vd_bytes){ j->auth, sizeof(j->auth) }, bytes, mac, e);
}

static int mac_fixed(struct vd_journal *j, struct vd_error *e)
{
	int r = vd_journal_mac(j, (struct vd_bytes){ (const uint8_t *)j->ends, j->state.n_files * sizeof(*j->ends) }, j->fixed[0], e);

	for (int i = 0; i < 2 && r == 0; i++)
		r = vd_journal_mac(j, (struct vd_bytes){ j->header[i], j->state.header_len[i] }, j->fixed[1 + i], e);
	return r;
}

/* Ends and headers are there already. */
static int derive(struct vd_journal *j, struct vd_bytes volume_key, struct vd_error *e)
{
	struct vd_bytes salt = { j->state.uuid, sizeof(j->state.uuid) };
	uint8_t hide[2 * VD_SEAL_KEY];
	int r = vd_hkdf_sha256(volume_key, salt, "vdisk journal: authentication", j->auth, e);

	if (r == 0)
		r = vd_hkdf_sha256(volume_key, salt, "vdisk journal: payload", j->tag_key, e);
	if (r == 0)
		r = vd_hkdf_sha256(volume_key, salt, "vdisk journal: hidden sectors, 1", hide, e);
	if (r == 0)
		r = vd_hkdf_sha256(volume_key, salt, "vdisk journal: hidden sectors, 2", hide + VD_SEAL_KEY, e);
	if (r == 0)
		r = vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, hide, sizeof(hide), &j->hider, e);
	vd_wipe(hide, sizeof(hide));
	if (r == 0)
		r = mac_fixed(j, e);
	j->is_unlocked = r == 0;
	return r;
}

int vd_journal_tag(const struct vd_journal *j, const uint8_t salt[VD_JOURNAL_SALT], uint32_t chunk, struct vd_bytes bytes,
		   uint8_t tag[VD_JOURNAL_TAG], struct vd_error *e)
{
	uint8_t nonce[VD_GMAC_NONCE];

	memcpy(nonce, salt, VD_JOURNAL_SALT);
	vd_put_le32(nonce + VD_JOURNAL_SALT, chunk);
	return vd_gmac_aes256(j->tag_key, nonce, bytes, tag, e);
}

/* ---- the state ------------------------------------------------------------------------------------------ */

static void encode(const struct vd_journal *j, struct vd_writer *w)
{
	const struct vd_journal_state *s = &j->state;

	vd_write_bytes(w, magic, sizeof(magic));
	vd_write_le32(w, VERSION);
	vd_write_le64(w, j->n_written);
	vd_write_bytes(w, s->uuid, sizeof(s->uuid));
	vd_write_u8(w, s->act);
	vd_write_u8(w, s->resilience);
	vd_write_u8(w, s->phase);
	vd_write_u8(w, s->is_back);
	vd_write_u8(w, s->is_container);
	vd_write_u8(w, s->moves);
	vd_write_u8(w, s->is_born);
	vd_write_bytes(w, s->format, sizeof(s->format));
	vd_write_le64(w, s->dev);
	vd_write_le64(w, s->ino);
	vd_write_le64(w, s->size);
	vd_write_le64(w, s->payload_off);
	vd_write_le32(w, s->from_sector);
	vd_write_le32(w, s->to_sector);
	vd_write_le64(w, s->total);
	vd_write_le32(w, s->cursor_file);
	vd_write_le64(w, s->cursor);
	vd_write_le32(w, s->stop_file);
	vd_write_le64(w, s->stop);
	vd_write_le64(w, s->record);
	vd_write_le64(w, s->header_len[0]);
	vd_write_le64(w, s->header_len[1]);
	vd_write_le32(w, s->n_files);
	vd_write_le32(w, s->short_size);
	vd_write_le32(w, s->n_hidden);
	for (uint32_t i = 0; i < VD_JOURNAL_HIDDEN; i++)
		vd_write_le64(w, s->hidden[i]);
	vd_write_le32(w, j->sum);
}

static void decode(struct vd_reader *r, uint64_t *n_written, struct vd_journal_state *s, uint32_t *sum)
{
	const uint8_t *p;

	vd_reader_take(r, sizeof(magic) + 4);
	*n_written = vd_read_le64(r);
	p = vd_reader_take(r, sizeof(s->uuid));
	memcpy(s->uuid, p, sizeof(s->uuid));
	s->act = vd_read_u8(r);
	s->resilience = vd_read_u8(r);
	s->phase = vd_read_u8(r);
	s->is_back = vd_read_u8(r);
	s->is_container = vd_read_u8(r);
	s->moves = vd_read_u8(r);
	s->is_born = vd_read_u8(r);
	p = vd_reader_take(r, sizeof(s->format));
	memcpy(s->format, p, sizeof(s->format));
	s->format[sizeof(s->format) - 1] = '\0';
	s->dev = vd_read_le64(r);
	s->ino = vd_read_le64(r);
	s->size = vd_read_le64(r);
	s->payload_off = vd_read_le64(r);
	s->from_sector = vd_read_le32(r);
	s->to_sector = vd_read_le32(r);
	s->total = vd_read_le64(r);
	s->cursor_file = vd_read_le32(r);
	s->cursor = vd_read_le64(r);
	s->stop_file = vd_read_le32(r);
	s->stop = vd_read_le64(r);
	s->record = vd_read_le64(r);
	s->header_len[0] = vd_read_le64(r);
	s->header_len[1] = vd_read_le64(r);
	s->n_files = vd_read_le32(r);
	s->short_size = vd_read_le32(r);
	s->n_hidden = vd_read_le32(r);
	for (uint32_t i = 0; i < VD_JOURNAL_HIDDEN; i++)
		s->hidden[i] = vd_read_le64(r);
	*sum = vd_read_le32(r);
}

/* What is authenticated: the state, the files' lengths, the headers. */
static int mac_of_state(const struct vd_journal *j, const uint8_t *state, uint8_t mac[VD_JOURNAL_MAC], struct vd_error *e)
{
	uint8_t parts[4][VD_JOURNAL_MAC];
	int r = vd_journal_mac(j, (struct vd_bytes){ state, MAC_AT }, parts[0], e);

	memcpy(parts[1], j->fixed, sizeof(j->fixed));
	return r < 0 ? r : vd_journal_mac(j, (struct vd_bytes){ parts[0], sizeof(parts) }, mac, e);
}

/* Durably. What it speaks of comes first, the second copy of before as well. */
static int write_twice(struct vd_journal *j, struct vd_bytes bytes, uint64_t at, uint64_t apart, struct vd_error *e)
{
	int r = vd_io_flush(j->io, e);

	if (r == 0)
		r = vd_io_pwrite(j->io, bytes.p, bytes.len, at, e);
	if (r == 0)
		r = vd_io_flush(j->io, e);
	return r < 0 ? r : vd_io_pwrite(j->io, bytes.p, bytes.len, at + apart, e);
}

int vd_journal_write_state(struct vd_journal *j, struct vd_error *e)
{
	uint8_t state[STATE_LEN] = { 0 };
	struct vd_writer w = vd_writer_of(state, MAC_AT);
	int r;

	j->n_written++;
	encode(j, &w);
	r = mac_of_state(j, state, state + MAC_AT, e);
	vd_put_le32(state + STATE_LEN - 4, vd_crc32c(0, state, STATE_LEN - 4));
	return r < 0 ? r : write_twice(j, (struct vd_bytes){ state, sizeof(state) }, 0, STATE_LEN, e);
}

static bool is_sound(const struct vd_journal_state *s)
{
	return s->phase < VD_N_PHASES && s->n_files && s->n_files <= VD_JOURNAL_FILES && s->n_hidden <= VD_JOURNAL_HIDDEN &&
	       s->header_len[0] <= HEADER_MAX && s->header_len[1] <= HEADER_MAX && (s->header_len[0] || s->header_len[1]) &&
	       s->short_size < VD_JOURNAL_SECTOR;
}

/* The newer of the two that are whole; `mac` is what it says of itself, and `state` its bytes. */
static int read_state(struct vd_journal *j, uint8_t state[STATE_LEN], struct vd_error *e)
{
	bool found = false;
	uint32_t sum;

	for (int i = 0; i < 2; i++) {
		uint8_t buf[STATE_LEN];
		struct vd_journal_state s;
		struct vd_reader rd = vd_reader_of(buf, sizeof(buf));
		uint64_t n;
		int r = vd_io_pread(j->io, buf, sizeof(buf), (uint64_t)i * STATE_LEN, e);

		if (r < 0)
			return r;
		if (memcmp(buf, magic, sizeof(magic)) || vd_get_le32(buf + sizeof(magic)) != VERSION ||
		    vd_get_le32(buf + STATE_LEN - 4) != vd_crc32c(0, buf, STATE_LEN - 4))
			continue;
		decode(&rd, &n, &s, &sum);
		if (!is_sound(&s) || (found && n < j->n_written))
			continue;
		found = true;
		j->state = s;
		j->n_written = n;
		j->sum = sum;
		memcpy(state, buf, STATE_LEN);
	}
	if (found)
		return 0;
	vd_fail(e, VD_ECORRUPT, "%s is not the journal of a conversion, or both of its states are damaged", j->path);
	return vd_hint(e, VD_ECORRUPT, "a crash cannot do that: look for a copy of it, for without it a half-converted image is lost");
}

/* ---- opening and making --------------------------------------------------------------------------------- */

static int journal_alloc(struct vd_host *host, const char *path, struct vd_journal **out, struct vd_error *e)
{
	auto_journal struct vd_journal *j = NULL;
	int r = vd_alloc(1, sizeof(*j), &j, e);

	if (r == 0)
		r = vd_strdup(path, &j->path, e);
	if (r < 0)
		return r;
	j->host = host;
	*out = vd_steal(&j);
	return 0;
}

/* Tells damage from a wrong key, before there is a key. */
static uint32_t sum_of_headers(const struct vd_journal *j)
{
	uint32_t sum = vd_crc32c(0, j->ends, j->state.n_files * sizeof(*j->ends));

	for (int i = 0; i < 2; i++)
		sum = vd_crc32c(sum, j->header[i], j->state.header_len[i]);
	return sum;
}

static int write_headers(struct vd_journal *j, struct vd_error *e)
{
	uint64_t at = HEADERS_AT;
	int r = vd_io_pwrite(j->io, j->ends, j->state.n_files * sizeof(*j->ends), ENDS_AT, e);

	for (int i = 0; i < 2 && r == 0; i++) {
		r = vd_io_pwrite(j->io, j->header[i], j->state.header_len[i], at, e);
		at = vd_round_up(at + j->state.header_len[i], STATE_LEN);
	}
	return r;
}

static int partial_name(const char *path, char **partial, struct vd_error *e)
{
	size_t len = strlen(path) + sizeof(PARTIAL_SUFFIX);
	int r = vd_alloc(1, len, partial, e);

	if (r == 0)
		snprintf(*partial, len, "%s%s", path, PARTIAL_SUFFIX);
	return r;
}

int vd_journal_create(struct vd_host *host, const char *path, const struct vd_journal_state *state, const uint64_t *ends,
		      const struct vd_bytes header[2], struct vd_bytes volume_key, struct vd_journal **out, struct vd_error *e)
{
	auto_journal struct vd_journal *j = NULL;
	vd_auto_free char *partial = NULL;
	int r = journal_alloc(host, path, &j, e);

	if (r < 0)
		return r;
	j->state = *state;
	r = vd_memdup(ends, state->n_files * sizeof(*ends), &j->ends, e);
	for (int i = 0; i < 2 && r == 0; i++) {
		j->state.header_len[i] = header[i].len;
		r = header[i].len ? vd_memdup(header[i].p, header[i].len, &j->header[i], e) : 0;
	}
	if (r == 0)
		r = derive(j, volume_key, e);
	if (r == 0)
		j->sum = sum_of_headers(j);
	if (r == 0)
		r = partial_name(path, &partial, e);
	/* What a crash left of an earlier one. */
	if (r == 0 && host->exists(host, partial))
		r = host->unlink(host, partial, e);
	if (r == 0)
		r = host->open(host, partial, VD_IO_CREATE, &j->io, e);
	if (r < 0)
		return r;
	r = write_headers(j, e);
	if (r == 0)
		r = vd_journal_write_state(j, e);
	/* Its name is durable, too, or a crash could leave the image without it. */
	if (r == 0)
		r = host->rename(host, partial, path, false, e);
	if (r < 0) {
		host->unlink(host, partial, NULL);
		return r;
	}
	*out = vd_steal(&j);
	return 0;
}

static int read_headers(struct vd_journal *j, struct vd_error *e)
{
	struct vd_journal_state *s = &j->state;
	uint64_t at = HEADERS_AT;
	int r = vd_alloc(s->n_files, sizeof(*j->ends), &j->ends, e);

	if (r == 0)
		r = vd_io_pread_exact(j->io, j->ends, s->n_files * sizeof(*j->ends), ENDS_AT, e);
	for (int i = 0; i < 2 && r == 0; i++) {
		uint64_t size = 0;

		if (!s->header_len[i])
			continue;
		r = vd_io_size(j->io, &size, e);
		if (r == 0 && !vd_range_inside(at, s->header_len[i], size))
			r = vd_fail(e, VD_ECORRUPT, "%s is cut off in its headers", j->path);
		if (r == 0)
			r = vd_alloc(1, s->header_len[i], &j->header[i], e);
		if (r == 0)
			r = vd_io_pread_exact(j->io, j->header[i], s->header_len[i], at, e);
		at = vd_round_up(at + s->header_len[i], STATE_LEN);
	}
	return r < 0 || sum_of_headers(j) == j->sum ? r : vd_journal_say_changed(j, e);
}

int vd_journal_open(struct vd_host *host, const char *path, bool write, struct vd_journal **out, struct vd_error *e)
{
	auto_journal struct vd_journal *j = NULL;
	uint8_t state[STATE_LEN];
	int r = journal_alloc(host, path, &j, e);

	if (r == 0)
		r = host->open(host, path, write ? VD_IO_WRITE : VD_IO_FORCE_SHARE, &j->io, e);
	if (r == 0)
		r = read_state(j, state, e);
	if (r == 0)
		r = read_headers(j, e);
	if (r < 0)
		return r;
	j->n_records = j->state.record;
	*out = vd_steal(&j);
	return 0;
}

int vd_journal_unlock(struct vd_journal *j, struct vd_bytes volume_key, struct vd_error *e)
{
	uint8_t state[STATE_LEN], mac[VD_JOURNAL_MAC];
	int r = derive(j, volume_key, e);

	if (r == 0)
		r = read_state(j, state, e);
	if (r == 0)
		r = mac_of_state(j, state, mac, e);
	return r == 0 && !vd_secret_equal(mac, state + MAC_AT, sizeof(mac)) ? vd_journal_say_changed(j, e) : r;
}

int vd_journal_remove(struct vd_journal *j, struct vd_error *e)
{
	int r = j->host->unlink(j->host, j->path, e);

	vd_journal_close(j);
	return r;
}

/* ---- hidden sectors ------------------------------------------------------------------------------------- */

static int mac_of_hidden(const struct vd_journal *j, uint32_t i, const uint8_t *copy, uint8_t mac[VD_JOURNAL_MAC], struct vd_error *e)
{
	uint8_t said[4 + VD_JOURNAL_SECTOR];

	vd_put_le32(said, i);
	memcpy(said + 4, copy, VD_JOURNAL_SECTOR);
	return vd_journal_mac(j, (struct vd_bytes){ said, sizeof(said) }, mac, e);
}

int vd_journal_read_hidden(struct vd_journal *j, uint32_t i, uint8_t sector[512], struct vd_error *e)
{
	uint8_t copy[HIDDEN_LEN], mac[VD_JOURNAL_MAC];
	int r = 0;

	for (int k = 0; k < 2 && r == 0; k++) {
		r = vd_io_pread(j->io, copy, sizeof(copy), HIDDEN_AT + (2 * (uint64_t)i + k) * HIDDEN_LEN, e);
		if (r == 0)
			r = mac_of_hidden(j, i, copy, mac, e);
		if (r < 0 || !vd_secret_equal(mac, copy + VD_JOURNAL_SECTOR, sizeof(mac)))
			continue;
		memcpy(sector, copy, VD_JOURNAL_SECTOR);
		return vd_diskcipher_decrypt(j->hider, sector, VD_JOURNAL_SECTOR, i, VD_JOURNAL_SECTOR, e);
	}
	return r < 0 ? r : vd_journal_say_changed(j, e);
}

int vd_journal_write_hidden(struct vd_journal *j, uint32_t i, const uint8_t sector[512], struct vd_error *e)
{
	uint8_t copy[HIDDEN_LEN] = { 0 };
	int r;

	memcpy(copy, sector, VD_JOURNAL_SECTOR);
	r = vd_diskcipher_encrypt(j->hider, copy, VD_JOURNAL_SECTOR, i, VD_JOURNAL_SECTOR, e);
	if (r == 0)
		r = mac_of_hidden(j, i, copy, copy + VD_JOURNAL_SECTOR, e);
	return r < 0 ? r : write_twice(j, (struct vd_bytes){ copy, sizeof(copy) }, HIDDEN_AT + 2 * (uint64_t)i * HIDDEN_LEN, HIDDEN_LEN, e);
}
