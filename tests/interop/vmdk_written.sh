#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library writes into VMDKs that qemu made, and qemu finds what it would have written itself. The same commands go to
# a raw copy through qemu-io: that is the truth.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
size=$(stat -c %s disk.raw)

# Both sets of grain tables say the same, every grain lies in the file, and none is named twice.
tables_agree() { # SPARSE-EXTENT
	perl -e '
		open(F, "<:raw", shift) or die; local $/; $f = <F>;
		($cap, $grain) = unpack("x12 Q< Q<", $f); ($n, $rgd, $gd) = unpack("x44 L< Q< Q<", $f);
		for $t (0 .. int(($cap + $n * $grain - 1) / ($n * $grain)) - 1) {
			($a, $b) = map { unpack("L<", substr($f, $_ * 512 + 4 * $t, 4)) } ($gd, $rgd);
			@a = unpack("L<$n", substr($f, $a * 512, 4 * $n)); @b = unpack("L<$n", substr($f, $b * 512, 4 * $n));
			die "table $t differs\n" if "@a" ne "@b";
			for (@a) { next if $_ < 2; die "grain outside\n" if ($_ + $grain) * 512 > length($f); die "twice\n" if $seen{$_}++ }
		}
		die "not closed cleanly\n" if ord(substr($f, 72, 1));
	' "$1"
}

seed=1
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat monolithicSparse,zeroed_grain=on; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	rm -f x*.vmdk
	qemu-img convert -f raw -O vmdk -o "subformat=$o" disk.raw x.vmdk
	cid=$(grep -a '^CID=' x.vmdk)
	check "writes into $o" with_commands commands "$imgio" -w x.vmdk
	qemu_io -f raw mirror.raw < commands
	check "qemu reads what was written into $o" is_disk x.vmdk mirror.raw
	check "vdisk reads what it wrote into $o" reads_as x.vmdk mirror.raw
	check "qemu-img finds nothing wrong with $o" qemu-img check x.vmdk
	[ "$cid" != "$(grep -a '^CID=' x.vmdk)" ]
	claim "the CID of $o has changed"
	for sparse in x.vmdk x-s001.vmdk; do
		[ "$(head -c 4 $sparse 2> log)" != KDMV ] || check "both tables of $o agree in $sparse" tables_agree $sparse
	done
done

# Two extents, written across the seam.
truncate -s 2200M big.raw
rm -f x*.vmdk
qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse big.raw x.vmdk
cat > commands <<-'COMMANDS'
	write -P 7 2145386496 3000000
	write -P 8 2300000000 70000
	write -z 2147000000 900000
COMMANDS
check "writes across two extents" with_commands commands "$imgio" -w x.vmdk
qemu_io -f raw big.raw < commands
check "qemu reads what was written across two extents" qemu-img compare -q x.vmdk big.raw
check "both tables of the first extent agree" tables_agree x-s001.vmdk
check "both tables of the second extent agree" tables_agree x-s002.vmdk
rm -f big.raw x*.vmdk

# Over a parent: what is not written still comes from below, the parent stays as it was, and the child fits it.
for z in off on; do
	seed=$((seed + 1))
	workload $seed "$size" > commands
	cp disk.raw mirror.raw
	qemu-img convert -f raw -O vmdk disk.raw base.vmdk
	before=$(sha256sum < base.vmdk)
	qemu-img create -q -f vmdk -b base.vmdk -F vmdk -o zeroed_grain=$z x.vmdk
	check "writes over a parent, zeroed_grain=$z" with_commands commands "$imgio" -w x.vmdk
	qemu_io -f raw mirror.raw < commands
	check "qemu reads what was written over a parent, zeroed_grain=$z" is_disk x.vmdk mirror.raw
	check "both tables of the child agree, zeroed_grain=$z" tables_agree x.vmdk
	[ "$before" = "$(sha256sum < base.vmdk)" ]
	claim "the parent is untouched, zeroed_grain=$z"
done
"$imgio" -w base.vmdk 'write -P 1 0 512'
claim "the parent itself may be written"
check_fails 1 "its child no longer fits, and that is told" "$VDISK" convert -O raw x.vmdk no.raw

# Larger: zeros where it is new, for qemu too, and the tables as they should be; then smaller again.
for o in monolithicSparse monolithicFlat vmfs; do
	rm -f x*.vmdk
	cp disk.raw mirror.raw
	"$VDISK" convert -q -O vmdk -o subformat=$o disk.raw x.vmdk
	for size in 40M 300M; do
		check "$o grows to $size" "$VDISK" resize -q x.vmdk $size
		truncate -s $size mirror.raw
		check "qemu reads $o of $size" is_disk x.vmdk mirror.raw
		check "vdisk finds nothing wrong with $o of $size" "$VDISK" check -q x.vmdk
		check "writes behind the old end of $o" "$imgio" -w x.vmdk 'write -P 6 39M 300k'
		qemu_io -f raw mirror.raw <<-'COMMANDS'
			write -P 6 39M 300k
		COMMANDS
		check "qemu reads what was written into $o of $size" is_disk x.vmdk mirror.raw
	done
	[ $o != monolithicSparse ] || check "both larger tables agree" tables_agree x.vmdk
	check_fails 63 "$o does not shrink over data" "$VDISK" resize -q --shrink x.vmdk 39M
	check "$o shrinks where nothing is" "$VDISK" resize -q --shrink x.vmdk 41M
	truncate -s 41M mirror.raw
	check "qemu reads the smaller $o" is_disk x.vmdk mirror.raw
	check "vdisk reads the smaller $o" reads_as x.vmdk mirror.raw
