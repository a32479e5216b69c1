#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent bitmaps, by turns with qemu: what either writes and does to bitmaps, both see, to the byte. The witness for
# what is dirty is qemu-nbd, asked over NBD.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io qemu-nbd nbdinfo perl

printf 'correct horse' > key
on_exit '[ ! -s nbd.pid ] || kill "$(cat nbd.pid)" 2>/dev/null'

# Where the image is, for qemu: $opts is its --image-opts, $secret what these need.
secret=
plain_opts() { opts=driver=qcow2,file.filename=$1; secret=; ours=; }
luks_opts() { opts=$(luks_qcow2 "$1"); secret=$with_key; ours="-k key"; }

# peer_dirty IMAGE BITMAP: "offset length" a line
peer_dirty() {
	rm -f nbd.sock nbd.pid
	qemu-nbd $secret --image-opts -r -t -B "$2" -k "$PWD/nbd.sock" --pid-file=nbd.pid "$opts" > nbd.log 2>&1 &
	for pd_try in $(seq 300); do [ -s nbd.pid ] && break; sleep 0.02; done
	nbdinfo --json --map="qemu:dirty-bitmap:$2" "nbd+unix:///?socket=$PWD/nbd.sock" > nbd.json
	kill "$(cat nbd.pid)"
	wait
	perl -MJSON::PP -e 'local $/; for (@{decode_json(<STDIN>)}) {
		next unless $_->{type} & 1;
		if (@r && $r[-1][0] + $r[-1][1] == $_->{offset}) { $r[-1][1] += $_->{length} } else { push @r, [$_->{offset}, $_->{length}] }
	} print "$$_[0] $$_[1]\n" for @r' < nbd.json
}
our_dirty() { "$VDISK" map -q --since "$2" "$1" | awk '{ print $1, $2 }'; }

