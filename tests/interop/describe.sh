#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# info and map say in JSON what qemu-img says, key by key, so that scripts written for the one work with the other.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/peers.sh"
requires qemu-img qemu-io perl
make_disk disk.raw
printf 'correct horse' > key

# extents.pl: JSON of a map on stdin; one line an extent, neighbours of one kind joined however they were cut.
cat > extents.pl <<'PERL'
use JSON::PP;
local $/;
my @out;
for my $x (@{decode_json(<STDIN>)}) {
	my $kind = !$x->{present} ? "hole" : $x->{zero} && !$x->{data} ? "zero" : "data";
	my $at = $kind eq "data" ? $x->{offset} : undef;
	my $last = $out[-1];
	if ($last && $last->{kind} eq $kind && defined $last->{at} == defined $at
	    && (!defined $at || $last->{at} + $last->{length} == $at)) {
		$last->{length} += $x->{length};
	} else {
		push @out, { kind => $kind, at => $at, start => $x->{start}, length => $x->{length} };
	}
}
printf "%d %d %s %s\n", @{$_}{qw(start length kind)}, $_->{at} // "-" for @out;
PERL
# facts.pl: JSON of an info on stdin; the keys that both have, sorted.
cat > facts.pl <<'PERL'
use JSON::PP;
local $/;
my $i = decode_json(<STDIN>);
my $d = $i->{"format-specific"}{data} // {};
for my $k (qw(filename format virtual-size cluster-size backing-filename full-backing-filename backing-filename-format)) {
	print "$k: ", $i->{$k} // "-", "\n";
}
for my $k (qw(encrypted dirty-flag)) { print "$k: ", $i->{$k} ? 1 : 0, "\n"; }
for my $k (qw(compat compression-type refcount-bits data-file)) { print "$k: ", $d->{$k} // "-", "\n"; }
for my $k (qw(lazy-refcounts corrupt extended-l2 data-file-raw)) { print "$k: ", $d->{$k} ? 1 : 0, "\n"; }
my $e = $d->{encrypt} // {};
for my $k (qw(format cipher-alg cipher-mode ivgen-alg)) { print "encrypt.$k: ", $e->{$k} // "-", "\n"; }
PERL

same_map() { # IMAGE [what qemu is told instead]
	"$VDISK" map --output=json "$1" > map.vdisk && perl extents.pl < map.vdisk > a || return 1
	if [ $# -gt 1 ]; then qemu-img map --output=json $with_key "$2" > map.qemu; else qemu-img map --output=json "$1" > map.qemu; fi
	perl extents.pl < map.qemu > b && [ -s a ] && diff a b
}
same_info() { # IMAGE
	"$VDISK" info --output=json "$1" > info.vdisk && perl facts.pl < info.vdisk > a || return 1
	qemu-img info --output=json "$1" > info.qemu && perl facts.pl < info.qemu > b && [ -s a ] && diff a b
}
fill() { # IMAGE
	qemu_io -f qcow2 "$1" <<-'COMMANDS'
		write -P 0x11 0 1M
		write -P 0x12 1310720 3000
		write -z 64k 64k
		write -z -u 192k 64k
		write -z 3M 128k
		discard 320k 128k
		write -c -P 0x43 4M 256k
		write -P 0x45 7340032 64k
	COMMANDS
}
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=2M extended_l2=on extended_l2=on,cluster_size=16k \
	compression_type=zstd lazy_refcounts=on refcount_bits=1 preallocation=metadata; do
	qemu-img create -q -f qcow2 -o "$o" x.qcow2 8M
	[ "$o" = preallocation=metadata ] || fill x.qcow2
	check "the map is qemu's with $o" same_map x.qcow2
	check "the facts are qemu's with $o" same_info x.qcow2
	qemu-img create -q -f qcow2 -b x.qcow2 -F qcow2 -o "$(echo "$o" | sed 's/preallocation=metadata/compat=1.1/')" y.qcow2
	fill y.qcow2
	check "the map of an overlay's own layer is qemu's with $o" same_map y.qcow2 \
		'json:{"driver":"qcow2","file":{"driver":"file","filename":"y.qcow2"},"backing":null}'
	check "the facts of an overlay are qemu's with $o" same_info y.qcow2
done
for raw in off on; do
	rm -f x.qcow2 x.data
	qemu-img convert -f raw -O qcow2 -o data_file=x.data,data_file_raw=$raw disk.raw x.qcow2
	check "the map with an external data file is qemu's, data_file_raw=$raw" same_map x.qcow2
	check "the facts with an external data file are qemu's, data_file_raw=$raw" same_info x.qcow2
done

# Encrypted: qemu wants the key to draw a map, vdisk does not.
again qemu-img convert $with_key -f raw -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 disk.raw x.qcow2
check "the map of an encrypted image is qemu's, without the key" same_map x.qcow2 \
	'json:{"driver":"qcow2","file":{"driver":"file","filename":"x.qcow2"},"encrypt.key-secret":"s"}'
check "the facts of an encrypted image are qemu's" same_info x.qcow2
check_fails 1 "qemu draws no map without the key" qemu-img map --output=json x.qcow2
qemu-img create -q $with_key -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s x.qcow2 1M
check "the facts of legacy AES are qemu's" same_info x.qcow2

check "the facts of a raw disk are qemu's" same_info disk.raw
check "the map of a raw disk is qemu's" same_map disk.raw 'json:{"driver":"raw","file":{"driver":"file","filename":"disk.raw"}}'
done_testing
