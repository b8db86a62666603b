/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Paths as the kernel has them: dentries and mounts, never a user's string. */
#ifndef PATH_H
#define PATH_H

#include "emit.h"

#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define S_IFSOCK 0140000

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((__u64)mnt - bpf_core_field_offset(struct mount, mnt));
}

static __always_inline struct mount *mount_of_file(struct file *file)
{
	return mount_of(READ(file, f_path.mnt));
}

/* A dentry as it is reached through mnt. */
struct location {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

static __always_inline void locate(struct file *file, struct location *at)
{
	at->mnt = READ(file, f_path.mnt);
	at->dentry = READ(file, f_path.dentry);
}

static __always_inline void identify_location(struct location *at, struct file_id *id)
{
	struct dentry *dentry = at->dentry;
	struct mount *mount = mount_of(at->mnt);

	id->inode = READ(dentry, d_inode, i_ino);
	id->device = READ(dentry, d_sb, s_dev);
	id->name = READ(dentry, d_name.hash_len);
	id->mount = READ(mount, mnt_id);
}

static __always_inline void identify(struct file *file, struct file_id *id)
{
	struct inode *inode = READ(file, f_inode);
	struct dentry *dentry = READ(file, f_path.dentry);
	struct mount *mount = mount_of_file(file);

	id->inode = READ(inode, i_ino);
	id->device = READ(inode, i_sb, s_dev);
	id->name = READ(dentry, d_name.hash_len);
	id->mount = READ(mount, mnt_id);
}

/* Directories above a file that a loop tells apart; bpf_loop has the rest. */
#define DIRECTORIES 24

/* A way up from a directory, and what its names come to. */
struct ascent {
	struct dentry *dentry;
	struct dentry *root; /* of the mount */
	__u64 names;
};

/* Mixes in the name of a directory. Returns 1 at the end. */
static __always_inline long ascend(struct ascent *a)
{
	struct dentry *dentry = a->dentry;
	__u64 parent_at = bpf_core_field_offset(struct dentry, d_parent);
	struct {
		struct dentry *parent;
		__u64 hash_len;
	} d = {}; /* the order of struct dentry, in one read */

	if (dentry == a->root)
		return 1;
	if (has_cast()) {
		d.parent = READ(dentry, d_parent);
		d.hash_len = READ(dentry, d_name.hash_len);
	} else {
		bpf_probe_read_kernel(&d, sizeof(d), (void *)dentry + parent_at);
	}
	if (!d.parent || d.parent == dentry)
		return 1;
	a->names = (a->names ^ d.hash_len) * 0x9e3779b97f4a7c15;
	a->dentry = d.parent;
	return 0;
}

static __noinline long ascend_step(__u32 i, struct ascent *a)
{
	return ascend(a);
}

/*
 * Tells the directory of a path apart: by the names up to the root of its mount, as
 * a directory keeps its number when it, or one above it, is renamed, and all that
 * is in it has another path then.
 */
static __always_inline __u64 directory_above(struct vfsmount *mnt, struct dentry *dentry)
{
	struct dentry *directory = READ(dentry, d_parent);
	struct ascent a = {.dentry = directory};

	a.root = READ(mnt, mnt_root);
	a.names = READ(directory, d_inode, i_ino);
	for (int i = 0; i < DIRECTORIES; i++)
		if (ascend(&a))
			return a.names;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))
		bpf_loop(PATH_STEPS, ascend_step, &a, 0);
	else
		ascend_step(0, &a); /* kernels before 5.13 want each function called */
	return a.names;
}

static __always_inline __u64 directory_of(struct file *file)
{
	return directory_above(READ(file, f_path.mnt), READ(file, f_path.dentry));
}

/* As the kernel's d_unlinked(). */
static __always_inline bool is_unlinked(struct dentry *dentry)
{
	return !READ(dentry, d_hash.pprev) && READ(dentry, d_parent) != dentry;
}

/* Where a mount is, as a task in the namespace own sees it; 0 is inside. */
static __always_inline int place_of(struct mount *mount, struct mnt_namespace *own)
{
	struct mnt_namespace *ns = READ(mount, mnt_ns);

	if (ns == own)
		return 0;
	if (!ns)
		return PATH_DETACHED;
	if ((__u64)ns >= (__u64)-4095) /* an ERR_PTR: kern_mount() */
		return PATH_INTERNAL;
	return PATH_OUTSIDE;
}

