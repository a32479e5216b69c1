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

# And what vdisk writes is read by qemu-img, which finds nothing wrong with it.
to_qemu() { # OPTIONS...
	rm -f x*.vmdk
	"$VDISK" convert -O vmdk "$@" disk.raw x.vmdk && qemu-img check x.vmdk && is_disk x.vmdk disk.raw && reads_as x.vmdk disk.raw
}
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat vmfs vmfsThin vmfsSparse streamOptimized; do
	check "writes $o" to_qemu -o subformat=$o
done
check "writes grains of 4 KiB, zeroed ones allowed" to_qemu -o grain_size=4k,zeroed_grain=on
check "writes for another adapter and machine" to_qemu -o adapter_type=lsilogic,hwversion=11
grep -aq 'adapterType = "lsilogic"' x.vmdk && grep -aq 'virtualHWVersion = "11"' x.vmdk
claim "the descriptor names both"
check "packs to a stream" to_qemu -c
grep -aq 'createType="streamOptimized"' x.vmdk
claim "which is what the descriptor says"
[ "$(field x.vmdk 4 4)" = 03000000 ] && [ "$(field x.vmdk 56 8)" = ffffffffffffffff ]
claim "a stream has version 3 and its directory at the end"
size=$(stat -c %s x.vmdk)
[ "$(field x.vmdk $((size - 1536)) 16)" = 01000000000000000000000003000000 ] && [ "$(field x.vmdk $((size - 1024)) 4)" = 4b444d56 ] &&
	[ "$(field x.vmdk $((size - 512)) 16)" = 00000000000000000000000000000000 ]
claim "it ends in footer marker, footer and end of stream"
"$VDISK" create -q -f vmdk -o subformat=streamOptimized empty.vmdk 100M && qemu-img check -q empty.vmdk
claim "an empty stream is whole"
head -c 8000000 /dev/urandom > noise.raw
"$VDISK" convert -q -c -O vmdk noise.raw noise.vmdk && qemu-img compare -q noise.raw noise.vmdk
claim "what does not compress is streamed, too"

# A download that broke off says how far it got.
rm -f x.vmdk
"$VDISK" convert -q -c -O vmdk disk.raw x.vmdk
head -c 400000 x.vmdk > cut.vmdk
refuses 'cut off: its end is missing, and only the first [1-9][0-9]* of 8390144 bytes' "a stream that is cut off is refused" convert -O raw cut.vmdk no.raw

# What measure says is what comes out, or a little more.
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse vmfs vmfsSparse; do
	rm -rf m && mkdir m
	said=$("$VDISK" measure --output=json -O vmdk -o subformat=$o disk.raw | sed -n 's/.*"required": *\([0-9]*\).*/\1/p')
	"$VDISK" convert -q -O vmdk -o subformat=$o disk.raw m/x.vmdk
	is=$(cat m/* | wc -c)
	[ "$is" -le "$said" ] && [ $((is + 100000)) -ge "$said" ]
	claim "measure foresees $o: $is, said $said"
done

# LUKS as content, opened by qemu's driver for it.
printf secret > key
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse vmfs vmfsThin vmfsSparse; do
	rm -f x*.vmdk
	check "encrypts $o" "$VDISK" convert -q --encrypt --new-key-file key --pbkdf-iterations 1000 -O vmdk -o subformat=$o disk.raw x.vmdk
	check "qemu opens the container in $o" opens_as driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=x.vmdk disk.raw
	check "vdisk reads the container in $o" reads_as x.vmdk disk.raw --key-file key
done
again qemu-img convert -f raw -O luks --object secret,id=s,file=key -o key-secret=s,iter-time=10 disk.raw luks.raw
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized luks.raw x.vmdk
check "reads a container in a stream" reads_as x.vmdk disk.raw --key-file key

# A child of ours.
qemu-img convert -f raw -O vmdk disk.raw base.vmdk
"$VDISK" create -q -f vmdk -b base.vmdk -F vmdk child.vmdk && is_disk child.vmdk disk.raw
claim "qemu reads a child that vdisk made"

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
	grep -q "NOT KNOWN" "$stdout"
	claim "and says what is not known of $o"
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

# The parent as VMware finds it: where the hint says, beside the child, in the folder of that name beside the child's.
mkdir -p vm/child vm/base
cp z.vmdk vm/child/ && cp y.vmdk vm/child/
qemu-img convert -O raw z.vmdk z.raw
hint() { # NAME: into the embedded descriptor, which keeps its length
	perl -0777 -i -pe '
		BEGIN { $name = shift @ARGV }
		$text = substr($_, 512, 10240); $text =~ s{Hint="[^"]*"}{Hint="$name"}; $text =~ s/\0*$//;
		substr($_, 512, 10240) = $text . "\0" x (10240 - length $text)' "$1" vm/child/z.vmdk
}
hint 'C:\VMs\old\y.vmdk'
grep -aq 'Hint="C:.VMs.old.y.vmdk"' vm/child/z.vmdk
claim "the hint is of another machine"
check "a parent is found beside the child" reads_as vm/child/z.vmdk z.raw
hint '/no/such/folder/y.vmdk'
check "also by an absolute hint that leads nowhere" reads_as vm/child/z.vmdk z.raw
mv vm/child/y.vmdk vm/base/
hint '/no/such/base/y.vmdk'
refuses 'absolute name' "a parent in another folder is not opened unasked" convert -O raw vm/child/z.vmdk no.raw
check "a parent is found in the folder beside the child's, if that is allowed" reads_as vm/child/z.vmdk z.raw --allow vm/base
rm vm/base/y.vmdk
refuses 'y.vmdk' "a missing parent is told by name" convert -O raw vm/child/z.vmdk no.raw

# The parent is written, so the child no longer fits.
qemu_io -f vmdk y.vmdk <<-'COMMANDS'
	write -P 0x77 0 64k
COMMANDS
refuses 'made on a parent with the CID' "a parent that was written since is refused" convert -O raw z.vmdk no.raw

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

# More parts than are open at once.
"$VDISK" create -q -f vmdk -o subformat=twoGbMaxExtentSparse many.vmdk 700G
claim "a disk of 351 parts is made"
ls many-s*.vmdk | wc -l | grep -qx 351
claim "that many there are"
check "written here and there" "$imgio" -w many.vmdk 'write -P 1 2G 1M' 'write -P 2 1 70000' 'write -P 3 699G 1M' 'write -P 4 350G 1M' \
	'read -P 1 2G 1M' 'read -P 3 699G 1M'
check "and read by qemu" qemu_io -f vmdk many.vmdk <<-'COMMANDS'
	read -P 1 2G 1M
	read -P 2 1 70000
	read -P 3 699G 1M
	read -P 4 350G 1M
	read -P 0 100G 1M
COMMANDS
check "every part of it is sound" "$VDISK" check -q many.vmdk
done_testing
