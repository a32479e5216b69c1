#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Larger and smaller disks: sizes as they are said, zeros where they are new, and qemu-img as witness.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl

size_is() { "$VDISK" info --output=json "$1" > info.json && json_is info.json '$d->{"virtual-size"}' "$2"; }
is_sound() { qemu-img check -q -f qcow2 "$1"; }
reads() { qemu-io -r -f qcow2 -c "read -P $2 $3 $4" "$1" 2>&1 | grep -q '^read' && ! qemu-io -r -f qcow2 -c "read -P $2 $3 $4" "$1" 2>&1 | grep -q failed; }

for kind in compat=1.1 compat=0.10 cluster_size=512 extended_l2=on refcount_bits=1; do
	qemu-img create -q -f qcow2 -o $kind d.qcow2 1000k
	qemu-io -f qcow2 -c 'write -P 5 0 1000k' d.qcow2 > /dev/null
	check "grow: $kind" "$VDISK" resize -q d.qcow2 9M
	is_sound d.qcow2 && size_is d.qcow2 9437184 && reads d.qcow2 5 0 1000k && reads d.qcow2 0 1000k 8216k
	claim "is as large, zeros where it is new: $kind"
	check_fails 64 "smaller without --shrink: $kind" "$VDISK" resize d.qcow2 500k
	check "shrink: $kind" "$VDISK" resize -q --shrink d.qcow2 500k
	is_sound d.qcow2 && size_is d.qcow2 512000 && reads d.qcow2 5 0 500k
	claim "is as small: $kind"
	check "grow over what was cut off: $kind" "$VDISK" resize -q d.qcow2 +524k
	is_sound d.qcow2 && size_is d.qcow2 1048576 && reads d.qcow2 0 500k 524k
	claim "shows none of it: $kind"
	check "less, with a sign: $kind" "$VDISK" resize -q --shrink d.qcow2 -24k
	size_is d.qcow2 1024000; claim "is so much less: $kind"
done

# What the parent has behind the old end does not show.
qemu-img create -q -f raw base.raw 4M
qemu-io -f raw -c 'write -P 9 0 4M' base.raw > /dev/null
for kind in compat=1.1 compat=0.10; do
	qemu-img create -q -f qcow2 -o $kind -b base.raw -F raw over.qcow2 1000k
	check "grow over a larger parent: $kind" "$VDISK" resize -q over.qcow2 6M
	is_sound over.qcow2 && reads over.qcow2 9 0 1000k && reads over.qcow2 0 1000k 5144k
	claim "reads as zeros there: $kind"
done

# Beside snapshots of another size.
qemu-img create -q -f qcow2 s.qcow2 2M
qemu-io -f qcow2 -c 'write -P 3 0 2M' s.qcow2 > /dev/null
"$VDISK" snapshot -q create s.qcow2 large
check "shrink beside a snapshot" "$VDISK" resize -q --shrink s.qcow2 1M
is_sound s.qcow2; claim "is sound"
check "apply the larger one" "$VDISK" snapshot -q apply s.qcow2 large
is_sound s.qcow2 && size_is s.qcow2 2097152 && reads s.qcow2 3 0 2M
claim "brings the size back"
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 2M
qemu-img snapshot -c a v2.qcow2
check_fails 63 "version 2 with snapshots" "$VDISK" resize v2.qcow2 3M

# Encrypted: the key only where bytes are written.
printf secret > key
"$VDISK" create -q --encrypt --key-file key --pbkdf-iterations 1000 -f qcow2 enc.qcow2 1M
check "an encrypted disk grows without its key" "$VDISK" resize -q enc.qcow2 2M </dev/null
"$VDISK" create -q --encrypt --key-file key --pbkdf-iterations 1000 -f qcow2 odd.qcow2 1000k
check_fails 12 "not when its end lies inside a cluster" "$VDISK" resize odd.qcow2 2M </dev/null
check "with the key it does" "$VDISK" resize -q --key-file key odd.qcow2 2M
"$VDISK" create -q --key-file key --pbkdf-iterations 1000 -f luks c.luks 1M
check "a container" "$VDISK" resize -q -f luks c.luks 2M </dev/null
size_is c.luks 2097152; claim "has the new size"

# Raw, data files, wrong words.
truncate -s 1M d.raw
check_fails 64 "raw that is not named" "$VDISK" resize d.raw 2M
check "raw" "$VDISK" resize -q -f raw d.raw 2M
[ "$(wc -c < d.raw)" -eq 2097152 ]; claim "is as long"
qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on x.qcow2 1M
check "with a data file" "$VDISK" resize -q x.qcow2 3M
[ "$(wc -c < data)" -eq 3145728 ] && is_sound x.qcow2; claim "both are larger"

# VMDK: in one extent and in many.
reads_vmdk() { qemu-io -r -f vmdk -c "read -P $2 $3 $4" "$1" > reads.out 2>&1 && ! grep -q failed reads.out; }
for kind in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
	"$VDISK" create -q -f vmdk -o subformat=$kind v.vmdk 1G
	qemu-io -f vmdk -c 'write -P 5 0 1M' -c 'write -P 6 1023M 1M' v.vmdk > /dev/null
	check "grow: $kind" "$VDISK" resize -q v.vmdk 64G
	check "is clean: $kind" "$VDISK" check -q v.vmdk
	size_is v.vmdk 68719476736 && reads_vmdk v.vmdk 5 0 1M && reads_vmdk v.vmdk 6 1023M 1M && reads_vmdk v.vmdk 0 1G 64M &&
		reads_vmdk v.vmdk 0 65472M 64M
	claim "is as large, zeros where it is new: $kind"
	qemu-io -f vmdk -c 'write -P 7 63G 1M' v.vmdk > /dev/null
	check_fails 63 "data past the end: $kind" "$VDISK" resize --shrink v.vmdk 40G
	qemu-io -f vmdk -c 'write -P 0 63G 1M' v.vmdk > /dev/null
	check "shrink: $kind" "$VDISK" resize -q --shrink v.vmdk 1G
	check "is clean: $kind" "$VDISK" check -q v.vmdk
	size_is v.vmdk 1073741824 && reads_vmdk v.vmdk 5 0 1M && reads_vmdk v.vmdk 6 1023M 1M && qemu-img check -q -f vmdk v.vmdk
	claim "is as small: $kind"
	set -- v-[sf]*.vmdk
	[ $# -eq 1 ] || [ "$kind" = monolithicSparse ]
	claim "has no file that it does not need: $kind"
	rm -f v.vmdk v-*.vmdk
done

# What is cut off is in no byte of the file any more, the rest of the last cluster included.
marker=past-the-end-there-was-this
qemu-img create -q -f qcow2 s.qcow2 4M
yes $marker | head -c 3M > marked.raw
qemu-io -f qcow2 -c "write -s marked.raw 1000k 3M" s.qcow2 > /dev/null
check "smaller, scrubbed" "$VDISK" resize -q --shrink --scrub s.qcow2 1000k
! grep -qaF $marker s.qcow2 && is_sound s.qcow2; claim "leaves nothing past the end"
check_fails 64 "--scrub is refused where a disk grows" "$VDISK" resize --scrub s.qcow2 2M
check_fails 64 "no size" "$VDISK" resize d.qcow2 huge
check_fails 64 "more off than there is" "$VDISK" resize --shrink d.qcow2 -1T
check_fails 64 "half a sector" "$VDISK" resize d.qcow2 +100
check "as JSON" "$VDISK" resize --output=json d.qcow2 +1M
json_is "$stdout" '$d->{"virtual-size"}' 2072576
claim "tells the new size"
done_testing
