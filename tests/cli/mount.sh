#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount, unmount: the disk and its partitions as files; e2fsck, debugfs, cmp and qemu-img say whether they are right.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires fusermount3 sfdisk mke2fs e2fsck debugfs qemu-img setpriv perl

export TMPDIR="$PWD/tmp"
mkdir tmp mnt
on_exit 'fusermount3 -u -z mnt 2>/dev/null; fusermount3 -u -z tmp/mnt 2>/dev/null'
printf secret > key
printf guess > wrong
is_unmounted() { [ "$(stat -c %d mnt)" = "$(stat -c %d .)" ] && [ -z "$(ls -A mnt)" ]; }
# part N: bytes of the partition in disk.raw, as sfdisk has it
part() {
	sfdisk -J disk.raw | perl -MJSON::PP -e 'local $/; my $p = decode_json(<STDIN>)->{partitiontable}{partitions}[$ARGV[0] - 1];
		print "$p->{start} $p->{size}\n"' "$1" | {
		read -r start count
		dd if=disk.raw bs=512 skip="$start" count="$count" status=none
	}
}

# ---- GPT, with a file system in its first partition
truncate -s 40M disk.raw
printf 'label: gpt\nsize=10M\nsize=12M\n' | sfdisk -q disk.raw
mkdir files
seq 1 100000 > files/numbers
mke2fs -q -t ext4 -d files -E offset=1048576 disk.raw 10M
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw disk.raw disk.qcow2
"$VDISK" convert -q -f raw -O vmdk disk.raw disk.vmdk
sha256sum disk.qcow2 disk.vmdk > before
check "mounts an encrypted image" "$VDISK" mount --key-file key disk.qcow2 mnt
grep -qx 'mnt/disk  40 MiB' "$stdout" && grep -qx 'mnt/p2  12 MiB' "$stdout" && [ "$(ls mnt | tr '\n' ' ')" = 'disk p1 p2 ' ]
claim "says what is there"
check "the disk is the disk" cmp mnt/disk disk.raw
part 1 > p1 && part 2 > p2 && cmp mnt/p1 p1 && cmp mnt/p2 p2
claim "the partitions are where sfdisk has them"
check "the file system has no fault" e2fsck -fn mnt/p1
debugfs -R 'cat numbers' mnt/p1 2> /dev/null | cmp -s - files/numbers
claim "its files can be read"
[ "$(stat -c %a mnt/p1)" = 400 ] && ! dd if=/dev/zero of=mnt/p1 bs=512 count=1 conv=notrunc 2> /dev/null
claim "nobody can write to them"
exec 8< mnt/p2
check_fails 11 "what is open is not unmounted" "$VDISK" unmount mnt
grep -q fuser "$stderr" && [ -e mnt/disk ]
claim "and stays"
exec 8<&-
check "unmounts" "$VDISK" unmount mnt
is_unmounted && [ -z "$(ls -A tmp)" ]
claim "nothing is left"
sha256sum -c --quiet before
claim "no image was written to"
check_fails 12 "a wrong key" "$VDISK" mount --key-file wrong disk.qcow2 mnt
is_unmounted
claim "mounts nothing"
check_fails 64 "what is not mounted is not unmounted" "$VDISK" unmount mnt
check_fails 64 "a file is no folder" "$VDISK" mount disk.vmdk key
check_fails 1 "a folder that is not there" "$VDISK" mount disk.vmdk nowhere

# ---- without root
mkdir tmp/mnt && cp disk.vmdk tmp/ && chown -R 65534:65534 tmp && chmod 711 . tmp
# fusermount3 reads it for who is not root; what is barely installed may lack it.
[ -e /etc/mtab ] || { ln -s ../proc/self/mounts /etc/mtab && on_exit 'rm -f /etc/mtab'; }
user="setpriv --reuid=65534 --regid=65534 --clear-groups"
check "anybody mounts what he may read" $user "$VDISK" mount tmp/disk.vmdk tmp/mnt
$user cmp tmp/mnt/p1 - < p1
claim "and reads it"
! ls tmp/mnt 2> /dev/null
claim "others do not, root among them"
check "and unmounts it" $user "$VDISK" unmount tmp/mnt
rm -rf tmp/disk.vmdk tmp/mnt && chown -R 0:0 tmp

# ---- writing
check "mounts for writing" "$VDISK" mount --output=json --read-write --key-file key disk.qcow2 mnt
json_is "$stdout" 'join " ", map { "$_->{name} $_->{offset} $_->{size}" } @{$d->{files}}' \
	"disk 0 41943040 p1 1048576 10485760 p2 11534336 12582912"
claim "lists the files as JSON"
seq 1 50000 > new
debugfs -w -R 'write new new' mnt/p1 > /dev/null 2>&1
mke2fs -q -t ext2 mnt/p2
dd if=mnt/disk bs=1M skip=1 count=10 iflag=fullblock status=none | cmp - mnt/p1
claim "a write to a partition is one to the disk"
! printf x | dd of=mnt/p2 bs=1 seek=12582912 conv=notrunc 2> /dev/null
claim "but none past its end"
fallocate -z -o 1048576 -l 65536 mnt/p2 && head -c 1114112 mnt/p2 | tail -c 65536 | cmp -s -n 65536 - /dev/zero
claim "zeros can be made"
check "unmounts with all that was written" "$VDISK" unmount mnt
qemu-img convert $with_key --image-opts "$(luks_qcow2 disk.qcow2)" -O raw disk.raw
part 1 > p1 && e2fsck -fn p1 > log 2>&1 && debugfs -R 'cat new' p1 2> /dev/null | cmp -s - new
claim "qemu reads what was written to one partition"
part 2 > p2 && dumpe2fs -h p2 2> /dev/null | grep -q 'Filesystem UUID'
claim "and to the other"
check "the image has no fault" qemu-img check -q $with_key --image-opts "$(luks_qcow2 disk.qcow2)"

