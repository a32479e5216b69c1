#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each way in which a repository goes bad, and the level of verify that has to notice it. restic is the witness that it was sound before.
. "$SRCDIR/tests/support/lib.sh"
requires restic ssh-keygen
export VDISK_LEDGER="$PWD/book"
echo secret > pw
export RESTIC_PASSWORD_FILE=pw RESTIC_CACHE_DIR="$PWD/cache"

# ---- a repository with three snapshots, and what it was before the last of them

ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -q -t ed25519 -N '' -f key2
printf 'ops %s\n' "$(cut -d' ' -f1,2 key.pub)" > allowed
printf 'ops %s\n' "$(cut -d' ' -f1,2 key2.pub)" > allowed2
truncate -s 96M disk.raw
dd if=/dev/urandom of=disk.raw bs=1M count=50 conv=notrunc status=none
backup() { "$VDISK" backup --repo sound --passphrase-file pw --sign-key key disk.raw >> made.log 2>&1; }
"$VDISK" repo init --repo sound --passphrase-file pw > made.log 2>&1 && backup && cp disk.raw first.raw &&
	dd if=/dev/urandom of=disk.raw bs=1M seek=10 count=5 conv=notrunc status=none && backup && cp -a sound old &&
	dd if=/dev/urandom of=disk.raw bs=1M seek=60 count=5 conv=notrunc status=none && backup
claim "three backups are made, with receipts"
check "restic finds them sound" restic -r sound check --read-data

verify() { "$VDISK" verify --repo repo --passphrase-file pw "$@"; }
fresh() { chmod -R u+w repo 2>/dev/null; rm -rf repo; cp -a "${1:-sound}" repo; chmod -R u+w repo; }
fresh
for level in head presence packs data; do
	check "a sound repository is sound ($level)" verify --level=$level --allowed-signers allowed
done
check "without a key, too" "$VDISK" verify --repo repo --keyless
check "and so is what restic has pruned" restic -r repo prune --max-unused 0
check "(verified)" verify

# notice LEVEL KIND CLAIM: from this level on, and with the status of what does not hold
notice() {
	check_fails 10 "$3: noticed at level $1" verify --level="$1"
	grep -q "^$2: " "$stdout"
	claim "$3: called $2"
	[ "$1" = data ] || [ "$1" = head ] || check_fails 10 "$3: noticed at level data" verify --level=data
}
# miss LEVEL CLAIM: the level before does not see it, which is why there is the next
miss() { check "$2: level $1 does not read so much" verify --level="$1"; }

largest() { find repo/data -type f -printf '%s %p\n' | sort -rn | sed -n "${1:-1}s/^[0-9]* //p"; }
flip() { python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 4]))' "$1" "$2"; }

fresh
flip "$(largest)" 1000000
miss presence "a bit flip"
notice packs damaged-pack "a bit flip"
check_fails 10 "a bit flip: noticed without a key" "$VDISK" verify --repo repo --keyless
run verify
[ "$(grep -c '^damaged-pack: ' "$stdout")" = 1 ] && [ "$(grep -c '^damaged-snapshot: ' "$stdout")" -ge 1 ]
claim "a bit flip: the pack is told, and the snapshots that it hits"
flip "$(largest 2)" 2000000
run verify
[ "$(grep -c '^damaged-pack: ' "$stdout")" = 2 ]
claim "two of them: both are told"

fresh
pack=$(largest)
truncate -s -1 "$pack"
notice presence truncated-pack "a pack that is one byte short"
fresh
pack=$(largest)
truncate -s 5000000 "$pack"
notice presence truncated-pack "a pack that is cut off"

fresh
rm -f "$(largest)"
notice presence missing-pack "a missing pack"
run verify
[ "$(grep -c '^damaged-snapshot: ' "$stdout")" -ge 1 ]
claim "a missing pack: the snapshots that it hits are told"

fresh
a=$(largest 1) b=$(largest 2)
mv "$a" swap && mv "$b" "$a" && mv swap "$b"
notice presence exchanged-pack "two packs exchanged"
check_fails 10 "two packs exchanged: noticed without a key" "$VDISK" verify --repo repo --keyless
fresh
cat "$(largest 2)" > "$(largest 1)x" && mv "$(largest 1)x" "$(largest 1)"
notice presence exchanged-pack "an old pack in place of a new one"

fresh
rm -f repo/index/"$(ls -t repo/index | head -1)"
notice presence unsound "a deleted index"

newest=$(ls -t sound/snapshots | head -1)
fresh
rm -f "repo/snapshots/$newest"
notice head missing-snapshot "the newest snapshot deleted"
check "restic does not notice that" restic -r repo check --read-data
fresh old
notice head rolled-back "a repository that was set back"
check "nor that" restic -r repo check --read-data
fresh
oldest=$(ls -t sound/snapshots | tail -1)
rm -f "repo/snapshots/$oldest"
notice head missing-snapshot "an old snapshot deleted"
! grep -q '^rolled-back' "$stdout"
claim "that is not taken for a setting back"

