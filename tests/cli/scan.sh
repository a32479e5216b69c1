#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk scan on images made here by mke2fs, sfdisk, lvm2 and qemu-img: what is told, what fails, and that nothing unseen passes.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires mke2fs debugfs sfdisk qemu-img qemu-io perl pvcreate losetup

# A small system, as debootstrap would leave one.
mkdir -p tree/etc/systemd/system/multi-user.target.wants tree/var/lib/dpkg tree/root tree/home tree/usr/lib
cat > tree/usr/lib/os-release <<EOF
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
ID=debian
EOF
ln -s ../usr/lib/os-release tree/etc/os-release
printf 'root:x:0:0:root:/root:/bin/bash\nadmin:x:1000:1000::/home/admin:/bin/sh\n' > tree/etc/passwd
printf 'root:*:19000:0:99999:7:::\nadmin:$y$abc:19000:0:90:7:::\n' > tree/etc/shadow
ln -s /lib/systemd/system/ssh.service tree/etc/systemd/system/multi-user.target.wants/ssh.service
ln -s /dev/null tree/etc/systemd/system/cups.service
cat > tree/var/lib/dpkg/status <<EOF
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
Source: bash (5.2.15-2)

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
EOF
head -c 3000000 /dev/urandom > tree/root/data
mke2fs -q -t ext4 -d tree -L root fs.img 60M > /dev/null

disk() {
	truncate -s 100M "$1"
	printf 'label: gpt\nstart=2048,size=122880\n' | sfdisk -q "$1"
	dd if=fs.img of="$1" bs=1M seek=1 conv=notrunc status=none
}
disk disk.raw

# ---- what is there -------------------------------------------------------------------------------------------

check "a clean image passes" "$VDISK" scan -f raw disk.raw
grep -q 'bookworm' "$stdout" && grep -q 'clean' "$stdout"
claim "with its system, in words"
check "the same for programs" "$VDISK" scan -f raw --output=json disk.raw
cp "$stdout" disk.json
json_is disk.json '$d->{result}' clean && json_is disk.json '$d->{system}{id}' debian && json_is disk.json '$d->{system}{version}' 12
claim "says what system it is"
json_is disk.json 'join " ", map { @$_{qw(name version source source-version)} } @{$d->{packages}}' 'bash 5.2.15-2+b2 bash 5.2.15-2'
claim "lists packages that are installed, with their sources"
json_is disk.json 'join " ", map "$_->{name}=$_->{uid}", @{$d->{users}}' 'root=0 admin=1000'
claim "lists users"
! grep -q 'abc' disk.json
claim "and no password field"
json_is disk.json 'join " ", sort map "$_->{name}=$_->{state}", @{$d->{services}}' 'cups.service=masked ssh.service=enabled'
claim "lists services"
json_is disk.json 'join " ", map { @$_{qw(name file-system mounted-at label)} } @{$d->{volumes}}' 'partition 1 ext / root'
claim "lists volumes"
check "a directory is looked at the same way" "$VDISK" scan --output=json tree
json_is "$stdout" '$d->{packages}[0]{name}' bash
claim "with the same facts"

# In every format, and encrypted, without a copy.
printf secret > pass
for format in qcow2 vmdk vhdx vpc; do
	qemu-img convert -q -f raw -O $format disk.raw disk.$format
	check "is looked into: $format" "$VDISK" scan --output=json disk.$format
	json_is "$stdout" 'scalar @{$d->{users}}' 2
	claim "has the same users: $format"
done
check "makes an encrypted one" "$VDISK" convert -q -f raw -O qcow2 --encrypt --new-passphrase-file pass disk.raw secret.qcow2
check "is looked into: encrypted" "$VDISK" scan --output=json --passphrase-file pass secret.qcow2
json_is "$stdout" '$d->{result}' clean
claim "is clean: encrypted"
printf wrong > wrong
check_fails 12 "is not without its key" "$VDISK" scan --passphrase-file wrong secret.qcow2

# ---- what is left in the container ---------------------------------------------------------------------------

# finds RULE TEXT CLAIM IMAGE: as a finding of that rule, with exit status 21
finds() {
	check_fails 21 "$3" "$VDISK" scan "$4"
	grep -q "$1 .*$2" "$stdout"
	claim "it is told: $3"
}
qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2
finds SEAL-028 "stands on another" "a backing file fails" over.qcow2
qemu-img convert -q -f raw -O qcow2 disk.raw snap.qcow2
qemu-img snapshot -c before snap.qcow2
finds SEAL-028 "before: a snapshot" "a snapshot inside fails" snap.qcow2
qemu-img snapshot -d before snap.qcow2
check "and does no more once it is gone" "$VDISK" scan snap.qcow2
qemu-img convert -q -f raw -O qcow2 disk.raw leak.qcow2
qemu-io -f qcow2 -c 'write -P 7 70M 1M' leak.qcow2 > /dev/null
qemu-io -f qcow2 -c 'discard 70M 1M' leak.qcow2 > /dev/null
end=$(stat -c %s leak.qcow2)
head -c 65536 /dev/urandom | dd of=leak.qcow2 bs=1 seek="$end" conv=notrunc status=none
finds SEAL-028 "are nobody's" "bytes of nobody fail" leak.qcow2
cp disk.raw gap.raw
echo remains | dd of=gap.raw bs=1M seek=80 conv=notrunc status=none
check_fails 21 "a gap that is not zeros fails" "$VDISK" scan -f raw gap.raw
grep -q 'SEAL-025 .*at byte 83886080' "$stdout"
claim "it is told where"
check "unless only worse fails" "$VDISK" scan -f raw --fail-on=critical gap.raw

# ---- what is left outside of files ----------------------------------------------------------------------------

