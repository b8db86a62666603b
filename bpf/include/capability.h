/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Capability facts: what the kernel asked for, and whether the task had it. */
#ifndef CAPABILITY_H
#define CAPABILITY_H

#include "arch.h"
#include "task.h"

/* CLONE_NEW*, from linux/sched.h: only then does clone need a capability. */
#define CLONE_NAMESPACES 0x7e020080

/*
 * The number of the system call that the current task is in, and the registers
 * that it entered the kernel with; negative if there is none. Kernels before 5.15
 * have no helper for the registers: there they are at the top of the task's stack,
 * if what is there came from user space.
 */
static __always_inline long current_syscall(struct task_struct *task, struct pt_regs **regs)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		*regs = (struct pt_regs *)bpf_task_pt_regs(task);
		return syscall_number(*regs);
	}
	*regs = (struct pt_regs *)((__u64)BPF_CORE_READ(task, stack) + THREAD_SIZE - bpf_core_type_size(struct pt_regs));
	return is_from_user(*regs) ? read_syscall_number(*regs) : -1;
}

/* As argument, of registers that the verifier may not know the type of. */
static __always_inline __u64 call_argument(struct pt_regs *regs, bool compat, __u32 i)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)regs + argument_offset(compat, i));
	return value;
}

/* Fills in those arguments of a system call that are words. */
static __always_inline void read_words(__u32 *words, const struct call_rule *rule, struct pt_regs *regs, bool compat)
{
	for (int i = 0; i < WORDS; i++)
		if (i < rule->words)
			words[i] = call_argument(regs, compat, rule->argument[i]) & rule->mask[i];
}

/* Whether the kernel tells its audit of a check. */
enum audited {
	AUDITED_NO,
	AUDITED_YES,
	AUDITED_UNKNOWN,
};

#define SOL_TCP 6
#define TCP_CONGESTION 13

/* Whether nothing that the task wants depends on the answer. */
static __always_inline bool is_in_passing(const struct call_rule *rule, __u32 capability, enum audited audited,
					  long number, bool compat, struct pt_regs *regs)
{
	__u64 bit = 1ULL << (capability & 63);

	if (rule->gates & bit)
		return false;
	if (rule->idle & bit)
		return number != NR_SETSOCKOPT || compat ||
		       ((__u32)call_argument(regs, false, 1) == SOL_TCP &&
			(__u32)call_argument(regs, false, 2) == TCP_CONGESTION);
	if (audited != AUDITED_UNKNOWN)
		return audited == AUDITED_NO;
	return rule->passing & bit &&
	       !(number == NR_CLONE && !compat && call_argument(regs, false, 0) & CLONE_NAMESPACES);
}

/*
 * The kernel asked whether cred has a capability in the user namespace target, and
 * was answered result: 0 or an error.
 */
static __always_inline void capability_checked(__u32 slot, const struct cred *cred, struct user_namespace *target,
					       __u32 capability, int result, enum audited audited)
{
	struct capability_key key = {};
	struct user_namespace *own;
	struct call_rule *rule;
	struct task_struct *task;
	struct pt_regs *regs;
	struct actor a = {};
	struct scratch *s;
	long number;
	bool compat;
	__u32 index;

	task = has_current_task_btf() ? bpf_get_current_task_btf() : current_task();
	/* Overridden credentials are the kernel's own doing: overlayfs, access(2). */
	if (cred != READ(task, real_cred))
		return;
	own = READ(cred, user_ns);
	if (target != own && target != READ(own, parent))
		return;
	number = current_syscall(task, &regs);
	if (number < 0)
		return; /* a page fault, or an interrupt */
	compat = is_compat(task);
	index = compat ? number + SYSCALLS : number;
	rule = number < SYSCALLS ? bpf_map_lookup_elem(&call_rules, &index) : NULL;
	if (rule ? is_in_passing(rule, capability, audited, number, compat, regs) : audited == AUDITED_NO)
		return; /* most checks, by far */
	if (!act_tracing(&a))
		return;
	key.mntns = a.mntns;
	key.flags = a.flags;
	if (result)
		key.flags |= RECORD_REFUSED;
	if (compat)
		key.flags |= RECORD_COMPAT;
	key.capability = capability;
	key.syscall = number;
	if (!(a.flags & RECORD_RUNTIME)) {
		key.exe = a.id;
		if (rule)
			read_words(key.words, rule, regs, compat);
	}
	if (known(&capabilities, &key))
		return;
	s = claim(slot, KIND_CAPABILITY, &capabilities, &key);
	if (!s)
		return;
	describe(s, slot, KIND_CAPABILITY, &a);
	s->record.flags = key.flags;
	s->record.capability = capability;
	s->record.syscall = number;
	__builtin_memcpy(s->record.address, key.words, sizeof(key.words));
	publish(s, KIND_CAPABILITY, &capabilities, &key);
}

#endif
