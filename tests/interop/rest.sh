#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Objects behind restic's REST protocol: with rclone, which serves it, killed and started again; and with a server that lies.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/certs.sh"
requires rclone restic openssl python3 curl
store=$BUILDDIR/tests/interop/store
some=$(printf '%064x' 1)
other=$(printf '%064x' 2)
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

on_exit 'stop'
stop() {
	[ -z "${server:-}" ] || { kill -9 "$server"; wait "$server"; } 2>/dev/null
	server=
}
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
# serve OPTIONS...: rclone, on the folder repo
serve() {
	rclone serve restic --config /dev/null --addr "127.0.0.1:$port" "$@" repo > rclone.log 2>&1 &
	server=$!
	wait_until answers
}
answers() { curl -ks -o answer "${scheme:-http}://127.0.0.1:$port/"; }

mkdir repo
printf 'the content of the object' > content
printf 'another one' > content2
serve
at=rest:http://127.0.0.1:$port/web
check "a repository is made at a server" $store $at create
check "the config is put" $store $at put config - content
check_fails 1 "there is one repository at one address" $store $at create
grep -q '^exists: ' "$stderr"
claim "the words say that something is there"
check "a pack is put" $store $at put pack $some content
cmp -s content repo/web/data/00/$some
claim "rclone keeps it where restic would"
check "it may be put again" $store $at put pack $some content
check_fails 1 "another may not take its name" $store $at put pack $some content2
run $store $at get pack $some 4 7
[ "$(cat "$stdout")" = content ]
claim "a range of it is read"
check_fails 1 "what lies beyond its end is not" $store $at get pack $some 4 1000
grep -q '^corrupt: ' "$stderr"
claim "that is told as damage"
run $store $at size pack $some
[ "$(cat "$stdout")" = 25 ]
claim "its size is told"
run $store $at list pack
[ "$(cat "$stdout")" = "$some 25" ]
claim "it is listed, with its size"
run $store $at list snapshot
[ "$status" -eq 0 ] && [ ! -s "$stdout" ]
claim "where nothing is, nothing is listed"
check_fails 1 "what is not there is not found" $store $at get pack $other 0 1
grep -q '^not-found: ' "$stderr"
claim "that is told as such"
check "it is removed" $store $at remove pack $some
[ ! -e repo/web/data/00/$some ]
claim "and gone"
stop

# ---- users and certificates

make_ca ca && make_ca ca2 && make_cert srv ca serverAuth IP:127.0.0.1
claim "certificates are made"
printf 'joe:s3cret\n' > login
printf 'joe:other\n' > login2
printf 'joe\n' > login3
scheme=https serve --user joe --pass s3cret --cert srv.crt --key srv.key
at=rest:https://127.0.0.1:$port/web
pin=sha256//$(openssl pkey -in srv.key -pubout -outform der | openssl dgst -sha256 -binary | openssl base64)
run $store $at credentials=login ca=ca.crt put pack $some content
claim "https, the server's authority, and user and password from a file"
check "the key that is pinned" $store $at credentials=login ca=ca.crt pin="$pin" size pack $some
check_fails 13 "another key than the pinned one is not spoken to" \
	$store $at credentials=login ca=ca.crt pin=sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= size pack $some
check_fails 13 "nor a server that another authority vouches for" $store $at credentials=login ca=ca2.crt size pack $some
check_fails 13 "nor one that only it itself vouches for" $store $at credentials=login size pack $some
check_fails 1 "a wrong password is refused" $store $at credentials=login2 ca=ca.crt size pack $some
grep -q '^access-denied: ' "$stderr"
claim "and told as such"
check_fails 1 "and none" $store $at ca=ca.crt size pack $some
check_fails 64 "a file without a colon holds no credentials" $store $at credentials=login3 size pack $some
check_fails 64 "a password in the address is refused" $store rest:https://joe:s3cret@127.0.0.1:$port/web list pack
! grep -q s3cret "$stderr"
claim "and not repeated"
check_fails 64 "a password does not go over http to another machine" $store rest:http://192.0.2.1/web credentials=login list pack
for address in rest:ftp://127.0.0.1/ 'rest:http://127.0.0.1/a?b' 'rest:http://127.0.0.1/a#b' rest: rest:http: rest:file:///etc/passwd; do
	check_fails 64 "$address is no address" $store "$address" list pack
done
stop

# ---- connections that are lost

