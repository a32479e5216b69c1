#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Options of an image changed in place, by this command and by qemu-img in turn: both see what the other changed, the disk and
# its snapshots stay what they are, and the tables are without error after every change.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl

is_sound() { qemu-img check -q -f qcow2 "$1"; }
# says IMAGE TEXT: a line of qemu-img info
says() { qemu-img info -f qcow2 "$1" | grep -q "^ *$2\$"; }
is_disk() { qemu-img compare -q -f qcow2 -F raw "$1" disk.raw; }
was_then() { qemu-img convert -q -f qcow2 -l s -O raw "$1" then.raw && cmp -s then.raw before.raw; }

# amends OPTIONS LINE: and all else is as it was
amends() {
	check "amend -o $1" "$VDISK" amend -q -o "$1" a.qcow2
	says a.qcow2 "$2"; claim "qemu-img sees it: $2"
	is_sound a.qcow2 && is_disk a.qcow2 && was_then a.qcow2
	claim "disk, snapshot and counts are right after $1"
}
# by_peer OPTIONS: the same by qemu-img
by_peer() {
	qemu-img amend -q -f qcow2 -o "$1" a.qcow2 && "$VDISK" compare -q -F raw a.qcow2 disk.raw > /dev/null
	claim "reads the same after qemu-img amend -o $1"
}

qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 8M
qemu-io -f qcow2 -c 'write -P 1 0 5M' a.qcow2 > /dev/null
qemu-img snapshot -c s a.qcow2
qemu-img convert -q -f qcow2 -O raw a.qcow2 before.raw
qemu-io -f qcow2 -c 'write -P 2 1M 2M' -c 'write -P 3 6M 1M' a.qcow2 > /dev/null
qemu-img convert -q -f qcow2 -O raw a.qcow2 disk.raw
amends lazy_refcounts=on 'lazy refcounts: true'
by_peer lazy_refcounts=off
amends refcount_bits=64 'refcount bits: 64'
by_peer refcount_bits=8
amends refcount_bits=2 'refcount bits: 2'
amends refcount_bits=16,lazy_refcounts=on 'lazy refcounts: true'
amends compat=0.10 'compat: 0.10'
by_peer compat=1.1
amends compat=v2 'compat: 0.10'
amends compat=1.1,refcount_bits=32,lazy_refcounts=on 'refcount bits: 32'
check_fails 63 "one owner too many for the width" "$VDISK" amend -o refcount_bits=1 a.qcow2
grep -q '2 owners' "$stderr"; claim "names the count"
check_fails 63 "version 2 with another width" "$VDISK" amend -o compat=0.10 a.qcow2
is_sound a.qcow2 && is_disk a.qcow2 && was_then a.qcow2 && says a.qcow2 'refcount bits: 32'
claim "what is refused leaves the image as it was"

# Zero clusters: holes where nothing is below.
qemu-img create -q -f qcow2 z.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 0 4M' -c 'write -z 1M 2M' z.qcow2 > /dev/null
qemu-img convert -q -f qcow2 -O raw z.qcow2 disk.raw
check "zero clusters to version 2" "$VDISK" amend -q -o compat=0.10 z.qcow2
is_sound z.qcow2 && is_disk z.qcow2 && says z.qcow2 'compat: 0.10'; claim "are holes then"
qemu-img create -q -f raw base.raw 4M
qemu-img create -q -f qcow2 -b base.raw -F raw o.qcow2
qemu-io -f qcow2 -c 'write -z 1M 1M' o.qcow2 > /dev/null
check_fails 63 "not over a backing file" "$VDISK" amend -o compat=0.10 o.qcow2
grep -q flatten "$stderr"; claim "names the way"
check "backing format" "$VDISK" amend -q -o backing_fmt=qcow2 o.qcow2
says o.qcow2 'backing file format: qcow2'; claim "is changed"

# The features that stand in the way, each by its name.
for o in extended_l2=on,extended compression_type=zstd,zstd data_file=x.data,data; do
	qemu-img create -q -f qcow2 -o "${o%,*}" f.qcow2 1M
	check_fails 63 "no version 2 with ${o%,*}" "$VDISK" amend -o compat=0.10 f.qcow2
	grep -q "${o#*,}" "$stderr"; claim "names ${o#*,}"
	rm -f f.qcow2 x.data
done

# Raw data files, sizes, what cannot be changed.
qemu-img create -q -f qcow2 -o data_file=y.data,data_file_raw=on y.qcow2 1M
check "give a raw data file up" "$VDISK" amend -q -o data_file_raw=off y.qcow2
says y.qcow2 'data file raw: false'; claim "is no more"
check_fails 63 "not back" "$VDISK" amend -o data_file_raw=on y.qcow2
check "size" "$VDISK" amend -q -o size=6M z.qcow2
check_fails 64 "smaller without --shrink" "$VDISK" amend -o size=1M z.qcow2
check "smaller with it" "$VDISK" amend -q --shrink --scrub -o size=1M z.qcow2
says z.qcow2 'virtual size: 1 MiB (1048576 bytes)' && is_sound z.qcow2; claim "is smaller"
for o in cluster_size=4k extended_l2=on compression_type=zstd data_file=d encrypt.format=luks backing_file=b; do
	check_fails 63 "refused: $o" "$VDISK" amend -o $o z.qcow2
	grep -q "^hint: vdisk" "$stderr"; claim "with the way to it"
done
check_fails 64 "nothing asked for" "$VDISK" amend z.qcow2
check_fails 64 "an option that there is not" "$VDISK" amend -o colour=red z.qcow2
check_fails 63 "another format" "$VDISK" amend -f raw -o compat=1.1 base.raw
check "JSON" "$VDISK" amend --output=json -o compat=1.1,lazy_refcounts=on z.qcow2
json_is "$stdout" '$d->{compat} . ($d->{"lazy-refcounts"} ? " lazy" : "")' '1.1 lazy'; claim "tells what is so now"
done_testing
