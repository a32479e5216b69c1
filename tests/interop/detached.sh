#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# LUKS headers in files of their own, as cryptsetup and qemu have them: cryptsetup opens ours, and encrypts and decrypts the payload
# with a LUKS2 header; of LUKS1, whose header has no checksum, header and payload are put together, or taken apart, for
# qemu and nbdkit, which know them in one file only.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires cryptsetup qemu-img perl

printf secret > key
printf other > other
cheap='--pbkdf-iterations 1000'
costly='--type luks2 --pbkdf-iterations 4 --pbkdf-memory 32768'
theirs='--force-offline-reencrypt --batch-mode --key-file key'
make_disk plain.raw $((4 * 1048576))

opens() { cryptsetup open --test-passphrase --key-file "$1" --header "$2" "$3"; }
same() { "$VDISK" compare -q -f raw --key-file key --second-header "$1" plain.raw "$2"; }

# join HEADER IMAGE OUT: a LUKS1 container with its payload at 2 MiB (payload-offset: spec 1.2.3, figure 1).
join() {
	truncate -s 2M "$3" && dd if="$1" of="$3" conv=notrunc status=none && put "$3" 104 00001000 &&
		dd if="$2" of="$3" bs=1M seek=2 conv=notrunc status=none
}
# part CONTAINER HEADER IMAGE: the other way, wherever its payload is.
part() {
	p_at=$((0x$(field "$1" 104 4)))
	dd if="$1" of="$2" bs=512 count=$p_at status=none && put "$2" 104 00000000 && dd if="$1" of="$3" bs=512 skip=$p_at status=none
}
qemu_reads() {
	qemu-img convert --object secret,id=s,file="$2" --image-opts driver=luks,key-secret=s,file.filename="$1" -O raw by-qemu.raw &&
		cmp by-qemu.raw plain.raw
}

# ---- LUKS1 ----------------------------------------------------------------------------------------------------
check "LUKS1, by a copy" "$VDISK" encrypt --key-file key $cheap --header one.hdr plain.raw one.raw
check "cryptsetup opens the header" opens key one.hdr one.raw
cryptsetup luksDump one.hdr | grep -Eq '^Payload offset:[[:space:]]*0$'
claim "which says that the payload begins at 0"
join one.hdr one.raw one.luks && check "qemu reads header and payload together" qemu_reads one.luks key
if command -v nbdkit > /dev/null && command -v nbdcopy > /dev/null; then
	check "nbdkit too" sh -c 'nbdkit -U - file one.luks --filter=luks passphrase=+key --run '\''nbdcopy "$uri" by-nbdkit.raw'\'' && cmp by-nbdkit.raw plain.raw'
fi
cp plain.raw in.raw
check "LUKS1, in place" "$VDISK" encrypt --in-place -q -f raw --key-file key $cheap --header in.hdr in.raw
check "cryptsetup opens the header" opens key in.hdr in.raw
join in.hdr in.raw in.luks && check "qemu reads it" qemu_reads in.luks key
check "rekeyed in place" "$VDISK" rekey -q --volume-key --key-file key $cheap --header in.hdr in.raw
rm in.luks
join in.hdr in.raw in.luks && check "qemu reads it again" qemu_reads in.luks key
check "a key of cryptsetup's" cryptsetup luksAddKey --batch-mode --pbkdf-force-iterations 1000 --key-file key in.hdr other
check "opens here" "$VDISK" key verify --header in.hdr --key-file other in.raw
check "and a key from here" "$VDISK" key add -q --header one.hdr --key-file key --new-key-file other $cheap one.raw
check "opens there" opens other one.hdr one.raw

again qemu-img create -q -f luks --object secret,id=s,file=key -o key-secret=s,iter-time=10 theirs.luks 4M
qemu-img convert -n -f raw --target-image-opts --object secret,id=s,file=key plain.raw driver=luks,key-secret=s,file.filename=theirs.luks
part theirs.luks theirs.hdr theirs.raw
same theirs.hdr theirs.raw
claim "qemu's header and payload, taken apart, are read"
check "and decrypted in place" "$VDISK" decrypt --in-place -q --key-file key --header theirs.hdr theirs.raw
cmp -s theirs.raw plain.raw
claim "to the same bytes"

# ---- LUKS2 ----------------------------------------------------------------------------------------------------
check "LUKS2, by a copy" "$VDISK" encrypt --key-file key $costly --header two.hdr plain.raw two.raw
check "cryptsetup opens the header" opens key two.hdr two.raw
check "cryptsetup decrypts it" cryptsetup reencrypt --decrypt $theirs --header two.hdr two.raw
cmp -s two.raw plain.raw
claim "to the same bytes"
check "LUKS2 with 4096-byte sectors" "$VDISK" encrypt --key-file key $costly --sector-size 4096 --header four.hdr plain.raw four.raw
check "cryptsetup decrypts it" cryptsetup reencrypt --decrypt $theirs --header four.hdr four.raw
cmp -s four.raw plain.raw
claim "to the same bytes"
cp plain.raw two.raw
rm two.hdr
check "LUKS2, in place" "$VDISK" encrypt --in-place -q -f raw --key-file key $costly --header two.hdr two.raw
check "cryptsetup decrypts it" cryptsetup reencrypt --decrypt $theirs --header two.hdr two.raw
cmp -s two.raw plain.raw
claim "to the same bytes"

for sector in 512 4096; do
	cp plain.raw theirs.raw
	rm -f theirs.hdr
	check "cryptsetup encrypts, sectors of $sector" cryptsetup reencrypt --encrypt --type luks2 $theirs --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 --sector-size $sector --header theirs.hdr theirs.raw
	same theirs.hdr theirs.raw
	claim "it is read"
	check "rekeyed in place" "$VDISK" rekey -q --volume-key --key-file key --pbkdf-iterations 4 --pbkdf-memory 32768 \
		--header theirs.hdr theirs.raw
	check "cryptsetup still opens the header" opens key theirs.hdr theirs.raw
	check "and decrypted in place" "$VDISK" decrypt --in-place -q --key-file key --header theirs.hdr theirs.raw
	cmp -s theirs.raw plain.raw
	claim "to the same bytes"
done

done_testing
