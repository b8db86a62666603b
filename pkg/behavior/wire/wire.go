package wire

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// Limits of one message. A collector keeps within them, and Decode refuses what
// does not.
const (
	MaxMessage    = 4 << 20        // bytes of one message
	MaxFacts      = 65536          // facts of one container, in all batches together
	MaxText       = 4 * 4096       // bytes of one string: a longest path, every byte escaped
	MaxContainers = 4096           // containers of one batch
	MaxReasons    = 256            // entries of one list of losses
	maxName       = 4 * 253        // bytes of an API name
	batchBytes    = MaxMessage / 8 // a sender closes a batch at this size
)

// ErrMessage is what a DecodeError is.
var ErrMessage = errors.New("malformed collector message")

// DecodeError is a message that breaks a limit or states what no collector may.
type DecodeError struct {
	What string // escaped
}

// Error implements error.
func (e *DecodeError) Error() string { return ErrMessage.Error() + ": " + e.What }

// Is reports that a DecodeError is an ErrMessage.
func (e *DecodeError) Is(target error) bool { return target == ErrMessage }

func refuse(format string, args ...any) error {
	return &DecodeError{What: fmt.Sprintf(format, args...)}
}

// Observation is a fact of one container in one pod.
type Observation struct {
	Fact        behavior.Fact
	Count       uint64
	First, Last time.Time // UTC, whole seconds
}

// Container is what one collector knows of one container.
type Container struct {
	Namespace, Pod, UID string
	Name                string // of the container in its pod
	ID                  string // the runtime's, without its scheme
	Image               string // with its digest where it is known
	From, To            time.Time
	Start               bool // its start was observed
	Lost                map[string]uint64
	Facts               []Observation
}

// Status is how a collector is doing.
type Status struct {
	Version, Epoch, Node string
	Ready                bool
	Started, Deadline    time.Time // the zero time for no deadline
	Pods, Containers     int
	Facts, NewFacts      uint64 // NewFacts: in the last 10 seconds
	Unattributed         uint64
	Lost                 map[string]uint64
	Missing, Problems    []string
}

// Batch is a part of what a Pull gives.
type Batch struct {
	Epoch      string
	Revision   uint64
	Containers []Container
	Status     *Status // in the last batch only
}

// DecodeBatch checks a batch and turns it into Go types.
func DecodeBatch(m *wirepb.Batch) (Batch, error) {
	b := Batch{Epoch: m.GetEpoch(), Revision: m.GetRevision()}
	if n := proto.Size(m); n > MaxMessage {
		return Batch{}, refuse("batch of %d bytes", n)
	}
	if err := texts(maxName, b.Epoch); err != nil {
		return Batch{}, err
	}
	if n := len(m.GetContainers()); n > MaxContainers {
		return Batch{}, refuse("batch with %d containers", n)
	}
	for _, c := range m.GetContainers() {
		decoded, err := decodeContainer(c)
		if err != nil {
			return Batch{}, err
		}
		b.Containers = append(b.Containers, decoded)
	}
	if m.GetLast() {
		s, err := DecodeStatus(m.GetStatus())
		if err != nil {
			return Batch{}, err
		}
		b.Status = &s
	}
	return b, nil
}

func decodeContainer(m *wirepb.Container) (Container, error) {
	c := Container{
		Namespace: m.GetNamespace(), Pod: m.GetPod(), UID: m.GetPodUid(), Name: m.GetName(), ID: m.GetId(), Image: m.GetImage(),
		From: fromUnix(m.GetFrom()), To: fromUnix(m.GetTo()), Start: m.GetStartSeen(), Lost: m.GetLost(),
	}
	if c.Namespace == "" || c.Pod == "" || c.Name == "" {
		return Container{}, refuse("container without namespace, pod or name")
	}
	if err := texts(maxName, c.Namespace, c.Pod, c.UID, c.Name, c.ID, c.Image); err != nil {
		return Container{}, err
	}
	if err := losses(c.Lost); err != nil {
		return Container{}, err
	}
	if n := len(m.GetFacts()); n > MaxFacts {
		return Container{}, refuse("container with %d facts", n)
	}
	for _, f := range m.GetFacts() {
		o, err := decodeFact(f)
		if err != nil {
			return Container{}, err
		}
		c.Facts = append(c.Facts, o)
	}
	return c, nil
}

