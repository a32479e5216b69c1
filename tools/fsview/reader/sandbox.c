/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cell of the reader: no file can be opened, no process started, nothing sent but through its socket. Landlock and seccomp
 * each see to that alone; limits see to memory and time.
 */
#include <errno.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsview/reader/reader.h"

#define MEMORY_MAX ((rlim_t)384 << 20)
#define CPU_SECONDS 300

/* All that the oldest version of Landlock knows, and where the kernel knows more, that too. */
int sandbox_landlock(struct vd_error *e)
{
	struct landlock_ruleset_attr rules = { 0 };
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int fd, r;

	/* A kernel without it leaves the work to seccomp. */
	if (version < 1)
		return 0;
	rules.handled_access_fs = ((uint64_t)1 << (version >= 3 ? 15 : version == 2 ? 14 : 13)) - 1;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules.handled_access_fs), 0);
	if (fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_errno(e, errno, "the reader of file systems could not be locked in");
	r = (int)syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	return r < 0 ? fail_errno(e, errno, "the reader of file systems could not be locked in") : 0;
}

/* What memory, the socket and an end need. Everything else kills the process. */
int sandbox_seccomp(struct vd_error *e)
{
	static const int allowed[] = {
		SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(exit), SCMP_SYS(exit_group),
		SCMP_SYS(rt_sigreturn), SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time),
		SCMP_SYS(getrandom),
#ifdef __SANITIZE_ADDRESS__
		SCMP_SYS(write), SCMP_SYS(sigaltstack), SCMP_SYS(mprotect), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(sched_yield),
#endif
	};
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = c ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && r == 0; i++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[i], 0);
	/* Memory, but none that can be run. */
	if (r == 0)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
				     SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
	if (r == 0)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 1, SCMP_A0(SCMP_CMP_EQ, WIRE_SOCKET));
	if (r == 0)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(recvmsg), 1, SCMP_A0(SCMP_CMP_EQ, WIRE_SOCKET));
	if (r == 0)
		r = seccomp_load(c);
	seccomp_release(c);
	return r < 0 ? fail_errno(e, -r, "the reader of file systems could not be locked in") : 0;
}

int sandbox_enter(struct vd_error *e)
{
	const struct rlimit none = { 0, 0 }, cpu = { CPU_SECONDS, CPU_SECONDS };
	int r;

	prctl(PR_SET_PDEATHSIG, 9);
	prctl(PR_SET_DUMPABLE, 0);
	close_range(WIRE_MEMORY + 1, ~0U, 0);
	setrlimit(RLIMIT_CPU, &cpu);
#ifndef __SANITIZE_ADDRESS__            /* which maps terabytes */
	const struct rlimit memory = { MEMORY_MAX, MEMORY_MAX };

	setrlimit(RLIMIT_AS, &memory);
#endif
	setrlimit(RLIMIT_CORE, &none);
	r = sandbox_landlock(e);
	setrlimit(RLIMIT_NOFILE, &none);
	return r < 0 ? r : sandbox_seccomp(e);
}
