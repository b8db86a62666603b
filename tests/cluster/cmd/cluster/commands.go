package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/tests/cluster"
	"github.com/autopolicy/kubectl-autopolicy/tests/cluster/image"
)

// command is one verb of the program.
type command struct {
	name, usage, what string
	do                func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"up", "[--nodes=2] [--cni=cilium] [--source=DIR]", "start it; wait until it is ready", up},
		{"down", "", "stop it and remove what it made", down},
		{"kubeconfig", "", "print the path of its kubeconfig", kubeconfig},
		{"env", "", "print shell lines that point kubectl at it", env},
		{"setup", "[--cni=cilium] [--source=DIR]", "install and compile what up needs, and no more", setup},
		{"load", "IMAGE.tar...", "import images into every node", load},
		{"node", "NODE|control -- COMMAND...", "run a command in a node's namespaces", node},
		{"image", "OUT.tar REF --binary=PATH [--add=SRC:DST] [--link=TARGET:DST] [-- ARGS]", "write an image", writeImage},
		{"flux", "[--source=DIR] REPOSITORIES-DIR", "run Flux and a git server of a folder until it is interrupted", flux},
		{"crds", "[--module-dir=DIR] OUT-DIR", "copy the CRDs of KubeArmor and Cilium", crds},
	}
}

// line is a command line in its parts.
type line struct {
	flags   *flag.FlagSet
	name    *string
	state   *string
	words   []string // between the flags
	trailer []string // after --
}

func newLine(name string, stderr io.Writer) *line {
	l := &line{flags: flag.NewFlagSet("cluster "+name, flag.ContinueOnError)}
	l.flags.SetOutput(stderr)
	l.name = l.flags.String("name", cluster.DefaultName, "name of the cluster")
	l.state = l.flags.String("state", os.Getenv("AUTOPOLICY_CLUSTER_STATE"), "folder of all clusters' files")
	return l
}

// parse takes flags and words in any order, and needs least to most words.
func (l *line) parse(args []string, least, most int) error {
	if i := slices.Index(args, "--"); i >= 0 {
		args, l.trailer = args[:i], args[i+1:]
	}
	for len(args) > 0 {
		if err := l.flags.Parse(args); err != nil {
			return &usageError{err.Error()}
		}
		if args = l.flags.Args(); len(args) > 0 {
			l.words, args = append(l.words, args[0]), args[1:]
		}
	}
	if n := len(l.words); n < least || n > most {
		return &usageError{fmt.Sprintf("%s: %d words, not %d to %d", l.flags.Name(), n, least, most)}
	}
	return nil
}

func (l *line) cluster() (*cluster.Cluster, error) { return cluster.New(*l.state, *l.name) }

func sourceFlag(l *line) *string {
	return l.flags.String("source", os.Getenv("AUTOPOLICY_CLUSTER_SOURCE"), "folder tests/cluster with the sources (default: found from here)")
}

func cniFlag(l *line) *string {
	return l.flags.String("cni", "", "who connects pods: cilium, which enforces network policies (default: plain routes, which enforce none)")
}

func findSource(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	return cluster.FindSource(".")
}

func up(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l := newLine("up", stderr)
	nodes := l.flags.Int("nodes", 2, "number of nodes")
	cni := cniFlag(l)
	source := sourceFlag(l)
	if err := l.parse(args, 0, 0); err != nil {
		return err
	}
	c, err := l.cluster()
	if err != nil {
		return err
	}
	dir, err := findSource(*source)
	if err != nil {
		return err
	}
	if err := c.Up(ctx, cluster.Options{Nodes: *nodes, CNI: *cni, Source: dir, Progress: stderr}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, c.Kubeconfig())
	return err
}

func setup(ctx context.Context, args []string, _, stderr io.Writer) error {
	l := newLine("setup", stderr)
	cni := cniFlag(l)
	source := sourceFlag(l)
	if err := l.parse(args, 0, 0); err != nil {
		return err
	}
	c, err := l.cluster()
	if err != nil {
		return err
	}
	dir, err := findSource(*source)
	if err != nil {
		return err
	}
	if err := cluster.Setup(ctx, *cni, stderr); err != nil {
		return err
	}
	_, err = c.Build(ctx, *cni, dir, stderr)
	return err
}

