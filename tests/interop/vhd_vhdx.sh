#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VHD and VHDX between vdisk and qemu-img, both ways; libvhdi reads along where it is installed. What qemu gets wrong is
# built by hand: tests/unit/test_vhd.c, test_vhdx.c.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
printf secret > key

driver() { case $1 in vhd) echo vpc ;; *) echo "$1" ;; esac; }

# peers_read FORMAT RAW: qemu, and libvhdi if it is there, read of x.FORMAT what RAW holds, and no more.
cat > read.py <<'PY'
import pyvhdi, sys
f = pyvhdi.file()
f.open(sys.argv[1])
if len(sys.argv) > 3:
    p = pyvhdi.file()
    p.open(sys.argv[3])
    f.set_parent(p)
with open(sys.argv[2], "rb") as raw:
    sys.exit(f.read_buffer_at_offset(f.get_media_size(), 0) != raw.read())
PY
has_libvhdi() { /usr/bin/python3 -c 'import pyvhdi' 2>/dev/null; }
libvhdi_reads() { ! has_libvhdi || /usr/bin/python3 read.py "$@"; }
peers_read() {
	qemu-img compare -q -f "$(driver "$1")" -F raw "x.$1" "$2" && libvhdi_reads "x.$1" "$2"
}

# ---- both ways, every kind

from_qemu() { # FORMAT OPTIONS
	rm -f "x.$1"
	qemu-img convert -f raw -O "$(driver "$1")" -o "$2" disk.raw "x.$1" && reads_as "x.$1" disk.raw
}
to_peers() { # FORMAT OPTIONS
	rm -f "x.$1"
	"$VDISK" convert -q -O "$1" -o "$2" disk.raw "x.$1" && peers_read "$1" disk.raw && reads_as "x.$1" disk.raw
}
for o in subformat=dynamic,force_size=on subformat=fixed,force_size=on; do
	check "reads vhd $o" from_qemu vhd "$o"
done
for o in subformat=dynamic subformat=fixed subformat=dynamic,block_size=1M subformat=dynamic,block_size=256M,log_size=4M; do
	check "reads vhdx $o" from_qemu vhdx "$o"
done
for o in subformat=dynamic subformat=fixed block_size=512K block_size=4K; do
	check "writes vhd $o" to_peers vhd "$o"
done
for o in subformat=dynamic subformat=fixed block_size=1M block_size=256M; do
	check "writes vhdx $o" to_peers vhdx "$o"
	qemu-img check -q x.vhdx
	claim "and qemu-img check finds nothing wrong"
done

# Without force_size qemu rounds the disk up to a geometry, and says so by its creator.
qemu-img convert -f raw -O vpc disk.raw chs.vhd && reads_as_qemu chs.vhd
claim "a size by geometry is qemu's"

# ---- what they are

is_made() { # FORMAT KIND
	"$VDISK" info --output=json "x.$1" > info.json && json_is info.json '$d->{format}' "$1" &&
		json_is info.json '$d->{vdisk}{subformat}' "$2" && json_is info.json '$d->{"virtual-size"}' 8390144
}
for f in vhd vhdx; do
	for k in dynamic fixed; do
		rm -f "x.$f"
		"$VDISK" convert -q -O $f -o subformat=$k disk.raw x.$f && is_made $f $k
		claim "a $k $f is known by its bytes, with its exact size"
	done
done
rm -f az.vhd
"$VDISK" convert -q -O vhd --azure disk.raw az.vhd && [ "$(stat -c %s az.vhd)" -eq $((9 * 1048576 + 512)) ]
claim "--azure makes a fixed disk of whole MiB"
[ "$(field az.vhd $((9 * 1048576 + 48)) 8)" = 0000000000900000 ]
claim "and its footer says so"
check_fails 64 "--azure with a dynamic disk is refused" "$VDISK" convert -O vhd --azure -o subformat=dynamic disk.raw no.vhd
check_fails 64 "--azure for another format is refused" "$VDISK" convert -O qcow2 --azure disk.raw no.qcow2
check_fails 64 "a disk over 2040 GiB is no VHD" "$VDISK" create -f vhd no.vhd 2041G
check_fails 64 "a disk over 64 TiB is no VHDX" "$VDISK" create -f vhdx no.vhdx 65T
check_fails 64 "an unknown kind is refused" "$VDISK" create -f vhd -o subformat=thick no.vhd 1M

