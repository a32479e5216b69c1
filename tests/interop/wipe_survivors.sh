#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What a wipe says, and what is left: numbered marker blocks in a file on a file system in a loop file, which is searched afterwards as
# the layer below. Where the grade is cleared none may be left, and where the grade is not, the reason is named.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires mkfs.ext4 mkfs.btrfs mkfs.xfs perl qemu-img losetup
. "$SRCDIR/tests/support/survivors.sh"

id_of() { "$VDISK" wipe --dry-run --output=json "$@" > dry.json && perl -MJSON::PP -0ne 'print decode_json($_)->{confirm}' dry.json; }
# wipe OPTIONS... FILE: leaves the record in record.json and the exit status in $status
wipe() {
	id=$(id_of "$@") || { cat dry.json; return 1; }
	run "$VDISK" wipe --confirm="$id" --output=json "$@"
	cp "$stdout" record.json
}
is_grade() { json_is record.json '$d->{grade}' "$1"; }
because() { json_is record.json "scalar grep { \$_->{code} eq '$1' } @{\$d->{findings}}" 1; }
# cleared TEXT: the last wipe says so, and so does the layer below
cleared() {
	[ "$status" -eq 0 ] && is_grade cleared
	claim "$1: cleared"
	umount at
	[ "$(left "$below/fs.img")" -eq 0 ]
	claim "$1: nothing is left"
}
# kept TEXT STATUS GRADE CODE: not cleared, and for this reason
kept() {
	[ "$status" -eq "$2" ] && is_grade "$3"
	claim "$1: $3"
	because "$4"
	claim "$1: because of $4"
}

if ! is_on ext4 "" 96M -O has_journal; then
	ok "no loop devices here: nothing can be tried"
	done_testing
fi

# ---- ext4 ----
put at/disk.raw
umount at
[ "$(left "$below/fs.img")" -eq $blocks ]
claim "the search finds all markers before a wipe"
mount -o loop "$below/fs.img" at
before=$(stat -c %b at/disk.raw)
wipe -f raw at/disk.raw
[ "$(stat -c %b at/disk.raw)" -eq "$before" ] && json_is record.json '$d->{set}[0]{written}' $((blocks * 4096))
claim "a sparse file is not inflated, and no more is written than it has"
cleared "ext4, a sparse raw image"

is_on ext4 "" 96M
put "$below/disk.raw"
qemu-img convert -O qcow2 "$below/disk.raw" at/disk.qcow2 && qemu-img snapshot -c before at/disk.qcow2
qemu-io -c 'write -P 0 0 64M' at/disk.qcow2 > /dev/null && sync
wipe at/disk.qcow2
cleared "ext4, what only a snapshot inside has"

is_on ext4 "" 96M
put at/disk.raw
fallocate -z -o 3M -l 4M at/disk.raw && sync at/disk.raw
wipe -f raw at/disk.raw
cleared "ext4, markers under blocks that were zeroed by a mark"

is_on ext4 "" 96M
put at/disk.raw
ln at/disk.raw at/other
check_fails 20 "a file with two names is refused" "$VDISK" wipe --dry-run -f raw at/disk.raw
wipe --force -f raw at/disk.raw
[ "$(left at/other)" -eq 0 ]
claim "with --force it is gone under both"
cleared "ext4, hard link"

is_on ext4 "" 96M
put at/disk.raw
wipe -f raw --unlink --profile=gb46864 --verify=sample at/disk.raw
[ ! -e at/disk.raw ] && [ "$(ls -A at)" = lost+found ]
claim "--unlink leaves no name"
json_is record.json '$d->{set}[0]{written}' $((3 * blocks * 4096)) && json_is record.json 'join ",", @{$d->{passes}}' 00,ff,aes-256-ctr
claim "three passes are three passes"
cleared "ext4, three passes and a sample"

is_on ext4 ,data=journal 96M -O has_journal
put at/disk.raw
wipe -f raw at/disk.raw
kept "ext4 with data=journal" 18 overwritten fs.data_journal
wipe --accept=overwritten -f raw at/disk.raw
[ "$status" -eq 0 ] && is_grade overwritten
claim "--accept makes that success, and the grade stays"
umount at

# ---- XFS ----
is_on xfs "" 320M -m reflink=1
put at/disk.raw
wipe -f raw at/disk.raw
cleared "XFS"

is_on xfs "" 320M -m reflink=1
put at/disk.raw
cp --reflink=always at/disk.raw at/clone && sync at/clone
cp at/disk.raw "$below/copy"
wipe -f raw at/disk.raw
kept "XFS with a clone" 19 not-assured extent.shared
cmp -s at/disk.raw "$below/copy"
claim "it stops before anything is taken away"
[ ! -e at/disk.raw.vdisk-wipe ]
claim "no state is left"
rm at/clone && sync at
wipe -f raw at/disk.raw
cleared "XFS, the clone removed first"

