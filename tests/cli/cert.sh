#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Certificates of wipes: each verifies, one byte changed anywhere fails it, a wipe that was not verified has none, and what is shown and
# drawn says what was signed.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/wiped.sh"
requires ssh-keygen qemu-img perl xmllint pdftotext pdffonts openssl

check "keygen" "$VDISK" cert keygen key
make_certificate c.json key --operator "$(printf 'Li & <b>"M"\047\033[31m\342\200\256')"
claim "a wipe writes its certificate and the signature"
check "it verifies" "$VDISK" cert verify --public-key key.pub c.json
grep -q 'c.json: a certificate' "$stdout"
claim "as a certificate"
check_fails 64 "only if it is said whose signature is good" "$VDISK" cert verify c.json
check "as JSON" "$VDISK" cert verify --output=json --public-key key.pub c.json
json_is "$stdout" '$d->{kind}' certificate && json_is "$stdout" '$d->{sha256}' "$(sha256sum < c.json | cut -d' ' -f1)"
claim "with its sum"

# ---- one byte ----
# flipped FILE STEP: every STEP-th byte of FILE, changed, has to give 13; all of them, without a process for each, does test_certificate.
flipped() {
	perl -e '
		my ($file, $step) = @ARGV;
		open my $f, "<:raw", $file or die; local $/; my $whole = <$f>; my $bad = 0;
		for (my $i = 0; $i < length($whole); $i += $step) {
			my $copy = $whole;
			substr($copy, $i, 1) = chr(ord(substr($whole, $i, 1)) ^ 1 + $i * 7 % 255);
			open my $o, ">:raw", $file or die; print $o $copy; close $o;
			my $r = system("\"$ENV{VDISK}\" cert verify -q --public-key key.pub c.json > /dev/null 2>&1") >> 8;
			$bad++, print "# byte $i: $r\n" if $r != 13;
		}
		open my $o, ">:raw", $file or die; print $o $whole; close $o;
		exit $bad > 0;' "$@"
}
export VDISK
flipped c.json 61
claim "one byte of the certificate changed: it fails"
flipped c.json.sig 17
claim "one byte of the signature changed: it fails"
check "both as they were: it verifies" "$VDISK" cert verify --public-key key.pub c.json
head -c -1 c.json > short.json
check_fails 13 "a byte less fails it" "$VDISK" cert verify --public-key key.pub --signature c.json.sig short.json
{ cat c.json; echo; } > long.json
check_fails 13 "a newline more fails it" "$VDISK" cert verify --public-key key.pub --signature c.json.sig long.json
"$VDISK" cert keygen -q other
check_fails 13 "another key is not the one" "$VDISK" cert verify --public-key other.pub c.json
check_fails 1 "without its signature it is nothing" "$VDISK" cert verify --public-key key.pub --signature none.sig c.json
sed 's/$/\r/' c.json.sig > crlf.sig
check "lines may end as those of Windows do" "$VDISK" cert verify --public-key key.pub --signature crlf.sig c.json

# ---- what was signed, and should not have been ----
# forged NAME PERL: the document with a change, in canonical form, signed as what it says it is
forged() {
	perl -MJSON::PP -e 'local $/; open my $f, "<", "c.json"; my $d = decode_json(<$f>); eval shift; die $@ if $@;
		print JSON::PP->new->canonical->utf8->encode($d)' "$2" > $1.json
	ssh-keygen -q -Y sign -n "${3:-vdisk-certificate}" -f key $1.json 2> /dev/null
}
while read -r name wanted change; do
	forged $name "$change"
	check_fails $wanted "signed, but $name" "$VDISK" cert verify --public-key key.pub $name.json
done <<'CASES'
unchanged 0 1
of-a-failed-wipe 1 $d->{wipe}{grade}="incomplete"
of-a-wipe-that-read-nothing-back 1 $d->{wipe}{verification}{mode}="none"
of-a-part-that-is-not-done 1 $d->{wipe}{set}[0]{done}=JSON::PP::false
better-than-its-parts 1 $d->{wipe}{set}[0]{grade}="not-assured",$d->{wipe}{grade}="cleared"
of-no-grade 1 $d->{wipe}{grade}="purged"
without-limits 1 delete$d->{limitations}
without-files 1 $d->{wipe}{set}=[]
with-text-for-a-number 1 $d->{wipe}{set}[0]{size}="1"
with-a-fraction 1 $d->{wipe}{set}[0]{size}=1.5
of-another-version 63 $d->{version}=2
an-incident-as-certificate 13 $d->{type}="incident"
CASES
forged incident '$d->{type}="incident"' vdisk-incident
check "an incident record verifies as that" "$VDISK" cert verify --public-key key.pub incident.json
grep -q 'no certificate' "$stdout"
claim "and is called so"
perl -pe 's/,/, /' c.json > blank.json
check_fails 1 "what is not in canonical form is not signed" "$VDISK" cert sign --sign-key key blank.json
check_fails 1 "no signature is replaced" "$VDISK" cert sign --sign-key key --signature c.json.sig c.json
check "another person signs beside the first" "$VDISK" cert sign --sign-key other --signature c.json.second c.json
check "and that verifies" "$VDISK" cert verify --public-key other.pub --signature c.json.second c.json

