package wire

import (
	"math"
	"net/netip"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// EncodeFact turns one observation into a message. Of a peer only the address
// and the name that was asked for travel: who that is, the plugin finds out.
func EncodeFact(o Observation) *wirepb.Fact {
	f := o.Fact
	m := &wirepb.Fact{
		Kind: string(f.Kind), Exe: f.Exe, Runtime: f.Runtime, Parent: f.Parent, Path: f.Path, Access: uint32(f.Access),
		Direction: string(f.Direction), Protocol: f.Protocol, Port: uint32(f.Port), Name: f.Name, Syscall: f.Syscall,
		Refused: f.Refused, Arch: f.Arch, Count: o.Count, First: toUnix(o.First), Last: toUnix(o.Last),
		Origin: string(f.Origin), Operation: string(f.Operation), Interpreter: f.Interpreter, Deleted: f.Deleted,
		Arguments: f.Arguments, Family: f.Family, Type: f.Type, Target: f.Target, PeerName: f.Peer.Name,
		Snapshot: o.Snapshot, Parents: o.Parents,
	}
	if f.Peer.Address.IsValid() {
		m.Peer = f.Peer.Address.Unmap().AsSlice()
	}
	if f.Via.IsValid() {
		m.Via, m.ViaPort = f.Via.Addr().Unmap().AsSlice(), uint32(f.Via.Port())
	}
	return m
}

func decodeFact(m *wirepb.Fact) (Observation, error) {
	if m.GetPort() > math.MaxUint16 || m.GetViaPort() > math.MaxUint16 || m.GetAccess() > uint32(behavior.Read|behavior.Write|behavior.Create) {
		return Observation{}, refuse("fact with ports %d and %d, access %d", m.GetPort(), m.GetViaPort(), m.GetAccess())
	}
	if err := seconds(m.GetFirst(), m.GetLast()); err != nil {
		return Observation{}, err
	}
	f := behavior.Fact{
		Kind: behavior.Kind(m.GetKind()), Exe: m.GetExe(), Runtime: m.GetRuntime(), Parent: m.GetParent(), Path: m.GetPath(),
		Access: behavior.Access(m.GetAccess()), Direction: behavior.Direction(m.GetDirection()), Protocol: m.GetProtocol(),
		Port: uint16(m.GetPort()), Name: m.GetName(), Syscall: m.GetSyscall(), Refused: m.GetRefused(), Arch: m.GetArch(),
		Origin: behavior.Origin(m.GetOrigin()), Operation: behavior.Operation(m.GetOperation()), Interpreter: m.GetInterpreter(),
		Deleted: m.GetDeleted(), Arguments: m.GetArguments(), Family: m.GetFamily(), Type: m.GetType(), Target: m.GetTarget(),
	}
	var err error
	if f.Peer.Address, err = address(m.GetPeer()); err != nil {
		return Observation{}, err
	}
	f.Peer.Name = m.GetPeerName()
	via, err := address(m.GetVia())
	if err != nil {
		return Observation{}, err
	}
	if via.IsValid() {
		f.Via = netip.AddrPortFrom(via, uint16(m.GetViaPort()))
	}
	if len(m.GetParents()) > behavior.MaxParents {
		return Observation{}, refuse("fact with %d parents", len(m.GetParents()))
	}
	strings := []string{string(f.Kind), f.Exe, f.Parent, f.Path, string(f.Direction), f.Protocol, f.Name, f.Syscall, f.Arch,
		string(f.Origin), string(f.Operation), f.Interpreter, f.Arguments, f.Family, f.Type, f.Target, f.Peer.Name}
	if err := texts(MaxText, append(strings, m.GetParents()...)...); err != nil {
		return Observation{}, err
	}
	if err := f.Validate(); err != nil {
		return Observation{}, refuse("%v", err)
	}
	return Observation{Fact: f, Count: m.GetCount(), First: fromUnix(m.GetFirst()), Last: fromUnix(m.GetLast()),
		Snapshot: m.GetSnapshot(), Parents: m.GetParents()}, nil
}

// address decodes 4 or 16 bytes; none is the zero address.
func address(raw []byte) (netip.Addr, error) {
	if len(raw) == 0 {
		return netip.Addr{}, nil
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.Addr{}, refuse("address of %d bytes", len(raw))
	}
	return a.Unmap(), nil
}
