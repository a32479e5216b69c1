/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packing and unpacking by every combination of libraries that this build has, against foreign streams and bad ones.
 * All buffers end at an unreadable page: the fast libraries are assembly that no sanitizer watches.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/bytes.h"
#include "libvdisk/codec/coder.h"

#define UNIT ((size_t)65536)
#define ROOM (2 * UNIT)         /* for packed bytes */

/* ---- the combinations ---- */

struct combination {
	const char *name;
	const struct vd_coder *packer, *unpacker;
};

static const struct combination combinations[] = {
	{ "zlib + zlib", &vd_zlib_packer, &vd_zlib_unpacker },
#ifdef VD_HAVE_ISAL
	{ "ISA-L + zlib", &vd_isal_packer, &vd_zlib_unpacker },
#endif
#ifdef VD_HAVE_LIBDEFLATE
	{ "zlib + libdeflate", &vd_zlib_packer, &vd_libdeflate_unpacker },
#endif
#if defined(VD_HAVE_ISAL) && defined(VD_HAVE_LIBDEFLATE)
	{ "ISA-L + libdeflate", &vd_isal_packer, &vd_libdeflate_unpacker },
#endif
};
#define N_COMBINATIONS (sizeof(combinations) / sizeof(combinations[0]))

static const enum vd_codec_kind kinds[] = { VD_CODEC_DEFLATE12, VD_CODEC_ZSTD, VD_CODEC_ZLIB };
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct vd_codec *codec_of(size_t i)
{
	struct vd_codec *c;

	assert_int_equal(vd_codec_new_with(combinations[i].packer, combinations[i].unpacker, &c, NULL), 0);
	return c;
}

/* ---- data ---- */

/* The last len bytes of a buffer that ends where an unreadable page begins. */
enum buffer { SRC, PACKED, CUT, BACK, N_BUFFERS };
static uint8_t *guarded(enum buffer which, size_t len)
{
	static uint8_t *pages[N_BUFFERS];
	uint8_t **p = &pages[which];

	if (!*p) {
		*p = mmap(NULL, ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(*p != MAP_FAILED);
		assert_int_equal(mprotect(*p + ROOM, 4096, PROT_NONE), 0);
	}
	assert_true(len <= ROOM);
	return *p + ROOM - len;
}

/* Moves the n packed bytes from the start of their buffer to its end. */
static uint8_t *to_the_edge(size_t n)
{
	return memmove(guarded(PACKED, n), guarded(PACKED, ROOM), n);
}

static uint32_t next_random(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

enum content { ZEROS, TEXT, DISTANT, NOISE, N_CONTENTS };

/* TEXT repeats nearby; DISTANT repeats noise at distances up to the whole unit, so that a large window would be used. */
static void fill(enum content content, uint8_t *p, size_t len)
{
	uint32_t x = 0x12345678 + content;

	for (size_t i = 0; i < len; i++) {
		if (content == ZEROS)
			p[i] = 0;
		else if (content == TEXT)
			p[i] = (uint8_t)("etaoin shrdlu"[next_random(&x) % 13]);
		else
			p[i] = (uint8_t)next_random(&x);
	}
	for (size_t at = 8192; content == DISTANT && at + 256 <= len; at += 300)
		memcpy(p + at, p + next_random(&x) % (at - 256), 256);
}

static uint8_t *unit_of(enum content content)
{
	uint8_t *p = guarded(SRC, UNIT);

	fill(content, p, UNIT);
	return p;
}

/* A stream by zlib itself; window_bits as deflateInit2 takes them. */
static size_t zlib_stream(uint8_t *dst, size_t cap, const void *src, size_t len, int level, int window_bits, int strategy)
{
	z_stream z = { .next_in = (Bytef *)src, .avail_in = (uInt)len, .next_out = dst, .avail_out = (uInt)cap };

	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, window_bits, 8, strategy), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static int unpack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_len, const void *src, size_t len)
{
	struct vd_error e = { 0 };
	int r = vd_codec_unpack(c, kind, dst, dst_len, src, len, &e);

	if (r < 0)
		assert_true(e.message[0] != '\0');
	return r;
}

static size_t pack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t cap, const void *src, size_t len)
{
	size_t n = 12345;

	assert_int_equal(vd_codec_pack(c, kind, dst, cap, src, len, &n, NULL), 0);
	return n;
}

/* ---- claims ---- */