func decodeFact(m *wirepb.Fact) (Observation, error) {
	if m.GetPort() > math.MaxUint16 || m.GetAccess() > uint32(behavior.Read|behavior.Write|behavior.Create) {
		return Observation{}, refuse("fact with port %d, access %d", m.GetPort(), m.GetAccess())
	}
	f := behavior.Fact{
		Kind: behavior.Kind(m.GetKind()), Exe: m.GetExe(), Runtime: m.GetRuntime(), Parent: m.GetParent(), Path: m.GetPath(),
		Access: behavior.Access(m.GetAccess()), Direction: behavior.Direction(m.GetDirection()), Protocol: m.GetProtocol(),
		Port: uint16(m.GetPort()), Name: m.GetName(), Syscall: m.GetSyscall(), Refused: m.GetRefused(), Arch: m.GetArch(),
	}
	if len(m.GetPeer()) > 0 {
		address, ok := netip.AddrFromSlice(m.GetPeer())
		if !ok {
			return Observation{}, refuse("address of %d bytes", len(m.GetPeer()))
		}
		f.Peer.Address = address.Unmap()
	}
	if err := texts(MaxText, string(f.Kind), f.Exe, f.Parent, f.Path, string(f.Direction), f.Protocol, f.Name, f.Syscall, f.Arch); err != nil {
		return Observation{}, err
	}
	if err := f.Validate(); err != nil {
		return Observation{}, refuse("%v", err)
	}
	return Observation{Fact: f, Count: m.GetCount(), First: fromUnix(m.GetFirst()), Last: fromUnix(m.GetLast())}, nil
}

// DecodeStatus checks a status and turns it into Go types.
func DecodeStatus(m *wirepb.StatusReply) (Status, error) {
	s := Status{
		Version: m.GetVersion(), Epoch: m.GetEpoch(), Node: m.GetNode(), Ready: m.GetReady(),
		Started: fromUnix(m.GetStarted()), Deadline: fromUnix(m.GetDeadline()),
		Pods: int(m.GetPods()), Containers: int(m.GetContainers()), Facts: m.GetFacts(), NewFacts: m.GetNewFacts(),
		Unattributed: m.GetUnattributed(), Lost: m.GetLost(), Missing: m.GetMissing(), Problems: m.GetProblems(),
	}
	if len(s.Missing) > MaxReasons || len(s.Problems) > MaxReasons {
		return Status{}, refuse("status with %d missing features and %d problems", len(s.Missing), len(s.Problems))
	}
	if err := texts(maxName, s.Version, s.Epoch, s.Node); err != nil {
		return Status{}, err
	}
	if err := texts(MaxText, append(s.Missing, s.Problems...)...); err != nil {
		return Status{}, err
	}
	return s, losses(s.Lost)
}

// EncodeStatus is the inverse of DecodeStatus.
func EncodeStatus(s Status) *wirepb.StatusReply {
	return &wirepb.StatusReply{
		Version: s.Version, Epoch: s.Epoch, Node: s.Node, Ready: s.Ready, Started: toUnix(s.Started), Deadline: toUnix(s.Deadline),
		Pods: uint32(s.Pods), Containers: uint32(s.Containers), Facts: s.Facts, NewFacts: s.NewFacts,
		Unattributed: s.Unattributed, Lost: s.Lost, Missing: s.Missing, Problems: s.Problems,
	}
}

// EncodeContainer turns a container and its facts into a message.
func EncodeContainer(c Container) *wirepb.Container {
	m := &wirepb.Container{
		Namespace: c.Namespace, Pod: c.Pod, PodUid: c.UID, Name: c.Name, Id: c.ID, Image: c.Image,
		From: toUnix(c.From), To: toUnix(c.To), StartSeen: c.Start, Lost: c.Lost,
	}
	for _, o := range c.Facts {
		m.Facts = append(m.Facts, EncodeFact(o))
	}
	return m
}

// EncodeFact turns one observation into a message. Of a peer only the address
// travels: who that is, the plugin finds out.
func EncodeFact(o Observation) *wirepb.Fact {
	f := o.Fact
	m := &wirepb.Fact{
		Kind: string(f.Kind), Exe: f.Exe, Runtime: f.Runtime, Parent: f.Parent, Path: f.Path, Access: uint32(f.Access),
		Direction: string(f.Direction), Protocol: f.Protocol, Port: uint32(f.Port), Name: f.Name, Syscall: f.Syscall,
		Refused: f.Refused, Arch: f.Arch, Count: o.Count, First: toUnix(o.First), Last: toUnix(o.Last),
	}
	if f.Peer.Address.IsValid() {
		m.Peer = f.Peer.Address.Unmap().AsSlice()
	}
	return m
}

func texts(limit int, list ...string) error {
	for _, s := range list {
		if len(s) > limit {
			return refuse("text of %d bytes", len(s))
		}
		if !behavior.IsEscaped(s) {
			return refuse("text that is not escaped: %s", behavior.Escape(s))
		}
	}
	return nil
}

func losses(lost map[string]uint64) error {
	if len(lost) > MaxReasons {
		return refuse("%d reasons for losses", len(lost))
	}
	for reason := range lost {
		if err := texts(maxName, reason); err != nil {
			return err
		}
	}
	return nil
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
