package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identity is a certificate and its key, signed by an authority.
type identity struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
	keyPEM  []byte
}

// subject is what a certificate says about its holder.
type subject struct {
	name      string
	groups    []string
	addresses []string
	dnsNames  []string
}

// sign makes a key and a certificate for s. Without an authority the
// certificate signs itself and may sign others.
func sign(authority *identity, s subject, now time.Time) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", s.name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number for %s: %w", s.name, err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.name, Organization: s.groups},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    s.dnsNames,
	}
	for _, a := range s.addresses {
		cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(a))
	}
	parent, signer := cert, key
	if authority == nil {
		cert.IsCA, cert.BasicConstraintsValid, cert.ExtKeyUsage = true, true, nil
		cert.KeyUsage |= x509.KeyUsageCertSign
	} else {
		parent, signer = authority.cert, authority.key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", s.name, err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read back the certificate of %s: %w", s.name, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key of %s: %w", s.name, err)
	}
	return &identity{
		cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

func (i *identity) write(dir, name string) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), i.certPEM, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), i.keyPEM, 0o600)
}

// issuer writes key pairs and kubeconfigs of one cluster into dir.
type issuer struct {
	dir       string
	context   string
	authority *identity
	now       time.Time
}

// pair issues a key pair as NAME.crt and NAME.key.
func (i *issuer) pair(name string, s subject) error {
	id, err := sign(i.authority, s, i.now)
	if err != nil {
		return err
	}
	return id.write(i.dir, name)
}

// kubeconfig issues a client identity and writes a kubeconfig with it.
func (i *issuer) kubeconfig(file, server string, s subject) error {
	id, err := sign(i.authority, s, i.now)
	if err != nil {
		return err
	}
	type named = map[string]any
	// JSON is YAML, and encodes []byte as base64, as the file wants it.
	data, err := json.MarshalIndent(named{
		"apiVersion": "v1", "kind": "Config", "current-context": i.context,
		"clusters": []named{{"name": i.context, "cluster": named{"server": server, "certificate-authority-data": i.authority.certPEM}}},
		"users":    []named{{"name": i.context, "user": named{"client-certificate-data": id.certPEM, "client-key-data": id.keyPEM}}},
		"contexts": []named{{"name": i.context, "context": named{"cluster": i.context, "user": i.context}}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode kubeconfig %s: %w", file, err)
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

// writePKI makes every certificate and kubeconfig that the cluster's
// programs need. hostServer is the API server's URL for tools on the host.
func (c *Cluster) writePKI(nodes int, hostServer string, now time.Time) error {
	authority, err := sign(nil, subject{name: "cluster-" + c.name}, now)
	if err != nil {
		return err
	}
	inside := fmt.Sprintf("https://%s:%d", c.serverAddress(), serverPort)
	i := &issuer{dir: c.pkiDir(), context: c.name, authority: authority, now: now}
	if err := authority.write(i.dir, "ca"); err != nil {
		return err
	}
	pairs := map[string]subject{
		"apiserver": {
			name: "kube-apiserver", addresses: []string{"127.0.0.1", c.serverAddress(), serviceServer},
			dnsNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		},
		"apiserver-kubelet-client": {name: "apiserver-kubelet-client", groups: []string{"system:masters"}},
		"front-proxy-client":       {name: "front-proxy-client"},
		"sa":                       {name: "service-accounts"},
	}
	clients := map[string]subject{
		"controller-manager": {name: "system:kube-controller-manager"},
		"scheduler":          {name: "system:kube-scheduler"},
		"proxy":              {name: "system:kube-proxy"},
		"cilium":             {name: "cilium", groups: []string{"system:masters"}},
	}
	for n := range nodes {
		node := subject{name: "system:node:" + nodeName(n), groups: []string{"system:nodes"}}
		clients[nodeName(n)] = node
		node.addresses, node.dnsNames = []string{c.nodeAddress(n), "127.0.0.1"}, []string{nodeName(n)}
		pairs[nodeName(n)+"-serving"] = node
	}
	for name, s := range pairs {
		if err := i.pair(name, s); err != nil {
			return err
		}
	}
	for name, s := range clients {
		if err := i.kubeconfig(filepath.Join(i.dir, name+".kubeconfig"), inside, s); err != nil {
			return err
		}
	}
	admin := subject{name: "admin", groups: []string{"system:masters"}}
	return i.kubeconfig(c.Kubeconfig(), hostServer, admin)
}
