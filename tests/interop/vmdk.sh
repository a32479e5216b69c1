#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every VMDK that qemu-img writes is read by vdisk as qemu-img reads it.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io
make_disk disk.raw

refuses() { # WORDS CLAIM ARGUMENTS...
	rf_words=$1 rf_claim=$2
	shift 2
	check_fails 1 "$rf_claim" "$VDISK" "$@"
	grep -q "$rf_words" "$stderr"
	claim "and it is said why: $rf_words"
}

from_qemu() { # OPTIONS
	rm -f x*.vmdk
	qemu-img convert -f raw -O vmdk -o "$1" disk.raw x.vmdk && reads_as x.vmdk disk.raw
}
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized; do
	check "reads $o" from_qemu subformat=$o
done
for o in subformat=monolithicSparse,zeroed_grain=on adapter_type=lsilogic compat6 hwversion=4; do
	check "reads $o" from_qemu "$o"
done

# Two extents: one of 2 GiB and the rest.
truncate -s 2200M big.raw
dd if=disk.raw of=big.raw bs=1M seek=2045 conv=notrunc status=none
for o in twoGbMaxExtentSparse twoGbMaxExtentFlat; do
	rm -f x*.vmdk
	qemu-img convert -f raw -O vmdk -o subformat=$o big.raw x.vmdk
	claim "qemu-img makes two extents of $o"
	check "reads two extents of $o" reads_as x.vmdk big.raw
	rm -f x-?002.vmdk
	refuses 'which does not exist' "refuses $o without its second extent" convert -O raw x.vmdk no.raw
	check "describes $o without its second extent" "$VDISK" info x.vmdk
done
rm -f big.raw x*.vmdk

qemu-img create -q -f vmdk -o zeroed_grain=on y.vmdk 8M
qemu_io -f vmdk y.vmdk <<-'COMMANDS'
	write -P 0x11 0 1M
	write -P 0x12 1310720 3000
	write -z 64k 64k
	write -z 3M 128k
	write -P 0x45 7340032 64k
COMMANDS
claim "qemu-io makes data, zeroed grains and holes"
check "reads data, zeroed grains and holes" reads_as_qemu y.vmdk
qemu-img create -q -f vmdk -b y.vmdk -F vmdk -o zeroed_grain=on z.vmdk
qemu_io -f vmdk z.vmdk <<-'COMMANDS'
	write -P 0x21 100k 100k
	write -z 512k 64k
COMMANDS
claim "qemu-io makes a child"
check "reads a child over its parent" reads_as_qemu z.vmdk

# The parent is written, so the child no longer fits.
qemu_io -f vmdk y.vmdk <<-'COMMANDS'
	write -P 0x77 0 64k
COMMANDS
refuses 'made on a parent with the CID' "a parent that was written since is refused" convert -O raw z.vmdk z.raw

# qemu drops both extents and shifts what follows; it is the one that is wrong.
head -c 1048576 disk.raw > part.raw
printf 'version=1\ncreateType="custom"\nRW 2048 ZERO\nRDONLY 2048 FLAT "part.raw" 0\n' > extents.vmdk
{ head -c 1048576 /dev/zero; cat part.raw; } > extents.raw
check "zero and read-only extents have their place" reads_as extents.vmdk extents.raw

mkdir -p elsewhere/sub
printf 'version=1\nRW 2048 FLAT "../part.raw" 0\n' > elsewhere/up.vmdk
refuses 'leads out of the image' "an extent outside the folder is refused" convert -O raw elsewhere/up.vmdk no.raw
printf 'version=1\nRW 1 FLAT "/etc/hostname" 0\n' > host.vmdk
refuses 'absolute name' "an extent with an absolute name is refused" convert -O raw host.vmdk host.raw
done_testing
