package forge

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// discover is the command line of one observation of namespace shop.
func discover(url, file string, more ...string) []string {
	return append([]string{"discover", "-n", "shop", "--from", file, "--repo", url, "--forge", "gitea"}, more...)
}

func TestPullRequestsOnARealForge(t *testing.T) {
	g := startGitea(t)
	for name, story := range map[string]func(*testing.T, *gitea){
		"opened, updated, merged and waited for over HTTP": func(t *testing.T, g *gitea) {
			g.story(t, "http", newUser(t, "Jane", "GITEA_TOKEN="+g.token), func(repository string) (string, []string) {
				return g.url + "/" + repository + ".git", nil
			})
		},
		"opened, updated, merged and waited for over SSH":      overSSH,
		"a protected branch takes no push, and a pull request": protected,
		"a token that was taken back":                          expired,
		"two people at once end up in one pull request":        twoAtOnce,
		"the base is force-pushed under an open pull request":  forcePushed,
		"a pull request that a person closed ends the wait":    declined,
		"hostile names stay names in Gitea's own rendering":    hostile,
	} {
		t.Run(name, func(t *testing.T) { story(t, g) })
	}
}

func (g *gitea) story(t *testing.T, name string, u *user, where func(repository string) (url string, flags []string)) {
	repository := g.repository(t, name)
	g.call(t, http.MethodPost, "/admin/users", map[string]any{"username": "rev-" + name, "password": "right-Password-1", "email": "rev-" + name + "@example.com", "must_change_password": false}, nil)
	g.call(t, http.MethodPut, "/repos/"+repository+"/collaborators/rev-"+name, map[string]any{"permission": "write"}, nil)
	url, flags := where(repository)
	said := u.does(t, 0, discover(url, observed(t, "web", "/etc/web.conf"), append(flags, "--reviewer", "rev-"+name)...)...)
	list := g.pulls(t, repository, "all")
	if len(list) != 1 || list[0].State != "open" || list[0].Head.Ref != "autopolicy/shop/audit" || list[0].Title != "Learn policies of shop: deployment/web" ||
		!strings.Contains(said, fmt.Sprintf("opened pull request %d: %s/%s/pulls/%[1]d", list[0].Number, g.url, repository)) {
		t.Fatalf("%+v\n%s", list, said)
	}
	p := list[0]
	if len(p.Labels) != 1 || p.Labels[0].Name != "autopolicy" || len(p.Reviewers) != 1 || p.Reviewers[0].Login != "rev-"+name || !strings.Contains(p.Body, "`deployment-web`") {
		t.Errorf("labels %v, reviewers %v, body\n%s", p.Labels, p.Reviewers, p.Body)
	}
	if status, _ := g.try(t, http.MethodGet, "/repos/"+repository+"/contents/autopolicy", nil, nil); status != http.StatusNotFound {
		t.Errorf("the base has the policies before the merge: %d", status)
	}

	// More was learned: the same pull request, one commit longer. Now somebody waits.
	wait := u.start(t, discover(url, observed(t, "api", "/etc/api.conf"), append(flags, "--wait=1m")...)...)
	eventually(t, time.Minute, "the pull request is updated", func() bool {
		now := g.pulls(t, repository, "open")
		return len(now) == 1 && now[0].Head.SHA != p.Head.SHA && strings.Contains(now[0].Body, "deployment-api") && strings.Contains(now[0].Body, "deployment-web")
	})
	if all := g.pulls(t, repository, "all"); len(all) != 1 {
		t.Errorf("%d pull requests", len(all))
	}
	g.merge(t, repository, p.Number)
	if code, said := wait(); code != 0 || !strings.Contains(said, fmt.Sprintf("updated pull request %d", p.Number)) || !strings.Contains(said, fmt.Sprintf("pull request %d is merged as ", p.Number)) {
		t.Errorf("%d:\n%s", code, said)
	}
	if status, _ := g.try(t, http.MethodGet, "/repos/"+repository+"/contents/autopolicy/shop/kustomization.yaml", nil, nil); status != http.StatusOK {
		t.Errorf("the base lacks the policies after the merge: %d", status)
	}
	if said := u.does(t, 0, discover(url, observed(t, "web", "/etc/web.conf"), flags...)...); !strings.Contains(said, "nothing new: no commit") {
		t.Errorf("the same again:\n%s", said)
	}
}

