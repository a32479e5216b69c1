/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS headers through libcryptsetup, which sees them as files in memory (memfd): no root, no loop device, no
 * device-mapper. What a header may hold is judged in luks1.c and luks2.c, before any key is tried.
 *
 * I1  libcryptsetup works on the very bytes that were judged: a private copy, and its own dump of the metadata.
 * I2  Nothing of it reaches the application: messages go to a callback that drops them (they name /proc/self/fd, and
 *     this library words its own), and no setting of the whole process is touched.
 * I3  No cost is measured or guessed: parameters are set, return codes checked, and the result read back, because
 *     libcryptsetup keeps its former parameters when it refuses new ones.
 */
#include "keys/keycommand.h"
#include "keys/luks.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/crypto/diskcipher.h"

#include <errno.h>
#include <fcntl.h>
#include <libcryptsetup.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define METADATA_SIZE ((uint64_t)16 << 10)      /* of one LUKS2 copy, and ... */
#define MAX_KEYSLOTS_END ((uint64_t)16 << 20)   /* ... where its keyslots end at most: cryptsetup's defaults */
#define MIN_LUKS1_PAYLOAD ((uint64_t)2 << 20)   /* 8 keyslots of 512 bits end at 2068480 */
#define MIN_LUKS2_PAYLOAD ((uint64_t)1 << 20)   /* room for 3 keyslots of 512 bits */
#define IO_ALIGN 4096                           /* LUKS_ALIGN_KEYSLOTS: headers are stored in these units */

/* The first use in a process initialises libcryptsetup's globals (random, OpenSSL), which is not safe in parallel. */
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

struct container {
	int fd;
	struct crypt_device *cd;
};

static void container_close(struct container *c)
{
	if (c->cd)
		crypt_free(c->cd);
	if (c->fd >= 0)
		close(c->fd);
}
#define auto_container __attribute__((cleanup(container_close)))

static void drop_message(int level, const char *msg, void *ctx)
{
	(void)level;
	(void)msg;
	(void)ctx;
}

static int crypt_failed(int r, const char *doing, struct vd_error *e)
{
	if (r == -ENOMEM)
		return vd_fail(e, VD_ENOMEM, "not enough memory for %s", doing);
	return vd_fail(e, VD_EFAILED, "%s: libcryptsetup refuses with error %d", doing, -r);
}

static int write_all(int fd, struct vd_bytes data, struct vd_error *e)
{
	while (data.len) {
		ssize_t n = write(fd, data.p, data.len);

		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "copying a LUKS header into memory");
		if (n > 0) {
			data.p += n;
			data.len -= (size_t)n;
		}
	}
	return 0;
}

