//go:build linux

package plant

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// gapCapabilities is in what the collector says of a kernel without the hook.
const gapCapabilities = "capabilities are not observed"

func capabilities() []Thing {
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleMain, Do: do, Facts: facts, Gaps: []string{gapCapabilities}}
	}
	used := func(name, syscall, arguments string, refused bool) behavior.Fact {
		return own(behavior.Fact{Kind: behavior.Capability, Name: name, Syscall: syscall, Arguments: arguments, Refused: refused})
	}
	chroot := func() error { return unix.Chroot("/") }
	rawICMP := made1(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	return []Thing{
		thing("capability used", chroot, used("SYS_CHROOT", "chroot", "", false)),
		thing("capability refused", without(unix.CAP_SYS_CHROOT, chroot), used("SYS_CHROOT", "chroot", "", true)),
		thing("capability used, with context", rawICMP, used("NET_RAW", "socket", "AF_INET, SOCK_RAW, IPPROTO_ICMP", false)),
		thing("capability refused, with context", without(unix.CAP_NET_RAW, made1(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)),
			used("NET_RAW", "socket", "AF_INET6, SOCK_RAW, IPPROTO_ICMPV6", true)),
		thing("capability to bind a low port", func() error {
			fd, err := listening(netip.MustParseAddrPort("127.0.0.1:81"), 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}, used("NET_BIND_SERVICE", "bind", "", false)),
		thing("capability to name the host", func() error { return unix.Sethostname([]byte("plant")) }, used("SYS_ADMIN", "sethostname", "", false)),
		thing("capability to give a file away", func() error { return unix.Lchown(Dir+"/owner", 2, 2) }, used("CHOWN", "", "", false)),
		thing("capability to make a device", func() error { return unix.Mknod(Dir+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }, used("MKNOD", "", "", false)),
	}
}

// without does something that must be refused without a capability.
func without(number uint, do func() error) func() error {
	return func() (err error) {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		all := data
		data[number/32].Effective &^= 1 << (number % 32)
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Capset(&header, &all[0])) }()
		if err := do(); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("use a capability that was given up: got %w, want %s", err, unix.EPERM.Error())
		}
		return nil
	}
}
