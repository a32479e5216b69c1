# SPDX-License-Identifier: LGPL-2.1-or-later
# What every test script begins with:  . "$SRCDIR/tests/support/lib.sh"
# A script runs in an empty folder of its own, prints TAP, and ends with done_testing.
#
#   VDISK   absolute path of the command          SRCDIR  top of the source tree
#   $stdout, $stderr   files with what the last run, check or check_fails printed     $status   its exit status
#
# Call these in the script itself, never in a pipe or in $(...): a subshell's counts are lost.

set -u
: "${VDISK:?is the path of the vdisk command}" "${SRCDIR:?is the top of the source tree}"

tap_dir=$(mktemp -d "${TMPDIR:-/tmp}/vdisk-tap.XXXXXX") || exit 1
# What the command does goes into a ledger of the test's own.
export VDISK_LEDGER="$tap_dir/ledger"
stdout=$tap_dir/stdout
stderr=$tap_dir/stderr
status=0
tap_count=0
tap_failed=0
tap_undo=
tap_done=

# on_exit COMMAND: a line of shell that runs when the script ends, however it ends; the last one first.
on_exit() {
	tap_undo="$1
$tap_undo"
}

tap_end() {
	tap_status=$?
	eval "$tap_undo"
	rm -rf "$tap_dir"
	if [ -z "$tap_done" ]; then
		echo "not ok $((tap_count + 1)) - the script runs to its end"
		[ "$tap_status" -ne 0 ] || tap_status=1
	fi
	exit "$tap_status"
}
trap tap_end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# requires PROGRAM...: skips the whole script if one is missing. Before the first claim.
requires() {
	for tap_prog; do
		command -v "$tap_prog" >/dev/null 2>&1 && continue
		echo "1..0 # SKIP $tap_prog is missing"
		tap_done=yes
		exit 77
	done
}

# ok CLAIM
ok() {
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1"
}

# not_ok CLAIM WHY: WHY may be many lines
not_ok() {
	tap_count=$((tap_count + 1))
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_count - $1"
	printf '%s\n' "${2:-}" | sed 's/^/# /'
}

# claim TEXT: it holds if the command just before succeeded:   cmp -s a b; claim "the bytes are the same"
claim() {
	if [ $? -eq 0 ]; then
		ok "$1"
	else
		not_ok "$1" "the command before this line failed"
	fi
}

# run COMMAND...: without a claim; for what is looked at afterwards
run() {
	"$@" >"$stdout" 2>"$stderr"
	status=$?
	return $status
}

# tap_explain WANTED COMMAND...: what the last run did instead; what is not text is left out
tap_explain() {
	tap_wanted=$1
	shift
	printf 'ran: %s\n' "$*"
	echo "exit status $status, wanted $tap_wanted"
	for tap_file in "$stdout" "$stderr"; do
		[ -s "$tap_file" ] || continue
		echo "${tap_file##*/}:"
		head -c 4000 "$tap_file" | tr -cd '\11\12\40-\176'
		echo
	done
}

# check CLAIM COMMAND...: exit status 0
check() {
	check_fails 0 "$@"
}

# check_fails STATUS CLAIM COMMAND...: exactly this exit status
check_fails() {
	tap_want=$1
	tap_claim=$2
	shift 2
	run "$@"
	if [ "$status" -eq "$tap_want" ]; then
		ok "$tap_claim"
	else
		not_ok "$tap_claim" "$(tap_explain "$tap_want" "$@")"
	fi
}

# wait_until COMMAND...: tries ten times a second until it succeeds; fails after ten seconds
wait_until() {
	tap_try=0
	until "$@" 2>/dev/null; do
		tap_try=$((tap_try + 1))
		[ "$tap_try" -lt 100 ] || return 1
		sleep 0.1
	done
}

# The last line of every script.
done_testing() {
	echo "1..$tap_count"
	tap_done=yes
	[ "$tap_failed" -eq 0 ] && [ "$tap_count" -gt 0 ]
	exit $?
}