/* A file in memory of `size` bytes that begins with `content`, as libcryptsetup's device. */
static int container_open(struct container *c, struct vd_bytes content, uint64_t size, struct vd_error *e)
{
	char path[32];
	int r;

	c->fd = memfd_create("luks header", MFD_CLOEXEC);
	if (c->fd < 0)
		return vd_fail_errno(e, errno, "making a file in memory for a LUKS header");
	r = write_all(c->fd, content, e);
	if (r < 0)
		return r;
	if (ftruncate(c->fd, (off_t)size) < 0)
		return vd_fail_errno(e, errno, "making a file in memory of %llu bytes", (unsigned long long)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", c->fd);
	if (access(path, R_OK | W_OK) < 0)
		return vd_fail_errno(e, errno, "opening a LUKS header needs a mounted /proc, and %s", path);
	r = crypt_init(&c->cd, path);
	if (r < 0)
		return crypt_failed(r, "opening a LUKS header", e);
	crypt_set_log_callback(c->cd, drop_message, NULL);
	return 0;
}

/* ---- judging ---- */

/* As many bytes as the header had: what is done to it does not make it longer. */
static int read_same(int fd, size_t len, uint8_t **out, struct vd_error *e)
{
	vd_auto_free uint8_t *now = NULL;
	int r = vd_alloc(1, len, &now, e);

	if (r < 0)
		return r;
	if (pread(fd, now, len, 0) != (ssize_t)len)
		return vd_fail(e, VD_EFAILED, "libcryptsetup has left a short LUKS header");
	*out = vd_steal(&now);
	return 0;
}

static int unreadable(int version, struct vd_error *e)
{
	return vd_fail(e, VD_EAUTH, "the LUKS%d header is damaged or was tampered with%s", version,
		       version == 2 ? ": neither of its two copies is intact" : "");
}

/* libcryptsetup has mended the copy of a header that did not hold, in memory: 1 or 2; 0: none. */
static int find_mended(int fd, struct vd_bytes header, uint32_t *which, struct vd_error *e)
{
	vd_auto_free uint8_t *now = NULL;
	uint8_t head[16];
	uint64_t copy;
	int r;

	if (pread(fd, head, sizeof(head), 0) != sizeof(head))
		return vd_fail_errno(e, errno, "reading a LUKS header in memory");
	copy = vd_get_be64(head + 8);   /* hdr_size (LUKS2 spec 1.1.4, 2.1) */
	if (copy > VD_LUKS2_MAX_HDR || 2 * copy > header.len)
		return unreadable(2, e);
	r = read_same(fd, 2 * copy, &now, e);
	if (r == 0)
		*which = memcmp(now, header.p, copy) ? 1 : memcmp(now + copy, header.p + copy, copy) ? 2 : 0;
	return r;
}

static int judge_luks2(const struct container *c, struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e)
{
	const char *text, *uuid = crypt_get_uuid(c->cd);
	int r = crypt_dump_json(c->cd, &text, 0);

	if (r < 0)
		return crypt_failed(r, "reading the LUKS2 metadata", e);
	r = vd_luks2_judge((struct vd_bytes){ (const uint8_t *)text, strlen(text) }, header.len, info, e);
	if (r < 0)
		return r;
	snprintf(info->uuid, sizeof(info->uuid), "%s", uuid ? uuid : "");
	return find_mended(c->fd, header, &info->damaged_copy, e);
}

/* Both libraries must have read the same from the same bytes. */
static bool agrees(struct crypt_device *cd, const struct vd_luks_info *info)
{
	int key_bytes = crypt_get_volume_key_size(cd);

	return !strcmp(crypt_get_cipher(cd), info->cipher) && !strcmp(crypt_get_cipher_mode(cd), info->mode) &&
	       crypt_get_data_offset(cd) == info->payload_off / VD_LUKS_SECTOR &&
	       (!info->n_slots || key_bytes * 8 == (int)info->key_bits);
}

/* What took the place of the first copy would keep libcryptsetup from mending it. */
static int clear_first_copy(int fd, struct vd_error *e)
{
	static const uint8_t zeros[VD_LUKS2_BINARY_LEN];

	if (pwrite(fd, zeros, sizeof(zeros), 0) != sizeof(zeros))
		return vd_fail_errno(e, errno, "copying a LUKS header into memory");
	return 0;
}

/* LUKS1 is judged before libcryptsetup sees it; LUKS2 by what libcryptsetup found intact. */
static int load_type(struct container *c, int type, struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e)
{
	int r = type == VD_LUKS1 ? vd_luks1_judge(header, info, e) : 0;

	if (r < 0 || (r = container_open(c, header, vd_round_up(header.len, IO_ALIGN), e)) < 0)
		return r;
	if (!vd_luks_has_magic(header) && (r = clear_first_copy(c->fd, e)) < 0)
		return r;
	r = crypt_load(c->cd, type == VD_LUKS1 ? CRYPT_LUKS1 : CRYPT_LUKS2, NULL);
	if (r == -ENOMEM)
		return crypt_failed(r, "reading a LUKS header", e);
	if (r < 0)
		return unreadable(type, e);
	r = type == VD_LUKS2 ? judge_luks2(c, header, info, e) : 0;
	if (r < 0)
		return r;
	return agrees(c->cd, info) ? 0 : unreadable(type, e);
}

static int load(struct container *c, struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&loading);
	uint64_t extent;
	int type = vd_luks_search(header, &extent), r;

	if (!type)
		return vd_fail(e, VD_ECORRUPT, "there is no LUKS header");
	if (extent > header.len)
		r = vd_fail(e, VD_EAUTH, "the LUKS header is cut short: %zu of %llu bytes", header.len, (unsigned long long)extent);
	else
		r = load_type(c, type, header, info, e);
	if (r == VD_EAUTH)
		vd_hint(e, r, "a header like this was damaged or tampered with: vdisk key restore-header brings back what a "
			"backup of it holds, without which the data cannot be read");
	return r;
}

