package wire

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// EncodeStatus is the inverse of DecodeStatus.
func EncodeStatus(s Status) *wirepb.StatusReply {
	m := &wirepb.StatusReply{
		Version: s.Version, Epoch: s.Epoch, Node: s.Node, Ready: s.Ready, Started: toUnix(s.Started), Deadline: toUnix(s.Deadline),
		Pods: uint32(s.Pods), Containers: uint32(s.Containers), Facts: s.Facts, NewFacts: s.NewFacts,
		Unattributed: s.Unattributed, Lost: s.Lost, LostAt: encodeSpans(s.LostAt), Missing: s.Missing, Problems: s.Problems,
	}
	for kind, families := range s.Hooks {
		if m.Hooks == nil {
			m.Hooks = map[string]string{}
		}
		m.Hooks[string(kind)] = strings.Join(families, ",")
	}
	for name, use := range s.Maps {
		if m.Maps == nil {
			m.Maps = map[string]*wirepb.MapUse{}
		}
		m.Maps[name] = &wirepb.MapUse{High: use.High, Size: use.Size}
	}
	return m
}

// DecodeStatus checks a status and turns it into Go types.
func DecodeStatus(m *wirepb.StatusReply) (Status, error) {
	s := Status{
		Version: m.GetVersion(), Epoch: m.GetEpoch(), Node: m.GetNode(), Ready: m.GetReady(),
		Started: fromUnix(m.GetStarted()), Deadline: fromUnix(m.GetDeadline()),
		Pods: count(m.GetPods()), Containers: count(m.GetContainers()), Facts: m.GetFacts(), NewFacts: m.GetNewFacts(),
		Unattributed: m.GetUnattributed(), Lost: m.GetLost(), Missing: m.GetMissing(), Problems: m.GetProblems(),
	}
	if len(s.Missing) > MaxReasons || len(s.Problems) > MaxReasons || len(m.GetHooks()) > MaxReasons || len(m.GetMaps()) > MaxReasons {
		return Status{}, refuse("status with %d missing features, %d problems, %d kinds and %d maps",
			len(s.Missing), len(s.Problems), len(m.GetHooks()), len(m.GetMaps()))
	}
	if err := seconds(m.GetStarted(), m.GetDeadline()); err != nil {
		return Status{}, err
	}
	if err := texts(maxName, s.Version, s.Epoch, s.Node); err != nil {
		return Status{}, err
	}
	if err := texts(MaxText, slices.Concat(s.Missing, s.Problems)...); err != nil {
		return Status{}, err
	}
	for name, joined := range m.GetHooks() {
		kind := behavior.Kind(name)
		if !slices.Contains(behavior.Kinds(), kind) {
			return Status{}, refuse("hooks of unknown kind %s", behavior.Escape(name))
		}
		if err := texts(maxName, joined); err != nil {
			return Status{}, err
		}
		if s.Hooks == nil {
			s.Hooks = map[behavior.Kind][]string{}
		}
		s.Hooks[kind] = strings.Split(joined, ",")
	}
	for name, use := range m.GetMaps() {
		if err := texts(maxName, name); err != nil {
			return Status{}, err
		}
		if s.Maps == nil {
			s.Maps = map[string]behavior.MapUse{}
		}
		s.Maps[name] = behavior.MapUse{High: use.GetHigh(), Size: use.GetSize()}
	}
	var err error
	if s.LostAt, err = decodeSpans(m.GetLostAt()); err != nil {
		return Status{}, err
	}
	return s, losses(s.Lost)
}

func encodeSpans(spans map[string]behavior.Span) map[string]*wirepb.Span {
	if len(spans) == 0 {
		return nil
	}
	m := make(map[string]*wirepb.Span, len(spans))
	for reason, s := range spans {
		m[reason] = &wirepb.Span{First: toUnix(s.First), Last: toUnix(s.Last)}
	}
	return m
}

func decodeSpans(m map[string]*wirepb.Span) (map[string]behavior.Span, error) {
	if len(m) > MaxReasons {
		return nil, refuse("%d reasons for losses", len(m))
	}
	var spans map[string]behavior.Span
	for reason, s := range m {
		if err := texts(maxName, reason); err != nil {
			return nil, err
		}
		if spans == nil {
			spans = make(map[string]behavior.Span, len(m))
		}
		var err error
		if spans[reason], err = span(s.GetFirst(), s.GetLast()); err != nil {
			return nil, err
		}
	}
	return spans, nil
}

func encodeMounts(mounts map[string]behavior.Mount) map[string]*wirepb.Mount {
	if len(mounts) == 0 {
		return nil
	}
	m := make(map[string]*wirepb.Mount, len(mounts))
	for path, x := range mounts {
		m[path] = &wirepb.Mount{Volume: x.Volume, Kind: x.Kind, ReadOnly: x.ReadOnly}
	}
	return m
}

func decodeMounts(m map[string]*wirepb.Mount) (map[string]behavior.Mount, error) {
	if len(m) > MaxMounts {
		return nil, refuse("%d mounts", len(m))
	}
	var mounts map[string]behavior.Mount
	for path, x := range m {
		if err := texts(MaxText, path, x.GetVolume(), x.GetKind()); err != nil {
			return nil, err
		}
		if mounts == nil {
			mounts = make(map[string]behavior.Mount, len(m))
		}
		mounts[path] = behavior.Mount{Volume: x.GetVolume(), Kind: x.GetKind(), ReadOnly: x.GetReadOnly()}
	}
	return mounts, nil
}
