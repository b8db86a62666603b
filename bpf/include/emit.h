/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way of a record: known already, or claimed, filled and published. */
#ifndef EMIT_H
#define EMIT_H

#include "maps.h"

/* Nothing is dropped without a count that user space reads. */
static __always_inline void lose(enum kind kind, enum loss loss)
{
	__u32 index = kind * LOSSES + loss;
	__u64 *count = bpf_map_lookup_elem(&losses, &index);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* As lose, of one mount namespace; of the node when that has no entry. */
static __always_inline void lose_of(__u64 mntns, enum kind kind, enum loss loss)
{
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, &mntns);

	if (ns)
		__sync_fetch_and_add(&ns->lost[kind * LOSSES + loss], 1);
	else
		lose(kind, loss);
}

/* Whether ns may have one more entry: one namespace does not fill a map alone. */
static __always_inline bool has_room(struct namespace *ns, enum room room)
{
	__u32 index = room; /* room itself stays a constant to the verifier */
	struct use *use = bpf_map_lookup_elem(&uses, &index);
	__u64 *gone = bpf_map_lookup_elem(&freed, &index);
	__u32 size = room_size[room];

	if (!use || !gone)
		return true;
	return use->added - *gone < size / 2 || ns->taken[room] < size / MAP_SHARE;
}

/* Counts an entry that was made, for ns unless that is NULL. */
static __always_inline void take_room(struct namespace *ns, enum room room)
{
	__u32 index = room;
	struct use *use = bpf_map_lookup_elem(&uses, &index);
	__u64 *gone = bpf_map_lookup_elem(&freed, &index);
	__u64 now;

	if (!use || !gone)
		return;
	__sync_fetch_and_add(&use->added, 1);
	now = *(volatile __u64 *)&use->added - *gone;
	if (now > use->high)
		use->high = now;
	if (ns)
		__sync_fetch_and_add(&ns->taken[room], 1);
}

/* Counts an entry that was taken away again. */
static __always_inline void give_room(struct namespace *ns, enum room room)
{
	__u32 index = room;
	struct use *use = bpf_map_lookup_elem(&uses, &index);

	if (use)
		__sync_fetch_and_add(&use->added, -1);
	if (ns)
		__sync_fetch_and_add(&ns->taken[room], -1);
}

/*
 * Whether ns may put bytes into the ring: when that is three quarters full, a
 * namespace that has much in it waits, so that others find room. What it has in the ring is
 * at most what it put there since the reader was at the mark before the last.
 */
static __always_inline bool has_share(struct namespace *ns, __u64 bytes)
{
	__u64 size = bpf_ringbuf_query(&records, BPF_RB_RING_SIZE);
	__u64 read = bpf_ringbuf_query(&records, BPF_RB_CONS_POS);
	__u64 written = bpf_ringbuf_query(&records, BPF_RB_PROD_POS);

	if (read >= ns->ring_mark) {
		ns->ring_before = ns->ring_since;
		ns->ring_since = 0;
		ns->ring_mark = written;
	}
	if (written - read > size / 4 * 3 && ns->ring_before + ns->ring_since + bytes > size / RING_SHARE)
		return false;
	__sync_fetch_and_add(&ns->ring_since, bytes);
	return true;
}

/* Counts one more occurrence, if key was seen before. */
static __always_inline bool known(void *map, const void *key)
{
	struct seen *seen = bpf_map_lookup_elem(map, key);
	__u64 now;

	if (!seen)
		return false;
	__sync_fetch_and_add(&seen->count, 1);
	now = bpf_jiffies64(); /* a load; the clock is many */
	if (now - seen->noted >= LAST_EVERY) {
		seen->noted = now;
		seen->last = bpf_ktime_get_boot_ns();
	}
	return true;
}

static __always_inline void release(struct scratch *s)
{
	__sync_fetch_and_add(&s->busy, -1);
}

/*
 * Claims this CPU's scratch for a record of the namespace mntns, which has no number
 * yet. NULL when another has it: of two claims on one CPU at most one reads back a 1,
 * wherever the other preempted it; the loser has lost a record.
 */
static __always_inline struct scratch *hold(__u32 slot, enum kind kind, __u64 mntns)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);

	if (!s)
		return NULL;
	__sync_fetch_and_add(&s->busy, 1);
	if (*(volatile __u64 *)&s->busy != 1) {
		release(s);
		lose_of(mntns, kind, LOSS_BUSY);
		return NULL;
	}
	__builtin_memset(&s->record, 0, sizeof(s->record));
	s->used = 0;
	s->mntns = mntns;
	s->record.time = bpf_ktime_get_boot_ns();
	s->record.kind = kind;
	return s;
}

/* As hold, for a record that is published now: it gets a number. */
static __always_inline struct scratch *begin(__u32 slot, enum kind kind, __u64 mntns)
{
	struct scratch *s = hold(slot, kind, mntns);
	__u64 cpu = bpf_get_smp_processor_id();

	if (!s)
		return NULL;
	s->issued++;
	s->subject = 0;
	s->record.id = ((__u64)kind << 56) | ((__u64)slot << 54) | (cpu << 40) | (s->issued & 0xffffffffff);
	return s;
}

/*
 * Claims this CPU's scratch and enters key as seen. NULL when there is nothing
 * to publish. Every key starts with the number of its mount namespace.
 */
static __always_inline struct scratch *claim(__u32 slot, enum kind kind, void *map, const void *key)
{
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, key);
	struct scratch *s = begin(slot, kind, *(const __u64 *)key);
	struct seen seen = {.count = 1};
	bool room;
	long err;

	if (!s)
		return NULL;
	seen.id = s->record.id;
	seen.first = seen.last = s->record.time;
	seen.noted = bpf_jiffies64();
	/* Without ns there was no room for it, or user space has just forgotten it. */
	room = !ns || has_room(ns, (enum room)kind);
	err = room ? bpf_map_update_elem(map, key, &seen, BPF_NOEXIST) : -7;
	if (err == -17 /* EEXIST: another CPU was faster */) {
		release(s);
		known(map, key);
		return NULL;
	}
	if (err) {
		lose_of(*(const __u64 *)key, kind, room ? LOSS_MAP_FULL : LOSS_MAP_SHARE);
		s->record.id = 0;
	} else {
		take_room(ns, (enum room)kind);
	}
	return s;
}

/* Hands the record to user space; false, and counted, if there is no room. */
static __always_inline bool deliver(struct scratch *s, enum kind kind, struct namespace *ns)
{
	enum loss loss = LOSS_RING_FULL;
	__u64 used = s->used;

	if (used > DATA_BYTES)
		used = DATA_BYTES;
	if (ns && !has_share(ns, sizeof(s->record) + used))
		loss = LOSS_RING_SHARE;
	else if (!bpf_ringbuf_output(&records, &s->record, sizeof(s->record) + used, 0))
		return true;
	lose_of(s->mntns, kind, loss);
	return false;
}

/* Hands the record to user space, or forgets key again if there is no room. */
static __always_inline void publish(struct scratch *s, enum kind kind, void *map, const void *key)
{
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, key);

	if (!deliver(s, kind, ns) && s->record.id && !bpf_map_delete_elem(map, key))
		give_room(ns, (enum room)kind);
	release(s);
}

#endif
