#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk-key-clevis with Clevis and two servers of Tang, with tokens that name others, and with a Clevis that lies.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/keycommand.sh"
requires clevis jose socat perl
PATH=$PATH:/usr/libexec
requires tangd tangd-keygen
clevis=$BUILDDIR/vdisk-key-clevis

# start_tang NAME: a server with keys of its own in the folder NAME; $NAME_pid, $NAME_url and $NAME, its configuration
start_tang() {
	st_port=$(/usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
	mkdir "$1" && tangd-keygen "$1" sig exc 2> /dev/null
	socat "TCP-LISTEN:$st_port,bind=127.0.0.1,fork,reuseaddr" "EXEC:$(command -v tangd) $PWD/$1" 2>> tangd.log &
	eval "$1_pid=$! $1_url=http://127.0.0.1:$st_port"
	on_exit "kill $! 2>/dev/null"
	eval "$1='{\"url\":\"http://127.0.0.1:$st_port\",\"thp\":\"$(jose jwk thp -i "$1/sig.jwk")\"}'"
	wait_until curl -sf -o adv "http://127.0.0.1:$st_port/adv"
}
start_tang one && start_tang two
claim "two servers run"

check "seals by tang" seals token $clevis tang "$one"
check "opens" opens token $clevis tang "$one"
! grep -q "$secret_base64\|$secret_text" sealed.json
claim "the token holds no secret"
perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{token}{jwe}' < token > jwe
check "clevis opens it by itself" sh -c 'clevis decrypt < jwe'
[ "$(cat "$stdout")" = "$secret_text" ]
claim "and gets the secret"

one_of="{\"t\":1,\"pins\":{\"tang\":[$one,$two]}}"
both="{\"t\":2,\"pins\":{\"tang\":[$one,$two]}}"
nested="{\"t\":1,\"pins\":{\"sss\":{\"t\":1,\"pins\":{\"tang\":[$one]}}}}"
for how in one_of both nested; do
	eval "config=\$$how"
	check "seals by sss, $how" seals "token-$how" $clevis sss "$config"
	check "opens by sss, $how" opens "token-$how" $clevis sss "$config"
done
three="{\"t\":1,\"pins\":{\"tang\":[$one,$two,$one]}}"
check "three servers are too much for a token" refuses failed "prints more than" $clevis sss "$three" < seal.json

# Whom a token names, the options must name, too.
check "a server that is not configured is not asked" refuses no-match "not configured" $clevis tang "$two" < token
check "nor one within sss" refuses no-match "not configured" $clevis tang "$one" < token-one_of
check "nor one within sss within sss" refuses no-match "not configured" $clevis tang "$two" < token-nested
check "the servers may be configured within sss" opens token $clevis sss "$one_of"
# header JSON: the token with another protected header
header() {
	with_token 'use MIME::Base64 "encode_base64url"; $t->{jwe} =~ s/^[^.]*/encode_base64url($ARGV[0])/e' "$1" < token
}
refuses_header() { # CLAIM KIND TEXT HEADER
	header "$4" > changed
	check "$1" refuses "$2" "$3" $clevis tang "$one" < changed
}
refuses_header "a pin of another kind" no-match "not configured" '{"clevis":{"pin":"null","null":{}}}'
refuses_header "a pin that is a path" no-match "not configured" '{"clevis":{"pin":"../x","../x":{}}}'
refuses_header "two servers, the second of which counts" no-match "not configured" \
	"{\"clevis\":{\"pin\":\"tang\",\"tang\":{\"url\":\"$one_url\",\"url\":\"$two_url\"}}}"
refuses_header "no server" no-match "not configured" '{"clevis":{"pin":"tang","tang":{}}}'
refuses_header "no pin" failed "damaged" '{"clevis":{}}'
refuses_header "no JSON" failed "damaged" 'x'
refuses_header "a number within sss" failed "damaged" '{"clevis":{"pin":"sss","sss":{"jwe":[1]}}}'
refuses_header "a pin without what it needs" failed "clevis failed" "{\"clevis\":{\"pin\":\"tang\",\"tang\":{\"url\":\"$one_url\"}}}"
changed() { # CLAIM KIND TEXT EXPRESSION
	with_token "$4" < token > changed
	check "$1" refuses "$2" "$3" $clevis tang "$one" < changed
}
changed "other bytes" failed "clevis failed" '$t->{jwe} =~ s/(.)$/$1 eq "A" ? "Q" : "A"/e'
changed "no JWE" failed "damaged" '$t->{jwe} = "a b"'
changed "an option for a JWE" failed "damaged" '$t->{jwe} = "--help"'
changed "a long JWE" failed "damaged" '$t->{jwe} .= "A" x 4000'
changed "a number" failed "damaged" '$t->{jwe} = 1'
changed "of another program" no-match "" '$t->{helper} = "kmip"'
grep -c "/rec/" tangd.log > before
check "a URL behind ours" refuses no-match "not configured" $clevis tang "$(echo "$one" | sed 's|http://|http://x@|')" < token
[ "$(grep -c /rec/ tangd.log)" = "$(cat before)" ]
claim "nobody was asked"

# Configurations.
check "no thumbprint: nobody is there to ask" refuses failed "thp" $clevis tang "{\"url\":\"$one_url\"}" < seal.json
check "another thumbprint" refuses denied "trusts" $clevis tang "{\"url\":\"$one_url\",\"thp\":\"$(jose jwk thp -i one/sig.jwk)\",\"adv\":\"adv\"}" < seal.json
check "an advertisement in a file" seals token-adv $clevis tang "{\"url\":\"$two_url\",\"adv\":\"adv\"}"
check "opens with it" opens token-adv $clevis tang "{\"url\":\"$two_url\",\"adv\":\"adv\"}"
check "another pin" refuses failed "are known" $clevis tpm2 '{}' < seal.json
check "another pin within sss" refuses failed "are known" $clevis sss '{"t":1,"pins":{"null":{}}}' < seal.json
check "no JSON" refuses failed "no JSON" $clevis tang x < seal.json
check "no configuration" refuses failed "needed" $clevis tang < seal.json
check "says how it is used" $clevis --help

disks_open_by clevis "$clevis tang '$one'"
disks_refuse 12 "key" "$clevis tang '$two'"

# Away.
kill "$one_pid"
wait_until sh -c "! curl -s -o /dev/null $one_url/adv"
check "a server that is away" refuses unavailable "does not answer" $clevis tang "$one" < token 2> /dev/null
disks_refuse 1 "does not answer" "$clevis tang '$one'"
check "one of two is enough" opens token-one_of $clevis sss "$one_of"
check "where both are needed it is not" refuses unavailable "does not answer" $clevis sss "$both" < token-both
check "a server that is away when sealing" refuses unavailable "does not answer" $clevis tang "$one" < seal.json

# A program of that name that is not what it should be.
mkdir bin
lies() { # CLAIM KIND TEXT REQUEST LINE-OF-SHELL
	printf '#!/bin/sh\n%s\n' "$5" > bin/clevis
	chmod +x bin/clevis
	check "$1" refuses "$2" "$3" env "PATH=$PWD/bin:$PATH" $clevis --timeout 1 tang "$one" < "$4"
}
lies "no end of a JWE" failed "prints more than" seal.json 'yes eyJhbGciOiJFQ0RI'
lies "no end of a secret" failed "prints more than" token 'yes eyJhbGciOiJFQ0RI'
lies "no JWE is printed" failed "something else" seal.json 'echo a b'
lies "nothing is printed" failed "something else" seal.json 'cat > /dev/null'
lies "no secret is printed" failed "no secret" token 'cat > /dev/null'
lies "it does not end" unavailable "in time" token 'sleep 60'
lies "it reads nothing, and fails" failed "clevis failed" seal.json 'exit 3'
lies "a signal" failed "clevis failed" seal.json 'kill -SEGV $$'
ln -s "$(command -v timeout)" bin/timeout
rm bin/clevis
check "there is none" refuses failed "no program clevis" env "PATH=$PWD/bin" $clevis tang "$one" < token
done_testing
