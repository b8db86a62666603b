package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// TLS says how to trust a relay, and what to show it. The zero value is no TLS.
type TLS struct {
	On         bool     // also on when any other field is set
	CAs        []string // files; none means those of the system
	Cert, Key  string   // files; both or none
	ServerName string   // to expect in the relay's certificate; empty: the address's
}

// ErrTLS is what a mistake in the TLS settings is.
var ErrTLS = errors.New("TLS settings")

// Config reads the files.
func (t TLS) Config() (*tls.Config, error) {
	if !t.On && len(t.CAs) == 0 && t.Cert == "" && t.Key == "" && t.ServerName == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if (t.Cert == "") != (t.Key == "") {
		return nil, fmt.Errorf("%w: a client certificate needs its key, and a key its certificate", ErrTLS)
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: read the client certificate: %w", ErrTLS, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	for _, name := range t.CAs {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%w: read the authority: %w", ErrTLS, err)
		}
		if c.RootCAs == nil {
			c.RootCAs = x509.NewCertPool()
		}
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%w: %s holds no certificate in PEM", ErrTLS, name)
		}
	}
	return c, nil
}

// Connector makes connections to a relay: to an address, or over what dial gives.
func Connector(address string, dial func(context.Context) (net.Conn, error), t *tls.Config) func(context.Context) (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if t != nil {
		security = credentials.NewTLS(t)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(security), grpc.WithNoProxy()}
	if dial != nil {
		address = "passthrough:///relay"
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	}
	return func(context.Context) (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient(address, options...)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
		return conn, nil
	}
}
