# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash in a snapshot's making, applying and deleting, and in a resize; VD_CRASH_STATES=0: all of them.
exec "$BUILDDIR/tests/crash/shape"
