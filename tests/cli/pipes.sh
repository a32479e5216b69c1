#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks through pipes: what goes out is what a file would have, to the end or told as broken.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img perl script

printf secret > key
make_disk disk.raw
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key disk.raw enc.qcow2

# piped READER COMMAND...: the command's standard output goes to a shell line; its exit status is $status
piped() {
	pi_reader=$1
	shift
	{ "$@" 2>"$stderr"; echo $? > status; } | sh -c "$pi_reader" >"$stdout"
	status=$(cat status)
}
# check_piped CLAIM READER COMMAND...
check_piped() {
	cp_claim=$1
	shift
	piped "$@"
	[ "$status" -eq 0 ]
	claim "$cp_claim"
}

# ---- out
check_piped "a stream-optimized VMDK" 'cat > out.vmdk' "$VDISK" convert -c -O vmdk disk.raw -
grep -q '^standard output: vmdk, not encrypted' "$stderr" && [ ! -s "$stdout" ]
claim "the summary is on standard error"
check "qemu reads it" qemu-img compare -q disk.raw out.vmdk
check "and so does vdisk" "$VDISK" compare -q disk.raw out.vmdk
check "whose tables are sound" "$VDISK" check -q out.vmdk
check_piped "raw" 'cat > out.raw' "$VDISK" convert -q enc.qcow2 --key-file key -
cmp -s disk.raw out.raw; claim "is the disk, byte for byte"
check_piped "decrypt" 'cmp - disk.raw && echo the same' "$VDISK" decrypt --key-file key --output=json --progress=json enc.qcow2 -
[ "$(cat "$stdout")" = "the same" ]; claim "gives the disk alone, with --output=json too"
tail -1 "$stderr" > summary.json
json_is summary.json '$d->{output}' - && json_is summary.json '$d->{type}' summary
claim "the objects are on standard error then"
check_piped "encrypt" 'cat > out.luks' "$VDISK" encrypt -q -O raw --pbkdf-iterations 1000 --key-file key disk.raw -
"$VDISK" decrypt -q --force --key-file key out.luks out.raw && cmp -s disk.raw out.raw
claim "makes a container"
truncate -s 300M large.raw && printf x | dd of=large.raw bs=1 seek=299999999 conv=notrunc status=none
check_piped "a disk of holes" 'sha256sum > sum' "$VDISK" convert -q large.raw -
[ "$(cat sum)" = "$(sha256sum < large.raw)" ]; claim "has zeros for them"
rm large.raw
[ ! -e - ]; claim "no file is named -"
check "./- is one" "$VDISK" convert -q disk.raw ./-
cmp -s disk.raw ./- && rm ./-; claim "with the disk"
check "into a file by the shell" sh -c "exec '$VDISK' convert -q -c -O vmdk disk.raw - > out2.vmdk"
check "which is the same image" "$VDISK" compare -q out.vmdk out2.vmdk

# ---- not out
for format in qcow2 vhd vhdx vmdk ova; do
	piped 'cat > bad' "$VDISK" convert -O $format disk.raw -
	[ "$status" -eq 63 ] && [ ! -s bad ] && grep -q "^vdisk: .* cannot be written to a stream: " "$stderr" && grep -q '^hint: write it to a file' "$stderr"
	claim "$format is refused, and nothing is written"
done
run script -qec "'$VDISK' convert -c -O vmdk disk.raw -" /dev/null
[ "$status" -eq 64 ] && grep -q 'not written to a terminal' "$stdout" && [ "$(wc -c < "$stdout")" -lt 500 ]
claim "a terminal is refused"

