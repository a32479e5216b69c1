#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A wipe that is killed at any moment, and resumed: no marker is left in the layer below, and the record says all of it.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires mkfs.ext4 perl qemu-img

below=$(mktemp -d /dev/shm/vdisk-wipe.XXXXXX) || exit 1
mkdir at
on_exit "rm -rf $below"
on_exit "umount at 2>/dev/null"
perl -e 'for my $i (0 .. 8191) { my $m = sprintf("VDISK-MARKER-%08d.", $i); print substr($m x 200, 0, 4096) }' > "$below/markers"
left() { grep -ao 'VDISK-MARKER-[0-9]\{8\}' "$1" | sort -u | wc -l; }
id_of() { "$VDISK" wipe --dry-run --output=json "$@" > dry.json && perl -MJSON::PP -0ne 'print decode_json($_)->{confirm}' dry.json; }

# Some small files beside the disk, so that there are checkpoints between members too.
fill() {
	umount at 2>/dev/null
	rm -f "$below/fs.img" && truncate -s 160M "$below/fs.img"
	mkfs.ext4 -q "$below/fs.img" && mount -o loop "$below/fs.img" at || return 1
	mkdir at/vm && qemu-img convert -f raw -O qcow2 "$below/markers" at/vm/web.qcow2
	for i in 1 2 3 4 5; do head -c $((i * 100000)) "$below/markers" > at/vm/web-$i.vmem; done
	sync at/vm/*
}
if ! fill; then
	ok "no loop devices here: nothing can be tried"
	done_testing
fi

seed=${VD_RANDOM_SEED:-1}
rounds=${VD_KILL_ROUNDS:-6}
# The moments at which it is killed, in milliseconds, the first ones soon.
perl -e 'srand shift; printf "%.3f\n", rand(0.2 + $_ * 0.15) for 1 .. shift' "$seed" "$rounds" > moments
round=0
killed=0
for moment in $(cat moments); do
	round=$((round + 1))
	fill || not_ok "round $round begins" ""
	id=$(id_of --profile=dod3 at/vm)
	"$VDISK" wipe -q --profile=dod3 --bwlimit=128M --confirm="$id" at/vm > out 2>&1 & pid=$!
	sleep "$moment"
	kill -9 $pid 2>/dev/null && killed=$((killed + 1))
	wait $pid 2>/dev/null
	[ ! -e at/vm.vdisk-wipe ] || "$VDISK" wipe -q --resume --bwlimit=256M at/vm > out 2>&1 & pid=$!
	# Once more, while it goes on.
	sleep "$moment"
	kill -9 $pid 2>/dev/null
	wait $pid 2>/dev/null
	if [ -e at/vm.vdisk-wipe ]; then
		run "$VDISK" wipe --resume --output=json at/vm
	else
		# It had ended, or was killed before it had begun on anything.
		run "$VDISK" wipe --output=json --confirm="$(id_of at/vm)" at/vm
	fi
	[ "$status" -eq 0 ] && json_is "$stdout" '$d->{grade}' cleared && json_is "$stdout" 'scalar @{$d->{set}}' 6
	claim "round $round (seed $seed, killed after $moment s): the resumed wipe says cleared"
	[ ! -e at/vm.vdisk-wipe ]
	claim "round $round: no state is left"
	umount at
	[ "$(left "$below/fs.img")" -eq 0 ]
	claim "round $round: no marker survives"
done
[ "$killed" -gt 0 ]
claim "it was killed while it worked, $killed times"

# ---- in the middle of a disk ----
fill
id=$(id_of at/vm/web.qcow2)
"$VDISK" wipe -q --bwlimit=4M --confirm="$id" at/vm/web.qcow2 > out 2>&1 & pid=$!
wait_until grep -q '"offset":[1-9]' at/vm/web.qcow2.vdisk-wipe
claim "a checkpoint in the middle of a disk"
kill -9 $pid
wait $pid 2>/dev/null
offset=$(sed 's/.*"offset":\([0-9]*\).*/\1/' at/vm/web.qcow2.vdisk-wipe)
dd if=at/vm/web.qcow2 of=before bs=1M count=$((offset / 1048576)) status=none
[ "$(left before)" -eq 0 ]
claim "all before it is overwritten already"
check "is where a resume goes on" "$VDISK" wipe --resume --output=json at/vm/web.qcow2
json_is "$stdout" '$d->{set}[0]{verified} == $d->{set}[0]{written} ? 1 : 0' 1
claim "and every byte is written once"
others=$(left at/vm/web-5.vmem)
umount at
[ "$(left "$below/fs.img")" -eq "$others" ]
claim "nothing is left but what other files had"

# ---- stopped, and recognised ----
fill
id=$(id_of at/vm)
"$VDISK" wipe -q --bwlimit=4M --output=json --confirm="$id" at/vm > out 2>&1 & pid=$!
wait_until test -e at/vm.vdisk-wipe
sleep 0.3
kill -TERM $pid
wait $pid
status=$?
[ "$status" -eq 16 ] && json_is out '$d->{grade}' incomplete
claim "a signal stops it where it can go on: 16"
check_fails 16 "it is not begun anew by mistake" "$VDISK" wipe --dry-run at/vm
cp at/vm/web.qcow2 at/other && mv at/other at/vm/web.qcow2
check_fails 15 "another file under the name is not taken for it" "$VDISK" wipe --resume at/vm
echo '{' > at/vm.vdisk-wipe
check_fails 1 "a broken state is refused" "$VDISK" wipe --resume at/vm
done_testing
