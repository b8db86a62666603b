// Package image writes container images as docker-archive files: one layer,
// no registry, no daemon. The same input gives the same bytes. It must never
// run what it packs or look outside the paths that it is given.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// File is one entry of the image's only layer. Path is absolute in the
// image. A File with Link set is a symbolic link to that target, one with
// Source set is a copy of that file, and else its content is Data.
type File struct {
	Path   string
	Source string
	Link   string
	Data   []byte
	Mode   fs.FileMode // permission bits; 0 means 0755 for Source and Link, 0644 for Data
}

// Config describes an image. Ref is its only name, such as
// "localhost/web:1"; Arch is a GOARCH value.
type Config struct {
	Ref        string
	Arch       string
	Entrypoint []string
	Args       []string
	User       string
	Files      []File
}

// accounts are the users that a program without a distribution expects.
const accounts = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"

// Write writes the image to w. Entries are ordered by path, and parent
// directories are made where they are missing.
func Write(w io.Writer, c Config) error {
	if c.Ref == "" || len(c.Entrypoint) == 0 {
		return fmt.Errorf("write image: a name and an entrypoint are needed")
	}
	layer, err := layerOf(c.Files)
	if err != nil {
		return fmt.Errorf("write image %s: %w", c.Ref, err)
	}
	digest := sum(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": c.Arch, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": map[string]any{
			"Entrypoint": c.Entrypoint, "Cmd": c.Args, "User": c.User,
			"Env": []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"}, "WorkingDir": "/",
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest}},
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", c.Ref, err)
	}
	name := sum(config) + ".json"
	manifest, err := json.Marshal([]map[string]any{{"Config": name, "RepoTags": []string{c.Ref}, "Layers": []string{digest + "/layer.tar"}}})
	if err != nil {
		return fmt.Errorf("write image %s: %w", c.Ref, err)
	}
	archive := tar.NewWriter(w)
	for _, part := range []struct {
		name string
		data []byte
	}{{digest + "/layer.tar", layer}, {name, config}, {"manifest.json", manifest}} {
		if err := addFile(archive, part.name, 0o644, part.data); err != nil {
			return fmt.Errorf("write image %s: %w", c.Ref, err)
		}
	}
	return archive.Close()
}

// layerOf returns the layer's tar bytes.
func layerOf(files []File) ([]byte, error) {
	entries := map[string]File{"etc/passwd": {Path: "etc/passwd", Data: []byte(accounts)}}
	dirs := map[string]int64{"tmp/": 0o1777}
	for _, f := range files {
		name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		if name == "" {
			return nil, fmt.Errorf("file %q has no name in the image", f.Path)
		}
		if f.Source != "" {
			data, err := os.ReadFile(f.Source)
			if err != nil {
				return nil, err
			}
			f.Data = data
		}
		if f.Mode == 0 {
			f.Mode = 0o644
			if f.Source != "" || f.Link != "" {
				f.Mode = 0o755
			}
		}
		entries[name] = f
	}
	for name := range entries {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, known := dirs[dir+"/"]; !known {
				dirs[dir+"/"] = 0o755
			}
		}
	}
	return pack(entries, dirs)
}

// pack writes directories and entries in the order of their paths, so that
// a directory comes before what is in it.
func pack(entries map[string]File, dirs map[string]int64) ([]byte, error) {
	names := make([]string, 0, len(entries)+len(dirs))
	for name := range entries {
		names = append(names, name)
	}
	for name := range dirs {
		names = append(names, name)
	}
	slices.Sort(names)
	var out bytes.Buffer
	layer := tar.NewWriter(&out)
	for _, name := range names {
		var err error
		f := entries[name]
		switch mode, isDir := dirs[name]; {
		case isDir:
			err = layer.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode, ModTime: time.Unix(0, 0)})
		case f.Link != "":
			err = layer.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: f.Link, Mode: 0o777, ModTime: time.Unix(0, 0)})
		default:
			err = addFile(layer, name, int64(f.Mode.Perm()), f.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := layer.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func addFile(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}