head -c 1000000 /dev/urandom > megabyte
serve
at=rest:http://127.0.0.1:$port/many
run $store $at create
$store $at patience=60 many 4 300 megabyte 2> many.err &
writer=$!
until [ "$(find repo/many/data -type f | wc -l)" -gt 20 ]; do :; done
kill -9 $server
wait $server 2>/dev/null
before=$(find repo/many/data -type f | wc -l)
sleep 1
serve
wait $writer
claim "three hundred objects are put while the server is killed and started again"
[ "$before" -gt 0 ] && [ "$before" -lt 300 ]
claim "it was killed in the middle ($before of 300)"
[ "$(find repo/many/data -type f | wc -l)" = 300 ] && [ -z "$(find repo/many/data -type f ! -size 1000004c)" ]
claim "all are there, whole"
for file in $(find repo/many/data -type f); do tail -c +5 "$file" | cmp -s - megabyte || echo "$file"; done > differ
[ ! -s differ ]
claim "with their content"
stop
began=$(date +%s)
check_fails 1 "a server that stays away is given up" $store $at patience=3 list pack
[ $(($(date +%s) - began)) -lt 10 ]
claim "in time"

# ---- a backup, with the server killed and started again under it

truncate -s 400M disk.raw
dd if=/dev/urandom of=disk.raw bs=1M count=300 conv=notrunc status=none
echo secret > pw
serve
at=rest:http://127.0.0.1:$port/vm
check "a repository is made at the server" "$VDISK" repo init --repo $at --passphrase-file pw
"$VDISK" backup --repo $at --passphrase-file pw disk.raw > backup.out 2>&1 &
writer=$!
until [ "$(find repo/vm/data -type f | wc -l)" -gt 3 ]; do :; done
kill -9 $server
wait $server 2>/dev/null
before=$(find repo/vm/data -type f | wc -l)
sleep 1
[ -z "$(find repo/vm/snapshots -type f)" ]
claim "the server is killed in the middle of a backup (with $before packs)"
serve
wait $writer
claim "the backup goes on when the server is there again"
check "nothing of it is lost" "$VDISK" verify --repo $at --passphrase-file pw
check "without a key, the same" "$VDISK" verify --repo $at --keyless
check "restic finds it sound over the same protocol" \
	env RESTIC_PASSWORD_FILE=pw RESTIC_CACHE_DIR="$PWD/cache" restic -r $at check --read-data
check "the disk is restored from it" "$VDISK" restore --repo $at --passphrase-file pw latest back.raw
check "and is the same" cmp disk.raw back.raw
stop

# ---- a server that lies

python3 "$SRCDIR/tests/support/rest_lies.py" port &
server=$!
wait_until test -e port
at=rest:http://127.0.0.1:$(cat port)
python3 -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("<786432I", *range(786432)))' > object
# lie HOW STATUS CLAIM COMMAND...: and neither more than a minute nor 256 MiB are spent on it
most=0
lie() {
	how=$1 wanted=$2 claim=$3
	shift 3
	check_fails "$wanted" "$claim" timeout 60 $store $at/$how/ patience=2 "$@"
	peak=$(sed -n 's/^peak \([0-9]*\) KiB/\1/p' "$stderr")
	[ "${peak:-999999}" -lt $most ] || most=${peak:-999999}
}
whole() { cmp -s object "$stdout"; claim "it is the object to the last byte"; }
lie right 0 "the object is read" get pack $some 0 3145728
whole
lie cuts 0 "answers that are cut off are taken up where they ended" get pack $some 0 3145728
whole
check "a server that is busy is asked again" timeout 60 $store $at/busy/ patience=20 get pack $some 0 3145728
whole
lie slow 0 "a slow server is waited for" get pack $some 0 3145728
whole
lie whole 0 "a server without ranges will do for what is at the begin" get pack $some 0 100000
head -c 100000 object | cmp -s - "$stdout"
claim "and no more is taken than was asked for"
lie whole 1 "but not for what is not" get pack $some 100000 100000
lie short 1 "an answer that is short is told" get pack $some 0 3145728
lie endless 1 "an answer without end is not read to its end" get pack $some 0 100000
lie dead 1 "a server that always fails is given up" get pack $some 0 100
lie stuck 1 "one that falls silent, too" get pack $some 0 3145728
lie drip 1 "and one that drips" get pack $some 0 3145728
lie denied 1 "what is denied is not asked again" get pack $some 0 100
lie quota 14 "a full server is told as no space" put pack $some content
before=$(curl -s http://127.0.0.1:"$(cat port)"/count)
lie away 1 "no redirection is followed" get pack $some 0 100
[ $(($(curl -s http://127.0.0.1:"$(cat port)"/count) - before)) = 1 ]
claim "not even once"
for how in endless blanks deep longname negative version1 half page; do
	lie $how 1 "a list that is wrong is refused ($how)" list pack
done
run $store $at/names/ patience=2 list pack
[ "$(cat "$stdout")" = "$(printf '%064x 3145728' 7)" ]
claim "names of no object are passed over"
[ $most -lt 262144 ]
claim "none of them took more than 256 MiB of memory ($most KiB)"
done_testing
