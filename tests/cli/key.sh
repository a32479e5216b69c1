#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk key: keyslots listed, added, changed and removed, recovery keys, and headers backed up and brought back.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires qemu-img cryptsetup perl age age-keygen gpg script

printf old > old; printf new > new; printf wrong > wrong
yes 'a line of text' | head -c 4194304 > disk.raw

opens() { "$VDISK" compare -q --key-file "$2" disk.raw "$1"; }
slots() { "$VDISK" key list --output=json "$1" | perl -MJSON::PP -e 'local $/; print join " ", map $_->{index}, @{decode_json(<STDIN>)->{keyslots}}'; }

# on KIND OPTIONS: what holds for every kind of encrypted image
on() {
	kind=$1
	shift
	rm -f d before.hdr
	"$VDISK" encrypt -q --key-file old "$@" disk.raw d
	check "$kind: add" "$VDISK" key add -q --key-file old --new-key-file new $cost --header-backup before.hdr d
	opens d old && opens d new; claim "$kind: both keys open the disk"
	[ "$(slots d)" = "0 1" ]; claim "$kind: list shows two keyslots"
	check "$kind: verify" "$VDISK" key verify --key-file new d
	grep -q 'keyslot 1 opens' "$stdout"; claim "$kind: verify names the keyslot"
	check_fails 12 "$kind: verify refuses a wrong key" "$VDISK" key verify --key-file wrong d
	check "$kind: remove" "$VDISK" key remove -q d 0
	check_fails 12 "$kind: the key that was removed opens nothing" "$VDISK" key verify --key-file old d
	check_fails 64 "$kind: the last keyslot stays" "$VDISK" key remove d 1
	check_fails 15 "$kind: with --last it takes a yes" "$VDISK" key remove --last d 1 < /dev/null
	check "$kind: change" "$VDISK" key change -q --key-file new --new-key-file old $cost d
	opens d old && [ "$(slots d | wc -w)" = 1 ]; claim "$kind: change leaves the new key alone"
	check "$kind: recovery" "$VDISK" key recovery --key-file old $cost d
	tr -d '\n' < "$stdout" > recovery
	grep -Exq '([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}' recovery; claim "$kind: the recovery key has 256 bits in groups"
	opens d recovery; claim "$kind: the recovery key opens the disk"
	# Which brings back the key that was removed: a backup of the header is a key, too.
	check "$kind: restore" "$VDISK" key restore-header -q --key-file old d before.hdr
	opens d old && [ "$(slots d)" = 0 ]; claim "$kind: the header is what it was"
}

cost='--pbkdf-iterations 1000'
on luks1 -O raw $cost
cryptsetup luksDump d > /dev/null; claim "luks1: cryptsetup reads the header"
on qcow2 $cost
qemu-img check -q --object secret,id=s,file=old --image-opts driver=qcow2,file.filename=d,encrypt.key-secret=s; claim "qcow2: qemu-img finds no fault"
cost='--pbkdf-iterations 4 --pbkdf-memory 32'
on luks2 -O raw --type luks2 $cost
cryptsetup open --test-passphrase --key-file old d; claim "luks2: cryptsetup opens it"

# ---- labels
check "luks2 keeps a label" "$VDISK" key add -q --key-file old --new-key-file new $cost --label 'backup server' d
"$VDISK" key list d | grep '^1 .*key .*backup server' > /dev/null; claim "list shows kind and label"
cryptsetup luksDump d | grep -q vdisk-keyslot; claim "the label is a token of LUKS2"
"$VDISK" key remove -q d 1
! cryptsetup luksDump d | grep -q vdisk-keyslot; claim "and goes with its keyslot"
check_fails 64 "a label without end is refused" "$VDISK" key add -q --key-file old --new-key-file new --label "$(head -c 99 /dev/zero | tr '\0' x)" d
check_fails 64 "a label that JSON would escape is refused" "$VDISK" key add -q --key-file old --new-key-file new --label 'a"b' d
"$VDISK" encrypt -q -O raw --key-file old --pbkdf-iterations 1000 disk.raw one
check_fails 63 "luks1 has no place for a label, and says so" "$VDISK" key add -q --key-file old --new-key-file new --label x one

"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw noted.qcow2
check "qcow2 keeps a label, too" "$VDISK" key add -q --key-file old --new-key-file new --label 'backup server' noted.qcow2
"$VDISK" key list noted.qcow2 | grep '^1 .*key .*backup server' > /dev/null; claim "and list shows it"
peer="--object secret,id=a,file=old --object secret,id=b,file=wrong --image-opts"
noted=driver=qcow2,file.filename=noted.qcow2,encrypt.key-secret=a
again qemu-img amend $peer $noted -o encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=1 &&
	qemu-img snapshot -c s $peer $noted
