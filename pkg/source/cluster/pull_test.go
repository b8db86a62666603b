package cluster

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
)

// planted is a source whose cluster runs web on node-1 and node-2, and api on
// node-1.
func planted(t *testing.T) *Source {
	t.Helper()
	s := &Source{options: Options{Namespace: "shop", Now: at}, picture: newPicture(at), nodes: map[string]*node{}}
	for name, where := range map[string][3]string{"web-1": {"web", "node-1", "10.0.0.1"}, "web-2": {"web", "node-2", "10.0.0.2"}, "api-1": {"api", "node-1", "10.0.0.3"}} {
		u := &unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{
				"namespace": "shop", "name": name, "labels": map[string]any{"app": where[0]},
				"ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": where[0], "controller": true}},
			},
			"spec":   map[string]any{"nodeName": where[1], "containers": []any{map[string]any{"name": where[0]}}},
			"status": map[string]any{"podIP": where[2], "podIPs": []any{map[string]any{"ip": where[2]}}, "phase": "Running", "startTime": "2026-01-01T11:00:00Z"},
		}}
		if err := s.picture.add("Pod", u); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *Source) plant(name, pod, container string, failure error, facts ...behavior.Fact) *node {
	n := &node{name: name, failure: failure, containers: map[string]*pulled{}}
	if pod != "" {
		k := &pulled{Container: wire.Container{Namespace: "shop", Pod: pod, Name: container, ID: pod, Image: "i", From: at(), To: at().Add(time.Minute), Start: true}, facts: map[behavior.Fact]wire.Observation{}}
		for _, f := range facts {
			k.facts[f] = wire.Observation{Fact: f, Count: 2, First: at(), Last: at().Add(time.Second)}
		}
		n.containers[pod] = k
	}
	s.nodes[name] = n
	return n
}

func (s *Source) assembled() source.Result {
	s.picture.topology.Seal()
	a := assembly{Source: s, result: source.Result{Profiles: behavior.Profiles{}, Topology: s.picture.topology}}
	for _, n := range s.list() {
		a.node(n)
	}
	return a.result
}

func TestFactsOfAllPodsOfAWorkloadComeTogether(t *testing.T) {
	s := planted(t)
	read := behavior.Fact{Kind: behavior.File, Exe: "/app", Path: "/etc/x", Access: behavior.Read}
	call := behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr("10.0.0.3")}}
	s.plant("node-1", "web-1", "web", nil, read, call)
	s.plant("node-2", "web-2", "web", nil, read)
	result := s.assembled()
	web := result.Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "web"}, Container: "web"}]
	if got := web.Facts[read]; !reflect.DeepEqual(got.Pods, map[string]uint64{"web-1": 2, "web-2": 2}) {
		t.Errorf("evidence is %+v", got)
	}
	if web.Labels != "app=web" || web.Coverage.Replicas != 2 || len(web.Coverage.Shortfalls()) != 0 {
		t.Errorf("profile is %+v", web)
	}
	found := false
	for f := range web.Facts {
		found = found || f.Peer.Kind == behavior.PeerWorkload && f.Peer.Workload == "statefulset-api"
	}
	if !found {
		t.Error("the address was not resolved to its workload")
	}
}

func TestANodeThatFailsIsAGapOfEveryWorkloadThere(t *testing.T) {
	s := planted(t)
	s.plant("node-1", "", "", errors.New("does not answer"))
	s.plant("node-2", "web-2", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	result := s.assembled()
	if len(result.Nodes) != 1 || result.Nodes[0].Node != "node-1" {
		t.Errorf("nodes with errors are %v", result.Nodes)
	}
	for _, name := range []string{"web", "api"} {
		p := result.Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: name}, Container: name}]
		if len(p.Coverage.Gaps) != 1 {
			t.Errorf("%s has gaps %q", name, p.Coverage.Gaps)
		}
	}
}

func TestWhatANodeLostIsInTheCoverageOfItsContainers(t *testing.T) {
	s := planted(t)
	n := s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	n.status = wire.Status{Lost: map[string]uint64{"ring buffer full": 3}, Unattributed: 4, Missing: []string{"capabilities"}}
	n.containers["web-1"].Lost = map[string]uint64{"limit": 1}
	n.restarts = 1
	result := s.assembled()
	web := result.Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "web"}, Container: "web"}]
	want := map[string]uint64{"node-1: ring buffer full": 3, "node-1: containers that no pod names": 4, "web-1: limit": 1}
	if !reflect.DeepEqual(web.Coverage.Lost, want) || len(web.Coverage.Gaps) != 2 || result.Unattributed != 4 {
		t.Errorf("coverage is %+v, unattributed %d", web.Coverage, result.Unattributed)
	}
}

func TestAPodThatNobodyKnowsIsCountedAndNamed(t *testing.T) {
	s := planted(t)
	s.plant("node-1", "ghost", "x", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	result := s.assembled()
	if result.Unattributed != 1 || len(result.Nodes) != 1 || len(result.Profiles) != 0 {
		t.Errorf("got %+v", result)
	}
}
