//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// runLossAction does what is done to make the probe lose something.
func runLossAction(args []string) error {
	switch args[0] {
	case "rename":
		return os.Rename(args[1], args[2])
	case "nonsense": // nonsense NUMBER: a system call that there is not
		n, err := strconv.Atoi(args[1])
		if _, _, errno := unix.RawSyscall(uintptr(n), 0, 0, 0); errno != unix.ENOSYS {
			return fmt.Errorf("system call %d: %w", n, errno)
		}
		return err
	case "served-later": // served-later ADDRESS: what a UDP socket from before the pause gets after it
		return servedLater(netip.MustParseAddrPort(args[1]))
	case "reuse": // reuse DIR: gives a deleted file's number to another name
		return reuseFile(args[1])
	case "redo": // redo DIR: gives a deleted directory's and its file's numbers to others
		return reuseDirectory(args[1])
	case "close-at-once": // close-at-once FILE N: opens FILE while another thread closes what it gets
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return closeAtOnce(args[1], n)
	}
	if is, err := capabilityAction(args); is {
		return err
	}
	if is, err := networkAction(args); is {
		return err
	}
	if strings.HasSuffix(args[0], ".trial") {
		return nil // the file that an interpreter was started for
	}
	if is, err := dnsAction(args); is {
		return err
	}
	return errors.New("unknown action")
}

func servedLater(at netip.AddrPort) error {
	address, family := sockaddr(at)
	server, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	if err := unix.Bind(server, address); err != nil {
		return err
	}
	if err := runAction([]string{"pause"}); err != nil {
		return err
	}
	client, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := unix.Sendto(client, []byte("ask"), 0, address); err != nil {
		return err
	}
	// Whoever asks for the sender's address is known by that: this does not.
	_, err = unix.Read(server, make([]byte, 10))
	return err
}

// tries bounds how often a file system may give another number than the one that
// it was given back last.
const tries = 2000

func numberOf(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

func reuseFile(dir string) error {
	first := filepath.Join(dir, "first")
	if err := open(first, unix.O_RDWR|unix.O_CREAT); err != nil {
		return err
	}
	want, err := numberOf(first)
	if err != nil {
		return err
	}
	if err := os.Remove(first); err != nil {
		return err
	}
	for i := range tries {
		// Not opened before it is known: nobody may have seen the name.
		name := filepath.Join(dir, fmt.Sprintf("next-%d", i))
		if err := unix.Mknod(name, unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
		got, err := numberOf(name)
		if err != nil {
			return err
		}
		if got == want {
			if err := os.Rename(name, filepath.Join(dir, "second")); err != nil {
				return err
			}
			return open(filepath.Join(dir, "second"), unix.O_RDWR)
		}
	}
	return fmt.Errorf("number %d did not come again", want)
}

func reuseDirectory(dir string) error {
	for i := range tries { // others may use the file system too
		first, next := filepath.Join(dir, fmt.Sprintf("first-%d", i)), filepath.Join(dir, fmt.Sprintf("next-%d", i))
		if err := os.Mkdir(first, 0o755); err != nil {
			return err
		}
		if err := open(first+"/leaf", unix.O_RDWR|unix.O_CREAT); err != nil {
			return err
		}
		want, err := numbersOf(first)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(first); err != nil {
			return err
		}
		if err := os.Mkdir(next, 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(next+"/leaf", unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
		got, err := numbersOf(next)
		if err != nil {
			return err
		}
		if got == want {
			return open(next+"/leaf", unix.O_RDWR)
		}
	}
	return errors.New("the numbers did not come again")
}

// numbersOf gives those of a directory and of the leaf in it.
func numbersOf(dir string) (numbers [2]uint64, err error) {
	if numbers[0], err = numberOf(dir); err != nil {
		return numbers, err
	}
	numbers[1], err = numberOf(dir + "/leaf")
	return numbers, err
}

// closeAtOnce opens a file over and over while another thread closes the number
// that it is going to get, until that has happened n times or the time is up.
func closeAtOnce(path string, n int) error {
	fd, err := unix.Dup(0)
	if err != nil {
		return err
	}
	var stop atomic.Bool
	defer stop.Store(true)
	go func() {
		for !stop.Load() {
			unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
		}
	}()
	end := time.Now().Add(20 * time.Second)
	for taken := 0; taken < n && time.Now().Before(end); {
		got, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if err := unix.Close(got); errors.Is(err, unix.EBADF) {
			taken++
		} else if err != nil {
			return err
		}
	}
	return nil
}
