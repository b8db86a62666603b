//go:build linux

package collector

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// With these the test binary is a collector in a process of its own, which can be
// stopped and killed, and a container for it to observe.
const (
	collectorEnv = "AUTOPOLICY_TEST_COLLECTOR"
	containerEnv = "AUTOPOLICY_TEST_CONTAINER"
)

// runCollector is what a collector's program does, with an API server that knows
// of one pod.
func runCollector(keep string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	api := httptest.NewServer(http.HandlerFunc(onePod))
	defer api.Close()
	client, err := dynamic.NewForConfig(&rest.Config{Host: api.URL})
	if err != nil {
		return err
	}
	kernel, err := Attach("")
	if err != nil {
		return err
	}
	defer kernel.Close()
	if keep == "none" {
		keep = ""
	}
	c, err := New(kernel, Options{Node: "node-1", Version: "test", Epoch: fmt.Sprint("epoch-", os.Getpid()), API: client, Keep: keep})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Run(ctx) })
	group.Go(func() error { return c.Serve(ctx, listener) })
	return group.Wait()
}

// onePod answers who lists and watches pods.
func onePod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("sendInitialEvents") != "" {
		w.WriteHeader(http.StatusUnprocessableEntity) // as an older API server: then it lists
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		return
	}
	if r.URL.Query().Get("watch") != "" {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: uidA, ResourceVersion: "1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "localhost/web:1"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "web", ContainerID: "containerd://" + idA, Ready: true,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}},
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.Pod{pod}}
	_ = json.NewEncoder(w).Encode(list) // who does not read it asks again
}

// child is the test binary in one of its roles.
type child struct {
	t       *testing.T
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	first   string // line that it says
}

func startChild(t *testing.T, env string, attr *syscall.SysProcAttr) *child {
	t.Helper()
	c := &child{t: t, command: exec.Command("/proc/self/exe")}
	c.command.Env = append(os.Environ(), env)
	c.command.SysProcAttr = attr
	c.command.Stderr = os.Stderr
	var err error
	if c.stdin, err = c.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewReader(stdout)
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stdin.Close()
		c.command.Process.Kill()
		c.command.Wait()
	})
	c.first = c.line()
	return c
}

func (c *child) line() string {
	c.t.Helper()
	line, err := c.stdout.ReadString('\n')
	if err != nil {
		c.t.Fatalf("child says %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// does gives a container something to do, and what it says of it.
func (c *child) does(words ...string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.stdin, strings.Join(words, " ")); err != nil {
		c.t.Fatal(err)
	}
	return c.line()
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.command.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// startCollector starts the collector, which keeps its profile in a file.
func startCollector(t *testing.T, keep string) *child {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root to load programs into the kernel")
	}
	if keep == "" {
		keep = "none"
	}
	return startChild(t, collectorEnv+"="+keep, nil)
}

// startContainer starts a process in a mount namespace and a control group of its
// own, named as a runtime names a container's.
func startContainer(t *testing.T) *child {
	t.Helper()
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.subtree_control")); err == nil {
			root = dir
			break
		}
	}
	if root == "" {
		t.Skip("SKIPPED: needs a version 2 hierarchy of control groups")
	}
	// A folder of this run, as others may test at the same time.
	base := filepath.Join(root, fmt.Sprint("autopolicy-test-", os.Getpid()))
	group := filepath.Join(base, "kubepods", "pod"+uidA, idA)
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Skipf("SKIPPED: needs to make control groups: %v", err)
	}
	t.Cleanup(func() {
		for dir := group; len(dir) >= len(base); dir = filepath.Dir(dir) {
			eventually(t, "control group "+dir+" to be empty", func() bool { return os.Remove(dir) == nil })
		}
	})
	fd, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	return startChild(t, containerEnv+"=1", &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(fd.Fd()),
	})
}

// eventually tries until it succeeds, half a minute at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// seen is what one pull gives of the container.
type seen struct {
	epoch     string
	container wire.Container
	facts     map[behavior.Fact]wire.Observation
	status    wire.Status
}

// lost counts what is said to be lost of a kind, of the container and of the node.
func (s seen) lost(kind behavior.Kind) uint64 {
	n := s.status.Unattributed
	for _, from := range []map[string]uint64{s.container.Lost, s.status.Lost} {
		for reason, count := range from {
			if strings.HasSuffix(reason, ": "+string(kind)) {
				n += count
			}
		}
	}
	return n
}

func (c *child) pull() seen {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.first, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	stream, err := wirepb.NewCollectorClient(conn).Pull(c.t.Context(), &wirepb.PullRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	s := seen{facts: map[behavior.Fact]wire.Observation{}}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return s
		}
		if err != nil {
			c.t.Fatal(err)
		}
		b, err := wire.DecodeBatch(m)
		if err != nil {
			c.t.Fatal(err)
		}
		s.epoch = b.Epoch
		for _, k := range b.Containers {
			if k.ID == idA {
				for _, o := range k.Facts {
					s.facts[o.Fact] = o
				}
				k.Facts = nil
				s.container = k
			}
		}
		if b.Status != nil {
			s.status = *b.Status
		}
	}
}

