#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Restore drills of disks whose boot sector says what a system would say: what it comes to is told, signed, and in the ledger. A whole Debian is
# booted by tests/interop/drill_debian.sh.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-system-x86_64 nbdkit sfdisk mke2fs ssh-keygen restic xmllint

# A disk with one ext4. speaks OUT TEXT: its boot sector says TEXT on the serial line, by the BIOS (int 14h), and halts.
truncate -s 8M fs.img
mkdir -p root/etc && echo 'PRETTY_NAME="Test GNU/Linux"' > root/etc/os-release
mke2fs -q -t ext4 -d root fs.img
truncate -s 9M plain.raw
printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk -q plain.raw
dd if=fs.img of=plain.raw bs=1M seek=1 conv=notrunc status=none
speaks() {
	cp plain.raw "$1"
	printf '\061\300\216\330\276\027\174\254\204\300\164\010\264\001\061\322\315\024\353\363\364\353\375%s\0' "$2" |
		dd of="$1" conv=notrunc status=none
}
drill="$VDISK drill --no-kvm --memory=64 --timeout=60"

# ---- it comes up ----
speaks up.raw "$(printf 'caf\351 \033[1mweb login: .')"
check "a login prompt passes" $drill --output=json up.raw
json_is "$stdout" '"$d->{boot}{outcome} $d->{structure}{system} $d->{structure}{table}"' 'booted Test GNU/Linux mbr'
claim "and is told with the system that was found"
before=$(sha256sum < up.raw)
speaks says.raw "SERVICE READY
"
check "so does what was expected" $drill --expect 'SERVICE READY' --output=json says.raw
json_is "$stdout" '$d->{boot}{outcome}' expected
claim "by the user's word"
[ "$before" = "$(sha256sum < up.raw)" ]
claim "the disk is as it was"
check "without booting: the file systems" "$VDISK" drill --no-boot --output=json up.raw
json_is "$stdout" '"$d->{level} $d->{structure}{volumes}[0]{q(file-system)}"' 'structure ext'
claim "are read"

# ---- it does not ----
# fails OUTCOME CLAIM STATUS IMAGE
fails() {
	check_fails "$3" "$2" $drill --output=json "$4"
	json_is "$stdout" '$d->{boot}{outcome}' "$1"
	claim "as $1"
}
speaks panic.raw "web login: 
Kernel panic - not syncing: Attempted to kill init!"
fails panic "a panic behind the login prompt does not pass" 10 panic.raw
speaks unlock.raw "Please unlock disk sda2_crypt: "
fails unlock-prompt "a prompt for a disk's passphrase has a status of its own" 23 unlock.raw
speaks noroot.raw "Gave up waiting for root file system device."
fails no-root "no root file system" 10 noroot.raw
speaks emergency.raw "You are in emergency mode."
fails emergency "emergency mode" 10 emergency.raw
cp plain.raw none.raw
printf '\315\030' | dd of=none.raw conv=notrunc status=none         # int 18h: nothing to boot
fails not-bootable "nothing to boot" 10 none.raw
cp plain.raw reset.raw
printf '\260\376\346\144\364' | dd of=reset.raw conv=notrunc status=none    # the keyboard controller resets
fails reset-loop "resets without end" 10 reset.raw
cp plain.raw silent.raw
printf '\364\353\375' | dd of=silent.raw conv=notrunc status=none
check_fails 10 "what says nothing is not up in time" "$VDISK" drill --no-kvm --memory=64 --timeout=3 --output=json silent.raw
json_is "$stdout" '$d->{boot}{outcome}' time-limit
claim "as time-limit"
cp up.raw damaged.raw
dd if=/dev/urandom of=damaged.raw bs=1k seek=1025 count=64 conv=notrunc status=none
check_fails 10 "a damaged file system does not pass, though it boots" $drill --output=json damaged.raw
json_is "$stdout" '"$d->{boot}{outcome} $d->{passed}"' 'booted 0'
claim "and that is told"
cp up.raw cut.raw && dd if=/dev/zero of=cut.raw bs=512 count=1 conv=notrunc status=none
check_fails 10 "a boot sector that was lost" $drill --output=json cut.raw
json_is "$stdout" '$d->{boot}{outcome}' not-bootable
claim "has the right words"

