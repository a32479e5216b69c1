#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The plugin of nbdkit, driven by libnbd's tools, qemu-io and fio; qemu-img judges the images.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires nbdkit nbdinfo nbdcopy qemu-img qemu-io qemu-nbd fio setsid

plugin=$BUILDDIR/nbdkit-vdisk-plugin.so
printf secret > key
printf 'wrong\n' > wrong
make_disk disk.raw
size=$(stat -c %s disk.raw)
tr a-z A-Z < disk.raw > new.raw

# with PARAMETERS -- COMMAND: the command with $uri of a server of its own.
with() {
	w_args=
	while [ "$1" != -- ]; do w_args="$w_args $1" && shift; done
	nbdkit -U - "$plugin" $w_args --run "$2"
}
# io URI COMMANDS...: qemu-io's word for it
io() {
	io_uri=$1
	shift
	for io_line; do set -- "$@" -c "$io_line" && shift; done
	qemu-io -f raw "$io_uri" "$@" > io.log 2>&1 && ! grep -Eq 'failed|rror' io.log
}

# ---- every format, both ways
qemu-img convert -O qcow2 disk.raw disk.qcow2
qemu-img convert -O vmdk disk.raw disk.vmdk
qemu-img convert -O vhdx disk.raw disk.vhdx
qemu-img convert -O vpc -o force_size=on disk.raw disk.vhd
cp disk.raw disk.img
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw disk.raw enc.qcow2
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw -O raw disk.raw enc.luks
"$VDISK" convert -q -f raw -O ova disk.raw disk.ova
sha256sum disk.* enc.* > before
for image in disk.qcow2 disk.vmdk disk.vhdx disk.vhd disk.ova disk.img enc.qcow2 enc.luks; do
	rm -f out.raw
	check "reads $image" with $image key-file=key -- 'nbdcopy "$uri" out.raw && nbdinfo --is read-only "$uri"'
	cmp -s out.raw disk.raw
	claim "all of it: $image"
done
sha256sum -c --quiet before
claim "reading writes to no file"
check "nbdkit -r forbids what read-write allows" nbdkit -r -U - "$plugin" disk.qcow2 read-write=true --run 'nbdinfo --is read-only "$uri"'
while read -r image format; do
	check "writes $image" with $image format=$format key-file=key read-write=true -- 'nbdcopy --flush new.raw "$uri"'
	case $image in
	enc.qcow2) qemu-img convert $with_key --image-opts "$(luks_qcow2 $image)" -O raw out.raw ;;
	enc.luks) qemu-img convert $with_key --image-opts "$(luks_raw $image)" -O raw out.raw ;;
	*) qemu-img convert -f ${format%vhd} -O raw $image out.raw 2> log || qemu-img convert -f vpc -O raw $image out.raw ;;
	esac
	cmp -s out.raw new.raw
	claim "qemu reads what was written: $image"
done <<'FORMATS'
disk.qcow2 qcow2
disk.vmdk vmdk
disk.vhdx vhdx
disk.vhd vhd
disk.img raw
enc.qcow2 qcow2
enc.luks luks
FORMATS

# ---- what clients are told
with disk.qcow2 read-write=true -- 'nbdinfo "$uri"' > told
for can in cache df fast_zero flush fua multi_conn trim zero; do
	grep -q "can_$can: true" told
	claim "clients may ask for $can"
done
grep -q 'block_size_minimum: 1$' told && grep -q 'block_size_preferred: 65536' told && grep -q "export-size: $size" told
claim "they are told of sizes"
qemu-img create -q -f qcow2 map.qcow2 64M
qemu-io -c 'write 1M 3M' -c 'write -z 2M 64k' -c 'write 40M 1k' -c 'write -z 50M 2M' map.qcow2 > io.log
qemu-img create -q -f qcow2 -b map.qcow2 -F qcow2 over.qcow2 80M
qemu-io -c 'write 10M 1M' -c 'write -z 3M 64k' over.qcow2 > io.log
for image in map.qcow2 over.qcow2; do
	with $image -- 'nbdinfo --map "$uri"' > ours
	qemu-nbd -r -f qcow2 --fork -k "$PWD/qemu.sock" --pid-file=qemu.pid $image
	nbdinfo --map "nbd+unix:///?socket=$PWD/qemu.sock" > theirs
	[ -s ours ] && cmp -s ours theirs && ok "the map of $image is qemu-nbd's" || not_ok "the map of $image is qemu-nbd's" "$(diff ours theirs)"
