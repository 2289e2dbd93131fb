// Command legacy-agent-tcp is the passthrough agent of the legacy dialect: each stream of its
// session is raw bytes for one TCP connection to a fixed upstream.
//
// Its standard output says `connected ADDRESS` for each session. It exits when its standard input
// ends.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"

	"github.com/quic-go/quic-go"

	"towline.example/interop/internal/legacy"
)

func main() {
	var flags legacy.AgentFlags
	flags.Register()
	upstream := flag.String("upstream", "", "`host:port` every stream is connected to")
	flag.Parse()
	if *upstream == "" {
		legacy.Fatal(errors.New("--upstream is required"))
	}
	legacy.Fatal(flags.Keep(func(session quic.Connection) error {
		for {
			stream, err := session.AcceptStream(context.Background())
			if err != nil {
				return err
			}
			go passthrough(stream, *upstream)
		}
	}))
}

// passthrough serves one stream. An upstream that cannot be reached is an early, silent end of it.
func passthrough(stream quic.Stream, upstream string) {
	socket, err := net.Dial("tcp", upstream)
	if err != nil {
		log.Print(err)
		stream.Close()
		return
	}
	legacy.Pipe(socket, stream)
}
