package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/tests/cluster/image"
)

func TestWriteMakesAnArchiveThatNamesItsParts(t *testing.T) {
	config := sample(t)
	var archive bytes.Buffer
	if err := image.Write(&archive, config); err != nil {
		t.Fatal(err)
	}
	parts := untar(t, archive.Bytes())
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	decode(t, parts["manifest.json"].data, &manifest)
	if len(manifest) != 1 || len(manifest[0].Layers) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"localhost/app:1"}) {
		t.Fatalf("manifest = %+v, want one image with one layer", manifest)
	}
	var got struct {
		Architecture string
		Config       struct {
			Entrypoint, Cmd []string
			User            string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, parts[manifest[0].Config].data, &got)
	if got.Architecture != "arm64" || got.Config.User != "1000" || !slices.Equal(got.Config.Entrypoint, []string{"/app"}) || !slices.Equal(got.Config.Cmd, []string{"--serve"}) {
		t.Errorf("config = %+v, want what was asked for", got)
	}
	if want := "sha256:" + filepath.Dir(manifest[0].Layers[0]); len(got.RootFS.DiffIDs) != 1 || got.RootFS.DiffIDs[0] != want {
		t.Errorf("diff ids = %v, want %s", got.RootFS.DiffIDs, want)
	}
	layer := untar(t, parts[manifest[0].Layers[0]].data)
	want := []string{"app", "bin/", "bin/busybox", "bin/sh", "etc/", "etc/conf", "etc/passwd", "tmp/"}
	if names := slices.Sorted(maps.Keys(layer)); !slices.Equal(names, want) {
		t.Errorf("layer holds %q, want %q", names, want)
	}
	if e := layer["bin/sh"]; e.header.Linkname != "busybox" {
		t.Errorf("bin/sh links to %q, want busybox", e.header.Linkname)
	}
	if e := layer["app"]; e.header.Mode != 0o755 || string(e.data) != "program" {
		t.Errorf("app is %q with mode %o, want the program with mode 755", e.data, e.header.Mode)
	}
}

func TestWriteGivesTheSameBytesWhateverTheOrderOfFiles(t *testing.T) {
	config := sample(t)
	var first, second bytes.Buffer
	if err := image.Write(&first, config); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(config.Files)
	if err := image.Write(&second, config); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the order of files changed the archive")
	}
	config.Files[0].Mode = 0o700
	var third bytes.Buffer
	if err := image.Write(&third, config); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first.Bytes(), third.Bytes()) {
		t.Error("another mode did not change the archive")
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, change := range map[string]func(*image.Config){
		"an image without a name":         func(c *image.Config) { c.Ref = "" },
		"an image that runs nothing":      func(c *image.Config) { c.Entrypoint = nil },
		"a file without a name":           func(c *image.Config) { c.Files[0].Path = "/" },
		"a source file that is not there": func(c *image.Config) { c.Files[0].Source += ".missing" },
	} {
		t.Run(name, func(t *testing.T) {
			config := sample(t)
			change(&config)
			if err := image.Write(io.Discard, config); err == nil {
				t.Error("no error")
			} else if config.Files[0].Path != "/" && config.Ref != "" && config.Entrypoint != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v does not say that the file is not there", err)
			}
		})
	}
}

func sample(t *testing.T) image.Config {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	return image.Config{
		Ref: "localhost/app:1", Arch: "arm64", Entrypoint: []string{"/app"}, Args: []string{"--serve"}, User: "1000",
		Files: []image.File{
			{Path: "/app", Source: program},
			{Path: "/bin/busybox", Source: program},
			{Path: "/bin/sh", Link: "busybox"},
			{Path: "/etc/conf", Data: []byte("x=1\n")},
		},
	}
}

type entry struct {
	header *tar.Header
	data   []byte
}

func untar(t *testing.T, data []byte) map[string]entry {
	t.Helper()
	entries := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries[h.Name] = entry{h, content}
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("decode %q: %v", data, err)
	}
}
