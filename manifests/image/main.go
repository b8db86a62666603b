// Command image makes the collector's container image without a container
// runtime: a static binary on nothing, for linux/amd64 and linux/arm64. It writes
// an OCI archive, which containerd, podman and Docker load, or pushes to the
// registry of the image's name. The same sources give the same bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	ref, version, out string
	push              bool
	arches            []string
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.ref, "ref", "", "name of the image, such as ghcr.io/autopolicy/collector:v1.0.0")
	flags.StringVar(&o.version, "version", "dev", "version that the collector tells")
	flags.StringVar(&o.out, "out", "", "OCI archive to write")
	arches := flags.String("arch", "amd64,arm64", "architectures, joined by commas")
	flags.BoolVar(&o.push, "push", false, "push to the registry of the image's name")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.arches = strings.Split(*arches, ",")
	tag, err := name.NewTag(o.ref)
	if err != nil {
		return fmt.Errorf("image name: %w", err)
	}
	if o.out == "" && !o.push {
		return errors.New("nothing to do: set -out or -push")
	}
	binaries, err := build(ctx, o)
	if err != nil {
		return err
	}
	index, err := makeIndex(o, binaries)
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if o.out != "" {
		if err := writeArchive(o.out, tag, index); err != nil {
			return fmt.Errorf("write %s: %w", o.out, err)
		}
		fmt.Fprintf(os.Stderr, "wrote %s: %s@%s\n", o.out, tag, digest)
	}
	if o.push {
		if err := push(ctx, tag, index); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "pushed %s@%s\n", tag, digest)
	}
	return nil
}

// push writes the image to the registry of its name, as whom docker login or
// podman login has made the user.
func push(ctx context.Context, tag name.Tag, index v1.ImageIndex) error {
	if err := remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}

// build compiles the collector for every architecture and gives the binaries.
func build(ctx context.Context, o options) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "autopolicy-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binaries := map[string][]byte{}
	for _, arch := range o.arches {
		path := filepath.Join(dir, arch)
		compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+o.version,
			"-o", path, "github.com/autopolicy/kubectl-autopolicy/cmd/autopolicy-collector")
		compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		compile.Stderr = os.Stderr
		if err := compile.Run(); err != nil {
			return nil, fmt.Errorf("compile for %s: %w", arch, err)
		}
		if binaries[arch], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return binaries, nil
}
