//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// collector is the real one, bin/autopolicy-collector.
type collector struct {
	*node.Collector
	objects objects // what it put into the kernel
}

// collect starts the collector and waits until it has its pods.
func (l *lab) collect(ctx context.Context) (*collector, error) {
	real, err := node.Collect(ctx, l.self, l.collector, l.work, l.api, false, l.log)
	if err != nil {
		return nil, err
	}
	c := &collector{Collector: real}
	if c.objects, err = objectsOf(c.PID()); err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	return c, nil
}

// pull gives the facts of every container by pod.
func (c *collector) pull(ctx context.Context) (map[string][]behavior.Fact, wire.Status, error) {
	containers, status, err := c.Pull(ctx)
	facts := map[string][]behavior.Fact{}
	for _, k := range containers {
		for _, o := range k.Facts {
			facts[k.Pod] = append(facts[k.Pod], o.Fact)
		}
	}
	return facts, status, err
}

// podOf is the n-th container's pod.
func podOf(n int) corev1.Pod {
	started := metav1.Now()
	return corev1.Pod{
		TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: fmt.Sprintf("pod-%d", n), UID: types.UID(podUID(n)), ResourceVersion: "1"},
		Spec:       corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{{Name: "main", Image: "localhost/load:1"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", ContainerID: "containerd://" + containerID(n), ImageID: "localhost/load@sha256:" + containerID(n), Ready: true,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
		}}},
	}
}

// cpu is what the process used so far, in user space and in the kernel. The
// programs in the kernel are not in it: they run in the time of those observed.
func (c *collector) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID()))
	if err != nil {
		return 0, fmt.Errorf("read collector's time: %w", err)
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("read collector's time: too few fields")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2) // USER_HZ is 100
}

// resident is the memory of the process in MiB.
func (c *collector) resident() (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID()))
	if err != nil {
		return 0, fmt.Errorf("read collector's memory: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("read collector's memory: no VmRSS")
}
