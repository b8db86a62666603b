/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What travels from the programs to user space: pkg/probe has the other end. */
#ifndef RECORD_H
#define RECORD_H

#include "kernel.h"

enum kind {
	KIND_PROCESS = 0,
	KIND_FILE = 1,
	KIND_NETWORK = 2,
	KIND_CAPABILITY = 3,
	KIND_SYSCALL = 4,
	KIND_SOCKET = 5,
	KIND_ACTOR = 6, /* who it is that other records name by its id */
	KIND_DNS = 7,
	KINDS = 8,
};

/*
 * What is counted of the maps: entries by kind, and of further maps. When a map
 * is half full, a namespace gets no more of it than a MAP_SHARE-th.
 */
enum room {
	ROOM_OF_KIND = 0, /* each kind's own number */
	ROOM_NAMESPACES = KINDS,
	ROOM_EXECUTED,
	ROOM_ENTRANTS,
	ROOMS,
};

#define MAP_SHARE 8
#define RING_SHARE 8 /* of the ring's bytes, when it is three quarters full */

/* Why something was lost; the index into `losses` is kind * LOSSES + loss. */
enum loss {
	LOSS_RING_FULL = 0,	  /* forgotten again, so that the next occurrence retries */
	LOSS_MAP_FULL = 1,	  /* recorded, but neither counted nor deduplicated */
	LOSS_BUSY = 2,		  /* preempted another program on the same CPU */
	LOSS_PATH_LONG = 3,	  /* more than PATH_BYTES */
	LOSS_PATH_DEEP = 4,	  /* more than PATH_STEPS */
	LOSS_PATH_UNREADABLE = 5, /* a name could not be read */
	LOSS_NUMBER = 6,	  /* a system call number beyond SYSCALLS, or of x32 */
	LOSS_SCRIPT = 7,	  /* a script was started and its file is not to be found */
	LOSS_RETURN = 8,	  /* a function was entered and its return not seen */
	LOSS_CLOSED = 9,	  /* another thread closed the descriptor that a call had just given */
	LOSS_MAP_SHARE = 10,	  /* as LOSS_MAP_FULL: its namespace fills the map */
	LOSS_RING_SHARE = 11,	  /* as LOSS_RING_FULL: its namespace fills the ring */
	LOSS_ARGUMENTS = 12,	  /* a program's arguments could not be read, or not wholly */
	LOSS_ENTRANT = 13,	  /* a process that entered is taken for the container's own */
	LOSS_OWNER = 14,	  /* a packet of a socket that nobody was seen to use */
	LOSS_BUDGET = 15,	  /* its namespace had more payloads read than it may */
	LOSSES = 16,
};

enum record_flag {
	RECORD_RUNTIME = 1,
	RECORD_DIRECTORY = 2,
	RECORD_SCRIPT = 4,
	RECORD_REFUSED = 8,
	RECORD_COMPAT = 16,
	RECORD_ENTERED = 32,   /* the process with which a session begins, with its arguments */
	RECORD_ARGUMENTS = 64, /* a process whose arguments belong into its fact */
};

/* What there is to know of a path; several may be set. */
enum path_flag {
	PATH_LONG = 1,
	PATH_DEEP = 2,
	PATH_UNREADABLE = 4,
	PATH_DELETED = 8,
	PATH_INTERNAL = 16, /* a file system that is mounted nowhere: name, type */
	PATH_DETACHED = 32, /* its mount is in no namespace */
	PATH_OUTSIDE = 64,  /* its mount is in another mount namespace */
};

/* What was done with a file, where that is more than to open it. */
enum operation {
	OPERATION_OPEN = 0,
	OPERATION_RENAME,
	OPERATION_LINK,
	OPERATION_SYMLINK,
	OPERATION_UNLINK,
	OPERATION_MKDIR,
	OPERATION_RMDIR,
	OPERATION_MKNOD,
	OPERATION_TRUNCATE,
	OPERATION_CHMOD,
	OPERATION_CHOWN,
	OPERATION_XATTR,
	OPERATION_EXEC_MAP,
	OPERATION_CONNECT,
	OPERATION_BIND,
};

/*
 * Of a record whose path is a directory, and whose name is what the task gave to
 * the kernel, relative to that: user space has to resolve it.
 */
enum name_flag {
	NAME_GIVEN = 1,
	NAME_FOLLOWED = 2, /* a symbolic link at its end was followed */
	/* The name is /proc/self/fd/N, and the path what that descriptor is of. */
	NAME_DESCRIPTOR = 4,
	NAME_ABSOLUTE = 8, /* the directory is the task's root */
};

