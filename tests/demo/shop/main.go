// Command shop is a small application to learn policies from: a web front,
// an api and a store behind it, a customer who makes traffic, and a vault
// that nobody here has business with. One program plays the part that ROLE
// names. It is for tests: web runs any command that /debug is asked for, to
// play an application that was taken over. It must never run elsewhere.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		log.Fatal(err)
	}
}

// run plays the role that the environment asks for until ctx ends.
func run(ctx context.Context, env func(string) string) error {
	client := &http.Client{
		Timeout: 5 * time.Second,
		// A connection a request, so that every request shows on the network.
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	address := cmp.Or(env("LISTEN"), ":8080")
	switch role := env("ROLE"); role {
	case "web":
		w := &web{client: client, api: cmp.Or(env("API_URL"), "http://api"), config: cmp.Or(env("CONFIG"), "/etc/shop/web.json")}
		return serve(ctx, address, w.routes())
	case "api":
		a := &api{client: client, store: cmp.Or(env("STORE_URL"), "http://store:6000"), helper: cmp.Or(env("HELPER"), "/bin/date")}
		go a.keepTime(ctx, 5*time.Second)
		return serve(ctx, address, a.routes())
	case "store":
		s := &store{file: cmp.Or(env("DATA"), "/data/orders.jsonl")}
		if err := s.open(); err != nil {
			return err
		}
		return serve(ctx, address, s.routes())
	case "vault":
		return serve(ctx, address, vaultRoutes())
	case "traffic":
		milliseconds, err := strconv.Atoi(cmp.Or(env("INTERVAL_MS"), "500"))
		if err != nil || milliseconds <= 0 {
			return fmt.Errorf("INTERVAL_MS %q: a positive number is needed", env("INTERVAL_MS"))
		}
		return traffic(ctx, client, cmp.Or(env("WEB_URL"), "http://web"), time.Duration(milliseconds)*time.Millisecond)
	default:
		return fmt.Errorf("ROLE %q: web, api, store, traffic or vault is needed", role)
	}
}

// serve answers on address, with probes beside routes, until ctx ends.
func serve(ctx context.Context, address string, routes *http.ServeMux) error {
	routes.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			log.Print("stop: ", err)
		}
	})
	defer stop()
	log.Printf("serving on %s", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// traffic is the customer: looks at the shop at every interval, and buys at
// every third look.
func traffic(ctx context.Context, client *http.Client, shop string, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for n := 0; ; n++ {
		method, path := http.MethodGet, "/"
		if n%3 == 2 {
			method, path = http.MethodPost, "/buy"
		}
		if _, err := call(ctx, client, method, shop+path); err != nil && ctx.Err() == nil {
			log.Print(err) // the shop may not be open yet
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// call makes one request and returns the body of a good answer.
func call(ctx context.Context, client *http.Client, method, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return body, nil
}
