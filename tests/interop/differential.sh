#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# 100 000 random operations by this library and by qemu on the same images; VD_RANDOM_OPS: so many a kind; VD_RANDOM_SEED: others.
exec "$BUILDDIR/tests/interop/differential"
