#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images on a web server: read by range requests, through failures, and never what is not the file that was opened.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/certs.sh"
requires python3 openssl qemu-img unshare

make_ca ca && make_ca other && make_cert server ca serverAuth DNS:localhost,IP:127.0.0.1
mkdir trust distrust && cp ca.crt trust/ca-certificates.crt && cp other.crt distrust/ca-certificates.crt
# In a chroot / is no mount point whose propagation could be changed.
alone=-m
unshare -m true 2>/dev/null || alone='-m --propagation unchanged'
# The library takes the authorities of the machine: for one command, others. trusting FOLDER COMMAND...
trusting() {
	tr_folder=$1
	shift
	unshare $alone sh -c 'mount --bind "$1" /etc/ssl/certs && shift && exec "$@"' sh "$tr_folder" "$@"
}
vd() { trusting trust "$VDISK" "$@"; }

printf secret > key
make_disk disk.raw
qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw disk.raw enc.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2
python3 "$SRCDIR/tests/support/range_server.py" server.crt server.key port > server.log 2>&1 &
server=$!
on_exit 'kill $server 2>/dev/null'
wait_until test -s port
at=https://localhost:$(cat port)

check "a qcow2 is told by its bytes" vd info $at/disk.qcow2
grep -q qcow2 "$stdout" && [ "$(cat requests)" -lt 40 ]
claim "with few requests, and not by taking all of it"
check "and read" vd convert -q -O raw $at/disk.qcow2 out.raw
cmp -s out.raw disk.raw
claim "to the byte"
check "so is a raw disk" vd compare -q -f raw -F raw $at/disk.raw disk.raw
check "and an encrypted one" vd compare -q --key-file key -F raw $at/enc.qcow2 disk.raw
check "a redirect is followed" vd compare -q -F raw $at/away/disk.qcow2 disk.raw
check "a server that breaks off and refuses in between is asked again" vd compare -q -f raw -F raw $at/flaky/disk.raw disk.raw

check_fails 1 "not for ever" vd info $at/closed/disk.qcow2
grep -q 503 "$stderr"
claim "and says what it was"
check_fails 63 "a server that gives no parts" vd info $at/whole/disk.qcow2
check_fails 1 "a file that becomes another" vd convert -q -O raw $at/changing/disk.qcow2 no.raw
grep -q 'another than the one' "$stderr" && [ ! -e no.raw ]
claim "is not read on, and leaves nothing"
check_fails 1 "another part than was asked for" vd convert -q -O raw $at/wrong/disk.qcow2 no.raw
check_fails 1 "a redirect into the clear" vd info $at/clear/disk.qcow2
check_fails 1 "a file that is not there" vd info $at/none
grep -q 'no such file' "$stderr"
claim "is said to be none"
check_fails 1 "one that is not allowed" vd info $at/secret/disk.qcow2
check_fails 1 "a server that nobody trusts vouches for" trusting distrust "$VDISK" info $at/disk.qcow2
check_fails 64 "a password in the address" vd info "https://user:hunter2@localhost/disk.qcow2"
! grep -q hunter2 "$stderr"
claim "is not repeated"
check_fails 1 "writing" vd convert -q -y -f raw -O raw disk.raw $at/disk.raw
check_fails 1 "an overlay there whose backing file is there" vd convert -q -O raw $at/over.qcow2 no.raw
qemu-img create -q -f qcow2 -u -b "$at/disk.qcow2" -F qcow2 evil.qcow2 8M
check_fails 1 "an image that names an address" vd convert -q -O raw evil.qcow2 no.raw
grep -q 'a protocol' "$stderr" && [ ! -e no.raw ]
claim "is refused with the reason"
done_testing
