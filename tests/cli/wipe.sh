#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk wipe: what it finds, whom it refuses, how it asks, and what it says. What is left afterwards is tests/interop/wipe_survivors.sh.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires qemu-img qemu-io script setsid perl openssl cryptsetup

# Without a terminal, whoever runs the tests.
alone() { setsid -w "$VDISK" "$@" < /dev/null; }
id_of() { "$VDISK" wipe --dry-run --output=json "$@" > dry.json && perl -MJSON::PP -0ne 'print decode_json($_)->{confirm}' dry.json; }
# wipe OPTIONS... TARGET: what is below is not known here: overwritten is as good as it gets
wipe() {
	id=$(id_of "$@") || { cat dry.json; return 1; }
	run alone wipe --accept=overwritten --confirm="$id" --output=json "$@"
	cp "$stdout" record.json
}
# members EXPRESSION: of all members of the dry run
members() { perl -MJSON::PP -0e 'open F, "<", "dry.json"; for (@{decode_json(<F>)->{set}}) { (my $n = $_->{path}) =~ s|.*/||; print "$n:$_->{role} " }'; }
has_members() { [ "$(members | tr ' ' '\n' | grep . | sort | tr '\n' ' ')" = "$(printf '%s\n' "$@" | sort | tr '\n' ' ')" ] || { echo "# $(members)"; return 1; }; }
head -c 1M /dev/urandom > some

# ---- the set ----
mkdir chain && cd chain
qemu-img create -q -f qcow2 base.qcow2 8M && qemu-io -c 'write -P 7 0 1M' base.qcow2 > /dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2
qemu-img snapshot -c one top.qcow2
id_of top.qcow2 > id
has_members top.qcow2:image middle.qcow2:backing-file base.qcow2:backing-file && json_is dry.json '$d->{set}[0]{snapshots}' 1
claim "the whole chain belongs to a disk"
id_of --keep-backing top.qcow2 > id
has_members top.qcow2:image && json_is dry.json 'scalar @{$d->{limits}}' 1
claim "--keep-backing leaves what is below, and says so"
check_fails 20 "a base that an overlay needs is refused" alone wipe --dry-run base.qcow2
grep -q 'middle.qcow2 depends on .*base.qcow2' "$stderr"
claim "the overlay is named"
mkdir elsewhere && qemu-img create -q -f qcow2 -b "$PWD/top.qcow2" -F qcow2 elsewhere/child.qcow2
check "what is in other folders is not found" alone wipe --dry-run top.qcow2
check_fails 20 "but where --also-scan says" alone wipe --dry-run --also-scan . top.qcow2
check "--force does it all the same" alone wipe --dry-run --force base.qcow2
qemu-img create -q -f qcow2 -u -b /nonexistent/base.qcow2 -F qcow2 orphan.qcow2 8M
check_fails 1 "a set that is not whole is refused" alone wipe --dry-run orphan.qcow2
grep -q 'keep-backing' "$stderr"
claim "and the way out is named"
cd ..

mkdir parts && "$VDISK" convert -q -f raw -O vmdk -o subformat=twoGbMaxExtentFlat some parts/disk.vmdk
: > parts/disk.vmdk.lck
check_fails 11 "a disk with VMware's lock is refused" alone wipe --dry-run parts/disk.vmdk
rm parts/disk.vmdk.lck
id_of parts/disk.vmdk > id
has_members disk.vmdk:image disk-f001.vmdk:extent
claim "extents belong to their descriptor"
qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M
id_of d.qcow2 > id
has_members d.qcow2:image d.raw:data-file
claim "so does a data file"

