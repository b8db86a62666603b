package overlay_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// many is a namespace of workloads with random engines and stages.
func many(tb testing.TB, n int, r *rand.Rand) overlay.Tree {
	tb.Helper()
	tree := overlay.Tree{
		"custom/mine.yaml": []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\n"),
	}
	stages := map[string]policy.Stage{}
	for i := range n {
		w := overlay.Workload{Slug: fmt.Sprintf("deployment-web-%d", i), Withheld: r.IntN(2) == 0, Base: map[string][]byte{}}
		for name, text := range map[string]string{"cilium.yaml": cnp, "netpol.yaml": np, "kubearmor.yaml": ksp} {
			text = strings.ReplaceAll(text, "deployment-web", w.Slug)
			if r.IntN(4) > 0 {
				w.Base[name] = []byte(text + "---\n" + strings.ReplaceAll(text, w.Slug, w.Slug+"--two"))
			}
		}
		for name, data := range w.Base {
			tree[overlay.BaseFolder(w.Slug)+"/"+name] = data
		}
		files, err := overlay.Render(w)
		if err != nil {
			tb.Fatal(err)
		}
		maps.Copy(tree, files)
		stages[w.Slug] = []policy.Stage{policy.Audit, policy.Deny}[r.IntN(2)]
		tree[overlay.StageFolder(w.Slug, stages[w.Slug])+"/seccomp-web.json"] = []byte("{}")
	}
	var err error
	if tree["namespace.yaml"], err = overlay.Namespace(nil, "shop", overlay.PostureBlock); err != nil {
		tb.Fatal(err)
	}
	if tree["kustomization.yaml"], err = overlay.SetStages(tree, stages, true); err != nil {
		tb.Fatal(err)
	}
	tree["kustomization.yaml"] = append(tree["kustomization.yaml"], "- custom/mine.yaml\n"...)
	return tree
}

// withOddities adds to some bases what a person might write, which kustomize may
// pass on, change or leave out.
func withOddities(tb testing.TB, t overlay.Tree, r *rand.Rand) overlay.Tree {
	tb.Helper()
	changes := map[string][]byte{}
	for _, slug := range overlay.Slugs(t) {
		odd := []string{"", "metadata: {name: NAME}", "metadata:\n  name: NAME\n  annotations: {a: b}", "metadata:\n  name: NAME\n  namespace: \"7\"",
			"metadata: {name: NAME, labels: {a: 'yes', b: null}}", "metadata: {name: NAME, annotations: {config.kubernetes.io/local-config: 'true'}}",
		}[r.IntN(6)]
		base := overlay.BaseFolder(slug) + "/"
		if odd == "" || strings.HasSuffix(string(t[base+"kustomization.yaml"]), "[]\n") {
			continue
		}
		text := "# A person's own.\napiVersion: v1\nkind: ConfigMap\n" + strings.ReplaceAll(odd, "NAME", "odd-"+slug) +
			"\ndata: {y: yes, n: 0o17, o: 017, x: 0x1F, e: 1e3, f: 1.50, s: \"1\", d: 2001-01-01, u: \"\\u2028<&>\", z: ~, m: {}, l: []}\n"
		if r.IntN(2) == 0 {
			text += "binary: |\n  a\n   b\n"
		}
		changes[base+"odd.yaml"] = []byte(text)
		changes[base+"kustomization.yaml"] = append(slices.Clone(t[base+"kustomization.yaml"]), "- odd.yaml\n"...)
	}
	return t.With(changes)
}

// whole makes the root kustomization one that has to be built at once.
func whole(t overlay.Tree) overlay.Tree {
	return t.With(map[string][]byte{"kustomization.yaml": append(slices.Clone(t["kustomization.yaml"]), "generatorOptions: {}\n"...)})
}

func TestBuildingApartGivesWhatBuildingAtOnceGives(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		tree := withOddities(t, many(t, int(seed%7), r), r)
		apart, err := overlay.Build(tree)
		if err != nil {
			t.Fatal(err)
		}
		at, err := overlay.Build(whole(tree))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(apart, at, func(a, b engine.Object) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }) {
			t.Fatalf("seed %d: apart\n%s\nat once\n%s", seed, kinds(apart), kinds(at))
		}
	}
}

func TestObjectsThatAreThereTwiceAreRefused(t *testing.T) {
	tree := many(t, 1, rand.New(rand.NewPCG(1, 1)))
	tree["custom/again.yaml"] = []byte(strings.ReplaceAll(cnp+"---\n"+np+"---\n"+ksp, "deployment-web", "deployment-web-0"))
	tree["kustomization.yaml"] = append(tree["kustomization.yaml"], "- custom/again.yaml\n"...)
	for name, tree := range map[string]overlay.Tree{"apart": tree, "at once": whole(tree)} {
		_, err := overlay.Build(tree)
		var invalid *overlay.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("built %s: got %v", name, err)
		}
	}
}

// A person's kustomization below custom/ may use what it likes of the allowed
// fields, and is built with all the rest.
func TestFoldersOfPeopleAreBuilt(t *testing.T) {
	tree := many(t, 2, rand.New(rand.NewPCG(1, 1))).With(map[string][]byte{
		"custom/more/kustomization.yaml": []byte("resources: [cm.yaml]\nnameSuffix: -x\n"),
		"custom/more/cm.yaml":            []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n"),
	})
	tree["kustomization.yaml"] = append(tree["kustomization.yaml"], "- custom/more\n"...)
	objects, err := overlay.Build(tree)
	if err != nil || !slices.ContainsFunc(objects, func(o engine.Object) bool { return o.Name == "c-x" }) {
		t.Fatalf("got %v, %q", err, kinds(objects))
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("%d workloads", n), func(b *testing.B) {
			tree := many(b, n, rand.New(rand.NewPCG(1, 1)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := overlay.Build(tree); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
