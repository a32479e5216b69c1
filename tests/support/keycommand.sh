# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests of the programs for --key-command share; sourced after lib.sh. They are run by hand first, by the
# protocol of keys/keycommand.md, and then by vdisk.

secret_text='a secret of somebody'
secret_base64=$(printf %s "$secret_text" | base64 -w 0)
uuid=01234567-89ab-cdef-0123-456789abcdef

printf '{"vdisk-key-command":1,"act":"seal","secret":"%s","image":{"name":"disk.qcow2","uuid":"%s"}}' "$secret_base64" "$uuid" > seal.json

# seals TOKEN COMMAND...: gives the secret to the program, and writes the request that opens it again to TOKEN.
seals() {
	se_token=$1
	shift
	"$@" < seal.json > sealed.json || return 1
	perl -MJSON::PP -e 'local $/; my $t = decode_json(<STDIN>)->{token}; exit 1 if ref $t ne "HASH";
		print JSON::PP->new->canonical->encode({ "vdisk-key-command" => 1, act => "open", token => $t,
			image => { name => "disk.qcow2", uuid => shift } })' "$uuid" < sealed.json > "$se_token"
}

# opens TOKEN COMMAND...: the program gives back what was sealed, and nothing else.
opens() {
	op_token=$1
	shift
	"$@" < "$op_token" > opened.json &&
		perl -MJSON::PP -e 'local $/; my $r = decode_json(<STDIN>); exit !(join(",", keys %$r) eq "secret" && $r->{secret} eq shift)' \
			"$secret_base64" < opened.json
}

# refuses KIND TEXT COMMAND... < REQUEST: exit status 1, one line of error of this kind; TEXT is in its message, a secret is not.
refuses() {
	re_kind=$1 re_text=$2
	shift 2
	"$@" > refused.json
	[ $? -eq 1 ] && ! grep -q "$secret_base64" refused.json &&
		perl -MJSON::PP -e 'local $/; my $e = decode_json(<STDIN>)->{error};
			exit !($e->{kind} eq $ARGV[0] && index($e->{message}, $ARGV[1]) >= 0 && $e->{message} !~ /\n/)' \
			"$re_kind" "$re_text" < refused.json || { cat refused.json; return 1; }
}

# with_token EXPRESSION [ARGUMENT...] < REQUEST: the request with the token $t changed by a line of perl.
with_token() {
	perl -MJSON::PP -e 'local $/; my $r = decode_json(<STDIN>); my $t = $r->{token}; eval shift @ARGV; die $@ if $@;
		print JSON::PP->new->canonical->encode($r)' "$@"
}

# port_of FILE: the port that a server wrote there when it was ready.
port_of() {
	wait_until test -s "$1" && cat "$1"
}

# disks_open_by HELPER COMMAND: vdisk adds a keyslot by the program to a qcow2 and to a LUKS2 container, one.qcow2 and one.luks,
# and reads them by it. Both hold disk.raw, and open with the file "key", too.
disks_open_by() {
	do_helper=$1 do_command=$2
	printf 'the key of before' > key
	make_disk disk.raw 1048576
	"$VDISK" encrypt -q --pbkdf-iterations 1000 --key-file key disk.raw one.qcow2 &&
		"$VDISK" encrypt -q -O raw --type luks2 --pbkdf-iterations 4 --pbkdf-memory 64 --key-file key disk.raw one.luks
	claim "two images are encrypted"
	for do_image in one.qcow2 one.luks; do
		check "a keyslot by the program: $do_image" "$VDISK" key add -q --key-file key --new-key-command "$do_command" "$do_image"
		check "key list names it: $do_image" sh -c '"$VDISK" key list "$1" | grep -w "$2"' sh "$do_image" "$do_helper"
		check "the disk is read by it: $do_image" reads_as "$do_image" disk.raw --key-command "$do_command"
		check "and by the key of before: $do_image" reads_as "$do_image" disk.raw --key-file key
	done
}

# disks_refuse STATUS TEXT COMMAND: both images are refused by vdisk so, and the message has TEXT.
disks_refuse() {
	for dr_image in one.qcow2 one.luks; do
		rm -f not.raw
		check_fails "$1" "refused: $dr_image, $2" "$VDISK" convert -O raw --key-command "$3" "$dr_image" not.raw
		grep -q -e "$2" "$stderr" && [ ! -e not.raw ]
		claim "says '$2', and makes no file"
	done
}
