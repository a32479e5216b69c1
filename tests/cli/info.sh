#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# info: the verdict first, qemu-img's keys, neither key nor backing file.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img perl

verdict() { [ "$(sed -n 1p "$stdout")" = "$1" ]; }
printf secret > key
with_key="--object secret,id=s,file=key"
luks="encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"

qemu-img create -q -f qcow2 plain.qcow2 64M
again qemu-img create -q $with_key -f qcow2 -o "$luks" enc.qcow2 64M
again qemu-img create -q $with_key -f luks -o key-secret=s,iter-time=10 c.luks 64M
truncate -s 1M disk.raw

check "a plain qcow2" "$VDISK" info plain.qcow2
verdict "NOT ENCRYPTED"
claim "is told to be so in the first line"
grep -q '^virtual size: *64 MiB (67108864 bytes)$' "$stdout"
claim "the size is told twice"
check "an encrypted qcow2" "$VDISK" info enc.qcow2
verdict "ENCRYPTED (LUKS1, aes-xts-plain64, 512-bit key, 1 of 8 keyslots)"
claim "the verdict tells how"
check "a container" "$VDISK" info c.luks
verdict "ENCRYPTED (LUKS1, aes-xts-plain64, 512-bit key, 1 of 8 keyslots)"
claim "the verdict tells how, of a container"
check "a file without a header" "$VDISK" info disk.raw
grep -q '^file format: *raw (no known header)$' "$stdout"
claim "it is raw for want of a header"
check "a container that is named raw" "$VDISK" info -f raw c.luks
verdict "NOT ENCRYPTED"
claim "is bytes"
check_fails 1 "raw bytes that are named luks" "$VDISK" info -f luks disk.raw
check_fails 63 "a format that there is not" "$VDISK" info -f vdi disk.raw
check_fails 1 "a file that there is not" "$VDISK" info nowhere
grep -q '^vdisk: .*nowhere' "$stderr" && [ ! -s "$stdout" ]
claim "is named on standard error"
check_fails 1 "the same as JSON" "$VDISK" info --output=json nowhere
json_is "$stdout" '$d->{name}' not-found && json_is "$stdout" '$d->{image}' nowhere && [ ! -s "$stderr" ]
claim "is an object on standard output"