# ---- btrfs ----
is_on btrfs "" 256M
put at/disk.raw
cp at/disk.raw "$below/copy"
wipe -f raw at/disk.raw
kept "btrfs" 19 not-assured fs.cow
cmp -s at/disk.raw "$below/copy"
claim "btrfs: the disk is as it was"
wipe --accept=not-assured -f raw at/disk.raw
[ "$status" -eq 0 ] && is_grade not-assured && json_is record.json '$d->{set}[0]{moved}' $((blocks * 4096))
claim "btrfs: all of it moves when that is accepted"
umount at
[ "$(left "$below/fs.img")" -gt 0 ]
claim "btrfs: and markers are left indeed"

is_on btrfs ,compress-force=zstd 256M
put at/disk.raw
wipe -f raw at/disk.raw
kept "btrfs with compression" 19 not-assured extent.encoded
umount at

is_on btrfs "" 256M
: > at/disk.raw && chattr +C at/disk.raw && put at/disk.raw
wipe -f raw at/disk.raw
cleared "btrfs without copy-on-write"

is_on btrfs "" 256M
btrfs -q subvolume create at/sub && : > at/sub/disk.raw && chattr +C at/sub/disk.raw && put at/sub/disk.raw
btrfs -q subvolume snapshot -r at/sub at/snapshot && sync at
wipe -f raw at/sub/disk.raw
kept "btrfs without copy-on-write, but with a snapshot" 19 not-assured extent.shared
umount at

# ---- parts of an image that stays ----
# A snapshot alone has the markers, another one and the disk have something else.
has_snapshots() {
	is_on ext4 "" 96M && put "$below/disk.raw" && qemu-img convert -O qcow2 "$below/disk.raw" at/disk.qcow2 &&
		qemu-img snapshot -c old at/disk.qcow2 && qemu-io -c 'write -P 0xaa 0 16M' at/disk.qcow2 > /dev/null &&
		qemu-img snapshot -c new at/disk.qcow2 && qemu-io -c 'write -P 0xbb 1M 2M' at/disk.qcow2 > /dev/null && sync at/disk.qcow2
}
reads_the_same() { qemu-img compare -q at/disk.qcow2 "$below/now.raw" && qemu-img convert -l snapshot.name=new -O raw at/disk.qcow2 "$below/new2.raw" &&
	cmp -s "$below/new.raw" "$below/new2.raw" && qemu-img check -q at/disk.qcow2; }
has_snapshots
qemu-img convert -O raw at/disk.qcow2 "$below/now.raw" && qemu-img convert -l snapshot.name=new -O raw at/disk.qcow2 "$below/new.raw"
[ "$(left at/disk.qcow2)" -eq $blocks ]
claim "a snapshot has markers that its disk has not"
wipe --snapshot old at/disk.qcow2
reads_the_same && [ "$(qemu-img snapshot -l at/disk.qcow2 | grep -c ' old \| new ')" -eq 1 ]
claim "--snapshot: the disk and the other snapshot are as they were"
json_is record.json '$d->{method}' overwrite-free && json_is record.json '$d->{snapshot}' old && json_is record.json '$d->{set}[0]{moved}' 0
claim "--snapshot: the record says what was done"
cleared "--snapshot"
has_snapshots
"$VDISK" snapshot delete -q at/disk.qcow2 old && sync at/disk.qcow2
[ "$(left at/disk.qcow2)" -gt 0 ]
claim "a snapshot that was deleted has left markers"
wipe --free at/disk.qcow2
reads_the_same
claim "--free: the disk and the snapshot are as they were"
cleared "--free"

# ---- overlayfs, tmpfs ----
is_on ext4 "" 96M
mkdir at/lower at/upper at/work over
put at/lower/disk.raw
if mount -t overlay -o lowerdir=at/lower,upperdir=at/upper,workdir=at/work none over; then
	put over/new.raw
	wipe -f raw over/disk.raw
	kept "overlayfs, from the lower layer" 19 not-assured overwrite.not_in_place
	[ "$(left over/disk.raw)" -eq $blocks ]
	claim "overlayfs: nothing was taken away"
	wipe -f raw over/new.raw
	kept "overlayfs, from the upper layer" 18 overwritten fs.overlay
	umount over
fi
umount at

mount -t tmpfs none at && put at/disk.raw
wipe -f raw at/disk.raw
kept "tmpfs" 18 overwritten overwrite.unproven
[ "$(left at/disk.raw)" -eq 0 ]
claim "tmpfs: nothing is left in the file"
umount at

# ---- a device ----
rm -f "$below/fs.img" && truncate -s 64M "$below/fs.img" && dd if="$below/markers" of="$below/fs.img" bs=1M seek=3 conv=notrunc status=none
loop=$(losetup -f --show "$below/fs.img")
on_exit "losetup -d $loop 2>/dev/null"
wipe -f raw "$loop"
[ "$status" -eq 0 ] && is_grade cleared && json_is record.json '$d->{set}[0]{written}' 67108864
claim "a block device: cleared, all of it"
losetup -d "$loop"
[ "$(left "$below/fs.img")" -eq 0 ]
claim "a block device: nothing is left"
done_testing
