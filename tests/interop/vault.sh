#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk-key-vault with a server that has Vault's transit engine, and with servers that lie.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/certs.sh"
. "$SRCDIR/tests/support/keycommand.sh"
requires openssl perl
vault=$BUILDDIR/vdisk-key-vault
printf 'hvs.a-token_of-somebody\n' > credential
printf 'hvs.another\n' > other-credential
make_ca ca && make_ca other-ca && make_cert server ca serverAuth IP:127.0.0.1 && make_cert elsewhere ca serverAuth DNS:elsewhere.test
claim "there are certificates"

start() { # PORT-FILE [CERT KEY]
	/usr/bin/python3 "$SRCDIR/tests/support/transit.py" "$1" credential ${2:-} ${3:-} 2>> transit.log &
	on_exit "kill $!"
}
start tls.port server.crt server.key
start plain.port
start elsewhere.port elsewhere.crt elsewhere.key
tls=https://127.0.0.1:$(port_of tls.port) && plain=http://127.0.0.1:$(port_of plain.port) &&
	elsewhere=https://127.0.0.1:$(port_of elsewhere.port)
claim "the servers run"

# does ENGINE-PATH [JSON]: what an administrator does there
does() {
	/usr/bin/python3 - "$tls/v1/transit/$1" "${2:-{\}}" <<-'PY'
		import ssl, sys, urllib.request
		context = ssl.create_default_context(cafile="ca.crt")
		request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"X-Vault-Token": open("credential").read().strip()})
		print(urllib.request.urlopen(request, context=context).read().decode())
	PY
}
ours="--address $tls --ca ca.crt --token-file credential --key disks"
check "refuses to seal with a key that is not there" refuses failed "encryption key not found" $vault $ours < seal.json
seals token $vault $ours 2> /dev/null
[ $? -ne 0 ]
claim "and gives no token"
check "an administrator makes a key" does keys/disks
check "seals" seals token $vault $ours
check "opens" opens token $vault $ours
[ "$(wc -c < sealed.json)" -lt 512 ] && ! grep -q "$secret_base64\|$secret_text" sealed.json
claim "the token is short, and holds no secret"

does decrypt/disks "$(perl -MJSON::PP -e 'local $/; print encode_json({ ciphertext => decode_json(<STDIN>)->{token}{ciphertext} })' < token)" |
	grep -q "\"plaintext\": \"$secret_base64\""
claim "another client gets the secret by it"

check "the key is rotated" does keys/disks/rotate
check "what was sealed before opens" opens token $vault $ours
check "seals with the new version" seals token-2 $vault $ours
grep -q 'vault:v2:' token-2
claim "which the token tells"
check "the old version is taken away" does keys/disks/config '{"min_decryption_version":2}'
check "what it sealed does not open" refuses denied "too old" $vault $ours < token
check "what the new one sealed does" opens token-2 $vault $ours
check "the old version is back" does keys/disks/config '{"min_decryption_version":1}'
does rewrap/disks "$(perl -MJSON::PP -e 'local $/; print encode_json({ ciphertext => decode_json(<STDIN>)->{token}{ciphertext} })' < token)" > rewrapped
ciphertext=$(perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{data}{ciphertext}' < rewrapped)
with_token "\$t->{ciphertext} = '$ciphertext'" < token > token-rewrapped
check "what the server rewrapped opens" opens token-rewrapped $vault $ours

disks_open_by vault "$vault $ours"
disks_refuse 12 "permission denied" "$vault $ours --token-file other-credential"
disks_refuse 12 "key" "$vault $ours --key other"
disks_refuse 1 "onnect" "$vault $ours --address https://127.0.0.1:1"
disks_refuse 1 "over 65536 bytes" "$vault $ours --mount lie-huge"

check "a credential that the server does not know" refuses denied "permission denied" $vault $ours --token-file other-credential < token
check "no file of the credential" refuses failed "nowhere" $vault $ours --token-file nowhere < token
printf 'two words' > two-words
check "a file that holds none" refuses failed "holds no token" $vault $ours --token-file two-words < token
check "a server of another authority" refuses failed "certificate" $vault $ours --ca other-ca.crt < token
check "a server with the name of another" refuses failed "does not match" $vault $ours --address "$elsewhere" < token
check "http within this machine" refuses failed "not found" $vault $ours --address "$plain" < seal.json
for address in http://127.evil.test http://192.0.2.1 http://127.0.0.1@192.0.2.1 ftp://127.0.0.1 https://127.0.0.1/path nonsense: ''; do
	check "not asked: $address" refuses failed "--address" $vault $ours --address "$address" < token
done
check "another engine" refuses failed "no handler" $vault $ours --mount secret/transit < token
check "a key that is another's" refuses no-match "another key" $vault $ours --key other < token
check "a server that is away" refuses unavailable "onnect" $vault $ours --address https://127.0.0.1:1 < token
check "a server that is sealed" refuses unavailable "is sealed" $vault $ours --mount sealed < token

# changed CLAIM KIND TEXT EXPRESSION: the token, changed.
changed() {
	with_token "$4" < token > changed
	check "$1" refuses "$2" "$3" $vault $ours < changed
}
changed "other bytes" failed "message authentication failed" '$t->{ciphertext} =~ s/^(.{20})(.)/$1 . ($2 eq "A" ? "B" : "A")/e'
changed "a version that is not there" denied "too new" '$t->{ciphertext} =~ s/v1/v9/'
changed "no ciphertext" failed "damaged" 'delete $t->{ciphertext}'
changed "no ciphertext of Vault" failed "damaged" '$t->{ciphertext} = "YQ=="'
changed "JSON in the ciphertext" failed "damaged" '$t->{ciphertext} .= "\",\"x\":\""'
changed "a long ciphertext" failed "damaged" '$t->{ciphertext} .= "A" x 4000'
changed "a number for a key" failed "damaged" '$t->{key} = 1'
changed "of another program" no-match "" '$t->{helper} = "kmip"'

lies() { # HOW TEXT
	check "a reply that is $1" refuses failed "$2" $vault $ours --mount "lie-$1" < token
}
lies truncated "$tls"
lies huge "over 65536 bytes"
lies text "not one of Vault"
lies types "no plaintext"
lies short "no plaintext"
lies redirect "status 307"
for how in types short huge text; do
	check "sealing: a reply that is $how" refuses failed "repl" $vault $ours --mount "lie-$how" < seal.json
done
before=$(date +%s)
check "a server that does not answer" refuses unavailable "timed out" $vault $ours --mount lie-slow --timeout 1 < token
[ $(($(date +%s) - before)) -le 4 ]
claim "is not waited for"

check "says how it is used" $vault --help
check "options that are missing" refuses failed "are needed" $vault --key x < token
check "a name that is a path" refuses failed "--key" $vault $ours --key ../../sys/seal < token
done_testing
