package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/inspektor-gadget/inspektor-gadget/pkg/gadgets/trace/network/types"
	eventtypes "github.com/inspektor-gadget/inspektor-gadget/pkg/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// The namespace: 20 workloads of 5 pods, each of which talks to six others and to
// two addresses outside, on three ports.
const (
	namespace = "shop"
	workloads = 20
	replicas  = 5
	peers     = 6
	outside   = 2
	ports     = 3
)

func app(w int) string         { return fmt.Sprint("app-", w) }
func pod(w, i int) string      { return fmt.Sprintf("app-%d-6c5f9d7b4-%d", w, i) }
func address(w, i int) string  { return fmt.Sprintf("10.1.%d.%d", w, i+1) }
func labels(w int) [][2]string { return [][2]string{{"app", app(w)}, {"tier", "t"}, {"team", "shop"}} }

// cluster is what kubectl would show of it.
func cluster() *topology.Cluster {
	c := topology.New()
	at := time.Unix(1_700_000_000, 0)
	for w := range workloads {
		own := map[string]string{}
		for _, l := range labels(w) {
			own[l[0]] = l[1]
		}
		set := app(w) + "-6c5f9d7b4"
		c.AddController("ReplicaSet", topology.Controller{Meta: topology.Meta{Namespace: namespace, Name: set, Owners: []topology.Owner{{Kind: "Deployment", Name: app(w), Controller: true}}}})
		for i := range replicas {
			p := topology.Pod{Meta: topology.Meta{Namespace: namespace, Name: pod(w, i), Labels: own, Created: at, Owners: []topology.Owner{{Kind: "ReplicaSet", Name: set, Controller: true}}}}
			p.Spec.NodeName, p.Spec.Containers = fmt.Sprint("node-", i), []topology.Container{{Name: "app"}}
			p.Status.Phase, p.Status.PodIP = "Running", address(w, i)
			c.AddPod(p, at)
		}
	}
	var n topology.Node
	n.Meta.Name = "node-0"
	c.AddNode(n)
	return c
}

// flows are n of them, as Hubble and as the gadget tell of them.
func flows(n int) (messages [][]byte, lines []byte) {
	r := rand.New(rand.NewPCG(7, 11))
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	for i := range n {
		w, own := r.IntN(workloads), r.IntN(replicas)
		to, other := (w+1+r.IntN(peers+outside))%workloads, r.IntN(replicas)
		far := r.IntN(peers+outside) >= peers
		port := uint32(8000 + r.IntN(ports))
		messages = append(messages, message(i, w, own, to, other, far, port, uint32(32768+r.IntN(28000))))
		if err := encoder.Encode(event(i, w, own, to, other, far, uint16(port))); err != nil {
			panic(err) // it is made of strings and numbers
		}
	}
	return messages, out.Bytes()
}

func farAddress(to int) string { return fmt.Sprintf("192.0.2.%d", to%outside) }

func endpoint(w, i int) *flowpb.Endpoint {
	e := &flowpb.Endpoint{ID: uint32(100*w + i), Identity: uint32(20000 + w), ClusterName: "default", Namespace: namespace, PodName: pod(w, i),
		Workloads: []*flowpb.Workload{{Kind: "Deployment", Name: app(w)}},
		Labels: []string{"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=" + namespace, "k8s:io.cilium.k8s.policy.cluster=default",
			"k8s:io.cilium.k8s.policy.serviceaccount=default", "k8s:io.kubernetes.pod.namespace=" + namespace}}
	for _, l := range labels(w) {
		e.Labels = append(e.Labels, "k8s:"+l[0]+"="+l[1])
	}
	return e
}

func message(i, w, own, to, other int, far bool, port, from uint32) []byte {
	at := timestamppb.New(time.Unix(1_700_000_000+int64(i/1000), int64(i)))
	f := &flowpb.Flow{Time: at, Uuid: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i), Verdict: flowpb.Verdict_FORWARDED, Type: flowpb.FlowType_L3_L4,
		Ethernet: &flowpb.Ethernet{Source: "0a:58:0a:01:00:01", Destination: "0a:58:0a:01:00:02"}, NodeName: fmt.Sprint("node-", own),
		Source: endpoint(w, own), Destination: endpoint(to, other), TrafficDirection: flowpb.TrafficDirection_EGRESS, IsReply: wrapperspb.Bool(false),
		EventType: &flowpb.CiliumEventType{Type: 4, SubType: 3}, TraceObservationPoint: flowpb.TraceObservationPoint_TO_OVERLAY, Summary: "TCP Flags: SYN", //nolint:staticcheck // agents send it
		IP: &flowpb.IP{Source: address(w, own), Destination: address(to, other), IpVersion: flowpb.IPVersion_IPv4},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: from, DestinationPort: port, Flags: &flowpb.TCPFlags{SYN: true}}}}}
	if far {
		f.Destination, f.IP.Destination = &flowpb.Endpoint{Identity: 2, Labels: []string{"reserved:world"}}, farAddress(to)
	}
	raw, err := proto.Marshal(&observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f}, NodeName: f.NodeName, Time: at})
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return raw
}

func event(i, w, own, to, other int, far bool, port uint16) types.Event {
	all := func(w int) map[string]string {
		m := map[string]string{"pod-template-hash": "6c5f9d7b4"}
		for _, l := range labels(w) {
			m[l[0]] = l[1]
		}
		return m
	}
	e := types.Event{PktType: "OUTGOING", Proto: "tcp", Port: port, PodIP: address(w, own), PodHostIP: "10.0.0.1", PodOwner: app(w), PodLabels: all(w),
		DstEndpoint: eventtypes.L3Endpoint{Addr: address(to, other), Version: 4, Namespace: namespace, Name: pod(to, other), Kind: eventtypes.EndpointKindPod, PodLabels: all(to)}}
	e.Type, e.Timestamp = eventtypes.NORMAL, eventtypes.Time(1_700_000_000_000_000_000+int64(i))
	e.K8s.Node, e.K8s.Namespace, e.K8s.PodName, e.K8s.ContainerName = fmt.Sprint("node-", own), namespace, pod(w, own), "app"
	if far {
		e.DstEndpoint = eventtypes.L3Endpoint{Addr: farAddress(to), Version: 4, Kind: eventtypes.EndpointKindRaw}
	}
	return e
}
