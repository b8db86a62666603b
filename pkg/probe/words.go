package probe

import "strconv"

// word names a number, or writes it down where it has no name here.
func word(names map[int]string, number int) string {
	if name, ok := names[number]; ok {
		return name
	}
	return strconv.Itoa(number)
}

// ProtocolName names what an IP header carries as linux/in.h does; the number where
// it has no common name.
func ProtocolName(number int) string {
	return word(map[int]string{
		1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
		58: "icmpv6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite", 255: "raw", 262: "mptcp",
	}, number)
}

// FamilyName names an address family: AF_INET6 is inet6.
func FamilyName(number int) string {
	return word(map[int]string{
		1: "unix", 2: "inet", 3: "ax25", 4: "ipx", 5: "appletalk", 6: "netrom", 7: "bridge", 8: "atmpvc", 9: "x25", 10: "inet6",
		11: "rose", 15: "key", 16: "netlink", 17: "packet", 20: "atmsvc", 21: "rds", 23: "irda", 24: "pppox", 26: "llc", 27: "ib",
		28: "mpls", 29: "can", 30: "tipc", 31: "bluetooth", 32: "iucv", 33: "rxrpc", 34: "isdn", 35: "phonet", 36: "ieee802154",
		37: "caif", 38: "alg", 39: "nfc", 40: "vsock", 41: "kcm", 42: "qipcrtr", 43: "smc", 44: "xdp", 45: "mctp",
	}, number)
}

// SocketTypeName names a type of socket: SOCK_DGRAM is dgram.
func SocketTypeName(number int) string {
	return word(map[int]string{1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}, number)
}

// socketProtocolName names the protocol of a socket of a family; empty where a
// family has but one.
func socketProtocolName(family, number int) string {
	switch {
	case family == 2 || family == 10:
		return ProtocolName(number)
	case family == 16: // linux/netlink.h
		return word(map[int]string{
			0: "route", 2: "usersock", 3: "firewall", 4: "sock_diag", 5: "nflog", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit",
			10: "fib_lookup", 11: "connector", 12: "netfilter", 14: "dnrtmsg", 15: "kobject_uevent", 16: "generic", 18: "scsitransport",
			19: "ecryptfs", 20: "rdma", 21: "crypto", 22: "smc",
		}, number)
	case number == 0:
		return ""
	}
	return strconv.Itoa(number)
}