# ---- a machine ----
mkdir web
cp parts/* web/ && mv web/disk.vmdk web/web.vmdk && cp web/web.vmdk web/web-ctk.vmdk
printf 'displayName = "web shop"\nuuid.bios = "56 4d"\nscsi0:0.fileName = "web.vmdk"\nnvram = "web.nvram"\nide0:0.fileName = "/iso/debian.iso"\n' > web/web.vmx
printf 'snapshot0.filename = "web-Snapshot1.vmsn"\n' > web/web.vmsd
for f in web.nvram web-Snapshot1.vmsn web-Snapshot1.vmem web.vswp vmware.log vmware-1.log; do echo $f > web/$f; done
echo other > web/notes.txt
id_of web/web.vmx > id
has_members web.vmx:configuration web.vmsd:configuration web.vmdk:image disk-f001.vmdk:extent web-ctk.vmdk:change-tracking \
	web.nvram:firmware-state web-Snapshot1.vmsn:memory web-Snapshot1.vmem:memory web.vswp:memory vmware.log:log vmware-1.log:log
claim "a .vmx leads to all files of its machine"
json_is dry.json '$d->{machine}{name}' 'web shop' && json_is dry.json '$d->{machine}{id}' '56 4d'
claim "and its name is known"
id_of web > id
has_members web.vmx:configuration web.vmsd:configuration web.vmdk:image disk-f001.vmdk:extent web-ctk.vmdk:change-tracking \
	web.nvram:firmware-state web-Snapshot1.vmsn:memory web-Snapshot1.vmem:memory web.vswp:memory vmware.log:log vmware-1.log:log
claim "so does its folder"
json_is dry.json 'scalar grep { /notes.txt is left/ } @{$d->{limits}}' 1
claim "what is not known to belong to it is left, and named"
mkdir two
for m in web web-2; do printf 'scsi0:0.fileName = "%s.vmdk"\n' $m > two/$m.vmx; qemu-img create -q -f vmdk two/$m.vmdk 1M; echo x > two/$m.nvram; done
echo log > two/vmware.log
id_of two/web.vmx > id
has_members web.vmx:configuration web.vmdk:image web.nvram:firmware-state
claim "another machine in its folder, whose name begins in the same way, is left"
json_is dry.json 'scalar grep { /vmware.log is left/ } @{$d->{limits}}' 1
claim "so is a log that may be of either"
mkdir hv "hv/Virtual Machines" && cp some hv/d.vhdx && echo x > "hv/Virtual Machines/A.vmcx" && echo x > "hv/Virtual Machines/A.vmrs"
id_of hv > id
has_members d.vhdx:image A.vmcx:configuration A.vmrs:memory
claim "Hyper-V's folders are gone through"
mkdir kvm && cp some kvm/root && echo vars > kvm/x_VARS.fd
cat > kvm/web.xml <<XML
<domain type='kvm'><name>no-such-machine</name><uuid>0b6c3f6e-0000-4000-8000-000000000000</uuid>
<os><nvram template='/usr/share/OVMF/OVMF_VARS.fd'>$PWD/kvm/x_VARS.fd</nvram></os>
<devices><disk type='file' device='disk'><source file='$PWD/kvm/root'/></disk>
<disk type='file' device='cdrom'><source file='$PWD/some'/></disk></devices></domain>
XML
id_of kvm/web.xml > id
has_members web.xml:configuration root:image x_VARS.fd:firmware-state
claim "libvirt's description leads to disks and firmware, and to no CD and no template"
kept=/var/lib/libvirt name=vdisk-test-$$ uuid=0b6c3f6e-0000-4000-8000-$(printf %012d $$)
on_exit "rm -rf $kept/swtpm/$uuid $kept/qemu/snapshot/$name $kept/qemu/save/$name.save"
mkdir -p $kept/swtpm/$uuid/tpm2 $kept/qemu/snapshot/$name $kept/qemu/save
echo x > $kept/swtpm/$uuid/tpm2/tpm2-00.permall; echo x > $kept/qemu/snapshot/$name/one.xml; echo x > $kept/qemu/save/$name.save
sed "s/no-such-machine/$name/; s/0b6c3f6e-[-0-9a-f]*/$uuid/" kvm/web.xml > kvm/kept.xml
id_of kvm/kept.xml > id
has_members kept.xml:configuration root:image x_VARS.fd:firmware-state one.xml:configuration tpm2-00.permall:tpm-state $name.save:memory
claim "and to what libvirt keeps of it: saved memory, snapshots, the TPM's state"

# ---- who uses it ----
cp some used.raw
( exec 9< used.raw; : > held; while [ -e held ]; do sleep 0.1; done ) & holder=$!
wait_until test -e held
check_fails 11 "a file that is open elsewhere is refused" alone wipe --dry-run -f raw used.raw
grep -q "process [0-9]*, " "$stderr"
claim "with who has it open"
rm held; wait $holder
check "and not afterwards" alone wipe --dry-run -f raw used.raw
cp some loop.raw
if loop=$(losetup -f --show loop.raw 2>/dev/null); then
	check_fails 11 "so is what a loop device has" alone wipe --dry-run -f raw loop.raw
	losetup -d "$loop"
