//go:build linux

package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// translate does what a CNI does that translates Services by programs on control
// groups: whoever asks for IPv4 address from gets to instead.
func translate(t *testing.T, root string, attach ebpf.AttachType, from, to netip.AddrPort) {
	t.Helper()
	word := func(a netip.Addr) int32 { b := a.As4(); return int32(binary.NativeEndian.Uint32(b[:])) }
	port := int32(to.Port()>>8 | to.Port()<<8)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // user_ip4
			asm.JNE.Imm32(asm.R2, word(from.Addr()), "end"),
			asm.Mov.Imm32(asm.R2, word(to.Addr())),
			asm.StoreMem(asm.R1, 4, asm.R2, asm.Word),
			asm.Mov.Imm32(asm.R2, port),
			asm.StoreMem(asm.R1, 24, asm.R2, asm.Word), // user_port
			asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: root, Attach: attach, Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// The translating programs are there first, as those of a CNI are.
func TestAddressBeforeTranslationIsSaid(t *testing.T) {
	requireProbe(t, Options{}).Close() // or skips
	mount, err := mountCgroup2()
	if err != nil {
		t.Fatal(err)
	}
	defer mount.Close()
	root := fmt.Sprintf("/proc/self/fd/%d", mount.Fd())
	service, pod := netip.MustParseAddrPort("127.96.0.1:80"), netip.MustParseAddrPort("127.0.0.1:8080")
	translate(t, root, ebpf.AttachCGroupInet4Connect, service, pod)
	translate(t, root, ebpf.AttachCGroupUDP4Sendmsg, service, pod)
	p := requireProbe(t, Options{})
	_, records := observe(t, p, actions("connect 127.96.0.1:80", "connect 127.0.0.1:8081", "send 127.96.0.1:80", "send 127.0.0.1:8081", "sendconnected 127.96.0.1:80")...)
	tcp, udp := socket(behavior.Egress, "tcp", 8080, "127.0.0.1"), socket(behavior.Egress, "udp", 8080, "127.0.0.1")
	for _, want := range []behavior.Fact{
		via(tcp, "127.96.0.1:80"), via(udp, "127.96.0.1:80"),
		socket(behavior.Egress, "tcp", 8081, "127.0.0.1"), socket(behavior.Egress, "udp", 8081, "127.0.0.1"),
	} {
		wantFact(t, records, want)
	}
}

// translateDNS sends who asks 127.96.0.10 to port 5353 of 127.0.0.1.
func translateDNS(t *testing.T) {
	t.Helper()
	mount, err := mountCgroup2()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.Close() })
	root := fmt.Sprintf("/proc/self/fd/%d", mount.Fd())
	service, pod := netip.MustParseAddrPort("127.96.0.10:53"), netip.MustParseAddrPort("127.0.0.1:5353")
	translate(t, root, ebpf.AttachCGroupInet4Connect, service, pod)
	translate(t, root, ebpf.AttachCGroupUDP4Sendmsg, service, pod)
}
