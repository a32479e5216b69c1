#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The requests of the key-command protocol, as each program for it judges them before it asks anybody.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/keycommand.sh"
requires perl
program=$BUILDDIR/vdisk-key-clevis
config='{"url":"http://127.0.0.1:1","thp":"x"}'
printf '{"vdisk-key-command":1,"act":"open","token":{"helper":"clevis"}}' > open.json

asks() { # CLAIM KIND TEXT REQUEST
	printf %s "$4" > request
	check "$1" refuses "$2" "$3" $program tang "$config" < request
}
asks "nothing" failed "none of vdisk" ''
asks "no JSON" failed "none of vdisk" 'hello'
asks "no object" failed "none of vdisk" '[1]'
asks "more than one value" failed "none of vdisk" "$(cat open.json)$(cat open.json)"
asks "no version" failed "none of vdisk" '{"act":"open","token":{"helper":"clevis"}}'
asks "version 2" failed "another version" '{"vdisk-key-command":2,"act":"open","token":{"helper":"clevis"}}'
asks "a version that is text" failed "another version" '{"vdisk-key-command":"1","act":"open","token":{"helper":"clevis"}}'
asks "no act" failed "none of vdisk" '{"vdisk-key-command":1}'
asks "another act" failed "neither to seal nor to open" '{"vdisk-key-command":1,"act":"destroy"}'
asks "no token" failed "no token" '{"vdisk-key-command":1,"act":"open"}'
asks "a token that is text" failed "no token" '{"vdisk-key-command":1,"act":"open","token":"clevis"}'
asks "a token of nobody" no-match "another program" '{"vdisk-key-command":1,"act":"open","token":{}}'
asks "a token of another program" no-match "another program" '{"vdisk-key-command":1,"act":"open","token":{"helper":"clevis2"}}'
asks "an empty token" failed "damaged" "$(cat open.json)"
asks "members that are not known" failed "damaged" '{"x":{"y":[]},"vdisk-key-command":1,"act":"open","token":{"helper":"clevis","z":1}}'
asks "no secret" failed "no secret" '{"vdisk-key-command":1,"act":"seal"}'
asks "an empty secret" failed "no secret" '{"vdisk-key-command":1,"act":"seal","secret":""}'
asks "a secret that is no base64" failed "no secret" '{"vdisk-key-command":1,"act":"seal","secret":"a b"}'
asks "a secret that is too long" failed "no secret" "{\"vdisk-key-command\":1,\"act\":\"seal\",\"secret\":\"$(head -c 8193 /dev/zero | base64 -w 0)\"}"
asks "a request that is too long" failed "over" "{\"vdisk-key-command\":1,\"act\":\"seal\",\"x\":\"$(head -c 40000 /dev/zero | base64 -w 0)\"}"
printf '{"vdisk-key-command":1,"act":"open",\0"token":{"helper":"clevis"}}' > request
check "a zero byte" refuses failed "no JSON" $program tang "$config" < request

check "an option that is not known" refuses failed "no option --nonesuch" $program --nonesuch 1 tang "$config" < open.json
check "an option that is cut" refuses failed "no option --time" $program --time 1 tang "$config" < open.json
check "an option without a value" refuses failed "value is missing" $program --timeout < open.json
check "an option with =" refuses failed "damaged" $program --timeout=5 tang "$config" < open.json
for timeout in 0 3601 -1 1s '' ' 1' 99999999999999999999; do
	check "a time that is none: '$timeout'" refuses failed "--timeout" $program --timeout "$timeout" tang "$config" < open.json
done
for program in $(find "$BUILDDIR" -maxdepth 1 -name "vdisk-key-*"); do
	check "says how it is used: ${program##*/}" "$program" --help
	[ -s "$stderr" ] && not_ok "on standard output" "$(cat "$stderr")" || grep -q "^usage: ${program##*/} " "$stdout"
	claim "and names itself: ${program##*/}"
done
done_testing
