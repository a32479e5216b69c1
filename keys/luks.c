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

static int judge_luks2(struct crypt_device *cd, size_t header_len, struct vd_luks_info *info, struct vd_error *e)
{
	const char *text, *uuid = crypt_get_uuid(cd);
	int r = crypt_dump_json(cd, &text, 0);

	if (r < 0)
		return crypt_failed(r, "reading the LUKS2 metadata", e);
	r = vd_luks2_judge((struct vd_bytes){ (const uint8_t *)text, strlen(text) }, header_len, info, e);
	if (r < 0)
		return r;
	snprintf(info->uuid, sizeof(info->uuid), "%s", uuid ? uuid : "");
	return 0;
}

static int unreadable(int version, struct vd_error *e)
{
	vd_fail(e, VD_ECORRUPT, "the LUKS%d header is damaged%s", version,
		version == 2 ? ": neither of its two copies is intact" : "");
	return vd_hint(e, VD_ECORRUPT, "restore it from a header backup: without a header the data cannot be read");
}

/* Both libraries must have read the same from the same bytes. */
static bool agrees(struct crypt_device *cd, const struct vd_luks_info *info)
{
	int key_bytes = crypt_get_volume_key_size(cd);

	return !strcmp(crypt_get_cipher(cd), info->cipher) && !strcmp(crypt_get_cipher_mode(cd), info->mode) &&
	       crypt_get_data_offset(cd) == info->payload_off / VD_LUKS_SECTOR &&
	       (!info->n_slots || key_bytes * 8 == (int)info->key_bits);
}

/* LUKS1 is judged before libcryptsetup sees it; LUKS2 by what libcryptsetup found intact. */
static int load(struct container *c, struct vd_bytes header, struct vd_luks_info *info, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&loading);
	uint64_t extent;
	int type = vd_luks_probe(header, &extent), r;

	if (!type)
		return vd_fail(e, VD_ECORRUPT, "there is no LUKS header");
	if (extent > header.len)
		return vd_fail(e, VD_ECORRUPT, "the LUKS header is cut short: %zu of %llu bytes", header.len,
			       (unsigned long long)extent);
	r = type == VD_LUKS1 ? vd_luks1_judge(header, info, e) : 0;
	if (r < 0 || (r = container_open(c, header, vd_round_up(header.len, IO_ALIGN), e)) < 0)
		return r;
	r = crypt_load(c->cd, type == VD_LUKS1 ? CRYPT_LUKS1 : CRYPT_LUKS2, NULL);
	if (r == -ENOMEM)
		return crypt_failed(r, "reading a LUKS header", e);
	if (r < 0)
		return unreadable(type, e);
	r = type == VD_LUKS2 ? judge_luks2(c->cd, header.len, info, e) : 0;
	if (r < 0)
		return r;
	return agrees(c->cd, info) ? 0 : unreadable(type, e);
}

static int judge_payload(const struct vd_luks_info *info, size_t header_len, uint64_t container_len,
			 struct vd_error *e)
{
	if (info->payload_off < header_len || info->payload_off > container_len)
		return vd_fail(e, VD_ECORRUPT, "the payload of the LUKS container begins at %llu, outside of it or inside "
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
	vd_luks_probe(header, &extent);
	return judge_payload(info, extent, container_len, e);
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
		return vd_fail(e, VD_ECORRUPT, "the keyslot holds a key of %zu bits instead of %u", vk->len * 8, key_bits);
	if (!vd_xts_halves_differ(vk->p, vk->len))
		return vd_fail(e, VD_ECORRUPT, "the two halves of the volume key are equal, which makes AES-XTS weak");
	return 0;
}

int vd_luks_unlock(struct vd_bytes header, const struct vd_key *key, struct vd_secret *vk, struct vd_error *e)
{
	auto_container struct container c = { .fd = -1 };
	vd_auto_secret struct vd_secret got = { 0 };
	struct vd_bytes pass = vd_key_bytes(key);
	struct vd_luks_info info;
	int r = load(&c, header, &info, e);

	if (r < 0)
		return r;
	if (!info.n_slots)
		return vd_fail(e, VD_EKEY, "no keyslot is in use: the volume key is lost but for a header backup");
	r = vd_secret_alloc(&got, info.key_bits / 8, e);
	if (r < 0)
		return r;
	r = crypt_volume_key_get(c.cd, CRYPT_ANY_SLOT, (char *)got.p, &got.len, (const char *)pass.p, pass.len);
	if (r == -EPERM || r == -ENOENT)
		return wrong_key(key, info.n_slots, e);
	if (r < 0)
		return crypt_failed(r, "opening a keyslot", e);
	r = judge_volume_key(&got, info.key_bits, e);
	if (r < 0)
		return r;
	*vk = got;
	got = (struct vd_secret){ 0 };
	return 0;
}

/* ---- making ---- */

/* The costs that are asked for, defaults filled in, as they shall be read back. */
static struct vd_slot_info wanted_costs(const struct vd_luks_format_opts *o)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (o->type == VD_LUKS1)
		return (struct vd_slot_info){
			.kdf = CRYPT_KDF_PBKDF2, .hash = "sha512",
			.iterations = o->kdf.iterations ? o->kdf.iterations : 1000000,
		};
	return (struct vd_slot_info){
		.kdf = CRYPT_KDF_ARGON2ID, .iterations = o->kdf.iterations ? o->kdf.iterations : 4,
		.memory_kib = o->kdf.memory_kib ? o->kdf.memory_kib : 256 << 10,
		.parallel = cpus < 1 ? 1 : cpus > 4 ? 4 : (uint32_t)cpus,
	};
}