# ---- broken
head -c 20000000 /dev/urandom > noise.raw
piped 'head -c 1000000 > part' "$VDISK" convert -c -O vmdk noise.raw -
[ "$status" -eq 1 ] && grep -q '^vdisk: standard output: the reader has gone after' "$stderr"
claim "a reader that goes away is told of"
check_fails 1 "what it has is no disk" "$VDISK" info part
grep -q 'is cut off' "$stderr"; claim "and is told as cut off"
piped 'exec 0<&-' "$VDISK" convert noise.raw -
[ "$status" -eq 1 ]; claim "so is one that never read"
check_fails 14 "a full disk" sh -c "exec '$VDISK' convert noise.raw - > /dev/full"
mkfifo slow
"$VDISK" convert noise.raw - > slow 2>"$stderr" & job=$!
exec 3< slow
sleep 0.5
kill -TERM $job
wait $job
[ $? -eq 143 ] && grep -q '^vdisk: stopped by SIGTERM; standard output is half written' "$stderr"
claim "SIGTERM ends a run whose reader sleeps"
exec 3<&-
"$VDISK" convert -q -O qcow2 noise.raw hurt.qcow2
truncate -s 10M hurt.qcow2
piped 'cat > bad' "$VDISK" convert -c -O vmdk hurt.qcow2 -
[ "$status" -ne 0 ]; claim "a failure to read"
"$VDISK" info --output=json bad > info.json
json_is info.json '$d->{format}' raw; claim "leaves no disk"

# ---- in
# fed FILE COMMAND...: by a pipe
fed() {
	fe_file=$1
	shift
	cat "$fe_file" | "$@" >"$stdout" 2>"$stderr"
	status=$?
}
# check_fed CLAIM FILE COMMAND...
check_fed() {
	cf_claim=$1
	shift
	fed "$@"
	[ "$status" -eq 0 ] || cat "$stderr" >&2
	[ "$status" -eq 0 ]
	claim "$cf_claim"
}
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw qemu.vmdk
for stream in out.vmdk qemu.vmdk; do
	check_fed "$stream comes in" $stream "$VDISK" convert -O qcow2 --force - in.qcow2
	check "qemu reads what was made of it" qemu-img compare -q disk.raw in.qcow2
	qemu-img check -q in.qcow2; claim "and finds no fault"
	for to in raw vhdx "vmdk -c" "qcow2 -c" "qcow2 -o cluster_size=2M" ova; do
		rm -f in
		check_fed "$stream to $to" $stream "$VDISK" convert -q -O $to - in
		"$VDISK" compare -q disk.raw in; claim "is the disk"
	done
done
check_fed "it is encrypted on its way" out.vmdk "$VDISK" encrypt -q --force --pbkdf-iterations 1000 --key-file key - in.qcow2
"$VDISK" compare -q --key-file key disk.raw in.qcow2; claim "into a qcow2"
check_fed "into a container" out.vmdk "$VDISK" encrypt -q --force --pbkdf-iterations 1000 --key-file key -O raw - in.luks
"$VDISK" compare -q --key-file key disk.raw in.luks; claim "whose holes are zeros, too"
fed qemu.vmdk sh -c "'$VDISK' convert -c -O vmdk - - | '$VDISK' convert -q --force -O qcow2 - in.qcow2"
"$VDISK" compare -q disk.raw in.qcow2; claim "and through two of them"
grep -q '^standard output: vmdk' "$stderr"; claim "which speak on standard error"
check "a file by the shell" sh -c "exec '$VDISK' convert -q --force -O qcow2 - in.qcow2 < out.vmdk"
check "what it says is an object" sh -c "cat out.vmdk | '$VDISK' convert --output=json --force -O qcow2 - in.qcow2"
json_is "$stdout" '$d->{image}' - && json_is "$stdout" '$d->{done}' $((8 * 1048576 + 1536)); claim "with what came"

check_fed "raw, of a size that is said" disk.raw "$VDISK" encrypt -q --force --pbkdf-iterations 1000 --key-file key -f raw -o size=$(stat -c %s disk.raw) - in.qcow2
"$VDISK" compare -q --key-file key disk.raw in.qcow2; claim "is the disk"
check "raw from a file says its size itself" sh -c "exec '$VDISK' convert -q --force -f raw -O qcow2 - in.qcow2 < disk.raw"
"$VDISK" compare -q disk.raw in.qcow2; claim "and is the disk"

