package overlay

import (
	"bytes"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// text edits a YAML file by lines, so that everything else in it (comments,
// order, blank lines, quoting, line ends) keeps its bytes.
type text struct {
	file  string
	lines [][]byte // each with its line end
}

func newText(file string, data []byte) text {
	return text{file: file, lines: bytes.SplitAfter(bytes.Clone(data), []byte("\n"))}
}

func (t text) bytes() []byte { return bytes.Join(t.lines, nil) }

func (t text) invalid(n *yaml.Node, reason string) error {
	return &InvalidError{File: t.file, Line: n.Line, Reason: reason}
}

// split cuts the line of a scalar into what is before it and what is after it.
func (t text) split(n *yaml.Node) (before, after string, quote string, err error) {
	refuse := func() (string, string, string, error) {
		return "", "", "", t.invalid(n, "write "+printable(n.Value)+" plainly on one line")
	}
	if n.Line < 1 || n.Line > len(t.lines) || n.Column < 1 {
		return refuse()
	}
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		quote = `"`
	case n.Style&yaml.SingleQuotedStyle != 0:
		quote = "'"
	case n.Style != 0:
		return refuse()
	}
	runes := []rune(string(t.lines[n.Line-1]))
	if n.Column-1 > len(runes) {
		return refuse()
	}
	before, rest := string(runes[:n.Column-1]), string(runes[n.Column-1:])
	after, ok := strings.CutPrefix(rest, quote+n.Value+quote)
	if !ok {
		return refuse()
	}
	return before, after, quote, nil
}

// replace writes another value in the place of a scalar.
func (t text) replace(n *yaml.Node, value string) error {
	before, after, quote, err := t.split(n)
	if err != nil {
		return err
	}
	t.lines[n.Line-1] = []byte(before + quote + value + quote + after)
	return nil
}

// dash gives what stands before an entry of a block list: indent and dash.
func (t text) dash(n *yaml.Node) (string, error) {
	before, _, _, err := t.split(n)
	if err != nil {
		return "", err
	}
	if indent, ok := strings.CutSuffix(strings.TrimRight(before, " "), "-"); !ok || strings.Trim(indent, " ") != "" {
		return "", t.invalid(n, "write resources as a list with one entry a line")
	}
	return before, nil
}

// removeEntry takes the line of a list's entry away.
func (t text) removeEntry(n *yaml.Node) ([]byte, error) {
	if _, err := t.dash(n); err != nil {
		return nil, err
	}
	t.lines = append(t.lines[:n.Line-1], t.lines[n.Line:]...)
	return t.bytes(), nil
}

// insertEntry adds a line beside an entry of a block list.
func (t text) insertEntry(n *yaml.Node, behind bool, value string) ([]byte, error) {
	dash, err := t.dash(n)
	if err != nil {
		return nil, err
	}
	at := n.Line - 1
	if behind {
		at++
		t.endLine(at)
	}
	t.insert(at, dash+value)
	return t.bytes(), nil
}

// firstEntry adds an entry to a file whose resources are missing or empty.
func (t text) firstEntry(value string) ([]byte, error) {
	docs, err := parse(t.file, t.bytes(), 0)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 || docs[0].Kind != yaml.MappingNode || docs[0].Style&yaml.FlowStyle != 0 {
		return nil, &InvalidError{File: t.file, Reason: "a kustomization is one document, with one field a line"}
	}
	key, list := field(docs[0], "resources")
	if key == nil {
		last := len(t.lines)
		t.endLine(last)
		t.insert(last, "resources:")
		t.insert(last+1, "- "+value)
		return t.bytes(), nil
	}
	if list.Kind == yaml.SequenceNode { // [], which has to go
		line := string(t.lines[list.Line-1])
		open := strings.Index(line, "[")
		end := strings.Index(line, "]")
		if key.Line != list.Line || open < 0 || end < open || strings.Trim(line[open+1:end], " ") != "" {
			return nil, t.invalid(list, "write resources as a list with one entry a line")
		}
		t.lines[list.Line-1] = []byte(strings.TrimRight(line[:open], " ") + line[end+1:])
	}
	t.endLine(key.Line)
	t.insert(key.Line, "- "+value)
	return t.bytes(), nil
}

// insert puts a line before the line with index at.
func (t *text) insert(at int, line string) {
	end := "\n"
	if len(t.lines) > 0 && bytes.HasSuffix(t.lines[0], []byte("\r\n")) {
		end = "\r\n"
	}
	rest := append([][]byte{[]byte(line + end)}, t.lines[at:]...)
	t.lines = append(t.lines[:at:at], rest...)
}

// endLine gives the line before index at its line end, if the file stops there
// without one.
func (t text) endLine(at int) {
	if at < 1 || at > len(t.lines) {
		return
	}
	if l := t.lines[at-1]; len(l) > 0 && !bytes.HasSuffix(l, []byte("\n")) {
		t.lines[at-1] = append(bytes.Clone(l), '\n')
	}
}
