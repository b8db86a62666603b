package hubble

import (
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

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

// second is a moment in the time of the tests.
func second(n int) time.Time { return time.Unix(int64(1_700_000_000+n), 0).UTC() }
