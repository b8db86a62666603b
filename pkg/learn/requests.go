package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

const (
	// Values is from how many values of one class in one place of a path any value
	// of it is allowed there. It is 4: three numbers may be three versions.
	Values = 4
	// Paths is how many kinds of requests to one port people can be asked to read:
	// pairs of a method and a path, of which values of one class count once. From
	// more on, any path is allowed to the methods.
	Paths = 200
	// methods is how many methods one port is believed to have: HTTP with WebDAV
	// and its extensions has fewer.
	methods = 40
)

// requests puts HTTP requests into groups: one for each method and path of a
// peer, where parts of a path that have many values of one class are that class.
func requests(facts []behavior.Observed, o Options, g groups, n *notes) {
	places := map[place]*requested{}
	var plain []behavior.Observed
	for _, f := range facts {
		if f.Fact.Type != "http" && f.Fact.Type != "grpc" {
			n.requests = append(n.requests, fmt.Sprintf("%s: requests of type %s are not learned", f.Fact, f.Fact.Type))
			continue
		}
		plain = append(plain, f)
		at := placeOf(f.Fact)
		if places[at] == nil {
			places[at] = &requested{root: node{}, hosts: map[string]bool{}, methods: map[string]bool{}, pairs: map[[2]string]bool{}}
		}
		places[at].learn(f.Fact)
	}
	for _, p := range places {
		p.root.generalise(o.Values)
	}
	for _, f := range plain {
		r, why := places[placeOf(f.Fact)].rule(f.Fact, o)
		g.add(r, f.Fact.Exe, f, why)
	}
	for at, p := range places {
		if len(p.pairs) > o.Paths {
			n.requests = append(n.requests, fmt.Sprintf("%d kinds of requests were seen, %s on port %d, more than %d: any path is allowed to the methods that were seen",
				len(p.pairs), at.direction, at.port, o.Paths))
		}
	}
	slices.Sort(n.requests)
}

// place is where requests go: the container itself, or one of its peers.
type place struct {
	direction behavior.Direction
	port      uint16
	peer      behavior.Peer
}

func placeOf(f behavior.Fact) place {
	at := place{direction: f.Direction, port: f.Port}
	if f.Direction == behavior.Egress {
		at.peer = peer(f.Peer)
	}
	return at
}

// requested is what was asked for in a place.
type requested struct {
	root    node
	hosts   map[string]bool
	methods map[string]bool
	// pairs are methods with paths of which every value of a class stands for the
	// class: their number only grows, unlike that of the paths once generalised.
	pairs map[[2]string]bool
}

func (p *requested) learn(f behavior.Fact) {
	p.hosts[policy.HostName(f.Target)] = true
	p.methods[f.Name] = true
	if !plainPath(f.Path) {
		p.pairs[[2]string{f.Name, f.Path}] = true
		return
	}
	at := p.root
	parts := strings.Split(f.Path, "/")
	for i, part := range parts {
		if at[part] == nil {
			at[part] = node{}
		}
		at = at[part]
		if class, ok := policy.ClassOf(part); ok {
			parts[i] = string(class)
		}
	}
	p.pairs[[2]string{f.Name, strings.Join(parts, "/")}] = true
}

// rule is the rule that allows a request.
func (p *requested) rule(f behavior.Fact, o Options) (policy.Rule, string) {
	r := intent(f)
	r.Type, r.Host, r.Match = f.Type, p.host(), policy.Exact
	var why []string
	if path, classes := p.root.template(f.Path); len(classes) > 0 {
		r.Path, r.Match = path, policy.Template
		why = append(why, fmt.Sprintf("%d or more values were asked for where %s stands, so any other of the kind is newly allowed", o.Values, strings.Join(classes, " and ")))
	}
	if len(p.pairs) > o.Paths && strings.HasPrefix(f.Path, "/") {
		r.Path, r.Match = "/", policy.Recursive
		why = []string{fmt.Sprintf("%d kinds of requests were seen, more than %d, so any path is newly allowed", len(p.pairs), o.Paths)}
	}
	if len(p.methods) > methods {
		r.Name = ""
		why = append(why, fmt.Sprintf("%d methods were used, so any method is newly allowed", len(p.methods)))
	}
	return r, strings.Join(why, "; ")
}

// host is the name under which the place was asked every time; empty when there
// were several, or none.
func (p *requested) host() string {
	for host := range p.hosts {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && len(p.hosts) == 1 {
			return host
		}
	}
	return ""
}

// plainPath tells whether a path can be generalised: what looks like a class, or
// had to be escaped, stands for itself.
func plainPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, `{}\`)
}

// node holds what follows in paths, by part.
type node map[string]node

// generalise makes one of all parts of a class that has so many values here. More
// paths only make more of that: the values of a place are never fewer.
func (n node) generalise(values int) {
	of := map[policy.Class]int{}
	for part := range n {
		if class, ok := policy.ClassOf(part); ok {
			of[class]++
		}
	}
	for _, class := range policy.Classes() {
		if of[class] < values {
			continue
		}
		all := node{}
		for part, next := range n {
			if own, ok := policy.ClassOf(part); ok && own == class {
				all.merge(next)
				delete(n, part)
			}
		}
		n[string(class)] = all
	}
	for _, next := range n {
		next.generalise(values)
	}
}

func (n node) merge(other node) {
	for part, next := range other {
		if n[part] == nil {
			n[part] = node{}
		}
		n[part].merge(next)
	}
}

// template is the path with classes where values were generalised, and those
// classes.
func (n node) template(path string) (string, []string) {
	if !plainPath(path) {
		return path, nil
	}
	parts := strings.Split(path, "/")
	var classes []string
	for i, part := range parts {
		next := n[part]
		for _, class := range policy.Classes() {
			if next == nil && n[string(class)] != nil && class.Matches(part) {
				next, parts[i] = n[string(class)], string(class)
				if !slices.Contains(classes, parts[i]) {
					classes = append(classes, parts[i])
				}
			}
		}
		n = next
	}
	return strings.Join(parts, "/"), classes
}
