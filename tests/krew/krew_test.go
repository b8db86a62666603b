// Package krew proves with krew's own programs that a release can be installed.
// It must not ask the network for anything that is released.
package krew

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// manifest is what the tests read of a krew manifest.
type manifest struct {
	Spec struct {
		Version   string
		Platforms []struct {
			Selector struct {
				MatchLabels struct{ OS, Arch string }
			}
			URI, SHA256, Bin string
		}
	}
}

// goCommand runs the go command in the project's folder and gives what it said.
func goCommand(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// tool runs a pinned program of tests/tools.
func tool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	return goCommand(t, env, append([]string{"tool", "-modfile=" + filepath.Join("tests", "tools", "go.mod")}, args...)...)
}

func TestKrewAcceptsTheCommittedManifest(t *testing.T) {
	said := tool(t, nil, "validate-krew-manifest", "-skip-install", "-manifest="+filepath.Join("krew", "autopolicy.yaml"))
	if !strings.Contains(said, "structural validation OK") {
		t.Errorf("validate-krew-manifest said:\n%s", said)
	}
}

// A release of the sources as they are, by default of this platform only.
// AUTOPOLICY_DIST names the folder of a release that is already made: make
// release checks all platforms that way.
func TestKrewInstallsTheRelease(t *testing.T) {
	dist := os.Getenv("AUTOPOLICY_DIST")
	if dist == "" {
		dist = t.TempDir()
		goCommand(t, nil, "run", "./tests/release", "-version=v0.0.0-test", "-out="+dist, "-platforms="+runtime.GOOS+"/"+runtime.GOARCH)
	} else if !filepath.IsAbs(dist) {
		dist = filepath.Join("..", "..", dist)
	}
	dist, err := filepath.Abs(dist)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dist, "autopolicy.yaml")
	if said := tool(t, nil, "validate-krew-manifest", "-skip-install", "-manifest="+file); !strings.Contains(said, "structural validation OK") {
		t.Errorf("validate-krew-manifest said:\n%s", said)
	}
	m := read(t, file)
	if len(m.Spec.Platforms) == 0 {
		t.Fatal("the manifest has no platform")
	}
	sums, err := os.ReadFile(filepath.Join(dist, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Spec.Platforms {
		labels := p.Selector.MatchLabels
		t.Run(labels.OS+"/"+labels.Arch, func(t *testing.T) {
			archive := filepath.Join(dist, path.Base(p.URI))
			data, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(data)
			line := hex.EncodeToString(sum[:]) + "  " + path.Base(p.URI) + "\n"
			if p.SHA256 != hex.EncodeToString(sum[:]) || !bytes.Contains(sums, []byte(line)) {
				t.Errorf("checksum of %s differs from the manifest's or checksums.txt's", path.Base(p.URI))
			}
			root := install(t, file, archive, labels.OS, labels.Arch)
			store := filepath.Join(root, "store", "autopolicy", m.Spec.Version)
			want, err := os.ReadFile(filepath.Join("..", "..", "LICENSE"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(store, "LICENSE")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("LICENSE was not installed: %v", err)
			}
			if _, err := os.Stat(filepath.Join(store, p.Bin)); err != nil {
				t.Error(err)
			}
			if labels.OS == runtime.GOOS && labels.Arch == runtime.GOARCH {
				runs(t, filepath.Join(root, "bin"), m.Spec.Version)
			}
		})
	}
}

func read(t *testing.T, file string) manifest {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := yaml.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// install runs the real krew in a root of its own and gives that root.
func install(t *testing.T, file, archive, system, arch string) string {
	t.Helper()
	root := t.TempDir()
	said := tool(t, []string{"KREW_ROOT=" + root, "KREW_OS=" + system, "KREW_ARCH=" + arch, "KREW_NO_UPGRADE_CHECK=1"},
		"krew", "install", "--manifest="+file, "--archive="+archive)
	if !strings.Contains(said, "Installed plugin: autopolicy") {
		t.Fatalf("krew install said:\n%s", said)
	}
	return root
}

// runs runs what krew put on the PATH, by the name that kubectl looks for.
func runs(t *testing.T, bin, version string) {
	t.Helper()
	name := "kubectl-autopolicy"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	out, err := exec.Command(filepath.Join(bin, name), "version").CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl-autopolicy version: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), version) {
		t.Errorf("the installed plugin does not say %s:\n%s", version, out)
	}
}
