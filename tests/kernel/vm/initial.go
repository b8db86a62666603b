package vm

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// Initial writes an initial file system, a cpio archive in the form that the kernel
// documents as newc: the programs, by their names in its root, and an empty /dev.
func Initial(path string, programs map[string]string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buffered := bufio.NewWriter(file)
	a := archive{w: buffered}
	a.add("dev", 0o40755, nil)
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		content, err := os.ReadFile(programs[name])
		if err != nil {
			return fmt.Errorf("pack initial file system: %w", err)
		}
		a.add(name, 0o100755, content)
	}
	a.add("TRAILER!!!", 0, nil)
	if a.err == nil {
		a.err = buffered.Flush()
	}
	if a.err != nil {
		return fmt.Errorf("pack initial file system: %w", a.err)
	}
	return file.Close()
}

type archive struct {
	w     io.Writer
	inode int
	err   error
}

// add writes one entry: a header of thirteen numbers, the name and the content, each
// filled up to a multiple of four.
func (a *archive) add(name string, mode int, content []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	header := "070701"
	for _, v := range []int{a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08x", v)
	}
	head := fill([]byte(header + name + "\x00"))
	if _, a.err = a.w.Write(head); a.err == nil {
		_, a.err = a.w.Write(fill(content))
	}
}

func fill(b []byte) []byte {
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}