static int judge_payload(const struct vd_luks_info *info, size_t header_len, uint64_t container_len,
			 struct vd_error *e)
{
	if (info->payload_off < header_len || info->payload_off > container_len)
		return vd_fail(e, VD_EAUTH, "the payload of the LUKS container begins at %llu, outside of it or inside "
			       "its header", (unsigned long long)info->payload_off);
	if (!strcmp(info->mode, "xts-plain") && container_len - info->payload_off > VD_LUKS_SECTOR * ((uint64_t)1 << 32))
		return vd_fail(e, VD_EUNSUPPORTED, "xts-plain counts sectors in 32 bits, too few for a disk over 2 TiB");
	return 0;
}

int vd_luks_inspect(struct vd_bytes header, uint64_t container_len, struct vd_luks_info *info, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	uint64_t extent = 0;
	int r = load(&c, header, info, e);

	if (r < 0 || !container_len)
		return r;
	vd_luks_search(header, &extent);
	return judge_payload(info, extent, container_len, e);
}

int vd_luks_mend(uint8_t *header, size_t len, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	vd_auto_free uint8_t *sound = NULL;
	struct vd_luks_info info;
	int r = load(&c, (struct vd_bytes){ header, len }, &info, e);

	if (r == 0)
		r = read_same(c.fd, len, &sound, e);
	if (r == 0)
		memcpy(header, sound, len);
	return r;
}

/* The metadata of LUKS2 as text; of LUKS1, which has none, empty. */
static int metadata_of(struct crypt_device *cd, const struct vd_luks_info *info, struct vd_bytes *text, struct vd_error *e)
{
	const char *json = "";
	int r = info->version == 2 ? crypt_dump_json(cd, &json, 0) : 0;

	*text = (struct vd_bytes){ (const uint8_t *)json, strlen(json) };
	return r < 0 ? crypt_failed(r, "reading the LUKS2 metadata", e) : 0;
}

int vd_luks_dead_areas(struct vd_bytes header, struct vd_luks_area *areas, size_t *n, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	struct vd_luks_info info;
	struct vd_bytes text;
	int r = load(&c, header, &info, e);

	if (r == 0)
		r = metadata_of(c.cd, &info, &text, e);
	if (r == 0)
		*n = info.version == 1 ? vd_luks1_dead_areas(header, areas) : vd_luks2_dead_areas(text, header.len, areas);
	return r;
}

/* ---- unlocking ---- */

static int wrong_key(const struct vd_key *key, unsigned n_slots, struct vd_error *e)
{
	vd_fail(e, VD_EKEY, "the key opens none of the %u keyslots", n_slots);
	if (vd_key_ends_with_newline(key))
		return vd_hint(e, VD_EKEY, "the key ends with a newline, which counts: use --passphrase-file, which drops it");
	return vd_hint(e, VD_EKEY, "check the passphrase or key file; damaged key material in the header looks the same");
}

/* A volume key of another size, or a weak one, cannot come from a sound writer. */
static int judge_volume_key(const struct vd_secret *vk, uint32_t key_bits, struct vd_error *e)
{
	if (vk->len * 8 != key_bits)
		return vd_fail(e, VD_EAUTH, "the keyslot holds a key of %zu bits instead of %u", vk->len * 8, key_bits);
	if (!vd_xts_halves_differ(vk->p, vk->len))
		return vd_fail(e, VD_EAUTH, "the two halves of the volume key are equal, which makes AES-XTS weak");
	return 0;
}

/* The number of the keyslot that the secret opens, of `slot` alone or CRYPT_ANY_SLOT, and what is in it. */
static int open_with(struct crypt_device *cd, int slot, const struct vd_key *key, const struct vd_luks_info *info,
		     struct vd_secret *vk, struct vd_error *e)
{
	struct vd_bytes pass = vd_key_bytes(key);
	int r = vd_secret_alloc(vk, info->key_bits / 8, e);

	if (r < 0)
		return r;
	slot = crypt_volume_key_get(cd, slot, (char *)vk->p, &vk->len, (const char *)pass.p, pass.len);
	if (slot >= 0 && (r = judge_volume_key(vk, info->key_bits, e)) == 0)
		return slot;
	vd_secret_free(vk);
	if (slot == -EPERM || slot == -ENOENT)
		return wrong_key(key, info->n_slots, e);
	return slot < 0 ? crypt_failed(slot, "opening a keyslot", e) : r;
}

/* A try with a secret that a key command gave. */
struct attempt {
	struct crypt_device *cd;
	const struct vd_luks_info *info;
	struct vd_secret *vk;
};

