//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// translate does what a network that translates Services by programs on control
// groups does: whoever connects to the IPv4 address from gets to instead. The caller
// calls what it gives to end that.
func translate(cgroup string, from, to netip.AddrPort) (stop func() error, err error) {
	word := func(a netip.Addr) int32 { b := a.As4(); return int32(binary.NativeEndian.Uint32(b[:])) }
	const userIP4, userPort = 4, 24 // in struct bpf_sock_addr
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, userIP4, asm.Word),
			asm.JNE.Imm32(asm.R2, word(from.Addr()), "end"),
			asm.Mov.Imm32(asm.R2, word(to.Addr())),
			asm.StoreMem(asm.R1, userIP4, asm.R2, asm.Word),
			asm.Mov.Imm32(asm.R2, int32(to.Port()>>8|to.Port()<<8)),
			asm.StoreMem(asm.R1, userPort, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
			asm.Return(),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load translation: %w", err)
	}
	attached, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: program})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach translation: %w", err), program.Close())
	}
	return func() error { return errors.Join(attached.Close(), program.Close()) }, nil
}
