# SPDX-License-Identifier: LGPL-2.1-or-later
# Each failure of the host or of memory while the shape of an image changes.
exec "$BUILDDIR/tests/crash/shape_faults"
