/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose a socket is. Packets are seen outside of process context: who made or
 * last used the socket is noted while its process runs, under the socket's cookie,
 * which no other socket ever gets.
 */
#ifndef OWNER_H
#define OWNER_H

#include "task.h"

/*
 * The id under which user space knows who a is, 0 if it could not be told: then
 * that is counted, and tried again by the next use.
 */
static __always_inline __u64 introduce(__u32 slot, struct actor *a, struct introduction_key *key)
{
	struct seen *seen = bpf_map_lookup_elem(&introductions, key);
	struct scratch *s;
	__u64 id;

	if (seen)
		return seen->id;
	s = claim(slot, KIND_ACTOR, &introductions, key);
	if (!s)
		return 0;
	id = s->record.id;
	describe(s, slot, KIND_ACTOR, a);
	publish(s, KIND_ACTOR, &introductions, key);
	/* Taken back if there was no room for the record. */
	return bpf_map_lookup_elem(&introductions, key) ? id : 0;
}

static __always_inline void own_as(__u32 slot, __u64 cookie, struct task_struct *task, __u64 flags)
{
	struct owner owner = {.state = OWNER_NONE};
	struct actor a = {.task = task};

	if (act_for(&a, task)) {
		owner.who.mntns = a.mntns;
		owner.who.flags = a.flags;
		owner.who.exe = a.id;
		owner.actor = introduce(slot, &a, &owner.who);
		if (!owner.actor)
			return;
		owner.state = OWNER_KNOWN;
		owner.pid = BPF_CORE_READ(task, tgid);
	}
	bpf_map_update_elem(&owners, &cookie, &owner, flags);
}

/* Notes that the current task uses the socket. A function of its own to the verifier. */
__noinline int own(__u32 slot, __u64 cookie)
{
	own_as(slot, cookie, current_task(), 0);
	return 0;
}

/* A socket that is nobody's, as far as is known. */
__noinline int disown(__u64 cookie, __u32 state)
{
	struct owner owner = {.state = state};

	bpf_map_update_elem(&owners, &cookie, &owner, 0);
	return 0;
}

/*
 * The owner of the socket of a packet, NULL if it is of no interest. One that was
 * never used while the probe was there is counted, once. The current task is the
 * sender of a packet that is sent, and taken as the owner if that is asked for.
 */
static __always_inline struct owner *owner_of(__u32 slot, __u64 cookie, struct sock *sk, bool sender)
{
	struct owner *owner = bpf_map_lookup_elem(&owners, &cookie);

	if (owner && owner->state == OWNER_NONE)
		return NULL;
	if (!owner && BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock)) {
		disown(cookie, OWNER_NONE);
		return NULL;
	}
	if (sender) {
		own(slot, cookie);
		owner = bpf_map_lookup_elem(&owners, &cookie);
	} else if (!owner) {
		lose(KIND_NETWORK, LOSS_OWNER);
		disown(cookie, OWNER_UNKNOWN);
	}
	return owner && owner->state == OWNER_KNOWN ? owner : NULL;
}

static __always_inline bool is_unknown(__u64 cookie)
{
	struct owner *owner = bpf_map_lookup_elem(&owners, &cookie);

	return owner && owner->state == OWNER_UNKNOWN;
}

#endif
