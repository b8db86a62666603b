package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/tests/cluster/image"
)

// realEnv asks for the tests that start a real cluster.
const realEnv = "AUTOPOLICY_CLUSTER"

// realCluster returns a cluster beside the one that a developer may have.
// It shares that one's compiled programs.
func realCluster(t *testing.T) (*Cluster, Options) {
	t.Helper()
	if os.Getenv(realEnv) != "1" {
		t.Skipf("starts a real cluster (1.6 GB of memory; minutes when cold): set %s=1 to run it", realEnv)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("%s=1, but a cluster needs root", realEnv)
	}
	source, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	c := mustNew(t, os.Getenv("AUTOPOLICY_CLUSTER_STATE"), "selftest")
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c, Options{Nodes: 2, Source: source, Progress: testWriter{t}}
}

func TestARealClusterRunsPodsAndLeavesNothing(t *testing.T) {
	c, options := realCluster(t)
	if err := Setup(t.Context(), options.CNI, options.Progress); err != nil {
		t.Fatal(err)
	}
	before := takeFootprint(t, c)
	if err := c.Up(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	if err := c.Up(t.Context(), options); !errors.Is(err, ErrUp) {
		t.Errorf("a second Up: %v, want %v", err, ErrUp)
	}
	if n, err := c.Nodes(); n != 2 || err != nil {
		t.Errorf("Nodes() = %d, %v; want 2", n, err)
	}
	runPods(t, c)
	t.Run("a name of a Service resolves on either node and its port leads to the pod's", func(t *testing.T) {
		for _, pod := range []string{"client-node0", "client-node1"} {
			if got := kubectl(t, c, nil, "exec", pod, "--", "wget", "-qO-", "http://server.default/"); got != "hello\n" {
				t.Errorf("%s got %q, want hello", pod, got)
			}
		}
	})
	t.Run("a name outside of the cluster does not exist", func(t *testing.T) {
		if _, err := c.Kubectl(t.Context(), nil, "exec", "client-node0", "--", "wget", "-qO-", "http://example.com/"); err == nil || !strings.Contains(err.Error(), "bad address") {
			t.Errorf("error = %v, want bad address", err)
		}
	})
	t.Run("logs are served", func(t *testing.T) {
		if got := kubectl(t, c, nil, "logs", "server"); got != "serving\n" {
			t.Errorf("log is %q, want serving", got)
		}
	})
	t.Run("a port is forwarded", func(t *testing.T) { forwardPort(t, c) })
	t.Run("a command runs in a node's namespaces", func(t *testing.T) {
		enter, err := c.Enter("node1")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), enter[0], append(enter[1:], "hostname")...).Output()
		if err != nil || string(out) != "node1\n" {
			t.Errorf("host name is %q, %v; want node1", out, err)
		}
	})
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.compare(t, takeFootprint(t, c))
}

func TestUpThatIsInterruptedLeavesNothing(t *testing.T) {
	c, options := realCluster(t)
	if _, err := c.Build(t.Context(), options.CNI, options.Source, options.Progress); err != nil {
		t.Fatal(err)
	}
	before := takeFootprint(t, c)
	for _, line := range []string{"starting the control plane", "the API server is ready", "nodes are ready"} {
		ctx, cancel := context.WithCancel(t.Context())
		options := options
		options.Progress = cancelAt{options.Progress, line, cancel}
		if err := c.Up(ctx, options); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted when %s: error = %v, want %v", line, err, context.Canceled)
		}
		cancel()
		before.compare(t, takeFootprint(t, c))
	}
}

