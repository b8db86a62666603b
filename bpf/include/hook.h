/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One body, two families of hooks: a trampoline (fentry, fexit), or a kprobe with
 * a kretprobe where the kernel has none. A body takes the arguments of the kernel's
 * function as numbers, and where it runs at the return the result:
 *
 *	static __always_inline void NAME(const __u64 *arguments)
 *	static __always_inline void NAME(const __u64 *arguments, long result)
 *
 * AT_ENTRY(NAME, FUNCTION, COUNT) makes the programs NAME_fentry and NAME_kprobe
 * of it; AT_RETURN the programs NAME_fentry, NAME_entry and NAME_kprobe. COUNT is
 * how many arguments there are, at most 5. pkg/probe has the list of hooks.
 */
#ifndef HOOK_H
#define HOOK_H

#include "arch.h"
#include "emit.h"

#define ARGUMENTS 5

/* One call of a hooked function; a task is in at most one of each function. */
struct call_key {
	__u64 task; /* process and thread */
	__u64 hook;
};

struct call {
	__u64 arguments[ARGUMENTS];
};

/*
 * Calls whose return is awaited: as many as there are tasks inside of a hooked
 * function. What a return that was missed leaves behind is pushed out in time.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline void read_arguments(struct call *call, struct pt_regs *regs)
{
	call->arguments[0] = ARGUMENT_1(regs);
	call->arguments[1] = ARGUMENT_2(regs);
	call->arguments[2] = ARGUMENT_3(regs);
	call->arguments[3] = ARGUMENT_4(regs);
	call->arguments[4] = ARGUMENT_5(regs);
}

static __always_inline void call_begins(struct pt_regs *regs, __u64 hook, enum kind kind)
{
	struct call_key key = {.task = bpf_get_current_pid_tgid(), .hook = hook};
	struct call call;

	if (bpf_map_lookup_elem(&calls, &key))
		lose(kind, LOSS_RETURN); /* of the one before */
	read_arguments(&call, regs);
	if (bpf_map_update_elem(&calls, &key, &call, 0))
		lose(kind, LOSS_RETURN);
}

/* False when the entry was not seen: the hook was attached meanwhile. */
static __always_inline bool call_ends(__u64 hook, struct call *call)
{
	struct call_key key = {.task = bpf_get_current_pid_tgid(), .hook = hook};
	struct call *begun = bpf_map_lookup_elem(&calls, &key);

	if (!begun)
		return false;
	*call = *begun;
	bpf_map_delete_elem(&calls, &key);
	return true;
}

#define COPY_ARGUMENTS(call, ctx, count)                                                           \
	_Pragma("unroll") for (int i = 0; i < (count); i++) (call).arguments[i] = (ctx)[i]

#define AT_ENTRY(name, function, count)                                                            \
	SEC("fentry/" #function)                                                                   \
	int name##_fentry(__u64 *ctx)                                                              \
	{                                                                                          \
		struct call call = {};                                                             \
                                                                                                   \
		COPY_ARGUMENTS(call, ctx, count);                                                  \
		name(call.arguments);                                                              \
		return 0;                                                                          \
	}                                                                                          \
	SEC("kprobe/" #function)                                                                   \
	int name##_kprobe(struct pt_regs *regs)                                                    \
	{                                                                                          \
		struct call call;                                                                  \
                                                                                                   \
		read_arguments(&call, regs);                                                       \
		name(call.arguments);                                                              \
		return 0;                                                                          \
	}

/* hook: a number that no other hook has; kind: of what is lost with a return. */
#define AT_RETURN(name, function, count, hook, kind)                                               \
	SEC("fexit/" #function)                                                                    \
	int name##_fentry(__u64 *ctx)                                                              \
	{                                                                                          \
		struct call call = {};                                                             \
                                                                                                   \
		COPY_ARGUMENTS(call, ctx, count);                                                  \
		name(call.arguments, ctx[count]);                                                  \
		return 0;                                                                          \
	}                                                                                          \
	SEC("kprobe/" #function)                                                                   \
	int name##_entry(struct pt_regs *regs)                                                     \
	{                                                                                          \
		call_begins(regs, hook, kind);                                                     \
		return 0;                                                                          \
	}                                                                                          \
	SEC("kretprobe/" #function)                                                                \
	int name##_kprobe(struct pt_regs *regs)                                                    \
	{                                                                                          \
		struct call call;                                                                  \
                                                                                                   \
		if (call_ends(hook, &call))                                                        \
			name(call.arguments, RESULT(regs));                                        \
		return 0;                                                                          \
	}

#endif
