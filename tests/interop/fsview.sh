#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The files in images as mke2fs, ntfs-3g and mtools put them there: the view sees the same names, attributes and bytes.
. "$SRCDIR/tests/support/lib.sh"
requires mke2fs debugfs dumpe2fs mkntfs ntfscp mkfs.vfat mcopy find setcap qemu-img
reader=$BUILDDIR/vdisk-fsview
see() { "$BUILDDIR/tests/interop/fsview" "$reader" "$@"; }

# ---- a tree with all kinds of things -------------------------------------------------------------------------

mkdir -p tree/etc tree/dir/deep/er tree/many tree/empty
echo 'ID=x' > tree/etc/os-release
head -c 5000001 /dev/urandom > tree/dir/random
printf 'short' > tree/dir/short
: > tree/dir/nothing
printf end | dd of=tree/dir/sparse bs=1 seek=30000000 status=none
ln -s ../dir/random tree/etc/link
ln -s "/$(head -c 200 /dev/zero | tr '\0' x)" tree/etc/longlink
mkfifo tree/dir/fifo
mknod tree/dir/device c 5 1
chmod 4755 tree/dir/short
chown 1000:70000 tree/dir/random
cp /bin/true tree/dir/capable && setcap cap_net_raw+ep tree/dir/capable
printf x > "tree/dir/$(printf 'new\nline \377 \033[2J')"
(cd tree/many && seq -f 'a file with a rather long name %g' 1 3000 | xargs -d '\n' touch)
list() { (cd tree && find . -mindepth 1 -printf '%y %m %U %G %s %P\n' | sed 's/^\(d [0-9]* [0-9]* [0-9]*\) [0-9]*/\1 0/' | sort); }
list > wanted

# same_tree CLAIM FORMAT IMAGE
same_tree() {
	see "$2" "$3" ls | grep -av ' lost+found$' | sort > seen
	cmp -s wanted seen && ok "$1: names, kinds, modes, owners, sizes" || not_ok "$1: names, kinds, modes, owners, sizes" "$(diff -a wanted seen | head -5)"
	same=yes
	for file in dir/random dir/short dir/nothing dir/sparse dir/capable; do
		see "$2" "$3" cat "/$file" | cmp -s - "tree/$file" || same="$file differs"
	done
	[ "$same" = yes ] && ok "$1: bytes" || not_ok "$1: bytes" "$same"
}
for kind in ext2 ext3 ext4; do
	rm -f $kind.img
	mke2fs -q -t $kind -b 4096 -d tree $kind.img 120M > /dev/null
	same_tree $kind raw $kind.img
done
mke2fs -q -t ext4 -b 1024 -O inline_data,metadata_csum,64bit -I 256 -d tree small.img 120M > /dev/null
same_tree "ext4 with small blocks and data in inodes" raw small.img
qemu-img convert -q -O qcow2 ext4.img ext4.qcow2
same_tree "ext4 in qcow2" qcow2 ext4.qcow2
[ "$(see raw ext4.img cat /etc/link | cksum)" = "$(cksum < tree/dir/random)" ]
claim "a link is followed"
[ "$(see raw ext4.img xattr /dir/capable)" = 0100000200200000000000000000000000000000 ]
claim "a capability is read"
! see raw ext4.img xattr /dir/short 2> /dev/null
claim "and none where there is none"
debugfs -R 'blocks /dir/random' ext4.img 2> /dev/null | tr -s ' ' '\n' | grep . | sort -n > peer
see raw ext4.img blocks /dir/random | awk '{ for (i = 0; i < $3; i += 4096) print ($2 + i) / 4096 }' | sort -n > ours
[ -s ours ] && cmp -s peer ours
claim "its blocks are those of debugfs"
dumpe2fs ext4.img 2> /dev/null | sed -n 's/^  Free blocks: //p' | tr -d ' ' | tr ',' '\n' |
	awk -F- 'NF { n += ($2 == "" ? 1 : $2 - $1 + 1) } END { print n }' > peer
see raw ext4.img free | awk '{ n += $2 } END { print n / 4096 }' > ours
cmp -s peer ours
claim "free blocks are as many as dumpe2fs counts"
debugfs -w -R 'rm /dir/random' ext4.img 2> /dev/null
see raw ext4.img deleted | grep -q '^5000001 '
claim "a deleted file is told"

# ---- NTFS and FAT --------------------------------------------------------------------------------------------

truncate -s 40M ntfs.img
mkntfs -q -F -f -L Windows ntfs.img 2> /dev/null
ntfscp -q -f ntfs.img tree/dir/random Random.bin && ntfscp -q -f ntfs.img tree/dir/short short
claim "ntfscp puts files into NTFS"
see raw ntfs.img cat /.volumes/0/RANDOM.BIN | cmp -s - tree/dir/random
claim "they are read, by a name in any case"
see raw ntfs.img ls /.volumes/0 | awk '{print $1, $5, $6}' | sort > seen
printf 'f 5 .volumes/0/short\nf 5000001 .volumes/0/Random.bin\n' | cmp -s - seen
claim "and listed as they are written"
for bits in 12 16 32; do
	rm -f fat$bits.img
	[ $bits = 12 ] && truncate -s 12M fat12.img || truncate -s 80M fat$bits.img
	mkfs.vfat -F $bits -s $((bits < 32 ? 8 : 1)) fat$bits.img > /dev/null
	mmd -i fat$bits.img ::EFI ::EFI/BOOT && mcopy -i fat$bits.img tree/dir/random "::EFI/BOOT/a rather long Name.bin" && mcopy -i fat$bits.img tree/dir/short ::EFI/SHORT.TXT
	claim "mtools fills FAT$bits"
	see raw fat$bits.img cat "/.volumes/0/efi/boot/A rather long name.BIN" | cmp -s - tree/dir/random
	claim "it is read: FAT$bits"
	mdel -i fat$bits.img ::EFI/SHORT.TXT
	[ "$(see raw fat$bits.img deleted)" = "5 _HORT.TXT" ]
	claim "what was deleted is told: FAT$bits"
	[ "$(see raw fat$bits.img free | awk '{ n += $2 } END { print n }')" = "$(mdir -i fat$bits.img | awk '/bytes free/ { $NF = $(NF - 1) = ""; gsub(" ", ""); print }')" ]
	claim "free space is as mdir counts it: FAT$bits"
done

# ---- hostile ones --------------------------------------------------------------------------------------------

# A folder in itself, and one that is in two places.
cp ext2.img round.img
debugfs -w -R 'link /dir /dir/deep/again' round.img 2> /dev/null
debugfs -w -R 'link /dir /empty/twice' round.img 2> /dev/null
see raw round.img short > seen
grep -q 'in several places' seen && [ "$(wc -l < seen)" -lt 4000 ]
claim "folders that go round end, and are told"
# The readers are in their cell.
(see raw ext4.img cat /dir/sparse; sleep 2) | { sleep 1; for p in /proc/[0-9]*; do
	[ "$(readlink "$p/exe")" = "$(readlink -f "$reader")" ] && grep -E '^(Seccomp|NoNewPrivs):' "$p/status"; done > cells; cat > /dev/null; }
grep -q 'Seccomp:.*2' cells && ! grep -q 'Seccomp:.*[01]' cells
claim "every reader that runs is confined by seccomp"
done_testing
