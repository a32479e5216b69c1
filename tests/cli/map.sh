#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# map: what is where, and what it looks like, without the key.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl gzip

# 128 MiB: a quarter of text, one of gzip's output, one of noise, one of nothing. Rows are 16 MiB: 64 cells of 256 KiB.
truncate -s 128M disk.raw
seq 1 9000000 | dd of=disk.raw bs=1M count=32 iflag=fullblock conv=notrunc status=none
find /usr/lib /usr/share -type f -size -2000k -print0 2>/dev/null | sort -z | xargs -0 cat 2>/dev/null | head -c 160M |
	gzip -1 2>/dev/null | dd of=disk.raw bs=1M count=32 seek=32 iflag=fullblock conv=notrunc status=none
dd if=/dev/urandom of=disk.raw bs=1M count=32 seek=64 conv=notrunc status=none
printf secret > key
export LC_ALL=C.UTF-8 TERM=xterm

# row N: the cells of the Nth row, as ASCII
row() { sed -n "${1}p" "$stdout" | sed 's/^...........//; s/·/./g; s/▒/o/g; s/▓/+/g; s/█/#/g'; }
# mostly SIGN N LEAST: at least LEAST of the 64 cells of row N show SIGN
mostly() { [ "$(row "$2" | tr -cd "$1" | wc -c)" -ge "$3" ]; }

check "draws a raw disk" "$VDISK" map disk.raw
mostly o 1 64 && mostly o 2 64
claim "text is plain"
mostly '+' 3 48 && mostly '+' 4 48 && ! mostly '#' 3 8 && ! mostly '#' 4 8
claim "gzip's output is compressed"
mostly '#' 5 62 && mostly '#' 6 62
claim "noise is random"
mostly . 7 64 && mostly . 8 64
claim "a hole is nothing"
grep -q 'holes 32 MiB (25.0 %), data 96 MiB (75.0 %)' "$stdout"
claim "the totals add up"
! grep -q "$(printf '\033')" "$stdout"
claim "no colour goes into a file"
check "with colour" "$VDISK" map --color=always disk.raw
grep -q "$(printf '\033')" "$stdout"
claim "there is colour"
check "in a locale without UTF-8" env LC_ALL=C "$VDISK" map disk.raw
[ -z "$(LC_ALL=C tr -d '\12\40-\176' < "$stdout")" ] && [ "$(sed -n 5p "$stdout" | tr -cd '#' | wc -c)" -ge 62 ]
claim "the picture is ASCII"

"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 disk.raw disk.qcow2
check "draws an encrypted disk without its key" "$VDISK" map disk.qcow2
mostly '#' 1 62 && mostly '#' 2 62 && mostly '#' 3 62 && mostly '#' 5 62 && mostly . 7 64
claim "data is random, and holes are holes"
"$VDISK" convert -q -c -O qcow2 disk.raw packed.qcow2
check "draws a compressed disk" "$VDISK" map packed.qcow2
mostly + 1 64
claim "clusters that the format compressed are compressed"

# qemu writes compressed clusters in clear into an encrypted image.
cp disk.qcow2 leak.qcow2
qemu-io -c 'write -c -P 0x43 120M 64k' --object secret,id=s,file=key --image-opts \
	driver=qcow2,file.filename=leak.qcow2,encrypt.key-secret=s > /dev/null
check "draws an image with a cluster in clear" "$VDISK" map leak.qcow2
[ "$(row 8 | tr -cd + | wc -c)" -eq 1 ]
claim "that cluster is seen"
check "lists the extents" "$VDISK" map --output=json leak.qcow2
json_is "$stdout" 'scalar grep { $_->{compressed} && !$_->{encrypted} } @$d' 1
claim "that cluster is listed"

# The array of qemu-img, and more.
same_extents() { # IMAGE: data, start and length as qemu has them, for raw bytes of the host
	qemu-img map --output=json "$1" > qemu.json && "$VDISK" map --output=json "$1" > ours.json && perl -MJSON::PP -e '
		sub doc { local $/; open my $f, "<", shift or die; decode_json(<$f>) }
		sub text { join ";", map { join ",", map { "$_" } $_->{start}, $_->{length}, $_->{data} ? 1 : 0,
			$_->{zero} ? 1 : 0, $_->{present} ? 1 : 0, $_->{data} && !$_->{compressed} ? $_->{offset} // "-" : "-" } @{$_[0]} }
		my ($q, $o) = (text(doc("qemu.json")), text(doc("ours.json"))); print "# $q\n# $o\n" if $q ne $o; exit($q ne $o)'
}
qemu-img create -q -f qcow2 x.qcow2 16M
qemu-io -f qcow2 -c 'write -P 1 1M 256k' -c 'write -P 2 5M 64k' -c 'write -z 8M 1M' x.qcow2 > /dev/null
check "a raw disk has qemu's extents" same_extents disk.raw
check "a qcow2 has qemu's extents" same_extents x.qcow2
qemu-img create -q -f qcow2 -b x.qcow2 -F qcow2 over.qcow2
rm x.qcow2
check "an overlay without its backing file" "$VDISK" map --output=json over.qcow2
json_is "$stdout" '$d->[0]{present}' false && json_is "$stdout" '$d->[0]{zero}' false
claim "what it lacks is neither present nor zeros"
check "as a picture" "$VDISK" map over.qcow2
grep -q 'note: .*x.qcow2' "$stderr"
claim "a note names the backing file"

check "draws SVG" "$VDISK" map --output=svg disk.qcow2
[ "$(grep -c '<rect' "$stdout")" -eq $((512 + 4)) ] && sed -n 1p "$stdout" | grep -q '^<svg ' && tail -1 "$stdout" | grep -q '^</svg>'
claim "it has all cells and the legend"
truncate -s 0 empty.raw
check "draws an empty disk" "$VDISK" map empty.raw
check "lists an empty disk" "$VDISK" map --output=json empty.raw
json_is "$stdout" 'scalar @$d' 0
claim "as an empty array"
check_fails 1 "a file that there is not" "$VDISK" map nowhere

# One bad cluster among many is found when all is looked at, and may be missed by samples.
truncate -s 1G big.raw
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 -O qcow2 big.raw big.qcow2
check "a large empty disk is drawn at once" "$VDISK" map big.qcow2
head -c 20M /dev/urandom > many.raw
printf 'plain %.0s' $(seq 1 10000) | dd of=many.raw bs=64k seek=133 conv=notrunc status=none
truncate -s 700M many.raw
check "looks at all with --full" "$VDISK" map --full many.raw
row 1 | grep -q o
claim "and finds the one cluster in clear"
# A little data in a few of many large parts: the first of each part is looked at.
truncate -s 64G sparse.raw
for part in 3 4 5 70; do
	seq 1 200000 | head -c 512k | dd of=sparse.raw bs=64k seek=$((part * 2048 + part)) iflag=fullblock conv=notrunc status=none
done
check "draws a large sparse disk" "$VDISK" map sparse.raw
[ "$(row 1)" = "...ooo.........................................................." ] && row 2 | grep -q '^\.\.\.\.\.\.o\.*$'
claim "and shows each part that has data"
done_testing