# The keys that qemu-img has too have its values.
same_as_qemu() { # IMAGE
	qemu-img info --output=json "$1" > qemu.json && "$VDISK" info --output=json "$1" > ours.json && perl -MJSON::PP -e '
		sub doc { local $/; open my $f, "<", shift or die; decode_json(<$f>) }
		sub differ { my ($q, $o, $at) = @_; my $bad = 0;
			for (keys %$q) {
				next if /^(children|slots|master-key-iters|filename|hash-alg)$/;
				# qemu leaves out the offset of what it has not, and calls the protocol layer a child.
				if (ref $q->{$_} eq "HASH") { $bad += differ($q->{$_}, $o->{$_} // {}, "$at/$_"); next }
				my ($x, $y) = map { defined $_ ? "$_" : "nothing" } $q->{$_}, $o->{$_};
				next if $x eq $y; print "# $at/$_: qemu says $x, we say $y\n"; $bad++ }
			$bad }
		exit(differ(doc("qemu.json"), doc("ours.json"), "") ? 1 : 0)'
}
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 5M
qemu-img create -q -f qcow2 -o compression_type=zstd,extended_l2=on,lazy_refcounts=on,refcount_bits=32 v3.qcow2 5M
qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 over.qcow2
qemu-img create -q -f qcow2 -o data_file=d.data,data_file_raw=on d.qcow2 5M
for image in plain.qcow2 enc.qcow2 v2.qcow2 v3.qcow2 over.qcow2 disk.raw; do
	check "$image has qemu's keys and values" same_as_qemu $image
done
check "JSON of an encrypted image" "$VDISK" info --output=json enc.qcow2
json_is "$stdout" '$d->{schema}' vdisk.info/1 && json_is "$stdout" '$d->{encrypted}' true &&
	json_is "$stdout" '$d->{vdisk}{encryption}{"keyslots-in-use"}' 1 &&
	json_is "$stdout" '$d->{vdisk}{encryption}{keyslots}[0]{kdf}' pbkdf2
claim "tells of the LUKS header"

# The parts of a disk, without opening their files.
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse parts.vmdk 5G
check "a disk in parts" "$VDISK" info --output=json parts.vmdk
cp "$stdout" ours.json
qemu-img info --output=json parts.vmdk > qemu.json
parts='join " ", map { "$_->{filename} $_->{format} " . $_->{"virtual-size"} } @{$d->{"format-specific"}{data}{extents}}'
json_is ours.json "$parts" "$(perl -MJSON::PP -e 'local $/; my $d = decode_json(<STDIN>); print '"$parts" < qemu.json)"
claim "lists them as qemu does"
printf 'version=1\nRW 2048 ZERO\nRDONLY 4096 FLAT "a b.raw" 8\nNOACCESS 1 FLAT "c"\n' > parts.vmdk
check "parts of other kinds" "$VDISK" info parts.vmdk
grep -q '^extent 0: *RW ZERO, 1 MiB$' "$stdout" && grep -q '^extent 1: *RDONLY FLAT, 2 MiB, a b.raw$' "$stdout" &&
	grep -q '^extent 2: *NOACCESS FLAT, 512 bytes, c$' "$stdout"
claim "say what may be done to them"
check "the same as JSON" "$VDISK" info --output=json parts.vmdk
json_is "$stdout" '$d->{"format-specific"}{data}{extents}[1]{"file-offset"}' 4096 &&
	json_is "$stdout" '$d->{"format-specific"}{data}{extents}[2]{offset}' 3145728 &&
	json_is "$stdout" '$d->{"format-specific"}{data}{extents}[1]{access}' RDONLY
claim "with where they are"

check "an overlay" "$VDISK" info over.qcow2
grep -q '^backing file: *plain.qcow2 (qcow2)$' "$stdout"
claim "names its backing file"
mv plain.qcow2 elsewhere.qcow2
check "an overlay without its backing file" "$VDISK" info over.qcow2
grep -q '^backing file: *plain.qcow2 (qcow2) MISSING$' "$stdout"
claim "says that it is missing"
check "the same as JSON" "$VDISK" info --output=json over.qcow2
json_is "$stdout" '$d->{vdisk}{"backing-file-state"}' missing
claim "says so too"
mkdir sub
mv elsewhere.qcow2 plain.qcow2
qemu-img rebase -u -f qcow2 -b "$PWD/plain.qcow2" -F qcow2 over.qcow2
mv over.qcow2 sub
check "a backing file in another folder" "$VDISK" info --output=json sub/over.qcow2
json_is "$stdout" '$d->{vdisk}{"backing-file-state"}' not-allowed
claim "is said to need --allow"
check "with --allow" "$VDISK" info --output=json --allow . sub/over.qcow2
json_is "$stdout" '$d->{vdisk}{"backing-file-state"}' present
claim "it is present"
qemu-img create -q -f qcow2 -u -b "$PWD/plain.qcow2" -F qcow2 abs.qcow2 64M
check "a backing file in the same folder by an absolute name" "$VDISK" info --output=json abs.qcow2
json_is "$stdout" '$d->{vdisk}{"backing-file-state"}' not-allowed
claim "is said to need --allow, as it does"
check_fails 1 "and is not opened without" "$VDISK" convert abs.qcow2 out.raw
rm d.data
check "an image without its data file" "$VDISK" info d.qcow2
grep -q '^data file: *d.data (raw) MISSING$' "$stdout"
claim "says that it is missing, too"

# What a name in an image holds reaches neither terminal nor JSON as it is.
qemu-img rebase -u -f qcow2 -b "$(printf 'evil\033[31m\377name')" -F raw v3.qcow2
check "a backing file with a hostile name" "$VDISK" info v3.qcow2
! grep -q "$(printf '\033')" "$stdout"
claim "no escape sequence gets through"
check "the same as JSON" "$VDISK" info --output=json v3.qcow2
is_json "$stdout"
claim "it is valid"

# Another process.
stdbuf -oL qemu-io -f qcow2 -c 'read 0 512' -c 'sleep 60000' plain.qcow2 > writer.log 2>&1 & writer=$!
on_exit "kill $writer 2>/dev/null"
wait_until grep -q 'read 512' writer.log
check_fails 11 "an image that a virtual machine writes" "$VDISK" info plain.qcow2
check "is read with -U" "$VDISK" info -U --output=json plain.qcow2
json_is "$stdout" '$d->{vdisk}{consistent}' false
claim "and said to be inconsistent"
kill $writer
done_testing