# ---- how it ends
"$VDISK" mount --foreground -q disk.vmdk mnt &
server=$!
wait_until test -e mnt/disk
kill -TERM $server
wait $server
[ $? -eq 0 ] && is_unmounted
claim "in the foreground a signal unmounts"
pid=$("$VDISK" mount --output=json --read-write disk.vmdk mnt | sed 's/.*"pid":\([0-9]*\).*/\1/')
yes dead | head -c 65536 | dd of=mnt/p2 bs=64k conv=notrunc,fsync status=none
kill -KILL "$pid"
is_dead() { ! ls mnt/disk; }
wait_until is_dead
check_fails 1 "after the death of its process it is unmounted, and said" "$VDISK" unmount mnt
grep -q 'had died' "$stderr" && is_unmounted
claim "the folder is free again"
yes dead | head -c 65536 > dead
qemu-img convert -O raw disk.vmdk disk.raw && part 2 | cmp -s -n 65536 - dead
claim "what was flushed is in the image"
# The host has no room for the tables: the writes went into space that was there, the flush cannot go anywhere.
mkdir small && mount -t tmpfs -o size=4m none small && on_exit 'umount -l small'
qemu-img create -q -f qcow2 small/a.qcow2 1G
"$VDISK" mount -q --read-write small/a.qcow2 mnt
for at in 0 1 2 3; do yes | head -c 65536 | dd of=mnt/disk bs=64k seek=$((at * 4096)) conv=notrunc status=none; done
dd if=/dev/zero of=small/fill bs=4k 2> /dev/null
check_fails 14 "what cannot be flushed in the end is no success" "$VDISK" unmount mnt
is_unmounted
claim "it is unmounted all the same"

# ---- other tables, and bad ones
truncate -s 40M disk.raw && dd if=/dev/urandom of=disk.raw bs=1M count=40 conv=notrunc status=none
printf 'label: dos\n1:size=4M,type=83\n2:size=5M,type=83\n3:size=20M,type=5\n5:size=3M,type=83\n6:size=4M,type=83\n7:size=2M,type=83\n' | sfdisk -q --wipe=always disk.raw
check "MBR" "$VDISK" mount -f raw disk.raw mnt
[ "$(ls mnt | tr '\n' ' ')" = 'disk p1 p2 p5 p6 p7 ' ] && part 2 | cmp -s - mnt/p2 && part 4 | cmp -s - mnt/p5 && part 6 | cmp -s - mnt/p7
claim "has its logical partitions by their numbers"
"$VDISK" unmount mnt
# The second link of the chain leads back to the first; the first partition reaches past the disk.
first=$(sfdisk -J disk.raw | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{partitiontable}{partitions}[2]{start}')
put disk.raw $((first * 512 + 446 + 16 + 8)) 00000000
put disk.raw $((446 + 12)) ffffff7f
check "a chain that goes round" timeout 20 "$VDISK" mount -f raw disk.raw mnt
[ "$(ls mnt | tr '\n' ' ')" = 'disk p2 p5 ' ] && grep -q '1 partitions reach past the disk' "$stderr"
claim "has an end, and what reaches past the disk is left out and said"
"$VDISK" unmount mnt
truncate -s 0 disk.raw && truncate -s 40M disk.raw
printf 'label: gpt\nsize=10M\nsize=12M\n' | sfdisk -q disk.raw
# One byte of the disk's GUID: nothing but the checksum tells.
put disk.raw $((512 + 56)) 00ff
check "a broken GPT" "$VDISK" mount -f raw disk.raw mnt
[ "$(ls mnt | tr '\n' ' ')" = 'disk p1 p2 ' ] && grep -q 'first copy of the partition table does not hold' "$stderr"
claim "is read by its second copy, and said"
"$VDISK" unmount mnt
put disk.raw $((40 * 1048576 - 512 + 80)) ffffffff
check "two broken copies" "$VDISK" mount -f raw disk.raw mnt
[ "$(ls mnt)" = "$(printf 'disk\np1')" ] && [ "$(stat -c %s mnt/p1)" -lt 41943040 ]
claim "leave what the MBR says"
"$VDISK" unmount mnt
mke2fs -q -F -t ext4 disk.raw
check "a disk without a table" "$VDISK" mount -f raw disk.raw mnt
[ "$(ls mnt)" = disk ] && e2fsck -fn mnt/disk > log 2>&1
claim "is the disk alone"
"$VDISK" unmount mnt
qemu-img convert -f raw -O qcow2 disk.raw snap.qcow2 && qemu-img snapshot -c then snap.qcow2 && qemu-io -c 'write 0 1M' snap.qcow2 > /dev/null
check "a snapshot" "$VDISK" mount --snapshot then snap.qcow2 mnt
check "is what the disk was" cmp mnt/disk disk.raw
check "is unmounted" "$VDISK" unmount mnt
done_testing
