#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A backup that is killed at any moment, or runs out of space at any step, leaves a repository that restic finds sound, and of which the next backup
# makes use.
. "$SRCDIR/tests/support/lib.sh"
requires restic mkfs.ext4 perl

printf 'secret\n' > pw
export RESTIC_PASSWORD=secret
v() { verb=$1; shift; "$VDISK" "$verb" --repo at/R --passphrase-file pw "$@"; }
below=$(mktemp -d /dev/shm/vdisk-backup.XXXXXX) || exit 1
mkdir at
on_exit "rm -rf $below"
on_exit "umount at 2>/dev/null"
perl -e 'srand 7; print pack("L*", map { int rand 2**32 } 1 .. 6291456)' > base.raw
truncate -s 64M base.raw

# fresh MIB: a file system with a repository, and one snapshot in it.
fresh() {
	umount at 2>/dev/null
	rm -f "$below/fs.img" && truncate -s "$1M" "$below/fs.img"
	mkfs.ext4 -q -m 0 "$below/fs.img" && mount -o loop "$below/fs.img" at || return 1
	"$VDISK" repo init -q --repo at/R --passphrase-file pw 2>/dev/null && head -c 5M base.raw > first.raw && v backup -q first.raw
}
# sound WHAT: what restic says of it, and the first snapshot is still what it was.
sound() {
	v repo unlock -q
	run restic --no-cache -q -r at/R check ${2:---read-data}
	[ $status -eq 0 ] && v restore -q --force --path first.raw "$first" first.back && cmp -s first.back first.raw
	claim "$1"
}
if ! fresh 200; then
	ok "no loop devices here: nothing can be tried"
	done_testing
fi
first=$(ls at/R/snapshots)

# ---- killed --------------------------------------------------------------------------------------------------
rounds=${VD_KILL_ROUNDS:-6}
killed=0
for round in $(seq 1 "$rounds"); do
	cp base.raw work.raw
	perl -e 'srand shift; print pack("L*", map { int rand 2**32 } 1 .. 1048576)' "$round" | dd of=work.raw bs=1M seek=30 conv=notrunc status=none
	"$VDISK" backup -q --repo at/R --passphrase-file pw work.raw > out 2>&1 & pid=$!
	sleep "$(perl -e 'srand $ARGV[0] + ($ENV{VD_RANDOM_SEED} // 1); printf "%.3f", 0.2 + rand(0.6)' "$round")"
	kill -9 $pid 2>/dev/null && killed=$((killed + 1))
	wait $pid 2>/dev/null
	sound "killed, round $round: restic reads all data and finds it sound"
done
echo "# $killed of $rounds were killed before their end"
check "the next backup goes on from what there is" v backup work.raw
check "and comes back" v restore --path work.raw latest work.back
cmp work.back work.raw
claim "the same"
check "nothing was left behind that prune does not take away" restic --no-cache -q -r at/R prune
sound "after it all is sound"

# ---- full ----------------------------------------------------------------------------------------------------
# With so many KiB left the disk is full at the lock, in the first pack, in a later one, at the index, at the snapshot.
failed=0
for left in 1 40 9000 17000 24576 24616 24700; do
	fresh 100 || break
	first=$(ls at/R/snapshots)
	free=$(df --output=avail -k at | tail -1)
	fallocate -l $((free - left))K at/ballast 2>/dev/null
	run v backup base.raw
	case $status in
	0) ;;
	14) failed=$((failed + 1)) ;;
	*) not_ok "with $left KiB left it is told that the disk is full" "$(cat "$stderr")" ;;
	esac
	[ -z "$(find at/R -name '*tmp*')" ] && [ -z "$(ls at/R/locks)" ]
	claim "with $left KiB left: neither half an object nor a lock stays"
	rm at/ballast
	sound "nor anything that restic would complain of" --no-lock
	check "with room it is done" v backup base.raw
	sound "and sound"
done
[ $failed -ge 4 ]
claim "the disk was full at different steps ($failed)"
# Out in the same way: what is restored has no name.
head -c 30M /dev/urandom > at/ballast 2>/dev/null
fallocate -l $(($(df --output=avail -k at | tail -1) - 3000))K at/ballast2 2>/dev/null
check_fails 14 "a restore onto a full disk fails" v restore --path base.raw latest at/out.raw
[ ! -e at/out.raw ]
claim "and leaves nothing under the name"

done_testing
