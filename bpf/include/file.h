/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* File facts: of open files, and of paths that a task named to the kernel. */
#ifndef FILE_H
#define FILE_H

#include "arch.h"
#include "outcome.h"
#include "task.h"

#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_CREATED 0x100000


/* What path_used and file_used are told beside the file: operation, access, flags. */
#define WHAT(operation, access, name_flags) ((operation) | (access) << 8 | (name_flags) << 16)
#define WHAT_OPERATION(what) ((what) & 0xff)
#define WHAT_ACCESS(what) ((what) >> 8 & 0xff)
#define WHAT_NAME_FLAGS(what) ((what) >> 16 & 0xff)
#define SECOND_OPERAND (1 << 24)
#define WHAT_OPERAND(what) ((what) >> 24)

/* The open file behind a descriptor of the current task. */
static __always_inline struct file *file_of(struct task_struct *task, __u64 fd)
{
	struct fdtable *table = READ(task, files, fdt);
	struct file **files = READ(table, fd), *file = NULL;

	if (fd < READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* The socket behind an open file; NULL for any other. */
static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *socket;

	if ((READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = READ(file, private_data);
	return READ(socket, sk);
}

/* Begins the key of a fact of a file, kept where large ones fit: see maps.h. */
static __always_inline struct file_key *begin_key(struct arguments *given, struct actor *a, __u32 what)
{
	struct file_key *key = &given->key;

	__builtin_memset(key, 0, sizeof(*key));
	key->mntns = a->mntns;
	key->flags = a->flags;
	key->access = WHAT_ACCESS(what);
	key->operation = WHAT_OPERATION(what);
	key->exe = a->id;
	return key;
}

/* Process 1 of the task's PID namespace, which lives as long as its container. */
static __always_inline __u32 reaper_of(struct task_struct *task)
{
	return READ(task, nsproxy, pid_ns_for_children, child_reaper, tgid);
}

/* Appends the name that the task gave to the claimed scratch of slot. */
__noinline int append_given_name(__u32 slot)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &slot);
	__u32 zero = 0, length;
	struct arguments *given = bpf_map_lookup_elem(&arguments, &zero);

	if (!s || !given)
		return 0;
	length = given->length;
	if (length > PATH_BYTES)
		length = PATH_BYTES;
	if (s->used > DATA_BYTES - PATH_BYTES) {
		lose_of(s->mntns, KIND_FILE, LOSS_PATH_LONG);
		return 0;
	}
	bpf_probe_read_kernel(&s->data[s->used & (DATA_BYTES - 1)], length, given->bytes);
	s->used += length;
	s->record.arguments_len = length;
	return 0;
}

/* Fills in what is at a location, or the name that was given below it. */
static __always_inline void describe_file(struct scratch *s, struct actor *a, struct file_key *key,
					  struct location *at, bool directory)
{
	describe(s, SLOT_TRACING, KIND_FILE, a);
	s->record.access = key->access;
	s->record.operation = key->operation;
	s->record.name_flags = key->name_flags;
	if (directory)
		s->record.flags |= RECORD_DIRECTORY;
	s->record.path_flags = append_location(s, SLOT_TRACING, at, a->ns, &s->record.path_len);
	lose_path(s, KIND_FILE, s->record.path_flags);
	if (key->name_flags) {
		s->record.reaper = reaper_of(current_task());
		append_given_name(SLOT_TRACING);
	}
}

static __always_inline void publish_file(struct scratch *s, struct actor *a, struct file_key *key,
					 struct location *at, bool directory)
{
	describe_file(s, a, key, at, directory);
	publish(s, KIND_FILE, &files, key);
}

/* Keeps what is at a location until settle() knows whether it came to pass. */
static __always_inline void keep_file(struct parcel_key *parcel, struct actor *a, struct file_key *key,
				      struct location *at)
{
	struct scratch *s = hold(SLOT_TRACING, KIND_FILE, key->mntns);

	if (!s)
		return;
	describe_file(s, a, key, at, false);
	s->key = *key;
	s->sent = s->used;
	if (bpf_map_update_elem(&parcels, parcel, &s->key, 0))
		lose_of(key->mntns, KIND_FILE, LOSS_MAP_FULL);
	release(s);
}

/* The operation of a parcel has succeeded, or failed; not every one has a parcel. */
__noinline int settle(__u64 owner, __u32 operand, __u32 succeeded)
{
	struct parcel_key index = {.owner = owner, .operand = operand};
	struct parcel *parcel = bpf_map_lookup_elem(&parcels, &index);
	struct scratch *s;
	__u64 id;

	if (!parcel)
		return 0;
	if (succeeded && !known(&files, &parcel->key)) {
		s = claim(SLOT_TRACING, KIND_FILE, &files, &parcel->key);
		if (s) {
			id = s->record.id;
			bpf_probe_read_kernel(&s->record, sizeof(s->record) + DATA_BYTES, &parcel->record);
			s->record.id = id;
			s->used = parcel->used;
			publish(s, KIND_FILE, &files, &parcel->key);
		}
	}
	bpf_map_delete_elem(&parcels, &index);
	return 0;
}

/* Something was done with an open file. A function of its own to the verifier. */
__noinline int file_used(__u64 pointer, __u32 what)
{
	struct file *file = (struct file *)pointer;
	unsigned short type = READ(file, f_inode, i_mode) & S_IFMT;
	__u32 zero = 0;
	struct arguments *given = bpf_map_lookup_elem(&arguments, &zero);
	struct file_key *key;
	struct location at;
	struct actor a = {};
	struct scratch *s;

	if (!given || !act_tracing(&a))
		return 0;
	locate(file, &at);
	if (type == S_IFIFO && place_of(mount_of(at.mnt), a.ns) == PATH_INTERNAL)
		return 0; /* a pipe that was open already, through /proc */
	key = begin_key(given, &a, what);
	identify(file, &key->file);
	key->directory = directory_of(file);
	if (known(&files, key))
		return 0;
	s = claim(SLOT_TRACING, KIND_FILE, &files, key);
	if (s)
		publish_file(s, &a, key, &at, type == S_IFDIR);
	return 0;
}

static __always_inline void file_opened(struct file *file)
{
	unsigned int mode = READ(file, f_mode);
	__u32 access = 0;

	access |= mode & FMODE_READ ? ACCESS_READ : 0;
	access |= mode & FMODE_WRITE ? ACCESS_WRITE : 0;
	if (!access)
		return; /* O_PATH opens nothing */
	access |= mode & FMODE_CREATED ? ACCESS_CREATE : 0;
	file_used((__u64)file, WHAT(OPERATION_OPEN, access, 0));
}

/*
 * Reads a name, of so many bytes at most, into the CPU's `arguments` and hashes it
 * there. A function of its own to the verifier, which goes through every
 * round. Returns how many bytes it has with its NUL; not above 0 on a fault.
 */
__noinline int read_name(__u64 name, __u32 size, __u32 in_kernel)
{
	__u32 zero = 0, index = SETTING_SEED;
	struct arguments *given = bpf_map_lookup_elem(&arguments, &zero);
	__u64 *seed = bpf_map_lookup_elem(&settings, &index), hash;
	long length;

	if (!given || !seed)
		return 0;
	if (size > PATH_BYTES)
		size = PATH_BYTES;
	if (in_kernel)
		length = bpf_probe_read_kernel_str(given->bytes, size, (void *)name);
	else
		length = bpf_probe_read_user_str(given->bytes, size, (void *)name);
	if (length <= 0 || length > PATH_BYTES)
		return 0;
	__builtin_memset(&given->bytes[length], 0, 8); /* the rest of the last word */
	hash = *seed;
	for (__u32 i = 0; i < PATH_BYTES / 8; i++) {
		if (i * 8 >= length)
			break;
		hash = (hash ^ *(__u64 *)&given->bytes[i * 8]) * 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio */
		hash ^= hash >> 32;
	}
	given->hash = hash;
	given->length = length;
	return length;
}

/* The descriptor that the name at the start of the data is of: /proc/self/fd/N. */
static __always_inline long descriptor_of_name(struct arguments *given)
{
	long fd = 0;

	if (*(__u64 *)given->bytes != 0x65732f636f72702fULL /* "/proc/se" */ ||
	    *(__u32 *)&given->bytes[8] != 0x662f666c /* "lf/f" */ || given->bytes[12] != 'd' || given->bytes[13] != '/')
		return -1;
	for (int i = 14; i < 14 + 7; i++) { /* no task has ten million */
		if (!given->bytes[i])
			return i == 14 ? -1 : fd;
		if (given->bytes[i] < '0' || given->bytes[i] > '9')
			return -1;
		fd = fd * 10 + given->bytes[i] - '0';
	}
	return -1;
}

/*
 * Where the name at the start of the data begins: the task's root or working
 * directory, or what the descriptor is of. False when there is no such place.
 */
static __always_inline bool base_of(struct arguments *given, __s32 directory, __u32 *flags, struct location *at)
{
	struct task_struct *task = current_task();
	struct file *file;
	long fd;

	if (given->bytes[0] == '/') {
		*flags |= NAME_ABSOLUTE;
		fd = *flags & NAME_FOLLOWED ? descriptor_of_name(given) : -1;
		if (fd < 0) {
			at->mnt = READ(task, fs, root.mnt);
			at->dentry = READ(task, fs, root.dentry);
			return true;
		}
		*flags |= NAME_DESCRIPTOR;
	} else if (directory == AT_FDCWD) {
		at->mnt = READ(task, fs, pwd.mnt);
		at->dentry = READ(task, fs, pwd.dentry);
		return true;
	} else {
		fd = (__u32)directory;
	}
	file = file_of(task, fd);
	if (!file)
		return false; /* another thread closed it meanwhile */
	locate(file, at);
	return true;
}

/*
 * Something was done with what a name leads to, from a directory. At most so many
 * bytes of the name are read. The name says nothing about symbolic links; user
 * space resolves it. With a request the name is in kernel space, and the fact waits
 * for settle().
 */
__noinline int path_used(__u64 name, __s32 directory, __u32 what, __u32 size, __u64 request)
{
	struct parcel_key parcel = {.owner = request, .operand = WHAT_OPERAND(what)};
	__u32 flags = NAME_GIVEN | WHAT_NAME_FLAGS(what), zero = 0;
	struct arguments *given = bpf_map_lookup_elem(&arguments, &zero);
	struct file_key *key;
	struct actor a = {};
	struct location at;
	struct scratch *s;

	if (!given || !act_tracing(&a))
		return 0;
	if (read_name(name, size, request != 0) <= 0) {
		lose_of(a.mntns, KIND_FILE, LOSS_PATH_UNREADABLE);
		return 0;
	}
	if (!base_of(given, directory, &flags, &at)) {
		lose_of(a.mntns, KIND_FILE, LOSS_CLOSED);
		return 0;
	}
	key = begin_key(given, &a, what);
	key->name_flags = flags;
	identify_location(&at, &key->file);
	key->directory = directory_above(at.mnt, at.dentry);
	key->file.name ^= given->hash;
	if (known(&files, key))
		return 0;
	if (request) {
		keep_file(&parcel, &a, key, &at);
		return 0;
	}
	s = claim(SLOT_TRACING, KIND_FILE, &files, key);
	if (s)
		publish_file(s, &a, key, &at, false);
	return 0;
}

/* Argument i of a system call whose registers are at an address. */
static __always_inline __u64 read_argument(__u64 regs, bool compat, __u8 i)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(regs + argument_offset(compat, i)));
	return compat ? (__u32)value : value;
}

