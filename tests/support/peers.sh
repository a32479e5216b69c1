# SPDX-License-Identifier: LGPL-2.1-or-later
# What the scripts that hold vdisk against qemu and cryptsetup share; sourced after lib.sh. The first disk, the secret
# and the commands are the same for both sides; what has to come out of it, each script says.

imgio=${BUILDDIR:?is the folder of the build}/tests/interop/imgio

# make_disk FILE [BYTES]: noise, text, zeros in between, and an end inside a cluster of any size but 512.
make_disk() {
	md_size=${2:-$((8 * 1048576 + 1536))}
	rm -f "$1"
	truncate -s "$md_size" "$1"
	dd if=/dev/urandom of="$1" bs=64k count=8 conv=notrunc status=none
	yes 'a line of text that packs well' | dd of="$1" bs=64k seek=20 count=16 iflag=fullblock conv=notrunc status=none
	dd if=/dev/urandom of="$1" bs=512 seek=3001 count=7 conv=notrunc status=none
	printf 'the end' | dd of="$1" bs=1 seek=$((md_size - 7)) conv=notrunc status=none
}

# workload SEED BYTES: commands that qemu-io and imgio both take, one a line: writes of any alignment, zeros, flushes.
workload() {
	awk -v seed="$1" -v size="$2" 'BEGIN {
		srand(seed)
		for (i = 0; i < 40; i++) {
			len = int(exp(rand() * log(600000))) + 1
			off = int(rand() * (size - len))
			if (rand() < 0.5) { off -= off % 512; len += 511 - (len + 511) % 512 }
			if (off + len > size) len = size - off
			if (rand() < 0.2) printf "write -z %d %d\n", off, len
			else printf "write -P %d %d %d\n", 1 + int(rand() * 255), off, len
			if (rand() < 0.1) print "flush"
		}
	}'
}

# with_commands FILE COMMAND...: runs COMMAND with the lines of FILE as its last arguments.
with_commands() {
	wc_file=$1
	shift
	while IFS= read -r wc_line; do set -- "$@" "$wc_line"; done < "$wc_file"
	"$@"
}

# qemu_io IMAGE-ARGUMENTS... < commands
qemu_io() {
	sed 's/.*/-c\n&/' > qemu-io.args
	with_commands qemu-io.args qemu-io "$@" > qemu-io.log 2>&1 && ! grep -Eq 'failed|verification|rror' qemu-io.log
}

# again COMMAND...: up to five times. qemu gives up with "Unable to get accurate CPU usage" when it happens to measure
# its key derivation between two ticks of the clock.
again() {
	for ag_try in 1 2 3 4; do
		"$@" 2> again.log && return 0
		grep -q 'accurate CPU usage' again.log || break
	done
	"$@"
}

# put FILE OFFSET HEX: overwrites bytes.
put() {
	perl -e 'print pack("H*", shift)' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# field FILE OFFSET LENGTH: bytes in hex.
field() {
	dd if="$1" bs=1 skip="$2" count="$3" status=none | od -An -v -tx1 | tr -d ' \n'
}

# holds_no TEXT FILE: FILE is there and TEXT is nowhere in it.
holds_no() {
	[ -s "$2" ] && ! grep -q "$1" "$2"
}

# is_disk IMAGE RAW: qemu reads of IMAGE what RAW holds, and no more.
is_disk() {
	rm -f by-qemu.raw
	qemu-img convert -O raw "$1" by-qemu.raw && cmp by-qemu.raw "$2"
}

# reads_as IMAGE RAW [OPTION...]: so does vdisk.
reads_as() {
	ra_image=$1 ra_raw=$2
	shift 2
	rm -f by-vdisk.raw
	"$VDISK" convert -O raw "$@" "$ra_image" by-vdisk.raw && cmp by-vdisk.raw "$ra_raw"
}

# reads_as_qemu IMAGE [OPTION...]: vdisk and qemu make the same raw disk of it.
reads_as_qemu() {
	rq_image=$1
	shift
	rm -f by-qemu.raw
	qemu-img convert -O raw "$rq_image" by-qemu.raw && reads_as "$rq_image" by-qemu.raw "$@"
}

# The same with the secret in the file "key": how qemu wants to be told of it.
with_key="--object secret,id=s,file=key"
luks_qcow2() { echo "driver=qcow2,file.filename=$1,encrypt.key-secret=s"; }
luks_raw() { echo "driver=luks,file.filename=$1,key-secret=s"; }

# opens_as OPTS RAW: qemu opens it with the secret and reads what RAW holds, and no more.
opens_as() {
	rm -f by-qemu.raw
	qemu-img convert $with_key --image-opts -O raw "$1" by-qemu.raw && cmp by-qemu.raw "$2"
}
