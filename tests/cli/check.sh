#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Faults as people and programs are told of them, repairs, and statuses; what is found and mended, test_damage tries at large.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

# offset FILE AT: what an entry of a table there leads to
offset() { perl -e 'open F, "<", shift; seek F, shift, 0; read F, $b, 8; print unpack("Q>", $b) & 0x00fffffffffffe00' "$1" "$2"; }
says() { grep -q -- "$1" "$stdout"; }
hints() { grep -q -- "$1" "$stderr"; }
# finding KIND EXPRESSION WANTED: of the first finding of the kind in JSON lines
finding() { grep "\"kind\":\"$1\"" "$stdout" | head -1 > finding.json && json_is finding.json "$2" "$3"; }
summary() { grep '"type":"summary"' "$stdout" > summary.json && json_is summary.json "$1" "$2"; }

qemu-img create -q -f qcow2 good.qcow2 4M
qemu-io -f qcow2 -c 'write -P 7 0 1M' good.qcow2 > /dev/null
qemu-img convert -O raw good.qcow2 good.raw
l2=$(offset good.qcow2 "$(offset good.qcow2 40)")
first=$(offset good.qcow2 $l2)
block=$(offset good.qcow2 "$(offset good.qcow2 48)")
reads() { qemu-img convert -O raw "$1" now.raw && cmp -s now.raw good.raw; }
is_sound() { qemu-img check -q -f qcow2 "$1"; }

# Clean images.
check "a sound image" "$VDISK" check good.qcow2
says 'no faults' && says '16 of 64 clusters of 64 KiB'; claim "says so"
[ "$(wc -l < "$stdout")" -eq 2 ] && [ ! -s "$stderr" ]; claim "in two lines"
qemu-img check --output=json good.qcow2 > qemu.json
check "as JSON" "$VDISK" check --output=json good.qcow2
for key in image-end-offset total-clusters allocated-clusters check-errors filename format; do
	json_is "$stdout" "\$d->{\"$key\"}" "$(perl -MJSON::PP -e 'local $/; open F, "qemu.json"; print decode_json(<F>)->{shift()}' $key)"
	claim "$key is what qemu-img has"
done
check "to mend it" "$VDISK" check -q --repair=all good.qcow2
cp good.qcow2 before && "$VDISK" check -q --repair=all good.qcow2 && cmp -s before good.qcow2
claim "changes nothing"
truncate -s 1M d.raw
check "raw has no faults" "$VDISK" check d.raw

# A leak.
cp good.qcow2 x.qcow2
put x.qcow2 $((block + 2 * 30)) 0001
truncate -s 2M x.qcow2
check_fails 3 "a leak is status 3" "$VDISK" check x.qcow2
says '^leak: the cluster at 1966080: counted 1 time, named 0 times$' && hints '--repair=leaks'; claim "says what, where, and what to do"
check_fails 3 "as JSON too" "$VDISK" check --output=json x.qcow2
is_json_lines "$stdout" && finding leak '$d->{"host-offset"}' 1966080 && summary '$d->{leaks}' 1; claim "with its place"
check "is given back" "$VDISK" check --repair=leaks x.qcow2
says 'gave back 1 leaked cluster' && is_sound x.qcow2 && reads x.qcow2; claim "and nothing else changes"

# Many: bounded.
cp good.qcow2 x.qcow2
perl -e 'open F, "+<", "x.qcow2"; for (0..59) { seek F, shift() + 2 * (30 + 2 * $_), 0; unshift @ARGV, $ARGV[-1]; print F "\0\1" }' $block $block
truncate -s 16M x.qcow2
check_fails 3 "many leaks" "$VDISK" check x.qcow2
[ "$(grep -c '^leak:' "$stdout")" -eq 20 ] && says '40 more of the kind "leak"'; claim "are not all printed"
"$VDISK" check --output=json x.qcow2 > all; [ "$(grep -c '"kind":"leak"' all)" -eq 60 ]; claim "JSON has them all"

# Refcounts too low, flags wrong.
cp good.qcow2 x.qcow2
put x.qcow2 $((block + 2 * (first / 65536))) 0000
put x.qcow2 $((l2 + 8)) 00
check_fails 10 "faults are status 10" "$VDISK" check x.qcow2
says "^corruption: the data cluster at $first: counted 0 times, named 1 time$" && says "L2 entry at $((l2 + 8)), for byte 65536 of the disk lacks the copied flag"
claim "say what is wrong where"
check_fails 10 "leaks are not given back beside them" "$VDISK" check --repair=leaks x.qcow2
check "all is mended" "$VDISK" check --repair=all x.qcow2
says 'mended 2 faults' && is_sound x.qcow2 && reads x.qcow2; claim "qemu-img agrees, the disk is what it was"

