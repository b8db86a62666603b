package overlay_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"os"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

const (
	cnp = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: autopolicy-deployment-web\n  namespace: shop\nspec:\n  endpointSelector: {}\n"
	np  = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: autopolicy-deployment-web\n  namespace: shop\nspec:\n  podSelector: {}\n"
	ksp = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: autopolicy-deployment-web\n  namespace: shop\nspec:\n  action: Allow\n"
)

// shop is a namespace with one workload and all engines.
func shop(t *testing.T, stage policy.Stage, withheld bool) overlay.Tree {
	t.Helper()
	w := overlay.Workload{Slug: "deployment-web", Withheld: withheld, Base: map[string][]byte{
		"cilium.yaml": []byte(cnp), "networkpolicy.yaml": []byte(np), "kubearmor.yaml": []byte(ksp),
	}}
	tree := overlay.Tree{
		"workloads/deployment-web/audit/seccomp-web.json": []byte(`{"defaultAction":"SCMP_ACT_LOG"}`),
		"workloads/deployment-web/deny/seccomp-web.json":  []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`),
		"workloads/deployment-web/evidence.yaml":          []byte("kind: Evidence\n"),
	}
	for name, data := range w.Base {
		tree[overlay.BaseFolder(w.Slug)+"/"+name] = data
	}
	files, err := overlay.Render(w)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(tree, files)
	posture := overlay.PostureAudit
	if stage == policy.Deny || withheld {
		posture = overlay.PostureBlock
	}
	if tree["namespace.yaml"], err = overlay.Namespace(nil, "shop", posture); err != nil {
		t.Fatal(err)
	}
	if tree["kustomization.yaml"], err = overlay.SetStages(tree, map[string]policy.Stage{w.Slug: stage}, true); err != nil {
		t.Fatal(err)
	}
	return tree
}

func kinds(objects []engine.Object) []string {
	var list []string
	for _, o := range objects {
		list = append(list, o.Kind+o.File)
	}
	return list
}

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name     string
		stage    policy.Stage
		withheld bool
		kinds    []string
		defaults string
	}{
		{"audit leaves out what cannot only report", policy.Audit, false, []string{"Namespace", "CiliumNetworkPolicy", "KubeArmorPolicy", "seccomp-web.json"}, `"enableDefaultDeny":{"egress":false,"ingress":false}`},
		{"audit beside a denying workload withholds KubeArmor's policies", policy.Audit, true, []string{"Namespace", "CiliumNetworkPolicy", "seccomp-web.json"}, `"enableDefaultDeny":{"egress":false,"ingress":false}`},
		{"deny applies the base as it is", policy.Deny, false, []string{"Namespace", "CiliumNetworkPolicy", "KubeArmorPolicy", "NetworkPolicy", "seccomp-web.json"}, `"spec":{"endpointSelector":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := shop(t, c.stage, c.withheld)
			if err := overlay.Check(tree); err != nil {
				t.Fatal(err)
			}
			objects, err := overlay.Build(tree)
			if err != nil {
				t.Fatal(err)
			}
			if got := kinds(objects); !slices.Equal(got, c.kinds) {
				t.Errorf("built %q, want %q", got, c.kinds)
			}
			if got := string(objects[1].JSON); !strings.Contains(got, c.defaults) {
				t.Errorf("policy is %s, want %s in it", got, c.defaults)
			}
			last := objects[len(objects)-1]
			if last.Workload != "deployment-web" || string(last.JSON) != string(tree[overlay.StageFolder("deployment-web", c.stage)+"/seccomp-web.json"]) {
				t.Errorf("the file beside stage %s is %+v", c.stage, last)
			}
		})
	}
}

func TestEmptyTreeBuildsNothing(t *testing.T) {
	objects, err := overlay.Build(overlay.Tree{})
	if err != nil || len(objects) != 0 {
		t.Fatalf("got %v, %v", objects, err)
	}
	if err := overlay.Check(nil); err != nil {
		t.Fatal(err)
	}
}

