// Package file reads what others wrote down: flows of Hubble's, logs of KubeArmor's,
// profiles of ours, and the objects of the cluster that they are about. It needs no
// cluster.
//
// It tells the kinds apart by themselves, reads flows and logs one by one, and must
// never pass over a line that it does not understand.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/hubble"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Errors of a file. They are wrapped by a LineError.
var (
	ErrUnknown  = errors.New("neither flow, log, profile nor object")
	ErrTooLarge = errors.New("larger than any flow, log or list of objects")
	ErrCutOff   = errors.New("the file ends in the middle")
	ErrEmpty    = errors.New("the file is empty")
	// ErrNoObjects is for flows of pods of which no file tells the containers.
	ErrNoObjects = errors.New("no file has the pods that the flows are about")
)

// LineError is what is wrong with a file, and where it begins.
type LineError struct {
	File string
	Line int
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Err) }

// Unwrap gives what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// Options say what to read.
type Options struct {
	Namespace string
	Files     []string // "-" is Stdin
	Stdin     io.Reader
	Now       func() time.Time
}

// Source reads files. Its one method may be called once.
type Source struct {
	options  Options
	topology *topology.Cluster
	hubble   *hubble.Book
	armor    *kubearmor.Book
	profiles behavior.Profiles
}

var _ source.Source = (*Source)(nil)

// New makes a Source and reads nothing.
func New(o Options) *Source {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{options: o, topology: topology.New(), hubble: hubble.NewBook(o.Namespace), armor: kubearmor.NewBook(o.Namespace), profiles: behavior.Profiles{}}
}

// Pull reads all files. The order of the files does not matter.
func (s *Source) Pull(ctx context.Context) (source.Result, error) {
	for _, name := range s.options.Files {
		if err := s.open(ctx, name); err != nil {
			return source.Result{}, err
		}
	}
	result := source.Result{Profiles: s.profiles, Topology: s.topology, Passed: map[string]uint64{}}
	for _, part := range []struct {
		n    uint64
		read func(*topology.Cluster) source.Result
	}{{s.armor.Events(), s.armor.Result}, {s.hubble.Flows(), s.hubble.Result}} {
		if part.n == 0 {
			continue
		}
		r := part.read(s.topology)
		result.Profiles = behavior.MergeProfiles(result.Profiles, r.Profiles)
		result.Nodes, result.Denials = append(result.Nodes, r.Nodes...), append(result.Denials, r.Denials...)
		result.Unattributed += r.Unattributed
		for reason, n := range r.Passed {
			result.Passed[reason] += n
		}
	}
	if len(result.Profiles) == 0 && result.Unattributed > 0 {
		return result, ErrNoObjects
	}
	return result, nil
}

func (s *Source) open(ctx context.Context, name string) error {
	if name == "-" && s.options.Stdin != nil {
		return s.read(ctx, "standard input", s.options.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read observations: %w", err)
	}
	defer f.Close()
	return s.read(ctx, name, f)
}
