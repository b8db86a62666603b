package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// Options say how Up starts a cluster.
type Options struct {
	Nodes    int       // 1 to MaxNodes
	CNI      string    // who connects pods: empty for plain routes without policies, or Cilium
	Source   string    // folder of this module's sources, see FindSource
	Progress io.Writer // lines for a person
}

// patience is how long each part of a start may take. An idle machine needs
// 6 s for the slowest; a loaded one has been seen to need 13 s.
const patience = 3 * time.Minute

// Up starts the cluster and returns when its nodes are ready and names
// resolve. What it needs and is not there is installed and compiled first.
// When it fails or ctx ends, it removes what it made, but for the logs.
func (c *Cluster) Up(ctx context.Context, o Options) (err error) {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("start a cluster of %d nodes: 1 to %d are possible", o.Nodes, MaxNodes)
	}
	if o.CNI != "" && o.CNI != Cilium {
		return fmt.Errorf("start a cluster with CNI %q: want none or %s", o.CNI, Cilium)
	}
	if os.Geteuid() != 0 {
		return hinted(ErrNotRoot, "run it as root")
	}
	if c.exists() {
		return c.alreadyUp()
	}
	if err := c.checkSocketPath(); err != nil {
		return err
	}
	begin := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(o.Progress, "%6.1fs %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := Setup(ctx, o.CNI, o.Progress); err != nil {
		return err
	}
	built, err := c.Build(ctx, o.CNI, o.Source, o.Progress)
	if err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		say("it did not start; removing what was made")
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if downErr := c.Down(cleaning); downErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", downErr))
		}
		err = hinted(err, "the logs are in "+c.lastDir())
	}()
	if err := c.prepare(o.Nodes, built); err != nil {
		return err
	}
	say("starting the control plane and %d nodes", o.Nodes)
	address, err := c.startSupervisors(ctx, o.Nodes)
	if err != nil {
		return err
	}
	if err := c.watched(ctx, func(ctx context.Context) error { return c.waitForServer(ctx, address, patience) }); err != nil {
		return err
	}
	say("the API server is ready at %s", address)
	steps := []func(context.Context) error{c.deployDNS,
		func(ctx context.Context) error { return c.tellPodRanges(ctx, o.Nodes) },
		func(ctx context.Context) error { return c.waitForNodes(ctx, o.Nodes) }}
	if c.hasCilium() {
		steps = append([]func(context.Context) error{c.deployCRDs}, steps...)
	}
	for _, step := range steps {
		if err := c.watched(ctx, step); err != nil {
			return err
		}
	}
	say("%d of %d nodes are ready", o.Nodes, o.Nodes)
	if err := c.watched(ctx, c.waitForDNS); err != nil {
		return err
	}
	say("names resolve; the cluster is up")
	return nil
}

func (c *Cluster) alreadyUp() error {
	return hinted(fmt.Errorf("start cluster %s: %w", c.name, ErrUp), "use it, or stop it first with: cluster down --name="+c.name)
}

// claim makes the cluster's folder, which only one Up can do. What fails
// before it must not clean up: the cluster would be another's.
func (c *Cluster) claim() error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	if pids, err := groups.processes(c.cgroup()); err != nil || len(pids) > 0 {
		return errors.Join(err, c.alreadyUp())
	}
	if err := os.MkdirAll(filepath.Dir(c.dir()), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(c.dir(), 0o755); errors.Is(err, fs.ErrExist) {
		return c.alreadyUp()
	} else if err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	return nil
}