static int judge_costs(const struct vd_luks_format_opts *o, const struct vd_slot_info *want, struct vd_error *e)
{
	if (o->type == VD_LUKS1 && o->kdf.memory_kib)
		return vd_fail(e, VD_EARG, "LUKS1 has PBKDF2 only, which has no memory cost; use LUKS2");
	if (o->type == VD_LUKS1 && want->iterations < VD_PBKDF2_MIN_ITERATIONS)
		return vd_fail(e, VD_EARG, "PBKDF2 takes at least %u iterations", VD_PBKDF2_MIN_ITERATIONS);
	if (o->type == VD_LUKS2 &&
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
	if (o->payload_off % IO_ALIGN ||
	    o->payload_off < (o->type == VD_LUKS1 ? MIN_LUKS1_PAYLOAD : MIN_LUKS2_PAYLOAD))
		return vd_fail(e, VD_EARG, "a LUKS%d payload cannot begin at %llu", (int)o->type,
			       (unsigned long long)o->payload_off);
	return 0;
}

static int set_layout(struct crypt_device *cd, const struct vd_luks_format_opts *o, struct vd_error *e)
{
	uint64_t keyslots = vd_min_u64(o->payload_off, MAX_KEYSLOTS_END) - 2 * METADATA_SIZE;
	int r = crypt_set_data_offset(cd, o->payload_off / VD_LUKS_SECTOR);

	if (r == 0 && o->type == VD_LUKS2)
		r = crypt_set_metadata_size(cd, METADATA_SIZE, keyslots);
	return r < 0 ? crypt_failed(r, "placing the LUKS payload", e) : 0;
}

static int set_costs(struct crypt_device *cd, const struct vd_slot_info *want, struct vd_error *e)
{
	struct crypt_pbkdf_type kdf = {
		.type = want->kdf, .hash = "sha512", .iterations = (uint32_t)want->iterations,
		.max_memory_kb = want->memory_kib, .parallel_threads = want->parallel,
		.flags = CRYPT_PBKDF_NO_BENCHMARK,
	};
	int r = crypt_set_pbkdf_type(cd, &kdf);

	return r < 0 ? crypt_failed(r, "setting the cost of the key derivation", e) : 0;
}

static int format(struct crypt_device *cd, const struct vd_luks_format_opts *o, const struct vd_secret *vk,
		  struct vd_error *e)
{
	struct crypt_params_luks1 luks1 = { .hash = "sha512" };
	struct crypt_params_luks2 luks2 = { .sector_size = o->sector_size };
	bool is_luks1 = o->type == VD_LUKS1;
	int r = crypt_format(cd, is_luks1 ? CRYPT_LUKS1 : CRYPT_LUKS2, "aes", "xts-plain64", NULL, (const char *)vk->p,
			     vk->len, is_luks1 ? (void *)&luks1 : (void *)&luks2);

	return r < 0 ? crypt_failed(r, "making a LUKS header", e) : 0;
}

/* A header without keyslots, in memory. */
static int make(struct container *c, const struct vd_luks_format_opts *o, const struct vd_slot_info *costs,
		const struct vd_secret *vk, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&loading);
	int r = container_open(c, (struct vd_bytes){ 0 }, o->payload_off, e);

	if (r < 0 || (r = set_layout(c->cd, o, e)) < 0 || (r = set_costs(c->cd, costs, e)) < 0)
		return r;
	return format(c->cd, o, vk, e);
}

static int add_keyslot(struct crypt_device *cd, const struct vd_secret *vk, const struct vd_key *key,
		       struct vd_error *e)
{
	struct vd_bytes pass = vd_key_bytes(key);
	int r = crypt_keyslot_add_by_volume_key(cd, CRYPT_ANY_SLOT, (const char *)vk->p, vk->len,
						(const char *)pass.p, pass.len);

	return r < 0 ? crypt_failed(r, "adding the keyslot", e) : 0;
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
	struct vd_slot_info want = wanted_costs(opts);
	size_t len = 0;
	int r = judge_format(opts, vk, e);

	if (r < 0 || (r = judge_costs(opts, &want, e)) < 0)
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