static int attempt(void *ctx, int slot, const struct vd_key *key, struct vd_error *e)
{
	struct attempt *a = ctx;

	return open_with(a->cd, slot < 0 ? CRYPT_ANY_SLOT : slot, key, a->info, a->vk, e);
}

/* The number of the keyslot that the key opens, and what is in it. */
static int open_slot(const struct container *c, const struct vd_luks_view *view, const struct vd_key *key,
		     const struct vd_luks_info *info, struct vd_secret *vk, struct vd_error *e)
{
	struct attempt a = { c->cd, info, vk };
	struct vd_luks_tokens tokens = { .view = view, .info = info };
	int r;

	if (!info->n_slots)
		return vd_fail(e, VD_EKEY, "no keyslot is in use: the volume key is lost but for a header backup");
	if (!vd_key_is_command(key))
		return open_with(c->cd, CRYPT_ANY_SLOT, key, info, vk, e);
	r = metadata_of(c->cd, info, &tokens.metadata, e);
	return r < 0 ? r : vd_luks_open_by_token(&tokens, key, attempt, &a, e);
}

int vd_luks_unlock(const struct vd_luks_view *view, const struct vd_key *key, struct vd_secret *vk, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	vd_auto_secret struct vd_secret got = { 0 };
	struct vd_luks_info info;
	int r = load(&c, view->header, &info, e);

	if (r == 0)
		r = open_slot(&c, view, key, &info, &got, e);
	if (r < 0)
		return r;
	*vk = got;
	got = (struct vd_secret){ 0 };
	return 0;
}

/* ---- making ---- */

/* The costs that are asked for, defaults filled in, as they shall be read back. */
static struct vd_slot_info wanted_costs(enum vd_luks_type type, const char *hash, const struct vd_kdf_opts *kdf)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (type == VD_LUKS1)
		return (struct vd_slot_info){
			.kdf = CRYPT_KDF_PBKDF2, .hash = hash, .iterations = kdf->iterations ? kdf->iterations : 1000000,
		};
	return (struct vd_slot_info){
		.kdf = CRYPT_KDF_ARGON2ID, .hash = hash, .iterations = kdf->iterations ? kdf->iterations : 4,
		.memory_kib = kdf->memory_kib ? kdf->memory_kib : 256 << 10,
		.parallel = cpus < 1 ? 1 : cpus > 4 ? 4 : (uint32_t)cpus,
	};
}

/* A secret of 256 random bits is not guessed: its slot costs as little as a listing does not warn of. */
static struct vd_kdf_opts costs_of(enum vd_luks_type type, const struct vd_kdf_opts *asked, const struct vd_key *key)
{
	struct vd_kdf_opts kdf = *asked;

	if (!vd_key_is_command(key))
		return kdf;
	if (!kdf.iterations)
		kdf.iterations = type == VD_LUKS1 ? 100000 : VD_ARGON2_MIN_PASSES;
	if (!kdf.memory_kib && type == VD_LUKS2)
		kdf.memory_kib = 32 << 10;
	return kdf;
}

static int judge_costs(enum vd_luks_type type, const struct vd_kdf_opts *kdf, const struct vd_slot_info *want,
		       struct vd_error *e)
{
	if (type == VD_LUKS1 && kdf->memory_kib)
		return vd_fail(e, VD_EARG, "LUKS1 has PBKDF2 only, which has no memory cost; use LUKS2");
	if (type == VD_LUKS1 && want->iterations < VD_PBKDF2_MIN_ITERATIONS)
		return vd_fail(e, VD_EARG, "PBKDF2 takes at least %u iterations", VD_PBKDF2_MIN_ITERATIONS);
	if (type == VD_LUKS2 &&
	    (want->iterations < VD_ARGON2_MIN_PASSES || want->memory_kib < VD_ARGON2_MIN_KIB))
		return vd_fail(e, VD_EARG, "Argon2id takes at least %u passes and %u KiB", VD_ARGON2_MIN_PASSES,
			       VD_ARGON2_MIN_KIB);
	if (vd_kdf_judge(want, NULL) < 0)
		return vd_fail(e, VD_EARG, "a key derivation this costly is refused on opening");
	return 0;
}

