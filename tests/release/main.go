// Command release builds the plugin's archives for every platform, their
// checksums and the krew manifest that names them. The same sources, version
// and Go give the same bytes. It is build tooling, kept under tests because it
// runs the go command, which no room of the product may; it never publishes.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// platform is an operating system and an architecture in Go's and krew's names.
type platform struct{ OS, Arch string }

func (p platform) String() string { return p.OS + "/" + p.Arch }

// platforms are what the plugin is released for.
func platforms() []platform {
	return []platform{
		{"linux", "amd64"}, {"linux", "arm64"},
		{"darwin", "amd64"}, {"darwin", "arm64"},
		{"windows", "amd64"}, {"windows", "arm64"},
	}
}

// artifact is one archive of a release.
type artifact struct {
	platform platform
	name     string // file name
	sha256   string // of the archive, in hexadecimal
}

// options are what the command line says.
type options struct {
	version   string
	root, out string
	platforms []platform
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, progress io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	template, err := os.ReadFile(filepath.Join(o.root, "krew", "autopolicy.yaml"))
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	licence, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return fmt.Errorf("read licence: %w", err)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	var artifacts []artifact
	for _, p := range o.platforms {
		began := time.Now()
		a, err := release(ctx, o, p, licence)
		if err != nil {
			return err
		}
		fmt.Fprintf(progress, "%s  %s  %.0f s\n", a.sha256[:12], a.name, time.Since(began).Seconds())
		artifacts = append(artifacts, a)
	}
	if err := os.WriteFile(filepath.Join(o.out, "checksums.txt"), checksums(artifacts), 0o644); err != nil {
		return fmt.Errorf("write checksums: %w", err)
	}
	manifest, err := fill(template, o.version, artifacts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "autopolicy.yaml"), manifest, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

func parse(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&o.version, "version", "", "version of the release, as v1.2.3")
	flags.StringVar(&o.root, "root", ".", "folder of the sources")
	flags.StringVar(&o.out, "out", "dist", "folder to write to")
	names := flags.String("platforms", "all", "platforms to build, as linux/amd64,darwin/arm64")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if !isVersion(o.version) {
		return o, fmt.Errorf("version %q: a semantic version with a v is needed, such as v1.2.3", o.version)
	}
	if *names == "all" {
		o.platforms = platforms()
		return o, nil
	}
	for name := range strings.SplitSeq(*names, ",") {
		system, arch, _ := strings.Cut(name, "/")
		p := platform{system, arch}
		if !slices.Contains(platforms(), p) {
			return o, fmt.Errorf("platform %q: not one of %v", name, platforms())
		}
		o.platforms = append(o.platforms, p)
	}
	return o, nil
}

// release builds and packs one platform and writes the archive.
func release(ctx context.Context, o options, p platform, licence []byte) (artifact, error) {
	binary, err := build(ctx, o, p)
	if err != nil {
		return artifact{}, err
	}
	files := []file{
		{name: "LICENSE", mode: 0o644, data: licence},
		{name: binaryName(p), mode: 0o755, data: binary},
	}
	packed, pack, ending := bytes.Buffer{}, writeTarGz, ".tar.gz"
	if p.OS == "windows" {
		pack, ending = writeZip, ".zip"
	}
	if err := pack(&packed, files); err != nil {
		return artifact{}, fmt.Errorf("pack %s: %w", p, err)
	}
	sum := sha256.Sum256(packed.Bytes())
	a := artifact{platform: p, name: "kubectl-autopolicy_" + o.version + "_" + p.OS + "_" + p.Arch + ending, sha256: hex.EncodeToString(sum[:])}
	if err := os.WriteFile(filepath.Join(o.out, a.name), packed.Bytes(), 0o644); err != nil {
		return artifact{}, fmt.Errorf("write archive: %w", err)
	}
	return a, nil
}

func binaryName(p platform) string {
	if p.OS == "windows" {
		return "kubectl-autopolicy.exe"
	}
	return "kubectl-autopolicy"
}

// build compiles the plugin and gives its bytes. Settings of the caller's
// environment that change what comes out are not taken over.
func build(ctx context.Context, o options, p platform) ([]byte, error) {
	dir, err := os.MkdirTemp("", "autopolicy-release-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	binary := filepath.Join(dir, binaryName(p))
	data, err := compile(ctx, o, p, binary)
	return data, errors.Join(err, os.RemoveAll(dir))
}

func compile(ctx context.Context, o options, p platform, binary string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.version="+o.version, "-o", binary, "./cmd/kubectl-autopolicy")
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", p, err, said)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read what was built for %s: %w", p, err)
	}
	return data, nil
}

// checksums are in the form that sha256sum -c reads.
func checksums(artifacts []artifact) []byte {
	var out bytes.Buffer
	for _, a := range artifacts {
		fmt.Fprintf(&out, "%s  %s\n", a.sha256, a.name)
	}
	return out.Bytes()
}
