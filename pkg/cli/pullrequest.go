package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/forge"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

const (
	deliverPush    = "push"
	deliverRequest = "pull-request"
	// waitEvery is how often the forge is asked whether a pull request is merged:
	// 240 requests an hour, of the 5,000 that GitHub gives a token.
	waitEvery = 15 * time.Second
)

// deliveryFlags say how a change gets to the branch that the cluster follows.
type deliveryFlags struct {
	push, request     bool
	wait              time.Duration
	flags             *pflag.FlagSet // nil in a command that has none of these
	kind, address     string
	labels, reviewers []string
}

func (f *deliveryFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVar(&f.request, "pull-request", false, "offer the change as a pull request (default where the forge is known)")
	flags.BoolVar(&f.push, "push", false, "push the change to the branch itself")
	f.flags = flags
	flags.DurationVar(&f.wait, "wait", 0, "wait so long until the pull request is merged; promote: and then so long until the cluster runs it")
	flags.Lookup("wait").NoOptDefVal = defaultWait.String()
	flags.StringVar(&f.kind, "forge", "", "what the repository is on: bitbucket, gitea, github or gitlab (default told by its host)")
	flags.StringVar(&f.address, "forge-url", "", "where the forge is, if it does not follow from --repo")
	flags.StringSliceVar(&f.labels, "label", nil, "labels of the pull request (default autopolicy)")
	flags.StringSliceVar(&f.reviewers, "reviewer", nil, "who is asked to review a new pull request")
	// The error is that the flag does not exist, and it was made just now.
	_ = c.RegisterFlagCompletionFunc("forge", cobra.FixedCompletions(forgeNames(), cobra.ShellCompDirectiveNoFileComp))
}