static int judge_format(const struct vd_luks_format_opts *o, const struct vd_secret *vk, struct vd_error *e)
{
	if (o->type != VD_LUKS1 && o->type != VD_LUKS2)
		return vd_fail(e, VD_EARG, "LUKS has types 1 and 2, not %d", (int)o->type);
	if (vk->len != 32 && vk->len != 64)
		return vd_fail(e, VD_EARG, "AES-XTS takes volume keys of 32 or 64 bytes, not %zu", vk->len);
	if (!vd_xts_halves_differ(vk->p, vk->len))
		return vd_fail(e, VD_EKEY, "the two halves of the volume key are equal, which makes AES-XTS weak");
	if (o->sector_size != VD_LUKS_SECTOR && (o->type == VD_LUKS1 || o->sector_size != 4096))
		return vd_fail(e, VD_EARG, "LUKS%d does not take sectors of %u bytes here: 512%s", (int)o->type,
			       o->sector_size, o->type == VD_LUKS2 ? " or 4096" : "");
	if (o->payload_off && (o->payload_off % IO_ALIGN ||
			       o->payload_off < (o->type == VD_LUKS1 ? MIN_LUKS1_PAYLOAD : MIN_LUKS2_PAYLOAD)))
		return vd_fail(e, VD_EARG, "a LUKS%d payload cannot begin at %llu", (int)o->type,
			       (unsigned long long)o->payload_off);
	return 0;
}

/* Where a header by itself would have its payload, if it had one, is its end. */
static uint64_t header_room(const struct vd_luks_format_opts *o)
{
	return o->payload_off ? o->payload_off : vd_luks_payload_off(o->type);
}

static int set_layout(struct crypt_device *cd, const struct vd_luks_format_opts *o, struct vd_error *e)
{
	uint64_t keyslots = vd_min_u64(header_room(o), MAX_KEYSLOTS_END) - 2 * METADATA_SIZE;
	int r = o->payload_off ? crypt_set_data_offset(cd, o->payload_off / VD_LUKS_SECTOR) : 0;

	if (r == 0 && o->type == VD_LUKS2)
		r = crypt_set_metadata_size(cd, METADATA_SIZE, keyslots);
	return r < 0 ? crypt_failed(r, "placing the LUKS payload", e) : 0;
}

static int set_costs(struct crypt_device *cd, const struct vd_slot_info *want, struct vd_error *e)
{
	struct crypt_pbkdf_type kdf = {
		.type = want->kdf, .hash = want->hash, .iterations = (uint32_t)want->iterations,
		.max_memory_kb = want->memory_kib, .parallel_threads = want->parallel,
		.flags = CRYPT_PBKDF_NO_BENCHMARK,
	};
	int r = crypt_set_pbkdf_type(cd, &kdf);

	return r < 0 ? crypt_failed(r, "setting the cost of the key derivation", e) : 0;
}

/* `payload`: the device that it is for, where that is not the one with the header; else NULL. */
static int format(struct crypt_device *cd, const struct vd_luks_format_opts *o, const struct vd_secret *vk, const char *payload,
		  struct vd_error *e)
{
	struct crypt_params_luks1 luks1 = { .hash = "sha512", .data_device = payload };
	struct crypt_params_luks2 luks2 = { .sector_size = o->sector_size, .data_device = payload };
	bool is_luks1 = o->type == VD_LUKS1;
	int r = crypt_format(cd, is_luks1 ? CRYPT_LUKS1 : CRYPT_LUKS2, "aes", "xts-plain64", NULL, (const char *)vk->p,
			     vk->len, is_luks1 ? (void *)&luks1 : (void *)&luks2);

	return r < 0 ? crypt_failed(r, "making a LUKS header", e) : 0;
}

/* For a header by itself libcryptsetup wants to see another device, which has the payload. */
static int format_detached(struct container *c, const struct vd_luks_format_opts *o, const struct vd_secret *vk,
			   struct vd_error *e)
{
	auto_container struct container data = { .fd = -1 };
	char path[32];
	int r = container_open(&data, (struct vd_bytes){ 0 }, MIN_LUKS1_PAYLOAD, e);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", data.fd);
	return format(c->cd, o, vk, path, e);
}

/* A header without keyslots, in memory. */
static int make(struct container *c, const struct vd_luks_format_opts *o, const struct vd_slot_info *costs,
		const struct vd_secret *vk, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&loading);
	int r = container_open(c, (struct vd_bytes){ 0 }, header_room(o), e);

	if (r < 0 || (r = set_layout(c->cd, o, e)) < 0 || (r = set_costs(c->cd, costs, e)) < 0)
		return r;
	return o->payload_off ? format(c->cd, o, vk, NULL, e) : format_detached(c, o, vk, e);
}

