#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Conversions in place that are killed at random moments, and by turns resumed and reverted: the disk is what it was, and
# what is encrypted shows nothing. VD_INPLACE_KILLS: how often; VD_INPLACE_MIB: how large; VD_RANDOM_SEED: when.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img
kills=${VD_INPLACE_KILLS:-6}
mib=${VD_INPLACE_MIB:-96}
mark='planted by the test, to be found'

printf 'correct horse' > key
yes "$mark" | dd of=disk.raw bs=1M count="$mib" iflag=fullblock status=none
qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
fast="--pbkdf-iterations 1000 -q --key-file key"
encrypt() { exec "$VDISK" encrypt --in-place $fast -f "$1" "img.$1"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
delays() {
	awk -v n="$1" -v ms="$2" -v seed="${VD_RANDOM_SEED:-1}" 'BEGIN {
		srand(seed); for (i = 0; i < n; i++) printf "%.3f\n", rand() * ms / 1000 }'
}
is_encrypted() {
	case $1 in
	raw) opens_as "$(luks_raw img.raw)" disk.raw ;;
	*) opens_as "$(luks_qcow2 img.qcow2)" disk.raw ;;
	esac && ! grep -aq "$mark" "img.$1" && "$VDISK" check -q --plaintext "img.$1"
}
is_plain() { qemu-img compare -q -f "$1" -F raw "img.$1" disk.raw; }

# judge FORMAT ROUND: words on stdout if it is wrong. A run that is killed again at once counts, too.
judge() {
	if "$VDISK" status --output=json "img.$1" | grep -q '"none"'; then
		is_plain "$1" 2>/dev/null || is_encrypted "$1" || echo "round $2: whole, and not the disk; "
	elif [ $(($2 % 2)) -eq 0 ]; then
		"$VDISK" resume -q --key-file key "img.$1" && is_encrypted "$1" || echo "round $2: resumed, and not the disk; "
	elif "$VDISK" revert -q --key-file key "img.$1" 2> err; then
		is_plain "$1" || echo "round $2: reverted, and not the disk; "
	else
		grep -q 'too late' err && "$VDISK" resume -q --key-file key "img.$1" && is_encrypted "$1" || echo "round $2: $(cat err); "
	fi
}

for format in raw qcow2; do
	cp disk.$format img.$format
	start=$(now_ms)
	( encrypt $format ) > /dev/null 2>&1
	took=$(($(now_ms) - start))
	bad='' round=0 half=0
	for delay in $(delays "$kills" $((took * 2 / 3))); do
		rm -f img.$format*
		cp disk.$format img.$format
		( encrypt $format ) > /dev/null 2>&1 &
		pid=$!
		sleep "$delay"
		kill -KILL "$pid" 2> /dev/null
		wait "$pid" 2> /dev/null
		[ ! -e img.$format.vdisk-journal ] || half=$((half + 1))
		round=$((round + 1))
		bad="$bad$(judge $format $round)"
	done
	[ -z "$bad" ]
	claim "$format of $mib MiB, killed $kills times within $((took * 2 / 3)) ms ($half half-way), goes on or back${bad:+: $bad}"
	rm -f img.$format*
done
done_testing
