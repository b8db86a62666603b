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

/* Counts one more occurrence, if key was seen before. */
static __always_inline bool known(void *map, const void *key)
{
	struct seen *seen = bpf_map_lookup_elem(map, key);

	if (!seen)
		return false;
	__sync_fetch_and_add(&seen->count, 1);
	seen->last = bpf_ktime_get_boot_ns();
	return true;
}

static __always_inline void release(struct scratch *s)
{
	__sync_fetch_and_add(&s->busy, -1);
}

/*
 * Claims this CPU's scratch and enters key as seen. NULL when there is nothing
 * to publish. Of two claims on one CPU at most one reads back a 1, wherever the
 * other preempted it; the loser has lost a record.
 */
static __always_inline struct scratch *claim(__u32 slot, enum kind kind, void *map, const void *key)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	struct seen seen = {.count = 1};
	__u64 cpu = bpf_get_smp_processor_id();
	long err;

	if (!s)
		return NULL;
	__sync_fetch_and_add(&s->busy, 1);
	if (*(volatile __u64 *)&s->busy != 1) {
		release(s);
		lose(kind, LOSS_BUSY);
		return NULL;
	}
	s->issued++;
	seen.id = ((__u64)kind << 56) | ((__u64)slot << 54) | (cpu << 40) | (s->issued & 0xffffffffff);
	seen.first = seen.last = bpf_ktime_get_boot_ns();
	err = bpf_map_update_elem(map, key, &seen, BPF_NOEXIST);
	if (err == -17 /* EEXIST: another CPU was faster */) {
		release(s);
		known(map, key);
		return NULL;
	}
	if (err) {
		lose(kind, LOSS_MAP_FULL);
		seen.id = 0;
	}
	__builtin_memset(&s->record, 0, sizeof(s->record));
	s->used = 0;
	s->record.id = seen.id;
	s->record.time = seen.first;
	s->record.kind = kind;
	s->record.pid = bpf_get_current_pid_tgid() >> 32;
	return s;
}

/* Hands the record to user space, or forgets key again if there is no room. */
static __always_inline void publish(struct scratch *s, enum kind kind, void *map, const void *key)
{
	__u64 used = s->used;

	if (used > DATA_BYTES)
		used = DATA_BYTES;
	if (bpf_ringbuf_output(&records, &s->record, sizeof(s->record) + used, 0)) {
		lose(kind, LOSS_RING_FULL);
		if (s->record.id)
			bpf_map_delete_elem(map, key);
	}
	release(s);
}

#endif
