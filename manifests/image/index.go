package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entrypoint is the only file of the image.
const entrypoint = "/autopolicy-collector"

// makeIndex puts the images of all architectures under one index.
func makeIndex(o options, binaries map[string][]byte) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range o.arches {
		img, err := makeImage(o, arch, binaries[arch])
		if err != nil {
			return nil, fmt.Errorf("make image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index, nil
}

func makeImage(o options, arch string, binary []byte) (v1.Image, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	header := &tar.Header{Name: entrypoint[1:], Mode: 0o755, Size: int64(len(binary)), ModTime: time.Unix(0, 0)}
	if err := errors.Join(w.WriteHeader(header), writeAll(w, binary), w.Close()); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = v1.Config{
		Entrypoint: []string{entrypoint},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "autopolicy-collector",
			"org.opencontainers.image.version":  o.version,
			"org.opencontainers.image.source":   "https://github.com/autopolicy/kubectl-autopolicy",
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	config.History = nil
	return mutate.ConfigFile(img, config)
}

func writeAll(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

// writeArchive writes an OCI layout as a tar file, named so that containerd and
// Docker know the image by its tag.
func writeArchive(out string, tag name.Tag, index v1.ImageIndex) (err error) {
	dir, err := os.MkdirTemp("", "autopolicy-layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	folder, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	names := map[string]string{"io.containerd.image.name": tag.Name(), "org.opencontainers.image.ref.name": tag.TagStr()}
	if err := folder.AppendIndex(index, layout.WithAnnotations(names)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := tar.NewWriter(file)
	// WalkDir goes in the order of names, so the bytes are the same every time.
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(relative), Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
		return errors.Join(w.WriteHeader(header), writeAll(w, data))
	})
	return errors.Join(err, w.Close())
}
