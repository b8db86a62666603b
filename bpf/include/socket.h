/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Network facts: who talks to whom, told from the kernel's socket. */
#ifndef SOCKET_H
#define SOCKET_H

#include "task.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_SCTP 132
#define IPPROTO_MPTCP 262
#define SOCK_BINDPORT_LOCK 8

/*
 * Whether sends on connected UDP sockets are seen. Resolvers connect one only to
 * learn which source address they would get; where sends cannot be seen, such a
 * connect is a fact.
 */
static __always_inline bool are_sends_traced(void)
{
	__u32 index = SETTING_SENDS_TRACED;
	__u64 *traced = bpf_map_lookup_elem(&settings, &index);

	return traced && *traced;
}

/* One end of a conversation. */
struct endpoint {
	__u8 address[16];
	__u16 port;
	__u16 protocol;
};

static __always_inline void map_v4(__u8 *address, __u32 v4)
{
	__builtin_memset(address, 0, 10);
	address[10] = address[11] = 0xff;
	__builtin_memcpy(address + 12, &v4, 4);
}

static __always_inline __u16 protocol_of(struct sock *sk)
{
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);

	switch (protocol) {
	case IPPROTO_MPTCP:
		return IPPROTO_TCP;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		return protocol;
	}
	return 0;
}

static __always_inline void add_socket_fact(__u32 slot, struct actor *a, enum direction direction,
					    struct endpoint *e)
{
	struct socket_key key = {
		.mntns = a->mntns,
		.flags = a->flags,
		.direction = direction,
		.exe = a->id,
		.protocol = e->protocol,
		.port = e->port,
	};
	struct scratch *s;

	__builtin_memcpy(key.address, e->address, 16);
	if (known(&sockets, &key))
		return;
	s = claim(slot, KIND_NETWORK, &sockets, &key);
	if (!s)
		return;
	describe(s, slot, KIND_NETWORK, a);
	s->record.direction = direction;
	s->record.protocol = e->protocol;
	s->record.port = e->port;
	__builtin_memcpy(s->record.address, e->address, 16);
	publish(s, KIND_NETWORK, &sockets, &key);
}

/*
 * Notes that the owner of a socket sent to, or heard from, peer. False when the
 * other side had spoken first: then this is a reply.
 */
static __always_inline bool speaks_first(__u64 cookie, struct endpoint *peer, __u8 direction)
{
	struct flow_key flow = {.cookie = cookie, .port = peer->port};
	__u8 *first;

	__builtin_memcpy(flow.address, peer->address, 16);
	first = bpf_map_lookup_elem(&flows, &flow);
	if (first)
		return *first == direction;
	bpf_map_update_elem(&flows, &flow, &direction, 0);
	return true;
}

static __always_inline void read_peer(struct sock *sk, __u16 family, struct endpoint *e)
{
	if (family == AF_INET)
		map_v4(e->address, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	else
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr);
}

/* A system call that connected, accepted or opened for peers the socket of file. */
static __always_inline void socket_used(struct file *file, enum direction direction, bool bind)
{
	struct endpoint e = {};
	struct actor a = {};
	struct socket *socket;
	struct sock *sk;
	__u16 family;

	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return;
	e.protocol = protocol_of(sk);
	if (!e.protocol || (bind && e.protocol != IPPROTO_UDP))
		return;
	if (direction == DIRECTION_EGRESS && e.protocol == IPPROTO_UDP && are_sends_traced())
		return;
	if (direction == DIRECTION_EGRESS)
		e.port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	else
		e.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	/* Port 0: a connect to AF_UNSPEC, or an address that was only looked up. */
	if (!e.port)
		return;
	/* A port that the kernel chose is not one that peers know. */
	if (bind && !(BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK))
		return;
	if (!act_tracing(&a))
		return;
	if (direction != DIRECTION_LISTEN)
		read_peer(sk, family, &e);
	add_socket_fact(SLOT_TRACING, &a, direction, &e);
}

/*
 * The current task sent a datagram on sk, of family, which is a UDP socket; typed
 * if the verifier knows sk's type. Where it does not, a socket may have no cookie
 * yet: then no cgroup program has seen it, and so no peer has spoken first.
 */
static __always_inline void datagram_sent(__u32 slot, struct sock *sk, __u16 family, bool typed)
{
	__u64 cookie;
	struct endpoint e = {.protocol = IPPROTO_UDP};
	struct actor a = {};

	e.port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (!e.port || (family != AF_INET && family != AF_INET6))
		return; /* not connected: note_send has it */
	if (!act_tracing(&a))
		return;
	read_peer(sk, family, &e);
	cookie = typed ? bpf_get_socket_cookie(sk) : (__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (!cookie || speaks_first(cookie, &e, DIRECTION_EGRESS))
		add_socket_fact(slot, &a, DIRECTION_EGRESS, &e);
}

/*
 * A datagram to or from peer on an unconnected socket. Only the side that spoke
 * first makes a fact; and a socket whose own port the kernel chose serves nobody,
 * so what comes unasked there is a reply whose address was translated.
 */
static __always_inline int datagram(struct bpf_sock_addr *ctx, struct endpoint *peer, bool out)
{
	struct bpf_sock *socket = ctx->sk;
	__u8 direction = out ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	struct actor a = {};
	struct sock *sk = NULL;

	/* The address as a number: fields beyond bpf_sock's are read by it. */
	bpf_probe_read_kernel(&sk, sizeof(sk), &socket);
	peer->protocol = protocol_of(sk);
	if (peer->protocol != IPPROTO_UDP || !act(&a))
		return 1;
	if (!out && !(BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK))
		return 1;
	if (!speaks_first(bpf_get_socket_cookie(ctx), peer, direction))
		return 1;
	if (!out)
		peer->port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (peer->port)
		add_socket_fact(SLOT_CGROUP, &a, direction, peer);
	return 1;
}

static __always_inline int datagram4(struct bpf_sock_addr *ctx, bool out)
{
	struct endpoint peer = {.port = bpf_ntohs((__u16)ctx->user_port)};

	map_v4(peer.address, ctx->user_ip4);
	return datagram(ctx, &peer, out);
}

static __always_inline int datagram6(struct bpf_sock_addr *ctx, bool out)
{
	struct endpoint peer = {.port = bpf_ntohs((__u16)ctx->user_port)};
	__u32 words[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	__builtin_memcpy(peer.address, words, 16);
	return datagram(ctx, &peer, out);
}

#endif