func forgeNames() []string {
	var names []string
	for _, k := range forge.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// merge fills what no flag gave from the configuration, and refuses what
// contradicts itself.
func (f *deliveryFlags) merge(c config) error {
	if f.push && f.request {
		return hinted(errors.New("--push and --pull-request exclude each other"), "leave one of them out")
	}
	switch {
	case f.push || f.request:
	case c.Delivery == deliverPush:
		f.push = true
	case c.Delivery == deliverRequest:
		f.request = true
	case c.Delivery != "":
		return fmt.Errorf("delivery %q: want %s or %s", c.Delivery, deliverRequest, deliverPush)
	}
	for _, m := range []struct {
		flag *string
		file string
	}{{&f.kind, c.Forge.Kind}, {&f.address, c.Forge.URL}} {
		if *m.flag == "" {
			*m.flag = m.file
		}
	}
	if f.kind != "" && !slices.Contains(forgeNames(), f.kind) {
		return fmt.Errorf("forge %q: want one of %s", f.kind, strings.Join(forgeNames(), ", "))
	}
	if f.wait < 0 || f.wait == 0 && f.flags != nil && f.flags.Changed("wait") {
		return fmt.Errorf("--wait %s: want more than nothing, such as 10m", f.wait)
	}
	f.labels = pick(f.labels, c.PullRequest.Labels, []string{"autopolicy"})
	f.reviewers = pick(f.reviewers, c.PullRequest.Reviewers)
	return nil
}

// review is a pull request under way. A nil one is a push.
type review struct {
	flags     deliveryFlags
	url       string // of the repository
	stage     string // last part of the branch's name
	namespace string
	branch    string
	forge     *forge.Forge
	request   forge.Request // its Number is 0 until there is one
	created   bool
	merged    bool
	notes     []string
}

// review decides between a pull request, named for stage, and a push.
func (s *setup) review(f *repositoryFlags, stage string) *review {
	if s.delivery.kind != "" {
		f.forge = s.delivery.kind // its token is git's as well
	}
	_, known := forge.Detect(f.url)
	if s.delivery.push || !s.delivery.request && !known && s.delivery.kind == "" {
		return nil
	}
	return &review{flags: s.delivery, url: f.url, stage: stage, namespace: s.namespace}
}

// forgeToken finds the forge's token in the environment.
func forgeToken(kind forge.Kind) string {
	for _, name := range []string{kind.Variable(), "AUTOPOLICY_TOKEN", gitops.EnvToken} {
		if token := os.Getenv(name); token != "" {
			return token
		}
	}
	return ""
}

// propose asks the forge for the open pull request of the folder and stage, and
// takes the repository to its branch.
func (v *review) propose(ctx context.Context, r *gitops.Repository, dir string) error {
	kind := forge.Kind(v.flags.kind)
	if kind == "" {
		kind, _ = forge.Detect(v.url) // New says so where it is not known
	}
	var err error
	v.forge, err = forge.New(forge.Options{
		Repository: v.url, Kind: kind, Address: v.flags.address,
		Token: forgeToken(kind), Username: os.Getenv(gitops.EnvUsername),
	})
	if err != nil {
		return err
	}
	v.branch = "autopolicy/" + strings.TrimPrefix(dir, "autopolicy/") + "/" + v.stage
	open, err := v.forge.Find(ctx, v.branch, r.Branch())
	if err != nil {
		return err
	}
	if open != nil {
		v.request = *open
	}
	return r.Propose(ctx, gitops.Review{
		Branch: v.branch, Dir: dir, Open: open != nil, Base: "Autopolicy-Base",
		Ours: func(e gitops.LogEntry) bool { return e.Trailer(rollout.TrailerNamespace) == v.namespace },
	})
}

// offer opens the pull request of what was committed, or brings it up to date.
func (v *review) offer(ctx context.Context, f *folder, plan rollout.Plan) error {
	before, after, err := f.repository.Offered(ctx)
	if err != nil {
		return fmt.Errorf("describe the pull request: %w", err)
	}
	request := rollout.Request{Plan: plan, Before: map[string][]byte(before), After: map[string][]byte(after), Verdicts: f.judged}
	limits := v.forge.Kind.Limits()
	body, err := request.Body(rollout.Room{Body: limits.Body, Graph: limits.Graph, Fold: limits.HTML})
	if err != nil {
		return fmt.Errorf("describe the pull request: %w", err)
	}
	v.request, v.created, v.notes, err = v.forge.Offer(ctx, forge.Draft{
		Branch: v.branch, Base: f.repository.Branch(), Title: request.Title(), Body: body,
		Labels: v.flags.labels, Reviewers: v.flags.reviewers,
	})
	if err != nil {
		return fmt.Errorf("branch %s has the commit, but no pull request shows it: %w", v.branch, err)
	}
	return nil
}

// tell says what became of the pull request.
func (v *review) tell(p *progress) {
	if v == nil {
		return
	}
	verb := "updated"
	if v.created {
		verb = "opened"
	}
	p.say("%s pull request %d: %s", verb, v.request.Number, v.request.URL)
	for _, n := range v.notes {
		p.say("%s", n)
	}
}

// wait waits for the merge, if it was asked to and there is a pull request. One
// that was closed ends the command with its exit code.
func (v *review) wait(ctx context.Context, s *setup, r *gitops.Repository) error {
	if v == nil || v.flags.wait == 0 || v.request.Number == 0 || s.dryRun {
		return nil
	}
	began := s.app.now()
	limited, cancel := context.WithTimeout(ctx, v.flags.wait)
	defer cancel()
	now, err := v.forge.Wait(limited, v.request.Number, waitEvery, func(_ forge.Request, err error) {
		text := fmt.Sprintf("waiting for the merge of pull request %d, %s", v.request.Number, s.app.now().Sub(began).Round(time.Second))
		if err != nil {
			text += "; " + err.Error()
		}
		s.progress.update("%s", text)
	})
	s.progress.end()
	if now.Number > 0 {
		v.request = now
	}
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		s.progress.say("not yet: pull request %d is not merged after %s: %s", v.request.Number, v.flags.wait, v.request.URL)
		return &silentError{ExitNotYet}
	case err != nil:
		return err
	case now.State == forge.Closed:
		s.progress.say("pull request %d was closed without a merge: nothing has changed", now.Number)
		return &silentError{ExitNotYet}
	}
	s.progress.say("pull request %d is merged%s", now.Number, as(short(now.Merge)))
	v.merged = true
	return r.Leave(ctx)
}

func as(revision string) string {
	if revision == "" {
		return ""
	}
	return " as " + revision
}

// pullRequest is a review in the form that programs read.
type pullRequest struct {
	Number int         `json:"number"`
	URL    string      `json:"url"`
	Branch string      `json:"branch"`
	State  forge.State `json:"state"`
	Notes  []string    `json:"notes,omitempty"`
}

func (v *review) report() *pullRequest {
	if v == nil || v.request.Number == 0 {
		return nil
	}
	return &pullRequest{v.request.Number, v.request.URL, v.branch, v.request.State, v.notes}
}
