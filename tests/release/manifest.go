package main

import (
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

// downloads is where a release's files are found.
const downloads = "https://github.com/autopolicy/kubectl-autopolicy/releases/download/"

// plugin is krew's manifest, as much of it as ours has. A field that is not
// here is an error, so that none is lost on the way.
type plugin struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       struct {
		Version          string           `json:"version"`
		Homepage         string           `json:"homepage"`
		ShortDescription string           `json:"shortDescription"`
		Description      string           `json:"description"`
		Caveats          string           `json:"caveats"`
		Platforms        []pluginPlatform `json:"platforms"`
	} `json:"spec"`
}

type pluginPlatform struct {
	Selector struct {
		MatchLabels struct {
			OS   string `json:"os"`
			Arch string `json:"arch"`
		} `json:"matchLabels"`
	} `json:"selector"`
	URI    string `json:"uri"`
	SHA256 string `json:"sha256"`
	Bin    string `json:"bin"`
}

// fill gives the template with the version, addresses and checksums of a
// release. Platforms that were not built are left out; one that was built and
// that the template does not have is an error, as is none at all.
func fill(template []byte, version string, artifacts []artifact) ([]byte, error) {
	var p plugin
	if err := yaml.UnmarshalStrict(template, &p); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	built := map[platform]artifact{}
	for _, a := range artifacts {
		built[a.platform] = a
	}
	var kept []pluginPlatform
	for _, entry := range p.Spec.Platforms {
		labels := entry.Selector.MatchLabels
		of := platform{labels.OS, labels.Arch}
		a, ok := built[of]
		if !ok {
			continue
		}
		if entry.Bin != binaryName(of) {
			return nil, fmt.Errorf("fill manifest: bin of %s is %q, its archive has %q", of, entry.Bin, binaryName(of))
		}
		delete(built, of)
		entry.URI, entry.SHA256 = downloads+version+"/"+a.name, a.sha256
		kept = append(kept, entry)
	}
	for of := range built {
		return nil, fmt.Errorf("fill manifest: it has no platform %s", of)
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("fill manifest: no platform was built")
	}
	p.Spec.Version, p.Spec.Platforms = version, kept
	out, err := yaml.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return out, nil
}

// isVersion tells a semantic version with the v that krew and Go want. Build
// metadata is not accepted: its plus sign does not survive in an address.
func isVersion(v string) bool {
	const number, word = `(0|[1-9][0-9]*)`, `(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)`
	ok, err := regexp.MatchString(`^v`+number+`\.`+number+`\.`+number+`(-`+word+`(\.`+word+`)*)?$`, v)
	return ok && err == nil
}
