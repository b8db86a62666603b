// Package rival holds cases of what other tools make of the same traffic: where
// theirs lets in or breaks what it should not, and ours does not. Inspektor
// Gadget's advisor runs here as it is. kguardian and Otterize need a cluster with
// their controllers to run; what they make is written down from their own words.
package rival_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/inspektor-gadget/inspektor-gadget/pkg/gadgets/advise/networkpolicy/advisor"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

func web() behavior.Workload {
	return behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
}

// pod is who is judged; a replica has the labels that every rollout gives anew.
func pod() engine.Subject {
	return engine.Subject{Subject: behavior.Subject{Workload: web(), Container: "web"}, Labels: map[string]string{"app": "web"}}
}

func connects(port uint16, peer behavior.Peer) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Exe: "/web", Direction: behavior.Egress, Protocol: "tcp", Port: port, Peer: peer}
}

func api() behavior.Peer {
	return behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api"}
}

func at(address, name string) behavior.Peer {
	return behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr(address), Name: name}
}

// judge reads policies as the engine does.
func judge(t *testing.T, e engine.Engine, documents ...[]byte) engine.Judge {
	t.Helper()
	var objects []engine.Object
	for _, d := range documents {
		data, err := yaml.YAMLToJSON(d)
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := json.Unmarshal(data, &head); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, engine.Object{APIVersion: head.APIVersion, Kind: head.Kind, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, JSON: data})
	}
	j, err := e.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// ours is what we make of facts.
