// Package cluster starts and stops a real Kubernetes cluster on this Linux
// machine for tests and for the demo: etcd, the control plane and one to five
// nodes, each with namespaces, a container runtime and a kubelet of its own.
// Everything it runs is in network namespaces that it made and in one cgroup
// that tells what Down must end; the host gets one listening port, on
// loopback. It must never end, change or remove what Up did not make.
package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// DefaultName is the name of a cluster that was given none.
const DefaultName = "autopolicy"

// MaxNodes bounds a cluster's size: every node costs about 0.3 GB of memory.
const MaxNodes = 5

// Sentinels that callers tell apart.
var (
	ErrUp      = errors.New("the cluster is already up")
	ErrNotUp   = errors.New("the cluster is not up")
	ErrNotRoot = errors.New("namespaces, mounts and cgroups need root")
)

// HintError is an error with what a person can do about it.
type HintError struct {
	Err  error
	hint string
}

func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap returns the error that the hint is for.
func (e *HintError) Unwrap() error { return e.Err }

// Hint returns one sentence for a person.
func (e *HintError) Hint() string { return e.hint }

func hinted(err error, hint string) error { return &HintError{Err: err, hint: hint} }

// Cluster names one cluster and where its files are. The zero value is not
// usable; New makes one. It holds no open resource.
type Cluster struct {
	name  string
	root  string // shared by all clusters of a user: built programs, last logs
	index int    // makes address ranges differ between clusters
	group string // cgroup, in every hierarchy, of all its processes
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

// DefaultRoot is where clusters keep their files unless told otherwise.
func DefaultRoot() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder: %w", err)
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "autopolicy", "cluster"), nil
}

// New describes the cluster name with its files below root; empty arguments
// mean the defaults. Nothing is made or looked at.
func New(root, name string) (*Cluster, error) {
	if name == "" {
		name = DefaultName
	}
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: lower case letters, digits and dashes, at most 20", name)
	}
	if root == "" {
		var err error
		if root, err = DefaultRoot(); err != nil {
			return nil, err
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("find the folder of clusters: %w", err)
	}
	for _, taken := range []string{"/var/", "/run/", "/proc/", "/sys/"} {
		if strings.HasPrefix(root+"/", taken) {
			return nil, hinted(fmt.Errorf("folder of clusters %s: nodes have a %s of their own", root, taken), "choose one elsewhere with --state")
		}
	}
	c := &Cluster{name: name, root: root, group: "cluster-" + name}
	if usual, err := DefaultRoot(); err != nil || root != usual {
		h := fnv.New32a()
		h.Write([]byte(root))
		c.group += fmt.Sprintf("-%08x", h.Sum32())
	}
	if name != DefaultName {
		h := fnv.New32a()
		h.Write([]byte(name))
		c.index = 1 + int(h.Sum32()%150)
	}
	return c, nil
}

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Kubeconfig returns the path of an administrator's kubeconfig for tools on
// this machine. The file exists while the cluster is up.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir(), "kubeconfig") }

// LogDir returns the folder with a log file for every program.
func (c *Cluster) LogDir() string { return filepath.Join(c.dir(), "log") }

func (c *Cluster) cgroup() string        { return c.group }
func (c *Cluster) dir() string           { return filepath.Join(c.root, "run", c.name) }
func (c *Cluster) lastDir() string       { return filepath.Join(c.root, "last", c.name) }
func (c *Cluster) pkiDir() string        { return filepath.Join(c.dir(), "pki") }
func (c *Cluster) binDir() string        { return filepath.Join(c.dir(), "bin") }
func (c *Cluster) imageDir() string      { return filepath.Join(c.dir(), "images") }
func (c *Cluster) nodeDir(n int) string  { return filepath.Join(c.dir(), nodeName(n)) }
func (c *Cluster) controlDir() string    { return filepath.Join(c.dir(), "control") }
func (c *Cluster) serverAddress() string { return fmt.Sprintf("172.30.%d.1", c.index) }
func (c *Cluster) nodeAddress(n int) string {
	return fmt.Sprintf("172.30.%d.%d", c.index, 10+n)
}
func (c *Cluster) podPrefix() string      { return fmt.Sprintf("10.%d", 100+(144+c.index)%151) }
func (c *Cluster) podCIDR() string        { return c.podPrefix() + ".0.0/16" }
func (c *Cluster) podSubnet(n int) string { return fmt.Sprintf("%s.%d.0/24", c.podPrefix(), n) }
func (c *Cluster) socket(n int) string {
	return filepath.Join(c.nodeDir(n), "run/containerd/containerd.sock")
}
func (c *Cluster) pidFile(who string) string { return filepath.Join(c.dir(), who+".pid") }

func nodeName(n int) string { return fmt.Sprintf("node%d", n) }

// Service addresses live only inside the nodes, so clusters can share them.
const (
	serviceCIDR   = "10.96.0.0/16"
	serviceServer = "10.96.0.1"
	serviceDNS    = "10.96.0.10"
	serverPort    = 6443
)

// exists reports whether the cluster's folder is there: it is up, or its Up or
// Down did not end.
func (c *Cluster) exists() bool {
	_, err := os.Stat(c.dir())
	return err == nil
}

// Nodes returns how many nodes the running cluster has.
func (c *Cluster) Nodes() (int, error) {
	if !c.exists() {
		return 0, hinted(ErrNotUp, "start it with: cluster up")
	}
	n := 0
	for n < MaxNodes {
		if _, err := os.Stat(c.nodeDir(n)); err != nil {
			break
		}
		n++
	}
	return n, nil
}

// checkSocketPath refuses folders so deep that the longest socket below them
// would not fit into a socket address (108 bytes).
func (c *Cluster) checkSocketPath() error {
	if p := c.socket(0) + ".ttrpc"; len(p) >= 108 {
		return hinted(fmt.Errorf("folder %s is too deep for a socket's path", c.dir()), "choose a shorter one with --state")
	}
	return nil
}

// BinDir returns the folder with kubectl, of the cluster's own version.
func (c *Cluster) BinDir() string { return c.binDir() }

// Enter returns the start of a command line that runs what follows in the
// namespaces of a node, or of the control plane when who is "control".
func (c *Cluster) Enter(who string) ([]string, error) {
	role := strings.TrimPrefix(who, "node")
	pid, err := os.ReadFile(c.pidFile(role))
	if err != nil {
		return nil, fmt.Errorf("enter %s: %w", who, err)
	}
	return []string{"nsenter", "-t", string(pid), "-m", "-n", "-u", "--"}, nil
}
