//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a streaming collector does: every system call becomes an event in a ring
 * buffer, which user space counts and keeps the distinct ones of. What the ring
 * refuses is counted. main.go sets the ring's size.
 */
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;

struct event {
	__u64 cgroup;
	__u64 call;
	__u64 pid;
	__u64 time;
};

struct {
	__uint(type, 27); /* ring buffer */
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* 0: system calls, 1: those that did not fit. */
struct {
	__uint(type, 6); /* per-CPU array */
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/sys_enter")
int stream(__u64 *ctx)
{
	__u64 cgroup = bpf_get_current_cgroup_id(), *count;
	__u32 which = 0;
	struct event *e;

	if (cgroup == 1)
		return 0; /* the root's: in no container */
	count = bpf_map_lookup_elem(&counts, &which);
	if (count)
		++*count;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		which = 1;
		count = bpf_map_lookup_elem(&counts, &which);
		if (count)
			++*count;
		return 0;
	}
	e->cgroup = cgroup;
	e->call = ctx[1];
	e->pid = bpf_get_current_pid_tgid();
	e->time = bpf_ktime_get_ns();
	bpf_ringbuf_submit(e, 0);
	return 0;
}
