//go:build linux

package plant

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Prepared are the files that a container's root must hold, below Dir.
func Prepared() []string {
	return []string{
		"read", "write", "openat2", "handle", "only-resolved", "old", "old-2", "linked", "unlinked", "unlinked-at", "truncated", "ftruncated",
		"mode", "fmode", "owner", "attribute", "library", "uring", "uring-unlinked", "compat", "held-read", "held-write", "held-library",
		"held-later", "by-exec", "by-probe", "by-child",
	}
}

func file(name string, access behavior.Access) behavior.Fact {
	return own(behavior.Fact{Kind: behavior.File, Path: Dir + "/" + name, Access: access})
}

func operation(name string, o behavior.Operation, access behavior.Access) behavior.Fact {
	f := file(name, access)
	f.Operation = o
	return f
}

func open(name string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(Dir+"/"+name, flags|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

func opened(name, what string, flags int, access behavior.Access) Thing {
	return Thing{Name: what, Role: RoleMain, Do: open(name, flags), Facts: []behavior.Fact{file(name, access)}}
}

func files() []Thing {
	return []Thing{
		{Name: "program", Role: RoleMain, Facts: []behavior.Fact{{Kind: behavior.Process, Path: Program}}},
		opened("read", "open to read", unix.O_RDONLY, behavior.Read),
		opened("write", "open to write", unix.O_WRONLY, behavior.Write),
		opened("created", "open to create", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, behavior.Read|behavior.Write|behavior.Create),
		{Name: "openat2", Role: RoleMain, Do: func() error {
			fd, err := unix.Openat2(unix.AT_FDCWD, Dir+"/openat2", &unix.OpenHow{Flags: unix.O_RDONLY})
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}, Facts: []behavior.Fact{file("openat2", behavior.Read)}},
		{Name: "open by handle", Role: RoleMain, Do: byHandle, Facts: []behavior.Fact{file("handle", behavior.Read)}},
		{Name: "open through a link, and a path only", Role: RoleMain, Do: do(
			func() error { return unix.Symlink("read", Dir+"/symlink-to-read") },
			open("symlink-to-read", unix.O_RDONLY), open("only-resolved", unix.O_PATH),
		), Facts: []behavior.Fact{file("read", behavior.Read)}},
	}
}

// byHandle opens as NFS servers and backups do; not every file system has handles.
func byHandle() error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, Dir+"/handle", 0)
	if err == unix.EOPNOTSUPP {
		return ErrAbsent
	}
	if err != nil {
		return err
	}
	dir, err := unix.Open(Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY)
	if err == unix.ESTALE {
		return ErrAbsent // of tmpfs, until the file was looked up by inode
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func operations() []Thing {
	at := func(name string) string { return Dir + "/" + name }
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleMain, Do: do, Facts: facts}
	}
	return []Thing{
		thing("rename", func() error { return unix.Rename(at("old"), at("new")) },
			operation("old", behavior.OpRename, behavior.Write), operation("new", behavior.OpRename, behavior.Write|behavior.Create)),
		thing("renameat2", func() error {
			return unix.Renameat2(unix.AT_FDCWD, at("old-2"), unix.AT_FDCWD, at("new-2"), unix.RENAME_NOREPLACE)
		},
			operation("old-2", behavior.OpRename, behavior.Write), operation("new-2", behavior.OpRename, behavior.Write|behavior.Create)),
		thing("link", func() error { return unix.Link(at("linked"), at("link")) },
			operation("linked", behavior.OpLink, behavior.Read), operation("link", behavior.OpLink, behavior.Write|behavior.Create)),
		thing("symlink", func() error { return unix.Symlink("nowhere", at("symlink")) }, operation("symlink", behavior.OpSymlink, 0)),
		thing("unlink", func() error { return unix.Unlink(at("unlinked")) }, operation("unlinked", behavior.OpUnlink, behavior.Write)),
		thing("unlinkat", func() error { return unix.Unlinkat(unix.AT_FDCWD, at("unlinked-at"), 0) }, operation("unlinked-at", behavior.OpUnlink, behavior.Write)),
		thing("mkdir", func() error { return unix.Mkdir(at("directory"), 0o755) }, operation("directory", behavior.OpMkdir, 0)),
		thing("rmdir", func() error { return unix.Rmdir(at("directory")) }, operation("directory", behavior.OpRmdir, 0)),
		thing("mknod", func() error { return unix.Mknod(at("fifo"), unix.S_IFIFO|0o600, 0) }, operation("fifo", behavior.OpMknod, 0)),
		thing("truncate", func() error { return unix.Truncate(at("truncated"), 1) }, operation("truncated", behavior.OpTruncate, behavior.Write)),
		thing("ftruncate", withFile("ftruncated", func(fd int) error { return unix.Ftruncate(fd, 1) }), operation("ftruncated", behavior.OpTruncate, behavior.Write)),
		thing("chmod", func() error { return unix.Chmod(at("mode"), 0o600) }, operation("mode", behavior.OpChmod, behavior.Write)),
		thing("fchmod", withFile("fmode", func(fd int) error { return unix.Fchmod(fd, 0o600) }), operation("fmode", behavior.OpChmod, behavior.Write)),
		thing("chown", func() error { return unix.Chown(at("owner"), 1, 1) }, operation("owner", behavior.OpChown, behavior.Write)),
		thing("setxattr", func() error {
			err := unix.Setxattr(at("attribute"), "trusted.plant", []byte("x"), 0)
			if err == unix.EOPNOTSUPP {
				return ErrAbsent
			}
			return err
		}, operation("attribute", behavior.OpXattr, behavior.Write)),
		thing("map as code", withFile("library", func(fd int) error {
			code, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
			if err != nil {
				return err
			}
			return unix.Munmap(code)
		}), operation("library", behavior.OpExecMap, 0)),
		thing("Unix socket", unixSocket, operation("socket", behavior.OpBind, 0), operation("socket", behavior.OpConnect, 0)),
	}
}

func withFile(name string, use func(fd int) error) func() error {
	return func() error {
		fd, err := unix.Open(Dir+"/"+name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return use(fd)
	}
}

func unixSocket() error {
	address := &unix.SockaddrUnix{Name: Dir + "/socket"}
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	if err := unix.Bind(server, address); err != nil {
		return err
	}
	if err := unix.Listen(server, 1); err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	return unix.Connect(client, address)
}
