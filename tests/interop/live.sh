#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The disk of a running machine at one moment: qemu runs without a guest, its own writes are the machine's, and a small agent says what it was
# told. What is shown is compared with what the disk was then.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-system-x86_64 qemu-img qemu-io python3 perl

changes=$BUILDDIR/tests/interop/changes
mark=
look() { "$changes" "$@" > seen 2> seen.err && mark=$(sed -n 's/^mark: //p' seen); }
ranges() { grep '^[0-9]' seen | tr '\n' ','; }

# talk COMMAND [ARGUMENTS]: one QMP command, on a socket that is not the backup's
cat > talk.py <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect("own.qmp"); f = s.makefile("rw")
f.readline()
def run(c, a):
    f.write(json.dumps({"execute": c, "arguments": a}) + "\n"); f.flush()
    while True:
        o = json.loads(f.readline())
        if "return" in o or "error" in o: return o
run("qmp_capabilities", {})
o = run(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
print(json.dumps(o)); sys.exit("error" in o)
PY
talk() { python3 talk.py "$@" > talk.out; }
io() { talk human-monitor-command "{\"command-line\":\"qemu-io disk \\\"$1\\\"\"}" && ! grep -q 'rror' talk.out; }
# An agent that keeps what it is told; MODE "dumb" freezes and then says nothing, "refuse" does not freeze
cat > agent.py <<'PY'
import json, os, socket, sys
mode = sys.argv[1]
if os.path.exists("agent.sock"): os.unlink("agent.sock")
s = socket.socket(socket.AF_UNIX); s.bind("agent.sock"); s.listen(4)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    for line in c.makefile("r"):
        o = json.loads(line); what = o["execute"]
        with open("agent.log", "a") as log: log.write(what + "\n")
        if what == "guest-sync": r = {"return": o["arguments"]["id"]}
        elif what == "guest-fsfreeze-freeze" and mode == "refuse": r = {"error": {"class": "GenericError", "desc": "no such thing"}}
        else: r = {"return": 1}
        if what == "guest-fsfreeze-freeze" and mode == "dumb": continue
        try: c.sendall(("garbage\n" if what == "guest-sync" else "").encode() + (json.dumps(r) + "\n").encode())
        except OSError: break
PY
agent=
start_agent() { stop_agent; : > agent.log; python3 agent.py "$1" > agent.out 2>&1 & agent=$!; for t in $(seq 200); do grep -q ready agent.out && break; sleep 0.05; done; }
stop_agent() { [ -z "$agent" ] || { kill $agent 2> /dev/null; wait $agent 2> /dev/null; }; agent=; }
machine=
start_machine() {
	rm -f own.qmp qmp.sock
	qemu-system-x86_64 -accel tcg -S -M pc -m 64 -nodefaults -display none -qmp unix:own.qmp,server=on,wait=off -qmp unix:qmp.sock,server=on,wait=off \
		-object secret,id=s,file=key -drive "if=none,id=disk,$1" -device ide-hd,drive=disk > machine.log 2>&1 &
	machine=$!
	for t in $(seq 400); do [ -S own.qmp ] && [ -S qmp.sock ] && talk query-status && break; sleep 0.05; done
}
stop_machine() { [ -z "$machine" ] || { talk quit; wait $machine; } ; machine=; }
on_exit '[ -z "$machine" ] || kill $machine 2>/dev/null; [ -z "$agent" ] || kill $agent 2>/dev/null'
nothing_is_left() { # in qemu
	talk query-jobs && grep -q '"return": \[\]' talk.out && talk query-named-block-nodes && ! grep -q 'vdisk-fleece' talk.out && ! grep -q 'vdisk-moment' talk.out &&
		talk query-block-exports && grep -q '"return": \[\]' talk.out
}
bitmaps() { talk query-block && grep -o 'vdisk-backup-[0-9a-f-]*' talk.out | sort -u | wc -l; }

printf 'correct horse' > key
qemu-img create -q -f qcow2 d.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 8M' d.qcow2 > log
start_machine file=d.qcow2,format=qcow2
start_agent well

look -a -t -q qmp.sock -g agent.sock -o first.raw d.qcow2 && grep -q '^scan: no base' seen; claim "a first backup of a running machine is a scan"
base=$mark
[ "$(tr '\n' ' ' < agent.log)" = "guest-sync guest-fsfreeze-freeze guest-fsfreeze-thaw " ]; claim "the guest was frozen, and thawed"
cat > first.io <<'X'
read -P 1 0 8M
read -P 0 8M 56M
X
qemu_io -f raw first.raw < first.io; claim "what is shown is the disk"
nothing_is_left && [ "$(bitmaps)" -eq 1 ] && [ -z "$(ls | grep fleece)" ]; claim "and nothing is left but the bitmap"
io 'write -P 2 1M 100k'; claim "the machine writes"
# It goes on writing while it is read.
"$changes" -a -t -m "$base" -q qmp.sock -g agent.sock -w 3 -o then.raw d.qcow2 > seen 2> seen.err & backup=$!
sleep 1.5
io 'write -P 3 1M 64k' && io 'write -P 4 20M 1M' && io 'write -z 4M 1M'
wait $backup; claim "a backup, while the machine writes"
mark=$(sed -n 's/^mark: //p' seen)
grep -qx 'source: NBD bitmap' seen && [ "$(ranges)" = "1048576 131072," ]; claim "what had changed is known"
cat > then.io <<'X'
read -P 2 1M 100k
read -P 1 4M 1M
read -P 0 20M 1M
X
qemu_io -f raw then.raw < then.io; claim "what is shown is the disk of the moment"
nothing_is_left && [ "$(bitmaps)" -eq 1 ]; claim "the base's bitmap is gone, the new one is there"
second=$mark
look -a -t -m "$second" -q qmp.sock -e failed d.qcow2
[ "$(ranges)" = "1048576 65536,4194304 1048576,20971520 1048576," ] && [ "$(bitmaps)" -eq 1 ]; claim "what was written meanwhile is of the next one; one that fails leaves the base's bitmap"

# Killed at any time: the machine goes on, the guest is thawed, the next one clears away.
: > agent.log
"$changes" -a -t -m "$second" -q qmp.sock -g agent.sock -w 20 d.qcow2 > seen 2> seen.err & backup=$!
for t in $(seq 200); do talk query-jobs; grep -q vdisk-job talk.out && break; sleep 0.05; done
kill -9 $backup; wait $backup 2> /dev/null
io 'write -P 5 30M 64k'; claim "killed, it leaves a machine that writes"
look -a -t -m "$second" -q qmp.sock d.qcow2
[ "$(ranges)" = "1048576 65536,4194304 1048576,20971520 1048576,31457280 65536," ]; claim "the next one misses nothing"
nothing_is_left && [ "$(bitmaps)" -eq 1 ]; claim "and clears away what was left"
third=$mark
start_agent dumb
"$changes" -a -m "$third" -q qmp.sock -g agent.sock d.qcow2 > seen 2> seen.err & backup=$!
for t in $(seq 600); do grep -q freeze agent.log && break; sleep 0.05; done
kill -9 $backup; wait $backup 2> /dev/null
for t in $(seq 200); do grep -q thaw agent.log && break; sleep 0.05; done
grep -q 'guest-fsfreeze-thaw' agent.log; claim "killed while the guest is frozen, it is thawed all the same"
start_agent refuse
"$changes" -a -m "$third" -q qmp.sock -g agent.sock d.qcow2 > seen 2> seen.err; [ $? -eq 1 ] && grep -q 'no such thing' seen.err; claim "a guest that does not freeze is an error"
grep -q 'guest-fsfreeze-thaw' agent.log; claim "and is thawed"
nothing_is_left && [ "$(bitmaps)" -eq 1 ]; claim "and nothing is left"
stop_agent; rm -f agent.sock
"$changes" -q qmp.sock -g agent.sock d.qcow2 > seen 2> seen.err; [ $? -eq 1 ] && grep -q 'agent.sock' seen.err; claim "an agent that is not there is an error"

# Who else.
python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.connect("qmp.sock"); s.recv(1); print("held", flush=True); time.sleep(120)' > held & other=$!
for t in $(seq 600); do grep -q held held && break; sleep 0.05; done
"$changes" -q qmp.sock d.qcow2 > seen 2> seen.err; [ $? -eq 1 ] && grep -q 'in-use.*somebody else' seen.err; claim "a socket that somebody holds is in use"
kill $other; wait $other 2> /dev/null
cp d.qcow2 e.qcow2
"$changes" -q qmp.sock e.qcow2 > seen 2> seen.err; [ $? -eq 1 ] && grep -q 'has no such disk' seen.err; claim "a disk that the machine does not have is an error"
talk nbd-server-start '{"addr":{"type":"unix","data":{"path":"theirs.sock"}}}'
"$changes" -q qmp.sock d.qcow2 > seen 2> seen.err; [ $? -eq 1 ]; claim "an NBD server of somebody else's is left alone"
[ -S theirs.sock ] && talk nbd-server-stop && nothing_is_left; claim "and runs on"

# From one to the other: the machine stops, and starts.
io 'write -P 6 40M 64k'
stop_machine
look -a -t -m "$third" d.qcow2 && grep -qx 'source: qcow2 bitmap' seen && [ "$(ranges)" = "41943040 65536," ]
claim "when the machine has stopped, its bitmap tells"
fourth=$mark
qemu-img check -q d.qcow2; claim "qemu-img check finds nothing"
qemu-io -f qcow2 -c 'write -P 7 50M 64k' d.qcow2 > log
start_machine file=d.qcow2,format=qcow2
io 'write -P 8 51M 64k'
look -a -m "$fourth" -q qmp.sock d.qcow2 && [ "$(ranges)" = "52428800 65536,53477376 65536," ]; claim "and when it runs again, too"
look -a -m "$second" -q qmp.sock d.qcow2 && grep -q '^scan: .*is not there' seen; claim "an older base's is not there, and is a scan"
stop_machine

# Encrypted: what qemu copies aside is never in clear.
"$VDISK" create -q -f qcow2 --encrypt --pbkdf-iterations 1000 --key-file key enc.qcow2 16M
"$imgio" -w -k key enc.qcow2 'write -P 119 1M 1M' > log
start_machine file=enc.qcow2,format=qcow2,encrypt.key-secret=s
"$changes" -a -t -q qmp.sock -w 3 -o enc.raw enc.qcow2 > seen 2> seen.err & backup=$!
for t in $(seq 200); do talk query-jobs; grep -q vdisk-job talk.out && break; sleep 0.05; done
io 'write -P 9 1M 1M'
fleece=$(ls -l /proc/$machine/fd | sed -n 's/.* \([0-9]*\) -> .*fleece.*/\1/p' | head -1)
[ -n "$fleece" ] && cp "/proc/$machine/fd/$fleece" fleece.copy && [ "$(wc -c < fleece.copy)" -gt 1000000 ]; claim "qemu has a file for what is overwritten"
perl -e 'local $/; exit(<> =~ /w{512}/ ? 1 : 0)' fleece.copy; claim "in which nothing is in clear"
wait $backup; printf 'read -P 119 1M 1M\n' > enc.io; qemu_io -f raw enc.raw < enc.io; claim "what is shown is the disk of the moment, opened"
stop_machine

# The verb, from end to end.
printf 'repository secret\n' > pw
"$VDISK" repo init -q --repo r --passphrase-file pw 2> log || cat log >&2
start_machine file=d.qcow2,format=qcow2
start_agent well
check "a backup of a running machine" "$VDISK" backup --repo r --repo-passphrase-file pw --track --qmp qmp.sock --agent agent.sock d.qcow2
[ "$(tr '\n' ' ' < agent.log)" = "guest-sync guest-fsfreeze-freeze guest-fsfreeze-thaw " ]; claim "froze the guest, and thawed it"
io 'write -P 33 11M 64k'
check "the next one" "$VDISK" backup --repo r --repo-passphrase-file pw --track --qmp qmp.sock d.qcow2
grep -q 'NBD bitmap' "$stdout" "$stderr"; claim "goes by the bitmap"
nothing_is_left; claim "and leaves nothing in qemu"
check_fails 64 "an agent without a machine" "$VDISK" backup --repo r --repo-passphrase-file pw --agent agent.sock d.qcow2
stop_machine
check "restored" "$VDISK" restore -q --repo r --passphrase-file pw latest back.raw
qemu-img compare -q -f raw -F qcow2 back.raw d.qcow2; claim "is the disk"
check "a backup when it has stopped" "$VDISK" backup --repo r --repo-passphrase-file pw --track d.qcow2
grep -q 'qcow2 bitmap' "$stdout" "$stderr"; claim "goes by the same bitmap"

done_testing
