#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is told of real file systems that keep blocks that were overwritten, on loop devices. Types that the kernel here does not mount,
# test_keeps has by their numbers.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires mkfs.ext4 mkfs.btrfs mkfs.xfs perl

mkdir at
on_exit "umount at 2>/dev/null"
truncate -s 1M disk.raw
printf secret > key
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 disk.raw e.qcow2

# is_on FILE MOUNT-OPTIONS: mounts it and puts the image there; false: this system cannot.
is_on() { mount -o "loop$2" "$1" at 2>/dev/null && cp e.qcow2 at/; }
# facts IMAGE: their names, sorted
facts() {
	"$VDISK" check --plaintext --output=json "$1" > facts.json || return 1
	perl -MJSON::PP -ne '$d = decode_json($_); print "$d->{fact} " if $d->{type} eq "host"' facts.json
}
has() { case " $(facts "$1") " in *" $2 "*) ;; *) return 1 ;; esac; }

truncate -s 400M ext4.img xfs.img btrfs.img
mkfs.ext4 -q -O has_journal ext4.img
mkfs.xfs -q -m reflink=1 xfs.img
mkfs.btrfs -q btrfs.img > mkfs.log 2>&1

if is_on ext4.img ,data=journal; then
	has at/e.qcow2 data-journal; claim "ext4 with data=journal keeps what is written in its journal"
	check "is told to people" "$VDISK" check --plaintext at/e.qcow2
	grep -q '^keeps old blocks: at/e.qcow2: ext4, mounted with data=journal: ' "$stdout" && tail -1 "$stdout" | grep -q 'nothing is readable'
	claim "before the verdict"
	umount at
	is_on ext4.img '' && ! has at/e.qcow2 data-journal; claim "ext4 without it does not"
	umount at
else
	ok "no loop devices here: the rest cannot be tried"
fi
if is_on xfs.img ''; then
	! has at/e.qcow2 shared-extents && ! has at/e.qcow2 copy-on-write; claim "XFS writes in place"
	cp --reflink=always at/e.qcow2 at/clone && sync at/clone && has at/e.qcow2 shared-extents; claim "but for a file that has a clone"
	umount at
fi
if is_on btrfs.img ''; then
	has at/e.qcow2 copy-on-write; claim "btrfs does not write in place"
	: > at/n.qcow2 && chattr +C at/n.qcow2 && cat e.qcow2 > at/n.qcow2 && ! has at/n.qcow2 copy-on-write
	claim "but a file that is marked for it"
	umount at
fi
if mount -t tmpfs none at 2>/dev/null; then
	cp e.qcow2 at/ && [ -z "$(facts at/e.qcow2)" ]; claim "memory keeps nothing"
	umount at
fi
done_testing
