//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The floor: tracepoints with BTF and cgroup programs, which load on every
 * supported kernel, also one that has no kprobes or is locked down.
 */
#include "include/capability.h"
#include "include/entrant.h"
#include "include/mapping.h"
#include "include/network.h"
#include "include/ring.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define FMODE_EXEC 0x20 /* in f_flags */
#define EINPROGRESS 115
#define MAX_ERRNO 4095

/* Works that a task has at exec: as many files as it closes then, rarely a few. */
#define TASK_WORKS 128

/* Keeps the enums in the type information that Go's constants are made from. */
const struct generated {
	enum kind kind;
	enum loss loss;
	enum room room;
	enum record_flag record_flag;
	enum path_flag path_flag;
	enum access access;
	enum direction direction;
	enum outcome outcome;
	enum setting setting;
	enum operation operation;
	enum name_flag name_flag;
	enum capture capture;
	enum drop drop;
	enum segment segment;
} generated __attribute__((used));

static __always_inline void mark_syscall(struct task_struct *task, struct namespace *ns, __u64 mntns,
					 __u64 number, bool compat)
{
	struct entrant *entrant;
	struct file *exe;

	if (number >= SYSCALLS) {
		lose_of(mntns, KIND_SYSCALL, LOSS_NUMBER);
		return;
	}
	if (compat)
		number += SYSCALLS;
	if (ns->called[number] && (!ns->entrants || ns->called_by_entrants[number]))
		return;
	entrant = entrant_of(ns);
	if (entrant && entrant->session) {
		ns->called_by_entrants[number] = 1;
		return;
	}
	if (ns->called[number])
		return;
	exe = READ(task, mm, exe_file);
	if (!exe)
		return;
	if (is_runtime(exe, READ(task, nsproxy, mnt_ns), mntns))
		ns->called_by_runtime[number] = 1;
	else
		ns->called[number] = 1;
}

SEC("tp_btf/sys_enter")
int note_syscall(__u64 *ctx)
{
	struct task_struct *task;
	struct mnt_namespace *mount_namespace;
	struct namespace *ns;
	__u64 mntns;
	bool compat;

	if (has_current_task_btf()) { /* since 5.11; no helper calls on the hot path */
		task = bpf_get_current_task_btf();
		mount_namespace = task->nsproxy->mnt_ns;
		mntns = NUMBER_OF(mount_namespace);
		compat = IS_COMPAT(task);
	} else {
		task = current_task();
		mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns);
		mntns = number_of(mount_namespace);
		compat = is_compat(task);
	}
	if (!mntns)
		return 0;
	ns = namespace_of(mntns);
	if (!ns) {
		lose(KIND_SYSCALL, LOSS_MAP_FULL);
		return 0;
	}
	if (ns->ignored)
		return 0;
	if ((long)ctx[1] >= 0) /* -1: changed by a tracer or seccomp */
		mark_syscall(task, ns, mntns, ctx[1], compat);
	return 0;
}

/* Resolves socketcall(2): its descriptor, or where there are two, is in *fd. */
static __always_inline enum outcome socketcall(struct pt_regs *regs, __u64 *fd)
{
	__u32 arguments[4] = {};

	switch (first_argument(regs, true)) {
	case SOCKETCALL_SOCKETPAIR:
		bpf_probe_read_user(arguments, sizeof(arguments), (void *)second_argument(regs, true));
		*fd = arguments[3];
		return OUTCOME_SOCKETPAIR;
	case SOCKETCALL_SOCKET:
		return OUTCOME_SOCKET;
	case SOCKETCALL_ACCEPT:
	case SOCKETCALL_ACCEPT4:
		return OUTCOME_ACCEPT;
	case SOCKETCALL_SENDTO:
		sent_by_array(second_argument(regs, true), false);
		return OUTCOME_NONE;
	case SOCKETCALL_SENDMSG:
		sent_by_array(second_argument(regs, true), true);
		return OUTCOME_NONE;
	}
	bpf_probe_read_user(arguments, sizeof(__u32), (void *)second_argument(regs, true));
	*fd = arguments[0];
	switch (first_argument(regs, true)) {
	case SOCKETCALL_BIND:
		return OUTCOME_BIND;
	case SOCKETCALL_CONNECT:
		return OUTCOME_CONNECT;
	case SOCKETCALL_LISTEN:
		return OUTCOME_LISTEN;
	}
	return OUTCOME_NONE;
}

