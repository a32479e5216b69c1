#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# serve: for a command or until stopped, at a socket or over TLS; qemu-img and libnbd are the clients.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/certs.sh"
requires nbdkit qemu-img nbdinfo nbdcopy openssl

export TMPDIR="$PWD/tmp"
mkdir tmp
printf secret > key
printf wrong > wrong
make_disk disk.raw
size=$(stat -c %s disk.raw)
"$VDISK" convert -q -f raw -O vmdk disk.raw disk.vmdk
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw disk.raw disk.qcow2
sha256sum disk.vmdk disk.qcow2 > before

is_gone() { ! kill -0 "$1"; }
is_clean() { [ -z "$(ls -A tmp)" ]; }

check "the disk of a VMDK for one command" "$VDISK" serve disk.vmdk -- 'nbdcopy "$uri" out.raw'
cmp -s out.raw disk.raw
claim "is what libnbd gets"
check "of an encrypted image" "$VDISK" serve --key-file key disk.qcow2 -- 'qemu-img compare -f raw -F raw disk.raw "$uri"'
check "several words are a program and its arguments" "$VDISK" serve disk.vmdk -- sh -c 'test "$1" = "a  b" && nbdinfo --size "$uri"' x 'a  b'
[ "$(cat "$stdout")" = "$size" ]
claim "which finds the disk by \$uri"
check "a program of two words" "$VDISK" serve disk.vmdk -- test -n '$uri'
check_fails 7 "its status is passed on" "$VDISK" serve disk.vmdk -- 'exit 7'
check_fails 137 "so is the signal that killed it" "$VDISK" serve disk.vmdk -- 'kill -9 $$'
check_fails 127 "a command that is not there" "$VDISK" serve disk.vmdk -- nonesuch argument
check "the socket is this user's alone" "$VDISK" serve disk.vmdk -- \
	'[ "$(stat -c %a "$unixsocket")$(stat -c %a "${unixsocket%/*}")" = 600700 ]'
is_clean
claim "nothing of it is left"

# ---- keys
check_fails 12 "a wrong key, before the command runs" "$VDISK" serve --key-file wrong disk.qcow2 -- 'touch ran'
[ ! -e ran ] && grep -q keyslots "$stderr"
claim "it has not run, and the reason is said"
check_fails 12 "no key, and nobody to ask" setsid "$VDISK" serve disk.qcow2 -- true < /dev/null
check "a key from a descriptor" "$VDISK" serve --passphrase-fd 3 disk.qcow2 -- 'nbdinfo --size "$uri"' 3< key
check "a key from standard input" sh -c '"$VDISK" serve --key-file - disk.qcow2 -- "nbdinfo --size \"\$uri\"" < key'
"$VDISK" serve -q --passphrase-command 'cat key' disk.qcow2 -- '
	for p in $PPID $(pgrep -P $PPID); do cat /proc/$p/cmdline /proc/$p/environ 2>/dev/null; done | tr "\0" "\n"' > shown
grep -q nbdkit shown && grep -q key-fd shown && ! grep -q secret shown
claim "neither command line nor environment of the server has the secret"

# ---- reading and writing
check "a client sees that it can only read" "$VDISK" serve --key-file key disk.qcow2 -- 'nbdinfo --is read-only "$uri"'
check_fails 1 "and cannot write" "$VDISK" serve disk.vmdk -- 'nbdcopy disk.raw "$uri"'
sha256sum -c --quiet before
claim "no image was written to"
tr a-z A-Z < disk.raw > new.raw
check "with --read-write it can" "$VDISK" serve --read-write --key-file key disk.qcow2 -- 'nbdcopy --flush new.raw "$uri"'
check "qemu reads what was written" opens_as "$(luks_qcow2 disk.qcow2)" new.raw
check "the image has no fault" qemu-img check -q $with_key --image-opts "$(luks_qcow2 disk.qcow2)"
check_fails 64 "--read-write does not go with --force-share" "$VDISK" serve -U --read-write disk.vmdk -- true
check_fails 11 "an image that another serves for writing" "$VDISK" serve --read-write disk.vmdk -- \
	"exec '$VDISK' serve disk.vmdk -- true"
