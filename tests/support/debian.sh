# SPDX-License-Identifier: LGPL-2.1-or-later
# A small Debian that boots from its own disk, made from the packages of the mirror that this machine installs from.
#
# debian_disk OUT: a raw disk of 1 GiB: MBR, one ext4, extlinux, the console on the serial line too. As root; one run takes a minute or two.
debian_disk() (
	set -e
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
	work=$(mktemp -d "${TMPDIR:-/tmp}/vdisk-debian.XXXXXX")
	trap 'umount "$work/mnt" 2>/dev/null || :; [ -z "${loop:-}" ] || losetup -d "$loop"; rm -rf "$work"' EXIT
	debootstrap --variant=minbase --include=linux-image-cloud-amd64,systemd-sysv,udev,initramfs-tools bookworm "$work/root" "$mirror" \
		> "$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
	umount "$work/root/proc" "$work/root/sys" 2>/dev/null || :
	rm -rf "$work"/root/var/cache/apt/*.bin "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
	echo web > "$work/root/etc/hostname"
	echo '/dev/disk/by-label/root / ext4 defaults 0 1' > "$work/root/etc/fstab"
	truncate -s 1G "$1"
	printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk -q "$1"
	dd if=/usr/lib/EXTLINUX/mbr.bin of="$1" bs=440 count=1 conv=notrunc status=none
	loop=$(losetup --find --show --offset 1048576 --sizelimit $((1073741824 - 1048576)) "$1")
	# extlinux reads no 64-bit ext4 and no checksums of metadata.
	mke2fs -q -t ext4 -O ^64bit,^metadata_csum -L root -d "$work/root" "$loop"
	mkdir "$work/mnt"
	mount "$loop" "$work/mnt"
	mkdir -p "$work/mnt/boot/extlinux"
	cat > "$work/mnt/boot/extlinux/extlinux.conf" <<-CONF
		SERIAL 0 115200
		DEFAULT linux
		LABEL linux
		KERNEL /boot/$(basename "$work"/mnt/boot/vmlinuz-*)
		INITRD /boot/$(basename "$work"/mnt/boot/initrd.img-*)
		APPEND root=LABEL=root ro console=tty0 console=ttyS0 net.ifnames=0
	CONF
	extlinux --install "$work/mnt/boot/extlinux" > /dev/null 2>&1
	umount "$work/mnt"
	losetup -d "$loop"
	loop=
)
