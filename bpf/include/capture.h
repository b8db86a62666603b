/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Payloads of packets for user space to read: by the port of the peer, within a
 * budget of each mount namespace, in records that name whose socket it is.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#include "socket.h"

#define CAPTURE_BYTES 8192 /* of a record; a power of two, and fits into scratch */
#define CAPTURE_RECORDS 8  /* of a TCP segment, which is at most 64 KiB */

/*
 * Bytes that a mount namespace may have read in 256 jiffies (0.25 to 2.5 s): some
 * thousand questions that were not asked before, with their answers.
 */
#define BUDGET_BYTES (512 * 1024)
#define BUDGET_SHIFT 8

static __always_inline enum capture capture_of(__u16 port)
{
	__u32 index = port / 8;
	__u64 *eight = bpf_map_lookup_elem(&captures, &index);

	return eight ? *eight >> port % 8 * 8 & 0xff : CAPTURE_NONE;
}

/* What was asked for at a port to be read went to this one: it is, too. */
static __always_inline enum capture follow_capture(struct endpoint *peer)
{
	enum capture capture = capture_of(peer->port);
	__u32 index = peer->port / 8;
	__u64 *eight;

	if (capture || !peer->via_port)
		return capture;
	capture = capture_of(peer->via_port);
	eight = bpf_map_lookup_elem(&captures, &index);
	if (capture && eight)
		*eight |= (__u64)capture << peer->port % 8 * 8;
	return capture;
}

static __always_inline void drop(enum drop why)
{
	__u32 index = why;
	__u64 *count = bpf_map_lookup_elem(&dropped, &index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Whether a namespace may have so many bytes read; counted if not. */
static __always_inline bool afford(__u64 mntns, enum kind kind, __u64 bytes)
{
	__u64 now = bpf_jiffies64() >> BUDGET_SHIFT;
	struct budget *budget = bpf_map_lookup_elem(&budgets, &mntns), new = {.while_ = now};

	bytes += sizeof(struct record);
	if (!budget) {
		new.bytes = bytes;
		bpf_map_update_elem(&budgets, &mntns, &new, 0);
		return true;
	}
	if (budget->while_ != now) {
		budget->while_ = now;
		budget->bytes = 0;
	}
	if (budget->bytes + bytes > BUDGET_BYTES) {
		lose_of(mntns, kind, LOSS_BUDGET);
		return false;
	}
	__sync_fetch_and_add(&budget->bytes, bytes);
	return true;
}

/*
 * A length of at least 1, at most so much. In assembly, so that the register that is
 * compared is the one that is used: verifiers before 6.13 follow no other.
 */
static __always_inline __u32 bounded(__u64 length, const __u64 most)
{
	asm volatile("if %[length] > 0 goto +1\n\t"
		     "%[length] = 1\n\t"
		     "if %[length] <= %[most] goto +1\n\t"
		     "%[length] = %[most]"
		     : [length] "+r"(length)
		     : [most] "i"(most));
	return length;
}

/* Where a payload is in a packet, and of which conversation. */
struct payload {
	__u64 cookie;
	struct endpoint *peer;
	__u32 offset;
	__u32 length;
	__u32 sequence;
	__u16 direction;
	__u8 capture;
	__u8 segment;
};

/* Fills the record of a begun scratch; the payload may be cut. */
static __always_inline void fill_payload(struct __sk_buff *ctx, struct scratch *s, struct owner *owner, struct payload *p)
{
	__u32 length = p->length;

	name_owner(s, owner);
	s->record.cookie = p->cookie;
	s->record.direction = p->direction;
	s->record.protocol = p->peer->protocol;
	s->record.port = p->peer->port;
	__builtin_memcpy(s->record.address, p->peer->address, 16);
	s->record.whole = p->length;
	s->record.sequence = p->sequence;
	s->record.capture = p->capture;
	s->record.segment = p->segment;
	if (!length)
		return;
	length = bounded(length, CAPTURE_BYTES);
	if (bpf_skb_load_bytes(ctx, p->offset, s->data, length))
		return;
	s->used = length;
	s->record.payload_len = length;
}

#endif
