package legacy

import (
	"context"
	"flag"
	"log"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	keepAlive  = 2 * time.Second
	redialWait = 200 * time.Millisecond

	// closeCode and closeReason are what a dialect agent sends when it gives a session up.
	closeCode   = 100
	closeReason = "die"
)

// AgentFlags are the flags that both agents have.
type AgentFlags struct {
	server, caFile, certFile, certKey string
}

// Register adds the flags to the program's command line.
func (f *AgentFlags) Register() {
	flag.StringVar(&f.server, "server", "127.0.0.1:9999", "`host:port` of the server, over QUIC")
	flag.StringVar(&f.caFile, "ca-file", "", "`file` with the authority of the server's certificate")
	flag.StringVar(&f.certFile, "cert-file", "", "`file` with the agent's certificate")
	flag.StringVar(&f.certKey, "cert-key", "", "`file` with the key of the agent's certificate")
}

// Keep holds one session to the server, dialing again when it is lost, and gives each to serve.
// It announces `connected ADDRESS` for each session. It returns only when it cannot start.
func (f *AgentFlags) Keep(serve func(quic.Connection) error) error {
	tlsConfig, err := AgentTLS(f.certFile, f.certKey, f.caFile)
	if err != nil {
		return err
	}
	ExitWithStdin()
	for ; ; time.Sleep(redialWait) {
		session, err := quic.DialAddr(context.Background(), f.server, tlsConfig, Settings(keepAlive))
		if err != nil {
			log.Printf("dial %s: %v", f.server, err)
			continue
		}
		Announce("connected %s", session.RemoteAddr())
		log.Printf("session with %s: %v", f.server, serve(session))
		session.CloseWithError(closeCode, closeReason)
	}
}
