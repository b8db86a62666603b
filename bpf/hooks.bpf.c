//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on functions of the kernel, for what an older kernel has no tracepoint
 * for. They are optional: some kernels have neither trampolines nor kprobes. They
 * share the floor's maps; pkg/probe loads each hook by itself and says which it took.
 */
#include "include/hook.h"
#include "include/capability.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define CAP_OPT_NOAUDIT 2 /* linux/security.h */

enum {
	HOOK_CAPABILITY = 1,
};

/* cap_capable(cred, target namespace, capability, options) */
static __always_inline void capability(const __u64 *arguments, long result)
{
	capability_checked(SLOT_HOOK, (const struct cred *)arguments[0], (struct user_namespace *)arguments[1],
			   arguments[2], result, arguments[3] & CAP_OPT_NOAUDIT ? AUDITED_NO : AUDITED_YES);
}

AT_RETURN(capability, cap_capable, 4, HOOK_CAPABILITY, KIND_CAPABILITY)
