// Command kimg turns containers and images of a containers/storage store into OCI or Docker images, with no daemon.
//
// One file holds one command: an options struct, its flags and a run function that makes one library call and prints the
// result. What commands share is in app.go (the global flags, the store), output.go (tables, templates, JSON), errors.go
// (exit codes, the one error line) and signals.go.
package main

import (
	"os"

	"github.com/containers/storage/pkg/reexec"

	_ "github.com/kimg/kimg/internal/shortlife" // nothing is collected while the program starts
	"github.com/kimg/kimg/store/userns"
)

func main() {
	// Children of this very program (extracting layers, entering a namespace) take over here and never come back.
	if reexec.Init() {
		return
	}
	userns.Init()
	os.Exit(run(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
