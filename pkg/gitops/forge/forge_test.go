package forge_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/forge"
)

func draft() forge.Draft {
	return forge.Draft{
		Branch: "autopolicy/shop/deny", Base: "main", Title: "Promote shop to deny", Body: "What changes.\n",
		Labels: []string{"autopolicy", "security"}, Reviewers: []string{"ada"},
	}
}

func TestAPullRequestIsOpenedThenUpdatedThenMergedByAPerson(t *testing.T) {
	for _, kind := range forge.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			ctx := t.Context()
			s := newServer(t, kind)
			f := s.open(t)
			if none, err := f.Find(ctx, "autopolicy/shop/deny", "main"); none != nil || err != nil {
				t.Fatalf("found %v in an empty forge: %v", none, err)
			}
			r, created, notes, err := f.Offer(ctx, draft())
			if err != nil || !created || r.Number != 1 || r.State != forge.Open || !strings.HasPrefix(r.URL, s.URL) || r.Branch != "autopolicy/shop/deny" || r.Base != "main" {
				t.Fatalf("%+v created %v: %v", r, created, err)
			}
			if kind == forge.Bitbucket {
				if len(notes) != 1 || !strings.Contains(notes[0], "no labels") {
					t.Errorf("notes %q", notes)
				}
			} else if slices.Sort(s.labels); len(notes) > 0 || !slices.Equal(s.labels, draft().Labels) {
				t.Errorf("labels %q, notes %q", s.labels, notes)
			}
			if len(s.reviews) == 0 {
				t.Error("nobody was asked for a review")
			}
			body := map[forge.Kind]string{forge.GitLab: "description", forge.Bitbucket: "description"}[kind]
			if body == "" {
				body = "body"
			}
			if s.text("title") != draft().Title || s.text(body) != draft().Body {
				t.Errorf("the forge has %v", s.requests)
			}

			d := draft()
			d.Title, d.Body = "Promote shop and cart to deny", "More changes.\n"
			r, created, _, err = f.Offer(ctx, d)
			if err != nil || created || r.Number != 1 || len(s.requests) != 1 || s.text("title") != d.Title || s.text(body) != d.Body {
				t.Fatalf("%+v created %v: %v; the forge has %v", r, created, err, s.requests)
			}
			before := len(s.calls)
			d.Labels = nil
			if _, _, _, err := f.Offer(ctx, d); err != nil || len(s.calls) != before {
				t.Errorf("an offer that changes nothing: %v, calls %q", err, s.calls[before:])
			}

			looks := 0
			r, err = f.Wait(ctx, 1, time.Millisecond, func(r forge.Request, err error) {
				if looks++; looks == 3 {
					s.merge()
				}
				if err != nil || r.State != forge.Open {
					t.Errorf("look %d: %+v %v", looks, r, err)
				}
			})
			if err != nil || r.State != forge.Merged || r.Merge != "c0ffee" || looks != 3 {
				t.Errorf("after %d looks %+v: %v", looks, r, err)
			}
			if again, err := f.Find(ctx, "autopolicy/shop/deny", "main"); again != nil || err != nil {
				t.Errorf("a merged request is found as open: %v %v", again, err)
			}
			for _, a := range s.auth {
				if !strings.HasSuffix(a, "secret") {
					t.Errorf("a call came with credentials %q", a)
				}
			}
		})
	}
}

func TestADeclinedPullRequestEndsTheWait(t *testing.T) {
	for _, kind := range forge.Kinds() {
		s := newServer(t, kind)
		f := s.open(t)
		if _, _, _, err := f.Offer(t.Context(), draft()); err != nil {
			t.Fatal(err)
		}
		s.decline()
		r, err := f.Wait(t.Context(), 1, time.Hour, func(forge.Request, error) { t.Error("it was looked at twice") })
		if err != nil || r.State != forge.Closed {
			t.Errorf("%s: %+v %v", kind, r, err)
		}
	}
}