# not_in STATUS TEXT FILE OPTIONS...: refused, and nothing is left
not_in() {
	ni_want=$1 ni_text=$2 ni_file=$3
	shift 3
	fed "$ni_file" "$VDISK" "$@"
	[ "$status" -eq "$ni_want" ] && grep -q -e "$ni_text" "$stderr" && [ ! -e bad.out ] && [ ! -e bad.out.vdisk-partial ]
	claim "refused: '$ni_text'"
}
not_in 64 'say so: -o size=' disk.raw convert -f raw - bad.out
not_in 1 'only the first 8390144 of 9437184 bytes' disk.raw convert -f raw -o size=9M - bad.out
not_in 64 'more came than the 8388608' disk.raw convert -f raw -o size=8M - bad.out
not_in 64 'say -f raw' disk.raw convert -O qcow2 - bad.out
not_in 63 'qcow2 is not read from a stream' enc.qcow2 convert - bad.out
not_in 63 'qcow2 is not read from a stream' enc.qcow2 decrypt --key-file key - bad.out
not_in 63 'a LUKS container is not read' out.luks convert - bad.out
not_in 1 'standard input: is not encrypted' out.vmdk decrypt --key-file key - bad.out
not_in 64 'either the disk or the key' key encrypt --key-file - - bad.out
not_in 64 'neither snapshots' out.vmdk convert --snapshot 1 - bad.out
not_in 1 'nothing came' /dev/null convert - bad.out
"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key -c -O vmdk disk.raw enc.vmdk
not_in 63 'the disk is encrypted' enc.vmdk convert -O qcow2 - bad.out
"$VDISK" convert -q --force -O ova disk.raw machine.ova
not_in 63 'tar -xO' machine.ova convert -O qcow2 - bad.out
tar -xOf machine.ova machine-disk1.vmdk > taken.vmdk
check_fed "which works" taken.vmdk "$VDISK" convert -q --force -O qcow2 - in.qcow2
run script -qec "'$VDISK' convert - bad.out" /dev/null
[ "$status" -eq 64 ] && grep -q 'not read from a terminal' "$stdout"; claim "a terminal is refused"

# ---- cut off
head -c 400000 out.vmdk > cut.vmdk
not_in 1 'standard input: the stream-optimized disk is cut off: .* only the first [1-9][0-9]* of 8390144 bytes' cut.vmdk convert -O qcow2 - bad.out
sed -n 's/^vdisk: standard input: //p' "$stderr" > piped
check_fails 1 "the file, too" "$VDISK" convert -O qcow2 cut.vmdk bad.out
sed -n 's/^vdisk: cut.vmdk: //p' "$stderr" | cmp -s - piped; claim "says the same"
sound=$(sed 's/.*only the first \([0-9]*\) of.*/\1/' piped)
run "$VDISK" inspect --policy=untrusted - < cut.vmdk
[ "$status" -eq 10 ] && grep -q "only the first $sound of 8390144 bytes" "$stdout"; claim "and so does inspect"
# What inspect keeps of a stream ends before the first table.
head -c 36M /dev/urandom > long.raw
"$VDISK" convert -q -c -O vmdk long.raw long.vmdk
check "inspect lets a long stream through" sh -c "'$VDISK' inspect --policy=untrusted - < long.vmdk"
grep -q 'whether it is encrypted is not known' "$stdout"; claim "and says what it has not seen"
head -c 30M long.vmdk > cut.vmdk
run "$VDISK" inspect --policy=untrusted - < cut.vmdk
[ "$status" -eq 10 ] && grep -q '^broken .*is cut off' "$stdout"; claim "but not one that is cut off"
head -c 400000 qemu.vmdk > cut.vmdk
not_in 1 'only the first [1-9][0-9]* of 8390144 bytes' cut.vmdk convert -O qcow2 - bad.out
check_fails 1 "qemu's in a file" "$VDISK" convert -O qcow2 cut.vmdk bad.out
grep -q 'the file is cut off: the grain of guest offset' "$stderr"; claim "is told as cut off where it is"
"$VDISK" convert -O qcow2 - bad.out < slow 2>"$stderr" & job=$!
exec 3> slow
cat cut.vmdk >&3
wait_until sh -c '[ -s bad.out.vdisk-partial ]' && kill -TERM $job
wait $job
status=$?
exec 3>&-
[ "$status" -eq 143 ] && grep -q '^vdisk: stopped by SIGTERM; bad.out was not written' "$stderr" && [ ! -e bad.out.vdisk-partial ]
claim "SIGTERM ends a run whose writer sleeps"

done_testing