// prepare makes the cluster's folders and cgroups.
func (c *Cluster) prepare(nodes int, built map[string]string) error {
	dirs := []string{c.pkiDir(), c.LogDir(), c.binDir(), c.imageDir(), c.controlDir()}
	for n := range nodes {
		dirs = append(dirs, c.nodeDir(n))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := c.install(built); err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	return groups.make(c.cgroup(), nodes)
}

// startSupervisors starts the control plane's and the nodes' supervisors and
// returns the API server's address on the host.
func (c *Cluster) startSupervisors(ctx context.Context, nodes int) (string, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the API server: %w", err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	if err := c.writePKI(nodes, "https://"+address, time.Now()); err != nil {
		return "", err
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := c.startSupervisor("control", "control", nodes, syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, file); err != nil {
		return "", err
	}
	for n := range nodes {
		group := nodeName(n) + "-system"
		if err := c.startSupervisor(strconv.Itoa(n), group, nodes, syscall.CLONE_NEWNET|syscall.CLONE_NEWNS|syscall.CLONE_NEWUTS, nil); err != nil {
			return "", err
		}
	}
	return address, nil
}

// startSupervisor starts this program again, in namespaces of its own, and
// lets it go on once it is in its cgroup, where Down finds it.
func (c *Cluster) startSupervisor(role, group string, nodes int, namespaces uintptr, listener *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(c.LogDir(), group+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	gate, open, err := os.Pipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	defer open.Close()
	cmd := exec.Command(self, SuperviseCommand, c.root, c.name, c.group, strconv.Itoa(nodes), role)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{gate}
	if listener != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, listener)
	}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: namespaces}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor of %s: %w", group, err)
	}
	go cmd.Wait() // its end shows in the failed file; this only reaps it
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	if err := groups.join(c.cgroup()+"/"+group, cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	if err := os.WriteFile(c.pidFile(role), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return err
	}
	_, err = open.Write([]byte{1})
	return err
}

// watched runs wait, and ends it as soon as a program of the cluster ends.
func (c *Cluster) watched(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	waited := make(chan error, 1)
	go func() { waited <- wait(ctx) }()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-waited:
			return err
		case <-ticker.C:
			if said, err := os.ReadFile(c.failFile()); err == nil && len(said) > 0 {
				cancel(errors.New(string(said)))
			}
		}
	}
}

// Kubectl runs kubectl as an administrator and returns its standard output.
// stdin may be nil.
func (c *Cluster) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binDir(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (c *Cluster) deployDNS(ctx context.Context) error {
	t, err := template.ParseFS(configs, "config/coredns.yaml")
	if err != nil {
		return err
	}
	var manifest bytes.Buffer
	if err := t.Execute(&manifest, nodeValues{DNS: serviceDNS}); err != nil {
		return err
	}
	_, err = c.Kubectl(ctx, &manifest, "apply", "--server-side", "-f", "-")
	return err
}

func (c *Cluster) waitForNodes(ctx context.Context, nodes int) error {
	const jsonPath = `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}`
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var ready string
	err := poll(ctx, 300*time.Millisecond, func() (bool, error) {
		var err error
		ready, err = c.Kubectl(ctx, nil, "get", "nodes", "-o", jsonPath)
		return strings.Count(ready, "True") == nodes, err
	})
	if err != nil {
		return fmt.Errorf("wait for %d ready nodes (now: %q): %w", nodes, ready, err)
	}
	return nil
}

// tellPodRanges writes into each node, once it is there, what range its pods'
// addresses are from, as a cluster's controllers or CNI do, so that programs can
// tell its bridge and Cilium can give addresses out.
func (c *Cluster) tellPodRanges(ctx context.Context, nodes int) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(waiting, 200*time.Millisecond, func() (bool, error) {
		names, err := c.Kubectl(waiting, nil, "get", "nodes", "-o", "name")
		return strings.Count(names, "\n") == nodes, err
	})
	if err != nil {
		return fmt.Errorf("wait for %d nodes: %w", nodes, err)
	}
	for n := range nodes {
		subnet := c.podSubnet(n)
		patch := fmt.Sprintf(`{"spec":{"podCIDR":%q,"podCIDRs":[%q]}}`, subnet, subnet)
		if _, err := c.Kubectl(ctx, nil, "patch", "node", nodeName(n), "-p", patch); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) waitForDNS(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, nil, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+patience.String()); err != nil {
		return fmt.Errorf("wait for the cluster's DNS: %w", err)
	}
	return nil
}
