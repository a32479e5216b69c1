# SPDX-License-Identifier: LGPL-2.1-or-later
# Somebody at a terminal, for the scripts that source this behind lib.sh: a pseudo-terminal of script's, typed into when the question is there.
mkfifo typed
at_terminal() { # COMMAND LINE
	: > screen
	# A shell lets its background jobs ignore SIGINT, and what is ignored stays so.
	env --default-signal=INT script -qfec "$1" screen < typed > /dev/null 2>&1 & session=$!
	exec 3> typed
}
# answer QUESTION N TEXT: TEXT when QUESTION stands there for the Nth time; echo is off by then
answer() {
	wait_until sh -c '[ "$(grep -ao "$1" screen | wc -l)" -ge "$2" ]' - "$1" "$2"
	sleep 0.2
	printf "$3" >&3
}
finish() { # STATUS
	wait $session
	status=$?
	exec 3>&-
	[ "$status" -eq "$1" ]
}