claim "qemu-img adds a keyslot and a snapshot"
"$VDISK" key list noted.qcow2 | grep '^1 .*backup server' > /dev/null; claim "and leaves the label"
qemu-img amend $peer $noted -o encrypt.state=inactive,encrypt.keyslot=1 &&
	again qemu-img amend $peer $noted -o encrypt.state=active,encrypt.keyslot=1,encrypt.new-secret=b,encrypt.iter-time=1
claim "qemu-img fills a keyslot anew"
"$VDISK" key list noted.qcow2 | grep '^1 .*-  *-  *-' > /dev/null; claim "which does not inherit the label"

# ---- costs
"$VDISK" key list one | grep '^0 .*WEAK' > /dev/null; claim "a cheap keyslot is told as weak"
"$VDISK" key add -q --key-file old --new-key-file new one
"$VDISK" key list one | grep '^1 .*1000000 iterations$' > /dev/null; claim "a new keyslot has the cost of the house"

# ---- backups
rm -f ours.hdr theirs.hdr
"$VDISK" key backup-header -q one ours.hdr && cryptsetup luksHeaderBackup one --header-backup-file theirs.hdr
cmp -s ours.hdr theirs.hdr; claim "a backup is the bytes of cryptsetup's"
[ "$(stat -c %a ours.hdr)" = 600 ]; claim "only its owner reads it"
check_fails 1 "a backup replaces no file" "$VDISK" key backup-header one ours.hdr
! grep -q -- --force "$stderr" && grep -q '^hint: choose another name' "$stderr"; claim "and promises no option that would"
"$VDISK" encrypt -q -O raw --key-file old --pbkdf-iterations 1000 disk.raw other
check_fails 10 "another disk's header is refused" "$VDISK" key restore-header --key-file old other ours.hdr
opens other old; claim "and nothing is changed by it"
check_fails 12 "a header that the key does not open is refused" "$VDISK" key restore-header --key-file wrong one ours.hdr
head -c 100000 ours.hdr > short.hdr
check_fails 1 "half a backup is refused" "$VDISK" key restore-header --key-file old one short.hdr
dd if=/dev/zero of=one bs=4096 count=2 conv=notrunc status=none
check "a header that was overwritten comes back" "$VDISK" key restore-header -f luks --key-file old one ours.hdr
opens one old && opens one new; claim "with both keys"

