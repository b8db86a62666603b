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
// open for writing, Create that this open made it. A fact with an operation says
// what else was done, and Access what that comes to.
//
// # Names that a task gives
//
// What is done with a descriptor or a socket has the kernel's own path. Of a call
// that takes a name (rename, unlink, chmod and so on) the tracepoints only see the
// string, once the call has succeeded: it is sent together with the directory that
// the kernel began at, and resolved here, from the root directory of the process,
// or of the first of its PID namespace, if that is in the same mount namespace.
// The directory that holds the name is looked up with the container's own links,
// none that leads out of its root; the name itself is not followed where the call
// did not. Nothing is opened for reading, and a file system that does not answer is
// given up. What nobody can tell any more, mostly as the container ended at once,
// begins with unresolved: and counts as lost.
//
// Such a name can be raced: a thread may change the string between the kernel's look
// and ours, and links or directories may be replaced before the name is resolved.
// A string that means another file later, by the same directory, is not looked at
// again.
//
// # Who entered
//
// The only way into a mount namespace that exists is setns(2). A process that joins
// one while it runs a program from elsewhere is the container's runtime until it
// runs a program there; with that begins a session, which what it starts inherits,
// whoever its parent is and wherever it goes. Record.Session tells sessions apart
// by the arguments of that program, so a probe that runs each ten seconds is one.
// Who had entered before the probe was opened is not told from the container's own.
// A container runtime inside a container enters its containers just so.
//
// # What one namespace may take
//
// When a map is half full, a mount namespace that has an eighth of it gets no more:
// what it does is recorded, but each time and uncounted. When the ring is three
// quarters full, one that has an eighth of it has to wait. Both count as lost, for
// that namespace.
//
// # What is not seen
//
// On the network: the second and later connections of one accept through io_uring,
// peers of packet sockets, sockets that the host made and handed in, UDP
// sockets from before the probe that have sent nothing yet (before Linux 5.13; they
// count as lost), DNS on other ports than 53 (but where a CNI's programs translate it
// to) or encrypted, and, before Linux 6.17, addresses before translation by programs
// that were there first.
//
// Of files: what a kernel before 6.0 does through io_uring (Features tells), opens
// into a ring's own table (they count as lost), a ring's messages to paths of Unix
// sockets, and files of descriptors that were opened before the probe. A request that
// asks not to be told of its success counts as having had it. Of several
// messages that one sendmmsg sends to paths of Unix sockets, the first. Of an
// mprotect over several mappings, the first. A descriptor that another thread
// replaces before its system call returns is taken for what it was replaced with.
package probe
