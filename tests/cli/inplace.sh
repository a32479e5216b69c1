#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Conversions in place of every kind of image, with qemu as the witness: what it reads before, with the secret while the
# image is encrypted, and afterwards. Then runs that are stopped, and what refuses them.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
. "$SRCDIR/tests/support/json.sh"
requires qemu-img qemu-io perl cryptsetup

printf 'correct horse' > key
printf 'battery staple' > new-key
printf 'wrong' > wrong-key
fast="--pbkdf-iterations 1000"
mark='a line of text that packs well'

encrypt() { "$VDISK" encrypt --in-place -q --key-file key $fast "$@"; }
decrypt() { "$VDISK" decrypt --in-place -q --key-file key "$@"; }
rekey() { "$VDISK" rekey --volume-key -q --key-file key $fast "$@"; }
# Sound for qemu-img, which wants the secret of an encrypted qcow2 even for that.
is_clean() {
	case $1 in
	raw | vpc) ;;
	qcow2) qemu-img check -q $with_key --image-opts "$(luks_qcow2 "$2")" ;;
	*) qemu-img check -q -f "$1" "$2" ;;
	esac
}
is_sound() { [ "$1" = raw ] || [ "$1" = vpc ] || qemu-img check -q -f "$1" "$2"; }
opts_of() {
	case $1 in
	raw) luks_raw "$2" ;;
	qcow2) luks_qcow2 "$2" ;;
	*) echo "driver=luks,key-secret=s,file.driver=$1,file.file.filename=$2" ;;
	esac
}
# what_peer_reads FORMAT IMAGE OUT [OPTION...]
what_peer_reads() {
	wp_format=$1 wp_image=$2 wp_out=$3
	shift 3
	rm -f "$wp_out"
	qemu-img convert -f "$wp_format" "$@" -O raw "$wp_image" "$wp_out"
}

# there_and_back FORMAT IMAGE NAME: encrypted, with another volume key, in clear again; files with data are in $files
there_and_back() {
	files=${files:-$2}
	what_peer_reads "$1" "$2" before.raw
	check "encrypt in place: $3" encrypt -f "$1" "$2"
	[ ! -e "$2.vdisk-journal" ] && is_clean "$1" "$2"
	claim "leaves no journal, and is sound for qemu-img: $3"
	opens_as "$(opts_of "$1" "$2")" before.raw
	claim "qemu reads the same disk with the secret: $3"
	! grep -aq "$mark" $files
	claim "no file shows what is on the disk: $3"
	check "vdisk finds no fault: $3" "$VDISK" check -q "$2"
	check "another volume key: $3" rekey "$2"
	is_clean "$1" "$2" && opens_as "$(opts_of "$1" "$2")" before.raw
	claim "is the same disk with it: $3"
	check "decrypt in place: $3" decrypt "$2"
	what_peer_reads "$1" "$2" after.raw && is_sound "$1" "$2" && qemu-img compare -q -f raw -F raw before.raw after.raw
	claim "is the disk that it was: $3"
	files=
}

make_disk disk.raw $((5 * 1048576 + 1536))
cp disk.raw odd.raw
printf 'behind the last sector' >> odd.raw
there_and_back raw odd.raw "raw that ends inside a sector"