/* A function of its own, so that its stack is not its caller's. */
__noinline int namespace_left(__u64 joined, __u64 flags)
{
	namespace_changed((struct file *)joined, flags);
	return 0;
}

/* Most mappings are not executable, and most messages go to a connected peer. */
static __always_inline bool is_unremarkable(enum outcome outcome, struct pt_regs *regs, bool compat)
{
	if (outcome == OUTCOME_MMAP || outcome == OUTCOME_MPROTECT)
		return !(argument(regs, compat, 2) & PROT_EXEC);
	return outcome == OUTCOME_SENDTO && !argument(regs, compat, 4);
}

/* Calls whose arguments tell the file. A function of its own to the verifier. */
__noinline int arguments_used(__u64 regs, __u32 outcome, __u32 compat)
{
	struct task_struct *task = current_task();
	__u64 first = read_argument(regs, compat, 0), fifth = read_argument(regs, compat, 4);

	switch (outcome) {
	case OUTCOME_SENDTO:
		sent_to(fifth, read_argument(regs, compat, 5));
		break;
	case OUTCOME_SENDMSG:
		sent_message(read_argument(regs, compat, 1), compat);
		break;
	case OUTCOME_MMAP:
		mapped(task, read_argument(regs, compat, 2), read_argument(regs, compat, 3), fifth);
		break;
	case OUTCOME_MMAP_STRUCT:
		mapped_by_array(task, first);
		break;
	case OUTCOME_MPROTECT:
		made_executable(task, first);
		break;
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int note_outcome(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	struct task_struct *task = current_task();
	__u32 number = syscall_number(regs);
	long result = (int)ctx[1];
	enum outcome outcome;
	struct file *file;
	bool compat;
	__u32 pair = 0;
	__u16 both;
	__u64 fd = 0, address = 0, mntns;

	/* Most calls are none of these, whichever way they were made. */
	if (number >= SYSCALLS)
		return 0;
	both = outcomes[number & (SYSCALLS - 1)]; /* the mask is for the verifier */
	if (!both)
		return 0;
	if (result < 0 && result >= -MAX_ERRNO && result != -EINPROGRESS)
		return 0; /* what is below is an address */
	compat = is_compat(task);
	outcome = outcome_of(both, compat);
	if (outcome == OUTCOME_NONE)
		return 0;
	if (is_unremarkable(outcome, regs, compat))
		return 0;
	if (outcome == OUTCOME_UNSHARE || outcome == OUTCOME_SETNS) {
		file = outcome == OUTCOME_SETNS ? file_of(task, (__u32)first_argument(regs, compat)) : NULL;
		namespace_left((__u64)file, second_argument(regs, compat));
		return 0;
	}
	mntns = number_of(READ(task, nsproxy, mnt_ns));
	if (outcome >= OUTCOME_SENDTO && is_ignored(mntns))
		return 0; /* what does less finds out by itself */
	if (outcome >= OUTCOME_SENDTO) {
		/* The registers' address as a number, to pass it on. */
		bpf_probe_read_kernel(&address, sizeof(address), &ctx[0]);
		if (outcome >= OUTCOME_PATHS)
			paths_used(address, outcome, compat);
		else
			arguments_used(address, outcome, compat);
		return 0;
	}
	if (outcome == OUTCOME_SOCKETCALL)
		outcome = socketcall(regs, &fd);
	else
		fd = outcome == OUTCOME_SOCKETPAIR ? argument(regs, compat, 3) : (__u32)first_argument(regs, compat);
	if (outcome == OUTCOME_SOCKETPAIR) {
		bpf_probe_read_user(&pair, sizeof(pair), (void *)fd);
		fd = pair;
	}
	if (outcome == OUTCOME_OPEN || outcome == OUTCOME_ACCEPT || outcome == OUTCOME_SOCKET)
		fd = (__u32)result;
	if (result == -EINPROGRESS && outcome != OUTCOME_CONNECT)
		return 0;
	file = file_of(task, fd);
	if (!file) {
		if (result >= 0 && !is_ignored(mntns)) /* a connect to be waited for says so again */
			lose_of(mntns, outcome == OUTCOME_OPEN ? KIND_FILE : KIND_NETWORK, LOSS_CLOSED);
		return 0;
	}
	if (outcome == OUTCOME_CONNECT || outcome == OUTCOME_BIND)
		unix_connected((__u64)file, outcome == OUTCOME_BIND);
	if (outcome == OUTCOME_OPEN)
		file_opened(file);
	else if (outcome == OUTCOME_SOCKET || outcome == OUTCOME_SOCKETPAIR)
		socket_made((__u64)file);
	else if (outcome == OUTCOME_CONNECT)
		socket_used((__u64)file, DIRECTION_EGRESS, false);
	else if (outcome == OUTCOME_ACCEPT)
		socket_used((__u64)file, DIRECTION_INGRESS, false);
	else if (outcome == OUTCOME_LISTEN || outcome == OUTCOME_BIND)
		socket_used((__u64)file, DIRECTION_LISTEN, outcome == OUTCOME_BIND);
	return 0;
}

/* Of the programs for io_uring pkg/probe takes the two that fit the kernel. */
SEC("tp_btf/io_uring_submit_req")
int note_request(__u64 *ctx)
{
	__u64 request = 0;

	bpf_probe_read_kernel(&request, sizeof(request), &ctx[0]);
	ring_requested(request);
	return 0;
}

SEC("tp_btf/io_uring_submit_sqe") /* before Linux 6.4 */
int note_request_6_0(__u64 *ctx)
{
	__u64 request = 0;

	bpf_probe_read_kernel(&request, sizeof(request), &ctx[0]);
	ring_requested(request);
	return 0;
}

SEC("tp_btf/io_uring_complete")
int note_completion(__u64 *ctx)
{
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)ctx[2];
	__u64 request = ctx[1];

	if (request) /* further completions of one request have none */
		ring_completed(request, BPF_CORE_READ(cqe, res));
	return 0;
}

SEC("tp_btf/io_uring_complete") /* while the result was an argument */
int note_completion_6_0(__u64 *ctx)
{
	__u64 request = ctx[1];

	if (request)
		ring_completed(request, (__s32)ctx[3]);
	return 0;
}

static __always_inline __u64 task_work_offset(void)
{
	if (bpf_core_field_exists(struct file, f_task_work))
		return bpf_core_field_offset(struct file, f_task_work);
	if (bpf_core_field_exists(struct file___6_0, f_rcuhead))
		return bpf_core_field_offset(struct file___6_0, f_rcuhead);
	return bpf_core_field_offset(struct file___5_8, f_u.fu_rcuhead);
}

/*
 * The script that the task has just started, NULL if it cannot be told. exec has
 * let go of its file already, but the task itself frees it on its way back to
 * user space: it waits in the task's works. Only exec opens files with
 * FMODE_EXEC; later ones, such as the dynamic linker's, come before it.
 */
static __always_inline struct file *script_of(struct task_struct *task)
{
	struct callback_head *work = BPF_CORE_READ(task, task_works);
	struct file *script = NULL, *file;
	struct inode *inode;

	for (int i = 0; i < TASK_WORKS; i++) {
		if (!work)
			return script;
		file = (struct file *)((__u64)work - task_work_offset());
		inode = BPF_CORE_READ(file, f_inode);
		if (BPF_CORE_READ(file, f_flags) & FMODE_EXEC && inode &&
		    BPF_CORE_READ(file, f_path.dentry, d_inode) == inode &&
		    (BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFREG)
			script = file;
		work = BPF_CORE_READ(work, next);
	}
	return NULL;
}

static __always_inline void remember_executed(struct actor *a)
{
	struct executed_key key = {.mntns = a->mntns, .inode = a->id.file.inode, .device = a->id.file.device};
	struct namespace *ns = a->kept;
	__u8 one = 1;

	if (bpf_map_lookup_elem(&executed, &key))
		return;
	if (!ns)
		return;
	if (has_room(ns, ROOM_EXECUTED) && !bpf_map_update_elem(&executed, &key, &one, 0))
		take_room(ns, ROOM_EXECUTED);
	else
		ns->crowded = 1;
}

/*
 * Appends the arguments that read_arguments has read to the claimed scratch of
 * slot. Cut arguments are a loss.
 */
__noinline int append_arguments(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	__u32 zero = 0, length;
	struct arguments *a = bpf_map_lookup_elem(&arguments, &zero);

	if (!s || !a)
		return 0;
	length = a->length;
	if (length > ARGUMENTS_BYTES)
		length = ARGUMENTS_BYTES;
	if (s->used > DATA_BYTES - ARGUMENTS_BYTES)
		length = 0;
	bpf_probe_read_kernel(&s->data[s->used & (DATA_BYTES - 1)], length, a->bytes);
	s->used += length;
	s->record.arguments_len = length;
	if (!length || length < a->whole)
		lose_of(s->mntns, KIND_PROCESS, LOSS_ARGUMENTS);
	return 0;
}

/*
 * exe was started: the task's executable, or the script that it runs; then
 * interpreter is the task's executable.
 */
static __always_inline void add_process(struct actor *a, struct file *parent, struct file *interpreter, __u32 flags,
					__u32 arguments_hash)
{
	struct process_key key = {.mntns = a->mntns, .flags = flags, .exe = a->id, .arguments = arguments_hash};
	struct file *exe = a->exe;
	struct scratch *s;

	key.directory = directory_of(exe);
	if (is_unlinked(READ(exe, f_path.dentry)))
		key.flags |= PROCESS_DELETED;
	if (interpreter)
		key.interpreter = BPF_CORE_READ(interpreter, f_inode, i_ino);
	if (parent)
		identify(parent, &key.parent);
	if (known(&processes, &key))
		return;
	s = claim(SLOT_TRACING, KIND_PROCESS, &processes, &key);
	if (!s)
		return;
	/* The path is the executable's own; the record says it once. */
	describe_as(s, SLOT_TRACING, KIND_PROCESS, a, parent);
	s->record.flags = flags;
	if (interpreter)
		describe_path(s, SLOT_TRACING, KIND_PROCESS, interpreter, a->ns);
	if (arguments_hash)
		append_arguments(SLOT_TRACING);
	publish(s, KIND_PROCESS, &processes, &key);
}

SEC("tp_btf/sched_process_exec")
int note_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *binprm = (struct linux_binprm *)ctx[2];
	struct file *parent, *interpreter;
	__u32 flags = 0, arguments_hash = 0;
	struct actor a = {};

	if (!act_tracing(&a))
		return 0;
	a.flags = 0; /* it runs inside, whatever was there before */
	remember_executed(&a);
	parent = parent_exe(a.ns, a.mntns);
	if (begin_session(&a)) {
		flags = RECORD_ENTERED;
		arguments_hash = a.id.session;
	}
	if (keep_arguments) {
		flags |= RECORD_ARGUMENTS;
		arguments_hash = read_arguments(0);
	}
	add_process(&a, parent, NULL, flags, arguments_hash);

	if (READ(binprm, filename) == READ(binprm, interp))
		return 0;
	interpreter = a.exe;
	/* binfmt_misc may hand the interpreter an open file instead of its name. */
	if (BPF_CORE_READ_BITFIELD_PROBED(binprm, have_execfd))
		a.exe = file_of(task, READ(binprm, execfd));
	else
		a.exe = script_of(task);
	if (!a.exe) {
		lose_of(a.mntns, KIND_PROCESS, LOSS_SCRIPT);
		return 0;
	}
	identify(a.exe, &a.id.file);
	add_process(&a, parent, interpreter, flags | RECORD_SCRIPT, arguments_hash);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int note_fork(__u64 *ctx)
{
	entrant_forked((struct task_struct *)ctx[0], (struct task_struct *)ctx[1]);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int note_end(__u64 *ctx)
{
	entrant_ended((struct task_struct *)ctx[0]);
	return 0;
}

/* Optional: the tracepoint is in kernels since 6.14; hooks.bpf.c has it before. */
SEC("tp_btf/cap_capable")
int note_capability(__u64 *ctx)
{
	capability_checked(SLOT_TRACING, (const struct cred *)ctx[0], (struct user_namespace *)ctx[1], ctx[3], ctx[4],
			   AUDITED_UNKNOWN);
	return 0;
}
