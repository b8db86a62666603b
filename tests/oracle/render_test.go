package oracle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// observed makes facts of a pod and those whom it may speak with, some of which
// show what was said.
func observed(g *rand.Rand, subject end, all []end, n int, ports []engine.Port) []behavior.Fact {
	var facts []behavior.Fact
	for range n {
		peer := all[g.IntN(len(all))]
		port := ports[g.IntN(len(ports))]
		f := behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: behavior.Egress, Protocol: port.Protocol, Port: port.Number, Peer: peer.peer}
		if g.IntN(2) == 0 {
			f.Direction, f.Peer.Name = behavior.Ingress, ""
		}
		if peer.id == subject.id {
			continue
		}
		facts = append(facts, f)
		said := f
		switch {
		case f.Protocol == "tcp" && f.Port == 8080 && g.IntN(2) == 0:
			said.Kind, said.Type, said.Name, said.Target = behavior.HTTP, "http", []string{"GET", "M.*"}[g.IntN(2)], []string{"api", "api.shop:80"}[g.IntN(2)]
			for i := range 5 {
				said.Path = fmt.Sprintf([]string{"/items/%d", "/a.b(c)/%d", "/word%d"}[g.IntN(3)], i)
				facts = append(facts, said)
			}
		case f.Port == 53 && f.Direction == behavior.Egress && g.IntN(2) == 0:
			said.Kind, said.Direction, said.Type, said.Name = behavior.DNS, "", "A", []string{"api.example.com", "www.example.org", "7.2.0.192.in-addr.arpa"}[g.IntN(3)]
			facts = append(facts, said)
		}
	}
	return facts
}

// learned makes the set that facts become.
func learned(t *testing.T, subject end, facts []behavior.Fact) policy.Set {
	t.Helper()
	p := behavior.Profile{Subject: behavior.Subject{Workload: subject.subject().Workload, Container: "app"}, Labels: behavior.FormatLabels(subject.labels)}
	for _, f := range facts {
		p.Add(f, behavior.Evidence{Pods: map[string]uint64{"pod": 1}})
	}
	set, err := learn.Rules([]behavior.Profile{p}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
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
		facts := observed(g, subject, all, 2+g.IntN(12), testPorts())
		if len(facts) == 0 {
			continue
		}
		set := learned(t, subject, facts)
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
		asked := subject.subject()
		var kept behavior.Facts
		for _, f := range facts {
			kept.Add(f, behavior.Evidence{})
		}
		asked.Inside = engine.Inside(kept)
		for _, f := range facts {
			for _, peer := range all {
				named := peer.peer
				if named.Name = f.Peer.Name; named != f.Peer || peer.id == subject.id {
					continue
				}
				direction := f.Direction
				if f.Kind == behavior.DNS {
					direction = behavior.Egress
				}
				if f.Peer.Name == peer.peer.Name && !repo.allows(t, subject, peer, direction, f.Protocol, f.Port) {
					t.Fatalf("Cilium denies %s with %s\n%s", f, peer.id.LabelArray, data)
				}
				if f.Kind != behavior.Network && !repo.passes(t, subject, peer, f) {
					t.Fatalf("Cilium's proxy stops %s\n%s", f, data)
				}
			}
			if v := j.Judge(asked, f); v.Decision != engine.Allowed {
				t.Fatalf("we say %v of %s\n%s", v, f, data)
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