# by_peer FORMAT NAME OPTIONS [FILES]: a disk of the format as qemu-img makes it
by_peer() {
	qemu-img convert -f raw -O "$1" -o "$3" disk.raw "img-$2.$1"
	files=${4:-}
	there_and_back "$1" "img-$2.$1" "$1 $2"
}
by_peer qcow2 v3 compat=1.1
by_peer qcow2 v2 compat=0.10
by_peer qcow2 clusters512 cluster_size=512
by_peer qcow2 extended extended_l2=on
by_peer qcow2 bits1 refcount_bits=1
by_peer qcow2 bits64 refcount_bits=64,lazy_refcounts=on
by_peer qcow2 datafile data_file=x.data "img-datafile.qcow2 x.data"
by_peer vmdk sparse subformat=monolithicSparse
by_peer vmdk flat subformat=monolithicFlat "img-flat.vmdk img-flat-flat.vmdk"
by_peer vmdk parts subformat=twoGbMaxExtentSparse "img-parts.vmdk img-parts-s001.vmdk"
by_peer vmdk flatparts subformat=twoGbMaxExtentFlat "img-flatparts.vmdk img-flatparts-f001.vmdk"
by_peer vpc fixed subformat=fixed,force_size=on
by_peer vpc dynamic subformat=dynamic,force_size=on
by_peer vhdx fixed subformat=fixed
by_peer vhdx dynamic subformat=dynamic,block_size=1M
by_peer vhdx large subformat=dynamic,block_size=32M
"$VDISK" convert -q -O vmdk -o subformat=vmfs disk.raw img-vmfs.vmdk
files="img-vmfs.vmdk img-vmfs-flat.vmdk" there_and_back vmdk img-vmfs.vmdk "vmdk vmfs"
"$VDISK" convert -q -O vhd -o block_size=512K disk.raw img-512k.vpc
there_and_back vpc img-512k.vpc "vpc blocks of 512 KiB"

# Compressed clusters, zero clusters, snapshots that share, vm state, bitmaps, and freed clusters with something in them.
qemu-img convert -f raw -c -O qcow2 disk.raw rich.qcow2
qemu-io -f qcow2 -c 'write -P 7 1M 300k' -c 'write -z 2M 200k' rich.qcow2 > /dev/null
qemu-img snapshot -c first rich.qcow2
qemu-img bitmap --add -g 64k rich.qcow2 kept
qemu-io -f qcow2 -c 'write -P 9 1200k 300k' -c 'discard 3M 512k' rich.qcow2 > /dev/null
what_peer_reads qcow2 rich.qcow2 first.raw -l first
bitmaps() { qemu-img info --output=json "$1" | perl -MJSON::PP -e 'local $/; my $b = decode_json(<STDIN>)->{"format-specific"}{data}{bitmaps}; print map "$_->{name} @{$_->{flags}};", @$b'; }
bitmaps rich.qcow2 > bitmaps.before
there_and_back qcow2 rich.qcow2 "qcow2 with all that it can hold"
what_peer_reads qcow2 rich.qcow2 first.after -l first && cmp -s first.raw first.after
claim "its snapshot is what it was"
bitmaps rich.qcow2 | cmp -s - bitmaps.before && [ -s bitmaps.before ]
claim "its bitmap is what it was"

# A LUKS2 container with sectors of 4096 bytes, as cryptsetup made it.
truncate -s 4M luks2.disk && dd if=disk.raw of=luks2.disk conv=notrunc bs=4M count=1 status=none
truncate -s 20M luks2.raw
cryptsetup luksFormat -q --type luks2 --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key luks2.raw 2> /dev/null
"$VDISK" convert -q -n --key-file key luks2.disk luks2.raw 2> /dev/null
"$VDISK" decrypt -q --force --key-file key luks2.raw before.raw
check "another volume key of a LUKS2 container" "$VDISK" rekey --volume-key -q --key-file key --pbkdf-iterations 4 --pbkdf-memory 64 luks2.raw
cryptsetup luksDump luks2.raw | grep -q 'sector: 4096'
claim "keeps its sectors"
check "decrypt it in place" decrypt luks2.raw
cmp -s before.raw luks2.raw
claim "is the disk that it was"

# Overlays.
qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2
qemu-io -f qcow2 -c 'write -P 5 64k 300k' over.qcow2 > /dev/null
cp over.qcow2 flat.qcow2
cp disk.raw base.saved
check_fails 63 "an overlay is refused" encrypt over.qcow2
grep -q 'chain=leave' "$stderr" && cmp -s over.qcow2 flat.qcow2
claim "with what to say, and untouched"
qemu-img convert -O raw over.qcow2 over.raw
check "an overlay alone" encrypt --chain=leave over.qcow2
opens_as "$(luks_qcow2 over.qcow2)" over.raw && cmp -s disk.raw base.saved
claim "is encrypted, its parent as it was"
check "an overlay, flattened first" encrypt --chain=flatten flat.qcow2
! grep -q disk.raw flat.qcow2 && opens_as "$(luks_qcow2 flat.qcow2)" over.raw
claim "stands alone, and is encrypted"

