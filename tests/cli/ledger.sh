#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The ledger: what changes something is written down before and after, what only looks is not; it verifies, and what was done to it is told.
# The chain itself, line by line: tests/unit/test_book.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires ssh-keygen perl

export VDISK_LEDGER="$PWD/book"
printf secret > pw
check "a ledger with nothing in it" "$VDISK" ledger verify
"$VDISK" create -q -f qcow2 a.qcow2 16M
"$VDISK" convert -q -O qcow2 --encrypt --new-passphrase-file pw a.qcow2 b.qcow2
"$VDISK" create -q a.qcow2 1M 2>/dev/null
"$VDISK" key add -q --passphrase-file pw --new-passphrase-command 'printf do-not-keep' b.qcow2
run "$VDISK" key list b.qcow2
run "$VDISK" info a.qcow2
run "$VDISK" check a.qcow2
run "$VDISK" snapshot -l a.qcow2
run "$VDISK" wipe --dry-run a.qcow2

check "show" "$VDISK" ledger show --output=json
json_is "$stdout" 'join(" ", map $_->{act} . "=" . $_->{outcome}, @$d)' 'create=done convert=done create=failed key=done'
claim "has what changed something, and how it ended, and not what only looked"
json_is "$stdout" '$d->[0]{end}{what}{made}[0]' "$PWD/a.qcow2"
claim "and what was made, by its whole path"
json_is "$stdout" '$d->[2]{end}{what}{error}' exists
claim "and why it failed"
! grep -rq do-not-keep book
claim "a command that gives a secret is not kept"
check "show --image finds what made it" "$VDISK" ledger show --image b.qcow2 --output=json
json_is "$stdout" 'join(" ", map $_->{act}, @$d)' 'convert key'
claim "and what was done to it since"
check "show --act --who --since" "$VDISK" ledger show --act create --who "$(id -un)" --since 1d --output=json
json_is "$stdout" 'scalar @$d' 2
claim "takes what all of them want"
check "show --until" "$VDISK" ledger show --until 2020-01-01 --output=json
json_is "$stdout" 'scalar @$d' 0
claim "before there was any"
check_fails 64 "a time that is none is refused" "$VDISK" ledger show --since yesterday

check_fails 64 "an option that would change nothing is refused" "$VDISK" ledger verify --since 1d

