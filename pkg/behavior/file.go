package behavior

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/yaml"
)

// fileHeader tells readers and older versions what the file is.
const (
	fileVersion = "autopolicy.dev/v1alpha1"
	fileKind    = "Evidence"
	fileHead    = "# What was observed of this workload; not applied to the cluster. Written by kubectl autopolicy.\napiVersion: " + fileVersion + "\nkind: " + fileKind + "\n"
	// maxFile bounds a profile file: a workload with the most facts that a
	// collector keeps (65,536 a container) stays below it.
	maxFile = 64 << 20
)

// ErrTooLarge is returned for a file that no version of this program writes.
var ErrTooLarge = errors.New("file is larger than a profile can be")

// file is the form in which the profiles of one workload are stored.
type file struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Workload   Workload  `json:"workload"`
	Labels     string    `json:"labels,omitempty"`
	Containers []content `json:"containers"`
}

type content struct {
	Name     string   `json:"name"`
	Coverage Coverage `json:"coverage"`
	Facts    []line   `json:"facts"`
}

type line struct {
	Fact
	Evidence
}

// EncodeFile stores the profiles of one workload as YAML in which every fact is
// one line. The bytes depend on what the profiles hold, not on its order.
func EncodeFile(profiles []Profile) ([]byte, error) {
	if len(profiles) == 0 {
		return nil, errors.New("encode profiles: none given")
	}
	sorted := slices.Clone(profiles)
	slices.SortFunc(sorted, func(a, b Profile) int { return CompareSubjects(a.Subject, b.Subject) })
	var b bytes.Buffer
	field := func(prefix string, v any) error {
		text, err := compact(v)
		if err == nil {
			b.WriteString(prefix + text + "\n")
		}
		return err
	}
	b.WriteString(fileHead)
	first := sorted[0].Subject.Workload
	if err := errors.Join(field("workload: ", first), field("labels: ", sorted[0].Labels)); err != nil {
		return nil, err
	}
	b.WriteString("containers:\n")
	for i, p := range sorted {
		if p.Subject.Workload != first || i > 0 && p.Subject == sorted[i-1].Subject {
			return nil, fmt.Errorf("encode profiles: %s/%s does not belong with %s", p.Subject.Workload, p.Subject.Container, first)
		}
		if err := errors.Join(field(containerPrefix, p.Subject.Container), field(coveragePrefix, p.Coverage)); err != nil {
			return nil, err
		}
		b.WriteString(factsLine + "\n")
		for o := range p.Facts.inOrder() {
			if err := field(factPrefix, line{o.Fact, o.Evidence}); err != nil {
				return nil, err
			}
		}
	}
	return b.Bytes(), nil
}

// compact is JSON on one line, which is also YAML. Its strings keep < > and &.
func compact(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("encode profile: %w", err)
	}
	return string(bytes.TrimSpace(b.Bytes())), nil
}

// DecodeFile reads what EncodeFile wrote, or a person edited. It refuses unknown
// fields, other versions and facts that Validate refuses.
func DecodeFile(data []byte) ([]Profile, error) { return decodeFile(data, true) }

// DecodeCoverage reads a file as DecodeFile does, for its coverage alone: the
// profiles have no facts, and what is wrong with a fact may go unnoticed.
func DecodeCoverage(data []byte) ([]Profile, error) {
	profiles, err := decodeFile(data, false)
	for i := range profiles {
		profiles[i].Facts = Facts{}
	}
	return profiles, err
}

func decodeFile(data []byte, facts bool) ([]Profile, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("decode profiles: %w (%d bytes)", ErrTooLarge, len(data))
	}
	f, ok := asWritten(data, facts)
	if !ok {
		f = file{}
		if err := yaml.UnmarshalStrict(data, &f); err != nil {
			return nil, fmt.Errorf("decode profiles: %w", err)
		}
	}
	if f.APIVersion != fileVersion || f.Kind != fileKind {
		return nil, fmt.Errorf("decode profiles: this is %q %q, want %s %s", f.APIVersion, f.Kind, fileVersion, fileKind)
	}
	if _, err := ParseLabels(f.Labels); err != nil {
		return nil, fmt.Errorf("decode profiles: %w", err)
	}
	var profiles []Profile
	seen := map[string]bool{}
	for _, c := range f.Containers {
		if c.Name == "" || seen[c.Name] {
			return nil, fmt.Errorf("decode profiles: container %q is named twice or not at all", c.Name)
		}
		seen[c.Name] = true
		p := Profile{Subject: Subject{f.Workload, c.Name}, Labels: f.Labels, Coverage: c.Coverage}
		for i, l := range c.Facts {
			if err := l.Fact.Validate(); err != nil {
				return nil, fmt.Errorf("decode profiles: container %s, fact %d: %w", c.Name, i+1, err)
			}
			p.Add(l.Fact, l.Evidence)
		}
		profiles = append(profiles, p)
	}
	return profiles, nil
}

// What a line of a file that EncodeFile wrote begins with.
const (
	factPrefix      = "  - "
	containerPrefix = "- name: "
	coveragePrefix  = "  coverage: "
	factsLine       = "  facts:"
)

// asWritten reads a file that is just as EncodeFile writes it, which a YAML parser
// takes several times as long for. False for any other: one that a person edited.
// Facts are left out if nobody asked for them.
func asWritten(data []byte, facts bool) (file, bool) {
	f := file{APIVersion: fileVersion, Kind: fileKind}
	rest, ok := bytes.CutPrefix(data, []byte(fileHead))
	if !ok {
		return f, false
	}
	next := func() (line []byte) {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		return line
	}
	if !exactly(next(), "workload: ", &f.Workload) || !exactly(next(), "labels: ", &f.Labels) || string(next()) != "containers:" {
		return f, false
	}
	for len(rest) > 0 {
		text := next()
		if bytes.HasPrefix(text, []byte(factPrefix)) && len(f.Containers) > 0 {
			if !facts {
				continue
			}
			c := &f.Containers[len(f.Containers)-1]
			c.Facts = append(c.Facts, line{})
			if !exactly(text, factPrefix, &c.Facts[len(c.Facts)-1]) {
				return f, false
			}
			continue
		}
		var c content
		if !exactly(text, containerPrefix, &c.Name) || !exactly(next(), coveragePrefix, &c.Coverage) || string(next()) != factsLine {
			return f, false
		}
		f.Containers = append(f.Containers, c)
	}
	return f, true
}

// exactly decodes the JSON after the prefix of a line, if it is what compact
// makes of the value: then nothing in it is unknown, doubled or left out.
func exactly(text []byte, prefix string, v any) bool {
	text, ok := bytes.CutPrefix(text, []byte(prefix))
	if !ok || json.Unmarshal(text, v) != nil {
		return false
	}
	again, err := compact(v)
	return err == nil && again == string(text)
}

// Digest names what was learned of a workload: it changes with every new fact or
// label, and not with how often, when or where a fact was seen again.
func Digest(profiles []Profile) string {
	stripped := make([]Profile, 0, len(profiles))
	for _, p := range profiles {
		var facts Facts
		for f := range p.Facts.Keys() {
			facts.Add(f, Evidence{})
		}
		stripped = append(stripped, Profile{Subject: p.Subject, Labels: p.Labels, Facts: facts})
	}
	data, err := EncodeFile(stripped)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Second is the resolution of every time in a profile.
func Second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
