package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/harden"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type hardenOptions struct {
	*app
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	folders    []string
	only       []string
	remove     bool
	list       bool
}

func (a *app) harden() *cobra.Command {
	o := &hardenOptions{app: a}
	c := &cobra.Command{
		Use:   "harden [KIND/NAME...]",
		Short: "Hold workloads to hardening templates that fit what they do",
		Long: `Hold workloads to templates: policies that block or report what no such workload
should do, with what MITRE ATT&CK, NIST 800-53, CIS or STIG say about it.

 A template that would deny something that was ever observed of a container is
shown as a conflict and not applied. In stage audit the policies report only; in
deny they block. A template that is about certain files is for containers that
were seen using them.

 --templates adds a folder, or a git repository, in the layout of
kubearmor/policy-templates. It needs the repository only, no cluster.

 Exit codes: 0 done or nothing to change, 2 an error.`,
		Example: `  # What each template would be for the workloads of namespace shop
  kubectl autopolicy harden -n shop --dry-run

  # Hold deployment web to two of them
  kubectl autopolicy harden -n shop deploy/web --only package-managers,kernel-modules

  # Use templates of a repository as well; the folder follows a double slash
  kubectl autopolicy harden -n shop --templates https://git.example.com/templates.git//system

  # List the built-in templates
  kubectl autopolicy harden --list

  # Take the policies that were made of templates away
  kubectl autopolicy harden -n shop --remove`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args) },
	}
	c.ValidArgsFunction = a.completeWorkloads(&o.repository)
	o.repository.add(c.Flags())
	o.decision.add(c)
	o.output.add(c, "wide", "json", "yaml")
	flags := c.Flags()
	flags.StringSliceVar(&o.folders, "templates", nil, "folder or git repository with templates beside the built-in ones; may be given more than once")
	flags.StringSliceVar(&o.only, "only", nil, "names of the templates to apply (default all that fit)")
	flags.BoolVar(&o.remove, "remove", false, "take the policies that were made of templates away")
	flags.BoolVar(&o.list, "list", false, "list the templates and do nothing")
	return c
}

