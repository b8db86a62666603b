package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cilium is Options.CNI for a cluster whose pods Cilium connects, and that
// enforces network policies.
const Cilium = "cilium"

// ciliumModule and ciliumVersion are what is compiled; a test keeps the version
// the same as go.mod's.
const (
	ciliumModule  = "github.com/cilium/cilium"
	ciliumVersion = "1.20.1"
)

// ciliumPrograms are the packages of Cilium's programs, by program.
func ciliumPrograms() map[string]string {
	return map[string]string{"cilium-agent": ciliumModule + "/daemon", "cilium-cni": ciliumModule + "/plugins/cilium-cni"}
}

// buildCilium compiles Cilium's programs where the cache does not have them, and
// returns their folder, which also has the sources of its programs in the kernel
// (bpf, which the agent compiles) and its CRDs. Cold it takes 7 to 16 minutes on two
// processors.
func (c *Cluster) buildCilium(ctx context.Context, source string, out io.Writer) (dir string, err error) {
	module := filepath.Join(source, "cilium")
	version, err := goVersion(ctx, source)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", version, ciliumVersion)
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("read the sources of cilium: %w", err)
		}
		h.Write(data)
	}
	dir = filepath.Join(c.root, "tools", "cilium-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(filepath.Join(dir, "crds")); err == nil {
		return dir, nil
	}
	fmt.Fprintln(out, "compiling cilium; kept for the next time")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "build-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	for program, pkg := range ciliumPrograms() {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags=osusergo,ipam_provider_operator",
			"-ldflags=-s -w -X "+ciliumModule+"/pkg/version.ciliumVersion="+ciliumVersion, "-o", filepath.Join(work, program), pkg)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("compile %s: %w", program, err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", ciliumModule)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	found, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of cilium: %w", err)
	}
	sources := strings.TrimSpace(string(found))
	for from, to := range map[string]string{"bpf": "bpf", "pkg/k8s/apis/cilium.io/client/crds": "crds"} {
		if err := os.CopyFS(filepath.Join(work, to), os.DirFS(filepath.Join(sources, from))); err != nil {
			return "", fmt.Errorf("copy %s of cilium: %w", from, err)
		}
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep cilium: %w", err)
	}
	return dir, nil
}

// ciliumDir is a link to what buildCilium returned; it is there in a cluster with
// Cilium only.
func (c *Cluster) ciliumDir() string { return filepath.Join(c.dir(), "cilium") }

func (c *Cluster) hasCilium() bool {
	_, err := os.Stat(c.ciliumDir())
	return err == nil
}

// deployCRDs gives the API server Cilium's kinds, which agents wait for.
func (c *Cluster) deployCRDs(ctx context.Context) error {
	crds := filepath.Join(c.ciliumDir(), "crds")
	_, err := c.Kubectl(ctx, nil, "apply", "--server-side", "-f", filepath.Join(crds, "v2"), "-f", filepath.Join(crds, "v2alpha1"))
	return err
}

// ciliumMounts gives the node its own of what Cilium has once on a machine.
func (s *supervisor) ciliumMounts(name, dir string) error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	unified := cgroupFS
	if !groups.unified {
		unified = filepath.Join(cgroupFS, "unified")
	}
	if err := os.MkdirAll("/run/cilium/cgroupv2", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(filepath.Join(unified, s.cgroup(), name), "/run/cilium/cgroupv2", "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the node's control group: %w", err)
	}
	// The agent writes headers beside the sources.
	if err := os.CopyFS("/var/lib/cilium/bpf", os.DirFS(filepath.Join(s.ciliumDir(), "bpf"))); err != nil {
		return fmt.Errorf("copy cilium's programs: %w", err)
	}
	for _, key := range []string{"kernel/unprivileged_bpf_disabled", "kernel/timer_migration"} {
		value, err := os.ReadFile("/proc/sys/" + key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := shield(dir, key, string(bytes.TrimSpace(value))); err != nil {
			return err
		}
	}
	bin := filepath.Join(dir, "cni")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	plugins, err := filepath.Glob(cniPlugins + "/*")
	if err != nil {
		return err
	}
	for _, p := range append(plugins, filepath.Join(s.ciliumDir(), "cilium-cni")) {
		if err := os.Symlink(p, filepath.Join(bin, filepath.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

// startCilium starts the node's agent and waits until pods can be connected. DNS
// rules and names are served without Envoy; an HTTP rule needs it, and leaves its
// pods unenforced here.
func (s *supervisor) startCilium(ctx context.Context, name, etc string) error {
	config := filepath.Join(etc, "net.d", "05-cilium.conflist")
	err := s.startWith([]string{"K8S_NODE_NAME=" + name, "CILIUM_K8S_NAMESPACE=kube-system"}, name+"-cilium", filepath.Join(s.ciliumDir(), "cilium-agent"),
		"--k8s-kubeconfig-path="+filepath.Join(s.pkiDir(), "cilium.kubeconfig"), "--cluster-name=default", "--cluster-id=0",
		"--enable-ipv4=true", "--enable-ipv6=false", "--ipam=kubernetes", "--k8s-require-ipv4-pod-cidr=true", "--identity-allocation-mode=crd",
		"--routing-mode=native", "--auto-direct-node-routes=true", "--ipv4-native-routing-cidr="+s.podCIDR(), "--enable-ipv4-masquerade=false",
		"--kube-proxy-replacement=false", "--devices=eth0", "--enable-l7-proxy=true", "--external-envoy-proxy=true", "--disable-envoy-version-check=true",
		"--cgroup-root=/run/cilium/cgroupv2", "--bpf-root=/sys/fs/bpf", "--state-dir=/run/cilium", "--lib-dir=/var/lib/cilium",
		"--enable-health-checking=false", "--enable-endpoint-health-checking=false",
		fmt.Sprintf("--hubble-listen-address=:%d", HubblePort), "--enable-hubble=true", "--hubble-disable-tls=true",
		"--write-cni-conf-when-ready="+config, "--cni-exclusive=false", "--cni-log-file="+filepath.Join(s.LogDir(), name+"-cilium-cni.log"),
		"--monitor-aggregation=medium", "--enable-policy=default")
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var data []byte
	err = poll(waiting, 100*time.Millisecond, func() (bool, error) {
		data, err = os.ReadFile(config)
		return err == nil && len(data) > 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait for cilium: %w", err)
	}
	// containerd 1.6 does not see a file that was renamed into place, which is how
	// the agent writes it.
	return os.WriteFile(config, data, 0o600)
}

// HubblePort is where an agent serves its flows, on the address of its node.
const HubblePort = 4244
