#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert --for: each platform gets the format, kind, adapter and size that it imports; qemu-img reads them all.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img perl tar sha256sum

make_disk disk.raw 5000192
# of FILE EXPRESSION: of what info says of it
of() { "$VDISK" info --output=json "$1" | perl -MJSON::PP -e 'local $/; my $i = decode_json(<STDIN>); print eval shift' "$2"; }

# made PLATFORM FORMAT PEER-FORMAT SIZE
made() {
	check "for $1" "$VDISK" convert -q --for=$1 disk.raw out.$1
	[ "$(of out.$1 '$i->{format}')" = $2 ]; claim "$1: the format is $2"
	[ "$(of out.$1 '$i->{"virtual-size"}')" = $4 ]; claim "$1: the disk has $4 bytes"
	qemu-img compare -q -f raw -F $3 disk.raw out.$1; claim "$1: qemu-img reads the disk"
}
whole=5000192
made esxi vmdk vmdk $whole
made workstation vmdk vmdk $whole
made hyperv vhdx vhdx $whole
made azure vhd vpc 5242880
made proxmox qcow2 qcow2 $whole
made aws vmdk vmdk $whole
made gcp raw raw 1073741824

for platform in esxi aws; do
	head -c 30000 out.$platform | grep -aq 'createType="streamOptimized"' && head -c 30000 out.$platform | grep -aq 'ddb.adapterType = "lsilogic"'
	claim "$platform: stream-optimized, for lsilogic"
done
[ "$(stat -c %s out.azure)" = $((5242880 + 512)) ]; claim "azure: fixed, its footer behind whole MiB"
check "what is left to do" "$VDISK" convert --force --for=gcp disk.raw out.gcp
grep -q 'oldgnu' "$stderr"; claim "is told"
check_fails 64 "another format by -O is refused" "$VDISK" convert --for=azure -O qcow2 disk.raw no
check_fails 64 "an unknown platform, too" "$VDISK" convert --for=mainframe disk.raw no

# ---- packages
printf key > key
check "ova" "$VDISK" convert -q -O ova disk.raw machine.ova
mkdir x && tar -C x -xf machine.ova; claim "tar unpacks it"
[ "$(tar -tf machine.ova | tr '\n' ' ')" = "machine.ovf machine.mf machine-disk1.vmdk " ]; claim "descriptor, manifest and disk are in order"
(cd x && sed -n 's/^SHA256(\(.*\))= \(.*\)$/\2  \1/p' machine.mf | sha256sum -c --quiet); claim "the manifest holds"
qemu-img compare -q -f raw -F vmdk disk.raw x/machine-disk1.vmdk; claim "qemu-img reads the disk in it"
grep -q "ovf:size=\"$(stat -c %s x/machine-disk1.vmdk)\"" x/machine.ovf && grep -q "ovf:capacity=\"$whole\"" x/machine.ovf
claim "the descriptor tells both sizes"
perl -0777 -ne 'my @open; while (m{<(/?)([\w:]+)[^>]*?(/?)>}g) { $1 ? ($2 eq pop @open or exit 1) : $3 || push @open, $2 } exit @open' x/machine.ovf
claim "and is well-formed"
check "and back" "$VDISK" compare -q machine.ova disk.raw
check "a name that XML would trip over" "$VDISK" convert -q -O ova disk.raw 'a&b <c>.ova'
tar -tf 'a&b <c>.ova' | grep -q '^a_b _c_.ovf$'; claim "is made plain"
check_fails 63 "a package is not encrypted" "$VDISK" convert -O ova --new-passphrase-file key disk.raw no.ova
[ ! -e no.ova ] && ! ls ./*.vdisk-partial 2>/dev/null; claim "and nothing is left of it"
done_testing
