/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What differs between architectures: registers and system call numbers. */
#ifndef ARCH_H
#define ARCH_H

#include "helpers.h"

/* System calls whose outcome is read when they return. */
enum outcome {
	OUTCOME_NONE = 0,
	OUTCOME_OPEN,	 /* returns the descriptor of a file */
	OUTCOME_CONNECT, /* the descriptor is the first argument */
	OUTCOME_ACCEPT,	 /* returns the descriptor of a socket */
	OUTCOME_LISTEN,
	OUTCOME_BIND,
	OUTCOME_SOCKETCALL, /* i386: one of the above, in an array in user space */
};

/* Numbers of socketcall(2), from linux/net.h. */
enum {
	SOCKETCALL_BIND = 2,
	SOCKETCALL_CONNECT = 3,
	SOCKETCALL_LISTEN = 4,
	SOCKETCALL_ACCEPT = 5,
	SOCKETCALL_ACCEPT4 = 18,
};

#if defined(__TARGET_ARCH_x86)

#define TS_COMPAT 2 /* asm/thread_info.h */
#define NR_CLONE 56

/* For a task that the verifier knows the type of; is_compat is for any. */
#define IS_COMPAT(task) ((task)->thread_info.status & TS_COMPAT)

static __always_inline bool is_compat(struct task_struct *task)
{
	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
}

/* regs is one that the verifier knows the type of, so that it is read directly. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
	/* An int: a 32-bit caller's upper half means nothing. */
	return (int)regs->orig_ax;
}

static __always_inline __u64 first_argument(struct pt_regs *regs, bool compat)
{
	return compat ? BPF_CORE_READ(regs, bx) : BPF_CORE_READ(regs, di);
}

static __always_inline __u64 second_argument(struct pt_regs *regs, bool compat)
{
	return compat ? BPF_CORE_READ(regs, cx) : BPF_CORE_READ(regs, si);
}

static __always_inline enum outcome outcome_of(long number, bool compat)
{
	if (!compat) {
		switch (number) {
		case 2:	  /* open */
		case 85:  /* creat */
		case 257: /* openat */
		case 304: /* open_by_handle_at */
		case 437: /* openat2 */
			return OUTCOME_OPEN;
		case 42:
			return OUTCOME_CONNECT;
		case 43:
		case 288: /* accept4 */
			return OUTCOME_ACCEPT;
		case 49:
			return OUTCOME_BIND;
		case 50:
			return OUTCOME_LISTEN;
		}
		return OUTCOME_NONE;
	}
	switch (number) {
	case 5:	  /* open */
	case 8:	  /* creat */
	case 295: /* openat */
	case 342: /* open_by_handle_at */
	case 437: /* openat2 */
		return OUTCOME_OPEN;
	case 102:
		return OUTCOME_SOCKETCALL;
	case 361:
		return OUTCOME_BIND;
	case 362:
		return OUTCOME_CONNECT;
	case 363:
		return OUTCOME_LISTEN;
	case 364: /* accept4 */
		return OUTCOME_ACCEPT;
	}
	return OUTCOME_NONE;
}

#elif defined(__TARGET_ARCH_arm64)

#define TIF_32BIT 22 /* asm/thread_info.h */
#define NR_CLONE 220

/* For a task that the verifier knows the type of; is_compat is for any. */
#define IS_COMPAT(task) (((task)->thread_info.flags >> TIF_32BIT) & 1)

static __always_inline bool is_compat(struct task_struct *task)
{
	return (BPF_CORE_READ(task, thread_info.flags) >> TIF_32BIT) & 1;
}

/* regs is one that the verifier knows the type of, so that it is read directly. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
	return regs->syscallno;
}

/* x0 holds the result when the call returns; the argument is kept beside it. */
static __always_inline __u64 first_argument(struct pt_regs *regs, bool compat)
{
	return BPF_CORE_READ(regs, orig_x0);
}

static __always_inline __u64 second_argument(struct pt_regs *regs, bool compat)
{
	return BPF_CORE_READ(regs, regs[1]);
}

static __always_inline enum outcome outcome_of(long number, bool compat)
{
	if (!compat) {
		switch (number) {
		case 56:  /* openat */
		case 265: /* open_by_handle_at */
		case 437: /* openat2 */
			return OUTCOME_OPEN;
		case 200:
			return OUTCOME_BIND;
		case 201:
			return OUTCOME_LISTEN;
		case 202:
		case 242: /* accept4 */
			return OUTCOME_ACCEPT;
		case 203:
			return OUTCOME_CONNECT;
		}
		return OUTCOME_NONE;
	}
	switch (number) {
	case 5:	  /* open */
	case 8:	  /* creat */
	case 322: /* openat */
	case 371: /* open_by_handle_at */
	case 437: /* openat2 */
		return OUTCOME_OPEN;
	case 282:
		return OUTCOME_BIND;
	case 283:
		return OUTCOME_CONNECT;
	case 284:
		return OUTCOME_LISTEN;
	case 285:
	case 366: /* accept4 */
		return OUTCOME_ACCEPT;
	}
	return OUTCOME_NONE;
}

#endif
#endif
