package seccomp

// base are the calls that container runtimes make between loading the filter and
// starting the container's first program, and to enter it later (probes, exec).
//
// For runc it is the list that the Security Profiles Operator keeps, recorded
// from runc 1.4.2; it grew by openat2 and statx in 1.2.8 and 1.3.3, so it serves
// older versions, too. For crun it is that project's list of crun 1.26 without
// what crun does before it loads the filter: mounts, namespaces, devices and the
// host name, which no profile should allow for its sake.
func base() []string {
	runc := []string{
		"arch_prctl", "brk", "capget", "capset", "chdir", "close", "close_range", "epoll_ctl", "epoll_pwait", "execve",
		"exit_group", "faccessat2", "fcntl", "fstat", "fstatfs", "futex", "getcwd", "getdents64", "getpid", "getppid",
		"getuid", "mmap", "mprotect", "nanosleep", "newfstatat", "openat", "openat2", "prctl", "read", "recvfrom",
		"rt_sigreturn", "sched_yield", "set_tid_address", "setgid", "setgroups", "setuid", "sigaltstack", "statx",
		"tgkill", "write",
	}
	crun := []string{
		"access", "dup2", "fchdir", "fchown", "getegid", "geteuid", "getgid", "ioctl", "lseek", "pselect6", "readlink",
		"rt_sigaction", "rt_sigprocmask", "setresgid", "setresuid", "setsid", "statfs", "umask",
	}
	return append(runc, crun...)
}

// everyday are calls that any program may come to make at any time, because its
// language's runtime makes them (threads, timers, memory, signals within the
// process), and that give it nothing: they work on what the process already
// holds, reach no other process, no name and no peer, and gain no privilege. A
// profile that lacks one breaks a service on a busy day and stops no attack, so
// they are in every profile. Each is also in moby's default profile
// (profiles/seccomp/default.json) without a condition. The exception to "no other
// process" is tgkill, which base has in any case.
func everyday() []string {
	return []string{
		// Memory of its own.
		"brk", "madvise", "membarrier", "mincore", "mmap", "mprotect", "mremap", "msync", "munmap",
		// Time and timers.
		"alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep", "setitimer",
		"time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "times",
		// Signals within the process, and waiting.
		"pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend",
		"rt_sigtimedwait", "sigaltstack", "tgkill", "wait4", "waitid",
		// Threads and scheduling.
		"exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu", "gettid", "rseq", "sched_getaffinity",
		"sched_getparam", "sched_getscheduler", "sched_yield", "set_robust_list", "set_tid_address",
		// Descriptors that it holds.
		"close", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
		"epoll_wait", "eventfd", "eventfd2", "fcntl", "fdatasync", "fstat", "fsync", "lseek", "pipe", "pipe2", "poll",
		"ppoll", "pread64", "preadv", "pselect6", "pwrite64", "pwritev", "read", "readv", "select", "write", "writev",
		// What it is.
		"getegid", "geteuid", "getgid", "getgroups", "getpgrp", "getpid", "getppid", "getrandom", "getresgid",
		"getresuid", "getrusage", "getuid", "sysinfo", "uname",
	}
}
