//go:build linux

package probe

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where the kernel cannot run ours first, an address is hidden by programs of the
// same kind, at the same control group or below, and by nothing else.
func TestOnlyProgramsThatRunBeforeHideAddresses(t *testing.T) {
	requireProbe(t, Options{}).Close() // or skips
	mount := t.TempDir()
	if err := unix.Mount("cgroup2", mount, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	group, err := os.MkdirTemp(mount, "hidden-")
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(group, "child")
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{child, group} {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	hidden := func(want bool, when string, attach ebpf.AttachType) {
		t.Helper()
		if reason := hiddenBy(group, attach); (reason != "") != want || strings.HasPrefix(reason, "cannot tell") {
			t.Errorf("%s: %v is hidden by %q", when, attach, reason)
		}
	}
	hidden(false, "without programs", ebpf.AttachCGroupInet4Connect)
	from, to := netip.MustParseAddrPort("198.51.100.9:80"), netip.MustParseAddrPort("127.0.0.1:8080")
	translate(t, child, ebpf.AttachCGroupInet4Connect, from, to)
	hidden(true, "with a program below", ebpf.AttachCGroupInet4Connect)
	hidden(false, "with a program of another kind", ebpf.AttachCGroupUDP4Sendmsg)
	translate(t, group, ebpf.AttachCGroupUDP4Sendmsg, from, to)
	hidden(true, "with a program beside", ebpf.AttachCGroupUDP4Sendmsg)
	if reason := hiddenBy(filepath.Join(group, "none"), ebpf.AttachCGroupInet4Connect); reason != "" {
		t.Errorf("of a control group that is gone: %q", reason)
	}
}

func TestEveryReasonIsASentenceOfWhatIsNotSeen(t *testing.T) {
	f := Features{Missing: map[string]string{beforeTranslation: "others are first", "note_request": "too old", "note_send6": "no cgroup2", "note_ingress": "no cgroup2"}}
	want := []string{
		"addresses before Service translation are not observed: no cgroup2",
		"addresses before Service translation are not observed: others are first",
		"datagrams (UDP, ICMP, raw sockets) and DNS are not observed: no cgroup2",
		"files that are used through io_uring are not observed: too old",
	}
	if got := f.Gaps(); !slices.Equal(got, want) {
		t.Errorf("gaps are %q", got)
	}
}