# ---- stopped half-way -----------------------------------------------------------------------------------------

# stop_at SIGNAL SECONDS COMMAND...: the exit status is its own
stop_at() {
	sa_signal=$1 sa_delay=$2
	shift 2
	perl -e '$SIG{INT} = "DEFAULT"; exec @ARGV' "$@" > "$stdout" 2> "$stderr" &
	sa_pid=$!
	sleep "$sa_delay"
	kill -"$sa_signal" "$sa_pid" 2> /dev/null
	wait "$sa_pid"
	status=$?
}
state_of() { "$VDISK" status --output=json "$@" | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{state}'; }

# stopped FORMAT IMAGE: an encryption of IMAGE that is half-way. 24 MiB, of which 8 a second.
stopped() {
	rm -f "$2"*
	case $1 in
	raw) cp large.raw "$2" ;;
	*) qemu-img convert -f raw -O "$1" ${3:+-o "$3"} large.raw "$2" ;;
	esac
	stop_at INT 1.3 "$VDISK" encrypt --in-place -q --bwlimit 8M --key-file key $fast -f "$1" "$2"
}
head -c 24M /dev/urandom > large.raw
for format in raw qcow2 vmdk vpc vhdx; do
	opt=
	[ $format != vpc ] || opt=force_size=on
	stopped $format half.$format $opt
	[ "$status" -eq 16 ]
	claim "SIGINT stops it half-way with 16: $format"
	grep -q "vdisk resume half.$format goes on" "$stderr" && [ "$(state_of half.$format)" = 'in progress' ]
	claim "it says what to do, status too: $format"
	! qemu-img info half.$format 2> peer.log && grep -q 'vdisk encryption in progress' peer.log
	claim "qemu-img refuses it with the reason: $format"
	[ $format = raw ] || { ! qemu-img convert -f $format -O raw half.$format x.raw 2> peer.log; }
	claim "qemu-img reads nothing of it: $format"
	check_fails 16 "info refuses it: $format" "$VDISK" info half.$format
	grep -q 'vdisk resume' "$stderr"
	claim "and tells the way out: $format"
	check_fails 16 "convert refuses it: $format" "$VDISK" convert -q half.$format x.qcow2
	check_fails 12 "a wrong key: $format" "$VDISK" resume -q --key-file wrong-key half.$format
	cp half.$format moved.$format && cp half.$format.vdisk-journal moved.$format.vdisk-journal
	check "goes on: $format" "$VDISK" resume -q --key-file key half.$format
	opens_as "$(opts_of $format half.$format)" large.raw
	claim "is encrypted: $format"
	[ "$(state_of half.$format)" = none ]
	claim "and not in progress any more: $format"
	check "another goes back, under another name: $format" "$VDISK" revert -q --key-file key moved.$format
	what_peer_reads $format moved.$format after.raw && cmp -s after.raw large.raw
	claim "to what it was: $format"
done

stopped raw half.raw
cp half.raw alone.raw
check "status of a copy without the journal" "$VDISK" status alone.raw
grep -q -- '--journal' "$stdout"
claim "asks for it"
check_fails 1 "it does not go on" "$VDISK" resume -q --key-file key alone.raw
grep -q 'look for the journal' "$stderr"
claim "and says what is missing"
check_fails 64 "a journal without its image" "$VDISK" resume -q --key-file key --journal half.raw.vdisk-journal large.raw
cp half.raw.vdisk-journal saved.journal
check "a journal elsewhere" "$VDISK" resume -q --key-file key --journal saved.journal alone.raw
opens_as "$(luks_raw alone.raw)" large.raw
claim "is found by its name"

