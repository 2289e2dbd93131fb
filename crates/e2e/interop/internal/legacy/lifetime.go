package legacy

import (
	"fmt"
	"io"
	"os"
)

// ExitWithStdin ends the process when its standard input ends, which is when the test that
// started it is gone, however that test ended.
func ExitWithStdin() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
}

// Announce writes one line to standard output, in one write, for the test that started the process.
func Announce(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

// Fatal reports why the program cannot start and exits with status 2.
func Fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}