# ---- killed ----
"$VDISK" wipe -q --dry-run a.qcow2 > /dev/null
dd if=/dev/urandom of=big.raw bs=1M count=64 2>/dev/null
"$VDISK" convert -q -O qcow2 --compress --threads=1 big.raw big.qcow2 &
pid=$!
tries=0
while ! grep -q big.qcow2 book/*.jsonl && [ $tries -lt 200 ]; do tries=$((tries + 1)); sleep 0.02; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
check "after a kill" "$VDISK" ledger show --image big.raw --output=json
json_is "$stdout" '$d->[0]{outcome}' 'not closed'
claim "the act was announced, and is not closed"
printf '{"kind":"begin","n":' >> book/00000001.jsonl
check "a line of which half was written: verify" "$VDISK" ledger verify
"$VDISK" create -q c.raw 1M
check "and after the next act" "$VDISK" ledger verify
check "the half was cut off, and it says so" "$VDISK" ledger show --act torn --output=json
json_is "$stdout" '$d->[0]{line}{what}{bytes}' 20
claim "with its length"

# ---- signed ----
ssh-keygen -q -t ed25519 -N '' -C auditor -f auditor
echo "auditor $(cat auditor.pub)" > allowed
ssh-keygen -q -t ed25519 -N '' -C other -f other
echo "other $(cat other.pub)" > others
check "checkpoint" "$VDISK" ledger checkpoint --sign-key auditor
check "verify with the key's list" "$VDISK" ledger verify --allowed-signers allowed --output=json
json_is "$stdout" '"$d->{checkpoints} $d->{signatures}"' '1 1'
claim "counts it"
check_fails 13 "a key that is not in the list is told" "$VDISK" ledger verify --allowed-signers others
perl -MJSON::PP -ne 'my $d = decode_json($_); next if $d->{kind} ne "checkpoint";
	open my $m, ">", "message"; print $m JSON::PP->new->canonical->encode($d->{what}); open my $s, ">", "message.sig"; print $s $d->{signature}' book/00000001.jsonl
ssh-keygen -Y verify -f allowed -I auditor -n vdisk-checkpoint -s message.sig < message > /dev/null 2>&1
claim "ssh-keygen verifies the checkpoint"

# ---- changed ----
cp -r book whole
# changed CLAIM WORDS PERL: verify fails with the words after PERL, which has the lines in @l, changed them
changed() {
	rm -rf book && cp -r whole book
	perl -e 'open my $f, "<", "book/00000001.jsonl"; my @l = <$f>; close $f; eval $ARGV[0]; die $@ if $@; open $f, ">", "book/00000001.jsonl"; print $f @l' "$3"
	if "$VDISK" ledger verify >"$stdout" 2>"$stderr" || ! grep -q "$2" "$stderr"; then
		not_ok "$1" "$(cat "$stderr")"
	else
		ok "$1"
	fi
}
changed "an edit is told" 'line 5 was changed' '$l[4] =~ s/"act":"/"act":"x/'
changed "a cut is told" 'line 4 is missing' 'splice @l, 3, 1'
changed "a reorder is told" 'line 4 stands where line 3 should' '@l[2, 3] = @l[3, 2]'
changed "a truncated tail is told" 'its end was cut off' 'pop @l'
changed "a line that is none is told" 'line 2 was changed' '$l[1] = "{}\n"'
check_fails 1 "and nothing is done that cannot be written down" "$VDISK" create -q d.raw 1M
[ ! -e d.raw ]
claim "nothing at all"
rm -rf book && mv whole book

# ---- off ----
check "off" "$VDISK" ledger off
"$VDISK" create -q e.raw 1M
check "on" "$VDISK" ledger on
"$VDISK" create -q f.raw 1M
check "show" "$VDISK" ledger show --output=json
! grep -q e.raw "$stdout" && grep -q f.raw "$stdout" && grep -q ledger-off "$stdout"
claim "what was done while it was off is not there, that it was off is"
touch book/off
check_fails 1 "off without a line that says so is told" "$VDISK" ledger verify
rm book/off

# ---- exported ----
check "export as ECS" "$VDISK" ledger export --format=ecs
perl -MJSON::PP -ne 'my $d = decode_json($_); exit 1 if !$d->{"\@timestamp"} || !$d->{event}{action}; $n++; END { exit($n < 5) }' "$stdout"
claim "a document a line"
check "export as CEF" "$VDISK" ledger export --format=cef
[ "$(grep -cv '^CEF:0|vdisk|vdisk|[0-9.]*|[a-z-]*|[a-z-]*|[36]|externalId=' "$stdout")" = 0 ]
claim "a line each"
check "export as CSV into a file" "$VDISK" ledger export --format=csv --file out.csv
python3 -c 'import csv,sys; r = list(csv.reader(open("out.csv", newline=""))); sys.exit(len(r) < 5 or any(len(x) != 11 for x in r))'
claim "eleven fields a line"
check_fails 1 "and not over a file" "$VDISK" ledger export --format=csv --file out.csv
"$VDISK" create -q "$(printf '=1+1|a=b\\"\nx')" 1M
check "hostile names: CSV" "$VDISK" ledger export --format=csv --file out2.csv
python3 -c 'import csv,sys; r = list(csv.reader(open("out2.csv", newline=""))); sys.exit(any(len(x) != 11 or x[6][:1] in "=+-@" and x[6] for x in r))'
claim "are fields, and no formulas"
check "hostile names: CEF" "$VDISK" ledger export --format=cef
[ "$(grep -cv '^CEF:0' "$stdout")" = 0 ]
claim "and no lines of their own"

done_testing
