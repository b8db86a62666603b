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
	OUTCOME_SENDTO,
	OUTCOME_SENDMSG,
	OUTCOME_MMAP,
	OUTCOME_MMAP_STRUCT, /* i386: mmap's arguments, in an array in user space */
	OUTCOME_MPROTECT,
	OUTCOME_PATHS, /* those below: the paths that path_calls tells */
	OUTCOME_RENAME = OUTCOME_PATHS,
	OUTCOME_RENAMEAT,
	OUTCOME_LINK,
	OUTCOME_LINKAT,
	OUTCOME_SYMLINK,
	OUTCOME_SYMLINKAT,
	OUTCOME_UNLINK,
	OUTCOME_UNLINKAT,
	OUTCOME_MKDIR,
	OUTCOME_MKDIRAT,
	OUTCOME_RMDIR,
	OUTCOME_MKNOD,
	OUTCOME_MKNODAT,
	OUTCOME_TRUNCATE,
	OUTCOME_FTRUNCATE,
	OUTCOME_CHMOD,
	OUTCOME_FCHMOD,
	OUTCOME_FCHMODAT,
	OUTCOME_FCHMODAT2,
	OUTCOME_CHOWN,
	OUTCOME_LCHOWN,
	OUTCOME_FCHOWN,
	OUTCOME_FCHOWNAT,
	OUTCOME_XATTR,
	OUTCOME_LXATTR,
	OUTCOME_FXATTR,
	OUTCOME_XATTRAT,
	OUTCOMES,
};

/* Flags of system calls, from linux/fcntl.h. */
#define AT_FDCWD -100
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_REMOVEDIR 0x200
#define AT_SYMLINK_FOLLOW 0x400

/* Where an argument is that a call does not have. */
#define NO_ARGUMENT 7

/* One path that a system call takes; which arguments tell it, counted from 0. */
struct operand {
	__u8 operation;
	__u8 access;
	__u8 directory; /* its descriptor; where there is no name, the file itself */
	__u8 name;
	__u8 flags; /* 0: the call has none */
	__u16 follow;	/* the flag with which a symbolic link at its end is followed */
	__u16 nofollow; /* the flag without which it is; neither: it never is */
	bool follows;	/* it always is */
};

struct path_call {
	struct operand first, second;
};

#define OPERAND(what, bits, dir, string, ...)                                                      \
	{                                                                                          \
		.operation = OPERATION_##what, .access = (bits), .directory = (dir),               \
		.name = (string), ##__VA_ARGS__                                                    \
	}
#define MAKES (ACCESS_WRITE | ACCESS_CREATE)
#define NONE NO_ARGUMENT

static const struct path_call path_calls[OUTCOMES - OUTCOME_PATHS] = {
#define CALL(name) [OUTCOME_##name - OUTCOME_PATHS]
	CALL(RENAME) = {OPERAND(RENAME, ACCESS_WRITE, NONE, 0), OPERAND(RENAME, MAKES, NONE, 1)},
	CALL(RENAMEAT) = {OPERAND(RENAME, ACCESS_WRITE, 0, 1), OPERAND(RENAME, MAKES, 2, 3)},
	CALL(LINK) = {OPERAND(LINK, ACCESS_READ, NONE, 0), OPERAND(LINK, MAKES, NONE, 1)},
	CALL(LINKAT) = {OPERAND(LINK, ACCESS_READ, 0, 1, .flags = 4, .follow = AT_SYMLINK_FOLLOW),
			OPERAND(LINK, MAKES, 2, 3)},
	CALL(SYMLINK) = {OPERAND(SYMLINK, MAKES, NONE, 1)},
	CALL(SYMLINKAT) = {OPERAND(SYMLINK, MAKES, 1, 2)},
	CALL(UNLINK) = {OPERAND(UNLINK, ACCESS_WRITE, NONE, 0)},
	CALL(UNLINKAT) = {OPERAND(UNLINK, ACCESS_WRITE, 0, 1, .flags = 2)},
	CALL(MKDIR) = {OPERAND(MKDIR, MAKES, NONE, 0)},
	CALL(MKDIRAT) = {OPERAND(MKDIR, MAKES, 0, 1)},
	CALL(RMDIR) = {OPERAND(RMDIR, ACCESS_WRITE, NONE, 0)},
	CALL(MKNOD) = {OPERAND(MKNOD, MAKES, NONE, 0)},
	CALL(MKNODAT) = {OPERAND(MKNOD, MAKES, 0, 1)},
	CALL(TRUNCATE) = {OPERAND(TRUNCATE, ACCESS_WRITE, NONE, 0, .follows = true)},
	CALL(FTRUNCATE) = {OPERAND(TRUNCATE, ACCESS_WRITE, 0, NONE)},
	CALL(CHMOD) = {OPERAND(CHMOD, ACCESS_WRITE, NONE, 0, .follows = true)},
	CALL(FCHMOD) = {OPERAND(CHMOD, ACCESS_WRITE, 0, NONE)},
	CALL(FCHMODAT) = {OPERAND(CHMOD, ACCESS_WRITE, 0, 1, .follows = true)},
	CALL(FCHMODAT2) = {OPERAND(CHMOD, ACCESS_WRITE, 0, 1, .flags = 3, .nofollow = AT_SYMLINK_NOFOLLOW)},
	CALL(CHOWN) = {OPERAND(CHOWN, ACCESS_WRITE, NONE, 0, .follows = true)},
	CALL(LCHOWN) = {OPERAND(CHOWN, ACCESS_WRITE, NONE, 0)},
	CALL(FCHOWN) = {OPERAND(CHOWN, ACCESS_WRITE, 0, NONE)},
	CALL(FCHOWNAT) = {OPERAND(CHOWN, ACCESS_WRITE, 0, 1, .flags = 4, .nofollow = AT_SYMLINK_NOFOLLOW)},
	CALL(XATTR) = {OPERAND(XATTR, ACCESS_WRITE, NONE, 0, .follows = true)},
	CALL(LXATTR) = {OPERAND(XATTR, ACCESS_WRITE, NONE, 0)},
	CALL(FXATTR) = {OPERAND(XATTR, ACCESS_WRITE, 0, NONE)},
	CALL(XATTRAT) = {OPERAND(XATTR, ACCESS_WRITE, 0, 1, .flags = 2, .nofollow = AT_SYMLINK_NOFOLLOW)},
#undef CALL
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
