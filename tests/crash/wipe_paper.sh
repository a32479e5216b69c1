#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The paper of a wipe that is killed, or fails, when the work is done and the paper is not: it is never lost, and it never says more.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
requires perl ssh-keygen mount

id_of() { "$VDISK" wipe --dry-run --output=json "$@" > dry.json && perl -MJSON::PP -0ne 'print decode_json($_)->{confirm}' dry.json; }
verifies() { "$VDISK" cert verify --output=json --public-key key.pub "$1" > verified.json && json_is verified.json '$d->{kind}' "$2"; }
"$VDISK" cert keygen -q key
head -c 300000 /dev/urandom > some

# An agent that takes every request and answers none: the wipe stands between its last byte and its paper.
perl -MIO::Socket::UNIX -e '$SIG{ALRM} = sub { exit }; alarm 60; my @held;
	my $s = IO::Socket::UNIX->new(Local => "agent", Listen => 9) or die; while (my $c = $s->accept) { push @held, $c }' & agent=$!
on_exit "kill $agent 2>/dev/null"
wait_until test -S agent
# killed_before_paper TARGET OPTIONS...
killed_before_paper() {
	target=$1
	shift
	kb_id=$(id_of "$@" "$target")
	SSH_AUTH_SOCK=$PWD/agent "$VDISK" wipe "$@" --confirm="$kb_id" --certificate=paper.json --sign-key=key.pub --operator=Wang "$target" > killed.out 2>&1 & pid=$!
	wait_until grep -q 'read back' killed.out
	[ ! -e paper.json ] && kill -9 $pid
	kb_killed=$?
	wait $pid 2>/dev/null
	return $kb_killed
}

mkdir web && cp some web/a.raw && cp some web/b.vmem
killed_before_paper web --unlink --accept=overwritten
claim "a wipe is killed when all is wiped and removed, and its paper not written"
[ -z "$(ls -A web)" ] && [ -e web.vdisk-wipe ]
claim "its state is there still"
cp web.vdisk-wipe state.then
grade=$(sed -n 's/^web: \([a-z]*\).*/\1/p' killed.out)
: > paper.json.sig
run "$VDISK" wipe --resume --accept=overwritten --sign-key=key --output=json web
[ "$status" -eq 0 ] && [ ! -e web.vdisk-wipe ]
claim "--resume ends it, and needs not be told again what was asked for"
verifies paper.json certificate
claim "the certificate is there, with its signature, where half of it lay"
json_is paper.json '$d->{operator}{name}' Wang && json_is paper.json 'scalar grep { $_->{unlinked} } @{$d->{wipe}{set}}' 2 &&
	json_is paper.json '$d->{wipe}{resumed}' 1
claim "and says all of it"
json_is paper.json '$d->{wipe}{grade}' "$grade"
claim "files that are gone get no better grade for that"

cp state.then web.vdisk-wipe
cp paper.json paper.then
run "$VDISK" wipe --resume --accept=overwritten --sign-key=key --output=json web
[ "$status" -eq 0 ] && [ ! -e web.vdisk-wipe ] && cmp -s paper.json paper.then
claim "killed after the paper: it is known to be there, and not written anew"
sed 's/"run":"./"run":"x/' state.then > web.vdisk-wipe
check_fails 1 "the paper of another wipe is not taken for it, nor replaced" "$VDISK" wipe --resume --accept=overwritten --sign-key=key web
cmp -s paper.json paper.then
claim "and stays"
rm -f web.vdisk-wipe paper.json paper.json.sig

# ---- what fails ----
cp some disk.raw && mkdir full
mount -t tmpfs -o size=4k none full
on_exit "umount full 2>/dev/null"
head -c 4096 /dev/zero > full/all
id=$(id_of -f raw disk.raw)
run "$VDISK" wipe -f raw --confirm="$id" --state=full/state --certificate=paper.json --sign-key=key disk.raw
[ "$status" -ne 0 ] && verifies paper.json incident && json_is paper.json '$d->{wipe}{grade}' incomplete
claim "a wipe that fails as a whole leaves an incident record"
json_is paper.json 'scalar grep { $_->{code} eq "run.failed" && $_->{text} =~ /state/ } @{$d->{wipe}{findings}}' 1
claim "which says why"
cmp -s some disk.raw
claim "nothing was written, since how far it is could not be"
rm paper.json paper.json.sig

id=$(id_of -f raw disk.raw)
"$VDISK" wipe -f raw --bwlimit=100K --confirm="$id" --certificate=paper.json --sign-key=key disk.raw > out 2>&1 & pid=$!
wait_until test -e disk.raw.vdisk-wipe
sleep 0.3
kill -TERM $pid
wait $pid
[ $? -eq 16 ] && verifies paper.json incident
claim "so does one that was stopped"
cp paper.json incident.json
check_fails 1 "the incident record is not replaced by what comes later" "$VDISK" wipe --resume --accept=overwritten disk.raw
check "a certificate beside it" "$VDISK" wipe --resume --accept=overwritten --certificate=after.json disk.raw
verifies after.json certificate && cmp -s paper.json incident.json &&
	[ "$(sed "s/.*\"run\":\"\([0-9a-f]*\).*/\1/" after.json)" = "$(sed "s/.*\"run\":\"\([0-9a-f]*\).*/\1/" paper.json)" ]
claim "is of the same wipe"
done_testing
