package view_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kimg/kimg/layerdiff/view"
)

// What the kernel would show of two layers, without a mount.
func Example() {
	dir, err := os.MkdirTemp("", "kimg-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for _, path := range []string{"upper/etc/motd", "lower/etc/passwd", "lower/usr/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			fmt.Println(err)
		}
	}
	root, err := view.Open(view.UserPrefix, []string{filepath.Join(dir, "upper"), filepath.Join(dir, "lower")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	etc, err := root.Child("etc")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer etc.Close()
	for _, d := range []*view.Dir{root, etc} {
		names, err := d.Names()
		if err != nil {
			fmt.Println(err)
		}
		for _, n := range names {
			fmt.Print(n.Name, " ")
		}
		fmt.Println("in", d.Len())
	}
	// Output:
	// etc usr in 2
	// motd passwd in 2
}
