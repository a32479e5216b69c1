#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk bitmap and vdisk map --since: words, JSON, what is refused. What bitmaps hold is tests/interop/bitmaps.sh's.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl

says() { grep -q -- "$1" "$stdout"; }
complains() { grep -q -- "$1" "$stderr"; }

qemu-img create -q -f qcow2 d.qcow2 8M
check "an image without bitmaps" "$VDISK" bitmap list d.qcow2
says 'has no bitmaps'; claim "says so"
check "create" "$VDISK" bitmap create d.qcow2 monday
says "d.qcow2: bitmap 'monday' created"; claim "says what it did"
check "create quietly, disabled, fine" "$VDISK" bitmap create -q --disabled -g 4K d.qcow2 'two words'
[ ! -s "$stdout" ]; claim "says nothing with -q"
qemu-io -f qcow2 -c 'write 1M 100k' d.qcow2 > /dev/null
check "list" "$VDISK" bitmap d.qcow2
[ "$(wc -l < "$stdout")" -eq 3 ] && says 'monday .* 64 KiB *128 KiB  records' && says 'two words .* 4 KiB *0 bytes  disabled'
claim "shows granularity, how much is dirty, and whether it records"
check "list as JSON" "$VDISK" bitmap list --output=json d.qcow2
cp "$stdout" list.json
json_is list.json '$d->{bitmaps}[0]{"dirty-bytes"}' 131072 && json_is list.json '$d->{bitmaps}[1]{enabled} ? 1 : 0' 0 &&
	json_is list.json '$d->{bitmaps}[1]{granularity}' 4096 && json_is list.json '$d->{bitmaps}[0]{usable} ? 1 : 0' 1
claim "says the same"
check "the dirty parts" "$VDISK" map --since monday d.qcow2
says '^ *1048576 *131072$' && says "128 KiB of 8 MiB may have changed since 'monday'"; claim "are listed and summed"
check "the dirty parts as JSON" "$VDISK" map --since monday --output=json d.qcow2
cp "$stdout" map.json
json_is map.json 'join " ", map "$_->{start}+$_->{length}", grep $_->{dirty}, @$d' '1048576+131072' &&
	json_is map.json 'my $n = 0; $n += $_->{length} for @$d; $n' 8388608
claim "are marked among all extents"
check "nothing is dirty in the other" "$VDISK" map -q --since 'two words' d.qcow2
[ ! -s "$stdout" ]; claim "and nothing is printed"
for act in enable disable clear remove; do
	check "$act" "$VDISK" bitmap "$act" --output=json d.qcow2 'two words'
	cp "$stdout" act.json; json_is act.json '"$d->{type} $d->{verb} $d->{act} $d->{bitmap}"' "summary bitmap $act two words"
	claim "$act says so in JSON"
done
"$VDISK" bitmap -q create d.qcow2 a
"$VDISK" bitmap -q create d.qcow2 b
check "merge two" "$VDISK" bitmap merge d.qcow2 monday a b
says "2 bitmaps merged into 'monday'"; claim "says how many"

