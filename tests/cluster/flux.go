package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// FluxNamespace is where Flux's objects and sources are.
const FluxNamespace = "flux-system"

// FluxOptions say how Flux is run.
type FluxOptions struct {
	Source       string // folder with this module's sources
	Repositories string // folder of bare git repositories, which are served over HTTP
	Progress     io.Writer
	// Ready is called once, with the URL below which the repositories are.
	Ready func(url string)
}

// Flux runs source-controller and kustomize-controller as processes of the host
// against the cluster, and git's own HTTP server for whoever reaches the host's
// loopback, until ctx ends or one of them does. Compiling them takes 11 minutes
// of processor time the first time. What they made in the cluster stays.
func (c *Cluster) Flux(ctx context.Context, o FluxOptions) error {
	built, err := c.buildAll(ctx, o.Source, fluxTools(), o.Progress)
	if err != nil {
		return err
	}
	if err := c.fluxObjects(ctx, filepath.Join(o.Source, "flux")); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "autopolicy-flux-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	url, stop, err := serveGit(o.Repositories)
	if err != nil {
		return err
	}
	defer stop()
	free, err := freeAddresses(3)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 2)
	for name, args := range map[string][]string{
		"source-controller": {"--storage-path=" + work, "--storage-addr=" + free[0], "--storage-adv-addr=" + free[0], "--health-addr=" + free[1],
			"--metrics-addr=0", "--events-addr=", "--interval-jitter-percentage=0"},
		"kustomize-controller": {"--health-addr=" + free[2], "--metrics-addr=0", "--events-addr=", "--interval-jitter-percentage=0"},
	} {
		cmd, err := c.controller(ctx, filepath.Join(built[name], name), args)
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			cancel(err)
			return err
		}
		go func() {
			err := cmd.Wait()
			if ctx.Err() == nil {
				err = fmt.Errorf("%s ended: %w; see %s", name, errors.Join(err, errEnded), filepath.Join(c.LogDir(), name+".log"))
				cancel(err)
			}
			ended <- err
		}()
	}
	for _, address := range free[1:] {
		if err := healthy(ctx, "http://"+address+"/healthz"); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	o.Ready(url)
	<-ctx.Done()
	for range 2 {
		<-ended
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

var errEnded = errors.New("it should have run on")

// controller makes a command that ends with the context, by a signal that it
// knows, and with this process.
func (c *Cluster) controller(ctx context.Context, program string, args []string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.LogDir(), filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "RUNTIME_NAMESPACE="+FluxNamespace)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

// fluxObjects applies the controllers' CRDs from their modules, and the namespace.
func (c *Cluster) fluxObjects(ctx context.Context, module string) error {
	for _, t := range fluxTools() {
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", t.pkg)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		out, err := cmd.Output()
		var fetched struct{ Dir string }
		if err == nil {
			err = json.Unmarshal(out, &fetched)
		}
		if err != nil {
			return fmt.Errorf("find the CRDs of %s: %w", t.name, err)
		}
		crds := filepath.Join(fetched.Dir, "config/crd/bases")
		if _, err := c.Kubectl(ctx, nil, "apply", "--server-side", "-f", crds); err != nil {
			return err
		}
	}
	if _, err := c.Kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=60s", "crd/kustomizations.kustomize.toolkit.fluxcd.io", "crd/gitrepositories.source.toolkit.fluxcd.io"); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, strings.NewReader("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+FluxNamespace+"}\n"), "apply", "-f", "-")
	return err
}

// serveGit serves the repositories in a folder, to read and to push, on a port of
// the loopback.
func serveGit(folder string) (url string, stop func() error, err error) {
	folder, err = filepath.Abs(folder)
	if err != nil {
		return "", nil, err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return "", nil, fmt.Errorf("serve git: %w", err)
	}
	backend := &cgi.Handler{
		Path: git, Args: []string{"-c", "safe.directory=*", "-c", "http.receivepack=true", "http-backend"}, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1"},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// git's second protocol is asked for in a header, which CGI passes on as
		// HTTP_GIT_PROTOCOL; git reads another name.
		h := *backend
		h.Env = append(h.Env[:len(h.Env):len(h.Env)], "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
		h.ServeHTTP(w, r)
	})}
	go server.Serve(listener) // ends with Close
	return "http://" + listener.Addr().String(), server.Close, nil
}

// freeAddresses are ports of the loopback that nobody listens on just now.
func freeAddresses(n int) ([]string, error) {
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		list = append(list, l.Addr().String())
	}
	return list, nil
}

// healthy waits until a controller says that it is.
func healthy(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s does not answer within %s", url, patience))
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
