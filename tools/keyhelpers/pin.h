/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PINs: from a file, or from whoever sits at the terminal. What they are for, the callers know. */
#ifndef KEYHELPERS_PIN_H
#define KEYHELPERS_PIN_H

#include <stddef.h>
#include <stdint.h>

#define PIN_MAX 256

/* The first line of the file, without its newline. Ends the program when there is none. */
size_t pin_from_file(const char *path, uint8_t pin[PIN_MAX]);
/* Asks for "PIN of WHOM" on the terminal, without echo. Ends the program when there is none, or nothing is typed. */
size_t pin_from_terminal(const char *whom, uint8_t pin[PIN_MAX]);

#endif
