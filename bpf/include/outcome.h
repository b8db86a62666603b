/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* System calls whose outcome is read when they return. */
#ifndef OUTCOME_H
#define OUTCOME_H

#include "record.h"

/* What to make of a system call; pkg/probe knows which calls, by name. */
enum outcome {
	OUTCOME_NONE = 0,
	OUTCOME_OPEN,	 /* returns the descriptor of a file */
	OUTCOME_CONNECT, /* the descriptor is the first argument */
	OUTCOME_ACCEPT,	 /* returns the descriptor of a socket */
	OUTCOME_LISTEN,
	OUTCOME_BIND,
	OUTCOME_SETNS,
	OUTCOME_UNSHARE,
	OUTCOME_SOCKET,	    /* returns the descriptor of a socket that was made */
	OUTCOME_SOCKETPAIR, /* writes two to user space, at the fourth argument */
	OUTCOME_SOCKETCALL, /* 32-bit: one of the above, in an array in user space */
};

/*
 * The outcome of each system call by its number, the native table's in the low
 * byte and the 32-bit one's in the high byte: most calls leave by one look at
 * it. pkg/probe fills it in before it loads the programs.
 */
const volatile __u16 outcomes[SYSCALLS];

static __always_inline enum outcome outcome_of(__u16 both, bool compat)
{
	return compat ? both >> 8 : both & 0xff;
}

#endif