check "the largest VHDX is made" "$VDISK" create -q -f vhdx big.vhdx 64T
"$VDISK" map --output=json big.vhdx > big.json && [ "$(stat -c %b big.vhdx)" -lt 4096 ]
claim "takes little room, and is mapped"

# ---- written in place

for f in vhd vhdx; do
	for k in dynamic fixed; do
		rm -f "x.$f"
		cp disk.raw want.raw
		"$VDISK" convert -q -O $f -o subformat=$k disk.raw x.$f
		workload 7 8390144 > work
		with_commands work "$imgio" -w "x.$f" > imgio.log && qemu_io -f raw want.raw < work && peers_read $f want.raw
		claim "a $k $f that vdisk wrote to"
		workload 8 8390144 > work
		qemu_io -f "$(driver $f)" x.$f < work && qemu_io -f raw want.raw < work && reads_as x.$f want.raw
		claim "a $k $f that qemu wrote to afterwards"
	done
done

# ---- children

for f in vhd vhdx; do
	rm -f base.$f x.$f
	cp disk.raw want.raw
	"$VDISK" convert -q -O $f disk.raw base.$f && "$VDISK" create -q -f $f -b base.$f -F $f x.$f && reads_as x.$f disk.raw
	claim "a new $f child reads as its parent"
	workload 9 8390144 > work
	with_commands work "$imgio" -w "x.$f" > imgio.log && qemu_io -f raw want.raw < work && reads_as x.$f want.raw
	claim "a $f child that was written to"
	[ $f = vhd ] || check "libvhdi reads the $f child" libvhdi_reads x.$f want.raw base.$f
	mv base.$f away
	check_fails 1 "a $f child without its parent is refused" "$VDISK" convert x.$f no.raw
	mv away base.$f
	cp base.$f kept
	printf 'write -P 1 0 512\n' > work
	with_commands work "$imgio" -w base.$f > imgio.log
	check_fails 1 "a $f child whose parent was written since is refused" "$VDISK" convert x.$f no.raw
	grep -q 'garbage' "$stderr"
	claim "and it is said why"
	mv kept base.$f
	check "with the parent as it was the $f child opens" reads_as x.$f want.raw
	"$VDISK" convert -q -O $f disk.raw base.$f --force
	check_fails 1 "a $f child on another disk is refused" "$VDISK" convert x.$f no.raw
done

# libvhdi takes all eight sectors of a byte of a VHD's bitmap as they are when one is set.
"$VDISK" convert -q -O vhd disk.raw base.vhd --force && "$VDISK" create -q -f vhd -b base.vhd -F vhd x.vhd --force
workload 10 8380416 | awk '/write/ { i = NF - 1; $i -= $i % 4096; $NF += 4096 - $NF % 4096 } 1' > work
cp disk.raw want.raw
with_commands work "$imgio" -w x.vhd > imgio.log && qemu_io -f raw want.raw < work && libvhdi_reads x.vhd want.raw base.vhd
claim "libvhdi reads the vhd child"

# ---- chains that change; qemu has no differencing disks, so chainread.py is the witness

witness() { python3 "$SRCDIR/tests/interop/chainread.py" "$1" > witness.raw && cmp -s witness.raw "$2"; }
scatter() { # IMAGE RAW SEED: writes to both
	workload "$3" 8390144 > work
	with_commands work "$imgio" -w "$1" > imgio.log && qemu_io -f raw "$2" < work
}
# Sectors of 4096 bytes, which qemu does not read.
head -c 8M disk.raw > even.raw
rm -f x.vhdx
check "sectors of 4096 bytes" "$VDISK" convert -q -O vhdx -o logical_sector_size=4096,block_size=1M even.raw x.vhdx
check "the witness reads them" witness x.vhdx even.raw
check "so does libvhdi" libvhdi_reads x.vhdx even.raw
check "and vdisk, which finds nothing wrong" reads_as x.vhdx even.raw
check "no fault in it" "$VDISK" check -q x.vhdx
check_fails 64 "its disk has whole sectors" "$VDISK" create -f vhdx -o logical_sector_size=4096 no.vhdx 1049088
check_fails 64 "other sectors are refused" "$VDISK" create -f vhdx -o logical_sector_size=1024 no.vhdx 1M
check_fails 64 "so they are in a VHD" "$VDISK" create -f vhd -o logical_sector_size=4096 no.vhd 1M

