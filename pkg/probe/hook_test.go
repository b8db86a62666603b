//go:build linux

package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// What another family sees of the hooks must be what the tracepoints see; where the
// kernel lacks a family, the probe says so and works without.
func TestEveryFamilySeesTheSame(t *testing.T) {
	want := map[string][]behavior.Fact{
		"note_capability": {
			{Kind: behavior.Capability, Exe: "/bin/app", Name: "SYS_CHROOT", Syscall: "chroot"},
			{Kind: behavior.Capability, Exe: "/bin/app", Name: "SYS_CHROOT", Syscall: "chroot", Refused: true},
		},
	}
	for _, family := range append(Families(), "") {
		t.Run("family "+family, func(t *testing.T) {
			p := requireProbe(t, Options{Family: family})
			features := p.Features()
			t.Logf("programs %v, missing %v, hooks %v", features.Programs, features.Missing, features.Hooks)
			_, records := observe(t, p, actions("chroot /", "drop SYS_CHROOT", "refused chroot /")...)
			for name, facts := range want {
				if reason := features.Missing[name]; reason != "" {
					t.Logf("SKIPPED: %s: %s", name, reason)
					if !slices.ContainsFunc(features.Gaps(), func(gap string) bool { return strings.HasSuffix(gap, reason) }) {
						t.Errorf("%s is missing and no gap says so: %v", name, features.Gaps())
					}
					continue
				}
				for _, fact := range facts {
					wantFact(t, records, fact)
				}
			}
			for _, r := range records {
				if f := r.Fact; f.Kind == behavior.Capability && slices.Contains([]string{"mmap", "brk", "execve", "mprotect"}, f.Syscall) {
					t.Errorf("a check in passing is a fact: %s", f)
				}
			}
			if l := allLost(t, p); l["return not seen: capability"] > 0 {
				t.Errorf("lost %v", l)
			}
		})
	}
}

func TestUnknownFamilyIsRefused(t *testing.T) {
	if p, err := Open(Options{Family: "guess"}); err == nil {
		t.Error("opened", p.Close())
	}
}

func TestARefusalIsToldWithoutTheLibrarysAdvice(t *testing.T) {
	err := explain(fmt.Errorf("load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM))
	if want := "open probe: not permitted to load programs: load program: operation not permitted"; err.Error() != want || !errors.Is(err, ErrPermission) {
		t.Errorf("said %q, want %q", err, want)
	}
}

func TestALockedKernelIsToldFromAnOldOne(t *testing.T) {
	// What 6.12 says: helpers that read kernel memory are not there.
	err := explain(fmt.Errorf("load: %w", &ebpf.VerifierError{
		Cause: unix.EINVAL, Log: []string{"program of this type cannot use helper bpf_probe_read_kernel#113"},
	}))
	if !errors.Is(err, ErrLockdown) {
		t.Errorf("explained as %v", err)
	}
	err = explain(fmt.Errorf("load: %w", &ebpf.VerifierError{Cause: unix.EACCES, Log: []string{"R1 invalid mem access"}}))
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("explained as %v", err)
	}
}
