package forge

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// timeout bounds one request and its answer.
	timeout = 30 * time.Second
	// maxAnswer bounds what is read of one answer, in bytes: a page of a hundred
	// pull requests of the longest bodies is less.
	maxAnswer = 32 << 20
)

// newClient makes the client that all forges are asked through. It goes through
// the proxy that the environment names, follows no redirect to another host,
// which would get the token, and turns what is not well into this package's
// errors, whatever library asks.
func newClient(kind Kind, base *url.URL, sent bool) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: explainer{kind: kind, sent: sent, next: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: timeout / 2}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   timeout / 2,
			ResponseHeaderTimeout: timeout,
			IdleConnTimeout:       timeout,
		}},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 5 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return &RefusedError{Host: via[0].URL.Host, Status: http.StatusFound, Words: "it points to " + escape(req.URL.Redacted())}
			}
			return nil
		},
	}
}

type explainer struct {
	kind Kind
	sent bool
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper. An answer that is no success becomes an
// error here, so that it is the same from every library.
func (x explainer) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := x.next.RoundTrip(req)
	if err != nil {
		if ctxErr := req.Context().Err(); ctxErr != nil && errors.Is(err, ctxErr) {
			return nil, err
		}
		return nil, &NetworkError{Host: req.URL.Host, Err: err}
	}
	if res.StatusCode < 400 {
		res.Body = limited{io.LimitReader(res.Body, maxAnswer), res.Body}
		return res, nil
	}
	words := said(io.LimitReader(res.Body, 16<<10))
	res.Body.Close() // what is left of it is not wanted
	return nil, x.explain(req, res, words)
}

type limited struct {
	io.Reader
	io.Closer
}

func (x explainer) explain(req *http.Request, res *http.Response, words string) error {
	host := req.URL.Host
	rated := res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusForbidden &&
		(res.Header.Get("X-RateLimit-Remaining") == "0" || res.Header.Get("Retry-After") != "" || strings.Contains(words, "rate limit"))
	switch {
	case rated:
		return &RateError{Host: host, Until: until(res.Header), Words: words}
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return &TokenError{Kind: x.kind, Host: host, Sent: x.sent, Words: words, Right: res.StatusCode == http.StatusForbidden}
	case res.StatusCode == http.StatusNotFound:
		return &NotFoundError{Host: host, Path: req.URL.Path, Kind: x.kind}
	}
	return &RefusedError{Host: host, Status: res.StatusCode, Words: words}
}

// until reads when a rate limit ends: GitHub and Gitea say it in
// X-RateLimit-Reset, GitLab in RateLimit-Reset, all may send Retry-After.
func until(h http.Header) time.Time {
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s >= 0 && s < 1<<20 {
		return time.Now().Add(time.Duration(s) * time.Second)
	}
	for _, name := range []string{"X-RateLimit-Reset", "RateLimit-Reset"} {
		if s, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil && s > 0 {
			return time.Unix(s, 0)
		}
	}
	return time.Time{}
}

// said finds what an answer says in words, escaped: JSON's message, error,
// error_description and errors, in whatever of the forges' forms.
func said(body io.Reader) string {
	var v any
	if json.NewDecoder(body).Decode(&v) != nil {
		return "" // a page for a browser
	}
	var words []string
	var walk func(v any, named bool)
	walk = func(v any, named bool) {
		switch v := v.(type) {
		case string:
			if s := strings.TrimSpace(v); named && s != "" && len(words) < 5 {
				words = append(words, escape(s))
			}
		case []any:
			for _, each := range v {
				walk(each, named)
			}
		case map[string]any:
			for _, key := range []string{"message", "error", "error_description", "errors", "detail"} {
				walk(v[key], true)
			}
		}
	}
	walk(v, false)
	return strings.Join(words, "; ")
}