cp disk.raw deleted.raw
dd if=fs.img of=part.img status=none
debugfs -w -R 'rm /root/data' part.img 2> /dev/null
dd if=part.img of=deleted.raw bs=1M seek=1 conv=notrunc status=none
check_fails 21 "a deleted file fails" "$VDISK" scan -f raw deleted.raw
grep -q 'SEAL-024 .*partition 1: 1 deleted file of 2\.9 MiB' "$stdout"
claim "it is told how much can be found"
grep -q 'SEAL-025 .*partition 1: about 2\.9 MiB of free space' "$stdout"
claim "and that free space is not zeros"
truncate -s 100M swap.raw
printf 'label: gpt\nstart=2048,size=122880\nsize=20480,type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n' | sfdisk -q swap.raw
dd if=fs.img of=swap.raw bs=1M seek=1 conv=notrunc status=none
truncate -s 10M swap.img && mkswap swap.img > /dev/null
dd if=swap.img of=swap.raw bs=1M seek=61 conv=notrunc status=none
check "fresh swap space passes" "$VDISK" scan -f raw swap.raw
echo memory | dd of=swap.raw bs=1M seek=65 conv=notrunc status=none
check_fails 21 "used swap space fails" "$VDISK" scan -f raw swap.raw
grep -q 'SEAL-022 .*partition 2' "$stdout"
claim "it is told as such"
printf S1SUSPEND | dd of=swap.raw bs=1 seek=$((61 * 1048576 + 4086)) conv=notrunc status=none
check_fails 21 "a sleeping machine fails" "$VDISK" scan -f raw --fail-on=critical swap.raw
grep -q 'SEAL-023' "$stdout"
claim "it is told, too"

# ---- nothing unseen passes -----------------------------------------------------------------------------------

# unseen KIND CLAIM IMAGE
unseen() {
	check_fails 22 "$2" "$VDISK" scan -f raw "$3"
	grep -q "unseen .*$1" "$stdout"
	claim "it is told: $2"
}
mkfs.xfs -q -f xfs.img 2>/dev/null || { truncate -s 320M xfs.img; mkfs.xfs -q -f xfs.img; }
unseen unsupported "a file system that nothing reads is incomplete" xfs.img
truncate -s 40M empty.img
unseen no-system "a disk without a system is incomplete" empty.img
cp disk.raw bad.raw
dd if=/dev/urandom of=bad.raw bs=1024 seek=1025 count=1 conv=notrunc status=none
unseen no-system "a destroyed superblock is incomplete" bad.raw
mkdir -p tree/var/lib/rpm && touch tree/var/lib/rpm/rpmdb.sqlite
unseen unsupported "a package database that is not read is incomplete" tree
rm -r tree/var/lib/rpm
check_fails 1 "an image that is not there fails" "$VDISK" scan nothing.qcow2
check_fails 64 "and wrong usage is told" "$VDISK" scan

# ---- names that nobody should print --------------------------------------------------------------------------

mkdir -p "tree/etc/systemd/system/$(printf 'a\033[31m').wants"
ln -s /x "tree/etc/systemd/system/$(printf 'a\033[31m').wants/$(printf 'b\033[2Jc\ntwo').service"
printf 'evil\033]0;x\007:x:0:0::/:/bin/sh\n' >> tree/etc/passwd
mke2fs -q -t ext4 -d tree escape.img 60M > /dev/null
run "$VDISK" scan -f raw escape.img
! grep -q "$(printf '\033')" "$stdout" "$stderr"
claim "escapes in names do not reach the terminal"
run "$VDISK" scan -f raw --output=json escape.img
is_json "$stdout"
claim "and JSON stays JSON"

# ---- logical volumes -----------------------------------------------------------------------------------------

truncate -s 200M lvm.raw
printf 'label: gpt\nstart=2048,size=380000,type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n' | sfdisk -q lvm.raw
loop=$(losetup -f --show -o 1048576 --sizelimit $((380000 * 512)) lvm.raw)
on_exit "losetup -d $loop 2>/dev/null"
lvm_on() { "$@" > /dev/null 2>&1; }
options="--driverloaded n --devicesfile= --config devices{filter=[\"a|$loop|\",\"r|.*|\"]}"
lvm_on pvcreate $options "$loop" && lvm_on vgcreate $options -s 1M vg-a "$loop" &&
	lvm_on lvcreate $options -an -Zn -Wn -n root -L 50M vg-a && lvm_on lvcreate $options -an -Zn -Wn -n home -L 30M vg-a &&
	lvm_on lvextend $options -L +20M vg-a/root
claim "lvm2 makes a root in two pieces, and a home between them"
losetup -d "$loop"
printf '/dev/mapper/vg--a-root / ext4 defaults 0 1\n/dev/vg-a/home /home ext4 defaults 0 2\n' > tree/etc/fstab
mke2fs -q -t ext4 -d tree root.img 70M > /dev/null
mkdir -p home && echo hi > home/note && mke2fs -q -t ext4 -d home home.img 30M > /dev/null
# The first extent is one MiB into the physical volume.
dd if=root.img of=lvm.raw bs=1M seek=2 count=50 conv=notrunc status=none
dd if=root.img of=lvm.raw bs=1M seek=82 skip=50 conv=notrunc status=none
dd if=home.img of=lvm.raw bs=1M seek=52 conv=notrunc status=none
run "$VDISK" scan -f raw --output=json lvm.raw
json_is "$stdout" 'join " ", map { @$_{qw(name mounted-at)} } grep $_->{"mounted-at"}, @{$d->{volumes}}' 'lvm vg-a/root / lvm vg-a/home /home'
claim "logical volumes are put together and mounted by fstab"
json_is "$stdout" '$d->{packages}[0]{name}' bash
claim "and their files are read"
done_testing
