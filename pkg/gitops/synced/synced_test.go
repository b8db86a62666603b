package synced

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

const (
	commitA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	commitB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// apiServer answers like one: JSON by path, 404 for others, and whatever status
// a text of three digits names.
func apiServer(t *testing.T, paths map[string]string) *Reader {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", "Mon, 04 May 2026 12:00:00 GMT")
		text, ok := paths[r.URL.Path]
		code := http.StatusOK
		switch {
		case !ok:
			code = http.StatusNotFound
		case len(text) == 3:
			fmt.Sscan(text, &code)
		}
		if code != http.StatusOK {
			reason := map[int]string{404: "NotFound", 403: "Forbidden", 503: "ServiceUnavailable"}[code]
			text = fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"no"}`, reason, code)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(server.Close)
	r, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	kustomizations = "/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations"
	gitRepository1 = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/fleet"
	applications   = "/apis/argoproj.io/v1alpha1/applications"
)

func list(kind string, items ...string) string {
	return fmt.Sprintf(`{"apiVersion":"x/v1","kind":%q,"items":[%s]}`, kind+"List", strings.Join(items, ","))
}

// flux is a Kustomization; edit changes it as text.
func flux(name, path string, edit ...string) string {
	text := fmt.Sprintf(`{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization",
"metadata":{"name":%q,"namespace":"flux-system","generation":2},
"spec":{"suspend":false,"path":%q,"sourceRef":{"kind":"GitRepository","name":"fleet"}},
"status":{"observedGeneration":2,"lastAppliedRevision":"main@sha1:%s","lastAttemptedRevision":"main@sha1:%s",
"history":[{"firstReconciled":"2026-05-03T10:00:00Z","metadata":{"revision":"main@sha1:%s"}}],
"conditions":[{"type":"Ready","status":"True","reason":"ReconciliationSucceeded","observedGeneration":2,"lastTransitionTime":"2026-05-01T00:00:00Z"}]}}`, name, path, commitA, commitA, commitA)
	return strings.NewReplacer(edit...).Replace(text)
}

func fluxSource(edit ...string) string {
	text := `{"apiVersion":"source.toolkit.fluxcd.io/v1","kind":"GitRepository","metadata":{"name":"fleet","namespace":"flux-system"},
"spec":{"url":"https://git.example.com/team/fleet.git","suspend":false,"ref":{"branch":"main"}},"status":{}}`
	return strings.NewReplacer(edit...).Replace(text)
}

func argo(edit ...string) string {
	text := fmt.Sprintf(`{"apiVersion":"argoproj.io/v1alpha1","kind":"Application","metadata":{"name":"shop","namespace":"argocd"},
"spec":{"source":{"repoURL":"git@git.example.com:team/fleet","path":"autopolicy/shop","targetRevision":"main"},"syncPolicy":{"automated":{}}},
"status":{"sync":{"status":"Synced","revision":%q},"health":{"status":"Healthy"},
"operationState":{"phase":"Succeeded","finishedAt":"2026-05-03T10:00:00Z","syncResult":{"revision":%q}}}}`, commitB, commitA)
	return strings.NewReplacer(edit...).Replace(text)
}

func target() Target {
	return Target{Repository: "https://git.example.com/team/fleet", Branch: "main", Folder: "autopolicy/shop"}
}

func TestReport(t *testing.T) {
	then := time.Date(2026, 5, 3, 10, 0, 0, 0, time.UTC)
	named := func(name string) Target { x := target(); x.Named = name; return x }
	other := "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/"
	const by, argoBy = "Flux's Kustomization flux-system/fleet", "Argo CD's Application argocd/shop"
	for _, c := range []struct {
		name   string
		target Target
		paths  map[string]string
		want   Report
	}{
		{"nobody where neither is installed", target(), nil, Report{}},
		{"nobody where none applies the folder", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "./apps")), gitRepository1: fluxSource()}, Report{}},
		{"nobody where the repository is another", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "./autopolicy")), gitRepository1: fluxSource("team/fleet", "team/other")}, Report{}},
		{"Flux by a folder above", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "./autopolicy")), gitRepository1: fluxSource()}, Report{By: by, Revision: commitA, Since: then}},
		{"Flux by the whole repository over ssh", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "")), gitRepository1: fluxSource("https://", "ssh://git@")}, Report{By: by, Revision: commitA, Since: then}},
		{"the nearest of two", target(), map[string]string{kustomizations: list("Kustomization", flux("all", "./"), flux("fleet", "./autopolicy/shop")), gitRepository1: fluxSource()}, Report{By: by, Revision: commitA, Since: then}},
		{"Flux suspended", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy", `"suspend":false`, `"suspend":true`)), gitRepository1: fluxSource()},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"it is suspended"}}},
		{"its source suspended", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy")), gitRepository1: fluxSource(`"suspend":false`, `"suspend":true`)},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"its GitRepository fleet is suspended"}}},
		{"Flux on another branch", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy")), gitRepository1: fluxSource(`"branch":"main"`, `"branch":"prod"`)},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"its GitRepository fleet follows branch prod, not main"}}},
		{"Flux that failed on a newer commit still runs the older", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy", `"status":"True","reason":"ReconciliationSucceeded"`, `"status":"False","reason":"BuildFailed","message":"no such file"`)), gitRepository1: fluxSource()},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"it is not ready: BuildFailed: no such file"}}},
		{"Flux that has not seen its own change", target(), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy", `"generation":2`, `"generation":3`)), gitRepository1: fluxSource()},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"it has not been reconciled as it stands"}}},
		{"Flux by name, whatever it applies", named("flux/flux-system/fleet"), map[string]string{other + "fleet": flux("fleet", "elsewhere"), gitRepository1: fluxSource("team/fleet", "mirror/fleet")},
			Report{By: by, Revision: commitA, Since: then, Obstacles: []string{"its source is another repository"}}},
		{"none by name, though there is one", named("none"), map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy")), gitRepository1: fluxSource()}, Report{}},
		{"Argo CD that is synced to a commit that changed nothing", target(), map[string]string{applications: list("Application", argo())}, Report{By: argoBy, Revision: commitB, Since: then}},
		{"Argo CD that knows a newer commit and has not applied it", target(), map[string]string{applications: list("Application", argo(`"Synced"`, `"OutOfSync"`))},
			Report{By: argoBy, Revision: commitA, Since: then, Obstacles: []string{"it is OutOfSync"}}},
		{"Argo CD at work", target(), map[string]string{applications: list("Application", argo(`"phase":"Succeeded"`, `"phase":"Running"`))}, Report{By: argoBy}},
		{"Argo CD without auto-sync", target(), map[string]string{applications: list("Application", argo(`"automated":{}`, `"x":{}`))},
			Report{By: argoBy, Revision: commitB, Since: then, Obstacles: []string{"its auto-sync is off"}}},
		{"Argo CD with auto-sync switched off", target(), map[string]string{applications: list("Application", argo(`"automated":{}`, `"automated":{"enabled":false}`))},
			Report{By: argoBy, Revision: commitB, Since: then, Obstacles: []string{"its auto-sync is off"}}},
		{"Argo CD that is not healthy", target(), map[string]string{applications: list("Application", argo("Healthy", "Degraded"))},
			Report{By: argoBy, Revision: commitB, Since: then, Obstacles: []string{"its health is Degraded"}}},
		{"Argo CD with several sources", target(), map[string]string{applications: list("Application", argo(`"source":{`, `"sources":[{"repoURL":"https://charts.example.com","chart":"x"},{`, `"main"}`, `"main"}]`,
			`"revision":"`+commitB+`"`, `"revisions":["1.0","`+commitB+`"]`, `"revision":"`+commitA+`"`, `"revisions":["1.0","`+commitA+`"]`))}, Report{By: argoBy, Revision: commitB, Since: then}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := apiServer(t, c.paths)
			got, err := r.Report(t.Context(), c.target)
			if err != nil {
				t.Fatal(err)
			}
			if got.By != c.want.By || got.Revision != c.want.Revision || !got.Since.Equal(c.want.Since) || !slices.Equal(got.Obstacles, c.want.Obstacles) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestReportRefuses(t *testing.T) {
	forbidden := map[string]string{kustomizations: "403", "/apis/kustomize.toolkit.fluxcd.io/v1": `{"kind":"APIResourceList","groupVersion":"kustomize.toolkit.fluxcd.io/v1","resources":[{"name":"kustomizations","namespaced":true,"kind":"Kustomization"}]}`}
	var right *DeniedError
	if _, err := apiServer(t, forbidden).Report(t.Context(), target()); !errors.As(err, &right) || !strings.Contains(right.Hint(), "verbs: [list]") {
		t.Errorf("a missing right gives %v", err)
	}
	delete(forbidden, "/apis/kustomize.toolkit.fluxcd.io/v1")
	if got, err := apiServer(t, forbidden).Report(t.Context(), target()); err != nil || got.By != "" {
		t.Errorf("no right to a kind that is not there gives %v, %v", got, err)
	}
	two := map[string]string{kustomizations: list("Kustomization", flux("fleet", "autopolicy/shop")), gitRepository1: fluxSource(), applications: list("Application", argo())}
	var both *AmbiguousError
	if _, err := apiServer(t, two).Report(t.Context(), target()); !errors.As(err, &both) || len(both.By) != 2 {
		t.Errorf("two that apply it give %v", err)
	}
	for _, name := range []string{"flux", "flux/x", "helm/a/b", "flux//x", "argocd/a/b/c"} {
		if CheckName(name) == nil {
			t.Errorf("%s passes", name)
		}
	}
	missing := target()
	missing.Named = "flux/flux-system/gone"
	if _, err := apiServer(t, nil).Report(t.Context(), missing); err == nil {
		t.Error("one that is named and not there gives no error")
	}
}

func TestPlacesAreTheSame(t *testing.T) {
	for _, same := range [][]string{
		{"https://git.example.com/team/fleet.git", "https://user:x@Git.Example.com:443/team/fleet", "git@git.example.com:team/fleet.git", "ssh://git@git.example.com/team/fleet/", "ssh://git@git.example.com:22/team/fleet.git"},
		{"file:///srv/fleet.git", "/srv/fleet.git", "/srv/fleet"},
		{"http://git.example.com:3000/team/fleet", "http://git.example.com:3000/team/fleet.git"},
	} {
		for _, other := range same[1:] {
			if place(other) != place(same[0]) {
				t.Errorf("%s is at %s, %s at %s", same[0], place(same[0]), other, place(other))
			}
		}
	}
	if place("https://git.example.com/a/fleet") == place("https://git.example.com/b/fleet") || place("http://git.example.com:3000/a/b") == place("http://git.example.com/a/b") {
		t.Error("two places are one")
	}
}

func TestCompare(t *testing.T) {
	policy := func(edit ...string) string {
		return strings.NewReplacer(edit...).Replace(`{"apiVersion":"security.kubearmor.com/v1","kind":"KubeArmorPolicy","metadata":{"name":"autopolicy-deployment-web","namespace":"shop","creationTimestamp":"2026-05-01T00:00:00Z",
"managedFields":[{"manager":"a","time":"2026-05-02T00:00:00Z"},{"manager":"s","subresource":"status","time":"2026-05-03T00:00:00Z"}]},
"spec":{"severity":5,"action":"Allow","file":{"matchPaths":[{"path":"/etc/x","readOnly":true}]},"tags":[]},"status":{"x":1}}`)
	}
	wanted := `{"apiVersion":"security.kubearmor.com/v1","kind":"KubeArmorPolicy","metadata":{"name":"autopolicy-deployment-web","namespace":"shop"},"spec":{"severity":5,"file":{"matchPaths":[{"path":"/etc/x","readOnly":true}]},"process":{}}}`
	const group, plural = "/apis/security.kubearmor.com/v1", "/apis/security.kubearmor.com/v1/namespaces/shop/kubearmorpolicies"
	known := `{"kind":"APIResourceList","groupVersion":"security.kubearmor.com/v1","resources":[{"name":"kubearmorpolicies","namespaced":true,"kind":"KubeArmorPolicy"},{"name":"kubearmorpolicies/status","namespaced":true,"kind":"KubeArmorPolicy"}]}`
	for _, c := range []struct {
		name   string
		paths  map[string]string
		state  State
		detail string
	}{
		{"an object with defaults of the server is the same", map[string]string{group: known, plural: list("KubeArmorPolicy", policy())}, Same, ""},
		{"a changed field is found", map[string]string{group: known, plural: list("KubeArmorPolicy", policy("/etc/x", "/etc/y"))}, Changed, "spec.file.matchPaths[0].path"},
		{"a rule that was added is found", map[string]string{group: known, plural: list("KubeArmorPolicy", policy(`[{"path":"/etc/x","readOnly":true}]`, `[{"path":"/etc/x","readOnly":true},{"path":"/"}]`))}, Changed, "spec.file.matchPaths"},
		{"a changed number is found", map[string]string{group: known, plural: list("KubeArmorPolicy", policy(`"severity":5`, `"severity":6`))}, Changed, "spec.severity"},
		{"a deleted object is missing", map[string]string{group: known, plural: list("KubeArmorPolicy")}, Missing, ""},
		{"a CRD that is not there", map[string]string{"/apis": `{"kind":"APIGroupList","groups":[]}`, "/api": `{"kind":"APIVersions","versions":["v1"]}`}, NoKind, "the cluster does not know security.kubearmor.com: its CRD is not installed"},
		{"a CRD of another version", map[string]string{"/apis": `{"kind":"APIGroupList","groups":[{"name":"security.kubearmor.com","versions":[{"groupVersion":"security.kubearmor.com/v2","version":"v2"}]}]}`, "/api": `{"kind":"APIVersions","versions":["v1"]}`}, NoKind,
			"the cluster has security.kubearmor.com in version v2, not v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := apiServer(t, c.paths)
			got, err := r.Compare(t.Context(), Wanted{Namespace: "shop", Prefix: "autopolicy-", Objects: [][]byte{[]byte(wanted)}})
			if err != nil || len(got) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			if got[0].State != c.state || got[0].Detail != c.detail {
				t.Errorf("got %+v", got[0])
			}
			if c.state == Same && !got[0].Since.Equal(time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("since %v: a change of the status counts, or one of the object does not", got[0].Since)
			}
			if !r.Now().Equal(time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)) {
				t.Errorf("the cluster's clock says %v", r.Now())
			}
		})
	}
	t.Run("what another commit left is found, what others made is not", func(t *testing.T) {
		r := apiServer(t, map[string]string{group: known, plural: list("KubeArmorPolicy", policy(), policy("deployment-web", "deployment-old"), policy("autopolicy-deployment-web", "somebody"))})
		got, err := r.Compare(t.Context(), Wanted{Namespace: "shop", Prefix: "autopolicy-", Also: []string{"security.kubearmor.com/v1/KubeArmorPolicy"}, Objects: [][]byte{[]byte(wanted)}})
		if err != nil || len(got) != 2 || got[0].State != Extra || got[0].Name != "autopolicy-deployment-old" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("no object is an error", func(t *testing.T) {
		if _, err := apiServer(t, nil).Compare(t.Context(), Wanted{Objects: [][]byte{[]byte("[]")}}); !errors.Is(err, ErrNotJSON) {
			t.Errorf("%v", err)
		}
	})
}

// An API server that restarts refuses connections, then answers that it is not
// ready, then answers.
func TestAnAPIServerThatRestartsIsWaitedFor(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch n := asked.Add(1); {
		case n <= 2:
			panic(http.ErrAbortHandler) // the connection breaks
		case n <= 4:
			w.WriteHeader(http.StatusServiceUnavailable)
			json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "code": 503, "reason": "ServiceUnavailable"})
		default:
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "code": 404, "reason": "NotFound"})
		}
	}))
	defer server.Close()
	r, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context) error { _, err := r.Report(ctx, target()); return err }
	if err := Patiently(t.Context(), time.Minute, time.Millisecond, ask); err != nil || asked.Load() < 5 {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
	denied := func(context.Context) error { asked.Store(0); return errors.New("it will never be") }
	if err := Patiently(t.Context(), time.Minute, time.Millisecond, denied); err == nil {
		t.Error("an error that does not end by itself is waited for")
	}
	tries := 0
	away := func(context.Context) error {
		tries++
		return &url.Error{Op: "Get", URL: "https://cluster", Err: errors.New("connection refused")}
	}
	if err := Patiently(t.Context(), 50*time.Millisecond, time.Millisecond, away); err == nil || tries < 2 || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v after %d tries", err, tries)
	}
}
