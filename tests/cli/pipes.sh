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

done_testing