done
qemu-img convert -f raw -O vmdk disk.raw base.vmdk
qemu-img create -q -f vmdk -b base.vmdk -F vmdk small.vmdk 4M
check "a child grows" "$VDISK" resize -q small.vmdk 10M
truncate -s 4M mirror.raw
truncate -s 10M mirror.raw
dd if=disk.raw of=mirror.raw bs=1M count=4 conv=notrunc status=none
check "and shows nothing of the parent where it is new" is_disk small.vmdk mirror.raw
qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw parts.vmdk
qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk
check "a disk that qemu made in one part grows" "$VDISK" resize -q parts.vmdk 20M
check "so does qemu's flat one" "$VDISK" resize -q flat.vmdk 20M
cp disk.raw mirror.raw
truncate -s 20M mirror.raw
check "qemu reads its own disk, larger" is_disk parts.vmdk mirror.raw
check "and the flat one" is_disk flat.vmdk mirror.raw

# Either set of tables is mended by the other, and what nothing names goes back; qemu reads what it read.
put_u32() {
	printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($3 & 255)) $(($3 >> 8 & 255)) $(($3 >> 16 & 255)) $(($3 >> 24)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
for at in 48 56; do
	qemu-img convert -f raw -O vmdk disk.raw x.vmdk
	directory=$(($(od -An -tu4 -j $at -N 4 x.vmdk) * 512))
	put_u32 x.vmdk $at 2147483647
	check_fails 10 "a lost directory is found (header, byte $at)" "$VDISK" check x.vmdk
	check "and mended by the other" "$VDISK" check -q --repair=all x.vmdk
	check "so that nothing is wrong (header, byte $at)" "$VDISK" check -q x.vmdk
	check "both tables agree again (header, byte $at)" tables_agree x.vmdk
	check "qemu-img agrees (header, byte $at)" qemu-img check -q x.vmdk
	check "qemu reads the mended disk (header, byte $at)" is_disk x.vmdk disk.raw
	size=$(stat -c %s x.vmdk)
	yes | head -c 300000 >> x.vmdk
	check_fails 3 "grains that nothing names are found" "$VDISK" check x.vmdk
	check "and given back" "$VDISK" check -q --repair=leaks x.vmdk
	[ "$(stat -c %s x.vmdk)" -le $((size + 65536)) ]
	claim "by cutting the file"
	check "qemu reads the shorter file" is_disk x.vmdk disk.raw
done

# A container in a stream: encrypted, then packed.
printf secret > key
for type in luks1 luks2; do
	rm -f x.vmdk
	check "$type in a stream" "$VDISK" encrypt -q --key-file key --type $type --pbkdf-iterations $([ $type = luks1 ] && echo 1000 || echo 4) -c -O vmdk disk.raw x.vmdk
	check "its tables are sound" "$VDISK" check -q x.vmdk
	[ $type = luks1 ] || continue
	check "qemu opens the container in it" opens_as driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=x.vmdk disk.raw
	check "no line of the text is left in the file" holds_no 'packs well' x.vmdk
done

# What is only read.
rm -f x*.vmdk
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw x.vmdk
check_fails 1 "a stream is not written into" "$imgio" -w x.vmdk 'write -P 1 0 512'
cp disk.raw flat.raw
printf 'version=1\nCID=00000001\nRW 2048 FLAT "flat.raw" 0\nRDONLY 2048 FLAT "flat.raw" 2048\nRW 100 ZERO\n' > x.vmdk
check_fails 1 "a read-only extent is not written into" "$imgio" -w x.vmdk 'write -P 1 1M 512'
check_fails 1 "a zero extent is not written into" "$imgio" -w x.vmdk 'write -P 1 2M 512'
check "zeros in a zero extent are there" "$imgio" -w x.vmdk 'write -z 2M 512'
check "the extent beside them is written into" "$imgio" -w x.vmdk 'write -P 9 1048064 512'
sed -i 's/^CID/changeTrackPath="x-ctk.vmdk"\nCID/' x.vmdk
check_fails 1 "a disk whose changes are recorded elsewhere is not written into" "$imgio" -w x.vmdk 'write -P 1 0 512'
done_testing
