#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Certificates and OpenSSH: what this command signs ssh-keygen verifies, what ssh-keygen or ssh-agent signs this command verifies, and
# both read the same keys and the same lists of allowed signers in the same way.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/wiped.sh"
requires ssh-keygen ssh-agent ssh-add perl

ns=vdisk-certificate
by_ssh() { ssh-keygen -Y verify -f "$1" -I "$2" -n "${4:-$ns}" -s "$3.sig" < "$3"; }

# ---- keys ----
check "keygen" "$VDISK" cert keygen --comment ops@example.com ours
[ "$(stat -c %a ours)" = 600 ] && [ "$(ssh-keygen -y -f ours)" = "$(cat ours.pub)" ]
claim "ssh-keygen reads the private key, for its owner alone, and it is that of the public one"
ssh-keygen -l -f ours | grep -qF "$(sed -n 's/.*public key //p' "$stdout")"
claim "both call it by the same fingerprint"
check_fails 1 "keygen replaces no key" "$VDISK" cert keygen ours
ssh-keygen -q -t ed25519 -N '' -C theirs@example.com -f theirs
ssh-keygen -q -t ed25519 -N secret -C locked@example.com -f locked
ssh-keygen -q -t ecdsa -N '' -f ecdsa
printf 'ops@example.com namespaces="%s" %s\n' $ns "$(cat ours.pub)" > allowed
printf '# a note\n\ntheirs@example.com,*@other.example,!bad@other.example %s\n' "$(cat theirs.pub)" >> allowed

# ---- ours, verified by both ----
make_certificate ours.json ours
check "ssh-keygen verifies what vdisk wipe signed" by_ssh allowed ops@example.com ours.json
check "so does vdisk" "$VDISK" cert verify --allowed-signers allowed --signer ops@example.com ours.json
check "and ssh-keygen -Y check-novalidate" sh -c "ssh-keygen -Y check-novalidate -n $ns -s ours.json.sig < ours.json"
check_fails 255 "ssh-keygen: not for another purpose" sh -c "ssh-keygen -Y check-novalidate -n vdisk-incident -s ours.json.sig < ours.json"

# ---- theirs, verified by both ----
for hash in sha512 sha256; do
	cp ours.json $hash.json
	ssh-keygen -q -Y sign -n $ns -O hashalg=$hash -f theirs $hash.json 2> /dev/null
	check "vdisk verifies what ssh-keygen signed: $hash" "$VDISK" cert verify --allowed-signers allowed $hash.json
	grep -q theirs@example.com "$stdout"
	claim "and names who it was: $hash"
done
cp ours.json purpose.json
ssh-keygen -q -Y sign -n file -f theirs purpose.json 2> /dev/null
check_fails 13 "not for another purpose" "$VDISK" cert verify --public-key theirs.pub purpose.json
cp ours.json ecdsa.json
ssh-keygen -q -Y sign -n $ns -f ecdsa ecdsa.json 2> /dev/null
check_fails 13 "no other kind of key" "$VDISK" cert verify --public-key theirs.pub ecdsa.json
check_fails 63 "nor to sign" "$VDISK" cert sign --sign-key ecdsa.pub --signature x.sig ours.json
check "a key of ssh-keygen signs" "$VDISK" cert sign --sign-key theirs --signature again.json.sig ours.json
cp ours.json again.json
check "and ssh-keygen verifies" by_ssh allowed theirs@example.com again.json
check_fails 12 "a key with a passphrase is the agent's" "$VDISK" cert sign --sign-key locked --signature x.sig ours.json

# ---- the agent ----
unset SSH_AUTH_SOCK
check_fails 12 "a public key without an agent does not sign" "$VDISK" cert sign --sign-key theirs.pub --signature x.sig ours.json
eval "$(ssh-agent -s)" > /dev/null
on_exit 'kill $SSH_AGENT_PID'
check_fails 12 "nor with an agent that has not got it" "$VDISK" cert sign --sign-key theirs.pub --signature x.sig ours.json
ssh-add -q theirs
check "the agent signs" "$VDISK" cert sign --sign-key theirs.pub --signature agent.json.sig ours.json
cp ours.json agent.json
check "and ssh-keygen verifies that" by_ssh allowed theirs@example.com agent.json
mv theirs theirs.away
make_certificate wiped.json theirs.pub
check "vdisk wipe signs by the agent alone" by_ssh allowed theirs@example.com wiped.json

# ---- the list of allowed signers: ssh-keygen is the judge of each line ----
key=$(cat theirs.pub)
while IFS= read -r line; do
	printf '%s\n' "$line" | sed "s|KEY|$key|; s|OURS|$(cat ours.pub)|" > list
	by_ssh list theirs@example.com again.json > ssh.log 2>&1 && wanted=0 || wanted=13
	check_fails $wanted "as ssh-keygen has it ($wanted): $line" "$VDISK" cert verify --allowed-signers list --signer theirs@example.com again.json
done <<'LINES'
theirs@example.com KEY
other@example.com KEY
*@example.com KEY
*@example.com,!theirs@example.com KEY
th?irs@example.com KEY
theirs@example.com OURS
theirs@example.com namespaces="vdisk-certificate" KEY
theirs@example.com namespaces="vdisk-incident,vdisk-*" KEY
theirs@example.com namespaces="vdisk-incident" KEY
theirs@example.com cert-authority KEY
theirs@example.com valid-after="20200101" KEY
theirs@example.com valid-after="20200101",valid-before="20210101" KEY
theirs@example.com valid-before="21000101120000Z" KEY
theirs@example.com valid-after="210001011200" KEY
theirs@example.com valid-after="soon" KEY
theirs@example.com unheard-of KEY
"theirs@example.com" KEY
  theirs@example.com	KEY
# theirs@example.com KEY
theirs@example.com
LINES
done_testing
