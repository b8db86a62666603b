//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// server is a real one from Debian, what loads it, and where that says how much
// came through: the sum of what the pattern's group finds.
type server struct {
	name    string
	uid     int
	serve   string // run by a shell in the container
	prepare string // run by a shell beside it, until it succeeds
	client  string
	result  *regexp.Regexp
}

func servers() []server {
	nginx := `daemon off; pid /run/nginx.pid; error_log /dev/null crit; worker_processes 1; events { worker_connections 256; }
http { access_log off; keepalive_requests 1000000; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e; server { listen 127.0.0.1:8080; root /data; } }`
	postgres := "/usr/lib/postgresql/15/bin/"
	return []server{{
		name:    "nginx",
		serve:   `printf %0612d 7 >/data/index.html; printf '%s' '` + nginx + `' >/tmp/nginx.conf; exec nginx -c /tmp/nginx.conf`,
		prepare: "wrk -t1 -c1 -d1s http://127.0.0.1:8080/index.html",
		client:  "exec wrk -t1 -c16 -d3s http://127.0.0.1:8080/index.html",
		result:  regexp.MustCompile(`Requests/sec:\s*([\d.]+)`),
	}, {
		name: "redis", uid: 33333,
		serve:   `exec redis-server --bind 127.0.0.1 --port 6379 --save '' --appendonly no --dir /data`,
		prepare: "redis-cli -h 127.0.0.1 ping",
		client:  "exec redis-benchmark -h 127.0.0.1 -t set,get -c 16 -n 60000 --csv",
		result:  regexp.MustCompile(`(?m)^"(?:SET|GET)","([\d.]+)"`),
	}, {
		name: "postgres", uid: 33333,
		serve: postgres + `initdb -D /data/db -A trust -U postgres --no-sync >/dev/null && exec ` + postgres +
			`postgres -D /data/db -h 127.0.0.1 -k /tmp -c fsync=off -c autovacuum=off -c dynamic_shared_memory_type=posix`,
		prepare: postgres + "pgbench -h 127.0.0.1 -U postgres -i -q postgres",
		client:  "exec " + postgres + "pgbench -h 127.0.0.1 -U postgres -n -S -c 4 -j 1 -T 3 postgres",
		result:  regexp.MustCompile(`tps = ([\d.]+)`),
	}}
}

// throughputs are requests a second: by server and variant, of each round.
type throughputs map[string]map[string][]float64

// measureServers loads each server in turns: without anything, with empty
// programs on the collector's hooks, and with the collector.
func (l *lab) measureServers(ctx context.Context, r *result) error {
	r.throughputs = throughputs{}
	all := servers()
	running := make([]*container, len(all))
	for i, s := range all {
		c, err := l.start(ctx, 1+i, s.uid, "/bin/sh", "-c", s.serve)
		if err != nil {
			return err
		}
		running[i] = c
		if err := node.Within(ctx, time.Minute, s.name+" does not serve", func() (bool, error) {
			_, err := l.client(ctx, c, s.prepare)
			return err == nil, nil
		}); err != nil {
			return err
		}
		r.throughputs[s.name] = map[string][]float64{}
	}
	hooks, err := l.hooks(ctx)
	if err != nil {
		return err
	}
	order := []string{nothing, ours, emptyPrograms}
	for round := range r.rounds {
		l.say("servers, round %d of %d", round+1, r.rounds)
		for _, variant := range order {
			err := l.under(ctx, variant, hooks, func() error { return l.loadServers(ctx, all, running, variant, r.throughputs) })
			if err != nil {
				return fmt.Errorf("under %s: %w", variant, err)
			}
		}
		order[0], order[1] = order[1], order[0] // each is first in half of the pairs
	}
	var errs []error
	for _, c := range running {
		errs = append(errs, l.stop(c))
	}
	return errors.Join(errs...)
}

func (l *lab) loadServers(ctx context.Context, all []server, running []*container, variant string, t throughputs) error {
	for i, s := range all {
		out, err := l.client(ctx, running[i], s.client)
		if err != nil {
			return fmt.Errorf("load %s: %w", s.name, err)
		}
		total := 0.0
		for _, match := range s.result.FindAllStringSubmatch(out, -1) {
			n, err := strconv.ParseFloat(match[1], 64)
			if err != nil {
				return fmt.Errorf("load %s: %w", s.name, err)
			}
			total += n
		}
		if total == 0 {
			return fmt.Errorf("load %s: no result in %q", s.name, out)
		}
		t[s.name][variant] = append(t[s.name][variant], total)
	}
	return nil
}

// hooks finds out where the collector attaches its programs.
func (l *lab) hooks(ctx context.Context) ([]hook, error) {
	c, err := l.collect(ctx)
	if err != nil {
		return nil, err
	}
	hooks, err := c.objects.hooks()
	return hooks, errors.Join(err, c.Stop())
}

// client runs a shell command from the packages in the network of a container,
// but in none itself: what it does is not observed.
func (l *lab) client(ctx context.Context, c *container, command string) (string, error) {
	cmd := exec.CommandContext(ctx, l.self, "role:client", strconv.Itoa(c.command.Process.Pid), l.root, command)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// becomeClient enters the network and becomes a shell in the packages' folder.
// Client and server have a processor each, where there are two.
func becomeClient(args []string) error {
	runtime.LockOSThread()
	net, err := unix.Open(filepath.Join("/proc", args[0], "ns/net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find network: %w", err)
	}
	if err := errors.Join(unix.Setns(net, unix.CLONE_NEWNET), unix.Chroot(args[1]), unix.Chdir("/"), pin(1)); err != nil {
		return fmt.Errorf("enter network: %w", err)
	}
	return unix.Exec("/bin/sh", []string{"sh", "-c", args[2]}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C"})
}

// pin keeps the process on one processor.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	return unix.SchedSetaffinity(0, &set)
}