static void what_is_packed_comes_back(void **state)
{
	static const size_t sizes[] = { 1, 511, 512, 4096, UNIT - 1, UNIT };

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS * N_CONTENTS * 6; i++) {
		struct vd_codec *c = codec_of(i % N_COMBINATIONS);
		enum vd_codec_kind kind = kinds[i / N_COMBINATIONS % N_KINDS];
		size_t len = sizes[i / N_COMBINATIONS / N_KINDS % 6], n;
		uint8_t *src = unit_of(i / N_COMBINATIONS / N_KINDS / 6) + UNIT - len, *back = guarded(BACK, len);

		n = pack(c, kind, guarded(PACKED, ROOM), ROOM, src, len);
		assert_int_not_equal(n, 0);
		assert_int_equal(unpack(c, kind, back, len, to_the_edge(n), n), 0);
		assert_memory_equal(back, src, len);
		vd_codec_free(c);
	}
}

/* Steps of 1 KiB through zlib's inflate with a window of 4 KiB: a longer distance would show as an error or as garbage. */
static void packed_deflate_streams_through_a_4_kib_window(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_CONTENTS; i++) {
		struct vd_codec *c = codec_of(i / N_CONTENTS);
		uint8_t *src = unit_of(i % N_CONTENTS), *packed = guarded(PACKED, ROOM), step[1024];
		size_t n = pack(c, VD_CODEC_DEFLATE12, packed, ROOM, src, UNIT);
		z_stream z = { .next_in = packed, .avail_in = (uInt)n };

		assert_int_equal(inflateInit2(&z, -12), Z_OK);
		for (size_t at = 0; at < UNIT; at += sizeof(step)) {
			z.next_out = step;
			z.avail_out = sizeof(step);
			assert_in_range(inflate(&z, Z_SYNC_FLUSH), Z_OK, Z_STREAM_END);
			assert_memory_equal(step, src + at, sizeof(step));
		}
		inflateEnd(&z);
		vd_codec_free(c);
	}
}

/* The test above can fail: the same data packed with a window of 32 KiB do not pass it. */
static void the_window_test_sees_longer_distances(void **state)
{
	uint8_t *src = unit_of(DISTANT), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
	size_t n = zlib_stream(packed, ROOM, src, UNIT, 6, -15, Z_DEFAULT_STRATEGY);
	z_stream z = { .next_in = packed, .avail_in = (uInt)n };
	bool same = true;

	(void)state;
	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	for (size_t at = 0; at < UNIT && same; at += 1024) {
		z.next_out = back + at;
		z.avail_out = 1024;
		same = inflate(&z, Z_SYNC_FLUSH) >= 0 && !memcmp(back + at, src + at, 1024);
	}
	inflateEnd(&z);
	assert_false(same);
}

static void streams_of_other_deflate_writers_unpack(void **state)
{
	static const struct {
		int level, window_bits, strategy;
	} writers[] = {
		{ 6, -12, Z_DEFAULT_STRATEGY },  /* qemu */
		{ 9, -15, Z_DEFAULT_STRATEGY },  /* longer distances than the format allows: qemu reads them too */
		{ 0, -12, Z_DEFAULT_STRATEGY },  /* stored blocks */
		{ 6, -12, Z_FIXED }, { 6, -12, Z_HUFFMAN_ONLY }, { 1, -9, Z_RLE },
	};

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * 6 * N_CONTENTS; i++) {
		struct vd_codec *c = codec_of(i % N_COMBINATIONS);
		size_t w = i / N_COMBINATIONS % 6, n;
		uint8_t *src = unit_of(i / N_COMBINATIONS / 6), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);

		n = zlib_stream(packed, ROOM, src, UNIT, writers[w].level, writers[w].window_bits, writers[w].strategy);
		assert_int_equal(unpack(c, VD_CODEC_DEFLATE12, back, UNIT, to_the_edge(n), n), 0);
		assert_memory_equal(back, src, UNIT);
		vd_codec_free(c);
	}
}

/* A unit in three frames with an empty and a skippable one among them; sizes unknown, checksums on. */
static void zstd_frames_in_a_row_unpack(void **state)
{
	struct vd_codec *c = codec_of(0);
	uint8_t *src = unit_of(TEXT), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
	static const size_t cuts[] = { 0, 100, 100, 40000, UNIT };
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_outBuffer out = { packed, ROOM, 0 };

	(void)state;
	ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
	ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
	for (int i = 0; i < 4; i++) {
		ZSTD_inBuffer in = { src + cuts[i], cuts[i + 1] - cuts[i], 0 };

		assert_int_equal(ZSTD_compressStream2(z, &out, &in, ZSTD_e_end), 0);
		memcpy(packed + out.pos, "\x50\x2a\x4d\x18\x03\0\0\0abc", 11);
		out.pos += 11;
	}
	ZSTD_freeCCtx(z);
	memset(packed + out.pos, 0xa5, 300);
	assert_int_equal(unpack(c, VD_CODEC_ZSTD, back, UNIT, packed, out.pos + 300), 0);
	assert_memory_equal(back, src, UNIT);
	vd_codec_free(c);
}