/* Appends a NUL-terminated name; its length with the NUL, or 0 on a fault. */
static __always_inline __u64 append_name(struct scratch *s, const void *name)
{
	long n = bpf_probe_read_kernel_str(&s->data[s->used & (DATA_BYTES - 1)], NAME_BYTES, name);

	return n < 0 ? 0 : n & (2 * NAME_BYTES - 1);
}

static __always_inline long end_path(struct scratch *s, __u64 flag)
{
	s->path_flags = (s->path_flags & ~(__u64)PATH_DEEP) | flag;
	return 1;
}

/* One step up a path, from s->dentry below s->mount. Returns 1 at the end. */
static long step(__u32 i, __u32 *slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, slot);
	struct dentry *dentry, *parent;
	struct mount *mount, *up;
	__u64 n;

	if (!s)
		return 1;
	dentry = (struct dentry *)s->dentry;
	mount = (struct mount *)s->mount;
	if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
		up = BPF_CORE_READ(mount, mnt_parent);
		if (up == mount)
			return end_path(s, 0);
		s->dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
		s->mount = (__u64)up;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	n = append_name(s, BPF_CORE_READ(dentry, d_name.name));
	if (dentry == parent) /* the root of a file system that is not reachable */
		return end_path(s, PATH_DETACHED);
	if (n <= 1)
		return end_path(s, PATH_UNREADABLE);
	if (s->used + n - s->path_start > PATH_BYTES || s->used + n > DATA_BYTES)
		return end_path(s, PATH_LONG);
	s->used += n;
	s->dentry = (__u64)parent;
	return 0;
}

/*
 * Appends the names of the path of s->dentry below s->mount to the claimed scratch
 * of slot, the last one first, and returns what path_flags there are to say of it. A function of
 * its own to the verifier, which checks it once.
 */
__noinline int walk_path(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	struct dentry *dentry;
	struct mount *mount;
	int flags;

	if (!s)
		return PATH_UNREADABLE;
	dentry = (struct dentry *)s->dentry;
	mount = (struct mount *)s->mount;
	flags = place_of(mount, (struct mnt_namespace *)s->own_namespace);
	if (flags & PATH_INTERNAL) {
		s->used += append_name(s, BPF_CORE_READ(dentry, d_name.name));
		s->used += append_name(s, BPF_CORE_READ(dentry, d_sb, s_type, name));
		return flags;
	}
	if (is_unlinked(dentry))
		flags |= PATH_DELETED;
	s->path_start = s->used;
	s->path_flags = flags | PATH_DEEP; /* until an end is reached */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(PATH_STEPS, step, &slot, 0);
	} else {
		for (int i = 0; i < PATH_STEPS_OLD; i++)
			if (step(i, &slot))
				break;
	}
	return s->path_flags;
}

/* As walk_path, and gives the length of what was appended. */
static __always_inline int append_location(struct scratch *s, __u32 slot, struct location *at,
					   struct mnt_namespace *own, __u16 *length)
{
	__u64 before = s->used;
	int flags;

	s->dentry = (__u64)at->dentry;
	s->mount = (__u64)mount_of(at->mnt);
	s->own_namespace = (__u64)own;
	flags = walk_path(slot);
	*length = s->used - before;
	return flags;
}

static __always_inline int append_path(struct scratch *s, __u32 slot, struct file *file, struct mnt_namespace *own,
				       __u16 *length)
{
	struct location at;

	locate(file, &at);
	return append_location(s, slot, &at, own, length);
}

static __always_inline void lose_path(struct scratch *s, enum kind kind, int flags)
{
	if (flags & PATH_LONG)
		lose_of(s->mntns, kind, LOSS_PATH_LONG);
	if (flags & PATH_DEEP)
		lose_of(s->mntns, kind, LOSS_PATH_DEEP);
	if (flags & PATH_UNREADABLE)
		lose_of(s->mntns, kind, LOSS_PATH_UNREADABLE);
}

#endif
