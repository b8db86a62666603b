/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is done through io_uring. A request's strings are in kernel space once it is
 * submitted, and freed before it completes; its outcome is known when it completes.
 */
#ifndef RING_H
#define RING_H

#include "socket.h"

/* From linux/io_uring.h. */
enum ring_operation {
	RING_ACCEPT = 13,
	RING_CONNECT = 16,
	RING_OPENAT = 18,
	RING_OPENAT2 = 28,
	RING_RENAMEAT = 35,
	RING_UNLINKAT = 36,
	RING_MKDIRAT = 37,
	RING_SYMLINKAT = 38,
	RING_LINKAT = 39,
	RING_FSETXATTR = 41,
	RING_SETXATTR = 42,
	RING_FTRUNCATE = 55,
	RING_BIND = 56,
	RING_LISTEN = 57,
};

#define RING_SKIPS_SUCCESS (1 << 6) /* IOSQE_CQE_SKIP_SUCCESS_BIT, in the request's flags too */

/* The name that a request keeps in a field, which newer kernels (7.2) wrap. */
#define REQUESTED(type, request, field) \
	(bpf_core_field_exists(((struct type *)(request))->field) ? \
		 BPF_CORE_READ((struct type *)(request), field) : \
		 BPF_CORE_READ((struct type##___delayed *)(request), field.__incomplete_filename))

static __always_inline void name_requested(struct io_kiocb *req, struct filename *name, int directory, __u32 what)
{
	path_used((__u64)BPF_CORE_READ(name, name), directory, what, PATH_BYTES, (__u64)req);
}

/* The paths of a request, before it is carried out. A function of its own to the verifier. */
__noinline int ring_requested(__u64 request)
{
	struct io_kiocb *req = (struct io_kiocb *)request;
	struct io_rename *rename = (void *)req;
	struct io_unlink *unlink = (void *)req;
	struct io_mkdir *mkdir = (void *)req;
	struct io_link *link = (void *)req;
	__u32 operation = OPERATION_LINK, follow;

	switch (BPF_CORE_READ(req, opcode)) {
	case RING_RENAMEAT:
		name_requested(req, REQUESTED(io_rename, req, oldpath), BPF_CORE_READ(rename, old_dfd),
			       WHAT(OPERATION_RENAME, ACCESS_WRITE, 0));
		name_requested(req, REQUESTED(io_rename, req, newpath), BPF_CORE_READ(rename, new_dfd),
			       WHAT(OPERATION_RENAME, MAKES, 0) | SECOND_OPERAND);
		break;
	case RING_UNLINKAT:
		operation = BPF_CORE_READ(unlink, flags) & AT_REMOVEDIR ? OPERATION_RMDIR : OPERATION_UNLINK;
		name_requested(req, REQUESTED(io_unlink, req, filename), BPF_CORE_READ(unlink, dfd),
			       WHAT(operation, ACCESS_WRITE, 0));
		break;
	case RING_MKDIRAT:
		name_requested(req, REQUESTED(io_mkdir, req, filename), BPF_CORE_READ(mkdir, dfd),
			       WHAT(OPERATION_MKDIR, MAKES, 0));
		break;
	case RING_SYMLINKAT:
		name_requested(req, REQUESTED(io_link, req, newpath), BPF_CORE_READ(link, new_dfd),
			       WHAT(OPERATION_SYMLINK, MAKES, 0));
		break;
	case RING_LINKAT:
		follow = BPF_CORE_READ(link, flags) & AT_SYMLINK_FOLLOW ? NAME_FOLLOWED : 0;
		name_requested(req, REQUESTED(io_link, req, oldpath), BPF_CORE_READ(link, old_dfd),
			       WHAT(OPERATION_LINK, ACCESS_READ, follow));
		name_requested(req, REQUESTED(io_link, req, newpath), BPF_CORE_READ(link, new_dfd),
			       WHAT(OPERATION_LINK, MAKES, 0) | SECOND_OPERAND);
		break;
	case RING_SETXATTR:
		name_requested(req, REQUESTED(io_xattr, req, filename), AT_FDCWD,
			       WHAT(OPERATION_XATTR, ACCESS_WRITE, NAME_FOLLOWED));
		break;
	default:
		return 0;
	}
	/* Nobody is told of its success, so it counts as one. */
	if ((__u32)BPF_CORE_READ(req, flags) & RING_SKIPS_SUCCESS) {
		settle(request, 0, true);
		settle(request, 1, true);
	}
	return 0;
}

/* The file that an open left in the ring's own table is not looked for. */
static __always_inline void ring_opened(struct task_struct *task, struct io_kiocb *req, __s32 result)
{
	struct io_open *open = (void *)req;
	struct file *file = NULL;

	if (!BPF_CORE_READ(open, file_slot))
		file = file_of(task, (__u32)result);
	if (file)
		file_opened(file);
	else
		lose(KIND_FILE, LOSS_CLOSED);
}

/* A request has completed. A function of its own to the verifier. */
__noinline int ring_completed(__u64 request, __s32 result)
{
	struct io_kiocb *req = (struct io_kiocb *)request;
	struct task_struct *task = current_task();
	__u8 operation = BPF_CORE_READ(req, opcode);
	struct file *file = BPF_CORE_READ(req, file);

	switch (operation) {
	case RING_RENAMEAT:
	case RING_UNLINKAT:
	case RING_MKDIRAT:
	case RING_SYMLINKAT:
	case RING_LINKAT:
	case RING_SETXATTR:
		settle(request, 0, result >= 0);
		settle(request, 1, result >= 0);
		return 0;
	}
	if (result < 0 || is_ignored(number_of(BPF_CORE_READ(task, nsproxy, mnt_ns))))
		return 0;
	switch (operation) {
	case RING_OPENAT:
	case RING_OPENAT2:
		ring_opened(task, req, result);
		break;
	case RING_FSETXATTR:
		file_used((__u64)file, WHAT(OPERATION_XATTR, ACCESS_WRITE, 0));
		break;
	case RING_FTRUNCATE:
		file_used((__u64)file, WHAT(OPERATION_TRUNCATE, ACCESS_WRITE, 0));
		break;
	case RING_CONNECT:
		unix_connected((__u64)file, false);
		socket_used((__u64)file, DIRECTION_EGRESS, false);
		break;
	case RING_BIND:
		unix_connected((__u64)file, true);
		socket_used((__u64)file, DIRECTION_LISTEN, true);
		break;
	case RING_LISTEN:
		socket_used((__u64)file, DIRECTION_LISTEN, false);
		break;
	case RING_ACCEPT:
		file = file_of(task, (__u32)result);
		if (file)
			socket_used((__u64)file, DIRECTION_INGRESS, false);
		break;
	}
	return 0;
}

#endif
