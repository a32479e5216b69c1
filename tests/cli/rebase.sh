#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An overlay gets another backing file, or none, and its disk stays the same; qemu-img and qemu-io are the witnesses.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

is_sound() { qemu-img check -q -f qcow2 "$1"; }
# stands_on IMAGE FILE FORMAT; FILE "": nothing
stands_on() {
	qemu-img info --output=json "$1" > info.json &&
		json_is info.json '$d->{"backing-filename"} // ""' "$2" &&
		json_is info.json '$d->{"backing-filename-format"} // ""' "$3"
}
holds() { is_sound "$1" && is_disk "$1" want.raw; }

# Two base images that differ here and there, and in size; disks from sector to sector, holes, zeros, compressed.
make_disk base.raw $((5 * 1048576))
qemu-img convert -f raw -O qcow2 -c base.raw old.qcow2
qemu-img create -q -f qcow2 new.qcow2 6000k
qemu_io -f qcow2 new.qcow2 <<-'COMMANDS'
	write -P 1 0 1M
	write -P 2 3M 2900k
COMMANDS
cp base.raw same.raw

for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on; do
	for size in 4200k 7M; do
		qemu-img create -q -f qcow2 -o $o -b old.qcow2 -F qcow2 over.qcow2 $size
		qemu_io -f qcow2 over.qcow2 <<-'COMMANDS'
			write -P 3 1050000 5000
			write -z 2M 300k
			write -P 4 4000k 100k
		COMMANDS
		rm -f want.raw
		qemu-img convert -O raw over.qcow2 want.raw
		check "rebase: $o $size" "$VDISK" rebase -q -b new.qcow2 -F qcow2 over.qcow2
		stands_on over.qcow2 new.qcow2 qcow2 && holds over.qcow2
		claim "stands on the other one, with the same disk"
		check "rebase onto raw: $o $size" "$VDISK" rebase -q -b base.raw -F raw over.qcow2
		stands_on over.qcow2 base.raw raw && holds over.qcow2
		claim "stands on that, with the same disk"
		check "flatten: $o $size" "$VDISK" flatten -q over.qcow2
		stands_on over.qcow2 "" "" && holds over.qcow2
		claim "stands alone, with the same disk"
		check "rebase of one that stood alone: $o $size" "$VDISK" rebase -q -b new.qcow2 -F qcow2 over.qcow2
		stands_on over.qcow2 new.qcow2 qcow2 && holds over.qcow2
		claim "nothing shows through"
	done
done

# What both have is not copied: onto the same disk in another file, and onto a middle layer of the same chain.
qemu-img create -q -f qcow2 -b same.raw -F raw mid.qcow2
qemu-io -f qcow2 -c 'write -P 6 64k 64k' mid.qcow2 > log
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
qemu-img convert -O raw top.qcow2 want.raw
before=$(wc -c < top.qcow2)
check "leave out a layer" "$VDISK" rebase -b same.raw -F raw --output=json top.qcow2
json_is "$stdout" '$d->{written}' 65536 && json_is "$stdout" '$d->{verb}' rebase && json_is "$stdout" '$d->{"backing-filename"}' same.raw
claim "takes over what that layer had, and no more"
holds top.qcow2; claim "has the same disk"
check "onto a copy of the file" "$VDISK" rebase -b base.raw -F raw --output=json top.qcow2
json_is "$stdout" '$d->{written}' 0; claim "takes over nothing"
holds top.qcow2; claim "and has the same disk"

# The other way round: qemu-img and we agree on each other's work.
qemu-img create -q -f qcow2 -b old.qcow2 -F qcow2 over.qcow2
qemu-img convert -O raw over.qcow2 want.raw
"$VDISK" rebase -q -b new.qcow2 -F qcow2 over.qcow2 && qemu-img rebase -b old.qcow2 -F qcow2 over.qcow2 &&
	"$VDISK" rebase -q -b base.raw -F raw over.qcow2 && qemu-img rebase -b '' over.qcow2
holds over.qcow2; claim "by turns with qemu-img"

# The name alone: no file is there, and no key.
printf secret > key
qemu-img create -q -f qcow2 -b old.qcow2 -F qcow2 over.qcow2
check "-u opens nothing" "$VDISK" rebase -q -u -b nowhere/x.qcow2 -F qcow2 over.qcow2
stands_on over.qcow2 nowhere/x.qcow2 qcow2; claim "the name is written"
check "-u back" "$VDISK" rebase -q -u -b old.qcow2 -F qcow2 over.qcow2
holds over.qcow2; claim "the disk is back"
check "-u -b ''" "$VDISK" rebase -q -u -b '' over.qcow2
stands_on over.qcow2 "" ""; claim "leaves none"
"$VDISK" create -q --encrypt --key-file key --pbkdf-iterations 1000 -f qcow2 enc.qcow2 5M
check "-u needs no key" "$VDISK" rebase -q -u -b old.qcow2 -F qcow2 enc.qcow2 < /dev/null