/* The number of the new keyslot. */
static int add_keyslot(struct crypt_device *cd, const struct vd_secret *vk, const struct vd_key *key,
		       struct vd_error *e)
{
	struct vd_bytes pass = vd_key_bytes(key);
	int r = crypt_keyslot_add_by_volume_key(cd, CRYPT_ANY_SLOT, (const char *)vk->p, vk->len,
						(const char *)pass.p, pass.len);

	return r < 0 ? crypt_failed(r, "adding the keyslot", e) : r;
}

static int read_back(int fd, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	vd_auto_free uint8_t *made = NULL;
	uint8_t head[METADATA_SIZE];
	ssize_t n = pread(fd, head, sizeof(head), 0);
	uint64_t extent = 0;
	int r;

	if (n < 0 || !vd_luks_probe((struct vd_bytes){ head, (size_t)n }, &extent))
		return vd_fail(e, VD_EFAILED, "libcryptsetup has made no LUKS header");
	extent = vd_round_up(extent, IO_ALIGN);
	r = vd_alloc(1, extent, &made, e);
	if (r < 0)
		return r;
	if (pread(fd, made, extent, 0) != (ssize_t)extent)
		return vd_fail(e, VD_EFAILED, "libcryptsetup has made a short LUKS header");
	*out = vd_steal(&made);
	*out_len = extent;
	return 0;
}

/* I3. The number of threads may be lowered by libcryptsetup, silently; it changes nothing for an attacker. */
static int judge_made(struct vd_bytes made, const struct vd_luks_format_opts *o, const struct vd_slot_info *want,
		      const struct vd_secret *vk, struct vd_error *e)
{
	struct vd_luks_info info;
	const struct vd_slot_info *slot = &info.slots[0];
	int r = vd_luks_inspect(made, o->payload_off, &info, e);

	if (r < 0)
		return vd_error_prefix(e, r, "the new LUKS header: ");
	if (info.version != (uint32_t)o->type || info.key_bits != vk->len * 8 || info.sector_size != o->sector_size ||
	    info.payload_off != o->payload_off || info.n_slots != 1 || strcmp(slot->kdf, want->kdf) ||
	    slot->iterations != want->iterations || slot->memory_kib != want->memory_kib)
		return vd_fail(e, VD_EFAILED, "libcryptsetup has made another LUKS header than it was asked for");
	return 0;
}

int vd_luks_format(const struct vd_luks_format_opts *opts, const struct vd_secret *vk, const struct vd_key *key,
		   uint8_t **out, size_t *out_len, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	vd_auto_free uint8_t *made = NULL;
	struct vd_slot_info want = wanted_costs(opts->type, "sha512", &opts->kdf);
	size_t len = 0;
	int r = vd_key_judge_secret(key, "a new header", e);

	if (r < 0 || (r = judge_format(opts, vk, e)) < 0 || (r = judge_costs(opts->type, &opts->kdf, &want, e)) < 0)
		return r;
	r = make(&c, opts, &want, vk, e);
	if (r < 0 || (r = add_keyslot(c.cd, vk, key, e)) < 0 || (r = read_back(c.fd, &made, &len, e)) < 0)
		return r;
	r = judge_made((struct vd_bytes){ made, len }, opts, &want, vk, e);
	if (r < 0)
		return r;
	*out = vd_steal(&made);
	*out_len = len;
	return 0;
}

/* ---- changing ---- */

/* A header that was loaded, for a change of its keyslots. */
struct change {
	struct container c;
	struct vd_luks_info info;
	uint8_t *sound;                 /* the header's bytes, a damaged LUKS2 copy mended */
};

static void change_cleanup(struct change *ch)
{
	container_close(&ch->c);
	free(ch->sound);
}
#define auto_change __attribute__((cleanup(change_cleanup)))

static enum vd_luks_type type_of(const struct change *ch)
{
	return ch->info.version == 1 ? VD_LUKS1 : VD_LUKS2;
}

static int change_begin(struct change *ch, struct vd_bytes header, struct vd_error *e)
{
	int r = load(&ch->c, header, &ch->info, e);

	return r < 0 ? r : read_same(ch->c.fd, header.len, &ch->sound, e);
}

static int change_end(struct change *ch, struct vd_bytes header, enum vd_luks_act act, uint32_t slot,
		      struct vd_luks_edit *edit, struct vd_error *e)
{
	vd_auto_free uint8_t *now = NULL;
	struct vd_luks_info info;
	int r = read_same(ch->c.fd, header.len, &now, e);