# Two entries name one cluster: both keep what they read, and a write is one's own.
cp good.qcow2 x.qcow2
qemu-io -f qcow2 -c 'write -P 9 64k 64k' x.qcow2 > /dev/null
put x.qcow2 $((l2 + 8)) "$(field x.qcow2 $l2 8)"
check_fails 3 "a cluster named twice gets two owners" "$VDISK" check --repair=all x.qcow2
qemu-img check -q x.qcow2; [ $? -eq 3 ]; claim "qemu-img sees nothing but the leak"
qemu-io -f qcow2 -c 'write -P 5 0 64k' x.qcow2 > /dev/null && qemu-io -f qcow2 -c 'read -P 7 64k 64k' x.qcow2 | grep -q '^read'
claim "a write to one leaves the other"

# What cannot be mended.
cp good.qcow2 x.qcow2
put x.qcow2 $l2 8000000001000000
check_fails 10 "an entry that leads outside stays" "$VDISK" check --repair=all x.qcow2
says 'leads outside the file (cannot be mended)' && says '^left: ' && hints 'backup'; claim "is told, before and after"
[ "$(field x.qcow2 $l2 8)" = 8000000001000000 ]; claim "is left as it is"
check_fails 10 "as JSON" "$VDISK" check --output=json x.qcow2
finding outside '$d->{"guest-offset"}' 0 && finding outside '$d->{"can-be-mended"}' false && summary '$d->{"corruptions-not-mendable"}' 1
claim "with the disk's bytes that are lost"

# A data cluster on the refcount block: the table moves, nobody's bytes are written over.
cp good.qcow2 x.qcow2
put x.qcow2 $l2 "$(printf '8%015x' $block)"
check_fails 10 "a cluster on a table" "$VDISK" check x.qcow2
says 'another use: refcount block'; claim "is told"
check_fails 3 "what looks unused is kept" "$VDISK" check --repair=all x.qcow2
check "for a second run" "$VDISK" check -q --repair=leaks x.qcow2
is_sound x.qcow2; claim "the table moves away"

# Marks.
cp good.qcow2 x.qcow2
put x.qcow2 72 0000000000000001
check_fails 10 "not closed cleanly" "$VDISK" check x.qcow2
check_fails 1 "and not written meanwhile" "$VDISK" snapshot create x.qcow2 s
hints 'vdisk check --repair=all'; claim "says what mends it"
check "mends it" "$VDISK" check -q --repair=all x.qcow2
check "is written again" "$VDISK" snapshot -q create x.qcow2 s
put x.qcow2 72 0000000000000002
check "marked corrupt, without a fault" "$VDISK" check -q --repair=all x.qcow2
check "sound afterwards" "$VDISK" check -q x.qcow2

# A crash with lazy refcounts: what qemu had not counted yet.
qemu-img create -q -f qcow2 -o lazy_refcounts=on lazy.qcow2 4M
qemu-io -f qcow2 -c 'write -P 7 0 1M' -c flush -c 'sigraise 9' lazy.qcow2 > /dev/null 2>&1
check_fails 10 "a crash with lazy refcounts" "$VDISK" check lazy.qcow2
says 'not closed cleanly' && says 'counted 0 times, named 1 time\|clusters from'; claim "has clusters that are not counted"
check "is mended" "$VDISK" check -q --repair=all lazy.qcow2
is_sound lazy.qcow2 && reads lazy.qcow2; claim "with all that was written"

# A disk of 60 TiB in memory that does not grow with it.
if qemu-img create -q -f qcow2 wide.qcow2 60T && qemu-io -f qcow2 -c 'write 0 64k' -c 'write 59T 1M' wide.qcow2 > /dev/null; then
	truncate -s 1T wide.qcow2
	(ulimit -v 600000; "$VDISK" check -q wide.qcow2 > wide.out 2>&1); claim "60 TiB, in a file with room for a lot of it, within bounds"
fi

# Without the key, without the parent; in use.
printf secret > key
"$VDISK" create -q --encrypt --key-file key --pbkdf-iterations 1000 -f qcow2 enc.qcow2 1M
check "an encrypted image" "$VDISK" check -q enc.qcow2 </dev/null
check "is mended without its key" "$VDISK" check -q --repair=all enc.qcow2 </dev/null
qemu-img create -q -f qcow2 -b gone.raw -F raw -u over.qcow2 1M
check "an overlay without its parent" "$VDISK" check -q over.qcow2
qemu-io -f qcow2 -c 'sleep 600000' good.qcow2 > /dev/null 2>&1 & holder=$!
on_exit "kill $holder 2>/dev/null"
in_use() { ! "$VDISK" check good.qcow2 > /dev/null 2>&1; }
wait_until in_use
check_fails 11 "an image in use" "$VDISK" check good.qcow2
check_fails 11 "is not mended either" "$VDISK" check --repair=all good.qcow2
check "is looked at with -U" "$VDISK" check -q -U good.qcow2
check_fails 64 "but not mended" "$VDISK" check -q -U --repair=all good.qcow2
kill $holder
check_fails 64 "an unknown repair" "$VDISK" check --repair=some good.qcow2
check_fails 1 "a missing image" "$VDISK" check nowhere.qcow2
done_testing
