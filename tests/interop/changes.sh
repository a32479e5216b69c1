#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What tells a backup which blocks changed, from image to image and from backup to backup: each source beside who else can
# tell, and each doubt, after which everything has to be read.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl

changes=$BUILDDIR/tests/interop/changes
# look ARGUMENTS...: one backup; $mark is what it leaves
look() {
	"$changes" "$@" > seen 2> seen.err || { cat seen.err >&2; return 1; }
	mark=$(sed -n 's/^mark: //p' seen)
}
source_is() { grep -qx "source: $1" seen; }
doubts() { grep -q "^scan: .*$1" seen; }
ranges() { grep '^[0-9]' seen | tr '\n' ',' ; }
bitmaps() { qemu-img info --output=json "$1" | perl -MJSON::PP -e 'local $/;
	print join(" ", map "$_->{name}:@{$_->{flags}}", @{decode_json(<STDIN>)->{"format-specific"}{data}{bitmaps} || []}), "\n"'; }
count() { bitmaps "$1" | wc -w; }

# ---- bitmaps of ours, from backup to backup ----------------------------------------------------------------

qemu-img create -q -f qcow2 d.qcow2 64M
qemu-io -f qcow2 -c 'write 0 20M' d.qcow2 > io.log
look -a -t d.qcow2 && doubts 'no base'; claim "a first backup has no base and is a scan"
first=$mark
[ "$(count d.qcow2)" -eq 1 ] && bitmaps d.qcow2 | grep -q ':auto$'; claim "qemu-img sees the one bitmap that records from here on"
look -a -t -m "$first" d.qcow2
source_is 'qcow2 bitmap' && [ -z "$(ranges)" ]; claim "nothing was written: nothing has changed"
second=$mark
[ "$second" != "$first" ] && [ "$(count d.qcow2)" -eq 1 ]; claim "and the bitmap is a new one, alone"
qemu-io -f qcow2 -c 'write 1M 100k' -c 'write -z 30M 64k' -c 'discard 10M 1M' d.qcow2 > io.log
look -a -t -m "$second" -e failed d.qcow2
source_is 'qcow2 bitmap' && [ "$(ranges)" = "1048576 131072,10485760 1048576,31457280 65536," ]; claim "what qemu wrote, zeroed and discarded has changed"
[ "$(count d.qcow2)" -eq 1 ]; claim "a backup that failed leaves no bitmap"
look -a -t -m "$second" -e killed d.qcow2
[ "$(count d.qcow2)" -eq 2 ]; claim "one that is killed leaves its own beside the base's"
look -a -t -m "$second" -e killed d.qcow2
source_is 'qcow2 bitmap' && [ "$(count d.qcow2)" -eq 2 ]; claim "the next one removes what the killed one left"
qemu-io -f qcow2 -c 'write 40M 64k' d.qcow2 > io.log
look -a -t -m "$mark" -e killed d.qcow2
[ "$(ranges)" = "41943040 65536," ]; claim "a snapshot that became durable before the kill has its bitmap"
look -a -t -m "$first" d.qcow2
doubts 'is not there'; claim "the bitmap of an older base is gone, and everything is read"
third=$mark
qemu-io -f qcow2 -c 'write 50M 64k' d.qcow2 > io.log
look -a -m "$third" d.qcow2
source_is 'qcow2 bitmap' && [ "$(ranges)" = "52428800 65536," ] && [ "$(count d.qcow2)" -eq 1 ]; claim "without a new bitmap the old one stays"
qemu-io -f qcow2 -c 'write 51M 64k' d.qcow2 > io.log
look -a -t -m "$mark" d.qcow2
[ "$(ranges)" = "52428800 65536,53477376 65536," ]; claim "and tells the next time all since then"
base=$mark
qemu-img check -q d.qcow2; claim "qemu-img check finds nothing"

# ---- every doubt -------------------------------------------------------------------------------------------

ours=$(bitmaps d.qcow2 | sed 's/:.*//')
cp d.qcow2 keep.qcow2
again() { cp keep.qcow2 d.qcow2; }
qemu-img bitmap --remove d.qcow2 "$ours"
look -a -m "$base" d.qcow2 && doubts 'is not there'; claim "a bitmap that somebody removed is a doubt"
qemu-img bitmap --add -g 1M d.qcow2 "$ours"
look -a -m "$base" d.qcow2 && doubts 'is not the one'; claim "so is one of another granularity"
again; qemu-img bitmap --disable d.qcow2 "$ours"
look -a -m "$base" d.qcow2 && doubts 'disabled'; claim "so is one that does not record"
again; "$imgio" -w d.qcow2 'write -P 1 0 4096' flush abort > io.log 2>&1 || true
look -a -m "$base" d.qcow2 && doubts 'does not tell'; claim "so is one that a crash left in use"
again; perl -e 'open F, "+<", "d.qcow2"; seek F, 88, 0; print F "\0" x 8'
look -a -m "$base" d.qcow2 && grep -q '^scan: .*bitmap' seen; claim "so are all after a program that does not know bitmaps"
again; qemu-img resize -q d.qcow2 65M
look -a -m "$base" d.qcow2 && doubts 'another size'; claim "so is another size"
again; "$VDISK" snapshot create -q d.qcow2 then
look -a -m "$base" -s then d.qcow2 && doubts 'of a snapshot'; claim "so is a snapshot"
look -a -m "$base" d.qcow2 && source_is 'qcow2 bitmap'; claim "but not the disk that has one"
"$VDISK" snapshot apply -q d.qcow2 then
look -a -m "$base" d.qcow2 && source_is 'qcow2 bitmap' && [ "$(ranges)" = "0 67108864," ]; claim "of which all has changed when it is applied"
again; look -a -m '' d.qcow2 && doubts 'kept no mark'; claim "so is a base without a mark"
look -a -m 'size=67108864;chain=zz;bitmap=x' d.qcow2 && grep -q '^scan: ' seen; claim "or with one that means nothing"
look -t d.qcow2 && grep -q '^scan: no base' seen; claim "what is not asked for is not looked at"
qemu-img create -q -f qcow2 -b d.qcow2 -F qcow2 over.qcow2
look -a -t over.qcow2 && over=$mark
qemu-io -f qcow2 -c 'write 5M 64k' over.qcow2 > io.log
look -a -m "$over" over.qcow2 && [ "$(ranges)" = "5242880 65536," ]; claim "an overlay has its own bitmap"
qemu-io -f qcow2 -c 'write 6M 64k' d.qcow2 > io.log
look -a -m "$over" over.qcow2 && doubts 'backing files have changed'; claim "a change below an overlay is a doubt"
qemu-img create -q -f qcow2 -o data_file=raw.data,data_file_raw=on ext.qcow2 16M
look -a -t ext.qcow2; look -a -m "$mark" ext.qcow2
doubts 'raw data file'; claim "so is a raw data file beside the image"
qemu-img create -q -f vmdk d.vmdk 16M
look -a -t d.vmdk && grep -q '^begin: .*bitmaps' seen; claim "a format without bitmaps makes none, and says so"
look -a -m "$mark" d.vmdk && grep -q '^scan: nothing tells changes' seen; claim "and is scanned"
qemu-img create -q -f qcow2 -o compat=0.10 two.qcow2 16M
look -a -t two.qcow2 && grep -q '^begin: ' seen; claim "qcow2 version 2 is such a format"

# A copy of the image has the right bitmap or none.
again; look -a -t -m "$base" d.qcow2 && newer=$mark
look -a -m "$newer" keep.qcow2 && doubts 'is not there'; claim "an older state of the image is a doubt for a newer base"
cp d.qcow2 copy.qcow2 && qemu-io -f qcow2 -c 'write 7M 64k' copy.qcow2 > io.log
look -a -m "$newer" copy.qcow2 && [ "$(ranges)" = "7340032 65536," ]; claim "a copy tells what was written to the copy"

# ---- bitmaps of the user's, encrypted images ---------------------------------------------------------------

qemu-img bitmap --add d.qcow2 mine
qemu-io -f qcow2 -c 'write 9M 64k' d.qcow2 > io.log
look -b mine -m "$newer" d.qcow2 && [ "$(ranges)" = "9437184 65536," ]; claim "a bitmap of the user's is taken by its name"
look -b none -m "$newer" d.qcow2 && doubts "'none' is not there"; claim "one that there is not is a doubt"
printf 'correct horse' > key
"$VDISK" create -q -f qcow2 --encrypt --pbkdf-iterations 1000 --key-file key enc.qcow2 16M
look -a -t -k key enc.qcow2; enc=$mark
"$imgio" -w -k key enc.qcow2 'write -P 7 3M 1k' > io.log
look -a -t -k key -m "$enc" enc.qcow2 && [ "$(ranges)" = "3145728 65536," ]; claim "encrypted images have bitmaps, too"

# ---- lists of the caller's ---------------------------------------------------------------------------------

# page SINCE UNTIL START LENGTH RANGES [SIZE]
page() { printf '{"disk-size": %s, "since": "%s", "until": "%s", "start": %s, "length": %s, "changed": [%s]}\n' "${6:-67108864}" "$@"; }
range() { printf '{"start": %s, "length": %s}' "$@"; }
truncate -s 64M l.raw
page '*' 52-a/1 0 67108864 "" > l.json
look -l l.json l.raw && doubts 'no base'; claim "a first list is of no use"
base=$mark
{ page 52-a/1 52-a/2 0 33554432 "$(range 20971520 4096), $(range 65536 65536), $(range 131072 1)"
  printf '{"disk-size":67108864,"since":"52-a/1","until":"52-a/2","startOffset":33554432,"length":33554432,'
  printf '"changedArea":[{"start":67043328,"length":65536}],"more":{"of":["vmware",1]}}'; } > l.json
look -l l.json -m "$base" l.raw && source_is list && [ "$(ranges)" = "65536 131072,20971520 65536,67043328 65536," ]
claim "but the next one, in pages, in no order, in VMware's words or in ours"
second=$mark
look -l - -m "$base" l.raw < l.json && source_is list && [ "$mark" = "$second" ]; claim "also by a pipe"
refuses() { # WORDS CLAIM
	look -l l.json -m "$base" l.raw && doubts "$1"; claim "$2"
}
look -l l.json -m "$second" l.raw && doubts 'begins at another time'; claim "a list that begins at another time is a doubt"
[ "$mark" = "$second" ]; claim "and is good for the next one all the same"
page 52-a/1 52-a/2 0 33554432 "$(range 65536 65536)" > l.json; refuses 'ends at byte 33554432 of 67108864' "so is one that ends early"
: > l.json; refuses 'ends at byte 0' "so is one that does not begin"
page 52-a/1 52-a/2 0 67108864 "" | head -c 60 > l.json; refuses 'ends at byte 0' "so is one that is cut off in a page"
{ page 52-a/1 52-a/2 0 33554432 ""; page 52-a/1 52-a/2 33619968 33488896 ""; } > l.json; refuses 'do not follow' "so is one with a gap"
{ page 52-a/1 52-a/2 0 67108864 ""; page 52-a/1 52-a/2 0 67108864 ""; } > l.json; refuses 'do not follow' "so is one that begins anew"
{ page 52-a/1 52-a/2 0 33554432 ""; page 52-a/1 52-a/3 33554432 33554432 ""; } > l.json; refuses 'another time' "so are pages of two lists"
page 52-a/1 52-a/2 0 67108864 "" 67108352 > l.json; refuses 'another disk' "so is one of another disk"
page 52-a/1 52-a/2 0 33554432 "$(range 33554432 512)" > l.json; refuses 'outside its page' "so is a range outside its page"
page 52-a/1 52-a/2 0 67108864 "$(range 1 18446744073709551615)" > l.json; refuses 'outside its page' "so is one larger than all"
page 52-a/1 52-a/2 0 67108864 "$(range -1 5)" > l.json; refuses 'without start' "so is one before the beginning"
page 52-a/1 52-a/2 0 67108864 '7' > l.json; refuses 'without start' "so is what is no range"
page 52-a/1 '52;bitmap=x' 0 67108864 '' > l.json; refuses 'from when to when' "so is an id that would break the mark"
echo 'nothing of the kind' > l.json; refuses 'no JSON' "so is what is no JSON"
echo '[]' > l.json; refuses 'no JSON object' "so is what is no page"
{ page 52-a/1 52-a/2 0 67108864 "" | head -c 90; yes ' ' | head -c 5000000; } > l.json; refuses '4 MiB' "so is a page without an end"
run "$changes" -l none.json -m "$base" l.raw; [ "$status" -eq 1 ] && grep -q 'none.json' "$stderr"; claim "one that is not there is an error"
perl -e 'for my $p (0 .. 255) { print "{\"disk-size\":67108864,\"since\":\"52-a/1\",\"until\":\"52-a/2\",\"start\":", $p << 18, ",\"length\":262144,\"changed\":[";
	print join(",", map "{\"start\":" . (($p << 18) + 512 * $_) . ",\"length\":512}", grep $p % 2, 0 .. 511); print "]}" }' > l.json
