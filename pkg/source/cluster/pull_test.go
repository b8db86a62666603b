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
	for name, where := range map[string][2]string{"web-1": {"web", "node-1"}, "web-2": {"web", "node-2"}, "api-1": {"api", "node-1"}} {
		s.addPod(t, name, where[0], where[1], "Running")
	}
	return s
}

// addPod shows a pod of a workload to the picture; its address ends in 1 to 9.
func (s *Source) addPod(t *testing.T, name, workload, node, phase string) {
	t.Helper()
	ip := "10.0.1." + name[len(name)-1:]
	if workload == "api" {
		ip = "10.0.0.3"
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{
			"namespace": "shop", "name": name, "labels": map[string]any{"app": workload},
			"ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": workload, "controller": true}},
		},
		"spec":   map[string]any{"nodeName": node, "containers": []any{map[string]any{"name": workload}}},
		"status": map[string]any{"podIP": ip, "podIPs": []any{map[string]any{"ip": ip}}, "phase": phase, "startTime": "2026-01-01T11:00:00Z"},
	}}
	if err := s.picture.add("Pod", u); err != nil {
		t.Fatal(err)
	}
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
	a := s.assembly()
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
	if got, _ := web.Facts.Get(read); !reflect.DeepEqual(got.Pods, map[string]uint64{"web-1": 2, "web-2": 2}) {
		t.Errorf("evidence is %+v", got)
	}
	if web.Labels != "app=web" || web.Coverage.Replicas != 2 || len(web.Coverage.Shortfalls()) != 0 {
		t.Errorf("profile is %+v", web)
	}
	found := false
	for f := range web.Facts.Keys() {
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

func TestAllOfTheCoverageReachesTheProfile(t *testing.T) {
	s := planted(t)
	fact := behavior.Fact{Kind: behavior.Process, Path: "/app"}
	n := s.plant("node-1", "web-1", "web", nil, fact)
	span := behavior.Span{First: at(), Last: at().Add(time.Second)}
	n.status = wire.Status{LostAt: map[string]behavior.Span{"ring buffer full": span}, Hooks: map[behavior.Kind][]string{behavior.File: {"fentry"}},
		Maps: map[string]behavior.MapUse{"files": {High: 3, Size: 4}}}
	k := n.containers["web-1"]
	k.Ready, k.Steady, k.Terminated, k.Restarts = true, true, true, 2
	k.LostAt, k.Mounts = map[string]behavior.Span{"limit": span}, map[string]behavior.Mount{"/data": {Volume: "data", Kind: "emptyDir"}}
	k.facts[fact] = wire.Observation{Fact: fact, Count: 1, First: at(), Last: at(), Snapshot: true, Parents: []string{"/init"}}
	p := s.assembled().Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "web"}, Container: "web"}]
	want := behavior.Coverage{
		Pods: map[string]behavior.PodCoverage{"web-1": {Node: "node-1", Image: "i", From: at(), To: at().Add(time.Minute),
			Start: true, Ready: true, Steady: true, Terminated: true, Restarts: 2}},
		Replicas: 2, Hooks: n.status.Hooks, Mounts: k.Mounts, Spec: s.picture.topology.Spec("shop", "web-1"),
		LostAt: map[string]behavior.Span{"node-1: ring buffer full": span, "web-1: limit": span},
		Maps:   map[string]behavior.MapUse{"node-1: files": {High: 3, Size: 4}},
	}
	if !reflect.DeepEqual(p.Coverage, want) || p.Coverage.Spec == nil {
		t.Errorf("got  %+v\nwant %+v", p.Coverage, want)
	}
	if e, _ := p.Facts.Get(fact); !e.Snapshot || !reflect.DeepEqual(e.Parents, []string{"/init"}) {
		t.Errorf("evidence is %+v", e)
	}
}

func TestANodeSpeaksForItsOwnPodsOnly(t *testing.T) {
	for name, c := range map[string]struct{ node, pod, container string }{
		"a pod of another node":            {"node-2", "web-1", "web"},
		"a container that the pod has not": {"node-1", "web-1", "../../evil"},
	} {
		t.Run(name, func(t *testing.T) {
			s := planted(t)
			s.plant(c.node, c.pod, c.container, nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
			result := s.assembled()
			if len(result.Profiles) != 0 || len(result.Nodes) != 1 || result.Nodes[0].Node != c.node || result.Unattributed != 1 {
				t.Errorf("got %+v", result)
			}
		})
	}
}

func TestPodsThatCameAndWentCountAsReplicas(t *testing.T) {
	s := planted(t)
	s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	s.plant("node-2", "web-2", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	// A rollout replaced both; the new ones were never observed.
	for _, name := range []string{"web-1", "web-2"} {
		s.picture.remove(podKey{"shop", name})
	}
	for name, node := range map[string]string{"web-3": "node-1", "web-4": "node-2"} {
		s.addPod(t, name, "web", node, "Running")
	}
	s.addPod(t, "web-0", "web", "node-1", "Succeeded") // was over before anybody looked
	web := s.assembled().Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "web"}, Container: "web"}]
	if got := web.Coverage.Shortfalls(); !reflect.DeepEqual(got, []string{"2 of 4 pods observed"}) {
		t.Errorf("coverage is short of %q", got)
	}
}

func TestAPodThatMovedIsObservedOnBothNodes(t *testing.T) {
	s := planted(t)
	s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	s.plant("node-2", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	s.addPod(t, "web-1", "web", "node-2", "Running")
	if result := s.assembled(); len(result.Nodes) != 0 || result.Unattributed != 0 {
		t.Errorf("got %+v", result)
	}
}

func TestWhatAPodDidIsKnownAfterItWasDeleted(t *testing.T) {
	s := planted(t)
	s.picture.remove(podKey{"shop", "web-1"})
	s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	result := s.assembled()
	if len(result.Nodes) != 0 || result.Unattributed != 0 || len(result.Profiles) != 1 {
		t.Errorf("got %+v", result)
	}
}
