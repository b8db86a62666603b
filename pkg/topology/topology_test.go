package topology_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// t0 is when the objects of the tests were made.
func t0() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

type object = map[string]any

func meta(namespace, name string, labels map[string]string, owners ...object) object {
	return object{"namespace": namespace, "name": name, "labels": labels, "creationTimestamp": t0().Format(time.RFC3339), "ownerReferences": owners}
}

func owner(kind, name string) object {
	return object{"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true, "uid": "x"}
}

func pod(namespace, name, ip string, labels map[string]string, owners ...object) object {
	return object{
		"metadata": meta(namespace, name, labels, owners...),
		"spec": object{"nodeName": "node-1", "containers": []object{{"name": "c", "ports": []object{
			{"name": "http", "containerPort": 8080, "protocol": "TCP"}}}}},
		"status": object{"phase": "Running", "podIP": ip, "podIPs": []object{{"ip": ip}}, "hostIP": "10.0.0.1", "startTime": t0().Format(time.RFC3339)},
	}
}

func put(t *testing.T, c *topology.Cluster, kind string, o any) {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Add(kind, data, t0()); err != nil {
		t.Fatal(err)
	}
}

func labels(app string) map[string]string {
	return map[string]string{"app": app, "pod-template-hash": "5d4f"}
}

func service(namespace, name, ip string, ports []object, selector map[string]string) object {
	return object{"metadata": object{"namespace": namespace, "name": name},
		"spec": object{"clusterIP": ip, "clusterIPs": []string{ip}, "ports": ports, "selector": selector}}
}

func endpoints(namespace, service, slice string, port int, portName string, eps ...object) object {
	return object{"metadata": object{"namespace": namespace, "name": slice, "labels": map[string]string{"kubernetes.io/service-name": service}},
		"addressType": "IPv4", "ports": []object{{"name": portName, "port": port, "protocol": "TCP"}}, "endpoints": eps}
}

func endpoint(ip, namespace, pod string) object {
	o := object{"addresses": []string{ip}, "conditions": object{"ready": true}}
	if pod != "" {
		o["targetRef"] = object{"kind": "Pod", "namespace": namespace, "name": pod}
	}
	return o
}

// shop is a cluster of two nodes with a shop and DNS in it.
func shop(t *testing.T) *topology.Cluster {
	t.Helper()
	c := topology.New()
	for i := range 2 {
		put(t, c, "Node", object{"metadata": object{"name": fmt.Sprintf("node-%d", i+1)},
			"spec":   object{"podCIDR": fmt.Sprintf("10.1.%d.0/24", i+1), "podCIDRs": []string{fmt.Sprintf("10.1.%d.0/24", i+1), fmt.Sprintf("fd00:%d::/64", i+1)}},
			"status": object{"addresses": []object{{"type": "InternalIP", "address": fmt.Sprintf("10.0.0.%d", i+1)}, {"type": "Hostname", "address": "node"}}}})
	}
	for _, app := range []string{"web", "api", "store"} {
		put(t, c, "Deployment", object{"metadata": meta("shop", app, nil), "spec": object{"selector": object{"matchLabels": map[string]string{"app": app}}}})
		put(t, c, "ReplicaSet", object{"metadata": meta("shop", app+"-5d4f", nil, owner("Deployment", app))})
	}
	put(t, c, "Pod", pod("shop", "web-5d4f-a", "10.1.1.10", labels("web"), owner("ReplicaSet", "web-5d4f")))
	put(t, c, "Pod", pod("shop", "web-5d4f-b", "10.1.2.10", labels("web"), owner("ReplicaSet", "web-5d4f")))
	put(t, c, "Pod", pod("shop", "api-5d4f-a", "10.1.1.11", labels("api"), owner("ReplicaSet", "api-5d4f")))
	put(t, c, "Pod", pod("shop", "store-5d4f-a", "10.1.2.12", labels("store"), owner("ReplicaSet", "store-5d4f")))
	put(t, c, "Pod", pod("kube-system", "coredns-5d4f-a", "10.1.1.2", map[string]string{"k8s-app": "kube-dns", "pod-template-hash": "5d4f"}, owner("ReplicaSet", "coredns-5d4f")))
	host := pod("kube-system", "proxy-x", "10.0.0.2", map[string]string{"app": "proxy"}, owner("DaemonSet", "proxy"))
	host["spec"].(object)["hostNetwork"] = true
	put(t, c, "Pod", host)
	http := []object{{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}}
	put(t, c, "Service", service("shop", "api", "10.2.0.1", http, map[string]string{"app": "api"}))
	put(t, c, "EndpointSlice", endpoints("shop", "api", "api-x", 8080, "http", endpoint("10.1.1.11", "shop", "api-5d4f-a")))
	put(t, c, "Service", service("shop", "both", "10.2.0.2", []object{{"port": 80, "targetPort": 8080}}, nil))
	put(t, c, "EndpointSlice", endpoints("shop", "both", "both-x", 8080, "", endpoint("10.1.1.11", "shop", "api-5d4f-a"), endpoint("10.1.1.10", "shop", "web-5d4f-a"), endpoint("10.1.2.10", "shop", "web-5d4f-b")))
	put(t, c, "Service", service("kube-system", "kube-dns", "10.2.0.10", []object{{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}, {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}}, map[string]string{"k8s-app": "kube-dns"}))
	put(t, c, "Service", service("default", "kubernetes", "10.2.0.254", []object{{"name": "https", "port": 443, "targetPort": 6443}}, nil))
	put(t, c, "EndpointSlice", endpoints("default", "kubernetes", "kubernetes", 6443, "https", endpoint("10.0.0.1", "", "")))
	put(t, c, "Service", service("shop", "legacy", "10.2.0.3", []object{{"port": 5432}}, nil))
	put(t, c, "EndpointSlice", endpoints("shop", "legacy", "legacy", 15432, "", endpoint("192.0.2.7", "", "")))
	put(t, c, "Service", service("shop", "metrics", "10.2.0.4", []object{{"port": 9100}}, nil))
	put(t, c, "EndpointSlice", endpoints("shop", "metrics", "metrics", 9100, "", endpoint("10.0.0.2", "kube-system", "proxy-x")))
	put(t, c, "Service", service("shop", "empty", "10.2.0.5", []object{{"port": 80}}, map[string]string{"app": "nobody"}))
	return c
}

func TestResolve(t *testing.T) {
	c := shop(t)
	peer := func(ns, slug, labels, service string) behavior.Peer {
		return behavior.Peer{Kind: behavior.PeerWorkload, Namespace: ns, Workload: slug, Labels: labels, Service: service}
	}
	at := func(kind behavior.PeerKind, addr, service string) behavior.Peer {
		return behavior.Peer{Kind: kind, Address: netip.MustParseAddr(addr), Service: service}
	}
	type want struct {
		port uint16
		peer behavior.Peer
	}
	for _, tc := range []struct {
		name      string
		direction behavior.Direction
		protocol  string
		addr      string
		port      uint16
		want      []want
	}{
		{"a pod's address is its workload", behavior.Egress, "tcp", "10.1.1.11", 8080, []want{{8080, peer("shop", "deployment-api", "app=api", "")}}},
		{"a ClusterIP is the workload behind it, on its named target port", behavior.Egress, "tcp", "10.2.0.1", 80, []want{{8080, peer("shop", "deployment-api", "app=api", "api:80")}}},
		{"an IPv4 address in an IPv6 one is the IPv4 one", behavior.Egress, "tcp", "::ffff:10.2.0.1", 80, []want{{8080, peer("shop", "deployment-api", "app=api", "api:80")}}},
		{"a NodePort is the workload behind it", behavior.Egress, "tcp", "10.0.0.2", 30080, []want{{8080, peer("shop", "deployment-api", "app=api", "api:80")}}},
		{"a Service with two workloads gives one fact for each", behavior.Egress, "tcp", "10.2.0.2", 80, []want{
			{8080, peer("shop", "deployment-api", "app=api", "both:80")}, {8080, peer("shop", "deployment-web", "app=web", "both:80")}}},
		{"a Service of another namespace says so", behavior.Egress, "udp", "10.2.0.10", 53, []want{{53, peer("kube-system", "deployment-coredns", "k8s-app=kube-dns", "kube-system/kube-dns:53")}}},
		{"the kubernetes Service is the API server on its own port", behavior.Egress, "tcp", "10.2.0.254", 443, []want{{6443, at(behavior.PeerAPIServer, "10.0.0.1", "default/kubernetes:443")}}},
		{"the API server's own address and port is the API server", behavior.Egress, "tcp", "10.0.0.1", 6443, []want{{6443, at(behavior.PeerAPIServer, "10.0.0.1", "")}}},
		{"another port there is the node", behavior.Egress, "tcp", "10.0.0.1", 10250, []want{{10250, behavior.Peer{Kind: behavior.PeerOwnNode}}}},
		{"a Service of host-network pods is the node", behavior.Egress, "tcp", "10.2.0.4", 9100, []want{{9100, at(behavior.PeerNode, "10.0.0.2", "metrics:9100")}}},
		{"a Service of addresses outside is outside, on their port", behavior.Egress, "tcp", "10.2.0.3", 5432, []want{{15432, at(behavior.PeerOutside, "192.0.2.7", "legacy:5432")}}},
		{"a Service without endpoints stays unresolved", behavior.Egress, "tcp", "10.2.0.5", 80, []want{{80, at("", "10.2.0.5", "empty:80")}}},
		{"a Service's address on a port it does not serve stays unresolved", behavior.Egress, "tcp", "10.2.0.1", 81, []want{{81, at("", "10.2.0.1", "")}}},
		{"a pod address that nobody remembers stays unresolved", behavior.Egress, "tcp", "10.1.1.99", 80, []want{{80, at("", "10.1.1.99", "")}}},
		{"loopback is itself", behavior.Egress, "tcp", "127.0.0.1", 80, []want{{80, behavior.Peer{Kind: behavior.PeerSelf}}}},
		{"IPv6 loopback is itself", behavior.Egress, "tcp", "::1", 80, []want{{80, behavior.Peer{Kind: behavior.PeerSelf}}}},
		{"the pod's own address is itself", behavior.Egress, "tcp", "10.1.1.10", 80, []want{{80, behavior.Peer{Kind: behavior.PeerSelf}}}},
		{"another replica is the workload", behavior.Ingress, "tcp", "10.1.2.10", 80, []want{{80, peer("shop", "deployment-web", "app=web", "")}}},
		{"an address of the internet is outside", behavior.Egress, "tcp", "203.0.113.9", 443, []want{{443, at(behavior.PeerOutside, "203.0.113.9", "")}}},
		{"an IPv6 address of the internet is outside", behavior.Egress, "tcp", "2001:db8::9", 443, []want{{443, at(behavior.PeerOutside, "2001:db8::9", "")}}},
		{"a probe comes from the node's bridge", behavior.Ingress, "tcp", "10.1.1.1", 8080, []want{{8080, behavior.Peer{Kind: behavior.PeerOwnNode}}}},
		{"another node's tunnel is a node", behavior.Ingress, "tcp", "10.1.2.0", 8080, []want{{8080, at(behavior.PeerNode, "10.1.2.0", "")}}},
		{"an IPv6 bridge is a node", behavior.Ingress, "tcp", "fd00:1::1", 8080, []want{{8080, behavior.Peer{Kind: behavior.PeerOwnNode}}}},
		{"a probe from the node's address", behavior.Ingress, "tcp", "10.0.0.1", 8080, []want{{8080, behavior.Peer{Kind: behavior.PeerOwnNode}}}},
		{"an ingress port is never translated", behavior.Ingress, "tcp", "10.1.1.11", 80, []want{{80, peer("shop", "deployment-api", "app=api", "")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := behavior.Fact{Kind: behavior.Network, Exe: "/bin/web", Direction: tc.direction, Protocol: tc.protocol, Port: tc.port, Peer: behavior.Peer{Address: netip.MustParseAddr(tc.addr)}}
			got := c.Resolve(f, "shop", "web-5d4f-a", t0().Add(time.Minute))
			var want []behavior.Fact
			for _, w := range tc.want {
				g := f
				g.Port, g.Peer = w.port, w.peer
				want = append(want, g)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			for _, g := range got {
				if err := g.Validate(); err != nil {
					t.Error(err)
				}
				if again := c.Resolve(g, "shop", "web-5d4f-a", t0()); g.Peer.Kind != "" && !slices.Equal(again, []behavior.Fact{g}) {
					t.Errorf("resolving twice gave %+v", again)
				}
			}
		})
	}
}

func TestResolveWithoutSlicesUsesTheSelector(t *testing.T) {
	c := topology.New()
	put(t, c, "Pod", pod("shop", "api-0", "10.1.1.11", map[string]string{"app": "api"}, owner("StatefulSet", "api")))
	put(t, c, "Service", service("shop", "api", "10.2.0.1", []object{{"port": 80, "targetPort": "http"}}, map[string]string{"app": "api"}))
	f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr("10.2.0.1")}}
	got := c.Resolve(f, "shop", "web", time.Time{})
	if len(got) != 1 || got[0].Port != 8080 || got[0].Peer.Workload != "statefulset-api" {
		t.Errorf("got %+v", got)
	}
}

func TestResolveRemembersWhoHadAnAddress(t *testing.T) {
	c := shop(t)
	now := t0().Add(10 * time.Minute)
	c.RemovePod("shop", "api-5d4f-a", now)
	next := pod("shop", "store-5d4f-b", "10.1.1.11", labels("store"), owner("ReplicaSet", "store-5d4f"))
	next["status"].(object)["startTime"] = now.Add(time.Minute).Format(time.RFC3339)
	put(t, c, "Pod", next)
	for _, tc := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"while the first pod lived", now.Add(-time.Minute), "deployment-api"},
		{"a moment after it was gone", now.Add(3 * time.Second), "deployment-api"},
		{"between the two", now.Add(30 * time.Second), ""},
		{"a moment before the second, whose node's clock is behind", now.Add(57 * time.Second), "deployment-store"},
		{"while the second pod lives", now.Add(2 * time.Minute), "deployment-store"},
		{"now", time.Time{}, "deployment-store"},
		{"before either", t0().Add(-time.Minute), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Ingress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr("10.1.1.11")}}
			if got := c.Resolve(f, "shop", "web-5d4f-a", tc.at); len(got) != 1 || got[0].Peer.Workload != tc.want {
				t.Errorf("got %+v, want %q", got, tc.want)
			}
		})
	}
	if w, l, ok := c.Workload("shop", "api-5d4f-a"); !ok || w.Slug() != "deployment-api" || l["app"] != "api" {
		t.Errorf("the pod that is gone was forgotten: %v %v %v", w, l, ok)
	}
	if n := c.Replicas(behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "api"}); n != 0 {
		t.Errorf("a workload whose only pod is gone has %d replicas", n)
	}
}

