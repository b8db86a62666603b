package forge

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-github/v87/github"
)

type gitHub struct {
	client         *github.Client
	owner, project string
}

func newGitHub(client *http.Client, base *url.URL, token, owner, project string) (*gitHub, error) {
	opts := []github.ClientOptionsFunc{github.WithHTTPClient(client)}
	if token != "" {
		opts = append(opts, github.WithAuthToken(token))
	}
	if base.Host != "github.com" {
		opts = append(opts, github.WithEnterpriseURLs(base.String(), base.String()))
	}
	c, err := github.NewClient(opts...)
	if err != nil {
		return nil, &UnknownError{Host: base.Host}
	}
	return &gitHub{c, owner, project}, nil
}

func (g *gitHub) find(ctx context.Context, branch, base string) (*Request, error) {
	list, _, err := g.client.PullRequests.List(ctx, g.owner, g.project, &github.PullRequestListOptions{
		State: "open", Head: g.owner + ":" + branch, Base: base,
	})
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		// A GitHub that does not know the filter gives all.
		if p.GetHead().GetRef() == branch && p.GetBase().GetRef() == base && strings.EqualFold(p.GetHead().GetUser().GetLogin(), g.owner) {
			r := g.request(p)
			return &r, nil
		}
	}
	return nil, nil
}

func (g *gitHub) create(ctx context.Context, d Draft) (Request, error) {
	p, _, err := g.client.PullRequests.Create(ctx, g.owner, g.project, &github.NewPullRequest{
		Title: &d.Title, Body: &d.Body, Head: &d.Branch, Base: &d.Base,
	})
	return g.request(p), err
}

func (g *gitHub) update(ctx context.Context, number int, d Draft) (Request, error) {
	p, _, err := g.client.PullRequests.Edit(ctx, g.owner, g.project, number, &github.PullRequest{Title: &d.Title, Body: &d.Body})
	return g.request(p), err
}

func (g *gitHub) get(ctx context.Context, number int) (Request, error) {
	p, _, err := g.client.PullRequests.Get(ctx, g.owner, g.project, number)
	return g.request(p), err
}

func (g *gitHub) label(ctx context.Context, number int, labels []string) error {
	_, _, err := g.client.Issues.AddLabelsToIssue(ctx, g.owner, g.project, number, labels)
	return err
}

// review asks people, and teams that are written as organisation/team.
func (g *gitHub) review(ctx context.Context, number int, logins []string) error {
	var who github.ReviewersRequest
	for _, l := range logins {
		if _, team, ok := strings.Cut(l, "/"); ok {
			who.TeamReviewers = append(who.TeamReviewers, team)
		} else {
			who.Reviewers = append(who.Reviewers, l)
		}
	}
	_, _, err := g.client.PullRequests.RequestReviewers(ctx, g.owner, g.project, number, who)
	return err
}

func (g *gitHub) request(p *github.PullRequest) Request {
	r := Request{
		Number: p.GetNumber(), URL: p.GetHTMLURL(), Title: p.GetTitle(), Body: p.GetBody(), State: Open,
		Branch: p.GetHead().GetRef(), Base: p.GetBase().GetRef(),
	}
	switch {
	case p.GetMerged() || !p.GetMergedAt().IsZero():
		r.State, r.Merge = Merged, p.GetMergeCommitSHA()
	case p.GetState() == "closed":
		r.State = Closed
	}
	return r
}
