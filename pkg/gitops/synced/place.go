package synced

import (
	"errors"
	"net"
	"net/url"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// place is where a repository is, whatever way it is written: host and path, in
// lower case where hosts are, without user, default port and .git.
func place(raw string) string {
	raw = strings.TrimSpace(raw)
	scheme, rest, isURL := strings.Cut(raw, "://")
	if !isURL {
		// host:path, as scp has it; a colon after a slash is a part of a path.
		host, p, ok := strings.Cut(raw, ":")
		if !ok || strings.Contains(host, "/") {
			return trimmed(raw)
		}
		_, host, _ = cutLast(host, "@")
		return strings.ToLower(host) + "/" + trimmed(p)
	}
	if scheme == "file" {
		return trimmed(rest)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	host := strings.ToLower(u.Hostname())
	if port := u.Port(); port != "" && port != map[string]string{"https": "443", "http": "80", "ssh": "22"}[u.Scheme] {
		host = net.JoinHostPort(host, port)
	}
	return host + "/" + trimmed(u.Path)
}

// cutLast cuts at the last sep; without one all of s is after it.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func trimmed(p string) string {
	return strings.TrimSuffix(strings.Trim(p, "/"), ".git")
}

// clean gives a path in a repository one form; "." is all of it.
func clean(p string) string {
	return path.Clean(strings.TrimPrefix(path.Clean("/"+p), "/"))
}

// holds tells whether a folder is, or is below, the one that is applied.
func holds(applied, folder string) bool {
	return applied == "." || applied == folder || strings.HasPrefix(folder, applied+"/")
}

// depth is the number of folders to a clean path.
func depth(p string) int {
	if p == "." {
		return 0
	}
	return 1 + strings.Count(p, "/")
}

// branchOf takes the branch from the ways in which it is named.
func branchOf(ref string) string {
	return strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "origin/")
}

// commitOf is the commit in a revision: branch@sha1:ID, branch/ID, or ID.
func commitOf(revision string) string {
	if _, id, ok := cutLast(revision, ":"); ok {
		return id
	}
	_, id, _ := cutLast(revision, "/")
	return id
}

func isNetwork(err error) bool {
	var network net.Error
	var op *url.Error
	return errors.As(err, &network) || errors.As(err, &op)
}

// starting tells whether the API server is up and has not read its rights yet, as
// it answers in the first moments after a restart.
func starting(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "RBAC: ") || strings.Contains(err.Error(), "apiserver not ready")
}

func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}
