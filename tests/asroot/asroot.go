// Package asroot lets the tests of a package run as an ordinary user, as kimg itself does.
package asroot

import (
	"fmt"
	"os"

	"github.com/containers/storage/pkg/reexec"

	"github.com/kimg/kimg/store/userns"
)

// Enter is the first statement of TestMain. For root it does nothing. For an ordinary user it runs this test binary again
// in a user namespace where he is root and exits with its status. In the children that it and containers/storage start,
// it takes over and does not return.
func Enter() {
	if reexec.Init() {
		os.Exit(0)
	}
	userns.Init()
	if !userns.Needed() {
		return
	}
	status, err := userns.Run(userns.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}
