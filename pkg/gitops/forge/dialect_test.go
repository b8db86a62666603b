package forge_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/forge"
)

// server answers as a forge's documentation says that it does, for as much of
// its API as is used. It holds what it was sent as plain JSON.
type server struct {
	*httptest.Server
	kind     forge.Kind
	mu       sync.Mutex
	requests []map[string]any // pull requests in the forge's own form
	calls    []string         // method and path of each call that changes something
	labels   []string
	reviews  []any
	auth     []string // credentials of each call
	// fail answers instead, if it does.
	fail func(w http.ResponseWriter, r *http.Request) bool
}

func newServer(t *testing.T, kind forge.Kind) *server {
	t.Helper()
	s := &server{kind: kind}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) open(t *testing.T) *forge.Forge {
	t.Helper()
	f, err := forge.New(forge.Options{Repository: s.URL + "/fleet/policies.git", Kind: s.kind, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// merge is a person who presses the button.
func (s *server) merge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.requests[len(s.requests)-1]
	switch s.kind {
	case forge.GitHub:
		p["state"], p["merged"], p["merged_at"], p["merge_commit_sha"] = "closed", true, "2026-03-04T05:06:07Z", "c0ffee"
	case forge.GitLab:
		p["state"], p["merge_commit_sha"] = "merged", "c0ffee"
	case forge.Gitea:
		p["state"], p["merged"], p["merge_commit_sha"] = "closed", true, "c0ffee"
	case forge.Bitbucket:
		p["state"], p["merge_commit"] = "MERGED", map[string]any{"hash": "c0ffee"}
	}
}

func (s *server) decline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[len(s.requests)-1]["state"] = map[forge.Kind]string{forge.Bitbucket: "DECLINED"}[s.kind]
	if s.kind != forge.Bitbucket {
		s.requests[len(s.requests)-1]["state"] = "closed"
	}
}

func (s *server) text(field string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, _ := s.requests[0][field].(string)
	return text
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.fail(w, r) {
		return
	}
	s.auth = append(s.auth, r.Header.Get("Authorization")+r.Header.Get("Private-Token"))
	if r.Method != http.MethodGet {
		s.calls = append(s.calls, r.Method+" "+r.URL.EscapedPath())
	}
	in := map[string]any{}
	data, err := io.ReadAll(r.Body)
	if err == nil && len(data) > 0 {
		if err := json.Unmarshal(data, &in); err != nil {
			var list []any // GitHub's labels
			if json.Unmarshal(data, &list) == nil {
				in["labels"] = list
			}
		}
	}
	status, out := http.StatusNotFound, any(map[string]any{"message": "404 Not Found"})
	switch path := r.URL.EscapedPath(); s.kind {
	case forge.GitHub:
		status, out = s.gitHub(r.Method, strings.TrimPrefix(path, "/api/v3/repos/fleet/policies"), in)
	case forge.GitLab:
		status, out = s.gitLab(r.Method, strings.TrimPrefix(path, "/api/v4"), in)
	case forge.Gitea:
		status, out = s.gitea(r, strings.TrimPrefix(path, "/api/v1/repos/fleet/policies"), in)
	case forge.Bitbucket:
		status, out = s.bitbucket(r.Method, strings.TrimPrefix(path, "/2.0/repositories/fleet/policies"), in)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(out); err != nil {
		panic(err) // of the test's own values
	}
}

func (s *server) opened(state string) []map[string]any {
	list := []map[string]any{}
	for _, p := range s.requests {
		if p["state"] == state {
			list = append(list, p)
		}
	}
	return list
}

// at finds the request that a path such as /pulls/1/labels names.
func (s *server) at(path, prefix string) (p map[string]any, rest string) {
	number, rest, _ := strings.Cut(strings.TrimPrefix(path, prefix), "/")
	var n int
	if _, err := fmt.Sscanf(number, "%d", &n); err != nil || n < 1 || n > len(s.requests) {
		return nil, rest
	}
	return s.requests[n-1], rest
}

func set(p, in map[string]any, fields ...string) {
	for _, f := range fields {
		if v, ok := in[f]; ok {
			p[f] = v
		}
	}
}

func (s *server) gitHub(method, path string, in map[string]any) (int, any) {
	switch {
	case method == http.MethodGet && path == "/pulls":
		return http.StatusOK, s.opened("open")
	case method == http.MethodPost && path == "/pulls":
		user := map[string]any{"login": "fleet"}
		p := map[string]any{
			"number": len(s.requests) + 1, "state": "open", "html_url": s.URL + "/fleet/policies/pull/1",
			"head": map[string]any{"ref": in["head"], "user": user}, "base": map[string]any{"ref": in["base"], "user": user},
		}
		set(p, in, "title", "body")
		s.requests = append(s.requests, p)
		return http.StatusCreated, p
	case strings.HasPrefix(path, "/issues/"):
		for _, l := range in["labels"].([]any) {
			s.labels = append(s.labels, l.(string))
		}
		return http.StatusOK, []any{}
	}
	p, rest := s.at(path, "/pulls/")
	switch {
	case p == nil:
		return http.StatusNotFound, map[string]any{"message": "Not Found"}
	case rest == "requested_reviewers":
		s.reviews = append(s.reviews, in["reviewers"], in["team_reviewers"])
		return http.StatusCreated, p
	case method == http.MethodPatch:
		set(p, in, "title", "body")
	}
	return http.StatusOK, p
}

func (s *server) gitLab(method, path string, in map[string]any) (int, any) {
	if path == "/users" {
		return http.StatusOK, []any{map[string]any{"id": 7, "username": "ada"}}
	}
	path = strings.TrimPrefix(path, "/projects/fleet%2Fpolicies")
	switch {
	case method == http.MethodGet && path == "/merge_requests":
		return http.StatusOK, s.opened("opened")
	case method == http.MethodPost && path == "/merge_requests":
		p := map[string]any{
			"id": 1000, "iid": len(s.requests) + 1, "state": "opened", "web_url": s.URL + "/fleet/policies/-/merge_requests/1",
			"source_project_id": 5, "target_project_id": 5,
		}
		set(p, in, "title", "description", "source_branch", "target_branch")
		s.requests = append(s.requests, p)
		return http.StatusCreated, p
	}
	p, _ := s.at(path, "/merge_requests/")
	if p == nil {
		return http.StatusNotFound, map[string]any{"message": "404 Not found"}
	}
	if method == http.MethodPut {
		set(p, in, "title", "description")
		if l, ok := in["add_labels"].(string); ok {
			s.labels = append(s.labels, strings.Split(l, ",")...)
		}
		if ids, ok := in["reviewer_ids"]; ok {
			s.reviews = append(s.reviews, ids)
		}
	}
	return http.StatusOK, p
}

func (s *server) gitea(r *http.Request, path string, in map[string]any) (int, any) {
	first := r.URL.Query().Get("page") == "1"
	switch {
	case r.Method == http.MethodGet && path == "/pulls":
		if !first {
			return http.StatusOK, []any{}
		}
		return http.StatusOK, s.opened("open")
	case r.Method == http.MethodPost && path == "/pulls":
		p := map[string]any{
			"id": 1000, "number": len(s.requests) + 1, "state": "open", "html_url": s.URL + "/fleet/policies/pulls/1",
			"head": map[string]any{"ref": in["head"], "repo_id": 3}, "base": map[string]any{"ref": in["base"], "repo_id": 3},
		}
		set(p, in, "title", "body")
		s.requests = append(s.requests, p)
		return http.StatusCreated, p
	case r.Method == http.MethodGet && path == "/labels":
		if !first {
			return http.StatusOK, []any{}
		}
		return http.StatusOK, []any{map[string]any{"id": 1, "name": "security"}}
	case path == "/labels":
		return http.StatusCreated, map[string]any{"id": 2, "name": in["name"]}
	case strings.HasPrefix(path, "/issues/"):
		for _, id := range in["labels"].([]any) {
			s.labels = append(s.labels, []string{"", "security", "autopolicy"}[int(id.(float64))])
		}
		return http.StatusOK, []any{}
	}
	p, rest := s.at(path, "/pulls/")
	switch {
	case p == nil:
		return http.StatusNotFound, map[string]any{"message": "not found"}
	case rest == "requested_reviewers":
		s.reviews = append(s.reviews, in["reviewers"])
		return http.StatusCreated, []any{}
	case r.Method == http.MethodPatch:
		set(p, in, "title", "body")
	}
	return http.StatusOK, p
}

func (s *server) bitbucket(method, path string, in map[string]any) (int, any) {
	switch {
	case method == http.MethodGet && path == "/pullrequests":
		return http.StatusOK, map[string]any{"values": s.opened("OPEN")}
	case method == http.MethodPost && path == "/pullrequests":
		p := map[string]any{
			"id": len(s.requests) + 1, "state": "OPEN",
			"links": map[string]any{"html": map[string]any{"href": s.URL + "/fleet/policies/pull-requests/1"}},
		}
		set(p, in, "title", "description", "source", "destination")
		s.requests = append(s.requests, p)
		return http.StatusCreated, p
	}
	p, _ := s.at(path, "/pullrequests/")
	if p == nil {
		return http.StatusNotFound, map[string]any{"type": "error", "error": map[string]any{"message": "Repository fleet/policies not found"}}
	}
	if method == http.MethodPut {
		set(p, in, "title", "description", "reviewers")
		if who, ok := in["reviewers"]; ok {
			s.reviews = append(s.reviews, who)
		}
	}
	return http.StatusOK, p
}
