#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk-key-kmip with the server of PyKMIP, and with servers that lie.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/certs.sh"
. "$SRCDIR/tests/support/keycommand.sh"
requires pykmip-server openssl perl
kmip=$BUILDDIR/vdisk-key-kmip

make_ca ca && make_ca other-ca && make_cert server ca serverAuth IP:127.0.0.1 && make_cert elsewhere ca serverAuth DNS:elsewhere.test &&
	make_cert client ca clientAuth && make_cert second ca clientAuth && make_cert stranger other-ca clientAuth
claim "there are certificates"

# start_kmip: it stops slowly when asked to, so that its whole process group is killed.
start_kmip() {
	port=$(/usr/bin/python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
	mkdir -p policy
	cat > kmip.conf <<-CONF
		[server]
		hostname=127.0.0.1
		port=$port
		certificate_path=$PWD/server.crt
		key_path=$PWD/server.key
		ca_path=$PWD/ca.crt
		auth_suite=TLS1.2
		policy_path=$PWD/policy
		database_path=$PWD/kmip.db
		logging_level=DEBUG
	CONF
	setsid pykmip-server -f "$PWD/kmip.conf" -l "$PWD/kmip.log" > kmip.out 2>&1 &
	kmip_pid=$!
	on_exit stop_kmip
	wait_until grep -q 'Starting connection service' kmip.log
}
stop_kmip() {
	[ -z "$kmip_pid" ] && return
	kill -KILL "-$kmip_pid" 2>/dev/null
	wait "$kmip_pid" 2>/dev/null
	kmip_pid=
}
start_kmip
claim "the server runs"

as() { # NAME: options for this client
	echo "--server 127.0.0.1:$port --ca ca.crt --cert $1.crt --cert-key $1.key"
}

seals token $kmip $(as client) 2> seals.err
claim "seals"
check "opens" opens token $kmip $(as client)
[ "$(wc -c < sealed.json)" -lt 512 ] && ! grep -q "$secret_base64\|$secret_text" sealed.json
claim "the token is short, and holds no secret"
check "names are of the image" grep -q "made key .*vdisk-$uuid-" seals.err

# PyKMIP's own client, as another witness: asks about the key of the token, or ends it.
cat > witness.py <<'PY'
import base64
import json
import sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kmip import enums
from kmip.pie.client import ProxyKmipClient

port, token, act = int(sys.argv[1]), json.load(open(sys.argv[2]))["token"], sys.argv[3]
with ProxyKmipClient(hostname="127.0.0.1", port=port, cert="client.crt", key="client.key", ca="ca.crt",
                     config_file="/dev/null") as client:
    if act == "open":
        key = client.get(token["id"])
        wrapped = base64.b64decode(token["wrapped"])
        assert key.cryptographic_algorithm == enums.CryptographicAlgorithm.AES and key.cryptographic_length == 256
        state = client.get_attributes(token["id"], ["State"])[1][0].attribute_value.value
        assert state == enums.State.ACTIVE, state
        sys.stdout.buffer.write(AESGCM(key.value).decrypt(wrapped[:12], wrapped[12:], token["id"].encode()))
    else:
        client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, token["id"])
        client.destroy(token["id"])
PY
witness() { /usr/bin/python3 witness.py "$port" "$@"; }
check "another client unwraps it with the server's key, which is active" witness token open
[ "$(cat "$stdout")" = "$secret_text" ]
claim "and gets the secret"

for version in 1.0 1.1 1.2 1.3 1.4 2.0; do
	check "seals by KMIP $version" seals "token-$version" $kmip $(as client) --kmip-version $version
	check "opens by KMIP $version" opens "token-$version" $kmip $(as client) --kmip-version $version
	grep -q "Request specified KMIP version: $version" kmip.log
	claim "KMIP $version was spoken"
done
check "opens by another version" opens token-2.0 $kmip $(as client) --kmip-version 1.0

