package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type reviewOptions struct {
	*app
	observer   observeFlags
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	fresh      bool
	accept     []string
	decline    []string
	postpone   []string
	file       string
	reason     string
	noInput    bool
}

func (a *app) reviewCommand() *cobra.Command {
	o := &reviewOptions{app: a}
	c := &cobra.Command{
		Use:   "review [KIND/NAME...]",
		Short: "Decide about behaviour that is suspicious or new",
		Long: `Show behaviour that no policy allows yet, and decide about it: what was set
aside as suspicious, and with --observe or --from also what a fresh observation
shows that is new. At a terminal it asks about each; elsewhere it lists them.

 Accepted behaviour is learned, in stage deny too. Declined behaviour stays out,
also when it is seen again, and is then no reason to wait with a promotion.
Postponed behaviour stays out and keeps waiting. Who decided what, when and why is
committed to decisions.yaml in the namespace's folder.

 FILTER is 'all', an ID, or KEY=PATTERN pairs joined by commas, all of which have to
fit. Keys are id, workload, container, class, kind, exe, path, peer and name; a
pattern may hold * and ?. Each filter may be given more than once.

 Exit codes: 0 nothing waits any more, 1 something is undecided or postponed, 2 an
error, 130 interrupted.`,
		Example: `  # What is set aside in namespace shop; asks about each at a terminal
  kubectl autopolicy review -n shop

  # What five minutes show that is new
  kubectl autopolicy review -n shop --observe --duration 5m

  # Decline every shell that a server ran, and say why
  kubectl autopolicy review -n shop --decline class=shell --reason 'nobody has to'

  # Accept what deployment web reads below /srv
  kubectl autopolicy review -n shop --accept 'workload=deploy/web,kind=file,path=/srv/*' --reason 'new catalogue'

  # Decide in an editor
  kubectl autopolicy review -n shop -o yaml > decisions.yaml
  kubectl autopolicy review -n shop --decisions decisions.yaml`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args) },
	}
	c.ValidArgsFunction = a.completeWorkloads(&o.repository)
	flags := c.Flags()
	o.observer.add(flags)
	o.repository.add(flags)
	o.decision.add(c)
	o.output.add(c, "wide", "json", "yaml")
	flags.BoolVar(&o.fresh, "observe", false, "observe the namespace first, and show what is new")
	flags.StringArrayVar(&o.accept, "accept", nil, "accept what the filter fits")
	flags.StringArrayVar(&o.decline, "decline", nil, "decline what the filter fits")
	flags.StringArrayVar(&o.postpone, "postpone", nil, "postpone what the filter fits")
	flags.StringVar(&o.file, "decisions", "", "file of decisions, as -o yaml writes it, or - for standard input")
	flags.StringVar(&o.reason, "reason", "", "why; it is committed")
	flags.BoolVar(&o.noInput, "no-input", false, "never ask: only list")
	return c
}

