/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who entered a mount namespace from outside: kubectl exec, a probe, nsenter.
 * The only way into one that exists is setns(2). The first program that such a
 * process runs there begins a session, which what it starts inherits; until then
 * it is the container's runtime. Sessions are told apart by the arguments, so
 * that a probe that runs each ten seconds is one set of facts.
 */
#ifndef ENTRANT_H
#define ENTRANT_H

#include "task.h"

#define CLONE_NEWNS 0x20000

/* Makes the process of key one that entered mntns, or inherited that. */
static __always_inline void add_entrant(const struct entrant_key *key, __u64 mntns, __u32 session)
{
	struct entrant entrant = {.mntns = mntns, .session = session};
	struct namespace *ns = namespace_of(mntns);

	if (ns && ns->ignored)
		return;
	if (!ns || !has_room(ns, ROOM_ENTRANTS) || bpf_map_update_elem(&entrants, key, &entrant, BPF_NOEXIST)) {
		lose_of(mntns, KIND_PROCESS, LOSS_ENTRANT);
		return;
	}
	take_room(ns, ROOM_ENTRANTS);
	__sync_fetch_and_add(&ns->entrants, 1);
}

static __always_inline void remove_entrant(const struct entrant_key *key, __u64 mntns)
{
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, &mntns);

	if (bpf_map_delete_elem(&entrants, key))
		return; /* another thread was faster */
	give_room(ns, ROOM_ENTRANTS);
	if (ns)
		__sync_fetch_and_add(&ns->entrants, -1);
}

/*
 * A process that entered has gone on to another namespace. Threads may be in
 * several: unless it has but one, the former goes on looking it up.
 */
static __always_inline void move_entrant(struct task_struct *task, struct entrant *entrant, __u64 mntns)
{
	struct namespace *from = bpf_map_lookup_elem(&namespaces, &entrant->mntns), *to = namespace_of(mntns);

	if (!to || to->ignored)
		return;
	__sync_fetch_and_add(&to->entrants, 1);
	__sync_fetch_and_add(&to->taken[ROOM_ENTRANTS], 1);
	entrant->mntns = mntns;
	if (!from || BPF_CORE_READ(task, signal, live.counter) != 1)
		return;
	__sync_fetch_and_add(&from->entrants, -1);
	__sync_fetch_and_add(&from->taken[ROOM_ENTRANTS], -1);
}

/*
 * The current task's mount namespace may have changed by setns or unshare. One
 * that entered before stays so wherever it goes. Else it has entered if it runs
 * a program that is not in the namespace that it is in now, and joined that:
 * joined was the namespace's file, or a process's (then flags say what it joined).
 */
static __always_inline void namespace_changed(struct file *joined, __u64 flags)
{
	struct task_struct *task = current_task();
	struct mnt_namespace *own = BPF_CORE_READ(task, nsproxy, mnt_ns);
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	struct entrant_key key = entrant_key_of(task);
	struct entrant *entrant = bpf_map_lookup_elem(&entrants, &key);
	struct executed_key started = {.mntns = number_of(own)};

	if (entrant) {
		if (entrant->mntns != started.mntns)
			move_entrant(task, entrant, started.mntns);
		return;
	}
	if (!joined || !exe || place_of(mount_of_file(exe), own) == 0)
		return;
	if (!(flags & CLONE_NEWNS) && BPF_CORE_READ(joined, f_inode, i_ino) != (__u32)started.mntns)
		return;
	started.inode = BPF_CORE_READ(exe, f_inode, i_ino);
	started.device = BPF_CORE_READ(exe, f_inode, i_sb, s_dev);
	if (!bpf_map_lookup_elem(&executed, &started))
		add_entrant(&key, started.mntns, 0);
}

/* A new process is what its maker is, whoever its parent is. */
static __always_inline void entrant_forked(struct task_struct *maker, struct task_struct *child)
{
	__u64 mntns = number_of(BPF_CORE_READ(maker, nsproxy, mnt_ns));
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, &mntns);
	struct entrant_key key;
	struct entrant *entrant;

	if (!ns || !ns->entrants || BPF_CORE_READ(child, tgid) == BPF_CORE_READ(maker, tgid))
		return;
	key = entrant_key_of(maker);
	entrant = bpf_map_lookup_elem(&entrants, &key);
	if (!entrant)
		return;
	key = entrant_key_of(child);
	add_entrant(&key, number_of(BPF_CORE_READ(child, nsproxy, mnt_ns)), entrant->session);
}

/* Threads of one process may be in several namespaces: any of them may end last. */
static __always_inline void entrant_ended(struct task_struct *task)
{
	__u32 room = ROOM_ENTRANTS;
	struct use *use = bpf_map_lookup_elem(&uses, &room);
	struct entrant_key key;
	struct entrant *entrant;

	if (!use || !use->added || BPF_CORE_READ(task, signal, live.counter))
		return;
	key = entrant_key_of(task);
	entrant = bpf_map_lookup_elem(&entrants, &key);
	if (entrant)
		remove_entrant(&key, entrant->mntns);
}

/*
 * Reads the arguments of the program that the current task has just started into
 * the CPU's `arguments`, and gives their hash, never 0. The kernel has just
 * written them to the new stack, so they are in memory.
 */
__noinline int read_arguments(__u32 zero)
{
	struct arguments *a = bpf_map_lookup_elem(&arguments, &zero);
	struct task_struct *task = current_task();
	__u64 start = BPF_CORE_READ(task, mm, arg_start), length = BPF_CORE_READ(task, mm, arg_end) - start;
	__u64 hash = length, word, read = length;

	if (!a)
		return 1;
	if (read > ARGUMENTS_BYTES)
		read = ARGUMENTS_BYTES;
	if (bpf_probe_read_user(a->bytes, read, (void *)start))
		read = 0;
	__builtin_memset(&a->bytes[read], 0, 8);
	for (__u32 i = 0; i < ARGUMENTS_BYTES / 8; i++) {
		if (i * 8 >= read)
			break;
		word = *(__u64 *)&a->bytes[i * 8];
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio */
		hash ^= hash >> 32;
	}
	a->length = read;
	a->whole = length;
	return (__u32)hash ? (__u32)hash : 1;
}

/*
 * Begins a session if the current task, which has just started a program, entered
 * its namespace and has none yet. True when it did.
 */
static __always_inline bool begin_session(struct actor *a)
{
	struct entrant *entrant = entrant_of(a->kept);

	if (!entrant || entrant->session)
		return false;
	a->id.session = entrant->session = read_arguments(0);
	return true;
}

#endif
