//go:build linux && amd64

package probe

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// program386 is a 32-bit executable that opens /etc/config, listens on a TCP socket
// through socketcall(2), makes the directory /etc/d, changes the mode of /etc/other
// and maps /etc/config to execute it by the first mmap, all by int 0x80.
func program386() []byte {
	const base, headers = 0x08048000, 52 + 32
	data := []byte("/etc/config\x00" +
		"\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" + // AF_INET, SOCK_STREAM, 0
		"\x00\x00\x00\x00\x01\x00\x00\x00" + // descriptor, backlog
		"/etc/d\x00" + "/etc/other\x00" +
		"\x00\x00\x00\x00\x00\x10\x00\x00\x05\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00") // 4096 bytes, r-x, private, descriptor 3
	code := func(path, socket, listen uint32) []byte {
		var b []byte
		op := func(bytes string, operand ...uint32) {
			b = append(b, bytes...)
			for _, o := range operand {
				b = binary.LittleEndian.AppendUint32(b, o)
			}
		}
		call := func(number, ebx, ecx uint32) {
			op("\xb8", number) // mov eax
			op("\xbb", ebx)    // mov ebx
			op("\xb9", ecx)    // mov ecx
			op("\xcd\x80")     // int 0x80
		}
		call(5, path, 0)           // open
		call(102, 1, socket)       // socketcall: socket
		op("\xa3", listen)         // mov [listen], eax
		call(102, 4, listen)       // socketcall: listen
		call(39, listen+8, 0o755)  // mkdir
		call(15, listen+15, 0o600) // chmod
		call(90, listen+26, 0)     // mmap
		call(1, 0, 0)              // exit
		return b
	}
	start := uint32(base + headers + len(code(0, 0, 0)))
	text := code(start, start+12, start+24)
	file := make([]byte, headers)
	copy(file, "\x7fELF\x01\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(file[16:], 2) // executable
	le.PutUint16(file[18:], 3) // 386
	le.PutUint32(file[20:], 1)
	le.PutUint32(file[24:], base+headers) // entry
	le.PutUint32(file[28:], 52)           // program headers
	le.PutUint16(file[40:], 52)
	le.PutUint16(file[42:], 32)
	le.PutUint16(file[44:], 1)
	size := uint32(headers + len(text) + len(data))
	for i, v := range []uint32{1, 0, base, base, size, size, 7, 0x1000} { // loaded whole, rwx
		le.PutUint32(file[52+4*i:], v)
	}
	return slices.Concat(file, text, data)
}

func TestProgramOf32BitsIsObserved(t *testing.T) {
	p := requireProbe(t, Options{})
	trial := filepath.Join(t.TempDir(), "trial")
	if err := os.WriteFile(trial, program386(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(trial).Run(); err != nil {
		t.Skipf("SKIPPED: the kernel runs no 32-bit programs: %v", err)
	}
	c := newContainer(t, actions("run /bin/old")...)
	if err := os.WriteFile(filepath.Join(c.root, "bin/old"), program386(), 0o755); err != nil {
		t.Fatal(err)
	}
	r := record(t, p, c.mntns)
	c.run(t)
	r.stop()
	wantFact(t, r.all(), behavior.Fact{Kind: behavior.File, Exe: "/bin/old", Path: "/etc/config", Access: behavior.Read})
	for path, operation := range map[string]behavior.Operation{"/etc/d": behavior.OpMkdir, "/etc/other": behavior.OpChmod} {
		if !slices.ContainsFunc(r.all(), func(r Record) bool {
			return r.Fact.Operation == operation && (r.Fact.Path == path || r.Fact.Path == "unresolved:"+path)
		}) {
			t.Errorf("no %s of %s was recorded", operation, path)
		}
	}
	wantFact(t, r.all(), behavior.Fact{Kind: behavior.File, Exe: "/bin/old", Path: "/etc/config", Operation: behavior.OpExecMap, Access: behavior.Read})
	if !slices.ContainsFunc(r.all(), func(r Record) bool {
		return r.Fact.Exe == "/bin/old" && r.Fact.Direction == behavior.Listen && r.Fact.Protocol == "tcp"
	}) {
		t.Error("no listener was recorded")
	}
	all, err := p.Syscalls()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range all[c.mntns] {
		if set.Arch == "386" && slices.Equal(set.Names, []string{"exit", "open", "chmod", "mkdir", "mmap", "socketcall"}) {
			return
		}
	}
	t.Errorf("system calls are %+v", all[c.mntns])
}
