/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads and writes an existing image through the library by commands in qemu-io's words, so that a test can give one
 * list of commands to both and compare what becomes of it. What is right, the scripts beside it say.
 *
 *     imgio [-w] [-k KEYFILE] [-f FORMAT] [-a DIR] IMAGE COMMAND...
 *     write -P BYTE OFF LEN | write -z OFF LEN | write -s FILE OFF LEN |
 *     discard OFF LEN | read -P BYTE OFF LEN | read OFF LEN | flush | abort (as when the machine stops)
 */
#include "libvdisk/include/vdisk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command {
	const char *verb;
	const char *file;       /* -s */
	bool zeros;             /* -z */
	int pattern;            /* -P, or -1 */
	uint64_t off, len;
};

static int complain(const char *what, const char *about)
{
	fprintf(stderr, "imgio: %s: %s\n", what, about);
	return -1;
}

static int report(const struct vd_error *e)
{
	fprintf(stderr, "imgio: %s: %s\n", vd_code_name(e->code), e->message);
	if (e->hint[0])
		fprintf(stderr, "hint: %s\n", e->hint);
	return -1;
}

static int parse_bytes(const char *word, uint64_t *out)
{
	static const char units[] = "kMGT";
	char *end;

	errno = 0;
	*out = strtoull(word, &end, 0);
	if (errno || end == word)
		return complain("not a number", word);
	if (*end && !end[1] && strchr(units, *end))
		*out <<= 10 * (strchr(units, *end) - units + 1);
	else if (*end)
		return complain("not a number", word);
	return 0;
}

static int parse(char *text, struct command *c)
{
	uint64_t numbers[2] = { 0, 0 }, byte;
	size_t n = 0;
	char *save = NULL, *w;

	*c = (struct command){ .pattern = -1, .verb = strtok_r(text, " ", &save) };
	while ((w = strtok_r(NULL, " ", &save))) {
		if (strcmp(w, "-z") == 0) {
			c->zeros = true;
		} else if (strcmp(w, "-P") == 0 && (w = strtok_r(NULL, " ", &save))) {
			if (parse_bytes(w, &byte) < 0 || byte > 255)
				return -1;
			c->pattern = (int)byte;
		} else if (w && strcmp(w, "-s") == 0) {
			c->file = strtok_r(NULL, " ", &save);
		} else if (!w || n == 2 || parse_bytes(w, &numbers[n++]) < 0) {
			return complain("not a command", c->verb);
		}
	}
	c->off = numbers[0];
	c->len = numbers[1];
	return c->verb ? 0 : complain("not a command", "(empty)");
}

static int fill_from_file(const char *path, void *buf, size_t len)
{
	FILE *f = fopen(path, "rb");
	size_t got = f ? fread(buf, 1, len, f) : 0;

	if (f)
		fclose(f);
	return got == len ? 0 : complain("cannot read that many bytes", path);
}

static int do_write(struct vd_image *img, const struct command *c)
{
	struct vd_error e;
	void *buf;
	int r;

	if (c->zeros)
		return vd_image_write_zeroes(img, c->off, c->len, 0, &e) < 0 ? report(&e) : 0;
	buf = malloc(c->len + 1);
	if (!buf)
		return complain("write", strerror(ENOMEM));
	memset(buf, c->pattern < 0 ? 0xcd : c->pattern, c->len);
	r = c->file ? fill_from_file(c->file, buf, c->len) : 0;
	if (r == 0 && vd_image_pwrite(img, buf, c->len, c->off, &e) < 0)
		r = report(&e);
	free(buf);
	return r;
}

static int do_read(struct vd_image *img, const struct command *c)
{
	struct vd_error e;
	uint8_t *buf = malloc(c->len + 1);
	int r;

	if (!buf)
		return complain("read", strerror(ENOMEM));
	r = vd_image_pread(img, buf, c->len, c->off, &e) < 0 ? report(&e) : 0;
	for (size_t i = 0; r == 0 && c->pattern >= 0 && i < c->len; i++)
		if (buf[i] != c->pattern) {
			fprintf(stderr, "imgio: byte %llu is 0x%02x, want 0x%02x\n",
				(unsigned long long)(c->off + i), buf[i], (unsigned)c->pattern);
			r = -1;
		}
	if (r == 0 && c->pattern < 0 && fwrite(buf, 1, c->len, stdout) != c->len)
		r = complain("stdout", strerror(errno));
	free(buf);
	return r;
}

static int run(struct vd_image *img, char *text)
{
	struct command c;
	struct vd_error e;

	if (parse(text, &c) < 0)
		return -1;
	if (strcmp(c.verb, "write") == 0)
		return do_write(img, &c);
	if (strcmp(c.verb, "discard") == 0)
		return vd_image_discard(img, c.off, c.len, &e) < 0 ? report(&e) : 0;
	if (strcmp(c.verb, "read") == 0)
		return do_read(img, &c);
	if (strcmp(c.verb, "flush") == 0)
		return vd_image_flush(img, &e) < 0 ? report(&e) : 0;
	if (strcmp(c.verb, "abort") == 0)
		_exit(0);
	return complain("not a command", c.verb);
}

struct options {
	unsigned flags;
	const char *format, *key_file;
	struct vd_gate_dirs gate;
	const char *dir;
};

static int open_image(const char *path, struct options *o, struct vd_image **img)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .flags = o->flags, .format = o->format };
	struct vd_key *key = NULL;
	struct vd_error e;
	int r = 0;

	if (o->dir) {
		o->gate = (struct vd_gate_dirs){ .dirs = &o->dir, .n = 1 };
		opts.gate = vd_gate_below_dirs;
		opts.gate_ctx = &o->gate;
	}
	if (o->key_file) {
		r = vd_key_from_file(o->key_file, &key, &e);
		opts.keys = &key;
		opts.n_keys = 1;
	}
	if (r == 0)
		r = vd_image_open(path, &opts, img, &e);
	vd_key_free(key);
	return r < 0 ? report(&e) : 0;
}

static int usage(void)
{
	fputs("usage: imgio [-w] [-k KEYFILE] [-f FORMAT] [-a DIR] IMAGE COMMAND...\n", stderr);
	return 64;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct vd_image *img = NULL;
	struct vd_error e;
	int c, r = 0;

	while ((c = getopt(argc, argv, "wk:f:a:")) != -1) {
		switch (c) {
		case 'w': o.flags |= VD_OPEN_WRITE; break;
		case 'k': o.key_file = optarg; break;
		case 'f': o.format = optarg; break;
		case 'a': o.dir = optarg; break;
		default: return usage();
		}
	}
	if (optind >= argc)
		return usage();
	if (open_image(argv[optind], &o, &img) < 0)
		return 1;
	for (int i = optind + 1; i < argc && r == 0; i++)
		r = run(img, argv[i]);
	if (vd_image_close(img, &e) < 0)
		r = report(&e);
	return r < 0 ? 1 : 0;
}