func TestAFinishedPodGivesItsAddressFree(t *testing.T) {
	c := topology.New()
	done := pod("shop", "job-x", "10.1.1.20", map[string]string{"app": "job"}, owner("Job", "job"))
	done["status"].(object)["phase"] = "Succeeded"
	done["status"].(object)["containerStatuses"] = []object{{"name": "c", "state": object{"terminated": object{"finishedAt": t0().Add(time.Minute).Format(time.RFC3339)}}}}
	put(t, c, "Pod", done)
	for at, want := range map[time.Duration]behavior.PeerKind{30 * time.Second: behavior.PeerWorkload, time.Hour: behavior.PeerOutside} {
		f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr("10.1.1.20")}}
		if got := c.Resolve(f, "shop", "other", t0().Add(at)); got[0].Peer.Kind != want {
			t.Errorf("after %s: %+v, want %q", at, got[0].Peer, want)
		}
	}
}

func TestWorkload(t *testing.T) {
	c := shop(t)
	put(t, c, "CronJob", object{"metadata": meta("shop", "nightly", nil), "spec": object{"jobTemplate": object{"spec": object{"template": object{"metadata": object{"labels": map[string]string{"app": "nightly"}}}}}}})
	put(t, c, "Job", object{"metadata": meta("shop", "nightly-1", nil, owner("CronJob", "nightly")), "spec": object{"selector": object{"matchLabels": map[string]string{"batch.kubernetes.io/controller-uid": "u"}}}})
	put(t, c, "StatefulSet", object{"metadata": meta("shop", "db", nil, owner("Postgres", "main")), "spec": object{"selector": object{"matchLabels": map[string]string{"app": "db"}}}})
	put(t, c, "ReplicaSet", object{"metadata": meta("shop", "canary-1", nil, owner("Rollout", "canary"))})
	put(t, c, "ReplicaSet", object{"metadata": meta("shop", "loop", nil, owner("ReplicaSet", "loop"))})
	for _, tc := range []struct {
		name   string
		labels map[string]string
		owner  object
		want   string
		stable string
	}{
		{"a Deployment by its ReplicaSet", map[string]string{"app": "web", "pod-template-hash": "5d4f", "extra": "x"}, owner("ReplicaSet", "web-5d4f"), "Deployment/web", "app=web"},
		{"a Deployment whose ReplicaSet is gone, by the hash", map[string]string{"app": "old", "pod-template-hash": "77"}, owner("ReplicaSet", "old-77"), "Deployment/old", "app=old"},
		{"a ReplicaSet that nobody knows and no hash names", map[string]string{"app": "old"}, owner("ReplicaSet", "old-77"), "ReplicaSet/old-77", "app=old"},
		{"a CronJob by its Job", map[string]string{"app": "nightly", "job-name": "nightly-1", "batch.kubernetes.io/job-name": "nightly-1", "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"}, owner("Job", "nightly-1"), "CronJob/nightly", "app=nightly"},
		{"a Job of its own", map[string]string{"app": "once", "job-name": "once"}, owner("Job", "once"), "Job/once", "app=once"},
		{"a StatefulSet, whoever owns that", map[string]string{"app": "db", "statefulset.kubernetes.io/pod-name": "db-0", "apps.kubernetes.io/pod-index": "0", "controller-revision-hash": "h"}, owner("StatefulSet", "db"), "StatefulSet/db", "app=db"},
		{"a DaemonSet that was not handed in", map[string]string{"app": "agent", "controller-revision-hash": "h", "pod-template-generation": "3"}, owner("DaemonSet", "agent"), "DaemonSet/agent", "app=agent"},
		{"a controller of an unknown kind, by the reference", map[string]string{"app": "canary", "rollouts-pod-template-hash": "h"}, owner("ReplicaSet", "canary-1"), "Rollout/canary", "app=canary"},
		{"a bare pod", map[string]string{"run": "x", "topology.kubernetes.io/zone": "a"}, nil, "Pod/p", "run=x"},
		{"a static pod, which its node owns", map[string]string{"component": "etcd"}, owner("Node", "node-1"), "Pod/p", "component=etcd"},
		{"references that go in circles", map[string]string{"app": "l"}, owner("ReplicaSet", "loop"), "ReplicaSet/loop", "app=l"},
		{"an owner with a name that no object has", map[string]string{"app": "evil"}, owner("Thing", "../../x"), "Pod/p", "app=evil"},
		{"an owner of a kind that no object has", map[string]string{"app": "evil"}, owner("a/b", "x"), "Pod/p", "app=evil"},
		{"a selector that the pod does not carry is not used", map[string]string{"other": "y"}, owner("StatefulSet", "db"), "StatefulSet/db", "other=y"},
		{"a pod with labels that all change", map[string]string{"pod-template-hash": "77"}, owner("ReplicaSet", "bare-77"), "Deployment/bare", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var owners []object
			if tc.owner != nil {
				owners = append(owners, tc.owner)
			}
			put(t, c, "Pod", pod("shop", "p", "10.1.1.50", tc.labels, owners...))
			w, l, ok := c.Workload("shop", "p")
			if got := w.Kind + "/" + w.Name; !ok || got != tc.want || behavior.FormatLabels(l) != tc.stable {
				t.Errorf("got %s with %v (%v), want %s with %s", got, l, ok, tc.want, tc.stable)
			}
		})
	}
	if _, _, ok := c.Workload("shop", "nobody"); ok {
		t.Error("a pod that was never seen has a workload")
	}
}

