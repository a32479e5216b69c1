#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What key export --libvirt writes and shows does what it says in libvirt's own secret driver, and by libvirt's schemas.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires virsh virt-xml-validate xmllint perl base64

fast="--pbkdf-iterations 1000"
printf 'se cret' > key
printf wrong > wrong
truncate -s 1M disk.raw
# libvirt with a root of its own, in virsh's process: no daemon, and nothing of the machine's is seen or changed
export VIRSH_DEFAULT_CONNECT_URI="secret:///embed?root=$PWD/libvirt"

# hands_over IMAGE TYPE: the commands that are shown, run as they are, leave the key with libvirt
hands_over() {
	rm -f secret.xml
	check "$1: export" "$VDISK" key export --libvirt --key-file key "$1" secret.xml
	cp "$stdout" shown
	uuid=$("$VDISK" key list --output=json "$1" | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{uuid}')
	check "$1: the secret is as libvirt wants it" virt-xml-validate secret.xml secret
	grep '^virsh ' shown > commands
	check "$1: the commands run" sh -e commands
	[ "$(base64 -d "libvirt/etc/secrets/$uuid.base64")" = 'se cret' ]; claim "$1: libvirt has the key, under the UUID of the header"
	virsh secret-list | grep -F "volume $PWD/$1" > /dev/null; claim "$1: for this image"
	{
		echo '<domain type="qemu"><name>d</name><memory>65536</memory><os><type arch="x86_64">hvm</type></os><devices>'
		grep -v '^virsh ' shown
		echo '</devices></domain>'
	} > domain.xml
	check "$1: the disk is as libvirt wants it" virt-xml-validate domain.xml domain
	[ "$(xmllint --xpath 'string(//driver/@type)' domain.xml)" = "$2" ] && [ "$(xmllint --xpath 'string(//secret/@uuid)' domain.xml)" = "$uuid" ] &&
		[ "$(xmllint --xpath 'string(//source/@file)' domain.xml)" = "$PWD/$1" ]
	claim "$1: and names format, file and secret"
	! grep -q 'se cret' secret.xml shown; claim "$1: the key is in none of it"
}
"$VDISK" encrypt -q $fast --key-file key disk.raw e.qcow2
hands_over e.qcow2 qcow2
"$VDISK" encrypt -q $fast -O raw --key-file key disk.raw "it's <a> \"&\" name"
hands_over "it's <a> \"&\" name" raw

check "without a key" "$VDISK" key export --libvirt e.qcow2 plain.xml < /dev/null
grep -q -- '--interactive$' "$stdout"; claim "libvirt is to ask for it"
check "as JSON" "$VDISK" key export --libvirt --output=json --key-file key e.qcow2 json.xml
perl -MJSON::PP -e 'local $/; my $j = decode_json(<STDIN>); open F, "<", "json.xml"; exit !($j->{"secret-xml"} eq <F> && $j->{"set-value"} && $j->{"disk-xml"})' < "$stdout"
claim "it says the same"

check_fails 1 "a file that is there stays" "$VDISK" key export --libvirt e.qcow2 json.xml
check_fails 12 "a wrong key is told before" "$VDISK" key export --libvirt --key-file wrong e.qcow2 no.xml
check_fails 64 "whom it is for has to be said" "$VDISK" key export e.qcow2 no.xml
"$VDISK" encrypt -q -O raw --type luks2 --pbkdf-iterations 4 --pbkdf-memory 32 --key-file key disk.raw two
check_fails 63 "LUKS2 is not for qemu" "$VDISK" key export --libvirt two no.xml
"$VDISK" encrypt -q -O vmdk $fast --key-file key disk.raw v.vmdk
check_fails 63 "nor LUKS in VMDK for libvirt" "$VDISK" key export --libvirt v.vmdk no.xml
check_fails 63 "a plain disk has no secret" "$VDISK" key export --libvirt disk.raw no.xml
[ ! -e no.xml ]; claim "and no file is left"

# ---- keys that qemu cannot take
warns() { # TEXT FILE
	check "a key that is not for qemu is added all the same" "$VDISK" key add --key-file key --new-key-file "$2" $fast e.qcow2
	grep -q "$1" "$stderr"; claim "and told: $1"
	check "verify" "$VDISK" key verify --key-file "$2" e.qcow2
	grep -q "$1" "$stderr"; claim "tells it, too"
}
printf 'a\0b' > nul
printf '\377\376' > binary
printf 'line\n' > line
warns 'qemu cannot be given this key' nul
warns 'qemu cannot be given this key' binary
warns 'ends with a newline' line
check "a container that qemu does not know" "$VDISK" key add --key-file key --new-key-file binary --pbkdf-iterations 4 --pbkdf-memory 32 two
! grep -q qemu "$stderr"; claim "says nothing of it"
done_testing
