#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Secrets in the memory of the command itself, looked at from outside while it waits: for a reader of what it writes, for a
# line at the terminal, for a pipe that gives the key.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires cryptsetup script
# The sanitizers' allocator keeps what was freed.
ldd "$VDISK" | grep -q 'lib[at]san' && { ok "nothing to look at in a build with sanitizers"; done_testing; }

fast="--pbkdf-iterations 1000"
printf 'correct horse battery' > pass
yes 'a line of text' | head -c 4194304 > disk.raw
"$VDISK" encrypt -q -O raw $fast --key-file pass disk.raw e.luks
cryptsetup -q luksDump --dump-volume-key --volume-key-file vk --key-file pass e.luks > /dev/null
for i in 0 1 2 3; do dd if=vk of=vk$i bs=16 count=1 skip=$i status=none; done
mkfifo pipe

# stands_still PID: it sleeps in a system call
stands_still() { grep -q '^State:.*sleeping' "/proc/$1/status" && sleep 0.3 && grep -q '^State:.*sleeping' "/proc/$1/status"; }
# guarded PID FILE LEAST: the secret is there LEAST times or more, always locked and left out of core files
guarded() {
	set -- "$3" $("$BUILDDIR/tests/interop/leftovers" "$1" "$2")
	[ $# -eq 4 ] || return 1
	echo "# in memory $2 times, to be swapped $3, in core files $4"
	[ "$2" -ge "$1" ] && [ "$3" -eq 0 ] && [ "$4" -eq 0 ]
}
# in_background COMMAND...: with the descriptors as they are; its process is $pid
in_background() {
	"$@" & pid=$!
	on_exit "kill -KILL $pid 2> /dev/null"
}

# ---- a disk that is read, its reader asleep
exec 8<> pipe
in_background "$VDISK" convert -q --key-file pass -O raw e.luks - >&8 2> /dev/null
wait_until stands_still $pid; claim "a decryption waits for its reader"
guarded $pid pass 1; claim "its passphrase is in locked memory only"
for i in 0 1 2 3; do guarded $pid vk$i 1; claim "part $i of the volume key, too"; done
grep -q '^Max core file size *0 *0 ' "/proc/$pid/limits"; claim "and it would write no core file"
kill $pid
wait $pid
exec 8>&-

# ---- a recovery key: on its file, while the note behind it waits for somebody to read standard error
shows() { # WHAT OPTIONS: what of it is in memory goes into the file "shown"
	what=$1
	shift
	exec 8<> pipe
	head -c 65536 /dev/zero >&8     # fills the pipe
	rm -f before.hdr
	in_background "$VDISK" key recovery "$@" --header-backup before.hdr --key-file pass $fast e.luks > shown 2>&8
	wait_until sh -c '[ -s shown ]' && wait_until stands_still $pid; claim "$what is shown, and the command waits"
	sed -n 1p shown | tr -d '\n' > secret
	guarded $pid secret 1; claim "$what is in locked memory only"
	guarded $pid pass 1; claim "and so is the passphrase"
	kill -KILL $pid         # which waits in a write, and would end behind it
	wait $pid
	exec 8>&-
}
shows "a recovery key"
shows "a share of one" --split 2/3

# ---- a passphrase that was typed once, while it is to be typed again
at_terminal 'echo $$ > typing; exec "$VDISK" encrypt --pbkdf-iterations 1000 disk.raw t.qcow2'
answer 'new passphrase for t.qcow2:' 1 'correct horse battery\n'
wait_until grep -aq 'the same again' screen
guarded "$(cat typing)" pass 1; claim "what was typed is in locked memory only"
answer 'the same again:' 1 'correct horse battery\n'
finish 0; claim "and makes an image"
done_testing