done
cp enc.luks hole.luks && truncate -s +8M hole.luks
with hole.luks format=luks key-file=key -- 'nbdinfo --map "$uri"' > ours
grep -q data ours && ! grep -q zero ours
claim "no part of a container is said to be zeros"

# ---- chains and snapshots
qemu-img snapshot -c one disk.qcow2
with disk.qcow2 read-write=true -- 'nbdcopy --flush disk.raw "$uri"'
check "a snapshot" with disk.qcow2 snapshot=one -- 'nbdcopy "$uri" one.raw && nbdinfo --is read-only "$uri"'
cmp -s one.raw new.raw && is_disk disk.qcow2 disk.raw
claim "is what the disk was then"
check_fails 1 "it cannot be written" with disk.qcow2 snapshot=one read-write=true -- true
qemu-img create -q -f qcow2 -b "$PWD/enc.qcow2" -F qcow2 top.qcow2
check_fails 1 "a backing file by its absolute name is not opened" with top.qcow2 key-file=key -- true
check "an overlay over an encrypted image" with top.qcow2 key-file=key allow=. read-write=true -- \
	'nbdcopy "$uri" top.raw && qemu-io -f raw -c "write -P 7 1M 64k" "$uri"'
cmp -s top.raw new.raw
claim "reads through"

# ---- requests
qemu-img create -q -f qcow2 req.qcow2 64M
serving="req.qcow2 read-write=true --"
with $serving 'qemu-io -f raw -c "write -P 5 0 8M" -c "write -f -P 6 1M 64k" -c "discard 2M 1M" -c "write -z 4M 64k" \
	-c "write -zu 5M 64k" -c "read -P 6 1M 64k" -c "read -P 0 2M 1M" -c "read -P 0 4M 64k" -c "read -P 0 5M 64k" \
	-c "read -P 5 6M 2M" -c flush "$uri"' > io.log 2>&1
! grep -Eq 'failed|rror|verification' io.log && [ "$(grep -c ' bytes at offset ' io.log)" -eq 10 ]
claim "writes with FUA, trims and zeros are done"
qemu-io -c 'read -P 6 1M 64k' -c 'read -P 0 2M 1M' -c 'read -P 0 4M 64k' -c 'read -P 0 5M 64k' -c 'read -P 5 6M 2M' req.qcow2 > io.log 2>&1
! grep -Eq 'failed|verification' io.log && qemu-img check -q req.qcow2
claim "as qemu finds them in the image"
qemu-img map --output=json req.qcow2 > map
grep -q '"start": 2097152, "length": 1048576, "depth": 0, "present": true, "zero": true, "data": false}' map &&
	grep -q '"start": 4194304, "length": 65536, .* "zero": true, "data": false.*"offset"' map &&
	grep -q '"start": 5242880, "length": 65536, .* "zero": true, "data": false}' map
claim "trimmed space is given back, zeros keep theirs unless they may be trimmed"
# NO_FALLBACK is NBD's fast zero.
check "fast zeros are fast" with $serving 'qemu-io -f raw -c "write -z -n -u 6M 1M" "$uri"'
with enc.luks format=luks key-file=key read-write=true -- 'qemu-io -f raw -c "write -z -n -u 1M 1M" "$uri"' > io.log 2>&1
grep -q 'not supported' io.log
claim "where zeros have to be written they are refused"
check_fails 1 "a write that does not fit into the host's space fails" sh -c '
	mkdir small && mount -t tmpfs -o size=1m none small && cp req.qcow2 small/a.qcow2 2>/dev/null
	truncate -s 0 small/a.qcow2; "$1" create -q -f qcow2 small/b.qcow2 64M
	nbdkit -U - "$2" small/b.qcow2 read-write=true --run "nbdcopy disk.raw \"\$uri\""' sh "$VDISK" "$plugin"
