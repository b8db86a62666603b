package topology_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestLinkLocalAndMetadataAddressesAreAKindOfTheirOwn(t *testing.T) {
	c := shop(t)
	for addr, want := range map[string]behavior.PeerKind{
		"169.254.169.254": behavior.PeerLinkLocal, "::ffff:169.254.169.254": behavior.PeerLinkLocal, "fd00:ec2::254": behavior.PeerLinkLocal,
		"fe80::1": behavior.PeerLinkLocal, "169.254.20.10": behavior.PeerLinkLocal, "168.63.129.16": behavior.PeerLinkLocal,
		"fd20:ce::254": behavior.PeerLinkLocal, "100.100.100.200": behavior.PeerLinkLocal, "192.0.0.192": behavior.PeerLinkLocal,
		"169.253.169.254": behavior.PeerOutside, "fd00:ec2::255": behavior.PeerOutside, "100.100.100.201": behavior.PeerOutside,
	} {
		f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 80,
			Peer: behavior.Peer{Address: netip.MustParseAddr(addr), Name: "metadata.example"}}
		for _, got := range c.Resolve(f, "shop", "web-5d4f-a", t0()) {
			if got.Peer.Kind != want || (got.Peer.Name != "") != (want == behavior.PeerOutside) {
				t.Errorf("%s is %+v, want %s", addr, got.Peer, want)
			}
		}
	}
}

func TestQuestionsAndRequestsAreResolvedAsConnectionsAre(t *testing.T) {
	c := shop(t)
	dns := behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: "a.example", Type: "A", Peer: behavior.Peer{Address: netip.MustParseAddr("10.2.0.10")}}
	got := c.Resolve(dns, "shop", "web-5d4f-a", t0())
	if len(got) != 1 || got[0].Peer.Workload != "deployment-coredns" || got[0].Direction != "" || got[0].Name != "a.example" {
		t.Errorf("a question becomes %+v", got)
	}
	request := behavior.Fact{Kind: behavior.HTTP, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Name: "GET", Path: "/", Type: "http",
		Peer: behavior.Peer{Address: netip.MustParseAddr("10.2.0.1")}}
	got = c.Resolve(request, "shop", "web-5d4f-a", t0())
	if len(got) != 1 || got[0].Peer.Workload != "deployment-api" || got[0].Port != 8080 {
		t.Errorf("a request becomes %+v", got)
	}
}

func TestExternalNamesAreTheNamesThatWereAsked(t *testing.T) {
	c := shop(t)
	put(t, c, "Service", object{"metadata": object{"namespace": "shop", "name": "mail"}, "spec": object{"type": "ExternalName", "externalName": "smtp.example"}})
	for asked, service := range map[string]string{
		"mail.shop.svc.cluster.local": "mail:25", "mail.shop.svc": "mail:25", "smtp.example": "", "api.shop.svc.cluster.local": "", "mail.other.svc": "",
	} {
		f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 25,
			Peer: behavior.Peer{Address: netip.MustParseAddr("203.0.113.25"), Name: asked}}
		got := c.Resolve(f, "shop", "web-5d4f-a", t0())
		if len(got) != 1 || got[0].Peer.Name != asked || got[0].Peer.Service != service || got[0].Peer.Kind != behavior.PeerOutside {
			t.Errorf("%s becomes %+v", asked, got)
		}
	}
}

func TestLabelsSelectJustTheWorkload(t *testing.T) {
	c := shop(t)
	deployment := func(name string, selector, more map[string]string) behavior.Workload {
		put(t, c, "Deployment", object{"metadata": meta("shop", name, nil), "spec": object{"selector": object{"matchLabels": selector}}})
		put(t, c, "ReplicaSet", object{"metadata": meta("shop", name+"-77", nil, owner("Deployment", name))})
		all := map[string]string{"pod-template-hash": "77"}
		maps.Copy(all, selector)
		maps.Copy(all, more)
		put(t, c, "Pod", pod("shop", name+"-77-a", "10.1.1."+map[string]string{"blue": "70", "green": "71", "job": "72", "same": "73"}[name], all, owner("ReplicaSet", name+"-77")))
		return behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: name}
	}
	common := map[string]string{"team": "a"}
	blue := deployment("blue", common, map[string]string{"colour": "blue", "version": "1"})
	deployment("green", common, map[string]string{"colour": "green", "version": "2"})
	job := deployment("job", common, nil)

	for pod, want := range map[string]map[string]string{
		"blue-77-a": {"team": "a", "colour": "blue"}, "green-77-a": {"team": "a", "colour": "green"}, "job-77-a": {"team": "a"}, "web-5d4f-a": {"app": "web"},
	} {
		if _, got, _ := c.Workload("shop", pod); !maps.Equal(got, want) {
			t.Errorf("%s is selected by %v, want %v", pod, got, want)
		}
	}
	if got := c.Overlap(blue, map[string]string{"team": "a", "colour": "blue"}); len(got) > 0 {
		t.Errorf("labels of blue also select %v", got)
	}
	if got := c.Overlap(job, common); len(got) != 2 {
		t.Errorf("labels of job also select %v", got)
	}
	if got := c.Selected("shop", common); !slices.Equal(got, []string{"blue-77-a", "green-77-a", "job-77-a"}) {
		t.Errorf("selected are %q", got)
	}
}

func TestServicesThatLetInWhoIsOutside(t *testing.T) {
	c := shop(t)
	api := behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "api"}
	if service, _, ok := c.Exposed(api, "tcp", 8080); ok {
		t.Errorf("api is exposed by %s", service)
	}
	for policy, kept := range map[string]bool{"Local": true, "Cluster": false, "": false} {
		put(t, c, "Service", object{"metadata": object{"namespace": "shop", "name": "front"}, "spec": object{"type": "LoadBalancer",
			"externalTrafficPolicy": policy, "clusterIP": "10.2.0.77", "selector": object{"app": "api"}, "ports": []object{{"port": 80, "targetPort": "http"}}}})
		if service, got, ok := c.Exposed(api, "tcp", 8080); !ok || service != "front" || got != kept {
			t.Errorf("%q: exposed by %q (%v), client kept: %v", policy, service, ok, got)
		}
		if _, _, ok := c.Exposed(api, "tcp", 80); ok {
			t.Error("the Service's own port is taken for the pod's")
		}
	}
}