	if (r == 0)
		r = vd_luks_inspect((struct vd_bytes){ now, header.len }, 0, &info, e);
	if (r == 0 && (strcmp(info.uuid, ch->info.uuid) || info.payload_off != ch->info.payload_off ||
		       info.n_slots != ch->info.n_slots + (act == VD_LUKS_ADD ? 1 : -1)))
		r = vd_fail(e, VD_EFAILED, "libcryptsetup has made another LUKS header than it was asked for");
	if (r < 0)
		return r;
	*edit = (struct vd_luks_edit){ .len = header.len, .slot = slot };
	r = vd_luks_plan(header, ch->sound, now, act, edit, e);
	if (r == 0)
		edit->now = vd_steal(&now);
	return r;
}

static int no_slot_left(const struct vd_luks_info *info, struct vd_error *e)
{
	vd_fail(e, VD_ENOSPC, "the LUKS%u header has no room for another keyslot: %u are in use", info->version, info->n_slots);
	return vd_hint(e, VD_ENOSPC, "remove one first: vdisk key list shows them");
}

/* What LUKS has no place for itself, as a token of LUKS2; `token`: that of a key command, or NULL. */
static int add_token(struct crypt_device *cd, uint32_t slot, const struct vd_luks_slot_opts *o, const char *token, struct vd_error *e)
{
	struct vd_slot_info said = { 0 };
	char json[512 + VD_KEY_TOKEN_MAX];
	int r;

	if (token)
		vd_luks_take_token(token, &said);
	snprintf(json, sizeof(json), "{\"type\":\"" VD_LUKS_TOKEN "\",\"keyslots\":[\"%u\"],\"label\":\"%s\",\"kind\":\"%s\","
		 "\"created\":\"%llu\"%s%s%s%s%s%s}", slot, o->label ? o->label : "", o->kind, (unsigned long long)o->created,
		 said.helper[0] ? ",\"helper\":\"" : "", said.helper, said.helper[0] ? "\"" : "",
		 said.is_machine_bound ? ",\"machine-bound\":true" : "", token ? ",\"token\":" : "", token ? token : "");
	r = crypt_token_json_set(cd, CRYPT_ANY_TOKEN, json);
	if (r < 0 && token) {
		vd_fail(e, VD_ENOSPC, "the LUKS2 header has no room for a token of %zu bytes", strlen(token));
		return vd_hint(e, VD_ENOSPC, "--new-token-file keeps it in a file instead; or remove a keyslot that has one");
	}
	return r < 0 ? crypt_failed(r, "labelling the keyslot", e) : 0;
}

/* The token of a keyslot that goes, goes too; tokens of others are theirs. */
static int drop_token(struct crypt_device *cd, uint32_t slot, struct vd_error *e)
{
	int max = crypt_token_max(CRYPT_LUKS2);

	for (int i = 0; i < max; i++) {
		const char *type;

		if (crypt_token_status(cd, i, &type) == CRYPT_TOKEN_INACTIVE || !type || strcmp(type, VD_LUKS_TOKEN) ||
		    crypt_token_is_assigned(cd, i, (int)slot))
			continue;
		if (crypt_token_json_set(cd, i, NULL) < 0)
			return vd_fail(e, VD_EFAILED, "libcryptsetup refuses to remove the label of keyslot %u", slot);
	}
	return 0;
}

/* I3: the costs as they are in the header now, and the key opens the slot. */
static int judge_added(const struct vd_luks_edit *edit, const struct vd_key *new, const struct vd_slot_info *want,
		       struct vd_error *e)
{
	struct vd_luks_view now = { .header = { edit->now, edit->len } };
	struct vd_luks_info info;
	uint32_t opened;
	int r = vd_luks_inspect(now.header, 0, &info, e);

	for (uint32_t i = 0; r == 0 && i < info.n_slots; i++)
		if (info.slots[i].index == edit->slot && (info.slots[i].iterations != want->iterations ||
							  info.slots[i].memory_kib != want->memory_kib))
			r = vd_fail(e, VD_EFAILED, "libcryptsetup has made the keyslot at another cost than asked for");
	if (r == 0)
		r = vd_luks_find_slot(&now, new, &opened, e);
	return r;
}

