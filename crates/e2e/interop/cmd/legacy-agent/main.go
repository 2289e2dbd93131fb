// Command legacy-agent is the CONNECT agent of the legacy dialect: a net/http server on the streams
// of its session, which hijacks what it has accepted.
//
// What net/http then really sends is part of what it tests: a 200 carries `Date` and
// `Transfer-Encoding: chunked`, and raw bytes follow all the same; a refusal leaves the stream
// open for the next request; nothing ends the stream while the other side still sends.
//
// Its standard output says `connected ADDRESS` for each session. It exits when its standard input
// ends.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/quic-go/quic-go"

	"towline.example/interop/internal/legacy"
)

func main() {
	var flags legacy.AgentFlags
	flags.Register()
	flag.Parse()
	legacy.Fatal(flags.Keep(func(session quic.Connection) error {
		return http.Serve(streamListener{session}, http.HandlerFunc(connect))
	}))
}

// connect serves one request. A refusal is always 400 with the operating system's words, or 405.
func connect(answer http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodConnect {
		http.Error(answer, "this proxy only supports CONNECT passthrough", http.StatusMethodNotAllowed)
		return
	}
	target, err := net.Dial("tcp", request.RequestURI)
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	defer target.Close()

	answer.WriteHeader(http.StatusOK)
	stream, buffered, err := answer.(http.Hijacker).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer stream.Close()
	splice(target, stream, buffered)
}

// splice copies until both directions have ended, and tells neither side of the other's end.
// buffered holds what the server sent right behind its head, and reads on from the stream.
func splice(target, stream net.Conn, buffered io.Reader) {
	var copies sync.WaitGroup
	copies.Go(func() {
		if _, err := io.Copy(target, buffered); err != nil {
			log.Printf("to %s: %v", target.RemoteAddr(), err)
		}
	})
	copies.Go(func() {
		if _, err := io.Copy(stream, target); err != nil {
			log.Printf("from %s: %v", target.RemoteAddr(), err)
		}
	})
	copies.Wait()
}

// streamListener lets net/http accept the streams of a session as if they were connections.
type streamListener struct{ session quic.Connection }

func (l streamListener) Accept() (net.Conn, error) {
	stream, err := l.session.AcceptStream(context.Background())
	if err != nil {
		return nil, err
	}
	return streamConn{stream, l.session}, nil
}

// Close leaves the session to its owner, which closes it when serving has ended.
func (l streamListener) Close() error { return nil }

func (l streamListener) Addr() net.Addr { return l.session.LocalAddr() }

// streamConn is a stream with the addresses of its session. Closing it ends the sending side only.
type streamConn struct {
	quic.Stream
	session quic.Connection
}

func (c streamConn) LocalAddr() net.Addr { return c.session.LocalAddr() }

func (c streamConn) RemoteAddr() net.Addr { return c.session.RemoteAddr() }
