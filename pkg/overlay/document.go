package overlay

import (
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// maxDepth is how deep values may be nested; policies need about fifteen.
const maxDepth = 64

// parse reads all documents of a YAML file and refuses what makes YAML
// dangerous or ambiguous: aliases (a few bytes that become gigabytes), the same
// key twice (readers differ in which one counts), and absurd depth.
// Lines in errors are counted from line first+1 of file.
func parse(file string, data []byte, first int) ([]*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var docs []*yaml.Node
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntaxError(file, err, first)
		}
		if err := checkNode(file, &doc, first, 0); err != nil {
			return nil, err
		}
		if len(doc.Content) == 1 {
			docs = append(docs, doc.Content[0])
		}
	}
}

var (
	yamlLine     = regexp.MustCompile(`line (\d+): `)
	unknownField = regexp.MustCompile(`^unknown field "(.*)"$`)
)

// syntaxError moves the line out of the parser's text.
func syntaxError(file string, err error, first int) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		line, _ = strconv.Atoi(text[m[2]:m[3]]) // digits, by the expression
		line += first
		text = text[:m[0]] + text[m[1]:]
		if strings.HasPrefix(text, "did not find expected") {
			line++ // the parser counts from 0 where the scanner counts from 1
		}
	}
	return &InvalidError{File: file, Line: line, Reason: "not YAML: " + strings.Trim(printable(text), `"`)}
}

// Mistake makes an InvalidError of what sigs.k8s.io/yaml says of data that it
// could not decode strictly: with the line, and without the library's own way to
// the mistake.
func Mistake(file string, data []byte, err error) *InvalidError {
	text := err.Error()
	for _, prefix := range []string{"error unmarshaling JSON: ", "while decoding JSON: ", "error converting YAML to JSON: ", "yaml: ", "json: ", "unmarshal errors:\n  "} {
		text = strings.TrimPrefix(text, prefix)
	}
	var syntax *InvalidError
	if yamlLine.MatchString(text) && errors.As(syntaxError(file, errors.New(text), 0), &syntax) {
		return syntax
	}
	m := unknownField.FindStringSubmatch(text)
	if m == nil {
		return &InvalidError{File: file, Reason: strings.Trim(printable(text), `"`)}
	}
	key := regexp.MustCompile(`^[\s-]*["']?` + regexp.QuoteMeta(m[1]) + `["']?\s*:`)
	at := slices.IndexFunc(strings.Split(string(data), "\n"), key.MatchString)
	return &InvalidError{File: file, Line: at + 1, Reason: "unknown field " + printable(m[1])}
}

func checkNode(file string, n *yaml.Node, first, depth int) error {
	invalid := func(at *yaml.Node, reason string) error {
		return &InvalidError{File: file, Line: at.Line + first, Reason: reason}
	}
	switch {
	case n.Kind == yaml.AliasNode:
		return invalid(n, "YAML aliases are not accepted here: write the value out")
	case depth > maxDepth:
		return invalid(n, "values are nested too deep")
	}
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]bool, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				return invalid(k, "a key must be plain text")
			}
			if seen[k.Value] {
				return invalid(k, "key "+printable(k.Value)+" is there twice")
			}
			seen[k.Value] = true
		}
	}
	for _, c := range n.Content {
		if err := checkNode(file, c, first, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// field gives the key and the value of a mapping, or nils.
func field(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// value gives the value at a path of keys, or nil.
func value(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		_, n = field(n, k)
	}
	return n
}

// kustomizationNames are the file names that kustomize looks for in a folder.
func kustomizationNames() []string {
	return []string{Kustomization, "kustomization.yml", "Kustomization"}
}

// kustomizationOf finds the kustomization of a folder and parses it. The name is
// empty when the folder has none.
func kustomizationOf(t Tree, folder string) (string, *yaml.Node, error) {
	name := ""
	for _, n := range kustomizationNames() {
		p := path.Join(folder, n)
		if _, ok := t[p]; !ok {
			continue
		}
		if name != "" {
			return "", nil, &InvalidError{File: p, Reason: "the folder has a second kustomization, " + path.Base(name)}
		}
		name = p
	}
	if name == "" {
		return "", nil, nil
	}
	docs, err := parse(name, t[name], 0)
	if err != nil {
		return "", nil, err
	}
	if len(docs) != 1 || docs[0].Kind != yaml.MappingNode {
		return "", nil, &InvalidError{File: name, Reason: "a kustomization is one document with fields"}
	}
	return name, docs[0], nil
}
