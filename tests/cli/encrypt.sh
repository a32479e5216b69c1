#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# encrypt and decrypt: there and back, for each kind of container, and what they refuse.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img perl

fast="--pbkdf-iterations 1000"
fast2="--pbkdf-iterations 4 --pbkdf-memory 32768"
printf secret > key
printf 'secret\n' > line
printf guess > wrong
truncate -s 3M disk.raw
dd if=/dev/urandom of=disk.raw bs=64k count=7 seek=3 conv=notrunc status=none
printf 'words in clear, words in clear, words in clear' | dd of=disk.raw bs=1 seek=100000 conv=notrunc status=none

there_and_back() { # OPTIONS...
	rm -f e back
	"$VDISK" encrypt -q --key-file key "$@" disk.raw e && ! grep -q 'words in clear' e &&
		"$VDISK" decrypt -q --key-file key e back && cmp back disk.raw
}
check "qcow2" there_and_back $fast
check "qcow2 with AES-128" there_and_back $fast --cipher aes-128-xts
check "qcow2 with other options" there_and_back $fast -o cluster_size=4k,compat=0.10
check "a LUKS1 container" there_and_back $fast -O raw
check "a LUKS1 container by its own name" there_and_back $fast -O luks
check "a LUKS2 container" there_and_back $fast2 -O raw --type luks2
check "a LUKS2 container with sectors of 4096" there_and_back $fast2 -O raw --type luks2 --sector-size 4096

check "a container in a VMDK stream" there_and_back $fast -O vmdk -c
check "one of LUKS2" there_and_back $fast2 -O vmdk -c --type luks2

check "qcow2 is the default" "$VDISK" encrypt $fast --key-file key disk.raw e.qcow2
grep -q '^e.qcow2: qcow2, encrypted, disk of 3 MiB, ' "$stdout"
claim "and is said to be"
check "raw is decrypt's default" "$VDISK" decrypt --output=json --key-file key e.qcow2 d.raw
json_is "$stdout" '$d->{format}' raw && json_is "$stdout" '$d->{encrypted}' false && json_is "$stdout" '$d->{verb}' decrypt
claim "the summary says so"
check "decrypt can compress" "$VDISK" decrypt -c -O qcow2 --key-file key e.qcow2 d.qcow2
qemu-img compare -q -f raw -F qcow2 disk.raw d.qcow2
claim "qemu reads that"

refused() { # STATUS TEXT WORDS...
	want=$1 text=$2
	shift 2
	check_fails "$want" "refused: $*" "$VDISK" "$@" </dev/null
	grep -q -e "$text" "$stderr" && [ ! -e out ] && [ ! -e out.vdisk-partial ]
	claim "says '$text', and no file is left"
}
refused 1 "encrypted already" encrypt --key-file key e.qcow2 out
grep -q 'hint: .*--new-key-file' "$stderr"
claim "the hint says how to change the key"
refused 1 "is not encrypted" decrypt disk.raw out
refused 1 "is not encrypted" decrypt --key-file key disk.raw out
refused 12 "e.qcow2" decrypt --key-file wrong e.qcow2 out
refused 12 "newline" decrypt --key-file line e.qcow2 out
refused 12 "no terminal" decrypt e.qcow2 out
refused 12 "no terminal" encrypt disk.raw out
refused 64 "one key, not 2" encrypt --key-file key --passphrase-file line disk.raw out
refused 63 "clear" encrypt -c --key-file key disk.raw out
refused 63 "LUKS1" encrypt --type luks2 --key-file key disk.raw out
refused 63 "LUKS2" encrypt -O raw --sector-size 4096 --key-file key disk.raw out
refused 64 "sector" encrypt -O raw --type luks2 --sector-size 1000 --key-file key disk.raw out
refused 64 "asks\? for encryption" decrypt -O luks --key-file key e.qcow2 out
refused 64 "input itself" encrypt --force --key-file key disk.raw disk.raw
refused 1 "nowhere" encrypt --key-file nowhere disk.raw out
refused 64 "" encrypt --key-file /dev/null disk.raw out

check_fails 12 "a wrong key with --output=json" "$VDISK" decrypt --output=json --key-file wrong e.qcow2 out
json_is "$stdout" '$d->{type}' error && json_is "$stdout" '$d->{code}' 12 && json_is "$stdout" '$d->{name}' wrong-key &&
	json_is "$stdout" '$d->{image}' e.qcow2 && [ ! -s "$stderr" ]
claim "is an object, and nothing else"

# An overlay: what is below it is part of the disk.
qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2
check "an overlay is encrypted with what is below it" "$VDISK" encrypt $fast --key-file key over.qcow2 whole.qcow2
check "the copy needs no backing file" "$VDISK" compare --key-file key disk.raw whole.qcow2
! "$VDISK" info whole.qcow2 | grep -q backing
claim "and has none"
qemu-img create -q -f qcow2 -u -b e.qcow2 -F qcow2 enc-over.qcow2 3M
refused 12 "--new-key-file" encrypt --key-file key enc-over.qcow2 out
check "a plain overlay of an encrypted image is decrypted" "$VDISK" decrypt --key-file key enc-over.qcow2 flat.raw
cmp -s flat.raw disk.raw
claim "into what it was"

# Not by root alone: keys are opened by an ordinary user too, where one can reach the command at all.
as_nobody() { (cd open && VDISK_LEDGER=$PWD/ledger setpriv --reuid 65534 --regid 65534 --clear-groups "$@"); }
mkdir open && chmod 777 open && cp disk.raw key open && chmod 644 open/* && chmod 711 .
if [ "$(id -u)" -eq 0 ] && as_nobody "$VDISK" --version > /dev/null 2>&1; then
	check "an ordinary user encrypts" as_nobody "$VDISK" encrypt $fast --key-file key disk.raw e.qcow2
	check "and decrypts" as_nobody "$VDISK" decrypt --key-file key e.qcow2 d.raw
fi
done_testing
