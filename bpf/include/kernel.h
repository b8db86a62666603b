/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few fields of kernel structures that the programs read. Layouts are not
 * the kernel's: preserve_access_index has the loader find each field by its name
 * in the running kernel's BTF. A field that is missing there fails the load, so
 * only fields of every kernel since 5.8 are here.
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
	__u64 ns_id; /* since 6.18 */
};

struct mnt_namespace {
	struct ns_common ns;
	__u64 seq; /* before 6.18 */
};

struct pid_namespace {
	struct task_struct *child_reaper;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	__u32 s_dev;
	struct file_system_type *s_type;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct qstr {
	union {
		__u64 hash_len;
	};
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
	int mnt_id;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct callback_head {
	struct callback_head *next;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct callback_head f_task_work; /* since 6.5 */
	struct inode *f_inode;
	struct path f_path;
	void *private_data;
};

struct file___6_0 {
	struct callback_head f_rcuhead;
};

struct file___5_8 {
	union {
		struct callback_head fu_rcuhead;
	} f_u;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start;
	unsigned long arg_end;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct vm_area_struct {
	struct file *vm_file;
};

struct rb_node {
	struct rb_node *rb_left;
	struct rb_node *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

/* Before 6.1 mappings are in a tree of these. */
struct vm_area_struct___6_0 {
	unsigned long vm_start;
	unsigned long vm_end;
	struct rb_node vm_rb;
};

struct mm_struct___6_0 {
	struct rb_root mm_rb;
};

struct filename {
	const char *name;
};

struct io_cmd_data {
	struct file *file;
};

struct io_file_table;

struct io_ring_ctx;

struct io_kiocb {
	union {
		struct file *file;
		struct io_cmd_data cmd; /* what an operation keeps of its arguments, below */
	};
	__u8 opcode;
	__u64 flags; /* of 32 bits before 6.8: the low half has what is read */
	struct io_ring_ctx *ctx;
};

struct io_uring_cqe {
	__s32 res;
};

struct io_open {
	__u32 file_slot;
};

struct io_rename {
	int old_dfd, new_dfd;
	struct filename *oldpath, *newpath;
};

struct io_unlink {
	int dfd, flags;
	struct filename *filename;
};

struct io_mkdir {
	int dfd;
	struct filename *filename;
};

struct io_link {
	int old_dfd, new_dfd;
	struct filename *oldpath, *newpath;
	int flags;
};

struct io_xattr {
	struct filename *filename;
};

struct delayed_filename {
	struct filename *__incomplete_filename;
};

struct io_rename___delayed {
	struct delayed_filename oldpath, newpath;
};

struct io_unlink___delayed {
	struct delayed_filename filename;
};

struct io_mkdir___delayed {
	struct delayed_filename filename;
};

struct io_link___delayed {
	struct delayed_filename oldpath, newpath;
};

struct io_xattr___delayed {
	struct delayed_filename filename;
};

struct kernfs_node {
	const char *name;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

struct user_namespace {
	struct user_namespace *parent;
};

struct cred {
	struct user_namespace *user_ns;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct thread_info {
	unsigned long flags;
	__u32 status; /* x86 only */
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	int tgid;
	__u64 start_boottime;
	const struct cred *real_cred;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct css_set *cgroups;
	struct callback_head *task_works;
	int pid;
};

struct linux_binprm {
	unsigned int have_execfd; /* a bit field */
	int execfd;
	const char *filename;
	const char *interp;
};

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};

struct sock_common {
	union {
		struct {
			__u32 skc_daddr;
			__u32 skc_rcv_saddr;
		};
	};
	union {
		struct {
			__u16 skc_dport;
			__u16 skc_num;
		};
	};
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	struct {
		__s64 counter;
	} skc_cookie;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_userlocks; /* a bit field in some kernels */
	__u8 sk_kern_sock : 1;
};

struct socket {
	struct sock *sk;
};

struct unix_sock {
	struct path path;
	struct sock *peer;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r8, r9, r10, bx, bp, ax, cx, dx, si, di, orig_ax;
	unsigned short cs; /* its selector is the lower half in every kernel */
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 pstate;
	__u64 orig_x0;
	__s32 syscallno;
};
#else
#error "unsupported architecture"
#endif

enum bpf_func_id {
	BPF_FUNC_get_current_task_btf = 158,
	BPF_FUNC_for_each_map_elem = 164,
	BPF_FUNC_task_pt_regs = 175,
	BPF_FUNC_find_vma = 180,
	BPF_FUNC_loop = 181,
};

enum cgroup_subsys_id {
	memory_cgrp_id = 0x7fff,
	pids_cgrp_id = 0x7ffe,
};

#pragma clang attribute pop

/* The contexts of cgroup programs, as in linux/bpf.h. */
struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;
	__u32 src_ip6[4];
	__u32 src_port;
	__u16 dst_port; /* network byte order */
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

struct __sk_buff {
	__u32 len;
	__u32 unused[41];
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

#endif
