package gitops

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// location is where a repository is: a path of this machine, or an endpoint.
type location struct {
	path     string
	endpoint *transport.Endpoint
}

// parseLocation reads what 'git clone' takes, less its remote helpers and the
// unauthenticated git protocol. No error repeats user information.
func parseLocation(raw string) (location, error) {
	refuse := func(reason string) (location, error) {
		return location{}, &NotRepositoryError{URL: withoutUser(raw), Reason: reason}
	}
	if raw == "" {
		return refuse("no path or URL is given")
	}
	if strings.ContainsFunc(raw, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return refuse("the URL has a control character")
	}
	scheme, _, isURL := strings.Cut(raw, "://")
	if !isURL {
		// As git does: a colon before the first slash makes it scp-like,
		// unless it is a drive letter.
		scp := regexp.MustCompile(`^(?:[^@/:]+@)?(?:\[[^\]/]+\]|[^/:\[\]]{2,}):[^:]`)
		switch head, _, _ := strings.Cut(raw, "/"); {
		case strings.Contains(head, "::"):
			return refuse("remote helpers are not supported")
		case !scp.MatchString(raw):
			return location{path: raw}, nil
		}
		ep, err := transport.NewEndpoint(raw)
		if err != nil || ep.Protocol != "ssh" {
			return refuse("the URL is malformed")
		}
		return location{endpoint: ep}, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return refuse("the URL is malformed") // err holds the URL with its secrets
	}
	switch strings.ToLower(scheme) {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return refuse("a file URL names no host")
		}
		return location{path: filepath.FromSlash(u.Path)}, nil
	case "http", "https", "ssh":
		if u.Hostname() == "" || strings.Trim(u.Path, "/") == "" {
			return refuse("the URL needs a host and a path")
		}
		if u.RawQuery != "" || u.Fragment != "" {
			return refuse("the URL has a query or a fragment")
		}
		ep, err := transport.NewEndpoint(raw)
		if err != nil {
			return refuse("the URL is malformed")
		}
		return location{endpoint: ep}, nil
	}
	return refuse("only paths and file, http, https and ssh URLs are supported")
}

// withoutUser cuts user information, a query and a fragment from what may be
// a URL, even a malformed one.
func withoutUser(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + "://" + rest
}
