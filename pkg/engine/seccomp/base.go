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
