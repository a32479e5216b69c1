# SPDX-License-Identifier: LGPL-2.1-or-later
# Looks into JSON with perl's own parser; sourced after lib.sh.

# json_is FILE EXPRESSION WANTED: EXPRESSION is perl over $d, the document:  json_is "$stdout" '$d->{encrypted}' true
json_is() {
	json_got=$(perl -MJSON::PP -e '
		local $/; open my $f, "<", shift or die; our $d = decode_json(<$f>); my $v = eval shift; die $@ if $@;
		print !defined $v ? "null" : JSON::PP::is_bool($v) ? ($v ? "true" : "false") : $v;' "$1" "$2") || return 1
	[ "$json_got" = "$3" ] || { echo "# $2 is $json_got, wanted $3"; return 1; }
}

# is_json FILE: one valid document
is_json() {
	perl -MJSON::PP -e 'local $/; open my $f, "<", shift or die; decode_json(<$f>)' "$1"
}

# is_json_lines FILE: one valid document a line, and at least one
is_json_lines() {
	perl -MJSON::PP -ne 'decode_json($_); $n++; END { exit !$n }' "$1"
}
