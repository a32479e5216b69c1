#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every operation on the host fails once, every allocation, and some for good.
exec "$BUILDDIR/tests/crash/faults"
