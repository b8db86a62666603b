package hubble

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// second is a moment in the time of the tests.
func second(n int) time.Time { return time.Unix(int64(1_700_000_000+n), 0).UTC() }

func encode(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// many are messages of a namespace with 40 pods that talk to each other.
func many(tb testing.TB, n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	pods := make([]*flowpb.Endpoint, 40)
	for i := range pods {
		app := fmt.Sprint("app-", i/4)
		pods[i] = &flowpb.Endpoint{ID: uint32(i), Identity: uint32(10000 + i/4), ClusterName: "default", Namespace: "shop", PodName: fmt.Sprintf("%s-7d9c5b%d", app, i),
			Labels: []string{"k8s:app=" + app, "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop", "k8s:io.cilium.k8s.policy.cluster=default",
				"k8s:io.cilium.k8s.policy.serviceaccount=default", "k8s:io.kubernetes.pod.namespace=shop"},
			Workloads: []*flowpb.Workload{{Name: app, Kind: "Deployment"}}}
	}
	raw := make([][]byte, n)
	for i := range raw {
		from, to := r.IntN(40), r.IntN(40)
		f := &flowpb.Flow{Time: timestamppb.New(second(i / 1000)), Uuid: fmt.Sprintf("%032x", i), Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4,
			NodeName: fmt.Sprint("node-", from%3), Source: pods[from], Destination: pods[to], TrafficDirection: flowpb.TrafficDirection(1 + i%2), IsReply: wrapperspb.Bool(false),
			Ethernet:  &flowpb.Ethernet{Source: "0a:58:0a:00:00:01", Destination: "0a:58:0a:00:00:02"},
			EventType: &flowpb.CiliumEventType{Type: 4, SubType: 3}, TraceObservationPoint: flowpb.TraceObservationPoint_TO_ENDPOINT,
			IP: &flowpb.IP{Source: fmt.Sprintf("10.1.0.%d", from), Destination: fmt.Sprintf("10.1.0.%d", to), IpVersion: flowpb.IPVersion_IPv4},
			L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: uint32(32768 + r.IntN(28000)), DestinationPort: 8080 + uint32(to%3), Flags: &flowpb.TCPFlags{SYN: true}}}}}
		raw[i] = encode(tb, &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f}, NodeName: f.NodeName, Time: f.Time})
	}
	return raw
}

func BenchmarkAdd(b *testing.B) {
	raw := many(b, 100_000)
	book := NewBook("shop")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := book.Add(raw[i%len(raw)]); err != nil {
			b.Fatal(err)
		}
	}
}

var (
	web = behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}
	api = behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Pod", Name: "api-1"}, Container: "api"}
)

// shop is a cluster with two pods of web and one of api.
func shop() *topology.Cluster {
	c := topology.New()
	for name, node := range map[string]string{"web-1": "node-1", "web-2": "node-3", "api-1": "node-2"} {
		p := topology.Pod{Meta: topology.Meta{Namespace: "shop", Name: name, Labels: map[string]string{"app": name[:3]}, Created: second(-100)}}
		p.Spec.NodeName, p.Spec.Containers = node, []topology.Container{{Name: name[:3]}, {Name: "proxy", Ports: []topology.ContainerPort{{Port: 9000}}}}
		p.Status.Phase = "Running"
		p.Status.PodIP = map[string]string{"web-1": "10.1.0.1", "web-2": "10.1.0.3", "api-1": "10.1.0.2"}[name]
		if name != "api-1" {
			p.Meta.Owners = []topology.Owner{{Kind: "ReplicaSet", Name: "web-5d4f", Controller: true}}
		}
		c.AddPod(p, second(0))
	}
	c.AddController("ReplicaSet", topology.Controller{Meta: topology.Meta{Namespace: "shop", Name: "web-5d4f", Owners: []topology.Owner{{Kind: "Deployment", Name: "web", Controller: true}}}})
	var n topology.Node
	n.Meta.Name = "node-1"
	c.AddNode(n)
	return c
}

