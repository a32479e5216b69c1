#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert: formats, options, what is refused, and what a refused run leaves behind. Formats in depth: tests/interop.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img perl

fast="--pbkdf-iterations 1000"
printf secret > key
printf other > new
truncate -s 3M disk.raw
dd if=/dev/urandom of=disk.raw bs=64k count=7 seek=3 conv=notrunc status=none

# refused STATUS TEXT WORDS...: fails so, says TEXT on standard error, makes no file
refused() {
	want=$1 text=$2
	shift 2
	check_fails "$want" "refused: $*" "$VDISK" "$@" </dev/null
	grep -q -e "$text" "$stderr"
	claim "says '$text'"
	[ ! -e out ] && [ ! -e out.vdisk-partial ]
	claim "no file is left"
}

check "raw is the default" "$VDISK" convert disk.raw out.raw
cmp -s disk.raw out.raw
claim "the bytes are the same"
grep -q '^out.raw: raw, not encrypted, disk of 3 MiB, 448 KiB written in ' "$stdout" && [ ! -s "$stderr" ]
claim "one line says what was done"
check "-q" "$VDISK" convert -q -O qcow2 -o cluster_size=4k,compat=0.10 disk.raw out.qcow2
[ ! -s "$stdout" ] && [ ! -s "$stderr" ]
claim "says nothing"
check "JSON" "$VDISK" convert --output=json -O qcow2 -c disk.raw c.qcow2
json_is "$stdout" '$d->{type}' summary && json_is "$stdout" '$d->{"virtual-size"}' 3145728 &&
	json_is "$stdout" '$d->{encrypted}' false && json_is "$stdout" '$d->{output}' c.qcow2 && [ ! -s "$stderr" ]
claim "the summary is an object"
check "a larger size" "$VDISK" convert -O qcow2 -o size=5M disk.raw large.qcow2
[ "$(qemu-img info --output=json large.qcow2 | perl -ne 'print $1 if /"virtual-size": (\d+)/')" = 5242880 ]
claim "the disk has it"
refused 64 "size: " convert -O qcow2 -o size=1M disk.raw out

refused 63 "cannot be written" convert -O vdi disk.raw out
refused 63 "unknown format" convert -f vdi disk.raw out
refused 64 "cluster_size" convert -O qcow2 -o cluster_sise=4k disk.raw out
refused 64 "has no option 'cluster_size'" convert -o cluster_size=4k disk.raw out
refused 64 "cluster" convert -O qcow2 -o cluster_size=3k disk.raw out
refused 64 "refcount" convert -O qcow2 -o refcount_bits=3 disk.raw out
refused 63 "both compressed and encrypted" convert -O qcow2 -c --new-key-file key disk.raw out
refused 63 "" convert -c disk.raw out
refused 63 "backing_file is for vdisk create" convert -O qcow2 -o backing_file=disk.raw,backing_fmt=raw disk.raw out
refused 1 "nowhere" convert nowhere out
refused 1 "" convert disk.raw no/such/folder/out
refused 64 "" convert disk.raw

# Encrypted: in, out, and from one key to another.
check "a new key makes it encrypted" "$VDISK" convert -O qcow2 $fast --new-key-file key disk.raw enc.qcow2
grep -q 'qcow2, encrypted' "$stdout"
claim "and says so"
check "-o encrypt.format with an object" "$VDISK" convert -O qcow2 $fast --object secret,id=s0,file=key \
	-o encrypt.format=luks,encrypt.key-secret=s0,encrypt.cipher-alg=aes-128 disk.raw enc128.qcow2