# Each region of the journal: states, hidden sectors, lengths, headers, records.
for at in 50 4200 8200 9300 24577 57400 65536 1500000 3145800 4194500; do
	cp half.raw tried.raw && cp half.raw.vdisk-journal tried.raw.vdisk-journal
	perl -e 'open F, "+<", $ARGV[0]; seek F, $ARGV[1], 0; read F, $b, 1; seek F, $ARGV[1], 0; print F chr(ord($b) ^ 1)' tried.raw.vdisk-journal $at
	run "$VDISK" resume -q --key-file key tried.raw
	[ "$status" -eq 13 ] || { [ "$status" -eq 0 ] && opens_as "$(luks_raw tried.raw)" large.raw; }
	claim "a byte of the journal that was changed, at $at, is noticed or does no harm"
done

stopped qcow2 other.qcow2
check_fails 64 "the journal of another image" "$VDISK" resume -q --key-file key --journal other.qcow2.vdisk-journal half.raw
cp large.raw plain.raw
check_fails 1 "a journal that may belong to another image" encrypt -f raw --journal half.raw.vdisk-journal plain.raw
cmp -s plain.raw large.raw
claim "is not overwritten"

# Killed, and a byte of the record that was in use changed.
cp large.raw killed.raw
stop_at KILL 1.3 "$VDISK" encrypt --in-place -q --bwlimit 8M --key-file key $fast -f raw killed.raw
check "killed, it goes on" "$VDISK" resume -q --key-file key killed.raw
opens_as "$(luks_raw killed.raw)" large.raw
claim "and is encrypted"

# In use.
cp large.raw busy.raw
"$VDISK" encrypt --in-place -q --bwlimit 4M --key-file key $fast -f raw busy.raw 2> /dev/null &
busy=$!
wait_until test -e busy.raw.vdisk-journal
kill -STOP $busy
check_fails 11 "a second run meets the first" "$VDISK" resume -q --key-file key busy.raw
check_fails 11 "encrypt does, too" encrypt -f raw busy.raw
kill -CONT $busy
kill -TERM $busy
wait $busy
check "then it goes on" "$VDISK" resume -q --key-file key busy.raw

for how in journal checksum none; do
	cp large.raw $how.raw
	stop_at TERM 1 "$VDISK" encrypt --in-place -q --bwlimit 8M --resilience=$how --key-file key $fast -f raw --journal elsewhere.$how $how.raw
	[ "$status" -eq 16 ] && grep -q -- "--journal elsewhere.$how $how.raw goes on" "$stderr"
	claim "stopped with --resilience=$how, it names the journal that is elsewhere"
	check "and goes on" "$VDISK" resume -q --key-file key --journal elsewhere.$how $how.raw
	opens_as "$(luks_raw $how.raw)" large.raw && [ ! -e elsewhere.$how ]
	claim "to its end with --resilience=$how"
done

# ---- rekey ----------------------------------------------------------------------------------------------------

qemu-img convert -f raw -O qcow2 disk.raw slots.qcow2
encrypt slots.qcow2
cp slots.qcow2 old.qcow2
"$VDISK" key add -q --key-file key --new-key-file new-key $fast slots.qcow2
"$VDISK" key backup-header -q slots.qcow2 header.saved
cp slots.qcow2 before.qcow2
check_fails 64 "keyslots whose keys are not given" rekey slots.qcow2
grep -q 'drop-unknown-slots' "$stderr" && cmp -s slots.qcow2 before.qcow2
claim "are not lost by accident"
check "are, when it is said" rekey --drop-unknown-slots slots.qcow2
check_fails 12 "the other key opens nothing any more" "$VDISK" decrypt -q --key-file new-key slots.qcow2 x1.raw
check "with a new key" "$VDISK" rekey --volume-key -q --key-file key --new-key-file new-key $fast slots.qcow2
opens_as "$(luks_qcow2 slots.qcow2)" disk.raw
claim "the key that was given stays"
check "and the new one opens it" "$VDISK" compare -q --key-file new-key slots.qcow2 disk.raw
cp slots.qcow2 restored.qcow2
run "$VDISK" key restore-header -q -y --key-file key restored.qcow2 header.saved
! "$VDISK" compare -q --key-file key restored.qcow2 disk.raw > /dev/null 2>&1 || cmp -s slots.qcow2 restored.qcow2
claim "the header of before opens nothing"

