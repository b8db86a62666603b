package rollout

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// RecordFile holds what the tree's kustomizations cannot say: since when and by
// whom a stage holds, and on what evidence.
const RecordFile = "rollout.yaml"

const (
	evidenceName  = "evidence.yaml"
	recordVersion = "autopolicy.dev/v1alpha1"
	recordKind    = "Rollout"
	recordHeader  = "# Stages, since when, by whom and on what evidence; not applied to the cluster. Written by kubectl autopolicy.\n"
)

// record is rollout.yaml.
type record struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Namespace  string   `json:"namespace"`
	Engines    []string `json:"engines"`
	Gate       gate     `json:"gate"`
	// Schedule says when workloads shall come to deny, for promote --scheduled.
	Schedule  []step  `json:"schedule,omitempty"`
	Workloads []state `json:"workloads"` // in order of Slug

	decisions []Decision // of decisions.yaml
}

// state is what rollout.yaml says about one workload.
type state struct {
	Slug     string       `json:"workload"`
	Kind     string       `json:"kind"`
	Name     string       `json:"name"`
	Stage    policy.Stage `json:"stage"`
	Since    time.Time    `json:"since"`
	By       string       `json:"by"`
	Wave     int          `json:"wave,omitempty"`   // people's; 1 when not set
	Evidence string       `json:"evidence"`         // behavior.Digest of evidence.yaml
	Reason   string       `json:"reason,omitempty"` // why the gate was overridden
	// PodSecurity is the Pod Security level that its pods could take; empty where
	// that is not known.
	PodSecurity string `json:"podSecurity,omitempty"`
	// Decisions names what was decided about the workload when its rules were made.
	Decisions string `json:"decisions,omitempty"`
	// Undecided says what is set aside of the evidence and waits for a person.
	Undecided []string `json:"undecided,omitempty"`
	// Files are the digests of the files that were generated, by path in the
	// workload's folder, or in the tree for those of the Component. A file with another digest was edited by a person.
	Files map[string]string `json:"files"`
}

func (s state) workload(namespace string) behavior.Workload {
	return behavior.Workload{Namespace: namespace, Kind: s.Kind, Name: s.Name}
}

// StageMismatchError is a workload of which kustomization.yaml, which is what
// the cluster gets, and rollout.yaml say different stages: somebody edited one
// of them, and what was decided is not known.
type StageMismatchError struct {
	Workload               string // slug
	Kustomization, Rollout policy.Stage
}

// Error implements error.
func (e *StageMismatchError) Error() string {
	return fmt.Sprintf("workload %s: %s applies stage %s, %s says %s", e.Workload, overlay.Kustomization, e.Kustomization, RecordFile, e.Rollout)
}

// Hint says what a person can do about it.
func (e *StageMismatchError) Hint() string {
	return "set both to the stage that was meant, or revert the edit"
}

// read gives the record of a tree and the stages that it applies, which agree.
// An empty tree has an empty record.
func read(t overlay.Tree, namespace string) (record, map[string]policy.Stage, error) {
	rec := record{APIVersion: recordVersion, Kind: recordKind, Namespace: namespace, Gate: gate{Coverage: coverageComplete}}
	stages, err := overlay.Stages(t)
	if err != nil {
		return rec, nil, fmt.Errorf("read stages: %w", err)
	}
	if data, ok := t[RecordFile]; ok {
		if rec, err = decodeRecord(data); err != nil {
			return rec, nil, err
		}
		if rec.Namespace != namespace {
			return rec, nil, &overlay.InvalidError{File: RecordFile, Reason: fmt.Sprintf("is about namespace %q, want %q", rec.Namespace, namespace)}
		}
	}
	if data, ok := t[DecisionsFile]; ok {
		if rec.decisions, err = DecodeDecisions(DecisionsFile, data, namespace, false); err != nil {
			return rec, nil, err
		}
	}
	known := map[string]policy.Stage{}
	for _, s := range rec.Workloads {
		known[s.Slug] = s.Stage
		if applied := cmp.Or(stages[s.Slug], policy.Observe); applied != s.Stage {
			return rec, nil, &StageMismatchError{s.Slug, applied, s.Stage}
		}
	}
	for slug, stage := range stages {
		if known[slug] == "" {
			return rec, nil, &StageMismatchError{slug, stage, policy.Observe}
		}
	}
	return rec, stages, nil
}