umount small
grep -qi 'no space' "$stderr"
claim "with the right error"

# ---- many at once
job="--ioengine=nbd --rw=randrw --bsrange=512-128k --iodepth=16 --size=12M --verify=crc32c --verify_fatal=1 --name=v --randseed=7"
cat > many <<END
fio $job --numjobs=4 --offset_increment=16M --verify_async=1 --uri="\$uri" --output=fio.log
END
qemu-img create -q -f qcow2 fio.qcow2 64M
"$VDISK" create -q -f qcow2 --encrypt --key-file key --pbkdf-iterations 1000 fio-enc.qcow2 64M
for image in fio.qcow2 fio-enc.qcow2; do
	check "fio reads back what four connections wrote: $image" with $image key-file=key read-write=true -- '. ./many'
	grep -q 'err= 0' fio.log && [ "$(grep -c 'err= 0' fio.log)" -eq 4 ]
	claim "without a fault: $image"
done
check "the image has none" qemu-img check -q fio.qcow2
check "what one connection flushed another reads" with $serving '
	qemu-io -f raw -c "write -P 9 0 64k" -c flush "$uri" && qemu-io -f raw -c "read -P 9 0 64k" "$uri"'

# ---- keys
check "a passphrase from a file" with enc.qcow2 password=+key -- 'nbdinfo --size "$uri"'
check "from a descriptor" sh -c 'nbdkit -U - "$1" enc.qcow2 password=-3 --run "nbdinfo --size \"\$uri\"" 3< key' sh "$plugin"
check "a key from a descriptor" sh -c 'nbdkit -U - "$1" enc.qcow2 key-fd=4 --run "nbdinfo --size \"\$uri\"" 4< key' sh "$plugin"
check "one of several" with enc.qcow2 password=+wrong key-file=key -- 'nbdinfo --size "$uri"'
check_fails 1 "a wrong one" with enc.qcow2 password=+wrong -- 'touch ran'
grep -q 'opens none of the' "$stderr"
claim "is named as such"
check_fails 1 "none" with enc.qcow2 -- 'touch ran'
check_fails 1 "a secret in the command line" with enc.qcow2 password=hunter2 -- 'touch ran'
grep -q 'seen by every user' "$stderr" && ! grep -q hunter2 "$stderr"
claim "is refused and not repeated"
# In the background, where the process that read the key is gone.
rm -f pid
nbdkit -P pid -U "$PWD/back.sock" "$plugin" enc.qcow2 key-file=key
wait_until test -s pid && on_exit 'kill $(cat pid) 2>/dev/null'
rm -f out.raw
check "in the background" nbdcopy "nbd+unix:///?socket=$PWD/back.sock" out.raw
cmp -s out.raw new.raw
claim "it still has the key"
kill "$(cat pid)"

# ---- what is hostile or wrong
qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw evil.qcow2 1M
check_fails 1 "an image that names a file of this machine" with evil.qcow2 -- 'nbdcopy "$uri" stolen'
[ ! -e stolen ] && grep -q allow "$stderr"
claim "is not served"
qemu-img create -q -f qcow2 bad.qcow2 64M
qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 32M 64k' bad.qcow2 > io.log
# The first entry of the table at 256 KiB leads far behind the end of the file.
put bad.qcow2 262144 8000700000000000
with bad.qcow2 -- 'qemu-io -r -f raw -c "read 0 64k" "$uri" > one.log 2>&1; qemu-io -r -f raw -c "read -P 2 32M 64k" "$uri" > two.log 2>&1' 2> bad.log
grep -q 'read failed' one.log && grep -q 'read 65536/65536' two.log && ! grep -q failed two.log
claim "an entry that leads nowhere is an error for who reads there, and nobody else"
check_fails 1 "an unknown parameter" with disk.qcow2 colour=red -- true
check_fails 1 "no image" with -- true
done_testing
