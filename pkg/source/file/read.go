package file

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// What one part of a file may have at most. Hubble's and KubeArmor's lines are a few
// thousand bytes, an object is at most some 1.5 MB in etcd, and a list of objects is
// read item by item.
const (
	maxLine     = 64 << 20
	maxDocument = 64 << 20
)

// read reads one file: a JSON value a line, one JSON document, or YAML.
func (s *Source) read(ctx context.Context, name string, r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return &LineError{name, number, err}
		}
		text, end := bytes.TrimSpace(line), err != nil
		switch {
		case len(text) == 0:
		case number == 1 && text[0] != '{' || text[0] != '{' && !json.Valid(text):
			return s.readYAML(name, number, io.MultiReader(bytes.NewReader(line), in))
		case number == 1 && !end && !json.Valid(text):
			return s.readDocument(name, io.MultiReader(bytes.NewReader(line), in))
		default:
			if err := s.value(text); err != nil {
				var syntax *json.SyntaxError
				if end && errors.As(err, &syntax) {
					err = fmt.Errorf("%w: %w", ErrCutOff, err)
				}
				return &LineError{name, number, err}
			}
		}
		if end {
			if number == 1 && len(text) == 0 {
				return &LineError{name, 1, ErrEmpty}
			}
			return ctx.Err()
		}
		if number%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// readLine reads a line, which may be longer than the reader's buffer. It is io.EOF
// with the last line, whether or not that ends.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxLine {
			return nil, ErrTooLarge
		}
		line, err = in.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// shape is what tells the kinds of values apart.
type shape struct {
	Kind       string          `json:"kind"`
	APIVersion string          `json:"apiVersion"`
	Items      json.RawMessage `json:"items"`
	Operation  string          `json:"Operation"`
	Flow       json.RawMessage `json:"flow"`
	Lost       json.RawMessage `json:"lost_events"`
	Status     json.RawMessage `json:"node_status"`
	Verdict    json.RawMessage `json:"verdict"`
	Direction  json.RawMessage `json:"traffic_direction"`
}

// value takes one JSON value, whatever it is.
func (s *Source) value(text []byte) error {
	if bytes.HasPrefix(text, []byte(`{"flow":`)) {
		return s.hubble.AddJSON(text)
	}
	var is shape
	if err := json.Unmarshal(text, &is); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	switch {
	case is.Flow != nil || is.Lost != nil || is.Status != nil || is.Verdict != nil || is.Direction != nil:
		return s.hubble.AddJSON(text)
	case is.Operation != "":
		return s.armor.AddJSON(text)
	case is.Kind != "" && is.APIVersion != "":
		return s.object(is.Kind, text, is.Items)
	}
	return ErrUnknown
}

// object takes an object of the API, or a list of them.
func (s *Source) object(kind string, text, items json.RawMessage) error {
	if items == nil {
		return s.add(kind, text)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(items, &list); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	for i, item := range list {
		if err := s.item(kind, i, item); err != nil {
			return err
		}
	}
	return nil
}

// item takes an item of a list, which need not name its kind where the list does.
func (s *Source) item(list string, i int, text []byte) error {
	var is shape
	if err := json.Unmarshal(text, &is); err != nil {
		return fmt.Errorf("item %d: %w: %w", i+1, ErrUnknown, err)
	}
	if is.Kind == "" && list != "List" && len(list) > len("List") {
		is.Kind = list[:len(list)-len("List")]
	}
	if is.Kind == "" {
		return fmt.Errorf("item %d: %w: it names no kind", i+1, ErrUnknown)
	}
	if err := s.add(is.Kind, text); err != nil {
		return fmt.Errorf("item %d: %w", i+1, err)
	}
	return nil
}

// add takes one object. Kinds that tell nothing of who talks to whom are passed
// over: people dump what they have.
func (s *Source) add(kind string, text []byte) error {
	switch kind {
	case "Pod", "Service", "EndpointSlice", "Node", "CiliumNode", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
		return s.topology.Add(kind, text, s.options.Now())
	}
	return nil
}

// readDocument reads one JSON document of many lines, such as kubectl prints: of a
// list one item after the other.
func (s *Source) readDocument(name string, r io.Reader) error {
	limit := &bounded{in: r, left: maxDocument}
	decoder := json.NewDecoder(limit)
	fields := map[string]json.RawMessage{}
	fail := func(err error) error {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = ErrCutOff
		}
		return &LineError{name, 1, err}
	}
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fail(err)
		}
		clear(fields)
		items := 0
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				return fail(err)
			}
			if key == "items" {
				var kind string
				_ = json.Unmarshal(fields["kind"], &kind) // none, or after the items
				if items, err = s.items(decoder, limit, kind); err != nil {
					return fail(err)
				}
				continue
			}
			var value json.RawMessage
			if err := decoder.Decode(&value); err != nil {
				return fail(err)
			}
			if k, ok := key.(string); ok {
				fields[k] = value
			}
		}
		if _, err := decoder.Token(); err != nil {
			return fail(err)
		}
		if limit.left = maxDocument; items > 0 {
			continue
		}
		whole, err := json.Marshal(fields)
		if err == nil {
			err = s.value(whole)
		}
		if err != nil {
			return fail(err)
		}
	}
}

// items reads the items of a list.
func (s *Source) items(decoder *json.Decoder, limit *bounded, kind string) (int, error) {
	if t, err := decoder.Token(); err != nil || t != json.Delim('[') {
		return 0, errors.Join(fmt.Errorf("%w: its items are no list", ErrUnknown), err)
	}
	n := 0
	for ; decoder.More(); n++ {
		limit.left = maxDocument
		var item json.RawMessage
		if err := decoder.Decode(&item); err != nil {
			return n, err
		}
		if err := s.item(kind, n, item); err != nil {
			return n, err
		}
	}
	_, err := decoder.Token()
	return max(1, n), err
}

// bounded reads no more than so much, until somebody allows more.
type bounded struct {
	in   io.Reader
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ErrTooLarge
	}
	n, err := b.in.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// readYAML reads documents of YAML: profiles of ours, or objects. line is where the
// first one begins.
func (s *Source) readYAML(name string, line int, r io.Reader) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(&bounded{in: r, left: maxDocument}))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && len(bytes.TrimSpace(text)) > 0 {
			err = s.document(text)
		}
		if err != nil {
			return &LineError{name, line, err}
		}
		line += bytes.Count(text, []byte("\n")) + 1
	}
}

func (s *Source) document(text []byte) error {
	if bytes.HasPrefix(text, []byte("# What was observed of this workload")) || bytes.Contains(text, []byte("\nkind: Evidence\n")) {
		profiles, err := behavior.DecodeFile(text)
		for _, p := range profiles {
			if p.Subject.Workload.Namespace == s.options.Namespace {
				s.profiles.Add(p)
			}
		}
		return err
	}
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if bytes.Equal(data, []byte("null")) {
		return nil // nothing but comments
	}
	return s.value(data)
}
