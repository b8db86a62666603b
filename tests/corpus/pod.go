//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// pod is a network namespace with an address, volumes, and one container at a time.
type pod struct {
	lab     *lab
	program program
	confine *confinement // nil: as Kubernetes starts a container by default

	namespace, name, uid string
	netns, address       string
	dir                  string // of its volumes and containers
	root                 string // the image
	pid                  int    // of the container's first process
	id                   string // of its container
	previous             string
	restarts             int
	began                time.Time
	gone                 bool // the container
}

// newPod makes a pod's network and volumes; start runs its container.
func (l *lab) newPod(ctx context.Context, p program, root, namespace, name string) (*pod, error) {
	l.pods++
	n := l.pods
	uid, err := random(16)
	if err != nil {
		return nil, err
	}
	q := &pod{lab: l, program: p, root: root, namespace: namespace, name: name,
		uid:   uid[:8] + "-" + uid[8:12] + "-4" + uid[13:16] + "-8" + uid[17:20] + "-" + uid[20:],
		netns: fmt.Sprintf("corpus-%d", n), address: fmt.Sprintf("10.88.%d.%d", 1+n/250, 2+n%250), dir: filepath.Join(l.work, fmt.Sprintf("pod-%d", n))}
	l.running = append(l.running, q)
	if err := l.network(ctx, q.netns, q.address, n); err != nil {
		return q, err
	}
	for i := range p.volumes {
		if err := errors.Join(os.MkdirAll(q.volume(i), 0o777), os.Chmod(q.volume(i), 0o777), os.Chown(q.volume(i), p.uid, p.uid)); err != nil {
			return q, err
		}
	}
	return q, q.kubeletFiles()
}

func (l *lab) network(ctx context.Context, netns, address string, n int) error {
	return l.ip(ctx,
		"netns add "+netns,
		fmt.Sprintf("link add eth0 netns %s type veth peer name v%d netns %s", netns, n, hub),
		fmt.Sprintf("-n %s link set v%d master br0 up", hub, n),
		"-n "+netns+" link set lo up", "-n "+netns+" addr add "+address+"/16 dev eth0", "-n "+netns+" link set eth0 up",
		"-n "+netns+" route add default via "+hubAddress)
}

