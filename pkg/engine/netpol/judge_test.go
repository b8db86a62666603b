package netpol_test

import (
	"errors"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
)

func np(spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: " + spec
}

func TestJudge(t *testing.T) {
	in := network(behavior.Ingress, "tcp", 8080, workload("shop", "app=api"))
	foreign := network(behavior.Ingress, "tcp", 8080, workload("other", "app=api"))
	out := network(behavior.Egress, "tcp", 443, address(behavior.PeerOutside, "203.0.113.9"))
	for _, c := range []struct {
		name string
		spec string
		fact behavior.Fact
		want engine.Decision
	}{
		{"another workload's policy is not about it", `{podSelector: {matchLabels: {app: api}}}`, in, engine.NotMine},
		{"a policy without types is about ingress", `{podSelector: {}}`, in, engine.Denied},
		{"and not about egress", `{podSelector: {}}`, out, engine.NotMine},
		{"unless it has egress rules", `{podSelector: {}, egress: [{ports: [{port: 80}]}]}`, out, engine.Denied},
		{"types say what it is about", `{podSelector: {}, policyTypes: [Egress]}`, in, engine.NotMine},
		{"rules of a type that is not named have no effect", `{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`, out, engine.NotMine},
		{"the empty rule is anyone", `{podSelector: {}, ingress: [{}]}`, in, engine.Allowed},
		{"an empty from is anyone", `{podSelector: {}, ingress: [{from: [], ports: [{port: 8080}]}]}`, foreign, engine.Allowed},
		{"a pod selector alone is of the namespace", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, in, engine.Allowed},
		{"and of no other", `{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, foreign, engine.Denied},
		{"every namespace", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, foreign, engine.Allowed},
		{"a namespace by its name", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]}`, foreign, engine.Allowed},
		{"a namespace by a label that nobody knows", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}`, foreign, engine.Unknown},
		{"both selectors of one peer must match", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}]}`, foreign, engine.Denied},
		{"expressions count", `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [api, x]}]}}]}]}`, in, engine.Allowed},
		{"a policy may be about it by a label that nobody knows", `{podSelector: {matchLabels: {version: v2}}}`, in, engine.Unknown},
		{"a port within a range", `{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8080}]}]}`, in, engine.Allowed},
		{"a port beyond a range", `{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8079}]}]}`, in, engine.Denied},
		{"a port without a number is every one", `{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}`, in, engine.Allowed},
		{"of its protocol", `{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`, in, engine.Denied},
		{"no protocol is TCP", `{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}`, network(behavior.Ingress, "udp", 8080, workload("shop", "app=api")), engine.Denied},
		{"a named port's number is not known", `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`, in, engine.Unknown},
		{"an address in a block", `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`, out, engine.Allowed},
		{"an address in its exception", `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.8/29]}}]}]}`, out, engine.Denied},
		{"an address of the other family", `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: "::/0"}}]}]}`, out, engine.Denied},
		{"whether a block reaches pods is not known", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, in, engine.Unknown},
		{"no selector reaches outside", `{podSelector: {}, egress: [{to: [{namespaceSelector: {}}]}]}`, out, engine.Denied},
		{"the pod's own node always gets in", `{podSelector: {}}`, network(behavior.Ingress, "tcp", 8080, address(behavior.PeerNode, "10.0.0.1")), engine.Unknown},
		{"which needs no rule when it is known to be that", `{podSelector: {}}`, network(behavior.Ingress, "tcp", 8080, behavior.Peer{Kind: behavior.PeerOwnNode}), engine.Allowed},
		{"a node is its address", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/32}}]}]}`, network(behavior.Ingress, "tcp", 8080, address(behavior.PeerNode, "10.0.0.1")), engine.Allowed},
		{"going to a node is not getting in", `{podSelector: {}, policyTypes: [Egress]}`, network(behavior.Egress, "tcp", 10250, address(behavior.PeerNode, "10.0.0.1")), engine.Denied},
		{"ICMP is the plugin's affair", `{podSelector: {}, egress: [{}]}`, network(behavior.Egress, "icmp", 0, address(behavior.PeerOutside, "203.0.113.9")), engine.Unknown},
		{"who is not known may be allowed", `{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}`, network(behavior.Egress, "tcp", 80, behavior.Peer{}), engine.Unknown},
		{"itself meets no policy", `{podSelector: {}, policyTypes: [Ingress, Egress]}`, network(behavior.Egress, "tcp", 80, behavior.Peer{Kind: behavior.PeerSelf}), engine.NotMine},
		{"listening meets no policy", `{podSelector: {}}`, network(behavior.Listen, "tcp", 80, behavior.Peer{}), engine.NotMine},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := parse(t, np(c.spec)).Judge(subject(), c.fact)
			if v.Decision != c.want {
				t.Errorf("got %v (%s: %s), want %v", v.Decision, v.Object, v.Reason, c.want)
			}
			if (v.Decision == engine.NotMine) != (v.Object == "") || v.Decision != engine.NotMine && v.Reason == "" {
				t.Errorf("verdict without its reason: %+v", v)
			}
		})
	}
}

func TestSeveralPoliciesAddUp(t *testing.T) {
	j, err := netpol.New().Parse([]engine.Object{object(t, np(`{podSelector: {}}`)),
		object(t, np(`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080}]}]}`))})
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]engine.Decision{8080: engine.Allowed, 8081: engine.Denied} {
		if v := j.Judge(subject(), network(behavior.Ingress, "tcp", port, workload("other", "a=b"))); v.Decision != want {
			t.Errorf("port %d: %+v", port, v)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, spec := range map[string]string{
		"a field that the API would drop":      `{podSelector: {}, ingress: [{from: [{podSelector: {}}], port: [{port: 80}]}]}`,
		"an empty peer":                        `{podSelector: {}, ingress: [{from: [{}]}]}`,
		"a block beside a selector":            `{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 1.2.3.4/32}}]}]}`,
		"an exception outside its block":       `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 1.2.3.0/24, except: [1.2.4.0/25]}}]}]}`,
		"an exception as large as its block":   `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 1.2.3.0/24, except: [1.2.3.0/24]}}]}]}`,
		"a block that is none":                 `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: example.com}}]}]}`,
		"a range without a number":             `{podSelector: {}, ingress: [{ports: [{port: http, endPort: 90}]}]}`,
		"a range that goes backwards":          `{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}`,
		"port 0":                               `{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`,
		"a port beyond all":                    `{podSelector: {}, ingress: [{ports: [{port: 70000}]}]}`,
		"a port name that is none":             `{podSelector: {}, ingress: [{ports: [{port: "80"}]}]}`,
		"a protocol in small letters":          `{podSelector: {}, ingress: [{ports: [{protocol: tcp}]}]}`,
		"a type that is none":                  `{podSelector: {}, policyTypes: [ingress]}`,
		"a label with a source as Cilium's is": `{podSelector: {matchLabels: {"k8s:app": web}}}`,
		"an operator that is none":             `{podSelector: {matchExpressions: [{key: app, operator: Is}]}}`,
	} {
		_, err := netpol.New().Parse([]engine.Object{object(t, np(spec))})
		var invalid *engine.InvalidError
		if !errors.As(err, &invalid) || invalid.Object != "NetworkPolicy/p" || invalid.Reason == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := netpol.New().Parse([]engine.Object{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: "p", JSON: []byte(`{}`)}}); err == nil {
		t.Error("a policy without a spec passed")
	}
}

// FuzzParse feeds specs that people or others may have broken.
func FuzzParse(f *testing.F) {
	f.Add(`{"podSelector":{"matchLabels":{"app":"x"}},"ingress":[{"from":[{"podSelector":{}}],"ports":[{"port":80,"endPort":90}]}]}`)
	f.Add(`{"podSelector":{},"egress":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["1.2.3.4/32"]}}],"ports":[{"port":"http"}]}]}`)
	f.Fuzz(func(t *testing.T, spec string) {
		o := engine.Object{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: "p\n", JSON: []byte(`{"spec":` + spec + `}`)}
		j, err := netpol.New().Parse([]engine.Object{o})
		if err != nil {
			if !behavior.IsEscaped(err.Error()) {
				t.Errorf("error is not escaped: %q", err)
			}
			return
		}
		v := j.Judge(subject(), network(behavior.Egress, "tcp", 80, address(behavior.PeerOutside, "203.0.113.9")))
		if !behavior.IsEscaped(v.Object) || !behavior.IsEscaped(v.Reason) {
			t.Errorf("verdict is not escaped: %+v", v)
		}
	})
}
