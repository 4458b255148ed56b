package kimg_test

import (
	"errors"
	"fmt"

	"github.com/kimg/kimg"
)

// A failure keeps its class through every wrapping, kimg's or not, and is one line.
func Example() {
	err := kimg.Errorf(kimg.ErrNotFound, "debian:\x1b[31m", "no image of that name")
	err = kimg.Wrap("container box", err)
	err = fmt.Errorf("cannot begin: %w", err)
	fmt.Println(errors.Is(err, kimg.ErrNotFound), kimg.ClassOf(err))
	fmt.Println(kimg.Line(err))
	// Output:
	// true notfound
	// notfound: cannot begin: container box: debian:\x1b[31m: no image of that name
}
