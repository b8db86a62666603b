//go:build linux

package probe

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// capabilityAction does what needs a capability, if args names such a thing.
func capabilityAction(args []string) (is bool, err error) {
	var numbers []int
	for _, a := range args[1:] {
		if n, err := strconv.Atoi(a); err == nil {
			numbers = append(numbers, n)
		}
	}
	switch args[0] {
	case "socket": // socket FAMILY TYPE PROTOCOL
		fd, err := unix.Socket(numbers[0], numbers[1], numbers[2])
		if err != nil {
			return true, err
		}
		return true, unix.Close(fd)
	case "setsockopt": // setsockopt LEVEL OPTION, to 1
		return true, withSocket(unix.SOCK_STREAM, func(fd int) error {
			return unix.SetsockoptInt(fd, numbers[0], numbers[1], 1)
		})
	case "congestion": // sets the congestion control that it has
		return true, withSocket(unix.SOCK_STREAM, func(fd int) error {
			name, err := unix.GetsockoptString(fd, unix.SOL_TCP, unix.TCP_CONGESTION)
			if err != nil {
				return err
			}
			return unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_CONGESTION, name)
		})
	case "umount":
		return true, unix.Unmount(args[1], unix.MNT_DETACH)
	case "mknod": // the null device
		return true, unix.Mknodat(unix.AT_FDCWD, args[1], unix.S_IFCHR|0o600, 1<<8|3)
	case "unshare-net":
		return true, unix.Unshare(unix.CLONE_NEWNET)
	}
	return false, nil
}

func withSocket(kind int, act func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return act(fd)
}
