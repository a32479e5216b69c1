#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs that are killed or find no room: nothing under the final name unless it is whole, the source as it was, and the
# next run does not mind what the last one left. VD_KILL_ROUNDS: how often each is killed; VD_RANDOM_SEED: when.
. "$SRCDIR/tests/support/lib.sh"
requires qemu-img
rounds=${VD_KILL_ROUNDS:-8}
mib=${VD_KILL_MIB:-48}

printf 'correct horse' > key
printf 'wrong' > wrong
dd if=/dev/urandom of=disk.raw bs=1M count="$mib" status=none
yes 'a line of text that packs well' | dd of=disk.raw bs=1M count=$((mib / 2)) iflag=fullblock conv=notrunc status=none
fast="--pbkdf-iterations 1000 -q --no-space-check"
"$VDISK" encrypt --key-file key $fast disk.raw secret.qcow2 || exit 1
sha256sum disk.raw secret.qcow2 > sums

encrypt() { exec "$VDISK" encrypt --key-file key $fast disk.raw "$1"; }
encrypt_luks() { exec "$VDISK" encrypt -O raw --key-file key $fast disk.raw "$1"; }
decrypt() { exec "$VDISK" decrypt --key-file key -q --no-space-check secret.qcow2 "$1"; }
convert() { exec "$VDISK" convert -O qcow2 -q --no-space-check disk.raw "$1"; }
convert_packed() { exec "$VDISK" convert -c -O qcow2 -q disk.raw "$1"; }
is_whole() { "$VDISK" compare --key-file key -q disk.raw "$1"; }

# delays N MS: N moments below MS milliseconds, in seconds.
delays() {
	awk -v n="$1" -v ms="$2" -v seed="${VD_RANDOM_SEED:-1}" 'BEGIN {
		srand(seed); for (i = 0; i < n; i++) printf "%.3f\n", rand() * ms / 1000 }'
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# kill_at SIGNAL DELAY JOB: the exit status is that of the job.
kill_at() {
	( "$3" out ) >/dev/null 2>"$stderr" &
	ka_pid=$!
	sleep "$2"
	kill -"$1" "$ka_pid" 2>/dev/null
	wait "$ka_pid" 2>/dev/null
}

# What one killed run leaves; words on stdout if that is wrong.
judge() {
	[ "$2" -eq 0 ] && { is_whole out >/dev/null || echo "done, and not the disk"; return; }
	if [ -e out ]; then is_whole out >/dev/null || echo "status $2, and a broken file"; fi
	[ "$1" = KILL ] || ! ls ./*.vdisk-partial >/dev/null 2>&1 || echo "status $2 leaves a partial file"
	[ "$1" = KILL ] || [ "$2" -eq 143 ] || [ -e out ] || echo "status $2, wanted 143"
}

for job in encrypt encrypt_luks decrypt convert convert_packed; do
	start=$(now_ms)
	( $job out ) >/dev/null 2>&1
	took=$(($(now_ms) - start))
	rm -f out
	bad=
	for delay in $(delays "$rounds" "$took"); do
		for signal in KILL TERM; do
			kill_at "$signal" "$delay" "$job"
			bad="$bad$(judge "$signal" $?)"
			rm -f out
		done
	done
	[ -z "$bad" ]
	claim "$job, killed $((2 * rounds)) times within $took ms, leaves a whole file or none${bad:+: $bad}"
	kill_at KILL "$(awk -v ms="$took" 'BEGIN { print ms / 3000 }')" "$job"
	rm -f out
	( $job out ) >"$stdout" 2>"$stderr" && is_whole out && ! ls ./*.vdisk-partial >/dev/null 2>&1
	claim "$job succeeds after a killed run, and takes away what that left"
	rm -f out
done

# no_room FOLDER WHERE LIMIT: LIMIT blocks of 512 bytes are the most that a file gets.
no_room() {
	for job in encrypt encrypt_luks decrypt convert; do
		( trap '' XFSZ; ulimit -f "$3"; $job "$1/out" ) >/dev/null 2>"$stderr"
		status=$?
		[ "$status" -eq 14 ] && ! ls "$1" | grep -q out
		claim "$job finds no room $2: exit status 14, no file left"
	done
}
mkdir small
no_room small "under a limit of file size" $((mib * 1024))
if mount -t tmpfs -o size=$((mib / 2))m none small 2>/dev/null; then
	on_exit "! mountpoint -q small || umount small"
	no_room small "in a full memory file system" unlimited
	mount -o remount,size=$((mib * 2))m small
	( encrypt small/out ) 2>"$stderr" && is_whole small/out
	claim "encrypt finds room when there is room again"
	umount small
fi
truncate -s $((mib / 2))M fs.img
if mkfs.ext4 -q -F fs.img 2>/dev/null && mount -o loop fs.img small 2>/dev/null; then
	on_exit "! mountpoint -q small || umount small"
	no_room small "on a full ext4" unlimited
	umount small
fi

check_fails 12 "a wrong key is told" "$VDISK" decrypt --key-file wrong -q secret.qcow2 out
! ls out* >/dev/null 2>&1
claim "and leaves nothing"
check "the sources are what they were" sha256sum --quiet -c sums
done_testing
