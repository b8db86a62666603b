package overlay

import (
	"bytes"
	"errors"
	"fmt"

	"sigs.k8s.io/kustomize/kyaml/yaml"
	k8syaml "sigs.k8s.io/yaml"
)

// Strict decodes a YAML file of people's into a value with JSON tags. It refuses,
// with the line, aliases, a key that is there twice, unknown fields, values nested
// without end and more than one document.
func Strict(file string, data []byte, into any) error {
	docs, err := parse(file, data, 0)
	if err != nil {
		return err
	}
	if len(docs) != 1 || docs[0].Kind != yaml.MappingNode {
		return &InvalidError{File: file, Reason: "want one document with fields"}
	}
	if err := k8syaml.UnmarshalStrict(data, into); err != nil {
		return Mistake(file, data, err)
	}
	return nil
}

// Lines gives the lines in which the entries of a list begin, so that what is wrong
// with one can be said where it is.
func Lines(data []byte, key string) []int {
	docs, err := parse("", data, 0)
	if err != nil || len(docs) != 1 {
		return nil
	}
	list := value(docs[0], key)
	if list == nil {
		return nil
	}
	var lines []int
	for _, n := range list.Content {
		lines = append(lines, n.Line)
	}
	return lines
}

// Append adds entries, each the YAML of one block-style mapping, to the end of a
// list of mappings in a file. Everything else in the file keeps its bytes, comments
// included.
func Append(file string, data []byte, key string, entries ...[]byte) ([]byte, error) {
	docs, err := parse(file, data, 0)
	if err != nil {
		return nil, err
	}
	refuse := func(line int) ([]byte, error) {
		return nil, &InvalidError{File: file, Line: line, Reason: fmt.Sprintf("write %s as a list with each entry on lines of its own", key)}
	}
	if len(docs) != 1 || docs[0].Kind != yaml.MappingNode || docs[0].Style&yaml.FlowStyle != 0 {
		return refuse(0)
	}
	k, list := field(docs[0], key)
	if k == nil {
		return refuse(0)
	}
	t := newText(file, data)
	indent, at := "", k.Line
	if list.Kind == yaml.SequenceNode && len(list.Content) > 0 {
		first := list.Content[0]
		line := t.lines[first.Line-1]
		if list.Style&yaml.FlowStyle != 0 || first.Column < 3 || !bytes.HasSuffix(bytes.TrimRight(line[:first.Column-1], " "), []byte("-")) {
			return refuse(list.Line)
		}
		indent = string(bytes.TrimRight(bytes.TrimRight(line[:first.Column-1], " "), "-"))
		at = lastLine(list)
	} else if list.Kind == yaml.SequenceNode || list.Tag == "!!null" {
		line := t.lines[k.Line-1] // decisions: [] becomes decisions:
		colon := bytes.IndexByte(line, ':')
		rest := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(line[colon+1:]), []byte("[]")))
		if len(rest) > 0 && rest[0] != '#' {
			return refuse(k.Line)
		}
		t.lines[k.Line-1] = append(bytes.TrimRight(append(append(bytes.Clone(line[:colon+1]), ' '), rest...), " "), '\n')
	} else {
		return refuse(k.Line)
	}
	t.endLine(at)
	for _, entry := range entries {
		for i, line := range bytes.Split(bytes.TrimRight(entry, "\n"), []byte("\n")) {
			prefix := indent + "  "
			if i == 0 {
				prefix = indent + "- "
			}
			t.insert(at, prefix+string(line))
			at++
		}
	}
	again, err := parse(file, t.bytes(), 0)
	if err != nil {
		return nil, fmt.Errorf("add to %s: %w", key, err)
	}
	if len(again) != 1 || len(value(again[0], key).Content) != len(list.Content)+len(entries) {
		return nil, errors.Join(errors.New("add to "+key), &InvalidError{File: file, Line: k.Line, Reason: "it is written in a way that cannot be added to"})
	}
	return t.bytes(), nil
}

// lastLine is the last line that a value takes. A block of text is taken to be as
// long as it has line ends.
func lastLine(n *yaml.Node) int {
	last := n.Line
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		last += bytes.Count([]byte(n.Value), []byte("\n"))
	}
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}
