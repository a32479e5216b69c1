# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash in a conversion in place, resumed and reverted; VD_CRASH_STATES=0: all of them, VD_CRASH_KIND: one kind.
exec "$BUILDDIR/tests/crash/inplace"
