package topology_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestTheAddressBeforeTranslationBecomesTheService(t *testing.T) {
	c := shop(t)
	api := behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api", Service: "api:80"}
	for name, tc := range map[string]struct {
		direction behavior.Direction
		addr      string
		port      uint16
		via       string
		want      behavior.Peer
		kept      bool // Via
	}{
		"a ClusterIP":                                {behavior.Egress, "10.1.1.11", 8080, "10.2.0.1:80", api, false},
		"a ClusterIP as an IPv6 socket shows it":     {behavior.Egress, "10.1.1.11", 8080, "[::ffff:10.2.0.1]:80", api, false},
		"a port of a node":                           {behavior.Egress, "10.1.1.11", 8080, "10.0.0.2:30080", api, false},
		"the API server's Service":                   {behavior.Egress, "10.0.0.1", 6443, "10.2.0.254:443", behavior.Peer{Kind: behavior.PeerAPIServer, Address: netip.MustParseAddr("10.0.0.1"), Service: "default/kubernetes:443"}, false},
		"a Service of addresses outside":             {behavior.Egress, "192.0.2.7", 15432, "10.2.0.3:5432", behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.7"), Service: "legacy:5432"}, false},
		"an address that is no Service's is kept":    {behavior.Egress, "192.0.2.7", 15432, "198.51.100.1:5432", behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.7")}, true},
		"a port that the Service has not is kept":    {behavior.Egress, "192.0.2.7", 15432, "10.2.0.3:1", behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.7")}, true},
		"what comes in was asked for by others":      {behavior.Ingress, "192.0.2.7", 8080, "10.2.0.1:80", behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.7")}, true},
		"without it, an address is what it is alone": {behavior.Egress, "10.1.1.11", 8080, "", behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: tc.direction, Protocol: "tcp", Port: tc.port, Peer: behavior.Peer{Address: netip.MustParseAddr(tc.addr)}}
			if tc.via != "" {
				f.Via = netip.MustParseAddrPort(tc.via)
			}
			want := f
			want.Peer = tc.want
			if !tc.kept {
				want.Via = netip.AddrPort{}
			}
			if got := c.Resolve(f, "shop", "web-5d4f-a", t0()); !slices.Equal(got, []behavior.Fact{want}) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestANameIsKeptForAPeerOutsideOnly(t *testing.T) {
	c := shop(t)
	for name, tc := range map[string]struct {
		direction  behavior.Direction
		addr, want string
		port       uint16
	}{
		"outside":                       {behavior.Egress, "192.0.2.7", "db.example", 5432},
		"outside, through a Service":    {behavior.Egress, "10.2.0.3", "", 5432},
		"a workload":                    {behavior.Egress, "10.1.1.11", "", 8080},
		"a workload, through a Service": {behavior.Egress, "10.2.0.1", "", 80},
		"the API server":                {behavior.Egress, "10.0.0.1", "", 6443},
		"a node":                        {behavior.Egress, "10.0.0.2", "", 10250},
		"a Service without endpoints":   {behavior.Egress, "10.2.0.5", "", 80},
		"whoever came in":               {behavior.Ingress, "192.0.2.7", "", 8080},
	} {
		t.Run(name, func(t *testing.T) {
			f := behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: tc.direction, Protocol: "tcp", Port: tc.port,
				Peer: behavior.Peer{Address: netip.MustParseAddr(tc.addr), Name: "db.example"}}
			for _, got := range c.Resolve(f, "shop", "web-5d4f-a", t0()) {
				if got.Peer.Name != tc.want {
					t.Errorf("got the name %q, want %q", got.Peer.Name, tc.want)
				}
			}
		})
	}
}