func TestOverlapNamesTheOtherWorkloads(t *testing.T) {
	c := shop(t)
	web := behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
	if got := c.Overlap(web, map[string]string{"app": "web"}); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	put(t, c, "Pod", pod("shop", "migrate-x", "10.1.1.60", map[string]string{"app": "web", "job-name": "migrate"}, owner("Job", "migrate")))
	if got := c.Overlap(web, map[string]string{"app": "web"}); len(got) != 1 || got[0].String() != "job/migrate" {
		t.Errorf("got %v, want the job", got)
	}
	if got := c.Overlap(web, nil); len(got) != 3 {
		t.Errorf("no labels select %v, want all others", got)
	}
	if got := c.Replicas(web); got != 2 {
		t.Errorf("got %d replicas, want 2", got)
	}
}

func TestAddTakesListsAndRefusesTheRest(t *testing.T) {
	c := topology.New()
	put(t, c, "Pod", object{"kind": "PodList", "items": []object{pod("a", "x", "10.1.1.1", nil), pod("a", "y", "10.1.1.2", nil)}})
	if _, _, ok := c.Workload("a", "y"); !ok {
		t.Error("the list's second pod is missing")
	}
	for kind, data := range map[string]string{"Pod": `{"metadata": 3}`, "Service": `[`, "Secret": `{}`} {
		if err := c.Add(kind, []byte(data), t0()); err == nil {
			t.Errorf("%s %s was taken", kind, data)
		}
	}
}

