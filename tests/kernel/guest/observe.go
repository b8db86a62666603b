//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/collector"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/plant"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
)

// observe runs the planted workload under a family of hooks; the empty one takes the
// best that the kernel has.
func observe(ctx context.Context, programs, family string) verdict.Run {
	run := newRun(family)
	if err := observeInto(ctx, programs, &run); err != nil {
		run.Error = err.Error()
	}
	return run
}

func observeInto(ctx context.Context, programs string, run *verdict.Run) (err error) {
	work, err := os.MkdirTemp("", "planted-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	pod, uid, removePod, err := podCgroup(work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removePod()) }()
	held, err := newContainer(work, programs, pod)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.stop()) }()
	main, err := newContainer(work, programs, pod)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, main.stop()) }()
	// Networks are there before the collector.
	stop, err := translate(filepath.Dir(filepath.Dir(pod)), plant.Service(), plant.Served())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := held.start(ctx, plant.RoleHeld); err != nil {
		return err
	}
	if err := held.follow(); err != nil {
		return err
	}

	opened, err := probe.Open(probe.Options{Family: run.Family})
	if err != nil {
		return err
	}
	kernel := collector.Kernel{Probe: opened}
	defer func() { err = errors.Join(err, opened.Close()) }()
	features := opened.Features()
	run.Hooks, run.Words = features.Hooks, kernel.Missing()
	if !has(features, run.Family) {
		run.Without = strings.Join(features.Gaps(), "; ")
		return nil
	}
	return collect(ctx, kernel, run, pods(uid, main.id, held.id), func(client *client) error {
		if err := main.start(ctx, plant.RoleMain); err != nil {
			return err
		}
		if err := errors.Join(main.follow(), held.resume()); err != nil {
			return err
		}
		for _, role := range []string{plant.RoleExec, plant.RoleProbe} {
			if err := main.enter(ctx, role); err != nil {
				return err
			}
		}
		return client.compare(ctx, run, main, held)
	})
}

// has tells whether a probe took any hook of a family.
func has(f probe.Features, family string) bool {
	if family == "" || family == probe.FamilyTracepoint {
		return true
	}
	for _, taken := range f.Hooks {
		if slices.Contains(taken, family) {
			return true
		}
	}
	return false
}

// podCgroup makes a pod's control group where version 2 is mounted, or mounts that.
func podCgroup(work string) (path, uid string, remove func() error, err error) {
	root, unmount := "", func() error { return nil }
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "", "", nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			root = f[1]
		}
	}
	if root == "" {
		root = filepath.Join(work, "cgroup")
		if err := os.Mkdir(root, 0o755); err != nil {
			return "", "", nil, err
		}
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			return "", "", nil, fmt.Errorf("mount cgroup2: %w", err)
		}
		unmount = func() error { return unix.Unmount(root, 0) }
	}
	name, err := random(16)
	if err != nil {
		return "", "", nil, err
	}
	uid = name[:8] + "-" + name[8:12] + "-" + name[12:16] + "-" + name[16:20] + "-" + name[20:]
	path = filepath.Join(root, "kubepods", "pod"+uid)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", "", nil, err
	}
	return path, uid, func() error {
		err := os.Remove(path)
		_ = os.Remove(filepath.Dir(path)) // others may be in it
		return errors.Join(err, unmount())
	}, nil
}

// collect runs a collector over the probe while do works with it.
func collect(ctx context.Context, kernel collector.Kernel, run *verdict.Run, api api, do func(*client) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := collector.New(kernel, collector.Options{Node: nodeName, Version: "test", Epoch: "test", API: api})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Run(running) })
	group.Go(func() error { return c.Serve(running, listener) })
	client, err := connect(listener.Addr().String())
	if err == nil {
		err = client.ready(running)
	}
	if err == nil {
		err = do(client)
		err = errors.Join(err, client.close())
	}
	cancel()
	return errors.Join(err, group.Wait())
}

// settle is how long nothing new may come before what is missing counts as missing.
const settle = 8 * time.Second

// compare pulls until everything was found or nothing new comes.
func (c *client) compare(ctx context.Context, run *verdict.Run, main, held *container) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	best, since := -1, time.Now()
	for {
		seen, status, err := c.pull(ctx)
		if err != nil {
			return err
		}
		run.Lost = status.Lost
		run.Words = slices.Compact(slices.Sorted(slices.Values(slices.Concat(run.Words, status.Missing))))
		run.Things, run.Never = judge(seen, run.Words, main, held)
		sum := run.Sum()
		if sum.Found == sum.Planted {
			return nil
		}
		if sum.Found > best {
			best, since = sum.Found, time.Now()
		}
		if time.Since(since) > settle {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// judge says of each thing what was found.
func judge(seen map[string][]observation, words []string, main, held *container) (things []verdict.Thing, never []string) {
	for _, role := range []string{plant.RoleMain, plant.RoleCompat, plant.RoleExec, plant.RoleProbe, plant.RoleHeld} {
		c, arch := main, runtime.GOARCH
		if role == plant.RoleHeld {
			c = held
		}
		if role == plant.RoleCompat {
			if arch != "amd64" {
				continue
			}
			arch = "386"
		}
		list := plant.Of(role, arch)
		if role == plant.RoleHeld {
			list = append(list, plant.Later())
		}
		for _, t := range list {
			things = append(things, verdictOf(t, c, seen[c.id], words))
		}
	}
	for _, list := range seen {
		for _, o := range list {
			if why := plant.Never(o.Fact); why != "" {
				never = append(never, o.Fact.String()+": "+why)
			}
		}
	}
	slices.Sort(never)
	return things, never
}

func verdictOf(t plant.Thing, c *container, seen []observation, words []string) verdict.Thing {
	v := verdict.Thing{Name: t.Name, Absent: c.absent[t.Name], Failed: c.failed[t.Name]}
	if !c.done[t.Name] && v.Failed == "" {
		v.Failed = "not done"
	}
	if v.Absent != "" || v.Failed != "" {
		return v
	}
	// Of several that are asked for by one want, every kernel names the same.
	slices.SortFunc(seen, func(a, b observation) int { return behavior.Compare(a.Fact, b.Fact) })
	for _, want := range t.Facts {
		i := slices.IndexFunc(seen, func(o observation) bool { return plant.Found(want, o.Fact) && (!t.Snapshot || o.Snapshot) })
		if i >= 0 {
			v.Found = append(v.Found, seen[i].Fact)
			continue
		}
		v.Lack = append(v.Lack, verdict.Lack{Fact: want.String(), Said: said(t.Gaps, words)})
	}
	return v
}

// said finds the sentence in which the collector says that it cannot see something.
func said(gaps, words []string) string {
	for _, gap := range gaps {
		for _, sentence := range words {
			if strings.Contains(sentence, gap) {
				return sentence
			}
		}
	}
	return ""
}
