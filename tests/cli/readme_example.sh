#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What README.md shows is what happens: its C example, as a reader would take it, compiled against an installed library
# by pkg-config; the lines of its jobs, one after the other; its exit statuses. The Chinese page shows the same.
. "$SRCDIR/tests/support/lib.sh"
requires cc pkg-config make
en=$SRCDIR/README.md
zh=$SRCDIR/README.zh_CN.md

# block N FILE: the N-th fenced block.
block() {
	awk -v n="$1" '/^```/ { inside = !inside; seen += inside; next } inside && seen == n' "$2"
}
# code FILE: the first block of C.
code() {
	sed -n '/^```c$/,/^```$/{/^```/d;p}' "$1"
}
jobs() {
	block 3 "$1" | sed 's/ *#.*//'
}
statuses() {
	sed -n '/id="exit"/,/id="speed"/s/^| \([0-9][^|]*\) |.*/\1/p' "$1" | sed 's/、/, /g'
}
for part in code jobs statuses 'grep ^<a'; do
	$part "$en" > en
	$part "$zh" > zh
	[ -s en ] && cmp -s en zh
	claim "both pages have the same: $part"
done

printf secret > key
printf guess > wrong
printf other > new-key
dd if=/dev/zero of=disk.raw bs=64k count=4 status=none
printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc status=none
# An overlay, and two images that it can stand on.
for golden in golden-1.qcow2 golden-2.qcow2; do "$VDISK" create -q -f qcow2 $golden 1M; done
"$VDISK" create -q -f qcow2 -b golden-1.qcow2 -F qcow2 web.qcow2
"$VDISK" create -q -f vmdk web.vmdk 1M
jobs "$en" > jobs.txt
while read -r verb line; do
	[ "$verb" = vdisk ] && check "does the job: $line" sh -c "\"\$VDISK\" $line"
done < jobs.txt
check "decrypts to the same bytes" cmp disk.raw back.raw
check "renews under the new key" "$VDISK" compare --key-file new-key disk.raw renewed.qcow2

# The table in tools/exit.h is the only one; 128 stands for 128 + n there.
statuses "$en" | sed 's/, /\n/g; s/128+n/128/' > readme-statuses
sed -n 's/^\tX(\([0-9]*\), *".*/\1/p' "$SRCDIR/tools/exit.h" > statuses
[ -s statuses ] && cmp -s readme-statuses statuses
claim "the exit statuses are those of the command"

code "$en" > example.c
check "installs into a folder" make -s -C "$SRCDIR" B="${BUILDDIR#"$SRCDIR"/}" install DESTDIR="$PWD/root" PREFIX=/usr
export PKG_CONFIG_PATH="$PWD/root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$PWD/root"
flags=$(pkg-config --cflags --libs libvdisk)
claim "pkg-config knows libvdisk"
check "the example compiles" cc -std=c99 -Wall -Wextra -Werror ${SANITIZE:+-fsanitize=$SANITIZE} -o example example.c $flags
export LD_LIBRARY_PATH="$PWD/root/usr/lib"
check "the example reads an encrypted image" ./example renewed.qcow2 new-key
[ "$(cat "$stdout")" = "262144 bytes, boot signature 55aa" ]
claim "and prints what is in it"
check_fails 12 "the example fails with the exit status of a wrong key" ./example renewed.qcow2 wrong
grep -q renewed.qcow2 "$stderr"
claim "and says which image"
check "the installed command runs" root/usr/bin/vdisk compare --key-file new-key disk.raw renewed.qcow2
done_testing
