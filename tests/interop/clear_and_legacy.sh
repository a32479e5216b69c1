#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is weaker than it looks: clusters that qemu compresses in clear into an encrypted image, and the AES of old.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
printf 'correct horse' > key
printf 'wrong' > wrong

# qemu-io compresses into an encrypted image without encrypting. Readable without the key, so it has to be told.
again qemu-img convert $with_key -f raw -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 disk.raw x.qcow2
cp disk.raw mirror.raw
printf 'write -c -P 0x43 4M 128k\n' | qemu_io $with_key --image-opts "$(luks_qcow2 x.qcow2)"
claim "qemu-io compresses into an encrypted image"
printf 'write -P 0x43 4M 128k\n' | qemu_io -f raw mirror.raw
check "clusters in clear are read right" "$VDISK" decrypt --key-file key x.qcow2 out.raw
grep -qi 'clear' "$stderr"
claim "and told"
check "the disk is whole" cmp out.raw mirror.raw
check "in JSON too" "$VDISK" convert --output=json --key-file key -O raw x.qcow2 out2.raw
cat "$stdout" "$stderr" | grep -Eq 'clear"?: *131072'
claim "with their bytes counted"
check "encrypting again leaves none in clear" "$VDISK" convert --key-file key --new-key-file key -O qcow2 x.qcow2 again.qcow2
check "qemu reads it" opens_as "$(luks_qcow2 again.qcow2)" mirror.raw
check "map tells clusters in clear from encrypted ones without the key" "$VDISK" map --output=json x.qcow2

# Both at once is refused on creation, as by qemu.
check_fails 1 "qemu refuses to compress and encrypt" qemu-img convert $with_key -c -f raw -O qcow2 \
	-o encrypt.format=luks,encrypt.key-secret=s disk.raw no.qcow2
rm -f no.qcow2
check_fails 63 "so do we" "$VDISK" convert -c -O qcow2 --new-key-file key disk.raw no.qcow2
grep -qi 'compress' "$stderr"
claim "the message says why"
[ ! -e no.qcow2 ]
claim "nothing is left of the refused run"

# Legacy AES: read, told, never written.
qemu-img create -q $with_key -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s old.qcow2 "$(stat -c %s disk.raw)"
qemu-img convert -n $with_key -f raw disk.raw --target-image-opts "$(luks_qcow2 old.qcow2)"
claim "qemu writes legacy AES"
check "legacy AES is read" reads_as old.qcow2 disk.raw --key-file key
check "info names it" "$VDISK" info --output=json old.qcow2
grep -Eq '"aes"' "$stdout"
claim "as qemu does"
before=$(sha256sum < old.qcow2)
check_fails 1 "legacy AES is not written" "$imgio" -w -k key old.qcow2 'write -P 1 0 64k'
[ "$before" = "$(sha256sum < old.qcow2)" ]
claim "and stays as it was"
for o in compat=0.10 cluster_size=512 cluster_size=2M; do
	rm -f old.qcow2
	qemu-img create -q $with_key -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,$o old.qcow2 "$(stat -c %s disk.raw)"
	qemu-img convert -n $with_key -f raw disk.raw --target-image-opts "$(luks_qcow2 old.qcow2)"
	check "legacy AES with $o is read" reads_as old.qcow2 disk.raw --key-file key
done
# It has no way to tell a wrong key: what comes out is noise, which has to be said.
run "$VDISK" decrypt --key-file wrong old.qcow2 noise.raw
grep -qi 'legacy' "$stderr"
claim "the user is told that legacy AES cannot tell a wrong key"
done_testing
