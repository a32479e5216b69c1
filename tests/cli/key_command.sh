#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# --key-command: the protocol of keys/keycommand.md as a program sees it, and each way in which a program can break it.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires qemu-img cryptsetup perl /usr/bin/python3

printf old > old; printf new > new
yes 'a line of text' | head -c 1048576 > disk.raw

# vault NAME [MODE]: a program that keeps the secrets in a folder. MODE is what it does instead.
cat > vault <<'PY'
#!/usr/bin/python3
import base64, json, os, sys, time
name, mode = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
open("runs", "a").write(name + "\n")
def say(what, status=0):
    sys.stdout.write(what if isinstance(what, str) else json.dumps(what)); sys.stdout.flush(); os._exit(status)
def error(kind): say({"error": {"kind": kind, "message": "so \"says\"\nthe\u00fc " + name}}, 3)
if mode == "early": os._exit(0)
if mode == "unread": say({"secret": "AAAA"})
q = json.load(sys.stdin)
open("request", "w").write(json.dumps(q))
assert q["vdisk-key-command"] == 1 and len(q["image"]["uuid"]) == 36
if mode in ("no-match", "denied", "unavailable", "failed", "strange"): error(mode)
if mode == "signal": os.kill(os.getpid(), 9)
if mode == "hang": time.sleep(600)
if mode == "silent": os.close(1); time.sleep(600)
if mode == "huge": say("{\"secret\":\"" + "A" * 1000000 + "\"}")
if mode == "endless":
    while True: sys.stdout.write("A" * 4096)
if mode == "text": say("the secret is: open sesame")
if mode == "half": say('{"secret":"AAAA')
if mode == "list": say([1])
if mode == "nothing": say({})
if mode == "number": say({"secret": 1})
if mode == "base64": say({"secret": "A"})
if mode == "empty": say({"secret": ""})
if mode == "two": say('{"secret":"AAAA"}{"secret":"AAAA"}')
if mode == "wrong": say({"secret": "AAAA"})
if mode == "pin":
    tty = open("/dev/tty", "r+b", buffering=0); tty.write(b"PIN: ")
    if tty.readline().strip() != b"1234": error("denied")
if q["act"] == "seal":
    n = str(len(os.listdir("kept")))
    open("kept/" + n, "w").write(q["secret"])
    token = {"helper": "vault-" + name, "n": n, "of": [name, {"x": "a/b\\\"}"}]}
    if mode == "bound": token["machine-bound"] = True
    if mode == "long": token["x"] = "x" * int(sys.argv[3])
    if mode == "deep": token["x"] = [[[[[[[[1]]]]]]]]
    if mode == "unicode": token["x"] = "\u00fc"
    if mode == "no-object": token = "token"
    if mode == "forgets": os.unlink("kept/" + n)
    say({"token": token})
t = q["token"]
if t["helper"] != "vault-" + name: error("no-match")
if t["of"] != [name, {"x": "a/b\\\"}"}]: error("failed")
if not os.path.exists("kept/" + t["n"]): say({"secret": "AAAA"})
reply = {"secret": open("kept/" + t["n"]).read()}
if mode == "slow": open("slow", "w").write(str(os.getpid())); time.sleep(3)
if mode == "status": say(reply, 3)
if mode == "orphan":
    if os.fork() == 0: open("orphan", "w").write(str(os.getpid())); time.sleep(600)
if mode == "spaces": say(" \n" + json.dumps(reply, indent=4).replace("/", "\\/") + "\n\n")
say(reply)
PY
chmod +x vault; mkdir kept
runs() { wc -l < runs; }
slots() { "$VDISK" key list --output=json "$1" | perl -MJSON::PP -e 'local $/; print join " ", map $_->{index}, @{decode_json(<STDIN>)->{keyslots}}'; }
opens() { "$VDISK" compare -q --key-command "$2" disk.raw "$1"; }