# ---- what check has findings on -------------------------------------------------------------------------------

# with_refcount COUNT CLUSTER IMAGE: 64 KiB clusters, the first refcount block
with_refcount() {
	perl -e 'my ($n, $c, $f) = @ARGV; open F, "+<", $f or die; my $b;
		seek F, 48, 0; read F, $b, 8; seek F, unpack("Q>", $b), 0; read F, $b, 8;
		seek F, unpack("Q>", $b) + 2 * $c, 0; print F pack("n", $n)' "$@"
}
qemu-img convert -f raw -O qcow2 disk.raw leaked.qcow2
last=$(($(stat -c %s leaked.qcow2) / 65536))
cp leaked.qcow2 miscounted.qcow2
yes "$mark" | head -c 65536 >> leaked.qcow2
with_refcount 1 "$last" leaked.qcow2
! qemu-img check -q leaked.qcow2 2> /dev/null
claim "a cluster is leaked, for qemu-img, too"
check "what is leaked is overwritten" encrypt leaked.qcow2
opens_as "$(luks_qcow2 leaked.qcow2)" disk.raw && ! grep -aq "$mark" leaked.qcow2
claim "and does not show"
with_refcount 0 $((last - 1)) miscounted.qcow2
cp miscounted.qcow2 before.qcow2
check_fails 1 "what is in use and counted as free is refused" encrypt miscounted.qcow2
grep -q 'check --repair' "$stderr" && cmp -s before.qcow2 miscounted.qcow2 && [ ! -e miscounted.qcow2.vdisk-journal ]
claim "with what mends it, and untouched"

# ---- names and room -------------------------------------------------------------------------------------------

cp disk.raw target.raw
ln -s target.raw link.raw
check "a symbolic link" encrypt -f raw link.raw
[ -L link.raw ] && opens_as "$(luks_raw target.raw)" disk.raw
claim "stays one, and its target is encrypted"
check_fails 64 "encrypt what is encrypted" encrypt target.raw
check_fails 64 "decrypt what is not" decrypt -f raw disk.raw
check_fails 64 "resume what is whole" "$VDISK" resume -q --key-file key target.raw
: > empty.raw
run encrypt -f raw empty.raw
[ ! -s empty.raw ] || "$VDISK" check -q empty.raw
claim "an empty file is refused, or becomes an empty container"

mkdir small
if mount -t tmpfs -o size=14m none small 2> /dev/null; then
	on_exit "! mountpoint -q small || umount small"
	head -c 6M /dev/urandom > six.raw
	head -c 12M /dev/urandom > small/full.raw
	cp small/full.raw full.before
	check_fails 14 "too little room" encrypt -f raw small/full.raw
	grep -q 'may need .* has .* free' "$stderr" && cmp -s small/full.raw full.before && [ "$(ls small)" = full.raw ]
	claim "is told before anything is changed"
	rm small/full.raw
	qemu-img create -q -f vhdx -o block_size=1M small/holes.vhdx 12M
	check_fails 14 "room that ends half-way" encrypt --no-space-check --resilience=none -f vhdx small/holes.vhdx
	[ "$(state_of small/holes.vhdx)" = 'in progress' ]
	claim "leaves it half-way"
	mount -o remount,size=60m small
	check "and it goes on when there is room" "$VDISK" resume -q --key-file key small/holes.vhdx
	truncate -s 12M zeros.raw
	opens_as "$(opts_of vhdx small/holes.vhdx)" zeros.raw
	claim "to the same disk"
	umount small
fi
done_testing
