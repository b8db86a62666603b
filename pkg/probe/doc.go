// Package probe observes the containers of one machine: it loads the programs of
// package bpf, reads their records and states each as a behavior.Fact.
//
// It tells containers apart by mount namespace and knows nothing of pods; it
// keeps no facts, and it leaves no program, map or link behind once closed. It
// must never believe a string of user space: paths, addresses and names come
// from the kernel's own structures, and are escaped before anyone sees them.
//
// # What a path says
//
// A path is absolute in the mount namespace of the task that used it, also when
// the task has changed its root directory. A path that is not absolute says why
// in its first word:
//
//   - memfd:NAME, a file in memory, and TYPE:NAME, a file of a file system that
//     is mounted nowhere
//   - detached:/PATH, below a mount that was taken away
//   - outside:/PATH, in another mount namespace, such as the host's
//   - truncated:/PATH, the end of a path that is too long or too deep to be read
//     to its beginning; it is also counted as lost
//
// A directory is a file fact with Read access and no trailing slash, when it was
// opened to be listed; Record.Directory tells. Write access says that a file was
// open for writing, Create that this open made it.
//
// # What is not seen
//
// Operations through io_uring on files, and its accept (other than io_uring_setup
// as a system call), peers of packet sockets, sockets that the host made and handed
// in, and files of descriptors that were opened before the probe. A descriptor that another thread replaces before
// its system call returns is taken for what it was replaced with.
package probe