func (o *hardenOptions) run(ctx context.Context, args []string) error {
	if o.remove && (len(o.only) > 0 || len(o.folders) > 0 || o.list) {
		return hinted(errors.New("--remove takes all policies of templates away"), "leave --only, --templates and --list out")
	}
	s, err := o.setup(nil, &o.decision, &o.output)
	if err != nil {
		return err
	}
	var slugs []string
	for _, arg := range args {
		w, err := parseWorkload(s.namespace, arg)
		if err != nil {
			return err
		}
		slugs = append(slugs, w.Slug())
	}
	templates, skipped, err := o.templates(ctx, o.folders)
	if err != nil {
		return err
	}
	if o.list {
		return o.printTemplates(templates, skipped)
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	delivery := s.review(&o.repository, "harden")
	f, err := o.openFor(ctx, o.repository, s.namespace, !o.decision.dryRun, delivery)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	var all []rollout.Hardening
	decide := func(t overlay.Tree) (plan rollout.Plan, err error) {
		plan, all, err = rollout.Harden(s.input(t, nil, f), rollout.HardenOptions{Templates: templates, Workloads: slugs, Only: o.only, Remove: o.remove})
		return plan, err
	}
	plan, err := decide(f.tree)
	if err != nil {
		return f.blame(err)
	}
	if !o.output.data() {
		if err := o.print(all, skipped); err != nil {
			return err
		}
		return o.conclude(ctx, s, f, plan, decide, &o.output)
	}
	result := hardenReport{Namespace: s.namespace, Workloads: []hardenedReport{}, Skipped: skippedReports(skipped), Diff: plan.Diff(f.tree, nil)}
	for _, h := range all {
		result.Workloads = append(result.Workloads, hardenedOf(h))
	}
	if !plan.Empty() && !s.dryRun {
		revision, err := f.commit(ctx, o.app, plan, decide)
		if err != nil {
			return err
		}
		result.Revision = string(revision)
	}
	return o.output.write(o.Out, result)
}

// hardenReport is what harden did in the form that programs read.
type hardenReport struct {
	Namespace string           `json:"namespace"`
	Revision  string           `json:"revision,omitempty"`
	Workloads []hardenedReport `json:"workloads"`
	Skipped   []skippedReport  `json:"skipped,omitempty"`
	Diff      string           `json:"diff,omitempty"`
}

type hardenedReport struct {
	Workload  string           `json:"workload"`
	Stage     policy.Stage     `json:"stage"`
	Change    rollout.Change   `json:"change"`
	Templates []templateReport `json:"templates"`
}

type templateReport struct {
	Container  string             `json:"container,omitempty"`
	Template   string             `json:"template"`
	Summary    string             `json:"summary,omitempty"`
	Detail     string             `json:"detail,omitempty"`
	Source     string             `json:"source"`
	Actions    []string           `json:"actions"`
	Outcome    harden.Outcome     `json:"outcome,omitempty"`
	Why        string             `json:"why,omitempty"`
	Facts      []string           `json:"facts,omitempty"`
	References []harden.Reference `json:"references,omitempty"`
}

type skippedReport struct {
	Template string `json:"template"`
	Source   string `json:"source"`
	Reason   string `json:"reason"`
}

func skippedReports(skipped []harden.Skipped) []skippedReport {
	var list []skippedReport
	for _, s := range skipped {
		list = append(list, skippedReport{s.Name, s.Source, s.Reason})
	}
	return list
}

func templateOf(t harden.Template) templateReport {
	return templateReport{Template: t.Name, Summary: t.Summary, Detail: t.Detail, Source: t.Source, Actions: t.Actions(), References: t.References}
}

func hardenedOf(h rollout.Hardening) hardenedReport {
	r := hardenedReport{Workload: h.Workload.String(), Stage: h.Stage, Change: h.Change, Templates: []templateReport{}}
	for _, x := range h.Results {
		t := templateOf(x.Template)
		t.Container, t.Outcome, t.Why = x.Container, x.Outcome, x.Why
		for _, f := range x.Facts {
			t.Facts = append(t.Facts, f.String())
		}
		r.Templates = append(r.Templates, t)
	}
	return r
}

// print shows what became of the templates. Those that are not for a container
// are shown with -o wide only.
func (o *hardenOptions) print(all []rollout.Hardening, skipped []harden.Skipped) error {
	wide := o.output.format == "wide"
	headings := []string{"WORKLOAD", "CONTAINER", "TEMPLATE", "DOES", "OUTCOME", "WHY"}
	var rows [][]string
	for _, h := range all {
		for _, r := range h.Results {
			if r.Outcome == harden.NotFor && !wide {
				continue
			}
			why := r.Why
			if !wide {
				why = fitted(why)
			}
			rows = append(rows, []string{h.Workload.String(), r.Container, r.Template.Name, does(r.Template), string(r.Outcome), why})
		}
	}
	if len(rows) > 0 {
		if err := table(o.Out, headings, rows); err != nil {
			return err
		}
	}
	o.printSkipped(skipped)
	return nil
}

func (o *hardenOptions) printSkipped(skipped []harden.Skipped) {
	for _, s := range skipped {
		fmt.Fprintln(o.Out, printable(fmt.Sprintf("skipped: %s (%s): %s", s.Name, s.Source, s.Reason)))
	}
}

// does says what a template's policies do in deny.
func does(t harden.Template) string { return strings.ToLower(strings.Join(t.Actions(), ",")) }

func (o *hardenOptions) printTemplates(templates []harden.Template, skipped []harden.Skipped) error {
	if o.output.data() {
		list := []templateReport{}
		for _, t := range templates {
			list = append(list, templateOf(t))
		}
		return o.output.write(o.Out, list)
	}
	headings := []string{"TEMPLATE", "DOES", "WHAT", "SOURCE"}
	if o.output.format == "wide" {
		headings = append(headings, "REFERENCES")
	}
	var rows [][]string
	for _, t := range templates {
		row := []string{t.Name, does(t), fitted(t.Summary), t.Source}
		if o.output.format == "wide" {
			var refs []string
			for _, r := range t.References {
				refs = append(refs, r.Framework+" "+r.Entry)
			}
			row = append(row, strings.Join(slices.Compact(refs), "; "))
		}
		rows = append(rows, row)
	}
	if err := table(o.Out, headings, rows); err != nil {
		return err
	}
	o.printSkipped(skipped)
	return nil
}
