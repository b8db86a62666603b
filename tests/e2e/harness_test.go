// Package e2e runs the built plugin against a real cluster with the real
// collector, and looks at what a user would see and at what is left behind.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	collectorImage = "localhost/autopolicy-collector:e2e"
	namespace      = "autopolicy-collector"
)

// world is the cluster that every test of this package shares, and the programs
// that it is worked with.
type world struct {
	name       string // of the cluster
	root, dir  string // of the repository, and for files of the test
	kubeconfig string
	bin        string // folder with kubectl
	cluster    string // program that starts and stops it
}

var shared world

func TestMain(m *testing.M) {
	if os.Getenv("AUTOPOLICY_E2E") == "" {
		os.Exit(m.Run()) // every test skips, and says why
	}
	os.Exit(func() (code int) {
		if err := shared.up(); err != nil {
			fmt.Fprintln(os.Stderr, "start the test cluster:", err)
			code = 1
		} else {
			code = m.Run()
		}
		if err := shared.down(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the test cluster:", err)
			code = 1
		}
		return code
	}())
}

func needCluster(t *testing.T) *world {
	t.Helper()
	if os.Getenv("AUTOPOLICY_E2E") == "" {
		t.Skip("needs a real cluster: run 'make e2e', which sets AUTOPOLICY_E2E")
	}
	return &shared
}

// up starts the cluster AUTOPOLICY_E2E_NAME with the shop in it. With
// AUTOPOLICY_E2E_KEEP it takes one that an earlier call started and kept, as it is.
func (w *world) up() error {
	var err error
	if w.name = os.Getenv("AUTOPOLICY_E2E_NAME"); w.name == "" {
		w.name = "e2e"
	}
	if w.root, err = filepath.Abs("../.."); err != nil {
		return err
	}
	if w.dir, err = os.MkdirTemp("", "autopolicy-e2e-"); err != nil {
		return err
	}
	w.cluster = filepath.Join(w.dir, "cluster")
	build := w.command("go", "-C", filepath.Join(w.root, "tests/cluster"), "build", "-o", w.cluster, "./cmd/cluster")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the cluster program: %w\n%s", err, out)
	}
	if keep() && w.environment() == nil && w.command("kubectl", "get", "namespace", "shop").Run() == nil {
		return w.command("kubectl", "delete", "namespace", namespace, "--ignore-not-found").Run()
	}
	steps := [][]string{
		{w.cluster, "up", "--name=" + w.name, "--nodes=2", "--source=" + filepath.Join(w.root, "tests/cluster")},
		{"go", "-C", w.root, "run", "./manifests/image", "-ref", collectorImage, "-version", "e2e", "-out", w.path("collector.tar")},
		{filepath.Join(w.root, "tests/demo/shop/image.sh"), w.path("shop.tar")},
		{w.cluster, "load", "--name=" + w.name, w.path("collector.tar"), w.path("shop.tar")},
		{w.cluster, "crds", "--module-dir=" + w.root, w.path("crds")},
	}
	for _, step := range steps {
		if out, err := w.command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(step, " "), err, out)
		}
		if step[1] == "up" {
			if err := w.environment(); err != nil {
				return err
			}
		}
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", w.path("crds")},
		{"apply", "-k", filepath.Join(w.root, "tests/demo/shop/k8s")},
		{"apply", "-k", filepath.Join(w.root, "tests/demo/shop/vault")},
		{"-n", "shop", "wait", "--for=condition=Available", "--timeout=180s", "deployment", "--all"},
		{"-n", "shop", "rollout", "status", "statefulset/store", "--timeout=120s"},
	} {
		if out, err := w.command("kubectl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// environment takes KUBECONFIG and the folder of kubectl from what the cluster
// program prints for a shell.
func (w *world) environment() error {
	lines, err := exec.Command(w.cluster, "env", "--name="+w.name).Output()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	out, err := exec.Command("sh", "-c", string(lines)+"\necho \"$KUBECONFIG\"; command -v kubectl").Output()
	if err != nil {
		return err
	}
	fields := strings.Fields(string(out))
	if len(fields) != 2 {
		return fmt.Errorf("cluster env gave %q", lines)
	}
	w.kubeconfig, w.bin = fields[0], filepath.Dir(fields[1])
	return nil
}

// keep tells whether the cluster is to stay for another call.
func keep() bool { return os.Getenv("AUTOPOLICY_E2E_KEEP") != "" }

func (w *world) down() error {
	if keep() {
		return os.RemoveAll(w.dir)
	}
	out, err := exec.Command(w.cluster, "down", "--name="+w.name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.RemoveAll(w.dir)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) command(name string, args ...string) *exec.Cmd {
	if name == "kubectl" && w.bin != "" {
		name = filepath.Join(w.bin, "kubectl")
	}
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "CLUSTER="+w.cluster,
		"PATH="+w.bin+":"+filepath.Join(w.root, "bin")+":"+os.Getenv("PATH"))
	return c
}

// kubectl runs a command that must succeed, and gives what it printed.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.command("kubectl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// result is what one run of the plugin gave.
type result struct {
	code        int
	out, errOut string
}

// plugin runs "kubectl autopolicy" in a folder of the test.
func (w *world) plugin(t *testing.T, dir string, args ...string) result {
	t.Helper()
	r := w.start(t, dir, args...)
	return r.wait()
}

// running is the plugin while it runs.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has, with err set
	err    error
}

// start runs the plugin as a process group of its own.
func (w *world) start(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: w.command(filepath.Join(w.root, "bin/kubectl-autopolicy"), args...), ended: make(chan struct{})}
	r.cmd.Dir = dir
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Stdout = writer(func(p []byte) { r.mu.Lock(); defer r.mu.Unlock(); r.stdout.Write(p) })
	r.cmd.Stderr = writer(func(p []byte) { r.mu.Lock(); defer r.mu.Unlock(); r.stderr.Write(p) })
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	// A test that fails early leaves no plugin running, and so no collector.
	t.Cleanup(func() {
		r.cmd.Process.Signal(syscall.SIGTERM)
		<-r.ended
	})
	return r
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func (r *running) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stderr.String()
}