id=$(perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{token}{id}' < token)
check "seals by a key that is there" seals token-same $kmip $(as client) --key-id "$id"
check "opens by it" opens token-same $kmip $(as client)
grep -q "\"id\":\"$id\"" sealed.json
claim "its token names it"
check "refuses to seal by a key that is not there" refuses no-match "Could not locate" $kmip $(as client) --key-id 99999 < seal.json

check "another client gets nothing" refuses denied "refuses" $kmip $(as second) < token
check "nor does one of another authority" refuses denied "refuses our certificate" $kmip $(as stranger) < token
check "nor a server of another authority" refuses failed "NOT trusted" $kmip $(as client) --ca other-ca.crt < token
check "a file that is not there" refuses failed "nowhere" $kmip $(as client) --ca nowhere < token
check "a file without a certificate" refuses failed "token" $kmip $(as client) --ca token < token
check "a key of another certificate" refuses failed "client.crt" $kmip $(as client) --cert-key second.key < token

# changed CLAIM KIND TEXT EXPRESSION: the token of the first request, changed.
changed() {
	with_token "$4" < token > changed
	check "$1" refuses "$2" "$3" $kmip $(as client) < changed
}
changed "an unknown key" no-match "Could not locate" '$t->{id} = "4711"'
changed "another key" no-match "does not open" '$t->{id} = "2"'
changed "other bytes" no-match "does not open" '$t->{wrapped} =~ s/^(.{20})(.)/$1 . ($2 eq "A" ? "B" : "A")/e'
changed "no key" failed "damaged" 'delete $t->{id}'
changed "a number for a key" failed "damaged" '$t->{id} = 1'
changed "an empty name of a key" failed "damaged" '$t->{id} = ""'
changed "a line break in a name" failed "damaged" '$t->{id} = "1\n2"'
changed "a zero in a name" failed "damaged" '$t->{id} = "1\0002"'
changed "a long name" failed "damaged" '$t->{id} = "1" x 256'
changed "too few bytes" failed "damaged" '$t->{wrapped} = "AAAA"'
changed "no base64" failed "damaged" '$t->{wrapped} = "%" x 100'
changed "a list" failed "damaged" '$t->{wrapped} = [1]'
changed "of another program" no-match "" '$t->{helper} = "vault"'

disks_open_by kmip "$kmip $(as client)"
disks_refuse 12 "refuses" "$kmip $(as second)"
disks_refuse 1 "NOT trusted" "$kmip $(as client) --ca other-ca.crt"

witness token destroy > /dev/null
check "a key that was destroyed opens nothing" refuses no-match "Could not locate" $kmip $(as client) < token
stop_kmip
check "a server that is away" refuses unavailable "refused" $kmip $(as client) < token-1.2
disks_refuse 1 "refused" "$kmip $(as client)"

# Servers that lie: TLS 1.3, and any bytes for a reply.
/usr/bin/python3 "$SRCDIR/tests/support/tls_reply.py" liar.port server.crt server.key reply 2>/dev/null &
on_exit "kill $!"
/usr/bin/python3 "$SRCDIR/tests/support/tls_reply.py" slow.port server.crt server.key reply 30 2>/dev/null &
on_exit "kill $!"
/usr/bin/python3 "$SRCDIR/tests/support/tls_reply.py" elsewhere.port elsewhere.crt elsewhere.key reply 2>/dev/null &
on_exit "kill $!"
port=$(port_of liar.port)
lies() { # FILE TEXT
	cp "$1" reply
	check "a reply that is ${1##*/}" refuses failed "$2" $kmip $(as client) --kmip-version 1.2 < token-1.2
}
corpus=$SRCDIR/tests/fuzz/corpus/kmip
: > empty
yes | head -1000 > text
lies empty "in the middle"
lies text "no response message"
lies $corpus/truncated "in the middle"
lies $corpus/request "no response message"
lies $corpus/material-of-4-gib "no response message"
lies $corpus/material-is-text "256 bits"
lies $corpus/type-unknown "no response message"
lies $corpus/nested-40-deep "no response message"
lies $corpus/empty-structure "no result"
lies $corpus/create-1.2 "another question"
lies $corpus/get-1.3 "another key"
cp $corpus/get-1.2 reply
check "another key for ours" refuses no-match "does not open" $kmip $(as client) --kmip-version 1.2 < token-1.2
printf '\102\0\173\1\377\377\377\370' > of-4-gib
lies of-4-gib "over 65536 bytes"
cp $corpus/versions-1.1 reply
check "a server that says nothing more" refuses failed "in the middle" $kmip $(as client) < token-1.2

port=$(port_of elsewhere.port)
check "a server with the name of another" refuses failed "name" $kmip $(as client) --kmip-version 1.2 < token-1.2
port=$(port_of slow.port)
before=$(date +%s)
check "a server that does not answer" refuses unavailable "within 1 second" $kmip $(as client) --timeout 1 < token-1.2
[ $(($(date +%s) - before)) -le 4 ]
claim "is not waited for"

check "says how it is used" $kmip --help
check "options that are missing" refuses failed "are needed" $kmip --server x < token
check "a version that is not spoken" refuses failed "--kmip-version" $kmip $(as client) --kmip-version 3.0 < token
done_testing