/* A window of 1 GiB, which a reader that streams would have to allocate or refuse. */
static void a_zstd_frame_with_a_huge_window_unpacks(void **state)
{
	struct vd_codec *c = codec_of(0);
	uint8_t *src = unit_of(TEXT), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_outBuffer out = { packed, ROOM, 0 };
	ZSTD_inBuffer first = { src, 1000, 0 }, rest = { src + 1000, UNIT - 1000, 0 };

	(void)state;
	ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, 30);
	ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
	assert_false(ZSTD_isError(ZSTD_compressStream2(z, &out, &first, ZSTD_e_flush)));
	assert_int_equal(ZSTD_compressStream2(z, &out, &rest, ZSTD_e_end), 0);
	ZSTD_freeCCtx(z);
	assert_int_equal(unpack(c, VD_CODEC_ZSTD, back, UNIT, packed, out.pos), 0);
	assert_memory_equal(back, src, UNIT);
	vd_codec_free(c);
}

static void bytes_after_the_stream_are_ignored(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS; i++) {
		struct vd_codec *c = codec_of(i / N_KINDS);
		uint8_t *src = unit_of(TEXT), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
		size_t n = pack(c, kinds[i % N_KINDS], packed, ROOM, src, UNIT);

		for (size_t extra = 1; extra <= 1024; extra *= 2) {
			memset(packed + n, extra & 1 ? 0 : 0xa5, extra);
			assert_int_equal(unpack(c, kinds[i % N_KINDS], back, UNIT, packed, n + extra), 0);
			assert_memory_equal(back, src, UNIT);
		}
		vd_codec_free(c);
	}
}

static void streams_of_another_size_are_corrupt(void **state)
{
	static const size_t sizes[] = { 0, 1, UNIT - 1, UNIT + 1, 2 * UNIT, 8 << 20 };
	uint8_t *big = calloc(1, 8 << 20);

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS * 6; i++) {
		struct vd_codec *c = codec_of(i % N_COMBINATIONS);
		enum vd_codec_kind kind = kinds[i / N_COMBINATIONS % N_KINDS];
		uint8_t *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
		size_t len = sizes[i / N_COMBINATIONS / N_KINDS], n;

		if (kind == VD_CODEC_ZSTD)
			n = ZSTD_compress(packed, ROOM, big, len, 3);
		else
			n = zlib_stream(packed, ROOM, big, len, 6, kind == VD_CODEC_ZLIB ? 15 : -12, Z_DEFAULT_STRATEGY);
		assert_int_equal(unpack(c, kind, back, UNIT, packed, n), VD_ECORRUPT);
		vd_codec_free(c);
	}
	free(big);
}

static void truncated_streams_are_corrupt(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS; i++) {
		struct vd_codec *c = codec_of(i / N_KINDS);
		uint8_t *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
		size_t n = pack(c, kinds[i % N_KINDS], packed, ROOM, unit_of(TEXT), UNIT);

		for (size_t len = 0; len < n; len += 1 + len / 50) {
			uint8_t *cut = memcpy(guarded(CUT, len), packed, len);

			assert_int_equal(unpack(c, kinds[i % N_KINDS], back, UNIT, cut, len), VD_ECORRUPT);
		}
		vd_codec_free(c);
	}
}

/* A flipped byte may give another valid stream; it never writes past the end, and a refusal has the right code. */
static void damaged_streams_fail_cleanly(void **state)
{
	uint32_t x = 99;

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS; i++) {
		struct vd_codec *c = codec_of(i / N_KINDS);
		uint8_t *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT), *src = unit_of(TEXT);
		size_t n = pack(c, kinds[i % N_KINDS], packed, ROOM, src, UNIT), refused = 0;

		for (int k = 0; k < 500; k++) {
			uint8_t *at = packed + next_random(&x) % n, old = *at;
			int r;

			*at ^= (uint8_t)(1u << next_random(&x) % 8);
			r = unpack(c, kinds[i % N_KINDS], back, UNIT, packed, n);
			assert_true(r == 0 || r == VD_ECORRUPT);
			refused += r < 0;
			*at = old;
		}
		assert_int_not_equal(refused, 0);
		assert_int_equal(unpack(c, kinds[i % N_KINDS], back, UNIT, packed, n), 0);
		assert_memory_equal(back, src, UNIT);
		vd_codec_free(c);
	}
}

