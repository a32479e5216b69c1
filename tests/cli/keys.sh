#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Where a key may come from, each source by itself, and that no secret shows anywhere.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/terminal.sh"
requires script keyctl

fast="--pbkdf-iterations 1000"
printf 'se cret' > key
printf 'se cret\nmore\n' > line
printf wrong > wrong
truncate -s 1M disk.raw
printf 'a disk' | dd of=disk.raw conv=notrunc status=none
"$VDISK" encrypt -q $fast --key-file key disk.raw e.qcow2

opens() { rm -f out.raw; "$@" && cmp out.raw disk.raw; }
check "--key-file" opens "$VDISK" decrypt --key-file key e.qcow2 out.raw
check "--key-file -" opens sh -c '"$VDISK" decrypt --key-file - e.qcow2 out.raw < key'
check "--passphrase-file" opens "$VDISK" decrypt --passphrase-file line e.qcow2 out.raw
check "--passphrase-file -" opens sh -c '"$VDISK" decrypt --passphrase-file - e.qcow2 out.raw < line'
check "--passphrase-fd" opens sh -c '"$VDISK" decrypt --passphrase-fd 7 e.qcow2 out.raw 7< line'
check "--passphrase-fd 0" opens sh -c '"$VDISK" decrypt --passphrase-fd 0 e.qcow2 out.raw < line'
check "--passphrase-command" opens "$VDISK" decrypt --passphrase-command 'cat line' e.qcow2 out.raw
check "VDISK_PASSCOMMAND" opens env VDISK_PASSCOMMAND='cat line' "$VDISK" decrypt e.qcow2 out.raw
# A session keyring that is gone with the command. Some containers allow none: that is told then, not skipped.
in_session() { # COMMAND LINE
	keyctl session - sh -c 'keyctl padd user vdisk:e @s < key > /dev/null && keyctl padd user vdisk:f @s < wrong > /dev/null && '"$1"
}
if in_session true > /dev/null 2>&1; then
	check "--key-keyring" opens in_session '"$VDISK" decrypt --key-keyring vdisk:e e.qcow2 out.raw'
	check "--key-keyring with a type" opens in_session '"$VDISK" decrypt --key-keyring user:vdisk:e e.qcow2 out.raw'
	check "--new-key-keyring" in_session '"$VDISK" convert -q -O qcow2 '"$fast"' --key-keyring vdisk:e --new-key-keyring vdisk:f e.qcow2 k.qcow2'
	rm -f out.raw
	"$VDISK" decrypt -q --key-file wrong k.qcow2 out.raw && cmp -s out.raw disk.raw; claim "opens the output, too"
	check_fails 1 "a key that no keyring has" in_session '"$VDISK" decrypt --key-keyring vdisk:none e.qcow2 out2.raw'
	grep -q vdisk:none "$stderr"; claim "is told by its name"
else
	check_fails 63 "keyrings that the system does not allow are told" "$VDISK" decrypt --key-keyring vdisk:e e.qcow2 out.raw
fi
check_fails 64 "a key that only the kernel reads is refused" "$VDISK" decrypt --key-keyring logon:vdisk:e e.qcow2 out2.raw
mkdir credentials
cp key credentials/vdisk.key
check "a credential" opens env CREDENTIALS_DIRECTORY="$PWD/credentials" "$VDISK" decrypt e.qcow2 out.raw
check "--object" opens "$VDISK" decrypt --object secret,id=s,file=key e.qcow2 out.raw
check "--object with format=raw" opens "$VDISK" decrypt --object secret,id=s,format=raw,file=key e.qcow2 out.raw
check "the right one of several" opens "$VDISK" decrypt --key-file wrong --passphrase-file line --key-file wrong e.qcow2 out.raw

check "an option comes before the environment" opens env VDISK_PASSCOMMAND=false "$VDISK" decrypt --key-file key e.qcow2 out.raw
check "the command comes before the credential" opens env VDISK_PASSCOMMAND='cat line' CREDENTIALS_DIRECTORY=/nowhere \
	"$VDISK" decrypt e.qcow2 out.raw
rm -f out.raw
check "neither is asked for an image in clear" env VDISK_PASSCOMMAND=false "$VDISK" convert disk.raw out.raw
rm -f out.raw

