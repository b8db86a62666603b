//go:build linux

package probe

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func made(family, socketType, protocol string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Socket, Exe: "/bin/app", Family: family, Type: socketType, Protocol: protocol}
}

// Every protocol and direction, done for real over a container's loopback.
func TestNetworkFacts(t *testing.T) {
	cases := []struct {
		name    string
		actions []string
		want    []behavior.Fact
		only    bool // no other network facts
		needs   int  // protocol that the kernel may lack
	}{
		{
			name: "sockets that are made, once each",
			actions: actions("socket 2 1 0", "socket 2 1 6", "socket 10 2 0", "socket 2 3 1", "socket 10 3 58", "socket 1 1 0", "socket 1 5 0",
				"socket 16 3 0", "socket 16 3 9", "socket 17 3 0", "socketpair 1 2 0"),
			want: []behavior.Fact{
				made("inet", "stream", "tcp"), made("inet6", "dgram", "udp"), made("inet", "raw", "icmp"), made("inet6", "raw", "icmpv6"),
				made("unix", "stream", ""), made("unix", "seqpacket", ""), made("unix", "dgram", ""), made("netlink", "raw", "route"),
				made("netlink", "raw", "audit"), made("packet", "raw", ""),
			},
			only: true,
		},
		{
			name: "a UDP receiver that never asks who it was, over IPv4", actions: actions("deaf 127.0.0.1:5400"), only: true,
			want: []behavior.Fact{socket(behavior.Listen, "udp", 5400, ""), socket(behavior.Egress, "udp", 5400, "127.0.0.1"), socket(behavior.Ingress, "udp", 5400, "127.0.0.1")},
		},
		{
			name: "a UDP receiver that never asks who it was, over IPv6", actions: actions("deaf [::1]:5400"), only: true,
			want: []behavior.Fact{socket(behavior.Listen, "udp", 5400, ""), socket(behavior.Egress, "udp", 5400, "::1"), socket(behavior.Ingress, "udp", 5400, "::1")},
		},
		{
			name: "an IPv4 peer of an IPv6 socket is an IPv4 peer, over UDP", actions: actions("send [::ffff:127.0.0.1]:5400", "sendconnected [::ffff:127.0.0.1]:5401"), only: true,
			want: []behavior.Fact{socket(behavior.Egress, "udp", 5400, "127.0.0.1"), socket(behavior.Egress, "udp", 5401, "127.0.0.1")},
		},
		{
			name: "a TCP connection made by a send", actions: actions("fastopen 127.0.0.1:5500"), only: true,
			want: []behavior.Fact{socket(behavior.Listen, "tcp", 5500, ""), socket(behavior.Egress, "tcp", 5500, "127.0.0.1")},
		},
		{
			name: "a TCP connect that is refused was one", actions: actions("connect 127.0.0.1:5501", "connect [::1]:5502"), only: true,
			want: []behavior.Fact{socket(behavior.Egress, "tcp", 5501, "127.0.0.1"), socket(behavior.Egress, "tcp", 5502, "::1")},
		},
		{
			name: "ping with a datagram socket", actions: actions("ping 127.0.0.1 2", "ping ::1 2"), only: true,
			want: []behavior.Fact{socket(behavior.Egress, "icmp", 0, "127.0.0.1"), socket(behavior.Egress, "icmpv6", 0, "::1")},
		},
		{
			name: "ping with a raw socket", actions: actions("ping 127.0.0.1 3", "ping ::1 3"), only: true,
			want: []behavior.Fact{socket(behavior.Egress, "icmp", 0, "127.0.0.1"), socket(behavior.Egress, "icmpv6", 0, "::1")},
		},
		{
			name: "raw sockets of any protocol, both directions", actions: actions("raw 127.0.0.1 253", "raw ::1 89"), only: true,
			want: []behavior.Fact{
				socket(behavior.Egress, "253", 0, "127.0.0.1"), socket(behavior.Ingress, "253", 0, "127.0.0.1"),
				socket(behavior.Egress, "ospf", 0, "::1"), socket(behavior.Ingress, "ospf", 0, "::1"),
			},
		},
		{
			name: "UDP-Lite", needs: unix.IPPROTO_UDPLITE, actions: actions("udplite 127.0.0.1:5600"), only: true,
			want: []behavior.Fact{socket(behavior.Listen, "udplite", 5600, ""), socket(behavior.Egress, "udplite", 5600, "127.0.0.1"), socket(behavior.Ingress, "udplite", 5600, "127.0.0.1")},
		},
		{
			name: "SCTP", needs: unix.IPPROTO_SCTP, actions: actions("sctp 127.0.0.1:5700"), only: true,
			want: []behavior.Fact{socket(behavior.Listen, "sctp", 5700, ""), socket(behavior.Egress, "sctp", 5700, "127.0.0.1"), socket(behavior.Ingress, "sctp", 5700, "127.0.0.1")},
		},
	}
	p := requireProbe(t, Options{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != 0 {
				kind := unix.SOCK_DGRAM
				if c.needs == unix.IPPROTO_SCTP {
					kind = unix.SOCK_STREAM
				}
				fd, err := unix.Socket(unix.AF_INET, kind, c.needs)
				if errors.Is(err, unix.EPROTONOSUPPORT) {
					t.Logf("the kernel has no %s, so that there is nothing to see", ProtocolName(c.needs))
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(fd)
			}
			_, records := observe(t, p, c.actions...)
			for _, want := range c.want {
				wantFact(t, records, want)
			}
			seen := map[behavior.Fact]bool{}
			for _, r := range records {
				if seen[r.Fact] && r.Fact.Exe != "" && (r.Fact.Kind == behavior.Network || r.Fact.Kind == behavior.Socket) {
					t.Errorf("recorded twice: %s", r.Fact)
				}
				seen[r.Fact] = true
				if c.only && r.Fact.Kind == behavior.Network && !contains(c.want, r.Fact) {
					t.Errorf("recorded: %s", r.Fact)
				}
				if r.ID == 0 || r.Time.IsZero() || r.PID == 0 {
					t.Errorf("not filled in: %+v", r)
				}
			}
		})
	}
	if lost := allLost(t, p); lost["actor forgotten: network"] > 0 || lost["map full: network"] > 0 {
		t.Errorf("lost %v", lost)
	}
}

func contains(facts []behavior.Fact, f behavior.Fact) bool {
	for _, g := range facts {
		if f == g {
			return true
		}
	}
	return false
}

// via is a fact about a peer that was asked for by another address.
func via(f behavior.Fact, asked string) behavior.Fact {
	f.Via = netip.MustParseAddrPort(asked)
	return f
}