// What we build has to be what kubectl applies.
func TestKubectlBuildsTheSame(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("SKIPPED: kubectl is not installed, so its build is not compared with ours")
	}
	for _, stage := range []policy.Stage{policy.Audit, policy.Deny} {
		tree := shop(t, stage, false)
		dir := t.TempDir()
		for p, data := range tree {
			p = filepath.Join(dir, filepath.FromSlash(p))
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("kubectl", "kustomize", dir).Output()
		if err != nil {
			t.Fatalf("kubectl kustomize: %v", err)
		}
		theirs := map[string]bool{}
		for doc := range strings.SplitSeq(string(out), "\n---\n") {
			data, err := yaml.YAMLToJSON([]byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			theirs[string(data)] = true
		}
		objects, err := overlay.Build(tree)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, o := range objects {
			if o.File != "" {
				continue
			}
			n++
			ours, err := yaml.YAMLToJSON(o.JSON)
			if err != nil || !theirs[string(ours)] {
				t.Errorf("kubectl does not build %s (%v)", ours, err)
			}
		}
		if n != len(theirs) {
			t.Errorf("kubectl builds %d objects, we %d", len(theirs), n)
		}
	}
}

func TestHostileTreesAreRefused(t *testing.T) {
	resources := func(list ...string) map[string][]byte {
		return map[string][]byte{"kustomization.yaml": []byte("resources:\n- " + strings.Join(list, "\n- ") + "\n")}
	}
	raw := func(file, text string) map[string][]byte { return map[string][]byte{file: []byte(text)} }
	diamond := map[string][]byte{"kustomization.yaml": []byte("resources:\n- a0\n")}
	for i := range 20 {
		n := "../a" + string(rune('a'+i))
		name := "a" + string(rune('a'+i-1))
		if i == 0 {
			name = "a0"
		}
		diamond[name+"/kustomization.yaml"] = []byte("resources:\n- " + n + "\n- ./" + n + "\n")
	}
	diamond["at/kustomization.yaml"] = []byte("resources: []\n")
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string
	}{
		{"a remote base over https", resources("https://example.com/org/repo?ref=main"), "kustomization.yaml:2: remote resource"},
		{"a remote base over ssh", resources("ssh://git@example.com/org/repo"), "kustomization.yaml:2: remote resource"},
		{"a remote base in scp form", resources("git@example.com:org/repo"), "kustomization.yaml:2: remote resource"},
		{"a remote base in scp form without a colon", resources("git@example.com/org/repo"), "kustomization.yaml:2: remote resource"},
		{"a remote base that is also a folder", map[string][]byte{"kustomization.yaml": []byte("resources:\n- GitHub.com/org/repo\n"), "GitHub.com/org/repo/kustomization.yaml": []byte("resources: []\n")}, "kustomization.yaml:2: remote resource"},
		{"a local repository by file address", resources("file:///etc"), "kustomization.yaml:2: remote resource"},
		{"a patch from a web server", raw("kustomization.yaml", "patches:\n- path: https://example.com/p.yaml\n"), "kustomization.yaml:2: remote resource"},
		{"a replacement from a web server", raw("kustomization.yaml", "replacements:\n- path: http://example.com/p.yaml\n"), "kustomization.yaml:2: remote resource"},
		{"a config map of a file from a web server", raw("kustomization.yaml", "configMapGenerator:\n- name: a\n  files:\n  - k=https://example.com/p\n"), "kustomization.yaml:4: remote resource"},
		{"a path that leaves the folder", resources("../../other"), "leaves the namespace's folder"},
		{"a path that leaves the folder in the middle", resources("custom/../../other"), "leaves the namespace's folder"},
		{"an absolute path", resources("/etc"), "plain relative path"},
		{"a helm chart", raw("kustomization.yaml", "resources: []\nhelmCharts:\n- name: x\n  repo: https://example.com\n"), "kustomization.yaml:2: helm charts"},
		{"a generator plugin", raw("kustomization.yaml", "generators:\n- g.yaml\n"), "kustomization.yaml:1: generators may run programs"},
		{"an inline transformer with a container function", raw("kustomization.yaml", "transformers:\n- |-\n  apiVersion: v1\n"), "transformers may run programs"},
		{"a validator", raw("kustomization.yaml", "validators:\n- g.yaml\n"), "validators may run programs"},
		{"a schema from elsewhere", raw("kustomization.yaml", "openapi:\n  path: s.json\n"), "field openapi is not accepted"},
		{"a plugin in a nested kustomization", map[string][]byte{"kustomization.yaml": []byte("resources:\n- custom\n"), "custom/kustomization.yml": []byte("generators:\n- g\n")}, "custom/kustomization.yml:1: generators"},
		{"a plugin in a component", map[string][]byte{"kustomization.yaml": []byte("components:\n- custom\n"), "custom/kustomization.yaml": []byte("kind: Component\ntransformers:\n- g\n")}, "custom/kustomization.yaml:2: transformers"},
		{"a YAML bomb", map[string][]byte{"kustomization.yaml": []byte("resources:\n- x.yaml\n"), "x.yaml": []byte("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")}, "x.yaml:2: YAML aliases"},
		{"a YAML bomb in an inline patch", raw("kustomization.yaml", "patches:\n- patch: |-\n    a: &a [x,x]\n    b: [*a,*a]\n"), "kustomization.yaml:4: YAML aliases"},
		{"a key that is there twice", raw("kustomization.yaml", "resources: []\nkind: Kustomization\nresources: [x]\n"), "kustomization.yaml:3: key resources is there twice"},
		{"a key that is there twice in a policy", map[string][]byte{"kustomization.yaml": []byte("resources:\n- x.yaml\n"), "x.yaml": []byte("a:\n  b: 1\n  b: 2\n")}, "x.yaml:3: key b is there twice"},
		{"values nested without end", map[string][]byte{"kustomization.yaml": []byte("resources:\n- x.yaml\n"), "x.yaml": []byte("a: " + strings.Repeat("[", 500) + strings.Repeat("]", 500))}, "nested too deep"},
		{"a kustomization that includes itself", map[string][]byte{"kustomization.yaml": []byte("resources:\n- a\n"), "a/kustomization.yaml": []byte("resources:\n- ../b\n"), "b/kustomization.yaml": []byte("resources:\n- ../a\n")}, "includes itself"},
		{"kustomizations that double at every level", diamond, "include each other too often"},
		{"two kustomizations in one folder", map[string][]byte{"kustomization.yaml": []byte("resources: []\n"), "Kustomization": []byte("resources: []\n")}, "second kustomization"},
		{"a file that is missing", resources("x.yaml"), "kustomization.yaml:2: there is no file or folder x.yaml"},
		{"a stage that does not exist", resources("workloads/deployment-web/enforce"), "kustomization.yaml:2: workload deployment-web: want"},
		{"a workload at two stages", resources("workloads/deployment-web/audit", "workloads/deployment-web/deny"), "kustomization.yaml:3: workload deployment-web is listed twice"},
		{"a file name that leaves the tree", map[string][]byte{"kustomization.yaml": []byte("resources: []\n"), "../x": nil}, "not a plain path"},
		{"text that is no YAML", raw("kustomization.yaml", "resources:\n- a\n b: [\n"), "kustomization.yaml:3: not YAML"},
		{"control characters in a name", resources(`"a\e[31mb"`), `"a\x1b[31mb"`},
		{"a policy that kustomize cannot read", map[string][]byte{"kustomization.yaml": []byte("resources:\n- x.yaml\n"), "x.yaml": []byte("kind: Pod\n")}, "does not build"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := overlay.Build(c.files)
			var invalid *overlay.InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an InvalidError with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "/tree") {
				t.Errorf("the error names our own folder: %v", err)
			}
		})
	}
}

