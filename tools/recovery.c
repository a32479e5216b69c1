/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes and shows recovery keys in the way of systemd-cryptenroll: the letters of modhex lie on the same keys in nearly every
 * keyboard layout, so the key can be typed at a boot prompt whatever the keyboard thinks it is.
 */
#include "recovery.h"

#include <errno.h>
#include <qrencode.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "fail.h"

#define BYTES 32

int recovery_make(char text[RECOVERY_TEXT_SIZE], struct vd_key **key, struct vd_error *e)
{
	static const char modhex[] = "cbdefghijklnrtuv";        /* digits 0 to 15 */
	unsigned char random[BYTES];
	char *at = text;

	/* Up to 256 bytes come whole or not at all (getrandom(2)). */
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return fail_errno(e, errno, "no random bytes");
	for (size_t i = 0; i < BYTES; i++) {
		if (i && i % 4 == 0)
			*at++ = '-';
		*at++ = modhex[random[i] >> 4];
		*at++ = modhex[random[i] & 15];
	}
	*at = '\0';
	explicit_bzero(random, sizeof(random));
	return vd_key_from_bytes(text, strlen(text), key, e);
}

/* Beyond the edge it is light: a reader wants a margin. */
static bool is_dark(const QRcode *code, int x, int y)
{
	return x >= 0 && y >= 0 && x < code->width && y < code->width && (code->data[y * code->width + x] & 1);
}

/* Two rows a line, by half blocks; light modules are drawn, as terminals are dark. */
static void print_code(const QRcode *code)
{
	static const char *const halves[] = { "\u2588", "\u2580", "\u2584", " " };
	const int margin = 4;

	for (int y = -margin; y < code->width + margin; y += 2) {
		for (int x = -margin; x < code->width + margin; x++)
			fputs(halves[is_dark(code, x, y) * 2 + is_dark(code, x, y + 1)], stdout);
		putchar('\n');
	}
}

int recovery_show_qr(const char *text, struct vd_error *e)
{
	QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_M);

	if (!code)
		return fail_errno(e, errno, "no QR code of the recovery key");
	print_code(code);
	explicit_bzero(code->data, (size_t)code->width * (size_t)code->width);
	QRcode_free(code);
	return 0;
}
