package hubble

import (
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// FuzzScan holds the reader to protobuf's own: whatever that reads, it reads the
// same of.
func FuzzScan(f *testing.F) {
	for _, m := range samples() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(append(raw, raw...)) // fields twice
		f.Add(raw[:len(raw)/2])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want observerpb.GetFlowsResponse
		var r response
		err := scanResponse(raw, &r)
		NewBook("shop").Add(raw) // and does not panic
		if proto.Unmarshal(raw, &want) != nil {
			return
		}
		if err != nil {
			t.Fatalf("protobuf reads it: %v", err)
		}
		if string(r.node) != want.GetNodeName() || r.sec != want.GetTime().GetSeconds() {
			t.Fatalf("node %q at %d, want %q at %d", r.node, r.sec, want.GetNodeName(), want.GetTime().GetSeconds())
		}
		if (r.flow != nil) != (want.GetFlow() != nil) || (r.lost != nil) != (want.GetLostEvents() != nil) || (r.status != nil) != (want.GetNodeStatus() != nil) {
			t.Fatalf("another kind of response than %v", &want)
		}
		compareFlow(t, r.flow, want.GetFlow())
		if l, err := scanLost(r.lost); err != nil || l.events != want.GetLostEvents().GetNumEventsLost() || l.first != want.GetLostEvents().GetFirst().GetSeconds() {
			t.Fatalf("lost %+v (%v), want %v", l, err, want.GetLostEvents())
		}
		s, err := scanStatus(r.status)
		if err != nil || int32(s.state) != int32(want.GetNodeStatus().GetStateChange()) || len(s.nodes) != min(maxNodes, len(want.GetNodeStatus().GetNodeNames())) || s.message != want.GetNodeStatus().GetMessage() {
			t.Fatalf("status %+v (%v), want %v", s, err, want.GetNodeStatus())
		}
	})
}

func compareFlow(t *testing.T, raw []byte, want *flowpb.Flow) {
	t.Helper()
	var f flow
	if err := scanFlow(raw, &f); err != nil {
		t.Fatalf("protobuf reads the flow: %v", err)
	}
	equal := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Fatalf("%s is %v, want %v, in %v", what, got, want, want)
		}
	}
	equal("time", f.sec, want.GetTime().GetSeconds())
	equal("verdict", int32(f.verdict), int32(want.GetVerdict()))
	reason := uint32(want.GetDropReasonDesc())
	if reason == 0 {
		reason = want.GetDropReason() //nolint:staticcheck // older agents set this one only
	}
	equal("drop reason", f.dropReason, reason)
	equal("type", int32(f.kind), int32(want.GetType()))
	equal("direction", int32(f.direction), int32(want.GetTrafficDirection()))
	equal("event", int32(f.event), want.GetEventType().GetType())
	equal("reply known", f.replyKnown, want.GetIsReply() != nil)
	equal("reply", f.reply, want.GetIsReply().GetValue())
	equal("node", string(f.node), want.GetNodeName())
	equal("source IP", string(f.sourceIP), want.GetIP().GetSource())
	equal("destination IP", string(f.destinationIP), want.GetIP().GetDestination())
	equal("layer 7", f.hasL7, want.GetL7() != nil)
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	equal("source name", string(f.sourceName), first(want.GetSourceNames()))
	equal("destination name", string(f.destinationName), first(want.GetDestinationNames()))
	compareLayer4(t, &f, want.GetL4())
	for _, side := range []struct {
		raw  []byte
		want *flowpb.Endpoint
	}{{f.source, want.GetSource()}, {f.destination, want.GetDestination()}} {
		e, err := scanEndpoint(side.raw)
		if err != nil {
			t.Fatalf("protobuf reads the endpoint: %v", err)
		}
		equal("identity", e.identity, side.want.GetIdentity())
		equal("namespace", e.namespace, side.want.GetNamespace())
		equal("pod", e.pod, side.want.GetPodName())
		equal("labels", len(e.labels), min(maxLabels, len(side.want.GetLabels())))
		if w := side.want.GetWorkloads(); len(w) > 0 {
			equal("workload", e.kind+"/"+e.name, w[0].GetKind()+"/"+w[0].GetName())
		}
	}
	var q request
	if err := scanRequest(f.l7, &q); err != nil {
		t.Fatalf("protobuf reads the request: %v", err)
	}
	equal("request type", int32(q.kind), int32(want.GetL7().GetType()))
	switch {
	case want.GetL7().GetHttp() != nil:
		equal("method and URL", string(q.name)+" "+string(q.detail), want.GetL7().GetHttp().GetMethod()+" "+want.GetL7().GetHttp().GetUrl())
	case want.GetL7().GetDns() != nil:
		equal("question", string(q.name)+" "+string(q.detail), want.GetL7().GetDns().GetQuery()+" "+first(want.GetL7().GetDns().GetQtypes()))
	case want.GetL7().GetKafka() != nil: //nolint:staticcheck // older agents send it
		equal("topic and API", string(q.name)+" "+string(q.detail), want.GetL7().GetKafka().GetTopic()+" "+want.GetL7().GetKafka().GetApiKey()) //nolint:staticcheck // as above
	}
}