func TestWhatAForgeRefusesIsSaidInItsWordsWithAHint(t *testing.T) {
	type answer struct {
		status int
		header map[string]string
		body   string
	}
	reset := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		answer
		want func(error) bool
		hint string
	}{
		"an expired token": {
			answer{401, nil, `{"message":"Bad credentials \u001b[31m"}`},
			func(err error) bool {
				var e *forge.TokenError
				return errors.As(err, &e) && e.Sent && !e.Right && strings.Contains(err.Error(), `Bad credentials \x1b[31m`)
			}, "expired",
		},
		"a token without the right": {
			answer{403, nil, `{"message":"Resource not accessible by personal access token"}`},
			func(err error) bool {
				var e *forge.TokenError
				return errors.As(err, &e) && e.Right
			}, "right to read and write pull requests",
		},
		"a rate limit": {
			answer{403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(reset.Unix())}, `{"message":"API rate limit exceeded"}`},
			func(err error) bool {
				var e *forge.RateError
				return errors.As(err, &e) && e.Until.Equal(reset)
			}, "run the command again after",
		},
		"a second rate limit": {
			answer{429, map[string]string{"Retry-After": "60"}, `{"error":"too many"}`},
			func(err error) bool {
				var e *forge.RateError
				return errors.As(err, &e) && time.Until(e.Until) > 50*time.Second && strings.Contains(err.Error(), "too many")
			}, "again after",
		},
		"a repository that it does not show": {
			answer{404, nil, `{"message":"Not Found"}`},
			func(err error) bool {
				var e *forge.NotFoundError
				return errors.As(err, &e)
			}, "may not see",
		},
		"a validation that failed": {
			answer{422, nil, `{"message":"Validation Failed","errors":[{"message":"No commits between main and x"}]}`},
			func(err error) bool {
				var e *forge.RefusedError
				return errors.As(err, &e) && strings.Contains(err.Error(), "No commits between main and x")
			}, "by hand",
		},
		"a page for a browser": {
			answer{502, nil, "<html>Bad gateway"},
			func(err error) bool {
				var e *forge.RefusedError
				return errors.As(err, &e) && e.Status == 502 && !strings.Contains(err.Error(), "<html>")
			}, "in trouble",
		},
	} {
		for _, kind := range forge.Kinds() {
			t.Run(name+" by "+string(kind), func(t *testing.T) {
				s := newServer(t, kind)
				s.fail = func(w http.ResponseWriter, _ *http.Request) bool {
					for k, v := range c.header {
						w.Header().Set(k, v)
					}
					w.WriteHeader(c.status)
					fmt.Fprint(w, c.body)
					return true
				}
				_, _, _, err := s.open(t).Offer(t.Context(), draft())
				if err == nil || !c.want(err) {
					t.Fatalf("%T %v", err, err)
				}
				var h interface{ Hint() string }
				if !errors.As(err, &h) || !strings.Contains(h.Hint(), c.hint) {
					t.Errorf("hint %q", h.Hint())
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the token is in %v", err)
				}
			})
		}
	}
}

func TestWaitingOutlastsTrouble(t *testing.T) {
	s := newServer(t, forge.GitHub)
	f := s.open(t)
	if _, _, _, err := f.Offer(t.Context(), draft()); err != nil {
		t.Fatal(err)
	}
	answers := []int{502, 429, 503}
	s.fail = func(w http.ResponseWriter, _ *http.Request) bool {
		if len(answers) == 0 {
			return false
		}
		w.WriteHeader(answers[0])
		answers = answers[1:]
		return true
	}
	s.merge()
	errs := 0
	r, err := f.Wait(t.Context(), 1, time.Millisecond, func(_ forge.Request, err error) {
		if err != nil {
			errs++
		}
	})
	if err != nil || r.State != forge.Merged || errs != 3 {
		t.Errorf("%+v after %d errors: %v", r, errs, err)
	}

	s.fail = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusUnauthorized); return true }
	var token *forge.TokenError
	if _, err := f.Wait(t.Context(), 1, time.Hour, func(forge.Request, error) {}); !errors.As(err, &token) {
		t.Errorf("a token that expired while waiting: %v", err)
	}
	s.fail = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
	ctx, cancel := context.WithCancel(t.Context())
	_, err = f.Wait(ctx, 1, time.Hour, func(forge.Request, error) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted wait: %v", err)
	}
}

