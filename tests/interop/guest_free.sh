#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk wipe --guest-free: what was deleted in the guest is gone from the image, and from the layer below it; every file of the guest is as
# it was, as e2fsck and the kernel see it.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires mkfs.ext4 e2fsck debugfs qemu-img perl losetup
. "$SRCDIR/tests/support/survivors.sh"

printf secret > key
id_of() { "$VDISK" wipe --dry-run --output=json --guest-free "$@" > dry.json && perl -MJSON::PP -0ne 'print decode_json($_)->{confirm}' dry.json; }
wipe() {
	id=$(id_of "$@") || { cat dry.json; return 1; }
	run "$VDISK" wipe --guest-free --confirm="$id" --output=json "$@"
	cp "$stdout" record.json
}
# A guest's disk: guest/ has what its files should be. guest_disk BLOCK-SIZE
guest_disk() {
	rm -rf guest guest.raw && mkdir -p guest/etc && head -c 3000000 /dev/urandom > guest/etc/kept && head -c 70001 /dev/urandom > guest/odd
	truncate -s 64M guest.raw && mkfs.ext4 -q -b "$1" -d guest guest.raw
	debugfs -w -R "write $below/markers gone" guest.raw > log 2>&1 && debugfs -w -R 'rm gone' guest.raw >> log 2>&1
	[ "$(left guest.raw)" -eq $blocks ] && e2fsck -fn guest.raw > log 2>&1
}
# is_whole RAW: the file system is sound and has what it had
is_whole() {
	e2fsck -fn "$1" > log 2>&1 || { cat log; return 1; }
	mkdir -p now && rm -rf now && mkdir now && debugfs -R 'rdump / now' "$1" 2> log && rm -rf now/lost+found && diff -r guest now
}

if ! is_on ext4 "" 160M; then
	ok "no loop devices here: nothing can be tried"
	done_testing
fi
umount at

# ---- in the layer below ----
for size in 4096 1024; do
	guest_disk $size
	claim "a guest with blocks of $size has deleted what still lies there"
	for format in raw qcow2 vhdx; do
		is_on ext4 "" 200M
		qemu-img convert -O $format guest.raw at/disk
		wipe -f $format at/disk
		[ "$status" -eq 0 ] && json_is record.json '$d->{grade}' cleared && json_is record.json '$d->{"guest-free"}' true
		claim "$format, $size: wiped in place"
		qemu-img convert -f $format -O raw at/disk "$below/after.raw" && is_whole "$below/after.raw"
		claim "$format, $size: the guest has all its files"
		umount at
		[ "$(left "$below/fs.img")" -eq 0 ]
		claim "$format, $size: no marker is left below"
	done
done

# ---- encrypted ----
guest_disk 4096
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 -f raw guest.raw enc.qcow2
"$VDISK" decrypt -q --key-file key enc.qcow2 plain.raw && [ "$(left plain.raw)" -eq $blocks ]
claim "an encrypted disk has them for who has the key"
check_fails 12 "which it takes" setsid -w "$VDISK" wipe --dry-run --guest-free enc.qcow2
wipe --key-file key --accept=overwritten enc.qcow2
[ "$status" -eq 0 ] && rm plain.raw && "$VDISK" decrypt -q --key-file key enc.qcow2 plain.raw && [ "$(left plain.raw)" -eq 0 ]
claim "and not afterwards"
is_whole plain.raw
claim "the guest has all its files"

# ---- layers ----
qemu-img create -q -f qcow2 -b guest.raw -F raw top.qcow2 && cp guest.raw base.then
qemu-io -c 'write -P 1 60M 64k' top.qcow2 > /dev/null
wipe --accept=overwritten top.qcow2
[ "$status" -eq 0 ] && cmp -s guest.raw base.then && json_is record.json 'scalar grep { /guest.raw is left/ } @{$d->{limits}}' 1
claim "a base is left as it is, and named"
[ "$(stat -c %s top.qcow2)" -lt 2000000 ]
claim "what the overlay does not have is given no space in it"
qemu-img convert -O qcow2 guest.raw snap.qcow2 && qemu-img snapshot -c then snap.qcow2
wipe --accept=overwritten snap.qcow2
qemu-img convert -l snapshot.name=then -O raw snap.qcow2 then.raw && cmp -s then.raw guest.raw && qemu-img check -q snap.qcow2
claim "a snapshot keeps what it has"
json_is record.json 'scalar grep { /snapshots in it keep/ } @{$d->{limits}}' 1
claim "which is said"

# ---- what is not touched ----
cp guest.raw dirty.raw && debugfs -w -R 'ssv state 0' dirty.raw 2> /dev/null
check_fails 20 "a file system that was not unmounted is refused" "$VDISK" wipe --dry-run --guest-free -f raw dirty.raw
cp guest.raw dirty.raw && debugfs -w -R 'feature needs_recovery' dirty.raw > log 2>&1
check_fails 20 "so is one with a journal to replay" "$VDISK" wipe --dry-run --guest-free -f raw dirty.raw
cp guest.raw dirty.raw && debugfs -w -R 'ssv state 3' dirty.raw 2> /dev/null
check_fails 20 "and one that is known to have errors" "$VDISK" wipe --dry-run --guest-free -f raw dirty.raw
truncate -s 8M none.raw
check_fails 63 "where no file system says what is free, nothing is wiped" "$VDISK" wipe --dry-run --guest-free -f raw none.raw
cmp -s guest.raw base.then
claim "none of that wrote anything"
done_testing