"$VDISK" info enc128.qcow2 | sed -n 1p | grep -q '256-bit key'
claim "as qemu spells it, with AES-128"
check_fails 64 "an object that there is not" "$VDISK" convert -O qcow2 -o encrypt.key-secret=s1 disk.raw out
check "from one key to another" "$VDISK" convert -O qcow2 $fast --key-file key --new-key-file new enc.qcow2 rekeyed.qcow2
check "the new key opens it" "$VDISK" compare --key-file new disk.raw rekeyed.qcow2
check_fails 2 "the old one does not" "$VDISK" compare --key-file key disk.raw rekeyed.qcow2
check "a container" "$VDISK" convert -O luks $fast --key-file key --new-key-file new enc.qcow2 c.luks
check "is what it was" "$VDISK" compare --key-file new disk.raw c.luks
check "into clear" "$VDISK" convert --key-file key enc.qcow2 clear.raw
grep -q '^note: .*--encrypt' "$stderr" && cmp -s clear.raw disk.raw
claim "a note says that it is"
refused 12 "no terminal" convert --key-file key -O qcow2 --encrypt enc.qcow2 out
refused 12 "hint: " convert enc.qcow2 out
refused 12 "enc.qcow2" convert --key-file new enc.qcow2 out

# The output.
refused 64 "input itself" convert disk.raw disk.raw
check_fails 64 "the input is refused with --force" "$VDISK" convert --force disk.raw ./disk.raw
ln disk.raw hard.raw
ln -s disk.raw soft.raw
check_fails 64 "its hard link" "$VDISK" convert --force disk.raw hard.raw
check_fails 64 "its symbolic link" "$VDISK" convert --force disk.raw soft.raw
cmp -s disk.raw out.raw
claim "the input is as it was"
qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2
check_fails 64 "its backing file" "$VDISK" convert --force -O qcow2 over.qcow2 disk.raw
qemu-img convert -f raw -O qcow2 -o data_file=d.data disk.raw d.qcow2
check_fails 64 "its data file" "$VDISK" convert --force d.qcow2 d.data
echo precious > there
check_fails 1 "a file that is there" "$VDISK" convert disk.raw there
grep -q -- --force "$stderr" && [ "$(cat there)" = precious ]
claim "is left as it is, and the hint says how to replace it"
check_fails 12 "a run with --force that fails" "$VDISK" convert --force --key-file new enc.qcow2 there
[ "$(cat there)" = precious ]
claim "leaves it too"
check "--force" "$VDISK" convert --force disk.raw there
cmp -s disk.raw there
claim "replaces it"
mkdir folder
check_fails 1 "a folder" "$VDISK" convert --force disk.raw folder

# Room: the numbers are told before anything is written.
qemu-img create -q -f qcow2 -o cluster_size=2M huge.qcow2 64T
refused 14 "free" convert -O luks --new-key-file key huge.qcow2 out
grep -Eq '[0-9]+ bytes.*has.*[0-9]+ bytes' "$stderr" && grep -q -- --no-space-check "$stderr"
claim "both numbers and the way round are told"
check "holes need no room" "$VDISK" convert -O qcow2 -o cluster_size=2M huge.qcow2 huge-too.qcow2

# Another process.
stdbuf -oL qemu-io -f qcow2 -c 'read 0 512' -c 'sleep 60000' d.qcow2 > writer.log 2>&1 & writer=$!
on_exit "kill $writer 2>/dev/null"
wait_until grep -q 'read 512' writer.log
refused 11 "qemu-io" convert d.qcow2 out
check "-U reads it" "$VDISK" convert -U --output=json d.qcow2 shared.raw
json_is "$stdout" '$d->{consistent}' false && grep -q '^note: .*inconsistent' "$stderr"
claim "and says that it may be inconsistent"

# A block device is written where it is, after a question.
dev=
[ "$(id -u)" -eq 0 ] && truncate -s 4M back && dev=$(losetup -f --show "$PWD/back" 2>/dev/null) && on_exit "losetup -d $dev"
if [ -n "$dev" ]; then
	check_fails 15 "a block device without a terminal" setsid "$VDISK" convert disk.raw "$dev"
	grep -q -- --yes "$stderr" && [ "$(tr -d '\0' < back | wc -c)" -eq 0 ]
	claim "is not touched, and the hint says how to go on"
	check "--yes" "$VDISK" convert --yes disk.raw "$dev"
	cmp -s -n 3145728 disk.raw "$dev"
	claim "writes it"
fi
done_testing
