#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash; VD_CRASH_STATES=0 makes it all of them (a night's work).
exec "$BUILDDIR/tests/crash/states"