func ours(t *testing.T, e engine.Engine, facts ...behavior.Fact) engine.Judge {
	t.Helper()
	p := behavior.Profile{Subject: pod().Subject, Labels: "app=web"}
	for _, f := range facts {
		p.Add(f, behavior.Evidence{Pods: map[string]uint64{"web-1": 1}})
	}
	set, err := learn.Rules([]behavior.Profile{p}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.Render(set)
	if err != nil {
		t.Fatal(err)
	}
	return judge(t, e, out.Base)
}

// advised is what Inspektor Gadget's advisor makes of an event.
func advised(t *testing.T, event string) engine.Judge {
	t.Helper()
	a := advisor.NewAdvisor()
	if err := a.LoadBuffer([]byte(event)); err != nil {
		t.Fatal(err)
	}
	a.GeneratePolicies()
	if len(a.Policies) != 1 {
		t.Fatalf("it makes %d policies of one event", len(a.Policies))
	}
	return judge(t, netpol.New(), []byte(a.FormatPolicies()))
}

// decisions tells what theirs and ours decide, and what is right.
func decisions(t *testing.T, theirs, ours engine.Judge, f behavior.Fact, right engine.Decision) {
	t.Helper()
	if got := theirs.Judge(pod(), f); got.Decision == right || got.Decision == engine.Unknown {
		t.Errorf("theirs is right about %s: %s", f, got.Decision)
	}
	if got := ours.Judge(pod(), f); got.Decision != right {
		t.Errorf("ours is %s (%s) about %s, right is %s", got.Decision, got.Reason, f, right)
	}
}

// One address of IPv6 becomes 2^96 of them: the advisor ends every address in /32.
func TestInspektorGadgetOpensAnIPv6ProvidersWholeRange(t *testing.T) {
	theirs := advised(t, `[{"type":"normal","k8s":{"namespace":"shop","podName":"web-1"},"pktType":"OUTGOING","proto":"tcp","port":443,
		"podLabels":{"app":"web","pod-template-hash":"5d4f"},"dst":{"addr":"2001:db8::7","version":6,"kind":"raw"}}]`)
	mine := ours(t, netpol.New(), connects(443, at("2001:db8::7", "")))
	decisions(t, theirs, mine, connects(443, at("2001:db8:ffff::1", "")), engine.Denied)
	for name, j := range map[string]engine.Judge{"theirs": theirs, "ours": mine} {
		if v := j.Judge(pod(), connects(443, at("2001:db8::7", ""))); v.Decision != engine.Allowed {
			t.Errorf("%s denies what was seen", name)
		}
	}
}

// What is asked of a Service arrives at its pods' own port, and that is where a
// policy is asked.
func TestInspektorGadgetTakesTheServicesPortForThePods(t *testing.T) {
	theirs := advised(t, `[{"type":"normal","k8s":{"namespace":"shop","podName":"web-1"},"pktType":"OUTGOING","proto":"tcp","port":80,
		"podLabels":{"app":"web"},"dst":{"addr":"10.2.0.1","version":4,"kind":"svc","namespace":"shop","podname":"api","podlabels":{"app":"api"}}}]`)
	c := topology.New()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for kind, o := range map[string]string{
		"Pod":        `{"metadata":{"namespace":"shop","name":"api-1","labels":{"app":"api"},"ownerReferences":[{"kind":"Deployment","name":"api","controller":true}]},"spec":{"containers":[{"name":"c","ports":[{"name":"http","containerPort":8080}]}]},"status":{"phase":"Running","podIP":"10.1.0.5"}}`,
		"Deployment": `{"metadata":{"namespace":"shop","name":"api"},"spec":{"selector":{"matchLabels":{"app":"api"}}}}`,
		"Service":    `{"metadata":{"namespace":"shop","name":"api"},"spec":{"clusterIP":"10.2.0.1","selector":{"app":"api"},"ports":[{"port":80,"targetPort":"http"}]}}`,
	} {
		if err := c.Add(kind, []byte(o), now); err != nil {
			t.Fatal(err)
		}
	}
	seen := connects(80, behavior.Peer{Address: netip.MustParseAddr("10.2.0.1")})
	mine := ours(t, netpol.New(), c.Resolve(seen, "shop", "web-1", now)...)
	decisions(t, theirs, mine, connects(8080, api()), engine.Allowed)
}

// kguardian makes a default-deny policy of a pod without traffic ("No traffic data
// available for pod ... Generating a default-deny policy", advisor/pkg/network/
// standard_policy.go), so that a pod that nobody watched is cut off.
func TestKguardianDeniesAllWhereNothingWasSeen(t *testing.T) {
	theirs := judge(t, netpol.New(), []byte(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-standard-policy-deny-all, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [], egress: []}`))
	if v := theirs.Judge(pod(), connects(8080, api())); v.Decision != engine.Denied {
		t.Errorf("theirs is %s", v.Decision)
	}
	_, err := learn.Rules([]behavior.Profile{{Subject: pod().Subject, Labels: "app=web"}}, learn.Options{})
	if !errors.Is(err, learn.ErrNothingObserved) {
		t.Errorf("ours of nothing gives %v", err)
	}
}

// kguardian pins who is outside to the address that was seen (peersForResolved in
// the same file, toCIDR for Cilium), which a name leaves whenever it likes.
func TestKguardianPinsANameToTheAddressOfTheDay(t *testing.T) {
	theirs := judge(t, cilium.New(cilium.Options{}), []byte(`
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toCIDR: [203.0.113.7/32]
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]`))
	dns := connects(53, behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "kube-system", Workload: "deployment-coredns", Labels: "k8s-app=kube-dns"})
	dns.Protocol = "udp"
	mine := ours(t, cilium.New(cilium.Options{}), dns, connects(443, at("203.0.113.7", "cdn.example")))
	decisions(t, theirs, mine, connects(443, at("203.0.113.99", "cdn.example")), engine.Allowed)
}

// Otterize's policies of pod to pod end at who ("To Port: <any> (traffic allowed to
// all ports)", README of its intents operator): who may use the shop may use its
// administration, too.
func TestOtterizeOpensEveryPort(t *testing.T) {
	theirs := judge(t, netpol.New(), []byte(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: access-to-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: api}}
      namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}`))
	enters := func(port uint16) behavior.Fact {
		f := connects(port, api())
		f.Direction = behavior.Ingress
		return f
	}
	mine := ours(t, netpol.New(), enters(8080))
	decisions(t, theirs, mine, enters(9000), engine.Denied)
	if v := mine.Judge(pod(), enters(8080)); v.Decision != engine.Allowed {
		t.Errorf("ours denies what was seen: %s", v.Reason)
	}
}
