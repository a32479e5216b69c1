#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# LUKS headers in files of their own: every verb that reads or makes images takes them.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"

printf secret > key
printf other > other
cheap='--pbkdf-iterations 1000'
size=$((1024 * 1024 + 512))
# Random bytes, but for a text that tells it from noise, as every real disk has something that does.
make_disk() {
	head -c "$2" /dev/urandom > "$1"
	printf '%0480d' 0 | dd of="$1" bs=512 seek=3 conv=notrunc status=none
}
make_disk plain.raw $size

same_as_plain() { "$VDISK" compare -q -f raw --key-file key --second-header "$1" plain.raw "$2"; }

# ---- making ---------------------------------------------------------------------------------------------------
check "encrypts with the header apart" "$VDISK" encrypt --key-file key $cheap --header a.hdr plain.raw a.raw
grep -q '^a.raw: raw, encrypted, header in a.hdr, ' "$stdout"
claim "and says where it is"
[ "$(stat -c %s a.raw)" = $size ] && [ "$(stat -c %a a.hdr)" = 600 ]
claim "the image is as long as the disk, and the header is its owner's"
same_as_plain a.hdr a.raw
claim "the disk is the same"
cp a.hdr before.hdr
check_fails 1 "a header is never replaced" "$VDISK" encrypt --key-file key --force --header a.hdr plain.raw a.raw
grep -q 'a.hdr: exists already, and may be the header of another disk' "$stderr" && cmp -s a.hdr before.hdr
claim "and is told to be there"
check_fails 63 "qcow2 keeps its own" "$VDISK" encrypt --key-file key -O qcow2 --header q.hdr plain.raw q.qcow2
[ ! -e q.hdr ] && [ ! -e q.qcow2 ]
claim "nothing is made then"
check_fails 63 "and takes no other" "$VDISK" info --header a.hdr -f qcow2 "$("$VDISK" create -q -f qcow2 p.qcow2 1M; echo p.qcow2)"
for format in vhd vhdx vmdk; do
	check "a $format" "$VDISK" convert -f raw -O $format --new-key-file key $cheap --new-header $format.hdr plain.raw a.$format
	same_as_plain $format.hdr a.$format
	claim "with its header in a file reads the same"
done
check "converts from one header to another" "$VDISK" convert --header a.hdr --key-file key -O raw --new-header b.hdr \
	--new-key-file key --type luks2 --pbkdf-iterations 4 --pbkdf-memory 1024 a.raw b.raw
same_as_plain b.hdr b.raw
claim "the disk is the same"
check "converts back into an ordinary container" "$VDISK" convert --header b.hdr --key-file key -O luks --new-key-file key $cheap b.raw b.luks
"$VDISK" compare -q -f raw --key-file key plain.raw b.luks
claim "the disk is the same"
check "creates" "$VDISK" create --encrypt --key-file key $cheap --header c.hdr c.raw 3M
[ "$(stat -c %s c.raw)" = 3145728 ]
claim "an image of just the disk"
check_fails 64 "wants to hear that it is to be encrypted" "$VDISK" create --header d.hdr d.raw 3M
"$VDISK" encrypt -q --key-file key $cheap --header s.hdr plain.raw - > s.raw && same_as_plain s.hdr s.raw
claim "the disk goes to a stream, the header to its file"