func decodeRecord(data []byte) (record, error) {
	invalid := func(format string, args ...any) (record, error) {
		return record{}, &overlay.InvalidError{File: RecordFile, Reason: fmt.Sprintf(format, args...)}
	}
	var r record
	if err := yaml.UnmarshalStrict(data, &r); err != nil {
		return record{}, overlay.Mistake(RecordFile, data, err)
	}
	if r.APIVersion != recordVersion || r.Kind != recordKind {
		return invalid("is %q %q, want %s %s", r.APIVersion, r.Kind, recordVersion, recordKind)
	}
	if r.Gate.Coverage == "" {
		r.Gate.Coverage = coverageComplete
	}
	if err := r.Gate.validate(); err != nil {
		return invalid("%s", err)
	}
	for _, s := range r.Schedule {
		if err := s.validate(); err != nil {
			return invalid("%s", err)
		}
	}
	seen := map[string]bool{}
	for _, s := range r.Workloads {
		if err := overlay.CheckSlug(s.Slug); err != nil {
			return invalid("%s", err)
		}
		if seen[s.Slug] || s.workload("").Slug() != s.Slug {
			return invalid("workload %s is there twice, or its kind and name are others", s.Slug)
		}
		seen[s.Slug] = true
		if _, err := policy.ParseStage(string(s.Stage)); err != nil {
			return invalid("workload %s: %s", s.Slug, err)
		}
	}
	return r, nil
}

func (r record) encode() ([]byte, error) {
	slices.SortFunc(r.Workloads, func(a, b state) int { return strings.Compare(a.Slug, b.Slug) })
	data, err := yaml.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", RecordFile, err)
	}
	return append([]byte(recordHeader), data...), nil
}

// clone shares nothing that is written to.
func (r record) clone() record {
	r.Workloads = slices.Clone(r.Workloads)
	return r
}

// find gives the state of a workload, or nil.
func (r record) find(slug string) *state {
	for i := range r.Workloads {
		if r.Workloads[i].Slug == slug {
			return &r.Workloads[i]
		}
	}
	return nil
}

// digest names the evidence of all workloads together.
func (r record) digest() string {
	var lines []string
	for _, s := range r.Workloads {
		lines = append(lines, s.Slug+" "+s.Evidence+"\n")
	}
	slices.Sort(lines)
	return digest([]byte(strings.Join(lines, "")))
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func evidencePath(slug string) string { return path.Join(overlay.Folder(slug), evidenceName) }

// evidence reads the profiles that a workload's policies were learned from, by
// one of the decoders of package behavior; none when nothing was learned yet.
func evidence(t overlay.Tree, w behavior.Workload, decode func([]byte) ([]behavior.Profile, error)) (behavior.Profiles, error) {
	p := evidencePath(w.Slug())
	data, ok := t[p]
	if !ok {
		return behavior.Profiles{}, nil
	}
	list, err := decode(data)
	if err != nil {
		return nil, &overlay.InvalidError{File: p, Reason: err.Error()}
	}
	profiles := behavior.Profiles{}
	for _, profile := range list {
		if profile.Subject.Workload != w {
			return nil, &overlay.InvalidError{File: p, Reason: fmt.Sprintf("is about %s in namespace %s, want %s in %s",
				profile.Subject.Workload, profile.Subject.Workload.Namespace, w, w.Namespace)}
		}
		profiles.Add(profile)
	}
	return profiles, nil
}

// sorted gives profiles in the order of their subjects.
func sorted(ps behavior.Profiles) []behavior.Profile {
	list := make([]behavior.Profile, 0, len(ps))
	for _, s := range ps.Subjects() {
		list = append(list, ps[s])
	}
	return list
}
