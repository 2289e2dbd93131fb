// Command legacy-server is the server of the legacy dialect: a TCP connection it accepts becomes
// one stream of one agent's session, and the bytes pass as they come. It understands no HTTP.
//
// Its standard output says `listening tcp=ADDRESS quic=ADDRESS` once, then `agents N` whenever the
// number of sessions changes. It exits when its standard input ends.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"slices"
	"sync"

	"github.com/quic-go/quic-go"

	"towline.example/interop/internal/legacy"
)

func main() {
	listenTCP := flag.String("listen-tcp", "0.0.0.0:8443", "`address` for clients")
	listenQUIC := flag.String("listen-quic", "0.0.0.0:8888", "`address` for agents")
	certFile := flag.String("cert-file", "", "`file` with the server's certificate")
	certKey := flag.String("cert-key", "", "`file` with the key of the server's certificate")
	clientCAFile := flag.String("client-ca-file", "", "`file` with the authority of the agents")
	flag.Parse()

	tlsConfig, err := legacy.ServerTLS(*certFile, *certKey, *clientCAFile)
	if err != nil {
		legacy.Fatal(err)
	}
	clients, err := net.Listen("tcp", *listenTCP)
	if err != nil {
		legacy.Fatal(err)
	}
	agents, err := quic.ListenAddr(*listenQUIC, tlsConfig, legacy.Settings(0))
	if err != nil {
		legacy.Fatal(err)
	}
	legacy.ExitWithStdin()
	legacy.Announce("listening tcp=%s quic=%s", clients.Addr(), agents.Addr())

	var pool pool
	go pool.acceptAgents(agents)
	for {
		client, err := clients.Accept()
		if err != nil {
			legacy.Fatal(err)
		}
		go pool.tunnel(client)
	}
}

// pool holds the sessions, and whose turn it is.
type pool struct {
	mu       sync.Mutex
	sessions []quic.Connection
	turn     int
}

func (p *pool) acceptAgents(listener *quic.Listener) {
	for {
		session, err := listener.Accept(context.Background())
		if err != nil {
			legacy.Fatal(err)
		}
		p.change(func() { p.sessions = append(p.sessions, session) })
		go func() {
			<-session.Context().Done()
			log.Printf("agent %s: %v", session.RemoteAddr(), context.Cause(session.Context()))
			p.change(func() {
				gone := func(other quic.Connection) bool { return other == session }
				p.sessions = slices.DeleteFunc(p.sessions, gone)
			})
		}()
	}
}

// change runs edit under the lock and announces the outcome, so that announcements keep its order.
func (p *pool) change(edit func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit()
	legacy.Announce("agents %d", len(p.sessions))
}

func (p *pool) next() quic.Connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) == 0 {
		return nil
	}
	p.turn = (p.turn + 1) % len(p.sessions)
	return p.sessions[p.turn]
}

// tunnel joins one client to one stream. A client that finds no agent is closed without a word.
func (p *pool) tunnel(client net.Conn) {
	session := p.next()
	if session == nil {
		client.Close()
		return
	}
	stream, err := session.OpenStreamSync(session.Context())
	if err != nil {
		log.Printf("open stream to %s: %v", session.RemoteAddr(), err)
		client.Close()
		return
	}
	legacy.Pipe(client, stream)
}