static __always_inline void operand_used(__u64 regs, bool compat, const struct operand *o)
{
	__s32 directory = o->directory == NO_ARGUMENT ? AT_FDCWD : read_argument(regs, compat, o->directory);
	__u32 given = o->flags ? read_argument(regs, compat, o->flags) : 0;
	__u32 operation = o->operation, flags = 0;
	__u64 name = o->name == NO_ARGUMENT ? 0 : read_argument(regs, compat, o->name);
	struct file *file;
	char first = 0;

	if (o->follows || given & o->follow || (o->nofollow && !(given & o->nofollow)))
		flags |= NAME_FOLLOWED;
	if (operation == OPERATION_UNLINK && given & AT_REMOVEDIR)
		operation = OPERATION_RMDIR;
	/* With AT_EMPTY_PATH a descriptor and no name mean the file itself. */
	if (name)
		bpf_probe_read_user(&first, 1, (void *)name);
	if (first || directory == AT_FDCWD) {
		path_used(name, directory, WHAT(operation, o->access, flags), PATH_BYTES, 0);
		return;
	}
	file = file_of(current_task(), (__u32)directory);
	if (!file)
		lose(KIND_FILE, LOSS_CLOSED);
	else
		file_used((__u64)file, WHAT(operation, o->access, 0));
}

/* The paths of a system call that succeeded. A function of its own to the verifier. */
__noinline int paths_used(__u64 regs, __u32 outcome, __u32 compat)
{
	__u32 index = outcome - OUTCOME_PATHS;
	const struct path_call *call;

	if (index >= OUTCOMES - OUTCOME_PATHS)
		return 0;
	call = &path_calls[index];
	operand_used(regs, compat, &call->first);
	if (call->second.access)
		operand_used(regs, compat, &call->second);
	return 0;
}

#endif
