#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# How large a copy would be: never less than a convert makes, exactly that of a full disk, and what qemu-img says.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

# measures ARGUMENT...: $required and $full
measures() {
	"$VDISK" measure --output=json "$@" > ours.json || return 1
	required=$(perl -MJSON::PP -ne 'print decode_json($_)->{required}' ours.json)
	full=$(perl -MJSON::PP -ne 'print decode_json($_)->{"fully-allocated"}' ours.json)
}
# agrees ARGUMENT...: qemu-img measure says the same
agrees() {
	qemu-img measure --output=json "$@" > theirs.json && json_is theirs.json '$d->{required}' "$required" &&
		json_is theirs.json '$d->{"fully-allocated"}' "$full"
}

head -c 3M /dev/urandom > full.raw
printf 'not whole clusters' >> full.raw
make_disk some.raw $((9 * 1048576 + 4096))
qemu-img create -q -f raw none.raw 40M
qemu-img convert -O qcow2 -c some.raw packed.qcow2
qemu-img create -q -f qcow2 -b packed.qcow2 -F qcow2 over.qcow2 12M
qemu-io -f qcow2 -c 'write -P 5 1M 3M' -c 'write -z 8M 1M' -c 'write -P 1 11000k 8k' over.qcow2 > log

for o in cluster_size=64k cluster_size=512 cluster_size=4k cluster_size=2M compat=0.10 extended_l2=on,cluster_size=128k \
	extended_l2=on,cluster_size=16k refcount_bits=1 refcount_bits=64,cluster_size=1k refcount_bits=8 lazy_refcounts=on; do
	for image in full.raw some.raw none.raw over.qcow2; do
		measures -O qcow2 -o $o $image && agrees -O qcow2 -o $o $image
		claim "as qemu-img has it: $o $image"
		rm -f out
		"$VDISK" convert -q -O qcow2 -o $o $image out && [ "$(wc -c < out)" -le "$required" ]
		claim "a convert takes no more"
		[ $image != full.raw ] || { [ "$(wc -c < out)" -eq "$full" ] && [ "$required" -eq "$full" ]; }
		claim "and exactly that if it is full"
	done
	"$VDISK" convert -q -O qcow2 -c -o $o --force some.raw out && measures -O qcow2 -o $o some.raw && [ "$(wc -c < out)" -le "$required" ]
	claim "compressed no more: $o"
done
for n in 512 1M 1000001 3G 1T 8T; do
	measures -O qcow2 --size $n && agrees -O qcow2 --size $n; claim "an empty disk: $n"
	measures -O raw --size $n && [ "$required" -eq "$full" ]; claim "raw: $n"
done

printf secret > key
enc="--encrypt --pbkdf-iterations 1000"
for o in cluster_size=64k cluster_size=512 cluster_size=2M; do
	# qemu-img does not count the refcounts of the key area, which shows where clusters are small.
	measures -O qcow2 -o $o --encrypt some.raw && { [ $o = cluster_size=512 ] || wait_until agrees $with_key -O qcow2 \
		-o $o,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 some.raw; }
	claim "encrypted as qemu-img has it: $o"
	"$VDISK" convert -q --force -O qcow2 -o $o $enc --new-key-file key full.raw out && measures -O qcow2 -o $o --encrypt full.raw &&
		[ "$(wc -c < out)" -eq "$full" ]
	claim "a convert takes exactly that: $o"
done
measures -O qcow2 --encrypt --cipher aes-128-xts full.raw
"$VDISK" convert -q --force -O qcow2 $enc --cipher aes-128-xts --new-key-file key full.raw out && [ "$(wc -c < out)" -eq "$full" ]
claim "with a shorter key"
for type in luks1 luks2; do
	"$VDISK" convert -q --force -O luks --type $type --new-key-file key --pbkdf-iterations $([ $type = luks1 ] && echo 1000 || echo "4 --pbkdf-memory 32") some.raw out
	measures -O luks --type $type some.raw && [ "$(wc -c < out)" -eq "$required" ] && [ "$required" -eq "$full" ]
	claim "a container: $type"
done
measures -O qcow2 -o data_file=x some.raw
"$VDISK" convert -q --force -O qcow2 -o data_file=x some.raw out && [ $(($(wc -c < out) + $(wc -c < x))) -le "$required" ]
claim "both files of one with a data file"

# VHD and VHDX, whose blocks are large, and VMDK in one file.
truncate -s 64M large.raw
dd if=full.raw of=large.raw bs=1M seek=11 count=3 conv=notrunc status=none
for o in vhd "vhd -o subformat=fixed" "vhd -o block_size=512k" vhdx "vhdx -o subformat=fixed" "vhdx -o block_size=1M" \
	vmdk; do
	for image in full.raw large.raw; do
		"$VDISK" convert -q --force -O $o $image out && measures -O $o $image && [ "$(wc -c < out)" -le "$required" ]
		claim "a convert takes no more: $o $image"
	done
	"$VDISK" convert -q --force -O $o full.raw out && measures -O $o full.raw && [ "$(wc -c < out)" -eq "$full" ]
	claim "and exactly that if it is full: $o"
done
for f in vhd vhdx vmdk; do
	"$VDISK" convert -q --force -O $f $enc --new-key-file key large.raw out && measures -O $f --encrypt large.raw &&
		[ "$(wc -c < out)" -eq "$required" ]
	claim "a container in $f"
done

# Sources: encrypted without its key, a snapshot, what is wrong.
"$VDISK" convert -q --force -O qcow2 $enc --new-key-file key some.raw enc.qcow2
measures -O raw enc.qcow2 < /dev/null && [ "$required" -eq 9441280 ]; claim "an encrypted source needs no key"
measures -O qcow2 enc.qcow2 < /dev/null && "$VDISK" convert -q --force -O qcow2 --key-file key enc.qcow2 out && [ "$(wc -c < out)" -le "$required" ]
claim "and its data is counted"
qemu-img create -q -f qcow2 bits.qcow2 1G
qemu-img bitmap --add bits.qcow2 one && qemu-img bitmap --add -g 4k bits.qcow2 another-one
for o in cluster_size=64k cluster_size=4k,refcount_bits=8; do
	measures -O qcow2 -o $o bits.qcow2 && agrees -O qcow2 -o $o bits.qcow2 &&
		json_is theirs.json '$d->{bitmaps}' "$(perl -MJSON::PP -ne 'print decode_json($_)->{bitmaps}' ours.json)"
	claim "bitmaps are counted apart: $o"
done
check "for people" "$VDISK" measure -O qcow2 --size 1G
grep -qx 'required size: 393216 (384 KiB)' "$stdout"; claim "with the numbers in bytes"
check_fails 64 "an image and a size" "$VDISK" measure -O qcow2 --size 1G some.raw
check_fails 64 "neither" "$VDISK" measure -O qcow2
check_fails 63 "a format that cannot be written" "$VDISK" measure -O nonesuch some.raw
check_fails 63 "what a format has not" "$VDISK" measure -O qcow2 -o compat=0.10,extended_l2=on some.raw
check_fails 1 "no file" "$VDISK" measure nowhere.raw
done_testing
