// Package hubble holds the Hubble source to Cilium's own relay, servers and rings.
// It is a room of its own, since linking those takes minutes.
package hubble

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	rings "github.com/cilium/cilium/pkg/hubble/container"
	"github.com/cilium/cilium/pkg/hubble/observer"
	"github.com/cilium/cilium/pkg/hubble/observer/namespace"
	"github.com/cilium/cilium/pkg/hubble/observer/observeroption"
	observertypes "github.com/cilium/cilium/pkg/hubble/observer/types"
	relayserver "github.com/cilium/cilium/pkg/hubble/relay/server"
	"github.com/cilium/cilium/pkg/hubble/server"
	"github.com/cilium/cilium/pkg/hubble/server/serveroption"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/hubble"
)

// The relay, the nodes' servers, their rings and the protocol between them are
// Cilium's own; only the kernel's events are made up.

var quiet = slog.New(slog.DiscardHandler)

// asMade takes what a test made for what the kernel told.
type asMade struct{}

func (asMade) Decode(m *observertypes.MonitorEvent) (*v1.Event, error) {
	switch e := m.Payload.(type) {
	case *flowpb.Flow:
		return &v1.Event{Timestamp: e.GetTime(), Event: e}, nil
	case *flowpb.LostEvent:
		return &v1.Event{Timestamp: timestamppb.New(m.Timestamp), Event: e}, nil
	}
	return nil, fmt.Errorf("nobody made a %T", m.Payload)
}

// agent is a node with Hubble's server.
type agent struct {
	name, address string
	events        chan *observertypes.MonitorEvent
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newAgent(t *testing.T, name string, ring rings.Capacity, peers *peers) *agent {
	t.Helper()
	o, err := observer.NewLocalServer(asMade{}, namespace.NewManager(), quiet, observeroption.WithMaxFlows(ring))
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{name: name, address: free(t), events: o.GetEventsChannel()}
	options := []serveroption.Option{serveroption.WithInsecure(), serveroption.WithTCPListener(a.address), serveroption.WithObserverService(o)}
	if peers != nil {
		options = append(options, serveroption.WithPeerService(peers))
	}
	s, err := server.NewServer(quiet, options...)
	if err != nil {
		t.Fatal(err)
	}
	go o.Start()
	go s.Serve()
	// Cilium's ring hands on nothing to who follows it from before its second event;
	// a node's own health checks are more than that.
	a.send()
	a.send()
	t.Cleanup(func() {
		close(o.GetEventsChannel())
		<-o.GetStopped()
		s.Stop()
	})
	return a
}

// send writes events into the agent's ring. The newest one shows when another is
// written, so one more follows that nobody looks for.
func (a *agent) send(events ...any) {
	for _, e := range append(events, now(aFlow(3, func(f *flowpb.Flow) { f.Source.Namespace, f.Destination.Namespace = "other", "other" }))) {
		at := time.Now()
		if f, ok := e.(*flowpb.Flow); ok {
			f = proto.Clone(f).(*flowpb.Flow)
			f.NodeName, e, at = a.name, f, f.GetTime().AsTime()
		}
		a.events <- &observertypes.MonitorEvent{Timestamp: at, NodeName: a.name, Payload: e}
	}
}

// peers is the service that tells a relay of nodes.
type peers struct {
	mu      sync.Mutex
	known   []*peerpb.ChangeNotification
	watched []chan *peerpb.ChangeNotification
}

func (p *peers) change(kind peerpb.ChangeNotificationType, a *agent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &peerpb.ChangeNotification{Name: a.name, Address: a.address, Type: kind}
	if p.known = append(p.known, c); kind == peerpb.ChangeNotificationType_PEER_DELETED {
		p.known = slices.DeleteFunc(p.known, func(c *peerpb.ChangeNotification) bool { return c.Name == a.name })
	}
	for _, w := range p.watched {
		w <- c
	}
}

func (p *peers) Notify(_ *peerpb.NotifyRequest, stream peerpb.Peer_NotifyServer) error {
	more := make(chan *peerpb.ChangeNotification, 16)
	p.mu.Lock()
	known := slices.Clone(p.known)
	p.watched = append(p.watched, more)
	p.mu.Unlock()
	for _, c := range known {
		if err := stream.Send(c); err != nil {
			return err
		}
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case c := <-more:
			if err := stream.Send(c); err != nil {
				return err
			}
		}
	}
}

