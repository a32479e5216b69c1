#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Signals: a job that is stopped leaves nothing behind, says so in one line, and tells by which signal it ended. Progress.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires perl script

printf secret > key
head -c 300M /dev/urandom > disk.raw
cp disk.raw before.raw

# frozen COMMAND...: starts it and freezes it as soon as its output grows; its process is $job
frozen() {
	rm -f out out.vdisk-partial
	# A shell lets its background jobs ignore SIGINT, and what is ignored stays so.
	env --default-signal=INT "$@" > job.out 2> job.err & job=$!
	wait_until sh -c '[ -s out.vdisk-partial ]' && kill -STOP $job && [ -e out.vdisk-partial ]
}
# thawed SIGNAL: sends it, lets the job go on, waits for its end
thawed() {
	kill -"$1" $job
	kill -CONT $job
	wait $job
	status=$?
}
slow="convert -m 1 -c -O qcow2 disk.raw out"
for signal in TERM:143 INT:130 HUP:129; do
	name=${signal%%:*}
	frozen "$VDISK" $slow
	claim "a job is caught at work, for SIG$name"
	thawed "$name"
	[ "$status" -eq "${signal##*:}" ]
	claim "SIG$name: the exit status is ${signal##*:}"
	[ "$(cat job.err)" = "vdisk: stopped by SIG$name; out was not written" ]
	claim "SIG$name: one line says so"
	[ ! -e out ] && [ ! -e out.vdisk-partial ]
	claim "SIG$name: nothing is left"
done
frozen "$VDISK" $slow --output=json
thawed TERM
[ "$status" -eq 143 ] && [ ! -s job.err ] && json_is job.out '$d->{code}' 143 && json_is job.out '$d->{name}' interrupted
claim "with --output=json it is an object"
frozen "$VDISK" encrypt --pbkdf-iterations 1000 -m 1 --key-file key disk.raw out
thawed TERM
[ "$status" -eq 143 ] && [ ! -e out ] && [ ! -e out.vdisk-partial ]
claim "a stopped encryption leaves nothing"
cmp -s disk.raw before.raw
claim "the input is as it was"

frozen "$VDISK" $slow
kill -KILL $job
kill -CONT $job
wait $job 2>/dev/null
[ ! -e out ] && [ -e out.vdisk-partial ]
claim "a killed job leaves its partial file and no output"
check "the next run with that output is not hindered by it" "$VDISK" convert -O qcow2 disk.raw out
[ ! -e out.vdisk-partial ] && "$VDISK" compare -q disk.raw out
claim "and removes it"
frozen "$VDISK" $slow
check_fails 11 "a second run with the same output is refused" "$VDISK" convert -O qcow2 disk.raw out
thawed TERM
rm -f out

# SIGUSR1: one line of progress, in every mode.
for mode in none line bar json; do
	frozen "$VDISK" convert --progress=$mode -q -m 1 -c -O qcow2 disk.raw out
	kill -USR1 $job
	kill -CONT $job
	wait_until sh -c 'tr "\r" "\n" < job.err | grep -Eq "^(.\[K)?convert: [0-9]+ %, .* of 300 MiB, "'
	claim "SIGUSR1 prints a line with --progress=$mode"
	thawed TERM
done
frozen env sh -c 'trap "" TERM; exec "$VDISK" "$@"' - $slow
thawed TERM
[ "$status" -eq 0 ] && [ -e out ]
claim "a signal that the parent ignores stays ignored"

# How progress looks.
rm -f out
check "--progress=line" "$VDISK" convert --progress=line -O qcow2 disk.raw out
grep -Eq '^convert: 100 %, 300 MiB of 300 MiB, .*/s' "$stderr" && [ "$(wc -l < "$stderr")" -le 12 ] && ! grep -q "$(printf '\r')" "$stderr"
claim "is plain lines, one for each tenth at most"
rm -f out
check "without the option" "$VDISK" convert -O qcow2 disk.raw out
! grep -q "$(printf '\r')" "$stderr" && [ "$(wc -l < "$stderr")" -le 11 ]
claim "a file gets no bar"
rm -f out
check "--progress=json with --output=json" "$VDISK" convert --progress=json --output=json -O qcow2 disk.raw out
is_json_lines "$stdout" && [ ! -s "$stderr" ] && tail -n 1 "$stdout" | grep -q '"type":"summary"' &&
	head -n 1 "$stdout" > first && json_is first '$d->{type}' progress && json_is first '$d->{total}' 314572800 &&
	json_is first '$d->{unit}' bytes
claim "all lines are objects, the last is the summary"
rm -f out
check "--progress=json without" "$VDISK" convert --progress=json -O qcow2 disk.raw out
is_json_lines "$stderr" && grep -q '^out: qcow2' "$stdout"
claim "keeps standard output for the result"
rm -f out
check "--progress=none" "$VDISK" convert --progress=none -O qcow2 disk.raw out
[ ! -s "$stderr" ]
claim "says nothing"
rm -f out
script -qec '"$VDISK" convert -c -m 1 -O qcow2 disk.raw out' screen < /dev/null > /dev/null
tr '\r' '\n' < screen | grep -aEq 'convert +[0-9]+ % \[#*\.*\] .*/s' && grep -aq '^.*out: qcow2' screen
claim "a terminal gets a bar"
rm -f out
script -qec '"$VDISK" convert -q -O qcow2 disk.raw out' screen < /dev/null > /dev/null
! tr '\r' '\n' < screen | grep -aq '%'
claim "not with -q"
rm -f out
check "a closed pipe" sh -c '"$VDISK" convert --progress=json -O qcow2 disk.raw out 2>&1 | true'
[ ! -e out.vdisk-partial ]
claim "leaves no partial file"

# No core file, however the process dies.
ulimit -c unlimited 2>/dev/null
frozen "$VDISK" $slow
limit=$(awk '/Max core file size/ { print $5 }' /proc/$job/limits)
[ "$limit" = 0 ]
claim "the process can leave no core file"
thawed TERM
done_testing