enum access {
	ACCESS_READ = 1,
	ACCESS_WRITE = 2,
	ACCESS_CREATE = 4,
};

enum direction {
	DIRECTION_EGRESS = 1,
	DIRECTION_INGRESS = 2,
	DIRECTION_LISTEN = 3,
};

/*
 * A path is its names, the last one first, each ended by NUL; none for "/".
 * PATH_BYTES counts a separator for each name, as PATH_MAX does.
 */
#define PATH_BYTES 4096
#define NAME_BYTES 256
/*
 * Directories and mounts together: more than fit into PATH_BYTES. Kernels before
 * 5.17 lack bpf_loop and have the verifier walk through every step; there 512
 * stays far below its limit.
 */
#define PATH_STEPS 4096
#define PATH_STEPS_OLD 512

/* The cgroup's ancestors that are read; deeper ones than this have no names. */
#define CGROUP_STEPS 12
#define CGROUP_NAME_BYTES 128

/* What is read of packets, by the port of the peer; 0: nothing. */
enum capture {
	CAPTURE_NONE = 0,
	CAPTURE_DNS = 1,
};

/* What was read and is not a fact, counted in `dropped`. */
enum drop {
	DROP_UNASKED = 0,   /* an answer that matches no question of its socket */
	DROP_MALFORMED = 1, /* a packet to or from a port of DNS that is none */
	DROPS = 2,
};

/* Flags of a TCP header. */
enum segment {
	SEGMENT_FIN = 1,
	SEGMENT_SYN = 2,
	SEGMENT_RST = 4,
};

/*
 * The start of every record. The strings follow it without padding, in this
 * order: cgroups, exe, parent, path, arguments, payload. Host byte order.
 */
struct record {
	__u64 id;   /* of the map entry that counts it; 0 if there is none */
	__u64 time; /* boot time, ns */
	__u64 mntns; /* as in maps.h */
	__u32 pid;
	__u32 session;
	__u16 arguments_len; /* NUL-terminated, the last one perhaps cut */
	__u16 cgroups_len;
	__u16 exe_len;
	__u16 path_len;
	__u16 parent_len;
	__u8 kind;
	__u8 flags;
	__u8 exe_flags;
	__u8 path_flags;
	__u8 parent_flags;
	__u8 access;
	__u8 direction;
	__u8 capability;
	__u32 syscall;
	__u16 protocol;
	__u16 port;	  /* host byte order */
	__u8 address[16]; /* v4 as v4-mapped v6 */
	__u8 via[16];	  /* what was asked for, if that is another address; or port */
	__u64 actor;	  /* id of the record that says whose it is; 0: this one does */
	__u16 via_port;
	__u16 family; /* of a socket that was made */
	__u16 type;
	__u8 operation;
	__u8 name_flags; /* with one, the arguments are the name that was given */
	__u32 reaper;	 /* then: process 1 of the task's PID namespace */
	__u32 sequence;	 /* of a payload over TCP: its first byte's */
	__u64 cookie;	/* of the socket, with a payload */
	__u32 whole;	/* bytes that the payload had; over TCP more may follow in another record */
	__u16 payload_len;
	__u8 capture;	/* what the payload is */
	__u8 segment;	/* over TCP */
};

/* The value of the maps that hold what was already seen. */
struct seen {
	__u64 id;
	__u64 count;
	__u64 first; /* boot time, ns */
	__u64 last;  /* up to LAST_EVERY jiffies before the last time */
	__u64 noted; /* jiffies at last */
};

#define LAST_EVERY 8 /* jiffies: 8 to 80 ms, as the kernel counts them */

#define SYSCALLS 512 /* the highest number today is 470 */
#define ARCHES 2     /* native, compat */

/*
 * What is kept for a mount namespace. A byte for each system call, as setting
 * single bits from several CPUs needs instructions that 5.10 does not have.
 */
struct namespace {
	__u32 ignored;
	__u32 entrants; /* processes in `entrants` that are in it: with none, nobody is looked up */
	__u64 crowded;	/* what was started there does not all fit into `executed` */
	__u8 called[ARCHES * SYSCALLS];
	__u8 called_by_runtime[ARCHES * SYSCALLS];
	__u8 called_by_entrants[ARCHES * SYSCALLS];
	__u32 lost[KINDS * LOSSES]; /* what is lost of it; the node's are in `losses` */
	__u32 taken[ROOMS];	    /* entries of each map */
	/* Bytes in the ring: since the ring's position mark, and before it. */
	__u64 ring_mark;
	__u64 ring_since;
	__u64 ring_before;
};

#endif
