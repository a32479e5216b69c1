# SPDX-License-Identifier: LGPL-2.1-or-later
# 1000 images damaged at random: what check finds and repair mends, held against qemu-img; VD_DAMAGE_IMAGES: how many.
exec "$BUILDDIR/tests/interop/damage"
