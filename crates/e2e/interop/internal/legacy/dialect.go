// Package legacy holds what the three legacy programs agree on: the QUIC settings and TLS
// identities of the dialect, the way a session is kept, and the way a tunnel is piped.
//
// The programs exist to be a peer that shares no code with Towline: another language, another
// QUIC implementation, another TLS stack.
package legacy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// ALPN is the protocol name both ends of the dialect offer.
	ALPN = "quic-echo-example"
	// ServerName is the name every agent expects in the server's certificate, whatever its address.
	ServerName = "quic-tunnel-server"

	mebibyte = 1 << 20
)

// Settings returns the dialect's QUIC settings. keepAlive is zero on the server, which never pings.
func Settings(keepAlive time.Duration) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:       2 * time.Second,
		MaxIdleTimeout:             5 * time.Second,
		KeepAlivePeriod:            keepAlive,
		MaxStreamReceiveWindow:     246 * mebibyte,
		MaxConnectionReceiveWindow: 500 * mebibyte,
		MaxIncomingStreams:         10_000,
		MaxIncomingUniStreams:      10_000,
	}
}

// ServerTLS returns the server's side: a certificate of its own, and one required of each agent.
func ServerTLS(certFile, keyFile, clientCAFile string) (*tls.Config, error) {
	config, roots, err := identity(certFile, keyFile, clientCAFile)
	if err != nil {
		return nil, err
	}
	config.ClientCAs = roots
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

// AgentTLS returns an agent's side, which insists on ServerName.
func AgentTLS(certFile, keyFile, caFile string) (*tls.Config, error) {
	config, roots, err := identity(certFile, keyFile, caFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = roots
	config.ServerName = ServerName
	return config, nil
}

func identity(certFile, keyFile, caFile string) (*tls.Config, *x509.CertPool, error) {
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %q with key %q: %w", certFile, keyFile, err)
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("certificate authority %q: %w", caFile, errNoCertificate)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{ALPN},
		MinVersion:   tls.VersionTLS13,
	}
	return config, roots, nil
}

var errNoCertificate = errors.New("no certificate in the file")
