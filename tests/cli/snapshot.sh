#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots inside images, in turn by this command and by qemu-img: each sees what the other made, and the tables are
# without error after every act.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl

write() { qemu-io -f qcow2 -c "write -P $2 $3 $4" "$1" > /dev/null; }
is_sound() { qemu-img check -q -f qcow2 "$1"; }
has() { qemu-img snapshot -l "$1" | awk 'NR > 2 {print $2}' | tr '\n' ' ' | grep -qx "$2"; }
names() { "$VDISK" snapshot list --output=json "$1" | perl -MJSON::PP -e 'local $/; print map "$_->{name} ", @{decode_json(<STDIN>)->{snapshots}}'; }
# The disk of a snapshot in raw, by the peer.
peer_copy() { qemu-img convert -q -f qcow2 -l "$2" -O raw "$1" peer.raw; }

# by_turns NAME OPTIONS: three snapshots, by turns, on an image of this kind
by_turns() {
	img=$1.qcow2
	qemu-img create -q -f qcow2 -o "$2" $img 12M
	write $img 1 0 6M
	check "create: $1" "$VDISK" snapshot -q create $img a
	is_sound $img; claim "is sound for qemu-img: $1"
	write $img 2 1M 3M
	qemu-img snapshot -c b $img
	write $img 3 2M 1M
	check "create beside the peer's: $1" "$VDISK" snapshot -q -c c $img
	has $img "a b c " && [ "$(names $img)" = "a b c " ]
	claim "both see three: $1"
	for name in a b c; do
		run "$VDISK" convert -q -O raw --force -l $name $img ours.raw
		peer_copy $img $name && cmp -s ours.raw peer.raw
		claim "snapshot $name reads the same: $1"
		cp peer.raw $name.raw
	done
	check "apply the peer's: $1" "$VDISK" snapshot -q apply $img b
	is_sound $img && qemu-img compare -q -f qcow2 -F raw $img b.raw
	claim "is the disk then: $1"
	qemu-img snapshot -a a $img
	check "delete: $1" "$VDISK" snapshot -q delete $img b
	is_sound $img && qemu-img compare -q -f qcow2 -F raw $img a.raw && has $img "a c "
	claim "leaves the disk and the others: $1"
	qemu-img snapshot -d a $img
	check "compare of a snapshot: $1" "$VDISK" compare -l c -F raw $img c.raw
	check "delete the last: $1" "$VDISK" snapshot -q -d c $img
	is_sound $img && qemu-img compare -q -f qcow2 -F raw $img a.raw
	claim "leaves the disk: $1"
}
by_turns plain compat=1.1
by_turns v2 compat=0.10
by_turns small cluster_size=512
by_turns extended extended_l2=on
by_turns bits4 refcount_bits=4,cluster_size=4k
by_turns bits8 refcount_bits=8
by_turns bits32 refcount_bits=32
by_turns bits64 refcount_bits=64
by_turns lazy lazy_refcounts=on

# Widths that cannot count so many.
qemu-img create -q -f qcow2 -o refcount_bits=1 bits1.qcow2 1M
write bits1.qcow2 1 0 64k
cp bits1.qcow2 before
check_fails 63 "a snapshot where a cluster has one owner at most" "$VDISK" snapshot create bits1.qcow2 a
grep -q 'refcount_bits=16' "$stderr" && cmp -s before bits1.qcow2
claim "is refused with what to do, and changes nothing"
qemu-img create -q -f qcow2 -o refcount_bits=2 bits2.qcow2 1M
write bits2.qcow2 1 0 64k
"$VDISK" snapshot -q create bits2.qcow2 a && "$VDISK" snapshot -q create bits2.qcow2 b
check_fails 63 "the fourth owner of two bits" "$VDISK" snapshot create bits2.qcow2 c
is_sound bits2.qcow2; claim "leaves it sound"

# Compressed clusters are shared in halves.
head -c 3000000 /dev/urandom | od -x | head -c 4000000 > packed.raw
truncate -s 4M packed.raw
qemu-img convert -q -c -f raw -O qcow2 packed.raw packed.qcow2
check "a snapshot of compressed clusters" "$VDISK" snapshot -q create packed.qcow2 a
write packed.qcow2 1 100k 1M
is_sound packed.qcow2; claim "is sound"
check "is what it was" "$VDISK" compare -l a -F raw packed.qcow2 packed.raw
check "delete" "$VDISK" snapshot -q delete packed.qcow2 a
is_sound packed.qcow2; claim "frees what only it had"

# Encrypted: without the key.
printf secret > key
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 -f raw packed.raw enc.qcow2
check "create without the key" "$VDISK" snapshot -q create enc.qcow2 a </dev/null
qemu-img check -q --object secret,id=s,file=key --image-opts driver=qcow2,file.filename=enc.qcow2,encrypt.key-secret=s
claim "is sound"
check "decrypt of a snapshot" "$VDISK" decrypt -q --key-file key -l a enc.qcow2 dec.raw
cmp -s dec.raw packed.raw; claim "is the disk"
check "apply without the key" "$VDISK" snapshot -q apply enc.qcow2 1 </dev/null

