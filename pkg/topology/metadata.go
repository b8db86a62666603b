package topology

import "net/netip"

// linkLocal tells whether an address means something else on every link or in
// every cloud: it is link-local, or one at which a cloud tells each machine about
// itself, its credentials included.
func (x *index) linkLocal(addr netip.Addr) bool {
	return addr.IsLinkLocalUnicast() || x.metadata[addr] // 169.254.0.0/16 with the metadata services of nearly all, and fe80::/10
}

// metadata are the addresses of clouds' metadata services that are not link-local.
func metadata() map[netip.Addr]bool {
	return map[netip.Addr]bool{
		netip.MustParseAddr("fd00:ec2::254"):   true, // AWS: Instance Metadata Service User Guide
		netip.MustParseAddr("fd00:ec2::23"):    true, // AWS: EKS Pod Identity agent
		netip.MustParseAddr("fd20:ce::254"):    true, // Google: Compute Engine, metadata server
		netip.MustParseAddr("168.63.129.16"):   true, // Azure: WireServer
		netip.MustParseAddr("192.0.0.192"):     true, // Oracle: instance metadata of old images
		netip.MustParseAddr("100.100.100.200"): true, // Alibaba: ECS instance metadata
	}
}
