# SPDX-License-Identifier: LGPL-2.1-or-later
# Each failure of the host or of memory in a rebase, a flatten and commits.
exec "$BUILDDIR/tests/crash/chain_faults"