/* The secret of a new slot: the user's, or one that a key command has sealed. */
struct new_secret {
	const struct vd_key *key;
	struct vd_key *sealed;
	char token[VD_KEY_TOKEN_MAX + 1];       /* "": there is none */
	bool is_kept;                           /* by the user, in a file */
};

static void new_secret_cleanup(struct new_secret *s)
{
	vd_key_free(s->sealed);
}
#define auto_new_secret __attribute__((cleanup(new_secret_cleanup)))

static int seal(struct new_secret *s, const struct vd_luks_view *view, const struct vd_luks_info *info, struct vd_error *e)
{
	const struct vd_key_image image = { view->image, info->uuid };
	int r;

	if (!vd_key_is_command(s->key))
		return 0;
	r = vd_key_command_seal(vd_key_command_of(s->key), &image, &s->sealed, s->token, e);
	s->is_kept = vd_key_token_file(s->key) != NULL;
	s->key = s->sealed;
	return r;
}

static int add_slot(struct change *ch, const struct vd_luks_view *view, const struct vd_key *any, struct new_secret *new,
		    const struct vd_luks_slot_opts *o, const struct vd_slot_info *want, struct vd_error *e)
{
	vd_auto_secret struct vd_secret vk = { 0 };
	int r = open_slot(&ch->c, view, any, &ch->info, &vk, e), slot;

	if (r >= 0)
		r = seal(new, view, &ch->info, e);
	if (r >= 0)
		r = set_costs(ch->c.cd, want, e);
	if (r < 0)
		return r;
	slot = add_keyslot(ch->c.cd, &vk, new->key, e);
	if (slot >= 0 && ch->info.version == 2)
		r = add_token(ch->c.cd, (uint32_t)slot, o, new->token[0] && !new->is_kept ? new->token : NULL, e);
	return r < 0 ? r : slot;
}

int vd_luks_add_slot(const struct vd_luks_view *view, const struct vd_key *any, const struct vd_key *new,
		     const struct vd_luks_slot_opts *o, struct vd_luks_edit *edit, struct vd_error *e)
{
	auto_change struct change ch = { .c.fd = -1 };
	auto_new_secret struct new_secret secret = { .key = new };
	struct vd_slot_info want;
	struct vd_kdf_opts kdf;
	int r = change_begin(&ch, view->header, e), slot;

	if (r < 0)
		return r;
	if (crypt_keyslot_max(ch.info.version == 1 ? CRYPT_LUKS1 : CRYPT_LUKS2) <= (int)ch.info.n_slots)
		return no_slot_left(&ch.info, e);
	kdf = costs_of(type_of(&ch), &o->kdf, new);
	/* LUKS1 has one hash for all slots. */
	want = wanted_costs(type_of(&ch), ch.info.version == 1 ? ch.info.hash : "sha512", &kdf);
	r = judge_costs(type_of(&ch), &kdf, &want, e);
	if (r < 0)
		return r;
	slot = add_slot(&ch, view, any, &secret, o, &want, e);
	if (slot < 0)
		return slot;
	r = change_end(&ch, view->header, VD_LUKS_ADD, (uint32_t)slot, edit, e);
	if (r == 0)
		r = judge_added(edit, secret.key, &want, e);
	if (r == 0 && secret.token[0])
		r = vd_strdup(secret.token, &edit->token, e);
	if (r < 0)
		vd_luks_edit_free(edit);
	return r;
}

int vd_luks_remove_slot(struct vd_bytes header, uint32_t slot, struct vd_luks_edit *edit, struct vd_error *e)
{
	auto_change struct change ch = { .c.fd = -1 };
	int r = change_begin(&ch, header, e);

	if (r == 0 && ch.info.version == 2)
		r = drop_token(ch.c.cd, slot, e);
	if (r < 0)
		return r;
	r = crypt_keyslot_destroy(ch.c.cd, (int)slot);
	if (r < 0)
		return crypt_failed(r, "removing a keyslot", e);
	return change_end(&ch, header, VD_LUKS_REMOVE, slot, edit, e);
}

int vd_luks_find_slot(const struct vd_luks_view *view, const struct vd_key *key, uint32_t *slot, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	vd_auto_secret struct vd_secret vk = { 0 };
	struct vd_luks_info info;
	int r = load(&c, view->header, &info, e);

	if (r == 0)
		r = open_slot(&c, view, key, &info, &vk, e);
	if (r < 0)
		return r;
	*slot = (uint32_t)r;
	return 0;
}
