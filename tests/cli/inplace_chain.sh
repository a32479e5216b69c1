# SPDX-License-Identifier: LGPL-2.1-or-later
# Whole chains encrypted in place, in the formats that have no encryption of their own: the layers are pieces of one LUKS
# container then. What the disk and each layer's disk hold does not change, no file shows it, and qemu reads it where it knows
# such chains; what is stopped half-way opens for nobody, and goes on by the same command.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io cryptsetup perl

imgio=$BUILDDIR/tests/interop/imgio
printf 'correct horse' > key
printf 'battery staple' > new-key
fast="--pbkdf-iterations 1000"
mark='a line of text that is easily found'
size=$((6 * 1048576))
yes "$mark" | head -c $size > base.raw
head -c 300000 /dev/urandom > patch-1
yes "$mark, of the overlay" | head -c 200000 > patch-2
chain() { "$VDISK" encrypt --in-place -q --chain=encrypt --key-file key $fast "$@"; }

# make FORMAT BASE-OPTION OVERLAY-OPTION: a.FORMAT over b.FORMAT over c.FORMAT; what the upper two hold in disk-b.raw and disk-a.raw
make() {
	rm -f [abc].* [abc]-*
	"$VDISK" convert -q -f raw -O "$1" ${2:+-o "$2"} base.raw "c.$1" &&
		"$VDISK" create -q -f "$1" -F "$1" -b "c.$1" ${3:+-o "$3"} "b.$1" &&
		"$imgio" -w "b.$1" 'write -s patch-1 1000000 300000' 'write -z 3000000 400000' &&
		"$VDISK" create -q -f "$1" -F "$1" -b "b.$1" ${3:+-o "$3"} "a.$1" &&
		"$imgio" -w "a.$1" 'write -s patch-2 1100000 200000' 'write -P 7 3100000 1000' &&
		"$VDISK" convert -q --force -O raw "b.$1" disk-b.raw && "$VDISK" convert -q --force -O raw "a.$1" disk-a.raw
}
holds() { "$VDISK" compare -q --key-file key "$1" "$2"; }

tried() {
	make "$1" "$2" "$3"
	claim "a chain of $4"
	check_fails 63 "is not converted by its top: $4" "$VDISK" encrypt --in-place -q --key-file key $fast "a.$1"
	grep -q 'chain=encrypt' "$stderr"
	claim "and the way is told: $4"
	check "all of its layers: $4" chain "a.$1"
	holds "a.$1" disk-a.raw && holds "b.$1" disk-b.raw && holds "c.$1" base.raw
	claim "each layer's disk is what it was: $4"
	[ -z "$(grep -als "$mark" [abc].* [abc]-*)" ]
	claim "no file shows what is on it: $4"
	for layer in a b c; do
		check "check --plaintext finds nothing in $layer: $4" "$VDISK" check -q --plaintext "$layer.$1"
	done
	check_fails 64 "the same again says that it is so: $4" "$VDISK" encrypt --in-place -q --key-file key $fast "a.$1"
	check "for a chain there is nothing to do: $4" chain "a.$1"
	check "it is written: $4" "$imgio" -w -k key "a.$1" 'write -P 9 2000000 5000' 'write -z 1150000 3000' 'write -P 5 5999000 1000'
	"$imgio" -w -f raw disk-a.raw 'write -P 9 2000000 5000' 'write -z 1150000 3000' 'write -P 5 5999000 1000' > /dev/null
	holds "a.$1" disk-a.raw && holds "b.$1" disk-b.raw
	claim "and reads so: $4"
	for act in "commit -q --key-file key a.$1" "flatten -q --key-file key a.$1" "resize -q --key-file key a.$1 +1M" "rekey --volume-key -q --key-file key a.$1"; do
		cp "a.$1" saved
		check_fails 63 "is refused: ${act%% *}, $4" "$VDISK" $act
		grep -q 'vdisk convert\|new image' "$stderr" && cmp -s saved "a.$1"
		claim "with what does it, and untouched: ${act%% *}, $4"
	done
}
# between FORMAT OPTION: its lowest layer is encrypted, and the overlays are not yet
between() {
	make "$1" "$2" "$2" && chain "c.$1"
	claim "the lowest layer alone is encrypted: $1"
	check_fails 1 "then the chain does not open: $1" "$VDISK" convert -q --force -O raw "a.$1" x.raw
	perl -e '$SIG{INT} = "DEFAULT"; exec @ARGV' "$VDISK" encrypt --in-place -q --chain=encrypt --bwlimit 64K --key-file key $fast "a.$1" 2> err &
	wait_until test -e "b.$1.vdisk-journal"
	kill -INT $!
	! wait $! && grep -q "resume.* b.$1 goes on" err
	claim "the next one is stopped: $1"
	check_fails 16 "it does not open: $1" "$VDISK" convert -q --force -O raw "b.$1" x.raw
	check "it goes on: $1" "$VDISK" resume -q --key-file key "b.$1"
	check_fails 1 "and does not know its parent yet: $1" "$VDISK" convert -q --key-file key --force -O raw "b.$1" x.raw
	check "the command does the rest: $1" chain "a.$1"
	holds "a.$1" disk-a.raw && holds "b.$1" disk-b.raw && holds "c.$1" base.raw
	claim "and each layer's disk is what it was: $1"
	"$VDISK" create -q -f "$1" -F "$1" -b "a.$1" "new.$1"
	check "a new overlay is part of the container: $1" "$imgio" -w -k key "new.$1" 'write -P 3 700000 600000'
	"$imgio" -w -f raw disk-a.raw 'write -P 3 700000 600000' > /dev/null
	holds "new.$1" disk-a.raw
	claim "and reads what it covers, and what was written: $1"
	rm -f "new.$1"
}
between vmdk ''
between vhd ''
between vhdx block_size=1M

tried vmdk '' '' "vmdk"
opens_as "driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=a.vmdk" disk-a.raw &&
	opens_as "driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=b.vmdk" disk-b.raw
claim "qemu reads the chain of vmdk with the secret"
tried vmdk subformat=monolithicFlat '' "vmdk over a flat one"
opens_as "driver=luks,key-secret=s,file.driver=vmdk,file.file.filename=a.vmdk" disk-a.raw
claim "qemu reads that with the secret"
tried vhd '' '' "vhd"
tried vhd subformat=fixed block_size=512K "vhd over a fixed one"
tried vmdk "" subformat=twoGbMaxExtentSparse "vmdk with extents above"
tried vhdx block_size=1M block_size=1M "vhdx"
tried vhdx block_size=1M block_size=8M "vhdx with larger blocks above"
done_testing
