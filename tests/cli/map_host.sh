#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# map --host: whose each byte of an image's files is, as a picture, as JSON, as SVG.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl
export LC_ALL=C.UTF-8 TERM=xterm

# 128 clusters: one of header, tables, then data of the disk and of a snapshot.
qemu-img create -q -f qcow2 d.qcow2 16M
qemu-io -f qcow2 -c 'write -P 1 1M 4M' d.qcow2 > /dev/null
qemu-img snapshot -c one d.qcow2
qemu-io -f qcow2 -c 'write -P 2 1M 1M' d.qcow2 > /dev/null
size=$(stat -c %s d.qcow2)

check "draws a qcow2" "$VDISK" map --host d.qcow2
sed -n 2p "$stdout" | grep -q '^  0 bytes  H-*T'
claim "the header comes first, then tables"
[ "$(tr -cd '█' < "$stdout" | wc -m)" -ge 80 ] && grep -q '^  █ data .* 5 MiB' "$stdout"
claim "data has its cells, and its sum"
grep -q 'shared by several entries.*: 3 MiB' "$stdout"
claim "what the snapshot shares is told"
check "in a locale without UTF-8" env LC_ALL=C "$VDISK" map --host d.qcow2
[ -z "$(LC_ALL=C tr -d '\12\40-\176' < "$stdout")" ]
claim "the picture is ASCII"
! grep -q "$(printf '\033')" "$stdout"
claim "no colour goes into a file"

check "lists the pieces" "$VDISK" map --host --output=json d.qcow2
json_is "$stdout" 'my $at = 0; for (@$d) { die if $_->{start} != $at; $at += $_->{length} } $at' "$size"
claim "they are gapless and make up the file"
json_is "$stdout" 'my $n = 0; $n += $_->{length} for grep { $_->{owner} eq "data" && $_->{view} == 1 } @$d; $n' 1048576
claim "what only the snapshot has is told"
json_is "$stdout" '(grep { $_->{owner} eq "data" && $_->{"guest-offset"} == 0x200000 } @$d)[0]{references}' 2
claim "and how many lead to what both have"

printf secret > key
"$VDISK" convert -q --encrypt --new-key-file key --pbkdf-iterations 1000 -O qcow2 d.qcow2 e.qcow2
check "an encrypted image, without its key" "$VDISK" map --host --output=json e.qcow2
json_is "$stdout" 'scalar grep { $_->{owner} eq "data" && !$_->{encrypted} } @$d' 0 &&
	json_is "$stdout" 'scalar(grep { $_->{owner} eq "key-area" } @$d) > 0 ? 1 : 0' 1
claim "its data is ciphertext, and it has a key area"

qemu-img create -q -f qcow2 -o data_file=x.raw x.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 1M 64k' x.qcow2 > /dev/null
check "an image with a data file" "$VDISK" map --host --output=json x.qcow2
json_is "$stdout" '(grep { $_->{owner} eq "data" } @$d)[0]{filename} =~ /x\.raw$/ ? 1 : 0' 1
claim "shows that file too"
check "as a picture" "$VDISK" map --host x.qcow2
[ "$(grep -c ': .*, one cell is' "$stdout")" -eq 2 ]
claim "which has both"
rm x.raw
check_fails 1 "the data file is gone" "$VDISK" map --host x.qcow2

check "draws SVG" "$VDISK" map --host --output=svg d.qcow2
sed -n 1p "$stdout" | grep -q '^<svg ' && tail -1 "$stdout" | grep -q '^</svg>' && grep -q '<title>' "$stdout"
claim "which is whole"
check_fails 64 "--full does not go with --host" "$VDISK" map --host --full d.qcow2
check_fails 64 "nor does --snapshot" "$VDISK" map --host --snapshot one d.qcow2

# An L2 entry that leads out of the file.
l1=$(perl -e 'open F, "<", "d.qcow2"; seek F, 40, 0; read F, $b, 8; print unpack "Q>", $b')
l2=$(perl -e 'open F, "<", "d.qcow2"; seek F, shift, 0; read F, $b, 8; print unpack("Q>", $b) & 0xfffffffffffe00' "$l1")
perl -e 'open F, "+<", "d.qcow2"; seek F, shift, 0; print F pack "Q>", 1 << 50' "$l2"
check "a damaged image is shown all the same" "$VDISK" map --host d.qcow2
grep -q 'warning: .*damaged.*beyond the end of the file' "$stderr"
claim "with a warning that says what is wrong"
truncate -s 0 empty.raw
check "an empty file" "$VDISK" map --host --output=json empty.raw
json_is "$stdout" 'scalar @$d' 0
claim "has no pieces"
check "nor a picture" "$VDISK" map --host empty.raw
done_testing
