package overlay

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Stages reads the stage of every workload that kustomization.yaml lists: its
// lines are the truth about what is applied. A workload that it does not list is
// not in the map, and so not applied.
func Stages(t Tree) (map[string]policy.Stage, error) {
	stages := map[string]policy.Stage{}
	entries, err := listed(t)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.slug == "" {
			continue
		}
		if other, ok := stages[e.slug]; ok {
			return nil, &InvalidError{File: Kustomization, Line: e.node.Line,
				Reason: fmt.Sprintf("workload %s is listed twice, at %s and %s", e.slug, other, e.stage)}
		}
		stages[e.slug] = e.stage
	}
	return stages, nil
}

// entry is one line of the root kustomization's resources.
type entry struct {
	node  *yaml.Node
	slug  string // empty for what is not a workload's stage
	stage policy.Stage
}

// listed reads the resources of the root kustomization.
func listed(t Tree) ([]entry, error) {
	name, k, err := kustomizationOf(t, ".")
	if err != nil || name == "" {
		return nil, err
	}
	if name != Kustomization {
		return nil, &InvalidError{File: name, Reason: "rename it to " + Kustomization}
	}
	list := value(k, "resources")
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil, nil
	}
	entries := make([]entry, 0, len(list.Content))
	for _, n := range list.Content {
		e := entry{node: n}
		if rest, ok := strings.CutPrefix(path.Clean(n.Value), workloads+"/"); ok {
			slug, stage, _ := strings.Cut(rest, "/")
			e.slug, e.stage = slug, policy.Stage(stage)
			if err := CheckSlug(slug); err != nil {
				return nil, &InvalidError{File: Kustomization, Line: n.Line, Reason: err.Error()}
			}
			if e.stage != policy.Audit && e.stage != policy.Deny {
				return nil, &InvalidError{File: Kustomization, Line: n.Line,
					Reason: fmt.Sprintf("workload %s: want %s or %s", slug, StageFolder(slug, policy.Audit), StageFolder(slug, policy.Deny))}
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// SetStages gives the bytes of kustomization.yaml after the named workloads came
// to the named stages (policy.Observe takes the line away) and, if
// withNamespace, with namespace.yaml listed. Every other line keeps its bytes,
// and its place. Without a kustomization.yaml it writes a new one.
func SetStages(t Tree, want map[string]policy.Stage, withNamespace bool) ([]byte, error) {
	data, ok := t[Kustomization]
	if !ok {
		data = []byte(newKustomization)
	}
	data, err := changeStages(data, want)
	if err != nil {
		return nil, err
	}
	now, err := Stages(Tree{Kustomization: data})
	if err != nil {
		return nil, err
	}
	for _, slug := range slices.Sorted(maps.Keys(want)) {
		if err := CheckSlug(slug); err != nil {
			return nil, err
		}
		if now[slug] == want[slug] {
			continue
		}
		if data, err = setStage(data, slug, want[slug]); err != nil {
			return nil, err
		}
	}
	if withNamespace {
		if data, err = listNamespace(data); err != nil {
			return nil, err
		}
	}
	return data, verifyStages(data, t, want)
}

const newKustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"

// changeStages changes the lines of workloads that are listed already, all in
// one pass and from the end on, so that what is still to change keeps its place.
func changeStages(data []byte, want map[string]policy.Stage) ([]byte, error) {
	entries, err := listed(Tree{Kustomization: data})
	if err != nil {
		return nil, err
	}
	text := newText(Kustomization, data)
	for _, e := range slices.Backward(entries) {
		stage, ok := want[e.slug]
		if !ok || e.slug == "" || stage == e.stage || stage == policy.Observe {
			continue
		}
		if err := text.replace(e.node, StageFolder(e.slug, stage)); err != nil {
			return nil, err
		}
	}
	return text.bytes(), nil
}

// setStage adds or removes the line of one workload.
func setStage(data []byte, slug string, stage policy.Stage) ([]byte, error) {
	entries, err := listed(Tree{Kustomization: data})
	if err != nil {
		return nil, err
	}
	text := newText(Kustomization, data)
	line := StageFolder(slug, stage)
	var before *yaml.Node // the own entry that sorts last before the new one
	var after *yaml.Node  // the first own entry
	for _, e := range entries {
		switch {
		case e.slug == "":
		case e.slug != slug:
			if e.slug < slug {
				before = e.node
			} else if after == nil {
				after = e.node
			}
		case stage == policy.Observe:
			return text.removeEntry(e.node)
		default:
			return data, nil
		}
	}
	switch {
	case stage == policy.Observe:
		return data, nil
	case before != nil:
		return text.insertEntry(before, true, line)
	case after != nil:
		return text.insertEntry(after, false, line)
	case len(entries) > 0:
		return text.insertEntry(entries[len(entries)-1].node, true, line)
	}
	return text.firstEntry(line)
}

// listNamespace adds namespace.yaml to the resources, before the others.
func listNamespace(data []byte) ([]byte, error) {
	entries, err := listed(Tree{Kustomization: data})
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if path.Clean(e.node.Value) == NamespaceFile {
			return data, nil
		}
	}
	text := newText(Kustomization, data)
	if len(entries) == 0 {
		return text.firstEntry(NamespaceFile)
	}
	return text.insertEntry(entries[0].node, false, NamespaceFile)
}

// verifyStages reads the edited bytes back: an edit of text that did not have
// its effect must not be committed.
func verifyStages(data []byte, old Tree, want map[string]policy.Stage) error {
	got, err := Stages(Tree{Kustomization: data})
	if err != nil {
		return fmt.Errorf("edit %s: %w", Kustomization, err)
	}
	expected, err := Stages(old)
	if err != nil {
		return err
	}
	for slug, stage := range want {
		if expected[slug] = stage; stage == policy.Observe {
			delete(expected, slug)
		}
	}
	if !maps.Equal(got, expected) {
		return &InvalidError{File: Kustomization, Reason: "the layout of resources cannot be edited line by line: write one entry a line"}
	}
	return nil
}