# ---- every kind of encrypted image
on() { # KIND OPTIONS
	kind=$1
	shift
	rm -f d runs
	"$VDISK" encrypt -q --key-file old "$@" disk.raw d
	check "$kind: add" "$VDISK" key add -q --key-file old --new-key-command './vault a' --label 'at home' d
	[ "$(runs)" = 2 ]; claim "$kind: it seals, and gives it back at once"
	json_is request '$d->{image}{name}' d; claim "$kind: it was told the image's name"
	opens d './vault a'; claim "$kind: the program alone opens the disk"
	"$VDISK" key list d | grep -q '^1 *token vault-a .* at home .*100000 iterations$\|^1 *token vault-a .* at home .*32 MiB'
	claim "$kind: list names the program, and the slot is cheap, not weak"
	"$VDISK" key list --output=json d > list.json
	json_is list.json '$d->{keyslots}[1]{helper}' vault-a && json_is list.json '$d->{keyslots}[1]{kind}' token; claim "$kind: in JSON, too"
	rm runs
	check "$kind: the program opens it for another program's slot" "$VDISK" key add -q --key-command './vault a' --new-key-command './vault b' d
	[ "$(grep -c a runs)" = 1 ]; claim "$kind: it is asked once"
	opens d './vault b' && opens d './vault a'; claim "$kind: each of them opens it"
	check "$kind: verify" "$VDISK" key verify --key-command './vault b' d
	grep -q 'keyslot 2 opens' "$stdout"; claim "$kind: names the keyslot"
	check "$kind: change" "$VDISK" key change -q --key-command './vault b' --new-key-command './vault c' d
	opens d './vault c'; claim "$kind: the new one opens it"
	check_fails 12 "$kind: the old one does not" "$VDISK" key verify --key-command './vault b' d
	check "$kind: the key that opens may be any of several" "$VDISK" compare -q --key-command './vault b' --key-file old disk.raw d
	"$VDISK" key remove -q d 1
	check_fails 12 "$kind: a slot that is removed takes its token along" "$VDISK" key verify --key-command './vault a' d
}
on luks2 -O raw --type luks2 --pbkdf-iterations 4 --pbkdf-memory 32
cryptsetup luksDump d | grep -q vdisk-keyslot && cryptsetup token export --token-id 2 d | grep -q '"token":{"helper":"vault-c"'
claim "luks2: cryptsetup lists the token"
cryptsetup luksAddKey -q --key-file old --pbkdf-force-iterations 4 --pbkdf-memory 32 d new && cryptsetup luksKillSlot -q --key-file new d 0
claim "luks2: cryptsetup adds and removes keyslots"
opens d './vault c'; claim "luks2: it outlives cryptsetup's changes"
on qcow2 --pbkdf-iterations 1000
printf 'other' > other
peer="--object secret,id=a,file=old --object secret,id=b,file=other --image-opts"
noted=driver=qcow2,file.filename=d,encrypt.key-secret=a
again qemu-img amend $peer $noted -o encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=1 && qemu-img snapshot -c s $peer $noted
claim "qcow2: qemu-img adds a keyslot and a snapshot"
opens d './vault c'; claim "qcow2: and leaves the token"
qemu-img check -q $peer $noted; claim "qcow2: qemu-img finds no fault"

# ---- tokens in files
"$VDISK" encrypt -q -O raw --key-file old --pbkdf-iterations 1000 disk.raw one
check_fails 63 "a LUKS1 container has no place for a token" "$VDISK" key add --key-file old --new-key-command './vault a' one
grep -q 'hint: --new-token-file' "$stderr" && [ "$(slots one)" = 0 ]; claim "and says what to do"
check "a file takes it" "$VDISK" key add -q --key-file old --new-key-command './vault a' --new-token-file a.token one
check "and gives it back" "$VDISK" compare -q --key-command './vault a' --token-file a.token disk.raw one
grep -q "$(cat kept/* | tail -1)" a.token; [ $? -eq 1 ]; claim "it holds no secret"
check_fails 12 "without it nothing is tried" "$VDISK" key verify --key-command './vault a' one
check_fails 1 "a file that is there is kept" "$VDISK" key add --key-file old --new-key-command './vault a' --new-token-file old one
[ "$(cat old)" = old ] && [ "$(slots one)" = "0 1" ]; claim "and no slot was made"
check_fails 64 "a file that holds none is refused" "$VDISK" key verify --key-command './vault a' --token-file old one
check_fails 1 "a file that is not there, too" "$VDISK" key verify --key-command './vault a' --token-file nowhere one
check "qcow2: a file instead of the image" "$VDISK" key add -q --key-file old --new-key-command './vault f' --new-token-file f.token d
! grep -q '"n":"'"$(ls kept | sort -n | tail -1)"'"' d; claim "then the token is not in the image"
check "and opens it" "$VDISK" compare -q --key-command './vault f' --token-file f.token disk.raw d

