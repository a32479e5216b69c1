#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A crash at each write of a change of keyslots leaves a key that opens the disk.
exec "$BUILDDIR/tests/crash/keyslots"
