#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# repo, backup, restore and backups: what they take, what they say, what comes back. Beside restic: tests/interop/restic.sh.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img mkfs.ext4 perl

printf 'secret\n' > pw
printf 'disk key\n' > disk.key
v() { verb=$1; shift; "$VDISK" "$verb" --repo R --passphrase-file pw "$@"; }
field() { perl -MJSON::PP -e 'local $/; my @d = JSON::PP->new->incr_parse(<STDIN>); print $d[-1]{$ARGV[0]}' "$1" < "$stdout"; }

truncate -s 40000100 d.raw
perl -e 'srand 3; print pack("L*", map { int rand 2**32 } 1 .. 1048576)' | dd of=d.raw bs=1M seek=20 conv=notrunc status=none
head -c 100000 /dev/zero | tr '\0' x | dd of=d.raw bs=1000 seek=5 conv=notrunc status=none
head -c 100 /dev/urandom | dd of=d.raw bs=1 seek=40000000 conv=notrunc status=none

check_fails 64 "no repository is named" "$VDISK" backup d.raw
check_fails 1 "there is none" v backup d.raw
check "one is made" v repo init
check_fails 1 "not over another" v repo init
printf 'wrong\n' > wrong
check_fails 12 "with another secret it does not open" "$VDISK" backup --repo R --passphrase-file wrong d.raw

check "a disk is backed up" v backup --output=json d.raw
[ "$(field verb)" = backup ]
claim "and that is told as JSON"
id=$(field snapshot)
check "a second time" v backup --output=json d.raw
[ "$(field new)" -lt 4096 ]
claim "nothing of the disk is stored again"
check "it comes back" v restore d.out
cmp d.out d.raw
claim "to the byte, though it ends within a sector"
[ "$(du -k d.out | cut -f1)" -lt 20000 ]
claim "with its holes"
check_fails 63 "standard output takes no disk" v restore -
[ ! -e - ]
claim "and no file has that name"
check_fails 1 "a file that is there is not replaced" v restore d.out
for format in qcow2 vmdk vhd vhdx; do
	check "as $format" v restore -O $format d.$format
	check "the same disk as $format" qemu-img compare -F raw d.$format d.raw
done
check "encrypted" v restore -O qcow2 --new-key-file disk.key e.qcow2
cp d.raw near.raw
head -c 300000 /dev/urandom | dd of=near.raw bs=1M seek=21 conv=notrunc status=none
check "only what differs is written" v restore --only-differing -y -O raw --output=json latest near.raw
[ "$(field written)" -le 1048576 ] && cmp near.raw d.raw
claim "and the disk is right"

check "what differs between two is told" v backups diff --output=json "$id" latest
check "what there is is listed" v backups list --output=json
check "and shown" v backups show latest
grep -q '^disk .*d.raw' "$stdout"
claim "the disk is in it"

# Encrypted images.
check "an encrypted image is backed up with its key" "$VDISK" backup --repo R --repo-passphrase-file pw --key-file disk.key --output=json e.qcow2
[ "$(field new)" -lt 3000000 ]
claim "and its content is found to be there already"
check "it comes back in clear" v restore e.out
cmp -n 40000100 e.out d.raw
claim "the same"
check "as it lies, without its key" v backup --opaque e.qcow2
check "and back" v restore e.again
cmp e.again e.qcow2
claim "the same file, to the byte"

# A machine.
mkdir vm
qemu-img convert -O vmdk -o subformat=twoGbMaxExtentFlat d.raw vm/d.vmdk
qemu-img create -q -f qcow2 vm/base.qcow2 10M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 vm/top.qcow2
echo '<domain/>' > vm/vm.xml
check "a machine is backed up" v backup vm
check "with its disks and files" v backups show latest
[ "$(sed 1d "$stdout" | awk '{ print $NF }' | tr '\n' ' ')" = "vm/d.vmdk vm/top.qcow2 vm/vm.xml " ]
claim "each once"
check_fails 64 "one of several has to be named" v restore m.raw
check "a file of it" v restore --path vm/vm.xml vm.xml
cmp vm.xml vm/vm.xml
claim "as it was"

# What changed.
qemu-img convert -O qcow2 d.raw t.qcow2
check "a bitmap is made on the way" v backup --track t.qcow2
qemu-io -f qcow2 -c 'write -P 7 33M 64k' t.qcow2 > "$tap_dir/io"
check "and read the next time" v backup --track --output=json t.qcow2
perl -MJSON::PP -e 'local $/; my @d = JSON::PP->new->incr_parse(<STDIN>); my ($i) = grep { $_->{type} eq "image" } @d; exit !($i->{read} <= 524288 && $i->{how} =~ /bitmap/)' < "$stdout"
claim "nothing else is read"
qemu-img convert -O raw t.qcow2 t.raw
check "the disk comes back" v restore t.out
cmp t.out t.raw
claim "whole"

# Forgetting.
check "what would be forgotten is told" v backups forget --keep-last 1 -n --output=json
[ "$(perl -MJSON::PP -0ne 'print scalar @{decode_json($_)->{forgotten}}' "$stdout")" -eq 3 ]
claim "all but the last of each series"
check_fails 64 "nothing says what is kept" v backups forget
check "it is forgotten" v backups forget --keep-last 1
check "the newest stays, also by its name" v backups forget latest
grep -q "is kept" "$stderr"
claim "and why is told"
check "all that is left is there" v repo check

# Damage.
for pack in $(find R/data -type f -size +1M); do
	chmod u+w "$pack"
	perl -e 'open my $f, "+<", shift; seek $f, 5000, 0; print $f "damage"' "$pack"
done
run v restore --path d.raw "$(v backups list --output=json | perl -MJSON::PP -0ne 'print $_->{id} for grep { $_->{paths}[0] =~ /d.raw$/ } @{decode_json($_)->{snapshots}}')" bad.raw
[ "$status" -eq 13 ] && [ ! -e bad.raw ]
claim "a damaged chunk is never restored, and no file stays"
rm -f "$pack"
check_fails 10 "a pack that is gone is missed" v repo check

# The receipts.
check "each backup left a receipt" "$VDISK" ledger show --act backup
done_testing
