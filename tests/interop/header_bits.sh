#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bits and extensions of a qcow2 header that mean "not by you", "not now" or "keep this", and the formats before qcow2.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw

fresh() { # [OPTIONS]
	rm -f x.qcow2 out.raw
	qemu-img convert -f raw -O qcow2 ${1:+-o "$1"} disk.raw x.qcow2
}
set_incompatible() { # BIT of the first eight
	put x.qcow2 79 "$(printf %02x $((0x$(field x.qcow2 79 1) | 1 << $1)))"
}

# Unknown incompatible bits: qemu opens no such image, nor do we.
fresh
put x.qcow2 72 10
check_fails 1 "qemu refuses an unknown incompatible bit" qemu-img info x.qcow2
check_fails 63 "an unknown incompatible bit is refused" "$VDISK" convert -O raw x.qcow2 out.raw
grep -q '60' "$stderr"
claim "the message names the bit"
[ ! -e out.raw ]
claim "nothing is left of the refused run"
fresh
put x.qcow2 72 10
# The feature-name table is qemu's first extension: its first entry becomes the name of bit 60.
perl -e '
	open my $f, "+<", shift or die; binmode $f; local $/; my $h = <$f>; my $i = index($h, pack("N", 0x6803f857));
	$i > 0 or die; seek $f, $i + 8, 0; print $f pack("CCa46", 0, 60, "written by a later tool");' x.qcow2
check_fails 63 "an unknown incompatible bit with a name is refused" "$VDISK" info x.qcow2
grep -q 'written by a later tool' "$stderr"
claim "the message says what the image calls the bit"

# Unknown extensions and compatible bits are none of our business, and stay.
fresh
perl -e '
	open my $f, "+<", shift or die; binmode $f; local $/; my $h = <$f>; my $i = unpack("N", substr($h, 100, 4));
	while (my ($type, $len) = unpack("NN", substr($h, $i, 8))) { last if !$type; $i += 8 + ($len + 7 & ~7); }
	seek $f, $i, 0; print $f pack("NNa16", 0x76444b4d, 13, "keep me as is"), pack("NN", 0, 0);' x.qcow2
put x.qcow2 80 80
check "qemu opens the image with an unknown extension" qemu-img check -q x.qcow2
check "an unknown extension and compatible bit are no obstacle" reads_as x.qcow2 disk.raw
check "nor are they to writing" "$imgio" -w x.qcow2 'write -P 5 0 64k' 'write -P 6 7M 64k'
grep -q 'keep me as is' x.qcow2 && [ "$(field x.qcow2 80 1)" = 80 ]
claim "the unknown extension and the compatible bit outlive a write"
check "qemu reads what was written beside them" qemu-io -f qcow2 -r -c 'read -P 5 0 64k' -c 'read -P 6 7M 64k' x.qcow2
check "every count is right" qemu-img check -q x.qcow2

# Unknown autoclear bits are cleared by the first write and not before.
fresh
put x.qcow2 88 80
check "reads an image with an unknown autoclear bit" reads_as x.qcow2 disk.raw
[ "$(field x.qcow2 88 1)" = 80 ]
claim "reading leaves the autoclear bit"
check "writes an image with an unknown autoclear bit" "$imgio" -w x.qcow2 'write -P 5 0 64k'
[ "$(field x.qcow2 88 1)" = 00 ]
claim "writing clears the autoclear bit"

# Dirty: the counts may be wrong, the content is not. Reading changes nothing.
fresh lazy_refcounts=on
set_incompatible 0
before=$(sha256sum < x.qcow2)
check "reads a dirty image" reads_as x.qcow2 disk.raw
check "info of a dirty image" "$VDISK" info --output=json x.qcow2
grep -Eq '"dirty-flag": *true' "$stdout"
claim "info says that it is dirty"
[ "$before" = "$(sha256sum < x.qcow2)" ]
claim "reading leaves a dirty image as it was"
# The counts really are wrong here: clusters in use are called free.
put x.qcow2 $((0x$(field x.qcow2 $((0x$(field x.qcow2 48 8))) 8) + 20)) "$(printf %060d 0)"
before=$(sha256sum < x.qcow2)
check_fails 1 "does not write to a dirty image" "$imgio" -w x.qcow2 'write -P 5 0 64k'
grep -q 'not closed cleanly' "$stderr" && grep -q 'vdisk check --repair=all' "$stderr"
claim "says why, and what mends it"
[ "$before" = "$(sha256sum < x.qcow2)" ]
claim "a dirty image stays as it was"
run qemu-img check -r all x.qcow2
check "writes to it once it is mended" "$imgio" -w x.qcow2 'write -P 5 0 64k'
check "every count is right then" qemu-img check -q x.qcow2

# Corrupt: to be read only.
fresh
set_incompatible 1
check "reads an image marked corrupt" reads_as x.qcow2 disk.raw
before=$(sha256sum < x.qcow2)
check_fails 1 "does not write to an image marked corrupt" "$imgio" -w x.qcow2 'write -P 5 0 64k'
[ "$before" = "$(sha256sum < x.qcow2)" ]
claim "an image marked corrupt stays as it was"
"$VDISK" info --output=json x.qcow2 | grep -Eq '"corrupt": *true'
claim "info says that it is corrupt"

# What came before qcow2 is told apart from raw bytes: read as raw it would be copied as a disk that it is not.
qemu-img convert -f raw -O qcow disk.raw old.qcow
check_fails 63 "a version 1 image is refused by name" "$VDISK" convert -O raw old.qcow out.raw
grep -qi 'version 1' "$stderr"
claim "the message says that it is version 1"
[ ! -e out.raw ]
claim "nothing is left of it"

# Formats that this library does not know have no magic that it knows: raw bytes, as for any other file.
qemu-img convert -f raw -O qed disk.raw old.qed
check "an image of an unknown format is raw bytes" "$VDISK" info --output=json old.qed
grep -Eq '"format": *"raw"' "$stdout"
claim "info calls it raw"

# The file may end inside its last cluster.
fresh
truncate -s -65000 x.qcow2
run qemu-img convert -O raw x.qcow2 q.raw
check "reads a file that ends inside its last cluster as qemu does" reads_as x.qcow2 q.raw
done_testing