# A machine's memory lies behind the disk in the tables, and the entry says how much. Made by hand: a disk that is said to
# end in its middle.
poke() { perl -e 'open my $f, "+<", shift; seek $f, shift, 0; print $f pack "Q>", shift' "$@"; }
reads() { qemu-io -r -f qcow2 -c "read -P $2 $3 $4" "$1" > io.txt 2>&1 && ! grep -q failed io.txt; }
memory_is_kept() { cp vm.qcow2 all.qcow2 && poke all.qcow2 24 2097152 && reads all.qcow2 8 1M 1M; }
qemu-img create -q -f qcow2 vm.qcow2 2M
write vm.qcow2 7 0 1M
write vm.qcow2 8 1M 1M
poke vm.qcow2 24 1048576
"$VDISK" snapshot -q create vm.qcow2 vm
table=$(perl -e 'open my $f, "<", "vm.qcow2"; seek $f, 64, 0; read $f, my $b, 8; print unpack "Q>", $b')
poke vm.qcow2 $((table + 32)) $((1048576 << 32 | 24))
poke vm.qcow2 $((table + 40)) 1048576
is_sound vm.qcow2; claim "a snapshot with a machine's memory"
check "create beside it" "$VDISK" snapshot -q create vm.qcow2 other
write vm.qcow2 9 0 64k
check "apply it" "$VDISK" snapshot -q apply vm.qcow2 vm
check "delete another" "$VDISK" snapshot -q delete vm.qcow2 other
is_sound vm.qcow2 && memory_is_kept && "$VDISK" snapshot list --output=json vm.qcow2 > list.json &&
	json_is list.json '$d->{snapshots}[0]{"vm-state-size"}' 1048576
claim "the memory is there, and its size"
check "grow" "$VDISK" resize -q vm.qcow2 2M
is_sound vm.qcow2 && reads vm.qcow2 0 1M 1M
claim "shows nothing of it in the disk"
check "apply it again" "$VDISK" snapshot -q apply vm.qcow2 vm
is_sound vm.qcow2 && memory_is_kept
claim "the memory is there still"

# Words.
qemu-img create -q -f qcow2 d.qcow2 1M
"$VDISK" snapshot -q create d.qcow2 x
check_fails 1 "a name that is taken" "$VDISK" snapshot create d.qcow2 x
check_fails 1 "an id that is taken" "$VDISK" snapshot create d.qcow2 1
check_fails 1 "a snapshot that there is not" "$VDISK" snapshot delete d.qcow2 y
grep -q "has no snapshot 'y'" "$stderr"; claim "is named"
check_fails 1 "to read one that there is not" "$VDISK" info -l y d.qcow2
truncate -s 1M d.raw
check_fails 63 "snapshots of raw" "$VDISK" snapshot create -f raw d.raw x
check_fails 64 "no name" "$VDISK" snapshot create d.qcow2
check_fails 64 "two things at once" "$VDISK" snapshot -c a -d b d.qcow2
check_fails 64 "another word" "$VDISK" snapshot crate d.qcow2 a
grep -q 'did you mean create' "$stderr"; claim "is told the near one"
qemu-img create -q -f qcow2 -o data_file=data x.qcow2 1M
check_fails 63 "an external data file" "$VDISK" snapshot create x.qcow2 a
# Scrubbing: what only the snapshot had is in no byte of the file any more.
marker=only-the-snapshot-knows-this
holds() { grep -qaF $marker "$1"; }
scrubbed() { # NAME OPTIONS
	img=$1.qcow2
	qemu-img create -q -f qcow2 -o "$2" $img 4M
	yes $marker | head -c 1M > marked.raw
	qemu-io -f qcow2 -c "write -s marked.raw 512k 1M" $img > /dev/null
	run "$VDISK" snapshot -q create $img s
	write $img 1 0 4M
	cp $img copy.qcow2
	check "delete without --scrub: $1" "$VDISK" snapshot -q delete copy.qcow2 s
	holds copy.qcow2; claim "leaves old bytes: $1"
	check "delete with --scrub: $1" "$VDISK" snapshot -q delete --scrub $img s
	! holds $img; claim "leaves none: $1"
	is_sound $img; claim "is sound after it: $1"
	check "snapshot of the rest: $1" "$VDISK" snapshot -q create $img t
	qemu-io -f qcow2 -c "write -s marked.raw 512k 1M" $img > /dev/null
	check "apply with --scrub: $1" "$VDISK" snapshot -q apply --scrub $img t
	! holds $img && is_sound $img; claim "leaves nothing of the disk: $1"
}
scrubbed scrub-plain compat=1.1
scrubbed scrub-v2 compat=0.10
scrubbed scrub-small cluster_size=512
scrubbed scrub-extended extended_l2=on
check_fails 64 "--scrub is refused where nothing is freed" "$VDISK" snapshot create --scrub scrub-plain.qcow2 x
run "$VDISK" snapshot delete --output=json --scrub scrub-plain.qcow2 t
json_is "$stdout" '$d->{scrubbed} ? 1 : 0' 1; claim "JSON says that it was scrubbed"

done_testing
