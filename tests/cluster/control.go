package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// bridge is the name of the link, in the control plane's network namespace,
// that joins it and the nodes.
const bridge = "nodes"

// control runs the control plane. Its network namespace also holds the
// bridge that the nodes are plugged into, so all of the network goes away
// with the last process in it.
func (s *supervisor) control(ctx context.Context) error {
	listener, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("take over the host's listener: %w", err)
	}
	defer listener.Close()
	if err := s.controlNetwork(ctx); err != nil {
		return err
	}
	if err := s.start("etcd", filepath.Join(s.binDir(), "etcd"), "--data-dir="+filepath.Join(s.controlDir(), "etcd"), "--unsafe-no-fsync", "--log-level=warn"); err != nil {
		return err
	}
	if err := s.start("kube-apiserver", filepath.Join(s.binDir(), "kube-apiserver"), s.serverFlags()...); err != nil {
		return err
	}
	if err := s.waitForServer(ctx, fmt.Sprintf("%s:%d", s.serverAddress(), serverPort), patience); err != nil {
		return err
	}
	for _, name := range []string{"controller-manager", "scheduler"} {
		if err := s.start("kube-"+name, filepath.Join(s.binDir(), "kube-"+name), s.controllerFlags(name)...); err != nil {
			return err
		}
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	return s.forward(ctx, listener)
}

func (s *supervisor) controlNetwork(ctx context.Context) error {
	commands := []string{
		"link set lo up",
		"link add " + bridge + " type bridge",
		"addr add " + s.serverAddress() + "/24 dev " + bridge,
		"link set " + bridge + " up",
	}
	for n := range s.nodes {
		commands = append(commands, "route add "+s.podSubnet(n)+" via "+s.nodeAddress(n))
	}
	if err := ip(ctx, commands...); err != nil {
		return err
	}
	return os.WriteFile(s.networkFile(), nil, 0o644)
}

// networkFile is there when the nodes' bridge is.
func (c *Cluster) networkFile() string { return filepath.Join(c.controlDir(), "network") }

func (s *supervisor) serverFlags() []string {
	pki := func(name string) string { return filepath.Join(s.pkiDir(), name) }
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", // of the control plane's own network namespace
		"--advertise-address=" + s.serverAddress(),
		fmt.Sprintf("--secure-port=%d", serverPort),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--cert-dir=" + filepath.Join(s.controlDir(), "apiserver"),
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + pki("sa.key"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--requestheader-client-ca-file=" + pki("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--enable-aggregator-routing=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	}
}

func (s *supervisor) controllerFlags(name string) []string {
	pki := func(name string) string { return filepath.Join(s.pkiDir(), name) }
	config := pki(name + ".kubeconfig")
	flags := []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", "--leader-elect=false",
		"--cert-dir=" + filepath.Join(s.controlDir(), name),
	}
	if name == "controller-manager" {
		flags = append(flags,
			"--service-account-private-key-file="+pki("sa.key"), "--root-ca-file="+pki("ca.crt"),
			"--cluster-signing-cert-file="+pki("ca.crt"), "--cluster-signing-key-file="+pki("ca.key"),
			"--use-service-account-credentials", "--allocate-node-cidrs=false")
	}
	return flags
}

// waitForServer returns when the API server at address says that it is
// ready, or after limit with its last answer.
func (c *Cluster) waitForServer(ctx context.Context, address string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	authority, err := os.ReadFile(filepath.Join(c.pkiDir(), "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	client := &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
	last := errors.New("not asked yet")
	err = poll(ctx, 100*time.Millisecond, func() (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
		if err != nil {
			return false, err
		}
		answer, err := client.Do(request)
		if err != nil {
			last = err
			return false, nil
		}
		defer answer.Body.Close()
		last = errors.New(answer.Status)
		return answer.StatusCode == http.StatusOK, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; its last answer: %w", err, last)
	}
	if err != nil {
		return fmt.Errorf("wait for the API server: %w", err)
	}
	return nil
}

// forward gives every connection to the host's listener one to the API
// server, which is not reachable from the host otherwise.
func (s *supervisor) forward(ctx context.Context, listener net.Listener) error {
	for {
		outside, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a connection for the API server: %w", err)
		}
		go func() {
			defer outside.Close()
			var d net.Dialer
			inside, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", serverPort))
			if err != nil {
				fmt.Fprintln(os.Stderr, "reach the API server:", err)
				return
			}
			defer inside.Close()
			relay(outside, inside)
		}()
	}
}

// relay copies both ways until both sides have ended. An end in one
// direction is passed on; an error there is the other side's business.
func relay(a, b net.Conn) {
	copied := make(chan struct{})
	oneWay := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(*net.TCPConn); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			to.Close()
			from.Close()
		}
		copied <- struct{}{}
	}
	go oneWay(a, b)
	go oneWay(b, a)
	<-copied
	<-copied
}
