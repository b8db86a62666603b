/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What differs between architectures: registers, and few system call numbers. */
#ifndef ARCH_H
#define ARCH_H

#include "helpers.h"

/* Numbers of socketcall(2), from linux/net.h. */
enum {
	SOCKETCALL_SOCKET = 1,
	SOCKETCALL_BIND = 2,
	SOCKETCALL_CONNECT = 3,
	SOCKETCALL_LISTEN = 4,
	SOCKETCALL_ACCEPT = 5,
	SOCKETCALL_SOCKETPAIR = 8,
	SOCKETCALL_SENDTO = 11,
	SOCKETCALL_SENDMSG = 16,
	SOCKETCALL_ACCEPT4 = 18,
};

#if defined(__TARGET_ARCH_x86)

#define TS_COMPAT 2 /* asm/thread_info.h */
#define NR_CLONE 56
#define NR_SETSOCKOPT 54
#define THREAD_SIZE 16384 /* of kernels before 5.15, unless built with KASAN */

/* Arguments and result of a kernel function, as a kprobe finds them. */
#define ARGUMENT_1(regs) (regs)->di
#define ARGUMENT_2(regs) (regs)->si
#define ARGUMENT_3(regs) (regs)->dx
#define ARGUMENT_4(regs) (regs)->cx
#define ARGUMENT_5(regs) (regs)->r8
#define RESULT(regs) (regs)->ax

/* For a task that the verifier knows the type of; is_compat is for any. */
#define IS_COMPAT(task) ((task)->thread_info.status & TS_COMPAT)

static __always_inline bool is_compat(struct task_struct *task)
{
	return READ(task, thread_info.status) & TS_COMPAT;
}

/* regs is one that the verifier knows the type of, so that it is read directly. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
	/* An int: a 32-bit caller's upper half means nothing. */
	return (int)regs->orig_ax;
}

/* The same for any, and whether it is of a task's way into the kernel. */
static __always_inline long read_syscall_number(struct pt_regs *regs)
{
	return (int)READ(regs, orig_ax);
}

static __always_inline bool is_from_user(struct pt_regs *regs)
{
	return (READ(regs, cs) & 3) == 3;
}

static __always_inline __u64 first_argument(struct pt_regs *regs, bool compat)
{
	return compat ? READ(regs, bx) : READ(regs, di);
}

static __always_inline __u64 second_argument(struct pt_regs *regs, bool compat)
{
	return compat ? READ(regs, cx) : READ(regs, si);
}

/* Argument i of a system call; regs is one that the verifier knows the type of. */
static __always_inline __u64 argument(struct pt_regs *regs, bool compat, int i)
{
	switch (i) {
	case 0:
		return compat ? (__u32)regs->bx : regs->di;
	case 1:
		return compat ? (__u32)regs->cx : regs->si;
	case 2:
		return compat ? (__u32)regs->dx : regs->dx;
	case 3:
		return compat ? (__u32)regs->si : regs->r10;
	case 4:
		return compat ? (__u32)regs->di : regs->r8;
	}
	return compat ? (__u32)regs->bp : regs->r9;
}

/* Where argument i is among the registers, for a reader that gets i at run time. */
static __always_inline __u64 argument_offset(bool compat, int i)
{
	switch (i) {
	case 0:
		return compat ? bpf_core_field_offset(struct pt_regs, bx) : bpf_core_field_offset(struct pt_regs, di);
	case 1:
		return compat ? bpf_core_field_offset(struct pt_regs, cx) : bpf_core_field_offset(struct pt_regs, si);
	case 2:
		return bpf_core_field_offset(struct pt_regs, dx);
	case 3:
		return compat ? bpf_core_field_offset(struct pt_regs, si) : bpf_core_field_offset(struct pt_regs, r10);
	case 4:
		return compat ? bpf_core_field_offset(struct pt_regs, di) : bpf_core_field_offset(struct pt_regs, r8);
	}
	return compat ? bpf_core_field_offset(struct pt_regs, bp) : bpf_core_field_offset(struct pt_regs, r9);
}

#elif defined(__TARGET_ARCH_arm64)

#define TIF_32BIT 22 /* asm/thread_info.h */
#define NR_CLONE 220
#define NR_SETSOCKOPT 208
#define THREAD_SIZE 16384 /* with pages of 4 KiB */

/* Arguments and result of a kernel function, as a kprobe finds them. */
#define ARGUMENT_1(r) (r)->regs[0]
#define ARGUMENT_2(r) (r)->regs[1]
#define ARGUMENT_3(r) (r)->regs[2]
#define ARGUMENT_4(r) (r)->regs[3]
#define ARGUMENT_5(r) (r)->regs[4]
#define RESULT(r) (r)->regs[0]

/* For a task that the verifier knows the type of; is_compat is for any. */
#define IS_COMPAT(task) (((task)->thread_info.flags >> TIF_32BIT) & 1)

static __always_inline bool is_compat(struct task_struct *task)
{
	return (READ(task, thread_info.flags) >> TIF_32BIT) & 1;
}

/* regs is one that the verifier knows the type of, so that it is read directly. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
	return regs->syscallno;
}

/* The same for any, and whether it is of a task's way into the kernel. */
static __always_inline long read_syscall_number(struct pt_regs *regs)
{
	return READ(regs, syscallno);
}

static __always_inline bool is_from_user(struct pt_regs *regs)
{
	return !(READ(regs, pstate) & 0xf);
}

/* x0 holds the result when the call returns; the argument is kept beside it. */
static __always_inline __u64 first_argument(struct pt_regs *regs, bool compat)
{
	return READ(regs, orig_x0);
}

static __always_inline __u64 second_argument(struct pt_regs *regs, bool compat)
{
	return READ(regs, regs[1]);
}

/* As on x86. */
static __always_inline __u64 argument(struct pt_regs *regs, bool compat, int i)
{
	__u64 value;

	switch (i) {
	case 0:
		value = regs->orig_x0;
		break;
	case 1:
		value = regs->regs[1];
		break;
	case 2:
		value = regs->regs[2];
		break;
	case 3:
		value = regs->regs[3];
		break;
	case 4:
		value = regs->regs[4];
		break;
	default:
		value = regs->regs[5];
	}
	return compat ? (__u32)value : value;
}

/* As on x86. */
static __always_inline __u64 argument_offset(bool compat, int i)
{
	if (!i)
		return bpf_core_field_offset(struct pt_regs, orig_x0);
	return bpf_core_field_offset(struct pt_regs, regs) + 8 * i;
}

#endif
#endif
