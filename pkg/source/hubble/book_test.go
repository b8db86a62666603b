package hubble

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
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