func TestUpSaysWhichProgramEnded(t *testing.T) {
	c, options := realCluster(t)
	before := takeFootprint(t, c)
	options.Progress = cancelAt{options.Progress, "starting the control plane", func() {
		// etcd cannot use a file as its data folder.
		if err := os.WriteFile(filepath.Join(c.controlDir(), "etcd"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}}
	err := c.Up(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "etcd: ended") {
		t.Errorf("error = %v, want one that names etcd", err)
	}
	before.compare(t, takeFootprint(t, c))
}

const podManifest = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: localhost/selftest:1
    imagePullPolicy: Never
    args: [-c, "mkdir /www; echo hello > /www/index.html; echo serving; exec busybox httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
`

const clientManifest = `
---
apiVersion: v1
kind: Pod
metadata: {name: client-%[1]s}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "localhost/selftest:1", imagePullPolicy: Never, args: [-c, "exec busybox sleep 1000"]}
`

// runPods makes an image of busybox, loads it, and starts a server with a
// Service and a client on each node.
func runPods(t *testing.T, c *Cluster) {
	t.Helper()
	busybox, err := findProgram("busybox")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	var data bytes.Buffer
	err = image.Write(&data, image.Config{
		Ref: "localhost/selftest:1", Arch: runtime.GOARCH, Entrypoint: []string{"/bin/sh"},
		Files: []image.File{
			{Path: "/bin/busybox", Source: busybox},
			{Path: "/bin/sh", Link: "busybox"}, {Path: "/bin/wget", Link: "busybox"}, {Path: "/bin/mkdir", Link: "busybox"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, data.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	manifest := podManifest + fmt.Sprintf(clientManifest, "node0") + fmt.Sprintf(clientManifest, "node1")
	// The default service account is made a moment after its namespace.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last error
	if err := poll(ctx, 200*time.Millisecond, func() (bool, error) {
		_, last = c.Kubectl(ctx, strings.NewReader(manifest), "apply", "-f", "-")
		return last == nil, nil
	}); err != nil {
		t.Fatal(errors.Join(err, last))
	}
	kubectl(t, c, nil, "wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all")
}

func forwardPort(t *testing.T, c *Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.BinDir(), "kubectl"), "--kubeconfig="+c.Kubeconfig(), "port-forward", "pod/server", ":8080")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "hello\n" {
		t.Errorf("got %q, %v through %q; want hello", body, err, line)
	}
}

func kubectl(t *testing.T, c *Cluster, stdin io.Reader, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// footprint is what a cluster could leave on the machine, by kind.
type footprint map[string][]string

func takeFootprint(t *testing.T, c *Cluster) footprint {
	t.Helper()
	groups, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{}
	for _, root := range groups.roots {
		f["cgroups"] = append(f["cgroups"], glob(t, filepath.Join(root, c.cgroup()+"*"))...)
	}
	f["folders"] = slices.Concat(glob(t, "/run/*"), glob(t, "/var/lib/*"), glob(t, "/var/log/*"), glob(t, "/opt/*"), glob(t, "/etc/cni*"), glob(t, c.dir()))
	f["links"] = glob(t, "/sys/class/net/*")
	f["mounts"], err = mountsBelow("")
	if err != nil {
		t.Fatal(err)
	}
	for _, sysctl := range []string{"vm/overcommit_memory", "kernel/panic", "net/ipv4/ip_forward"} {
		value, err := os.ReadFile("/proc/sys/" + sysctl)
		if err != nil {
			t.Fatal(err)
		}
		f["settings"] = append(f["settings"], sysctl+"="+strings.TrimSpace(string(value)))
	}
	// Its programs and its shims have its folder or its cgroup in their state.
	for _, dir := range glob(t, "/proc/[0-9]*") {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		group, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue
		}
		if len(line) == 0 {
			continue // ended, and not yet collected by its parent
		}
		if bytes.Contains(line, []byte(c.dir())) || bytes.Contains(group, []byte(c.cgroup()+"/")) {
			f["processes"] = append(f["processes"], dir+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return f
}

// compare reports what is in after and was not in f.
func (f footprint) compare(t *testing.T, after footprint) {
	t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(after)) {
		for _, thing := range after[kind] {
			if !slices.Contains(f[kind], thing) {
				t.Errorf("left behind, of the %s: %s", kind, thing)
			}
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// testWriter shows progress as the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// cancelAt calls do when a line with text is written.
type cancelAt struct {
	io.Writer
	text string
	do   func()
}

func (w cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.do()
	}
	return w.Writer.Write(p)
}
