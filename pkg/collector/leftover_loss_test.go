//go:build linux

package collector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// kernelObjects gives the programs, maps and links that a process holds, such as
// "map 7".
func kernelObjects(t *testing.T, pid int) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	for _, file := range files {
		info, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(info)) {
			name, id, _ := strings.Cut(strings.TrimSpace(line), ":")
			if kind, ok := strings.CutSuffix(name, "_id"); ok && (kind == "prog" || kind == "map" || kind == "link") {
				held[kind+" "+strings.TrimSpace(id)] = true
			}
		}
	}
	return sortedKeys(held)
}

// existing lists the identifiers of everything of a kind in the kernel.
func existing(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	list := func(kind string, next func(uint32) (uint32, error)) {
		for id, err := next(0); !errors.Is(err, os.ErrNotExist); id, err = next(id) {
			if err != nil {
				t.Fatalf("list %ss: %v", kind, err)
			}
			all[fmt.Sprint(kind, " ", id)] = true
		}
	}
	list("prog", func(id uint32) (uint32, error) {
		next, err := ebpf.ProgramGetNextID(ebpf.ProgramID(id))
		return uint32(next), err
	})
	list("map", func(id uint32) (uint32, error) {
		next, err := ebpf.MapGetNextID(ebpf.MapID(id))
		return uint32(next), err
	})
	links := link.Iterator{}
	defer links.Close()
	for links.Next() {
		all[fmt.Sprint("link ", links.ID)] = true
	}
	if err := links.Err(); err != nil {
		t.Fatalf("list links: %v", err)
	}
	return all
}

// nothingLeft fails unless all of it is gone soon: the kernel frees a program a
// moment after its last user has ended. Control groups hold programs by links too.
func nothingLeft(t *testing.T, held []string) {
	t.Helper()
	var left []string
	eventually(t, "the kernel to be as it was", func() bool {
		all := existing(t)
		left = nil
		for _, o := range held {
			if all[o] {
				left = append(left, o)
			}
		}
		return len(left) == 0
	})
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// pins lists everything in the file systems in which programs and maps could
// outlive their process.
func pins(t *testing.T) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "bpf" {
			continue
		}
		err := filepath.WalkDir(fields[1], func(path string, _ fs.DirEntry, err error) error {
			list = append(list, path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// runContainer does what it is told, line by line: "files DIR N" makes N files or
// opens them again, "run DIR N TIMES" starts the N programs of a folder so often.
func runContainer() error {
	fmt.Println("ready")
	for {
		var what, dir string
		var n, times int
		_, err := fmt.Scan(&what, &dir, &n)
		if errors.Is(err, io.EOF) {
			return nil // the test has ended
		}
		if err != nil {
			return err
		}
		began := time.Now()
		switch what {
		case "files":
			for i := 0; i < n && err == nil; i++ {
				var fd int
				if fd, err = unix.Open(fmt.Sprintf("%s/file-%06d", dir, i), unix.O_RDWR|unix.O_CREAT, 0o600); err == nil {
					err = unix.Close(fd)
				}
			}
		case "run":
			if _, err = fmt.Scan(&times); err == nil {
				err = runPrograms(dir, n, times)
			}
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s in %.3f s: %.0f a second\n", what, time.Since(began).Seconds(), float64(max(n, times))/time.Since(began).Seconds())
	}
}

func runPrograms(dir string, n, times int) error {
	var group sync.WaitGroup
	errs := make(chan error, 2*runtime.NumCPU())
	workers := cap(errs)
	for w := range workers {
		group.Go(func() {
			for i := w; i < times; i += workers {
				path := fmt.Sprintf("%s/program-%d", dir, i%n)
				pid, err := syscall.ForkExec(path, []string{path}, nil)
				if err == nil {
					_, err = syscall.Wait4(pid, nil, 0, nil)
				}
				if err != nil {
					errs <- fmt.Errorf("%s: %w", path, err)
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	return <-errs
}

// plantPrograms makes programs that end at once: the smallest that the kernel
// starts, as starting is all that they are for.
func plantPrograms(t *testing.T, dir string, n int) {
	t.Helper()
	machine, code := uint16(62), []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // exit(0)
	if runtime.GOARCH == "arm64" {
		machine, code = 183, []byte{0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 1, 0, 0, 0xd4}
	}
	le := binary.LittleEndian
	const base, headers = 0x400000, 64 + 56
	size := uint64(headers + len(code))
	program := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	program = le.AppendUint16(le.AppendUint16(program, 2), machine)
	program = le.AppendUint32(program, 1)
	program = le.AppendUint64(le.AppendUint64(le.AppendUint64(program, base+headers), 64), 0)
	program = le.AppendUint32(program, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		program = le.AppendUint16(program, v)
	}
	program = le.AppendUint32(le.AppendUint32(program, 1), 5)
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		program = le.AppendUint64(program, v)
	}
	program = append(program, code...)
	for i := range n {
		path := filepath.Join(dir, "program-"+strconv.Itoa(i))
		if i == 0 {
			if err := os.WriteFile(path, program, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Link(filepath.Join(dir, "program-0"), path); err != nil {
			t.Fatal(err)
		}
	}
}