func TestCheckNamesTheStageThatDoesNotBuild(t *testing.T) {
	tree := shop(t, policy.Audit, false)
	file := "workloads/deployment-web/deny/kustomization.yaml"
	tree[file] = []byte("resources:\n- ../base\npatches:\n- patch: |-\n    kind: Nobody\n    apiVersion: v1\n    metadata: {name: none}\n")
	if _, err := overlay.Build(tree); err != nil {
		t.Fatalf("the applied stage builds, but: %v", err)
	}
	err := overlay.Check(tree)
	var invalid *overlay.InvalidError
	if !errors.As(err, &invalid) || invalid.File != file {
		t.Fatalf("got %v, want an error about %s", err, file)
	}
}

func TestSetStages(t *testing.T) {
	for _, c := range []struct {
		name, in  string
		want      map[string]policy.Stage
		namespace bool
		out       string
	}{
		{"changes one line and no other byte", "# ours\nresources:   # list\n- custom/a.yaml\n\n-   \"workloads/deployment-web/audit\"   # since May\n- custom/b.yaml\nnamespace: shop\n",
			map[string]policy.Stage{"deployment-web": policy.Deny}, false,
			"# ours\nresources:   # list\n- custom/a.yaml\n\n-   \"workloads/deployment-web/deny\"   # since May\n- custom/b.yaml\nnamespace: shop\n"},
		{"puts new workloads in order among ours", "resources:\n  - custom\n  - workloads/b/deny\n  - other.yaml\n",
			map[string]policy.Stage{"c": policy.Audit, "a": policy.Audit}, false,
			"resources:\n  - custom\n  - workloads/a/audit\n  - workloads/b/deny\n  - workloads/c/audit\n  - other.yaml\n"},
		{"lists the namespace first", "resources:\n- workloads/b/deny\n", nil, true, "resources:\n- namespace.yaml\n- workloads/b/deny\n"},
		{"keeps a namespace that is listed", "resources:\n- x\n- ./namespace.yaml\n", nil, true, "resources:\n- x\n- ./namespace.yaml\n"},
		{"takes a workload away at stage observe", "resources:\n- a.yaml\n- workloads/b/deny # gone\n- c.yaml\n", map[string]policy.Stage{"b": policy.Observe}, false, "resources:\n- a.yaml\n- c.yaml\n"},
		{"fills an empty list", "resources: []  # none\nkind: Kustomization\n", map[string]policy.Stage{"b": policy.Audit}, false, "resources:  # none\n- workloads/b/audit\nkind: Kustomization\n"},
		{"fills a list without a value", "resources:\nkind: Kustomization\n", map[string]policy.Stage{"b": policy.Audit}, false, "resources:\n- workloads/b/audit\nkind: Kustomization\n"},
		{"adds a list where there is none", "namespace: shop", map[string]policy.Stage{"b": policy.Audit}, false, "namespace: shop\nresources:\n- workloads/b/audit\n"},
		{"follows the last line without a line end", "resources:\n- x.yaml", map[string]policy.Stage{"b": policy.Audit}, false, "resources:\n- x.yaml\n- workloads/b/audit\n"},
		{"keeps the line ends of Windows", "resources:\r\n- workloads/a/audit\r\n", map[string]policy.Stage{"a": policy.Deny, "b": policy.Audit}, false, "resources:\r\n- workloads/a/deny\r\n- workloads/b/audit\r\n"},
		{"leaves a file alone that says it already", "resources: [workloads/a/audit]\n", map[string]policy.Stage{"a": policy.Audit}, false, "resources: [workloads/a/audit]\n"},
		{"changes a stage in a list on one line", "resources: [x.yaml, workloads/a/audit, y.yaml]\n", map[string]policy.Stage{"a": policy.Deny}, false, "resources: [x.yaml, workloads/a/deny, y.yaml]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := overlay.SetStages(overlay.Tree{"kustomization.yaml": []byte(c.in)}, c.want, c.namespace)
			if err != nil || string(got) != c.out {
				t.Fatalf("got %v\n%s\nwant\n%s", err, got, c.out)
			}
		})
	}
	for name, in := range map[string]string{
		"an entry in a list on one line": "resources: [x.yaml]\n",
		"entries below their dash":       "resources:\n-\n  workloads/a/audit\n",
	} {
		t.Run("refuses to add to "+name, func(t *testing.T) {
			got, err := overlay.SetStages(overlay.Tree{"kustomization.yaml": []byte(in)}, map[string]policy.Stage{"b": policy.Audit}, false)
			var invalid *overlay.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v and\n%s", err, got)
			}
		})
	}
}

