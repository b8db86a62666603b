package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func samples() []file {
	return []file{{"LICENSE", 0o644, []byte("terms")}, {"kubectl-autopolicy", 0o755, []byte("\x7fELF program")}}
}

func TestSameFilesSameArchive(t *testing.T) {
	for name, write := range map[string]func(io.Writer, []file) error{"tar": writeTarGz, "zip": writeZip} {
		t.Run(name, func(t *testing.T) {
			var a, b bytes.Buffer
			if err := write(&a, samples()); err != nil {
				t.Fatal(err)
			}
			if err := write(&b, samples()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Error("two archives of the same files differ")
			}
			other := samples()
			other[1].data = []byte("another program")
			var c bytes.Buffer
			if err := write(&c, other); err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(a.Bytes(), c.Bytes()) {
				t.Error("archives of different files are the same")
			}
		})
	}
}

func TestTarCarriesNothingOfThisMachine(t *testing.T) {
	var packed bytes.Buffer
	if err := writeTarGz(&packed, samples()); err != nil {
		t.Fatal(err)
	}
	gz, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if gz.Name != "" || !gz.ModTime.IsZero() {
		t.Errorf("gzip header has name %q and time %v", gz.Name, gz.ModTime)
	}
	archive := tar.NewReader(gz)
	for _, want := range samples() {
		h, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != want.name || h.FileInfo().Mode() != want.mode || !bytes.Equal(data, want.data) {
			t.Errorf("got %s %v %q", h.Name, h.FileInfo().Mode(), data)
		}
		if !h.ModTime.Equal(epoch()) || h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" {
			t.Errorf("%s carries time %v and owner %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
	}
	if _, err := archive.Next(); err != io.EOF {
		t.Errorf("more files than packed: %v", err)
	}
}

func TestZipKeepsNamesAndModes(t *testing.T) {
	var packed bytes.Buffer
	if err := writeZip(&packed, samples()); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != len(samples()) {
		t.Fatalf("%d files", len(archive.File))
	}
	for i, want := range samples() {
		got := archive.File[i]
		if got.Name != want.name || got.Mode() != want.mode || !got.Modified.Equal(epoch()) {
			t.Errorf("got %s %v %v", got.Name, got.Mode(), got.Modified)
		}
	}
}

func template(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "krew", "autopolicy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func built() (artifacts []artifact) {
	for _, p := range platforms() {
		sum := sha256.Sum256([]byte(p.String()))
		artifacts = append(artifacts, artifact{platform: p, name: "archive-" + p.OS + "-" + p.Arch, sha256: hex.EncodeToString(sum[:])})
	}
	return artifacts
}

func TestManifestNamesWhatWasBuilt(t *testing.T) {
	out, err := fill(template(t), "v1.2.3", built())
	if err != nil {
		t.Fatal(err)
	}
	var p plugin
	if err := yaml.UnmarshalStrict(out, &p); err != nil {
		t.Fatal(err)
	}
	if p.Spec.Version != "v1.2.3" || len(p.Spec.Platforms) != len(platforms()) {
		t.Fatalf("version %s with %d platforms", p.Spec.Version, len(p.Spec.Platforms))
	}
	for i, a := range built() {
		got := p.Spec.Platforms[i]
		if got.SHA256 != a.sha256 || got.URI != downloads+"v1.2.3/"+a.name || got.Selector.MatchLabels.OS != a.platform.OS || got.Selector.MatchLabels.Arch != a.platform.Arch {
			t.Errorf("%s: got %+v", a.platform, got)
		}
	}
	if strings.Contains(string(out), strings.Repeat("0", 64)) || strings.Contains(string(out), "v0.1.0") {
		t.Error("something of the template was left")
	}
}

func TestManifestKeepsKrewsRules(t *testing.T) {
	var p plugin
	if err := yaml.UnmarshalStrict(template(t), &p); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Spec.ShortDescription); n == 0 || n > 50 {
		t.Errorf("short description has %d characters, krew wants 1 to 50", n)
	}
	if p.Metadata["name"] != "autopolicy" || p.Spec.Homepage != "https://github.com/autopolicy/kubectl-autopolicy" {
		t.Errorf("name %q, homepage %q", p.Metadata["name"], p.Spec.Homepage)
	}
	for line := range strings.Lines(p.Spec.Description) {
		if strings.Contains(line, "kubectl ") || len(line) > 81 {
			t.Errorf("krew wants no usage in the description and lines of 80 characters: %q", line)
		}
	}
}

func TestManifestIsRefused(t *testing.T) {
	good := template(t)
	for name, c := range map[string]struct {
		template  []byte
		artifacts []artifact
	}{
		"when nothing was built":                        {good, nil},
		"when it lacks a platform that was built":       {good, append(built(), artifact{platform: platform{"plan9", "amd64"}})},
		"when it names another binary than the archive": {bytes.ReplaceAll(good, []byte("bin: kubectl-autopolicy.exe"), []byte("bin: autopolicy.exe")), built()},
		"when it has a field that would be lost":        {append(bytes.Clone(good), "  files: []\n"...), built()},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := fill(c.template, "v1.2.3", c.artifacts); err == nil {
				t.Errorf("accepted:\n%s", out)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[string]bool{
		"v0.1.0": true, "v1.2.3-rc.1": true, "v0.1.0-5-gabcdef0": true, "v0.0.0-g0123456-dirty": true,
		"": false, "1.2.3": false, "v1.2": false, "v01.2.3": false, "v1.2.3+build": false, "v1.2.3-": false, "v1.2.3/../..": false, "v1.2.3\n": false,
	} {
		if isVersion(v) != want {
			t.Errorf("isVersion(%q) = %t", v, !want)
		}
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	for name, args := range map[string][]string{
		"no version":               {},
		"a version without v":      {"-version=1.2.3"},
		"a platform nobody builds": {"-version=v1.2.3", "-platforms=linux/amd64,linux/s390x"},
		"a platform in half":       {"-version=v1.2.3", "-platforms=linux"},
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := parse(args); err == nil {
				t.Errorf("accepted: %+v", o)
			}
		})
	}
	o, err := parse([]string{"-version=v1.2.3"})
	if err != nil || len(o.platforms) != 6 {
		t.Errorf("all platforms: %+v, %v", o, err)
	}
}
