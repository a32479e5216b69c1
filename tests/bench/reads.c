/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random reads of 4 KiB from one disk: by the library's plain calls, by its queue, or from a server over one NBD
 * connection. All draw the same offsets and keep the same number of requests under way; which is timed, and against
 * which, is run's business.
 *
 * usage: reads pread|queue IMAGE KEYFILE COUNT [DEPTH [threads]]
 *        reads nbd SOCKET SIZE COUNT [DEPTH]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/include/vdisk.h"

#define BLOCK 4096
#define DEPTH_MAX 256
#define BUFFER (1u << 20)

static uint64_t n_blocks, chance = 1;
static uint8_t blocks[DEPTH_MAX][BLOCK];

static void die(const char *what)
{
	fprintf(stderr, "reads: %s\n", what);
	exit(1);
}

static void must(int result, const struct vd_error *e)
{
	if (result < 0)
		die(e->message);
}

/* xorshift64*: costs nothing beside a read. */
static uint64_t next_off(void)
{
	chance ^= chance >> 12;
	chance ^= chance << 25;
	chance ^= chance >> 27;
	return (chance * UINT64_C(2685821657736338717) >> 20) % n_blocks * BLOCK;
}

/* ---- the library ---------------------------------------------------------------------------------------- */

static struct vd_image *open_image(const char *path, const char *key_file)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts) };
	struct vd_key *key = NULL;
	struct vd_image *img = NULL;
	struct vd_error e;

	must(vd_key_from_file(key_file, &key, &e), &e);
	opts.keys = &key;
	opts.n_keys = 1;
	must(vd_image_open(path, &opts, &img, &e), &e);
	vd_key_free(key);
	n_blocks = vd_image_size(img) / BLOCK;
	return img;
}

static void by_pread(struct vd_image *img, uint64_t count)
{
	struct vd_error e;

	for (; count; count--)
		must(vd_image_pread(img, blocks[0], BLOCK, next_off(), &e), &e);
}

static void by_queue(struct vd_image *img, uint64_t count, size_t depth, bool threads)
{
	static struct vd_completion done[DEPTH_MAX];
	static struct vd_request reqs[DEPTH_MAX];
	struct vd_queue_opts opts = { .struct_size = sizeof(opts), .flags = threads ? VD_QUEUE_NO_URING : 0 };
	struct vd_queue *q = NULL;
	struct vd_error e;
	uint64_t asked = 0, got = 0;
	size_t n = depth;

	must(vd_queue_new(img, (unsigned)depth, &opts, &q, &e), &e);
	for (size_t i = 0; i < depth; i++)
		done[i].user = blocks[i];
	while (got < count) {
		if (n > count - asked)
			n = count - asked;
		for (size_t i = 0; i < n; i++)
			reqs[i] = (struct vd_request){ VD_REQUEST_READ, done[i].user, BLOCK, next_off(), done[i].user, 0 };
		must(vd_queue_submit(q, reqs, n, &e), &e);
		asked += n;
		n = vd_queue_reap(q, done, depth, 1, -1);
		for (size_t i = 0; i < n; i++)
			must(done[i].result, &done[i].error);
		got += n;
	}
	vd_queue_free(q);
}

/* ---- an NBD client: the fixed newstyle handshake, simple replies (the NBD protocol, "doc/proto.md") ------ */

static void send_all(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n <= 0)
			die("the server is gone");
		p += n;
		len -= (size_t)n;
	}
}

/* Reads at least `len` bytes of what comes, and as much more as is there: one call serves many replies. */
static struct input {
	int fd;
	size_t start, end;
	uint8_t bytes[BUFFER];
} input;

static const uint8_t *receive(size_t len)
{
	const uint8_t *p;

	if (input.end - input.start < len && input.start) {
		memmove(input.bytes, input.bytes + input.start, input.end - input.start);
		input.end -= input.start;
		input.start = 0;
	}
	while (input.end - input.start < len) {
		ssize_t n = read(input.fd, input.bytes + input.end, sizeof(input.bytes) - input.end);

		if (n <= 0)
			die("the server is gone");
		input.end += (size_t)n;
	}
	p = input.bytes + input.start;
	input.start += len;
	return p;
}

static void shake_hands(void)
{
	uint8_t hello[4 + 16] = { 0, 0, 0, 3 };         /* fixed newstyle, no zeroes; then option EXPORT_NAME, "" */

	if (memcmp(receive(18), "NBDMAGICIHAVEOPT", 16))
		die("not a server of this protocol");
	memcpy(hello + 4, "IHAVEOPT", 8);
	hello[15] = 1;
	send_all(input.fd, hello, sizeof(hello));
	receive(10);
}

static size_t put_request(uint8_t *to, uint64_t slot)
{
	vd_put_be32(to, 0x25609513);
	vd_put_be32(to + 4, 0);                         /* flags; type 0: read */
	vd_put_be64(to + 8, slot);
	vd_put_be64(to + 16, next_off());
	vd_put_be32(to + 24, BLOCK);
	return 28;
}

static uint64_t take_reply(void)
{
	const uint8_t *head = receive(16);
	uint64_t slot = vd_get_be64(head + 8);

	if (vd_get_be32(head) != 0x67446698 || vd_get_be32(head + 4) || slot >= DEPTH_MAX)
		die("a read failed");
	memcpy(blocks[slot], receive(BLOCK), BLOCK);
	return slot;
}

static void by_nbd(const char *path, uint64_t count, size_t depth)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	static uint8_t requests[28 * DEPTH_MAX];
	uint64_t asked, got = 0;
	size_t len = 0;

	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	input.fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (input.fd < 0 || connect(input.fd, (struct sockaddr *)&name, sizeof(name)) < 0)
		die("cannot connect");
	shake_hands();
	for (asked = 0; asked < depth && asked < count; asked++)
		len += put_request(requests + len, asked);
	while (got < count) {
		send_all(input.fd, requests, len);
		/* One reply, and those that are here already. */
		for (len = 0; len == 0 || input.end - input.start >= 16 + BLOCK; got++) {
			uint64_t slot = take_reply();

			if (asked < count) {
				len += put_request(requests + len, slot);
				asked++;
			} else if (got + 1 == count) {
				got++;
				break;
			}
		}
	}
	close(input.fd);
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
	size_t depth = argc > 5 ? strtoul(argv[5], NULL, 0) : 1;
	struct vd_image *img = NULL;
	struct vd_error e;

	if (!count || !depth || depth > DEPTH_MAX)
		die("usage: reads pread|queue IMAGE KEYFILE COUNT [DEPTH [threads]] | nbd SOCKET SIZE COUNT [DEPTH]");
	if (!strcmp(argv[1], "nbd")) {
		n_blocks = strtoull(argv[3], NULL, 0) / BLOCK;
		by_nbd(argv[2], count, depth);
		return 0;
	}
	img = open_image(argv[2], argv[3]);
	if (!strcmp(argv[1], "pread"))
		by_pread(img, count);
	else
		by_queue(img, count, depth, argc > 6);
	must(vd_image_close(img, &e), &e);
	return 0;
}
