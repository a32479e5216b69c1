#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk-key-pkcs11 with the tokens of SoftHSM, in a folder of their own; pkcs11-tool of OpenSC is another client of them.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/keycommand.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires softhsm2-util pkcs11-tool perl qemu-img cryptsetup
pkcs11=$BUILDDIR/vdisk-key-pkcs11
for module in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so /usr/lib*/libsofthsm2.so; do [ ! -e "$module" ] || break; done

mkdir tokens
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" > softhsm2.conf
export SOFTHSM2_CONF=$PWD/softhsm2.conf
printf '123456\n' > pin; printf '999999\n' > wrong-pin; : > empty-pin; head -c 300 /dev/zero | tr '\0' 1 > long-pin
token() { softhsm2-util --init-token --free --label "$1" --pin 123456 --so-pin 87654321 > softhsm.log; }
tool() { pkcs11-tool --module "$module" --login --pin 123456 "$@" > tool.log 2>&1 || { cat tool.log; return 1; }; }
token 'disk keys' && token other &&
	tool --token-label 'disk keys' --keypairgen --key-type rsa:2048 --id 01 --label wrap &&
	tool --token-label 'disk keys' --keygen --key-type AES:32 --id 02a0 --label aes &&
	tool --token-label other --keypairgen --key-type rsa:2048 --id 01 --label wrap
claim "there are two tokens with keys"

rsa="$pkcs11 --module $module --pin-file pin --uri pkcs11:token=disk%20keys;object=wrap"
aes="$pkcs11 --module $module --pin-file pin --uri pkcs11:token=disk%20keys;object=aes;type=secret-key"
check "RSA seals" seals token-rsa $rsa
check "RSA opens" opens token-rsa $rsa
check "AES seals" seals token-aes $aes
check "AES opens" opens token-aes $aes
! grep -q "$secret_base64\|$secret_text" token-rsa token-aes && [ "$(cat token-rsa token-aes | wc -c)" -lt 1200 ]
claim "the tokens are short, and hold no secret"
json_is token-aes '$d->{token}{id}' 02a0 && json_is token-aes '$d->{token}{mechanism}' aes-gcm; claim "they name the key"
seals token-again $aes && ! cmp -s token-again token-aes; claim "sealing the same again gives another token"
check "a public key seals without a PIN" seals token-rsa $pkcs11 --module $module --uri 'pkcs11:token=disk%20keys;object=wrap'
check "by the id" opens token-rsa $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=disk%20keys;id=%01'
check "p11-kit finds the module" opens token-rsa $pkcs11 --pin-file pin --uri 'pkcs11:token=disk%20keys'

# ---- another client
perl -MJSON::PP -MMIME::Base64 -e 'local $/; print decode_base64(decode_json(<STDIN>)->{token}{data})' < token-rsa > data
tool --token-label 'disk keys' --decrypt --mechanism RSA-PKCS-OAEP --hash-algorithm SHA-1 --mgf MGF1-SHA1 --id 01 --input-file data --output-file by-tool
[ "$(cat by-tool)" = "$secret_text" ]; claim "pkcs11-tool gets the secret"
softhsm2-util --show-slots > slots && serial=$(sed -n 's/ *Serial number: *//p' slots | head -1) && [ -n "$serial" ]
claim "a token has a serial number"

# ---- what the options name
check "another token has no such key" refuses failed "another key" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=other' < token-rsa
check "nor a key of that id" refuses no-match "no key" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=other' < token-aes
check "several tokens" refuses failed "names 2" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:' < token-rsa
check "no token" refuses unavailable "is there" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=nowhere' < token-rsa
check "no module" refuses unavailable "no PKCS#11 module" $pkcs11 --module /nowhere.so --pin-file pin --uri 'pkcs11:token=other' < token-rsa
check "no key to seal with" refuses failed "neither" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=other;object=aes' < seal.json
check "no URI" refuses failed "--uri" $pkcs11 --module $module < seal.json
for uri in pkcs12: 'pkcs11:token=a?pin-value=123456' 'pkcs11:token=a?pin-source=file:pin' 'pkcs11:?module-path=/tmp/evil.so' 'pkcs11:x=1'; do
	check "no URI: $uri" refuses failed "--uri" $pkcs11 --uri "$uri" < token-rsa
done
tool --token-label other --keypairgen --key-type rsa:2048 --id 03 --label second
check "several keys" refuses failed "several keys" $pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=other' < seal.json

# ---- PINs
check "no file of the PIN" refuses failed "nowhere" $rsa --pin-file nowhere < token-rsa
check "an empty one" refuses failed "no PIN" $rsa --pin-file empty-pin < token-rsa
check "one without end" refuses failed "at most" $rsa --pin-file long-pin < token-rsa
check "no terminal" setsid sh -c '. "$SRCDIR/tests/support/keycommand.sh"; refuses failed "no terminal" "$@" < token-rsa' - \
	$pkcs11 --module $module --uri 'pkcs11:token=disk%20keys'