// aFlow is one that web began to a port of api, 8079 and n; edit may make it another.
func aFlow(n int, edit func(*flowpb.Flow)) *flowpb.Flow {
	f := &flowpb.Flow{Time: timestamppb.New(second(n)), Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4, NodeName: "node-1",
		Source:           &flowpb.Endpoint{Identity: 1000, Namespace: "shop", PodName: "web-1", Labels: []string{"k8s:app=web"}},
		Destination:      &flowpb.Endpoint{Identity: 1001, Namespace: "shop", PodName: "api-1", Labels: []string{"k8s:app=api"}},
		IP:               &flowpb.IP{Source: "10.1.0.1", Destination: "10.1.0.2"},
		L4:               &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 40000, DestinationPort: uint32(8079 + n), Flags: &flowpb.TCPFlags{SYN: true}}}},
		TrafficDirection: flowpb.TrafficDirection_EGRESS, IsReply: wrapperspb.Bool(false), EventType: &flowpb.CiliumEventType{Type: 4}}
	if edit != nil {
		edit(f)
	}
	return f
}

func aDenial(f *flowpb.Flow) {
	f.Verdict, f.DropReasonDesc = flowpb.Verdict_DROPPED, flowpb.DropReason_POLICY_DENIED
	f.EgressDeniedBy = []*flowpb.Policy{{Name: "deny", Namespace: "shop"}}
}

func http(method, url string) func(*flowpb.Flow) {
	return func(f *flowpb.Flow) {
		f.Type = flowpb.FlowType_L7
		f.L7 = &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Method: method, Url: url}}}
	}
}

func texts(p behavior.Profile) []string {
	var list []string
	for _, o := range p.Observed() {
		list = append(list, o.Fact.String())
	}
	return list
}

// wrapped is a flow as a relay sends it.
func wrapped(tb testing.TB, f *flowpb.Flow) []byte {
	return encode(tb, &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f}, NodeName: f.NodeName, Time: f.Time})
}

func world(ip string, names ...string) func(*flowpb.Flow) {
	return func(f *flowpb.Flow) {
		f.Destination, f.IP.Destination, f.DestinationNames = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}, ip, names
	}
}

func reserved(identity uint32, ip string) func(*flowpb.Flow) {
	return func(f *flowpb.Flow) {
		f.Destination, f.IP.Destination = &flowpb.Endpoint{Identity: identity}, ip
	}
}

func tcp(f *flowpb.Flow) *flowpb.TCP { return f.GetL4().GetTCP() }