func TestTheTokenGoesToNoOtherHost(t *testing.T) {
	other := newServer(t, forge.GitHub)
	for _, kind := range forge.Kinds() {
		s := newServer(t, kind)
		s.fail = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		if _, err := s.open(t).Find(t.Context(), "a", "b"); err == nil || !strings.Contains(err.Error(), "it points to") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if len(other.auth) > 0 {
		t.Errorf("the other host was sent %q", other.auth)
	}
}

func TestAForgeThatIsNotThereIsANetworkError(t *testing.T) {
	s := newServer(t, forge.GitLab)
	f := s.open(t)
	s.Close()
	var network *forge.NetworkError
	if _, err := f.Find(t.Context(), "a", "b"); !errors.As(err, &network) || network.Hint() == "" {
		t.Errorf("%T %v", err, err)
	}
}

func TestForgesAreToldByTheirHost(t *testing.T) {
	for url, want := range map[string]forge.Kind{
		"https://github.com/fleet/policies.git":          forge.GitHub,
		"git@github.com:fleet/policies.git":              forge.GitHub,
		"https://github.example.com/fleet/policies":      forge.GitHub,
		"ssh://git@gitlab.com:22/group/sub/policies.git": forge.GitLab,
		"https://gitlab.example.com/a/b":                 forge.GitLab,
		"https://codeberg.org/a/b.git":                   forge.Gitea,
		"https://gitea.example.com/a/b.git":              forge.Gitea,
		"git@forgejo.example.com:a/b":                    forge.Gitea,
		"git@bitbucket.org:a/b.git":                      forge.Bitbucket,
		"https://git.example.com/a/b.git":                "",
		"https://notgithub.com/a/b.git":                  "",
		"https://example.com/github/b.git":               "",
		"/srv/git/github.com/a":                          "",
		"file:///srv/github.com/a":                       "",
		"":                                               "",
	} {
		if got, ok := forge.Detect(url); got != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}

func TestWhichRepositoryIsMeant(t *testing.T) {
	for name, c := range map[string]struct {
		o    forge.Options
		want string // "" for an error
	}{
		"two parts":                              {forge.Options{Repository: "https://github.com/fleet/policies.git"}, "fleet/policies"},
		"a group of groups":                      {forge.Options{Repository: "git@gitlab.com:a/b/c.git"}, "a/b/c"},
		"a forge below a path":                   {forge.Options{Repository: "https://example.com/git/a/b.git", Kind: forge.Gitea}, "a/b"},
		"no owner":                               {forge.Options{Repository: "https://github.com/policies.git"}, ""},
		"a path that climbs":                     {forge.Options{Repository: "https://github.com/../../x/y"}, ""},
		"an unknown forge":                       {forge.Options{Repository: "https://git.example.com/a/b"}, ""},
		"an unknown kind":                        {forge.Options{Repository: "https://git.example.com/a/b", Kind: "svn"}, ""},
		"an address that is none":                {forge.Options{Repository: "https://github.com/a/b", Address: "nowhere"}, ""},
		"an address beside the git host is used": {forge.Options{Repository: "git@ssh.example.com:a/b", Kind: forge.Gitea, Address: "https://git.example.com"}, "a/b"},
	} {
		f, err := forge.New(c.o)
		var unknown *forge.UnknownError
		switch {
		case c.want == "" && (!errors.As(err, &unknown) || unknown.Hint() == ""):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err != nil || f.Name != c.want):
			t.Errorf("%s: %v %v", name, f, err)
		}
	}
}