for f in vhd vhdx; do
	rm -f base.$f other.$f x.$f
	cp disk.raw want.raw
	"$VDISK" convert -q -O $f disk.raw base.$f && "$VDISK" create -q -f $f -b base.$f -F $f x.$f &&
		scatter x.$f want.raw 21 && witness x.$f want.raw
	claim "the witness reads a $f child"
	cp base.$f old.$f
	"$VDISK" create -q -f $f other.$f 7M && scatter other.$f /dev/null 22 > other.log 2>&1
	check "a $f child is rebased" "$VDISK" rebase -q -b other.$f -F $f x.$f
	rm base.$f
	check "and needs its old parent no more" reads_as x.$f want.raw
	check "to the witness, too" witness x.$f want.raw
	mv other.$f moved.$f
	check "its parent is renamed" "$VDISK" rebase -q -u -b moved.$f -F $f x.$f
	check "and still known" witness x.$f want.raw
	"$VDISK" create -q -f $f -b moved.$f -F $f sibling.$f --force
	check "the $f child is committed" "$VDISK" commit -q x.$f
	check "and reads as before" witness x.$f want.raw
	check "its parent has all of it" witness moved.$f want.raw
	check_fails 1 "to other children the parent is another one" "$VDISK" convert sibling.$f no.raw
	scatter x.$f want.raw 23 && "$VDISK" rebase -q -b '' x.$f && rm moved.$f
	claim "the $f child is flattened"
	check "and reads as before" witness x.$f want.raw
	check "qemu reads it now" qemu-img compare -q -f $(driver $f) -F raw x.$f want.raw
	[ $f = vhd ] || check "and finds nothing wrong" qemu-img check -q x.$f
	"$VDISK" create -q -f $f other.$f 3M && scatter other.$f /dev/null 24 > other.log 2>&1
	check "it gets a parent" "$VDISK" rebase -q -b other.$f -F $f x.$f
	check "and reads as before" witness x.$f want.raw
	check "vdisk finds nothing wrong" "$VDISK" check -q x.$f
	"$VDISK" create -q -f qcow2 other.qcow2 3M --force
	check_fails 63 "a parent of another format is refused" "$VDISK" rebase -q -b other.qcow2 -F qcow2 x.$f
	"$VDISK" create -q -f $f -b x.$f -F $f top.$f --force
	check_fails 63 "two layers at once are not committed" "$VDISK" commit -q --base other.$f top.$f
	rm -f top.$f sibling.$f
done

# ---- larger and smaller

# with_zeros WHAT: x.$f is cut to 2 MiB, of which the last is written and then made zeros again.
with_zeros() {
	printf 'write -z 2M 10M\n' > work
	with_commands work "$imgio" -w "x.$f" > imgio.log && truncate -s 2M want.raw
	check "a $1 shrinks where it is zeros" "$VDISK" resize -q --shrink x.$f 2M
	check "qemu reads the smaller one" qemu-img compare -q -f "$(driver $f)" -F raw x.$f want.raw
	[ "$f" = vhd ] || check "and finds nothing wrong" qemu-img check -q x.$f
	"$VDISK" check -q x.$f && "$VDISK" resize -q x.$f 12M && truncate -s 12M want.raw
	check "and after it grew again" qemu-img compare -q -f "$(driver $f)" -F raw x.$f want.raw
}

for f in vhd vhdx; do
	for k in dynamic fixed; do
		rm -f "x.$f"
		cp disk.raw want.raw
		truncate -s 12M want.raw
		"$VDISK" convert -q -O $f -o subformat=$k disk.raw x.$f
		check "a $k $f grows" "$VDISK" resize -q x.$f 12M
		check "and reads zeros where it is new" qemu-img compare -q -f $(driver $f) -F raw x.$f want.raw
		check "to vdisk, too" reads_as x.$f want.raw
		check_fails 63 "a $k $f with data there does not shrink" "$VDISK" resize --shrink x.$f 4M
		with_zeros "$k $f"
	done
