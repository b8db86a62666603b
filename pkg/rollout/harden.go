package rollout

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/harden"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// hardeningFile holds, in a workload's base, the policies that were made of
// templates. Learning leaves it as it is.
const hardeningFile = "hardening.yaml"

// HardenOptions say what Harden shall do.
type HardenOptions struct {
	Templates []harden.Template
	// Workloads by slug; none means all of the namespace.
	Workloads []string
	// Only names the templates to apply; none means all that fit.
	Only []string
	// Remove takes the policies of templates away instead.
	Remove bool
}

// Hardening is what became of every template for one workload.
type Hardening struct {
	Workload behavior.Workload
	Stage    policy.Stage
	Change   Change
	Results  []harden.Result // of all containers, in order of container and severity
}

// Harden plans that workloads are held to templates, as far as those are for them
// and would deny nothing that was ever observed of them. In stage audit the
// policies report only; a stage of deny makes them block.
func Harden(in Input, opts HardenOptions) (Plan, []Hardening, error) {
	plan := Plan{Namespace: in.Namespace}
	if err := in.check(); err != nil {
		return plan, nil, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return plan, nil, err
	}
	states, err := chosen(rec, opts.Workloads)
	if err != nil {
		return plan, nil, err
	}
	templates, err := only(opts.Templates, opts.Only)
	if err != nil {
		return plan, nil, err
	}
	c := newCandidate(in, rec, false)
	learned, err := c.armor()
	if err != nil {
		return plan, nil, err
	}
	var all []Hardening
	for _, s := range states {
		h, err := c.harden(in, s, templates, learned, opts.Remove)
		if err != nil {
			return plan, nil, fmt.Errorf("harden %s: %w", s.workload(in.Namespace), err)
		}
		all = append(all, h)
	}
	if err := c.settle(); err != nil {
		return plan, nil, err
	}
	plan.Files = changed(in.Tree, c.tree)
	plan.Notes = tidy(c.notes)
	if plan.Empty() {
		plan.Reasons = []string{"the templates change nothing"}
		return plan, all, nil
	}
	if err := overlay.Check(c.tree); err != nil {
		return plan, nil, fmt.Errorf("check overlay: %w", err)
	}
	if _, err := judges(c.tree, in.Engines); err != nil {
		return plan, nil, err
	}
	plan.Message = hardenMessage(plan, all, c.rec, opts.Remove)
	return plan, all, nil
}

// chosen are the states of the workloads that were named, or all.
func chosen(rec record, slugs []string) ([]state, error) {
	if len(slugs) == 0 {
		return rec.Workloads, nil
	}
	var known []string
	for _, s := range rec.Workloads {
		known = append(known, s.Slug)
	}
	var states []state
	for _, slug := range slices.Compact(slices.Sorted(slices.Values(slugs))) {
		s := rec.find(slug)
		if s == nil {
			return nil, &UnknownWorkloadError{slug, known}
		}
		states = append(states, *s)
	}
	return states, nil
}

func only(templates []harden.Template, names []string) ([]harden.Template, error) {
	if len(names) == 0 {
		return templates, nil
	}
	var list []harden.Template
	for _, name := range names {
		i := slices.IndexFunc(templates, func(t harden.Template) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no template %q", name)
		}
		list = append(list, templates[i])
	}
	return list, nil
}

