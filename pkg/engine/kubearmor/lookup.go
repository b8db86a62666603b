package kubearmor

import "strings"

// kernelPath is a path as the enforcer sees it: its last components only, cut to
// what it compares.
func kernelPath(path string) string {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	seen := 0
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] != '/' {
			continue
		}
		if seen++; seen == maxComponents {
			path = path[i:]
			break
		}
	}
	return cut(path)
}

func cut(s string) string { return s[:min(len(s), maxPath)] }

// match finds the rule for a path that is acted on by source; an empty source is
// one outside of the container, which no rule can name. The exact path goes
// before its folders, and both with the source before both without.
func (t tree) match(path, source string, byName bool) (rule, bool) {
	if source != "" {
		source = kernelPath(source)
		if r, ok := t.exact[slot{path, source}]; ok {
			return r, true
		}
		if r, ok := t.folder(path, source); ok {
			return r, true
		}
	}
	if r, ok := t.exact[slot{path, ""}]; ok {
		return r, true
	}
	if byName {
		if r, ok := t.exact[slot{path[strings.LastIndexByte(path, '/')+1:], ""}]; ok {
			return r, true
		}
	}
	return t.folder(path, "")
}

// folder finds the directory rule for a path. It walks down as long as the table
// knows the folder, as a rule's or as one above a rule's. The deepest recursive
// rule stands, and goes before any that is not; one that is not recursive stands
// when it is the last folder that was looked up.
func (t tree) folder(path, source string) (rule, bool) {
	var best, last rule
	recursive, direct := false, false
	for i := 0; i < len(path) && i <= maxSlash; i++ {
		if path[i] != '/' {
			continue
		}
		s := slot{path[:i+1], source}
		r, ok := t.dirs[s]
		_, above := t.hints[s]
		direct = false
		switch {
		case ok && r.recursive:
			best, recursive = r, true
			if !above {
				return best, true
			}
		case ok:
			last, direct = r, true
		case !above:
			i = len(path)
		}
	}
	switch {
	case recursive:
		return best, true
	case direct:
		return last, true
	}
	return rule{}, false
}

// socket is a kind of socket as the enforcer tells them apart.
type socket struct{ kind, protocol int }

// sockets are the kinds of sockets that speak a protocol; nil when that is not
// known.
func sockets(protocol string) []socket {
	switch protocol {
	case "tcp":
		return []socket{{1, 6}}
	case "udp":
		return []socket{{2, 17}}
	case "icmp":
		return []socket{{3, 1}, {2, 1}}
	case "icmpv6":
		return []socket{{3, 58}, {2, 58}}
	case "sctp":
		return []socket{{1, 132}, {5, 132}}
	case "raw":
		return []socket{{3, 255}}
	}
	return nil
}

// matchSocket finds the rule for a socket: by type before by protocol, and both
// with the source before both without.
func (t *table) matchSocket(s socket, source string) (rule, bool) {
	kind, protocol := typeKey(s.kind), protocolKey(s.protocol)
	candidates := []slot{{kind, ""}, {protocol, ""}}
	if source != "" {
		source = kernelPath(source)
		candidates = append([]slot{{kind, source}, {protocol, source}}, candidates...)
	}
	for _, c := range candidates {
		if r, ok := t.network[c]; ok {
			return r, true
		}
	}
	return rule{}, false
}

// matchCapability finds the rule for a capability.
func (t *table) matchCapability(name, source string) (rule, bool) {
	name = strings.ToLower(name)
	if source != "" {
		if r, ok := t.capability[slot{name, kernelPath(source)}]; ok {
			return r, true
		}
	}
	r, ok := t.capability[slot{name, ""}]
	return r, ok
}
