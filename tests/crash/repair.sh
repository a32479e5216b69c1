# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash in a repair; VD_CRASH_STATES=0: all of them.
exec "$BUILDDIR/tests/crash/repair"
