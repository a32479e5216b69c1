#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots by overlays in every format, and the chains that come of them: made, shown, committed, rebased, flattened. qemu-img
# follows the chains, and reads the same.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl cmp

says() { grep -q -- "$1" "$stdout"; }
complains() { grep -q -- "$1" "$stderr"; }
printf 'correct horse' > key

# ---- every format ------------------------------------------------------------------------------------------

# peer_reads FILE FORMAT RAW: qemu does not know the parents of VHD and VHDX
peer_reads() {
	case $2 in
	qcow2 | vmdk) qemu-img compare -q -f "$2" -F raw "$1" "$3" ;;
	*) "$VDISK" compare -q -f "$2" -F raw "$1" "$3" ;;
	esac
}
for f in qcow2 vmdk vhd vhdx; do
	mkdir $f && cd $f || exit 1
	"$VDISK" create -q -f $f web.$f 12M
	"$imgio" -w web.$f 'write -P 1 0 3M' flush > log
	cp web.$f kept.$f
	"$VDISK" convert -q -O raw web.$f then.raw
	check "an overlay: $f" "$VDISK" snapshot create web.$f --numbered
	says "^web-000001.$f: $f over web.$f; use it from here on"; claim "says what to do: $f"
	"$imgio" -w web-000001.$f 'write -P 2 1M 1M' flush > log
	check "an overlay of it: $f" "$VDISK" snapshot create -q --numbered web-000001.$f
	[ -f web-000002.$f ]; claim "is counted on: $f"
	"$imgio" -w web-000002.$f 'write -P 3 2M 100k' flush > log
	"$VDISK" convert -q -O raw web-000001.$f mid.raw
	"$VDISK" convert -q -O raw web-000002.$f top.raw
	cmp -s web.$f kept.$f && peer_reads web.$f $f then.raw && peer_reads web-000001.$f $f mid.raw && peer_reads web-000002.$f $f top.raw
	claim "each is the disk of its time, and the image is as it was: $f"
	check "the chain: $f" "$VDISK" snapshot list web-000002.$f
	[ "$(grep -c 'web' "$stdout")" -eq 3 ] && says "^web-000002.$f" && says "^└─ .*web-000001.$f" && says "^   └─ .*web.$f" &&
		! says 'is not what'
	claim "is shown as a tree: $f"
	check "the chain as JSON: $f" "$VDISK" snapshot list --output=json web-000002.$f
	cp "$stdout" list.json
	json_is list.json 'join " ", map { $_->{filename} =~ s,.*/,,r . ($_->{"is-what-it-was"} ? "+" : "-") } @{$d->{chain}}' "web-000002.$f+ web-000001.$f+ web.$f+" &&
		json_is list.json '($d->{chain}[0]{"parent-id"} // "") eq ($d->{chain}[1]{"disk-id"} // "")' 1
	claim "has files and ids: $f"
	check "commit: $f" "$VDISK" snapshot commit -q web-000002.$f
	peer_reads web-000002.$f $f top.raw && peer_reads web-000001.$f $f top.raw; claim "leaves both with the disk: $f"
	check "rebase: $f" "$VDISK" snapshot rebase -q -b web.$f -F $f web-000002.$f
	peer_reads web-000002.$f $f top.raw; claim "keeps the disk: $f"
	check "flatten: $f" "$VDISK" snapshot flatten -q web-000002.$f
	mkdir alone && mv web-000002.$f alone && peer_reads alone/web-000002.$f $f top.raw; claim "needs nobody: $f"
	"$imgio" -w web.$f 'write -P 9 5M 1M' flush > log
	run "$VDISK" snapshot list web-000001.$f
	[ $f = qcow2 ] || [ $f = vhd ] || says 'is not what the disk above was made on'; claim "a parent that was written is told of: $f"
	rm web.$f
	check "a chain with a hole: $f" "$VDISK" snapshot list web-000001.$f
	says 'web.* is not open'; claim "is shown as far as it goes: $f"
	cd ..
done

# ---- names, formats, places --------------------------------------------------------------------------------

qemu-img create -q -f qcow2 d.qcow2 8M
qemu-io -f qcow2 -c 'write -P 1 0 1M' d.qcow2 > log
"$VDISK" snapshot create -q d.qcow2 inside
check "an overlay with a name" "$VDISK" snapshot create --output=json --overlay top.qcow2 d.qcow2
cp "$stdout" made.json
json_is made.json '"$d->{type} $d->{verb} $d->{act} $d->{image} $d->{overlay} $d->{format} " . ($d->{encrypted} ? 1 : 0)' 'summary snapshot create d.qcow2 top.qcow2 qcow2 0'
claim "says so in JSON"
check "its chain" "$VDISK" snapshot list top.qcow2
says 'd.qcow2 .*1 snapshot inside'; claim "tells of snapshots inside"
qemu-img info --backing-chain top.qcow2 > chain.txt && grep -q '^image: d.qcow2' chain.txt; claim "qemu-img follows it"
qemu-img rebase -q -u -b '' top.qcow2 && [ "$(qemu-img info --output=json top.qcow2 | grep -c backing-filename)" -eq 0 ]; claim "and rebases it"
printf 'raw bytes' > r.raw; truncate -s 4M r.raw
check "an overlay of raw" "$VDISK" snapshot create -q -f raw --numbered r.raw
qemu-img compare -q -f qcow2 -F raw r-000001.qcow2 r.raw; claim "is qcow2"
"$VDISK" create -q -f vhdx h.vhdx 4M
check "an overlay in another format" "$VDISK" snapshot create -q --numbered --overlay-format qcow2 h.vhdx
qemu-img compare -q -f qcow2 -F vhdx h-000001.qcow2 h.vhdx; claim "is named after its own"
check_fails 63 "one that the format does not know" "$VDISK" snapshot create -q -f raw --overlay o.vhdx --overlay-format vhdx r.raw
mkdir elsewhere
check "an overlay in another folder" "$VDISK" snapshot create -q --overlay elsewhere/o.qcow2 d.qcow2
qemu-img compare -q -f qcow2 -F qcow2 elsewhere/o.qcow2 d.qcow2; claim "finds its parent"

