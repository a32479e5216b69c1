#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The leak scan as people and programs are told of it, and what it has to find of what qemu leaves behind. What is found in which
# owner's bytes, test_plaintext tries for all formats.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

says() { grep -q -- "$1" "$stdout"; }
hints() { grep -q -- "$1" "$stderr"; }
verdict() { tail -1 "$stdout" | grep -q -- "$1"; }
# finding EXPRESSION WANTED: of the first one in JSON lines
finding() { grep '"type":"finding"' "$stdout" | head -1 > finding.json && json_is finding.json "$1" "$2"; }
summary() { grep '"type":"summary"' "$stdout" > summary.json && json_is summary.json "$1" "$2"; }
# in_image IMAGE COMMAND...: qemu-io with the key
in_image() {
	ii_image=$1
	shift
	printf '%s\n' "$@" | qemu_io $with_key --image-opts "$(luks_qcow2 "$ii_image")"
}
opens() { opens_as "$(luks_qcow2 "$1")" "$2"; }

make_disk disk.raw
printf 'correct horse' > key
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 disk.raw good.qcow2

# Clean, in every form.
check "an encrypted image is clean" "$VDISK" check --plaintext good.qcow2 < /dev/null
! grep -Ev 'keeps? old blocks' "$stdout" | sed '$d' | grep . && verdict '^good.qcow2: nothing is readable without the key'; claim "says so in one line"
for f in raw vmdk vhd vhdx; do
	"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 -O $f disk.raw good.$f
	check "so is one of $f" "$VDISK" check --plaintext good.$f
done
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 4 --pbkdf-memory 32 -O raw --type luks2 disk.raw luks2.raw
check "and a container of LUKS2" "$VDISK" check --plaintext luks2.raw
again qemu-img convert $with_key -f raw -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 disk.raw q.qcow2
check "and what qemu encrypts" "$VDISK" check --plaintext q.qcow2
check_fails 10 "a plain image is not" "$VDISK" check --plaintext disk.raw
hints 'not encrypted: all of it is readable'; claim "says why"

# Compressed clusters, which qemu writes in clear.
cp good.qcow2 x.qcow2
in_image x.qcow2 'write -c -P 0x43 4M 64k'; claim "qemu compresses into an encrypted image"
check_fails 10 "that is found" "$VDISK" check --plaintext x.qcow2
says '^compressed: .*(compressed, byte 4194304 of the disk)' && verdict 'readable without the key: 1 finding' && hints 'vdisk convert'
claim "told with its place, and what to do"
check_fails 10 "as JSON" "$VDISK" check --plaintext --output=json x.qcow2
is_json_lines "$stdout" && finding '$d->{kind}' compressed && finding '$d->{"guest-offset"}' 4194304 &&
	finding '$d->{"can-be-scrubbed"}' false && summary '$d->{"plaintext-found"}' true && summary '$d->{findings}' 1
claim "with the same"
check_fails 10 "it cannot be scrubbed" "$VDISK" check --plaintext --scrub x.qcow2
check "a copy is clean" "$VDISK" convert -q --key-file key --new-key-file key --pbkdf-iterations 1000 -O qcow2 x.qcow2 copy.qcow2
check "as the scan says" "$VDISK" check --plaintext copy.qcow2

# Tables are in clear, and those that an act takes out of force would lie in free space.
cp good.qcow2 x.qcow2
stays_clean() { # ACT OPERANDS...
	check "does this: $1 $2" "$VDISK" "$@"
	check "and leaves no old table" "$VDISK" check --plaintext x.qcow2
	check "and no fault" "$VDISK" check x.qcow2
}
stays_clean snapshot create x.qcow2 one
in_image x.qcow2 'write -P 8 1M 64k'; claim "qemu writes beside the snapshot"
stays_clean bitmap create x.qcow2 monday
stays_clean snapshot create x.qcow2 two
stays_clean snapshot apply x.qcow2 one
stays_clean bitmap remove x.qcow2 monday
stays_clean resize --key-file key x.qcow2 1T
stays_clean snapshot delete x.qcow2 one
stays_clean amend -o refcount_bits=32 x.qcow2
stays_clean resize --shrink x.qcow2 8M
stays_clean snapshot delete x.qcow2 two

