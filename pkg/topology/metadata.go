package topology

import "net/netip"

// linkLocal tells whether an address means something else on every link or in
// every cloud: it is link-local, or one at which a cloud tells each machine about
// itself, its credentials included.
func linkLocal(addr netip.Addr) bool {
	if addr.IsLinkLocalUnicast() {
		return true // 169.254.0.0/16 with the metadata services of nearly all, and fe80::/10
	}
	switch addr {
	case netip.MustParseAddr("fd00:ec2::254"), // AWS: Instance Metadata Service User Guide
		netip.MustParseAddr("fd00:ec2::23"),    // AWS: EKS Pod Identity agent
		netip.MustParseAddr("fd20:ce::254"),    // Google: Compute Engine, metadata server
		netip.MustParseAddr("168.63.129.16"),   // Azure: WireServer
		netip.MustParseAddr("192.0.0.192"),     // Oracle: instance metadata of old images
		netip.MustParseAddr("100.100.100.200"): // Alibaba: ECS instance metadata
		return true
	}
	return false
}