func TestAFlowBecomesTheFactOfWhoBeganIt(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*flowpb.Flow)
		want string // of web; empty for none
	}{
		"a connection that web began": {nil, "a program connects to shop/pod-api-1 on tcp/8080"},
		"the answer to it": {func(f *flowpb.Flow) {
			f.Source, f.Destination, f.IsReply = f.Destination, f.Source, wrapperspb.Bool(true)
			f.IP.Source, f.IP.Destination = f.IP.Destination, f.IP.Source
			tcp(f).SourcePort, tcp(f).DestinationPort, tcp(f).Flags = 8080, 40000, &flowpb.TCPFlags{SYN: true, ACK: true}
		}, "a program connects to shop/pod-api-1 on tcp/8080"},
		"a connection that web was sent": {func(f *flowpb.Flow) {
			f.Source, f.Destination, f.TrafficDirection = f.Destination, f.Source, flowpb.TrafficDirection_INGRESS
		}, "a program is reached on tcp/8080 by shop/pod-api-1"},
		"what the other end's node saw of it is the other's":     {func(f *flowpb.Flow) { f.TrafficDirection = flowpb.TrafficDirection_INGRESS }, ""},
		"a first packet tells who began, whatever else does not": {func(f *flowpb.Flow) { f.IsReply = nil }, "a program connects to shop/pod-api-1 on tcp/8080"},
		"a later one does not":                                   {func(f *flowpb.Flow) { f.IsReply, tcp(f).Flags = nil, &flowpb.TCPFlags{ACK: true} }, ""},
		"nor a flow without a direction":                         {func(f *flowpb.Flow) { f.TrafficDirection = 0 }, ""},
		"what a policy denied":                                   {aDenial, ""},
		"what was dropped for another reason": {func(f *flowpb.Flow) {
			f.Verdict, f.DropReasonDesc = flowpb.Verdict_DROPPED, flowpb.DropReason_CT_MAP_INSERTION_FAILED
		}, ""},
		"what a policy let through in audit":  {func(f *flowpb.Flow) { f.Verdict = flowpb.Verdict_AUDIT }, "a program connects to shop/pod-api-1 on tcp/8080"},
		"what a proxy took":                   {func(f *flowpb.Flow) { f.Verdict = flowpb.Verdict_REDIRECTED }, "a program connects to shop/pod-api-1 on tcp/8080"},
		"a packet on its way":                 {func(f *flowpb.Flow) { f.Verdict = flowpb.Verdict_TRACED }, ""},
		"a translation of a socket's":         {func(f *flowpb.Flow) { f.Type, f.Verdict = flowpb.FlowType_SOCK, flowpb.Verdict_TRANSLATED }, ""},
		"a verdict that a newer Cilium has":   {func(f *flowpb.Flow) { f.Verdict = 99 }, ""},
		"a type that a newer Cilium has":      {func(f *flowpb.Flow) { f.Type = 99 }, ""},
		"a port that no packet has":           {func(f *flowpb.Flow) { tcp(f).DestinationPort = 70000 }, ""},
		"somebody outside":                    {world("192.0.2.7", "Db.Example."), "a program connects to db.example (outside, 192.0.2.7) on tcp/8080"},
		"its own node":                        {reserved(1, "10.0.0.1"), "a program connects to its own node on tcp/8080"},
		"another node":                        {reserved(6, "10.0.0.2"), "a program connects to node 10.0.0.2 on tcp/8080"},
		"the API server":                      {reserved(7, "10.0.0.3"), "a program connects to the API server on tcp/8080"},
		"an endpoint without an identity yet": {reserved(5, "10.1.0.77"), "a program connects to 10.1.0.77 on tcp/8080"},
		"an address that is none":             {world("here\x1b[31m"), "a program connects to anyone on tcp/8080"},
		"a pod that only the flow knows": {func(f *flowpb.Flow) {
			f.Destination = &flowpb.Endpoint{Namespace: "bank", PodName: "ledger-7d9f-x", Labels: []string{"k8s:app=ledger", "k8s:io.kubernetes.pod.namespace=bank"}, Workloads: []*flowpb.Workload{{Kind: "Deployment", Name: "ledger"}}}
		}, "a program connects to bank/deployment-ledger on tcp/8080"},
		"itself": {func(f *flowpb.Flow) { f.Destination = f.Source }, "a program connects to itself on tcp/8080"},
		"a ping": {func(f *flowpb.Flow) {
			f.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv4{ICMPv4: &flowpb.ICMPv4{Type: 8}}}
		}, "a program connects to shop/pod-api-1 on icmp/0"},
		"a request without its query, in which secrets stand": {http("GET", "http://u:p@API:8080/a/b?token=s#f"), "a program asks shop/pod-api-1 for GET api:8080/a/b on port 8080"},
		"a request with what a terminal would act on":         {http("GET", "http://api/\x1b[2J"), `a program asks shop/pod-api-1 for GET api/\x1b[2J on port 8080`},
		"a request for no path":                               {http("OPTIONS", "*"), ""},
		"a request of 5,000 letters":                          {http("GET", "/"+strings.Repeat("a", 5000)), ""},
		"the answer to a request": {func(f *flowpb.Flow) {
			http("GET", "/")(f)
			f.L7.Type, f.IsReply = flowpb.L7FlowType_RESPONSE, wrapperspb.Bool(true)
		}, ""},
		"a request that a proxy denied": {func(f *flowpb.Flow) { http("GET", "/")(f); f.Verdict = flowpb.Verdict_DROPPED }, ""},
		"a question to DNS": {func(f *flowpb.Flow) {
			f.Type, f.L7 = flowpb.FlowType_L7, &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: "Api.Shop.svc.", Qtypes: []string{"AAAA"}}}}
		}, "a program asks for api.shop.svc (AAAA)"},
		"a Kafka request": {func(f *flowpb.Flow) {
			f.Type, f.L7 = flowpb.FlowType_L7, &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Kafka{Kafka: &flowpb.Kafka{ApiKey: "Produce", Topic: "orders"}}} //nolint:staticcheck // older agents send it
		}, "a program asks shop/pod-api-1 to produce orders on port 8080"},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("shop")
			if err := b.Add(wrapped(t, aFlow(1, c.edit))); err != nil {
				t.Fatal(err)
			}
			got := texts(b.Result(shop()).Profiles[web])
			if c.want == "" && len(got) != 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for f := range b.Result(shop()).Profiles[web].Facts.Keys() {
				if err := f.Validate(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestWhatAPolicyDeniedIsReportedAndNoFact(t *testing.T) {
	b := NewBook("shop")
	for _, edit := range []func(*flowpb.Flow){aDenial, aDenial, func(f *flowpb.Flow) { f.Verdict = flowpb.Verdict_AUDIT }} {
		if err := b.Add(wrapped(t, aFlow(1, edit))); err != nil {
			t.Fatal(err)
		}
	}
	r := b.Result(shop())
	if len(r.Denials) != 2 {
		t.Fatalf("denials are %+v", r.Denials)
	}
	slices.SortFunc(r.Denials, func(a, b source.Denial) int { return cmp.Compare(b.Policy, a.Policy) })
	if d := r.Denials[0]; d.Policy != "shop/deny" || d.Audited || d.Evidence.Count() != 2 || d.Subject != web {
		t.Errorf("the denial is %+v", d)
	}
	if d := r.Denials[1]; !d.Audited {
		t.Errorf("the audited one is %+v", d)
	}
}

func TestWhatIsNotUnderstoodIsCountedAsLost(t *testing.T) {
	for name, c := range map[string]struct {
		message []byte
		reason  string
	}{
		"a verdict of a newer Cilium": {wrapped(t, aFlow(1, func(f *flowpb.Flow) { f.Verdict = 99 })), lostUnknown},
		"a type of a newer Cilium":    {wrapped(t, aFlow(1, func(f *flowpb.Flow) { f.Type = 99 })), lostUnknown},
		"a record of a newer Cilium":  {wrapped(t, aFlow(1, func(f *flowpb.Flow) { f.Type, f.L7 = flowpb.FlowType_L7, &flowpb.Layer7{Type: 1} })), lostUnknown},
		"half a message":              {encode(t, samples()[0])[:80], lostBroken},
		"no message at all":           {[]byte("hello"), lostBroken},
		"a request for no path":       {wrapped(t, aFlow(1, http("GET", "*"))), lostRequest},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("shop")
			b.Add(wrapped(t, aFlow(2, nil))) // which is fine
			err := b.Add(c.message)
			if (c.reason == lostBroken) != errors.Is(err, ErrMessage) {
				t.Errorf("error is %v", err)
			}
			coverage := b.Result(shop()).Profiles[web].Coverage
			if coverage.Lost["node-1: "+c.reason]+coverage.Lost[c.reason] != 1 || len(coverage.Shortfalls()) == 0 {
				t.Errorf("lost is %v", coverage.Lost)
			}
		})
	}
}

