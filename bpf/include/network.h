/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The floor's programs on sockets and packets. */
#ifndef NETWORK_H
#define NETWORK_H

#include "packet.h"

/*
 * The current task connects the socket of which the address is given, by TCP: tells
 * whether its packets are of interest. A function of its own, so that its stack is
 * free again when own() needs some.
 */
__noinline int connecting(__u64 pointer)
{
	struct sock *sk = (struct sock *)pointer;
	struct endpoint e = {.protocol = IPPROTO_TCP};
	struct actor a = {};

	e.port = bpf_ntohs(READ(sk, __sk_common.skc_dport));
	if (!act_tracing(&a))
		return 0;
	read_peer(sk, READ(sk, __sk_common.skc_family), &e);
	recall_stream(READ(sk, __sk_common.skc_cookie.counter), &e);
	add_socket_fact(SLOT_TRACING, &a, DIRECTION_EGRESS, &e);
	return follow_capture(&e) ? 1 : 0;
}

/*
 * A TCP connect, however it was made: connect, a send with MSG_FASTOPEN, io_uring.
 * The socket's peer is set, and this is the task that asked.
 */
SEC("tp_btf/inet_sock_set_state")
int note_state(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	__u64 address = 0;

	if ((int)ctx[2] != TCP_SYN_SENT || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	/* As a number: the verifier lets no typed pointer into a function. */
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	if (connecting(address))
		own(SLOT_TRACING, READ(sk, __sk_common.skc_cookie.counter));
	return 0;
}

SEC("cgroup/sock_create")
int note_made(struct bpf_sock *ctx)
{
	if (ctx->type != SOCK_STREAM)
		own(SLOT_CGROUP, bpf_get_socket_cookie(ctx));
	return 1;
}

/*
 * Whose the sockets are that were there before: pkg/probe reads the iterator once.
 * Until 5.13 it cannot have the kernel number a socket that nobody asked about; of
 * such a one it is known when its process next sends.
 */
SEC("iter/task_file")
int note_before(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[1];
	struct file *file = (struct file *)ctx[3];
	struct socket *socket;
	struct sock *sk;
	__u64 cookie;
	__u16 family;

	if (!task || !file)
		return 0;
	sk = sock_of(file);
	family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_type) == SOCK_STREAM && !capture_of(bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport))))
		return 0;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_for_each_map_elem)) {
		socket = bpf_sock_from_file(file);
		if (!socket)
			return 0;
		cookie = bpf_get_socket_cookie(socket->sk);
	} else {
		cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	}
	if (cookie)
		own_as(SLOT_HOOK, cookie, task, BPF_NOEXIST);
	return 0;
}

static __always_inline int packet(struct __sk_buff *ctx, enum direction direction)
{
	struct bpf_sock *socket = ctx->sk;
	enum capture capture;

	if (!socket)
		return 1;
	socket = bpf_sk_fullsock(socket);
	if (!socket)
		return 1;
	if (socket->type != SOCK_STREAM) {
		datagram(ctx, socket, direction);
		return 1;
	}
	capture = capture_of(bpf_ntohs(socket->dst_port));
	if (capture && socket->protocol == IPPROTO_TCP)
		read_segment(ctx, socket, direction, capture);
	return 1;
}

SEC("cgroup_skb/egress")
int note_egress(struct __sk_buff *ctx)
{
	return packet(ctx, DIRECTION_EGRESS);
}

SEC("cgroup_skb/ingress")
int note_ingress(struct __sk_buff *ctx)
{
	return packet(ctx, DIRECTION_INGRESS);
}

/* Keeps what is asked for, until it is known what was made of it. */
static __always_inline int ask(struct bpf_sock_addr *ctx, __u8 *address, bool connect)
{
	struct asked what = {.port = bpf_ntohs((__u16)ctx->user_port)};
	struct asked_key key = {.cookie = bpf_get_socket_cookie(ctx)};
	struct flow_key flow = {.cookie = key.cookie, .port = what.port};
	struct asked *old;

	__builtin_memcpy(what.address, address, 16);
	if (connect && ctx->type == SOCK_STREAM) {
		/* Of use within this call only: one entry a thread, used again and again. */
		what.cookie = key.cookie;
		key.cookie = 0;
		key.thread = READ(current_task(), pid);
		old = bpf_map_lookup_elem(&asked, &key);
		if (old) {
			*old = what;
			return 1;
		}
	} else if (!connect) {
		/* Nobody translates what has arrived at a peer as it is. */
		__builtin_memcpy(flow.address, address, 16);
		if (bpf_map_lookup_elem(&flows, &flow))
			return 1;
		key.thread = BPF_CORE_READ(current_task(), pid);
	}
	bpf_map_update_elem(&asked, &key, &what, 0);
	return 1;
}

static __always_inline int ask4(struct bpf_sock_addr *ctx, bool connect)
{
	__u8 address[16];

	map_v4(address, ctx->user_ip4);
	return ask(ctx, address, connect);
}

static __always_inline int ask6(struct bpf_sock_addr *ctx, bool connect)
{
	__u32 words[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	return ask(ctx, (__u8 *)words, connect);
}

SEC("cgroup/connect4")
int note_connect4(struct bpf_sock_addr *ctx)
{
	return ask4(ctx, true);
}

SEC("cgroup/connect6")
int note_connect6(struct bpf_sock_addr *ctx)
{
	return ask6(ctx, true);
}

SEC("cgroup/sendmsg4")
int note_send4(struct bpf_sock_addr *ctx)
{
	return ask4(ctx, false);
}

SEC("cgroup/sendmsg6")
int note_send6(struct bpf_sock_addr *ctx)
{
	return ask6(ctx, false);
}

#endif
