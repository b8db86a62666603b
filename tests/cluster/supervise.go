package cluster

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
)

// SuperviseCommand is the first argument by which a program that imports
// this package is asked to be a supervisor: it must then call Supervise with
// the arguments after it. Up starts the running program again that way.
const SuperviseCommand = "supervise"

// gateFD and listenerFD are what Up hands to a supervisor beside its
// standard streams: a pipe that is written to when the supervisor is in its
// cgroup, and for the control plane the host's listening socket.
const (
	gateFD     = 3
	listenerFD = 4
)

//go:embed config
var configs embed.FS

// Supervise runs the control plane or one node in the namespaces that Up
// made for this process, and returns when ctx ends or on an error. Its
// arguments are ROOT NAME CGROUP NODES ROLE, with control or a node's number
// as the role. It is for the program that Up starts, not for people.
func Supervise(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return errors.New("supervise: ROOT NAME CGROUP NODES ROLE are needed")
	}
	c, err := New(args[0], args[1])
	if err != nil {
		return err
	}
	c.group = args[2] // New would look at an environment that is not Up's
	nodes, err := strconv.Atoi(args[3])
	if err != nil {
		return fmt.Errorf("supervise: nodes: %w", err)
	}
	gate := os.NewFile(gateFD, "gate")
	if n, err := gate.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("supervise: the starting program is gone: %w", err)
	}
	if err := gate.Close(); err != nil {
		return err
	}
	s := &supervisor{Cluster: c, nodes: nodes}
	if args[4] == "control" {
		err = s.control(ctx)
	} else {
		var n int
		if n, err = strconv.Atoi(args[4]); err == nil {
			err = s.node(ctx, n)
		}
	}
	if err != nil {
		s.fail(args[4], err)
	}
	return err
}

// supervisor is the parent of the programs of one node or of the control
// plane.
type supervisor struct {
	*Cluster
	nodes int
}

// fail tells Up that something it started does not run. The first telling
// counts: what follows is mostly its consequence.
func (s *supervisor) fail(who string, err error) {
	f, openErr := os.OpenFile(s.failFile(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if openErr != nil {
		fmt.Fprintln(os.Stderr, who+":", err)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s: %v", who, err)
	fmt.Fprintln(os.Stderr, who+":", err)
}

func (c *Cluster) failFile() string { return filepath.Join(c.dir(), "failed") }

// start runs a program beside the supervisor with its output in a log file,
// and reports its end. name also names the log.
func (s *supervisor) start(name, program string, args ...string) error {
	return s.startWith(nil, name, program, args...)
}

// startWith is start with more in the program's environment.
func (s *supervisor) startWith(env []string, name, program string, args ...string) error {
	path := filepath.Join(s.LogDir(), name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), "HOME=/"), env...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := cmd.Wait()
		s.fail(name, fmt.Errorf("ended (%v): %s", err, lastLines(path)))
	}()
	return nil
}

// lastLines returns the end of a log file for an error message.
func lastLines(path string) string {
	const most = 800 // bytes: a few lines
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(data) > most {
		data = data[len(data)-most:]
		if _, whole, found := bytes.Cut(data, []byte("\n")); found && len(whole) > 0 {
			data = whole
		}
	}
	return strings.TrimSpace(string(data))
}

// render writes a file of the config folder, filled with values, to path.
func render(name, path string, values any) error {
	t, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := t.Execute(f, values); err != nil {
		return errors.Join(fmt.Errorf("fill %s: %w", name, err), f.Close())
	}
	return f.Close()
}

// run runs a program to its end and has its output in the error.
func run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ip runs ip(8) once for every line of commands.
func ip(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if err := run(ctx, "ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

// bind makes dir, and mounts it over target for this mount namespace.
func bind(dir, target string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(dir, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", dir, target, err)
	}
	return nil
}