# ---- what a program may reply
"$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw p
"$VDISK" key add -q --key-file old --new-key-command './vault p' p
while read -r mode want words; do
	check_fails "$want" "opening: $mode" "$VDISK" key verify --key-timeout 1 --key-command "./vault p $mode" p
	grep -q "$words" "$stderr"; claim "$mode: says '$words'"
	case $mode in no-match | denied) want=12 ;; hang | huge | text | nothing | early) want=1 ;; *) continue ;; esac
	check_fails $want "sealing: $mode" "$VDISK" key add --key-timeout 1 --key-file old --new-key-command "./vault p $mode" p
done <<'MODES'
no-match 12 knows no
denied 12 is refused: so "says" theü p
unavailable 1 out of reach: so "says" theü p
failed 1 failed: so "says"
strange 1 failed: so "says"
early 1 reply is empty
unread 12 .
signal 1 killed by signal 9\|status 137
hang 1 took more than 1 second
silent 1 took more than 1 second
huge 1 more than 16384 bytes
endless 1 more than 16384 bytes
text 1 no JSON object
half 1 no JSON object
list 1 no JSON object
two 1 no JSON object
nothing 1 has no
number 1 has no
base64 1 no base64\|has no
empty 1 empty secret
wrong 12 does not open the keyslot
MODES
[ "$(slots p)" = "0 1" ]; claim "none of them made a keyslot"
check_fails 1 "a status that does not fit the reply" "$VDISK" key verify --key-command './vault p status' p
check_fails 1 "a command that is not there" "$VDISK" key verify --key-command './nowhere' p
grep -q 'hint:.*no such command' "$stderr"; claim "is told"
start=$(date +%s)
check_fails 1 "a child that keeps the output open" "$VDISK" key verify --key-command './vault p orphan' p
grep -q 'something that it started' "$stderr" && [ $(($(date +%s) - start)) -lt 10 ]; claim "is told, soon"
gone() { ! kill -0 "$(cat orphan)" || grep -q '^State:.*Z' "/proc/$(cat orphan)/status"; }
wait_until gone; claim "and is gone"
check "blanks and escapes in the reply" "$VDISK" key verify --key-command './vault p spaces' p
for mode in "long 5000" deep unicode no-object forgets; do
	check_fails 1 "no token: $mode" "$VDISK" key add --key-file old --new-key-command "./vault p $mode" p
done
[ "$(slots p)" = "0 1" ]; claim "makes no keyslot"
check_fails 64 "a key command makes no new image" "$VDISK" encrypt --new-key-command './vault p' disk.raw no.qcow2

# ---- several slots
"$VDISK" key add -q --key-file old --new-key-command './vault q' p
check "tokens of others are passed over" "$VDISK" key verify --key-command './vault q' p
grep -q 'keyslot 2 opens' "$stdout"; claim "to the slot that fits"
cat > picky <<'SH'
#!/bin/sh
cat > picky.request
grep -q vault-p picky.request && { echo '{"error":{"kind":"denied","message":"not p"}}'; exit 1; }
exec ./vault q < picky.request
SH
chmod +x picky
check "denied for one slot, given for the other" "$VDISK" key verify --key-command ./picky p
"$VDISK" key remove -q p 2
check_fails 12 "denied and nothing else" "$VDISK" key verify --key-command ./picky p

