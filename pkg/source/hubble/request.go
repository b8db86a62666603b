package hubble

import (
	"bytes"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// request gives the number of the request that a layer 7 flow shows: without what
// differs between two of the same, a query above all, which also may hold secrets.
// Otherwise it says why there is none.
func (b *Book) request(f *flow, self uint32) (id uint32, why string, err error) {
	q := &b.q
	if err := scanRequest(f.l7, q); err != nil {
		return 0, "", err
	}
	if q.kind == requestAnswered {
		return 0, passAnswer, nil
	}
	text := append(b.scratch[:0], byte(q.record), 0)
	kind := behavior.HTTP
	switch q.record {
	case recordDNS:
		kind = behavior.DNS
		text = append(append(append(text, bytes.TrimSuffix(bytes.ToLower(q.name), []byte("."))...), 0), q.detail...)
	case recordHTTP:
		host, path, ok := split(q.detail)
		if !ok {
			return 0, lostRequest, nil
		}
		how := "http"
		if q.grpc {
			how = "grpc"
		}
		text = append(append(text, q.name...), 0)
		text = append(append(text, bytes.ToLower(host)...), 0)
		text = append(append(append(text, path...), 0), how...)
	case recordKafka:
		kind = behavior.Kafka
		text = append(append(append(text, q.name...), 0), bytes.ToLower(q.detail)...)
	default:
		return 0, lostUnknown, nil
	}
	b.scratch = text
	if len(q.name) == 0 && kind != behavior.Kafka || len(q.detail) == 0 && kind == behavior.Kafka {
		return 0, lostRequest, nil
	}
	id, known := b.textOf[string(text)]
	if !known {
		own := &b.sides[self]
		if own.requests >= maxRequests {
			return 0, lostRequests, nil
		}
		if id, known = b.text(text); !known {
			return 0, lostRequests, nil
		}
		own.requests++
		b.kinds[kind] = true
	}
	return id, "", nil
}

// split takes a request's URL, or its path alone, apart: without scheme, query,
// fragment and user. It is false for what has no path that a policy could name.
func split(url []byte) (host, path []byte, ok bool) {
	if i := bytes.IndexAny(url, "?#"); i >= 0 {
		url = url[:i]
	}
	path = url
	if i := bytes.Index(url, []byte("://")); i > 0 && bytes.IndexByte(url[:i], '/') < 0 {
		host, path = url[i+3:], []byte("/")
		if j := bytes.IndexByte(host, '/'); j >= 0 {
			host, path = host[:j], host[j:]
		}
		host = host[bytes.LastIndexByte(host, '@')+1:]
	}
	return host, path, len(path) > 0 && path[0] == '/' && len(path) <= maxURL && bytes.IndexByte(url, 0) < 0
}

// apply makes the fact about a request of the fact about its connection.
func apply(f behavior.Fact, text string) behavior.Fact {
	record, rest, _ := strings.Cut(text, "\x00")
	part := func() string {
		var s string
		s, rest, _ = strings.Cut(rest, "\x00")
		return behavior.Escape(s)
	}
	switch record[0] {
	case recordDNS:
		// As the collector states it: the server's address is of no matter to a name.
		f.Kind, f.Direction = behavior.DNS, ""
		f.Name, f.Type = part(), part()
	case recordHTTP:
		f.Kind = behavior.HTTP
		f.Name, f.Target, f.Path, f.Type = part(), part(), part(), part()
	case recordKafka:
		f.Kind = behavior.Kafka
		f.Name, f.Type = part(), part()
	}
	return f
}
