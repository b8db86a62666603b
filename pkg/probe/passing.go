//go:build linux

package probe

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

// How a check's answer is used: see passingChecks.
type use int

const (
	unaudited use = iota // the kernel asks without telling its audit, and goes on either way
	idle                 // it also tells its audit of it, or did in an older version
	gate                 // it does not tell its audit, but refuses what the task wanted
)

// passing are checks of a capability that a system call makes in one way.
type passing struct {
	capability string
	use        use
	syscalls   string // names, separated by spaces; those an architecture lacks don't count
}

// passingChecks are the checks whose answer means nothing for a policy, and those
// that look so but do: made by the functions named, as they stand in Debian's
// linux-source-6.12 (6.12.107). Where a hook can see whether the kernel tells its
// audit, that decides, and only idle and gate are asked for. The tracepoint cannot
// see it: there all but gate are left out, and so is a real need for the same
// capability in the same system call.
func passingChecks() []passing {
	return []passing{
		// cap_vm_enough_memory(), security/commoncap.c, of __vm_enough_memory(), mm/util.c:
		// whether the last pages may be had. mm/shmem.c accounts each block of a
		// tmpfs file that way. clone counts only without CLONE_NEW*.
		{"SYS_ADMIN", unaudited, "mmap mmap2 brk mremap mprotect execve execveat clone clone3 fork vfork shmget shmat " +
			"memfd_create fallocate ftruncate ftruncate64 write writev pwrite64 pwritev pwritev2 sendfile sendfile64 copy_file_range splice madvise"},
		// simple_xattr_list(), fs/xattr.c, and ovl_can_list(), fs/overlayfs/xattrs.c:
		// whether trusted.* attributes are listed too.
		{"SYS_ADMIN", unaudited, "listxattr llistxattr flistxattr"},
		// do_task_stat(), fs/proc/array.c, by ptrace_may_access(PTRACE_MODE_NOAUDIT):
		// whether addresses are shown in /proc/PID/stat.
		{"SYS_PTRACE", unaudited, "read pread64 readv"},
		// kallsyms_show_value(), kernel/ksyms_common.c: whether addresses are shown in
		// /proc/kallsyms, /proc/modules, /sys/module and by bpf(2).
		{"SYSLOG", unaudited, "read pread64 readv open openat openat2 bpf"},
		// net_ctl_permissions(), net/sysctl_net.c: the owner's rights to /proc/sys/net.
		{"NET_ADMIN", unaudited, "open openat openat2 access faccessat faccessat2 stat lstat newfstatat stat64 lstat64 fstatat64 statx " +
			"read readv pread64 write writev pwrite64"},
		// vsock __vsock_create(), net/vmw_vsock/af_vsock.c: whether peers may trust it.
		{"NET_ADMIN", unaudited, "socket"},
		// io_uring_create(), io_uring/io_uring.c: whether locked memory is accounted.
		// Before 6.10 it is audited.
		{"IPC_LOCK", idle, "io_uring_setup"},
		// do_tcp_setsockopt(), net/ipv4/tcp.c: asked before it is known whether the
		// congestion control is a restricted one. Only of TCP_CONGESTION.
		{"NET_ADMIN", idle, "setsockopt"},
		// seccomp_prepare_filter(), kernel/seccomp.c, and landlock_restrict_self(),
		// security/landlock/syscalls.c: without it, no_new_privs must be set first.
		{"SYS_ADMIN", gate, "seccomp prctl landlock_restrict_self"},
		// statmount() and listmount(), fs/namespace.c: mounts that are out of reach.
		{"SYS_ADMIN", gate, "statmount listmount"},
		// set_permissions(), kernel/ucount.c: writing /proc/sys/user.
		{"SYS_RESOURCE", gate, "open openat openat2"},
		// oom_score_adj_write(), fs/proc/base.c: a lower bound for the future.
		{"SYS_RESOURCE", unaudited, "write"},
	}
}

// names splits the names of a check's system calls.
func (p passing) names() []string { return strings.Fields(p.syscalls) }

// setCallRules tells the programs what is known of system calls that ask for
// capabilities.
func setCallRules(m *ebpf.Map) error {
	type call struct {
		name   string
		number uint32 // that of a 32-bit program's after all native ones
	}
	rules := map[call]*bpf.FloorCallRule{}
	rule := func(name string) (found []*bpf.FloorCallRule) {
		for compat, arch := range Arches(runtime.GOARCH) {
			number, ok := syscallNumber(arch, name)
			if !ok {
				continue
			}
			c := call{name, uint32(number) + uint32(compat)*m.MaxEntries()/2}
			if rules[c] == nil {
				rules[c] = &bpf.FloorCallRule{}
			}
			found = append(found, rules[c])
		}
		return found
	}
	for _, check := range passingChecks() {
		bit := uint64(1) << slices.Index(capabilityNames(), check.capability)
		for _, name := range check.names() {
			for _, r := range rule(name) {
				switch check.use {
				case unaudited:
					r.Passing |= bit
				case idle:
					r.Idle |= bit
				case gate:
					r.Gates |= bit
				}
			}
		}
	}
	for _, name := range wordedCalls() {
		for _, r := range rule(name) {
			for i, w := range callWords(name) {
				r.Argument[i], r.Mask[i] = uint8(w.argument), w.mask
				r.Words = uint8(i + 1)
			}
		}
	}
	for c, r := range rules {
		if err := m.Put(c.number, r); err != nil {
			return fmt.Errorf("set rule of system call %s: %w", c.name, err)
		}
	}
	return nil
}