static void what_does_not_fit_is_told_by_zero(void **state)
{
	static const size_t caps[] = { 0, 1, 7, 100, 4096, UNIT - 512, UNIT - 1 };

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS * 7; i++) {
		struct vd_codec *c = codec_of(i % N_COMBINATIONS);
		enum vd_codec_kind kind = kinds[i / N_COMBINATIONS % N_KINDS];
		size_t cap = caps[i / N_COMBINATIONS / N_KINDS];

		assert_int_equal(pack(c, kind, guarded(CUT, cap), cap, unit_of(NOISE), UNIT), 0);
		/* The handle is as good as new afterwards. */
		assert_int_not_equal(pack(c, kind, guarded(PACKED, ROOM), ROOM, unit_of(TEXT), UNIT), 0);
		vd_codec_free(c);
	}
}

static void a_result_that_just_fits_is_given(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS * N_KINDS; i++) {
		struct vd_codec *c = codec_of(i / N_KINDS);
		uint8_t *src = unit_of(TEXT), *back = guarded(BACK, UNIT);
		size_t n = pack(c, kinds[i % N_KINDS], guarded(PACKED, ROOM), ROOM, src, UNIT), got = 0;
		uint8_t *tight = NULL;

		/* A packer may want a few bytes of slack, never more than these. */
		for (size_t cap = n; !got && cap < n + 64; cap++) {
			tight = guarded(CUT, cap);
			got = pack(c, kinds[i % N_KINDS], tight, cap, src, UNIT);
		}
		assert_int_not_equal(got, 0);
		assert_int_equal(unpack(c, kinds[i % N_KINDS], back, UNIT, tight, got), 0);
		assert_memory_equal(back, src, UNIT);
		vd_codec_free(c);
	}
}

static void unknown_types_and_sizes_are_refused(void **state)
{
	struct vd_codec *c;
	struct vd_error e = { 0 };
	uint8_t b[16] = { 0 };
	size_t n;

	(void)state;
	assert_int_equal(vd_codec_new(&c, &e), 0);
	assert_int_equal(vd_codec_unpack(c, VD_CODEC_NONE, b, 16, b, 16, &e), VD_EUNSUPPORTED);
	assert_int_equal(vd_codec_pack(c, (enum vd_codec_kind)7, b, 16, b, 16, &n, &e), VD_EUNSUPPORTED);
	assert_int_equal(vd_codec_unpack(c, VD_CODEC_ZSTD, b, (size_t)1 << 31, b, 16, &e), VD_EARG);
	assert_int_equal(vd_codec_pack(c, VD_CODEC_ZSTD, b, 16, b, (size_t)1 << 31, &n, &e), VD_EARG);
	vd_codec_free(c);
	vd_codec_free(NULL);
}

static void want_of_memory_is_reported(void **state)
{
	struct vd_error e = { 0 };
	uint8_t b[64] = { 0 };

	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS; i++) {
		struct vd_codec *c = NULL;
		size_t n = 0;
		int r;

		vd_alloc_fail_after(0);
		assert_int_equal(vd_codec_new_with(combinations[i].packer, combinations[i].unpacker, &c, &e), VD_ENOMEM);
		c = codec_of(i);
		vd_alloc_fail_after(0);
		r = vd_codec_pack(c, VD_CODEC_DEFLATE12, b, sizeof(b), b, 1, &n, &e);
		vd_alloc_fail_after(-1);
		assert_int_equal(r, VD_ENOMEM);
		assert_int_equal(vd_codec_pack(c, VD_CODEC_DEFLATE12, b, sizeof(b), b, 1, &n, &e), 0);
		vd_codec_free(c);
	}
}

/* ---- threads ---- */

enum { N_THREADS = 6, ROUNDS = 40 };
struct worker {
	pthread_t thread;
	struct vd_codec *c;
	enum content content;
	bool held;
};