# Zeroed clusters that keep their bytes: ciphertext is nothing to see, plaintext is.
cp good.qcow2 x.qcow2
in_image x.qcow2 'write -P 7 1M 64k' 'write -z 1M 64k'
check "stale ciphertext under zeros is no finding" "$VDISK" check --plaintext x.qcow2
at=$("$VDISK" map --host --output=json x.qcow2 | perl -MJSON::PP -e 'local $/; print +(grep { $_->{owner} eq "zeroed" } @{decode_json(<>)})[0]{start}')
yes 'secret of old' | dd of=x.qcow2 bs=512 seek=$((at / 512 + 3)) count=1 iflag=fullblock conv=notrunc status=none
check_fails 10 "one sector of text there is" "$VDISK" check --plaintext x.qcow2
says "^readable: 512 bytes at $((at + 1536)) (zeroed, byte 1050112 of the disk)"; claim "told with its place"
! grep -q secret "$stdout" "$stderr"; claim "but not with what it says"
qemu-img convert $with_key --image-opts -O raw "$(luks_qcow2 x.qcow2)" before.raw
check "is scrubbed" "$VDISK" check --plaintext --scrub x.qcow2
says '(overwritten)$' && verdict 'nothing is readable'; claim "says so"
! grep -q 'secret of old' x.qcow2; claim "is gone from the file"
check "the disk is what it was" opens x.qcow2 before.raw
check "and clean" "$VDISK" check --plaintext x.qcow2

# Beside all of it: 32 bytes of text in the padding of a table, a sector of it in the disk.
cp good.qcow2 x.qcow2
l1=$(perl -e 'open F, "<", shift; seek F, 40, 0; read F, $b, 8; print unpack("Q>", $b)' x.qcow2)
printf 'thirty-two bytes that show it all' | dd of=x.qcow2 bs=1 seek=$((l1 + 4000)) conv=notrunc status=none
check_fails 10 "text in padding" "$VDISK" check --plaintext x.qcow2
says '(slack, table-padding)'; claim "is found"
check "and scrubbed" "$VDISK" check -q --plaintext --scrub x.qcow2
[ ! -s "$stdout" ] || says overwritten; claim "a quiet run tells findings alone"
cp good.qcow2 x.qcow2
at=$("$VDISK" map --output=json x.qcow2 | perl -MJSON::PP -e 'local $/; print +(grep { $_->{encrypted} } @{decode_json(<>)})[0]{"ciphertext-offset"}')
yes 'plain' | dd of=x.qcow2 bs=512 seek=$((at / 512 + 5)) count=1 iflag=fullblock conv=notrunc status=none
check_fails 10 "a sector of text among ciphertext" "$VDISK" check --plaintext --scrub x.qcow2
says "^readable: 512 bytes at $((at + 2560)) (data, byte 2560 of the disk)"; claim "is found, and left, being the disk's"
dd if=/dev/zero of=x.qcow2 bs=512 seek=$((at / 512 + 5)) count=1 conv=notrunc status=none
check "a sector of zeros" "$VDISK" check --plaintext x.qcow2
says '^zeros: 512 bytes' && verdict 'nothing is readable'; claim "is told, and betrays nothing"

# Many: bounded.
cp good.qcow2 x.qcow2
for i in $(seq 0 29); do yes text | dd of=x.qcow2 bs=512 seek=$((at / 512 + 2 * i)) count=1 iflag=fullblock conv=notrunc status=none; done
check_fails 10 "many findings" "$VDISK" check --plaintext x.qcow2
[ "$(grep -c ^readable "$stdout")" -eq 20 ] && says '10 more of the kind "readable"'; claim "are not all printed"
"$VDISK" check --plaintext --output=json x.qcow2 > all; [ "$(grep -c '"kind":"readable"' all)" -eq 30 ]; claim "JSON has them all"

# Wrong use.
check_fails 64 "--scrub alone" "$VDISK" check --scrub good.qcow2
check_fails 64 "--repair beside it" "$VDISK" check --plaintext --repair=all good.qcow2
check_fails 64 "--scrub of an image in use" "$VDISK" check --plaintext --scrub -U good.qcow2
cp good.qcow2 before && "$VDISK" check -q --plaintext good.qcow2 && cmp -s before good.qcow2; claim "a scan changes nothing"
done_testing
