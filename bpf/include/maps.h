/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps. Every key of what was seen starts with the mount namespace, so that
 * user space can forget one: its inode number below, and above it the low half of
 * a number that is never used again, as the kernel soon reuses inode numbers.
 * Sizes are the defaults; pkg/probe sets them.
 */
#ifndef MAPS_H
#define MAPS_H

#include "helpers.h"
#include "record.h"

/* Tells a file apart cheaply, surviving the reuse of its inode under another name. */
struct file_id {
	__u64 inode;
	__u64 name; /* hash and length of the last name */
	__u32 device;
	__u32 mount;
};

/* Who acts: an executable, and whether it came from outside. */
struct actor_id {
	struct file_id file;
	__u32 session; /* hash of the arguments with which somebody entered; 0: its own tree */
	__u32 zero;
};

struct process_key {
	__u64 mntns;
	struct actor_id exe;
	struct file_id parent;
	__u64 directory;
	__u32 flags;
	__u32 arguments; /* hash, if they are told */
	__u64 interpreter; /* inode */
};

#define PROCESS_DELETED 0x100 /* in flags, beside record_flag's */

struct file_key {
	__u64 mntns;
	__u16 flags;
	__u16 access;
	__u16 operation;
	__u16 name_flags;
	struct actor_id exe;
	/* Where a name was given: its hash, and the directory it is relative to. */
	struct file_id file;
	__u64 directory; /* that holds it: see directory_of */
};

struct socket_key {
	__u64 mntns;
	__u16 flags;
	__u16 direction;
	__u16 protocol;
	__u16 port;
	struct actor_id exe;
	__u8 address[16];
	__u8 via[16];
	__u64 via_port;
};

/* A socket that was made. */
struct made_key {
	__u64 mntns;
	__u32 flags;
	__u16 family;
	__u16 type;
	struct actor_id exe;
	__u64 protocol;
};

#define WORDS 3

struct capability_key {
	__u64 mntns;
	struct actor_id exe; /* none of the runtime's: nobody learns its own */
	__u32 words[WORDS];  /* arguments of the system call: see call_rule */
	__u16 syscall;
	__u8 capability;
	__u8 flags;
};

/* An executable that was started inside of a mount namespace. */
struct executed_key {
	__u64 mntns;
	__u64 inode;
	__u64 device;
};

/* A process that entered a mount namespace, or one that it started. */
struct entrant_key {
	__u64 started; /* its first thread, ns: process numbers are given out again */
	__u64 tgid;
};

struct entrant {
	__u64 mntns;
	__u32 session; /* 0 until it runs a program there */
	__u32 zero;
};

/* How many entries of a map are in use, but for what user space took away. */
struct use {
	__u64 added;
	__u64 high; /* at most at once; short by one a CPU when they race */
};

#define ARGUMENTS_BYTES 4096

/* The arguments of the program that was just started on this CPU, or the name that a call was given. */
struct arguments {
	__u32 length; /* bytes that were read */
	__u32 whole;
	__u64 hash;	     /* of a name */
	struct file_key key; /* of what it leads to: there is no room for it on the stack */
	__u8 bytes[ARGUMENTS_BYTES + 8];
};

/* One peer of one socket that speaks to many, or by datagrams. */
struct flow_key {
	__u64 cookie;
	__u8 address[16];
	__u32 port;
	__u32 zero;
};

struct flow {
	__u64 noted; /* jiffies: what is known is looked at again now and then */
	__u16 direction; /* of the side that spoke first */
	__u16 via_port;
	__u32 zero;
	__u8 via[16]; /* the address that was asked for; port 0: none but the peer's own */
};

/* An actor that user space was told of, for what happens outside of its processes. */
struct introduction_key {
	__u64 mntns;
	__u64 flags;
	struct actor_id exe;
};

enum owner_state {
	OWNER_KNOWN = 0,
	OWNER_NONE = 1,	   /* the kernel, or a namespace that is ignored */
	OWNER_UNKNOWN = 2, /* made before the probe, and not used since */
};

/* Who made or last used a socket. */
struct owner {
	struct introduction_key who;
	__u64 actor; /* id of the introduction */
	__u32 state;
	__u32 pid;
};

/* A name that was asked for. */
struct question_key {
	__u64 mntns;
	__u32 flags;
	__u16 type;
	__u16 port;
	struct actor_id exe;
	__u64 name; /* hash */
	__u8 address[16];
};

/* A question that waits for its answer. */
struct pending_key {
	__u64 cookie;
	__u32 id; /* of the message */
	__u32 port;
};

struct pending {
	__u64 question; /* id of its entry */
	__u64 name;
	__u32 type;
	__u32 zero;
	__u8 address[16];
};

/* An answer that was told of. */
struct answer_key {
	__u64 question;
	__u64 hash;
};

