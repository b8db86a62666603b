package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"
)

type gitLab struct {
	client  *gitlab.Client
	project string
}

func newGitLab(client *http.Client, base *url.URL, token, project string) (*gitLab, error) {
	c, err := gitlab.NewClient(token, gitlab.WithBaseURL(base.String()), gitlab.WithHTTPClient(client), gitlab.WithoutRetries())
	if err != nil {
		return nil, &UnknownError{Host: base.Host}
	}
	return &gitLab{c, project}, nil
}

func (g *gitLab) find(ctx context.Context, branch, base string) (*Request, error) {
	opened := "opened"
	list, _, err := g.client.MergeRequests.ListProjectMergeRequests(g.project, &gitlab.ListProjectMergeRequestsOptions{
		State: &opened, SourceBranch: &branch, TargetBranch: &base,
	}, gitlab.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if m.SourceBranch == branch && m.TargetBranch == base && m.SourceProjectID == m.TargetProjectID {
			r := g.request(m)
			return &r, nil
		}
	}
	return nil, nil
}

func (g *gitLab) create(ctx context.Context, d Draft) (Request, error) {
	remove := true
	m, _, err := g.client.MergeRequests.CreateMergeRequest(g.project, &gitlab.CreateMergeRequestOptions{
		Title: &d.Title, Description: &d.Body, SourceBranch: &d.Branch, TargetBranch: &d.Base, RemoveSourceBranch: &remove,
	}, gitlab.WithContext(ctx))
	return g.whole(m, err)
}

func (g *gitLab) update(ctx context.Context, number int, d Draft) (Request, error) {
	m, _, err := g.client.MergeRequests.UpdateMergeRequest(g.project, int64(number), &gitlab.UpdateMergeRequestOptions{
		Title: &d.Title, Description: &d.Body,
	}, gitlab.WithContext(ctx))
	return g.whole(m, err)
}

func (g *gitLab) get(ctx context.Context, number int) (Request, error) {
	m, _, err := g.client.MergeRequests.GetMergeRequest(g.project, int64(number), nil, gitlab.WithContext(ctx))
	return g.whole(m, err)
}

func (g *gitLab) label(ctx context.Context, number int, labels []string) error {
	add := gitlab.LabelOptions(labels)
	_, _, err := g.client.MergeRequests.UpdateMergeRequest(g.project, int64(number), &gitlab.UpdateMergeRequestOptions{AddLabels: &add}, gitlab.WithContext(ctx))
	return err
}

func (g *gitLab) review(ctx context.Context, number int, logins []string) error {
	var ids []int64
	for _, login := range logins {
		users, _, err := g.client.Users.ListUsers(&gitlab.ListUsersOptions{Username: &login}, gitlab.WithContext(ctx))
		if err != nil {
			return err
		}
		if len(users) != 1 {
			return fmt.Errorf("no user %s", escape(login))
		}
		ids = append(ids, users[0].ID)
	}
	_, _, err := g.client.MergeRequests.UpdateMergeRequest(g.project, int64(number), &gitlab.UpdateMergeRequestOptions{ReviewerIDs: &ids}, gitlab.WithContext(ctx))
	return err
}

func (g *gitLab) whole(m *gitlab.MergeRequest, err error) (Request, error) {
	if err != nil || m == nil {
		return Request{}, err
	}
	return g.request(&m.BasicMergeRequest), nil
}

func (g *gitLab) request(m *gitlab.BasicMergeRequest) Request {
	r := Request{
		Number: int(m.IID), URL: m.WebURL, Title: m.Title, Body: m.Description, State: Open,
		Branch: m.SourceBranch, Base: m.TargetBranch,
	}
	switch m.State {
	case "merged":
		r.State, r.Merge = Merged, m.MergeCommitSHA
		if r.Merge == "" {
			r.Merge = m.SquashCommitSHA
		}
	case "closed":
		r.State = Closed
	}
	return r
}
