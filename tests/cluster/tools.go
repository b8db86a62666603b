package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/tests/cluster/image"
)

// packages are the Debian packages that have the programs a cluster and the
// tests on it run, by a program or file of theirs.
func packages(cni string) [][2]string {
	list := [][2]string{
		{"containerd", "containerd"}, {"runc", "runc"}, {"containernetworking-plugins", "/usr/lib/cni/ptp"},
		{"iptables", "iptables"}, {"nftables", "nft"}, {"conntrack", "conntrack"}, {"iproute2", "ip"},
		{"util-linux", "nsenter"}, {"bpftool", "bpftool"}, {"busybox-static", "busybox"}, {"ca-certificates", "/etc/ssl/certs"},
	}
	if cni == Cilium { // its agent compiles programs for the kernel
		list = append(list, [2]string{"clang", "clang"}, [2]string{"llvm", "llc"})
	}
	return list
}

// static tells whether a program needs no dynamic linker.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Setup installs the Debian packages that are missing for a cluster with that CNI
// (see Options), without questions. Their progress goes to out.
func Setup(ctx context.Context, cni string, out io.Writer) error {
	var missing []string
	for _, p := range packages(cni) {
		path, err := findProgram(p[1])
		// Debian's other busybox needs libraries that an image of it alone lacks.
		if err != nil || p[0] == "busybox-static" && !static(path) {
			missing = append(missing, p[0])
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return hinted(ErrNotRoot, "install these as root: "+strings.Join(missing, " "))
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return hinted(fmt.Errorf("find programs of %s: this is no Debian machine", strings.Join(missing, ", ")), "install them with this machine's package manager")
	}
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}

// findProgram finds a program as root's PATH would, also where a user's PATH
// has no sbin folders. An absolute path only has to exist.
func findProgram(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, exec.ErrNotFound)
}

// kubernetesVersion is the version that the programs report. go.mod has the
// module's version; a test keeps the two the same.
const kubernetesVersion = "v1.35.4"

// tool is a program that is compiled once for its sources and compiler.
type tool struct {
	name    string
	dir     string // of its module, below the source folder
	pkg     string // package below dir, or of another module by its whole path
	ldflags string
	image   string // reference of an image with it, "" for none
}

func tools() []tool {
	const v = "k8s.io/component-base/version."
	number := strings.Split(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	version := fmt.Sprintf(" -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s -X %sgitTreeState=clean -X %sbuildDate=1970-01-01T00:00:00Z",
		v, kubernetesVersion, v, number[0], v, number[1], v, v)
	return []tool{
		{name: "kube", dir: ".", pkg: "kube", ldflags: "-s -w" + version},
		{name: "coredns", dir: "coredns", pkg: ".", ldflags: "-s -w", image: "localhost/coredns:1"},
		{name: "pause", dir: ".", pkg: "pause", ldflags: "-s -w", image: "localhost/pause:1"},
	}
}

// fluxTools are Flux's controllers, which Up does not need. The versions are those
// of the module's go.mod, which has their replaces.
func fluxTools() []tool {
	var list []tool
	for _, name := range []string{"source-controller", "kustomize-controller"} {
		list = append(list, tool{name: name, dir: "flux", pkg: "github.com/fluxcd/" + name, ldflags: "-s -w"})
	}
	return list
}

// links are the names by which the kube binary is called.
func links() []string {
	return []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}
}

// FindSource returns the folder with this module's sources: from, or the
// nearest folder above it that is or has tests/cluster.
func FindSource(from string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "tests", "cluster")} {
			if _, err := os.Stat(filepath.Join(candidate, "coredns", "go.mod")); err == nil {
				return candidate, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", hinted(fmt.Errorf("find the sources of the cluster's programs above %s", from), "name tests/cluster with --source")
		}
	}
}

// Build compiles the cluster's programs from the sources in source where the
// cache does not have them, and returns the folder of each by its name. Cold
// it takes 7 to 15 minutes on two processors, for Kubernetes, and as much again
// for Cilium.
func (c *Cluster) Build(ctx context.Context, cni, source string, out io.Writer) (map[string]string, error) {
	built, err := c.buildAll(ctx, source, tools(), out)
	if err == nil && cni == Cilium {
		built[Cilium], err = c.buildCilium(ctx, source, out)
	}
	return built, err
}

func (c *Cluster) buildAll(ctx context.Context, source string, list []tool, out io.Writer) (map[string]string, error) {
	built := map[string]string{}
	version, err := goVersion(ctx, source)
	if err != nil {
		return nil, err
	}
	for _, t := range list {
		key, err := t.key(source, version)
		if err != nil {
			return nil, fmt.Errorf("read the sources of %s: %w", t.name, err)
		}
		dir := filepath.Join(c.root, "tools", t.name+"-"+key)
		built[t.name] = dir
		if _, err := os.Stat(filepath.Join(dir, t.name)); err == nil {
			continue
		}
		fmt.Fprintf(out, "compiling %s; kept for the next time\n", t.name)
		if err := t.build(ctx, source, dir, out); err != nil {
			return nil, err
		}
	}
	return built, nil
}

func goVersion(ctx context.Context, source string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOARCH")
	cmd.Dir = source
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its version: %w", err)
	}
	return string(out), nil
}

// key is a digest of all that decides what the built program is.
func (t tool) key(source, version string) (string, error) {
	module := filepath.Join(source, t.dir)
	files, err := filepath.Glob(filepath.Join(module, t.pkg, "*.go"))
	if err != nil {
		return "", err
	}
	if t.pkg != "pause" { // the standard library is all that pause needs
		files = append(files, filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	}
	slices.Sort(files)
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", version, t.ldflags, t.image)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %d\n", filepath.Base(file), len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build compiles into a folder beside dir and moves it there when complete.
func (t tool) build(ctx context.Context, source, dir string, out io.Writer) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	program := filepath.Join(work, t.name)
	pkg := "./" + t.pkg
	if strings.HasPrefix(t.pkg, "github.com/") {
		pkg = t.pkg
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", t.ldflags, "-o", program, pkg)
	cmd.Dir = filepath.Join(source, t.dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compile %s: %w", t.name, err)
	}
	if t.image != "" {
		var archive bytes.Buffer
		err := image.Write(&archive, image.Config{
			Ref: t.image, Arch: runtime.GOARCH, Entrypoint: []string{"/" + t.name},
			Files: []image.File{{Path: "/" + t.name, Source: program}},
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(work, t.name+".tar"), archive.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep %s: %w", t.name, err)
	}
	return nil
}

// install links the built programs and images into the cluster's folder.
func (c *Cluster) install(built map[string]string) error {
	for _, name := range links() {
		if err := os.Symlink(filepath.Join(built["kube"], "kube"), filepath.Join(c.binDir(), name)); err != nil {
			return err
		}
	}
	if dir := built[Cilium]; dir != "" {
		if err := os.Symlink(dir, c.ciliumDir()); err != nil {
			return err
		}
	}
	for _, t := range tools() {
		if t.image == "" {
			continue
		}
		if err := os.Symlink(filepath.Join(built[t.name], t.name+".tar"), filepath.Join(c.imageDir(), t.name+".tar")); err != nil {
			return err
		}
	}
	return nil
}