func (p *peers) Close() error { return nil }

// relayEnv asks this program to be a relay: Cilium's can be made once a process.
const relayEnv = "AUTOPOLICY_TEST_RELAY"

// relaySettings are what a relay is started with.
type relaySettings struct {
	Address, Health, Peers string
	TLS                    string // folder of its certificate; none: no TLS
	Mutual                 bool
}

func TestMain(m *testing.M) {
	text := os.Getenv(relayEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c relaySettings
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.run()
	}
	fmt.Fprintln(os.Stderr, "relay:", err)
	os.Exit(1)
}

func (c relaySettings) run() error {
	security := relayserver.WithInsecureServer()
	if c.TLS != "" {
		security = relayserver.WithServerTLS(serverTLS{c.TLS, c.Mutual})
	}
	s, err := relayserver.New(relayserver.WithLogger(quiet), relayserver.WithPeerTarget(c.Peers), relayserver.WithListenAddress(c.Address),
		relayserver.WithHealthListenAddress(c.Health), relayserver.WithInsecureClient(), security, relayserver.WithRetryTimeout(100*time.Millisecond),
		relayserver.WithSortBufferDrainTimeout(50*time.Millisecond))
	if err != nil {
		return err
	}
	return s.Serve()
}

// newRelay starts a relay and gives what stops it.
func newRelay(t *testing.T, p *place, tlsFolder string, mutual bool) (stop func()) {
	t.Helper()
	text, err := json.Marshal(relaySettings{p.relay, free(t), p.agents[0].address, tlsFolder, mutual})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	relay := exec.Command(self)
	relay.Env, relay.Stderr = append(os.Environ(), relayEnv+"="+string(text)), os.Stderr
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		relay.Process.Kill()
		relay.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// place is a cluster's Hubble: a relay before some nodes.
type place struct {
	peers   *peers
	agents  []*agent
	relay   string
	started time.Time
}

func newPlace(t *testing.T, nodes int, ring rings.Capacity) *place {
	t.Helper()
	p := &place{peers: &peers{}, relay: free(t), started: time.Now()}
	for i := range nodes {
		of := p.peers
		if i > 0 {
			of = nil
		}
		a := newAgent(t, fmt.Sprint("node-", i+1), ring, of)
		p.agents = append(p.agents, a)
		p.peers.change(peerpb.ChangeNotificationType_PEER_ADDED, a)
	}
	return p
}

func (p *place) source(security source.TLS) (*hubble.Source, error) {
	c, err := security.Config()
	if err != nil {
		return nil, err
	}
	return hubble.New(hubble.Options{Connect: source.Connector(p.relay, nil, c), Namespace: "shop", History: time.Hour}), nil
}

// follow runs the source until what is asked of it is true, which must be soon.
func follow(t *testing.T, s *hubble.Source, until func(source.Progress) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	reached := false
	_, err := source.Follow(ctx, source.Watch{Most: time.Hour}, time.Now, s, func(p source.Progress) {
		if reached = reached || until(p); reached {
			cancel()
		}
	})
	if !reached {
		t.Fatalf("it never came so far: %v, %+v", err, s.Look())
	}
}

// ready waits until the relay answers for so many nodes.
func ready(t *testing.T, s *hubble.Source, nodes int) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		version, n, err := s.Check(context.Background())
		if err == nil && n >= nodes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay speaks for %d of %d nodes (%s): %v", n, nodes, version, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// now gives the flow the time of the wall, which relays sort and cut off by.
func now(f *flowpb.Flow) *flowpb.Flow {
	f.Time = timestamppb.Now()
	return f
}

func TestARelaysHistoryAndWhatFollowsBecomeFacts(t *testing.T) {
	p := newPlace(t, 2, rings.Capacity1023)
	p.agents[0].send(now(aFlow(1, nil)), now(aFlow(2, aDenial)))
	newRelay(t, p, "", false)
	s, err := p.source(source.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	ready(t, s, 2)
	sent := false
	follow(t, s, func(at source.Progress) bool {
		if at.Facts >= 2 && !sent {
			sent = true
			p.agents[1].send(now(aFlow(3, nil)), now(aFlow(1, http("GET", "http://api:8080/cart?token=s"))), &flowpb.LostEvent{Source: flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, NumEventsLost: 7})
			p.agents[1].send()
		}
		return at.Facts >= 4 && at.Lost >= 7
	})
	r := s.Result(shop())
	profile := r.Profiles[web]
	got := texts(profile)
	want := []string{"a program asks shop/pod-api-1 for GET api:8080/cart on port 8080", "a program connects to shop/pod-api-1 on tcp/8080", "a program connects to shop/pod-api-1 on tcp/8082"}
	for _, text := range want {
		if !slices.Contains(got, text) {
			t.Errorf("no fact %q in %q", text, got)
		}
	}
	if len(r.Denials) != 1 || r.Denials[0].Policy != "shop/deny" || strings.Contains(fmt.Sprint(got), "8081") {
		t.Errorf("denials are %v, facts are %q", r.Denials, got)
	}
	// Cilium says a lost event's node by the process, which here is the same for both
	// and none that the cluster knows: so it is everybody's.
	missed := uint64(0)
	for reason, n := range profile.Coverage.Lost {
		if strings.HasSuffix(reason, ": Hubble's kernel ring was full") {
			missed += n
		}
	}
	if missed != 7 {
		t.Errorf("lost is %v", profile.Coverage.Lost)
	}
	if pod := profile.Coverage.Pods["web-1"]; pod.Node != "node-1" || pod.To.Before(p.started.Add(-time.Second)) {
		t.Errorf("coverage of web-1 is %+v", pod)
	}
	if hooks := profile.Coverage.Hooks; len(hooks[behavior.Process]) != 0 || len(hooks[behavior.Network]) != 1 || len(hooks[behavior.HTTP]) != 1 {
		t.Errorf("it claims to have watched %v", hooks)
	}
}

func TestARelayThatGoesAwayIsAskedAgainForWhatItMissed(t *testing.T) {
	for name, c := range map[string]struct {
		ring   rings.Capacity
		before int // flows that filled the ring
		lost   bool
	}{
		"the ring reaches back":         {rings.Capacity1023, 2, false},
		"the ring was full and may not": {rings.Capacity127, 300, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, 1, c.ring)
			for range c.before {
				p.agents[0].send(now(aFlow(1, nil)))
			}
			stop := newRelay(t, p, "", false)
			s, err := p.source(source.TLS{})
			if err != nil {
				t.Fatal(err)
			}
			ready(t, s, 1)
			step := 0
			follow(t, s, func(at source.Progress) bool {
				switch {
				case step == 0 && at.Facts == 1:
					step++
					stop()
				case step == 1 && at.Broken != nil:
					step++
					p.agents[0].send(now(aFlow(3, nil)))
					newRelay(t, p, "", false)
				}
				return step == 2 && at.Facts == 2
			})
			profile := s.Result(shop()).Profiles[web]
			if n := len(texts(profile)); n != 2 {
				t.Errorf("facts are %q", texts(profile))
			}
			if lost := profile.Coverage.Lost["node-1: Hubble was not connected, and its ring does not reach back"]; (lost > 0) != c.lost {
				t.Errorf("lost is %v, want it to be said: %v", profile.Coverage.Lost, c.lost)
			}
			for f, e := range profile.Facts.All() {
				if f.Port == 8080 && e.Count() > uint64(c.before) {
					t.Errorf("%s was counted %d times, and was sent %d times", f, e.Count(), c.before)
				}
			}
		})
	}
}

