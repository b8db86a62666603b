//go:build linux

package probe

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestArgumentsOfCallsAreSaidInWords(t *testing.T) {
	for _, c := range []struct {
		name, call string
		values     []uint32
		want       string
	}{
		{"a socket's protocol is of its family", "socket", []uint32{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, "AF_INET, SOCK_RAW, IPPROTO_ICMP"},
		{"of IPv6 too", "socket", []uint32{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}, "AF_INET6, SOCK_RAW, IPPROTO_ICMPV6"},
		{"of netlink", "socket", []uint32{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, "AF_NETLINK, SOCK_RAW, NETLINK_AUDIT"},
		{"of packets, in network byte order", "socket", []uint32{unix.AF_PACKET, unix.SOCK_RAW, 0x0008}, "AF_PACKET, SOCK_RAW, ETH_P_IP"},
		{"of others a number", "socket", []uint32{unix.AF_CAN, unix.SOCK_RAW, 1}, "AF_CAN, SOCK_RAW, 1"},
		{"a family that has no name is a number", "socket", []uint32{9999, unix.SOCK_DGRAM, 0x12345678}, "9999, SOCK_DGRAM, 0x12345678"},
		{"an option is of its level", "setsockopt", []uint32{unix.SOL_SOCKET, unix.SO_MARK}, "SOL_SOCKET, SO_MARK"},
		{"of IP", "setsockopt", []uint32{unix.SOL_IP, unix.IP_TRANSPARENT}, "SOL_IP, IP_TRANSPARENT"},
		{"of IPv6", "setsockopt", []uint32{unix.SOL_IPV6, unix.IPV6_TRANSPARENT}, "SOL_IPV6, IPV6_TRANSPARENT"},
		{"of TCP", "setsockopt", []uint32{unix.SOL_TCP, unix.TCP_REPAIR}, "SOL_TCP, TCP_REPAIR"},
		{"of packets", "setsockopt", []uint32{unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP}, "SOL_PACKET, PACKET_ADD_MEMBERSHIP"},
		{"of another level a number", "setsockopt", []uint32{unix.SOL_NETLINK, 3}, "SOL_NETLINK, 3"},
		{"flags are joined", "mount", []uint32{unix.MS_BIND | unix.MS_REC}, "MS_BIND|MS_REC"},
		{"no flag is 0", "umount2", []uint32{0}, "0"},
		{"flags without a name come last", "unshare", []uint32{unix.CLONE_NEWNS | unix.CLONE_NEWNET | 1}, "CLONE_NEWNS|CLONE_NEWNET|1"},
		{"ioctl", "ioctl", []uint32{unix.SIOCSIFFLAGS}, "SIOCSIFFLAGS"},
		{"prctl", "prctl", []uint32{unix.PR_CAPBSET_DROP}, "PR_CAPBSET_DROP"},
		{"ptrace", "ptrace", []uint32{unix.PTRACE_ATTACH}, "PTRACE_ATTACH"},
		{"bpf", "bpf", []uint32{unix.BPF_PROG_LOAD}, "BPF_PROG_LOAD"},
		{"keyctl", "keyctl", []uint32{unix.KEYCTL_CHOWN}, "KEYCTL_CHOWN"},
		{"fcntl", "fcntl", []uint32{unix.F_SETPIPE_SZ}, "F_SETPIPE_SZ"},
		{"limits", "prlimit64", []uint32{unix.RLIMIT_NOFILE}, "RLIMIT_NOFILE"},
		{"signals", "kill", []uint32{uint32(unix.SIGTERM)}, "SIGTERM"},
		{"special files", "mknodat", []uint32{unix.S_IFCHR}, "S_IFCHR"},
		{"a call without words has none", "open", []uint32{1, 2, 3}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := sayWords(c.call, c.values); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestEveryWordedCallIsOneAndFitsTheKernelSide(t *testing.T) {
	for _, call := range wordedCalls() {
		words := callWords(call)
		if len(words) == 0 || len(words) > maxWords {
			t.Errorf("%s has %d words", call, len(words))
		}
		known := false
		for _, arch := range []string{"amd64", "386", "arm64", "arm"} {
			_, ok := syscallNumber(arch, call)
			known = known || ok
		}
		if !known {
			t.Errorf("%s is no system call", call)
		}
		for _, w := range words {
			if w.argument > 3 {
				t.Errorf("%s: argument %d is not read", call, w.argument)
			}
			for _, value := range []uint32{0, 1, 0xffffffff} {
				if said := w.say(value, []uint32{value, value}); said == "" || !behavior.IsEscaped(said) {
					t.Errorf("%s: %d is said as %q", call, value, said)
				}
			}
		}
	}
}

func TestEveryCheckNamesCallsAndACapability(t *testing.T) {
	for _, check := range passingChecks() {
		if !slices.Contains(capabilityNames(), check.capability) {
			t.Errorf("no capability %s", check.capability)
		}
		for _, name := range check.names() {
			if !slices.ContainsFunc([]string{"amd64", "386", "arm64", "arm"}, func(arch string) bool {
				_, ok := syscallNumber(arch, name)
				return ok
			}) {
				t.Errorf("%s: no system call %s", check.capability, name)
			}
		}
	}
}

// requireCapabilities opens a probe that observes capabilities by a family of hooks.
func requireCapabilities(t *testing.T, family string) *Probe {
	t.Helper()
	p := requireProbe(t, Options{Family: family})
	if reason := p.Features().Missing["note_capability"]; reason != "" {
		t.Skip("SKIPPED: capabilities are not seen by this family here (make kernel-test sees them): " + reason)
	}
	return p
}

func TestCapabilitiesAreToldWithWhatTheyWereUsedFor(t *testing.T) {
	for _, family := range []string{FamilyTracepoint, FamilyFentry, FamilyKprobe} {
		t.Run(family, func(t *testing.T) {
			p := requireCapabilities(t, family)
			_, records := observe(t, p, actions(
				"socket 2 3 1", "socket 2 524291 1", "socket 17 3 8", "setsockopt 1 36", "setsockopt 0 19", "congestion",
				"bind /etc /mnt", "umount /mnt", "mknod /tmp/null", "unshare-net",
				"drop NET_RAW", "refused socket 10 3 58")...)
			used := func(name, syscall, arguments string) behavior.Fact {
				return behavior.Fact{Kind: behavior.Capability, Exe: "/bin/app", Name: name, Syscall: syscall, Arguments: arguments}
			}
			refused := used("NET_RAW", "socket", "AF_INET6, SOCK_RAW, IPPROTO_ICMPV6")
			refused.Refused = true
			for _, want := range []behavior.Fact{
				used("NET_RAW", "socket", "AF_INET, SOCK_RAW, IPPROTO_ICMP"), used("NET_RAW", "socket", "AF_PACKET, SOCK_RAW, ETH_P_IP"),
				used("NET_RAW", "setsockopt", "SOL_SOCKET, SO_MARK"), used("NET_RAW", "setsockopt", "SOL_IP, IP_TRANSPARENT"),
				used("SYS_ADMIN", "mount", "MS_BIND"), used("SYS_ADMIN", "umount2", "MNT_DETACH"), used("SYS_ADMIN", "unshare", "CLONE_NEWNET"),
				used("MKNOD", "mknodat", "S_IFCHR"), refused,
			} {
				wantFact(t, records, want)
			}
			times := map[string]int{}
			for _, r := range records {
				f := r.Fact
				if f.Kind != behavior.Capability {
					continue
				}
				times[fmt.Sprint(f)]++
				if strings.Contains(f.Arguments, "TCP_CONGESTION") {
					t.Errorf("asked in passing: %s", f)
				}
				if f.Runtime && f.Arguments != "" {
					t.Errorf("the runtime's are not told apart: %s", f)
				}
			}
			for f, n := range times {
				if n > 1 {
					t.Errorf("%d times: %s", n, f)
				}
			}
		})
	}
}
