#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The tables, the pages and help say the same.
. "$SRCDIR/tests/support/lib.sh"
. "$SRCDIR/tests/support/json.sh"
man=$SRCDIR/tools/man

check "dumps the tables" "$VDISK" --dump-options=json
is_json "$stdout"
claim "as JSON"
cp "$stdout" options.json

# of_tables EXPRESSION: what perl prints of the document, one a line
of_tables() {
	perl -MJSON::PP -e 'local $/; open my $f, "<", "options.json"; my $d = decode_json(<$f>); $\ = "\n"; eval shift; die $@ if $@' "$1"
}
# The options that a page describes, letters and long names.
described() {
	sed -n 's/^\.It Fl //p' "$@" | tr ' ' '\n' | grep -E '^-?[A-Za-z][a-z0-9-]*$' | sed -n 's/^-//p'
}

of_tables 'print $_->{name} for @{$d->{verbs}}' > verbs
for verb in $(cat verbs); do
	page=$man/vdisk-$verb.1
	[ -f "$page" ] && grep -q "^\.It Xr vdisk-$verb 1" "$man/vdisk.1"
	claim "$verb has a page, and vdisk.1 names it"
	summary=$(of_tables "print \$_->{summary} for grep { \$_->{name} eq '$verb' } @{\$d->{verbs}}")
	grep -qx "\.Nd $summary" "$page" && grep -qx "$summary" "$man/vdisk.1"
	claim "its summary is the same everywhere: $verb"
	of_tables "print \$_->{long} for map { @{\$_->{options}} } grep { \$_->{name} eq '$verb' } @{\$d->{verbs}}" > wanted
	described "$page" "$man/vdisk.1" | sort -u > have
	missing=$(sort -u wanted | comm -23 - have | tr '\n' ' ')
	[ -z "$missing" ] && ok "every option of $verb is described" || not_ok "every option of $verb is described" "missing: $missing"
	strange=$(described "$page" | sort -u > own; sort -u wanted | comm -13 - own | tr '\n' ' ')
	[ -z "$strange" ] && ok "$verb's page describes its own only" || not_ok "$verb's page describes its own only" "unknown: $strange"
	for section in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO' CAVEATS; do
		grep -qx "\.Sh $section" "$page" || not_ok "$verb's page has $section" ""
	done
	# A status of the verb's page is one of the table.
	sed -n '/^\.Sh EXIT STATUS/,/^\.El/s/^\.It \([0-9]*\)$/\1/p' "$page" > own-statuses
	of_tables 'print $_->{status} for @{$d->{"exit-statuses"}}' | sort > statuses
	[ -s own-statuses ] && [ -z "$(sort own-statuses | comm -23 - statuses)" ]
	claim "$verb's exit statuses are in the table"
done

described "$man/vdisk.1" | sort -u > have
of_tables 'print $_->{long} for map { @{$_->{options}} } @{$d->{verbs}}' | sort -u > wanted
strange=$(comm -23 have wanted | grep -vx help | tr '\n' ' ')
[ -z "$strange" ] && ok "vdisk.1 describes no option that there is not" || not_ok "vdisk.1 describes no option that there is not" "$strange"

of_tables 'print ".It $_->{status}\n$_->{reason}" for @{$d->{"exit-statuses"}}' > wanted
sed -n '/^\.Sh EXIT STATUS/,/^\.El/p' "$man/vdisk.1" | sed -n '/^\.It/,$p' | grep -v '^\.El' > have
cmp -s wanted have && ok "EXIT STATUS is the table" || not_ok "EXIT STATUS is the table" "$(diff wanted have)"

# Every key of -o that the command names when it meets an unknown one is in the page.
run "$VDISK" convert -O qcow2 -o nonesuch=1 a b
sed -n 's/^hint: known are: //p' "$stderr" | tr -d ' ' | tr ',' '\n' > keys
[ -s keys ]
claim "the known keys of -o are listed"
for key in $(cat keys); do
	grep -Eq "Cm (.*Cm )?$key( |\$)" "$man/vdisk.1" && continue
	not_ok "-o $key is described" ""
done

if command -v mandoc >/dev/null; then
	for page in "$man"/*.1; do
		mandoc -T lint -W warning "$page" > lint 2>&1
		claim "${page##*/} has no fault that mandoc finds"
	done
fi
done_testing
