package rollout

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// HandEditedError is a generated file that a person edited and that would have
// to change for the plan to be safe.
type HandEditedError struct{ File string }

// Error implements error.
func (e *HandEditedError) Error() string {
	return e.File + " was edited by hand and would have to change"
}

// Hint says what a person can do about it.
func (e *HandEditedError) Hint() string {
	return "move the edit to " + overlay.Custom + "/, or let discover overwrite it"
}

// candidate is the tree as a plan would leave it, while it is worked on.
type candidate struct {
	namespace string
	tree      overlay.Tree
	rec       record
	overwrite bool // of what people edited
	notes     []Note
}

func newCandidate(in Input, rec record, overwrite bool) *candidate {
	return &candidate{namespace: in.Namespace, tree: in.Tree.With(nil), rec: rec.clone(), overwrite: overwrite}
}

func (c *candidate) note(slug, format string, args ...any) {
	c.notes = append(c.notes, Note{Workload: slug, Note: policy.Note{Text: fmt.Sprintf(format, args...)}})
}

// where is the path in the tree of a file that was generated for a workload: in
// its folder, or its patches in the Component.
func where(slug, file string) string {
	if strings.HasPrefix(file, overlay.Component+"/"+slug+"/") {
		return path.Clean(file)
	}
	return path.Join(overlay.Folder(slug), file)
}

// edited tells whether a file of a workload, by its path in the workload's
// folder, is not what was generated: changed, removed or made by a person.
func (c *candidate) edited(s *state, file string) bool {
	data, exists := c.tree[where(s.Slug, file)]
	recorded, known := s.Files[file]
	return exists != known || exists && digest(data) != recorded
}

// place puts generated files into a workload's folder; those not among them
// that were generated before are removed if all is set. What people edited stays
// and is noted, unless they said that it shall be overwritten.
func (c *candidate) place(s *state, files map[string][]byte, all bool) {
	records := maps.Clone(s.Files)
	if records == nil {
		records = map[string]string{}
	}
	paths := slices.Collect(maps.Keys(files))
	if all {
		paths = append(paths, slices.Collect(maps.Keys(s.Files))...)
	}
	slices.Sort(paths)
	for _, file := range slices.Compact(paths) {
		full := where(s.Slug, file)
		now, wanted := files[file]
		was, exists := c.tree[full]
		same := wanted == exists && bytes.Equal(now, was)
		if !same && c.edited(s, file) {
			if !c.overwrite {
				c.note(s.Slug, "%s was edited by hand and is kept as it is", full)
				continue
			}
			c.note(s.Slug, "%s was edited by hand and is overwritten", full)
		}
		if wanted {
			c.tree[full], records[file] = now, digest(now)
		} else {
			delete(c.tree, full)
			delete(records, file)
		}
	}
	s.Files = records
}

// settle makes everything in the tree follow the stages of the record: the lines
// of kustomization.yaml, the namespace's posture, and which workloads in audit
// have to be spared from that posture.
func (c *candidate) settle() error {
	armored := map[string]bool{}
	posture, any := overlay.PostureAudit, false
	stages := map[string]policy.Stage{}
	files := c.tree.Index() // only stage folders are written to here
	for _, s := range c.rec.Workloads {
		has, err := overlay.HasKubeArmor(c.tree, files, s.Slug)
		if err != nil {
			return fmt.Errorf("read policies of %s: %w", s.Slug, err)
		}
		stages[s.Slug], armored[s.Slug] = s.Stage, has
		any = any || has && s.Stage != policy.Observe
		if has && s.Stage == policy.Deny {
			posture = overlay.PostureBlock
		}
	}
	for i := range c.rec.Workloads {
		if s := &c.rec.Workloads[i]; s.Stage == policy.Audit && armored[s.Slug] {
			if err := c.withhold(s, files, posture == overlay.PostureBlock); err != nil {
				return err
			}
		}
	}
	if _, exists := c.tree[overlay.NamespaceFile]; any || exists {
		data, err := overlay.Namespace(c.tree[overlay.NamespaceFile], c.namespace, posture)
		if err != nil {
			return fmt.Errorf("set posture: %w", err)
		}
		c.tree[overlay.NamespaceFile] = data
	}
	if err := c.component(stages); err != nil {
		return err
	}
	data, err := overlay.SetStages(c.tree, stages, any)
	if err != nil {
		return fmt.Errorf("set stages: %w", err)
	}
	c.tree[overlay.Kustomization] = data
	data, err = c.rec.encode()
	if err != nil {
		return err
	}
	c.tree[RecordFile] = data
	return nil
}

// component makes the Component for the workloads' own manifests follow the stages.
func (c *candidate) component(stages map[string]policy.Stage) error {
	state := overlay.ComponentState{Namespace: c.namespace, Stages: stages}
	var levels []podsecurity.Level
	for _, s := range c.rec.Workloads {
		if s.PodSecurity != "" {
			levels = append(levels, podsecurity.Level(s.PodSecurity))
		}
	}
	if len(levels) > 0 && len(levels) == len(c.rec.Workloads) { // of a pod that nobody knows, nothing can be said
		state.Level = string(podsecurity.Lowest(levels...))
	}
	files, err := overlay.RenderComponent(c.tree, state)
	if err != nil {
		return fmt.Errorf("write component: %w", err)
	}
	for _, name := range []string{overlay.Kustomization, "README.md"} {
		if p := path.Join(overlay.Component, name); files[p] != nil {
			c.tree[p] = files[p]
		} else {
			delete(c.tree, p)
		}
	}
	return nil
}

// withhold takes the KubeArmor policies of a workload in audit out of what is
// applied, or back in.
func (c *candidate) withhold(s *state, index overlay.Index, withheld bool) error {
	w := overlay.Workload{Slug: s.Slug, Withheld: withheld, Base: map[string][]byte{}}
	folder := overlay.BaseFolder(s.Slug)
	for _, p := range index.Below(folder) {
		if path.Ext(p) == ".yaml" && path.Base(p) != overlay.Kustomization {
			w.Base[strings.TrimPrefix(p, folder+"/")] = c.tree[p]
		}
	}
	files, err := overlay.Render(w)
	if err != nil {
		return fmt.Errorf("write stage audit of %s: %w", s.Slug, err)
	}
	full := path.Join(overlay.StageFolder(s.Slug, policy.Audit), overlay.Kustomization)
	file := strings.TrimPrefix(full, overlay.Folder(s.Slug)+"/")
	if withheld && !c.overwrite && c.edited(s, file) && !bytes.Equal(c.tree[full], files[full]) {
		return &HandEditedError{File: full}
	}
	c.place(s, map[string][]byte{file: files[full]}, false)
	return nil
}

// denying is the tree as if every workload had come to deny, which is what its
// policies are judged by before anyone decides to get there.
func (c *candidate) denying() (overlay.Tree, error) {
	all := candidate{namespace: c.namespace, tree: c.tree.With(nil), rec: c.rec.clone()}
	for i := range all.rec.Workloads {
		all.rec.Workloads[i].Stage = policy.Deny
	}
	if err := all.settle(); err != nil {
		return nil, err
	}
	return all.tree, nil
}

// judges builds a tree and asks every engine to read it.
func judges(t overlay.Tree, engines []engine.Engine) (map[string]engine.Judge, error) {
	objects, err := overlay.Build(t)
	if err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	all := make(map[string]engine.Judge, len(engines))
	for _, e := range engines {
		j, err := e.Parse(objects)
		if err != nil {
			return nil, fmt.Errorf("read policies as %s does: %w", e.Name(), err)
		}
		all[e.Name()] = j
	}
	return all, nil
}
