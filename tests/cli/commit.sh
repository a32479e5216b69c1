#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What an overlay holds goes into its backing file; qemu-img commit, compare and check are the witnesses.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

is_sound() { qemu-img check -q -f qcow2 "$1"; }
# makes_chain OPTIONS SIZE: base.qcow2, mid.qcow2, top.qcow2 of different sizes, and top's disk in want.raw
makes_chain() {
	rm -f base.qcow2 mid.qcow2 top.qcow2 want.raw
	qemu-img convert -f raw -O qcow2 -c base.raw base.qcow2
	qemu-img create -q -f qcow2 -o "$1" -b base.qcow2 -F qcow2 mid.qcow2 4M
	qemu-io -f qcow2 -c 'write -P 1 100k 900k' -c 'write -z 2M 130k' mid.qcow2 > log
	qemu-img create -q -f qcow2 -o "$1" -b mid.qcow2 -F qcow2 top.qcow2 "$2"
	qemu-io -f qcow2 -c 'write -P 2 1050000 5000' -c 'write -z 200k 70k' -c 'write -P 3 4M 100k' top.qcow2 > log
	qemu-img convert -O raw top.qcow2 want.raw
}
is_empty() { qemu-img map --output=json "$1" > map.json && json_is map.json 'scalar grep { $_->{depth} == 0 && ($_->{data} || $_->{present}) } @$d' 0; }
# reads_past IMAGE RAW: the first bytes of its disk are RAW's
begins_as() { qemu-img convert -O raw "$1" longer.raw && cmp -n "$(wc -c < "$2")" longer.raw "$2"; }

make_disk base.raw $((5 * 1048576))
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on; do
	makes_chain $o 4300k
	check "commit: $o" "$VDISK" commit -q top.qcow2
	is_sound top.qcow2 && is_disk top.qcow2 want.raw; claim "the overlay has its disk"
	is_sound mid.qcow2 && is_disk mid.qcow2 want.raw; claim "so has its backing file, which has grown"
	is_empty top.qcow2; claim "the overlay holds nothing"
	makes_chain $o 6M
	check "commit --base: $o" "$VDISK" commit -q --base base.qcow2 top.qcow2
	is_sound top.qcow2 && is_sound base.qcow2 && is_disk top.qcow2 want.raw && is_disk base.qcow2 want.raw
	claim "all is in the lowest file"
	qemu-img info --output=json top.qcow2 > info.json
	json_is info.json '$d->{"backing-filename"}' base.qcow2 && json_is info.json '$d->{"backing-filename-format"}' qcow2
	claim "on which the overlay stands"
	makes_chain $o 4300k
	cp top.qcow2 before.qcow2
	check "commit --keep: $o" "$VDISK" commit -q --keep top.qcow2
	cmp -s top.qcow2 before.qcow2 && is_disk mid.qcow2 want.raw; claim "the overlay is as it was, byte for byte"
	# qemu-img does the same; it does not empty version 2.
	[ "$o" != compat=0.10 ] || continue
	makes_chain $o 4300k
	qemu-img commit -q top.qcow2
	is_disk mid.qcow2 want.raw; claim "qemu-img makes the same of it: $o"
done

# A smaller overlay leaves the rest of the base.
makes_chain compat=1.1 3M
check "an overlay that is smaller" "$VDISK" commit -q --base base.qcow2 top.qcow2
is_sound base.qcow2 && begins_as base.qcow2 want.raw && [ "$(wc -c < longer.raw)" -eq 5242880 ]
claim "the base keeps its end"

# Into raw, which grows, and a new overlay after it goes on.
cp base.raw r.raw
qemu-img create -q -f qcow2 -b r.raw -F raw top.qcow2 7M
qemu-io -f qcow2 -c 'write -P 2 1050000 5000' -c 'write -z 3M 70k' -c 'write -P 3 6M 100k' top.qcow2 > log
qemu-img convert -O raw top.qcow2 want.raw
check "into raw, as JSON" "$VDISK" commit --output=json top.qcow2
json_is "$stdout" '$d->{verb}' commit && json_is "$stdout" '$d->{emptied}' true
claim "the summary says what was done"
cmp -s r.raw want.raw; claim "the raw file is the disk"
check "a second time there is nothing to do" "$VDISK" commit --output=json top.qcow2
json_is "$stdout" '$d->{written}' 0; claim "and nothing is done"

# Encrypted: into a container that grows, from encrypted into clear.
printf secret > key
"$VDISK" encrypt -q -O raw --key-file key --pbkdf-iterations 1000 base.raw c.luks
"$VDISK" create -q --force -f qcow2 -b c.luks -F luks --key-file key top.qcow2 7M
"$VDISK" convert -q --force -O raw --key-file key top.qcow2 want.raw
check "into a container that grows" "$VDISK" commit -q --key-file key top.qcow2
"$VDISK" convert -q --force -O raw --key-file key top.qcow2 got.raw && cmp -s got.raw want.raw; claim "the overlay has its disk"
opens_as "$(luks_raw c.luks)" want.raw; claim "qemu finds zeros and no noise in the container"
cp base.raw r.raw
"$VDISK" create -q --force -f qcow2 --encrypt --pbkdf-iterations 1000 -b r.raw -F raw --key-file key top.qcow2
qemu-io $with_key --image-opts "$(luks_qcow2 top.qcow2)" -c 'write -P 7 1M 64k' > log
cp r.raw before.raw
check_fails 64 "encrypted content does not go into a plain base by itself" "$VDISK" commit --key-file key top.qcow2
grep -q -- --in-clear "$stderr" && cmp -s r.raw before.raw; claim "the hint says how; nothing has changed"
check_fails 12 "nor without the key" "$VDISK" commit --in-clear top.qcow2 < /dev/null
check "with --in-clear" "$VDISK" commit -q --in-clear --key-file key top.qcow2
perl -e 'open my $f, "<", "r.raw"; seek $f, 1048576, 0; read $f, my $b, 65536; exit $b ne "\x07" x 65536'
claim "it is there in clear"

# Refusals; nothing changes.
makes_chain compat=1.1 4300k
cp top.qcow2 t; cp mid.qcow2 m
check_fails 64 "a base that is none of its" "$VDISK" commit --base base.raw top.qcow2
check_fails 64 "an image that stands alone" "$VDISK" commit base.qcow2
grep -q "base.qcow2 has no backing file" "$stderr" && grep -q "^hint: " "$stderr"; claim "the message says why, and the way that there is"
check_fails 64 "raw" "$VDISK" commit -f raw base.raw
mkfifo pipe
qemu-io -r -f qcow2 mid.qcow2 < pipe > log 2>&1 & reader=$!
exec 3> pipe
wait_until grep -q ":$(stat -c %i mid.qcow2) " /proc/locks
check_fails 11 "a base that somebody reads is not written" "$VDISK" commit top.qcow2
grep -q 'in use' "$stderr"; claim "the message says so"
exec 3>&-
wait $reader
cmp -s top.qcow2 t && cmp -s mid.qcow2 m; claim "both are as they were, byte for byte"
qemu-img snapshot -c s top.qcow2
check_fails 63 "snapshots inside" "$VDISK" commit top.qcow2
qemu-img snapshot -c s base.qcow2
qemu-img snapshot -d s top.qcow2
check "snapshots inside the base stay" "$VDISK" commit -q --base base.qcow2 top.qcow2
is_sound base.qcow2 && qemu-img convert -l s -O raw base.qcow2 snap.raw && cmp snap.raw base.raw
claim "and keep what they had"
done_testing
