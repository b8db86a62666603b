/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who acts: its mount namespace, its executable, its cgroups. */
#ifndef TASK_H
#define TASK_H

#include "path.h"

struct actor {
	struct namespace *kept; /* of the mount namespace; NULL where there was no room */
	struct task_struct *task; /* NULL: the current one */
	struct mnt_namespace *ns;
	struct file *exe;
	struct actor_id id;
	__u64 mntns;
	__u16 flags; /* RECORD_RUNTIME */
};

static __always_inline bool has_current_task_btf(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* A number for a namespace that no other has had: see maps.h. */
static __always_inline __u64 number_of(struct mnt_namespace *ns)
{
	__u64 generation = 0;

	if (bpf_core_field_exists(struct mnt_namespace, seq))
		generation = READ(ns, seq);
	else if (bpf_core_field_exists(struct mnt_namespace, ns.ns_id))
		generation = READ(ns, ns.ns_id);
	return generation << 32 | READ(ns, ns.inum);
}

/* The same for one that the verifier knows the type of. */
#define NUMBER_OF(namespace)                                                                       \
	((bpf_core_field_exists(struct mnt_namespace, seq)	     ? (namespace)->seq            \
	  : bpf_core_field_exists(struct mnt_namespace, ns.ns_id) ? (namespace)->ns.ns_id          \
								     : 0)                              \
		 << 32 |                                                                           \
	 (namespace)->ns.inum)

static const struct namespace new_namespace;

static __always_inline struct namespace *namespace_of(__u64 mntns)
{
	struct namespace *ns = bpf_map_lookup_elem(&namespaces, &mntns);
	__u32 inode = mntns;

	if (ns)
		return ns;
	if (!bpf_map_update_elem(&namespaces, &mntns, &new_namespace, BPF_NOEXIST))
		take_room(NULL, ROOM_NAMESPACES);
	ns = bpf_map_lookup_elem(&namespaces, &mntns);
	if (ns && bpf_map_lookup_elem(&ignored, &inode))
		ns->ignored = 1;
	return ns;
}

static __always_inline bool is_ignored(__u64 mntns)
{
	struct namespace *ns = namespace_of(mntns);

	return ns && ns->ignored;
}

/*
 * Whether exe is the container runtime's, at work inside the namespace own: its
 * mount is not there, nor in another container's, and it was not started there.
 * So a program that a container runs from a memfd, or whose mount it takes away,
 * stays the container's own. Where not everything that was started is known,
 * nothing is the runtime's: better a fact too many than one that nobody looks at.
 */
static __always_inline bool is_runtime(struct file *exe, struct mnt_namespace *own, __u64 mntns)
{
	struct mount *mount = mount_of_file(exe);
	struct executed_key key = {.mntns = mntns};
	int place = place_of(mount, own);
	struct namespace *inside;

	if (!place)
		return false;
	if (place == PATH_OUTSIDE) {
		struct mnt_namespace *other = READ(mount, mnt_ns);
		__u64 theirs = number_of(other);
		struct namespace *ns = bpf_map_lookup_elem(&namespaces, &theirs);

		if (ns && !ns->ignored)
			return false;
	}
	key.inode = READ(exe, f_inode, i_ino);
	key.device = READ(exe, f_inode, i_sb, s_dev);
	if (bpf_map_lookup_elem(&executed, &key))
		return false;
	inside = bpf_map_lookup_elem(&namespaces, &mntns);
	return !inside || !inside->crowded;
}

static __always_inline struct entrant_key entrant_key_of(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	struct entrant_key key = {
		.started = READ(leader, start_boottime),
		.tgid = READ(leader, tgid),
	};

	return key;
}

/* The current task as one that entered ns; only looked up where there is any. */
static __always_inline struct entrant *entrant_of(struct namespace *ns)
{
	struct entrant_key key;

	if (!ns || !ns->entrants)
		return NULL;
	key = entrant_key_of(current_task());
	return bpf_map_lookup_elem(&entrants, &key);
}

static __always_inline __u32 session_of(struct namespace *ns)
{
	struct entrant *entrant = entrant_of(ns);

	return entrant ? entrant->session : 0;
}

static __always_inline bool act_as(struct actor *a, struct mnt_namespace *ns, __u64 mntns, struct file *exe)
{
	struct namespace *kept;

	if (!ns || !exe)
		return false; /* without an executable: a kernel thread */
	kept = namespace_of(mntns);
	if (kept && kept->ignored)
		return false;
	a->id.session = session_of(kept);
	a->kept = kept;
	a->ns = ns;
	a->mntns = mntns;
	a->exe = exe;
	a->flags = is_runtime(exe, ns, mntns) ? RECORD_RUNTIME : 0;
	return true;
}

/* Fills a for a task; false when it is of no interest. */
static __always_inline bool act_for(struct actor *a, struct task_struct *task)
{
	struct mnt_namespace *ns = BPF_CORE_READ(task, nsproxy, mnt_ns);
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);

	if (!act_as(a, ns, number_of(ns), exe))
		return false;
	identify(exe, &a->id.file);
	return true;
}

static __always_inline bool act(struct actor *a)
{
	return act_for(a, current_task());
}