"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw q.qcow2
"$VDISK" key backup-header -q q.qcow2 q.hdr
off=$("$VDISK" info --output=json q.qcow2 | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{vdisk}{encryption}{"header-offset"} // 65536')
dd if=/dev/zero of=q.qcow2 bs=1 seek="$off" count=8192 conv=notrunc status=none
check_fails 1 "a qcow2 without its LUKS header does not open" "$VDISK" info q.qcow2
check "and its header comes back, too" "$VDISK" key restore-header --key-file old q.qcow2 q.hdr
opens q.qcow2 old; claim "the disk is whole"

# ---- a backup before each change
"$VDISK" encrypt -q -O raw --key-file old --pbkdf-iterations 1000 disk.raw offered
change='"$VDISK" key add --key-file old --new-key-file new --pbkdf-iterations 1000 offered'
at_terminal "$change"
answer 'offered.[0-9-]*.header first' 1 'y\n'
finish 0 && [ "$(slots offered)" = "0 1" ]; claim "at a terminal a backup of the header is offered"
[ "$(ls offered.*.header | wc -l)" = 1 ] && cryptsetup luksDump offered.*.header | grep -q 'Slot 1: DISABLED'
claim "which has the header of before"
at_terminal '"$VDISK" key remove offered 1'
answer 'offered.[0-9-]*.header first' 1 '\n'
finish 0 && [ "$(ls offered.*.header | wc -l)" = 1 ] && [ "$(slots offered)" = 0 ]; claim "a plain return makes none"
at_terminal "${change% offered} -q offered"
finish 0 && ! grep -aq 'first' screen; claim "with -q nobody is asked"
check "without a terminal" "$VDISK" key remove offered 1 < /dev/null
[ "$(grep -c 'header-backup' "$stderr")" = 1 ]; claim "the option is named, once"

# ---- LUKS2 keeps its header twice
"$VDISK" encrypt -q -O raw --type luks2 --key-file old --pbkdf-iterations 4 --pbkdf-memory 32 disk.raw two
cp two whole
dd if=/dev/zero of=two bs=16384 count=1 conv=notrunc status=none
check "a LUKS2 container whose beginning is lost opens by the second copy" opens two old
check "list warns of it" "$VDISK" key list two
grep -q 'first of the two copies of the header is damaged' "$stderr"; claim "and names the copy"
"$VDISK" key list --output=json two | grep -q '"damaged-copy":1'; claim "in JSON, too"
"$VDISK" key backup-header -q two two.hdr && cryptsetup luksDump two.hdr > /dev/null; claim "a backup has both copies"
cp two first-gone
check "a change of keys" "$VDISK" key add -q --key-file old --new-key-file new --pbkdf-iterations 4 --pbkdf-memory 32 two
cryptsetup luksDump two > /dev/null && run "$VDISK" key list two && [ ! -s "$stderr" ]; claim "mends the first copy"
cp first-gone two
check "so does a backup that is put back" "$VDISK" key restore-header -q --key-file old two two.hdr
cryptsetup luksDump two > /dev/null && opens two old; claim "and the disk is whole"
cp first-gone two
printf '\125\252' | dd of=two bs=1 seek=510 conv=notrunc status=none
"$VDISK" info two | grep -q '^NOT ENCRYPTED'; claim "what else begins there is not taken for a container"
check "unless it is named so" "$VDISK" key verify -f luks --key-file old two

# ---- a wrong key is 12, a header that was tampered with is 13
dd if=/dev/zero of=two bs=16384 count=2 conv=notrunc status=none
check_fails 1 "with both copies lost there is no header" "$VDISK" key verify -f luks --key-file old two
# byte FILE OFFSET OCTAL...
byte() {
	file=$1 at=$2
	shift 2
	printf "$@" | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
}
cp whole two && byte two 5000 '\377' && byte two 21384 '\377'
check_fails 13 "a checksum wrong in both copies" "$VDISK" key verify --key-file old two
check_fails 13 "for list, too" "$VDISK" key list two
check_fails 13 "and for who reads" "$VDISK" decrypt --key-file old two no.raw
cp whole two && byte two 40000 '\377\377\377\377'
check_fails 12 "key material that was changed is a wrong key" "$VDISK" key verify --key-file old two
cp "$stderr" material
check_fails 12 "as a wrong passphrase is" "$VDISK" key verify --key-file wrong whole
sed 's/whole/two/' "$stderr" | cmp -s - material; claim "in the same words"
"$VDISK" encrypt -q -O raw --key-file old --pbkdf-iterations 1000 disk.raw stripes
byte stripes 252 '\0\0\0\1'
check_fails 13 "LUKS1 with another number of stripes" "$VDISK" key verify --key-file old stripes
grep -q 'tampered with' "$stderr" && grep -q 'restore-header' "$stderr"; claim "with a hint"

# ---- escrow
for who in ann bob eve; do age-keygen -o $who.key 2>/dev/null; done
pub() { age-keygen -y $1.key; }
"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw e.qcow2
check "escrow" "$VDISK" key escrow --key-file old --pbkdf-iterations 1000 --recipient "$(pub ann)" --recipient "$(pub bob)" e.qcow2 e.age
[ "$(stat -c %a e.age)" = 600 ]; claim "only its owner reads the file"
for who in ann bob; do
	age -d -i $who.key e.age > $who.secret && opens e.qcow2 $who.secret
	claim "$who gets the key from age, and it opens the disk"
done
! age -d -i eve.key e.age > eve.secret 2>/dev/null; claim "eve does not"
"$VDISK" key list e.qcow2 | grep '^1 *escrow' > /dev/null; claim "list shows what the keyslot is for"
check_fails 64 "a recipient that is none is refused" "$VDISK" key escrow --key-file old --recipient "$(pub ann | tr a-z b-za)" e.qcow2 no.age
check_fails 64 "no recipient, too" "$VDISK" key escrow --key-file old e.qcow2 no.age
check_fails 12 "and a wrong key" "$VDISK" key escrow --key-file wrong --recipient "$(pub ann)" e.qcow2 no.age
check_fails 1 "an existing file is kept" "$VDISK" key escrow --key-file old --recipient "$(pub ann)" e.qcow2 e.age
[ "$(slots e.qcow2)" = "0 1" ] && [ ! -e no.age ]; claim "none of them changes anything"

# ---- escrow to OpenPGP keys, whose owners have a GnuPG each
mkdir -m 700 ann bob old.gnupg
# gpg_of WHO ...: no agent of theirs outlives the script
gpg_of() { who=$1; shift; gpg -q --homedir "$who" --batch --pinentry-mode loopback --passphrase '' "$@"; }
on_exit 'for who in ann bob old.gnupg; do gpgconf --homedir "$who" --kill all; done'
gpg_of ann --quick-gen-key 'Ann <ann@example.org>' future-default default never 2> /dev/null && gpg_of ann --armor --export > ann.asc
gpg_of bob --quick-gen-key 'Bob <bob@example.org>' future-default default never 2> /dev/null && gpg_of bob --export > bob.pgp
gpg_of old.gnupg --faked-system-time 20200101T000000 --quick-gen-key 'Old <old@example.org>' future-default default 1d 2> /dev/null &&
	gpg_of old.gnupg --export > old.pgp
"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw p.qcow2
check "escrow to OpenPGP" env GNUPGHOME=/nonexistent HOME=/nonexistent "$VDISK" key escrow --key-file old --pbkdf-iterations 1000 --openpgp-key ann.asc --openpgp-key bob.pgp p.qcow2 p.pgp
[ "$(stat -c %a p.pgp)" = 600 ]; claim "only its owner reads the message"
for who in ann bob; do
	gpg_of $who -d p.pgp > $who.secret 2> /dev/null && opens p.qcow2 $who.secret
	claim "gpg of $who opens it, and the disk opens with what is in it"
done
check_fails 64 "a key that has expired is refused" "$VDISK" key escrow --key-file old --openpgp-key ann.asc --openpgp-key old.pgp p.qcow2 no.pgp
grep -q 'Old <old@example.org> has expired' "$stderr"; claim "by its name"
sed 's/^:-*BEGIN/-----BEGIN/' bob/openpgp-revocs.d/*.rev | gpg_of bob --import 2> /dev/null && gpg_of bob --export > revoked.pgp
check_fails 64 "one that was revoked, too" "$VDISK" key escrow --key-file old --openpgp-key revoked.pgp p.qcow2 no.pgp
gpg_of ann --export-secret-keys > private.pgp
check_fails 64 "a private key is not asked for" "$VDISK" key escrow --key-file old --openpgp-key private.pgp p.qcow2 no.pgp
check_fails 64 "a file without a key is told" "$VDISK" key escrow --key-file old --openpgp-key old p.qcow2 no.pgp
check_fails 1 "one that is not there, too" "$VDISK" key escrow --key-file old --openpgp-key nobody.asc p.qcow2 no.pgp
check_fails 64 "age and OpenPGP have a file each" "$VDISK" key escrow --key-file old --openpgp-key ann.asc --recipient "$(pub ann)" p.qcow2 no.pgp
[ "$(slots p.qcow2)" = "0 1" ] && [ ! -e no.pgp ]; claim "none of them changes anything"
! ls -d /tmp/vdisk-gpg-* 2> /dev/null; claim "no folder of GnuPG is left"

# ---- two of three officers
"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw s.qcow2
check "a recovery key in shares" "$VDISK" key recovery -q --split 2/3 --key-file old --pbkdf-iterations 1000 s.qcow2
[ "$(wc -l < "$stdout")" = 3 ]; claim "is three lines"
i=0; while read -r line; do i=$((i + 1)); echo "$line" > share$i; done < "$stdout"
for pair in "1 2" "3 1" "2 3"; do
	set -- $pair
	check "shares $pair open the disk" "$VDISK" compare -q --key-share share$1 --key-share share$2 disk.raw s.qcow2
done
check_fails 64 "one share does not" "$VDISK" key verify --key-share share2 s.qcow2
grep -q '2 shares are needed' "$stderr"; claim "and is told how many it takes"
tr c b < share1 > slip
check_fails 64 "a slip of the pen is told" "$VDISK" key verify --key-share slip --key-share share2 s.qcow2
check_fails 64 "a split that is none is refused" "$VDISK" key recovery --split 4/3 --key-file old s.qcow2

# ---- what is no encrypted image
qemu-img create -q -f qcow2 plain.qcow2 1M
check_fails 63 "a plain image has no keyslots" "$VDISK" key list plain.qcow2
check_fails 64 "an unknown act is told" "$VDISK" key lsit plain.qcow2
grep -q 'did you mean list' "$stderr"; claim "with the near one"

# ---- secrets stay out of sight
"$VDISK" key recovery -q --key-file old --pbkdf-iterations 1000 one > shown
key=$(cat shown)
! grep -rlF "$key" . --include='*' --exclude=shown; claim "no file holds the recovery key"
done_testing