# What is refused.
cp d.qcow2 before
check_fails 1 "a name that is taken" "$VDISK" bitmap create d.qcow2 monday
complains 'has a bitmap .monday. already'; claim "is named"
check_fails 1 "a bitmap that there is not" "$VDISK" bitmap clear d.qcow2 tuesday
check_fails 1 "since one that there is not" "$VDISK" map --since tuesday d.qcow2
check_fails 1 "to merge one that there is not" "$VDISK" bitmap merge d.qcow2 monday tuesday
check_fails 64 "a granularity that is no power of two" "$VDISK" bitmap create -g 5000 d.qcow2 x
check_fails 64 "one that is too small" "$VDISK" bitmap create -g 256 d.qcow2 x
check_fails 64 "no name" "$VDISK" bitmap create d.qcow2
check_fails 64 "no source" "$VDISK" bitmap merge d.qcow2 monday
check_fails 64 "two names" "$VDISK" bitmap remove d.qcow2 a b
check_fails 64 "another word" "$VDISK" bitmap crate d.qcow2 a
complains 'did you mean create'; claim "is told the near one"
check_fails 64 "an option of another act" "$VDISK" bitmap clear -g 4K d.qcow2 a
check_fails 64 "a picture of what changed" "$VDISK" map --since a --output=svg d.qcow2
check_fails 64 "to change while others write" "$VDISK" bitmap create -U d.qcow2 x
cmp -s before d.qcow2; claim "none of this has changed the image"
truncate -s 1M d.raw
check_fails 63 "a bitmap in raw" "$VDISK" bitmap create -f raw d.raw x
check_fails 63 "since one in raw" "$VDISK" map --since x -f raw d.raw
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
check_fails 63 "a bitmap in version 2" "$VDISK" bitmap create v2.qcow2 x
complains 'qemu-img amend -o compat=1.1'; claim "says what to do"
cp d.qcow2 s.qcow2
"$VDISK" snapshot -q create s.qcow2 snap
check_fails 64 "since a bitmap, of a snapshot" "$VDISK" map --since a -l snap s.qcow2

# Without the autoclear bit, as an old program leaves it.
perl -e 'open my $f, "+<", "d.qcow2"; seek $f, 88, 0; print $f "\0" x 8'
check_fails 17 "since a bitmap that is void" "$VDISK" map --since monday --output=json d.qcow2
cp "$stdout" err.json; json_is err.json '$d->{name}' bitmap-unusable; claim "has a name of its own"
check_fails 17 "no new one beside void ones" "$VDISK" bitmap create d.qcow2 x
complains 'remove those first'; claim "says what to do"
check "list them" "$VDISK" bitmap list d.qcow2
[ "$(grep -c unusable "$stdout")" -eq 3 ] && complains 'does not know bitmaps'; claim "says why"
for name in monday a b; do "$VDISK" bitmap -q remove d.qcow2 $name; done
check "when they are gone there is room for new ones" "$VDISK" bitmap -q create d.qcow2 x
qemu-img check -q -r leaks d.qcow2 > /dev/null; qemu-img check -q d.qcow2
claim "and what they lost is given back"

# A header that is full: a cluster of 512 bytes, and a name that leaves less than the extension needs.
qemu-img create -q -f qcow2 -o cluster_size=512 base.qcow2 1M
long=$(printf './%.0s' $(seq 180))base.qcow2
qemu-img create -q -f qcow2 -o cluster_size=512 -b "$long" -F qcow2 full.qcow2
cp full.qcow2 before
check_fails 63 "a header that is full" "$VDISK" bitmap create full.qcow2 x
complains 'do not fit the header'; claim "says so"
qemu-img check -q full.qcow2 && qemu-img compare -q -f qcow2 -F qcow2 before full.qcow2
claim "and leaves the image sound"
shorter=$(printf './%.0s' $(seq 140))base.qcow2
qemu-img create -q -f qcow2 -o cluster_size=512 -b "$shorter" -F qcow2 full.qcow2
check "one with just enough room" "$VDISK" bitmap -q create full.qcow2 x
qemu-img check -q full.qcow2 && [ "$(qemu-img info --output=json full.qcow2 | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{"backing-filename"}')" = "$shorter" ]
claim "keeps the name, which has moved"
# ---- a disk of no bytes
"$VDISK" create -q -f qcow2 none.qcow2 1M && "$VDISK" resize -q --shrink none.qcow2 0
check_fails 1 "no bitmap, no answer, even where there is nothing to tell of" "$VDISK" map --since nope none.qcow2
check_fails 1 "the same as JSON" "$VDISK" map --since nope --output=json none.qcow2
check "such a disk is mapped" "$VDISK" map --output=json none.qcow2
done_testing