check "two may read" "$VDISK" serve disk.vmdk -- "exec '$VDISK' serve disk.vmdk -- true"

# ---- until stopped
"$VDISK" serve --output=json --socket here disk.vmdk > said &
server=$!
wait_until test -s said
json_is said '$d->{uri}' "nbd+unix:///?socket=$PWD/here"
claim "the address is printed"
nbdkit_pid=$(sed -n 's/.*"server-pid":\([0-9]*\).*/\1/p' said)
qemu-img compare -q -f raw -F raw disk.raw "nbd+unix:///?socket=here" && [ "$(stat -c %a here)" = 600 ]
claim "the disk is there, for its owner"
check_fails 1 "the place is taken" "$VDISK" serve --socket here disk.vmdk -- true
[ -S here ]
claim "and stays so"
kill -TERM $server
wait $server
[ $? -eq 0 ] && [ ! -e here ] && is_gone "$nbdkit_pid"
claim "stopped, it has ended well, and so has its server"
"$VDISK" serve --output=json disk.vmdk > said &
server=$!
wait_until test -s said
nbdkit_pid=$(sed -n 's/.*"server-pid":\([0-9]*\).*/\1/p' said)
kill -KILL $server
wait $server 2> /dev/null
wait_until is_gone "$nbdkit_pid"
claim "killed, it takes its server with it"
rm -rf tmp/vdisk-serve.*
"$VDISK" serve disk.vmdk -- 'trap "exit 9" TERM; touch ready; while :; do sleep 0.1; done' &
server=$!
wait_until test -e ready
kill -TERM $server
wait $server
[ $? -eq 9 ] && is_clean
claim "a stop is passed on to the command, whose status counts"

# ---- over TCP
check_fails 64 "TCP without authentication is refused" "$VDISK" serve --listen localhost:0 disk.vmdk -- true
grep -q 'everybody who reaches the port would have the disk' "$stderr" && grep -q -e --tls-psk "$stderr"
claim "with the reason and the remedy"
check_fails 64 "certificates and keys" "$VDISK" serve --listen localhost:0 --tls-psk a --tls-certificates b disk.vmdk -- true
check_fails 64 "TLS at a socket" "$VDISK" serve --tls-psk a disk.vmdk -- true
make_ca ca && make_ca other && make_cert server ca serverAuth DNS:localhost,IP:127.0.0.1 && make_cert client ca clientAuth &&
	make_cert stranger other clientAuth
mkdir pki pki-client pki-stranger pki-nobody
cp ca.crt pki/ca-cert.pem && cp server.crt pki/server-cert.pem && cp server.key pki/server-key.pem
for who in client stranger; do
	cp ca.crt pki-$who/ca-cert.pem && cp $who.crt pki-$who/client-cert.pem && cp $who.key pki-$who/client-key.pem
done
cp ca.crt pki-nobody/ca-cert.pem
over_tls="$VDISK serve --listen localhost:0 --tls-certificates pki disk.vmdk --"
check "with certificates" $over_tls 'nbdcopy "$uri?tls-certificates=$PWD/pki-client" tls.raw'
cmp -s tls.raw disk.raw
claim "the disk comes over"
for who in stranger nobody; do
	check_fails 1 "not without one of that authority: $who" $over_tls "nbdcopy \"\$uri?tls-certificates=\$PWD/pki-$who\" no.raw"
done
check_fails 1 "not without TLS" $over_tls 'nbdinfo "nbd${uri#nbds}"'
echo "alice:$(openssl rand -hex 32)" > keys.psk
echo "alice:$(openssl rand -hex 32)" > strange.psk
over_psk="$VDISK serve --listen 127.0.0.1:0 --tls-psk $PWD/keys.psk disk.vmdk --"
check "with a pre-shared key" $over_psk 'nbdcopy "$uri" psk.raw'
cmp -s psk.raw disk.raw
claim "the disk comes over with it"
check_fails 1 "not with another" $over_psk 'nbdinfo "${uri%keys.psk}strange.psk"'
is_clean
claim "nothing is left behind"
done_testing
