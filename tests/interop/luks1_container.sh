#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The LUKS1 container in raw: vdisk's opens in qemu, nbdkit and cryptsetup, theirs opens in vdisk.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io cryptsetup nbdkit perl
make_disk disk.raw
printf 'correct horse' > key
printf 'battery staple' > other
printf 'wrong' > wrong
fast="--pbkdf-iterations 1000"
quick="-q --pbkdf-force-iterations 1000"

# Ours in the others. The disk's last cipher sector is whole: 8 MiB and three sectors.
check "encrypts into a container" "$VDISK" encrypt -O raw --key-file key $fast disk.raw c.luks
check "the container has a payload at 2 MiB and nothing behind it" [ "$(stat -c %s c.luks)" -eq $((2097152 + $(stat -c %s disk.raw))) ]
check "qemu opens it" opens_as "$(luks_raw c.luks)" disk.raw
check_fails 1 "qemu does not open it with another key" qemu-img convert --object secret,id=s,file=wrong \
	--image-opts -O raw "$(luks_raw c.luks)" out.raw
rm -f out.raw
check "nbdkit opens it" nbdkit -U - --filter=luks file c.luks passphrase=+key --run 'qemu-img convert -f raw -O raw "$uri" nbd.raw'
check "nbdkit reads the disk" cmp nbd.raw disk.raw
check "cryptsetup knows it" cryptsetup luksDump c.luks
grep -q 'Cipher mode: .*xts-plain64' "$stdout" && grep -q 'MK bits: .*512' "$stdout" && grep -q 'Payload offset:.*4096' "$stdout"
claim "as AES-256-XTS with the payload at 2 MiB"
check "cryptsetup opens it" cryptsetup open --test-passphrase --key-file key c.luks
check_fails 2 "cryptsetup does not open it with another key" cryptsetup open --test-passphrase --key-file wrong c.luks
check "no line of the text is left in the file" holds_no 'packs well' c.luks
check "decrypts what it encrypted" "$VDISK" decrypt --key-file key c.luks back.raw
check "and has the same bytes" cmp back.raw disk.raw
rm -f c128.luks
check "encrypts with AES-128" "$VDISK" encrypt -O raw --key-file key $fast --cipher aes-128-xts disk.raw c128.luks
check "qemu opens AES-128" opens_as "$(luks_raw c128.luks)" disk.raw
cryptsetup luksDump c128.luks | grep -q 'MK bits: .*256'
claim "cryptsetup sees a volume key of 256 bits"
rm -f empty.luks
check "creates an empty container" "$VDISK" create -f luks --key-file key $fast empty.luks 1M
check "qemu opens the empty container" qemu-io $with_key --image-opts "$(luks_raw empty.luks)" -c 'write -P 3 0 1M' -c 'read -P 3 0 1M'

# Theirs in ours.
again qemu-img create -q $with_key -f luks -o key-secret=s,iter-time=10 q.luks "$(stat -c %s disk.raw)"
qemu-img convert -n $with_key -f raw disk.raw --target-image-opts "$(luks_raw q.luks)"
check "decrypts qemu's container, payload at sector 4040" reads_as q.luks disk.raw --key-file key
for o in "--cipher aes-xts-plain64 --key-size 512" "--cipher aes-xts-plain64 --key-size 256" "--hash sha512" "--align-payload 8192"; do
	rm -f k.luks
	truncate -s $((20 * 1048576)) k.luks
	cryptsetup luksFormat --type luks1 $quick $o --key-file key k.luks
	qemu-img convert -n $with_key -f raw disk.raw --target-image-opts "$(luks_raw k.luks)" 2> log
	opens_as "$(luks_raw k.luks)" by-qemu-first.raw 2> log
	check "decrypts cryptsetup's container with $o" reads_as k.luks by-qemu.raw --key-file key
done
for o in "--cipher aes-cbc-essiv:sha256 --key-size 256" "--cipher aes-cbc-plain64 --key-size 256"; do
	rm -f k.luks
	truncate -s 4M k.luks
	cryptsetup luksFormat --type luks1 $quick $o --key-file key k.luks
	check_fails 63 "refuses $o" "$VDISK" decrypt --key-file key k.luks no.raw
	[ ! -e no.raw ]
	claim "and leaves nothing behind: $o"
done
check_fails 12 "does not open qemu's with another key" "$VDISK" decrypt --key-file wrong q.luks no.raw
[ ! -e no.raw ]
claim "nothing is left of the refused run"

# Slots edited by cryptsetup.
check "cryptsetup adds a key" cryptsetup luksAddKey $quick --key-file key c.luks other
check "the first key still opens it" reads_as c.luks disk.raw --key-file key
check "the added key opens it" reads_as c.luks disk.raw --key-file other
check "cryptsetup removes the first slot" cryptsetup luksKillSlot -q --key-file other c.luks 0
check_fails 12 "the removed key opens it no more" "$VDISK" decrypt --key-file key c.luks no.raw
check "the added key still does" reads_as c.luks disk.raw --key-file other
check "and in qemu" qemu-img info --object secret,id=s,file=other --image-opts "$(luks_raw c.luks)"

# Both write into the other's container.
workload 17 "$(stat -c %s disk.raw)" > commands
cp disk.raw mirror.raw
qemu_io -f raw mirror.raw < commands
check "writes into qemu's container" with_commands commands "$imgio" -w -f luks -k key q.luks
check "qemu reads that" opens_as "$(luks_raw q.luks)" mirror.raw
rm -f c.luks
run "$VDISK" encrypt -O raw --key-file key $fast disk.raw c.luks
qemu_io $with_key --image-opts "$(luks_raw c.luks)" < commands
claim "qemu writes into vdisk's container"
check "vdisk reads that" reads_as c.luks mirror.raw --key-file key

# Container and native encryption, one into the other.
rm -f n.qcow2 d.luks
check "a container becomes an encrypted qcow2" "$VDISK" convert --key-file key --new-key-file other $fast -O qcow2 c.luks n.qcow2
check "qemu opens it with the new key" qemu-img compare -q --object secret,id=s,file=other --image-opts "$(luks_qcow2 n.qcow2)" \
	driver=raw,file.filename=mirror.raw
check "and an encrypted qcow2 a container" "$VDISK" convert --key-file other --new-key-file key $fast -O luks n.qcow2 d.luks
check "qemu opens that too" opens_as "$(luks_raw d.luks)" mirror.raw
done_testing
