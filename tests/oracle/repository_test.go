// Package oracle holds our network judges to Cilium's own policy engine: for
// policies and flows around them, both must give the same verdict. It is a
// package of its own, since Cilium takes minutes to compile.
package oracle_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/cilium/cilium/pkg/fqdn/dns"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/identity/identitymanager"
	ipcachetypes "github.com/cilium/cilium/pkg/ipcache/types"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/option"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	policytypes "github.com/cilium/cilium/pkg/policy/types"
	testpolicy "github.com/cilium/cilium/pkg/testutils/policy"
	"github.com/cilium/cilium/pkg/u8proto"
	proxy "github.com/cilium/proxy/go/cilium/api"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

const clusterName = "default"

// setUp configures Cilium's globals as its agent does in a Kubernetes cluster.
func setUp() {
	option.Config.UnsafeDaemonConfigOption.AllowLocalhost = option.AllowLocalhostAlways
	option.Config.EnableNonDefaultDenyPolicies = true
	option.Config.EnableICMPRules = true
	option.Config.EnableL7Proxy = true
	policy.SetPolicyEnabled(option.DefaultEnforcement)
	api.InitEntities(clusterName)
}

// end is one end of a flow: who it is to Cilium, and who it is to us.
type end struct {
	id        *identity.Identity
	pod       bool
	namespace string
	labels    map[string]string
	peer      behavior.Peer
}

func (e end) subject() engine.Subject {
	return engine.Subject{
		Subject: behavior.Subject{Workload: behavior.Workload{Namespace: e.namespace, Kind: "Deployment", Name: e.labels["app"]}},
		Labels:  e.labels,
	}
}

// ends are everybody that the tests let speak.
func ends() []end {
	var all []end
	add := func(id identity.NumericIdentity, l labels.Labels, e end) {
		e.id = identity.NewIdentity(id, l)
		all = append(all, e)
	}
	n := identity.NumericIdentity(1000)
	for _, ns := range []string{"shop", "other"} {
		for _, app := range []string{"web", "api", "store"} {
			pod := map[string]string{"app": app, "tier": map[string]string{"web": "front", "api": "back", "store": "back"}[app]}
			l := labels.Labels{}
			for k, v := range map[string]string{
				"io.kubernetes.pod.namespace": ns, "io.cilium.k8s.policy.cluster": clusterName,
				"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": ns, "app": pod["app"], "tier": pod["tier"],
			} {
				l[k] = labels.NewLabel(k, v, labels.LabelSourceK8s)
			}
			add(n, l, end{pod: true, namespace: ns, labels: pod, peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: ns,
				Workload: "deployment-" + app, Labels: behavior.FormatLabels(pod)}})
			n++
		}
	}
	node := behavior.Peer{Kind: behavior.PeerNode, Address: netip.MustParseAddr("10.0.0.1")}
	apiServer := behavior.Peer{Kind: behavior.PeerAPIServer, Address: netip.MustParseAddr("10.0.0.9")}
	reserved := func(names ...string) labels.Labels {
		l := labels.Labels{}
		for _, name := range names {
			l[name] = labels.NewLabel(name, "", labels.LabelSourceReserved)
		}
		return l
	}
	add(identity.ReservedIdentityHost, reserved("host"), end{peer: node})
	add(identity.ReservedIdentityHost, reserved("host"), end{peer: behavior.Peer{Kind: behavior.PeerOwnNode}})
	add(identity.ReservedIdentityRemoteNode, reserved("remote-node"), end{peer: node})
	add(identity.ReservedIdentityKubeAPIServer, reserved("remote-node", "kube-apiserver"), end{peer: apiServer})
	local := identity.NumericIdentity(1 << 24)
	external := labels.GetCIDRLabels(netip.MustParsePrefix("10.0.0.9/32"))
	external.MergeLabels(reserved("kube-apiserver"))
	add(local, external, end{peer: apiServer})
	for _, a := range []string{"203.0.113.7", "203.0.113.99", "198.51.100.1", "2001:db8::7"} {
		local++
		addr := netip.MustParseAddr(a)
		add(local, labels.GetCIDRLabels(netip.PrefixFrom(addr, addr.BitLen())), end{peer: behavior.Peer{Kind: behavior.PeerOutside, Address: addr}})
	}
	for a, name := range map[string]string{"203.0.113.50": "api.example.com", "198.51.100.50": "www.example.org", "2001:db8::50": "example.com"} {
		local++
		addr := netip.MustParseAddr(a)
		l := labels.GetCIDRLabels(netip.PrefixFrom(addr, addr.BitLen()))
		for _, s := range nameSelectors() {
			// What the agent does when it sees the name's answer.
			expression, err := s.ToRegex()
			if err != nil {
				panic(err)
			}
			if expression.MatchString(dns.FQDN(name)) {
				label := s.IdentityLabel()
				l[label.Key] = label
			}
		}
		add(local, l, end{peer: behavior.Peer{Kind: behavior.PeerOutside, Address: addr, Name: name}})
	}
	return all
}

