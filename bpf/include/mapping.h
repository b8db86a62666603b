/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* File facts: of files that are mapped as code. */
#ifndef MAPPING_H
#define MAPPING_H

#include "file.h"

#define PROT_EXEC 0x4
#define MAP_ANONYMOUS 0x20

/* A mapping with the right to execute; file by descriptor. */
static __always_inline void mapped(struct task_struct *task, __u64 protection, __u64 flags, __u64 fd)
{
	struct file *file;

	if (!(protection & PROT_EXEC) || flags & MAP_ANONYMOUS)
		return;
	file = file_of(task, (__u32)fd);
	if (!file)
		lose(KIND_FILE, LOSS_CLOSED);
	else
		file_used((__u64)file, WHAT(OPERATION_EXEC_MAP, ACCESS_READ, 0));
}

/* i386's first mmap has its arguments in an array. */
static __always_inline void mapped_by_array(struct task_struct *task, __u64 array)
{
	__u32 arguments[6] = {};

	bpf_probe_read_user(arguments, sizeof(arguments), (void *)array);
	mapped(task, arguments[2], arguments[3], arguments[4]);
}

static __noinline long note_vma(struct task_struct *task, struct vm_area_struct *vma, __u64 *file)
{
	BPF_CORE_READ_INTO(file, vma, vm_file);
	return 0;
}

/* Mappings of a task are in a balanced tree: this is more than 2^24 of them. */
#define TREE_STEPS 50

/* The mapping at an address, where the kernel has no helper for it. */
static __always_inline struct vm_area_struct *find_mapping(struct task_struct *task, __u64 address)
{
	struct mm_struct___6_0 *mm = (void *)BPF_CORE_READ(task, mm);
	struct rb_node *node = BPF_CORE_READ(mm, mm_rb.rb_node);
	struct vm_area_struct___6_0 *vma;

	for (int i = 0; i < TREE_STEPS; i++) {
		if (!node)
			return NULL;
		vma = (void *)node - bpf_core_field_offset(struct vm_area_struct___6_0, vm_rb);
		if (address < BPF_CORE_READ(vma, vm_start))
			node = BPF_CORE_READ(node, rb_left);
		else if (address >= BPF_CORE_READ(vma, vm_end))
			node = BPF_CORE_READ(node, rb_right);
		else
			return (struct vm_area_struct *)vma;
	}
	return NULL;
}

/* The right to execute was given to a mapping that was there, at an address. */
static __always_inline void made_executable(struct task_struct *task, __u64 address)
{
	__u64 file = 0;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_find_vma)) {
		if (bpf_find_vma(bpf_get_current_task_btf(), address, note_vma, &file, 0) == -16 /* EBUSY */)
			lose(KIND_FILE, LOSS_BUSY);
	} else {
		note_vma(task, find_mapping(task, address), &file);
	}
	if (file)
		file_used(file, WHAT(OPERATION_EXEC_MAP, ACCESS_READ, 0));
}

#endif
