/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The helper functions that the programs call, and how a map is declared. */
#ifndef HELPERS_H
#define HELPERS_H

#include "kernel.h"
/* Variadic plumbing that bpf_core_read.h expects, as in libbpf's bpf_helpers.h. */
#define ___bpf_concat(a, b) a##b
#define ___bpf_apply(fn, n) ___bpf_concat(fn, n)
#define ___bpf_nth(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _a, _b, _c, N, ...) N
#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)

#include "libbpf/bpf_core_read.h"

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __weak __attribute__((weak))
#define __ksym __attribute__((section(".ksyms")))

#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LRU_HASH 9
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_NOEXIST 1
#define BPF_RB_RING_SIZE 1
#define BPF_RB_CONS_POS 2
#define BPF_RB_PROD_POS 3

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;
static long (*bpf_probe_read_user)(void *dst, __u32 size, const void *src) = (void *)112;
static long (*bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*bpf_probe_read_user_str)(void *dst, __u32 size, const void *src) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *dst, __u32 size, const void *src) = (void *)115;
static __u64 (*bpf_jiffies64)(void) = (void *)118;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*bpf_ringbuf_query)(void *ring, __u64 flags) = (void *)134;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static struct socket *(*bpf_sock_from_file)(struct file *file) = (void *)162;
static long (*bpf_task_pt_regs)(struct task_struct *task) = (void *)175;
static long (*bpf_find_vma)(struct task_struct *task, __u64 address, void *callback, void *context,
			    __u64 flags) = (void *)180;
static long (*bpf_loop)(__u32 times, void *callback, void *context, __u64 flags) = (void *)181;

#define bpf_ntohs(x) __builtin_bswap16(x)

/*
 * Since 6.2 the verifier can be told which type a pointer has; then a field is
 * read by a load, where BPF_CORE_READ calls a helper, that calls others. What cannot
 * be read is 0, either way. Worth it where programs are hot: each use is two
 * branches, one of which the verifier removes, and that takes its time.
 */
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

static __always_inline bool has_cast(void)
{
	return (__u64)bpf_rdonly_cast;
}

#define CAST(pointer) ((typeof(pointer))bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(typeof(*(pointer)))))

#define READ(src, a, ...)                                                                          \
	(has_cast() ? ___arrow(CAST(src), a, ##__VA_ARGS__) : ({                                   \
		___type((src), a, ##__VA_ARGS__) __r;                                              \
                                                                                                   \
		BPF_CORE_READ_INTO(&__r, (src), a, ##__VA_ARGS__);                                 \
		__r;                                                                               \
	}))

/*
 * An address as a number, for a function of its own to the verifier: such a one
 * takes no pointer that has a type.
 */
static __always_inline __u64 untyped(const void *pointer)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &pointer);
	return number;
}

#endif
