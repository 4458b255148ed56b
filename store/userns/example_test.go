package userns_test

import (
	"fmt"
	"os"

	"github.com/containers/storage/pkg/reexec"

	"github.com/kimg/kimg"
	"github.com/kimg/kimg/store/userns"
)

// The beginning of a command's main.
func Example() {
	if reexec.Init() {
		return
	}
	userns.Init()
	if userns.Needed() {
		status, err := userns.Run(userns.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, kimg.Line(err))
			status = 1
		}
		os.Exit(status)
	}
	// From here on the program is root, of the machine or of a namespace.
}

// On the host every path is reached as it is.
func ExampleOutside() {
	path, err := userns.Outside("/srv/tree")
	fmt.Println(path, err)
	// Output: /srv/tree <nil>
}