func TestNodesThatComeAndGoStandInTheCoverage(t *testing.T) {
	p := newPlace(t, 2, rings.Capacity1023)
	for _, a := range p.agents {
		a.send(now(aFlow(1, nil)))
	}
	newRelay(t, p, "", false)
	s, err := p.source(source.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	ready(t, s, 2)
	var late *agent
	gone := false
	follow(t, s, func(at source.Progress) bool {
		switch {
		case late == nil && at.Facts >= 1:
			late = newAgent(t, "node-3", rings.Capacity1023, nil)
			late.send(now(aFlow(9, func(f *flowpb.Flow) { f.Source.PodName = "web-2" })))
			p.peers.change(peerpb.ChangeNotificationType_PEER_ADDED, late)
		case late != nil && !gone && at.Facts >= 2:
			gone = true
			p.peers.change(peerpb.ChangeNotificationType_PEER_DELETED, p.agents[1])
		}
		return gone && len(s.Result(shop()).Nodes) > 0
	})
	r := s.Result(shop())
	if c := r.Profiles[web].Coverage; c.Pods["web-2"].Node != "node-3" {
		t.Errorf("the node that came late: %+v", c.Pods)
	}
	if c := r.Profiles[api].Coverage; len(c.Gaps) == 0 || !strings.HasPrefix(c.Gaps[0], "node node-2: ") {
		t.Errorf("the node that went: %q, and %v", c.Gaps, r.Nodes)
	}
}

func TestARelayWithTLSIsTrustedByItsCertificateOnly(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	other := newAuthority(t, dir, "other")
	ca.issue(t, dir, "relay")
	ca.issue(t, dir, "me")
	other.issue(t, dir, "stranger")
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct {
		mutual bool
		use    source.TLS
		fails  string // empty: it works
	}{
		"TLS with its authority":                         {false, source.TLS{CAs: []string{in("ca.pem")}, ServerName: "relay.example"}, ""},
		"TLS with one authority of several":              {false, source.TLS{CAs: []string{in("other.pem"), in("ca.pem")}, ServerName: "relay.example"}, ""},
		"TLS with another authority":                     {false, source.TLS{CAs: []string{in("other.pem")}, ServerName: "relay.example"}, "unknown authority"},
		"TLS with the system's authorities":              {false, source.TLS{On: true, ServerName: "relay.example"}, "certificate"},
		"TLS under another name":                         {false, source.TLS{CAs: []string{in("ca.pem")}, ServerName: "elsewhere.example"}, "elsewhere.example"},
		"no TLS where the relay wants it":                {false, source.TLS{}, "ask Hubble how it is"},
		"a client certificate":                           {true, source.TLS{CAs: []string{in("ca.pem")}, ServerName: "relay.example", Cert: in("me.pem"), Key: in("me.key")}, ""},
		"no client certificate where the relay wants it": {true, source.TLS{CAs: []string{in("ca.pem")}, ServerName: "relay.example"}, "ask Hubble how it is"},
		"a client certificate of another authority":      {true, source.TLS{CAs: []string{in("ca.pem")}, ServerName: "relay.example", Cert: in("stranger.pem"), Key: in("stranger.key")}, "ask Hubble how it is"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, 1, rings.Capacity127)
			p.agents[0].send(now(aFlow(1, nil)))
			newRelay(t, p, dir, c.mutual)
			s, err := p.source(c.use)
			if err != nil {
				t.Fatal(err)
			}
			if c.fails == "" {
				ready(t, s, 1)
				follow(t, s, func(at source.Progress) bool { return at.Facts == 1 })
				return
			}
			_, _, err = s.Check(context.Background())
			for deadline := time.Now().Add(40 * time.Second); err != nil && strings.Contains(err.Error(), "connection refused") && time.Now().Before(deadline); {
				<-time.After(50 * time.Millisecond)
				_, _, err = s.Check(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("got %v, want an error with %q", err, c.fails)
			}
		})
	}
}

// serverTLS gives the relay its certificate, from a folder.
type serverTLS struct {
	dir    string
	mutual bool
}

func (s serverTLS) IsMutualTLS() bool { return s.mutual }

func (s serverTLS) ServerConfig(base *tls.Config) *tls.Config {
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "relay.pem"), filepath.Join(s.dir, "relay.key"))
	if err != nil {
		panic(err) // the test that started this relay meets its end
	}
	base.Certificates = []tls.Certificate{pair}
	if s.mutual {
		data, err := os.ReadFile(filepath.Join(s.dir, "ca.pem"))
		if err != nil {
			panic(err) // as above
		}
		base.ClientCAs, base.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		base.ClientCAs.AppendCertsFromPEM(data)
	}
	return base
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.make(t, dir, name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) issue(t *testing.T, dir, name string) {
	t.Helper()
	a.make(t, dir, name, &x509.Certificate{DNSNames: []string{name + ".example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
}

func (a *authority) make(t *testing.T, dir, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