fi
qemu-img create -q -f qcow2 run.qcow2 1M
mkfifo say
qemu-io run.qcow2 < say > running 2>&1 & machine=$!
exec 8> say
echo 'read 0 512' >&8
wait_until grep -q 'read 512' running
check_fails 11 "and what qemu has open" alone wipe --dry-run run.qcow2
exec 8>&-
wait $machine

# ---- consent ----
cp some disk.raw
check_fails 15 "without a terminal nothing is wiped unasked" alone wipe -f raw disk.raw
cmp -s some disk.raw
claim "and nothing was written"
id=$(id_of -f raw disk.raw)
check_fails 15 "a wrong ID is refused" alone wipe -f raw --confirm=0000000000000000 disk.raw
echo >> disk.raw
check_fails 15 "the ID of what has changed since is refused" alone wipe -f raw --confirm="$id" disk.raw
cp some disk.raw
at_terminal "'$VDISK' wipe -q --accept=overwritten -f raw disk.raw"
answer 'type disk.raw' 1 'yes\n'
finish 15 && cmp -s some disk.raw
claim "yes is not the name"
at_terminal "'$VDISK' wipe -q --accept=overwritten -f raw disk.raw"
answer 'type disk.raw' 1 'disk.raw\n'
finish 0 && ! cmp -s some disk.raw
claim "the name is"

# ---- how ----
cp some disk.raw
wipe -f raw --publish-key disk.raw
[ "$status" -eq 0 ] && json_is record.json '$d->{type}' summary && json_is record.json '$d->{set}[0]{verified}' 1048576
claim "the record says what was written and read back"
key=$(perl -MJSON::PP -0ne 'print decode_json($_)->{"pattern-key"}' record.json)
head -c 1M /dev/zero | openssl enc -aes-256-ctr -K "$key" -iv 00000000000000000000000000000000 | cmp -s - disk.raw
claim "openssl makes the same pattern of a key that was published"
wipe -f raw --profile=custom=ff,5a disk.raw
[ "$(tr -d '\132' < disk.raw | wc -c)" -eq 0 ] && json_is record.json 'join ",", @{$d->{passes}}' ff,5a
claim "the last pass is what is there"
head -c 777777 some > odd.raw
wipe -f raw --profile=zero odd.raw
[ "$status" -eq 0 ] && [ "$(stat -c %s odd.raw)" -eq 777777 ] && [ "$(tr -d '\0' < odd.raw | wc -c)" -eq 0 ]
claim "a file of no whole blocks is wiped to its end, and keeps its size"
for bad in --profile=gutmann --profile=custom=0,1 --verify=most --verify=sample=100,1 --crypto-erase; do
	check_fails 64 "wrong usage: $bad" alone wipe --dry-run -f raw $bad disk.raw
done

head -c 4M /dev/urandom > slow.raw
id=$(id_of -f raw slow.raw)
from=$(date +%s%N)
check "at no more than a speed" alone wipe --accept=overwritten --bwlimit=16M --confirm="$id" --progress=json -f raw slow.raw
[ $((($(date +%s%N) - from) / 1000000)) -ge 250 ]
claim "it takes its time"
mkdir gone && cp some gone/a.raw && cp some gone/b.qcow2
wipe --unlink gone
[ "$status" -eq 0 ] && [ -z "$(ls -A gone)" ] && json_is record.json '$d->{set}[1]{unlinked}' true
claim "several files are wiped and removed in one run"
head -c 64M /dev/zero > big.raw
id=$(id_of -f raw big.raw)
alone wipe --accept=overwritten --bwlimit=32M --confirm="$id" -f raw big.raw > out 2> progress & pid=$!
wait_until test -e big.raw.vdisk-wipe
sleep 0.3
kill -USR1 $(pgrep -P $pid -x vdisk || echo $pid)
wait_until grep -q '^wipe: .* of 128 MiB' progress
claim "SIGUSR1 asks how far it is"
kill -TERM $(pgrep -P $pid -x vdisk || echo $pid)
wait $pid
[ $? -eq 16 ] && grep -q -- '--resume' progress
claim "SIGTERM stops it, and the way on is named"
check "by which it goes on" alone wipe --resume --accept=overwritten --output=json big.raw
json_is "$stdout" '$d->{resumed}' 1 && json_is "$stdout" '$d->{consent}' resume
claim "and the record says so"

