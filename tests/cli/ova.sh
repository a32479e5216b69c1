#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Packages of disks: read as tar and qemu-img make them, in every kind of tar, held to their manifest.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img tar sha256sum

make_disk disk.raw
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw vm-disk1.vmdk
qemu-img convert -f raw -O raw disk.raw expected.raw
# What qemu-img makes ends at a whole sector.
echo '<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>' > vm.ovf
manifest() { for ma_file; do echo "SHA256($ma_file)= $(sha256sum < "$ma_file" | cut -d' ' -f1)"; done; }
manifest vm.ovf vm-disk1.vmdk > vm.mf

for kind in ustar gnu posix; do
	tar --format=$kind -cf $kind.ova vm.ovf vm.mf vm-disk1.vmdk
	check "$kind: convert" "$VDISK" convert -q --force $kind.ova out.raw
	cmp -s out.raw expected.raw; claim "$kind: the disk is what went in"
done
check "info tells the disk in it" "$VDISK" info --output=json ustar.ova
grep -q '"format": "vmdk"' "$stdout"; claim "and its format"
check "compare reads it" "$VDISK" compare -q ustar.ova disk.raw
check "map reads it" "$VDISK" map ustar.ova

for sum in SHA1 SHA256 SHA512 SHA2-256; do
	for file in vm.ovf vm-disk1.vmdk; do echo "$sum ($file) = $("sha$(echo $sum | sed 's/^SHA\(2-\)*//')sum" < $file | cut -d' ' -f1)"; done > sum.mf
	tar -cf sum.ova vm.ovf sum.mf vm-disk1.vmdk
	check "a manifest with $sum" "$VDISK" convert -q --force sum.ova out.raw
done

# ---- as people pack them
tar -cf last.ova vm-disk1.vmdk vm.mf vm.ovf
tar -cf dot.ova ./vm.ovf ./vm.mf ./vm-disk1.vmdk
mkdir folder && cp vm.ovf vm.mf vm-disk1.vmdk folder && tar -cf folder.ova folder
for how in last dot folder; do
	check "$how: convert" "$VDISK" convert -q --force $how.ova out.raw
	cmp -s out.raw expected.raw; claim "$how: the disk is what went in"
done

# ---- the manifest
printf X | dd of=gnu.ova bs=1 seek=60000 conv=notrunc status=none
check_fails 10 "a package that was changed is refused" "$VDISK" convert gnu.ova bad.raw
grep -q 'vm-disk1.vmdk is not what the manifest says' "$stderr"; claim "by the name of what was changed"
[ ! -e bad.raw ]; claim "and nothing is made of it"
sed 's/SHA256/SHA384/' vm.mf > kind.mf; tar -cf kind.ova vm.ovf kind.mf vm-disk1.vmdk
check_fails 1 "a sum of another kind is not taken for a change" "$VDISK" convert kind.ova bad.raw
grep -q "line that is none: 'SHA384(vm.ovf)" "$stderr"; claim "and is told"
sed 's/SHA256/SHA1/; s/= .*/= 0000000000000000000000000000000000000000/' vm.mf > sha1.mf
tar -cf sha1.ova vm.ovf sha1.mf vm-disk1.vmdk
check_fails 10 "SHA-1, as older packages have it, is checked" "$VDISK" convert sha1.ova bad.raw
{ cat vm.mf; manifest disk.raw; } > more.mf; tar -cf more.ova vm.ovf more.mf vm-disk1.vmdk
check_fails 10 "what the manifest names has to be there" "$VDISK" convert more.ova bad.raw
tar -cf bare.ova vm.ovf vm-disk1.vmdk
check "a package without a manifest" "$VDISK" convert --force bare.ova out.raw
grep -q 'has no manifest' "$stderr"; claim "is read, with a word about it"

# ---- which disk
qemu-img create -q -f vmdk vm-disk2.vmdk 3M
tar -cf two.ova vm.ovf vm-disk1.vmdk vm-disk2.vmdk
check_fails 64 "of two disks one is to be named" "$VDISK" convert two.ova bad.raw
grep -q 'vm-disk1.vmdk, vm-disk2.vmdk' "$stderr"; claim "and both are listed"
check "the one that is named" "$VDISK" convert -q --force --disk vm-disk2.vmdk two.ova out.raw
[ "$(stat -c %s out.raw)" = 3145728 ]; claim "is the one that is read"
check_fails 64 "one that is not there" "$VDISK" convert --disk vm-disk3.vmdk two.ova bad.raw
tar -cf none.ova vm.ovf disk.raw
check_fails 63 "a package without a disk" "$VDISK" convert none.ova bad.raw

gzip -kc vm-disk1.vmdk > vm-disk1.vmdk.gz; tar -cf gz.ova vm.ovf vm-disk1.vmdk.gz
check_fails 63 "a disk that is compressed as a whole" "$VDISK" convert gz.ova bad.raw
grep -q "'vm-disk1.vmdk.gz' is compressed as a whole" "$stderr"; claim "is told by its name"

# ---- hostile ones
head -c 100000 ustar.ova > cut.ova
check_fails 1 "a package that was cut short" "$VDISK" info cut.ova
grep -q 'past the end of the archive' "$stderr"; claim "is told as that"
check_fails 1 "a disk in a package is not written" "$VDISK" resize ustar.ova +1M
check "inspect looks into it" "$VDISK" inspect --policy=untrusted ustar.ova
echo 'RW 2048 FLAT "/etc/hostname" 0' | sed '1i # Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"' > flat.vmdk
tar -cf trap.ova vm.ovf flat.vmdk
check_fails 10 "and refuses one whose disk names a file of the host" "$VDISK" inspect --policy=untrusted trap.ova
run "$VDISK" convert trap.ova bad.raw
[ "$status" -ne 0 ] && [ ! -e bad.raw ]; claim "which convert does not read either"
done_testing
