package probe

import (
	"fmt"
	"slices"
	"strconv"
)

//go:generate go run gen_syscalls.go

// Arches gives the names of the system call tables of a Go architecture: native,
// then the one of its 32-bit programs. Nil for an architecture without a probe.
func Arches(goarch string) []string {
	switch goarch {
	case "amd64":
		return []string{"amd64", "386"}
	case "arm64":
		return []string{"arm64", "arm"}
	}
	return nil
}

// SyscallName names a system call as seccomp does; sys_NNN where the table, which
// is golang.org/x/sys's, does not know it.
func SyscallName(arch string, number int) string {
	if table := syscallNames(arch); number >= 0 && number < len(table) && table[number] != "" {
		return table[number]
	}
	return "sys_" + strconv.Itoa(number)
}

// syscallNumber is the inverse of SyscallName for known names; false when the
// architecture has no such call.
func syscallNumber(arch, name string) (int, bool) {
	i := slices.Index(syscallNames(arch), name)
	return i, i >= 0
}

// CapabilityName names a capability in upper case without the CAP_ prefix; CAP_NN
// where it is newer than this table.
func CapabilityName(number int) string {
	if names := capabilityNames(); number >= 0 && number < len(names) {
		return names[number]
	}
	return fmt.Sprintf("CAP_%d", number)
}

// capabilityNames is linux/capability.h, in order of the numbers.
func capabilityNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
		"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
		"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
		"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
		"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}
