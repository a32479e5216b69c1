#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The C example of README.md, as a reader would take it: cut out, compiled against an installed library by pkg-config,
# and run. The Chinese page shows the same one.
. "$SRCDIR/tests/support/lib.sh"
requires cc pkg-config make

# example FILE: the first block of C in it.
example() {
	sed -n '/^```c$/,/^```$/{/^```/d;p}' "$1"
}
example "$SRCDIR/README.md" > example.c
check "README.md has an example" test -s example.c
example "$SRCDIR/README.zh_CN.md" | cmp -s - example.c
claim "README.zh_CN.md has the same"

check "installs into a folder" make -s -C "$SRCDIR" B="${BUILDDIR#"$SRCDIR"/}" install DESTDIR="$PWD/root" PREFIX=/usr
export PKG_CONFIG_PATH="$PWD/root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$PWD/root"
flags=$(pkg-config --cflags --libs libvdisk)
claim "pkg-config knows libvdisk"
check "compiles" cc -std=c99 -Wall -Wextra -Werror ${SANITIZE:+-fsanitize=$SANITIZE} -o example example.c $flags
export LD_LIBRARY_PATH="$PWD/root/usr/lib"

printf secret > key
printf guess > wrong
dd if=/dev/zero of=disk.raw bs=64k count=4 status=none
printf '\125\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc status=none
run "$VDISK" encrypt --key-file key --pbkdf-iterations 1000 disk.raw disk.qcow2
check "reads an encrypted image" ./example disk.qcow2 key
[ "$(cat "$stdout")" = "262144 bytes, boot signature 55aa" ]
claim "and prints what is in it"
check_fails 12 "fails with the exit status of a wrong key" ./example disk.qcow2 wrong
grep -q 'disk.qcow2' "$stderr"
claim "and says which image"
check "the installed command runs" root/usr/bin/vdisk compare --key-file key disk.raw disk.qcow2
done_testing
