#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every qcow2 that vdisk writes is read by qemu, is what was asked for, and has no fault that qemu-img check knows.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw

to_qemu() { # OPTIONS [-c]
	rm -f x.qcow2
	"$VDISK" convert -O qcow2 ${2:-} ${1:+-o "$1"} disk.raw x.qcow2 && is_disk x.qcow2 disk.raw && qemu-img check -q x.qcow2
}
says() { # PATTERN: qemu-img info of what was just written
	qemu-img info x.qcow2 | grep -Eq "$1"
}
check "qemu reads what vdisk writes by default" to_qemu ""
check "the default is version 3 with clusters of 64 KiB" says 'cluster_size: 65536'
check "the default has compat 1.1" says 'compat: 1.1'
for bits in 9 10 11 12 13 14 15 16 17 18 19 20 21; do
	check "writes clusters of 2^$bits bytes" to_qemu "cluster_size=$((1 << bits))"
	check "qemu sees clusters of 2^$bits bytes" says "cluster_size: $((1 << bits))\$"
done
for n in 1 2 4 8 16 32 64; do
	check "writes refcounts of $n bits" to_qemu "refcount_bits=$n"
	check "qemu sees refcounts of $n bits" says "refcount bits: $n\$"
done
check "writes version 2" to_qemu compat=0.10
check "qemu sees version 2" says 'compat: 0.10'
check "writes lazy refcounts" to_qemu lazy_refcounts=on
check "qemu sees lazy refcounts" says 'lazy refcounts: true'
for c in 16k 64k 2M; do
	check "writes subclusters of clusters of $c" to_qemu "extended_l2=on,cluster_size=$c"
	check "qemu sees subclusters of clusters of $c" says 'extended l2: true'
done
for o in compat=0.10 compat=1.1 cluster_size=4k cluster_size=2M compression_type=zstd extended_l2=on \
	compression_type=zstd,cluster_size=2M extended_l2=on,compression_type=zstd; do
	run to_qemu "$o"
	plain=$(stat -c %s x.qcow2)
	check "writes compressed clusters with $o" to_qemu "$o" -c
	[ "$(stat -c %s x.qcow2)" -lt "$plain" ]
	claim "compressed clusters with $o take less room"
done
check "qemu sees that clusters are zstd" says 'compression type: zstd'

# External data files: the table's file beside the payload's.
rm -f x.qcow2 x.data
check "writes an external data file" "$VDISK" convert -O qcow2 -o data_file=x.data disk.raw x.qcow2
check "qemu reads the external data file" is_disk x.qcow2 disk.raw
check "qemu finds no fault with the external data file" qemu-img check -q x.qcow2
check "qemu sees the external data file" says 'data file: x.data'
rm -f x.qcow2 x.data
check "writes an external raw data file" "$VDISK" convert -O qcow2 -o data_file=x.data,data_file_raw=on disk.raw x.qcow2
check "qemu reads the disk with a raw data file" is_disk x.qcow2 disk.raw
check "the raw data file is the disk" cmp x.data disk.raw
check "qemu sees that the data file is raw" says 'data file raw: true'

# Empty images and overlays.
for size in 512 1M 64T; do
	rm -f x.qcow2
	check "creates an empty disk of $size" "$VDISK" create -f qcow2 x.qcow2 $size
	check "qemu finds no fault with an empty disk of $size" qemu-img check -q x.qcow2
done
rm -f x.qcow2
qemu-img convert -f raw -O qcow2 disk.raw base.qcow2
check "creates an overlay" "$VDISK" create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2
check "qemu reads the base through the overlay" is_disk x.qcow2 disk.raw
check "qemu writes to the overlay" qemu-io -f qcow2 -c 'write -P 7 70000 100000' x.qcow2
check "qemu finds no fault with the overlay" qemu-img check -q x.qcow2
check "vdisk reads what qemu wrote to the overlay" reads_as_qemu x.qcow2

# What qemu does to images of vdisk's making leaves both of one mind.
workload 5 "$(stat -c %s disk.raw)" > commands
for o in "" compat=0.10 cluster_size=512 cluster_size=2M refcount_bits=1 refcount_bits=64 extended_l2=on lazy_refcounts=on; do
	rm -f x.qcow2
	cp disk.raw mirror.raw
	run "$VDISK" convert -O qcow2 ${o:+-o "$o"} disk.raw x.qcow2
	qemu_io -f qcow2 x.qcow2 < commands && qemu_io -f raw mirror.raw < commands
	claim "qemu writes to what vdisk made with ${o:-defaults}"
	check "vdisk reads what qemu wrote with ${o:-defaults}" reads_as x.qcow2 mirror.raw
	check "qemu finds no fault afterwards with ${o:-defaults}" qemu-img check -q x.qcow2
done
done_testing