// FuzzAdd feeds objects that no API server would give.
func FuzzAdd(f *testing.F) {
	f.Add("Pod", `{"metadata":{"name":"a","ownerReferences":[{"kind":"ReplicaSet","name":"a-b","controller":true}]},"status":{"podIP":"::ffff:1.2.3.4"}}`)
	f.Add("Service", `{"metadata":{"namespace":"default","name":"kubernetes"},"spec":{"clusterIP":"1.2.3.4","ports":[{"port":1,"targetPort":"x"}]}}`)
	f.Add("Node", `{"spec":{"podCIDR":"255.255.255.255/32"}}`)
	f.Add("EndpointSlice", `{"items":[{"endpoints":[{"addresses":["x"]}],"ports":[{}]}]}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		c := topology.New()
		if err := c.Add(kind, []byte(data), time.Time{}); err != nil {
			return
		}
		for _, a := range []string{"1.2.3.4", "255.255.255.255"} {
			fact := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 1, Peer: behavior.Peer{Address: netip.MustParseAddr(a)}}
			for _, g := range c.Resolve(fact, "", "a", time.Time{}) {
				if g.Peer.Workload != "" && !behavior.IsEscaped(g.Peer.Workload) {
					t.Errorf("unescaped %q", g.Peer.Workload)
				}
			}
		}
	})
}
