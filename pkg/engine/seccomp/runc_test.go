package seccomp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// program writes a line, makes a folder and exits with the error that it got. It
// makes no other system call.
const program = `
static long call(long n, long a, long b, long c) {
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}
void _start(void) {
	call(1, 1, (long)"started\n", 8);
	call(60, -call(83, (long)"/tmp/made", 0700, 0), 0, 0);
}`

// TestARuntimeStartsAContainerUnderItsProfile starts a real container, whose
// program was seen to write and exit, under the profiles of both stages.
func TestARuntimeStartsAContainerUnderItsProfile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to start a container")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the container's program is written for amd64")
	}
	started := false
	for _, name := range []string{"runc", "crun"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not installed; a container is not started by it", name)
			continue
		}
		t.Run(name, func(t *testing.T) { started = startUnder(t, path) || started })
	}
	if !started {
		t.Skip("neither runc nor crun can start a container here")
	}
}

// startUnder tells whether the runtime can start containers on this machine: crun
// 1.8 cannot where cgroup v1 and v2 are both mounted.
func startUnder(t *testing.T, oci string) bool {
	cc, err := exec.LookPath("clang")
	if err != nil {
		t.Skip("needs clang to build the container's program")
	}
	bundle := t.TempDir()
	for _, dir := range []string{"tmp", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := filepath.Join(bundle, "program.c")
	if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O1", "-static", "-nostdlib", "-ffreestanding", "-o", filepath.Join(bundle, "rootfs/program"), source).CombinedOutput(); err != nil {
		t.Fatalf("build the container's program: %v\n%s", err, out)
	}
	some := learnt(t, "web", call("amd64", "write", "exit")...)
	all := learnt(t, "web", call("amd64", "write", "exit", "mkdir")...)
	of := func(e seccomp.Engine, set policy.Set, stage policy.Stage) []byte {
		rendered, err := e.Render(set)
		if err != nil {
			t.Fatal(err)
		}
		return rendered.Stage[stage]["seccomp-web.json"]
	}
	quiet := seccomp.Engine{WithoutLog: true}
	if code, out := start(t, oci, bundle, nil, true); code != 0 {
		t.Logf("%s cannot start a container here, even without a profile: %s", oci, out)
		return false
	}
	if err := os.Remove(filepath.Join(bundle, "rootfs/tmp/made")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		profile []byte
		want    int // exit code: the error of making a folder
	}{
		{"in stage audit everything works", of(seccomp.Engine{}, some, policy.Audit), 0},
		{"in stage deny what was not seen is refused", of(quiet, some, policy.Deny), 1},
		{"in stage deny what was seen works", of(quiet, all, policy.Deny), 0},
		{"refused and logged", of(seccomp.Engine{}, some, policy.Deny), 1},
		{"with the flag to log what was seen works", of(seccomp.Engine{}, all, policy.Deny), 0},
	} {
		for _, privileges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, no new privileges %t", tt.name, privileges), func(t *testing.T) {
				got, out := start(t, oci, bundle, tt.profile, privileges)
				if strings.Contains(out, "flags are not yet supported") && strings.Contains(string(tt.profile), "SECCOMP_FILTER_FLAG_LOG") {
					t.Logf("%s is older than 1.2: what the flag to log does is not tried here; that is what WithoutLog is for", oci)
					if got == 0 {
						t.Error("it says that it refuses the flag, and ends well")
					}
					return
				}
				if got != tt.want || out != "started\n" {
					t.Errorf("exit code %d and output %q, want %d and started", got, out, tt.want)
				}
			})
			if err := os.RemoveAll(filepath.Join(bundle, "rootfs/tmp/made")); err != nil {
				t.Fatal(err)
			}
		}
	}
	return true
}

func start(t *testing.T, oci, bundle string, profile []byte, noNewPrivileges bool) (int, string) {
	t.Helper()
	capabilities := []string{"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"}
	linux := map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}}}
	if profile != nil {
		linux["seccomp"] = json.RawMessage(profile)
	}
	config, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"user": map[string]int{"uid": 0, "gid": 0}, "args": []string{"/program"}, "cwd": "/", "noNewPrivileges": noNewPrivileges,
			"capabilities": map[string][]string{"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
		},
		"root":   map[string]any{"path": "rootfs"},
		"mounts": []map[string]any{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":  linux,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("autopolicy-test-%d", os.Getpid())
	args := []string{"--root", filepath.Join(bundle, "state")}
	if filepath.Base(oci) == "crun" { // it refuses hybrid hierarchies, and cgroups are not the point
		args = append(args, "--cgroup-manager=disabled")
	}
	cmd := exec.CommandContext(t.Context(), oci, append(args, "run", "--bundle", bundle, id)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("start a container: %v", err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}
