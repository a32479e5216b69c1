#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library writes into images that qemu made, and qemu finds what it would have written itself, with every count
# right. The same commands go to a raw copy through qemu-io: that is the truth.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
size=$(stat -c %s disk.raw)

is_sound() { # IMAGE: no fault, no leak
	qemu-img check "$1"
}

seed=1
for o in compat=0.10 compat=1.1 lazy_refcounts=on preallocation=metadata preallocation=full \
	cluster_size=512 cluster_size=1k cluster_size=4k cluster_size=2M \
	refcount_bits=1 refcount_bits=2 refcount_bits=4 refcount_bits=8 refcount_bits=32 refcount_bits=64 \
	extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M \
	cluster_size=512,refcount_bits=1 cluster_size=2M,refcount_bits=64; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	qemu-img convert -f raw -O qcow2 -o "$o" disk.raw x.qcow2
	check "writes with $o" with_commands commands "$imgio" -w x.qcow2
	qemu_io -f raw mirror.raw < commands
	check "qemu reads what was written with $o" is_disk x.qcow2 mirror.raw
	check "vdisk reads what it wrote with $o" reads_as x.qcow2 mirror.raw
	check "every count is right with $o" is_sound x.qcow2
done

# Into compressed clusters: unpacked where they are written, and their old place given back.
for o in compat=0.10 cluster_size=4k cluster_size=2M compression_type=zstd extended_l2=on; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	qemu-img convert -f raw -O qcow2 -c -o "$o" disk.raw x.qcow2
	check "writes into compressed clusters with $o" with_commands commands "$imgio" -w x.qcow2
	qemu_io -f raw mirror.raw < commands
	check "qemu reads what was written into compressed clusters with $o" is_disk x.qcow2 mirror.raw
	check "every count is right after writing into compressed clusters with $o" is_sound x.qcow2
done

# Over a backing file: what is not written still comes from below, and the base stays as it was.
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	qemu-img convert -f raw -O qcow2 disk.raw base.qcow2
	before=$(sha256sum < base.qcow2)
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o "$o" x.qcow2
	check "writes over a backing file with $o" with_commands commands "$imgio" -w x.qcow2
	qemu_io -f raw mirror.raw < commands
	check "qemu reads what was written over a backing file with $o" is_disk x.qcow2 mirror.raw
	check "every count is right over a backing file with $o" is_sound x.qcow2
	[ "$before" = "$(sha256sum < base.qcow2)" ]
	claim "the backing file is untouched with $o"
done

# External data files.
for raw in off on; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	rm -f x.qcow2 x.data
	qemu-img convert -f raw -O qcow2 -o data_file=x.data,data_file_raw=$raw disk.raw x.qcow2
	check "writes to an external data file, data_file_raw=$raw" with_commands commands "$imgio" -w x.qcow2
	qemu_io -f raw mirror.raw < commands
	check "qemu reads the external data file, data_file_raw=$raw" is_disk x.qcow2 mirror.raw
	check "every count is right with an external data file, data_file_raw=$raw" is_sound x.qcow2
done
# qemu, too, fills the last cluster of the data file up.
check "the raw data file is the disk, written in place" cmp -n "$size" x.data mirror.raw

# Internal snapshots stay what they were, also where they share every cluster with the active layer.
seed=$((seed + 1))
workload $seed "$size" > commands
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M refcount_bits=4 refcount_bits=64 extended_l2=on; do
	cp disk.raw mirror.raw
	qemu-img convert -f raw -O qcow2 -o "$o" disk.raw x.qcow2
	qemu-img snapshot -c first x.qcow2
	qemu-io -f qcow2 -c 'write -P 0x77 300000 900000' x.qcow2 > log
	qemu-img convert -O raw x.qcow2 second.raw
	cp second.raw mirror.raw
	qemu-img snapshot -c second x.qcow2
	check "reads the active layer beside snapshots with $o" reads_as x.qcow2 mirror.raw
	check "writes beside snapshots with $o" with_commands commands "$imgio" -w x.qcow2
	qemu_io -f raw mirror.raw < commands
	check "qemu reads the active layer beside snapshots with $o" is_disk x.qcow2 mirror.raw
	check "every count is right beside snapshots with $o" is_sound x.qcow2
	qemu-img snapshot -a first x.qcow2
	check "the first snapshot is intact with $o" is_disk x.qcow2 disk.raw
	check "vdisk reads the first snapshot when it is active with $o" reads_as x.qcow2 disk.raw
	qemu-img snapshot -a second x.qcow2
	check "the second snapshot is intact with $o" is_disk x.qcow2 second.raw
	qemu-img snapshot -d first x.qcow2
	check "every count is right after a snapshot is deleted with $o" is_sound x.qcow2
done
qemu-img create -q -f qcow2 x.qcow2 1M
qemu-io -f qcow2 -c 'write -P 1 0 1M' x.qcow2 > log
qemu-img snapshot -c small x.qcow2
qemu-img resize -q x.qcow2 3M
check "writes beside a snapshot of another size" "$imgio" -w x.qcow2 'write -P 2 512k 2M' 'read -P 1 0 512k' 'read -P 0 2621440 512k'
check "every count is right beside a snapshot of another size" is_sound x.qcow2

# Bitmaps: what they hold after a write is bitmaps.sh's.
qemu-img convert -f raw -O qcow2 disk.raw x.qcow2
qemu-img bitmap --add --enable x.qcow2 changes
before=$(sha256sum < x.qcow2)
check "reads an image with a persistent bitmap" reads_as x.qcow2 disk.raw
[ "$before" = "$(sha256sum < x.qcow2)" ]
claim "reading leaves the bitmap as it was"
check "writes to an image with a persistent bitmap" "$imgio" -w x.qcow2 'write -P 9 1M 64k'
[ "$(($(field x.qcow2 95 1) & 1))" = 1 ] && "$VDISK" map -q --since changes x.qcow2 | grep -qx ' *1048576 *65536'
claim "the bitmap tells of the write"
check "qemu reads what was written beside the bitmap" qemu-io -f qcow2 -r -c 'read -P 9 1M 64k' x.qcow2
check "nothing is lost" is_sound x.qcow2
done_testing
