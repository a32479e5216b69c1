# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow2's own encryption is LUKS1: a LUKS2 header in its key area is refused, as qemu refuses it.
. "$SRCDIR/tests/support/lib.sh"
requires cryptsetup perl

printf 'correct horse' > key
run "$VDISK" create -q -f qcow2 --encrypt --key-file key --pbkdf-iterations 1000 d.qcow2 16M
truncate -s 2000K luks2
cryptsetup luksFormat -q --type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 512k --pbkdf pbkdf2 \
	--pbkdf-force-iterations 1000 --key-file key luks2 > log 2>&1 || cat log
# The first extension, at byte 0x70, is the key area's place: type, length 16, offset (qcow2 spec, "Full disk encryption header pointer").
at=$(perl -e 'open F, "<", "d.qcow2"; seek F, 0x78, 0; read F, $b, 8; print unpack "Q>", $b')
dd if=luks2 of=d.qcow2 bs=4096 seek=$((at / 4096)) conv=notrunc status=none
check_fails 63 "a LUKS2 header in a qcow2's key area is refused" "$VDISK" decrypt -q --key-file key d.qcow2 out.raw
grep -q 'LUKS header has version 2' "$stderr"
claim "it says why"
check "and leaves no file" test ! -e out.raw
done_testing
