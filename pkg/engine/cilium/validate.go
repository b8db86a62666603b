package cilium

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// validate refuses what Cilium's own Sanitize refuses.
func (r rule) validate(clusterwide bool) error {
	if len(r.Ingress)+len(r.IngressDeny)+len(r.Egress)+len(r.EgressDeny) == 0 {
		return errors.New("rule without ingress, ingressDeny, egress and egressDeny")
	}
	switch {
	case r.EndpointSelector == nil && r.NodeSelector == nil:
		return errors.New("rule without endpointSelector")
	case r.EndpointSelector != nil && r.NodeSelector != nil:
		return errors.New("rule with both endpointSelector and nodeSelector")
	case r.NodeSelector != nil && !clusterwide:
		return errors.New("nodeSelector in a policy of a namespace")
	}
	for _, s := range []*engine.Selector{r.EndpointSelector, r.NodeSelector} {
		if s != nil && s.Validate() != nil {
			return s.Validate()
		}
	}
	for _, ingress := range []bool{true, false} {
		for _, e := range r.entries(ingress) {
			if err := e.validate(ingress); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e entry) validate(ingress bool) error {
	if err := e.peers.validate(); err != nil {
		return err
	}
	if len(e.ICMPs) > 0 && len(e.ToPorts) > 0 {
		return errors.New("icmps and toPorts in one rule")
	}
	if e.deny && (len(e.fqdns) > 0 || e.Authentication != nil) {
		return errors.New("deny rule with toFQDNs or authentication")
	}
	if a := e.Authentication; a != nil && !slices.Contains([]string{"disabled", "required", "test-always-fail"}, a.Mode) {
		return fmt.Errorf("authentication mode %q", a.Mode)
	}
	for _, i := range e.ICMPs {
		if len(i.Fields) > maxPorts {
			return fmt.Errorf("%d ICMP fields, at most %d", len(i.Fields), maxPorts)
		}
		for _, f := range i.Fields {
			if !slices.Contains([]string{"", "IPv4", "IPv6"}, f.Family) {
				return fmt.Errorf("ICMP family %q", f.Family)
			}
		}
	}
	for _, p := range e.ToPorts {
		if e.deny && (p.Rules != nil || p.ServerNames != nil || p.Listener != nil || p.TerminatingTLS != nil || p.OriginatingTLS != nil) {
			return errors.New("deny rule with more than ports in toPorts")
		}
		if err := p.validate(ingress); err != nil {
			return err
		}
	}
	return nil
}

func (p peers) validate() error {
	kinds := 0
	for _, n := range []int{len(p.endpoints), len(p.nodes), len(p.cidrs), len(p.cidrSets), len(p.entities), len(p.services), len(p.fqdns), len(p.groups)} {
		if n > 0 {
			kinds++
		}
	}
	if kinds > 1 {
		return errors.New("peers of different kinds in one rule")
	}
	if len(p.requires) > 0 {
		return errors.New("fromRequires and toRequires are gone from Cilium")
	}
	for _, s := range slices.Concat(p.endpoints, p.nodes) {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	for _, e := range p.entities {
		if !slices.Contains([]string{"all", "world", "world-ipv4", "world-ipv6", "cluster", "cluster-mesh", "host", "init",
			"ingress", "unmanaged", "remote-node", "health", "none", "kube-apiserver"}, e) {
			return fmt.Errorf("unknown entity %q", e)
		}
	}
	for _, n := range p.fqdns {
		if n.MatchName != "" && n.MatchPattern != "" {
			return errors.New("matchName and matchPattern in one toFQDNs")
		}
		if err := n.validate(); err != nil {
			return err
		}
	}
	for _, c := range p.cidrs {
		if _, err := parseCIDR(c); err != nil {
			return err
		}
	}
	for _, c := range p.cidrSets {
		if err := c.validate(); err != nil {
			return err
		}
	}
	return nil
}

// parseCIDR reads a prefix, or an address as the prefix of just it.
func parseCIDR(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("CIDR %q: %w", text, err)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (c cidrRule) validate() error {
	given := 0
	for _, set := range []bool{c.CIDR != "", c.GroupRef != "", c.GroupSelector != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return errors.New("CIDR set without exactly one of cidr, cidrGroupRef and cidrGroupSelector")
	}
	if c.CIDR == "" {
		return nil
	}
	prefix, err := netip.ParsePrefix(c.CIDR)
	if err != nil {
		return fmt.Errorf("CIDR %q: %w", c.CIDR, err)
	}
	for _, e := range c.Except {
		except, err := netip.ParsePrefix(e)
		if err != nil {
			return fmt.Errorf("CIDR %q: %w", e, err)
		}
		if prefix.Bits() > except.Bits() || !prefix.Contains(except.Addr()) {
			return fmt.Errorf("CIDR %s does not contain its exception %s", c.CIDR, e)
		}
	}
	return nil
}

func (p portRule) validate(ingress bool) error {
	if len(p.Ports) > maxPorts {
		return fmt.Errorf("%d ports in one toPorts, at most %d", len(p.Ports), maxPorts)
	}
	kinds, dns := 0, false
	if p.Rules != nil {
		kinds, dns = p.Rules.kinds(), len(p.Rules.DNS) > 0
		if err := p.Rules.validate(); err != nil {
			return err
		}
	}
	if kinds > 1 {
		return errors.New("layer 7 rules of different kinds in one toPorts")
	}
	if dns && (ingress || len(p.Ports) == 0) {
		return errors.New("DNS rules need egress and a port")
	}
	if kinds > 0 && (len(p.ServerNames) > 0 && p.TerminatingTLS == nil || p.Listener != nil) {
		return errors.New("layer 7 rules with serverNames or listener")
	}
	if slices.Contains(p.ServerNames, "") {
		return errors.New("empty server name")
	}
	for _, q := range p.Ports {
		number, named, err := q.parse()
		switch {
		case err != nil:
			return err
		case kinds > 0 && !dns && q.Protocol != "TCP":
			return errors.New("layer 7 rules on a protocol other than TCP")
		case kinds > 0 && number == 0 && !named:
			return errors.New("layer 7 rules on port 0")
		case dns && !named && q.EndPort > int32(number):
			return errors.New("DNS rules on a range of ports")
		}
	}
	return nil
}

// parse gives the port's number, 0 for every port, or tells that it is a name.
func (p port) parse() (number uint16, named bool, err error) {
	if !slices.Contains([]string{"", "ANY", "TCP", "UDP", "SCTP", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"}, p.Protocol) {
		return 0, false, fmt.Errorf("protocol %q in toPorts", p.Protocol)
	}
	if p.EndPort < 0 || p.EndPort > 65535 {
		return 0, false, fmt.Errorf("endPort %d", p.EndPort)
	}
	if isServiceName(p.Port) {
		return 0, true, nil
	}
	n, err := strconv.ParseUint(p.Port, 0, 16)
	if err != nil {
		return 0, false, fmt.Errorf("port %q is neither a number nor a name", p.Port)
	}
	return uint16(n), false, nil
}

// isServiceName tells whether text is a port's name as IANA forms them: up to 15
// letters, digits and single hyphens inside, at least one letter.
func isServiceName(text string) bool {
	letter := false
	for i := range len(text) {
		c := text[i] | 0x20
		switch {
		case 'a' <= c && c <= 'z':
			letter = true
		case '0' <= text[i] && text[i] <= '9':
		case text[i] == '-' && i > 0 && i < len(text)-1 && text[i-1] != '-':
		default:
			return false
		}
	}
	return letter && len(text) <= 15
}
