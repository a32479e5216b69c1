#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks behind NBD servers as targets, over TCP and TLS, and with images of other formats on them: qemu-nbd and nbdkit serve,
# qemu-img looks at the files behind them.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/certs.sh"
requires qemu-img qemu-nbd nbdkit openssl

on_exit '[ ! -s nbd.pid ] || kill "$(cat nbd.pid)" 2>/dev/null'
uri="nbd+unix:///?socket=$PWD/nbd.sock"
# serve COMMAND...: until stop
serve() {
	rm -f nbd.sock nbd.pid
	"$@" > nbd.log 2>&1 &
	wait_until test -s nbd.pid
}
stop() { kill "$(cat nbd.pid)" 2> /dev/null; wait; rm -f nbd.pid; }
kit() { serve nbdkit -f -U nbd.sock -P nbd.pid "$@"; }
qemu_nbd() { serve qemu-nbd -t -k "$PWD/nbd.sock" --pid-file=nbd.pid "$@"; }
noise() { yes noise | head -c 12582912 > "$1"; }

printf secret > key
make_disk disk.raw
size=$(stat -c %s disk.raw)
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -f raw disk.raw enc.qcow2

# ---- a disk onto a server's
noise target.raw && cp target.raw was.raw
kit file target.raw
check_fails 15 "what is there is not overwritten unasked" setsid "$VDISK" convert -f raw -O raw disk.raw "$uri" < /dev/null
cmp -s target.raw was.raw
claim "and is untouched"
check "raw onto a larger disk" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
cmp -n "$size" target.raw disk.raw
claim "is there, zeros too, over what was"
[ "$(stat -c %s target.raw)" -eq 12582912 ]
claim "the disk keeps its size"
check "an encrypted image onto it" "$VDISK" decrypt -q -y --key-file key -O raw enc.qcow2 "$uri"
cmp -n "$size" target.raw disk.raw
claim "in clear, as asked"
check "one encrypted on the way" "$VDISK" encrypt -q -y --pbkdf-iterations 1000 --key-file key -f raw -O raw disk.raw "$uri"
stop
qemu-img convert $with_key --image-opts "$(luks_raw target.raw)" -O raw out.raw && cmp -n "$size" out.raw disk.raw
claim "opens in qemu"
truncate -s 1M small.raw
kit file small.raw
check_fails 14 "one that is too large" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
stop
qemu-img create -q -f qcow2 behind.qcow2 12M
qemu_nbd -f qcow2 behind.qcow2
check "onto qemu's" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
stop
qemu-img convert -f qcow2 -O raw behind.qcow2 out.raw && cmp -n "$size" out.raw disk.raw && qemu-img check -q behind.qcow2
claim "qemu-img reads it"
kit -r file target.raw
check_fails 1 "a server that lets nobody write" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
grep -q 'lets nobody write' "$stderr"
claim "says so"
stop
kit --filter=error file target.raw error=ENOSPC error-pwrite-rate=100%
check_fails 14 "a server that is full" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
stop
noise target.raw
serve qemu-nbd -k "$PWD/nbd.sock" --pid-file=nbd.pid -f raw target.raw
check "a server that ends after its first client" "$VDISK" convert -q -y -f raw -O raw disk.raw "$uri"
wait
cmp -n "$size" target.raw disk.raw
claim "has all of it"
rm -f nbd.pid

# ---- writes of any alignment, to a server that takes blocks alone
truncate -s 8390144 blocks.raw mirror.raw
workload 11 8390144 > work
kit --filter=blocksize-policy file blocks.raw blocksize-minimum=512 blocksize-error-policy=error
check "writes of any alignment onto blocks of 512" with_commands work "$imgio" -w -f raw "$uri"
stop
with_commands work "$imgio" -w -f raw mirror.raw > log && cmp blocks.raw mirror.raw
claim "leave what they leave in a file"

# ---- other formats behind NBD
qemu-img create -q -f qcow2 inner.qcow2 64M
cp enc.qcow2 behind.raw && truncate -s 64M behind.raw
kit file behind.raw
check "an encrypted qcow2 that lies on a server's disk" "$VDISK" compare -q -f qcow2 -F raw --key-file key "$uri" disk.raw
check "is written to where it is" "$imgio" -w -f qcow2 -k key "$uri" 'write -P 7 1000 5000' 'write -z 100000 70000' flush
stop
cp disk.raw mirror.raw && "$imgio" -w -f raw mirror.raw 'write -P 7 1000 5000' 'write -z 100000 70000' > log
qemu-img convert $with_key --image-opts "$(luks_qcow2 behind.raw)" -O raw out.raw && cmp out.raw mirror.raw
claim "as qemu reads it"
check "by name, in the chain of an image, it is refused" sh -c '
	qemu-img create -q -f qcow2 -u -b "$1" -F raw evil.qcow2 1M && ! "$VDISK" convert -O raw evil.qcow2 stolen 2> evil.log' sh "$uri"
grep -q 'a protocol' evil.log && [ ! -e stolen ]
claim "with the reason"

# ---- over TCP
port=$(perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport')
serve nbdkit -f -i 127.0.0.1 -p "$port" -P nbd.pid file disk.raw
check "in clear" "$VDISK" compare -q -F raw "nbd://127.0.0.1:$port" disk.raw
check_fails 1 "TLS with a server that has none" "$VDISK" info "nbds://127.0.0.1:$port"
stop
make_ca ca && make_ca other && make_cert server ca serverAuth IP:127.0.0.1 && make_cert client ca clientAuth
mkdir pki pki-client pki-other
cp ca.crt pki/ca-cert.pem && cp server.crt pki/server-cert.pem && cp server.key pki/server-key.pem
cp ca.crt pki-client/ca-cert.pem && cp client.crt pki-client/client-cert.pem && cp client.key pki-client/client-key.pem
cp other.crt pki-other/ca-cert.pem
serve nbdkit -f -i 127.0.0.1 -p "$port" -P nbd.pid --tls=require --tls-certificates=pki --tls-verify-peer file disk.raw
check "with certificates" "$VDISK" compare -q -F raw "nbds://127.0.0.1:$port?tls-certificates=$PWD/pki-client" disk.raw
check_fails 1 "not with a server that somebody else vouches for" "$VDISK" info "nbds://127.0.0.1:$port?tls-certificates=$PWD/pki-other"
check_fails 1 "not in clear" "$VDISK" info "nbd://127.0.0.1:$port"
stop
# Ours at both ends.
echo "alice:$(openssl rand -hex 32)" > keys.psk
check "vdisk serve gives it to vdisk" "$VDISK" serve --listen 127.0.0.1:0 --tls-psk "$PWD/keys.psk" --key-file key enc.qcow2 -- \
	"'$VDISK' compare -q -F raw \"\$uri\" disk.raw"
done_testing
