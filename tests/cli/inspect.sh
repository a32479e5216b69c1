#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk inspect: images from outside are judged by their bytes alone, as files and as streams; the files that they name do
# not exist, or would tell if they were opened.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img perl cryptsetup mkfs.ext4

# found FILE RISK...: these and no others, as a file and as a stream
found() {
	fo_file=$1
	shift
	for fo_as in file stream; do
		if [ $fo_as = file ]; then run "$VDISK" inspect --output=json "$fo_file"; else run "$VDISK" inspect --output=json - < "$fo_file"; fi
		fo_got=$(perl -MJSON::PP -e 'local $/; my %r = map { $_->{risk} => 1 } @{decode_json(<STDIN>)->{findings}}; print join " ", sort keys %r' < "$stdout")
		[ "$fo_got" = "$*" ] && ok "$fo_file as a $fo_as: ${*:-nothing}" || not_ok "$fo_file as a $fo_as: ${*:-nothing}" "found: $fo_got"
	done
}
create() { qemu-img create -q "$@"; }

# ---- what may be opened
create -f qcow2 plain.qcow2 1G; found plain.qcow2
create -f qcow2 -o extended_l2=on extended.qcow2 1G; found extended.qcow2
create -f qcow2 -o compat=0.10 old.qcow2 1G; found old.qcow2
truncate -s 4M disk.raw
printf 'key' > key
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 disk.raw luks.qcow2; found luks.qcow2
"$VDISK" encrypt -q -O raw --key-file key --pbkdf-iterations 1000 disk.raw container.luks; found container.luks
"$VDISK" encrypt -q -O raw --type luks2 --key-file key --pbkdf-iterations 4 --pbkdf-memory 32 disk.raw container.luks2; found container.luks2
truncate -s 1M parted.raw
put parted.raw 446 800000008300000001000000ff070000; put parted.raw 510 55aa
found parted.raw

# ---- what names other files
create -f qcow2 -u -b /etc/hostname -F raw overlay.qcow2 1G; found overlay.qcow2 reference
create -f qcow2 -o data_file=secret.raw data.qcow2 1M; rm -f secret.raw; found data.qcow2 reference
cp plain.qcow2 json.qcow2; qemu-img rebase -u -F raw -b 'json:{"driver":"nbd","host":"example.org"}' json.qcow2; found json.qcow2 reference

# ---- what can be taken for something else
cp plain.qcow2 both.qcow2; put both.qcow2 32769 4344303031; found both.qcow2 ambiguous
cp plain.qcow2 tar.qcow2; put tar.qcow2 257 7573746172; found tar.qcow2 ambiguous
"$VDISK" convert -q -O qcow2 --force disk.raw tail.qcow2; create -f vpc -o subformat=fixed v.vhd 1M; tail -c 512 v.vhd >> tail.qcow2; found tail.qcow2 ambiguous

# ---- what is broken, unknown or out of use
cp plain.qcow2 cut.qcow2; truncate -s 65536 cut.qcow2; found cut.qcow2 broken
cp plain.qcow2 bit.qcow2; put bit.qcow2 72 8000000000000000; found bit.qcow2 broken
cp plain.qcow2 l1.qcow2; put l1.qcow2 36 7fffffff; found l1.qcow2 broken
cp plain.qcow2 v1.qcow2; put v1.qcow2 4 00000001; found v1.qcow2 broken
cp container.luks null.luks; put null.luks 8 6369706865725f6e756c6c00; found null.luks broken
create -f qed q.qed 1M; found q.qed obsolete
create -f vdi v.vdi 1M; found v.vdi unknown
found disk.raw unknown
: > empty; found empty unknown
gzip -c plain.qcow2 > plain.qcow2.gz; found plain.qcow2.gz unknown

# ---- as a gate
check_fails 10 "the policy refuses what has findings" "$VDISK" inspect --policy=untrusted overlay.qcow2
check_fails 0 "and lets through what has none" "$VDISK" inspect --policy=untrusted plain.qcow2
check_fails 0 "without it findings are told only" "$VDISK" inspect overlay.qcow2
check_fails 10 "a disk may be too large" "$VDISK" inspect --policy=untrusted --max-size 1M plain.qcow2
check_fails 1 "a file that is not there is a failure" "$VDISK" inspect --policy=untrusted nowhere
grep -q nowhere "$stderr"; claim "which names it"

# A FIFO in place of the backing file would hang whoever opens it.
mkfifo trap.raw; create -f qcow2 -u -b trap.raw -F raw trapped.qcow2 1M
check_fails 10 "what is named is not opened" timeout 10 "$VDISK" inspect --policy=untrusted trapped.qcow2

# 40 MB of a stream, the header of which is all that counts.
cp plain.qcow2 large.qcow2; truncate -s 40M large.qcow2
run "$VDISK" inspect --policy=untrusted - < large.qcow2; claim "a long stream is judged by what was kept of it"
done_testing
