package forge

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// user is a person with a home of their own who runs the plugin.
type user struct {
	home string
	env  []string
}

func newUser(t *testing.T, name string, env ...string) *user {
	t.Helper()
	u := &user{home: t.TempDir()}
	write(t, filepath.Join(u.home, ".gitconfig"), "[user]\n\tname = "+name+"\n\temail = "+strings.ToLower(name)+"@example.com\n")
	u.env = append([]string{"HOME=" + u.home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "KUBECONFIG=" + filepath.Join(u.home, "none")}, env...)
	return u
}

// start begins a command; the returned function waits for its end.
func (u *user) start(t *testing.T, args ...string) func() (code int, said string) {
	t.Helper()
	program, err := exec.LookPath("kubectl-autopolicy")
	if err != nil {
		t.Fatal("the plugin is not built: run 'make e2e-gitops'")
	}
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Dir = u.env, u.home
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return func() (int, string) {
		t.Helper()
		select {
		case err := <-done:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return exit.ExitCode(), out.String()
			}
			if err != nil {
				t.Fatal(err)
			}
			return 0, out.String()
		case <-time.After(2 * time.Minute):
			cmd.Process.Kill()
			<-done
			t.Fatalf("%q does not end:\n%s", args, out.String())
			return 0, ""
		}
	}
}

// does runs a command that ends with want, and returns what it said.
func (u *user) does(t *testing.T, want int, args ...string) string {
	t.Helper()
	code, said := u.start(t, args...)()
	if code != want {
		t.Fatalf("%q ended with %d, not %d:\n%s", args, code, want, said)
	}
	return said
}

// observed writes what a workload did, in the form that discover --from reads.
func observed(t *testing.T, name string, paths ...string) string {
	t.Helper()
	noon := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	exe := "/usr/bin/" + name
	e := behavior.Evidence{First: noon, Last: noon.Add(time.Minute), Pods: map[string]uint64{name + "-1": 3}}
	p := behavior.Profile{
		Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: name}, Container: name},
		Labels:  "app=" + name,
		Coverage: behavior.Coverage{Replicas: 1, Pods: map[string]behavior.PodCoverage{
			name + "-1": {Node: "node-1", Image: name + "@sha256:1", From: noon, To: noon.Add(time.Hour), Start: true},
		}},
	}
	p.Add(behavior.Fact{Kind: behavior.Process, Path: exe}, e)
	for _, path := range paths {
		p.Add(behavior.Fact{Kind: behavior.File, Exe: exe, Path: behavior.Escape(path), Access: behavior.Read}, e)
	}
	data, err := behavior.EncodeFile([]behavior.Profile{p})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name+".yaml")
	write(t, file, string(data))
	return file
}