// harden puts the policies of templates into one workload's base.
func (c *candidate) harden(in Input, s state, templates []harden.Template, learned engine.Judge, remove bool) (Hardening, error) {
	h := Hardening{Workload: s.workload(in.Namespace), Stage: s.Stage, Change: Unchanged}
	var docs [][]byte
	if !remove {
		var err error
		if h.Results, err = c.match(in, s, templates, learned); err != nil {
			return h, err
		}
		for _, r := range h.Results {
			docs = append(docs, r.Policies...)
		}
	}
	w := overlay.Workload{Slug: s.Slug, Base: map[string][]byte{}}
	folder := overlay.BaseFolder(s.Slug)
	for _, p := range c.tree.Index().Below(folder) {
		name := strings.TrimPrefix(p, folder+"/")
		if path.Ext(name) == ".yaml" && !strings.Contains(name, "/") && name != overlay.Kustomization && name != hardeningFile {
			w.Base[name] = c.tree[p]
		}
	}
	files := map[string][]byte{}
	hardening := path.Join("base", hardeningFile)
	if len(docs) > 0 {
		w.Base[hardeningFile] = slices.Concat([]byte("# Made of hardening templates by 'kubectl autopolicy harden'. In stage audit they report only.\n"), bytes.Join(docs, []byte("---\n")))
		files[hardening] = w.Base[hardeningFile]
	}
	full := path.Join(overlay.Folder(s.Slug), hardening)
	before, exists := c.tree[full]
	switch {
	case bytes.Equal(before, files[hardening]):
		return h, nil
	case exists && c.edited(&s, hardening):
		c.note(s.Slug, "%s was edited by hand and is kept as it is", full)
		return h, nil
	}
	h.Change = Updated
	kustomizations, err := overlay.Render(w)
	if err != nil {
		return h, fmt.Errorf("write kustomizations: %w", err)
	}
	for p, data := range kustomizations {
		files[strings.TrimPrefix(p, overlay.Folder(s.Slug)+"/")] = data
	}
	st := c.rec.find(s.Slug)
	c.place(st, files, false)
	if len(docs) == 0 {
		delete(c.tree, full)
		delete(st.Files, hardening)
	}
	return h, nil
}

// armor gives the namespace's KubeArmor policies as they are in deny, without
// those that were made of templates.
func (c *candidate) armor() (engine.Judge, error) {
	t, err := c.denying()
	if err != nil {
		return nil, err
	}
	objects, err := overlay.Build(t)
	if err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	return kubearmor.Engine{}.Parse(slices.DeleteFunc(objects, kubearmor.OfTemplate))
}

// match holds the workload's containers against the templates, by all that was
// ever committed of what they did.
func (c *candidate) match(in Input, s state, templates []harden.Template, learned engine.Judge) ([]harden.Result, error) {
	w := s.workload(in.Namespace)
	profiles, err := evidence(in.Tree, w, behavior.DecodeFile)
	if err != nil {
		return nil, err
	}
	var all []harden.Result
	for _, p := range sorted(profiles) {
		facts := slices.SortedFunc(p.Facts.Keys(), behavior.Compare)
		if !slices.ContainsFunc(facts, judgeable) {
			continue // no evidence is no reason to say that nothing conflicts
		}
		labels, err := behavior.ParseLabels(p.Labels)
		if err != nil {
			return nil, err
		}
		if len(labels) == 0 {
			c.note(s.Slug, "container %s is not hardened: its pods carry no label by which a policy could select them", p.Subject.Container)
			continue
		}
		subject := engine.Subject{Subject: p.Subject, Labels: labels}
		room, err := kubearmor.NewRoom(learned, subject)
		if err != nil {
			return nil, err
		}
		results, err := harden.Match(harden.Subject{Subject: subject, Facts: facts, Room: room}, templates)
		if err != nil {
			return nil, err
		}
		all = append(all, results...)
	}
	return all, nil
}

func hardenMessage(p Plan, all []Hardening, rec record, remove bool) string {
	var slugs, body []string
	stage := policy.Audit
	for _, h := range all {
		if h.Change == Unchanged {
			continue
		}
		slugs = append(slugs, h.Workload.String())
		if h.Stage == policy.Deny {
			stage = policy.Deny
		}
		if remove {
			continue
		}
		counts := map[harden.Outcome]int{}
		var conflicts []string
		for _, r := range h.Results {
			counts[r.Outcome]++
			if r.Outcome == harden.Conflicts || r.Outcome == harden.Unsure {
				conflicts = append(conflicts, r.Template.Name)
			}
		}
		line := fmt.Sprintf("%s: %s", h.Workload, count(counts[harden.Applies], "template"))
		if len(conflicts) > 0 {
			line += "; left out because of what was observed: " + strings.Join(slices.Compact(slices.Sorted(slices.Values(conflicts))), ", ")
		}
		body = append(body, line)
	}
	verb := "Harden "
	if remove {
		verb = "Take the hardening away from "
	}
	return message(verb+p.Namespace+": "+several(slugs), body, stage, p.Namespace, rec.digest())
}
