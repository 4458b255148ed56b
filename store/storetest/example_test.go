package storetest_test

import (
	"fmt"

	"github.com/kimg/kimg/store/storetest"
)

// What is tested. A program runs it on the stores that it opens itself:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t testing.TB) *store.Store { return store.Wrap(open(t)) })
//	}
func Example() {
	for _, test := range storetest.Tests() {
		fmt.Println(test.Name)
	}
	// Output:
	// layers
	// images
	// containers
	// mounts
	// work layers
	// holds
	// refused
}
