/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A folder of its own for each test of real files: setup and teardown of a cmocka test. */
#ifndef VD_TESTS_TEMPDIR_H
#define VD_TESTS_TEMPDIR_H

/* Makes the folder and goes there. */
int vd_tempdir_enter(void **state);
/* Goes back and removes it with all that is in it. */
int vd_tempdir_leave(void **state);

#endif
