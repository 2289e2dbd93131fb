// Command egress dials through a proxy with the egress selector of k8s.io/apiserver, which is the
// code kube-apiserver dials with, and says what came of it.
//
// Standard output has one JSON object a line, one for each request (see [outcome]), and in mode
// `hold` a second one when a held connection ends. It exits with status 0 when every request has
// been reported, whatever its outcome, and with 2 when the configuration cannot be used.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

func main() {
	var set substitutions
	config := flag.String("config", "", "EgressSelectorConfiguration `file`")
	flag.Var(&set, "set", "replace `old=new` in the text of the configuration; may be repeated")
	egress := flag.String("type", "cluster", "egress `type`: cluster, controlplane or etcd")
	var r request
	flag.StringVar(&r.address, "dial", "", "`host:port` to reach")
	flag.StringVar(&r.mode, "mode", "get",
		"`what` to do: get (HTTP GET), hold (until either side ends) or cancel (while dialing)")
	flag.DurationVar(&r.cancelAfter, "cancel-after", 200*time.Millisecond,
		"in mode cancel, how long after the start of the dial")
	flag.DurationVar(&r.grace, "grace", 2*time.Second,
		"in mode cancel, how long the dial may take to notice")
	flag.DurationVar(&r.timeout, "timeout", 30*time.Second, "for the dial, and again for the GET")
	flag.StringVar(&r.path, "path", "/", "in mode get, what to ask for")
	flag.StringVar(&r.want, "want", "", "in mode get, `text` the body must repeat; empty accepts any")
	flag.Int64Var(&r.wantBytes, "want-bytes", 0,
		"in mode get, the body's exact length; 0 is once the -want text")
	count := flag.Int("count", 1, "how many requests")
	parallel := flag.Int("parallel", 1, "how many of them at a time; in mode hold always all")
	flag.Parse()

	dial, err := loadDialer(*config, set, *egress)
	if err == nil {
		err = r.validate()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	r.dial = dial
	if r.mode == "hold" {
		r.release = stdinEnd()
		*parallel = *count
	}
	r.runAll(*count, *parallel)
}

// runAll reports count requests, parallel at a time.
func (r *request) runAll(count, parallel int) {
	var reports reporter
	var workers sync.WaitGroup
	numbers := make(chan int)
	for range max(parallel, 1) {
		workers.Go(func() {
			for number := range numbers {
				r.run(number, &reports)
			}
		})
	}
	for number := range count {
		numbers <- number
	}
	close(numbers)
	workers.Wait()
}

// stdinEnd returns a context that is done when standard input ends.
func stdinEnd() context.Context {
	ended, end := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		end()
	}()
	return ended
}

// reporter writes whole lines, one at a time.
type reporter struct{ mu sync.Mutex }

func (r *reporter) report(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// substitutions are the values of -set.
type substitutions [][2]string

func (s *substitutions) String() string { return "" }

func (s *substitutions) Set(value string) error {
	from, to, found := strings.Cut(value, "=")
	if !found || from == "" {
		return fmt.Errorf("%q is not old=new", value)
	}
	*s = append(*s, [2]string{from, to})
	return nil
}