// Setting stages one after the other, in any order, ends at the same bytes.
func TestSetStagesDoesNotDependOnOrder(t *testing.T) {
	slugs := []string{"a", "b", "cronjob-c", "deployment-d", "e"}
	want := ""
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		tree := overlay.Tree{}
		for _, i := range r.Perm(len(slugs)) {
			data, err := overlay.SetStages(tree, map[string]policy.Stage{slugs[i]: policy.Audit}, i == 0)
			if err != nil {
				t.Fatal(err)
			}
			tree = tree.With(map[string][]byte{"kustomization.yaml": data})
		}
		if got := string(tree["kustomization.yaml"]); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("seed %d gives\n%s\nwant\n%s", seed, got, want)
		}
	}
}

func TestNamespaceKeepsEverythingButThePosture(t *testing.T) {
	old, err := overlay.Namespace(nil, "123", overlay.PostureAudit)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(old), `name: "123"`) {
		t.Errorf("a name that looks like a number is not quoted:\n%s", old)
	}
	edited := strings.Replace(string(old), "    kustomize", "    kubearmor-visibility: process # mine\n    kustomize", 1)
	got, err := overlay.Namespace([]byte(edited), "123", overlay.PostureBlock)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(edited, "posture: audit", "posture: block")
	if string(got) != want || strings.Count(want, "block") != 3 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := overlay.Namespace([]byte("kind: Namespace\n"), "x", overlay.PostureBlock); err == nil {
		t.Error("a file without the annotations was accepted")
	}
}