# same IMAGE CLAIM BITMAP...: both say the same of each, and not of all that nothing is dirty
same() {
	sm_img=$1 sm_claim=$2 sm_any=
	shift 2
	for sm_name; do
		peer_dirty "$sm_img" "$sm_name" > by-peer || { not_ok "$sm_claim: $sm_name" "$(cat nbd.log)"; return; }
		our_dirty "$sm_img" "$sm_name" > by-us
		cmp -s by-peer by-us || { not_ok "$sm_claim: $sm_name" "$(diff by-peer by-us)"; return; }
		[ ! -s by-us ] || sm_any=yes
	done
	[ -n "$sm_any" ]; claim "$sm_claim"
	qemu-img check -q $secret --image-opts "$opts" > check.log 2>&1; claim "$sm_claim: the tables are sound"
}
peer_writes() { workload "$1" "$size" > cmds; qemu_io $secret --image-opts "$opts" < cmds; claim "qemu writes: $opts"; }
we_write() { workload "$1" "$size" > cmds; check "writes: $2" with_commands cmds "$imgio" -w $ours -a . "$2"; }
granularity() { qemu-img info --output=json $secret --image-opts "$opts" | perl -MJSON::PP -e 'local $/;
	print map "$_->{name}:$_->{granularity}:@{$_->{flags}} ", @{decode_json(<STDIN>)->{"format-specific"}{data}{bitmaps}}'; }

size=$((9 * 1048576 + 1536))

# by_turns NAME IMAGE: of an image that is there
by_turns() {
	kind=$1 img=$2
	check "$kind: create" "$VDISK" bitmap -q create -g 4K "$img" fine
	qemu-img bitmap --add -g 128K $secret --image-opts "$opts" coarse
	check "$kind: create in the size of qemu" "$VDISK" bitmap -q create --disabled "$img" off
	run "$VDISK" bitmap list --output=json "$img"
	ours_list=$(perl -MJSON::PP -e 'local $/; print map "$_->{name}:$_->{granularity}:" . ($_->{enabled} ? "auto" : "") . " ", @{decode_json(<STDIN>)->{bitmaps}}' < "$stdout")
	[ "$ours_list" = "$(granularity)" ]
	claim "$kind: both list the same"
	peer_writes 1; same "$img" "$kind: what qemu wrote" fine coarse off
	we_write 2 "$img"; same "$img" "$kind: what was written here" fine coarse off
	check "$kind: disable" "$VDISK" bitmap -q disable "$img" fine
	qemu-img bitmap --enable $secret --image-opts "$opts" off
	qemu-img bitmap --clear $secret --image-opts "$opts" coarse
	peer_writes 3; we_write 4 "$img"; same "$img" "$kind: after enable, disable, clear" fine coarse off
	check "$kind: merge" "$VDISK" bitmap -q merge "$img" coarse fine off
	same "$img" "$kind: merged here" fine coarse off
	check "$kind: clear" "$VDISK" bitmap -q clear "$img" off
	qemu-img bitmap --merge coarse $secret --image-opts "$opts" off
	same "$img" "$kind: merged by qemu" fine coarse off
	check "$kind: remove" "$VDISK" bitmap -q remove "$img" coarse
	qemu-img bitmap --remove $secret --image-opts "$opts" off
	we_write 5 "$img"; same "$img" "$kind: removed by both" fine
}

# make NAME OPTIONS
make() {
	qemu-img create -q -f qcow2 -o "$2" "$1.qcow2" $size
	plain_opts "$1.qcow2"
	by_turns "$1" "$1.qcow2"
}
make plain compat=1.1
make small cluster_size=512
make large cluster_size=2M
make extended extended_l2=on
make bits64 refcount_bits=64,cluster_size=4k
make bits1 refcount_bits=1,cluster_size=4k
make data data_file=data.raw
make rawdata data_file=rawdata.raw,data_file_raw=on
head -c $size /dev/urandom > base.raw
make overlay backing_file=base.raw,backing_fmt=raw
# A name that lies in the header's first sector, and a header that has no names of features.
make overlay4k backing_file=base.raw,backing_fmt=raw,cluster_size=4k
again qemu-img create -q -f qcow2 $with_key -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 $size
luks_opts luks.qcow2
by_turns luks luks.qcow2
"$VDISK" create -q -f qcow2 own.qcow2 $size
plain_opts own.qcow2
by_turns "made here" own.qcow2
is_disk overlay.qcow2 base.raw > cmp.log; [ $? -eq 1 ] && grep -q backing "$(qemu-img info overlay.qcow2 > info.txt; echo info.txt)"
claim "the overlay has its backing file still"

# Sizes and snapshots.
qemu-img create -q -f qcow2 s.qcow2 $size
plain_opts s.qcow2
qemu-img bitmap --add -g 64K s.qcow2 b
"$VDISK" snapshot -q create s.qcow2 snap
peer_writes 6
same s.qcow2 "beside a snapshot" b
check "grow" "$VDISK" resize -q s.qcow2 +3M
same s.qcow2 "a disk that grew" b
tail -1 by-us | grep -q " $((3 * 1048576))$"; [ $? -eq 0 ] || our_dirty s.qcow2 b | awk -v s=$((size + 3 * 1048576)) 'END { exit $1 + $2 != s }'
claim "is dirty to its end"
check "shrink" "$VDISK" resize -q --shrink s.qcow2 2M
same s.qcow2 "a disk that shrank" b
check "apply" "$VDISK" snapshot -q apply s.qcow2 snap
same s.qcow2 "a snapshot that is applied" b
[ "$(cat by-us)" = "0 $size" ]; claim "makes all dirty"

# merge -b, and what a crash of either leaves.
qemu-img create -q -f qcow2 from.qcow2 $size
qemu-img bitmap --add from.qcow2 f
plain_opts from.qcow2
peer_writes 7
our_dirty from.qcow2 f > wanted
qemu-img create -q -f qcow2 to.qcow2 $size
qemu-img bitmap --add to.qcow2 t
check "merge from another image" "$VDISK" bitmap -q merge -b from.qcow2 -F qcow2 to.qcow2 t f
plain_opts to.qcow2
same to.qcow2 "what came from there" t
cmp -s by-us wanted; claim "is the same"
qemu-io -f qcow2 -c 'write 0 64k' -c 'abort' to.qcow2 > /dev/null 2>&1
check_fails 17 "qemu died: the bitmap is unusable" "$VDISK" map --since t to.qcow2
grep -q 'hint: .*whole' "$stderr"; claim "says what to do"
check "is told in the list" "$VDISK" bitmap list to.qcow2
grep -q 'unusable' "$stdout" && ! grep -q records "$stdout"; claim "as unusable"
check "remove it" "$VDISK" bitmap -q remove to.qcow2 t
qemu-img check -q to.qcow2; claim "nothing is lost with it"
done_testing
