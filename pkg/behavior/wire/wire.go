package wire

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// Limits of one message. A collector keeps within them, and Decode refuses what
// does not.
const (
	MaxMessage      = 4 << 20        // bytes of one message
	MaxFacts        = 65536          // facts of one container, in all batches together
	MaxText         = 4 * 4096       // bytes of one string: a longest path, every byte escaped
	MaxContainers   = 4096           // containers of one batch
	MaxReasons      = 256            // entries of one list of losses
	MaxMounts       = 1024           // mounts of one container
	maxCapabilities = 64             // of one container
	maxName         = 4 * 253        // bytes of an API name
	batchBytes      = MaxMessage / 8 // a sender closes a batch at this size
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
	Parents     []string  // as in behavior.Evidence
	Snapshot    bool      // as in behavior.Evidence
}

// Container is what one collector knows of one container.
type Container struct {
	Namespace, Pod, UID string
	Name                string // of the container in its pod
	ID                  string // the runtime's, without its scheme
	Image               string // with its digest where it is known
	From, To            time.Time
	Start               bool // its start was observed
	// As in behavior.PodCoverage.
	Ready, Steady, Terminated bool
	Restarts                  int
	Held                      []string
	Lost                      map[string]uint64
	LostAt                    map[string]behavior.Span
	Mounts                    map[string]behavior.Mount
	Facts                     []Observation
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
	LostAt               map[string]behavior.Span
	Missing, Problems    []string
	Hooks                map[behavior.Kind][]string // as in behavior.Coverage
	Maps                 map[string]behavior.MapUse
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
	if err := seconds(m.GetFrom(), m.GetTo()); err != nil {
		return Container{}, err
	}
	if err := texts(maxName, c.Namespace, c.Pod, c.UID, c.Name, c.ID, c.Image); err != nil {
		return Container{}, err
	}
	c.Ready, c.Steady, c.Terminated, c.Restarts = m.GetReadySeen(), m.GetSteadySeen(), m.GetTerminationSeen(), count(m.GetRestarts())
	if c.Held = m.GetHeld(); len(c.Held) > maxCapabilities {
		return Container{}, refuse("container with %d capabilities", len(c.Held))
	}
	if err := texts(maxName, c.Held...); err != nil {
		return Container{}, err
	}
	if err := losses(c.Lost); err != nil {
		return Container{}, err
	}
	var err error
	if c.LostAt, err = decodeSpans(m.GetLostAt()); err != nil {
		return Container{}, err
	}
	if c.Mounts, err = decodeMounts(m.GetMounts()); err != nil {
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

// EncodeContainer turns a container and its facts into a message.
func EncodeContainer(c Container) *wirepb.Container {
	m := &wirepb.Container{
		Namespace: c.Namespace, Pod: c.Pod, PodUid: c.UID, Name: c.Name, Id: c.ID, Image: c.Image,
		From: toUnix(c.From), To: toUnix(c.To), StartSeen: c.Start, Lost: c.Lost,
		ReadySeen: c.Ready, SteadySeen: c.Steady, TerminationSeen: c.Terminated, Restarts: uint32(c.Restarts), Held: c.Held,
		LostAt: encodeSpans(c.LostAt), Mounts: encodeMounts(c.Mounts),
	}
	for _, o := range c.Facts {
		m.Facts = append(m.Facts, EncodeFact(o))
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