func TestFlowsInAnyOrderAreTheSameProfiles(t *testing.T) {
	raw := many(t, 3000)
	encoded := func() string {
		b := NewBook("shop")
		for _, m := range raw {
			if err := b.Add(m); err != nil {
				t.Fatal(err)
			}
		}
		c := topology.New()
		for i := range 40 {
			p := topology.Pod{Meta: topology.Meta{Namespace: "shop", Name: fmt.Sprintf("app-%d-7d9c5b%d", i/4, i), Labels: map[string]string{"app": fmt.Sprint("app-", i/4)}}}
			p.Spec.Containers = []topology.Container{{Name: "app"}}
			c.AddPod(p, second(0))
		}
		var text strings.Builder
		r := b.Result(c)
		for _, s := range r.Profiles.Subjects() {
			data, err := behavior.EncodeFile([]behavior.Profile{r.Profiles[s]})
			if err != nil {
				t.Fatal(err)
			}
			text.Write(data)
		}
		return text.String()
	}
	first := encoded()
	r := rand.New(rand.NewPCG(5, 6))
	r.Shuffle(len(raw), func(i, j int) { raw[i], raw[j] = raw[j], raw[i] })
	if encoded() != first {
		t.Error("another order of the flows gave other bytes")
	}
}

func TestWhatIsKeptHasABoundAndTheRestIsCounted(t *testing.T) {
	b := NewBook("shop")
	for i := range maxRequests + 100 {
		b.Add(wrapped(t, aFlow(1, http("GET", fmt.Sprint("/", i)))))
	}
	b.Add(wrapped(t, aFlow(1, func(f *flowpb.Flow) { http("GET", "/mine")(f); f.Source.PodName = "web-2" })))
	r := b.Result(shop())
	if n := b.Lost(); n != 100 {
		t.Errorf("%d requests were counted as lost, want 100", n)
	}
	if !slices.Contains(texts(r.Profiles[web]), "a program asks shop/pod-api-1 for GET /mine on port 8080") {
		t.Error("one pod's made up paths left no room for another's")
	}
}

