/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Facts that a system call makes of a socket, told from the kernel's socket. */
#ifndef SOCKET_H
#define SOCKET_H

#include "owner.h"
#include "unix.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_RAW 3
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136
#define IPPROTO_MPTCP 262
#define SOCK_BINDPORT_LOCK 8
#define TCP_SYN_SENT 2

#define REFRESH 256 /* jiffies: 0.25 to 2.5 s, as the kernel counts them */

/* One end of a conversation. */
struct endpoint {
	__u8 address[16];
	__u8 via[16];
	__u16 port;
	__u16 via_port;
	__u16 protocol;
};

static __always_inline void map_v4(__u8 *address, __u32 v4)
{
	__builtin_memset(address, 0, 10);
	address[10] = address[11] = 0xff;
	__builtin_memcpy(address + 12, &v4, 4);
}

static __always_inline bool same_address(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline __u16 protocol_of(struct sock *sk)
{
	__u16 protocol = READ(sk, sk_protocol);

	return protocol == IPPROTO_MPTCP ? IPPROTO_TCP : protocol;
}

static __always_inline bool is_udp(__u16 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
}

/* Whether the socket's own port was chosen by its owner: peers may know it. */
static __always_inline bool has_own_port(struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

/* What the record and the key have in common. */
static __always_inline void fill_socket(struct socket_key *key, struct record *r)
{
	r->direction = key->direction;
	r->protocol = key->protocol;
	r->port = key->port;
	r->via_port = key->via_port;
	__builtin_memcpy(r->address, key->address, 16);
	__builtin_memcpy(r->via, key->via, 16);
}

static __always_inline void fill_endpoint(struct socket_key *key, enum direction direction, struct endpoint *e)
{
	key->direction = direction;
	key->protocol = e->protocol;
	key->port = e->port;
	__builtin_memcpy(key->address, e->address, 16);
	if (e->via_port && (e->via_port != e->port || !same_address(e->via, e->address))) {
		key->via_port = e->via_port;
		__builtin_memcpy(key->via, e->via, 16);
	}
}

static __always_inline void add_socket_fact(__u32 slot, struct actor *a, enum direction direction,
					    struct endpoint *e)
{
	struct socket_key key = {.mntns = a->mntns, .flags = a->flags, .exe = a->id};
	struct scratch *s;

	fill_endpoint(&key, direction, e);
	if (known(&sockets, &key))
		return;
	s = claim(slot, KIND_NETWORK, &sockets, &key);
	if (!s)
		return;
	describe(s, slot, KIND_NETWORK, a);
	fill_socket(&key, &s->record);
	publish(s, KIND_NETWORK, &sockets, &key);
}

/* Says whose a record is, outside of process context. */
static __always_inline void name_owner(struct scratch *s, struct owner *owner)
{
	s->record.mntns = owner->who.mntns;
	s->record.flags = owner->who.flags;
	s->record.pid = owner->pid;
	s->record.actor = owner->actor;
}

/* As add_socket_fact, outside of process context. */
static __always_inline void add_owned_fact(__u32 slot, struct owner *owner, enum direction direction,
					   struct endpoint *e)
{
	struct socket_key key = {.mntns = owner->who.mntns, .flags = owner->who.flags, .exe = owner->who.exe};
	struct scratch *s;

	fill_endpoint(&key, direction, e);
	if (known(&sockets, &key))
		return;
	s = claim(slot, KIND_NETWORK, &sockets, &key);
	if (!s)
		return;
	name_owner(s, owner);
	fill_socket(&key, &s->record);
	publish(s, KIND_NETWORK, &sockets, &key);
}

static __always_inline void read_peer(struct sock *sk, __u16 family, struct endpoint *e)
{
	if (family == AF_INET)
		map_v4(e->address, READ(sk, __sk_common.skc_daddr));
	else
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr);
}

/*
 * A system call that connected, accepted or opened for peers the socket of file.
 * TCP connects are note_state's, and datagrams are seen by packet; SCTP is left.
 * A function of its own, so that its stack is not its caller's.
 */
__noinline int socket_used(__u64 file, __u32 direction, __u32 bind)
{
	struct sock *sk = sock_of((struct file *)file);
	struct endpoint e = {};
	struct actor a = {};
	__u16 family;

	if (!sk)
		return 0;
	family = READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	e.protocol = protocol_of(sk);
	if (bind ? !is_udp(e.protocol) : e.protocol != IPPROTO_TCP && e.protocol != IPPROTO_SCTP)
		return 0;
	if (direction == DIRECTION_EGRESS && e.protocol == IPPROTO_TCP)
		return 0;
	if (direction == DIRECTION_EGRESS)
		e.port = bpf_ntohs(READ(sk, __sk_common.skc_dport));
	else
		e.port = READ(sk, __sk_common.skc_num);
	if (!e.port)
		return 0; /* a connect to AF_UNSPEC */
	/* A port that the kernel chose is not one that peers know. */
	if (bind && !has_own_port(sk))
		return 0;
	if (!act_tracing(&a))
		return 0;
	if (direction != DIRECTION_LISTEN)
		read_peer(sk, family, &e);
	add_socket_fact(SLOT_TRACING, &a, direction, &e);
	return 0;
}

/* The socket of file was made, by socket(2) or socketpair(2). */
__noinline int socket_made(__u64 file)
{
	struct sock *sk = sock_of((struct file *)file);
	struct made_key key = {};
	struct actor a = {};
	struct scratch *s;

	if (!sk || !act_tracing(&a))
		return 0;
	key.mntns = a.mntns;
	key.flags = a.flags;
	key.family = READ(sk, __sk_common.skc_family);
	key.type = READ(sk, sk_type);
	key.protocol = READ(sk, sk_protocol);
	key.exe = a.id;
	if (known(&made, &key))
		return 0;
	s = claim(SLOT_TRACING, KIND_SOCKET, &made, &key);
	if (!s)
		return 0;
	describe(s, SLOT_TRACING, KIND_SOCKET, &a);
	s->record.family = key.family;
	s->record.type = key.type;
	s->record.protocol = key.protocol;
	publish(s, KIND_SOCKET, &made, &key);
	return 0;
}

/* A socket's address as a number: fields beyond bpf_sock's are read by it. */
static __always_inline struct sock *full_sock(struct bpf_sock *socket)
{
	struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), &socket);
	return sk;
}

static __always_inline void fill_via(struct endpoint *e, struct asked *what)
{
	e->via_port = what->port;
	__builtin_memcpy(e->via, what->address, 16);
}

/* What this thread asked for in the connect of a stream that it is in. */
static __always_inline void recall_stream(__u64 cookie, struct endpoint *e)
{
	struct asked_key key = {.thread = READ(current_task(), pid)};
	struct asked *what = bpf_map_lookup_elem(&asked, &key);

	if (what && what->cookie == (__u32)cookie)
		fill_via(e, what);
}

/* What was asked for on a socket: by this thread, or with thread 0 by connect. */
static __always_inline bool recall(__u64 cookie, __u64 thread, struct endpoint *e)
{
	struct asked_key key = {.cookie = cookie, .thread = thread};
	struct asked *what = bpf_map_lookup_elem(&asked, &key);

	if (!what)
		return false;
	fill_via(e, what);
	return true;
}

#endif
