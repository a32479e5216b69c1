#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Encrypted qcow2 both ways: vdisk's opens in qemu, qemu's opens in vdisk, whoever edits the slots in between.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
printf 'correct horse' > key
printf 'battery staple' > other
printf 'wrong' > wrong
fast="--pbkdf-iterations 1000"

# Ours in qemu.
check "encrypts" "$VDISK" encrypt --key-file key $fast disk.raw x.qcow2
check "qemu opens it with the key" opens_as "$(luks_qcow2 x.qcow2)" disk.raw
check "qemu finds no fault with it" qemu-img check -q $with_key --image-opts "$(luks_qcow2 x.qcow2)"
check_fails 1 "qemu does not open it without the key" qemu-img convert -O raw x.qcow2 out.raw
check_fails 1 "qemu does not open it with another key" qemu-img convert --object secret,id=s,file=wrong \
	--image-opts -O raw "$(luks_qcow2 x.qcow2)" out.raw
qemu-img info x.qcow2 > info
grep -q 'cipher alg: aes-256' info && grep -q 'cipher mode: xts' info && grep -q 'ivgen alg: plain64' info
claim "qemu sees AES-256-XTS with plain64"
check "no line of the text is left in the file" holds_no 'packs well' x.qcow2
rm -f out.raw
check "decrypts what it encrypted" "$VDISK" decrypt --key-file key x.qcow2 out.raw
check "and has the same bytes" cmp out.raw disk.raw
for o in compat=0.10 cluster_size=512 cluster_size=2M refcount_bits=1 extended_l2=on lazy_refcounts=on; do
	rm -f y.qcow2
	run "$VDISK" encrypt --key-file key $fast -o "$o" disk.raw y.qcow2
	check "qemu opens it with the key, $o" opens_as "$(luks_qcow2 y.qcow2)" disk.raw
	check "qemu finds no fault with it, $o" qemu-img check -q $with_key --image-opts "$(luks_qcow2 y.qcow2)"
done
rm -f y.qcow2
check "encrypts with AES-128" "$VDISK" encrypt --key-file key $fast --cipher aes-128-xts disk.raw y.qcow2
check "qemu opens AES-128" opens_as "$(luks_qcow2 y.qcow2)" disk.raw
qemu-img info y.qcow2 | grep -q 'cipher alg: aes-128'
claim "qemu sees AES-128"
rm -f y.qcow2 y.data
check "encrypts into an external data file" "$VDISK" encrypt --key-file key $fast -o data_file=y.data disk.raw y.qcow2
check "qemu opens the encrypted data file" opens_as "$(luks_qcow2 y.qcow2)" disk.raw
check "no line of the text is left in the data file" holds_no 'packs well' y.data
rm -f y.qcow2
check "encrypts with the costs that are the default" "$VDISK" encrypt --key-file key disk.raw y.qcow2
check "qemu opens it" opens_as "$(luks_qcow2 y.qcow2)" disk.raw

# Theirs in vdisk.
by_qemu() { # IMAGE OPTIONS: encrypted by qemu under "key"
	rm -f "$1"
	again qemu-img convert $with_key -f raw -O qcow2 -o "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,$2" disk.raw "$1"
}
workload 99 "$(stat -c %s disk.raw)" > commands
cp disk.raw mirror.raw
qemu_io -f raw mirror.raw < commands
# Each costs qemu three seconds of measuring its key derivation: several options in one image.
for o in compat=0.10 cluster_size=512,encrypt.cipher-alg=aes-128 cluster_size=2M,encrypt.hash-alg=sha1 \
	extended_l2=on,encrypt.hash-alg=sha512 preallocation=metadata,refcount_bits=1; do
	by_qemu q.qcow2 "$o"
	check "decrypts what qemu encrypted with $o" reads_as q.qcow2 disk.raw --key-file key
	check "writes into what qemu encrypted with $o" with_commands commands "$imgio" -w -k key q.qcow2
	check "qemu reads that with $o" opens_as "$(luks_qcow2 q.qcow2)" mirror.raw
	check "every count is right with $o" qemu-img check -q $with_key --image-opts "$(luks_qcow2 q.qcow2)"
