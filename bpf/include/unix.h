/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* File facts: of Unix sockets, by their path. */
#ifndef UNIX_H
#define UNIX_H

#include "file.h"

#define AF_UNIX 1
#define SUN_PATH 2	    /* its offset in struct sockaddr_un */
#define SUN_PATH_BYTES 108

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
	key = begin_key(given, &a, what);
	identify_location(&at, &key->file);
	key->directory = directory_above(at.mnt, dentry);
	if (known(&files, key))
		return;
	s = claim(SLOT_TRACING, KIND_FILE, &files, key);
	if (s)
		publish_file(s, &a, key, &at, false);
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