func TestHubbleClaimsNothingButTraffic(t *testing.T) {
	b := NewBook("shop")
	b.Add(wrapped(t, aFlow(1, nil)))
	r := b.Result(shop())
	c := r.Profiles[web].Coverage
	if len(c.Hooks) != 1 || c.Hooks[behavior.Network] == nil || c.Starts() != 0 || len(c.Milestones()) != 0 {
		t.Errorf("coverage is %+v", c)
	}
	if got := c.Unobserved(map[behavior.Kind]bool{behavior.Process: true, behavior.File: true, behavior.HTTP: true}); len(got) != 3 {
		t.Errorf("it leaves %v open, want processes, files and requests", got)
	}
	if c := r.Profiles[api].Coverage; len(c.Pods) != 0 || len(c.Gaps) == 0 {
		t.Errorf("a pod on a node that told nothing: %+v", c)
	}
}

func TestABooksSizeDoesNotDependOnTheNumberOfFlows(t *testing.T) {
	raw := many(t, 2000)
	b := NewBook("shop")
	for _, m := range raw {
		b.Add(m)
	}
	kept := b.Distinct()
	if n := testing.AllocsPerRun(5, func() {
		for _, m := range raw {
			b.Add(m)
		}
	}); n > 0 || b.Distinct() != kept {
		t.Errorf("the same flows again took %g allocations and %d more entries", n, b.Distinct()-kept)
	}
}

func TestWhatANodeLostCountsForItsPods(t *testing.T) {
	b := NewBook("shop")
	event := func(node string) {
		b.Add(encode(t, &observerpb.GetFlowsResponse{NodeName: node, Time: timestamppb.New(second(1)), ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{
			LostEvents: &flowpb.LostEvent{Source: flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, NumEventsLost: 7}}}))
	}
	event("node-2")
	r := b.Result(shop())
	if n := r.Profiles[api].Coverage.Lost["node-2: Hubble's kernel ring was full"]; n != 7 {
		t.Errorf("of the pod there %d are lost, want 7", n)
	}
	if lost := r.Profiles[web].Coverage.Lost; len(lost) != 0 {
		t.Errorf("of pods elsewhere are lost: %v", lost)
	}
	event("nobody-knows")
	if lost := b.Result(shop()).Profiles[web].Coverage.Lost; lost["nobody-knows: Hubble's kernel ring was full"] != 7 {
		t.Errorf("what a node lost that nobody knows: %v", lost)
	}
}