func (o *reviewOptions) run(ctx context.Context, args []string) error {
	s, err := o.setup(&o.observer, &o.decision, &o.output)
	if err != nil {
		return err
	}
	var filters []filter
	for _, x := range []struct {
		texts    []string
		decision policy.Decision
	}{{o.accept, policy.Accepted}, {o.decline, policy.Declined}, {o.postpone, policy.Postponed}} {
		for _, text := range x.texts {
			f, err := parseFilter(s.namespace, text)
			if err != nil {
				return fmt.Errorf("--%s: %w", map[policy.Decision]string{policy.Accepted: "accept", policy.Declined: "decline", policy.Postponed: "postpone"}[x.decision], err)
			}
			f.decision = x.decision
			filters = append(filters, f)
		}
	}
	slugs := map[string]bool{}
	for _, arg := range args {
		w, err := parseWorkload(s.namespace, arg)
		if err != nil {
			return err
		}
		slugs[w.Slug()] = true
	}
	filed, err := o.filed(s.namespace)
	if err != nil {
		return err
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	asks := len(filters)+len(filed) == 0 && !o.noInput && !o.output.data() && readsTerminal(o.In)
	delivery := s.review(&o.repository, "review")
	f, err := o.openFor(ctx, o.repository, s.namespace, !o.decision.dryRun && (asks || len(filters)+len(filed) > 0), delivery)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	if err := f.usable(s); err != nil {
		return err
	}
	profiles, err := o.look(ctx, s)
	if err != nil {
		return err
	}
	list, notes, err := o.open(s, f, f.tree, profiles, slugs)
	if err != nil {
		return f.blame(err)
	}
	decisions := slices.Clone(filed)
	for i := range decisions {
		if decisions[i].Reason == "" {
			decisions[i].Reason = o.reason
		}
	}
	for _, x := range filters {
		found := x.decide(list, o.reason)
		if len(found) == 0 {
			return hinted(fmt.Errorf("nothing that could be decided about fits %q", x.text), "leave the filter out to see what there is; --observe looks for more")
		}
		decisions = append(decisions, found...)
	}
	for _, n := range notes {
		s.progress.say("%s", noteText(n))
	}
	if asks {
		if decisions, err = o.prompt(ctx, o.In, list); err != nil {
			return err
		}
	}
	if len(decisions) == 0 {
		return o.list(s, list, asks)
	}
	decide := func(t overlay.Tree) (rollout.Plan, error) {
		return rollout.Review(s.input(t, profiles, f), decisions)
	}
	plan, err := decide(f.tree)
	if err != nil {
		return f.blame(err)
	}
	if o.output.format == "yaml" {
		return errors.New("-o yaml writes proposals, and decisions were given: leave it out")
	}
	left, _, err := o.open(s, f, f.tree.With(plan.Files), profiles, slugs)
	if err != nil {
		return f.blame(err)
	}
	if err := o.conclude(ctx, s, f, plan, decide, &o.output); err != nil {
		return err
	}
	return o.waits(s, left)
}

// look observes, or reads what others did, where that was asked for.
func (o *reviewOptions) look(ctx context.Context, s *setup) (behavior.Profiles, error) {
	if !o.fresh && len(o.observer.source.from) == 0 {
		return nil, nil
	}
	return o.observe(ctx, s)
}

// open lists what can be decided about in a tree, of some workloads or all.
func (o *reviewOptions) open(s *setup, f *folder, t overlay.Tree, profiles behavior.Profiles, slugs map[string]bool) ([]rollout.Proposal, []rollout.Note, error) {
	list, notes, err := rollout.Proposals(s.input(t, profiles, f))
	if len(slugs) > 0 {
		list = slices.DeleteFunc(list, func(p rollout.Proposal) bool { return !slugs[p.Workload.Slug()] })
	}
	return list, notes, err
}

// filed reads decisions from a file; those that say undecided are passed over.
func (o *reviewOptions) filed(namespace string) ([]rollout.Decision, error) {
	if o.file == "" {
		return nil, nil
	}
	// More than a person decides about, and less than fills a memory.
	const most = 16 << 20
	in := o.In
	if o.file != "-" {
		file, err := os.Open(o.file)
		if err != nil {
			return nil, fmt.Errorf("--decisions: %w", err)
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil || len(data) > most {
		return nil, fmt.Errorf("--decisions: read %s: %w", o.file, errors.Join(err, errTooLong(len(data) > most)))
	}
	list, err := rollout.DecodeDecisions(o.file, data, namespace, true)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(d rollout.Decision) bool { return d.Decision == rollout.Undecided || d.Decision == "" })
	if len(list) == 0 {
		return nil, hinted(fmt.Errorf("--decisions: %s decides nothing", o.file), "write accepted, declined or postponed in place of undecided")
	}
	return list, nil
}

func errTooLong(too bool) error {
	if too {
		return errors.New("it is longer than any list of decisions")
	}
	return nil
}

// list shows what there is, and ends with exit code 1 if something waits.
func (o *reviewOptions) list(s *setup, list []rollout.Proposal, shown bool) error {
	switch {
	case o.output.format == "yaml":
		var all []rollout.Decision
		for _, p := range list {
			if waits(p) {
				all = append(all, p.Decide(rollout.Undecided))
			}
		}
		data, err := rollout.EncodeDecisions(s.namespace, all)
		if err == nil {
			_, err = o.Out.Write(data)
		}
		if err != nil {
			return err
		}
	case o.output.format == "json":
		all := []proposalReport{}
		for _, p := range list {
			all = append(all, proposalOf(p))
		}
		if err := o.output.write(o.Out, map[string]any{"namespace": s.namespace, "proposals": all}); err != nil {
			return err
		}
	case !shown:
		for _, p := range list {
			if waits(p) || o.output.format == "wide" {
				o.showProposal(p, o.output.format == "wide")
			}
		}
	}
	return o.waits(s, list)
}

func waits(p rollout.Proposal) bool { return p.Decision != policy.Declined }

// waits says how much is left, in the exit code too.
func (o *reviewOptions) waits(s *setup, list []rollout.Proposal) error {
	counts := map[policy.Decision]int{}
	for _, p := range list {
		counts[said(p.Decision)]++
	}
	if counts[rollout.Undecided]+counts[policy.Postponed] == 0 {
		s.progress.say("nothing waits for a decision")
		return nil
	}
	s.progress.say("%d undecided, %d postponed", counts[rollout.Undecided], counts[policy.Postponed])
	return &silentError{ExitNotYet}
}

// proposalReport is a proposal in the form that programs read.
type proposalReport struct {
	ID        string          `json:"id"`
	Workload  string          `json:"workload"`
	Stage     policy.Stage    `json:"stage"`
	Container string          `json:"container"`
	Class     string          `json:"class"`
	Why       string          `json:"why,omitempty"`
	Decision  policy.Decision `json:"decision"`
	Allows    []string        `json:"allows"`
	Count     uint64          `json:"count"`
	Pods      []string        `json:"pods"`
	First     time.Time       `json:"first"`
	Last      time.Time       `json:"last"`
	Facts     []factReport    `json:"facts"`
	With      []string        `json:"with,omitempty"`
}

func proposalOf(p rollout.Proposal) proposalReport {
	e := p.Evidence()
	r := proposalReport{ID: p.ID(), Workload: p.Workload.String(), Stage: p.Stage, Container: p.Container, Class: p.Class, Why: p.Why,
		Decision: said(p.Decision), Allows: p.Allows, Count: e.Count(), Pods: slices.Sorted(maps.Keys(e.Pods)), First: e.First, Last: e.Last}
	for _, o := range p.Facts {
		r.Facts = append(r.Facts, factReport{o.Fact, o.Fact.String(), o.Evidence})
	}
	for _, o := range p.With {
		r.With = append(r.With, o.Fact.String())
	}
	return r
}

// showProposal shows what a person needs to decide.
func (o *reviewOptions) showProposal(p rollout.Proposal, wide bool) {
	r := proposalOf(p)
	line := func(format string, args ...any) {
		text := printable(fmt.Sprintf(format, args...))
		if !wide {
			text = fitted(text)
		}
		fmt.Fprintln(o.Out, text)
	}
	line("%s  %s/%s at %s: %s, %s", r.ID, r.Workload, r.Container, r.Stage, r.Class, r.Decision)
	if r.Why != "" {
		line("  why: %s", r.Why)
	}
	const few = 5
	for i, text := range r.Allows {
		if i == few && !wide {
			line("  + and %d more", len(r.Allows)-i)
			break
		}
		line("  + %s", text)
	}
	for i, text := range r.With {
		if i == few && !wide {
			line("  with it: and %d more", len(r.With)-i)
			break
		}
		line("  with it: %s", text)
	}
	pods := strings.Join(r.Pods[:min(len(r.Pods), few)], ", ")
	if more := len(r.Pods) - few; more > 0 {
		pods += fmt.Sprintf(" and %d more", more)
	}
	line("  seen at least %d times, first %s, last %s, in %s", r.Count, stamp(r.First), stamp(r.Last), pods)
}

// prompt asks about each proposal that waits. The end of the input ends it, and
// what was decided until then counts.
func (o *reviewOptions) prompt(ctx context.Context, in io.Reader, list []rollout.Proposal) ([]rollout.Decision, error) {
	lines := make(chan string)
	go func() { // reading cannot be interrupted; the program ends with it
		defer close(lines)
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			select {
			case lines <- strings.ToLower(strings.TrimSpace(scanner.Text())):
			case <-ctx.Done():
				return
			}
		}
	}()
	answer := func(question string) (string, bool, error) {
		fmt.Fprint(o.ErrOut, question)
		select {
		case text, ok := <-lines:
			return text, ok, nil
		case <-ctx.Done():
			fmt.Fprintln(o.ErrOut)
			return "", false, ctx.Err()
		}
	}
	var all []rollout.Decision
	for _, p := range list {
		if !waits(p) {
			continue
		}
		o.showProposal(p, o.output.format == "wide")
		for decided := false; !decided; {
			text, more, err := answer("accept, decline, postpone, skip or quit? [a/d/p/S/q] ")
			if err != nil {
				return nil, err
			}
			if !more || text == "q" || text == "quit" {
				return all, nil
			}
			d, known := map[string]policy.Decision{"a": policy.Accepted, "accept": policy.Accepted, "d": policy.Declined, "decline": policy.Declined,
				"p": policy.Postponed, "postpone": policy.Postponed, "": "", "s": "", "skip": ""}[text]
			if decided = known; !known || d == "" {
				continue
			}
			decision := p.Decide(d)
			if decision.Reason = o.reason; o.reason == "" {
				if decision.Reason, _, err = answer("why? "); err != nil {
					return nil, err
				}
			}
			all = append(all, decision)
		}
	}
	return all, nil
}