/* Bytes of payloads that a mount namespace had read in a while. */
struct budget {
	__u64 while_;
	__u64 bytes;
};

/*
 * What a thread asked for in a system call, or with thread 0 connected to; with
 * cookie 0, what the stream is that it is just connecting.
 */
struct asked_key {
	__u64 cookie;
	__u64 thread;
};

struct asked {
	__u8 address[16];
	__u32 port;
	__u32 cookie; /* low half, of a stream */
};

/*
 * What is known of a system call that asks for capabilities; those are bits by
 * their number. passing: asked without telling the kernel's audit, and nothing
 * depends on the answer; idle: the same, although the audit is told; gates: it is
 * not told, and the answer decides. The rest says which arguments are words, such
 * as a socket's family, and what of them counts.
 */
struct call_rule {
	__u64 passing;
	__u64 idle;
	__u64 gates;
	__u32 mask[WORDS];
	__u8 argument[WORDS];
	__u8 words;
};

#define DATA_BYTES 16384 /* three paths and the cgroups; a power of two */

/* A file fact that waits for its operation to succeed. */
struct parcel {
	struct file_key key;
	__u64 used;
	struct record record;
	__u8 data[DATA_BYTES + NAME_BYTES];
};

struct parcel_key {
	__u64 owner; /* the request, or the thread */
	__u64 operand;
};

struct scratch {
	__u64 busy;
	__u64 issued;
	__u64 used; /* bytes of data */
	__u64 mntns;
	__u64 subject; /* the task that the record is about; 0: the current one */
	/* The state of a walk up a path: kept here, the verifier need not follow it. */
	__u64 own_namespace;
	__u64 dentry;
	__u64 mount;
	__u64 path_start;
	__u64 path_flags;
	/* As in struct parcel from here on. */
	struct file_key key;
	__u64 sent;
	struct record record;
	__u8 data[DATA_BYTES + NAME_BYTES];
};

/* Tracepoints run with preemption off; cgroup programs and hooks can be preempted. */
enum slot {
	SLOT_TRACING = 0,
	SLOT_CGROUP = 1,
	SLOT_HOOK = 2,
	SLOT_INGRESS = 3, /* interrupts any of the others */
	SLOTS = 4,	  /* at most: see claim() */
};

/* What user space tells the programs; the index into `settings`. */
enum setting {
	SETTING_SEED = 0, /* of hashes: random, so that nobody can make two names one */
	SETTINGS = 1,
};

#define SEEN_MAP(name, key_type, size)                                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(max_entries, size);                                                         \
		__type(key, struct key_type);                                                      \
		__type(value, struct seen);                                                        \
	} name SEC(".maps")

/*
 * What waits, of all containers: an operation takes microseconds, and only what is
 * new waits. 2 MB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, struct parcel_key);
	__type(value, struct parcel);
} parcels SEC(".maps");

SEEN_MAP(processes, process_key, 4096);
SEEN_MAP(files, file_key, 65536);
SEEN_MAP(sockets, socket_key, 16384);
SEEN_MAP(capabilities, capability_key, 8192);
SEEN_MAP(made, made_key, 4096);
SEEN_MAP(introductions, introduction_key, 4096);
SEEN_MAP(questions, question_key, 16384);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, __u64);
	__type(value, struct namespace);
} namespaces SEC(".maps");

/* Inode numbers of namespaces that are ignored from their first sight on. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u8);
} ignored SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct executed_key);
	__type(value, __u8);
} executed SEC(".maps");

/* What is pushed out counts as speaking first again: a fact too many, none too few. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct entrant_key);
	__type(value, struct entrant);
} entrants SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ROOMS);
	__type(key, __u32);
	__type(value, struct use);
} uses SEC(".maps");

/* Entries that user space has taken away, by room. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ROOMS);
	__type(key, __u32);
	__type(value, __u64);
} freed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arguments);
} arguments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct pending_key);
	__type(value, struct pending);
} pendings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct answer_key);
	__type(value, __u64);
} answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct budget);
} budgets SEC(".maps");

/* What to read by port, a byte each, eight in an entry. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 8);
	__type(key, __u32);
	__type(value, __u64);
} captures SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROPS);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct asked_key);
	__type(value, struct asked);
} asked SEC(".maps");

/* By number, those of 32-bit programs after the native ones. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ARCHES * SYSCALLS);
	__type(key, __u32);
	__type(value, struct call_rule);
} call_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETTINGS);
	__type(key, __u32);
	__type(value, __u64);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KINDS * LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} records SEC(".maps");

/* Set by pkg/probe: the size of the map of each room, and what is wanted. */
const volatile __u32 room_size[ROOMS] = {};
const volatile __u32 keep_arguments = 0;

#endif
