#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# vdisk-key-tpm2 with the TPM of swtpm, which is booted, measured into, and taken away; tpm2-tools is another client of it.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/keycommand.sh"
requires swtpm tpm2_unseal perl qemu-img cryptsetup
tpm2=$BUILDDIR/vdisk-key-tpm2

# boot NAME: a TPM of that name starts, at $port, and a firmware measures itself.
answers() { tpm2_pcrread -Q -T "swtpm:host=127.0.0.1,port=$port" sha256:0; }
boot() {
	mkdir -p "$1"
	for bt_try in 1 2 3 4 5; do
		port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000 * 2))
		swtpm socket --tpm2 --tpmstate dir="$1" --server type=tcp,port=$port --ctrl type=tcp,port=$((port + 1)) \
			--flags startup-clear > "$1.log" 2>&1 &
		tpm_pid=$!
		on_exit "kill $tpm_pid 2> /dev/null"
		# Whoever has the port already is not this one.
		wait_until answers && kill -0 $tpm_pid && break
	done
	tcti=swtpm:host=127.0.0.1,port=$port
	export TPM2TOOLS_TCTI=$tcti
	extend 7 "what $1 boots"
}
halt() { kill $tpm_pid; wait $tpm_pid; }
extend() { tpm2_pcrextend "$1:sha256=$(printf %s "$2" | sha256sum | cut -d ' ' -f 1)"; }
is_empty() { [ -z "$(tpm2_getcap handles-transient; tpm2_getcap handles-loaded-session)" ]; }

boot here && is_empty
claim "there is a TPM"
check "seals" seals token $tpm2 --tcti $tcti
check "opens" opens token $tpm2 --tcti $tcti
[ "$(wc -c < sealed.json)" -lt 1024 ] && ! grep -q "$secret_base64\|$secret_text" sealed.json
claim "the token is short, and holds no secret"
is_empty; claim "nothing stays in the TPM"
json_is token '$d->{token}{"machine-bound"}' true; claim "the token is bound to the machine"

# ---- another client
part() { perl -MJSON::PP -MMIME::Base64 -e 'local $/; print decode_base64(decode_json(<STDIN>)->{token}{$ARGV[0]})' "$1" < token > "$1"; }
part public && part private
tpm2_createprimary -Q -C o -G ecc256:aes128cfb -c primary -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt' &&
	tpm2_flushcontext -t &&
	tpm2_load -Q -C primary -u public -r private -c sealed && tpm2_flushcontext -t && [ "$(tpm2_unseal -c sealed -p pcr:sha256:7)" = "$secret_text" ]
claim "tpm2-tools open it"
tpm2_flushcontext -t; ! tpm2_unseal -Q -c sealed 2> /dev/null && tpm2_flushcontext -t && ! tpm2_unseal -Q -c sealed -p pcr:sha256:8 2> /dev/null
claim "but by these PCRs alone"
tpm2_flushcontext -t; tpm2_readpublic -c sealed > attributes && grep -q 'fixedtpm|fixedparent$' attributes
claim "no password opens it, and no other TPM"
tpm2_flushcontext -t; tpm2_flushcontext -l
TCTI_PCAP_FILE=wire $tpm2 --tcti "pcap:$tcti" < token > opened.json && TCTI_PCAP_FILE=wire-2 $tpm2 --tcti "pcap:$tcti" < seal.json > /dev/null &&
	[ -s wire ] && [ -s wire-2 ] && ! grep -q "$secret_text" wire wire-2
claim "the bus does not see the secret"

# ---- PCRs
$tpm2 --tcti $tcti --pcrs 11 < seal.json 2>&1 > /dev/null | grep -q 'nothing has been measured into PCR 11'
claim "an empty PCR is told"
check "seals to two PCRs" seals token-2 $tpm2 --tcti $tcti --pcrs 7,16
check "opens" opens token-2 $tpm2 --tcti $tcti
extend 16 'something else'
check "one of the two changes" refuses denied "other values" $tpm2 --tcti $tcti < token-2
check "which is nothing to the other token" opens token $tpm2 --tcti $tcti
is_empty; claim "what was denied stays not in the TPM either"
halt; boot here
check "after a boot of the same they are what they were" opens token-2 $tpm2 --tcti $tcti
halt
check "a TPM that is away" refuses unavailable "no TPM can be opened" $tpm2 --tcti $tcti < token
boot elsewhere
check "another TPM" refuses no-match "another machine" $tpm2 --tcti $tcti < token
halt; boot here

