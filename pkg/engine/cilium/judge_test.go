package cilium_test

import (
	"errors"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
)

func cnp(spec string) string {
	return "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: " + spec
}

// TestJudge says what Cilium's own engine cannot be asked in tests/oracle: what
// is unknown, and reasons. Everything else is compared there.
func TestJudge(t *testing.T) {
	api := network(behavior.Egress, "tcp", 80, workload("shop", "app=api"))
	outside := network(behavior.Egress, "tcp", 443, address(behavior.PeerOutside, "203.0.113.9"))
	node := func(d behavior.Direction) behavior.Fact {
		return network(d, "tcp", 8080, address(behavior.PeerNode, "10.0.0.1"))
	}
	server := network(behavior.Egress, "tcp", 6443, address(behavior.PeerAPIServer, "10.0.0.9"))
	ping := network(behavior.Egress, "icmp", 0, address(behavior.PeerOutside, "203.0.113.9"))
	byName := outside
	byName.Peer.Name = "example.com"
	question := func(name string) behavior.Fact {
		return behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: name, Type: "A", Peer: workload("shop", "k8s-app=kube-dns")}
	}
	asks := func(method, host, path string) behavior.Fact {
		return behavior.Fact{Kind: behavior.HTTP, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Type: "http", Name: method, Target: host, Path: path, Peer: api.Peer}
	}
	dnsSpec := `{endpointSelector: {}, egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchName: example.com}, {matchPattern: "*.*.*.*.in-addr.arpa"}]}}]}]}`
	httpSpec := `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: "GET|HEAD", path: "/items/[0-9]+"}]}}]}]}`
	throughService := api
	throughService.Peer.Service = "api:80"
	for _, c := range []struct {
		name string
		spec string
		fact behavior.Fact
		want engine.Decision
	}{
		{"another workload's policy is not about it", `{endpointSelector: {matchLabels: {app: api}}, egress: [{}]}`, api, engine.NotMine},
		{"the other direction is not about it", `{endpointSelector: {}, ingress: [{}]}`, api, engine.NotMine},
		{"an empty list of rules is not about it", `{endpointSelector: {}, ingress: [{}], egress: []}`, api, engine.NotMine},
		{"the empty rule allows nothing", `{endpointSelector: {}, egress: [{}]}`, api, engine.Denied},
		{"the empty selector is the namespace", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}]}`, api, engine.Allowed},
		{"and no other namespace", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}]}`, network(behavior.Egress, "tcp", 80, workload("other", "app=api")), engine.Denied},
		{"a policy that asks for a label nobody knows may be about it", `{endpointSelector: {matchLabels: {version: v2}}, egress: [{}]}`, api, engine.Unknown},
		{"a peer may have a label that nobody knows", `{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {version: v2}}]}]}`, api, engine.Unknown},
		{"a peer's label of another value is known", `{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {version: v2, app: web}}]}]}`, api, engine.Denied},
		{"labels of the peer's namespace are not known", `{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: a}}]}]}`, api, engine.Unknown},
		{"but its name is", `{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name: shop}}]}]}`, api, engine.Allowed},
		{"a named port's number is not known", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: http}]}]}]}`, api, engine.Unknown},
		{"names of an address are not known", `{endpointSelector: {}, egress: [{toFQDNs: [{matchName: example.com}]}]}`, outside, engine.Unknown},
		{"the name that was asked for is", `{endpointSelector: {}, egress: [{toFQDNs: [{matchName: Example.com.}]}]}`, byName, engine.Allowed},
		{"another name is not it", `{endpointSelector: {}, egress: [{toFQDNs: [{matchName: www.example.com}, {matchPattern: "*.example.com"}]}]}`, byName, engine.Denied},
		{"a pattern selects it", `{endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: "ex*.c*"}]}]}`, byName, engine.Allowed},
		{"an asterisk does not reach across a dot", `{endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: "e*m"}]}]}`, byName, engine.Denied},
		{"a question for a name that is allowed", dnsSpec, question("example.com"), engine.Allowed},
		{"a question for another", dnsSpec, question("evil.example.com"), engine.Denied},
		{"a question for a name of a pattern", dnsSpec, question("4.3.2.10.in-addr.arpa"), engine.Allowed},
		{"a question where no rule looks at questions", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "53"}]}]}]}`, question("x.example"), engine.Allowed},
		{"a question to another server", `{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {k8s-app: other}}], toPorts: [{ports: [{port: "53"}]}]}]}`, question("example.com"), engine.Denied},
		{"a question to a server that nobody knows is judged by the name", dnsSpec, behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: "example.com"}, engine.Allowed},
		{"and refused by it", dnsSpec, behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: "evil.example"}, engine.Denied},
		{"which questions the connection carried is not known", dnsSpec, network(behavior.Egress, "udp", 53, workload("shop", "k8s-app=kube-dns")), engine.Unknown},
		{"a request that is allowed", httpSpec, asks("GET", "api", "/items/17"), engine.Allowed},
		{"one with another method", httpSpec, asks("POST", "api", "/items/17"), engine.Denied},
		{"one with a path beyond", httpSpec, asks("GET", "api", "/items/17/x"), engine.Denied},
		{"one with a path before", httpSpec, asks("GET", "api", "/v1/items/17"), engine.Denied},
		{"one of another host", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{host: "api[.]shop"}]}}]}]}`, asks("GET", "api", "/"), engine.Denied},
		{"headers are not known", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{headers: ["X-A"]}]}}]}]}`, asks("GET", "api", "/"), engine.Unknown},
		{"another rule lets any request pass", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}, {toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: PUT}]}}]}]}`, asks("GET", "api", "/"), engine.Allowed},
		{"a metadata address is one of the world", `{endpointSelector: {}, egress: [{toCIDR: [169.254.169.254/32]}]}`, network(behavior.Egress, "tcp", 80, address(behavior.PeerLinkLocal, "169.254.169.254")), engine.Allowed},
		{"a pod is never told by a name", `{endpointSelector: {}, egress: [{toFQDNs: [{matchName: example.com}]}]}`, api, engine.Denied},
		{"a CIDR group's addresses are not known", `{endpointSelector: {}, egress: [{toCIDRSet: [{cidrGroupRef: g}]}]}`, outside, engine.Unknown},
		{"groups of a cloud are not known", `{endpointSelector: {}, egress: [{toGroups: [{aws: {}}]}]}`, outside, engine.Unknown},
		{"HTTP requests are not known", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]}]}`, api, engine.Unknown},
		{"the HTTP rule that allows all is no question", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{}]}}]}]}`, api, engine.Allowed},
		{"layer 7 rules of another port do not matter", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "81", protocol: TCP}], rules: {http: [{method: GET}]}}, {ports: [{port: "80"}]}]}]}`, api, engine.Allowed},
		{"server names are not known", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [a.example]}]}]}`, outside, engine.Unknown},
		{"whether a peer proves itself is not known", `{endpointSelector: {}, egress: [{toEndpoints: [{}], authentication: {mode: required}}]}`, api, engine.Unknown},
		{"a Service that the fact went through", `{endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: api, namespace: shop}}]}]}`, throughService, engine.Allowed},
		{"a Service that it may have", `{endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: other}}]}]}`, throughService, engine.Unknown},
		{"any node is host and remote-node", `{endpointSelector: {}, egress: [{toEntities: [host, remote-node]}]}`, node(behavior.Egress), engine.Allowed},
		{"which node is not known", `{endpointSelector: {}, egress: [{toEntities: [remote-node]}]}`, node(behavior.Egress), engine.Unknown},
		{"a node is not an address", `{endpointSelector: {}, egress: [{toCIDR: [10.0.0.0/8]}]}`, node(behavior.Egress), engine.Denied},
		{"the pod's own node always gets in", `{endpointSelector: {}, ingress: [{}]}`, node(behavior.Ingress), engine.Unknown},
		{"which needs no rule when it is known to be that", `{endpointSelector: {}, ingress: [{}]}`, network(behavior.Ingress, "tcp", 8080, behavior.Peer{Kind: behavior.PeerOwnNode}), engine.Allowed},
		{"going to it does", `{endpointSelector: {}, egress: [{toEntities: [remote-node]}]}`, network(behavior.Egress, "tcp", 10250, behavior.Peer{Kind: behavior.PeerOwnNode}), engine.Denied},
		{"as the host", `{endpointSelector: {}, egress: [{toEntities: [host]}]}`, network(behavior.Egress, "tcp", 10250, behavior.Peer{Kind: behavior.PeerOwnNode}), engine.Allowed},
		{"nodes that are asked for by label are not known", `{endpointSelector: {}, egress: [{toNodes: [{matchLabels: {a: b}}]}]}`, node(behavior.Egress), engine.Unknown},
		{"the API server is its entity", `{endpointSelector: {}, egress: [{toEntities: [kube-apiserver]}]}`, server, engine.Allowed},
		{"whether the API server is on a node is not known", `{endpointSelector: {}, egress: [{toCIDR: [10.0.0.9/32]}]}`, server, engine.Unknown},
		{"world-ipv4 hangs on the cluster's address families", `{endpointSelector: {}, egress: [{toEntities: [world-ipv4]}]}`, outside, engine.Unknown},
		{"ICMP needs no port", `{endpointSelector: {}, egress: [{toEntities: [world]}]}`, ping, engine.Allowed},
		{"ICMP is not TCP", `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "0"}]}]}]}`, ping, engine.Denied},
		{"a ping is an echo request", `{endpointSelector: {}, egress: [{icmps: [{fields: [{type: 8}]}]}]}`, ping, engine.Allowed},
		{"by its name, too", `{endpointSelector: {}, egress: [{icmps: [{fields: [{type: EchoRequest}]}]}]}`, ping, engine.Allowed},
		{"and nothing else", `{endpointSelector: {}, egress: [{icmps: [{fields: [{type: 13}]}]}]}`, ping, engine.Denied},
		{"but type 0 is every type to Cilium", `{endpointSelector: {}, egress: [{icmps: [{fields: [{type: EchoReply}]}]}]}`, ping, engine.Allowed},
		{"nor one of IPv6", `{endpointSelector: {}, egress: [{icmps: [{fields: [{family: IPv6, type: 128}]}]}]}`, ping, engine.Denied},
		{"who is not known may be allowed", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}]}`, network(behavior.Egress, "tcp", 80, behavior.Peer{}), engine.Unknown},
		{"anyone includes who is not known", `{endpointSelector: {}, egress: [{toEntities: [all]}]}`, network(behavior.Egress, "tcp", 80, behavior.Peer{}), engine.Allowed},
		{"a deny rule beats the allowing one", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}], egressDeny: [{toEndpoints: [{matchLabels: {app: api}}]}]}`, api, engine.Denied},
		{"a deny rule that may match", `{endpointSelector: {}, egress: [{toEndpoints: [{}]}], egressDeny: [{toEndpoints: [{matchLabels: {version: v2}}]}]}`, api, engine.Unknown},
		{"without default deny all passes", `{endpointSelector: {}, egress: [{}], enableDefaultDeny: {egress: false}}`, api, engine.Allowed},
		{"but what a deny rule names", `{endpointSelector: {}, egressDeny: [{toEndpoints: [{}]}], enableDefaultDeny: {egress: false}}`, api, engine.Denied},
		{"listening meets no policy", `{endpointSelector: {}, ingress: [{}], egress: [{}]}`, network(behavior.Listen, "tcp", 80, behavior.Peer{}), engine.NotMine},
		{"itself meets no policy", `{endpointSelector: {}, ingress: [{}], egress: [{}]}`, network(behavior.Egress, "tcp", 80, behavior.Peer{Kind: behavior.PeerSelf}), engine.NotMine},
		{"files meet no policy", `{endpointSelector: {}, ingress: [{}], egress: [{}]}`, behavior.Fact{Kind: behavior.File, Path: "/x", Access: behavior.Read}, engine.NotMine},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := parse(t, cnp(c.spec)).Judge(subject(), c.fact)
			if v.Decision != c.want {
				t.Errorf("got %v (%s: %s), want %v", v.Decision, v.Object, v.Reason, c.want)
			}
			if (v.Decision == engine.NotMine) != (v.Object == "") || v.Decision != engine.NotMine && v.Reason == "" {
				t.Errorf("verdict without its reason: %+v", v)
			}
		})
	}
}

func TestJudgeOfClusterwidePolicies(t *testing.T) {
	j := parse(t, "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: all}\nspec: {endpointSelector: {}, egress: [{toEndpoints: [{}]}]}")
	if v := j.Judge(subject(), network(behavior.Egress, "tcp", 80, workload("other", "app=x"))); v.Decision != engine.Allowed {
		t.Errorf("pods of any namespace: %+v", v)
	}
	if v := j.Judge(subject(), network(behavior.Egress, "tcp", 80, address(behavior.PeerOutside, "203.0.113.9"))); v.Decision != engine.Denied {
		t.Errorf("outside: %+v", v)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, spec := range map[string]string{
		"a field that the API would drop": `{endpointSelector: {}, egress: [{toEndpoints: [{}], toPort: [{}]}]}`,
		"a port that is a number":         `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: 80}]}]}]}`,
		"a protocol in small letters":     `{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: "80", protocol: tcp}]}]}]}`,
		"no direction":                    `{endpointSelector: {}}`,
		"no selector":                     `{egress: [{}]}`,
		"a selector of nodes":             `{nodeSelector: {}, egress: [{}]}`,
		"both selectors":                  `{endpointSelector: {}, nodeSelector: {}, egress: [{}]}`,
		"peers of two kinds":              `{endpointSelector: {}, egress: [{toCIDR: [1.2.3.4/32], toEndpoints: [{}]}]}`,
		"an entity that is none":          `{endpointSelector: {}, egress: [{toEntities: [internet]}]}`,
		"an address that is none":         `{endpointSelector: {}, egress: [{toCIDR: [example.com]}]}`,
		"DNS rules on ingress":            `{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "53"}], rules: {dns: [{matchPattern: "*"}]}}]}]}`,
		"HTTP rules on UDP":               `{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: UDP}], rules: {http: [{}]}}]}]}`,
		"ICMP with ports":                 `{endpointSelector: {}, ingress: [{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: "80"}]}]}]}`,
		"layer 7 in a deny rule":          `{endpointSelector: {}, egressDeny: [{toPorts: [{ports: [{port: "80"}], rules: {http: [{}]}}]}]}`,
		"nothing":                         `null`,
		"a list":                          `[]`,
	} {
		_, err := cilium.New(cilium.Options{}).Parse([]engine.Object{object(t, cnp(spec))})
		var invalid *engine.InvalidError
		if !errors.As(err, &invalid) || invalid.Object != "CiliumNetworkPolicy/p" || invalid.Reason == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestParsePassesOverWhatIsNotItsOwn(t *testing.T) {
	j, err := cilium.New(cilium.Options{}).Parse([]engine.Object{
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: "x", JSON: []byte("{")},
		{Workload: "deployment-web", File: "seccomp.json", JSON: []byte("{")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := j.Judge(subject(), network(behavior.Egress, "tcp", 80, workload("shop", "app=api"))); v.Decision != engine.NotMine {
		t.Errorf("got %+v", v)
	}
}

// FuzzParse feeds specs that people or others may have broken.
func FuzzParse(f *testing.F) {
	f.Add(`{"endpointSelector":{"matchLabels":{"k8s:app":"x"}},"egress":[{"toEndpoints":[{}],"toPorts":[{"ports":[{"port":"80"}]}]}]}`)
	f.Add(`{"endpointSelector":{},"ingress":[{"fromCIDRSet":[{"cidr":"0.0.0.0/0","except":["1.2.3.4/32"]}]}],"egressDeny":[{"toEntities":["all"]}]}`)
	f.Add(`{"endpointSelector":null,"ingress":[null]}`)
	f.Fuzz(func(t *testing.T, spec string) {
		o := engine.Object{APIVersion: "cilium.io/v2", Kind: "CiliumNetworkPolicy", Name: "p\n", JSON: []byte(`{"spec":` + spec + `}`)}
		j, err := cilium.New(cilium.Options{}).Parse([]engine.Object{o})
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
