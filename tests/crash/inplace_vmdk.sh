# SPDX-License-Identifier: LGPL-2.1-or-later
# The states after a crash in a conversion in place of this format, resumed and reverted.
exec "$BUILDDIR/tests/crash/inplace" vmdk
