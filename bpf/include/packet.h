/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of sockets that speak by datagrams: UDP, ICMP and raw ones. They are
 * seen whichever system call sent or read them, and after translation.
 */
#ifndef PACKET_H
#define PACKET_H

#include "dns.h"

#define UDP_HEADER 8
#define EXTENSIONS 6 /* headers of IPv6 before the payload; more are not sent */

enum {
	ICMP_ECHO = 8,
	ICMPV6_ECHO = 128,
};

struct packet {
	struct endpoint peer; /* its port is 0 where the protocol has none */
	__u16 own_port;
	__u16 zero;
	__u32 payload; /* offset of what the IP header carries */
};

static __always_inline void skip_extensions(struct __sk_buff *ctx, struct packet *p)
{
	__u8 header[2];

	for (int i = 0; i < EXTENSIONS; i++) {
		switch (p->peer.protocol) {
		case 0:	 /* hop by hop */
		case 43: /* routing */
		case 44: /* fragment, always whole here */
		case 60: /* destination */
			break;
		default:
			return;
		}
		if (bpf_skb_load_bytes(ctx, p->payload, header, sizeof(header)))
			return;
		p->payload += p->peer.protocol == 44 ? 8 : (header[1] + 1) * 8;
		p->peer.protocol = header[0];
	}
}

static __always_inline bool has_ports(__u16 protocol)
{
	return protocol == IPPROTO_TCP || is_udp(protocol) || protocol == IPPROTO_SCTP;
}

/* Reads who is at the other end of a packet, which starts with its IP header. */
static __always_inline bool read_packet(struct __sk_buff *ctx, bool out, struct packet *p)
{
	__u8 header[20];
	__u16 ports[2];
	__u32 v4;

	if (bpf_skb_load_bytes(ctx, 0, header, sizeof(header)))
		return false;
	if (header[0] >> 4 == 4) {
		__builtin_memcpy(&v4, header + (out ? 16 : 12), 4);
		map_v4(p->peer.address, v4);
		p->peer.protocol = header[9];
		p->payload = (header[0] & 15) * 4;
	} else {
		if (bpf_skb_load_bytes(ctx, out ? 24 : 8, p->peer.address, 16))
			return false;
		p->peer.protocol = header[6];
		p->payload = 40;
		skip_extensions(ctx, p);
	}
	if (has_ports(p->peer.protocol) && !bpf_skb_load_bytes(ctx, p->payload, ports, sizeof(ports))) {
		p->peer.port = bpf_ntohs(ports[out]);
		p->own_port = bpf_ntohs(ports[!out]);
	}
	return true;
}

/*
 * Whether a packet that comes unasked is a fact. A socket whose own port the
 * kernel chose serves nobody: what comes there is a reply whose address was
 * translated. A raw ICMP socket gets a copy of whatever comes to the container:
 * only requests are from somebody who speaks first.
 */
static __always_inline bool is_unasked(struct __sk_buff *ctx, struct sock *sk, struct packet *p)
{
	bool raw = BPF_CORE_READ(sk, sk_type) == SOCK_RAW;
	__u16 protocol = protocol_of(sk);
	__u8 type = 0;

	if (!raw)
		return protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6 && has_own_port(sk);
	if (p->peer.protocol != IPPROTO_ICMP && p->peer.protocol != IPPROTO_ICMPV6)
		return true;
	bpf_skb_load_bytes(ctx, p->payload, &type, sizeof(type));
	return type == (p->peer.protocol == IPPROTO_ICMP ? ICMP_ECHO : ICMPV6_ECHO);
}

/* The packet begins a conversation: whose, and what was asked for? */
static __always_inline void begin_flow(struct packet *p, struct flow_key *key, enum direction direction)
{
	struct flow flow = {.direction = direction, .noted = bpf_jiffies64()};

	if (direction == DIRECTION_EGRESS && !recall(key->cookie, BPF_CORE_READ(current_task(), pid), &p->peer))
		recall(key->cookie, 0, &p->peer);
	flow.via_port = p->peer.via_port;
	__builtin_memcpy(flow.via, p->peer.via, 16);
	bpf_map_update_elem(&flows, key, &flow, 0);
}

/* Adds the fact of a packet. A function of its own, for the sake of its stack. */
static __noinline int add_packet(struct packet *p, struct owner *owner, enum direction direction)
{
	if (direction == DIRECTION_INGRESS)
		p->peer.port = p->own_port;
	add_owned_fact(direction == DIRECTION_EGRESS ? SLOT_CGROUP : SLOT_INGRESS, owner, direction, &p->peer);
	return 0;
}