func TestCheckSlug(t *testing.T) {
	for _, s := range []string{"deployment-web", "pod-a.b", "cronjob-1"} {
		if err := overlay.CheckSlug(s); err != nil {
			t.Errorf("%s is refused: %v", s, err)
		}
	}
	for _, s := range []string{"", "..", "a/b", "A", "a..b", ".all", "-a", "a b", "a\n", strings.Repeat("a", 254)} {
		if overlay.CheckSlug(s) == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzBuild(f *testing.F) {
	f.Add([]byte("resources:\n- https://example.com/x\n"), []byte("a: &a [*a]\n"))
	f.Add([]byte("resources:\n- x.yaml\npatches:\n- path: x.yaml\n"), []byte(cnp))
	f.Fuzz(func(t *testing.T, kustomization, resource []byte) {
		tree := overlay.Tree{"kustomization.yaml": kustomization, "x.yaml": resource}
		if _, err := overlay.Build(tree); err != nil {
			var invalid *overlay.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("error of another type: %v", err)
			}
			return
		}
		data, err := overlay.SetStages(tree, map[string]policy.Stage{"a": policy.Audit}, true)
		if err != nil {
			return
		}
		stages, err := overlay.Stages(overlay.Tree{"kustomization.yaml": data})
		if err != nil || stages["a"] != policy.Audit {
			t.Fatalf("stage is lost (%v) in\n%s", err, data)
		}
	})
}
