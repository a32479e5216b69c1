/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gets a PIN byte by byte into the memory of the caller, who locks and wipes it. */
#include "keyhelpers/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "keyhelpers/protocol.h"

/* Up to a newline or the end; what is longer than a PIN may be ends the program. */
static size_t read_line(int fd, const char *from, uint8_t pin[PIN_MAX])
{
	size_t len = 0;
	uint8_t c = 0;
	ssize_t n;

	while ((n = read(fd, &c, 1)) != 0 && c != '\n') {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			protocol_fail(PROTOCOL_FAILED, "reading the PIN from %s: %s", from, strerror(errno));
		if (len == PIN_MAX)
			protocol_fail(PROTOCOL_FAILED, "%s: a PIN has at most %d bytes", from, PIN_MAX);
		pin[len++] = c;
	}
	return len;
}

size_t pin_from_file(const char *path, uint8_t pin[PIN_MAX])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t len;

	if (fd < 0)
		protocol_fail(PROTOCOL_FAILED, "%s: %s", path, strerror(errno));
	len = read_line(fd, path, pin);
	close(fd);
	if (!len)
		protocol_fail(PROTOCOL_FAILED, "%s: there is no PIN in its first line", path);
	return len;
}

/* The line stays in the kernel's buffer of the terminal until another is typed, as that of every passphrase does. */
size_t pin_from_terminal(const char *whom, uint8_t pin[PIN_MAX])
{
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before, quiet;
	size_t len;

	if (fd < 0 || tcgetattr(fd, &before) < 0)
		protocol_fail(PROTOCOL_FAILED, "%s wants a PIN, and there is no terminal to ask on: see --pin-file", whom);
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(fd, TCSAFLUSH, &quiet);
	dprintf(fd, "PIN of %s: ", whom);
	len = read_line(fd, "the terminal", pin);
	dprintf(fd, "\n");
	tcsetattr(fd, TCSADRAIN, &before);
	close(fd);
	if (!len)
		protocol_fail(PROTOCOL_DENIED, "no PIN of %s was typed", whom);
	return len;
}