# ---- a second person ----
{ echo "first $(cat key.pub)"; echo "second $(cat other.pub)"; } > allowed
validated() { "$VDISK" cert verify --allowed-signers allowed --signer first --validator "$1" c.json; }
check_fails 1 "who has not signed is no validator" validated second
check "the validator signs" "$VDISK" cert sign --sign-key other c.json
check "and is known" validated second
check_fails 13 "as himself alone" validated third
mv c.json.validator.sig apart && "$VDISK" cert sign -q --sign-key key c.json
check_fails 13 "the first signer is no second person" validated first
mv apart c.json.validator.sig
check "ssh-keygen verifies that, too" sh -c 'ssh-keygen -Y verify -f allowed -I second -n vdisk-certificate -s c.json.validator.sig < c.json'

# ---- SM2 and SM3, with openssl as the judge ----
for k in sm2 another; do openssl genpkey -algorithm SM2 -out $k.pem 2> /dev/null && openssl pkey -in $k.pem -pubout -out $k.pub.pem; done
by_openssl() { openssl pkeyutl -verify -pubin -inkey "$1" -rawin -digest sm3 -in c.json -sigfile c.json.sm2.sig -pkeyopt distid:1234567812345678; }
sm2() { "$VDISK" cert verify --public-key key.pub --sm2-public-key "$1" c.json; }
check "a signature with SM2" "$VDISK" cert sign --sm2-key sm2.pem c.json
check "openssl verifies it" by_openssl sm2.pub.pem
check "so does vdisk" sm2 sm2.pub.pem
check_fails 13 "not for another key" sm2 another.pub.pem
check_fails 1 "no signature is replaced" "$VDISK" cert sign --sm2-key sm2.pem c.json
check_fails 63 "a key of another kind is no SM2 key" "$VDISK" cert sign --sm2-key key --signature x.sig c.json
flipped_sm2=0
for i in 1 5 20 40 60; do
	perl -e 'local $/; open my $f, "<:raw", "c.json.sm2.sig"; $_ = <$f>; substr($_, shift, 1) ^= "\1"; print' $i > flipped.sig
	mv c.json.sm2.sig whole.sig && mv flipped.sig c.json.sm2.sig
	sm2 sm2.pub.pem > log 2>&1
	[ $? -eq 13 ] || flipped_sm2=$((flipped_sm2 + 1))
	mv whole.sig c.json.sm2.sig
done
[ $flipped_sm2 -eq 0 ]
claim "one bit of it changed: it fails"
rm c.json.sm2.sig
theirs=0
# Numbers of all lengths: of 40 signatures some have one that begins with zeros.
for i in $(seq 40); do
	openssl pkeyutl -sign -inkey sm2.pem -rawin -digest sm3 -in c.json -out c.json.sm2.sig -pkeyopt distid:1234567812345678 &&
		sm2 sm2.pub.pem > log 2>&1 || theirs=$((theirs + 1))
done
[ $theirs -eq 0 ]
claim "vdisk verifies what openssl signed"

# ---- by the wipe ----
make_certificate bad.json key --verify=none --accept=overwritten
claim "a wipe that was not verified leaves a paper"
check "which verifies" "$VDISK" cert verify --output=json --public-key key.pub bad.json
json_is "$stdout" '$d->{kind}' incident
claim "and is no certificate"
head -c 65536 /dev/urandom > kept.raw
cp kept.raw as-it-was.raw
id=$("$VDISK" wipe -f raw --dry-run kept.raw | sed -n 's/.*--confirm=//p')
wipe_kept() { "$VDISK" wipe -f raw --confirm="$id" "$@" kept.raw; }
check_fails 1 "a certificate that is there is not replaced" wipe_kept --certificate=c.json --sign-key=key
check_fails 1 "no key: no wipe" wipe_kept --certificate=n.json --sign-key=none
check_fails 64 "no key named: no wipe" wipe_kept --certificate=n.json
mkdir folder && cp kept.raw folder/
check_fails 64 "not into the folder that is wiped" "$VDISK" wipe --dry-run --certificate=folder/c.json --sign-key=key folder
check_fails 64 "nor its state" "$VDISK" wipe --dry-run --state=folder/state folder
ln -s folder by-another-name
check_fails 64 "by whatever name" "$VDISK" wipe --dry-run --certificate=folder/c.json --sign-key=key by-another-name
check_fails 64 "not where its state is" wipe_kept --certificate=kept.raw.vdisk-wipe --sign-key=key
cp kept.raw n.json.vdisk-partial
check_fails 64 "not where writing it would remove what is to be wiped" "$VDISK" wipe --dry-run -f raw --certificate=n.json --sign-key=key n.json.vdisk-partial
check_fails 1 "not into a folder that is not there" wipe_kept --certificate=none/c.json --sign-key=key
check_fails 1 "a file that is there is no place for the state, and is not said to be one" wipe_kept --state=kept.raw
echo > one.vmx && echo > two.vmx
check_fails 64 "a certificate is of one machine" "$VDISK" wipe --dry-run --certificate=n.json --sign-key=key one.vmx two.vmx
cmp -s kept.raw as-it-was.raw && [ ! -e n.json ] && [ ! -e n.json.sig ]
claim "and all that before a byte was written"

