#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# map --host against a second reading of the tables (hostmap.py) and against qemu-img, for every kind of qcow2.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl python3
printf secret > key
hostmap=$SRCDIR/tests/interop/hostmap.py

# agrees IMAGE: both have the same owner, and the same way there, for every sector of every file
agrees() { "$VDISK" map --host --output=json "$1" > ours.json && python3 "$hostmap" "$1" ours.json; }

# life IMAGE [SNAPSHOTS]: writes, zeros with and without host space, holes; snapshots in between
life() {
	qemu-io -f qcow2 -c 'write -P 1 0 300k' -c 'write -P 2 1M 777k' -c 'write -z 1200k 128k' -c 'write -z -u 1500k 64k' "$1" > /dev/null
	[ -z "${2:-}" ] || qemu-img snapshot -c one "$1"
	qemu-io -f qcow2 -c 'write -P 3 100k 50k' -c 'write -z 200k 64k' -c 'discard 1M 64k' -c 'write -P 4 2M 129k' "$1" > /dev/null
	[ -z "${2:-}" ] || qemu-img snapshot -c two "$1"
	qemu-io -f qcow2 -c 'write -P 5 101k 1k' -c 'write -P 6 2M 512' -c 'discard 1200k 64k' "$1" > /dev/null
}

for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k cluster_size=2M extended_l2=on extended_l2=on,cluster_size=16k \
	refcount_bits=1 refcount_bits=2 refcount_bits=8 refcount_bits=32 refcount_bits=64 lazy_refcounts=on \
	preallocation=metadata preallocation=falloc; do
	snapshots=yes
	case $o in refcount_bits=1) snapshots= ;; esac
	rm -f d.qcow2
	qemu-img create -q -f qcow2 -o "$o" d.qcow2 5000k
	life d.qcow2 $snapshots
	check "with $o" agrees d.qcow2
	[ -z "$snapshots" ] || qemu-img snapshot -d one d.qcow2
	check "with $o, a snapshot less" agrees d.qcow2
done

for raw in off on; do
	rm -f d.qcow2 d.data
	qemu-img create -q -f qcow2 -o data_file=d.data,data_file_raw=$raw d.qcow2 5000k
	life d.qcow2
	check "with a data file, raw $raw" agrees d.qcow2
done

make_disk plain.raw
for o in compression_type=zlib,cluster_size=64k compression_type=zlib,cluster_size=4k compression_type=zstd; do
	qemu-img convert -q -c -f raw -O qcow2 -o "$o" plain.raw d.qcow2
	check "compressed, $o" agrees d.qcow2
	life d.qcow2 yes
	check "compressed and rewritten, $o" agrees d.qcow2
done
rm d.qcow2
check "compressed by vdisk" "$VDISK" convert -q -c -O qcow2 plain.raw d.qcow2
check "it agrees" agrees d.qcow2

rm d.qcow2
check "encrypted" "$VDISK" convert -q --encrypt --new-key-file key --pbkdf-iterations 1000 -O qcow2 plain.raw d.qcow2
check "it agrees with key area" agrees d.qcow2
grep -q '"kind":"dead-key-slot"' ours.json
claim "and has room in it for more keys"
"$VDISK" snapshot -q -c one d.qcow2
check "and with a snapshot" agrees d.qcow2

qemu-img create -q -f qcow2 d.qcow2 64M
qemu-img bitmap --add -g 4k d.qcow2 first
qemu-img bitmap --add --disable d.qcow2 second
qemu-io -f qcow2 -c 'write -P 1 3M 20M' d.qcow2 > /dev/null
check "with bitmaps" agrees d.qcow2
grep -q '"kind":"bits"' ours.json
claim "of which one has bits"
life d.qcow2 yes
check "with bitmaps and snapshots" agrees d.qcow2

# The disk is made smaller by hand, so that what lay past its end is the memory of a machine.
qemu-img create -q -f qcow2 -o cluster_size=4k d.qcow2 8M
qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 7 4M 300k' d.qcow2 > /dev/null
qemu-img snapshot -c running d.qcow2
qemu-io -f qcow2 -c 'discard 4M 300k' -c 'write -P 2 0 64k' d.qcow2 > /dev/null
python3 "$hostmap" --vm-state d.qcow2 $((2 * 1048576 + 512)) 307200
check "with the state of a machine" agrees d.qcow2
qemu-img snapshot -l d.qcow2 | grep -q '300 KiB' && grep -q '"owner":"vm-state"' ours.json
claim "which qemu-img sees too"

# Clusters that are counted and lost: the table that leads to them is gone.
qemu-img create -q -f qcow2 d.qcow2 8M
life d.qcow2
perl -e 'open F, "+<", "d.qcow2"; seek F, 40, 0; read F, $b, 8; seek F, unpack("Q>", $b), 0; print F "\0" x 8'
check "with leaked clusters" agrees d.qcow2
grep -q '"owner":"leaked"' ours.json
claim "there are some"
truncate -s +1000000 d.qcow2
printf x | dd of=d.qcow2 bs=1 seek="$(stat -c %s d.qcow2)" status=none
check "with bytes behind the last cluster" agrees d.qcow2
grep -q '"owner":"tail"' ours.json
claim "which are told"

# A file of many small pieces all over a large disk, in little memory whatever its size.
qemu-img create -q -f qcow2 d.qcow2 64T
perl -e 'srand 1; print "write -P 1 ", int(rand(1 << 30)) * 65536, " 64k\n" for 1 .. 400' | qemu-io -f qcow2 d.qcow2 > /dev/null
agrees_in_256_mib() {
	agrees d.qcow2 && python3 -c '
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
sys.exit(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 256 * 1024)' "$VDISK" map --host d.qcow2
}
check "64 TiB in 256 MiB of memory" agrees_in_256_mib
done_testing