fresh
chmod u+w repo/snapshots/*
flip "repo/snapshots/$newest" 40
notice head damaged-object "a changed snapshot"
fresh
chmod u+w repo/index/*
flip "repo/index/$(ls repo/index | head -1)" 40
check_fails 10 "a changed index: noticed without a key" "$VDISK" verify --repo repo --keyless
fresh
chmod u+w repo/keys/*
echo >> "repo/keys/$(ls repo/keys)"
check_fails 10 "a changed key file: noticed without a key" "$VDISK" verify --repo repo --keyless

# ---- mending

fresh
mkdir bad
flip "$(largest)" 1000000
gone=$(largest 2)
rm -f "$gone"
check_fails 64 "bad packs have to be put somewhere" verify --repair
check_fails 10 "what is bad is found, and mended" verify --repair --source first.raw --quarantine bad
"$VDISK" ledger show --act verify --output=json | grep -q '"what":{"act":"verify"'
claim "mending was announced in the ledger before it began"
cp "$stdout" mended
[ "$(ls bad | wc -l)" = 1 ] && grep -q ' 0 are lost' mended
claim "from the source, with nothing lost and the bad pack put aside"
check "it is sound again" verify
check "restic thinks so, too" restic -r repo check --read-data
check "the newest disk is restored" "$VDISK" restore --repo repo --passphrase-file pw latest back.raw
check "and is what it was" cmp disk.raw back.raw
fresh
rm -rf bad/*
flip "$(largest)" 1000000
check_fails 10 "without the source, what the bad pack still holds is kept" verify --repair --quarantine bad
grep -q ' 1 are lost' "$stdout"
claim "all but the one blob that is damaged"
check_fails 10 "that is still missing" verify
check "a new backup of the source" env VDISK_LEDGER="$PWD/other" "$VDISK" backup --repo repo --passphrase-file pw first.raw
check "brings it back" verify

# ---- receipts

fresh
check_fails 10 "receipts of a key that may not sign are told" verify --level=head --allowed-signers allowed2
grep -q '^forged-receipt: ' "$stdout"
claim "as forged"
cp -a book book2
sed -i 's/"size":100663296/"size":100663297/' book2/*.jsonl
check_fails 10 "a line of the ledger that was changed is told" env VDISK_LEDGER="$PWD/book2" "$VDISK" verify --repo repo --passphrase-file pw --level=head
grep -q '^damaged-book: ' "$stdout"
claim "as such"
check "a snapshot is forgotten" "$VDISK" backups forget --repo repo --passphrase-file pw --sign-key key "$oldest"
[ ! -e "repo/snapshots/$oldest" ]
claim "it is gone"
check "what was forgotten by name is not missing" verify --level=head --allowed-signers allowed
mkdir empty
check_fails 1 "a ledger without receipts says nothing" env VDISK_LEDGER="$PWD/empty" "$VDISK" verify --repo repo --passphrase-file pw --level=head

# ---- the wrong key, and usage

echo wrong > pw2
check_fails 12 "a wrong key" "$VDISK" verify --repo repo --passphrase-file pw2
check_fails 64 "data cannot be read without a key" verify --keyless --level=data
check_fails 64 "a budget is a time" verify --budget=soon

# ---- a little each night

rm -f book/verified-*
fresh
total=$(find repo/data -type f | wc -l)
nights=0 read=0 known=0 twice=
while [ "$known" -lt "$total" ] && [ $nights -lt 40 ]; do
	run verify --budget=0.001s --threads=1 --output=json || break
	nights=$((nights + 1))
	read=$((read + $(sed -n 's/.*"packs-read": *\([0-9]*\).*/\1/p' "$stdout")))
	# A line a pack behind the first, which says what the file is.
	known=$(($(cat book/verified-* | grep -c ' ') - 1))
	# In the last night there may be time for some a second time.
	[ "$known" -eq "$total" ] || [ "$read" -eq "$known" ] || twice=yes
done
[ "$known" -eq "$total" ] && [ "$read" -ge "$total" ] && [ -z "$twice" ]
claim "with a small budget, each of $total packs is read once before any is read twice ($nights times, $read packs)"

# ---- as JSON

flip "$(largest)" 1000000
run verify --output=json
python3 - "$stdout" <<'P'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert {"fault", "summary", "error"} == {x["type"] for x in lines}, lines
summary = [x for x in lines if x["type"] == "summary"][0]
assert summary["faults"] == len([x for x in lines if x["type"] == "fault"]) and summary["packs"] == summary["packs-read"], summary
assert all(len(x["object"]) == 64 for x in lines if x.get("kind") == "damaged-pack")
P
claim "JSON tells the same"
done_testing
