package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// planted is the image of two binaries that are none.
func planted(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := makeIndex(options{version: "v1.2.3", arches: []string{"amd64", "arm64"}}, map[string][]byte{"amd64": []byte("a"), "arm64": []byte("b")})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestTheSameBinariesGiveTheSameArchive(t *testing.T) {
	tag, err := name.NewTag("example.com/collector:v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	var archives [2][]byte
	for i := range archives {
		path := filepath.Join(t.TempDir(), "sub", "image.tar")
		if err := writeArchive(path, tag, planted(t)); err != nil {
			t.Fatal(err)
		}
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same binaries differ")
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archives[0])); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["io.containerd.image.name"] != "example.com/collector:v1.2.3" {
		t.Errorf("index is %s", files["index.json"])
	}
	if files["oci-layout"] == nil {
		t.Error("there is no oci-layout")
	}
}

func TestTheImageHoldsTheProgramAndNothingElse(t *testing.T) {
	index := planted(t)
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		img, err := index.Image(manifest.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != arch || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != entrypoint || config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
			t.Errorf("config is %+v", config)
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 1 {
			t.Fatalf("%d layers, %v", len(layers), err)
		}
		content, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(content)
		h, err := r.Next()
		if err != nil || h.Name != "autopolicy-collector" || h.Mode != 0o755 || h.Uid != 0 {
			t.Errorf("first file is %+v, %v", h, err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("there is more: %v", err)
		}
	}
}
