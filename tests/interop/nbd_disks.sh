#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that a server exports over NBD, read as images: from qemu-nbd and from qemu-storage-daemon, which qemu itself is behind. And the
# bitmaps that they export, beside what nbdinfo says of them.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io qemu-nbd nbdinfo nbdkit perl

changes=$BUILDDIR/tests/interop/changes
on_exit '[ ! -s nbd.pid ] || kill "$(cat nbd.pid)" 2>/dev/null'
uri="nbd+unix:///?socket=$PWD/nbd.sock"
# serve COMMAND...: until stop
serve() {
	rm -f nbd.sock nbd.pid
	"$@" > nbd.log 2>&1 &
	for sv_try in $(seq 300); do [ -s nbd.pid ] && [ -S nbd.sock ] && break; sleep 0.02; done
}
stop() { kill "$(cat nbd.pid)" 2> /dev/null; wait; rm -f nbd.pid; }
qemu_nbd() { serve qemu-nbd -r -t -e 8 -k "$PWD/nbd.sock" --pid-file=nbd.pid "$@"; }

make_disk d.raw 25165824
qemu-img convert -f raw -O qcow2 d.raw d.qcow2
qemu_nbd -f qcow2 d.qcow2
check "a disk of qemu-nbd is read" "$VDISK" convert -q -O raw "$uri" got.raw
cmp -s got.raw d.raw; claim "to the byte"
check "into qcow2" "$VDISK" convert -q -O qcow2 "$uri" got.qcow2
qemu-img compare -q -f qcow2 -F raw got.qcow2 d.raw; claim "reads the same for qemu-img"
[ "$(stat -c %b got.raw)" -lt $((24 * 2048)) ]; claim "zeros are left out, as the server says"
check "compared" "$VDISK" compare -q -F raw "$uri" d.raw
check "info" "$VDISK" info "$uri"
grep -q 'raw' "$stdout"; claim "is a raw disk"
check_fails 1 "writing to it" "$VDISK" resize "$uri" 32M
"$imgio" -f raw "$uri" 'read 1 511' 'read 3 5' 'read 25165823 1' 'read -P 0 20000001 3' > log; claim "any offset and length are read"
stop
check_fails 1 "a server that is gone" "$VDISK" convert -q -O raw "$uri" none.raw
[ ! -e none.raw ]; claim "leaves nothing"

# A guest can write a header.
qemu-img create -q -f qcow2 -b /etc/passwd -F raw inner.qcow2
cp inner.qcow2 guest.raw && truncate -s 4M guest.raw
qemu_nbd -f raw guest.raw
check "a guest's header" "$VDISK" convert -q -O raw "$uri" got.raw --force
cmp -s got.raw guest.raw; claim "is bytes like all others"
stop
# A server without connections side by side, and one that wants blocks.
serve nbdkit -f -r -U nbd.sock -P nbd.pid --filter=blocksize-policy file d.raw blocksize-minimum=4096 blocksize-error-policy=error
check "a server that wants blocks of 4096" "$VDISK" compare -q -F raw "$uri" d.raw
"$imgio" -f raw "$uri" 'read 1 511' 'read 4095 2' 'read 8191 8193' > log; claim "gets them"
stop
serve nbdkit -f -r -U nbd.sock -P nbd.pid --filter=error file d.raw error=EIO error-pread-rate=100%
check_fails 1 "a server that fails" "$VDISK" convert -q -O raw "$uri" none.raw
stop
check_fails 1 "another machine's" "$VDISK" info nbd://127.0.0.1/

# ---- bitmaps -----------------------------------------------------------------------------------------------

look() { "$changes" "$@" > seen 2> seen.err && mark=$(sed -n 's/^mark: //p' seen); }
dirty() { grep '^[0-9]' seen | tr '\n' ','; }
# What nbdinfo says, in the same words.
peer_dirty() { nbdinfo --json --map="qemu:dirty-bitmap:$1" "$uri" | perl -MJSON::PP -e 'local $/; for (@{decode_json(<STDIN>)}) {
	next unless $_->{type} & 1;
	if (@r && $r[-1][0] + $r[-1][1] == $_->{offset}) { $r[-1][1] += $_->{length} } else { push @r, [$_->{offset}, $_->{length}] }
	} print "$$_[0] $$_[1]," for @r'; }
qemu-img bitmap --add -g 64K d.qcow2 since
qemu-io -f qcow2 -c 'write 1M 100k' -c 'write -z 5M 64k' -c 'write 25165312 512' d.qcow2 > log
qemu_nbd -f qcow2 -B since d.qcow2
look "$uri"; base=$mark
look -n "$uri" -b since -m "$base" "$uri"
grep -qx 'source: NBD bitmap' seen && [ "$(dirty)" = "$(peer_dirty since)" ] && [ "$(dirty)" = "1048576 131072,5242880 65536,25100288 65536," ]
claim "a bitmap says what nbdinfo says of it"
look -n "$uri" -b since "$uri" && grep -q '^scan: no base' seen; claim "without a base it says nothing"
look -n "$uri" -b other -m "$base" "$uri" && grep -q "^scan: the server exports no bitmap 'other'" seen; claim "one that is not exported is a doubt"
look -n "$uri" -m "$base" "$uri" && grep -q '^scan: no bitmap' seen; claim "so is one that is not named"
truncate -s 25M other.raw
look other.raw; look -n "$uri" -b since -m "$mark" other.raw && grep -q '^scan: the server.s disk has another size' seen; claim "so is a disk of another size"
look -n "nbd+unix:///?socket=$PWD/none" -b since -m "$base" "$uri"; grep -q 'connecting failed' seen.err; claim "a server that is not there is an error"
stop

# ---- a backup of what a server shows -----------------------------------------------------------------------

printf 'repository secret\n' > pw
"$VDISK" repo init -q --repo r --passphrase-file pw
qemu_nbd -f qcow2 -x data -B since d.qcow2
uri="nbd+unix:///data?socket=$PWD/nbd.sock"
check "a backup of it" "$VDISK" backup -q --repo r --passphrase-file pw "$uri"
stop
qemu-img bitmap --clear d.qcow2 since
qemu-io -f qcow2 -c 'write -P 77 7M 64k' d.qcow2 > log
qemu_nbd -f qcow2 -x data -B since d.qcow2
check "the next by its bitmap" "$VDISK" backup --repo r --passphrase-file pw --changes-from "$uri" --bitmap since "$uri"
grep -q 'NBD bitmap' "$stdout" "$stderr"; claim "which tells what changed"
stop
check "restored" "$VDISK" restore -q --repo r --passphrase-file pw latest back.raw
qemu-img compare -q -f raw -F qcow2 back.raw d.qcow2; claim "is the disk"

done_testing
