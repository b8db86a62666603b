//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Why a probe cannot be opened; an OpenError wraps one of them.
var (
	ErrNoBTF       = errors.New("kernel has no type information (BTF)")
	ErrPermission  = errors.New("not permitted to load programs")
	ErrLockdown    = errors.New("kernel is locked down")
	ErrUnsupported = errors.New("kernel lacks what the programs need")
)

// ErrRecord is returned for bytes that no program of ours can have written.
var ErrRecord = errors.New("malformed record")

// OpenError tells why a probe cannot be opened.
type OpenError struct {
	Reason error // ErrNoBTF, ErrPermission, ErrLockdown or ErrUnsupported
	Err    error // what the kernel said; may be nil
}

func (e *OpenError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("open probe: %v", e.Reason)
	}
	return fmt.Sprintf("open probe: %v: %s", e.Reason, withoutAdvice(e.Err.Error()))
}

// withoutAdvice takes out what the library advises its callers for every refusal: the
// limit that it means was lifted before, or that this failed is told with it.
func withoutAdvice(text string) string {
	return strings.ReplaceAll(text, " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
}

// Unwrap gives the reason and what the kernel said.
func (e *OpenError) Unwrap() []error { return []error{e.Reason, e.Err} }

// Hint says what a user can do about it.
func (e *OpenError) Hint() string {
	switch {
	case errors.Is(e.Reason, ErrNoBTF):
		return "use a kernel of 5.10 or later that is built with CONFIG_DEBUG_INFO_BTF=y"
	case errors.Is(e.Reason, ErrLockdown):
		return "the node runs in lockdown mode confidentiality, which forbids to read kernel memory; mode integrity allows it"
	case errors.Is(e.Reason, ErrPermission):
		return "it needs the capabilities BPF, PERFMON and NET_ADMIN, and SYS_RESOURCE before Linux 5.11; something takes them away"
	default:
		return "use a kernel of 5.10 or later with tracepoints and control group BPF"
	}
}

// explain makes an OpenError of what went wrong while loading.
func explain(err error) error {
	reason := ErrUnsupported
	var verifier *ebpf.VerifierError
	refused := errors.As(err, &verifier) // the program, whatever the errno says
	switch {
	case errors.Is(err, btf.ErrNotFound) && !hasBTF():
		reason = ErrNoBTF
	case isLockedDown(), refused && strings.Contains(verifier.Error(), "cannot use helper bpf_probe_read"):
		reason = ErrLockdown
	case refused:
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, fs.ErrPermission):
		reason = ErrPermission
	}
	return &OpenError{Reason: reason, Err: err}
}

// isLockedDown tells whether kernel memory must not be read. Where securityfs is
// not mounted, as in most containers, it cannot tell.
func isLockedDown() bool {
	mode, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && strings.Contains(string(mode), "[confidentiality]")
}

func hasBTF() bool {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return err == nil
}