# ---- reading --------------------------------------------------------------------------------------------------
check "decrypts" "$VDISK" decrypt --key-file key --header a.hdr a.raw back.raw
cmp -s back.raw plain.raw
claim "to the same bytes"
check_fails 12 "not with another key" "$VDISK" decrypt --key-file other --header a.hdr a.raw no.raw
check_fails 1 "not with a header that there is not" "$VDISK" decrypt --key-file key --header no.hdr a.raw no.raw
check_fails 1 "not with what is no header" "$VDISK" decrypt --key-file key --header plain.raw a.raw no.raw
grep -q 'plain.raw has no LUKS header' "$stderr"
claim "which is told by its name"
check_fails 63 "a stream has none" sh -c '"$1" decrypt --key-file key --header a.hdr -f raw - no.raw < a.raw' - "$VDISK"
check "info with the header" "$VDISK" info --header a.hdr a.raw
grep -q '^ENCRYPTED (LUKS1, ' "$stdout" && grep -q '^header: *a.hdr (detached)$' "$stdout"
claim "tells it"
check "info without" "$VDISK" info a.raw
grep -q '^NOT ENCRYPTED, unless its LUKS header is in a file of its own (--header)$' "$stdout"
claim "says what cannot be known"
check "info for programs" "$VDISK" info --output=json --header a.hdr a.raw
is_json "$stdout" && json_is "$stdout" '$d->{vdisk}{encryption}{"detached-header"}' a.hdr
claim "has its name"
check "nothing is readable without the key" "$VDISK" check --plaintext --header a.hdr a.raw
dd if=plain.raw of=leak.raw bs=1M count=1 status=none
yes 'a line that can be read' | dd of=leak.raw bs=64k seek=3 count=1 iflag=fullblock conv=notrunc status=none
check_fails 10 "what is shows" "$VDISK" check --plaintext --header a.hdr leak.raw
check "a map of it" "$VDISK" map --output=json --header a.hdr a.raw
check "measures a copy" "$VDISK" measure --header a.hdr -O qcow2 a.raw
check "makes it larger" "$VDISK" resize -f raw --header c.hdr --key-file key c.raw 4M
[ "$(stat -c %s c.raw)" = 4194304 ]
claim "by just so much"

# ---- keys -----------------------------------------------------------------------------------------------------
sum=$(sha256sum < a.raw)
check "lists the keyslots" "$VDISK" key list --header a.hdr a.raw
check "adds a key" "$VDISK" key add --header a.hdr --key-file key --new-key-file other $cheap a.raw
check "which opens" "$VDISK" key verify --header a.hdr --key-file other a.raw
check "backs the header up" "$VDISK" key backup-header --header a.hdr a.raw a.backup
check "changes a key" "$VDISK" key change --header a.hdr --key-file other --new-passphrase-file key $cheap a.raw
check_fails 12 "the old one is gone" "$VDISK" key verify --header a.hdr --key-file other a.raw
check "in the backup it is not" "$VDISK" key verify --header a.backup --key-file other a.raw
check "removes a key" "$VDISK" key remove --header a.hdr a.raw 0
check "puts the backup back" "$VDISK" key restore-header --header a.hdr --key-file other a.raw a.backup
cmp -s -n "$(stat -c %s a.hdr)" a.hdr a.backup
claim "as it was"
check_fails 10 "not that of another disk" "$VDISK" key restore-header --header a.hdr --key-file key a.raw c.hdr
[ "$(sha256sum < a.raw)" = "$sum" ]
claim "the image was written by none of this"
check_fails 63 "libvirt has no place for it" "$VDISK" key export --libvirt --header a.hdr --key-file key a.raw secret.xml

# ---- in place -------------------------------------------------------------------------------------------------
reads_as_plain() { "$VDISK" compare -q -f raw --key-file "$1" --second-header i.hdr plain.raw i.raw; }

cp plain.raw i.raw
check "encrypts in place" "$VDISK" encrypt --in-place -f raw --key-file key $cheap --header i.hdr i.raw
[ "$(stat -c %s i.raw)" = $size ] && [ "$(stat -c %a i.hdr)" = 600 ] && [ ! -e i.raw.vdisk-journal ]
claim "no data moved, and the header is its owner's"
tail -n 1 "$stdout" | grep -q '^i.raw: nothing is readable without the key'
claim "nothing is readable, it says at last"
grep -q '^note: i.raw opens with the header in i.hdr alone' "$stderr" && reads_as_plain key
claim "the disk is the same"
check_fails 1 "a file that there is becomes no header" "$VDISK" encrypt --in-place -f raw --key-file key $cheap --header i.hdr plain.raw
# The same key opens the header of another disk: nothing but what it decrypts to tells.
"$VDISK" encrypt --key-file key $cheap --header wrong.hdr plain.raw wrong.raw
cp i.raw i.copy
check_fails 10 "another disk's header is not decrypted with" "$VDISK" decrypt --in-place --key-file key --header wrong.hdr i.raw
grep -q "another disk's header" "$stderr" && grep -q '^hint: nothing was changed' "$stderr"
claim "and it is said why"
check_fails 10 "nor rekeyed with" "$VDISK" rekey --volume-key --key-file key $cheap --header wrong.hdr i.raw
cmp -s i.raw i.copy && [ ! -e i.raw.vdisk-journal ]
claim "no byte was changed"
cp i.hdr old.hdr
check "gets another volume key in place" "$VDISK" rekey --volume-key --key-file key --new-key-file other $cheap --header i.hdr i.raw
reads_as_plain other && ! cmp -s i.hdr old.hdr && ! "$VDISK" compare -q -f raw --key-file key --second-header old.hdr plain.raw i.raw
claim "the header is another, and the old one opens noise"
check "decrypts in place" "$VDISK" decrypt --in-place --key-file other --header i.hdr --output=json i.raw
cmp -s i.raw plain.raw && [ -e i.hdr ] && json_is "$stdout" '$d->{encrypted}' false
claim "to the same bytes; the header is left"
rm i.hdr

