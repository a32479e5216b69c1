# SPDX-License-Identifier: LGPL-2.1-or-later
# Wipes small disks for their certificates; sourced after lib.sh.

# make_certificate FILE KEY [OPTION...]: FILE and FILE.sig, of the wipe of a disk of 1 MiB. The grade depends on what the folder lies on.
make_certificate() {
	mc_file=$1 mc_key=$2
	shift 2
	rm -f wiped.raw
	head -c 1048576 /dev/urandom > wiped.raw
	mc_id=$("$VDISK" wipe -f raw --dry-run wiped.raw | sed -n 's/.*--confirm=//p')
	"$VDISK" wipe -q -f raw --confirm="$mc_id" --certificate="$mc_file" --sign-key="$mc_key" "$@" wiped.raw > wiped.log 2>&1
	[ -s "$mc_file" ] && [ -s "$mc_file.sig" ]
}