// nameSelectors are the selectors of names that policies are generated with.
func nameSelectors() []api.FQDNSelector {
	return []api.FQDNSelector{{MatchName: "api.example.com"}, {MatchName: "Example.com"}, {MatchPattern: "*.example.com"}, {MatchPattern: "*"},
		{MatchPattern: "**.org"}, {MatchPattern: "*example.com"}, {MatchPattern: "w*w.exam*.org"}, {MatchName: "other.example"},
		{MatchName: "www.example.org"}, {MatchName: "example.com"}}
}

// repository is Cilium's policy engine with the ends in it.
type repository struct {
	repo *policy.Repository
	ids  identitymanager.IDManager
	log  *slog.Logger
}

func newRepository(ends []end) *repository {
	log := slog.New(slog.DiscardHandler)
	all := identity.IdentityMap{}
	identity.IterateReservedIdentities(func(id identity.NumericIdentity, reserved *identity.Identity) {
		all[id] = reserved.LabelArray
	})
	for _, e := range ends {
		all[e.id.ID] = e.id.LabelArray
	}
	r := &repository{ids: identitymanager.NewIDManager(log), log: log}
	r.repo = policy.NewPolicyRepository(log, all, nil, translator{}, r.ids, testpolicy.NewPolicyMetricsNoop())
	r.repo.GetSelectorCache().SetLocalIdentityNotifier(notifier{})
	r.ids.Subscribe(testpolicy.SelectorCacheObserver{Cache: r.repo.GetSubjectSelectorCache()})
	for _, e := range ends {
		r.ids.Add(e.id)
	}
	return r
}

// translator stands for the part that makes proxy rules of layer 7 rules.
type translator struct{}

func (translator) GetEnvoyHTTPRules(*api.L7Rules, string) (*proxy.HttpNetworkPolicyRules, bool) {
	return nil, true
}

// notifier takes the news about names that selectors ask for; there are none.
type notifier struct{}

func (notifier) RegisterFQDNSelector(api.FQDNSelector) uint64   { return 0 }
func (notifier) UnregisterFQDNSelector(api.FQDNSelector) uint64 { return 0 }

func (r *repository) add(i int, entries policytypes.PolicyEntries) {
	r.repo.ReplaceByResource(entries, ipcachetypes.NewResourceID(ipcachetypes.ResourceKindCNP, "", fmt.Sprintf("p%d", i)))
}

// allows asks Cilium about one direction of a flow between two ends.
func (r *repository) allows(t *testing.T, subject, peer end, direction behavior.Direction, protocol string, port uint16) bool {
	t.Helper()
	flow := policytypes.Flow{From: subject.id, To: peer.id, Dport: port}
	if direction == behavior.Ingress {
		flow.From, flow.To = peer.id, subject.id
	}
	flow.Proto = map[string]u8proto.U8proto{"tcp": u8proto.TCP, "udp": u8proto.UDP, "sctp": u8proto.SCTP, "icmp": u8proto.ICMP, "icmpv6": u8proto.ICMPv6}[protocol]
	switch protocol {
	case "icmp":
		flow.Dport = 8 // the type: an echo request
	case "icmpv6":
		flow.Dport = 128
	}
	result, _, _, err := policy.LookupFlow(r.log, r.repo, r.ids, flow)
	if err != nil {
		t.Fatal(err)
	}
	decision := result.Egress
	if direction == behavior.Ingress {
		decision = result.Ingress
	}
	return decision == policytypes.DecisionAllowed
}

// tally counts what was compared.
type tally struct{ allowed, denied, unknown int }

// compare asks our judge and Cilium about every flow between the pods and
// everybody else, on the ports.
func (c *tally) compare(t *testing.T, j engine.Judge, r *repository, ends []end, ports []engine.Port, show func() string) {
	t.Helper()
	for _, subject := range ends {
		for _, peer := range ends {
			if !subject.pod || peer.id == subject.id {
				continue
			}
			for _, direction := range []behavior.Direction{behavior.Ingress, behavior.Egress} {
				p := ports[(c.allowed+c.denied+c.unknown)%len(ports)]
				f := behavior.Fact{Kind: behavior.Network, Direction: direction, Protocol: p.Protocol, Port: p.Number, Peer: peer.peer}
				want := r.allows(t, subject, peer, direction, p.Protocol, p.Number)
				v := j.Judge(subject.subject(), f)
				switch {
				case v.Decision == engine.Unknown:
					c.unknown++
				case (v.Decision != engine.Denied) != want:
					t.Fatalf("%s/%s, %s with %s on %s/%d: Cilium allows it: %v, we say %s (%s: %s)\n%s", subject.namespace, subject.labels["app"],
						direction, peer.id.LabelArray, p.Protocol, p.Number, want, v.Decision, v.Object, v.Reason, show())
				case want:
					c.allowed++
				default:
					c.denied++
				}
			}
		}
	}
}

// report fails a comparison that proved little.
func (c *tally) report(t *testing.T) {
	t.Helper()
	all := c.allowed + c.denied + c.unknown
	t.Logf("%d verdicts: %d allowed, %d denied, %d unknown", all, c.allowed, c.denied, c.unknown)
	if c.allowed < all/10 || c.denied < all/10 || c.unknown > all/3 {
		t.Error("too few certain verdicts of one sort to prove anything")
	}
}