func overSSH(t *testing.T, g *gitea) {
	u := newUser(t, "Jane", "GITEA_TOKEN="+g.token)
	key := filepath.Join(u.home, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	g.call(t, http.MethodPost, "/user/keys", map[string]any{"title": "test", "key": string(public)}, nil)
	host, port, _ := strings.Cut(g.ssh, ":")
	known, err := exec.Command("ssh-keyscan", "-p", port, host).Output()
	if err != nil || len(known) == 0 {
		t.Fatalf("ssh-keyscan: %v", err)
	}
	write(t, filepath.Join(u.home, "known"), string(known))
	g.story(t, "ssh", u, func(repository string) (string, []string) {
		return "ssh://git@" + g.ssh + "/" + repository + ".git", []string{"--forge-url", g.url, "--ssh-key", key, "--ssh-known-hosts", filepath.Join(u.home, "known")}
	})
}

func protected(t *testing.T, g *gitea) {
	repository := g.repository(t, "protected")
	g.call(t, http.MethodPost, "/repos/"+repository+"/branch_protections", map[string]any{"rule_name": "main", "enable_push": false}, nil)
	u := newUser(t, "Jane", "GITEA_TOKEN="+g.token)
	url := g.url + "/" + repository + ".git"
	said := u.does(t, 2, discover(url, observed(t, "web"), "--push")...)
	if !strings.Contains(said, "push to main was refused, the remote is unchanged") || !strings.Contains(said, "protected branch") || !strings.Contains(said, "hint: ") {
		t.Errorf("it says\n%s", said)
	}
	if status, _ := g.try(t, http.MethodGet, "/repos/"+repository+"/contents/autopolicy", nil, nil); status != http.StatusNotFound {
		t.Error("the branch has changed")
	}
	u.does(t, 0, discover(url, observed(t, "web"))...)
	if len(g.pulls(t, repository, "open")) != 1 {
		t.Error("no pull request")
	}
}

func expired(t *testing.T, g *gitea) {
	repository := g.repository(t, "expired")
	u := newUser(t, "Jane", "GITEA_TOKEN="+strings.Repeat("0", 40))
	said := u.does(t, 2, discover(g.url+"/"+repository+".git", observed(t, "web"))...)
	if !strings.Contains(said, "refused the") || !strings.Contains(said, "hint: ") || strings.Contains(said, strings.Repeat("0", 40)) {
		t.Errorf("it says\n%s", said)
	}
	none := newUser(t, "Jane")
	if said := none.does(t, 2, discover(g.url+"/"+repository+".git", observed(t, "web"))...); !strings.Contains(said, "GITEA_TOKEN") && !strings.Contains(said, "AUTOPOLICY_GIT_TOKEN") {
		t.Errorf("without a token it says\n%s", said)
	}
	if n := len(g.pulls(t, repository, "all")); n != 0 {
		t.Errorf("%d pull requests", n)
	}
}

func twoAtOnce(t *testing.T, g *gitea) {
	repository := g.repository(t, "two")
	url := g.url + "/" + repository + ".git"
	jane := newUser(t, "Jane", "GITEA_TOKEN="+g.token).start(t, discover(url, observed(t, "web"))...)
	john := newUser(t, "John", "GITEA_TOKEN="+g.token).start(t, discover(url, observed(t, "api"))...)
	for _, wait := range []func() (int, string){jane, john} {
		if code, said := wait(); code != 0 {
			t.Fatalf("%d:\n%s", code, said)
		}
	}
	list := g.pulls(t, repository, "all")
	if len(list) != 1 {
		t.Fatalf("%d pull requests", len(list))
	}
	for _, workload := range []string{"deployment-web", "deployment-api"} {
		path := "/repos/" + repository + "/contents/autopolicy/shop/workloads/" + workload + "/evidence.yaml?ref=" + list[0].Head.Ref
		if status, _ := g.try(t, http.MethodGet, path, nil, nil); status != http.StatusOK {
			t.Errorf("%s is lost: %d", workload, status)
		}
	}
}

func forcePushed(t *testing.T, g *gitea) {
	repository := g.repository(t, "forced")
	url := g.url + "/" + repository + ".git"
	u := newUser(t, "Jane", "GITEA_TOKEN="+g.token)
	u.does(t, 0, discover(url, observed(t, "web"))...)
	before := g.pulls(t, repository, "open")

	// Somebody writes the history of main anew.
	clone := filepath.Join(u.home, "clone")
	with := "http://" + admin + ":" + g.token + "@" + strings.TrimPrefix(url, "http://")
	for _, args := range [][]string{
		{"clone", "-q", with, clone}, {"-C", clone, "checkout", "-q", "--orphan", "new"},
		{"-C", clone, "commit", "-q", "-m", "Rewritten"}, {"-C", clone, "push", "-q", "--force", "origin", "new:main"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Env = u.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v %s", args[0], err, strings.ReplaceAll(string(out), g.token, "TOKEN"))
		}
	}
	u.does(t, 0, discover(url, observed(t, "web", "/etc/web.conf"))...)
	after := g.pulls(t, repository, "open")
	if len(before) != 1 || len(after) != 1 || after[0].Number != before[0].Number || after[0].Head.SHA == before[0].Head.SHA {
		t.Fatalf("before %+v\nafter %+v", before, after)
	}
	g.merge(t, repository, after[0].Number)
}

func declined(t *testing.T, g *gitea) {
	repository := g.repository(t, "declined")
	url := g.url + "/" + repository + ".git"
	u := newUser(t, "Jane", "GITEA_TOKEN="+g.token)
	wait := u.start(t, discover(url, observed(t, "web"), "--wait=1m")...)
	eventually(t, time.Minute, "the pull request is opened", func() bool { return len(g.pulls(t, repository, "open")) == 1 })
	first := g.pulls(t, repository, "open")[0].Number
	g.call(t, http.MethodPatch, fmt.Sprintf("/repos/%s/pulls/%d", repository, first), map[string]any{"state": "closed"}, nil)
	if code, said := wait(); code != 1 || !strings.Contains(said, "was closed without a merge") {
		t.Errorf("%d:\n%s", code, said)
	}
	// The next one is a new request on a branch that was begun anew.
	u.does(t, 0, discover(url, observed(t, "web"))...)
	open := g.pulls(t, repository, "open")
	if len(open) != 1 || open[0].Number == first {
		t.Errorf("after the first was declined: %+v", open)
	}
	if said := u.does(t, 1, discover(url, observed(t, "web", "/etc/more"), "--wait=2s")...); !strings.Contains(said, "is not merged after 2s") {
		t.Errorf("a wait that ends:\n%s", said)
	}
}

// What a pod calls its files is text in the page that Gitea makes of the body: no
// mention, link, image or element of its own.
func hostile(t *testing.T, g *gitea) {
	repository := g.repository(t, "hostile")
	u := newUser(t, "Jane", "GITEA_TOKEN="+g.token)
	names := []string{
		"/data/@" + admin, "/data/#1", "/data/</details><img src=x onerror=alert(1)>", "/data/`@" + admin + "`", "/data/```\n@" + admin,
		"/data/[x](javascript:alert(1))", "/data/https://example.com", "/data/" + admin + "/hostile#1",
	}
	u.does(t, 0, discover(g.url+"/"+repository+".git", observed(t, "web", names...))...)
	p := g.pulls(t, repository, "open")[0]
	status, page := g.try(t, http.MethodPost, "/markdown", map[string]any{"Text": p.Body, "Mode": "comment", "Context": repository}, nil)
	if status != http.StatusOK || !strings.Contains(page, "onerror") {
		t.Fatalf("%d %s", status, page)
	}
	for _, element := range []string{"<img", "<a ", "<script", "mention", "href="} {
		if i := strings.Index(page, element); i >= 0 {
			t.Errorf("the page has %q: %s", element, page[max(0, i-200):min(len(page), i+200)])
		}
	}
	var about []struct {
		Type string `json:"type"`
	}
	g.call(t, http.MethodGet, fmt.Sprintf("/repos/%s/issues/%d/timeline", repository, p.Number), nil, &about)
	for _, e := range about {
		if slices.Contains([]string{"issue_ref", "commit_ref", "comment_ref", "pull_ref"}, e.Type) {
			t.Errorf("a name became a reference: %s", e.Type)
		}
	}
}