fails() { # STATUS TEXT COMMAND...
	want=$1 text=$2
	shift 2
	check_fails "$want" "fails: $*" "$@" </dev/null
	grep -q -e "$text" "$stderr" && [ ! -e out.raw ]
	claim "says '$text', and no file is left"
}
fails 12 e.qcow2 "$VDISK" decrypt --key-file wrong e.qcow2 out.raw
fails 12 newline "$VDISK" decrypt --key-file line e.qcow2 out.raw
fails 1 nowhere "$VDISK" decrypt --key-file nowhere e.qcow2 out.raw
fails 1 "" "$VDISK" decrypt --passphrase-command false e.qcow2 out.raw
fails 1 "" env VDISK_PASSCOMMAND=false "$VDISK" decrypt e.qcow2 out.raw
fails 64 "not open" "$VDISK" decrypt --passphrase-fd 77 e.qcow2 out.raw
fails 64 "not a file descriptor" "$VDISK" decrypt --passphrase-fd x e.qcow2 out.raw
fails 64 "both" sh -c '"$VDISK" decrypt --key-file - --passphrase-file - e.qcow2 out.raw < wrong'
fails 64 "file=" "$VDISK" decrypt --object secret,id=s,data=hunter2 e.qcow2 out.raw
! grep -q hunter2 "$stderr"
claim "the secret is not repeated"
fails 64 "secret" "$VDISK" decrypt --object iothread,id=s e.qcow2 out.raw
fails 64 "id= and file=" "$VDISK" decrypt --object secret,id=s e.qcow2 out.raw
fails 64 "format" "$VDISK" decrypt --object secret,id=s,file=key,format=base64 e.qcow2 out.raw
fails 12 "no terminal" setsid "$VDISK" decrypt e.qcow2 out.raw
fails 12 "no terminal" setsid "$VDISK" encrypt disk.raw out.raw
fails 12 "no terminal" env CREDENTIALS_DIRECTORY=/nowhere setsid "$VDISK" decrypt e.qcow2 out.raw

# A new key beside an old one.
cp wrong credentials/vdisk.new-key
check "both credentials" env CREDENTIALS_DIRECTORY="$PWD/credentials" "$VDISK" convert -q -O qcow2 $fast --encrypt e.qcow2 f.qcow2
check "the new one opens the output" opens "$VDISK" decrypt --key-file wrong f.qcow2 out.raw
rm -f f.qcow2
check "the command of the environment is for the old key" env VDISK_PASSCOMMAND='cat line' CREDENTIALS_DIRECTORY="$PWD/credentials" \
	"$VDISK" convert -q -O qcow2 $fast --encrypt e.qcow2 f.qcow2
check "the new one opens the output then too" opens "$VDISK" decrypt --key-file wrong f.qcow2 out.raw
check "a credential alone encrypts nothing" env CREDENTIALS_DIRECTORY="$PWD/credentials" "$VDISK" convert -q -O qcow2 e.qcow2 g.qcow2
"$VDISK" info g.qcow2 | sed -n 1p | grep -q '^NOT ENCRYPTED'
claim "it takes --encrypt"
for option in --new-key-file=wrong --new-passphrase-file=wrong "--new-passphrase-command=cat wrong" --new-passphrase-fd=8; do
	rm -f f.qcow2
	check "$option" "$VDISK" convert -q -O qcow2 $fast --key-file key "$option" e.qcow2 f.qcow2 8< wrong
	check "opens the output: $option" opens "$VDISK" decrypt --key-file wrong f.qcow2 out.raw
done

# The terminal.
rm -f out.raw
at_terminal '"$VDISK" decrypt e.qcow2 out.raw'
answer 'passphrase of e.qcow2:' 1 'typo\n'
answer 'passphrase of e.qcow2:' 2 'se cret\n'
finish 0 && cmp -s out.raw disk.raw
claim "the terminal is asked again after a wrong key"
! grep -aq 'se cret' screen
claim "what is typed does not show"
rm -f out.raw
at_terminal '"$VDISK" decrypt e.qcow2 out.raw'
for i in 1 2 3; do answer 'passphrase of e.qcow2:' $i 'typo\n'; done
finish 12 && [ ! -e out.raw ]
claim "three times"
at_terminal '"$VDISK" encrypt --pbkdf-iterations 1000 disk.raw t.qcow2'
answer 'new passphrase for t.qcow2:' 1 'typed\n'
answer 'the same again:' 1 'typed\n'
printf typed > typed-key
finish 0 && "$VDISK" compare -q --key-file typed-key disk.raw t.qcow2
claim "a new passphrase is asked for twice"
rm -f t.qcow2
at_terminal '"$VDISK" encrypt --pbkdf-iterations 1000 disk.raw t.qcow2'
answer 'new passphrase for t.qcow2:' 1 'typed\n'
answer 'the same again:' 1 'typo\n'
finish 64 && grep -aq 'differ' screen && [ ! -e t.qcow2 ]
claim "two that differ are refused"
at_terminal '"$VDISK" encrypt --pbkdf-iterations 1000 disk.raw t.qcow2'
answer 'new passphrase for t.qcow2:' 1 '\n'
answer 'the same again:' 1 '\n'
finish 64 && grep -aq 'empty' screen && [ ! -e t.qcow2 ]
claim "an empty one is refused"
# The signal is for vdisk alone: a shell may end by it too, dash does.
at_terminal 'trap : INT; "$VDISK" encrypt disk.raw t.qcow2; stty -a'
answer 'new passphrase for t.qcow2:' 1 'typ\003'
finish 0 && grep -aq 'stopped by SIGINT' screen && grep -aq ' echo ' screen && [ ! -e t.qcow2 ]
claim "Ctrl-C at the question ends it and gives the echo back"

# What other users can see of the process while it works.
check "a passphrase command whose process is looked at" opens "$VDISK" decrypt --passphrase-command \
	'tr "\0" "\n" < /proc/$PPID/cmdline > seen-cmdline; tr "\0" "\n" < /proc/$PPID/environ > seen-environ 2>/dev/null; cat line' e.qcow2 out.raw
! grep -q 'se cret' seen-cmdline seen-environ
claim "the secret is in neither arguments nor environment"
done_testing