func random(bytes int) (string, error) {
	b := make([]byte, bytes)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

func (p *pod) volume(i int) string { return filepath.Join(p.dir, "volumes", strconv.Itoa(i)) }

// kubeletFiles are what the kubelet mounts into each container: hosts, the resolver's
// settings, and the token of the service account, as an atomically written volume.
func (p *pod) kubeletFiles() error {
	version, account := "..2026_11_22_09_30_01.3141592653", filepath.Join(p.dir, "serviceaccount")
	// Each pod's is named anew.
	version = version[:len(version)-len(p.uid[:8])] + fmt.Sprint(10000000+p.lab.pods)
	if err := os.MkdirAll(filepath.Join(account, version), 0o755); err != nil {
		return err
	}
	errs := []error{os.Symlink(version, filepath.Join(account, "..data"))}
	for name, text := range map[string]string{"token": "header." + p.uid + ".signature", "namespace": p.namespace, "ca.crt": string(p.lab.api.CA)} {
		errs = append(errs, os.WriteFile(filepath.Join(account, version, name), []byte(text), 0o644), os.Symlink("..data/"+name, filepath.Join(account, name)))
	}
	for name, text := range map[string]string{
		"hosts":       "127.0.0.1\tlocalhost\n::1\tlocalhost\n" + p.address + "\t" + p.name + "\n",
		"hostname":    p.name + "\n",
		"resolv.conf": "nameserver " + upstreamAddress + "\nsearch corpus.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
	} {
		errs = append(errs, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// start runs a new container of the pod.
func (p *pod) start(ctx context.Context) error {
	id, err := random(32)
	if err != nil {
		return err
	}
	p.previous, p.id, p.began, p.gone = p.id, id, time.Now(), false
	bundle := p.bundle()
	for _, dir := range []string{"upper", "work", "rootfs"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", p.root, filepath.Join(bundle, "upper"), filepath.Join(bundle, "work"))
	if err := unix.Mount("overlay", filepath.Join(bundle, "rootfs"), "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	config, err := json.Marshal(p.config())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600); err != nil {
		return err
	}
	if err := p.create(ctx); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(bundle, "pid"))
	if err != nil {
		return err
	}
	if p.pid, err = strconv.Atoi(string(text)); err != nil {
		return err
	}
	p.lab.api.Set(p.object(true))
	if out, err := p.runc(ctx, "start", id).CombinedOutput(); err != nil {
		return fmt.Errorf("start container: %w: %s", err, out)
	}
	return nil
}

// create makes the container up to its first program. What that says goes through a
// pipe, as with containerd.
func (p *pod) create(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return errors.Join(err, log.Close())
	}
	go func() {
		// It ends with the last of the container's processes; a log that cannot be
		// written is missed where it is shown.
		_, _ = io.Copy(log, out)
		out.Close()
		log.Close()
	}()
	create := p.runc(ctx, "create", "--bundle", p.bundle(), "--pid-file", filepath.Join(p.bundle(), "pid"), p.id)
	create.Stdout, create.Stderr = in, in
	err = create.Run()
	in.Close()
	if err != nil {
		return fmt.Errorf("create container: %w: %s", err, p.said())
	}
	return nil
}

func (p *pod) bundle() string { return filepath.Join(p.dir, p.id[:12]) }

func (p *pod) runc(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "runc", append([]string{"--root", filepath.Join(p.lab.work, "runc")}, args...)...)
}

// said is what the container wrote.
func (p *pod) said() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

// signal reaches the container's first process.
func (p *pod) signal(s unix.Signal) error {
	if err := unix.Kill(p.pid, s); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// stop ends the container as kubelet does, or at once if the signal is SIGKILL.
func (p *pod) stop(ctx context.Context, s unix.Signal) error {
	if p.id == "" || p.gone {
		return nil
	}
	p.gone = true
	root := filepath.Join(p.bundle(), "rootfs")
	if p.pid == 0 { // it was not even created
		return unix.Unmount(root, unix.MNT_DETACH)
	}
	// It may have ended by itself.
	if err := p.signal(s); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	const grace = 8 * time.Second
	// One that has not stopped by then is killed.
	_ = node.Within(ctx, grace, "", func() (bool, error) { return p.ended(), nil })
	var err error
	out, deleted := p.runc(context.WithoutCancel(ctx), "delete", "--force", p.id).CombinedOutput()
	if deleted != nil {
		err = fmt.Errorf("delete container: %w: %s", deleted, out)
	}
	p.pid = 0
	return errors.Join(err, unix.Unmount(root, unix.MNT_DETACH))
}

// ended tells whether the first process is gone or only a zombie.
func (p *pod) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return len(rest) > 0 && (rest[0] == 'Z' || rest[0] == 'X')
}

// restart is what kubelet does to a container that ended: a new one, in the same
// pod.
func (p *pod) restart(ctx context.Context, s unix.Signal) error {
	if err := p.stop(ctx, s); err != nil {
		return err
	}
	p.restarts++
	return p.start(ctx)
}

// remove ends the pod.
func (p *pod) remove() error {
	ctx := context.Background()
	err := p.stop(ctx, unix.SIGTERM)
	p.lab.api.Delete(p.object(false))
	p.lab.running = slices.DeleteFunc(p.lab.running, func(q *pod) bool { return q == p })
	return errors.Join(err, p.lab.ip(ctx, "netns del "+p.netns), os.RemoveAll(p.dir))
}

// exec runs a program in the container as kubelet does for a probe and for a person.
func (p *pod) exec(ctx context.Context, args ...string) (string, error) {
	user := fmt.Sprintf("%d:%d", p.program.uid, p.program.uid)
	out, err := p.runc(ctx, append([]string{"exec", "--user", user, p.id}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("exec %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return string(out), err
}

// process finds one of the container's processes that has a user; the first that it
// started, if there are several.
func (p *pod) process(ctx context.Context, uid int) (int, bool, error) {
	out, err := p.runc(ctx, "ps", "--format", "json", p.id).Output()
	if err != nil {
		return 0, false, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	if err := json.Unmarshal(out, &pids); err != nil {
		return 0, false, fmt.Errorf("list processes: %w", err)
	}
	for _, pid := range pids {
		var info unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d", pid), &info); err == nil && int(info.Uid) == uid {
			return pid, true, nil
		}
	}
	return 0, false, nil
}

// object is the pod as the API server shows it.
func (p *pod) object(running bool) corev1.Pod {
	isController := true
	status := corev1.ContainerStatus{
		Name: container, ContainerID: "containerd://" + p.id, Image: p.image(), ImageID: p.image() + "@sha256:" + strings.Repeat("1", 64),
		Ready: running, RestartCount: int32(p.restarts),
	}
	state := corev1.PodRunning
	if running {
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(p.began)}
	} else {
		state = corev1.PodSucceeded
		status.State.Terminated = &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(p.began), FinishedAt: metav1.Now(), ContainerID: "containerd://" + p.id}
	}
	if p.previous != "" {
		status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://" + p.previous, StartedAt: metav1.NewTime(p.began.Add(-time.Minute)), FinishedAt: metav1.NewTime(p.began)}
	}
	spec := corev1.Container{Name: container, Image: p.image()}
	if len(p.program.probe) > 0 {
		spec.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: p.program.probe}}}
	}
	return corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, UID: types.UID(p.uid), Labels: p.program.labels(),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: p.program.name, UID: "1", Controller: &isController}}},
		Spec: corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{spec}},
		Status: corev1.PodStatus{Phase: state, PodIP: p.address, PodIPs: []corev1.PodIP{{IP: p.address}}, HostIP: hubAddress,
			ContainerStatuses: []corev1.ContainerStatus{status}},
	}
}

func (p *pod) image() string { return "localhost/" + p.program.name + ":1" }
