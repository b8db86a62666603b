package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// open starts web, api and store behind one another and returns web's URL.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "web.json")
	if err := os.WriteFile(config, []byte(`{"greeting":"Welcome"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &store{file: filepath.Join(dir, "orders.jsonl")}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	behind := httptest.NewServer(s.routes())
	t.Cleanup(behind.Close)
	middle := httptest.NewServer((&api{client: behind.Client(), store: behind.URL}).routes())
	t.Cleanup(middle.Close)
	front := httptest.NewServer((&web{client: middle.Client(), api: middle.URL, config: config}).routes())
	t.Cleanup(front.Close)
	return front.URL
}

func TestAPurchaseGoesThroughWebAndAPIToTheStore(t *testing.T) {
	shop := open(t)
	for n, want := range []string{"1 orders", "2 orders"} {
		body, err := call(t.Context(), http.DefaultClient, http.MethodPost, shop+"/buy")
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("purchase %d: %q, %v; want %s", n, body, err, want)
		}
	}
	body, err := call(t.Context(), http.DefaultClient, http.MethodGet, shop+"/")
	if err != nil || !strings.HasPrefix(string(body), "Welcome\n2 orders") {
		t.Errorf("the page is %q, %v; want the greeting and 2 orders", body, err)
	}
}

func TestDebugRunsAShellCommandWithSemicolons(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("this machine has no /bin/sh: ", err)
	}
	for _, query := range []string{"echo+one;echo+two", url.QueryEscape("echo one;echo two")} {
		answer, err := http.Get(open(t) + "/debug?cmd=" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "one\ntwo\n" {
			t.Errorf("%s printed %q, %v; want two lines", query, body, err)
		}
	}
}

func TestTheStoreBeginsAnewBeforeItsFileGrowsWithoutEnd(t *testing.T) {
	s := &store{file: filepath.Join(t.TempDir(), "orders.jsonl")}
	if err := os.WriteFile(s.file, []byte(strings.Repeat("{}\n", most)), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.add(); n != 1 || err != nil {
		t.Fatalf("add() = %d, %v; want 1", n, err)
	}
	if n, err := s.count(); n != 1 || err != nil {
		t.Errorf("count() = %d, %v; want 1", n, err)
	}
}

func TestTheCustomerLooksTwiceAndThenBuys(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []string
	shop := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if seen = append(seen, r.Method+" "+r.URL.Path); len(seen) == 3 {
			cancel()
		}
	}))
	defer shop.Close()
	if err := traffic(ctx, shop.Client(), shop.URL, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	shop.Close() // no request is under way after this
	if got := strings.Join(seen[:3], ", "); got != "GET /, GET /, POST /buy" {
		t.Errorf("the customer did %s", got)
	}
}

func TestRunRefuses(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no role":                    {},
		"a role that does not exist": {"ROLE": "thief"},
		"traffic without a pause":    {"ROLE": "traffic", "INTERVAL_MS": "0"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), func(k string) string { return env[k] }); err == nil {
				t.Error("no error")
			}
		})
	}
}