/*
 * act for tracing programs, which since 5.11 may read what hangs on the current
 * task directly: an open costs a third less for it.
 */
static __always_inline bool act_tracing(struct actor *a)
{
	struct task_struct *task;
	struct mnt_namespace *ns;
	struct dentry *dentry;
	struct mount *mount;
	struct file *exe;

	if (!has_current_task_btf())
		return act(a);
	task = bpf_get_current_task_btf();
	ns = task->nsproxy->mnt_ns;
	exe = task->mm->exe_file;
	if (!act_as(a, ns, NUMBER_OF(ns), exe))
		return false;
	mount = mount_of(exe->f_path.mnt);
	a->id.file.inode = exe->f_inode->i_ino;
	a->id.file.device = exe->f_inode->i_sb->s_dev;
	dentry = exe->f_path.dentry;
	/* Verifiers before 6.2 take a union for its first member. */
	a->id.file.name = READ(dentry, d_name.hash_len);
	a->id.file.mount = READ(mount, mnt_id);
	return true;
}

/* The names from a cgroup up to below the root; none when it is too deep. */
static __always_inline void append_cgroup(struct scratch *s, struct cgroup *cgroup)
{
	struct cgroup_subsys_state *css = (void *)cgroup + bpf_core_field_offset(struct cgroup, self);
	struct cgroup_subsys_state *parent;
	__u64 start = s->used, used = start;
	long n;

	for (int i = 0; i < CGROUP_STEPS; i++) {
		parent = BPF_CORE_READ(css, parent);
		if (!parent) {
			s->used = used;
			return;
		}
		n = bpf_probe_read_kernel_str(&s->data[used & (DATA_BYTES - 1)], CGROUP_NAME_BYTES,
					      BPF_CORE_READ(css, cgroup, kn, name));
		if (n <= 0)
			return;
		used += n & (2 * CGROUP_NAME_BYTES - 1);
		css = parent;
	}
}

/* The task that the record of a scratch is about. */
static __always_inline struct task_struct *subject_of(struct scratch *s)
{
	return s->subject ? (struct task_struct *)s->subject : current_task();
}

/*
 * Appends the cgroups' names of the record's task: of the default hierarchy, then
 * of a version 1 hierarchy that runtimes use, each from leaf to root.
 */
__noinline int append_cgroups(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	struct cgroup_subsys_state *css = NULL;
	__u64 offset = bpf_core_field_offset(struct css_set, subsys);
	struct cgroup *unified, *v1;
	struct css_set *css_set;

	if (!s)
		return 0;
	css_set = BPF_CORE_READ(subject_of(s), cgroups);
	unified = BPF_CORE_READ(css_set, dfl_cgrp);
	append_cgroup(s, unified);
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		offset += 8 * bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	else if (bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		offset += 8 * bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	else
		return 0;
	bpf_probe_read_kernel(&css, sizeof(css), (void *)css_set + offset);
	v1 = BPF_CORE_READ(css, cgroup);
	if (v1 != unified)
		append_cgroup(s, v1);
	return 0;
}

/*
 * The executable of a task's parent, NULL when that is outside of the namespace
 * own, or the container's runtime.
 */
static __always_inline struct file *parent_exe_of(struct task_struct *task, struct mnt_namespace *own, __u64 mntns)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);
	struct file *exe;

	if (READ(parent, nsproxy, mnt_ns) != own)
		return NULL;
	exe = READ(parent, mm, exe_file);
	return exe && !is_runtime(exe, own, mntns) ? exe : NULL;
}

static __always_inline struct file *parent_exe(struct mnt_namespace *own, __u64 mntns)
{
	return parent_exe_of(current_task(), own, mntns);
}

/*
 * Fills in what every record says of its actor: cgroups, executable, and that of
 * its parent, NULL for one outside.
 */
static __always_inline void describe_as(struct scratch *s, __u32 slot, enum kind kind, struct actor *a,
					struct file *parent)
{
	__u64 before = s->used;

	s->record.mntns = a->mntns;
	s->record.flags = a->flags;
	s->record.session = a->id.session;
	s->record.pid = BPF_CORE_READ(subject_of(s), tgid);
	append_cgroups(slot);
	s->record.cgroups_len = s->used - before;
	if (a->flags & RECORD_RUNTIME)
		return;
	s->record.exe_flags = append_path(s, slot, a->exe, a->ns, &s->record.exe_len);
	lose_path(s, kind, s->record.exe_flags);
	if (!parent)
		return;
	s->record.parent_flags = append_path(s, slot, parent, a->ns, &s->record.parent_len);
	lose_path(s, kind, s->record.parent_flags);
}

static __always_inline void describe(struct scratch *s, __u32 slot, enum kind kind, struct actor *a)
{
	s->subject = (__u64)a->task;
	describe_as(s, slot, kind, a, parent_exe_of(subject_of(s), a->ns, a->mntns));
}

static __always_inline void describe_path(struct scratch *s, __u32 slot, enum kind kind, struct file *file,
					  struct mnt_namespace *ns)
{
	s->record.path_flags = append_path(s, slot, file, ns, &s->record.path_len);
	lose_path(s, kind, s->record.path_flags);
}

#endif
