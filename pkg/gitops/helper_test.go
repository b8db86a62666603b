package gitops_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

func TestCredentialHelpers(t *testing.T) {
	for name, c := range map[string]struct {
		config string // of the user; HOST is the server
		want   string // of the error; empty: it works
	}{
		"a snippet":                                     {"[credential]\n\thelper = \"!f() { test $1 = get && echo username=ada && echo password=right; }; f\"\n", ""},
		"git's own, by its name, with arguments":        {"[credential]\n\thelper = store --file=DIR/stored\n", ""},
		"an absolute path":                              {"[credential]\n\thelper = DIR/helper\n", ""},
		"the second, as the first knows nothing":        {"[credential]\n\thelper = \"!true\"\n\thelper = DIR/helper\n", ""},
		"the second, as the first fails":                {"[credential]\n\thelper = \"!echo no >&2; false\"\n\thelper = DIR/helper\n", ""},
		"one for this server only":                      {"[credential \"http://HOST\"]\n\thelper = DIR/helper\n", ""},
		"a user that the configuration names":           {"[credential]\n\tusername = ada\n\thelper = \"!cat >DIR/question; echo password=right; true\"\n", ""},
		"one for another server is not asked":           {"[credential \"http://other.example.com\"]\n\thelper = DIR/helper\n", "wants credentials and none are set"},
		"one that is taken back is not asked":           {"[credential]\n\thelper = DIR/helper\n\thelper =\n", "wants credentials and none are set"},
		"after quit no other is asked":                  {"[credential]\n\thelper = \"!echo quit=1; true\"\n\thelper = DIR/helper\n", "wants credentials and none are set"},
		"what a helper that fails says is in the error": {"[credential]\n\thelper = \"!printf 'locked \\\\033[31m' >&2; false\"\n", `locked \x1b[31m`},
		"a helper that is not there":                    {"[credential]\n\thelper = nonesuch\n", "nonesuch"},
		"what it knows is refused":                      {"[credential]\n\thelper = \"!echo username=ada; echo password=wrong; true\"\n", "refused the credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sandbox(t)
			repo := bare(t, filepath.Join(dir, "repo.git"))
			commit(t, open(t, gitops.Options{URL: repo}), map[string]string{"a": "1"})
			s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
				user, password, ok := r.BasicAuth()
				if ok && user == "ada" && password == "right" {
					return false
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			host := strings.TrimPrefix(s.URL, "http://")
			write(t, dir+"/stored", "http://ada:right@"+strings.Replace(host, ":", "%3a", 1)+"\n")
			write(t, dir+"/helper", "#!/bin/sh\ncat >"+dir+"/question\necho username=ada\necho password=right\n")
			if err := os.Chmod(dir+"/helper", 0o755); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(os.Getenv("HOME"), ".gitconfig")
			before, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			write(t, config, string(before)+strings.NewReplacer("DIR", dir, "HOST", host).Replace(c.config))

			r, err := gitops.Open(t.Context(), gitops.Options{URL: s.URL + "/repo.git", Author: author})
			if c.want != "" {
				var auth *gitops.AuthError
				if !errors.As(err, &auth) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "right") || strings.Contains(err.Error(), "wrong") {
					t.Fatalf("%v", err)
				}
				hint(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			commit(t, r, map[string]string{"b": "1"})
			if question, err := os.ReadFile(dir + "/question"); err == nil && !strings.HasPrefix(string(question), "protocol=http\nhost="+host+"\n") {
				t.Errorf("the helper was asked %q", question)
			}
		})
	}
}

// A server that may be read by anybody and wants credentials for a push.
func TestAHelperIsAskedWhenThePushWantsIt(t *testing.T) {
	dir := sandbox(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	commit(t, open(t, gitops.Options{URL: repo}), map[string]string{"a": "1"})
	s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		_, password, _ := r.BasicAuth()
		if !strings.Contains(r.URL.String(), "receive-pack") || password == "right" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	git(t, dir, "config", "--global", "credential.helper", "!echo username=ada; echo password=right; true")
	rev := commit(t, open(t, gitops.Options{URL: s.URL + "/repo.git"}), map[string]string{"b": "1"})
	if git(t, repo, "rev-parse", "main") != string(rev) {
		t.Error("the push did not arrive")
	}
}