# ---- room
for size in 512 1024 4096; do
	rm -f s
	"$VDISK" encrypt -q -o cluster_size=$size --key-file old --pbkdf-iterations 1000 disk.raw s
	sha256sum s > before
	check_fails 14 "qcow2 of clusters of $size: no room" "$VDISK" key add --key-file old --new-key-command './vault a long 3900' s
	sha256sum -c --quiet before; claim "clusters of $size: nothing has changed"
	check "clusters of $size: but in a file there is" "$VDISK" key add -q --key-file old --new-key-command './vault a long 3900' --new-token-file s.$size s
done
rm -f s; "$VDISK" encrypt -q --key-file old --pbkdf-iterations 1000 disk.raw s
for i in 1 2 3 4 5 6 7; do "$VDISK" key add -q --key-file old --new-key-command "./vault l$i long 3900" s || break; done
opens s './vault l1' && opens s './vault l7'; claim "a qcow2 of 64 KiB keeps 7 tokens of 4 KiB"
rm -f s; "$VDISK" encrypt -q -O raw --type luks2 --key-file old --pbkdf-iterations 4 --pbkdf-memory 32 disk.raw s
i=1
while run "$VDISK" key add -q --key-file old --new-key-command "./vault l$i long 3900" s; do i=$((i + 1)); done
[ "$status" -eq 14 ] && grep -q 'no room for a token' "$stderr" && [ "$i" -eq 3 ] && [ "$(slots s)" = "0 1 2" ]
claim "LUKS2 keeps 2, and says so"
opens s './vault l2'; claim "which open"

# ---- bound to a machine
for kind in 'raw --type luks2 --pbkdf-memory 32 --pbkdf-iterations 4' 'qcow2 --pbkdf-iterations 1000'; do
	"$VDISK" encrypt -q --force -O $kind --key-file old disk.raw m
	check "a slot that is bound" "$VDISK" key add -q --key-file old --new-key-command './vault m bound' m
	"$VDISK" key list --output=json m > list.json; json_is list.json '$d->{keyslots}[1]{"machine-bound"}' true; claim "is known as such"
	check_fails 64 "the last that is not bound stays" "$VDISK" key remove m 0
	grep -q 'one machine' "$stderr"; claim "and is told why"
	check_fails 64 "change does not replace it by one that is" "$VDISK" key change --key-file old --new-key-command './vault n bound' m
	[ "$(slots m)" = "0 1" ]; claim "and changes nothing"
	check "by one that is not, it does" "$VDISK" key change -q --key-file old --new-key-command './vault n' m
	check "--last removes it" "$VDISK" key remove -q --last --yes m 2
	opens m './vault m'; claim "the bound one is alone"
	check "to which a passphrase is added" "$VDISK" key add -q --key-command './vault m' --new-key-file old m
	check "then the bound one may go" "$VDISK" key remove -q m 1
done

# ---- secrets are where they belong
"$VDISK" key verify --key-command './vault p slow' p > /dev/null & runner=$!
wait_until test -s slow
for secret in kept/*; do cat "$secret"; echo; base64 -d < "$secret"; echo; done | grep . > secrets
for p in "$runner" "$(cat slow)"; do tr '\0' '\n' < /proc/$p/cmdline; tr '\0' '\n' < /proc/$p/environ; done > seen
[ -s seen ] && ! grep -qFf secrets seen; claim "neither arguments nor environment hold a secret while the program runs"
wait $runner; claim "and it goes on"
grep -rlFf secrets . --exclude-dir=kept --exclude=secrets --exclude=request > found
[ ! -s found ]; claim "no file holds one"

# ---- a PIN
at_terminal "'$VDISK' key verify --key-command './vault p pin' p"
answer PIN: 1 '1234\n'
finish 0; claim "a PIN can be typed"
at_terminal "'$VDISK' key verify --key-command './vault p pin' p; stty -a | grep -c isig"
answer PIN: 1 '9999\n'
finish 0 && grep -q 'is refused' screen; claim "a wrong one is refused, and the terminal is back"
at_terminal "'$VDISK' key verify --key-command './vault p pin' p"
answer PIN: 1 '\003'
finish 1 && grep -q 'killed by signal 2' screen; claim "Ctrl-C ends the question"
done_testing
