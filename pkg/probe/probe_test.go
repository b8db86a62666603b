//go:build linux

package probe

import (
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestDebug(t *testing.T) {
	p := requireProbe(t, Options{})
	t.Logf("%+v", p.Features())
	c, records := observe(t, p, "read", "/etc/config", "--", "run", "/bin/tool", "read", "/etc/other", "--", "tcp", "127.0.0.1:8080", "--", "udp", "[::1]:5300", "--", "memfd", "true")
	for _, r := range records {
		t.Logf("%s %+v", r.Fact, r)
	}
	_ = behavior.Read
	s, err := p.Syscalls()
	t.Log(s[c.mntns], err)
	t.Log(p.Lost())
	t.Log(p.Stats())
}
