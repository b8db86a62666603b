// Package forge opens pull requests for branches that gitops has pushed, keeps
// them up to date and waits for their merge: on GitHub, GitLab (where they are
// merge requests), Gitea and Forgejo, and Bitbucket Cloud. It never merges,
// approves or closes one: that is a person's.
//
// What a forge answers is escaped before it is in an error; titles and bodies
// are the caller's, who escapes what pods control.
package forge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of forge.
type Kind string

// Kinds of forges.
const (
	GitHub    Kind = "github"
	GitLab    Kind = "gitlab"
	Gitea     Kind = "gitea" // Forgejo too, which speaks the same API
	Bitbucket Kind = "bitbucket"
)

// Kinds lists the kinds by name.
func Kinds() []Kind { return []Kind{Bitbucket, Gitea, GitHub, GitLab} }

// Limits are what a forge takes of a pull request's body.
type Limits struct {
	Body  int  // characters
	Graph int  // characters of a Mermaid graph that it draws; 0: it draws none
	HTML  bool // it shows <details>
}

// Limits returns what the kind takes. GitHub's and Bitbucket's bodies are what
// their API refuses beyond; GitLab draws a graph of 2,000 characters unasked,
// Gitea one of 5,000 (MERMAID_MAX_SOURCE_CHARACTERS), GitHub one of 50,000
// (Mermaid's maxTextSize).
func (k Kind) Limits() Limits {
	switch k {
	case GitHub:
		return Limits{Body: 65_000, Graph: 50_000, HTML: true}
	case GitLab:
		return Limits{Body: 500_000, Graph: 2_000, HTML: true}
	case Gitea:
		return Limits{Body: 65_000, Graph: 5_000, HTML: true}
	}
	return Limits{Body: 32_000}
}

// Variable is the environment variable that people have the kind's token in.
func (k Kind) Variable() string { return strings.ToUpper(string(k)) + "_TOKEN" }

// Detect tells the forge that a repository's URL is on, by its host's name.
func Detect(repository string) (Kind, bool) {
	base, _, err := split(repository)
	if err != nil {
		return "", false
	}
	host := strings.ToLower(base.Hostname())
	for _, known := range []struct {
		part string
		kind Kind
	}{{"github", GitHub}, {"gitlab", GitLab}, {"gitea", Gitea}, {"forgejo", Gitea}, {"codeberg.org", Gitea}, {"bitbucket.org", Bitbucket}} {
		if slices.Contains(strings.Split(host, "."), known.part) || host == known.part {
			return known.kind, true
		}
	}
	return "", false
}

// Options say which repository of which forge is meant, and as whom.
type Options struct {
	Repository string // its URL, as git has it
	Kind       Kind   // "" is found out by Detect
	// Address is where the forge's web pages are, if it does not follow from
	// Repository: https://git.example.com
	Address string
	Token   string
	// Username goes with Token where Bitbucket wants an account's name.
	Username string
}

// Draft is a pull request as it shall be.
type Draft struct {
	Branch, Base string // short names
	Title, Body  string
	Labels       []string
	Reviewers    []string // login names
}

// State is what became of a pull request.
type State string

// States.
const (
	Open   State = "open"
	Merged State = "merged"
	Closed State = "closed" // without a merge
)

// Request is a pull request as the forge has it.
type Request struct {
	Number int
	URL    string
	Title  string
	Body   string
	State  State
	Branch string
	Base   string
	// Merge is the commit that the merge made; "" before it, or where the forge
	// does not say.
	Merge string
}

// Forge is one repository on a forge.
type Forge struct {
	Kind Kind
	Name string // owner and repository
	api  api
}

// api is what the forges do differently. find returns the open request from
// branch to base, nil if there is none.
type api interface {
	find(ctx context.Context, branch, base string) (*Request, error)
	create(ctx context.Context, d Draft) (Request, error)
	update(ctx context.Context, number int, d Draft) (Request, error)
	get(ctx context.Context, number int) (Request, error)
	label(ctx context.Context, number int, labels []string) error
	review(ctx context.Context, number int, logins []string) error
}

// errNoLabels is for a forge whose pull requests have none.
var errNoLabels = errors.New("pull requests have no labels there")

// New returns a repository's forge. It talks to nobody yet.
func New(o Options) (*Forge, error) {
	base, name, err := split(o.Repository)
	if err != nil {
		return nil, err
	}
	kind := o.Kind
	if kind == "" {
		var ok bool
		if kind, ok = Detect(o.Repository); !ok {
			return nil, &UnknownError{Host: base.Host}
		}
	}
	if o.Address != "" {
		if base, err = url.Parse(o.Address); err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
			return nil, &UnknownError{Host: o.Address}
		}
	}
	owner, project, err := divide(kind, base, name)
	if err != nil {
		return nil, err
	}
	f := &Forge{Kind: kind, Name: owner + "/" + project}
	client := newClient(kind, base, o.Token != "")
	switch kind {
	case GitHub:
		f.api, err = newGitHub(client, base, o.Token, owner, project)
	case GitLab:
		f.api, err = newGitLab(client, base, o.Token, f.Name)
	case Gitea:
		f.api, err = newGitea(client, base, o.Token, owner, project)
	case Bitbucket:
		f.api = newBitbucket(client, base, o, owner, project)
	default:
		err = &UnknownError{Host: string(kind)}
	}
	return f, err
}

