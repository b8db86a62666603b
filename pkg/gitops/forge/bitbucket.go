package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// bitbucket speaks to Bitbucket Cloud's API 2.0 itself: the one Go client that
// is kept (ktrysmt/go-bitbucket) takes no context for four of the five calls
// that are needed, and gives its answers as maps.
type bitbucket struct {
	http            *http.Client
	base            string // of the repository in the API
	token, username string
}

func newBitbucket(client *http.Client, base *url.URL, o Options, owner, project string) *bitbucket {
	root := base.String()
	if base.Host == "bitbucket.org" {
		root = "https://api.bitbucket.org"
	}
	return &bitbucket{client, root + "/2.0/repositories/" + url.PathEscape(owner) + "/" + url.PathEscape(project), o.Token, o.Username}
}

type (
	bitbucketBranch struct {
		Branch struct {
			Name string `json:"name"`
		} `json:"branch"`
		Repository *struct {
			Name string `json:"full_name"`
		} `json:"repository,omitempty"`
	}
	bitbucketRequest struct {
		ID          int             `json:"id,omitempty"`
		Title       string          `json:"title"`
		Description string          `json:"description"`
		State       string          `json:"state,omitempty"`
		Source      bitbucketBranch `json:"source"`
		Destination bitbucketBranch `json:"destination"`
		Close       bool            `json:"close_source_branch"`
		Merge       *struct {
			Hash string `json:"hash"`
		} `json:"merge_commit,omitempty"`
		Links *struct {
			HTML struct {
				Href string `json:"href"`
			} `json:"html"`
		} `json:"links,omitempty"`
		Reviewers []bitbucketUser `json:"reviewers,omitempty"`
	}
	bitbucketUser struct {
		UUID string `json:"uuid,omitempty"`
	}
)

// do sends in, if it is not nil, and reads the answer into out.
func (b *bitbucket) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case b.token != "" && b.username != "":
		req.SetBasicAuth(b.username, b.token)
	case b.token != "":
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	res, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer of %s: %w", req.URL.Host, err)
	}
	return nil
}

func (b *bitbucket) find(ctx context.Context, branch, base string) (*Request, error) {
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	q := url.Values{
		"state": {"OPEN"},
		"q":     {"source.branch.name=" + quote(branch) + " AND destination.branch.name=" + quote(base)},
	}
	var page struct {
		Values []bitbucketRequest `json:"values"`
	}
	if err := b.do(ctx, http.MethodGet, "/pullrequests?"+q.Encode(), nil, &page); err != nil {
		return nil, err
	}
	for _, p := range page.Values {
		ours := p.Source.Repository == nil || p.Destination.Repository == nil || p.Source.Repository.Name == p.Destination.Repository.Name
		if r := p.request(); ours && r.Branch == branch && r.Base == base {
			return &r, nil
		}
	}
	return nil, nil
}

func draftOf(d Draft) bitbucketRequest {
	p := bitbucketRequest{Title: d.Title, Description: d.Body, Close: true}
	p.Source.Branch.Name, p.Destination.Branch.Name = d.Branch, d.Base
	return p
}

func (b *bitbucket) create(ctx context.Context, d Draft) (Request, error) {
	var out bitbucketRequest
	err := b.do(ctx, http.MethodPost, "/pullrequests", draftOf(d), &out)
	return out.request(), err
}

// update sends the reviewers that are there: Bitbucket takes those away that an
// update does not name.
func (b *bitbucket) update(ctx context.Context, number int, d Draft) (Request, error) {
	path := fmt.Sprint("/pullrequests/", number)
	var now, out bitbucketRequest
	if err := b.do(ctx, http.MethodGet, path, nil, &now); err != nil {
		return Request{}, err
	}
	in := draftOf(d)
	in.Reviewers = now.Reviewers
	err := b.do(ctx, http.MethodPut, path, in, &out)
	return out.request(), err
}

func (b *bitbucket) get(ctx context.Context, number int) (Request, error) {
	var out bitbucketRequest
	err := b.do(ctx, http.MethodGet, fmt.Sprint("/pullrequests/", number), nil, &out)
	return out.request(), err
}

func (b *bitbucket) label(context.Context, int, []string) error { return errNoLabels }

// review adds people by their account's UUID, the only name that Bitbucket takes.
func (b *bitbucket) review(ctx context.Context, number int, ids []string) error {
	path := fmt.Sprint("/pullrequests/", number)
	var now bitbucketRequest
	if err := b.do(ctx, http.MethodGet, path, nil, &now); err != nil {
		return err
	}
	r := now.request()
	in := draftOf(Draft{Branch: r.Branch, Base: r.Base, Title: r.Title, Body: r.Body})
	in.Reviewers = now.Reviewers
	for _, id := range ids {
		in.Reviewers = append(in.Reviewers, bitbucketUser{UUID: id})
	}
	return b.do(ctx, http.MethodPut, path, in, &now)
}

func (p bitbucketRequest) request() Request {
	r := Request{
		Number: p.ID, Title: p.Title, Body: p.Description, State: Open,
		Branch: p.Source.Branch.Name, Base: p.Destination.Branch.Name,
	}
	if p.Links != nil {
		r.URL = p.Links.HTML.Href
	}
	switch p.State {
	case "MERGED":
		r.State = Merged
		if p.Merge != nil {
			r.Merge = p.Merge.Hash
		}
	case "DECLINED", "SUPERSEDED":
		r.State = Closed
	}
	return r
}
