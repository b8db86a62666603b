//go:build linux

package collector

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCapabilities are what a collector goes on needing once its programs are
// attached: to read other processes' entries in /proc, and the folders of these
// that belong to other users.
func keptCapabilities() []uint { return []uint{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH} }

// capabilitySet is one thread's sets, in the form of capset(2).
type capabilitySet [2]unix.CapUserData

func (s *capabilitySet) limit(keep []uint, permittedToo bool) {
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	for i := range s {
		s[i].Effective = s[i].Permitted & mask[i]
		s[i].Inheritable = 0
		if permittedToo {
			s[i].Permitted &= mask[i]
		}
	}
}

// capHeader names the calling thread to capget(2) and capset(2).
func capHeader() unix.CapUserHeader {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
}

// limitCapabilities takes from all threads what is not in keep: of the effective
// set, and for good when permittedToo.
func limitCapabilities(keep []uint, permittedToo bool) error {
	var set capabilitySet
	header := capHeader()
	if err := unix.Capget(&header, &set[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	set.limit(keep, permittedToo)
	header = capHeader()
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&set[0])), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

// dropCapabilities gives up what nothing needs once the programs are attached.
// Works tells whether the kernel still lets read what they recorded: before Linux
// 5.19 that takes CAP_BPF where unprivileged BPF is off, which is kept then.
func dropCapabilities(works func() error) error {
	keep := keptCapabilities()
	if err := limitCapabilities(keep, false); err != nil {
		return err
	}
	if err := works(); errors.Is(err, unix.EPERM) {
		keep = append(keep, unix.CAP_BPF)
	} else if err != nil {
		return err
	}
	return limitCapabilities(keep, true)
}

// cgroup2 finds the root of the version 2 hierarchy in a folder where the machine's
// control groups are mounted: itself, or beside version 1 in its folder unified. It
// is empty where there is none.
func cgroup2(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	for _, path := range []string{dir, filepath.Join(dir, "unified")} {
		var fs unix.Statfs_t
		err := unix.Statfs(path, &fs)
		switch {
		case errors.Is(err, os.ErrNotExist) && path != dir:
		case err != nil:
			return "", fmt.Errorf("look for control groups in %s: %w", path, err)
		case fs.Type == unix.CGROUP2_SUPER_MAGIC:
			return path, nil
		}
	}
	return "", nil
}