// split takes a git URL apart: where the forge's pages are, and the path of the
// repository there.
func split(repository string) (*url.URL, string, error) {
	unknown := &UnknownError{Host: "the repository"}
	text := repository
	if !strings.Contains(text, "://") {
		host, path, ok := strings.Cut(text, ":")
		if !ok || strings.Contains(host, "/") || len(host) < 2 {
			return nil, "", unknown
		}
		text = "ssh://" + host + "/" + path
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, "", unknown
	}
	base := &url.URL{Scheme: "https", Host: u.Host}
	switch u.Scheme {
	case "http", "https":
		base.Scheme = u.Scheme
	case "ssh": // its port is not that of the pages
		base.Host = u.Hostname()
		if strings.Contains(base.Host, ":") {
			base.Host = net.JoinHostPort(base.Host, "443")
		}
	default:
		return nil, "", unknown
	}
	name := strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	return base, name, nil
}

// divide gives owner and repository of a path. GitLab has groups of groups; on
// the others what comes before the last two is where the pages begin.
func divide(kind Kind, base *url.URL, name string) (owner, project string, err error) {
	parts := strings.Split(name, "/")
	if len(parts) < 2 || slices.Contains(parts, "") || slices.Contains(parts, "..") || slices.Contains(parts, ".") {
		return "", "", &UnknownError{Host: base.Host}
	}
	last := len(parts) - 1
	if kind == GitLab {
		return strings.Join(parts[:last], "/"), parts[last], nil
	}
	if base.Path == "" && last > 1 {
		base.Path = "/" + strings.Join(parts[:last-1], "/")
	}
	return parts[last-1], parts[last], nil
}

// Find returns the open pull request from branch to base, nil if there is none.
func (f *Forge) Find(ctx context.Context, branch, base string) (*Request, error) {
	r, err := f.api.find(ctx, branch, base)
	if err != nil {
		return nil, fmt.Errorf("look for the pull request of %s: %w", branch, err)
	}
	return r, nil
}

// Offer opens a pull request, or brings the open one of the same branch up to
// date. Labels and reviewers are added, never taken away; what the forge does
// not take of them is said in notes and is no error.
func (f *Forge) Offer(ctx context.Context, d Draft) (r Request, created bool, notes []string, err error) {
	open, err := f.Find(ctx, d.Branch, d.Base)
	if err != nil {
		return r, false, nil, err
	}
	switch {
	case open == nil:
		created = true
		if r, err = f.api.create(ctx, d); err != nil {
			// Somebody else may have opened it since it was looked for.
			if open, again := f.Find(ctx, d.Branch, d.Base); again == nil && open != nil {
				return f.Offer(ctx, d)
			}
			return r, false, nil, fmt.Errorf("open a pull request for %s: %w", d.Branch, err)
		}
	case open.Title == d.Title && same(open.Body, d.Body):
		r = *open
	default:
		if r, err = f.api.update(ctx, open.Number, d); err != nil {
			return r, false, nil, fmt.Errorf("update pull request %d: %w", open.Number, err)
		}
	}
	if len(d.Labels) > 0 {
		if err := f.api.label(ctx, r.Number, d.Labels); err != nil {
			notes = append(notes, fmt.Sprintf("labels %s were not set: %s", strings.Join(d.Labels, ", "), err))
		}
	}
	// Who was asked once and has taken themselves off is not asked again.
	if created && len(d.Reviewers) > 0 {
		if err := f.api.review(ctx, r.Number, d.Reviewers); err != nil {
			notes = append(notes, fmt.Sprintf("reviewers %s were not asked: %s", strings.Join(d.Reviewers, ", "), err))
		}
	}
	return r, created, notes, nil
}

// same compares bodies; a forge may turn line ends and trim the last.
func same(a, b string) bool {
	plain := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }
	return plain(a) == plain(b)
}

// Get returns a pull request as it now is.
func (f *Forge) Get(ctx context.Context, number int) (Request, error) {
	r, err := f.api.get(ctx, number)
	if err != nil {
		return r, fmt.Errorf("read pull request %d: %w", number, err)
	}
	return r, nil
}

// Wait asks about a pull request, once in every, until it is merged or closed.
// It outlasts a server that cannot be reached for a while, and a rate limit,
// until which it is silent; look is called after each answer and each such error.
func (f *Forge) Wait(ctx context.Context, number int, every time.Duration, look func(Request, error)) (Request, error) {
	for {
		r, err := f.Get(ctx, number)
		pause := every
		var rate *RateError
		switch {
		case err == nil && r.State != Open:
			return r, nil
		case errors.As(err, &rate):
			pause = max(pause, time.Until(rate.Until))
		case err != nil && !passing(err):
			return r, err
		}
		if ctx.Err() == nil {
			look(r, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return r, fmt.Errorf("wait for pull request %d: %w", number, ctx.Err())
		case <-timer.C:
		}
	}
}

// passing tells whether asking again may help.
func passing(err error) bool {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Status >= http.StatusInternalServerError
	}
	var network *NetworkError
	return errors.As(err, &network)
}
