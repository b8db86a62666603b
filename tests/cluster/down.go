package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Down ends every process that Up started, with the pods, and removes what
// Up made. The logs move to the folder "last" beside the cluster's. It is no
// error when nothing is there.
func (c *Cluster) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return hinted(ErrNotRoot, "run it as root")
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// The links, routes and mounts are in namespaces that end with these.
	if err := groups.kill(ctx, c.cgroup()); err != nil {
		return fmt.Errorf("stop cluster %s: %w", c.name, err)
	}
	if err := groups.remove(ctx, c.cgroup()); err != nil {
		return fmt.Errorf("stop cluster %s: %w", c.name, err)
	}
	if !c.exists() {
		return nil
	}
	if mounts, err := mountsBelow(c.dir()); err != nil || len(mounts) > 0 {
		return errors.Join(err, fmt.Errorf("remove %s: something is mounted at %s", c.dir(), strings.Join(mounts, ", ")))
	}
	if err := c.keepLogs(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir()); err != nil {
		return fmt.Errorf("stop cluster %s: %w", c.name, err)
	}
	return nil
}

func (c *Cluster) keepLogs() error {
	if err := os.RemoveAll(c.lastDir()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.lastDir()), 0o755); err != nil {
		return err
	}
	if err := os.Rename(c.LogDir(), c.lastDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the logs: %w", err)
	}
	return nil
}

// mountsBelow lists this process's mount points in dir.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found, nil
}

// Load imports docker-archive files into every node's container runtime.
func (c *Cluster) Load(ctx context.Context, archives ...string) error {
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := os.Stat(archive); err != nil {
			return fmt.Errorf("load image: %w", err)
		}
		for n := range nodes {
			if err := run(ctx, "ctr", "-a", c.socket(n), "-n", "k8s.io", "images", "import", archive); err != nil {
				return fmt.Errorf("load image into %s: %w", nodeName(n), err)
			}
		}
	}
	return nil
}