# ---- what goes wrong ----
head -c 32M /dev/zero > big.raw
id=$(id_of -f raw big.raw)
alone wipe --accept=overwritten --bwlimit=32M --output=json --confirm="$id" -f raw big.raw > record.json 2> progress & pid=$!
wait_until test -e big.raw.vdisk-wipe
sleep 0.7
# Somebody who cares for no lock writes where the wipe has been already.
printf 'not a pattern' | dd of=big.raw bs=1 seek=5000 conv=notrunc status=none
wait $pid
[ $? -eq 10 ] && json_is record.json '$d->{grade}' verify-fail && json_is record.json '$d->{set}[0]{mismatch}{ranges}[0]{start}' 4608
claim "what is not there afterwards fails the verification: 10, and says where"
mkdir small
if mount -t tmpfs -o size=2M none small 2>/dev/null; then
	truncate -s 3M small/disk
	if loop=$(losetup -f --show small/disk 2>/dev/null); then
		id=$(id_of -f raw "$loop")
		check_fails 16 "a device that cannot be written in parts: incomplete" alone wipe --accept=not-assured --state small.state --confirm="$id" --output=json -f raw "$loop"
		cp "$stdout" record.json
		json_is record.json '$d->{grade}' incomplete && json_is record.json '$d->{set}[0]{unwritable}{bytes} >= 1048576 ? 1 : 0' 1 &&
			json_is record.json '$d->{set}[0]{written}' 3145728
		claim "the rest of it is written all the same"
		mount -o remount,size=8M small
		check "what failed is tried again by --resume" alone wipe --resume --accept=overwritten --state small.state --output=json "$loop"
		json_is "$stdout" '$d->{set}[0]{verified}' 3145728
		claim "and all of it verified"
		losetup -d "$loop"
	fi
	umount small
fi

# ---- keys ----
printf secret > key
head -c 20M /dev/urandom > plain.raw
"$VDISK" encrypt -q --key-file key -O raw --pbkdf-iterations 1000 plain.raw luks.raw
"$VDISK" encrypt -q --key-file key --pbkdf-iterations 1000 plain.raw luks.qcow2
cryptsetup luksDump luks.raw > dump && payload=$(sed -n 's/^Payload offset:[^0-9]*//p' dump)
head -c $((payload * 512)) luks.raw > header; tail -c +$((payload * 512 + 1)) luks.raw > payload
wipe --crypto-erase --all-data-was-encrypted luks.raw
json_is record.json '$d->{set}[0]{"crypto-erase"}{proven}' true && json_is record.json '$d->{set}[0]{written}' 0
claim "--crypto-erase overwrites keys alone"
tail -c +$((payload * 512 + 1)) luks.raw | cmp -s - payload
claim "the data is as it was"
head -c $((payload * 512)) luks.raw > now
[ "$(cmp -l header now | wc -l)" -gt $((payload * 512 * 97 / 100)) ]
claim "the whole header is another, all that lies before the data, and not only slots in use"
wipe luks.qcow2
json_is record.json '$d->{set}[0]{"crypto-erase"}{proven}' true && ! grep -qaP 'LUKS\xba\xbe' luks.qcow2
claim "a qcow2 loses its header, too"
"$VDISK" encrypt -q --key-file key -O raw --header keys.luks --pbkdf-iterations 1000 plain.raw apart.raw
id_of --header keys.luks apart.raw > id
has_members apart.raw:image keys.luks:detached-header
claim "--header names a header that is kept apart"
cp apart.raw before.raw
wipe --crypto-erase --all-data-was-encrypted --header keys.luks apart.raw
[ "$status" -eq 0 ] && cmp -s before.raw apart.raw && ! grep -qaP 'LUKS\xba\xbe' keys.luks && json_is record.json '$d->{set}[1]{"crypto-erase"}{proven}' true
claim "which is all that --crypto-erase overwrites then"
check_fails 20 "what is not encrypted has no keys to erase" alone wipe --dry-run --crypto-erase --all-data-was-encrypted -f raw plain.raw

# ---- for people ----
check "the tree" alone wipe --dry-run chain/top.qcow2
sed -n 2p "$stdout" | grep -q '^  .*middle.qcow2: backing-file' && sed -n 3p "$stdout" | grep -q '^    .*base.qcow2'
claim "shows who needs whom"
grep -q -- '--confirm=[0-9a-f]\{16\}$' "$stdout"
claim "and ends with the ID"
done_testing
