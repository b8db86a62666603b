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

/*
 * The kernel asked whether cred has a capability in the user namespace target, and
 * was answered result: 0 or an error.
 */
static __always_inline void capability_checked(__u32 slot, const struct cred *cred, struct user_namespace *target,
					       __u32 capability, int result)
{
	struct passing_key passes = {.capability = capability};
	struct capability_key key = {};
	struct user_namespace *own;
	struct task_struct *task;
	struct pt_regs *regs;
	struct actor a = {};
	struct scratch *s;
	long number;

	task = has_current_task_btf() ? bpf_get_current_task_btf() : current_task();
	/* Overridden credentials are the kernel's own doing: overlayfs, access(2). */
	if (cred != BPF_CORE_READ(task, real_cred))
		return;
	own = BPF_CORE_READ(cred, user_ns);
	if (target != own && target != BPF_CORE_READ(own, parent))
		return;
	number = current_syscall(task, &regs);
	if (number < 0 || !act_tracing(&a))
		return; /* a page fault, or an interrupt */
	passes.compat = is_compat(task);
	passes.syscall = number;
	if (bpf_map_lookup_elem(&passing, &passes) &&
	    !(number == NR_CLONE && !passes.compat && first_argument(regs, false) & CLONE_NAMESPACES))
		return;

	key.mntns = a.mntns;
	key.flags = a.flags;
	if (result)
		key.flags |= RECORD_REFUSED;
	if (passes.compat)
		key.flags |= RECORD_COMPAT;
	key.capability = passes.capability;
	key.exe = a.id;
	key.syscall = number;
	if (known(&capabilities, &key))
		return;
	s = claim(slot, KIND_CAPABILITY, &capabilities, &key);
	if (!s)
		return;
	describe(s, slot, KIND_CAPABILITY, &a);
	s->record.flags = key.flags;
	s->record.capability = key.capability;
	s->record.syscall = number;
	publish(s, KIND_CAPABILITY, &capabilities, &key);
}

#endif
