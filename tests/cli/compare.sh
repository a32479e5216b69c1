#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# compare: the exit statuses of qemu-img compare, and the size counts.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img perl

printf secret > key
printf guess > wrong
truncate -s 3M a.raw
dd if=/dev/urandom of=a.raw bs=64k count=5 seek=2 conv=notrunc status=none
cp a.raw b.raw
printf X | dd of=b.raw bs=1 seek=2000003 conv=notrunc status=none
cp a.raw longer.raw
truncate -s 4M longer.raw
cp longer.raw tail.raw
printf X | dd of=tail.raw bs=1 seek=4000000 conv=notrunc status=none
qemu-img convert -f raw -O qcow2 a.raw a.qcow2
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key a.raw e.qcow2

check "the same" "$VDISK" compare a.raw a.qcow2
[ "$(cat "$stdout")" = "the disks are the same" ]
claim "is said"
check "with itself" "$VDISK" compare a.raw a.raw
check_fails 1 "different" "$VDISK" compare a.qcow2 b.raw
[ "$(cat "$stdout")" = "the disks differ, first at byte 2000003" ]
claim "says where"
check_fails 1 "-q" "$VDISK" compare -q a.qcow2 b.raw
[ ! -s "$stdout" ] && [ ! -s "$stderr" ]
claim "says nothing"
check_fails 1 "a longer disk" "$VDISK" compare a.raw longer.raw
check_fails 1 "a shorter disk" "$VDISK" compare longer.raw a.raw
check "--ignore-trailing-zeros" "$VDISK" compare --ignore-trailing-zeros a.raw longer.raw
check "the other way round" "$VDISK" compare --ignore-trailing-zeros longer.raw a.qcow2
check_fails 1 "a tail that is not zeros" "$VDISK" compare --ignore-trailing-zeros a.raw tail.raw
grep -q 4000000 "$stdout"
claim "says where"

check "encrypted with clear" "$VDISK" compare --key-file key a.raw e.qcow2
check "clear with encrypted" "$VDISK" compare --key-file key e.qcow2 a.raw
check_fails 2 "a wrong key" "$VDISK" compare --key-file wrong a.raw e.qcow2
grep -q '^vdisk: e.qcow2' "$stderr"
claim "names the image"
check_fails 2 "no key and no terminal" setsid "$VDISK" compare a.raw e.qcow2
check_fails 2 "a file that there is not" "$VDISK" compare a.raw nowhere
check_fails 2 "the same as JSON" "$VDISK" compare --output=json a.raw nowhere
json_is "$stdout" '$d->{code}' 2 && json_is "$stdout" '$d->{name}' not-found && json_is "$stdout" '$d->{image}' nowhere
claim "tells which image and why"
check_fails 64 "wrong usage" "$VDISK" compare a.raw
check "named formats" "$VDISK" compare -f raw -F qcow2 a.raw a.qcow2
check_fails 1 "bytes of an image against its disk" "$VDISK" compare -F raw a.raw a.qcow2

check_fails 1 "JSON" "$VDISK" compare --output=json a.raw b.raw
json_is "$stdout" '$d->{type}' summary && json_is "$stdout" '$d->{same}' false && json_is "$stdout" '$d->{offset}' 2000003 &&
	json_is "$stdout" '$d->{"size-differs"}' false
claim "tells all"
check_fails 1 "JSON of different sizes" "$VDISK" compare --output=json a.raw longer.raw
json_is "$stdout" '$d->{"size-differs"}' true
claim "tells that"

# A table entry that points past the end of the file, and data that ends early. L1 entry 0 is at the L1 table's start.
cp a.qcow2 broken.qcow2
l1=$(perl -e 'open F, "<", "a.qcow2"; seek F, 40, 0; read F, $b, 8; print unpack "Q>", $b')
perl -e 'print pack "Q>", (1 << 63) | (1 << 40)' | dd of=broken.qcow2 bs=1 seek="$l1" conv=notrunc status=none
run "$VDISK" compare a.raw broken.qcow2
[ "$status" -eq 2 ] || [ "$status" -eq 3 ]
claim "broken tables are told apart from a difference"
grep -q '^vdisk: .*broken.qcow2' "$stderr"
claim "and named"
done_testing