# ---- what is no token, no secret, no option
changed() { # CLAIM KIND TEXT EXPRESSION
	with_token "$4" < token > changed
	check "$1" refuses "$2" "$3" $tpm2 --tcti $tcti < changed
}
changed "other PCRs in the token" denied "other values" '$t->{pcrs} = [8]'
changed "no PCRs" failed damaged '$t->{pcrs} = []'
changed "a PCR that there is none of" failed damaged '$t->{pcrs} = [24]'
changed "a PCR below all" failed damaged '$t->{pcrs} = [-1]'
changed "PCRs that are text" failed damaged '$t->{pcrs} = ["7"]'
changed "PCRs without end" failed damaged '$t->{pcrs} = [(7) x 25]'
changed "another byte in the private part" failed damaged 'use MIME::Base64; my $b = decode_base64($t->{private}); substr($b, 60, 1) ^= "\1"; $t->{private} = encode_base64($b, "")'
changed "half a public part" failed damaged '$t->{public} = substr($t->{public}, 0, 40)'
changed "more behind the private part" failed damaged '$t->{private} =~ s/=*$//; $t->{private} .= "A" x (8 - length($t->{private}) % 4)'
changed "a private part without end" failed damaged '$t->{private} = "A" x 3200'
changed "no private part" failed damaged 'delete $t->{private}'
changed "a key for a secret" failed damaged '$t->{public} = "ABoAIwALAAAAAAAAAAAAEAAgAAMAEAAAAAAAAAAA"'
changed "of another program" no-match "" '$t->{helper} = "kmip"'
is_empty; claim "nothing of all that stays in the TPM"
for pcrs in '' 24 -1 7, ,7 7,x 7-8 0x7; do
	check "no PCRs: '$pcrs'" refuses failed "--pcrs" $tpm2 --tcti $tcti --pcrs "$pcrs" < seal.json
done
long() { perl -MMIME::Base64 -e 'printf q({"vdisk-key-command":1,"act":"seal","secret":"%s"}), encode_base64("x" x shift, "")' "$1"; }
long 128 > seal-128; check "seals 128 bytes" $tpm2 --tcti $tcti < seal-128
long 129 > seal-129; check "and no more" refuses failed "at most 128" $tpm2 --tcti $tcti < seal-129
check "says how it is used" $tpm2 --help

# ---- with vdisk
command="$tpm2 --tcti $tcti"
printf pass > pass; printf 'other' > other
make_disk disk.raw 1048576
on() { # KIND OPTIONS
	kind=$1
	shift
	"$VDISK" encrypt -q --key-file pass "$@" disk.raw "$kind"
	check "$kind: add" "$VDISK" key add -q --key-file pass --new-key-command "$command" "$kind"
	check "$kind: the TPM alone opens it" "$VDISK" compare -q --key-command "$command" disk.raw "$kind"
	"$VDISK" key list "$kind" | grep -q '^1 *token tpm2 '; claim "$kind: list names it"
	check_fails 64 "$kind: it does not become the only one" "$VDISK" key remove "$kind" 0
	check_fails 64 "$kind: nor by change" "$VDISK" key change --key-file pass --new-key-command "$command" "$kind"
}
on qcow2 --pbkdf-iterations 1000
peer="--object secret,id=a,file=pass --object secret,id=b,file=other --image-opts"
noted=driver=qcow2,file.filename=qcow2,encrypt.key-secret=a
again qemu-img amend $peer $noted -o encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=1
claim "qcow2: qemu-img adds a keyslot"
on luks2 -O raw --type luks2 --pbkdf-iterations 4 --pbkdf-memory 32
cryptsetup token export --token-id 0 luks2 | grep -q '"machine-bound":true.*"token":{"helper":"tpm2"'
claim "luks2: cryptsetup shows the token"
for kind in qcow2 luks2; do check "$kind: opens still" "$VDISK" compare -q --key-command "$command" disk.raw $kind; done
extend 7 'another loader'
for kind in qcow2 luks2; do
	check_fails 12 "$kind: not after something else was booted" "$VDISK" key verify --key-command "$command" $kind
	grep -q 'other values' "$stderr"; claim "$kind: which is told"
	check "$kind: the passphrase does" "$VDISK" compare -q --key-command "$command" --key-file pass disk.raw $kind
done
done_testing