# ---- the report ----
ssh-keygen -q -t ed25519 -N '' -C ops -f sign
echo "ops $(cat sign.pub)" > allowed
printf secret > pw
"$VDISK" encrypt -q --passphrase-file pw up.raw up.qcow2
check "an encrypted image, with a report" $drill --passphrase-file pw --sign-key sign --report r.json --html r.html up.qcow2
ssh-keygen -Y verify -f allowed -I ops -n vdisk-drill -s r.json.sig < r.json > /dev/null 2>&1
claim "ssh-keygen verifies it"
xmllint --html --noout r.html 2> /dev/null && grep -q 'data:image/png;base64,' r.html && grep -q 'web login: ' r.html
claim "the page has the picture and what was said"
iconv -f UTF-8 -t UTF-8 r.html > /dev/null 2>&1
claim "is UTF-8, whatever the guest said"
! grep -q 'https*://' r.html
claim "and loads nothing"
check "and in Chinese" $drill --passphrase-file pw --lang=zh --html zh.html up.qcow2
grep -q '恢复演练' zh.html
claim "is a page of its own"
check_fails 1 "a report is not written over" $drill --passphrase-file pw --report r.json up.qcow2
check_fails 12 "a wrong key" $drill --key-file r.html up.qcow2

# ---- a backup ----
check "a repository" "$VDISK" repo init -q --repo repo --passphrase-file pw
check "a backup" "$VDISK" backup -q --repo repo --passphrase-file pw up.qcow2
mkdir scratch
check "is drilled" $drill --repo repo --passphrase-file pw --scratch scratch --sign-key sign --output=json latest
json_is "$stdout" '"$d->{boot}{outcome} $d->{passed}"' 'booted 1'
claim "and comes up"
[ -z "$(ls -A scratch)" ]
claim "nothing is left of it"
check "the receipt is in the ledger" "$VDISK" ledger show --act drill --output=json
json_is "$stdout" '$d->[-1]{line}{what}{snapshot}' "$(RESTIC_PASSWORD=secret restic -r repo --no-cache snapshots --json | perl -MJSON::PP -e 'local $/; print decode_json(<>)->[0]{id}')"
claim "for the snapshot that restic knows"
check "the ledger holds with its signatures" "$VDISK" ledger verify --allowed-signers allowed

# What was proven is not forgotten while nothing newer is.
check "another backup" "$VDISK" backup -q --repo repo --passphrase-file pw up.qcow2
check "forget all but the last" "$VDISK" backups forget -q --repo repo --passphrase-file pw --keep-last=1
[ "$(RESTIC_PASSWORD=secret restic -r repo --no-cache snapshots --json | perl -MJSON::PP -e 'local $/; print scalar @{decode_json(<>)}')" = 2 ]
claim "leaves the one that was proven"
check "the drill of the newer one" $drill --repo repo --passphrase-file pw --scratch scratch latest
check "forget again" "$VDISK" backups forget -q --repo repo --passphrase-file pw --keep-last=1
[ "$(RESTIC_PASSWORD=secret restic -r repo --no-cache snapshots --json | perl -MJSON::PP -e 'local $/; print scalar @{decode_json(<>)}')" = 1 ]
claim "takes it, now that a newer one is proven"

# ---- stopped ----
$drill --repo repo --passphrase-file pw --scratch scratch --expect never latest > /dev/null 2>&1 &
pid=$!
tries=0
while [ -z "$(ls -A scratch)" ] && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
sleep 1
kill -TERM $pid
wait $pid
[ $? -eq 143 ] && [ -z "$(ls -A scratch)" ]
claim "stopped by a signal: nothing is left, no machine runs"

done_testing