// until waits for a text on standard error.
func (r *running) until(text string) {
	r.t.Helper()
	eventually(r.t, 2*time.Minute, "the plugin to say "+text, func() bool {
		select {
		case <-r.ended:
			r.wait()
			r.t.Fatalf("the plugin ended before it said %q", text)
		default:
		}
		return strings.Contains(r.said(), text)
	})
}

func (r *running) wait() result {
	r.t.Helper()
	<-r.ended
	var exit *exec.ExitError
	if r.err != nil && !errors.As(r.err, &exit) {
		r.t.Fatal(r.err)
	}
	res := result{r.cmd.ProcessState.ExitCode(), r.stdout.String(), r.stderr.String()}
	r.t.Logf("$ kubectl autopolicy %s\n%s%s(exit code %d)", strings.Join(r.cmd.Args[1:], " "), res.out, res.errOut, res.code)
	return res
}

// eventually polls until a condition holds.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// workspace makes an empty GitOps repository and a folder with a configuration
// that names it.
func (w *world) workspace(t *testing.T) (dir, repository string) {
	t.Helper()
	dir = t.TempDir()
	repository = filepath.Join(dir, "fleet.git")
	git(t, "init", "-q", "--bare", "-b", "main", repository)
	config := fmt.Sprintf("apiVersion: autopolicy.dev/v1alpha1\nkind: Config\nrepository: file://%s\nauthor: {name: Test, email: test@example.com}\ncollector: {image: %q}\n", repository, collectorImage)
	if err := os.WriteFile(filepath.Join(dir, "autopolicy.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, repository
}

func git(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// attack makes the web application run a shell command, as a hole in it would
// let somebody outside the cluster do.
func (w *world) attack(t *testing.T, command string) string {
	t.Helper()
	forward := w.command("kubectl", "-n", "shop", "port-forward", "deployment/web", ":8080")
	pipe, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		forward.Process.Kill()
		forward.Wait()
	}()
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(line, "127.0.0.1:")
	port, _, _ = strings.Cut(port, " ")
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + port + "/debug?cmd=" + url.QueryEscape(command))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
