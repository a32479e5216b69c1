#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every qcow2 that qemu-img and qemu-io write is read by vdisk as they read it themselves.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw

from_qemu() { # OPTIONS [-c]
	rm -f x.qcow2
	qemu-img convert -f raw -O qcow2 ${2:-} -o "$1" disk.raw x.qcow2 && reads_as x.qcow2 disk.raw
}
for o in compat=0.10 compat=1.1 lazy_refcounts=on extended_l2=on extended_l2=on,cluster_size=16k \
	extended_l2=on,cluster_size=2M preallocation=metadata preallocation=falloc preallocation=full \
	extended_l2=on,preallocation=metadata; do
	check "reads $o" from_qemu "$o"
done
for bits in 9 10 11 12 13 14 15 16 17 18 19 20 21; do
	check "reads clusters of 2^$bits bytes" from_qemu "cluster_size=$((1 << bits))"
done
for n in 1 2 4 8 16 32 64; do
	check "reads refcounts of $n bits" from_qemu "refcount_bits=$n"
done
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k cluster_size=2M compression_type=zstd \
	compression_type=zstd,cluster_size=4k compression_type=zstd,cluster_size=2M extended_l2=on \
	extended_l2=on,compression_type=zstd; do
	check "reads clusters compressed with $o" from_qemu "$o" -c
done

dd if=/dev/urandom of=noise.raw bs=1M count=8 status=none

# All that qemu-io can do to a cluster, in one image: written, partly written, zeroed with and without giving the host
# cluster back, discarded, compressed, written over.
inhabit() { # IMAGE
	qemu_io -f qcow2 "$1" <<-'COMMANDS'
		write -P 0x11 0 1M
		write -P 0x12 1310720 3000
		write -P 0x13 1400000 70001
		write -z 64k 64k
		write -z -u 192k 64k
		write -z 3M 128k
		write -z 4000 1000
		discard 320k 128k
		discard 5M 64k
		write -c -P 0x43 4M 2M
		write -P 0x44 4200000 513
		write -z 5M 64k
		write -P 0x45 7340032 64k
	COMMANDS
}
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k cluster_size=2M extended_l2=on \
	extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M compression_type=zstd lazy_refcounts=on; do
	qemu-img create -q -f qcow2 -o "$o" y.qcow2 8M && inhabit y.qcow2
	claim "qemu-io makes one of each kind of cluster with $o"
	check "reads each kind of cluster with $o" reads_as_qemu y.qcow2
	qemu-img create -q -f qcow2 -b noise.raw -F raw -o "$o" z.qcow2 9M && inhabit z.qcow2
	check "reads each kind of cluster over a backing file with $o" reads_as_qemu z.qcow2
done

# Sizes: the empty disk, one sector, and one so large that the tables are all there is.
for size in 0 512 64T; do
	qemu-img create -q -f qcow2 -o cluster_size=2M huge.qcow2 $size
	check "tells the size of an empty disk of $size" "$VDISK" info --output=json huge.qcow2
	grep -Eq "\"virtual-size\": *$(echo $size | sed 's/64T/70368744177664/')\b" "$stdout"
	claim "the size of an empty disk of $size is right"
done
done_testing