done
by_qemu q.qcow2 compat=1.1
cp q.qcow2 locked.qcow2
check_fails 12 "does not open qemu's with another key" "$VDISK" decrypt --key-file wrong q.qcow2 out2.raw
check_fails 12 "does not open qemu's with no key" "$VDISK" decrypt q.qcow2 out2.raw < /dev/null
[ ! -e out2.raw ]
claim "nothing is left of the refused runs"
check "info needs no key" "$VDISK" info --output=json q.qcow2
check "map needs no key" "$VDISK" map --output=json q.qcow2
printf 'correct horse\n' > newline
check_fails 12 "a key file with a newline at its end is another key" "$VDISK" decrypt --key-file newline q.qcow2 out2.raw
grep -q newline "$stderr" && grep -q -- '--passphrase-file' "$stderr"
claim "the hint tells of the newline"
check "as a passphrase file it opens" reads_as q.qcow2 disk.raw --passphrase-file newline
# What else a header can ask for: the names of cipher and mode stand 8 and 40 bytes into it.
header=$(perl -e 'local $/; open my $f, "<", shift or die; print index(<$f>, "LUKS\xba\xbe")' q.qcow2)
for ask in 8:serpent 40:cbc-plain64 40:xts-essiv:sha256 40:xts-plain64be 8:cipher_null; do
	name=${ask#*:}
	cp q.qcow2 bad.qcow2
	put bad.qcow2 $((header + ${ask%%:*})) "$(printf '%s' "$name" | od -An -v -tx1 | tr -d ' \n')00"
	check_fails 63 "refuses $name" "$VDISK" decrypt --key-file key bad.qcow2 out2.raw
	[ ! -e out2.raw ] && grep -Eq "${name#xts-}|null cipher" "$stderr"
	claim "names $name and leaves nothing behind"
done

# Slots edited by qemu.
amend() { # SECRET-FILE IMAGE OPTIONS
	again qemu-img amend --object secret,id=s,file=key --object secret,id=n,file="$1" --image-opts "$(luks_qcow2 "$2")" -o "$3"
}
check "qemu adds a passphrase to ours" amend other x.qcow2 encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10
check "the first key still opens it" reads_as x.qcow2 disk.raw --key-file key
check "the added key opens it" reads_as x.qcow2 disk.raw --key-file other
check "info counts two slots" "$VDISK" info x.qcow2
grep -Eq '2 of 8' "$stdout"
claim "and says so"
qemu-img amend --object secret,id=s,file=other --object secret,id=n,file=key --image-opts "$(luks_qcow2 x.qcow2)" \
	-o encrypt.state=inactive,encrypt.old-secret=n
claim "qemu removes the first passphrase"
check_fails 12 "the removed key opens it no more" "$VDISK" decrypt --key-file key x.qcow2 out2.raw
check "the added key still does" reads_as x.qcow2 disk.raw --key-file other

# qemu writes into ours.
for o in compat=1.1 compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on; do
	rm -f x.qcow2
	run "$VDISK" encrypt --key-file key $fast -o "$o" disk.raw x.qcow2
	qemu_io $with_key --image-opts "$(luks_qcow2 x.qcow2)" < commands
	claim "qemu writes into what vdisk encrypted with $o"
	check "vdisk reads that with $o" reads_as x.qcow2 mirror.raw --key-file key
done

# Snapshots of an encrypted image.
qemu-img snapshot $with_key --image-opts -c before "$(luks_qcow2 q.qcow2)"
claim "qemu takes a snapshot of an encrypted image"
check "writes beside an encrypted snapshot" with_commands commands "$imgio" -w -k key q.qcow2
check "qemu reads the encrypted active layer" opens_as "$(luks_qcow2 q.qcow2)" mirror.raw
qemu-img snapshot $with_key --image-opts -a before "$(luks_qcow2 q.qcow2)"
check "the encrypted snapshot is intact" opens_as "$(luks_qcow2 q.qcow2)" disk.raw

# An encrypted overlay on a plain base, and the other way round.
qemu-img convert -f raw -O qcow2 disk.raw base.qcow2
again qemu-img create -q $with_key -f qcow2 -b base.qcow2 -F qcow2 \
	-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 over.qcow2
check "writes into an encrypted overlay of a plain base" with_commands commands "$imgio" -w -k key over.qcow2
check "qemu reads the encrypted overlay" opens_as "$(luks_qcow2 over.qcow2)" mirror.raw
mv locked.qcow2 base.qcow2
qemu-img create -q -u -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 "$(stat -c %s disk.raw)"
check "writes into a plain overlay of an encrypted base" with_commands commands "$imgio" -w -k key over.qcow2
check "reads the plain overlay of an encrypted base" reads_as over.qcow2 mirror.raw --key-file key
check "qemu reads it too" opens_as "driver=qcow2,file.filename=over.qcow2,backing.driver=qcow2,backing.file.filename=base.qcow2,backing.encrypt.key-secret=s" mirror.raw
done_testing
