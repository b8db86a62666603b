package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodeValues fill the files of a node's programs.
type nodeValues struct {
	Name, IP, DNS, PKI, EtcDir, CgroupRoot, PodCIDR, PodSubnet, CNIBin string
}

// cniPlugins is where Debian's package has them.
const cniPlugins = "/usr/lib/cni"

// node runs one node's programs in this process's mount, network and host
// name namespaces. Where a program wants a fixed place (/run, /var/lib,
// /var/log), the node has its own there, as a machine would.
func (s *supervisor) node(ctx context.Context, n int) error {
	name, dir := nodeName(n), s.nodeDir(n)
	etc := filepath.Join(dir, "etc")
	if err := os.MkdirAll(filepath.Join(etc, "net.d"), 0o755); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := nodeMounts(dir); err != nil {
		return err
	}
	if err := s.nodeNetwork(ctx, n); err != nil {
		return err
	}
	files := map[string]string{"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml"}
	bin := cniPlugins
	if s.hasCilium() {
		if err := s.ciliumMounts(name, dir); err != nil {
			return err
		}
		bin = filepath.Join(dir, "cni")
	} else {
		files["cni.conflist"] = "net.d/10-cluster.conflist"
	}
	values := nodeValues{
		CNIBin: bin,
		Name:   name, IP: s.nodeAddress(n), DNS: serviceDNS, PKI: s.pkiDir(), EtcDir: etc,
		CgroupRoot: "/" + s.cgroup() + "/" + name, PodCIDR: s.podCIDR(), PodSubnet: s.podSubnet(n),
	}
	for template, path := range files {
		if err := render(template, filepath.Join(etc, path), values); err != nil {
			return err
		}
	}
	return s.nodePrograms(ctx, name, etc, values)
}

func (s *supervisor) nodePrograms(ctx context.Context, name, etc string, v nodeValues) error {
	if err := s.start(name+"-containerd", "containerd", "--config", filepath.Join(etc, "containerd.toml")); err != nil {
		return err
	}
	if err := s.loadAll(ctx); err != nil {
		return err
	}
	if err := s.start(name+"-kubelet", filepath.Join(s.binDir(), "kubelet"), "--config="+filepath.Join(etc, "kubelet.yaml"),
		"--kubeconfig="+filepath.Join(s.pkiDir(), name+".kubeconfig"), "--hostname-override="+name, "--node-ip="+v.IP); err != nil {
		return err
	}
	// kube-proxy gives up where there is no API server yet; the kubelet does not.
	if err := s.waitForServer(ctx, fmt.Sprintf("%s:%d", s.serverAddress(), serverPort), patience); err != nil {
		return err
	}
	if err := s.start(name+"-proxy", filepath.Join(s.binDir(), "kube-proxy"), "--config="+filepath.Join(etc, "proxy.yaml")); err != nil {
		return err
	}
	if s.hasCilium() {
		if err := s.startCilium(ctx, name, etc); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// loadAll imports the images that a cluster cannot start without.
func (s *supervisor) loadAll(ctx context.Context) error {
	const socket = "/run/containerd/containerd.sock"
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(waiting, 50*time.Millisecond, func() (bool, error) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		return fmt.Errorf("wait for containerd: %w", err)
	}
	images, err := filepath.Glob(filepath.Join(s.imageDir(), "*.tar"))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := run(ctx, "ctr", "-a", socket, "-n", "k8s.io", "images", "import", image); err != nil {
			return err
		}
	}
	return nil
}

// shielded are settings of the whole machine that a kubelet insists on. The
// node gets a file with the wanted value in their place.
const shielded = `vm/overcommit_memory=1
vm/panic_on_oom=0
kernel/panic=10
kernel/panic_on_oops=1
kernel/keys/root_maxkeys=1000000
kernel/keys/root_maxbytes=25000000`

func nodeMounts(dir string) error {
	// Nothing that is mounted here reaches the host, and what pods mount with
	// propagation reaches the node.
	for _, flag := range []uintptr{syscall.MS_PRIVATE, syscall.MS_SHARED} {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("make the node's mounts its own: %w", err)
		}
	}
	for _, sub := range []string{"run", "var/lib", "var/log"} {
		if err := bind(filepath.Join(dir, sub), "/"+sub); err != nil {
			return err
		}
	}
	for _, setting := range strings.Split(shielded, "\n") {
		key, value, _ := strings.Cut(setting, "=")
		if err := shield(dir, key, value); err != nil {
			return err
		}
	}
	return kernelMounts()
}

// shield puts a file with the value in the place of a setting of the machine.
func shield(dir, key, value string) error {
	file := filepath.Join(dir, "etc", strings.ReplaceAll(key, "/", "."))
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(file, "/proc/sys/"+key, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("shield %s: %w", key, err)
	}
	return nil
}

// kernelMounts mounts what a systemd machine has and a bare one may lack. A
// kernel without one of them (ENODEV, or no place for it) goes without.
func kernelMounts() error {
	for _, m := range [][2]string{{"bpf", "/sys/fs/bpf"}, {"tracefs", "/sys/kernel/tracing"}, {"securityfs", "/sys/kernel/security"}} {
		err := syscall.Mount(m[0], m[1], m[0], 0, "")
		if err != nil && !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return nil
}

// nodeNetwork plugs this network namespace into the control plane's bridge
// and makes it a router for its pods.
func (s *supervisor) nodeNetwork(ctx context.Context, n int) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(waiting, 20*time.Millisecond, func() (bool, error) {
		_, err := os.Stat(s.networkFile())
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the nodes' bridge: %w", err)
	}
	control, err := os.ReadFile(s.pidFile("control"))
	if err != nil {
		return err
	}
	pid := strings.TrimSpace(string(control))
	if err := ip(ctx, "link set lo up", "link add eth0 type veth peer name "+nodeName(n)+" netns "+pid); err != nil {
		return err
	}
	if err := run(ctx, "nsenter", "-t", pid, "-n", "ip", "link", "set", nodeName(n), "master", bridge, "up"); err != nil {
		return err
	}
	commands := []string{
		"addr add " + s.nodeAddress(n) + "/24 dev eth0", "link set eth0 up",
		"route add default via " + s.serverAddress(),
	}
	for other := range s.nodes {
		if other != n {
			commands = append(commands, "route add "+s.podSubnet(other)+" via "+s.nodeAddress(other))
		}
	}
	if err := ip(ctx, commands...); err != nil {
		return err
	}
	for _, setting := range []string{"ip_forward", "conf/all/route_localnet"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+setting, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("let the node forward: %w", err)
		}
	}
	return nil
}
