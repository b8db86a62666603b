//go:build linux && amd64

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// container is the name of every pod's only container.
const container = "main"

// program is a service in its image, and what it is asked to do.
type program struct {
	name     string
	packages []string
	prepare  string            // in place of what the packages' own scripts and a Dockerfile would do
	files    map[string]string // of the image

	uid     int
	worker  int      // the user that serves where the container is root's
	asRoot  []string // in place of args where the service refuses to run as root
	args    []string
	env     []string
	volumes []string // folders that outlive the container
	probe   []string // run in the container whenever it is to be ready
	ready   string   // a client's command that succeeds once it serves
	limit   time.Duration

	// What it is asked for in training and in evaluation. The evaluation asks for the
	// same services with other names, more often, and in another order, and for what
	// happens to a service in its life.
	train, evaluate []step
	// inCI: in the subset that CI runs.
	inCI bool
}

func (p program) labels() map[string]string { return map[string]string{"app": p.name} }

// step is one thing that happens in a run.
type step struct {
	what string
	do   func(context.Context, *scene) error
}

// scene is a run of a program: its pods and its client.
type scene struct {
	lab       *lab
	program   program
	namespace string
	root      string
	pods      []*pod
	netns     string // of the client
	address   string
	confine   *confinement
	number    int // of the training, from one
}

// client has a client run a shell command; in it $POD is the address of the first
// pod, $LAST of the last, $PODS are those of all, and $RUN is the number of the training.
func client(script string) step {
	return step{"client: " + script, func(ctx context.Context, s *scene) error {
		_, err := s.lab.client(ctx, s.netns, script, s.env()...)
		return err
	}}
}

func (s *scene) env() []string {
	var all []string
	for _, p := range s.pods {
		all = append(all, p.address)
	}
	return []string{fmt.Sprintf("RUN=%d", s.number), "POD=" + s.pods[0].address, "PODS=" + strings.Join(all, " "), "LAST=" + s.pods[len(s.pods)-1].address}
}

// send has a signal reach the first process of every pod.
func send(sig unix.Signal) step {
	return step{"signal " + unix.SignalName(sig), func(_ context.Context, s *scene) error {
		var errs []error
		for _, p := range s.pods {
			errs = append(errs, p.signal(sig))
		}
		return errors.Join(errs...)
	}}
}

// restart ends the container by a signal; kubelet starts another.
func restart(sig unix.Signal) step {
	return step{"restart by " + unix.SignalName(sig), func(ctx context.Context, s *scene) error {
		if err := s.pods[0].restart(ctx, sig); err != nil {
			return err
		}
		return s.ready(ctx, s.pods[0])
	}}
}

// replica adds a pod.
func replica() step {
	return step{"add a replica", func(ctx context.Context, s *scene) error { return s.add(ctx) }}
}

// aside is what happens to the volumes from outside of the container, as by another
// container of the pod: a shell command on the host, with $V0, $V1...
func aside(script string) step {
	return step{"aside: " + script, func(ctx context.Context, s *scene) error {
		for _, p := range s.pods {
			cmd := exec.CommandContext(ctx, "bash", "-ec", script)
			for i := range s.program.volumes {
				cmd.Env = append(cmd.Environ(), fmt.Sprintf("V%d=%s", i, p.volume(i)))
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("aside %q: %w: %s", script, err, tail(out))
			}
		}
		return nil
	}}
}

// person is somebody's kubectl exec.
func person(args ...string) step {
	return step{"exec " + strings.Join(args, " "), func(ctx context.Context, s *scene) error {
		_, err := s.pods[0].exec(ctx, args...)
		return err
	}}
}

// wait lets time pass, for what a service does by itself.
func wait(d time.Duration) step {
	return step{"wait " + d.String(), func(ctx context.Context, _ *scene) error { return pause(ctx, d) }}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// begin makes a scene with one pod that serves.
func (l *lab) begin(ctx context.Context, p program, run string, confine *confinement) (*scene, error) {
	root, err := l.unpack(ctx, p.name, p.packages, p.prepare, p.files)
	if err != nil {
		return nil, err
	}
	l.pods++
	n := l.pods
	s := &scene{lab: l, program: p, namespace: p.name + "-" + run, root: root, confine: confine,
		netns: fmt.Sprintf("corpus-client-%d", n), address: fmt.Sprintf("10.88.%d.%d", 1+n/250, 2+n%250)}
	if err := l.network(ctx, s.netns, s.address, n); err != nil {
		return s, err
	}
	return s, s.add(ctx)
}

func (s *scene) add(ctx context.Context) error {
	p, err := s.lab.newPod(ctx, s.program, s.root, s.namespace, fmt.Sprintf("%s-%d", s.namespace, len(s.pods)))
	if p != nil {
		p.confine = s.confine
		s.pods = append(s.pods, p)
	}
	if err != nil {
		return err
	}
	if err := p.start(ctx); err != nil {
		return err
	}
	return s.ready(ctx, p)
}

// ready waits until the pod serves, and runs its probe.
func (s *scene) ready(ctx context.Context, p *pod) error {
	limit := s.program.limit
	if limit == 0 {
		limit = 30 * time.Second
	}
	var last error
	err := node.Within(ctx, limit, "it does not serve", func() (bool, error) {
		if p.ended() {
			return false, errors.New("it ended by itself")
		}
		_, last = s.lab.client(ctx, hub, s.program.ready, "POD="+p.address)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("start %s: %w: %w: %s", p.name, err, last, p.said())
	}
	if len(s.program.probe) > 0 {
		if _, err := p.exec(ctx, s.program.probe...); err != nil {
			return err
		}
	}
	return nil
}

// perform does the steps.
func (s *scene) perform(ctx context.Context, steps []step) error {
	for _, t := range steps {
		if s.lab.verbose {
			s.lab.say("%s: %s", s.namespace, t.what)
		}
		if err := t.do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w\nthe service said: %s", t.what, err, s.pods[0].said())
		}
	}
	return nil
}

// end stops every pod as kubelet does.
func (s *scene) end() error {
	var errs []error
	for _, p := range slices.Clone(s.pods) {
		errs = append(errs, p.remove())
	}
	return errors.Join(append(errs, s.lab.ip(context.Background(), "netns del "+s.netns))...)
}

const second = time.Second
