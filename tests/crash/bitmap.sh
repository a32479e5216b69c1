# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash while a disk with bitmaps is written and while its bitmaps change; VD_CRASH_STATES=0: all of them.
exec "$BUILDDIR/tests/crash/bitmap"
