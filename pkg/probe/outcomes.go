//go:build linux

package probe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

// outcomeCalls are the system calls whose outcome the programs read, by what they
// make of it: names, separated by spaces; those an architecture lacks don't count.
func outcomeCalls() map[bpf.FloorOutcome]string {
	return map[bpf.FloorOutcome]string{
		bpf.FloorOutcomeOUTCOME_OPEN:       "open creat openat openat2 open_by_handle_at",
		bpf.FloorOutcomeOUTCOME_CONNECT:    "connect",
		bpf.FloorOutcomeOUTCOME_ACCEPT:     "accept accept4",
		bpf.FloorOutcomeOUTCOME_LISTEN:     "listen",
		bpf.FloorOutcomeOUTCOME_BIND:       "bind",
		bpf.FloorOutcomeOUTCOME_SETNS:      "setns",
		bpf.FloorOutcomeOUTCOME_UNSHARE:    "unshare",
		bpf.FloorOutcomeOUTCOME_SOCKET:     "socket",
		bpf.FloorOutcomeOUTCOME_SOCKETPAIR: "socketpair",
		bpf.FloorOutcomeOUTCOME_SOCKETCALL: "socketcall",
		bpf.FloorOutcomeOUTCOME_SENDTO:     "sendto",
		bpf.FloorOutcomeOUTCOME_SENDMSG:    "sendmsg sendmmsg",
		bpf.FloorOutcomeOUTCOME_MMAP:       "mmap mmap2",
		bpf.FloorOutcomeOUTCOME_MPROTECT:   "mprotect pkey_mprotect",
		bpf.FloorOutcomeOUTCOME_RENAME:     "rename",
		bpf.FloorOutcomeOUTCOME_RENAMEAT:   "renameat renameat2",
		bpf.FloorOutcomeOUTCOME_LINK:       "link",
		bpf.FloorOutcomeOUTCOME_LINKAT:     "linkat",
		bpf.FloorOutcomeOUTCOME_SYMLINK:    "symlink",
		bpf.FloorOutcomeOUTCOME_SYMLINKAT:  "symlinkat",
		bpf.FloorOutcomeOUTCOME_UNLINK:     "unlink",
		bpf.FloorOutcomeOUTCOME_UNLINKAT:   "unlinkat",
		bpf.FloorOutcomeOUTCOME_MKDIR:      "mkdir",
		bpf.FloorOutcomeOUTCOME_MKDIRAT:    "mkdirat",
		bpf.FloorOutcomeOUTCOME_RMDIR:      "rmdir",
		bpf.FloorOutcomeOUTCOME_MKNOD:      "mknod",
		bpf.FloorOutcomeOUTCOME_MKNODAT:    "mknodat",
		bpf.FloorOutcomeOUTCOME_TRUNCATE:   "truncate truncate64",
		bpf.FloorOutcomeOUTCOME_FTRUNCATE:  "ftruncate ftruncate64",
		bpf.FloorOutcomeOUTCOME_CHMOD:      "chmod",
		bpf.FloorOutcomeOUTCOME_FCHMOD:     "fchmod",
		bpf.FloorOutcomeOUTCOME_FCHMODAT:   "fchmodat",
		bpf.FloorOutcomeOUTCOME_FCHMODAT2:  "fchmodat2",
		bpf.FloorOutcomeOUTCOME_CHOWN:      "chown chown32",
		bpf.FloorOutcomeOUTCOME_LCHOWN:     "lchown lchown32",
		bpf.FloorOutcomeOUTCOME_FCHOWN:     "fchown fchown32",
		bpf.FloorOutcomeOUTCOME_FCHOWNAT:   "fchownat",
		bpf.FloorOutcomeOUTCOME_XATTR:      "setxattr removexattr",
		bpf.FloorOutcomeOUTCOME_LXATTR:     "lsetxattr lremovexattr",
		bpf.FloorOutcomeOUTCOME_FXATTR:     "fsetxattr fremovexattr",
		bpf.FloorOutcomeOUTCOME_XATTRAT:    "setxattrat removexattrat",
	}
}

// outcomeOf gives a call's outcome in one table, where its name alone does not:
// i386's first mmap takes an array.
func outcomeOf(arch, name string, outcome bpf.FloorOutcome) bpf.FloorOutcome {
	if arch == "386" && name == "mmap" {
		return bpf.FloorOutcomeOUTCOME_MMAP_STRUCT
	}
	return outcome
}

// setOutcomes tells the programs which system calls those are on goarch.
func setOutcomes(spec *ebpf.CollectionSpec, goarch string) error {
	var table [len(bpf.FloorNamespace{}.Called) / 2]uint16
	for outcome, calls := range outcomeCalls() {
		for compat, arch := range Arches(goarch) {
			for name := range strings.FieldsSeq(calls) {
				if number, ok := syscallNumber(arch, name); ok && number < len(table) {
					table[number] |= uint16(outcomeOf(arch, name, outcome)) << (8 * compat)
				}
			}
		}
	}
	if err := spec.Variables["outcomes"].Set(table); err != nil {
		return fmt.Errorf("set system calls to watch: %w", err)
	}
	return nil
}

// bakeVariables puts the values of the programs' variables into their maps and
// forgets them: a variable that Go maps into memory would keep its map alive
// after Close.
func bakeVariables(spec *ebpf.CollectionSpec) {
	for _, v := range spec.Variables {
		section := spec.Maps[v.SectionName]
		if section == nil || len(section.Contents) == 0 {
			continue // nothing but zeros
		}
		data := slices.Clone(section.Contents[0].Value.([]byte))
		copy(data[v.Offset:], v.Value)
		section.Contents = []ebpf.MapKV{{Key: uint32(0), Value: data}}
	}
	clear(spec.Variables)
}
