#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images that name other files: chains of different sizes, files in other folders, and names that must not be followed.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk base.raw $((5 * 1048576))

overlay() { # IMAGE BACKING FORMAT SIZE OPTIONS
	qemu-img create -q -f qcow2 -b "$2" -F "$3" ${5:+-o "$5"} "$1" "$4"
}
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on; do
	overlay mid.qcow2 base.raw raw 8M "$o"
	qemu_io -f qcow2 mid.qcow2 <<-'COMMANDS'
		write -P 1 1M 100000
		write -P 2 6M 64k
		write -z 2M 128k
	COMMANDS
	overlay top.qcow2 mid.qcow2 qcow2 6200k ""
	qemu_io -f qcow2 top.qcow2 <<-'COMMANDS'
		write -P 3 1050000 5000
		write -z 3M 4k
	COMMANDS
	check "reads a chain of three sizes with $o" reads_as_qemu top.qcow2
	overlay longer.qcow2 top.qcow2 qcow2 9M ""
	check "reads zeros past the end of a shorter parent with $o" reads_as_qemu longer.qcow2
	check "writes across the end of a shorter parent with $o" "$imgio" -w longer.qcow2 'write -P 4 6340000 20000'
	qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 same.qcow2 9M
	qemu-io -f qcow2 -c 'write -P 4 6340000 20000' same.qcow2 > log
	check "what is written there is what qemu writes with $o" qemu-img compare -q longer.qcow2 same.qcow2
	check "every count is right there with $o" qemu-img check -q longer.qcow2
done

mkdir elsewhere here
qemu-img convert -f raw -O qcow2 base.raw elsewhere/base.qcow2
overlay here/x.qcow2 ../elsewhere/base.qcow2 qcow2 5M ""
check_fails 1 "a parent in another folder is not opened" "$VDISK" convert -O raw here/x.qcow2 out.raw
grep -q 'elsewhere/base.qcow2' "$stderr"
claim "the message names the parent"
grep -q -- '--allow' "$stderr"
claim "the hint says how to allow it"
[ ! -e out.raw ]
claim "nothing is left of the refused run"
check "a parent in an allowed folder is opened" reads_as here/x.qcow2 base.raw --allow elsewhere
check "info needs no parent" "$VDISK" info here/x.qcow2
check "map needs no parent" "$VDISK" map here/x.qcow2
overlay here/abs.qcow2 "$PWD/elsewhere/base.qcow2" qcow2 5M ""
check_fails 1 "an absolute name is not opened" "$VDISK" convert -O raw here/abs.qcow2 out.raw
ln -s ../elsewhere/base.qcow2 here/link.qcow2
overlay here/y.qcow2 link.qcow2 qcow2 5M ""
check_fails 1 "a link that leads out of the folder is not followed" "$VDISK" convert -O raw here/y.qcow2 out.raw
overlay loop.qcow2 base.raw raw 5M ""
qemu-img rebase -u -f qcow2 -b loop.qcow2 -F qcow2 loop.qcow2
check_fails 1 "an image that is its own parent is refused" "$VDISK" convert -O raw loop.qcow2 out.raw
overlay gone.qcow2 base.raw raw 5M ""
qemu-img rebase -u -f qcow2 -b nowhere.raw -F raw gone.qcow2
check_fails 1 "a parent that is not there is an error" "$VDISK" convert -O raw gone.qcow2 out.raw
check "info and a parent that is not there" "$VDISK" info gone.qcow2

# A parent without a format: its first bytes belong to the guest and must not choose the driver.
overlay blind.qcow2 base.raw raw 5M ""
perl -e '
	open my $f, "+<", shift or die; binmode $f; local $/; my $h = <$f>; my $i = index($h, pack("N", 0xe2792aca));
	$i > 0 or die; seek $f, $i, 0; print $f pack("N", 0x12345678);' blind.qcow2
check_fails 1 "a parent of no stated format is not guessed at" "$VDISK" convert -O raw blind.qcow2 out.raw
grep -q -- '--backing-format' "$stderr"
claim "the hint says how to name it"
check "with its format named it is read" reads_as blind.qcow2 base.raw --backing-format raw
rm -f out.raw

# External data files of qemu's making, and how far their names reach.
for raw in off on; do
	rm -f d.qcow2 d.data
	qemu-img convert -f raw -O qcow2 -o data_file=d.data,data_file_raw=$raw base.raw d.qcow2
	check "reads an external data file, data_file_raw=$raw" reads_as d.qcow2 base.raw
done
( cd here && qemu-img convert -f raw -O qcow2 -o data_file=../elsewhere/d.data ../base.raw d.qcow2 )
check_fails 1 "a data file in another folder is not opened" "$VDISK" convert -O raw here/d.qcow2 out.raw
check "info needs no data file" "$VDISK" info here/d.qcow2
done_testing
