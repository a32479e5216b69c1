#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Keyslots edited in random turn by this library, libcryptsetup and qemu-img stay valid for all three. VD_KEY_EDITS: how
# many edits of each kind; VD_RANDOM_SEED.
. "$SRCDIR/tests/support/lib.sh"
requires qemu-img

for n in 0 1 2 3 4; do printf 'secret %d' $n > k$n; done
edits=${VD_KEY_EDITS:-180}
for kind in raw luks2 qcow2; do
	rm -f d
	check "$kind: $edits edits by turns leave the keys that were put in" \
		"$BUILDDIR/tests/interop/keyslots" $kind "$edits" "${VD_RANDOM_SEED:-1}"
done
done_testing