# Encrypted over plain, plain over encrypted.
qemu-img convert -O raw old.qcow2 want.raw
check "an encrypted overlay is flattened" "$VDISK" flatten -q --key-file key enc.qcow2
opens_as "$(luks_qcow2 enc.qcow2)" want.raw; claim "qemu reads it with the key"
"$VDISK" create -q -f qcow2 -b enc.qcow2 -F qcow2 --key-file key plain.qcow2
check_fails 64 "encrypted content does not go into a plain overlay by itself" "$VDISK" flatten --key-file key plain.qcow2
grep -q -- --in-clear "$stderr"; claim "the hint says how it would"
check "onto the same disk in clear nothing is stored" "$VDISK" rebase -q --in-clear --key-file key -b old.qcow2 -F qcow2 plain.qcow2
"$VDISK" create -q -f qcow2 -b enc.qcow2 -F qcow2 --key-file key --force plain.qcow2
check "flatten --in-clear" "$VDISK" flatten -q --in-clear --key-file key plain.qcow2
holds plain.qcow2; claim "has the disk in clear"
check_fails 12 "onto an encrypted one without its key" "$VDISK" rebase -b enc.qcow2 -F qcow2 plain.qcow2 < /dev/null
check "with its key" "$VDISK" rebase -q --key-file key -b enc.qcow2 -F qcow2 plain.qcow2

# Refusals; nothing changes.
qemu-img create -q -f qcow2 -b old.qcow2 -F qcow2 over.qcow2
cp over.qcow2 before.qcow2
check_fails 64 "no format" "$VDISK" rebase -b new.qcow2 over.qcow2
check_fails 64 "no backing file" "$VDISK" rebase over.qcow2
check_fails 1 "one that is not there" "$VDISK" rebase -b nowhere.qcow2 -F qcow2 over.qcow2
check_fails 1 "one of another format" "$VDISK" rebase -b base.raw -F qcow2 over.qcow2
check_fails 63 "an unknown format" "$VDISK" rebase -b base.raw -F nonesuch over.qcow2
check_fails 63 "raw has none" "$VDISK" flatten -f raw base.raw
qemu-img create -q -f qcow2 -b over.qcow2 -F qcow2 above.qcow2
check_fails 11 "in a circle" "$VDISK" rebase -b above.qcow2 -F qcow2 over.qcow2
cmp -s over.qcow2 before.qcow2; claim "the image is as it was, byte for byte"
qemu-img snapshot -c s over.qcow2
check_fails 63 "snapshots inside" "$VDISK" flatten over.qcow2
is_disk over.qcow2 want.raw; claim "and has its disk"

# A long name, and one that makes the header's parts move: in and out, many times.
long=$(printf 'n%.0s' $(seq 200)).raw
cp base.raw "$long"
for o in cluster_size=512 cluster_size=4k compat=0.10 compat=1.1; do
	rm -f ours.qcow2
	"$VDISK" create -q -f qcow2 -o "$o" ours.qcow2 5M
	qemu-img create -q -f qcow2 -o "$o" theirs.qcow2 5M
	for image in ours.qcow2 theirs.qcow2; do
		qemu-io -f qcow2 -c 'write -P 7 64k 64k' $image > log
		rm -f want.raw
		qemu-img convert -O raw $image want.raw
		for name in "$long" base.raw "" base.raw "$long" ""; do
			"$VDISK" rebase -q -b "$name" ${name:+-F raw} $image && stands_on $image "$name" "${name:+raw}" && is_sound $image || break
		done
		holds $image; claim "any name comes and goes: $o $image"
	done
done
qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 5M
check_fails 63 "a name that does not fit the header" "$VDISK" rebase -u -b "$long$long$long" -F raw small.qcow2
check_fails 64 "a name of a thousand bytes" "$VDISK" rebase -u -b "$long$long$long$long$long$long" -F raw ours.qcow2

# Ctrl-C: the old backing file is still there, the disk too, and a second run does the rest.
# frozen FILE COMMAND...: starts it, and freezes it when FILE has grown past 8 MB; its process is $job
frozen() {
	grows=$1
	shift
	env --default-signal=INT "$@" > job.out 2> job.err & job=$!
	wait_until sh -c '[ "$(stat -c %s "$0")" -gt 8000000 ]' "$grows" && kill -STOP $job
}
head -c 400M /dev/urandom > big.raw
qemu-img create -q -f qcow2 -b big.raw -F raw over.qcow2
frozen over.qcow2 "$VDISK" flatten -m 1 over.qcow2
claim "a flatten is caught at work"
kill -INT $job; kill -CONT $job; wait $job
[ $? -eq 130 ] && grep -q '^vdisk: stopped by SIGINT; the image stands on what it stood on' job.err
claim "Ctrl-C stops it, and says what holds"
stands_on over.qcow2 big.raw raw && is_sound over.qcow2 && qemu-img compare -q -f qcow2 -F raw over.qcow2 big.raw
claim "the disk is what it was"
check "a second run ends it" "$VDISK" flatten -q over.qcow2
stands_on over.qcow2 "" "" && is_sound over.qcow2 && qemu-img compare -q -f qcow2 -F raw over.qcow2 big.raw
claim "with the same disk"
qemu-img create -q -f qcow2 base.qcow2 400M
qemu-img rebase -u -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
frozen base.qcow2 "$VDISK" commit -m 1 over.qcow2
claim "a commit is caught at work"
kill -KILL $job; kill -CONT $job; wait $job 2>/dev/null
qemu-img check -q base.qcow2; [ $? -eq 0 ] || [ $? -eq 3 ]
qemu-img compare -q -f qcow2 -F raw over.qcow2 big.raw
claim "killed, it leaves the disk of the overlay"
check "a second run ends that" "$VDISK" commit -q over.qcow2
is_sound over.qcow2 && is_sound base.qcow2 && qemu-img compare -q -f qcow2 -F raw base.qcow2 big.raw
claim "the base has all of it"
done_testing
