#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Help goes to standard output and succeeds; wrong usage is two lines on standard error and status 64.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"

is_empty() { [ ! -s "$1" ]; }
two_lines() { [ "$(wc -l < "$stderr")" -eq 2 ] && sed -n 1p "$stderr" | grep -q '^vdisk: ' && sed -n 2p "$stderr" | grep -q '^hint: '; }

for words in "" help --help -h; do
	check "help without a verb: '$words'" "$VDISK" $words
	[ "$(wc -l < "$stdout")" -le 48 ] && [ "$(grep -c '^  vdisk ' "$stdout")" -eq 3 ] && is_empty "$stderr"
	claim "it is short and has three examples: '$words'"
done
for verb in info map create convert encrypt decrypt compare snapshot resize amend rebase flatten commit measure; do
	"$VDISK" help | grep -q "^  $verb "
	claim "$verb is in the list"
	check "help $verb" "$VDISK" help $verb
	cp "$stdout" help.txt
	check "$verb --help" "$VDISK" $verb --help
	cmp -s help.txt "$stdout" && is_empty "$stderr"
	claim "is the same for $verb"
	[ "$(awk 'length > 80' help.txt | wc -l)" -eq 0 ]
	claim "fits a terminal for $verb"
done
check "--version" "$VDISK" --version
grep -Eq '^vdisk [0-9]+\.[0-9]+\.[0-9]+$' "$stdout"
claim "prints name and number"

while read -r near words; do
	check_fails 64 "wrong usage: $words" "$VDISK" $words </dev/null
	two_lines && is_empty "$stdout"
	claim "is two lines on standard error: $words"
	grep -q -e "$near" "$stderr"
	claim "names what is near: $words"
done <<'CASES'
encrypt encyrpt a b
info inof a
vdisk.help snapshot
vdisk.help --frobnicate
encrypt help encrpyt
--key-file encrypt --key-fiel k a b
vdisk.help.encrypt encrypt a
vdisk.help.info info a b
aes-256-xts encrypt --cipher des a b
cluster_size convert -O qcow2 -o clustersize=4k a b
CASES

check_fails 64 "wrong usage with --output=json" "$VDISK" encrypt --output=json a
is_empty "$stderr" && json_is "$stdout" '$d->{type}' error && json_is "$stdout" '$d->{code}' 64 &&
	json_is "$stdout" '$d->{name}' usage
claim "is an object on standard output"
check_fails 64 "the same where the option stands last and in two words" "$VDISK" encrypt --frob a b --output json
is_empty "$stderr" && json_is "$stdout" '$d->{code}' 64
claim "is an object on standard output too"

check_fails 14 "a result that cannot be written is a failure" sh -c '"$VDISK" help > /dev/full'
done_testing