# ---- encryption --------------------------------------------------------------------------------------------

"$VDISK" create -q -f qcow2 --encrypt --pbkdf-iterations 1000 --key-file key enc.qcow2 8M
"$imgio" -w -k key enc.qcow2 'write -P 7 1M 64k' > log
check_fails 12 "no key for an encrypted one" sh -c "\"$VDISK\" snapshot create --overlay enc2.qcow2 enc.qcow2 < /dev/null"
[ ! -e enc2.qcow2 ]; claim "makes nothing"
check "with its key" "$VDISK" snapshot create --key-file key --overlay enc2.qcow2 enc.qcow2
says 'encrypted with the same key'; claim "says that it is encrypted"
"$imgio" -w -k key enc2.qcow2 'write -P 8 2M 64k' > log
"$imgio" -k key enc2.qcow2 'read -P 7 1M 64k' 'read -P 8 2M 64k'; claim "reads both with one key"
check "plain to nobody" "$VDISK" check --plaintext enc2.qcow2
perl -e 'local $/; exit 1 if <> =~ /\x08{512}/' enc2.qcow2; claim "what is written is ciphertext"
check "an overlay of the overlay" "$VDISK" snapshot create -q --key-file key --numbered enc2.qcow2
"$imgio" -w -k key enc2-000001.qcow2 'write -P 9 3M 64k' > log
check "committed" "$VDISK" snapshot commit -q --key-file key enc2-000001.qcow2
"$imgio" -k key enc2.qcow2 'read -P 9 3M 64k' 'read -P 7 1M 64k'; claim "has gone down, encrypted"
check "flattened" "$VDISK" snapshot flatten -q --key-file key enc2.qcow2
mkdir enc && mv enc2.qcow2 enc && "$imgio" -k key enc/enc2.qcow2 'read -P 7 1M 64k' 'read -P 9 3M 64k'; claim "stands alone"
check_fails 63 "an encrypted one in a format without" "$VDISK" snapshot create --key-file key --overlay o.vmdk --overlay-format vmdk enc.qcow2
"$VDISK" create -q -f vmdk --encrypt --pbkdf-iterations 1000 --key-file key c.vmdk 8M
check_fails 63 "an overlay of a container" "$VDISK" snapshot create --key-file key --numbered c.vmdk
complains 'in clear' && [ ! -e c-000001.vmdk ]; claim "would be in clear"

# ---- what is refused ---------------------------------------------------------------------------------------

cp d.qcow2 before
check_fails 1 "a name that is taken" "$VDISK" snapshot create --overlay top.qcow2 d.qcow2
check_fails 64 "a name inside and one outside" "$VDISK" snapshot create --overlay x.qcow2 d.qcow2 name
check_fails 64 "two names" "$VDISK" snapshot create --overlay x.qcow2 --numbered d.qcow2
check_fails 64 "another act" "$VDISK" snapshot delete --overlay x.qcow2 d.qcow2
check_fails 64 "a format of nothing" "$VDISK" snapshot create --overlay-format qcow2 d.qcow2 n
check_fails 64 "--force-share" "$VDISK" snapshot create -U --overlay x.qcow2 d.qcow2
check_fails 63 "an overlay in raw" "$VDISK" snapshot create --overlay x.raw --overlay-format raw d.qcow2
check_fails 1 "an image that is not there" "$VDISK" snapshot create --numbered none.qcow2
for f in qcow2 vmdk; do
	"$VDISK" create -q -f $f used.$f 8M
	qemu-io -f $f -c 'sleep 5000' used.$f > log 2>&1 &
	peer=$!
	sleep 0.5
	check_fails 11 "an image that somebody writes to: $f" "$VDISK" snapshot create --numbered used.$f
	kill $peer 2> /dev/null; wait $peer 2> /dev/null
	[ ! -e used-000001.$f ]; claim "makes nothing: $f"
done
"$VDISK" create -q -f vmdk two.vmdk 8M
"$VDISK" snapshot create -q --numbered two.vmdk & one=$!
"$VDISK" snapshot create -q --numbered two.vmdk 2> second.err; other=$?
wait $one; one=$?
[ $one -eq 0 ] || [ $other -eq 0 ]; claim "of two at a time at least one makes it"
n=$(ls two-*.vmdk | wc -l); ok=$(( (one == 0) + (other == 0) )); [ "$n" -eq "$ok" ]; claim "each its own file, or a refusal"
cmp -s d.qcow2 before; claim "nothing has touched the image"

done_testing
