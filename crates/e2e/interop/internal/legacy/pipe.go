package legacy

import (
	"io"
	"sync"

	"github.com/quic-go/quic-go"
)

// Pipe copies both ways between a socket and a tunnel stream and returns when both copies are done.
//
// The dialect knows no half-close: the first end, in either direction, closes the socket and
// finishes the stream's sending side. The receiving side is never cancelled, so a peer that goes
// on sending fills a window that is not read. A peer of this dialect has to live with both.
func Pipe(socket io.ReadWriteCloser, stream quic.Stream) {
	var once sync.Once
	end := func() {
		once.Do(func() {
			socket.Close()
			stream.Close()
		})
	}
	var copies sync.WaitGroup
	copies.Go(func() {
		defer end()
		io.Copy(stream, socket)
	})
	copies.Go(func() {
		defer end()
		io.Copy(socket, stream)
	})
	copies.Wait()
}
