package forge

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"code.gitea.io/sdk/gitea"
)

// pageSize is how many of a list are asked for at once; Gitea gives 50 at most.
const pageSize = 50

// giteaForge makes a client a call: the library's client holds the context.
type giteaForge struct {
	http           *http.Client
	base, token    string
	owner, project string
}

func newGitea(client *http.Client, base *url.URL, token, owner, project string) (*giteaForge, error) {
	g := &giteaForge{client, base.String(), token, owner, project}
	if _, err := g.client(context.Background()); err != nil {
		return nil, &UnknownError{Host: base.Host}
	}
	return g, nil
}

func (g *giteaForge) client(ctx context.Context) (*gitea.Client, error) {
	opts := []gitea.ClientOption{
		gitea.SetHTTPClient(g.http), gitea.SetContext(ctx),
		gitea.SetGiteaVersion(""), // else each client asks the server for it
	}
	if g.token != "" {
		opts = append(opts, gitea.SetToken(g.token))
	}
	return gitea.NewClient(g.base, opts...)
}

func (g *giteaForge) find(ctx context.Context, branch, base string) (*Request, error) {
	c, err := g.client(ctx)
	if err != nil {
		return nil, err
	}
	for page := 1; ; page++ {
		list, _, err := c.ListRepoPullRequests(g.owner, g.project, gitea.ListPullRequestsOptions{
			ListOptions: gitea.ListOptions{Page: page, PageSize: pageSize}, State: gitea.StateOpen,
		})
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if p.Head != nil && p.Base != nil && p.Head.Ref == branch && p.Base.Ref == base && p.Head.RepoID == p.Base.RepoID {
				r := g.request(p)
				return &r, nil
			}
		}
		if len(list) == 0 {
			return nil, nil
		}
	}
}

func (g *giteaForge) create(ctx context.Context, d Draft) (Request, error) {
	c, err := g.client(ctx)
	if err != nil {
		return Request{}, err
	}
	p, _, err := c.CreatePullRequest(g.owner, g.project, gitea.CreatePullRequestOption{
		Head: d.Branch, Base: d.Base, Title: d.Title, Body: d.Body,
	})
	return g.request(p), err
}

func (g *giteaForge) update(ctx context.Context, number int, d Draft) (Request, error) {
	c, err := g.client(ctx)
	if err != nil {
		return Request{}, err
	}
	p, _, err := c.EditPullRequest(g.owner, g.project, int64(number), gitea.EditPullRequestOption{Title: d.Title, Body: &d.Body})
	return g.request(p), err
}

func (g *giteaForge) get(ctx context.Context, number int) (Request, error) {
	c, err := g.client(ctx)
	if err != nil {
		return Request{}, err
	}
	p, _, err := c.GetPullRequest(g.owner, g.project, int64(number))
	return g.request(p), err
}

// label makes the labels that the repository does not have.
func (g *giteaForge) label(ctx context.Context, number int, labels []string) error {
	c, err := g.client(ctx)
	if err != nil {
		return err
	}
	ids := map[string]int64{}
	for page := 1; ; page++ {
		list, _, err := c.ListRepoLabels(g.owner, g.project, gitea.ListLabelsOptions{ListOptions: gitea.ListOptions{Page: page, PageSize: pageSize}})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for _, l := range list {
			ids[l.Name] = l.ID
		}
	}
	var want []int64
	for _, name := range labels {
		if _, ok := ids[name]; !ok {
			l, _, err := c.CreateLabel(g.owner, g.project, gitea.CreateLabelOption{Name: name, Color: "#1d76db"})
			if err != nil {
				return err
			}
			ids[name] = l.ID
		}
		if !slices.Contains(want, ids[name]) {
			want = append(want, ids[name])
		}
	}
	_, _, err = c.AddIssueLabels(g.owner, g.project, int64(number), gitea.IssueLabelsOption{Labels: want})
	return err
}

func (g *giteaForge) review(ctx context.Context, number int, logins []string) error {
	c, err := g.client(ctx)
	if err != nil {
		return err
	}
	_, err = c.CreateReviewRequests(g.owner, g.project, int64(number), gitea.PullReviewRequestOptions{Reviewers: logins})
	return err
}

func (g *giteaForge) request(p *gitea.PullRequest) Request {
	if p == nil {
		return Request{}
	}
	r := Request{Number: int(p.Index), URL: p.HTMLURL, Title: p.Title, Body: p.Body, State: Open}
	if p.Head != nil && p.Base != nil {
		r.Branch, r.Base = p.Head.Ref, p.Base.Ref
	}
	switch {
	case p.HasMerged:
		r.State = Merged
		if p.MergedCommitID != nil {
			r.Merge = *p.MergedCommitID
		}
	case p.State == gitea.StateClosed:
		r.State = Closed
	}
	return r
}
