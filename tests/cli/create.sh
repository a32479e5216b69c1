#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# create: sizes, overlays, encryption, and what it refuses. Options of qcow2 in depth: tests/interop.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img perl

fast="--pbkdf-iterations 1000"
printf secret > key
size_is() { qemu-img info --output=json "$1" | grep -q "\"virtual-size\": $2,"; }

check "raw is the default" "$VDISK" create a.raw 5M
[ "$(stat -c %s a.raw)" -eq 5242880 ] && grep -q '^a.raw: raw, not encrypted, disk of 5 MiB$' "$stdout"
claim "it is made, and said to be"
while read -r text bytes; do
	check "a size of $text" "$VDISK" create -q -f qcow2 s.qcow2 "$text"
	size_is s.qcow2 "$bytes"
	claim "is $bytes bytes"
	rm s.qcow2
done <<'SIZES'
65536 65536
64k 65536
1.5G 1610612736
2TiB 2199023255552
SIZES
check "-o size=" "$VDISK" create -f qcow2 -o size=7M s.qcow2
size_is s.qcow2 7340032
claim "is the size"
check "--output=json" "$VDISK" create --output=json -f qcow2 j.qcow2 1M
json_is "$stdout" '$d->{type}' summary && json_is "$stdout" '$d->{"virtual-size"}' 1048576
claim "prints an object"

refused() { # STATUS TEXT WORDS...
	want=$1 text=$2
	shift 2
	check_fails "$want" "refused: $*" "$VDISK" "$@" </dev/null
	grep -q -e "$text" "$stderr" && [ ! -e out ] && [ ! -e out.vdisk-partial ]
	claim "says '$text', and no file is left"
}
refused 64 "how large" create out
refused 64 "not a size" create out 5X
refused 64 "not a size" create out -- -5
refused 64 "twice" create -f qcow2 -o size=1M out 2M
refused 63 "cannot be written" create -f vdi out 1M
refused 64 "nothing says" create --key-file key -f qcow2 out 1M
refused 12 "no terminal" create --encrypt -f qcow2 out 1M
refused 63 "backing" create -b a.raw -F raw out
refused 64 "-F" create -f qcow2 -b a.raw out
refused 1 "nowhere" create -f qcow2 -b nowhere -F raw out
refused 1 "" create -f qcow2 no/folder/out 1M
check_fails 1 "a file that is there" "$VDISK" create a.raw 9M
[ "$(stat -c %s a.raw)" -eq 5242880 ]
claim "is left as it is"
check "--force" "$VDISK" create --force a.raw 6M
[ "$(stat -c %s a.raw)" -eq 6291456 ]
claim "replaces it"

check "an overlay without a size" "$VDISK" create -f qcow2 -b a.raw -F raw over.qcow2
size_is over.qcow2 6291456 && qemu-img info over.qcow2 | grep -q '^backing file: a.raw$'
claim "has that of its backing file, whose name is kept"
check "an overlay with a size" "$VDISK" create -f qcow2 -o backing_file=a.raw,backing_fmt=raw over2.qcow2 9M
size_is over2.qcow2 9437184
claim "has that"
mkdir sub
check "a backing file in another folder" "$VDISK" create -f qcow2 -b ../a.raw -F raw sub/over.qcow2
check "a backing file with an absolute name" "$VDISK" create -f qcow2 -b "$PWD/a.raw" -F raw sub/abs.qcow2
check "is opened with --allow" "$VDISK" compare --allow . sub/abs.qcow2 a.raw
check_fails 2 "and not without" "$VDISK" compare sub/abs.qcow2 a.raw

check "encrypted" "$VDISK" create -f qcow2 --encrypt $fast --key-file key e.qcow2 4M
qemu-img compare -q --object secret,id=s,file=key --image-opts driver=qcow2,file.filename=e.qcow2,encrypt.key-secret=s \
	driver=null-co,size=4M,read-zeroes=on
claim "qemu opens it, and it is empty"
check "as qemu-img spells it" "$VDISK" create -f qcow2 $fast --object secret,id=s,file=key \
	-o encrypt.format=luks,encrypt.key-secret=s q.qcow2 4M
check "the key opens it" "$VDISK" compare --key-file key e.qcow2 q.qcow2
check "a container" "$VDISK" create -f luks $fast --key-file key c.luks 4M
"$VDISK" info c.luks | sed -n 1p | grep -q '^ENCRYPTED (LUKS1'
claim "is one"
check "an overlay of an encrypted image" "$VDISK" create -f qcow2 -b e.qcow2 -F qcow2 --key-file key plain-over.qcow2
check "is read with its key" "$VDISK" compare --key-file key plain-over.qcow2 e.qcow2
"$VDISK" info plain-over.qcow2 | sed -n 1p | grep -q '^NOT ENCRYPTED'
claim "is itself in clear"
done_testing
