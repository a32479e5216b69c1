#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Repositories beside restic: what either writes the other lists, checks, restores and goes on with; locks of either are honoured.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires restic qemu-img mkfs.ext4 perl

printf 'secret\n' > pw
export RESTIC_PASSWORD=secret RESTIC_REPOSITORY=R
# No cache: each look is at the repository itself.
r() { restic --no-cache -q "$@"; }
v() { verb=$1; shift; "$VDISK" "$verb" --repo R --passphrase-file pw "$@"; }

# A disk with a file system, what does not shrink, a last chunk that is short, and holes.
truncate -s $((100 * 1048576 + 70144)) a.raw
mkfs.ext4 -q -F -d "$SRCDIR/libvdisk" a.raw
perl -e 'srand 5; print pack("L*", map { int rand 2**32 } 1 .. 1048576)' | dd of=a.raw bs=1M seek=60 conv=notrunc status=none
cp --sparse=always a.raw b.raw
perl -e 'srand 6; print pack("L*", map { int rand 2**32 } 1 .. 524288)' | dd of=b.raw bs=64k seek=300 conv=notrunc status=none

check "a repository is made" "$VDISK" repo init --repo R --passphrase-file pw
check "restic opens it" restic --no-cache snapshots
check "and finds nothing wrong with an empty one" restic --no-cache check
check "a disk is backed up" v backup --tag one a.raw
check "restic lists it" restic --no-cache snapshots --json --tag one
[ "$(perl -MJSON::PP -0ne 'print $_->{paths}[0] for @{decode_json($_)}' "$stdout")" = "$(realpath a.raw)" ]
claim "under the path of the image"
check "restic reads all data and finds it whole" restic --no-cache check --read-data
check "restic restores it" restic --no-cache restore latest --target out
check "what it restored opens in qemu as it stands" qemu-img compare -f vmdk -F raw out/a.raw/disk.vmdk a.raw
check "and in vdisk" "$VDISK" compare --allow out/a.raw out/a.raw/disk.vmdk a.raw
cmp out/a.raw/part-00000/flat a.raw
claim "its part is the disk, byte by byte"
check "restic counts what is in it" restic --no-cache stats --mode raw-data

check "restic backs up another image into it" restic --no-cache backup b.raw
check "we restore what restic cut into chunks of its own" v restore latest b.out
cmp b.out b.raw
claim "byte by byte"
check "we back up the same image" v backup b.raw
check "and go on after restic with the first" v backup a.raw
check "restic reads all data of both" restic --no-cache check --read-data
check "restic takes up an image that we have backed up" restic --no-cache backup a.raw
for image in a b; do
	check "ours of $image is restored by its path" v restore --path $image.raw "$(restic --no-cache snapshots --json --path "$(realpath $image.raw)" |
		perl -MJSON::PP -0ne 'my @a = grep { $_->{tree} } @{decode_json($_)}; print $_->{id}, "\n" for @a' | head -1)" $image.again --force
	cmp $image.again $image.raw
	claim "$image is the same"
done

# Whose blobs are gone, restic says: what is left is whole, and ours goes on from there.
check "restic forgets all but the last of each" restic --no-cache forget --keep-last 1
check "and prunes" restic --no-cache prune --max-unused 0
check "nothing that is left lacks anything" v repo check
check "our next backup finds what was pruned missing" v backup --host other a.raw b.raw
check "restic reads all data after that" restic --no-cache check --read-data
check "and each comes back" v restore --path a.raw latest a.pruned
cmp a.pruned a.raw
claim "the same"
check "we forget" v backups forget --keep-last 1
check "restic prunes after us" restic --no-cache prune
check "and finds all whole" restic --no-cache check --read-data
check "restic makes its indexes anew" restic --no-cache rebuild-index
check "which we read" v repo check

# A second key, and a repository that restic has made.
printf 'other\n' > pw2
check "restic adds a key" restic --no-cache key add --new-password-file pw2
check "it opens ours, too" "$VDISK" backups list --repo R --passphrase-file pw2
check "restic makes a repository" env RESTIC_REPOSITORY=S restic --no-cache init
check "we write to it" "$VDISK" backup --repo S --passphrase-file pw a.raw
check "restic finds that whole" env RESTIC_REPOSITORY=S restic --no-cache check --read-data
check "of a repository of version 1 restic says so" env RESTIC_REPOSITORY=T restic --no-cache init --repository-version 1
check "restic backs up into it" env RESTIC_REPOSITORY=T restic --no-cache backup a.raw
check "we restore from it" "$VDISK" restore --repo T --passphrase-file pw a.old
cmp a.old a.raw
claim "the same bytes"
check_fails 63 "and write none into it" "$VDISK" backup --repo T --passphrase-file pw a.raw

# ---- locks -------------------------------------------------------------------------------------------------
# A list of changes that does not come to its end keeps the backup at work.
mkfifo go
exec 3<> go
truncate -s 64M slow.raw
"$VDISK" backup --repo R --passphrase-file pw --changed-blocks - slow.raw < go > slow.out 2>&1 3>&- & pid=$!
wait_until sh -c 'ls R/locks | grep -q .'
claim "a backup at work has a lock"
check "restic lists snapshots beside it" restic --no-cache snapshots
check "restic backs up beside it" restic --no-cache backup pw
run restic --no-cache check
[ $status -ne 0 ] && grep -qi lock "$stderr"
claim "but does not check"
check_fails 11 "we do not forget beside it" v backups forget --keep-last 1
grep -q "process" "$stderr"
claim "and are told who is at work"
restic --no-cache unlock > /dev/null 2>&1
kill -0 $pid && ls R/locks | grep -q .
claim "restic unlock does not end it, nor take its lock"
echo nonsense >&3
exec 3>&-
wait $pid
[ -z "$(ls R/locks)" ]
claim "at the end there is no lock"
# Ours of a process that is gone.
exec 3<> go
"$VDISK" backup --repo R --passphrase-file pw --changed-blocks - slow.raw < go > slow.out 2>&1 3>&- & pid=$!
wait_until sh -c 'ls R/locks | grep -q .'
kill -9 $pid
wait $pid 2>/dev/null
exec 3>&-
[ -n "$(ls R/locks)" ]
claim "one that was killed leaves its lock"
check "we take it away" v repo unlock
[ -z "$(ls R/locks)" ]
claim "it is gone"
check "restic checks again" restic --no-cache check

done_testing