qemu-img create -q -f qcow2 stays.qcow2 1M
id=$("$VDISK" wipe --free --dry-run stays.qcow2 | sed -n 's/.*--confirm=//p')
"$VDISK" wipe -q --free --confirm="$id" --certificate=stays.json --sign-key=key stays.qcow2 > log 2>&1
check "the paper of a wipe in part" "$VDISK" cert show stays.json
grep -q 'the image stays' "$stdout"
claim "says that the image stays"

# ---- for people ----
check "show" "$VDISK" cert show c.json
grep -q 'never Purge' "$stdout" && ! grep -q "$(printf '\033')" "$stdout" && grep -qF 'Li & <b>' "$stdout"
claim "shows the limits, and no control characters"
check "show in Chinese" "$VDISK" cert show --lang=zh c.json
grep -q '适用的局限' "$stdout"
claim "speaks it"
for lang in en zh; do
	check "render: $lang" "$VDISK" cert render --lang=$lang --html $lang.html c.json
	xmllint --html --noout $lang.html 2> lint
	! grep -av 'Tag bdi invalid' lint | grep -aq error && ! grep -qiE '(src|href)=|url\(|<script|http://|https://' $lang.html
	claim "the page is sound and needs nothing beside it: $lang"
	grep -q 'Li &amp; &lt;b&gt;&quot;M&quot;&#39;' $lang.html && ! grep -q '<b>' $lang.html && ! grep -q "$(printf '\033')" $lang.html
	claim "what was signed is escaped: $lang"
	grep -qF "$(sha256sum < c.json | cut -d' ' -f1)" $lang.html && grep -qF "$(sed -n 2p c.json.sig)" $lang.html
	claim "it names the document and bears the signature: $lang"
	check "render as PDF: $lang" "$VDISK" cert render --lang=$lang --pdf $lang.pdf c.json
	pdftotext -layout $lang.pdf page.txt && tr -d ' \n' < page.txt > letters && grep -qF "$(sha256sum < c.json | cut -d' ' -f1)" letters &&
		grep -qF "$(sed -n 2p c.json.sig)" page.txt && grep -qF 'Li & <b>"M"' page.txt && ! grep -q "$(printf '\033')" page.txt
	claim "it says the same: $lang"
	[ "$(pdffonts $lang.pdf | tail -n +3 | awk '{ n++ } / yes yes /{ e++ } END { print (n && n == e) }')" = 1 ]
	claim "and has its fonts in it: $lang"
	"$VDISK" cert render -q --lang=$lang --pdf again.pdf c.json && cmp -s again.pdf $lang.pdf
	claim "drawn again it is the same, byte for byte: $lang"
	rm again.pdf
done
pdftotext zh.pdf - | grep -q '适用的局限'
claim "the Chinese one is in Chinese"
printf '<?xml version="1.0"?><fontconfig><dir>/usr/share/fonts/truetype/dejavu</dir></fontconfig>' > few-fonts.xml
FONTCONFIG_FILE=$PWD/few-fonts.xml check_fails 63 "without a font for it no page of boxes is drawn" "$VDISK" cert render --lang=zh --pdf none.pdf c.json
[ ! -e none.pdf ]
claim "and none is left"
check_fails 1 "a page that is there is not replaced" "$VDISK" cert render --html en.html c.json
check "but with --force" "$VDISK" cert render --force --html en.html c.json
printf x >> c.json
check_fails 13 "what does not verify is not shown" "$VDISK" cert show c.json
check_fails 13 "nor drawn" "$VDISK" cert render --html x.html c.json
[ ! -e x.html ]
claim "and no page is left"
done_testing