# Slow enough to be stopped: what goes on, and what turns back.
dd if=/dev/urandom of=slow.raw bs=1M count=96 status=none
cp slow.raw slow.copy
is_under_way() { "$VDISK" status slow.raw | grep -q 'in progress'; }
stop_half_way() {
	"$VDISK" "$@" --bwlimit 8M --header slow.hdr slow.raw > slow.out 2> slow.err &
	slow_pid=$!
	wait_until is_under_way
	sleep 1
	kill -TERM $slow_pid
	wait $slow_pid
}
stop_half_way encrypt --in-place -f raw --key-file key $cheap
[ $? -eq 16 ] && [ ! -e slow.hdr ] && grep -q 'vdisk resume --header slow.hdr slow.raw' slow.err
claim "stopped half-way there is no header yet, and it says how to go on"
check "status" "$VDISK" status slow.raw
grep -q 'vdisk resume --header FILE slow.raw' "$stdout"
claim "says that the header is to be named"
check_fails 64 "without it nothing goes on" "$VDISK" resume --key-file key slow.raw
check "without it what ends in clear is undone" "$VDISK" revert --key-file key slow.raw
cmp -s slow.raw slow.copy && [ ! -e slow.hdr ]
claim "the disk is as it was"
stop_half_way encrypt --in-place -f raw --key-file key $cheap
check "goes on with it" "$VDISK" resume --key-file key --header slow.hdr slow.raw
"$VDISK" compare -q -f raw --key-file key --second-header slow.hdr slow.copy slow.raw
claim "to the end"

if [ "$(id -u)" -eq 0 ] && truncate -s 4M back && dev=$(losetup -f --show "$PWD/back" 2>/dev/null); then
	on_exit "losetup -d $dev"
	make_disk back.raw 4194304
	dd if=back.raw of="$dev" bs=1M status=none
	check_fails 63 "a device has no room for a header" "$VDISK" encrypt --in-place -f raw --key-file key $cheap --journal dev.j "$dev"
	grep -q 'hint:.*--header FILE' "$stderr"
	claim "so one beside it is proposed"
	check_fails 64 "nor for a journal" "$VDISK" encrypt --in-place -f raw --key-file key $cheap --header dev.hdr "$dev"
	check "both are files elsewhere" "$VDISK" encrypt --in-place -f raw --key-file key $cheap --header dev.hdr --journal dev.j "$dev"
	"$VDISK" compare -q -f raw --key-file key --second-header dev.hdr back.raw "$dev" && [ ! -e dev.j ]
	claim "the disk is the same"
	check "back in place" "$VDISK" decrypt --in-place --key-file key --header dev.hdr --journal dev.j "$dev"
	cmp -s back.raw "$dev"
	claim "to the same bytes"
	check "a copy to a device" "$VDISK" encrypt -y --key-file key $cheap --header copy.hdr back.raw "$dev"
	"$VDISK" compare -q -f raw --key-file key --second-header copy.hdr back.raw "$dev"
	claim "fits, since it holds the disk alone"
fi

done_testing