/* What a packet carries is to be read. */
static __noinline int read_payload(struct __sk_buff *ctx, struct packet *p, struct owner *owner, __u64 cookie, __u32 direction)
{
	struct payload payload = {
		.cookie = cookie,
		.peer = &p->peer,
		.offset = p->payload + UDP_HEADER,
		.direction = direction,
		.capture = CAPTURE_DNS,
	};

	if (payload.offset >= ctx->len)
		return 0;
	payload.length = ctx->len - payload.offset;
	note_dns(ctx, owner, &payload);
	return 0;
}

/* A packet of a socket that is not TCP's. */
static __always_inline void datagram(struct __sk_buff *ctx, struct bpf_sock *socket, enum direction direction)
{
	bool out = direction == DIRECTION_EGRESS;
	enum capture capture = CAPTURE_NONE;
	struct flow_key key = {};
	struct packet p = {};
	struct owner *owner;
	struct flow *flow;
	struct sock *sk;

	if (!read_packet(ctx, out, &p))
		return;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.port = p.peer.port;
	__builtin_memcpy(key.address, p.peer.address, 16);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (p.peer.protocol == IPPROTO_UDP && (!flow || flow->direction == DIRECTION_EGRESS))
		capture = capture_of(p.peer.port);
	if (flow && !capture && (flow->direction != direction || bpf_jiffies64() - flow->noted < REFRESH))
		return; /* a reply, or nothing new */
	sk = full_sock(socket);
	owner = owner_of(SLOT_CGROUP, key.cookie, sk, out && !flow);
	if (!flow && !out && !is_unasked(ctx, sk, &p))
		return;
	if (!owner) {
		if (!flow && !out && is_unknown(key.cookie))
			begin_flow(&p, &key, direction); /* else the answer would speak first */
		return;
	}
	if (!flow) {
		begin_flow(&p, &key, direction);
		if (out && p.peer.protocol == IPPROTO_UDP)
			capture = follow_capture(&p.peer);
		add_packet(&p, owner, direction);
	} else if (flow->direction == direction && bpf_jiffies64() - flow->noted >= REFRESH) {
		flow->noted = bpf_jiffies64();
		p.peer.via_port = flow->via_port;
		__builtin_memcpy(p.peer.via, flow->via, 16);
		add_packet(&p, owner, direction);
	}
	if (capture && (out || flow)) /* what nobody asked is no answer */
		read_payload(ctx, &p, owner, key.cookie, direction);
}

/* A segment of a TCP connection to a port to be read: whoever reads it puts them in order. */
static __noinline int read_segment(struct __sk_buff *ctx, struct bpf_sock *socket, __u32 direction, __u32 capture)
{
	bool out = direction == DIRECTION_EGRESS;
	__u32 slot = out ? SLOT_CGROUP : SLOT_INGRESS, flags;
	struct packet p = {};
	struct payload payload = {.direction = direction, .capture = capture, .peer = &p.peer};
	struct owner *owner;
	struct scratch *s;
	__u8 header[14];
	__u64 mntns;

	if (!read_packet(ctx, out, &p) || bpf_skb_load_bytes(ctx, p.payload, header, sizeof(header)))
		return 0;
	payload.cookie = bpf_get_socket_cookie(ctx);
	payload.offset = p.payload + (header[12] >> 4) * 4;
	payload.sequence = (__u32)header[4] << 24 | header[5] << 16 | header[6] << 8 | header[7];
	if (payload.offset > ctx->len)
		return 0;
	payload.length = ctx->len - payload.offset;
	flags = header[13] & (SEGMENT_FIN | SEGMENT_SYN | SEGMENT_RST);
	if (!flags && !payload.length)
		return 0;
	owner = owner_of(slot, payload.cookie, full_sock(socket), false);
	if (!owner)
		return 0;
	mntns = owner->who.mntns;
	if (!afford(mntns, KIND_DNS, payload.length))
		return 0;
	for (int i = 0; i < CAPTURE_RECORDS; i++) {
		bool last = payload.length <= CAPTURE_BYTES;

		payload.segment = last ? flags : flags & SEGMENT_SYN;
		s = begin(slot, KIND_DNS, mntns);
		if (!s)
			return 0;
		s->record.id = 0;
		fill_payload(ctx, s, owner, &payload);
		deliver(s, KIND_DNS, bpf_map_lookup_elem(&namespaces, &mntns));
		release(s);
		if (last)
			return 0;
		payload.offset += CAPTURE_BYTES;
		payload.sequence += CAPTURE_BYTES;
		payload.length -= CAPTURE_BYTES;
	}
	return 0;
}

#endif
