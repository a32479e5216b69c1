#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A Debian is put onto a disk, the disk encrypted and backed up, and the backup drilled under emulation: it has to come up to its login prompt; with its boot
# code damaged it must not, and that has to be said in the right words.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/debian.sh"
requires qemu-system-x86_64 nbdkit debootstrap extlinux sfdisk mke2fs
losetup -f > /dev/null 2>&1 || { echo "1..0 # SKIP no loop devices"; tap_done=yes; exit 77; }

check "a Debian on a disk" debian_disk d.raw
printf secret > pw
check "is encrypted" "$VDISK" encrypt -q --passphrase-file pw d.raw d.qcow2
rm -f d.raw
check "a repository" "$VDISK" repo init -q --repo repo --passphrase-file pw
check "a backup" "$VDISK" backup -q --repo repo --passphrase-file pw d.qcow2
rm -f d.qcow2
begun=$(date +%s)
check "its drill passes under emulation" "$VDISK" drill --no-kvm --memory=512 --timeout=600 --repo repo --passphrase-file pw --scratch . --output=json latest
echo "# the drill took $(($(date +%s) - begun)) s"
json_is "$stdout" '"$d->{boot}{outcome} $d->{boot}{accelerator}"' 'booted tcg'
claim "at the login prompt"
json_is "$stdout" '$d->{structure}{system} =~ /^Debian/ ? 1 : 0' 1
claim "of Debian"
check "restore" "$VDISK" restore -q --repo repo --passphrase-file pw bad.raw
dd if=/dev/zero of=bad.raw bs=440 count=1 conv=notrunc status=none
printf '\315\030' | dd of=bad.raw conv=notrunc status=none
check_fails 10 "with its boot code lost it does not pass" "$VDISK" drill --no-kvm --memory=512 --timeout=300 --output=json bad.raw
json_is "$stdout" '"$d->{boot}{outcome} $d->{structure}{sound}"' 'not-bootable 1'
claim "since there is nothing to boot, though its file system is sound"

done_testing
