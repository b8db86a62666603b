// Package vm boots Debian's kernels in QEMU's emulation: it fetches their packages
// into a cache, packs an initial file system around a program, and gives back what
// the console showed. It must leave the machine's own package sources alone, and no
// process behind.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kernel is one of Debian's.
type Kernel struct {
	Version string // the first two numbers, as of when this was written; sid moves on
	Suite   string // Debian's release that has it
	Arch    string // Debian's and Go's name of the architecture
}

// Kernels are those that are tested: the oldest supported one and what follows.
func Kernels() []Kernel {
	return []Kernel{
		{"5.10", "bullseye", "amd64"},
		{"6.1", "bookworm", "amd64"},
		{"6.12", "trixie", "amd64"},
		{"7.2", "sid", "amd64"},
		{"6.12", "trixie", "arm64"},
	}
}

// Turns tells whether its processors must take turns: side by side, Debian 12's QEMU
// lets one run an int3 that the other has already patched away, and 7.2 ends with an
// oops in a static key. With turns 6.1 did not come to its end in 105 s.
func (k Kernel) Turns() bool { return k.Version == "7.2" }

// String is how a kernel is asked for: its version, and its architecture if that is
// not the usual one.
func (k Kernel) String() string {
	if k.Arch == "amd64" {
		return k.Version
	}
	return k.Version + "-" + k.Arch
}

// Fetch gives the path of the kernel's image, from the cache or from Debian's mirror.
func (k Kernel) Fetch(ctx context.Context, cache string, log io.Writer) (string, error) {
	dir := filepath.Join(cache, k.Suite+"-"+k.Arch)
	if image, err := imageIn(dir); err == nil {
		return image, nil
	}
	fmt.Fprintf(log, "fetching the kernel of Debian's %s for %s\n", k.Suite, k.Arch)
	if err := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); err != nil {
		return "", err
	}
	image, err := k.download(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("fetch kernel %s: %w", k, err)
	}
	return image, nil
}

func (k Kernel) download(ctx context.Context, dir string) (string, error) {
	const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
	sources := filepath.Join(dir, "sources.list")
	line := fmt.Sprintf("deb [arch=%s signed-by=%s] http://deb.debian.org/debian %s main\n", k.Arch, keys, k.Suite)
	if err := os.WriteFile(sources, []byte(line), 0o644); err != nil {
		return "", err
	}
	apt := func(program string, arguments ...string) (string, error) {
		options := []string{
			"-qq", "-o", "Dir::Etc::sourcelist=" + sources, "-o", "Dir::Etc::sourceparts=/dev/null",
			"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
			"-o", "APT::Architecture=" + k.Arch, "-o", "APT::Architectures=" + k.Arch, "-o", "APT::Sandbox::User=root",
			"-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		}
		return output(ctx, dir, program, append(options, arguments...)...)
	}
	if _, err := apt("apt-get", "update"); err != nil {
		return "", err
	}
	shown, err := apt("apt-cache", "show", "--no-all-versions", "linux-image-cloud-"+k.Arch)
	if err != nil {
		return "", err
	}
	newest := regexp.MustCompile(`(?m)^Depends:.*?linux-image-([^ ,]+)`).FindStringSubmatch(shown)
	if newest == nil {
		return "", errors.New("linux-image-cloud-" + k.Arch + " depends on no kernel")
	}
	// Since 7.0 the image is in a package of its own.
	name := "linux-binary-" + newest[1]
	if _, err := apt("apt-cache", "show", name); err != nil {
		name = "linux-image-" + newest[1]
	}
	if _, err := apt("apt-get", "download", name); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(packages) == 0 {
		return "", errors.Join(err, fmt.Errorf("%s was not downloaded", name))
	}
	if _, err := output(ctx, dir, "dpkg", "-x", packages[0], filepath.Join(dir, "root")); err != nil {
		return "", err
	}
	return imageIn(dir)
}

// imageIn finds the image in what a package holds.
func imageIn(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(filepath.Join(dir, "root"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasPrefix(entry.Name(), "vmlinuz") {
			found = path
			return filepath.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = errors.New("no kernel image in " + dir)
	}
	return found, err
}

func output(ctx context.Context, dir, program string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Dir = dir
	command.Env = append(slices.Clip(os.Environ()), "LC_ALL=C")
	var said strings.Builder
	command.Stderr = &said
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, arguments[len(arguments)-1], err, strings.TrimSpace(said.String()))
	}
	return string(text), nil
}
