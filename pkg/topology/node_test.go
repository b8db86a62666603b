package topology

import (
	"net/netip"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// The kubelet's probes come from addresses out of the range of pods where the network
// is Cilium or Calico, and neither is the range's first address.
func TestANodeIsToldByTheAddressesThatItsNetworkGaveIt(t *testing.T) {
	for what, object := range map[string][2]string{
		"Cilium's own object":   {"CiliumNode", `{"metadata":{"name":"node-1"},"spec":{"addresses":[{"ip":"172.30.0.10","type":"InternalIP"},{"ip":"10.1.0.99","type":"CiliumInternalIP"}]}}`},
		"Cilium's annotation":   {"Node", `{"metadata":{"name":"node-1","annotations":{"network.cilium.io/ipv4-cilium-host":"10.1.0.99"}}}`},
		"Calico's tunnel":       {"Node", `{"metadata":{"name":"node-1","annotations":{"projectcalico.org/IPv4VXLANTunnelAddr":"10.1.0.99"}}}`},
		"an address and length": {"Node", `{"metadata":{"name":"node-1","annotations":{"projectcalico.org/IPv4IPIPTunnelAddr":"10.1.0.99/32"}}}`},
		"a list":                {"CiliumNode", `{"items":[{"metadata":{"name":"node-1"},"spec":{"addresses":[{"ip":"none"},{"ip":"10.1.0.99"}]}}]}`},
	} {
		t.Run(what, func(t *testing.T) {
			c := New()
			now := time.Now()
			for kind, data := range map[string]string{
				"Pod":     `{"metadata":{"namespace":"shop","name":"web-1","labels":{"app":"web"}},"spec":{"nodeName":"node-1"},"status":{"podIP":"10.1.0.5","podIPs":[{"ip":"10.1.0.5"}]}}`,
				object[0]: object[1],
			} {
				if err := c.Add(kind, []byte(data), now); err != nil {
					t.Fatal(err)
				}
			}
			probe := behavior.Fact{Kind: behavior.Network, Exe: "/web", Direction: behavior.Ingress, Protocol: "tcp", Port: 8080,
				Peer: behavior.Peer{Address: netip.MustParseAddr("10.1.0.99")}}
			if got := c.Resolve(probe, "shop", "web-1", now); len(got) != 1 || got[0].Peer.Kind != behavior.PeerOwnNode {
				t.Errorf("its probe comes from %+v", got)
			}
		})
	}
}