look -l l.json -m "$base" l.raw && [ "$(grep -c '^[0-9]' seen)" -eq 128 ] && [ "$(grep '^[0-9]' seen | head -1)" = "262144 262144" ]
claim "sixty thousand ranges in 256 pages come to what they are"

# ---- VMware's CTK files ------------------------------------------------------------------------------------

# Nobody but VMware makes them; these are what files of that kind are known to look like.
# ctk UUID ENTRIES [BLOCK=NUMBER...]
ctk() { perl -e '($u, $n, @b) = @ARGV; $d = pack("V4", 0xf61972a2, 1, 0, 512) . "\1" x 28 . pack("H32", $u); $d .= "\0" x (512 - length $d);
	@t = (0) x $n; for (@b) { ($i, $v) = split /=/; $t[$i] = $v } print $d, pack("V*", @t)' "$@" > v-ctk.vmdk; }
u=52dec0d9b9439d1061d54c1be97b6563
qemu-img create -q -f vmdk -o subformat=monolithicFlat v.vmdk 64M
sed -i '/^createType/a changeTrackPath="v-ctk.vmdk"' v.vmdk
ctk $u 1024 0=1 5=2
look -a -c v.vmdk && doubts 'no base' && echo "$mark" | grep -q "ctk=$u/2"; claim "a first backup notes how far the CTK file is"
base=$mark
ctk $u 1024 0=1 5=2 7=3 8=3 1023=4
look -a -c -m "$base" v.vmdk && source_is 'VMware CTK' && [ "$(ranges)" = "327680 65536,458752 131072,67043328 65536," ]
claim "blocks of that time and later may have changed, and no others"
newer=$mark
look -a -m "$base" v.vmdk && doubts 'nothing tells changes'; claim "without a word of the user's no CTK file is trusted"
doubt() { look -a -c -m "$base" v.vmdk && doubts "$1"; claim "$2"; }
ctk 62dec0d9b9439d1061d54c1be97b6563 1024 0=5; doubt 'began anew' "one that began anew is a doubt"
ctk $u 1024 0=1; doubt 'older than the base' "so is one that is older"
ctk $u 900 0=5; doubt 'another size' "so is one of a smaller disk"
ctk $u 1200 0=5; doubt 'another size' "so is one of a larger disk"
ctk $u 1030 1026=5; doubt 'past the disk' "so is one with blocks past the end"
ctk $u 1024 0=5; truncate -s -1 v-ctk.vmdk; doubt 'cut off' "so is one that is cut off"
ctk $u 1024 0=5; put v-ctk.vmdk 0 a27219f7; doubt 'unknown kind' "so is another magic"
ctk $u 1024 0=5; put v-ctk.vmdk 4 02; doubt 'unknown kind' "so is another version"
ctk $u 1024 0=5; put v-ctk.vmdk 44 00000000000000000000000000000000; doubt 'of which disk' "so is one without an id"
ctk $u 1024 0=5; touch -d '+1 minute' v-flat.vmdk; doubt 'written after its CTK' "so is a disk that was written past it"
touch -d '-1 minute' v-flat.vmdk; rm v-ctk.vmdk; doubt 'not there' "so is a missing one"
ln -s /etc/passwd v-ctk.vmdk; doubt 'not there' "so is a link in its place"
rm v-ctk.vmdk; mkfifo v-ctk.vmdk; doubt 'no file' "so is a pipe"
rm v-ctk.vmdk; sed -i 's,v-ctk,../v-ctk,' v.vmdk; doubt 'not there' "so is a name in another folder"

done_testing
