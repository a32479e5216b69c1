#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The LUKS2 container. No other program reads its payload without the kernel's device mapper, but cryptsetup converts
# containers in place on plain files: what it decrypts has to be what vdisk encrypted, and the other way round.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires cryptsetup qemu-img qemu-io nbdkit perl
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP cryptsetup reencrypt wants root"; tap_done=yes; exit 77; }
printf 'correct horse' > key
printf 'battery staple' > other
printf 'wrong' > wrong
fast="--pbkdf-iterations 4 --pbkdf-memory 32768"
quick="-q --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 32768"
make_disk disk.raw $((8 * 1048576))
size=$(stat -c %s disk.raw)

for sector in 512 4096; do
	rm -f c.luks header back.raw
	check "encrypts with sectors of $sector" "$VDISK" encrypt -O raw --type luks2 --sector-size $sector --key-file key $fast disk.raw c.luks
	check "cryptsetup knows sectors of $sector" cryptsetup luksDump c.luks
	grep -q "sector: $sector " "$stdout" && grep -q 'argon2id' "$stdout" && grep -q 'cipher: aes-xts-plain64' "$stdout"
	claim "as aes-xts-plain64 with argon2id, sectors of $sector"
	check "cryptsetup opens sectors of $sector" cryptsetup open --test-passphrase --key-file key c.luks
	check_fails 2 "not with another key, sectors of $sector" cryptsetup open --test-passphrase --key-file wrong c.luks
	check "decrypts what it encrypted with sectors of $sector" reads_as c.luks disk.raw --key-file key
	check "cryptsetup adds a key, sectors of $sector" cryptsetup luksAddKey $quick --key-file key c.luks other
	check "the added key opens it, sectors of $sector" reads_as c.luks disk.raw --key-file other
	check "cryptsetup removes the first slot, sectors of $sector" cryptsetup luksKillSlot -q --key-file other c.luks 0
	check_fails 12 "the removed key opens it no more, sectors of $sector" "$VDISK" decrypt --key-file key c.luks no.raw
	check "cryptsetup decrypts the payload with sectors of $sector" cryptsetup reencrypt --decrypt --force-offline-reencrypt \
		--header header -q --key-file other c.luks
	check "and finds the disk, sectors of $sector" cmp -n "$size" c.luks disk.raw
done

workload 23 "$size" > commands
for sector in 512 4096; do
	cp disk.raw k.luks
	truncate -s +32M k.luks
	cryptsetup reencrypt --encrypt --type luks2 --force-offline-reencrypt --reduce-device-size 32M --sector-size $sector \
		$quick --key-file key k.luks
	claim "cryptsetup encrypts with sectors of $sector"
	rm -f got.raw
	check "vdisk decrypts that, sectors of $sector" "$VDISK" decrypt --key-file key k.luks got.raw
	check "and finds the disk, sectors of $sector" cmp -n "$size" got.raw disk.raw
	cp got.raw mirror.raw
	qemu_io -f raw mirror.raw < commands
	check "vdisk writes into it, sectors of $sector" with_commands commands "$imgio" -w -f luks -k key k.luks
	rm -f header
	check "cryptsetup decrypts what vdisk wrote, sectors of $sector" cryptsetup reencrypt --decrypt --force-offline-reencrypt \
		--header header -q --key-file key k.luks
	check "and finds what was written, sectors of $sector" cmp -n "$size" k.luks mirror.raw
done

# Who does not read it: if one of these learns to, README.md's table has to change.
rm -f c.luks
run "$VDISK" encrypt -O raw --type luks2 --key-file key $fast disk.raw c.luks
check_fails 1 "qemu's luks driver does not open it" qemu-img info $with_key --image-opts "$(luks_raw c.luks)"
nbdkit -U - --filter=luks file c.luks passphrase=+key --run 'qemu-img info "$uri"' > log 2>&1
[ $? -ne 0 ]
claim "nor does nbdkit's luks filter"

# Headers that promise what is not built are refused, not guessed at.
truncate -s 40M t.luks
cryptsetup luksFormat --type luks2 $quick --cipher aes-cbc-essiv:sha256 --key-file key t.luks
check_fails 63 "refuses a mode that is not XTS" "$VDISK" decrypt --key-file key t.luks no.raw
cp disk.raw half.luks
truncate -s +32M half.luks
cryptsetup reencrypt --encrypt --init-only --type luks2 --force-offline-reencrypt --reduce-device-size 32M $quick --key-file key half.luks
check_fails 63 "refuses a container that cryptsetup is half through" "$VDISK" decrypt --key-file key half.luks no.raw
[ ! -e no.raw ]
claim "nothing is left of the refused runs"
done_testing