func down(ctx context.Context, args []string, _, stderr io.Writer) error {
	l := newLine("down", stderr)
	if err := l.parse(args, 0, 0); err != nil {
		return err
	}
	c, err := l.cluster()
	if err != nil {
		return err
	}
	return c.Down(ctx)
}

func kubeconfig(_ context.Context, args []string, stdout, stderr io.Writer) error {
	l := newLine("kubeconfig", stderr)
	if err := l.parse(args, 0, 0); err != nil {
		return err
	}
	c, err := running(l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, c.Kubeconfig())
	return err
}

func env(_ context.Context, args []string, stdout, stderr io.Writer) error {
	l := newLine("env", stderr)
	if err := l.parse(args, 0, 0); err != nil {
		return err
	}
	c, err := running(l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "export KUBECONFIG='%s'\nexport PATH='%s':\"$PATH\"\n", c.Kubeconfig(), c.BinDir())
	return err
}

// running returns the cluster of the command line if it is up.
func running(l *line) (*cluster.Cluster, error) {
	c, err := l.cluster()
	if err != nil {
		return nil, err
	}
	_, err = c.Nodes()
	return c, err
}

func load(ctx context.Context, args []string, _, stderr io.Writer) error {
	l := newLine("load", stderr)
	if err := l.parse(args, 1, 1000); err != nil {
		return err
	}
	c, err := running(l)
	if err != nil {
		return err
	}
	return c.Load(ctx, l.words...)
}

func node(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l := newLine("node", stderr)
	if err := l.parse(args, 1, 1); err != nil {
		return err
	}
	if len(l.trailer) == 0 {
		return &usageError{"node: no command after --"}
	}
	c, err := running(l)
	if err != nil {
		return err
	}
	enter, err := c.Enter(l.words[0])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, enter[0], append(enter[1:], l.trailer...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	return cmd.Run()
}

// flux runs until ctx ends, which an interruption does. The one line on standard
// output says that it is ready, and where the repositories are.
func flux(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l := newLine("flux", stderr)
	source := sourceFlag(l)
	if err := l.parse(args, 1, 1); err != nil {
		return err
	}
	c, err := running(l)
	if err != nil {
		return err
	}
	dir, err := findSource(*source)
	if err != nil {
		return err
	}
	return c.Flux(ctx, cluster.FluxOptions{Source: dir, Repositories: l.words[0], Progress: stderr, Ready: func(url string) { fmt.Fprintln(stdout, url) }})
}

// pairs collects a flag's values of the form LEFT:RIGHT.
type pairs [][2]string

func (p *pairs) String() string { return fmt.Sprint(*p) }

// Set adds one value; RIGHT is an absolute path in the image.
func (p *pairs) Set(value string) error {
	i := strings.LastIndex(value, ":")
	if i < 1 || !strings.HasPrefix(value[i+1:], "/") {
		return fmt.Errorf("%q is not of the form FROM:/PATH", value)
	}
	*p = append(*p, [2]string{value[:i], value[i+1:]})
	return nil
}

func writeImage(_ context.Context, args []string, _, stderr io.Writer) (err error) {
	l := newLine("image", stderr)
	var added, linked pairs
	binary := l.flags.String("binary", "", "static program that the image runs, as /NAME")
	arch := l.flags.String("arch", runtime.GOARCH, "architecture of the program")
	user := l.flags.String("user", "", "user (and group) that runs it; root when empty")
	l.flags.Var(&added, "add", "SRC:DST, a file to copy into the image")
	l.flags.Var(&linked, "link", "TARGET:DST, a symbolic link in the image")
	if err := l.parse(args, 2, 2); err != nil {
		return err
	}
	if *binary == "" {
		return &usageError{"image: --binary is needed"}
	}
	entry := "/" + filepath.Base(*binary)
	config := image.Config{
		Ref: l.words[1], Arch: *arch, Entrypoint: []string{entry}, Args: l.trailer, User: *user,
		Files: []image.File{{Path: entry, Source: *binary}},
	}
	for _, a := range added {
		config.Files = append(config.Files, image.File{Source: a[0], Path: a[1]})
	}
	for _, a := range linked {
		config.Files = append(config.Files, image.File{Link: a[0], Path: a[1]})
	}
	file, err := os.Create(l.words[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	if err := image.Write(out, config); err != nil {
		file.Close()
		os.Remove(l.words[0])
		return err
	}
	if err := out.Flush(); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
