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

#define PROT_EXEC 0x4
#define MAP_ANONYMOUS 0x20
#define AF_UNIX 1
#define SUN_PATH 2	    /* its offset in struct sockaddr_un */
#define SUN_PATH_BYTES 108

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
	key = &given->key;
	__builtin_memset(key, 0, sizeof(*key));
	key->mntns = a.mntns;
	key->flags = a.flags;
	key->access = WHAT_ACCESS(what);
	key->operation = WHAT_OPERATION(what);
	key->exe = a.id;
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
	key = &given->key;
	__builtin_memset(key, 0, sizeof(*key));
	key->mntns = a.mntns;
	key->flags = a.flags;
	key->access = WHAT_ACCESS(what);
	key->operation = WHAT_OPERATION(what);
	key->name_flags = flags;
	key->exe = a.id;
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

/* A socket whose path the kernel has: of a Unix socket that was bound to one. */
static __always_inline void unix_socket_used(struct sock *sk, __u32 what)
{
	struct unix_sock *u = (struct unix_sock *)sk;
	struct dentry *dentry = BPF_CORE_READ(u, path.dentry);
	struct location at = {.dentry = dentry};
	struct actor a = {};
	__u32 zero = 0;
	struct arguments *given = bpf_map_lookup_elem(&arguments, &zero);
	struct file_key *key;
	struct scratch *s;

	at.mnt = BPF_CORE_READ(u, path.mnt);
	if (!given || !sk || !dentry || !act_tracing(&a))
		return; /* without a name, or with an abstract one */
	key = &given->key;
	__builtin_memset(key, 0, sizeof(*key));
	key->mntns = a.mntns;
	key->flags = a.flags;
	key->access = WHAT_ACCESS(what);
	key->operation = WHAT_OPERATION(what);
	key->exe = a.id;
	identify_location(&at, &key->file);
	key->directory = directory_above(at.mnt, dentry);
	if (known(&files, key))
		return;
	s = claim(SLOT_TRACING, KIND_FILE, &files, key);
	if (s)
		publish_file(s, &a, key, &at, false);
}

static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *socket;

	if ((READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = READ(file, private_data);
	return READ(socket, sk);
}

/* connect or bind of the socket of a file, if it is a Unix socket. */
__noinline int unix_connected(__u64 file, __u32 bound)
{
	struct sock *sk = sock_of((struct file *)file);
	struct unix_sock *u = (struct unix_sock *)sk;

	if (!sk || READ(sk, __sk_common.skc_family) != AF_UNIX)
		return 0;
	if (bound)
		unix_socket_used(sk, WHAT(OPERATION_BIND, MAKES, 0));
	else
		unix_socket_used(BPF_CORE_READ(u, peer), WHAT(OPERATION_CONNECT, ACCESS_READ | ACCESS_WRITE, 0));
	return 0;
}

/* A message to an address that came with it: of interest is a Unix socket's path. */
static __always_inline void sent_to(__u64 address, __u32 length)
{
	__u16 family = 0;
	char first = 0;

	if (!address || length <= SUN_PATH)
		return;
	bpf_probe_read_user(&family, sizeof(family), (void *)address);
	if (family != AF_UNIX)
		return;
	address += SUN_PATH;
	bpf_probe_read_user(&first, 1, (void *)address);
	if (!first)
		return; /* an abstract name */
	length -= SUN_PATH;
	if (length > SUN_PATH_BYTES)
		length = SUN_PATH_BYTES;
	/* One more: the kernel ends a path that does not end itself. */
	path_used(address, AT_FDCWD, WHAT(OPERATION_CONNECT, ACCESS_READ | ACCESS_WRITE, NAME_FOLLOWED), length + 1, 0);
}

/* sendmsg: the address and its length are the first two members of the message. */
static __always_inline void sent_message(__u64 message, bool compat)
{
	__u64 address = 0;
	__u32 length = 0, size = compat ? 4 : 8;

	bpf_probe_read_user(&address, size, (void *)message);
	if (!address)
		return;
	bpf_probe_read_user(&length, sizeof(length), (void *)(message + size));
	sent_to(address, length);
}

/* sendto and sendmsg by way of socketcall(2), whose arguments are in an array. */
__noinline int sent_by_array(__u64 array, __u32 is_message)
{
	__u32 arguments[6] = {};

	bpf_probe_read_user(arguments, sizeof(arguments), (void *)array);
	if (is_message)
		sent_message(arguments[1], true);
	else
		sent_to(arguments[4], arguments[5]);
	return 0;
}

#endif
