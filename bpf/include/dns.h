/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS over UDP: each question is told once, with a count of how often it was
 * asked; an answer if it was asked for on its socket, and again when it differs or
 * is a while old. User space reads the messages.
 */
#ifndef DNS_H
#define DNS_H

#include "capture.h"

#define DNS_HEADER 12
#define DNS_CHUNK 64
#define DNS_NAME_CHUNKS 4   /* a name has at most 255 bytes */
#define DNS_ANSWER_CHUNKS 8 /* longer answers are always told: they are rare */
#define DNS_RESPONSE 0x80   /* in the third byte of a message */
#define HASH_PRIME 0x9e3779b97f4a7c15

struct question {
	__u64 name; /* hash, of lower case */
	__u16 id;
	__u16 type;
	__u8 response;
};

static __always_inline __u64 seed(void)
{
	__u32 index = SETTING_SEED;
	__u64 *value = bpf_map_lookup_elem(&settings, &index);

	return value ? *value : 0;
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * HASH_PRIME;
	return hash ^ hash >> 29;
}

/* Reads a message's only question; 0 if that is not what is there. */
static __noinline int read_question(struct __sk_buff *ctx, __u32 offset, struct question *q)
{
	__u32 at = offset + DNS_HEADER, length = ctx->len, n, left = 0;
	__u8 bytes[DNS_CHUNK], c;
	__u64 hash = seed();

	if (bpf_skb_load_bytes(ctx, offset, bytes, DNS_HEADER) || bytes[4] || bytes[5] != 1)
		return 0;
	q->id = bytes[0] << 8 | bytes[1];
	q->response = bytes[2] & DNS_RESPONSE;
	for (int chunk = 0; chunk < DNS_NAME_CHUNKS; chunk++) {
		if (at >= length)
			return 0;
		n = bounded(length - at, DNS_CHUNK);
		if (bpf_skb_load_bytes(ctx, at, bytes, n))
			return 0;
		for (__u32 i = 0; i < DNS_CHUNK; i++) {
			if (i >= n)
				return 0;
			c = bytes[i];
			if (left) {
				left--;
				c |= (c >= 'A' && c <= 'Z') << 5;
			} else {
				if (!c) {
					if (bpf_skb_load_bytes(ctx, at + i + 1, bytes, 2))
						return 0;
					q->name = hash;
					q->type = bytes[0] << 8 | bytes[1];
					return 1;
				}
				if (c > 63)
					return 0; /* no name in a question is compressed */
				left = c;
			}
			hash = mix(hash, c);
		}
		at += DNS_CHUNK;
	}
	return 0;
}

/* A question that the owner of the socket asks. */
static __noinline int note_question(struct __sk_buff *ctx, struct owner *owner, struct question *q, struct payload *p)
{
	struct question_key key = {
		.mntns = owner->who.mntns,
		.flags = owner->who.flags,
		.type = q->type,
		.port = p->peer->port,
		.exe = owner->who.exe,
		.name = q->name,
	};
	struct pending_key waits = {.cookie = p->cookie, .id = q->id, .port = p->peer->port};
	struct pending pending = {.name = q->name, .type = q->type};
	struct seen *seen;
	struct scratch *s;

	__builtin_memcpy(key.address, p->peer->address, 16);
	__builtin_memcpy(pending.address, p->peer->address, 16);
	seen = bpf_map_lookup_elem(&questions, &key);
	if (seen) {
		pending.question = seen->id;
		known(&questions, &key);
	} else if (afford(key.mntns, KIND_DNS, p->length)) {
		s = claim(SLOT_CGROUP, KIND_DNS, &questions, &key);
		if (s) {
			pending.question = s->record.id;
			fill_payload(ctx, s, owner, p);
			publish(s, KIND_DNS, &questions, &key);
		}
	}
	bpf_map_update_elem(&pendings, &waits, &pending, 0);
	return 0;
}

/* A hash of an answer's bytes beyond its id; 0 if it is too long. */
static __noinline __u64 hash_answer(struct __sk_buff *ctx, struct payload *p)
{
	__u32 at = p->offset + 2, end = p->offset + p->length, n;
	__u64 words[DNS_CHUNK / 8], hash = seed();

	for (int chunk = 0; chunk < DNS_ANSWER_CHUNKS; chunk++) {
		if (at >= end)
			return hash | 1;
		n = bounded(end - at, DNS_CHUNK);
		__builtin_memset(words, 0, sizeof(words));
		if (bpf_skb_load_bytes(ctx, at, words, n))
			return 0;
		for (int i = 0; i < DNS_CHUNK / 8; i++)
			hash = mix(hash, words[i]);
		at += DNS_CHUNK;
	}
	return at >= end ? hash | 1 : 0;
}

/* Whether the same was told within a while; it is from now on. */
static __always_inline bool was_told(__u64 question, __u64 hash)
{
	struct answer_key key = {.question = question, .hash = hash};
	__u64 *told = bpf_map_lookup_elem(&answers, &key), now = bpf_jiffies64();

	if (!question || !hash)
		return false;
	if (told && now - *told < REFRESH)
		return true;
	bpf_map_update_elem(&answers, &key, &now, 0);
	return false;
}

/* An answer that the owner of the socket gets. */
static __noinline int note_answer(struct __sk_buff *ctx, struct owner *owner, struct question *q, struct payload *p)
{
	struct pending_key key = {.cookie = p->cookie, .id = q->id, .port = p->peer->port};
	struct pending *pending = bpf_map_lookup_elem(&pendings, &key);
	__u64 question, mntns = owner->who.mntns;
	struct scratch *s;

	if (!pending || pending->name != q->name || pending->type != q->type ||
	    !same_address(pending->address, p->peer->address)) {
		drop(DROP_UNASKED);
		return 0;
	}
	question = pending->question;
	bpf_map_delete_elem(&pendings, &key);
	if (was_told(question, hash_answer(ctx, p)) || !afford(mntns, KIND_DNS, p->length))
		return 0;
	s = begin(SLOT_INGRESS, KIND_DNS, mntns);
	if (!s)
		return 0;
	s->record.id = question;
	fill_payload(ctx, s, owner, p);
	deliver(s, KIND_DNS, bpf_map_lookup_elem(&namespaces, &mntns));
	release(s);
	return 0;
}

/* A datagram between the owner of a socket, who spoke first, and a DNS server. */
static __always_inline void note_dns(struct __sk_buff *ctx, struct owner *owner, struct payload *p)
{
	struct question q = {};

	if (!read_question(ctx, p->offset, &q) || !q.response != (p->direction == DIRECTION_EGRESS))
		drop(DROP_MALFORMED);
	else if (q.response)
		note_answer(ctx, owner, &q, p);
	else
		note_question(ctx, owner, &q, p);
}

#endif
