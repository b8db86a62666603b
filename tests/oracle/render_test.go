package oracle_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/policy/utils"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// learned makes the set that a workload's facts would become.
func learned(g *rand.Rand, subject end, all []end, n int) policy.Set {
	s := policy.Set{Workload: subject.subject().Workload, Labels: subject.labels, Containers: []string{"app"}}
	for range n {
		peer := all[g.IntN(len(all))]
		port := testPorts()[g.IntN(len(testPorts()))]
		f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: port.Protocol, Port: port.Number, Peer: peer.peer}
		if g.IntN(2) == 0 {
			f.Direction = behavior.Ingress
		}
		s.Rules = append(s.Rules, policy.Rule{Kind: f.Kind, Container: "app", Direction: f.Direction, Protocol: f.Protocol, Port: f.Port, Peer: f.Peer,
			Facts: behavior.Selected(behavior.Observed{Fact: f})})
	}
	slices.SortFunc(s.Rules, policy.Compare)
	return s
}

// render gives the one object of a rendered base, as JSON.
func render(t *testing.T, e engine.Engine, s policy.Set) (engine.Object, []byte) {
	t.Helper()
	out, err := e.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.YAMLToJSON(out.Base)
	if err != nil {
		t.Fatal(err)
	}
	return objectOf(t, data), data
}

// TestCiliumTakesWhatIsRendered gives rendered policies to Cilium: its schema
// and its parser take them, it allows every fact that they came from, and it
// agrees with our judge about everything else.
func TestCiliumTakesWhatIsRendered(t *testing.T) {
	setUp()
	g := rand.New(rand.NewPCG(3, 4))
	all := ends()
	schema := crdValidator(t)
	var count tally
	for range 60 {
		subject := all[g.IntN(6)]
		set := learned(g, subject, all, 1+g.IntN(12))
		o, data := render(t, cilium.New(cilium.Options{InspectDNS: g.IntN(2) == 0}), set)
		if err := schema(data); err != nil {
			t.Fatalf("the CRD refuses it: %v\n%s", err, data)
		}
		repo := newRepository(all)
		var cnp ciliumv2.CiliumNetworkPolicy
		if err := json.Unmarshal(data, &cnp); err != nil {
			t.Fatal(err)
		}
		rules, err := cnp.Parse(repo.log, clusterName)
		if err != nil {
			t.Fatalf("Cilium refuses it: %v\n%s", err, data)
		}
		repo.add(0, utils.RulesToPolicyEntries(rules))
		j, err := cilium.New(cilium.Options{}).Parse([]engine.Object{o})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Rules {
			for _, peer := range all {
				if peer.peer != r.Peer || peer.id == subject.id {
					continue
				}
				if !repo.allows(t, subject, peer, r.Direction, r.Protocol, r.Port) {
					t.Fatalf("Cilium denies %s with %s\n%s", r, peer.id.LabelArray, data)
				}
				if v := j.Judge(subject.subject(), r.Facts.List()[0].Fact); v.Decision != engine.Allowed {
					t.Fatalf("we say %v of %s\n%s", v, r, data)
				}
			}
		}
		count.compare(t, j, repo, all, testPorts(), func() string { return string(data) })
	}
	t.Logf("%d verdicts: %d allowed, %d denied, %d unknown", count.allowed+count.denied+count.unknown, count.allowed, count.denied, count.unknown)
}

// crdValidator checks objects against the CRD file in Cilium's module.
func crdValidator(t *testing.T) func(data []byte) error {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cilium/cilium").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(file, &crd); err != nil {
		t.Fatal(err)
	}
	var schema apiextensions.CustomResourceValidation
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(crd.Spec.Versions[0].Schema, &schema, nil); err != nil {
		t.Fatal(err)
	}
	v, _, err := validation.NewSchemaValidator(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	return func(data []byte) error {
		var object map[string]any
		if err := json.Unmarshal(data, &object); err != nil {
			return err
		}
		return validation.ValidateCustomResource(nil, object, v).ToAggregate()
	}
}