static void *pack_and_unpack(void *arg)
{
	struct worker *w = arg;
	uint8_t *src = malloc(UNIT), *packed = malloc(ROOM), *back = malloc(UNIT);

	fill(w->content, src, UNIT);
	w->held = true;
	for (int i = 0; i < ROUNDS && w->held; i++) {
		size_t n = 0;

		w->held = !vd_codec_pack(w->c, kinds[i % N_KINDS], packed, ROOM, src, UNIT, &n, NULL) && n &&
			  !vd_codec_unpack(w->c, kinds[i % N_KINDS], back, UNIT, packed, n, NULL) &&
			  !memcmp(back, src, UNIT);
	}
	free(src);
	free(packed);
	free(back);
	return NULL;
}

static void threads_share_one_context(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_COMBINATIONS; i++) {
		struct vd_codec *c = codec_of(i);
		struct worker w[N_THREADS];

		for (int t = 0; t < N_THREADS; t++) {
			w[t] = (struct worker){ .c = c, .content = t % N_CONTENTS };
			assert_int_equal(pthread_create(&w[t].thread, NULL, pack_and_unpack, &w[t]), 0);
		}
		for (int t = 0; t < N_THREADS; t++) {
			pthread_join(w[t].thread, NULL);
			assert_true(w[t].held);
		}
		vd_codec_free(c);
	}
}

/* ---- the peer ---- */

/* Reads the packed bytes of guest cluster 0 from a qcow2 file of 64 KiB clusters: where they are by the tables' layout. */
static size_t cluster_0_of(const char *path, uint8_t *packed)
{
	FILE *f = fopen(path, "rb");
	uint8_t b[8];
	uint64_t entry;
	size_t n;

	assert_non_null(f);
	assert_true(!fseek(f, 40, SEEK_SET) && fread(b, 8, 1, f) == 1);
	assert_true(!fseek(f, (long)vd_get_be64(b), SEEK_SET) && fread(b, 8, 1, f) == 1);
	assert_true(!fseek(f, (long)(vd_get_be64(b) & 0xfffffffffffe00), SEEK_SET) && fread(b, 8, 1, f) == 1);
	entry = vd_get_be64(b);
	assert_true(entry >> 62 & 1);
	assert_true(!fseek(f, (long)(entry & 0x3fffffffffffff), SEEK_SET));
	n = fread(packed, 1, ((entry >> 54 & 0xff) + 1) * 512 - (entry & 511), f);
	fclose(f);
	return n;
}

static void what_qemu_img_packs_unpacks(void **state)
{
	static const char *const types[] = { "zlib", "zstd" };

	(void)state;
	if (system("command -v qemu-img >/dev/null"))
		skip();
	for (size_t i = 0; i < N_COMBINATIONS * 2; i++) {
		struct vd_codec *c = codec_of(i / 2);
		uint8_t *src = unit_of(TEXT), *packed = guarded(PACKED, ROOM), *back = guarded(BACK, UNIT);
		FILE *f = fopen("peer.raw", "wb");
		char cmd[160];
		size_t n;

		assert_true(f && fwrite(src, 1, UNIT, f) == UNIT && !fclose(f));
		snprintf(cmd, sizeof(cmd), "qemu-img convert -f raw -O qcow2 -c -o compression_type=%s peer.raw peer.qcow2", types[i % 2]);
		assert_int_equal(system(cmd), 0);
		n = cluster_0_of("peer.qcow2", packed);
		assert_int_equal(unpack(c, kinds[i % 2], back, UNIT, packed, n), 0);
		assert_memory_equal(back, src, UNIT);
		vd_codec_free(c);
	}
	unlink("peer.raw");
	unlink("peer.qcow2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_packed_comes_back),
		cmocka_unit_test(packed_deflate_streams_through_a_4_kib_window),
		cmocka_unit_test(the_window_test_sees_longer_distances),
		cmocka_unit_test(streams_of_other_deflate_writers_unpack),
		cmocka_unit_test(zstd_frames_in_a_row_unpack),
		cmocka_unit_test(a_zstd_frame_with_a_huge_window_unpacks),
		cmocka_unit_test(bytes_after_the_stream_are_ignored),
		cmocka_unit_test(streams_of_another_size_are_corrupt),
		cmocka_unit_test(truncated_streams_are_corrupt),
		cmocka_unit_test(damaged_streams_fail_cleanly),
		cmocka_unit_test(what_does_not_fit_is_told_by_zero),
		cmocka_unit_test(a_result_that_just_fits_is_given),
		cmocka_unit_test(unknown_types_and_sizes_are_refused),
		cmocka_unit_test(want_of_memory_is_reported),
		cmocka_unit_test(threads_share_one_context),
		cmocka_unit_test(what_qemu_img_packs_unpacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