done

# ---- encrypted

for f in vhd vhdx; do
	for k in dynamic fixed; do
		rm -f "x.$f"
		check "encrypts a $k $f" "$VDISK" convert -q --encrypt --new-key-file key --pbkdf-iterations 1000 -O $f -o subformat=$k disk.raw x.$f
		check "qemu opens the container in it" opens_as driver=luks,key-secret=s,file.driver=$(driver $f),file.file.filename=x.$f disk.raw
		check "vdisk reads it" reads_as x.$f disk.raw --key-file key
	done
done

# ---- a log that was left; qemu empties its own with each write

rm -f x.vhdx
cp disk.raw want.raw
qemu-img convert -f raw -O vhdx -o block_size=1M disk.raw x.vhdx
printf 'write -P 9 4M 100k\nwrite -P 8 7M 4k\n' > work
qemu_io -f raw want.raw < work
printf 'flush\nabort\n' >> work
with_commands work "$imgio" -w x.vhdx > imgio.log && "$VDISK" info x.vhdx | grep -q 'not closed cleanly'
claim "a run that was cut off leaves its log"
check_fails 1 "qemu does not open it for reading" qemu-img info --image-opts driver=vhdx,file.filename=x.vhdx
# As if the last tables had not come in place.
bat=$(perl -e 'open my $f, "<", "x.vhdx"; seek $f, 196608 + 32, 0; read $f, my $b, 8; print unpack "Q<", $b')
dd if=/dev/zero of=x.vhdx bs=4096 seek=$((bat / 4096)) count=1 conv=notrunc status=none
cp x.vhdx before.vhdx
check "vdisk reads it by the log" reads_as x.vhdx want.raw
cmp -s x.vhdx before.vhdx
claim "and leaves it as it is"
run qemu-img check -r all before.vhdx
qemu-img compare -q -f vhdx -F raw before.vhdx want.raw
claim "qemu replays it, too"
printf 'write -P 7 3M 512\n' > work
with_commands work "$imgio" -w x.vhdx > imgio.log && qemu_io -f raw want.raw < work && peers_read vhdx want.raw && qemu-img check -q x.vhdx
claim "a write puts it in place"

# ---- damaged

qemu-img convert -f raw -O vpc -o force_size=on disk.raw x.vhd
truncate -s -512 x.vhd
check "a dynamic vhd that lost its footer is read by the copy" reads_as x.vhd disk.raw
printf 'write -P 7 0 1M\n' > work
cp disk.raw want.raw
with_commands work "$imgio" -w x.vhd > imgio.log && qemu_io -f raw want.raw < work && reads_as x.vhd want.raw &&
	[ "$(field x.vhd $(($(stat -c %s x.vhd) - 512)) 8)" = 636f6e6563746978 ]
claim "and gets it back when it is written to"
qemu-img convert -f raw -O vpc -o force_size=on disk.raw x.vhd
dd if=/dev/zero of=x.vhd bs=1 seek=100 count=1 conv=notrunc status=none
printf 'x' | dd of=x.vhd bs=1 seek=101 conv=notrunc status=none
check_fails 10 "a damaged footer at the front is found" "$VDISK" check -q x.vhd
check "and mended" "$VDISK" check -q --repair=all x.vhd
check "so that qemu reads it" qemu-img compare -q -f vpc -F raw x.vhd disk.raw
qemu-img convert -f raw -O vhdx disk.raw x.vhdx
printf 'x' | dd of=x.vhdx bs=1 seek=197000 conv=notrunc status=none
check_fails 10 "a damaged region table of a vhdx is found" "$VDISK" check -q x.vhdx
check "and mended" "$VDISK" check -q --repair=all x.vhdx
check "so that qemu reads it" qemu-img compare -q -f vhdx -F raw x.vhdx disk.raw
qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk.raw x.vhd
qemu-img convert -f raw -O vpc -o force_size=on disk.raw inner.vhd
dd if=inner.vhd of=x.vhd bs=512 count=4 conv=notrunc status=none
"$VDISK" info x.vhd | grep -q 'vhd, fixed'
claim "a fixed vhd whose guest wrote a dynamic one into itself is fixed"
done_testing
