# SPDX-License-Identifier: LGPL-2.1-or-later
# Numbered marker blocks in a file, on a file system in a loop file that is searched afterwards: the layer below. Sourced after lib.sh.
# The loop files lie in memory, where nothing below keeps blocks.

below=$(mktemp -d /dev/shm/vdisk-wipe.XXXXXX) || exit 1
mkdir at
on_exit "rm -rf $below"
on_exit "umount at 2>/dev/null"
blocks=1024
perl -e 'for my $i (0 .. $ARGV[0] - 1) { my $m = sprintf("VDISK-MARKER-%08d.", $i); print substr($m x 200, 0, 4096) }' $blocks > "$below/markers"

# left FILE: how many markers it still holds
left() { grep -ao 'VDISK-MARKER-[0-9]\{8\}' "$1" | sort -u | wc -l; }
# is_on FS OPTIONS SIZE MKFS-OPTIONS...: an empty file system, mounted at ./at
is_on() {
	fs=$1 options=$2
	rm -f "$below/fs.img" && truncate -s "$3" "$below/fs.img"
	shift 3
	"mkfs.$fs" -q "$@" "$below/fs.img" > mkfs.log 2>&1 && mount -o "loop$options" "$below/fs.img" at
}
# put NAME: a sparse file with the markers in its middle
put() {
	dd if="$below/markers" of="$1" bs=1M seek=3 conv=notrunc status=none && truncate -s 64M "$1" && sync "$1"
}