// until pulls until what came is as it should be.
func (c *child) until(what string, ok func(seen) bool) seen {
	c.t.Helper()
	var s seen
	eventually(c.t, what, func() bool {
		s = c.pull()
		return ok(s)
	})
	return s
}

// names counts the facts of a kind below a folder.
func (s seen) names(kind behavior.Kind, dir string) int {
	paths := map[string]bool{}
	for f := range s.facts {
		if f.Kind == kind && strings.HasPrefix(f.Path, dir+"/") {
			paths[f.Path] = true
		}
	}
	return len(paths)
}

func knows(s seen) bool { return s.container.ID == idA && len(s.facts) > 0 }

func resolvedTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAReaderThatIsStoppedUnderLoadSaysWhatItLost(t *testing.T) {
	const files = 12_000 // more than one container may have in the ring
	c := startCollector(t, "")
	box := startContainer(t)
	dir := resolvedTempDir(t)
	box.does("files", dir, "1")
	c.until("the container", knows)
	c.signal(syscall.SIGSTOP)
	box.does("files", dir, fmt.Sprint(files))
	c.signal(syscall.SIGCONT)
	s := c.until("all to be found or counted", func(s seen) bool { return uint64(s.names(behavior.File, dir))+s.lost(behavior.File) >= files })
	found := s.names(behavior.File, dir)
	t.Logf("%d of %d files found, lost %v and %v at %v", found, files, s.container.Lost, s.status.Lost, s.container.LostAt)
	if found == files {
		t.Error("nothing was lost: the test shows nothing")
	}
	if uint64(found)+s.lost(behavior.File) < files {
		t.Errorf("%d files found and %d losses counted of %d", found, s.lost(behavior.File), files)
	}
	for reason := range s.container.Lost {
		if span := s.container.LostAt[reason]; span.First.IsZero() || span.Last.Before(span.First) {
			t.Errorf("%q was lost at %v", reason, span)
		}
	}
	// What it does again is found.
	for range 10 {
		box.does("files", dir, fmt.Sprint(files))
		if found = c.pull().names(behavior.File, dir); found == files {
			return
		}
	}
	t.Errorf("%d of %d files found in the end", found, files)
}

func TestThousandsOfProcessesASecondAreFoundOrCounted(t *testing.T) {
	const programs, runs = 1500, 30_000
	c := startCollector(t, "")
	box := startContainer(t)
	dir := resolvedTempDir(t)
	plantPrograms(t, dir, programs)
	box.does("files", dir, "1")
	c.until("the container", knows)
	said := box.does("run", dir, fmt.Sprint(programs), fmt.Sprint(runs))
	s := c.until("the programs", func(s seen) bool { return uint64(s.names(behavior.Process, dir))+s.lost(behavior.Process) >= programs })
	found := s.names(behavior.Process, dir)
	t.Logf("%s: %d of %d programs found, lost %v and %v", said, found, programs, s.container.Lost, s.status.Lost)
	if found < programs && s.lost(behavior.Process) < uint64(programs-found) {
		t.Errorf("%d of %d programs found, and %d losses counted", found, programs, s.lost(behavior.Process))
	}
}

func TestACollectorThatIsKilledLeavesNothingAndItsFollowerSaysSo(t *testing.T) {
	for name, keep := range map[string]bool{"with its profile kept": true, "with nothing kept": false} {
		t.Run(name, func(t *testing.T) {
			file := ""
			if keep {
				file = filepath.Join(t.TempDir(), "profile")
			}
			before := pins(t)
			c := startCollector(t, file)
			box := startContainer(t)
			dir := resolvedTempDir(t)
			box.does("files", dir, "1")
			first := c.until("the container", knows)
			held := kernelObjects(t, c.command.Process.Pid)
			if len(held) < 15 {
				t.Fatalf("the collector holds only %v: the test shows nothing", held)
			}
			if keep {
				eventually(t, "the profile to be kept", func() bool {
					info, err := os.Stat(file)
					return err == nil && info.Size() > 0
				})
			}
			c.signal(syscall.SIGKILL)
			_ = c.command.Wait() // it was killed
			nothingLeft(t, held)
			if after := pins(t); !slices.Equal(before, after) {
				t.Errorf("pinned: %v, before %v", after, before)
			}
			box.does("files", dir, "20") // nobody sees that
			c = startCollector(t, file)
			box.does("files", dir, "1")
			second := c.until("the container again", knows)
			if second.epoch == first.epoch && !keep {
				t.Error("the follower has the same epoch: nobody would notice")
			}
			if second.container.Start && !keep {
				t.Error("it claims to have seen the container's start")
			}
			if keep {
				if second.container.Lost[restartReason] == 0 {
					t.Errorf("it kept the profile and says that it lost %v", second.container.Lost)
				}
			} else if !second.container.From.After(first.container.From) {
				t.Errorf("it claims to have observed since %v", second.container.From)
			}
		})
	}
}

func TestACollectorThatIsStoppedLeavesNothing(t *testing.T) {
	c := startCollector(t, "")
	held := kernelObjects(t, c.command.Process.Pid)
	if len(held) < 15 {
		t.Fatalf("the collector holds only %v: the test shows nothing", held)
	}
	c.signal(syscall.SIGTERM)
	if err := c.command.Wait(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, held)
}
