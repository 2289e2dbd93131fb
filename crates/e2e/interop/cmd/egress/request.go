package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// outcome is one line of standard output.
type outcome struct {
	// Request counts from 0.
	Request int `json:"request"`
	// Event is `done`, or `held` for a connection that is now being held.
	Event string `json:"event"`
	// Outcome is `ok`, `err`, or `cancelled` when the request's own cancellation ended it.
	Outcome string `json:"outcome"`
	// Error is the text as kube-apiserver's dialer or HTTP transport gives it.
	Error string `json:"error,omitempty"`
	// Bytes counts what was read through the connection: the body in mode get.
	Bytes int64 `json:"bytes"`
	// Status is the HTTP status in mode get.
	Status int `json:"status,omitempty"`
	// Pending says that the dial had not returned when the grace after the cancellation was over.
	Pending bool `json:"pending,omitempty"`
	// Millis is the time from the start of the dial to this line.
	Millis int64 `json:"millis"`
}

// request is what every one of the requests does.
type request struct {
	dial        utilnet.DialFunc
	release     context.Context
	address     string
	mode        string
	path        string
	want        string
	wantBytes   int64
	cancelAfter time.Duration
	grace       time.Duration
	timeout     time.Duration
}

var errCutShort = errors.New("no answer in time")

func (r *request) validate() error {
	if r.address == "" {
		return errors.New("-dial is required")
	}
	switch r.mode {
	case "get", "hold", "cancel":
		return nil
	default:
		return fmt.Errorf("unknown -mode %q", r.mode)
	}
}

func (r *request) run(number int, reports *reporter) {
	start := time.Now()
	tell := func(o outcome, err error) {
		o.Request = number
		o.Millis = time.Since(start).Milliseconds()
		switch {
		case err != nil && o.Outcome == "":
			o.Outcome, o.Error = "err", err.Error()
		case err != nil:
			o.Error = err.Error()
		case o.Outcome == "":
			o.Outcome = "ok"
		}
		if o.Event == "" {
			o.Event = "done"
		}
		reports.report(o)
	}
	switch r.mode {
	case "get":
		tell(r.get())
	case "hold":
		tell(r.hold(func() { tell(outcome{Event: "held"}, nil) }))
	case "cancel":
		tell(r.cancel())
	}
}

// get asks through a net/http transport with the dialer, as kube-apiserver does.
func (r *request) get() (outcome, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return r.dialWithin(ctx, address)
		},
	}
	client := http.Client{Transport: transport, Timeout: 2 * r.timeout}
	response, err := client.Get("http://" + r.address + r.path)
	if err != nil {
		return outcome{}, err
	}
	defer response.Body.Close()
	body := bodyCheck{want: r.want}
	_, err = io.Copy(&body, response.Body)
	done := outcome{Status: response.StatusCode, Bytes: body.seen}
	if err != nil {
		return done, err
	}
	expected := r.wantBytes
	if expected == 0 {
		expected = int64(len(r.want))
	}
	if expected != 0 && body.seen != expected {
		return done, fmt.Errorf("the body has %d bytes, not %d", body.seen, expected)
	}
	return done, nil
}

// hold keeps a connection until the other side ends it or standard input ends.
func (r *request) hold(held func()) (outcome, error) {
	connection, err := r.dialWithin(context.Background(), r.address)
	if err != nil {
		return outcome{}, err
	}
	held()
	stop := context.AfterFunc(r.release, func() { connection.Close() })
	defer stop()
	defer connection.Close()
	received, err := io.Copy(io.Discard, connection)
	if r.release.Err() != nil {
		err = nil
	}
	return outcome{Bytes: received}, err
}

// cancel cancels the dial's context and waits for the dial to notice.
func (r *request) cancel() (outcome, error) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(r.cancelAfter, cancel)
	defer cancel()
	result := r.dialing(ctx, r.address)
	select {
	case dialed := <-result:
		return cancelOutcome(ctx, dialed, false)
	case <-ctx.Done():
	}
	select {
	case dialed := <-result:
		return cancelOutcome(ctx, dialed, false)
	case <-time.After(r.grace):
		return cancelOutcome(ctx, dialed{err: ctx.Err()}, true)
	}
}

func cancelOutcome(ctx context.Context, d dialed, pending bool) (outcome, error) {
	o := outcome{Pending: pending}
	if ctx.Err() != nil {
		o.Outcome = "cancelled"
	}
	if d.connection != nil {
		d.connection.Close()
	}
	return o, d.err
}

type dialed struct {
	connection net.Conn
	err        error
}

// dialing starts a dial that may outlive its context: the selector's dialer looks at the context
// only until it has reached the proxy, and then waits for the proxy's answer without a limit.
func (r *request) dialing(ctx context.Context, address string) <-chan dialed {
	result := make(chan dialed, 1)
	go func() {
		connection, err := r.dial(ctx, "tcp", address)
		result <- dialed{connection, err}
	}()
	return result
}

func (r *request) dialWithin(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	select {
	case dialed := <-r.dialing(ctx, address):
		return dialed.connection, dialed.err
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w", address, errCutShort)
	}
}

// bodyCheck compares what is written to it with a text repeated without end.
type bodyCheck struct {
	want string
	seen int64
}

func (b *bodyCheck) Write(chunk []byte) (int, error) {
	if b.want == "" {
		b.seen += int64(len(chunk))
		return len(chunk), nil
	}
	for left := chunk; len(left) > 0; {
		offset := int(b.seen % int64(len(b.want)))
		length := min(len(b.want)-offset, len(left))
		if !strings.HasPrefix(b.want[offset:], string(left[:length])) {
			return 0, fmt.Errorf("the body differs within %d bytes of offset %d", length, b.seen)
		}
		b.seen += int64(length)
		left = left[length:]
	}
	return len(chunk), nil
}