func compareLayer4(t *testing.T, f *flow, l4 *flowpb.Layer4) {
	t.Helper()
	number, from, to, syn, ack := protoNone, uint32(0), uint32(0), false, false
	switch {
	case l4.GetTCP() != nil:
		tcp := l4.GetTCP()
		number, from, to, syn, ack = protoTCP, tcp.GetSourcePort(), tcp.GetDestinationPort(), tcp.GetFlags().GetSYN(), tcp.GetFlags().GetACK()
	case l4.GetUDP() != nil:
		number, from, to = protoUDP, l4.GetUDP().GetSourcePort(), l4.GetUDP().GetDestinationPort()
	case l4.GetSCTP() != nil:
		number, from, to = protoSCTP, l4.GetSCTP().GetSourcePort(), l4.GetSCTP().GetDestinationPort()
	case l4.GetICMPv4() != nil:
		number = protoICMP
	case l4.GetICMPv6() != nil:
		number = protoICMPv6
	case l4.GetVRRP() != nil:
		number = protoVRRP
	case l4.GetIGMP() != nil:
		number = protoIGMP
	}
	if int(f.protocol) != number || f.sourcePort != from || f.destinationPort != to || f.syn != syn || f.ack != ack {
		t.Fatalf("layer 4 is %d %d %d %v %v, want %v", f.protocol, f.sourcePort, f.destinationPort, f.syn, f.ack, l4)
	}
}

// samples are one response of each kind, with every field that matters.
func samples() []*observerpb.GetFlowsResponse {
	at := timestamppb.New(second(0))
	web := &flowpb.Endpoint{ID: 7, Identity: 1234, Namespace: "shop", PodName: "web-1", Labels: []string{"k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"},
		Workloads: []*flowpb.Workload{{Name: "web", Kind: "Deployment"}}}
	api := &flowpb.Endpoint{ID: 8, Identity: 1235, Namespace: "shop", PodName: "api-1", Labels: []string{"k8s:app=api"}}
	base := func() *flowpb.Flow {
		return &flowpb.Flow{Time: at, Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4, NodeName: "default/node-1", Source: web, Destination: api,
			IP:               &flowpb.IP{Source: "10.1.0.1", Destination: "10.1.0.2", IpVersion: flowpb.IPVersion_IPv4},
			L4:               &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: 40000, DestinationPort: 8080, Flags: &flowpb.TCPFlags{SYN: true}}}},
			TrafficDirection: flowpb.TrafficDirection_EGRESS, IsReply: wrapperspb.Bool(false), EventType: &flowpb.CiliumEventType{Type: 4, SubType: 3},
			SourceNames: []string{"a.example"}, DestinationNames: []string{"b.example", "c.example"}, Uuid: "u", Summary: "TCP Flags: SYN"} //nolint:staticcheck // agents send it
	}
	wrap := func(f *flowpb.Flow) *observerpb.GetFlowsResponse {
		return &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f}, NodeName: "default/node-1", Time: at}
	}
	dropped, udp, icmp, http, dns, kafka, sctp := base(), base(), base(), base(), base(), base(), base()
	dropped.Verdict, dropped.DropReasonDesc = flowpb.Verdict_DROPPED, flowpb.DropReason_POLICY_DENIED
	dropped.EgressDeniedBy = []*flowpb.Policy{{Name: "deny", Namespace: "shop"}}
	udp.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_UDP{UDP: &flowpb.UDP{SourcePort: 1, DestinationPort: 53}}}
	icmp.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_ICMPv6{ICMPv6: &flowpb.ICMPv6{Type: 128}}}
	sctp.L4 = &flowpb.Layer4{Protocol: &flowpb.Layer4_SCTP{SCTP: &flowpb.SCTP{SourcePort: 1, DestinationPort: 2}}}
	for _, f := range []*flowpb.Flow{http, dns, kafka} {
		f.Type = flowpb.FlowType_L7
	}
	http.L7 = &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, LatencyNs: 3, Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Method: "GET", Url: "http://api:8080/cart/1?token=s", Protocol: "HTTP/1.1",
		Headers: []*flowpb.HTTPHeader{{Key: "Content-Type", Value: "application/grpc+proto"}}}}}
	dns.L7 = &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Dns{Dns: &flowpb.DNS{Query: "Api.shop.", Qtypes: []string{"A", "AAAA"}}}}
	kafka.L7 = &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST, Record: &flowpb.Layer7_Kafka{Kafka: &flowpb.Kafka{ApiKey: "Produce", Topic: "orders"}}} //nolint:staticcheck // older agents send it
	list := []*observerpb.GetFlowsResponse{wrap(base()), wrap(dropped), wrap(udp), wrap(icmp), wrap(sctp), wrap(http), wrap(dns), wrap(kafka)}
	return append(list,
		&observerpb.GetFlowsResponse{NodeName: "node-1", Time: at, ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: &flowpb.LostEvent{
			Source: flowpb.LostEventSource_HUBBLE_RING_BUFFER, NumEventsLost: 5, First: at, Last: at}}},
		&observerpb.GetFlowsResponse{NodeName: "node-1", Time: at, ResponseTypes: &observerpb.GetFlowsResponse_NodeStatus{NodeStatus: &relaypb.NodeStatusEvent{
			StateChange: relaypb.NodeState_NODE_UNAVAILABLE, NodeNames: []string{"node-1", "node-2"}, Message: "gone"}}})
}
