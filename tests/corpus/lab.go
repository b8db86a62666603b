//go:build linux && amd64

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// lab is where everything happens: one collector, a bridge in a network namespace
// of its own that stands for the node, and a folder in memory.
type lab struct {
	options
	self    string // this program
	work    string
	tools   string // root file system of the clients
	log     io.Writer
	started time.Time

	api       *node.API
	collector *node.Collector
	pods      int // made so far
	running   []*pod
	helpers   []*exec.Cmd
}

// hub is the network namespace of the node, with the address that kubelet's probes
// come from.
const (
	hub        = "corpus-hub"
	hubAddress = "10.88.0.1"
)

func newLab(ctx context.Context, o options, log io.Writer) (_ *lab, err error) {
	l := &lab{options: o, log: log, started: time.Now()}
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if l.work, err = os.MkdirTemp("", "autopolicy-corpus-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := unix.Mount("corpus", l.work, "tmpfs", 0, "mode=755,size=6g"); err != nil {
		return nil, fmt.Errorf("mount %s: %w", l.work, err)
	}
	if l.tools, err = l.unpack(ctx, "tools", clientPackages(), "ln -sf nc.openbsd /usr/bin/nc", nil); err != nil {
		return nil, err
	}
	for _, dir := range []string{"dev", "proc"} {
		if err := unix.Mount("/"+dir, filepath.Join(l.tools, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return nil, fmt.Errorf("mount %s for the clients: %w", dir, err)
		}
	}
	if err := unix.Mount("corpus", filepath.Join(l.tools, "tmp"), "tmpfs", 0, "mode=1777"); err != nil {
		return nil, err
	}
	// The collector first: it mounts on /run, where the network namespaces will be.
	if l.api, err = node.Serve(); err != nil {
		return nil, err
	}
	if l.collector, err = node.Collect(ctx, l.self, o.collector, l.work, l.api, true, log); err != nil {
		return nil, err
	}
	if err := l.ip(ctx,
		"netns add "+hub, "-n "+hub+" link set lo up", "-n "+hub+" link add br0 type bridge",
		"-n "+hub+" addr add "+hubAddress+"/16 dev br0", "-n "+hub+" link set br0 up"); err != nil {
		return nil, err
	}
	return l, l.serveUpstream(ctx)
}

// upstream is the network namespace of a service that others call by its name, with
// the name server.
const (
	upstream        = "corpus-up"
	upstreamAddress = "10.88.0.53"
)

func (l *lab) serveUpstream(ctx context.Context) error {
	l.pods++
	if err := l.network(ctx, upstream, upstreamAddress, l.pods); err != nil {
		return err
	}
	for _, script := range []string{
		"exec dnsmasq -k --no-resolv --no-hosts --user=root --pid-file= --address=/upstream.platform.svc.cluster.local/" + upstreamAddress + " --local=/cluster.local/",
		"mkdir -p up; cd up; echo up >index.html; exec python3 -m http.server 9000 --bind " + upstreamAddress,
	} {
		cmd := exec.CommandContext(ctx, l.self, "role:client", upstream, l.tools, script)
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("serve upstream: %w", err)
		}
		l.helpers = append(l.helpers, cmd)
	}
	return node.Within(ctx, 10*time.Second, "upstream does not serve", func() (bool, error) {
		_, err := l.client(ctx, hub, "curl -sf http://"+upstreamAddress+":9000/")
		return err == nil, nil
	})
}

// close ends what runs and removes what the lab made.
func (l *lab) close() error {
	var errs []error
	for _, p := range slices.Clone(l.running) {
		errs = append(errs, p.remove())
	}
	if l.collector != nil {
		errs = append(errs, l.collector.Stop())
	}
	if l.api != nil {
		l.api.Stop()
	}
	for _, h := range l.helpers {
		errs = append(errs, h.Process.Kill())
		h.Wait() // it was killed: that it says so is no news
	}
	errs = append(errs, l.ip(context.Background(), "netns del "+hub, "netns del "+upstream), unix.Unmount(l.work, unix.MNT_DETACH), os.Remove(l.work))
	return errors.Join(errs...)
}

// say tells how far it is.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.log, "corpus: %4.0fs %s\n", time.Since(l.started).Seconds(), fmt.Sprintf(format, args...))
}

// ip runs ip(8) once for each line.
func (l *lab) ip(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}

// basePackages are in every root file system, as in Debian's image.
func basePackages() []string {
	return strings.Fields("base-files base-passwd bash dash coreutils apt dpkg grep sed mawk tar gzip findutils hostname libc-bin util-linux debianutils tzdata passwd")
}

// basePrepare is what maintainer scripts of those would have done.
const basePrepare = `cp /usr/share/base-passwd/passwd.master /etc/passwd; cp /usr/share/base-passwd/group.master /etc/group
printf 'root:*:19600:0:99999:7:::\n' >/etc/shadow; chmod 640 /etc/shadow
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n' >/etc/nsswitch.conf
ln -sf mawk /usr/bin/awk; ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime; mkdir -p /run/lock /var/lib/dpkg /var/tmp
chmod 1777 /var/tmp /run/lock; : >/var/lib/dpkg/status
`

// unpack makes a root file system, or takes the one in the cache if it is what is
// wanted. The script runs in it, in place of the packages' own.
func (l *lab) unpack(ctx context.Context, name string, packages []string, prepare string, files map[string]string) (string, error) {
	root := filepath.Join(l.cache, "roots", name)
	packages = slices.Concat(basePackages(), packages)
	prepare = basePrepare + prepare + "\nldconfig\n"
	sum := sha256.Sum256([]byte(fmt.Sprint(packages, prepare, files)))
	stamp, want := root+".stamp", hex.EncodeToString(sum[:])
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return root, nil
	}
	l.say("unpacking %s", name)
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", err
	}
	if err := l.command(ctx, filepath.Join(l.source, "node", "unpack"), append([]string{root, filepath.Join(l.cache, "archives")}, packages...)...); err != nil {
		return "", err
	}
	for path, text := range files {
		full := filepath.Join(root, path)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), mode)); err != nil {
			return "", err
		}
	}
	if err := l.command(ctx, "chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/bin/sh", "-ec", prepare); err != nil {
		return "", fmt.Errorf("prepare %s: %w", name, err)
	}
	return root, os.WriteFile(stamp, []byte(want), 0o644)
}

func (l *lab) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", filepath.Base(name), err, tail(out))
	}
	return nil
}

// tail is the end of what a program said.
func tail(out []byte) string {
	const enough = 2000
	return strings.TrimSpace(string(out[max(0, len(out)-enough):]))
}

// client runs a shell command from the clients' packages in a network namespace. It
// is in no container: what it does is not observed.
func (l *lab) client(ctx context.Context, netns, script string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.self, "role:client", netns, l.tools, script)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("client %q: %w: %s", script, err, tail(out))
	}
	return string(out), err
}

// becomeClient enters a network and becomes a shell in the clients' root.
func becomeClient(args []string) error {
	runtime.LockOSThread()
	net, err := unix.Open(filepath.Join("/run/netns", args[0]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find network: %w", err)
	}
	if err := errors.Join(unix.Setns(net, unix.CLONE_NEWNET), unix.Chroot(args[1]), unix.Chdir("/tmp")); err != nil {
		return fmt.Errorf("enter network: %w", err)
	}
	return unix.Exec("/bin/bash", []string{"bash", "-ec", "set -o pipefail; " + args[2]},
		append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8"))
}
