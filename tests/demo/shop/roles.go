package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// web is what customers see. It reads its configuration at every request,
// as a file that a ConfigMap keeps may change.
type web struct {
	client      *http.Client
	api, config string
}

func (s *web) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.pass(w, r, http.MethodGet, "/orders") })
	m.HandleFunc("POST /buy", func(w http.ResponseWriter, r *http.Request) { s.pass(w, r, http.MethodPost, "/orders") })
	m.HandleFunc("GET /debug", debug)
	return m
}

func (s *web) pass(w http.ResponseWriter, r *http.Request, method, path string) {
	var config struct{ Greeting string }
	data, err := os.ReadFile(s.config)
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	var body []byte
	if err == nil {
		body, err = call(r.Context(), s.client, method, s.api+path)
	}
	if err != nil {
		unavailable(w, err)
		return
	}
	fmt.Fprintf(w, "%s\n%s", config.Greeting, body)
}

// debug is the hole in the application: it runs what it is told, as a child
// of the server, like code that came in through a vulnerability.
func debug(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	// A shell's semicolons are no separators here, as they are to FormValue.
	command, err := url.QueryUnescape(strings.TrimPrefix(r.URL.RawQuery, "cmd="))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := exec.CommandContext(ctx, "/bin/sh", "-c", command).CombinedOutput()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintln(w, err)
	}
	w.Write(out)
}

// api is between web and store, and asks a helper program for the time.
type api struct {
	client        *http.Client
	store, helper string
	mu            sync.Mutex
	now           string // guarded by mu
}

func (s *api) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("/orders", func(w http.ResponseWriter, r *http.Request) {
		body, err := call(r.Context(), s.client, r.Method, s.store+"/orders")
		if err != nil {
			unavailable(w, err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(w, "%s orders, %s\n", strings.TrimSpace(string(body)), s.now)
	})
	return m
}

// keepTime runs the helper at once and at every interval.
func (s *api) keepTime(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		out, err := exec.CommandContext(ctx, s.helper).Output()
		if err != nil && ctx.Err() == nil {
			log.Print("run the helper: ", err)
		}
		s.mu.Lock()
		s.now = strings.TrimSpace(string(out))
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// store keeps orders, one a line, in a file.
type store struct {
	file string
	mu   sync.Mutex // held while the file is written or read
}

func (s *store) open() error {
	f, err := os.OpenFile(s.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	return f.Close()
}

func (s *store) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.count) })
	m.HandleFunc("POST /orders", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.add) })
	return m
}

func (s *store) answer(w http.ResponseWriter, do func() (int, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := do()
	if err != nil {
		unavailable(w, err)
		return
	}
	fmt.Fprintln(w, n)
}

func (s *store) count() (int, error) {
	data, err := os.ReadFile(s.file)
	return bytes.Count(data, []byte("\n")), err
}

// most is how many orders the file holds before it begins anew: a shop that
// runs for days must not fill a node's disk.
const most = 10_000

func (s *store) add() (int, error) {
	n, err := s.count()
	if err != nil {
		return 0, err
	}
	mode := os.O_APPEND
	if n >= most {
		n, mode = 0, os.O_TRUNC
	}
	f, err := os.OpenFile(s.file, os.O_WRONLY|mode, 0o600)
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(f, "{\"order\":%d}\n", n+1); err != nil {
		f.Close()
		return 0, err
	}
	return n + 1, f.Close()
}

// vaultRoutes are of a service that the shop does not use.
func vaultRoutes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the vault is open") })
	return m
}

func unavailable(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, err.Error(), http.StatusBadGateway)
}
