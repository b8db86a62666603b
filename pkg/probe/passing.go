//go:build linux

package probe

import "strings"

// passing are checks that the kernel makes in passing: it asks whether the task
// has a capability, goes on either way, and nothing that the task wanted depends
// on the answer. The tracepoint does not tell them from real ones. Functions are
// those of Linux 6.18. A real need in the same system call is then missed.
type passing struct {
	capability string
	syscalls   string // names, separated by spaces; those an architecture lacks don't count
}

func passingChecks() []passing {
	return []passing{
		// cap_vm_enough_memory(): whether the last pages may be had; shmem accounts
		// each block of a tmpfs file that way. clone counts only without CLONE_NEW*.
		{"SYS_ADMIN", "mmap mmap2 brk mremap mprotect execve execveat clone clone3 fork vfork shmget shmat " +
			"memfd_create fallocate ftruncate ftruncate64 write writev pwrite64 pwritev pwritev2 sendfile sendfile64 copy_file_range splice madvise"},
		// simple_xattr_list(): whether trusted.* attributes are listed too.
		{"SYS_ADMIN", "listxattr llistxattr flistxattr"},
		// has_pid_permissions(), ptrace_may_access(NOAUDIT): addresses in /proc/PID/stat.
		{"SYS_PTRACE", "read pread64 readv getdents64 getdents"},
		// kallsyms_show_value(): addresses in /proc/kallsyms and others.
		{"SYSLOG", "read pread64 readv open openat openat2"},
		// net_ctl_permissions(): the owner's rights to /proc/sys/net.
		{"NET_ADMIN", "open openat openat2 access faccessat faccessat2 stat lstat newfstatat statx read write"},
		// tcp_set_congestion_control(), asked before it is known whether it matters.
		{"NET_ADMIN", "setsockopt"},
		// io_uring_create(): whether locked memory is accounted.
		{"IPC_LOCK", "io_uring_setup"},
		// xfs_trans_alloc_ichange(), xfs_trans_alloc_icreate(): whether quota is enforced.
		{"FOWNER", "mkdir mkdirat mknod mknodat symlink symlinkat"},
		{"SYS_RESOURCE", "open openat openat2 creat mkdir mkdirat mknod mknodat symlink symlinkat write writev pwrite64 pwritev pwritev2 fallocate ftruncate rename renameat renameat2"},
	}
}

// fields splits the names of a check's system calls.
func (p passing) names() []string { return strings.Fields(p.syscalls) }