check "a wrong PIN" refuses denied "PIN is wrong" $rsa --pin-file wrong-pin < token-rsa
check "is not tried from a file again" refuses denied "wrong PIN was given before" $rsa --pin-file wrong-pin < token-rsa
check "nor is another" refuses denied "wrong PIN was given before" $rsa < token-rsa
at_terminal "$pkcs11 --module $module --uri 'pkcs11:token=disk%20keys' < token-rsa > typed.json"
answer 'PIN of disk keys: ' 1 '123456\n'
finish 0 && grep -q "$secret_base64" typed.json && ! grep -q 123456 screen
claim "until it was typed"
check "then the file counts again" opens token-rsa $rsa

# ---- what is no token
changed() { # FILE CLAIM KIND TEXT EXPRESSION
	with_token "$5" < "$1" > changed
	check "$2" refuses "$3" "$4" $rsa --uri 'pkcs11:token=disk%20keys' < changed
}
flip='use MIME::Base64; my $b = decode_base64($t->{data}); substr($b, 5, 1) ^= "\1"; $t->{data} = encode_base64($b, "")'
changed token-rsa "RSA: another byte" failed damaged "$flip"
changed token-aes "AES: another byte" failed damaged "$flip"
changed token-aes "AES: another IV" failed damaged '$t->{iv} = "AAAAAAAAAAAAAAAA"'
changed token-aes "AES: a short IV" failed damaged '$t->{iv} = "AAAA"'
changed token-aes "AES: no IV" failed damaged 'delete $t->{iv}'
changed token-aes "AES: nothing but half a tag" failed damaged '$t->{data} = "AAAA"'
changed token-rsa "RSA: short data" failed damaged '$t->{data} = "AAAA"'
changed token-rsa "data without end" failed damaged '$t->{data} = "A" x 3000'
changed token-rsa "no data" failed damaged '$t->{data} = ""'
changed token-rsa "an unknown mechanism" failed "does not know" '$t->{mechanism} = "rsa-pkcs1"'
changed token-rsa "a mechanism of another key" no-match "no key" '$t->{mechanism} = "aes-gcm"; $t->{iv} = "AAAAAAAAAAAAAAAA"'
changed token-rsa "an id that is not there" no-match "no key" '$t->{id} = "77"'
for id in '' 0 zz 0x01 01A; do changed token-rsa "no id: '$id'" failed damaged "\$t->{id} = '$id'"; done
changed token-rsa "an id without end" failed damaged '$t->{id} = "ab" x 65'
changed token-rsa "of another program" no-match "" '$t->{helper} = "tpm2"'
check "says how it is used" $pkcs11 --help

# ---- with vdisk
printf pass > pass; printf 'other' > other
make_disk disk.raw 1048576
command() { echo "$pkcs11 --module $module --pin-file pin --uri 'pkcs11:token=disk%20keys;object=$1'"; }
on() { # KIND OPTIONS
	kind=$1
	shift
	"$VDISK" encrypt -q --key-file pass "$@" disk.raw "$kind"
	check "$kind: add" "$VDISK" key add -q --key-file pass --new-key-command "$(command wrap)" "$kind"
	check "$kind: the token alone opens it" "$VDISK" compare -q --key-command "$(command wrap)" disk.raw "$kind"
	check "$kind: and opens it for another key" "$VDISK" key add -q --key-command "$(command wrap)" --new-key-command "$(command aes)" "$kind"
	check "$kind: which opens it, too" "$VDISK" compare -q --key-command "$(command aes)" disk.raw "$kind"
	"$VDISK" key list "$kind" | grep -q '^1 *token pkcs11 '; claim "$kind: list names it"
	check "$kind: the passphrase may go" "$VDISK" key remove -q "$kind" 0
}
on qcow2 --pbkdf-iterations 1000
"$VDISK" key add -q --key-command "$(command wrap)" --new-key-file pass --pbkdf-iterations 1000 qcow2
peer="--object secret,id=a,file=pass --object secret,id=b,file=other --image-opts"
again qemu-img amend $peer driver=qcow2,file.filename=qcow2,encrypt.key-secret=a -o encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=1
claim "qcow2: qemu-img adds a keyslot"
on luks2 -O raw --type luks2 --pbkdf-iterations 4 --pbkdf-memory 32
cryptsetup token export --token-id 0 luks2 | grep -q '"token":{"helper":"pkcs11"'; claim "luks2: cryptsetup shows the token"
for kind in qcow2 luks2; do
	check "$kind: opens still" "$VDISK" compare -q --key-command "$(command wrap)" disk.raw $kind
	check_fails 12 "$kind: a wrong PIN is told as such" "$VDISK" key verify --key-command "$(command wrap) --pin-file wrong-pin" $kind
	grep -q 'PIN is wrong' "$stderr"; claim "$kind: in words"
	at_terminal "'$VDISK' key verify --key-command \"$pkcs11 --module $module --uri 'pkcs11:token=disk%20keys;object=wrap'\" $kind"
	answer 'PIN of disk keys: ' 1 '123456\n'
	finish 0; claim "$kind: a PIN is typed for it"
done
done_testing
